//! The one program, `slipstream`: both kinds of node as subcommands, and the client commands.
//!
//! The client commands speak HTTP to a node, and nothing else: they know no bucket. Data goes to
//! standard output, everything else to standard error; the exit status is 0, 1 (the request
//! failed) or 2 (usage).

#![allow(
    clippy::print_stdout,
    clippy::print_stderr,
    reason = "a program for people to read"
)]

mod apply;
mod attachment;
mod client;
mod demo;
mod format;
mod health;
mod ingest;
mod invitations;
mod shell;
mod show;
mod simulate;
mod sql;
mod token;
mod warm;

use std::process::ExitCode;

use clap::{Parser, Subcommand};

/// One copy of the data, many query clusters.
#[derive(Debug, Parser)]
#[command(name = "slipstream", version, max_term_width = 100, after_help = EXAMPLES)]
struct Arguments {
    #[command(subcommand)]
    command: Command,
}

const EXAMPLES: &str = "\
Try it:
  slipstream demo                                  a leader and a follower on real data

By hand, each in a terminal of its own, in one folder:
  slipstream leader
  slipstream follower
  slipstream sql \"CREATE DATABASE nyc\"
  slipstream ingest -d nyc -t flights --create flights.csv.gz
  slipstream attach --leader leader --database nyc
  slipstream sql --url http://127.0.0.1:7421 -d nyc \"SELECT count(*) FROM flights\"";

#[derive(Debug, Subcommand)]
enum Command {
    /// Run a leader: own databases in one bucket, take rows in, tell followers.
    Leader(slipstream_leader::LeaderArgs),
    /// Run a follower: attach databases of leaders, and answer read-only SQL.
    Follower(slipstream_follower::FollowerArgs),
    /// Run SQL: one request, a file, or an interactive shell.
    Sql(sql::SqlArgs),
    /// Take files into a table of a leader.
    Ingest(ingest::IngestArgs),
    /// Make a follower follow a database.
    Attach(attachment::AttachArgs),
    /// Make a follower stop following. The leader's data stays as it is.
    Detach(attachment::DetachArgs),
    /// Let another cluster attach a database of a leader, by a token.
    Invite(attachment::InviteArgs),
    /// List a leader's invitations, and take them back.
    Invitations(invitations::InvitationsArgs),
    /// Make a follower what a document says: attachments, caching, principals.
    Apply(apply::ApplyArgs),
    /// Show what there is: databases, tables, extents, followers.
    Show(show::ShowArgs),
    /// Make a follower fetch what is hot of a database, and show how far it is.
    Warm(warm::WarmArgs),
    /// Ask whether a node is ready, for a health check: the exit status says it.
    Health(health::HealthArgs),
    /// Make, list and revoke the tokens that let callers into a node.
    Token(token::TokenArgs),
    /// Estimate lag, cache hits, requests and cost of a cluster, from one seed.
    Simulate(simulate::SimulateArgs),
    /// Start a leader and a follower on real data, and show what they do.
    Demo(demo::DemoArgs),
}

/// Runs the program with the arguments of the process.
pub fn main() -> ExitCode {
    let arguments = Arguments::parse();
    let runtime = match slipstream_frontend::runtime::tokio() {
        Ok(runtime) => runtime,
        Err(error) => {
            eprintln!("error: cannot start threads: {error}");
            return ExitCode::FAILURE;
        }
    };
    match runtime.block_on(run(arguments.command)) {
        Ok(()) => ExitCode::SUCCESS,
        Err(error) if is_broken_pipe(&error) => ExitCode::SUCCESS,
        Err(error) => {
            eprintln!("error: {error:#}");
            ExitCode::FAILURE
        }
    }
}

async fn run(command: Command) -> anyhow::Result<()> {
    match command {
        Command::Leader(args) => slipstream_leader::run(args).await,
        Command::Follower(args) => slipstream_follower::run(args).await,
        Command::Sql(args) => sql::run(args).await,
        Command::Ingest(args) => ingest::run(args).await,
        Command::Attach(args) => attachment::attach(args).await,
        Command::Detach(args) => attachment::detach(args).await,
        Command::Invite(args) => attachment::invite(args).await,
        Command::Invitations(args) => invitations::run(args).await,
        Command::Apply(args) => apply::run(args).await,
        Command::Show(args) => show::run(args).await,
        Command::Warm(args) => warm::run(args).await,
        Command::Health(args) => health::run(args).await,
        Command::Token(args) => token::run(args),
        Command::Simulate(args) => simulate::run(&args),
        Command::Demo(args) => demo::run(args).await,
    }
}

/// Prints to standard output. Unlike `println!` it fails, and does not panic, when nobody reads any more.
fn print(text: impl std::fmt::Display) -> std::io::Result<()> {
    use std::io::Write;
    writeln!(std::io::stdout().lock(), "{text}")
}

/// Whoever read our output has seen enough: `slipstream sql ... | head`.
fn is_broken_pipe(error: &anyhow::Error) -> bool {
    error.chain().any(|cause| {
        cause
            .downcast_ref::<std::io::Error>()
            .is_some_and(|io| io.kind() == std::io::ErrorKind::BrokenPipe)
    })
}

#[cfg(test)]
mod tests {
    use clap::CommandFactory;

    use super::*;

    #[test]
    fn the_command_line_is_consistent() {
        Arguments::command().debug_assert();
    }

    #[test]
    fn what_scripts_rely_on_parses() {
        let lines = [
            "leader --cluster a --bucket s3://b/p --data-dir d --grpc 127.0.0.1:0 --http \
             127.0.0.1:0 --location north",
            "follower --cluster f --bucket b --data-dir d --leader a=http://127.0.0.1:7410 --grpc \
             127.0.0.1:0 --http 127.0.0.1:0 --location north",
            "sql --url http://127.0.0.1:1 -d d --format csv --min-version 3 --max-staleness 5s x",
            "ingest --url http://h:1 -d d -t t --create --format csv --creation-time \
             2013-01-01T00:00:00Z --tag a --tag b f.csv s3://b/o -",
            "attach --url http://h:1 --leader a --database d --name n",
            "attach --leader a --database * --prefix p_ --principals replace",
            "attach --leader a --database d --include-table t* --exclude-table u --rename e",
            "detach --url http://h:1 --name n",
            "show --url http://h:1 databases",
            "show extents -d d",
            "token create --principal aaduser=a --role contributor --group aadgroup=g --expires-in 9d",
            "token --tokens f list",
            "token revoke 0123 --tokens f",
            "sql --token t --ca f x",
            "invite --database d --include-table t* --expires-in 2d",
            "invitations list --url http://h:1",
            "invitations --token t revoke 0123",
            "detach --name n --follower f",
            "apply -f follower.yaml --dry-run --prune",
            "apply -f t.json --parameters p.json --set a=b --set c=d",
            "show follower --output yaml",
            "warm d --table t --follower http://h:1 --no-wait",
            "warm --url http://h:1 d",
            "health --url https://h:1 --ca f --timeout 2s",
            "health --live",
            "demo --dir d --keep-running",
        ];
        for line in lines {
            let words = std::iter::once("slipstream").chain(line.split_whitespace());
            Arguments::try_parse_from(words).unwrap_or_else(|error| panic!("{line}: {error}"));
        }
    }
}

//! `slipstream token`: the tokens that let callers into a node. Works on the node's token file,
//! without the node: whoever can write the file is its operator.

use std::path::PathBuf;
use std::time::Duration;

use anyhow::{Context, bail};
use clap::Subcommand;
use comfy_table::{ContentArrangement, Table, presets};
use slipstream_frontend::runtime::SystemClock;
use slipstream_frontend::{NewToken, TokenFile, TokenRecord};
use slipstream_model::{Clock, ClusterRole, PrincipalName};

/// The command and where the file is.
#[derive(Debug, Clone, clap::Args)]
#[command(after_help = "\
Examples:
  slipstream token create --principal aaduser=ada@example.org --role AllDatabasesAdmin
  slipstream token create --principal aadapp=science-follower --role Contributor --expires-in 90d
  slipstream token list
  slipstream token revoke 3f2a91c07be4

With the first token a node stops letting everybody in: within a second, without a restart. A \
role in a single database is given there: .add database nyc viewers ('aaduser=bob@example.org').")]
pub(crate) struct TokenArgs {
    /// The node's token file.
    #[arg(
        long,
        value_name = "FILE",
        env = "SLIPSTREAM_TOKENS",
        default_value = "slipstream-data/leader/tokens.json",
        global = true
    )]
    tokens: PathBuf,
    #[command(subcommand)]
    command: TokenCommand,
}

#[derive(Debug, Clone, Subcommand)]
enum TokenCommand {
    /// Make a token. It is printed once, and nothing can tell it again.
    Create {
        /// Whose it is: aaduser=NAME or aadapp=NAME.
        #[arg(long, value_name = "NAME")]
        principal: PrincipalName,
        /// A role in all databases: AllDatabasesAdmin, AllDatabasesViewer, AllDatabasesMonitor or
        /// Contributor (attach, detach, invite). May be given several times.
        #[arg(long = "role", value_name = "ROLE")]
        roles: Vec<ClusterRole>,
        /// A group that its holder belongs to: aadgroup=NAME. May be given several times.
        #[arg(long = "group", value_name = "NAME")]
        groups: Vec<PrincipalName>,
        /// How long it works, such as 90d [default: for ever].
        #[arg(long, value_name = "DURATION", value_parser = humantime::parse_duration)]
        expires_in: Option<Duration>,
        /// What it is for.
        #[arg(long, value_name = "TEXT", default_value = "")]
        notes: String,
    },
    /// List the tokens: whose, with which roles. Not the secrets: they are written nowhere.
    List,
    /// Take a token back. It stops working within a second.
    Revoke {
        /// The token's id, as the list shows it.
        id: String,
    },
}

/// Runs the command.
pub(crate) fn run(args: TokenArgs) -> anyhow::Result<()> {
    let known = TokenFile::read(&args.tokens)?;
    let is_first = known.is_none();
    let mut file = known.unwrap_or_default();
    match args.command {
        TokenCommand::Create {
            principal,
            roles,
            groups,
            expires_in,
            notes,
        } => {
            let new = NewToken {
                principal,
                groups,
                cluster_roles: roles.into_iter().collect(),
                expires_in,
                notes,
            };
            let (record, secret) = file.add(new, SystemClock::default().now())?;
            file.write(&args.tokens)?;
            eprintln!(
                "token {} for {}, written to {}; keep what follows, it is not shown again:",
                record.id,
                record.principal,
                args.tokens.display()
            );
            if is_first {
                eprintln!("from now on a node with this file lets nobody in without a token");
            }
            crate::print(secret)?;
        }
        TokenCommand::List => crate::print(table(file.tokens()))?,
        TokenCommand::Revoke { id } => {
            if !file.remove(&id) {
                bail!(
                    "{} has no token '{id}': see slipstream token list",
                    args.tokens.display()
                );
            }
            file.write(&args.tokens)
                .context("the token is not revoked")?;
            eprintln!("token {id} is revoked");
        }
    }
    Ok(())
}

fn table(tokens: &[TokenRecord]) -> Table {
    let mut table = Table::new();
    table
        .load_preset(presets::UTF8_BORDERS_ONLY)
        .set_content_arrangement(ContentArrangement::Disabled)
        .set_header([
            "id",
            "principal",
            "roles",
            "groups",
            "created",
            "expires",
            "notes",
        ]);
    for token in tokens {
        let roles = token.cluster_roles.iter().map(ToString::to_string);
        let groups = token.groups.iter().map(ToString::to_string);
        table.add_row([
            token.id.clone(),
            token.principal.to_string(),
            roles.collect::<Vec<_>>().join(", "),
            groups.collect::<Vec<_>>().join(", "),
            token.created_at.to_string(),
            token
                .expires_at
                .map_or_else(|| "never".to_owned(), |at| at.to_string()),
            token.notes.clone(),
        ]);
    }
    table
}

//! `slipstream-leader`: the same program as `slipstream leader`.

use clap::Parser;

/// Leads: owns databases in one bucket, takes rows in, and tells followers of each commit.
#[derive(Debug, Parser)]
#[command(version)]
struct Arguments {
    #[command(flatten)]
    leader: slipstream_leader::LeaderArgs,
}

fn main() -> std::process::ExitCode {
    let arguments = Arguments::parse();
    let result = slipstream_frontend::runtime::tokio()
        .map_err(anyhow::Error::from)
        .and_then(|runtime| runtime.block_on(slipstream_leader::run(arguments.leader)));
    slipstream_frontend::runtime::exit(result)
}

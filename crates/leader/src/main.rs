//! `slipstream-leader`: the same program as `slipstream leader`.

use clap::Parser;

/// Leads: owns databases in one bucket, takes rows in, and tells followers of each commit.
#[derive(Debug, Parser)]
#[command(version)]
struct Arguments {
    #[command(flatten)]
    leader: slipstream_leader::LeaderArgs,
}

#[tokio::main]
async fn main() -> std::process::ExitCode {
    slipstream_frontend::runtime::exit(slipstream_leader::run(Arguments::parse().leader).await)
}

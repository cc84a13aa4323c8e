//! `slipstream-follower`: the same program as `slipstream follower`.

use clap::Parser;

/// Follows: attaches databases of leaders and answers read-only SQL from the shared bucket.
#[derive(Debug, Parser)]
#[command(version)]
struct Arguments {
    #[command(flatten)]
    follower: slipstream_follower::FollowerArgs,
}

#[tokio::main]
async fn main() -> std::process::ExitCode {
    slipstream_frontend::runtime::exit(slipstream_follower::run(Arguments::parse().follower).await)
}

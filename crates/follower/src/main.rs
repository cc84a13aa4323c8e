//! `slipstream-follower`: the same program as `slipstream follower`.

use clap::Parser;

/// Follows: attaches databases of leaders and answers read-only SQL from the shared bucket.
#[derive(Debug, Parser)]
#[command(version)]
struct Arguments {
    #[command(flatten)]
    follower: slipstream_follower::FollowerArgs,
}

fn main() -> std::process::ExitCode {
    let arguments = Arguments::parse();
    let result = slipstream_frontend::runtime::tokio()
        .map_err(anyhow::Error::from)
        .and_then(|runtime| runtime.block_on(slipstream_follower::run(arguments.follower)));
    slipstream_frontend::runtime::exit(result)
}

//! The program that the tests start as leader, as follower and as client: `slipstream` itself,
//! under another name, so that a test of this package can ask Cargo for it.

fn main() -> std::process::ExitCode {
    slipstream_cli::main()
}

//! `slipstream`: everything in one program.

fn main() -> std::process::ExitCode {
    slipstream_cli::main()
}

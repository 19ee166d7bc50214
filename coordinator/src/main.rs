//! `ablate`: plans, runs and serves experiments, and speaks to a coordinator that runs as a service.

mod cli;

use std::process::ExitCode;

fn main() -> ExitCode {
    cli::main()
}

//! `ablate`: plans, runs and serves experiments, and speaks to a coordinator that runs as a service.

#[expect(clippy::disallowed_methods, reason = "the command line lives in real time")]
mod cli;

use std::process::ExitCode;

fn main() -> ExitCode {
    cli::main()
}

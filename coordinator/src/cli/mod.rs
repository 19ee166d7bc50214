//! The command line.

mod args;
mod client;
mod compare;
mod coordinators;
mod differ;
mod doctor;
mod experiment;
mod fail;
mod folder;
mod locate;
mod outcome;
mod progress;
mod run;
mod say;
mod serve;
mod stores;
mod supervise;
mod token;
mod watch;
mod web;

use args::{Cli, Command};
use clap::{CommandFactory, Parser};
use fail::Fail;
use std::process::ExitCode;

/// Parses, runs, and turns failures into messages and exit codes.
pub fn main() -> ExitCode {
    let cli = Cli::parse();
    let usual = if matches!(cli.command, Command::Serve(_)) { "info,sqlx=warn" } else { "off" };
    let filter = match ablate_common::logging::filter() {
        Ok(asked) => tracing_subscriber::EnvFilter::new(asked.as_deref().unwrap_or(usual)),
        Err(e) => {
            let fail = Fail::with_advice(2, &e);
            fail.print();
            return ExitCode::from(fail.code);
        }
    };
    tracing_subscriber::fmt()
        .with_env_filter(filter)
        .with_writer(std::io::stderr)
        .with_ansi(std::io::IsTerminal::is_terminal(&std::io::stderr()))
        .init();
    let done = match cli.command {
        Command::Completions { shell } => {
            let mut script = Vec::new();
            clap_complete::generate(shell, &mut Cli::command(), "ablate", &mut script);
            say::out(String::from_utf8_lossy(&script).trim_end());
            Ok(0)
        }
        command => tokio::runtime::Builder::new_multi_thread()
            .enable_all()
            .build()
            .map_err(|e| Fail::failed(format!("can't start: {e}")))
            .and_then(|runtime| {
                let done = runtime.block_on(dispatch(command));
                // Blocking work (hashing, tables) must not hold the process after its answer is known.
                runtime.shutdown_timeout(std::time::Duration::from_millis(500));
                done
            }),
    };
    let done = match (done, say::lost()) {
        (Ok(0), Some(e)) => Err(Fail::failed(format!("the output could not be written to stdout: {e}"))
            .help("free some space, or write it elsewhere, and run the same command again")),
        (done, _) => done,
    };
    match done {
        Ok(code) => ExitCode::from(code),
        Err(fail) => {
            fail.print();
            ExitCode::from(fail.code)
        }
    }
}

async fn dispatch(command: Command) -> Result<u8, Fail> {
    match command {
        Command::Run(args) => run::run(args).await,
        Command::Plan(args) => experiment::plan(&args),
        Command::Serve(args) => serve::serve(args).await,
        Command::Submit(args) => client::submit(args).await,
        Command::List(args) => client::list(args).await,
        Command::Status(args) => client::status(args).await,
        Command::Watch(args) => watch::watch(args).await,
        Command::Pause(args) => client::control(args, client::Wish::Pause).await,
        Command::Resume(args) => client::control(args, client::Wish::Resume).await,
        Command::Cancel(args) => client::control(args, client::Wish::Cancel).await,
        Command::Retry(args) => client::control(args, client::Wish::Retry).await,
        Command::Workers(args) => client::workers(args).await,
        Command::Export(args) => client::export(args).await,
        Command::Report(args) => client::report(args).await,
        Command::Compare(args) => compare::compare(args).await,
        Command::Token(args) => token::token(args).await,
        Command::Doctor(args) => doctor::doctor(&args).await,
        Command::Completions { .. } => Ok(0),
    }
}

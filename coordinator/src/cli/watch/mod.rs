//! `ablate watch`: a full screen in a terminal, lines elsewhere.
//!
//! [`state`] is what is shown and what keys do to it, [`draw`] puts it on a screen of any size, [`feed`] speaks to the coordinator,
//! and [`screen`] holds the terminal and brings them together.

mod draw;
mod feed;
mod lines;
mod look;
mod rates;
mod screen;
mod state;
#[cfg(test)]
mod tests;

use super::args::WatchArgs;
use super::fail::Fail;
use super::outcome::Outcome;
use super::say;
use ablate_proto::v1;
use std::io::IsTerminal;
use std::time::Duration;

/// How long a watcher waits for a coordinator that went away.
const PATIENCE: Duration = Duration::from_secs(120);

/// `ablate watch`.
pub async fn watch(args: WatchArgs) -> Result<u8, Fail> {
    let here = std::io::stdin().is_terminal() && std::io::stdout().is_terminal();
    let can = std::env::var("TERM").is_ok_and(|t| !t.is_empty() && t != "dumb");
    if here && can && !args.plain && !args.client.json {
        return screen::watch(args).await;
    }
    let Some(id) = &args.id else {
        return Err(Fail::wrong("no experiment is named, and there is no screen to choose one on")
            .help("give its name or id; `ablate list` shows them"));
    };
    lines::watch(id, &args.client).await
}

/// Whether an experiment can't change by itself any more.
fn ended(s: &v1::ExperimentStatus) -> bool {
    ["done", "failed", "cancelled"].contains(&s.state.as_str())
}

fn outcome(s: &v1::ExperimentStatus) -> Outcome<'_> {
    Outcome {
        state: &s.state,
        planned: s.chunks_planned,
        accepted: s.chunks_accepted,
        quarantined: s.quarantined,
    }
}

/// Says what one that is done lacks, and how to come by its tables.
fn say_where(s: &v1::ExperimentStatus) {
    let (why, again) = (format!("`ablate status {}` says why", s.name), format!("ablate retry {}", s.name));
    if let Some(warning) = outcome(s).warning(&why, &again) {
        say::err(warning);
    }
    if s.state == "done" {
        say::err(format_args!("note: `ablate export {}` writes its tables and its report", s.name));
    }
}

/// The exit code of an experiment that has ended.
fn code(s: &v1::ExperimentStatus) -> u8 {
    outcome(s).code()
}

//! Progress with rate and ETA: bars on a terminal, plain lines in a log, JSON lines for programs.

use ablate_coordinator::server::Status;
use indicatif::{HumanDuration, ProgressBar, ProgressStyle};
use std::io::IsTerminal;
use std::sync::Mutex;
use std::time::{Duration, Instant};

/// Seconds between plain lines.
const LINE: Duration = Duration::from_secs(5);

struct Shown {
    step: String,
    from: u64,
    since: Instant,
    line: Option<Instant>,
    bar: Option<ProgressBar>,
}

/// Shows one step at a time.
pub struct Steps {
    json: bool,
    quiet: bool,
    terminal: bool,
    shown: Mutex<Option<Shown>>,
}

impl Steps {
    /// For this process's stderr; `json` for lines on stdout instead.
    pub fn new(json: bool) -> Self {
        Self { json, quiet: false, terminal: std::io::stderr().is_terminal(), shown: Mutex::new(None) }
    }

    /// Shows nothing.
    pub fn quiet() -> Self {
        Self { quiet: true, ..Self::new(false) }
    }

    /// `done` of `total` units of a step are done.
    pub fn at(&self, step: &str, done: u64, total: u64) {
        if self.quiet {
            return;
        }
        let mut shown = self.shown.lock().unwrap_or_else(std::sync::PoisonError::into_inner);
        if shown.as_ref().is_none_or(|s| s.step != step) {
            if let Some(bar) = shown.take().and_then(|s| s.bar) {
                bar.finish_and_clear();
            }
            let bar = (self.terminal && !self.json).then(|| {
                let bar = ProgressBar::new(total);
                let template = "{msg:26} [{wide_bar}] {pos}/{len}  {per_sec:>12}  ETA {eta}";
                bar.set_style(
                    ProgressStyle::with_template(template).unwrap_or_else(|_| ProgressStyle::default_bar()),
                );
                bar.set_message(step.to_owned());
                bar
            });
            *shown =
                Some(Shown { step: step.to_owned(), from: done, since: Instant::now(), line: None, bar });
        }
        let Some(s) = shown.as_mut() else { return };
        if let Some(bar) = &s.bar {
            bar.set_length(total);
            bar.set_position(done);
            return;
        }
        let due = s.line.is_none_or(|t| t.elapsed() >= LINE) || done == total;
        if !due || (s.line.is_some() && done == total && s.from == total) {
            return;
        }
        s.line = Some(Instant::now());
        if done == total {
            s.from = total;
        }
        let rate = (done.saturating_sub(s.from)) as f64 / s.since.elapsed().as_secs_f64().max(1e-9);
        if self.json {
            println!(
                "{}",
                serde_json::json!({"progress": step, "done": done, "total": total, "per_s": rate})
            );
        } else {
            let eta = if rate > 0.0 && done < total {
                format!(", ETA {}", HumanDuration(Duration::from_secs_f64((total - done) as f64 / rate)))
            } else {
                String::new()
            };
            eprintln!(
                "{step}: {done}/{total}{}{eta}",
                if rate > 0.0 { format!(", {rate:.1}/s") } else { String::new() }
            );
        }
    }

    /// Takes the bar away.
    pub fn clear(&self) {
        let shown = self.shown.lock().unwrap_or_else(std::sync::PoisonError::into_inner).take();
        if let Some(bar) = shown.and_then(|s| s.bar) {
            bar.finish_and_clear();
        }
    }

    /// The sweep that is at work: the first that isn't complete.
    pub fn sweep(&self, status: &Status) {
        if status.workers == 0 && status.accepted == 0 {
            return self.at("start workers, load model", 0, 1);
        }
        if let Some(s) = status.sweeps.iter().find(|s| s.chunks_done < s.chunks_total) {
            self.at(&s.name, s.subsets_done, s.subsets_total);
        }
    }
}

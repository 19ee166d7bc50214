//! Progress with rate and ETA: bars on a terminal, plain lines in a log, JSON lines for programs.

use super::say;
use ablate_coordinator::server::Status;
use indicatif::{HumanBytes, HumanDuration, ProgressBar, ProgressStyle};
use std::collections::BTreeMap;
use std::io::IsTerminal;
use std::sync::{Mutex, MutexGuard};
use std::time::{Duration, Instant};

/// Time between plain lines.
const LINE: Duration = Duration::from_secs(5);

/// The step that is shown.
struct Shown {
    step: String,
    total: u64,
    done: u64,
    /// What was done when the step was first seen: it is no part of the rate.
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

    fn shown(&self) -> MutexGuard<'_, Option<Shown>> {
        self.shown.lock().unwrap_or_else(std::sync::PoisonError::into_inner)
    }

    /// `done` of `total` units of a step are done.
    pub fn at(&self, step: &str, done: u64, total: u64) {
        if self.quiet {
            return;
        }
        let mut shown = self.shown();
        let other = shown.take_if(|s| s.step != step);
        self.end(other, None);
        let bars = self.terminal && !self.json;
        let s = shown.get_or_insert_with(|| Shown {
            step: step.to_owned(),
            total,
            done,
            from: done,
            since: Instant::now(),
            line: None,
            bar: bars.then(|| bar(step, done, total)),
        });
        // Hashing tells every block from several threads: never backwards.
        let ended = s.done == s.total && s.line.is_some();
        s.done = s.done.max(done).min(total);
        s.total = total;
        if let Some(bar) = &s.bar {
            bar.set_length(total);
            bar.set_position(s.done);
        } else if !ended && (s.done == s.total || s.line.is_none_or(|t| t.elapsed() >= LINE)) {
            s.line = Some(Instant::now());
            self.tell(s);
        }
    }

    /// A line about where the step stands.
    fn tell(&self, s: &Shown) {
        let seconds = s.since.elapsed().as_secs_f64();
        let rate = s.done.saturating_sub(s.from) as f64 / seconds.max(1e-6);
        let left = s.total.saturating_sub(s.done);
        let eta = (rate > 0.0 && left > 0).then(|| left as f64 / rate);
        if self.json {
            say::out(serde_json::json!({"progress": s.step, "done": s.done, "total": s.total, "per_s": rate,
                "eta_s": eta, "seconds": seconds}));
            return;
        }
        let show = |n: u64| if in_bytes(&s.step) { HumanBytes(n).to_string() } else { n.to_string() };
        let mut line = format!("{}: {}/{}", s.step, show(s.done), show(s.total));
        if s.total > 1 && s.done > s.from {
            line += &if in_bytes(&s.step) {
                format!(", {}/s", HumanBytes(rate as u64))
            } else {
                format!(", {rate:.1}/s")
            };
        }
        if let Some(eta) = eta {
            line += &format!(", ETA {}", HumanDuration(Duration::from_secs_f64(eta.min(1e9))));
        } else if left == 0 && seconds >= 1.0 {
            line += &format!(", took {}", HumanDuration(Duration::from_secs_f64(seconds)));
        }
        say::err(line);
    }

    /// Puts a step away; `done` of it are done by now.
    fn end(&self, shown: Option<Shown>, done: Option<u64>) {
        let Some(mut s) = shown else { return };
        if let Some(bar) = s.bar.take() {
            bar.finish_and_clear();
        } else if let Some(done) = done.filter(|&d| d > s.done && d == s.total) {
            s.done = done;
            self.tell(&s);
        }
    }

    /// Takes the bar away.
    pub fn clear(&self) {
        let shown = self.shown().take();
        self.end(shown, None);
    }

    /// The sweep that is at work: the first that isn't complete.
    pub fn sweep(&self, status: &Status) {
        if self.quiet {
            return;
        }
        if status.workers == 0 {
            return self.at(START, 0, 1);
        }
        // What was at work may have ended since it was last looked at.
        let ended = |s: &Shown| {
            if s.step == START {
                return Some(1);
            }
            status
                .sweeps
                .iter()
                .find(|w| w.name == s.step && w.chunks_done >= w.chunks_total)
                .map(|w| w.subsets_done)
        };
        {
            let mut shown = self.shown();
            if let Some(done) = shown.as_ref().and_then(ended) {
                let last = shown.take();
                self.end(last, Some(done));
            }
        }
        if let Some(s) = status.sweeps.iter().find(|s| s.chunks_done < s.chunks_total) {
            self.at(&s.name, s.subsets_done, s.subsets_total);
        }
    }
}

/// Step while no worker is there.
const START: &str = "start workers";

fn in_bytes(step: &str) -> bool {
    step.starts_with("hash")
}

fn bar(step: &str, done: u64, total: u64) -> ProgressBar {
    let bar = ProgressBar::new(total).with_position(done);
    let template = if in_bytes(step) {
        "{msg:26} [{wide_bar}] {bytes}/{total_bytes}  {binary_bytes_per_sec:>12}  ETA {eta}"
    } else {
        "{msg:26} [{wide_bar}] {pos}/{len}  {per_sec:>12}  ETA {eta}"
    };
    // The template is fixed and right; a plain bar would still do.
    bar.set_style(ProgressStyle::with_template(template).unwrap_or_else(|_| ProgressStyle::default_bar()));
    bar.set_message(step.to_owned());
    bar.reset_eta();
    bar.enable_steady_tick(Duration::from_millis(250));
    bar
}

/// Wall-clock seconds by sweep: the time between results belongs to the sweeps whose results came.
pub struct SweepClock {
    last: Instant,
    busy: BTreeMap<String, f64>,
    seconds: BTreeMap<String, f64>,
}

impl SweepClock {
    /// Starts now; `status` is where the sweeps stand.
    pub fn start(status: Option<&Status>) -> Self {
        let busy =
            status.into_iter().flat_map(|s| &s.sweeps).map(|s| (s.name.clone(), s.busy_seconds)).collect();
        Self { last: Instant::now(), busy, seconds: BTreeMap::new() }
    }

    /// Takes a later status in.
    pub fn see(&mut self, status: &Status) {
        let since = self.last.elapsed().as_secs_f64();
        self.see_after(status, since);
    }

    fn see_after(&mut self, status: &Status, since: f64) {
        let mut grown = Vec::new();
        for s in &status.sweeps {
            let before = self.busy.insert(s.name.clone(), s.busy_seconds).unwrap_or(0.0);
            if s.busy_seconds > before {
                grown.push((s.name.as_str(), s.busy_seconds - before));
            }
        }
        let all: f64 = grown.iter().map(|g| g.1).sum();
        if all > 0.0 {
            self.last = Instant::now();
            for (name, by) in grown {
                *self.seconds.entry(format!("sweep {name}")).or_default() += since * by / all;
            }
        }
    }

    /// What was counted, by step.
    pub fn seconds(&self) -> BTreeMap<String, f64> {
        self.seconds.clone()
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use ablate_coordinator::server::SweepStatus;

    fn status(busy: [f64; 2]) -> Status {
        let sweep = |name: &str, busy_seconds| SweepStatus {
            name: name.into(),
            subsets_total: 2,
            subsets_done: 1,
            chunks_total: 2,
            chunks_done: 1,
            round: 0,
            rounds: 1,
            busy_seconds,
        };
        Status {
            id: String::new(),
            name: String::new(),
            state: "running".into(),
            error: String::new(),
            sweeps: vec![sweep("single", busy[0]), sweep("pairs", busy[1])],
            planned: 4,
            computed: 2,
            accepted: 2,
            duplicate: 0,
            quarantined: 0,
            output: String::new(),
            workers: 1,
        }
    }

    #[test]
    fn time_goes_to_the_sweeps_that_gave_results() {
        let mut clock = SweepClock::start(Some(&status([5.0, 0.0])));
        clock.see_after(&status([5.0, 0.0]), 1.0);
        assert!(clock.seconds().is_empty());
        clock.see_after(&status([6.0, 0.0]), 2.0);
        clock.see_after(&status([7.0, 3.0]), 4.0);
        let seconds = clock.seconds();
        assert_eq!(seconds["sweep single"], 3.0);
        assert_eq!(seconds["sweep pairs"], 3.0);
    }
}

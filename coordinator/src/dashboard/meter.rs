//! Rates, and how long it will still take. Pure: the time is handed in.

use crate::server::Status;
use std::collections::VecDeque;
use std::time::Duration;
use tokio::time::Instant;

/// How far back rates look.
const WINDOW: Duration = Duration::from_secs(30);
/// Least time between two samples that are kept.
const EVERY: Duration = Duration::from_millis(900);

/// How a few numbers that only grow have grown lately.
#[derive(Clone, Debug, Default)]
pub struct Meter<const N: usize> {
    samples: VecDeque<(Instant, [f64; N])>,
}

impl<const N: usize> Meter<N> {
    /// Takes what is counted by now.
    pub fn see(&mut self, now: Instant, counts: [f64; N]) {
        // Counting may begin anew (a retry).
        if self.samples.back().is_some_and(|(_, last)| (0..N).any(|i| counts[i] < last[i])) {
            self.samples.clear();
        }
        let (last, more) = (self.samples.back().map(|s| s.0), self.samples.len() > 1);
        if let (true, Some(at)) = (more, last)
            && let Some(before) = self.samples.iter().rev().nth(1)
            && now.saturating_duration_since(before.0) < EVERY
            && now >= at
        {
            self.samples.pop_back();
        }
        self.samples.push_back((now, counts));
        while self.samples.len() > 2 && now.saturating_duration_since(self.samples[0].0) > WINDOW {
            self.samples.pop_front();
        }
    }

    /// What a second brought of each, lately; none while too little is known.
    pub fn rates(&self) -> Option<[f64; N]> {
        let ((from, first), (to, last)) = (self.samples.front()?, self.samples.back()?);
        let seconds = to.saturating_duration_since(*from).as_secs_f64();
        (seconds >= 0.5).then(|| std::array::from_fn(|i| (last[i] - first[i]) / seconds))
    }

    /// Forgets what was.
    pub fn clear(&mut self) {
        self.samples.clear();
    }
}

/// How much of an experiment is done, and how much work is left, in seconds of one lane.
#[derive(Clone, Copy, Debug, Default, PartialEq)]
pub struct Work {
    /// Share of the work that is done, 0 to 1.
    pub share: f64,
    /// Seconds of one lane that are left; NaN before anything was measured.
    pub left: f64,
}

/// What a subset costs beside a whole forward pass, before any is measured.
fn weight(name: &str) -> f64 {
    match name.split(' ').next().unwrap_or_default() {
        "single" | "greedy" => 0.5,
        "pairs" | "conditional" => 1.0 / 3.0,
        "gradient" => 0.1,
        "fit" => 20.0,
        _ => 1.0,
    }
}

/// Work by what subsets of each sweep have cost so far, and by how they compare where a sweep hasn't begun.
pub fn work(status: &Status) -> Work {
    let (mut busy, mut weighed) = (0.0, 0.0);
    for s in &status.sweeps {
        busy += s.busy_seconds;
        weighed += weight(&s.name) * s.subsets_done as f64;
    }
    let base = if weighed > 0.0 && busy > 0.0 { busy / weighed } else { f64::NAN };
    let (mut done, mut all) = (0.0, 0.0);
    for s in &status.sweeps {
        let measured = s.subsets_done > 0 && s.busy_seconds > 0.0;
        let guess = weight(&s.name) * if base.is_nan() { 1.0 } else { base };
        let each = if measured { s.busy_seconds / s.subsets_done as f64 } else { guess };
        done += each * s.subsets_done as f64;
        all += each * s.subsets_total as f64;
    }
    let share = if all > 0.0 { (done / all).clamp(0.0, 1.0) } else { 0.0 };
    Work { share, left: if base.is_nan() { f64::NAN } else { (all - done).max(0.0) } }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::server::SweepStatus;

    #[test]
    fn rates_look_at_the_last_half_minute_and_begin_anew_when_counts_do() {
        let (start, mut meter) = (Instant::now(), Meter::<1>::default());
        meter.see(start, [0.0]);
        assert_eq!(meter.rates(), None);
        // Ten a second for a minute, seen four times a second, then a hundred.
        for i in 1..=240u32 {
            meter.see(start + Duration::from_millis(250) * i, [f64::from(i) * 2.5]);
        }
        assert!((meter.rates().unwrap()[0] - 10.0).abs() < 0.1, "{:?}", meter.rates());
        assert!(meter.samples.len() < 50, "{}", meter.samples.len());
        for i in 1..=160u32 {
            let at = start + Duration::from_secs(60) + Duration::from_millis(250) * i;
            meter.see(at, [600.0 + f64::from(i) * 25.0]);
        }
        assert!((meter.rates().unwrap()[0] - 100.0).abs() < 1.0, "{:?}", meter.rates());
        meter.see(start + Duration::from_secs(101), [3.0]);
        assert_eq!(meter.rates(), None);
    }

    #[test]
    fn what_is_left_is_told_from_what_was_measured() {
        let sweep = |name: &str, done, total, busy_seconds| SweepStatus {
            name: name.into(),
            subsets_total: total,
            subsets_done: done,
            chunks_total: 1,
            chunks_done: 0,
            round: 0,
            rounds: 1,
            busy_seconds,
        };
        let mut status = Status {
            id: String::new(),
            name: String::new(),
            state: "running".into(),
            error: String::new(),
            sweeps: vec![sweep("single (mean)", 0, 100, 0.0), sweep("pairs (mean)", 0, 3000, 0.0)],
            planned: 2,
            computed: 0,
            accepted: 0,
            duplicate: 0,
            quarantined: 0,
            output: String::new(),
            workers: 1,
        };
        let none = work(&status);
        assert!(none.share == 0.0 && none.left.is_nan());
        // 100 halves took 50 s: 3000 thirds take 1000 s.
        status.sweeps[0] = sweep("single (mean)", 100, 100, 50.0);
        let some = work(&status);
        assert!((some.left - 1000.0).abs() < 1e-6 && (some.share - 50.0 / 1050.0).abs() < 1e-9, "{some:?}");
        // Measured, a pair takes a tenth of a second.
        status.sweeps[1] = sweep("pairs (mean)", 1000, 3000, 100.0);
        let some = work(&status);
        assert!((some.left - 200.0).abs() < 1e-6 && (some.share - 150.0 / 350.0).abs() < 1e-9, "{some:?}");
    }
}

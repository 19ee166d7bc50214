//! How fast things get done, from counts seen now and then.

use std::collections::{BTreeMap, VecDeque};
use std::time::Duration;

/// Time that a rate looks back over.
const WINDOW: Duration = Duration::from_secs(30);
/// Least time between two counts that are kept.
const APART: Duration = Duration::from_millis(500);
/// Least time that a rate is worked out from.
const LEAST: Duration = Duration::from_secs(1);

/// Counts by what is counted.
#[derive(Clone, Debug, Default)]
pub struct Rates(BTreeMap<String, VecDeque<(Duration, u64)>>);

impl Rates {
    /// `n` of `what` are done at `now`.
    pub fn see(&mut self, what: &str, now: Duration, n: u64) {
        let seen = self.0.entry(what.to_owned()).or_default();
        // Counts go back where a coordinator starts anew.
        if seen.back().is_some_and(|&(_, last)| n < last) {
            seen.clear();
        }
        if seen.len() > 1 && seen.back().is_some_and(|&(at, _)| now < at + APART) {
            seen.pop_back();
        }
        seen.push_back((now, n));
        while seen.len() > 2 && seen.front().is_some_and(|&(at, _)| at + WINDOW < now) {
            seen.pop_front();
        }
    }

    /// How many a second, lately; none where too little was seen.
    pub fn of(&self, what: &str, now: Duration) -> Option<f64> {
        let seen = self.0.get(what)?;
        let (&(from, first), &(_, last)) = (seen.front()?, seen.back()?);
        let time = now.saturating_sub(from);
        (time >= LEAST).then(|| (last - first) as f64 / time.as_secs_f64())
    }

    /// Seconds until `left` more are done, at that rate; none where nothing moves.
    pub fn eta(&self, what: &str, now: Duration, left: u64) -> Option<f64> {
        let rate = self.of(what, now).filter(|&r| r > 0.0)?;
        (left > 0).then(|| left as f64 / rate)
    }

    /// Forgets all but what `keep` names.
    pub fn keep(&mut self, keep: impl Fn(&str) -> bool) {
        self.0.retain(|what, _| keep(what));
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn at(seconds: f64) -> Duration {
        Duration::from_secs_f64(seconds)
    }

    #[test]
    fn a_rate_looks_back_half_a_minute_and_falls_where_nothing_moves() {
        let mut rates = Rates::default();
        assert_eq!(rates.of("a", at(5.0)), None);
        rates.see("a", at(0.0), 10);
        assert_eq!(rates.of("a", at(0.5)), None);
        rates.see("a", at(2.0), 30);
        assert_eq!(rates.of("a", at(2.0)), Some(10.0));
        assert_eq!(rates.of("a", at(4.0)), Some(5.0));
        assert_eq!((rates.eta("a", at(4.0), 50), rates.eta("a", at(4.0), 0)), (Some(10.0), None));
        for second in 3..100 {
            rates.see("a", at(f64::from(second)), 30 + 2 * (second as u64 - 2));
        }
        let rate = rates.of("a", at(99.0)).unwrap();
        assert!((rate - 2.0).abs() < 0.1, "{rate}");
    }

    #[test]
    fn counts_that_go_back_begin_anew() {
        let mut rates = Rates::default();
        rates.see("a", at(0.0), 100);
        rates.see("a", at(10.0), 0);
        rates.see("a", at(12.0), 6);
        assert_eq!(rates.of("a", at(12.0)), Some(3.0));
        rates.keep(|what| what != "a");
        assert_eq!(rates.of("a", at(12.0)), None);
    }
}

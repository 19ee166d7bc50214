//! Calls per second and at once, by client: a token bucket each. Pure: the time is handed in.

use std::collections::HashMap;
use std::time::Duration;
use tokio::time::Instant;

/// Seconds' worth of calls that may come at once.
const BURST: f64 = 4.0;
/// Clients that are remembered before those that do nothing are forgotten.
const REMEMBERED: usize = 4096;

#[derive(Debug)]
struct Client {
    tokens: f64,
    at: Instant,
    open: u32,
}

/// What each client has done lately.
#[derive(Debug, Default)]
pub struct Rates {
    clients: HashMap<String, Client>,
}

/// What a client may do.
#[derive(Clone, Copy, Debug)]
pub struct Rate {
    /// Calls in a second.
    pub per_second: u32,
    /// Calls at once.
    pub at_once: u32,
}

/// Why a call must not be made now.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Over {
    /// Too many in a short time: after this, one may be made.
    Often(Duration),
    /// Too many are under way.
    AtOnce,
}

impl Rates {
    /// Takes a call of `client` at `now`; [`Self::done`] must follow where it is taken.
    pub fn begin(&mut self, client: &str, rate: Rate, now: Instant) -> Result<(), Over> {
        let per_second = f64::from(rate.per_second.max(1));
        let full = per_second * BURST;
        if self.clients.len() >= REMEMBERED && !self.clients.contains_key(client) {
            self.clients
                .retain(|_, c| c.open > 0 || now.saturating_duration_since(c.at).as_secs_f64() < BURST);
        }
        let new = || Client { tokens: full, at: now, open: 0 };
        let c = self.clients.entry(client.to_owned()).or_insert_with(new);
        let elapsed = now.saturating_duration_since(c.at).as_secs_f64();
        c.tokens = (c.tokens + elapsed * per_second).min(full);
        c.at = c.at.max(now);
        if c.tokens < 1.0 {
            return Err(Over::Often(Duration::from_secs_f64((1.0 - c.tokens) / per_second)));
        }
        c.tokens -= 1.0;
        if c.open >= rate.at_once {
            return Err(Over::AtOnce);
        }
        c.open += 1;
        Ok(())
    }

    /// A call that was taken has ended.
    pub fn done(&mut self, client: &str) {
        if let Some(c) = self.clients.get_mut(client) {
            c.open = c.open.saturating_sub(1);
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_client_gets_its_rate_after_a_burst_and_is_told_when_to_come_back() {
        let (mut rates, rate) = (Rates::default(), Rate { per_second: 10, at_once: 1000 });
        let start = Instant::now();
        assert!((0..40).all(|_| rates.begin("a", rate, start).is_ok()));
        let Err(Over::Often(after)) = rates.begin("a", rate, start) else { panic!("no limit") };
        assert_eq!(after, Duration::from_millis(100));
        assert!(rates.begin("b", rate, start).is_ok(), "another client isn't held up");
        assert!(rates.begin("a", rate, start + Duration::from_millis(99)).is_err());
        assert!(rates.begin("a", rate, start + after).is_ok(), "waiting as told is enough");
        let taken = (0..1000)
            .filter(|i| rates.begin("a", rate, start + after + *i * Duration::from_millis(5)).is_ok());
        assert!((49..=51).contains(&taken.count()), "5 seconds of 10 calls");
    }

    #[test]
    fn calls_at_once_are_counted_until_they_end_and_idle_clients_are_forgotten() {
        let (mut rates, rate) = (Rates::default(), Rate { per_second: 1_000_000, at_once: 2 });
        let start = Instant::now();
        assert!(rates.begin("a", rate, start).is_ok() && rates.begin("a", rate, start).is_ok());
        assert_eq!(rates.begin("a", rate, start), Err(Over::AtOnce));
        rates.done("a");
        assert!(rates.begin("a", rate, start).is_ok());
        for i in 0..2 * REMEMBERED {
            let name = i.to_string();
            let _ = rates.begin(&name, rate, start);
            rates.done(&name);
        }
        let _ = rates.begin("late", rate, start + Duration::from_secs(60));
        assert_eq!(rates.clients.len(), 2, "those with calls under way, and the new one");
    }
}

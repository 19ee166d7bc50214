//! Which coordinator to try next, of those that a user named and those that they name.

use super::link::{Place, backoff, place};
use ablate_net::Access;
use std::time::Duration;

/// Longest wait while some coordinator stands by: a takeover is near.
const NEAR: Duration = Duration::from_secs(1);

/// Coordinators, and how the last attempts went.
pub struct Route {
    access: Access,
    named: Vec<Place>,
    next: usize,
    /// Where one that stands by says that the leader is.
    hint: Option<Place>,
    /// Whether the last attempt followed a hint: another from there is not followed, or two could go on for ever.
    hinted: bool,
    /// Attempts since the last link, but for hints.
    failed: u32,
    /// Whether there was a link before.
    again: bool,
    /// Whether one of them stood by since the last link.
    near: bool,
}

impl Route {
    /// Reads a list of URLs.
    ///
    /// # Errors
    /// Says what is wrong with the first that is wrong.
    pub fn parse(list: &str, access: Access) -> Result<Self, String> {
        let named = list.split(',').map(|url| place(url.trim(), &access)).collect::<Result<Vec<_>, _>>()?;
        Ok(Self { access, named, next: 0, hint: None, hinted: false, failed: 0, again: false, near: false })
    }

    /// Where to connect, and how long to wait before: each round tries all of them, and a pause is before it.
    pub fn attempt(&mut self) -> (Place, Duration) {
        self.hinted = false;
        if let Some(hint) = self.hint.take() {
            self.hinted = true;
            return (hint, Duration::ZERO);
        }
        let tried = self.next;
        self.next = (tried + 1) % self.named.len();
        let all = self.named.len() as u32;
        let after = match (self.failed % all, self.failed / all) {
            (0, 0) if !self.again => Duration::ZERO,
            // All workers lose a coordinator at once; its successor needn't meet them at once.
            (0, round) => backoff(round.saturating_sub(1)),
            _ => Duration::ZERO,
        };
        self.failed = self.failed.saturating_add(1);
        (self.named[tried].clone(), if self.near { after.min(NEAR) } else { after })
    }

    /// Rounds without a link so far.
    pub fn rounds(&self) -> u32 {
        self.failed / self.named.len() as u32
    }

    /// A coordinator stands by; `leader` leads, where it isn't empty.
    pub fn stands_by(&mut self, leader: &str) {
        self.near = true;
        // A name that leads from TLS to clear text isn't followed.
        let follows = self.named.iter().all(|n| self.access.follows(&n.url, leader));
        self.hint = if self.hinted || !follows { None } else { place(leader, &self.access).ok() };
    }

    /// There is a link: the next time begins with the coordinator after this one.
    pub fn linked(&mut self) {
        self.failed = 0;
        self.again = true;
        self.near = false;
        self.hint = None;
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn port(route: &mut Route) -> (u16, Duration) {
        let (place, after) = route.attempt();
        (place.endpoint.uri().port_u16().unwrap_or(0), after)
    }

    #[test]
    fn every_coordinator_is_tried_at_once_and_then_in_rounds() {
        let mut route = Route::parse("http://a:1, b:2,http://c:3", Access::default()).expect("URLs");
        for round in 0..4 {
            for at in 1..4 {
                let (port, after) = port(&mut route);
                assert_eq!((port, after > Duration::ZERO), (at, round > 0 && at == 1));
            }
            assert_eq!(route.rounds(), round + 1);
        }
    }

    #[test]
    fn one_that_stands_by_names_the_next_to_try_once() {
        let mut route = Route::parse("http://a:1,http://b:2", Access::default()).expect("URLs");
        assert_eq!(port(&mut route).0, 1);
        route.stands_by("http://x:9");
        assert_eq!(port(&mut route), (9, Duration::ZERO));
        route.stands_by("http://x:9");
        assert_eq!(port(&mut route).0, 2, "a hint's hint is not followed");
        route.stands_by("");
        assert_eq!(port(&mut route).0, 1);
        for _ in 0..30 {
            assert!(port(&mut route).1 <= NEAR, "a takeover is near");
        }
        route.linked();
        let first = port(&mut route).1;
        assert!(first > Duration::ZERO && first <= Duration::from_millis(100));
        assert_eq!(port(&mut route).1, Duration::ZERO);
    }

    #[test]
    fn what_is_no_url_is_refused() {
        for list in ["", "http://a:1,", "a", ":1", "http://a:1,ftp://b"] {
            assert!(Route::parse(list, Access::default()).is_err(), "{list}");
        }
    }
}

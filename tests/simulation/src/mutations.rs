//! Known bugs and whether the simulation finds them.

use crate::{Bug, Options, run};
use ablate_coordinator::mutation::Mutation as C;
use ablate_worker_client::mutation::Mutation as W;

/// Each bug: its name, what it is, and the invariants of which one must find it.
pub static ALL: [(&str, Bug, &[&str]); 15] = [
    (
        "acknowledges before the commit",
        Bug::Coordinator(C::AcknowledgesFirst),
        &["durable before acknowledged"],
    ),
    ("accepts a chunk twice", Bug::AcceptsTwice, &["accepted once"]),
    ("writes without checking the epoch", Bug::WritesWithoutEpoch, &["epochs are hard"]),
    ("leads without raising the epoch", Bug::LeadsWithoutEpoch, &["epochs are hard"]),
    ("works past the lease", Bug::Worker(W::PastLease), &["two-sided leases"]),
    ("gives leases away without the extra quarter", Bug::Coordinator(C::NoQuarter), &["two-sided leases"]),
    ("doesn't take over leases that workers bring", Bug::Coordinator(C::NotTakenOver), &["two-sided leases"]),
    (
        "drops unacknowledged results at a reconnect",
        Bug::Worker(W::DropsUnacked),
        &["durable before acknowledged"],
    ),
    ("never tries a failed chunk again", Bug::Coordinator(C::NeverRetried), &["progress"]),
    ("decides a round with a chunk missing", Bug::Coordinator(C::DecidesEarly), &["progress"]),
    ("keeps what a vanished worker held", Bug::Coordinator(C::KeepsGone), &["progress"]),
    ("lets in another engine's numbers", Bug::Coordinator(C::AnyEngine), &["same identity, same numbers"]),
    ("waits for a chunk that is set aside", Bug::Coordinator(C::AsideBlocks), &["progress"]),
    (
        "leases a chunk that is set aside",
        Bug::Coordinator(C::AsideLeased),
        &["one bad thing stops only itself"],
    ),
    ("keeps results without a limit", Bug::Worker(W::NoLimit), &["limits on everything"]),
];

/// What came of the search for one bug.
#[derive(Clone, Debug)]
pub struct Found {
    /// Its name.
    pub name: &'static str,
    /// The first seed that finds it.
    pub seed: Option<u64>,
    /// What that seed says.
    pub what: String,
}

impl std::fmt::Display for Found {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        let seed = self.seed.map_or("not found".to_owned(), |s| format!("seed {s}"));
        write!(f, "{:<46} {seed:<10} {}", self.name, self.what)
    }
}

/// Puts each bug back, and looks for a seed below `seeds` that finds it by an invariant that it breaks.
#[must_use]
pub fn find(seeds: u64) -> Vec<Found> {
    let one = |&(name, bug, by): &(&'static str, Bug, &[&str])| {
        let options = Options { bug: Some(bug), ..Options::default() };
        let hit = (0..seeds).find_map(|seed| {
            let outcome = run(seed, options);
            let what = outcome.violations.into_iter().find(|v| by.iter().any(|b| v.contains(b)))?;
            Some((seed, what))
        });
        let (seed, what) = hit.map_or((None, String::new()), |(s, w)| (Some(s), w));
        Found { name, seed, what }
    };
    std::thread::scope(|s| {
        let (a, b) = ALL.split_at(ALL.len() / 2);
        let half = |part: &'static [(&'static str, Bug, &'static [&'static str])]| {
            s.spawn(move || part.iter().map(one).collect::<Vec<_>>())
        };
        [half(a), half(b)].into_iter().flat_map(|h| h.join().unwrap_or_default()).collect()
    })
}

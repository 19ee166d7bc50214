//! Copies: where nothing is pending any more, idle workers compute again what others have had for too long. The first result wins, and
//! the two are compared.
//!
//! At a sweep's tail there are hundreds of idle workers, thousands of leases, and an event for each chunk. So the leases are gone through
//! once for all workers, and only those that are late for one of them are looked at more closely.

use super::assign::Ready;
use super::state::{Lease, Worker};
use super::{Action, LeaseId, Millis, Scheduler, WorkerId};
use std::ops::RangeBounds;

/// Chunks of one sweep, as the idle workers would compute them.
struct Kind<'a> {
    /// Experiment and sweep.
    of: (&'a str, u32),
    /// By worker: how long it takes for a chunk.
    paces: Vec<Pace>,
    /// The least of those that are known, and whether there are workers of whom it isn't.
    known: Option<Millis>,
    unknown: bool,
}

/// How long a worker takes for a chunk of a sweep.
#[derive(Clone, Copy)]
enum Pace {
    /// The experiment isn't for it.
    Never,
    /// It has done none of them: as long as the one that has the lease.
    Unknown,
    /// So many milliseconds.
    Known(Millis),
}

/// A lease that is late for one of the workers.
#[derive(Clone, Copy)]
struct Late<'a> {
    id: LeaseId,
    lease: &'a Lease,
    /// Place of its kind.
    kind: usize,
    /// What a chunk should take of whose pace isn't known.
    otherwise: Millis,
    /// A chunk of it that nobody else has.
    chunk: u32,
}

impl Pace {
    fn of(self, otherwise: Millis) -> Option<Millis> {
        match self {
            Self::Never => None,
            Self::Unknown => Some(otherwise),
            Self::Known(ms) => Some(ms),
        }
    }
}

impl Kind<'_> {
    /// How long the fastest worker takes, where those whose pace isn't known take as long as `otherwise`; none where the
    /// experiment is for no one.
    fn fastest(&self, otherwise: Millis) -> Option<Millis> {
        self.known.into_iter().chain(self.unknown.then_some(otherwise)).min()
    }
}

/// Whether a lease has been held for more than twice the time that it should need, with what came before it, where a chunk
/// takes so long.
fn is_late(lease: &Lease, now: Millis, each: Millis) -> bool {
    now.saturating_sub(lease.since) > 2 * each * lease.ahead
}

impl Scheduler {
    /// Gives each of these workers a copy of a chunk of the oldest lease that another worker has had for too long.
    pub(super) fn give_copies(&mut self, ready: &Ready, now: Millis, out: &mut Vec<Action>) {
        for (worker, lease, chunk) in self.copies(ready, now) {
            let Some(l) = self.leases.get(lease) else { continue };
            let (experiment, at) = (l.experiment.clone(), (l.sweep, l.round));
            let round = self.experiments.get(&experiment).and_then(|e| e.rounds.get(&at));
            let list = round.map(|r| r.list.clone()).unwrap_or_default();
            self.lease(worker, experiment, at, list, [chunk].into(), now, out);
        }
    }

    /// Who is to copy which chunk of which lease: each worker at most one, in their order, and no chunk twice.
    pub(super) fn copies(&self, ready: &Ready, now: Millis) -> Vec<(WorkerId, LeaseId, u32)> {
        let idle = |&(_, id): &(u32, WorkerId)| Some((id, self.workers.get(&id)?));
        let workers: Vec<(WorkerId, &Worker)> = ready.iter().filter_map(idle).collect();
        if workers.is_empty() {
            return Vec::new();
        }
        let (kinds, mut late) = self.late(&workers, now);
        let mut copies = Vec::new();
        for (place, &(worker, _)) in workers.iter().enumerate() {
            let fits = |l: &Late<'_>| {
                let each = kinds[l.kind].paces[place].of(l.otherwise);
                l.lease.worker != worker && each.is_some_and(|each| is_late(l.lease, now, each))
            };
            let Some(at) = late.iter().position(fits) else { continue };
            let Late { id, lease, chunk, .. } = late[at];
            copies.push((worker, id, chunk));
            match self.alone(lease, ..chunk) {
                Some(next) => late[at].chunk = next,
                None => {
                    late.remove(at);
                }
            }
        }
        copies
    }

    /// The leases that are late for one of these workers, the oldest first, and the kinds of chunks that they hold.
    fn late<'a>(&'a self, workers: &[(WorkerId, &Worker)], now: Millis) -> (Vec<Kind<'a>>, Vec<Late<'a>>) {
        let mut kinds: Vec<Kind<'a>> = Vec::new();
        let mut late = Vec::new();
        for (id, lease) in self.leases.iter() {
            let of = (lease.experiment.as_str(), lease.sweep);
            let kind = kinds.iter().position(|k| k.of == of).unwrap_or_else(|| {
                kinds.push(self.kind(of, workers));
                kinds.len() - 1
            });
            let otherwise = if kinds[kind].unknown { self.theirs(lease) } else { self.config.shard };
            if kinds[kind].fastest(otherwise).is_some_and(|each| is_late(lease, now, each))
                && let Some(chunk) = self.alone(lease, ..)
            {
                late.push(Late { id, lease, kind, otherwise, chunk });
            }
        }
        // Those of one time stay in the order of their numbers.
        late.sort_by_key(|l| l.lease.since);
        (kinds, late)
    }

    /// How long a chunk of a lease should take, as far as its own worker goes.
    fn theirs(&self, lease: &Lease) -> Millis {
        let theirs = self.workers.get(&lease.worker).and_then(|w| w.expected(&lease.experiment, lease.sweep));
        theirs.unwrap_or(self.config.shard)
    }

    /// Chunks of a sweep, as these workers would compute them.
    fn kind<'a>(&self, of: (&'a str, u32), workers: &[(WorkerId, &Worker)]) -> Kind<'a> {
        let running = self.experiments.get(of.0).filter(|e| e.running);
        let pace = |&(id, w): &(WorkerId, &Worker)| match running {
            Some(e) if !e.excluded.contains_key(&id) => {
                w.expected(of.0, of.1).map_or(Pace::Unknown, Pace::Known)
            }
            _ => Pace::Never,
        };
        let paces: Vec<Pace> = workers.iter().map(pace).collect();
        let known = paces.iter().filter_map(|p| if let Pace::Known(ms) = p { Some(*ms) } else { None }).min();
        let unknown = paces.iter().any(|p| matches!(p, Pace::Unknown));
        Kind { of, paces, known, unknown }
    }

    /// The last of these chunks of a lease that nobody else has: its worker goes from the beginning. None that is set
    /// aside while its worker still works on it: a copy would fail as the others did.
    fn alone(&self, lease: &Lease, chunks: impl RangeBounds<u32>) -> Option<u32> {
        let at = (lease.sweep, lease.round);
        let round = self.experiments.get(&lease.experiment).and_then(|e| e.rounds.get(&at));
        let alone = |chunk: u32| {
            self.leases.holders(&lease.experiment, (at.0, at.1, chunk)) == 1
                && round.is_none_or(|r| !r.aside.contains(&chunk))
        };
        lease.open.range::<u32, _>(chunks).rev().copied().find(|&chunk| alone(chunk))
    }
}

//! What goes wrong: chunks that fail, workers that fail, and workers that vanish, each with a budget of its own. A chunk that
//! fails on two workers, or three times on the only one, is quarantined; a worker that fails at whatever it gets is drained; a chunk
//! that workers keep vanishing with may be what kills them.

use super::state::{Experiment, Lease};
use super::{Action, ChunkAt, Fault, LeaseId, Millis, Scheduler, WorkerId};
#[cfg(feature = "mutations")]
use crate::mutation;
use std::collections::BTreeSet;

/// The protocol that plans need of their workers is newer than the worker's.
fn too_old(theirs: u32, needed: u32) -> String {
    format!(
        "a worker speaks protocol {theirs}, and this experiment needs {needed}; install the coordinator's release of ablate-worker there"
    )
}

impl Scheduler {
    #[expect(clippy::too_many_arguments, reason = "the parts of a failure")]
    pub(super) fn failed(
        &mut self,
        id: &str,
        at: ChunkAt,
        worker: WorkerId,
        lease: LeaseId,
        fault: Fault,
        now: Millis,
        out: &mut Vec<Action>,
    ) {
        self.leases.leave(lease, at.2);
        let limit = self.config.chunk_failures;
        let elsewhere = self.is_leased(id, at);
        // What names no chunk of an open round is nobody's failure, and would be kept for ever.
        let Some(e) = self.experiments.get_mut(id).filter(|e| e.knows(at)) else { return };
        e.audit_lost(at);
        match fault {
            Fault::Model(why) => {
                e.excluded.insert(worker, why);
                if !elsewhere {
                    e.back(at);
                }
                let of: Vec<LeaseId> =
                    self.leases.of(worker).filter(|(_, l)| l.experiment == id).map(|(k, _)| k).collect();
                of.into_iter().for_each(|l| self.drop_lease(l));
            }
            Fault::Chunk(error) => {
                let tries = e.failures.entry(at).or_default();
                tries.push((worker, now));
                let workers: BTreeSet<WorkerId> = tries.iter().map(|t| t.0).collect();
                if workers.len() >= 2 || tries.len() >= limit {
                    if e.set_aside(at) {
                        out.push(Action::Quarantine(id.to_owned(), at, error));
                    }
                } else if !elsewhere {
                    #[cfg(feature = "mutations")]
                    if mutation::is(mutation::Mutation::NeverRetried) {
                        return;
                    }
                    e.back(at);
                }
                if let Some(w) = self.workers.get_mut(&worker) {
                    w.failures += 1;
                    if w.failures >= self.config.worker_failures && !w.draining {
                        w.draining = true;
                        out.push(Action::Drain(worker));
                    }
                }
                self.settle(id, out);
            }
        }
    }

    /// Excludes workers from an experiment that needs more than their protocol has.
    pub(super) fn exclude_old(&mut self, id: &str) {
        let Some(e) = self.experiments.get_mut(id) else { return };
        for (&worker, w) in self.workers.iter().filter(|(_, w)| w.protocol < e.protocol) {
            e.excluded.insert(worker, too_old(w.protocol, e.protocol));
        }
    }

    /// A worker vanished: what its lanes worked on may have killed it. Lanes take the oldest lease's chunks first.
    pub(super) fn suspect(&mut self, worker: WorkerId, out: &mut Vec<Action>) {
        let Some(lanes) = self.workers.get(&worker).map(|w| w.lanes as usize) else { return };
        let theirs = self.leases.of(worker);
        let at = theirs
            .flat_map(|(_, l)| l.open.iter().map(|&chunk| (l.experiment.clone(), (l.sweep, l.round, chunk))));
        let suspects: Vec<(String, ChunkAt)> = at.take(lanes).collect();
        for (id, at) in suspects {
            let same = |l: &Lease| {
                (l.sweep, l.round) == (at.0, at.1) && l.open.contains(&at.2) && l.experiment == id
            };
            let elsewhere = self.leases.iter().any(|(_, l)| l.worker != worker && same(l));
            let Some(e) = self.experiments.get_mut(&id) else { continue };
            let losses = e.losses.entry(at).or_default();
            *losses += 1;
            let n = *losses;
            if n >= self.config.chunk_losses && !elsewhere && e.set_aside(at) {
                let why = format!(
                    "{n} workers vanished while they worked on it: it may be what ends them, as too little memory would"
                );
                out.push(Action::Quarantine(id.clone(), at, why));
                self.settle(&id, out);
            }
        }
    }
}

impl Experiment {
    /// Whether a chunk failed on this worker after `since`, and there are others (of `all` that could have it) on which it
    /// didn't. They get some time, not all of it: they may be stuck.
    pub(super) fn better_elsewhere(
        &self,
        at: ChunkAt,
        worker: WorkerId,
        all: &BTreeSet<WorkerId>,
        since: Option<Millis>,
    ) -> bool {
        self.failures.get(&at).is_some_and(|tried| {
            tried.iter().any(|&(w, when)| w == worker && since.is_none_or(|s| when > s))
                && all.iter().any(|w| tried.iter().all(|t| t.0 != *w))
        })
    }
}

//! The leases, and what is asked of them at every event: how much a worker holds, what an experiment has, and who has a chunk. All of
//! that is counted as leases change, because a cluster has thousands of them and an event for each chunk.

use super::state::Lease;
use super::{ChunkAt, LeaseId, Millis, WorkerId};
use std::collections::{BTreeMap, BTreeSet};

/// What a worker holds.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
struct Holding {
    leases: BTreeSet<LeaseId>,
    /// Their open chunks.
    chunks: u32,
}

/// What is leased of an experiment.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
struct Leased {
    leases: u32,
    /// In how many of them a chunk is open.
    chunks: BTreeMap<ChunkAt, u32>,
}

impl Leased {
    fn let_go(&mut self, at: ChunkAt) {
        if let Some(n) = self.chunks.get_mut(&at) {
            *n -= 1;
            if *n == 0 {
                self.chunks.remove(&at);
            }
        }
    }
}

/// See the module.
#[derive(Clone, Debug, Default)]
pub(super) struct Leases {
    all: BTreeMap<LeaseId, Lease>,
    workers: BTreeMap<WorkerId, Holding>,
    experiments: BTreeMap<String, Leased>,
}

impl Leases {
    pub fn get(&self, id: LeaseId) -> Option<&Lease> {
        self.all.get(&id)
    }

    pub fn contains(&self, id: LeaseId) -> bool {
        self.all.contains_key(&id)
    }

    /// All of them, the oldest first.
    pub fn iter(&self) -> impl Iterator<Item = (LeaseId, &Lease)> {
        self.all.iter().map(|(&id, lease)| (id, lease))
    }

    /// A worker's, the oldest first.
    pub fn of(&self, worker: WorkerId) -> impl Iterator<Item = (LeaseId, &Lease)> {
        let ids = self.workers.get(&worker).into_iter().flat_map(|h| &h.leases);
        ids.filter_map(|&id| Some((id, self.all.get(&id)?)))
    }

    /// How many a worker has.
    pub fn count_of(&self, worker: WorkerId) -> usize {
        self.workers.get(&worker).map_or(0, |h| h.leases.len())
    }

    /// Open chunks of a worker's.
    pub fn chunks_of(&self, worker: WorkerId) -> u32 {
        self.workers.get(&worker).map_or(0, |h| h.chunks)
    }

    /// How many of an experiment other workers have.
    pub fn elsewhere(&self, worker: WorkerId, experiment: &str) -> u32 {
        let Some(leased) = self.experiments.get(experiment) else { return 0 };
        let own = self.of(worker).filter(|(_, l)| l.experiment == experiment).count() as u32;
        leased.leases - own
    }

    /// In how many a chunk is open.
    pub fn holders(&self, experiment: &str, at: ChunkAt) -> u32 {
        self.experiments.get(experiment).and_then(|e| e.chunks.get(&at)).copied().unwrap_or(0)
    }

    pub fn insert(&mut self, id: LeaseId, lease: Lease) {
        self.remove(id);
        let held = self.workers.entry(lease.worker).or_default();
        held.leases.insert(id);
        held.chunks += lease.open.len() as u32;
        let leased = self.experiments.entry(lease.experiment.clone()).or_default();
        leased.leases += 1;
        for &chunk in &lease.open {
            *leased.chunks.entry((lease.sweep, lease.round, chunk)).or_insert(0) += 1;
        }
        self.all.insert(id, lease);
    }

    pub fn remove(&mut self, id: LeaseId) -> Option<Lease> {
        let lease = self.all.remove(&id)?;
        if let Some(held) = self.workers.get_mut(&lease.worker) {
            held.leases.remove(&id);
            held.chunks -= lease.open.len() as u32;
            if held.leases.is_empty() {
                self.workers.remove(&lease.worker);
            }
        }
        if let Some(leased) = self.experiments.get_mut(&lease.experiment) {
            leased.leases -= 1;
            lease.open.iter().for_each(|&chunk| leased.let_go((lease.sweep, lease.round, chunk)));
            if leased.leases == 0 {
                self.experiments.remove(&lease.experiment);
            }
        }
        Some(lease)
    }

    /// A chunk of a lease is dealt with; the lease goes with its last.
    pub fn leave(&mut self, id: LeaseId, chunk: u32) {
        let Some(lease) = self.all.get_mut(&id) else { return };
        if lease.open.remove(&chunk) {
            if let Some(held) = self.workers.get_mut(&lease.worker) {
                held.chunks -= 1;
            }
            if let Some(leased) = self.experiments.get_mut(&lease.experiment) {
                leased.let_go((lease.sweep, lease.round, chunk));
            }
        }
        if lease.open.is_empty() {
            self.remove(id);
        }
    }

    /// Holds a worker's lease until then; false where it hasn't got it.
    pub fn renew(&mut self, id: LeaseId, worker: WorkerId, until: Millis) -> bool {
        match self.all.get_mut(&id).filter(|l| l.worker == worker) {
            Some(lease) => {
                lease.until = until;
                true
            }
            None => false,
        }
    }
}

#[cfg(test)]
impl Leases {
    /// Asserts that everything is counted as it would be anew.
    pub fn check(&self) {
        let mut anew = Self::default();
        self.all.iter().for_each(|(&id, lease)| anew.insert(id, lease.clone()));
        assert_eq!(self.workers, anew.workers);
        assert_eq!(self.experiments, anew.experiments);
        for (&id, lease) in &self.all {
            assert!(!lease.open.is_empty(), "lease {id} holds nothing");
        }
    }
}

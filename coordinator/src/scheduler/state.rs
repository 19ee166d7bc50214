//! What the scheduler knows of experiments, workers and leases.

use super::{ChunkAt, LeaseId, Millis, WorkerId};
use std::collections::{BTreeMap, BTreeSet};

/// What the scheduler needs to know of a planned sweep.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct SweepShape {
    /// Chunks of each round.
    pub rounds: Vec<u32>,
    /// Whether a round's scores decide what follows.
    pub decides: bool,
    /// Sweeps of one round whose chunks a decision reads too.
    pub needs: Vec<u32>,
}

/// An experiment, and what is already durable of it.
#[derive(Clone, Debug)]
pub struct Summary {
    /// Identity.
    pub id: String,
    /// Sweeps of the plan.
    pub sweeps: Vec<SweepShape>,
    /// Opened rounds: (sweep, round, input, decided).
    pub rounds: Vec<(u32, u32, Vec<u32>, bool)>,
    /// Accepted chunks.
    pub accepted: Vec<ChunkAt>,
    /// Chunks that are set aside.
    pub quarantined: Vec<ChunkAt>,
    /// Results received so far, and how many of them were duplicates.
    pub computed: (u64, u64),
    /// Per sweep: lanes' working time so far, in microseconds.
    pub busy_us: BTreeMap<u32, u64>,
    /// Whether work may be leased.
    pub running: bool,
    /// Least version of the protocol that its workers must speak.
    pub protocol: u32,
}

/// How far an experiment is.
#[derive(Clone, Debug, Default, PartialEq)]
pub struct Progress {
    /// Per sweep: accepted chunks by round.
    pub done: Vec<BTreeMap<u32, u32>>,
    /// Per sweep: lanes' working time, in microseconds.
    pub busy_us: Vec<u64>,
    /// Results received.
    pub computed: u64,
    /// Results for chunks that had one already.
    pub duplicate: u64,
    /// Chunks set aside.
    pub quarantined: u64,
    /// Accepted chunks.
    pub accepted: u64,
    /// Why a connected worker can't serve it; none where all can.
    pub refused: Option<String>,
}

#[derive(Clone, Debug)]
pub(super) struct Round {
    pub list: Vec<u32>,
    pub chunks: u32,
    pub pending: BTreeSet<u32>,
    pub done: BTreeSet<u32>,
    pub aside: BTreeSet<u32>,
    pub decided: bool,
    pub deciding: bool,
}

impl Round {
    pub fn complete(&self) -> bool {
        #[cfg(feature = "mutations")]
        if crate::mutation::is(crate::mutation::Mutation::DecidesEarly) {
            return self.done.len() as u32 + 1 >= self.chunks;
        }
        self.done.len() as u32 == self.chunks
    }

    pub fn ended(&self) -> bool {
        #[cfg(feature = "mutations")]
        if crate::mutation::is(crate::mutation::Mutation::AsideBlocks) {
            return self.done.len() as u32 == self.chunks;
        }
        (self.done.len() + self.aside.len()) as u32 == self.chunks
    }
}

#[derive(Clone, Debug)]
pub(super) struct Experiment {
    pub sweeps: Vec<SweepShape>,
    pub rounds: BTreeMap<(u32, u32), Round>,
    pub failures: BTreeMap<ChunkAt, Vec<(WorkerId, Millis)>>,
    /// How often a worker vanished with a chunk.
    pub losses: BTreeMap<ChunkAt, usize>,
    /// Chunks to be computed once more: whose result is there, and of which device classes.
    pub audits: BTreeMap<ChunkAt, (WorkerId, String)>,
    /// Those that are being so.
    pub auditing: BTreeSet<ChunkAt>,
    /// Since when the end waits for nothing else.
    pub audits_since: Option<Millis>,
    pub protocol: u32,
    /// Workers that can't serve it, and why.
    pub excluded: BTreeMap<WorkerId, String>,
    /// The latest lease of what was pending: experiments have their turns by it.
    pub latest: LeaseId,
    pub running: bool,
    pub finished: bool,
    busy_us: Vec<u64>,
    computed: u64,
    duplicate: u64,
}

impl Experiment {
    pub fn new(summary: Summary) -> Self {
        let mut e = Self {
            busy_us: (0u32..)
                .zip(&summary.sweeps)
                .map(|(i, _)| summary.busy_us.get(&i).copied().unwrap_or(0))
                .collect(),
            sweeps: summary.sweeps,
            rounds: BTreeMap::new(),
            failures: BTreeMap::new(),
            losses: BTreeMap::new(),
            audits: BTreeMap::new(),
            auditing: BTreeSet::new(),
            audits_since: None,
            protocol: summary.protocol,
            excluded: BTreeMap::new(),
            latest: 0,
            running: summary.running,
            finished: false,
            computed: summary.computed.0,
            duplicate: summary.computed.1,
        };
        for (sweep, round, list, decided) in summary.rounds {
            e.open(sweep, round, list);
            if let Some(r) = e.rounds.get_mut(&(sweep, round)) {
                r.decided = decided;
            }
        }
        for (sweep, round, chunk) in summary.accepted {
            if let Some(r) = e.rounds.get_mut(&(sweep, round)) {
                r.pending.remove(&chunk);
                r.done.insert(chunk);
            }
        }
        for at in summary.quarantined {
            e.set_aside(at);
        }
        e
    }

    fn open(&mut self, sweep: u32, round: u32, list: Vec<u32>) {
        let Some(&chunks) = self.sweeps.get(sweep as usize).and_then(|s| s.rounds.get(round as usize)) else {
            return;
        };
        self.rounds.entry((sweep, round)).or_insert_with(|| Round {
            list,
            chunks,
            pending: (0..chunks).collect(),
            done: BTreeSet::new(),
            aside: BTreeSet::new(),
            decided: false,
            deciding: false,
        });
    }

    pub fn done(&mut self, (sweep, round, chunk): ChunkAt, duplicate: bool, busy_us: u64) {
        self.computed += 1;
        self.duplicate += u64::from(duplicate);
        if let Some(busy) = self.busy_us.get_mut(sweep as usize) {
            *busy += busy_us;
        }
        if let Some(r) = self.rounds.get_mut(&(sweep, round))
            && chunk < r.chunks
        {
            r.pending.remove(&chunk);
            r.aside.remove(&chunk);
            r.done.insert(chunk);
        }
        self.failures.remove(&(sweep, round, chunk));
        self.losses.remove(&(sweep, round, chunk));
    }

    /// Whether it is a chunk of an open round.
    pub fn knows(&self, (sweep, round, chunk): ChunkAt) -> bool {
        self.rounds.get(&(sweep, round)).is_some_and(|r| chunk < r.chunks)
    }

    /// Puts a chunk back to the pending ones, unless it is done or set aside.
    pub fn back(&mut self, (sweep, round, chunk): ChunkAt) {
        if let Some(r) = self.rounds.get_mut(&(sweep, round))
            && chunk < r.chunks
            && !r.done.contains(&chunk)
            && !r.aside.contains(&chunk)
        {
            r.pending.insert(chunk);
        }
    }

    /// Sets a chunk aside; false where it is done or unknown.
    pub fn set_aside(&mut self, (sweep, round, chunk): ChunkAt) -> bool {
        let Some(r) = self.rounds.get_mut(&(sweep, round)) else { return false };
        if chunk >= r.chunks || r.done.contains(&chunk) {
            return false;
        }
        r.pending.remove(&chunk);
        #[cfg(feature = "mutations")]
        if crate::mutation::is(crate::mutation::Mutation::AsideLeased) {
            r.pending.insert(chunk);
        }
        r.aside.insert(chunk)
    }

    pub fn retry(&mut self) {
        self.failures.clear();
        self.losses.clear();
        self.excluded.clear();
        self.running = true;
        self.finished = false;
        self.audits_since = None;
        for r in self.rounds.values_mut() {
            r.pending.append(&mut r.aside);
            // A decision that failed is made again; a second one made meanwhile is the same.
            r.deciding = false;
        }
    }

    /// An audit's lease is gone: it isn't given again.
    pub fn audit_lost(&mut self, at: ChunkAt) {
        self.auditing.remove(&at);
    }

    pub fn decided(&mut self, sweep: u32, round: u32, opens: Vec<(u32, u32, Vec<u32>)>) {
        if let Some(r) = self.rounds.get_mut(&(sweep, round)) {
            r.decided = true;
        }
        for (sweep, round, list) in opens {
            self.open(sweep, round, list);
        }
    }

    /// Rounds that can be decided now, each given out once.
    pub fn take_decidable(&mut self) -> Vec<(u32, u32)> {
        let ready: Vec<(u32, u32)> = self
            .rounds
            .iter()
            .filter(|((sweep, _), r)| {
                let shape = &self.sweeps[*sweep as usize];
                shape.decides
                    && !r.decided
                    && !r.deciding
                    && r.complete()
                    && shape.needs.iter().all(|&n| self.rounds.get(&(n, 0)).is_some_and(Round::complete))
            })
            .map(|(&at, _)| at)
            .collect();
        for at in &ready {
            if let Some(r) = self.rounds.get_mut(at) {
                r.deciding = true;
            }
        }
        ready
    }

    /// Whether no chunk is left and no decision that could open more.
    pub fn nothing_left(&self) -> bool {
        self.rounds.iter().all(|((sweep, _), r)| {
            let shape = &self.sweeps[*sweep as usize];
            let lost = |n: &u32| self.rounds.get(&(*n, 0)).is_none_or(|x| x.ended() && !x.complete());
            r.ended() && (!shape.decides || r.decided || !r.complete() || shape.needs.iter().any(lost))
        })
    }

    pub fn progress(&self) -> Progress {
        let mut p = Progress {
            done: vec![BTreeMap::new(); self.sweeps.len()],
            busy_us: self.busy_us.clone(),
            computed: self.computed,
            duplicate: self.duplicate,
            refused: self.excluded.values().next_back().cloned(),
            ..Progress::default()
        };
        for (&(sweep, round), r) in &self.rounds {
            p.done[sweep as usize].insert(round, r.done.len() as u32);
            p.accepted += r.done.len() as u64;
            p.quarantined += r.aside.len() as u64;
        }
        p
    }
}

#[derive(Clone, Debug, Default)]
pub(super) struct Worker {
    pub lanes: u32,
    pub credit: u32,
    pub protocol: u32,
    pub class: String,
    /// Failures in a row.
    pub failures: u32,
    pub draining: bool,
    /// Experiments it was told of.
    pub opened: BTreeSet<String>,
    /// The experiment that it works for, since when.
    pub stint: Option<(String, Millis)>,
    /// Microseconds per chunk, smoothed, by experiment and sweep.
    pub speed: BTreeMap<String, BTreeMap<u32, u64>>,
}

impl Worker {
    pub fn measure(&mut self, experiment: &str, sweep: u32, busy_us: u64) {
        let slot = self.speed.entry(experiment.to_owned()).or_default().entry(sweep).or_insert(busy_us);
        *slot = (*slot * 3 + busy_us) / 4;
    }

    /// Expected milliseconds per chunk; none before the first.
    pub fn expected(&self, experiment: &str, sweep: u32) -> Option<Millis> {
        self.speed.get(experiment)?.get(&sweep).map(|us| (us / 1000).max(1))
    }
}

#[derive(Clone, Debug)]
pub(super) struct Lease {
    pub worker: WorkerId,
    pub experiment: String,
    pub sweep: u32,
    pub round: u32,
    /// Chunks that have no result yet.
    pub open: BTreeSet<u32>,
    /// Chunks that a lane of its worker had to do until this lease's last, when it was given.
    pub ahead: u64,
    pub since: Millis,
    pub until: Millis,
}

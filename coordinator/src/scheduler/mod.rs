//! The scheduler: a pure state machine, (state, event, now) → (state, actions). No I/O, no clock, no
//! randomness: the server, simulations and model checkers drive the same code.

mod assign;
mod audit;
mod copies;
mod fail;
mod leases;
mod state;
#[cfg(test)]
mod tests;

pub use state::{Progress, Summary, SweepShape};

#[cfg(feature = "mutations")]
use crate::mutation;
use leases::Leases;
use state::{Experiment, Worker};
use std::collections::BTreeMap;

/// Milliseconds on the driver's monotonic clock.
pub type Millis = u64;
/// A worker's connection; a reconnect is a new one.
pub type WorkerId = u64;
/// A lease.
pub type LeaseId = u64;

/// A chunk within an experiment: (sweep, round, chunk).
pub type ChunkAt = (u32, u32, u32);

/// Settings.
#[derive(Clone, Copy, Debug)]
pub struct Config {
    /// Lease that workers are told, in ms. The coordinator waits a quarter longer (invariant "two-sided
    /// leases").
    pub lease: Millis,
    /// Work that one shard should hold, in ms.
    pub shard: Millis,
    /// Failures of one chunk, on one worker, after which it is quarantined (on two workers: two).
    pub chunk_failures: usize,
    /// Failures of a worker in a row after which it is drained.
    pub worker_failures: u32,
    /// Workers that may vanish while they work on one chunk; then it is quarantined, as it may be what kills them.
    pub chunk_losses: usize,
    /// Share of the chunks that another worker of the same kind computes once more, to be compared, in millionths.
    pub audit: u32,
    /// Until when nothing is leased, in ms of the driver's clock: after a takeover workers first bring the leases that
    /// they hold.
    pub quiet: Millis,
}

impl Default for Config {
    fn default() -> Self {
        Self {
            lease: 30_000,
            shard: 5_000,
            chunk_failures: 3,
            worker_failures: 5,
            chunk_losses: 5,
            audit: 0,
            quiet: 0,
        }
    }
}

/// What a chunk failed of.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Fault {
    /// The worker can't serve this experiment at all (model missing or different, too little memory); other workers may.
    Model(String),
    /// The chunk failed.
    Chunk(String),
}

/// A lease that a worker brings to a coordinator that may not know it.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Held {
    /// The lease.
    pub lease: LeaseId,
    /// Its experiment.
    pub experiment: String,
    /// Its sweep and round.
    pub round: (u32, u32),
    /// Its chunks without an acknowledged result.
    pub chunks: Vec<u32>,
}

/// What happened.
#[derive(Clone, Debug)]
pub enum Event {
    /// An experiment is there, with what is already known of it.
    Added(Box<Summary>),
    /// Its user paused it.
    Pause(String),
    /// Its user resumed it.
    Resume(String),
    /// Its user ended it, or it can't go on.
    Cancel(String),
    /// It goes on, and quarantined chunks get another try.
    Retry(String),
    /// A worker connected.
    Joined {
        /// Its connection.
        worker: WorkerId,
        /// Its lanes.
        lanes: u32,
        /// Version of the protocol that it speaks.
        protocol: u32,
        /// Device classes of its lanes: copies are compared between workers that have the same.
        class: String,
    },
    /// A worker can take more shards.
    Credit {
        /// Its connection.
        worker: WorkerId,
        /// How many more.
        shards: u32,
    },
    /// A worker says on a new stream what it holds.
    Bring {
        /// Its connection.
        worker: WorkerId,
        /// Its leases.
        held: Vec<Held>,
    },
    /// A worker still works on these leases.
    Renew {
        /// Its connection.
        worker: WorkerId,
        /// The leases.
        leases: Vec<LeaseId>,
    },
    /// A result is durable (or was so before).
    Committed {
        /// Experiment.
        experiment: String,
        /// Chunk.
        at: ChunkAt,
        /// Who sent it, under which lease.
        worker: WorkerId,
        /// Lease it was computed under.
        lease: LeaseId,
        /// Whether the chunk had a result already.
        duplicate: bool,
        /// Time the lane worked on it, in microseconds.
        busy_us: u64,
    },
    /// A chunk failed on a worker.
    Failed {
        /// Experiment.
        experiment: String,
        /// Chunk.
        at: ChunkAt,
        /// Worker.
        worker: WorkerId,
        /// Lease.
        lease: LeaseId,
        /// Why.
        fault: Fault,
    },
    /// A worker is gone, however: stream end, goodbye, drain, crash (invariant 8). `said` where it said so: what it had is
    /// no suspect then.
    Gone {
        /// Its connection.
        worker: WorkerId,
        /// Whether it said goodbye.
        said: bool,
    },
    /// A round's decision is durable; these rounds follow.
    Decided {
        /// Experiment.
        experiment: String,
        /// Sweep that was decided.
        sweep: u32,
        /// Round that was decided.
        round: u32,
        /// (sweep, round, input).
        opens: Vec<(u32, u32, Vec<u32>)>,
    },
    /// Time passed.
    Tick,
}

/// What the driver must do.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Action {
    /// Tell a worker of an experiment, before its first shard.
    Open(WorkerId, String),
    /// Lease a shard.
    Shard {
        /// To whom.
        worker: WorkerId,
        /// Under which lease.
        lease: LeaseId,
        /// Experiment.
        experiment: String,
        /// Sweep.
        sweep: u32,
        /// Round.
        round: u32,
        /// Input of the round.
        list: Vec<u32>,
        /// First chunk.
        first: u32,
        /// Number of chunks.
        count: u32,
    },
    /// Acknowledge a result.
    Ack {
        /// To whom.
        worker: WorkerId,
        /// Experiment.
        experiment: String,
        /// Chunk.
        at: ChunkAt,
        /// Whether the chunk had a result already.
        duplicate: bool,
    },
    /// Tell a worker which of its leases still hold.
    Renewed(WorkerId, Vec<LeaseId>),
    /// Take a lease back.
    Revoke(WorkerId, LeaseId),
    /// Take a lease back that ran out: its worker may not hear of it.
    Expired(WorkerId, LeaseId),
    /// Tell a worker that an experiment is over: what it keeps of it can go.
    Close(WorkerId, String),
    /// Ask a worker to finish and leave.
    Drain(WorkerId),
    /// Decide a round whose chunks are all in.
    Decide(String, u32, u32),
    /// Record a chunk that several tries failed at.
    Quarantine(String, ChunkAt, String),
    /// Nothing is left to do for an experiment.
    Finished(String),
}

/// The state machine.
#[derive(Clone, Debug)]
pub struct Scheduler {
    config: Config,
    experiments: BTreeMap<String, Experiment>,
    workers: BTreeMap<WorkerId, Worker>,
    leases: Leases,
    next_lease: LeaseId,
    /// Of the event that is being taken.
    now: Millis,
}

impl Scheduler {
    /// Nothing known. Lease ids begin at `first_lease`, so that a coordinator's leases differ from those
    /// of the one before it.
    #[must_use]
    pub fn new(config: Config, first_lease: LeaseId) -> Self {
        Self {
            config,
            experiments: BTreeMap::new(),
            workers: BTreeMap::new(),
            leases: Leases::default(),
            next_lease: first_lease,
            now: 0,
        }
    }

    /// Progress of an experiment.
    #[must_use]
    pub fn progress(&self, experiment: &str) -> Option<Progress> {
        self.experiments.get(experiment).map(Experiment::progress)
    }

    /// Chunks leased to a worker.
    #[must_use]
    pub fn leased_to(&self, worker: WorkerId) -> u32 {
        self.leases.chunks_of(worker)
    }

    /// Whether a lease is held: a result under another comes late.
    #[must_use]
    pub fn holds(&self, lease: LeaseId) -> bool {
        self.leases.contains(lease)
    }

    /// Takes an event.
    pub fn on(&mut self, event: Event, now: Millis) -> Vec<Action> {
        let mut out = Vec::new();
        self.now = now;
        match event {
            Event::Added(summary) => {
                let id = summary.id.clone();
                self.experiments.entry(id.clone()).or_insert_with(|| Experiment::new(*summary));
                self.exclude_old(&id);
                self.settle(&id, &mut out);
            }
            Event::Pause(id) => self.with(&id, |e| e.running = false),
            Event::Resume(id) => {
                self.with(&id, |e| e.running = true);
                self.settle(&id, &mut out);
            }
            Event::Cancel(id) => {
                self.with(&id, |e| e.running = false);
                self.close(&id, &mut out);
            }
            Event::Retry(id) => {
                let refusing = self.experiments.get(&id).map(|e| e.excluded.clone()).unwrap_or_default();
                self.with(&id, Experiment::retry);
                self.exclude_old(&id);
                // Workers that couldn't open it forget that, and look again.
                for (worker, _) in refusing {
                    if self.workers.get_mut(&worker).is_some_and(|w| w.opened.remove(&id)) {
                        out.push(Action::Close(worker, id.clone()));
                    }
                }
                self.settle(&id, &mut out);
            }
            Event::Joined { worker, lanes, protocol, class } => {
                let joined = Worker { lanes: lanes.max(1), protocol, class, ..Worker::default() };
                self.workers.insert(worker, joined);
                let all: Vec<String> = self.experiments.keys().cloned().collect();
                all.iter().for_each(|id| self.exclude_old(id));
            }
            Event::Credit { worker, shards } => {
                if let Some(w) = self.workers.get_mut(&worker) {
                    // A worker needs two shards a lane; more credit than that is a fault, not a wish.
                    w.credit = w.credit.saturating_add(shards).min(4 * w.lanes);
                }
            }
            Event::Bring { worker, held } => {
                for one in held {
                    self.adopt(worker, &one, now, &mut out);
                }
            }
            Event::Renew { worker, leases } => {
                let until = self.until(now);
                let mut held = Vec::new();
                for id in leases {
                    if self.leases.renew(id, worker, until) {
                        held.push(id);
                    }
                }
                out.push(Action::Renewed(worker, held));
            }
            Event::Committed { experiment, at, worker, lease, duplicate, busy_us } => {
                out.push(Action::Ack { worker, experiment: experiment.clone(), at, duplicate });
                self.leases.leave(lease, at.2);
                if let Some(w) = self.workers.get_mut(&worker) {
                    w.failures = 0;
                    w.measure(&experiment, at.0, busy_us);
                }
                self.with(&experiment, |e| e.done(at, duplicate, busy_us));
                self.audit(&experiment, at, worker, duplicate);
                self.settle(&experiment, &mut out);
            }
            Event::Failed { experiment, at, worker, lease, fault } => {
                self.failed(&experiment, at, worker, lease, fault, now, &mut out);
            }
            Event::Gone { worker, said } => {
                if !said {
                    self.suspect(worker, &mut out);
                }
                self.workers.remove(&worker);
                self.experiments.values_mut().for_each(|e| {
                    e.excluded.remove(&worker);
                });
                let lost: Vec<LeaseId> = self.leases.of(worker).map(|(id, _)| id).collect();
                #[cfg(feature = "mutations")]
                if mutation::is(mutation::Mutation::KeepsGone) {
                    lost.iter().for_each(|&id| drop(self.leases.remove(id)));
                }
                lost.into_iter().for_each(|id| self.drop_lease(id));
                self.settle_audits(&mut out);
            }
            Event::Decided { experiment, sweep, round, opens } => {
                self.with(&experiment, |e| e.decided(sweep, round, opens));
                self.settle(&experiment, &mut out);
            }
            Event::Tick => {
                let late: Vec<LeaseId> =
                    self.leases.iter().filter(|(_, l)| l.until <= now).map(|(id, _)| id).collect();
                for id in late {
                    if let Some(lease) = self.leases.get(id) {
                        out.push(Action::Expired(lease.worker, id));
                    }
                    self.drop_lease(id);
                }
                self.settle_audits(&mut out);
            }
        }
        self.assign(now, &mut out);
        out
    }

    fn with(&mut self, id: &str, f: impl FnOnce(&mut Experiment)) {
        if let Some(e) = self.experiments.get_mut(id) {
            f(e);
        }
    }

    /// When the coordinator gives a lease up that begins now.
    fn until(&self, now: Millis) -> Millis {
        #[cfg(feature = "mutations")]
        if mutation::is(mutation::Mutation::NoQuarter) {
            return now + self.config.lease;
        }
        now + self.config.lease + self.config.lease / 4
    }

    /// What follows once an experiment's state has changed: decisions, the end.
    fn settle(&mut self, id: &str, out: &mut Vec<Action>) {
        // What has ended stays so until a retry: a late result of a chunk that was set aside is kept, but
        // decides nothing, as tables may have been written.
        let Some(e) = self.experiments.get_mut(id).filter(|e| e.running && !e.finished) else { return };
        for (sweep, round) in e.take_decidable() {
            out.push(Action::Decide(id.to_owned(), sweep, round));
        }
        if e.nothing_left() && !self.audits_left(id) {
            let Some(e) = self.experiments.get_mut(id) else { return };
            e.finished = true;
            out.push(Action::Finished(id.to_owned()));
            self.close(id, out);
        }
    }

    /// Takes back what is leased of an experiment (copies, where it has ended by itself), and lets the
    /// workers forget it.
    fn close(&mut self, id: &str, out: &mut Vec<Action>) {
        let of: Vec<LeaseId> =
            self.leases.iter().filter(|(_, l)| l.experiment == id).map(|(k, _)| k).collect();
        for lease in of {
            if let Some(l) = self.leases.get(lease) {
                out.push(Action::Revoke(l.worker, lease));
            }
            self.drop_lease(lease);
        }
        for (&worker, w) in &mut self.workers {
            if w.opened.remove(id) {
                out.push(Action::Close(worker, id.to_owned()));
            }
        }
    }

    /// A lease ends early: what it still held goes back, unless another lease holds it.
    fn drop_lease(&mut self, id: LeaseId) {
        let Some(lease) = self.leases.remove(id) else { return };
        for &chunk in &lease.open {
            let at = (lease.sweep, lease.round, chunk);
            if !self.is_leased(&lease.experiment, at)
                && let Some(e) = self.experiments.get_mut(&lease.experiment)
            {
                e.back(at);
                e.audit_lost(at);
            }
        }
    }

    /// Whether some worker has the chunk.
    fn is_leased(&self, experiment: &str, at: ChunkAt) -> bool {
        self.leases.holders(experiment, at) > 0
    }
}

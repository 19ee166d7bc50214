//! What a worker has on its desk: leases, the chunks left in them, what each lane does, and results
//! that wait for their acknowledgement. No I/O and no clock: the caller passes the time in.

mod dispatch;
#[cfg(test)]
mod tests;

use super::failure::failure_of;
#[cfg(feature = "mutations")]
use super::mutation;
use super::spool::Unacked;
use crate::lane::{Done, ExecError, Experiment};
use ablate_common::units::UnitIx;
use ablate_proto::v1::{self as pb, worker_message::Body};
use std::collections::{BTreeMap, HashMap, VecDeque};
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::{Duration, Instant};

/// Shards held per lane: one in work, one waiting.
pub const SHARDS_PER_LANE: u32 = 2;
/// A shard that failed gives its credit back this much later, so that a worker that fails everything
/// does not spin.
const AFTER_FAILURE: Duration = Duration::from_secs(1);
/// Most chunks of one shard.
const MAX_SHARD: u32 = 1 << 16;
/// Most leases held, most experiments open.
const MAX_HELD: usize = 4096;

struct Lease {
    experiment: String,
    sweep: u32,
    round: u32,
    list: Arc<[UnitIx]>,
    todo: std::ops::Range<u32>,
    /// Lane that works through it; others help from its end.
    lane: Option<usize>,
    running: u32,
    /// Results not acknowledged.
    waiting: u32,
    checked: bool,
    credited: bool,
    failed: bool,
    granted: Instant,
    deadline: Instant,
}

enum Opened {
    Fetching,
    Ready(Arc<Experiment>),
    Failed(pb::Failure),
}

struct Running {
    lease: u64,
    id: pb::ChunkId,
    stop: Arc<AtomicBool>,
}

struct LaneState {
    class: String,
    running: Option<Running>,
}

/// See the module.
pub struct Desk {
    lanes: Vec<LaneState>,
    leases: BTreeMap<u64, Lease>,
    experiments: HashMap<String, (blake3::Hash, Opened)>,
    /// Results that wait for their acknowledgement.
    pub unacked: Unacked,
    outbox: Vec<Body>,
    asked: VecDeque<(Instant, Vec<u64>)>,
    later: Vec<Instant>,
    lease_time: Duration,
    next_renewal: Instant,
    /// Whether the stream has had no renewal yet.
    fresh: bool,
    connected: bool,
    draining: bool,
    /// Set once a lane couldn't open an experiment, however often it tried: a model with other bytes than the
    /// plan's, or too little memory.
    pub cannot: Option<ExecError>,
}

impl Desk {
    /// An empty desk for lanes of these device classes.
    #[must_use]
    pub fn new(classes: Vec<String>, unacked: Unacked, now: Instant) -> Self {
        Self {
            lanes: classes.into_iter().map(|class| LaneState { class, running: None }).collect(),
            leases: BTreeMap::new(),
            experiments: HashMap::new(),
            unacked,
            outbox: Vec::new(),
            asked: VecDeque::new(),
            later: Vec::new(),
            lease_time: Duration::from_secs(10),
            next_renewal: now,
            fresh: false,
            connected: false,
            draining: false,
            cannot: None,
        }
    }

    fn credit(&mut self, shards: u32) {
        if shards > 0 && !self.draining {
            self.outbox.push(Body::Credit(pb::Credit { shards }));
        }
    }

    /// A stream was welcomed. Leases that are still held are asked for at once, with what is in them: who
    /// leads now may not know them. Results are sent again.
    pub fn connected(&mut self, lease_time: Duration, now: Instant) {
        self.lease_time = lease_time.max(Duration::from_millis(30));
        self.connected = true;
        self.outbox.retain(|b| matches!(b, Body::Failed(_)));
        self.asked.clear();
        self.later.clear();
        self.unacked.resend();
        #[cfg(feature = "mutations")]
        if mutation::is(mutation::Mutation::DropsUnacked) {
            self.experiments.keys().for_each(|e| self.unacked.drop_experiment(e));
        }
        self.next_renewal = now;
        self.fresh = true;
        self.tick(now);
        let held = self.leases.values().filter(|l| !l.credited).count() as u32;
        self.credit((self.lanes.len() as u32 * SHARDS_PER_LANE).saturating_sub(held));
    }

    /// The stream is gone. Work goes on until the leases run out.
    pub fn disconnected(&mut self) {
        self.connected = false;
        // The next stream announces each experiment anew; what has to be fetched is fetched then.
        self.experiments.retain(|_, e| matches!(e.1, Opened::Ready(_)));
    }

    /// An experiment is announced. True where it has to be fetched.
    pub fn open(&mut self, open: &pb::Open) -> bool {
        // What is announced anew with constants that it didn't have is fetched anew.
        let mut hash = blake3::Hasher::new();
        hash.update(&open.plan);
        for name in &open.constants {
            let _ = hash.update(b"\n").update(name.as_bytes());
        }
        let hash = hash.finalize();
        if let Some((known, Opened::Ready(_) | Opened::Fetching)) = self.experiments.get(&open.experiment)
            && *known == hash
        {
            return false;
        }
        if self.experiments.len() >= MAX_HELD {
            tracing::error!(limit = MAX_HELD, "too many experiments are open");
            return false;
        }
        self.experiments.insert(open.experiment.clone(), (hash, Opened::Fetching));
        true
    }

    /// An announced experiment was fetched, or could not be.
    pub fn opened(&mut self, id: &str, result: Result<Experiment, pb::Failure>) {
        if let Some((_, state)) = self.experiments.get_mut(id) {
            *state = result.map_or_else(Opened::Failed, |e| Opened::Ready(Arc::new(e)));
        }
    }

    /// An experiment is over.
    pub fn close(&mut self, experiment: &str) {
        let gone: Vec<u64> =
            self.leases.iter().filter(|(_, l)| l.experiment == experiment).map(|(&id, _)| id).collect();
        for lease in gone {
            self.lose(lease);
        }
        self.unacked.drop_experiment(experiment);
        self.experiments.remove(experiment);
    }

    /// A shard is leased.
    pub fn shard(&mut self, shard: pb::Shard, now: Instant) {
        self.lose_silently(shard.lease);
        if self.draining || self.leases.len() >= MAX_HELD {
            return;
        }
        let end = shard.first_chunk.saturating_add(shard.chunks.min(MAX_SHARD));
        let lease = Lease {
            experiment: shard.experiment,
            sweep: shard.sweep,
            round: shard.round,
            list: shard.list.into_iter().map(UnitIx).collect(),
            todo: shard.first_chunk..end,
            lane: None,
            running: 0,
            waiting: 0,
            checked: false,
            credited: false,
            failed: false,
            granted: now,
            // It was granted a little before it came here.
            deadline: now + self.lease_time.mul_f64(0.9),
        };
        self.leases.insert(shard.lease, lease);
    }

    /// The coordinator took a lease back.
    pub fn revoke(&mut self, lease: u64) {
        self.lose(lease);
    }

    /// The answer to the oldest open renewal: the leases still held.
    pub fn renewed(&mut self, held: &[u64]) {
        let Some((sent, asked)) = self.asked.pop_front() else { return };
        for id in asked {
            if held.contains(&id) {
                if let Some(lease) = self.leases.get_mut(&id) {
                    lease.deadline = lease.deadline.max(sent + self.lease_time);
                }
            } else if self.leases.get(&id).is_some_and(|l| l.granted <= sent) {
                tracing::debug!(lease = id, "lease lost");
                self.lose(id);
            }
        }
    }

    /// A result is in the coordinator's store.
    pub fn ack(&mut self, id: &pb::ChunkId) {
        let pb::ChunkId { experiment, sweep, round, chunk } = id;
        tracing::debug!(experiment, sweep, round, chunk, "acknowledged");
        if let Some(lease) = self.unacked.ack(id) {
            if let Some(l) = self.leases.get_mut(&lease) {
                l.waiting = l.waiting.saturating_sub(1);
            }
            self.settle(lease, None);
        }
    }

    /// Passes time: leases that ran out are dropped, the others are renewed at a third of their time.
    pub fn tick(&mut self, now: Instant) {
        let gone: Vec<u64> =
            self.leases.iter().filter(|(_, l)| l.deadline <= now).map(|(&id, _)| id).collect();
        #[cfg(feature = "mutations")]
        let gone = if mutation::is(mutation::Mutation::PastLease) { Vec::new() } else { gone };
        for lease in gone {
            tracing::warn!(lease, "lease ran out without a renewal; its chunks are dropped");
            self.lose(lease);
        }
        if self.connected && now >= self.next_renewal {
            self.next_renewal = now + self.lease_time / 3;
            if !self.leases.is_empty() {
                let leases: Vec<u64> = self.leases.keys().copied().collect();
                self.asked.push_back((now, leases.clone()));
                let held = if std::mem::take(&mut self.fresh) { self.held() } else { Vec::new() };
                self.outbox.push(Body::Renew(pb::Renew { leases, held }));
            }
        }
        let due = self.later.iter().filter(|&&at| at <= now).count();
        self.later.retain(|&at| at > now);
        self.credit(due as u32);
    }

    /// What the leases hold that isn't acknowledged.
    fn held(&self) -> Vec<pb::Held> {
        let of = |(&lease, l): (&u64, &Lease)| {
            let running = self.lanes.iter().filter_map(|x| x.running.as_ref().filter(|r| r.lease == lease));
            let mut chunks: Vec<u32> = running.map(|r| r.id.chunk).chain(l.todo.clone()).collect();
            chunks.extend(self.unacked.of_lease(lease));
            chunks.sort_unstable();
            pb::Held { lease, experiment: l.experiment.clone(), sweep: l.sweep, round: l.round, chunks }
        };
        self.leases.iter().map(of).collect()
    }

    /// Begins no further chunk; leases that no lane works on are dropped.
    pub fn drain(&mut self) {
        self.draining = true;
        for lease in self.leases.values_mut() {
            lease.todo = 0..0;
        }
        self.leases.retain(|_, l| l.running + l.waiting > 0);
    }

    /// Whether no lane works.
    #[must_use]
    pub fn is_idle(&self) -> bool {
        self.lanes.iter().all(|l| l.running.is_none())
    }

    /// Messages to send now.
    pub fn take_outbox(&mut self) -> Vec<Body> {
        if self.connected { std::mem::take(&mut self.outbox) } else { Vec::new() }
    }

    /// Drops a lease: its chunks not begun, and those in work. Its credit goes back.
    fn lose(&mut self, id: u64) {
        if self.lose_silently(id) {
            self.credit(1);
        }
    }

    fn lose_silently(&mut self, id: u64) -> bool {
        let Some(lease) = self.leases.remove(&id) else { return false };
        for running in self.lanes.iter().filter_map(|l| l.running.as_ref()).filter(|r| r.lease == id) {
            running.stop.store(true, Ordering::Relaxed);
        }
        !lease.credited
    }

    /// Gives the credit back once all chunks of a shard are computed, and forgets the lease once all are
    /// acknowledged.
    fn settle(&mut self, id: u64, now: Option<Instant>) {
        let Some(lease) = self.leases.get_mut(&id) else { return };
        if !lease.todo.is_empty() || lease.running > 0 {
            return;
        }
        let (due, failed, forget) = (!lease.credited, lease.failed, lease.waiting == 0);
        lease.credited = true;
        if forget {
            self.leases.remove(&id);
        }
        match now {
            _ if !due => {}
            Some(now) if failed => self.later.push(now + AFTER_FAILURE),
            _ => self.credit(1),
        }
    }

    fn fail(&mut self, id: pb::ChunkId, lease: u64, failure: pb::Failure) {
        if let Some(l) = self.leases.get_mut(&lease) {
            l.failed = true;
        }
        if self.outbox.len() < MAX_SHARD as usize {
            self.outbox.push(Body::Failed(pb::ChunkFailed { id: Some(id), lease, failure: Some(failure) }));
        }
    }

    /// A lane has ended a chunk.
    pub fn done(&mut self, done: Done, now: Instant) {
        let Some(lane) = self.lanes.get_mut(done.lane as usize) else { return };
        let Some(Running { lease, id, stop }) = lane.running.take() else { return };
        let class = lane.class.clone();
        let result = match done.result {
            Err(ExecError::Stopped) if !stop.load(Ordering::Relaxed) => {
                Err(ExecError::Failed("the engine stopped without being told to".to_owned()))
            }
            other => other,
        };
        // A lease number that was lost in between does not count this chunk.
        let held = !stop.load(Ordering::Relaxed);
        if let Some(l) = self.leases.get_mut(&lease).filter(|_| held) {
            l.running = l.running.saturating_sub(1);
        }
        match result {
            Ok(scores) => {
                let busy_us = u64::try_from(done.busy.as_micros()).unwrap_or(u64::MAX);
                let result = pb::ChunkResult {
                    id: Some(id),
                    lease,
                    lane: done.lane,
                    busy_us,
                    scores: scores.into(),
                    device_class: class,
                    idle_us: u64::try_from(done.waited.as_micros()).unwrap_or(u64::MAX),
                };
                if self.unacked.push(result)
                    && let Some(l) = self.leases.get_mut(&lease).filter(|_| held)
                {
                    l.waiting += 1;
                }
            }
            Err(ExecError::Stopped) => {}
            Err(error) => {
                tracing::error!(
                    experiment = id.experiment,
                    sweep = id.sweep,
                    round = id.round,
                    chunk = id.chunk,
                    "chunk failed: {error}"
                );
                let failure = failure_of(&error);
                if let ExecError::ModelDiffers { .. } | ExecError::DoesNotFit { .. } = error {
                    self.cannot = Some(error.clone());
                }
                if matches!(
                    error,
                    ExecError::ModelDiffers { .. }
                        | ExecError::ModelMissing { .. }
                        | ExecError::DoesNotFit { .. }
                ) && let Some((_, state)) = self.experiments.get_mut(&id.experiment)
                {
                    *state = Opened::Failed(failure.clone());
                }
                self.fail(id, lease, failure);
            }
        }
        self.settle(lease, Some(now));
    }

    /// Whether an experiment other than the failed ones is open.
    #[must_use]
    pub fn has_other_work(&self) -> bool {
        self.experiments.values().any(|(_, e)| !matches!(e, Opened::Failed(_)))
    }
}

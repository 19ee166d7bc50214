//! Makes results durable in groups: everything that has queued up while the last transaction ran goes
//! into the next one. Nothing is acknowledged before its commit (invariant 1), and nothing is stored that
//! doesn't have the plan's shape.

#[cfg(test)]
mod tests;

use super::actor::Command;
use super::compute::Compute;
use super::heard::MAX_TEXT;
use super::inlet::Waiting;
use super::lead::{self, Fatal};
use super::stop::Stopped;
use crate::scheduler::{LeaseId, WorkerId};
use crate::store::{ChunkKey, Error, Incoming, Outcome, Store};
use ablate_common::plan::Plan;
use ablate_common::scores::ChunkScores;
use ablate_common::task::Scope;
use std::collections::BTreeMap;
use std::sync::{Arc, PoisonError, RwLock};
use std::time::Duration;
use tokio::sync::{broadcast, mpsc, watch};

/// Plans by identity: the actor adds, the committer reads.
pub type Plans = Arc<RwLock<BTreeMap<String, Arc<Plan>>>>;

/// A result on its way to the store.
#[derive(Debug)]
pub struct Arrived {
    /// The result.
    pub incoming: Incoming,
    /// Who sent it.
    pub worker: WorkerId,
    /// Under which lease.
    pub lease: LeaseId,
    /// Time the lane waited for it, in microseconds.
    pub idle_us: u64,
}

impl Arrived {
    /// Bytes that it takes in memory, but for a few.
    #[must_use]
    pub fn bytes(&self) -> usize {
        let Incoming { key, scores, device_class, worker, version, .. } = &self.incoming;
        scores.len() + key.experiment.len() + device_class.len() + worker.len() + version.len()
    }
}

/// What is left of a result once it is stored.
#[derive(Debug)]
pub struct Receipt {
    /// Which chunk.
    pub key: ChunkKey,
    /// Who sent it.
    pub worker: WorkerId,
    /// Under which lease.
    pub lease: LeaseId,
    /// Time the lane worked on it, in microseconds.
    pub busy_us: u64,
    /// Time the lane waited for it, in microseconds.
    pub idle_us: u64,
}

/// What became of a result.
#[derive(Debug)]
pub enum Verdict {
    /// The store's answer.
    Stored(Outcome),
    /// Not what the plan says a chunk looks like: not stored.
    Malformed(String),
}

/// Names of chunks that were accepted, as they become durable, for whoever listens. One that falls behind asks the store.
pub type Feed = broadcast::Sender<Arc<[ChunkKey]>>;

/// Bytes of results in one transaction, at most (but for one result).
const GROUP_BYTES: usize = 64 << 20;
/// Results in one transaction, at most.
const GROUP: usize = 1024;

/// A group of so many says that more are on their way: the next waits for [`GATHER`], so that fewer transactions carry them.
const BUSY: usize = 8;
/// Short beside what a chunk takes, and workers don't wait for an acknowledgement.
const GATHER: Duration = Duration::from_millis(5);

/// What the committer works with.
pub struct Committer {
    /// Store.
    pub store: Arc<dyn Store>,
    /// Epoch of this leadership.
    pub epoch: u64,
    /// The actor. Weak: its channel closes when the service's handles are gone.
    pub actor: mpsc::WeakSender<Command>,
    /// Set where the service can't go on.
    pub fatal: watch::Sender<Option<Fatal>>,
    /// Says when to stop.
    pub stopped: Stopped,
    /// Plans.
    pub plans: Plans,
    /// Where results are checked.
    pub compute: Compute,
    /// Says what was accepted.
    pub feed: Feed,
}

impl Committer {
    /// Runs until told to stop. What it commits goes to the actor as [`Command::Committed`]. `_alive` is
    /// let go of at the end.
    pub async fn run(mut self, mut inbox: mpsc::Receiver<Waiting>, _alive: watch::Receiver<()>) {
        let mut before = 0;
        loop {
            let first = tokio::select! {
                biased;
                () = self.stopped.wait() => return,
                first = inbox.recv() => match first { Some(f) => f.arrived, None => return },
            };
            if before >= BUSY && inbox.len() < GROUP {
                tokio::time::sleep(GATHER).await;
            }
            let mut bytes = first.bytes();
            let mut group = vec![first];
            while group.len() < GROUP && bytes < GROUP_BYTES {
                let Ok(next) = inbox.try_recv() else { break };
                bytes += next.arrived.bytes();
                group.push(next.arrived);
            }
            before = group.len();
            let Some(done) = self.commit(group).await else { return };
            self.tell(&done);
            let Some(actor) = self.actor.upgrade() else { return };
            if actor.send(Command::Committed(done)).await.is_err() {
                return;
            }
        }
    }

    fn tell(&self, done: &[(Receipt, Verdict)]) {
        // Costs nothing while nobody watches.
        if self.feed.receiver_count() > 0 {
            let accepted = |d: &&(Receipt, Verdict)| matches!(d.1, Verdict::Stored(Outcome::Accepted));
            // An error says that the last listener has just gone.
            let _ = self.feed.send(done.iter().filter(accepted).map(|d| d.0.key.clone()).collect());
        }
    }

    /// Checks and stores a group. None at the end of the service.
    async fn commit(&mut self, group: Vec<Arrived>) -> Option<Vec<(Receipt, Verdict)>> {
        let plans = Arc::clone(&self.plans);
        let check = move || -> Vec<(Arrived, Option<Verdict>)> {
            let one = |a: Arrived| {
                let plan = plans
                    .read()
                    .unwrap_or_else(PoisonError::into_inner)
                    .get(&a.incoming.key.experiment)
                    .cloned();
                let verdict = match plan {
                    Some(plan) => wrong(&plan, &a.incoming).map(Verdict::Malformed),
                    // Of no experiment that is served here: nobody knows its shape.
                    None => Some(Verdict::Stored(Outcome::Unknown)),
                };
                (a, verdict)
            };
            group.into_iter().map(one).collect()
        };
        let checked = match self.compute.run(check).await {
            Ok(checked) => checked,
            Err(e) => {
                lead::panicked(&self.fatal, "the check of results", &e);
                return None;
            }
        };
        let (mut batch, mut receipts, mut done) = (Vec::new(), Vec::new(), Vec::new());
        for (Arrived { incoming, worker, lease, idle_us }, verdict) in checked {
            let busy_us = incoming.busy_us;
            let receipt = Receipt { key: incoming.key.clone(), worker, lease, busy_us, idle_us };
            match verdict {
                Some(verdict) => done.push((receipt, verdict)),
                None => {
                    receipts.push(receipt);
                    batch.push(incoming);
                }
            }
        }
        let outcomes = if batch.is_empty() { Vec::new() } else { self.store(&batch).await? };
        for ((receipt, outcome), incoming) in receipts.into_iter().zip(outcomes).zip(&batch) {
            if outcome == (Outcome::Duplicate { equal: Some(false) }) {
                tracing::warn!(chunk = ?receipt.key, worker = incoming.worker, class = incoming.device_class,
                    "a result differs from the stored one, which a worker of the same device class computed");
            }
            done.push((receipt, Verdict::Stored(outcome)));
        }
        Some(done)
    }

    async fn store(&mut self, batch: &[Incoming]) -> Option<Vec<Outcome>> {
        #[cfg(feature = "mutations")]
        if crate::mutation::is(crate::mutation::Mutation::AcknowledgesFirst) {
            let (store, epoch, batch) = (Arc::clone(&self.store), self.epoch, batch.to_vec());
            let outcomes = vec![Outcome::Accepted; batch.len()];
            // What fails here was acknowledged all the same.
            tokio::spawn(async move { store.accept(epoch, &batch).await });
            return Some(outcomes);
        }
        loop {
            let e = match self.store.accept(self.epoch, batch).await {
                Ok(outcomes) => return Some(outcomes),
                Err(e) => e,
            };
            tracing::error!(error = %e, "results can't be stored");
            // A database that is away for a moment costs no lead: whoever keeps the lead knows when it is lost.
            if self.store.lead_time().is_none() || !matches!(e, Error::Unavailable(_)) {
                lead::report(&self.fatal, &e);
            }
            if matches!(e, Error::StaleEpoch { .. }) {
                return None;
            }
            // Unacknowledged, the results stay safe with their workers; a full disk may be freed.
            tokio::select! {
                biased;
                () = tokio::time::sleep(Duration::from_secs(1)) => {}
                () = self.stopped.wait() => return None,
            }
        }
    }
}

/// What is wrong with a result; none where it may be stored.
fn wrong(plan: &Plan, one: &Incoming) -> Option<String> {
    let class = one.device_class.len();
    if class > MAX_TEXT {
        return Some(format!("its device class has {class} bytes, over the limit of {MAX_TEXT}"));
    }
    check(plan, &one.key, &one.scores).err()
}

/// Whether scores have the shape that the plan gives a chunk.
///
/// # Errors
/// Says what they have instead.
pub fn check(plan: &Plan, key: &ChunkKey, scores: &[u8]) -> Result<(), String> {
    let sweep = plan.sweeps.get(key.sweep as usize).ok_or("the plan has no such sweep")?;
    if key.round >= sweep.rounds() || key.chunk >= plan.round_chunks(key.sweep, key.round) {
        return Err("the plan has no such chunk".into());
    }
    let (subsets, tasks) = ChunkScores::shapes(scores).map_err(|e| e.to_string())?;
    let ranks = plan.chunk_ranks(key.sweep, key.round, key.chunk);
    if u64::from(subsets) != ranks.end - ranks.start {
        return Err(format!("{subsets} subsets came instead of {}", ranks.end - ranks.start));
    }
    if tasks.len() != sweep.tasks.len() {
        return Err(format!("{} tasks came instead of {}", tasks.len(), sweep.tasks.len()));
    }
    for (block, &task) in tasks.iter().zip(&sweep.tasks) {
        let Some(planned) = plan.tasks.get(task as usize) else {
            return Err("the plan has no such task".into());
        };
        let rows = plan.most_rows(key.sweep, task);
        let examples = match sweep.scope {
            Scope::All => block.examples == rows,
            Scope::Select => block.examples <= rows,
        };
        let columns = plan.columns(key.sweep, task).len();
        if block.task != task || block.columns as usize != columns || !examples {
            return Err(format!("the scores of task {} don't have its shape", planned.name));
        }
    }
    Ok(())
}

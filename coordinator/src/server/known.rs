//! What the actor is handed: connected workers, and experiments as the scheduler takes them.

use super::actor::Command;
use super::{Handle, WorkerStatus, decide};
use crate::scheduler::{Summary, SweepShape, WorkerId};
use crate::store::{Error, Listing, State, Store, Stored, StoredRound};
use ablate_proto::v1;
use tokio::sync::{mpsc, oneshot};
use tokio::time::Instant;

/// A worker's end of its stream.
pub type ToWorker = mpsc::Sender<Result<v1::CoordinatorMessage, tonic::Status>>;

/// A connected worker.
pub struct Connected {
    /// What it said of itself.
    pub hello: v1::Hello,
    /// What is spoken with it.
    pub protocol: u32,
    /// To it.
    pub to: ToWorker,
    /// When it connected.
    pub since: Instant,
    /// Results accepted from it.
    pub accepted: u64,
    /// Failures it reported.
    pub failures: u64,
    /// Time that its lanes worked on chunks that were accepted, and that they waited for one after another, in microseconds.
    pub busy_us: u64,
    /// See `busy_us`.
    pub idle_us: u64,
}

impl Connected {
    /// For users.
    pub fn status(&self, id: WorkerId, leased: u32) -> WorkerStatus {
        WorkerStatus {
            id,
            name: self.hello.name.clone(),
            version: self.hello.version.clone(),
            protocol: self.protocol,
            lanes: self.hello.lanes.iter().map(|l| (l.device.clone(), l.device_class.clone())).collect(),
            leased,
            accepted: self.accepted,
            failures: self.failures,
            busy_us: self.busy_us,
            idle_us: self.idle_us,
            connected_ms: self.since.elapsed().as_millis() as u64,
        }
    }
}

/// Hands all of the store's experiments to the actor, and waits until it has them. One without a readable plan is left as it is:
/// there is nothing to show of it, and the others are served.
pub async fn hand_over(handle: &Handle) -> Result<(), super::Error> {
    let Listing { experiments, unreadable } = handle.store.listing().await?;
    for (id, e) in unreadable {
        tracing::error!(experiment = id, error = %e, "an experiment isn't served");
    }
    for stored in experiments {
        handle.send(Command::Load(Box::new(stored))).await?;
    }
    // Whoever finds the service open finds its experiments too.
    let (reply, loaded) = oneshot::channel();
    handle.send(Command::Loaded(reply)).await?;
    loaded.await.map_err(|_| super::Error::Closed)
}

/// A stored experiment, with its rounds, as the scheduler takes it.
pub async fn summary(store: &dyn Store, stored: &Stored, rounds: Vec<StoredRound>) -> Result<Summary, Error> {
    let plan = &stored.plan;
    let sweeps = (0u32..)
        .zip(&plan.sweeps)
        .map(|(i, s)| SweepShape {
            rounds: (0..s.rounds()).map(|r| plan.round_chunks(i, r)).collect(),
            decides: plan.decides(i),
            needs: decide::needs(plan, i),
        })
        .collect();
    Ok(Summary {
        id: stored.id.clone(),
        sweeps,
        rounds: rounds
            .into_iter()
            .map(|r| (r.sweep, r.round, r.list.iter().map(|h| h.0).collect(), r.decision.is_some()))
            .collect(),
        accepted: store.accepted(&stored.id).await?,
        quarantined: store.quarantined(&stored.id).await?.into_iter().map(|q| (q.0, q.1, q.2)).collect(),
        computed: (stored.computed, stored.duplicate),
        busy_us: store.busy(&stored.id).await?,
        running: stored.state == State::Running,
        protocol: plan.protocol(),
    })
}

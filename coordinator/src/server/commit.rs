//! Makes results durable in groups: everything that has queued up while the last transaction ran goes
//! into the next one. Nothing is acknowledged before its commit (invariant 1).

use super::actor::Command;
use crate::scheduler::{LeaseId, WorkerId};
use crate::store::{Error, Incoming, Outcome, Store};
use std::sync::Arc;
use std::time::Duration;
use tokio::sync::{mpsc, watch};

/// A result on its way to the store.
#[derive(Debug)]
pub struct Arrived {
    /// The result.
    pub incoming: Incoming,
    /// Who sent it.
    pub worker: WorkerId,
    /// Under which lease.
    pub lease: LeaseId,
}

/// Bytes of scores in one transaction, at most.
const GROUP_BYTES: usize = 64 << 20;
/// Results in one transaction, at most.
const GROUP: usize = 4096;

/// Starts the committer. What it commits comes back to the actor as [`Command::Committed`].
pub fn start(
    store: Arc<dyn Store>,
    epoch: u64,
    actor: mpsc::Sender<Command>,
    fatal: watch::Sender<Option<String>>,
) -> mpsc::Sender<Arrived> {
    let (results, inbox) = mpsc::channel(1024);
    // A weak sender: the actor's channel closes when the service's handles are gone.
    let actor = actor.downgrade();
    tokio::spawn(run(store, epoch, inbox, actor, fatal));
    results
}

async fn run(
    store: Arc<dyn Store>,
    epoch: u64,
    mut inbox: mpsc::Receiver<Arrived>,
    actor: mpsc::WeakSender<Command>,
    fatal: watch::Sender<Option<String>>,
) {
    while let Some(first) = inbox.recv().await {
        let mut bytes = first.incoming.scores.len();
        let mut group = vec![first];
        while group.len() < GROUP && bytes < GROUP_BYTES {
            let Ok(next) = inbox.try_recv() else { break };
            bytes += next.incoming.scores.len();
            group.push(next);
        }
        let batch: Vec<Incoming> = group.iter().map(|a| a.incoming.clone()).collect();
        let outcomes = loop {
            match store.accept(epoch, &batch).await {
                Ok(outcomes) => break outcomes,
                Err(e) => {
                    tracing::error!(error = %e, "results can't be stored");
                    // The receiver may be gone at shutdown.
                    let _ = fatal.send(Some(e.to_string()));
                    if matches!(e, Error::StaleEpoch { .. }) {
                        return;
                    }
                    // Unacknowledged, the results stay safe with their workers; a full disk may be freed.
                    tokio::time::sleep(Duration::from_secs(1)).await;
                }
            }
        };
        for (arrived, outcome) in group.into_iter().zip(outcomes) {
            if outcome == (Outcome::Duplicate { equal: false }) {
                tracing::warn!(chunk = ?arrived.incoming.key, worker = arrived.incoming.worker,
                    class = arrived.incoming.device_class, "a copy of a result differs from the stored one");
            }
            let Some(actor) = actor.upgrade() else { return };
            if actor.send(Command::Committed(Box::new(arrived), outcome)).await.is_err() {
                return;
            }
        }
    }
}

//! What the scheduler wants done.

use super::{Actor, Command};
use crate::scheduler::{Action, ChunkAt, Event};
use crate::server::decide;
use crate::store::State;
use ablate_proto::v1::{self, coordinator_message::Body};
use std::sync::{Arc, PoisonError};

impl Actor {
    /// Tells the scheduler, and does what it wants.
    pub(super) async fn event(&mut self, event: Event) {
        let now = self.now();
        for action in self.scheduler.on(event, now) {
            self.act(action).await;
        }
    }

    async fn act(&mut self, action: Action) {
        if self.stopped {
            // What follows may rest on a write that failed: the next start takes it from the store.
            return;
        }
        match action {
            Action::Open(worker, id) => {
                if let Some(open) = self.open(&id) {
                    self.tell(worker, Body::Open(open));
                }
            }
            Action::Shard { worker, lease, experiment, sweep, round, list, first, count } => self.tell(
                worker,
                Body::Shard(v1::Shard {
                    lease,
                    experiment,
                    sweep,
                    round,
                    list,
                    first_chunk: first,
                    chunks: count,
                }),
            ),
            Action::Ack { worker, experiment, at, duplicate } => {
                self.tell(worker, ack(experiment, at, duplicate));
            }
            Action::Renewed(worker, leases) => self.tell(worker, Body::Renewed(v1::Renewed { leases })),
            Action::Close(worker, experiment) => self.tell(worker, Body::Close(v1::Close { experiment })),
            Action::Revoke(worker, lease) => self.tell(worker, Body::Revoke(v1::Revoke { lease })),
            Action::Expired(worker, lease) => {
                tracing::warn!(worker, lease, "a lease ran out; what it held goes to others");
                self.tell(worker, Body::Revoke(v1::Revoke { lease }));
            }
            Action::Drain(worker) => self.tell(worker, Body::Drain(v1::Drain {})),
            Action::Decide(id, sweep, round) => self.decide(id, sweep, round),
            Action::Quarantine(id, at, error) => {
                tracing::error!(experiment = id, ?at, error, "chunk quarantined");
                if let Err(e) = self.store.quarantine(self.epoch, &id, &(at.0, at.1, at.2, error)).await {
                    self.stop(&e);
                }
            }
            Action::Finished(id) => self.finished(id).await,
        }
    }

    /// What workers are told of an experiment.
    pub(super) fn open(&self, id: &str) -> Option<v1::Open> {
        let s = self.experiments.get(id)?;
        let of = |a: usize| self.constants.get(&(id.to_owned(), a as u32)).cloned().unwrap_or_default();
        Some(v1::Open {
            plan: serde_json::to_vec(&s.plan).unwrap_or_default().into(),
            model_source: s.model_path.to_string_lossy().into_owned(),
            experiment: id.to_owned(),
            constants: (0..s.plan.ablations.len()).map(of).collect(),
        })
    }

    fn decide(&self, id: String, sweep: u32, round: u32) {
        let plan = self.plans.read().unwrap_or_else(PoisonError::into_inner).get(&id).cloned();
        if let (Some(plan), Some(me)) = (plan, self.me.upgrade()) {
            decide::start(Arc::clone(&self.store), self.epoch, me, id, plan, sweep, round, self.compute);
        }
    }

    /// Sets the last state of an experiment.
    pub(super) async fn end(&mut self, id: &str, state: State) {
        if self.stopped {
            return;
        }
        if let Err(e) = self.set_state(id, state).await {
            self.stop(&e);
        }
        self.publish();
    }

    /// Writes the tables, where that is this coordinator's to do; the experiment is done after that, so
    /// that a crash in between writes them again.
    async fn finished(&mut self, id: String) {
        let Some(s) = self.experiments.get(&id) else { return };
        let (Some(export), Some(me)) = (self.exporter.clone(), self.me.upgrade()) else {
            return self.end(&id, State::Done).await;
        };
        let (store, output, compute) = (Arc::clone(&self.store), s.output.clone(), self.compute);
        tokio::spawn(async move {
            let written = match store.results(&id).await {
                Ok(results) => {
                    compute.run(move || export(results, "parquet", &output)).await.unwrap_or_else(Err)
                }
                Err(e) => Err(e.to_string()),
            };
            // At shutdown nobody listens; the next start writes the tables again.
            let _ = me.send(Command::Exported(id, written)).await;
        });
    }
}

/// Says that a result is durable.
pub(super) fn ack(experiment: String, (sweep, round, chunk): ChunkAt, duplicate: bool) -> Body {
    let id = Some(v1::ChunkId { experiment, sweep, round, chunk });
    Body::Ack(v1::Ack { id, duplicate })
}

//! Experiments of the store as the actor takes them up: each by itself, so that one that can't be read stops no other.

use super::Actor;
use crate::scheduler::Event;
use crate::server::known::summary;
use crate::server::patience::PAUSE;
use crate::store::{Error, State, Stored};
use ablate_common::ENGINE_VERSION;
use ablate_common::plan::Plan;
use std::sync::{Arc, PoisonError};

/// Why a plan of another engine can't be gone on with: no worker that is let in here computes its numbers.
pub(super) fn other_engine(plan: &Plan) -> Option<String> {
    (plan.engine != ENGINE_VERSION).then(|| {
        format!(
            "it was planned for engine {}, and this release has engine {ENGINE_VERSION}, whose numbers may differ; finish it with the release that planned it, or submit its spec again as a new experiment",
            plan.engine
        )
    })
}

impl Actor {
    /// Takes an experiment up, with so many tries beside the first where the store may only hesitate. One that can't be
    /// read has failed, and the others go on.
    pub(super) async fn take_up(&mut self, stored: &Stored, tries: u32) {
        let mut left = tries;
        let e = loop {
            if self.stopped {
                return;
            }
            match self.load(stored).await {
                Ok(()) => return,
                Err(e @ Error::Other(_)) if left > 0 => {
                    tracing::warn!(experiment = stored.id, error = %e, "not read; trying again");
                    left -= 1;
                }
                Err(e) => break e,
            }
            tokio::time::sleep(PAUSE).await;
        };
        if e.concerns_all() {
            return self.stop(&e);
        }
        tracing::error!(experiment = stored.id, error = %e, "an experiment can't be read");
        self.experiments.insert(stored.id.clone(), stored.clone());
        // One that has ended stays what it is.
        if self.goes_on(&stored.id) {
            let why = format!("it can't be read: {e}; once that is mended, `ablate retry` takes it up again");
            self.end(&stored.id, State::Failed(why)).await;
        }
    }

    /// Reads all that is known of an experiment, and schedules it.
    pub(super) async fn load(&mut self, stored: &Stored) -> Result<(), Error> {
        let (id, mut stored) = (stored.id.clone(), stored.clone());
        // First, so that results of it are checked whatever comes of it.
        let plan = Arc::new(stored.plan.clone());
        self.plans.write().unwrap_or_else(PoisonError::into_inner).insert(id.clone(), plan);
        if !crate::server::ended(&stored.state)
            && let Some(why) = other_engine(&stored.plan)
        {
            tracing::error!(experiment = id, why, "the experiment can't go on");
            stored.state = State::Failed(why);
            self.store.set_state(self.epoch, &id, stored.state.clone()).await?;
        }
        let rounds = self.store.rounds(&id).await?;
        for round in &rounds {
            if let (Some(hash), Some(sweep)) = (
                round.decision.as_ref().and_then(|d| d.constants.clone()),
                stored.plan.sweeps.get(round.sweep as usize),
            ) {
                self.constants.insert((id.clone(), sweep.ablation), hash);
            }
        }
        let summary = summary(self.store.as_ref(), &stored, rounds).await?;
        self.experiments.insert(id, stored);
        self.event(Event::Added(Box::new(summary))).await;
        Ok(())
    }
}

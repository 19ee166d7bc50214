//! What becomes of results that come in.

use super::*;
use crate::server::inlet::Inlet;
use crate::server::stop::Stopper;
use crate::store::conformance::{experiment, incoming};
use crate::store::{MemoryStore, NewExperiment};

/// A committer, and what it tells.
struct Stage {
    store: Arc<MemoryStore>,
    inlet: Inlet,
    told: mpsc::Receiver<Command>,
    fatal: watch::Receiver<Option<Fatal>>,
    /// It ends when these do.
    _keep: (mpsc::Sender<Command>, Stopper),
}

impl Stage {
    /// With an experiment in the store, which is served by this plan, if by any.
    async fn set(new: &NewExperiment, plan: Option<Plan>) -> Self {
        let store = Arc::new(MemoryStore::default());
        let epoch = store.acquire_epoch().await.unwrap();
        store.put_experiment(epoch, new.clone()).await.unwrap();
        let plans = Plans::default();
        plans.write().unwrap().extend(plan.map(|p| (new.plan.identity(), Arc::new(p))));
        let (commands, told) = mpsc::channel(8);
        let (fatal_tx, fatal) = watch::channel(None);
        let stopper = Stopper::default();
        let (inlet, results) = Inlet::new();
        let committer = Committer {
            store: store.clone(),
            epoch,
            actor: commands.downgrade(),
            fatal: fatal_tx,
            stopped: stopper.subscribe(),
            plans,
            compute: Compute::Pool,
            feed: Feed::new(1),
        };
        tokio::spawn(committer.run(results, watch::Sender::new(()).subscribe()));
        Self { store, inlet, told, fatal, _keep: (commands, stopper) }
    }

    async fn send(&self, incoming: Incoming) {
        assert!(self.inlet.send(Arrived { incoming, worker: 1, lease: 1, idle_us: 0 }).await);
    }

    async fn verdict(&mut self) -> Verdict {
        match self.told.recv().await {
            Some(Command::Committed(mut all)) => all.remove(0).1,
            _ => panic!("nothing was committed"),
        }
    }
}

#[tokio::test]
async fn only_what_has_a_known_shape_is_stored() {
    let new = experiment(1);
    let id = new.plan.identity();
    let mut stage = Stage::set(&new, Some(new.plan.clone())).await;
    stage.send(Incoming { device_class: "x".repeat(MAX_TEXT), ..incoming(&new, 1, 0) }).await;
    assert!(matches!(stage.verdict().await, Verdict::Stored(Outcome::Accepted)));
    stage.send(Incoming { device_class: "x".repeat(MAX_TEXT + 1), ..incoming(&new, 1, 1) }).await;
    let said = stage.verdict().await;
    assert!(matches!(&said, Verdict::Malformed(why) if why.contains("1025 bytes")), "{said:?}");
    stage.send(Incoming { scores: vec![1, 2, 3], ..incoming(&new, 1, 1) }).await;
    assert!(matches!(stage.verdict().await, Verdict::Malformed(_)));
    assert_eq!(stage.store.accepted(&id).await.unwrap(), [(1, 0, 0)]);
    // It is in the store, and isn't served: its plan isn't readable.
    let mut stage = Stage::set(&new, None).await;
    stage.send(incoming(&new, 1, 0)).await;
    assert!(matches!(stage.verdict().await, Verdict::Stored(Outcome::Unknown)));
    assert!(stage.store.accepted(&id).await.unwrap().is_empty());
}

#[tokio::test]
async fn a_check_that_panics_is_told_of() {
    let new = experiment(1);
    let mut broken = new.plan.clone();
    broken.sweeps[1].chunk = 0;
    let mut stage = Stage::set(&new, Some(broken)).await;
    stage.send(incoming(&new, 1, 0)).await;
    let why = stage.fatal.wait_for(Option::is_some).await.unwrap().clone();
    assert!(matches!(&why, Some(Fatal::Store(w)) if w.contains("panicked")), "{why:?}");
    assert!(stage.told.try_recv().is_err(), "nothing is acknowledged");
}

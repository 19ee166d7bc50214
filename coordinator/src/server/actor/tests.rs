//! The actor alone, told one thing after another.

use super::*;
use crate::store::conformance::experiment;
use crate::store::faulty::Faulty;
use ablate_common::ENGINE_VERSION;
use std::sync::atomic::{AtomicU64, Ordering};

struct Stage {
    store: Arc<Faulty>,
    epoch: u64,
    actor: Actor,
    inbox: mpsc::Receiver<Command>,
    fatal: watch::Receiver<Option<Fatal>>,
    _me: mpsc::Sender<Command>,
}

impl Stage {
    async fn set(exporter: Option<Exporter>) -> Self {
        let store = Arc::new(Faulty::default());
        let epoch = store.acquire_epoch().await.unwrap();
        let (me, inbox) = mpsc::channel(8);
        let (fatal_tx, fatal) = watch::channel(None);
        let options = Options { exporter, ..Options::default() };
        let statuses = watch::Sender::new(BTreeMap::new());
        let actor =
            Actor::new(store.clone(), epoch, &options, me.downgrade(), Plans::default(), statuses, fatal_tx);
        Self { store, epoch, actor, inbox, fatal, _me: me }
    }

    /// Stores an experiment: its identity.
    async fn put(&self, new: NewExperiment) -> String {
        let id = new.plan.identity();
        self.store.put_experiment(self.epoch, new).await.unwrap();
        id
    }

    /// The actor takes up all that is stored.
    async fn load(&mut self) {
        for stored in self.store.experiments().await.unwrap() {
            self.actor.take(Command::Load(Box::new(stored))).await;
        }
    }

    /// State of an experiment in the store, which is what the actor has.
    async fn state(&self, id: &str) -> State {
        let all = self.store.experiments().await.unwrap();
        let state = all.into_iter().find(|s| s.id == id).unwrap().state;
        assert_eq!(self.actor.experiments[id].state, state);
        state
    }

    /// The actor hears what a task has for it.
    async fn hear(&mut self) {
        let command = self.inbox.recv().await.unwrap();
        self.actor.take(command).await;
    }

    /// Chunks that a worker gets.
    async fn leased(&mut self) -> u32 {
        let (worker, class) = (1, "played".to_owned());
        let protocol = ablate_common::PROTOCOL_VERSION;
        self.actor.event(Event::Joined { worker, lanes: 1, protocol, class }).await;
        self.actor.event(Event::Credit { worker, shards: 4 }).await;
        self.actor.scheduler.leased_to(worker)
    }
}

#[tokio::test]
async fn what_another_engine_was_planned_for_has_failed_and_is_never_leased() {
    let mut stage = Stage::set(None).await;
    let mut new = experiment(1);
    new.plan.engine = ENGINE_VERSION - 1;
    let id = stage.put(new).await;
    stage.load().await;
    let State::Failed(why) = stage.state(&id).await else { panic!("it goes on") };
    for what in [ENGINE_VERSION - 1, ENGINE_VERSION].map(|v| format!("engine {v}")) {
        assert!(why.contains(&what), "{why}");
    }
    let refused = stage.actor.control(&id, Control::Retry).await;
    assert!(matches!(refused, Err(Error::State(said)) if said == why));
    assert_eq!(stage.leased().await, 0);
    let own = stage.put(experiment(2)).await;
    stage.load().await;
    assert!(stage.leased().await > 0);
    assert_eq!(stage.state(&own).await, State::Running);
}

#[tokio::test]
async fn one_that_cannot_be_read_has_failed_alone_until_a_retry_finds_it_mended() {
    let mut stage = Stage::set(None).await;
    let mut ids = [stage.put(experiment(1)).await, stage.put(experiment(2)).await];
    // In this order they are loaded.
    ids.sort();
    let damaged = || store::Error::Damaged("no list".into());
    stage.store.fail("rounds", 1, damaged);
    stage.load().await;
    let State::Failed(why) = stage.state(&ids[0]).await else { panic!("it goes on") };
    assert!(why.contains("no list") && why.contains("ablate retry"), "{why}");
    assert_eq!(stage.state(&ids[1]).await, State::Running);
    stage.store.fail("rounds", 1, damaged);
    assert_eq!(stage.actor.control(&ids[0], Control::Retry).await.unwrap().state, "failed");
    let mended = stage.actor.control(&ids[0], Control::Retry).await.unwrap();
    assert_eq!((mended.state.as_str(), mended.error.as_str()), ("running", ""));
    assert!(stage.actor.scheduler.progress(&ids[0]).is_some());
    assert!(stage.fatal.borrow().is_none());
}

#[tokio::test]
async fn a_store_that_hesitates_costs_no_experiment_and_one_that_is_away_the_lead() {
    let mut stage = Stage::set(None).await;
    let id = stage.put(experiment(1)).await;
    stage.store.fail("accepted", 1, || store::Error::Other("input/output error".into()));
    stage.load().await;
    assert_eq!(stage.state(&id).await, State::Running);
    stage.store.fail("accepted", 1, || store::Error::Unavailable("away".into()));
    stage.load().await;
    assert!(matches!(&*stage.fatal.borrow(), Some(Fatal::LostLead(why)) if why.contains("away")));
    assert_eq!(stage.state(&id).await, State::Running);
}

#[tokio::test]
async fn an_export_that_was_overtaken_ends_nothing_and_no_two_write_at_once() {
    let begun = Arc::new(AtomicU64::new(0));
    let count = Arc::clone(&begun);
    let exporter: Exporter = Arc::new(move |_, _, _| {
        // All but the last one fail.
        if count.fetch_add(1, Ordering::SeqCst) < 2 { Err("no room".into()) } else { Ok(()) }
    });
    let mut stage = Stage::set(Some(exporter)).await;
    let id = stage.put(experiment(1)).await;
    stage.load().await;
    stage.actor.finished(id.clone()).await;
    stage.actor.control(&id, Control::Cancel).await.unwrap();
    stage.hear().await;
    assert_eq!(stage.state(&id).await, State::Cancelled, "it was cancelled while its tables were written");

    stage.actor.control(&id, Control::Retry).await.unwrap();
    stage.actor.finished(id.clone()).await;
    stage.actor.control(&id, Control::Retry).await.unwrap();
    stage.actor.finished(id.clone()).await;
    // The second has ended; only now the third begins.
    let Some(second) = stage.inbox.recv().await else { panic!("it wasn't told") };
    assert_eq!(begun.load(Ordering::SeqCst), 2);
    stage.actor.take(second).await;
    assert_eq!(stage.state(&id).await, State::Running, "it was tried again meanwhile");
    stage.actor.control(&id, Control::Pause).await.unwrap();
    stage.hear().await;
    assert_eq!((stage.state(&id).await, begun.load(Ordering::SeqCst)), (State::Done, 3));
}

#[tokio::test]
async fn a_database_that_is_away_for_a_moment_fails_no_export() {
    let exporter: Exporter = Arc::new(|_, _, _| Ok(()));
    let mut stage = Stage::set(Some(exporter)).await;
    let id = stage.put(experiment(1)).await;
    stage.load().await;
    stage.store.fail("results", 1, || store::Error::Unavailable("restarting".into()));
    stage.actor.finished(id.clone()).await;
    stage.hear().await;
    assert_eq!(stage.state(&id).await, State::Done);
}

#[tokio::test]
async fn what_a_user_has_ended_stays_so_when_it_breaks() {
    let mut stage = Stage::set(None).await;
    let id = stage.put(experiment(1)).await;
    stage.load().await;
    stage.actor.control(&id, Control::Cancel).await.unwrap();
    stage.actor.take(Command::Broken(id.clone(), "bad scores".into())).await;
    assert_eq!(stage.state(&id).await, State::Cancelled);
    stage.actor.control(&id, Control::Retry).await.unwrap();
    stage.actor.take(Command::Broken(id.clone(), "bad scores".into())).await;
    assert_eq!(stage.state(&id).await, State::Failed("bad scores".into()));
}

//! Services one part of which fails: what stops then, and what goes on.

use super::tests::{Habit, until, work};
use super::*;
use crate::store::SqliteStore;
use crate::store::conformance::experiment;
use crate::store::faulty::Faulty;
use ablate_common::{ENGINE_VERSION, PROTOCOL_VERSION};
use ablate_proto::v1::{self, cluster_client::ClusterClient, worker_message::Body};
use sqlx::SqlitePool;
use sqlx::sqlite::SqliteConnectOptions;
use std::time::Duration;

/// Why a service can't go on.
async fn fatal(service: &Handle) -> Option<Fatal> {
    let mut fatal = service.fatal();
    let told = tokio::time::timeout(Duration::from_secs(30), fatal.wait_for(Option::is_some)).await;
    told.expect("it is told in time").unwrap().clone()
}

#[tokio::test]
async fn a_round_that_cannot_be_decided_stops_its_experiment_alone() {
    let store = Arc::new(Faulty::default());
    let service = Service::start(Options::default(), store.clone()).await.unwrap();
    let new = experiment(1);
    let (id, _) = service.submit(new.clone()).await.unwrap();
    store.fail("blob", usize::MAX, || store::Error::NotFound("data of the task".into()));
    tokio::spawn(work(service.local_addr(), new, Habit::Good, Duration::ZERO));
    let status = until(&service, &id, Status::ended).await;
    assert!(status.state == "failed" && status.error.contains("data of the task"), "{status:?}");
    assert!(service.fatal().borrow().is_none());
    store.fail("blob", 0, || store::Error::Busy);
    service.control(&id, Control::Retry).await.unwrap();
    assert_eq!(until(&service, &id, Status::ended).await.state, "done");
}

#[tokio::test]
async fn a_decision_is_made_once_the_store_has_stopped_to_hesitate() {
    let store = Arc::new(Faulty::default());
    let service = Service::start(Options::default(), store.clone()).await.unwrap();
    let new = experiment(1);
    let (id, _) = service.submit(new.clone()).await.unwrap();
    store.fail("decide", 1, || store::Error::Other("input/output error".into()));
    tokio::spawn(work(service.local_addr(), new, Habit::Good, Duration::ZERO));
    assert_eq!(until(&service, &id, Status::ended).await.state, "done");
    assert!(service.fatal().borrow().is_none());
}

#[tokio::test]
async fn a_service_of_which_a_part_has_panicked_says_that_it_cannot_go_on() {
    for what in ["accept", "set_state"] {
        let store = Arc::new(Faulty::default());
        let service = Service::start(Options::default(), store.clone()).await.unwrap();
        let new = experiment(1);
        let (id, _) = service.submit(new.clone()).await.unwrap();
        store.fail(what, 1, || panic!("told to"));
        if what == "accept" {
            tokio::spawn(work(service.local_addr(), new, Habit::Good, Duration::ZERO));
        } else {
            assert!(matches!(service.control(&id, Control::Pause).await, Err(Error::Closed)));
        }
        let why = fatal(&service).await;
        assert!(matches!(&why, Some(Fatal::Store(w)) if w.contains("panicked")), "{what}: {why:?}");
        service.shutdown();
        service.closed().await;
    }
}

#[tokio::test]
async fn a_service_that_is_told_to_end_names_no_reason() {
    let service = Service::start(Options::default(), Arc::new(Faulty::default())).await.unwrap();
    service.shutdown();
    service.closed().await;
    assert!(service.fatal().borrow().is_none());
}

#[tokio::test]
async fn an_experiment_without_a_readable_plan_keeps_no_other_from_its_end() {
    let dir = tempfile::tempdir().unwrap();
    let path = dir.path().join("state.db");
    let sqlite = SqliteStore::open(&path).await.unwrap();
    let epoch = sqlite.acquire_epoch().await.unwrap();
    for seed in [1, 2] {
        sqlite.put_experiment(epoch, experiment(seed)).await.unwrap();
    }
    let beside = SqlitePool::connect_with(SqliteConnectOptions::new().filename(&path)).await.unwrap();
    sqlx::query("UPDATE experiments SET plan = '{' WHERE name = 'test-1'").execute(&beside).await.unwrap();
    beside.close().await;
    let service = Service::start(Options::default(), Arc::new(sqlite)).await.unwrap();
    let good = experiment(2).plan.identity();
    assert!(service.statuses().into_keys().eq([good.clone()]));
    let refused = service.submit(experiment(1)).await.unwrap_err();
    let known = |e: &Error| matches!(e, Error::Store(store::Error::Damaged(why)) if why.contains("readable"));
    assert!(known(&refused), "{refused}");
    tokio::spawn(work(service.local_addr(), experiment(2), Habit::Good, Duration::ZERO));
    assert_eq!(until(&service, &good, Status::ended).await.state, "done");
}

#[tokio::test]
async fn a_worker_with_too_long_a_name_is_refused() {
    let service = Service::start(Options::default(), Arc::new(Faulty::default())).await.unwrap();
    let mut client = ClusterClient::connect(format!("http://{}", service.local_addr())).await.unwrap();
    let hello = v1::Hello {
        protocol: PROTOCOL_VERSION,
        engine: ENGINE_VERSION,
        name: "x".repeat(heard::MAX_TEXT + 1),
        ..v1::Hello::default()
    };
    let first = v1::WorkerMessage { body: Some(Body::Hello(hello)) };
    let refused = client.work(tokio_stream::iter([first])).await.err().unwrap();
    assert_eq!(refused.code(), tonic::Code::InvalidArgument);
    assert!(refused.message().contains("name has 1025 bytes"), "{refused}");
    assert!(service.workers().await.unwrap().is_empty());
}

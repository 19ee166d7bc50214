//! The service with played workers: scores are made from ranks.

use super::*;
use crate::store::conformance::{experiment, scores};
use crate::store::{MemoryStore, SqliteStore};
use ablate_common::units::UnitIx;
use ablate_common::{ENGINE_VERSION, PROTOCOL_VERSION};
use ablate_proto::v1::coordinator_message::Body as ToWorker;
use ablate_proto::v1::{self, cluster_client::ClusterClient, worker_message::Body};
use std::time::Duration;
use tokio::sync::mpsc::Sender;
use tokio_stream::wrappers::ReceiverStream;

type Stream = (Sender<v1::WorkerMessage>, tonic::Streaming<v1::CoordinatorMessage>);

async fn connect(address: SocketAddr, protocol: u32) -> Stream {
    let mut client = ClusterClient::connect(format!("http://{address}")).await.unwrap();
    let (to, out) = mpsc::channel(64);
    let lanes = vec![v1::Lane { device: "cpu".into(), device_class: "played".into() }];
    let hello = v1::Hello {
        protocol,
        engine: ENGINE_VERSION,
        name: "w".into(),
        version: "1".into(),
        lanes,
        session: "s".into(),
    };
    to.send(v1::WorkerMessage { body: Some(Body::Hello(hello)) }).await.unwrap();
    (to, client.work(ReceiverStream::new(out)).await.unwrap().into_inner())
}

/// What a played worker does wrong.
#[derive(Clone, Copy, PartialEq)]
pub(crate) enum Habit {
    Good,
    /// Its first result is garbage.
    Garbled,
    /// Fails every chunk of the pairs.
    FailsPairs,
}

/// Works until the stream ends.
pub(crate) async fn work(address: SocketAddr, new: NewExperiment, habit: Habit, pace: Duration) {
    let (to, mut from) = connect(address, PROTOCOL_VERSION).await;
    let send = async |body| to.send(v1::WorkerMessage { body: Some(body) }).await.is_ok();
    send(Body::Credit(v1::Credit { shards: 2 })).await;
    let mut garbled = habit != Habit::Garbled;
    while let Ok(Some(message)) = from.message().await {
        let Some(ToWorker::Shard(s)) = message.body else { continue };
        let list: Vec<UnitIx> = s.list.iter().copied().map(UnitIx).collect();
        for chunk in s.first_chunk..s.first_chunk + s.chunks {
            tokio::time::sleep(pace).await;
            let id = v1::ChunkId { experiment: s.experiment.clone(), sweep: s.sweep, round: s.round, chunk };
            let mut bytes = scores(&new, s.sweep, s.round, &list, chunk);
            if !garbled {
                garbled = true;
                bytes.truncate(9);
            }
            let body = if habit == Habit::FailsPairs && s.sweep == 2 {
                let failure = v1::Failure {
                    detail: "no".into(),
                    kind: Some(v1::failure::Kind::Execution(v1::Execution {})),
                };
                Body::Failed(v1::ChunkFailed { id: Some(id), lease: s.lease, failure: Some(failure) })
            } else {
                Body::Result(v1::ChunkResult {
                    id: Some(id),
                    lease: s.lease,
                    lane: 0,
                    busy_us: 1000,
                    idle_us: 3,
                    scores: bytes.into(),
                    device_class: "played".into(),
                })
            };
            if !send(body).await {
                return;
            }
        }
        send(Body::Credit(v1::Credit { shards: 1 })).await;
    }
}

pub(crate) async fn until(service: &Handle, id: &str, want: impl Fn(&Status) -> bool) -> Status {
    let mut statuses = service.subscribe();
    let wait = async {
        loop {
            if let Some(s) = statuses.borrow_and_update().get(id).filter(|s| want(s)) {
                return s.clone();
            }
            statuses.changed().await.unwrap();
        }
    };
    tokio::time::timeout(Duration::from_secs(30), wait).await.expect("it didn't come to that in time")
}

/// All bytes that tables are made from.
pub(super) fn tables(r: &Results) -> String {
    let rounds = r.rounds.iter().map(|(at, r)| {
        let chunks: Vec<_> = r.chunks.iter().map(|(c, s)| (c, blake3::hash(&s.encode()))).collect();
        format!("{at:?} {:?} {:?} {chunks:?}\n", r.list, r.decision)
    });
    rounds.collect()
}

pub(super) async fn undisturbed(habits: &[Habit]) -> (Status, Results) {
    let new = experiment(1);
    let store: Arc<dyn Store> = Arc::new(MemoryStore::default());
    let service = Service::start(Options::default(), Arc::clone(&store)).await.unwrap();
    let (id, existed) = service.submit(new.clone()).await.unwrap();
    assert!(!existed);
    for &habit in habits {
        tokio::spawn(work(service.local_addr(), new.clone(), habit, Duration::ZERO));
    }
    let status = until(&service, &id, Status::ended).await;
    service.shutdown();
    service.closed().await;
    (status, store.results(&id).await.unwrap())
}

#[tokio::test]
async fn a_restart_in_the_middle_changes_no_byte() {
    let (status, whole) = undisturbed(&[Habit::Good, Habit::Good]).await;
    assert_eq!((status.state.as_str(), status.accepted), ("done", status.planned));
    assert_eq!(whole.run.accepted, whole.run.planned);
    assert_eq!(whole.rounds.len(), 10, "4 rounds of the greedy sweep and 6 others");

    let dir = tempfile::tempdir().unwrap();
    let path = dir.path().join("state.db");
    let new = experiment(1);
    let id = new.plan.identity();
    for stop_at in [5, 13, 20] {
        let sqlite = SqliteStore::open(&path).await.unwrap();
        let service = Service::start(Options::default(), Arc::new(sqlite.clone())).await.unwrap();
        service.submit(new.clone()).await.unwrap();
        for _ in 0..2 {
            tokio::spawn(work(service.local_addr(), new.clone(), Habit::Good, Duration::from_millis(15)));
        }
        until(&service, &id, |s| s.accepted >= stop_at).await;
        service.shutdown();
        service.closed().await;
        sqlite.close().await;
    }
    let sqlite = SqliteStore::open(&path).await.unwrap();
    let service = Service::start(Options::default(), Arc::new(sqlite.clone())).await.unwrap();
    let found = service.find(&id[..16]);
    tokio::spawn(work(service.local_addr(), new.clone(), Habit::Good, Duration::ZERO));
    let status = until(&service, &id, Status::ended).await;
    assert!(found.is_err() || found.is_ok_and(|f| f == id));
    assert_eq!(status.state, "done");
    let again = sqlite.results(&id).await.unwrap();
    assert_eq!(tables(&again), tables(&whole));
    assert_eq!(again.run.accepted, again.run.planned);
    assert_eq!(again.run.computed, again.run.accepted + again.run.duplicate);
    assert_eq!(again.run.versions["ablate-worker"], "1");
}

#[tokio::test]
async fn a_garbled_result_is_not_stored_and_stops_nothing() {
    let (_, whole) = undisturbed(&[Habit::Good]).await;
    let (status, results) = undisturbed(&[Habit::Garbled]).await;
    assert_eq!((status.state.as_str(), status.quarantined), ("done", 0));
    assert_eq!(tables(&results), tables(&whole));
}

#[tokio::test]
async fn failing_chunks_are_set_aside_and_the_rest_is_done() {
    let (status, results) = undisturbed(&[Habit::FailsPairs, Habit::FailsPairs, Habit::Good]).await;
    assert_eq!(status.state, "done");
    assert_eq!(status.accepted + status.quarantined, status.planned);
    assert_eq!(results.run.quarantined.len() as u64, status.quarantined);
}

#[tokio::test]
async fn clients_hear_why_chunks_are_set_aside_and_of_effects_so_far() {
    let new = experiment(1);
    let service = Service::start(Options::default(), Arc::new(MemoryStore::default())).await.unwrap();
    let (id, _) = service.submit(new.clone()).await.unwrap();
    let mut client =
        v1::experiments_client::ExperimentsClient::connect(format!("http://{}", service.local_addr()))
            .await
            .unwrap();
    let request = v1::LiveRequest { id: id.clone(), seen: 0 };
    let nothing = client.live(request.clone()).await.unwrap().into_inner();
    let [group] = nothing.groups.as_slice() else { panic!("{nothing:?}") };
    assert_eq!((group.task.as_str(), group.metric.as_str(), group.units.len()), ("t", "logit_diff", 6));
    assert!(group.units.iter().all(|u| u.delta.is_none()) && group.curves.is_empty());
    assert_eq!(group.pairs, Some(v1::LivePairs { planned: 15, ..v1::LivePairs::default() }));

    for _ in 0..2 {
        tokio::spawn(work(service.local_addr(), new.clone(), Habit::FailsPairs, Duration::ZERO));
    }
    until(&service, &id, Status::ended).await;
    let status = client.status(v1::StatusRequest { id: id.clone() }).await.unwrap().into_inner();
    assert_eq!((status.quarantined, status.quarantined_chunks.len()), (4, 4));
    let mut aside: Vec<u32> = status.quarantined_chunks.iter().map(|q| q.chunk).collect();
    aside.sort_unstable();
    assert_eq!(aside, [0, 1, 2, 3]);
    for q in &status.quarantined_chunks {
        assert_eq!((q.sweep, q.round, q.error.as_str()), (2, 0, "no"));
        assert_eq!(q.sweep_name, status.sweeps[2].name);
    }
    let mut watched = client.watch(v1::StatusRequest { id: id.clone() }).await.unwrap().into_inner();
    assert_eq!(watched.message().await.unwrap().unwrap(), status);
    let listed = client.list(v1::ListRequest {}).await.unwrap().into_inner();
    assert!(listed.experiments[0].quarantined_chunks.is_empty(), "a list may be long");

    let all = async {
        loop {
            let reply = client.live(request.clone()).await.unwrap().into_inner();
            let group = &reply.groups[0];
            let selecting = group.curves.iter().find(|c| c.selecting).map_or(0, |c| c.points.len());
            if group.units.iter().all(|u| u.delta.is_some()) && selecting == 5 && group.curves.len() == 5 {
                return reply;
            }
            tokio::time::sleep(Duration::from_millis(20)).await;
        }
    };
    let reply = tokio::time::timeout(Duration::from_secs(30), all).await.expect("effects come");
    for (i, unit) in (0u32..).zip(&reply.groups[0].units) {
        // What a played worker's scores say.
        let hurt = f64::from((i * 7 + 3) % 5) + 0.015;
        assert!((unit.delta.unwrap() - hurt).abs() < 1e-4, "{unit:?}");
        assert_eq!((unit.layer, unit.head), (Some(i / 3), Some(i % 3)));
    }
    let walk = reply.groups[0].curves.iter().find(|c| c.selecting).unwrap();
    assert_eq!((walk.order.as_str(), walk.last), ("greedy", 4));
    assert!(walk.points.windows(2).all(|w| w[0].removed + 1 == w[1].removed && w[1].value < w[0].value));
    let seen = reply.revision;
    let again = client.live(v1::LiveRequest { id, seen }).await.unwrap().into_inner();
    assert_eq!(again, v1::LiveReply { revision: seen, groups: Vec::new() });
    let none = client.live(v1::LiveRequest { id: "nothing".into(), seen: 0 }).await.unwrap_err();
    assert_eq!(none.code(), tonic::Code::NotFound);
}

#[tokio::test]
async fn users_pause_resume_cancel_and_retry() {
    let new = experiment(1);
    let service = Service::start(Options::default(), Arc::new(MemoryStore::default())).await.unwrap();
    let (id, _) = service.submit(new.clone()).await.unwrap();
    assert_eq!(service.submit(new.clone()).await.unwrap(), (id.clone(), true));
    assert_eq!(service.control("test-1", Control::Pause).await.unwrap().state, "paused");
    assert!(matches!(service.control(&id, Control::Pause).await, Err(Error::State(_))));
    let worker = work(service.local_addr(), new.clone(), Habit::Good, Duration::ZERO);
    tokio::spawn(worker);
    tokio::time::sleep(Duration::from_millis(300)).await;
    assert_eq!(service.statuses()[&id].accepted, 0, "it was paused");
    assert_eq!(service.control(&id[..8], Control::Resume).await.unwrap().state, "running");
    until(&service, &id, |s| s.state == "done").await;
    // Nothing was set aside: it is done again at once.
    service.control(&id, Control::Retry).await.unwrap();
    until(&service, &id, |s| s.state == "done").await;
    let (other, _) = service.submit(experiment(2)).await.unwrap();
    assert_eq!(service.control(&other, Control::Cancel).await.unwrap().state, "cancelled");
    assert_eq!(service.control(&other, Control::Retry).await.unwrap().state, "running");
    assert_eq!(service.control(&other, Control::Cancel).await.unwrap().state, "cancelled");
    assert!(matches!(service.control("nothing", Control::Cancel).await, Err(Error::NoExperiment(_))));
    assert_eq!(service.workers().await.unwrap()[0].name, "w");
}

#[tokio::test]
async fn another_protocol_and_a_taken_address_are_refused_by_type() {
    let service = Service::start(Options::default(), Arc::new(MemoryStore::default())).await.unwrap();
    let (_to, mut from) = connect(service.local_addr(), PROTOCOL_VERSION + 1).await;
    let Some(ToWorker::Reject(r)) = from.message().await.unwrap().unwrap().body else {
        panic!("not rejected")
    };
    assert!(matches!(r.kind, Some(v1::reject::Kind::VersionDiffers(_))));
    let taken = Options { listen: service.local_addr(), ..Options::default() };
    let second = Service::start(taken, Arc::new(MemoryStore::default())).await;
    assert!(matches!(second, Err(Error::AddressInUse(a)) if a == service.local_addr()));
}

#[tokio::test]
async fn tables_are_there_once_an_experiment_is_done_or_it_says_why_not() {
    let fail = Arc::new(std::sync::atomic::AtomicBool::new(true));
    let fails = Arc::clone(&fail);
    let exporter: Exporter = Arc::new(move |_, _, _| {
        if fails.load(std::sync::atomic::Ordering::Relaxed) { Err("no room".into()) } else { Ok(()) }
    });
    let options = Options { exporter: Some(exporter), ..Options::default() };
    let new = experiment(1);
    let service = Service::start(options, Arc::new(MemoryStore::default())).await.unwrap();
    let (id, _) = service.submit(new.clone()).await.unwrap();
    tokio::spawn(work(service.local_addr(), new, Habit::Good, Duration::ZERO));
    let status = until(&service, &id, Status::ended).await;
    assert!(status.state == "failed" && status.error.contains("no room"), "{status:?}");
    fail.store(false, std::sync::atomic::Ordering::Relaxed);
    service.control(&id, Control::Retry).await.unwrap();
    until(&service, &id, |s| s.state == "done").await;
}

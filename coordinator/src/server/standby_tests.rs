//! Services that share a PostgreSQL database: who answers what, and what happens to a lead that is lost.

use super::tests::{Habit, tables, undisturbed, until, work};
use super::*;
use crate::store::PostgresStore;
use crate::store::conformance::experiment;
use crate::store::postgres::{Address, Member};
use ablate_proto::v1::{
    self, cluster_client::ClusterClient, coordinator_message::Body, experiments_client::ExperimentsClient,
};
use ablate_test_postgres::shared;
use sqlx::Row;
use std::time::Duration;
use tonic::Code;

/// As long as that of the programs: a machine that can't renew it in time would lose it there too.
const LEAD: Duration = Duration::from_secs(5);
/// For what must come, however slow the machine is.
const PATIENCE: Duration = Duration::from_secs(60);

struct Seat {
    listener: std::net::TcpListener,
    store: Arc<dyn Store>,
    url: String,
}

async fn seat(database: &str) -> Seat {
    let listener = listen(SocketAddr::from(([127, 0, 0, 1], 0))).unwrap();
    let url = format!("http://{}", listener.local_addr().unwrap());
    let address = Address::parse(&shared().url(database)).unwrap();
    let member = Member { name: url.clone(), url: url.clone(), lead: LEAD };
    let store = Arc::new(PostgresStore::open(&address, member).await.unwrap());
    Seat { listener, store, url }
}

impl Seat {
    async fn lead(&self) -> Handle {
        let lead =
            stand_by(&self.listener, &Security::open(), self.store.as_ref(), false, |_| {}).await.unwrap();
        let options = Options { listen: self.listener.local_addr().unwrap(), ..Options::default() };
        let listener = self.listener.try_clone().unwrap();
        Service::lead(options, listener, Arc::clone(&self.store), lead).await.unwrap()
    }
}

/// Waits until the lead was renewed so many times.
async fn renewed(database: &str, times: u32) {
    let expires = || -> f64 {
        shared().rows(database, "SELECT extract(epoch FROM expires)::float8 FROM lead")[0].get(0)
    };
    let all = async {
        for _ in 0..times {
            let before = expires();
            while expires() <= before {
                tokio::time::sleep(Duration::from_millis(50)).await;
            }
        }
    };
    tokio::time::timeout(PATIENCE, all).await.expect("in time");
}

#[tokio::test(flavor = "multi_thread")]
async fn one_that_stands_by_names_the_leader_and_takes_over_with_the_same_results() {
    let (_, whole) = undisturbed(&[Habit::Good]).await;
    let database = shared().database();
    let (a, b) = (seat(&database).await, seat(&database).await);
    let first = a.lead().await;
    let (id, _) = first.submit(experiment(1)).await.unwrap();
    let (b_url, a_url) = (b.url.clone(), a.url.clone());
    let waiting = tokio::spawn(async move { b.lead().await });

    let mut client = loop {
        match ExperimentsClient::connect(b_url.clone()).await {
            Ok(client) => break client,
            Err(_) => tokio::time::sleep(Duration::from_millis(20)).await,
        }
    };
    let reply = client.leader(v1::LeaderRequest {}).await.unwrap().into_inner();
    assert_eq!((reply.leading, reply.url), (false, a_url.clone()));
    let refused = client.list(v1::ListRequest {}).await.unwrap_err();
    assert_eq!(refused.code(), Code::Unavailable);
    let details = <v1::NotLeader as prost::Message>::decode(refused.details()).unwrap();
    assert_eq!(details.url, a_url);
    let mut workers = ClusterClient::connect(b_url).await.unwrap();
    let mut stream = workers.work(tokio_stream::empty()).await.unwrap().into_inner();
    let Some(Body::Reject(reject)) = stream.message().await.unwrap().unwrap().body else { panic!() };
    assert_eq!(reject.kind, Some(v1::reject::Kind::NotLeader(v1::NotLeader { url: a_url.clone() })));
    let mut leader = ExperimentsClient::connect(a_url).await.unwrap();
    assert!(leader.leader(v1::LeaderRequest {}).await.unwrap().into_inner().leading);

    // It ends without a goodbye, as a crash does, in the middle of the work.
    tokio::spawn(work(first.local_addr(), experiment(1), Habit::Good, Duration::from_millis(10)));
    until(&first, &id, |s| s.accepted >= 5).await;
    first.shutdown();
    let second = tokio::time::timeout(PATIENCE, waiting).await.expect("in time").unwrap();
    assert!(second.find(&id).is_ok(), "who finds it open finds its experiments");
    tokio::spawn(work(second.local_addr(), experiment(1), Habit::Good, Duration::ZERO));
    until(&second, &id, Status::ended).await;
    let results = second.store().results(&id).await.unwrap();
    assert_eq!(tables(&results), tables(&whole));
    second.shutdown();
    second.closed().await;
    second.resign().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_lost_lead_is_fatal_and_lets_the_process_stand_by_and_lead_again() {
    let database = shared().database();
    let (a, b) = (seat(&database).await, seat(&database).await);
    let first = a.lead().await;
    first.submit(experiment(1)).await.unwrap();
    // It renews, at a third of its lead: after four times the first would be over, and still nobody else can have it.
    renewed(&database, 4).await;
    assert!(matches!(b.store.acquire_epoch().await, Err(store::Error::Led(_))));
    assert!(first.fatal().borrow().is_none());
    // The lead is taken from it, as after a long stop.
    shared().sql(&database, "UPDATE lead SET expires = '-infinity'");
    let second = b.lead().await;
    let mut fatal = first.fatal();
    let lost = tokio::time::timeout(PATIENCE, fatal.wait_for(Option::is_some)).await;
    let why = lost.expect("in time").unwrap().clone();
    assert!(matches!(&why, Some(Fatal::LostLead(w)) if w.contains("epoch")), "{why:?}");
    let refused = first.submit(experiment(2)).await.unwrap_err();
    assert!(matches!(refused, Error::Store(store::Error::StaleEpoch { .. })), "{refused}");
    first.shutdown();
    first.closed().await;
    second.shutdown();
    second.closed().await;
    second.resign().await;
    let third = a.lead().await;
    assert_eq!(third.statuses().len(), 1, "what was refused isn't there");
    third.shutdown();
}

//! Calls without a network.

use super::*;
use crate::server::{Options, Service};
use crate::store::conformance::experiment;
use crate::store::faulty::Faulty;
use cluster_server::Cluster;
use experiments_server::Experiments;
use futures::{FutureExt, StreamExt};
use tonic::Code;

/// A service with an experiment, and the hash of its blob.
async fn serving(options: Options, store: Arc<Faulty>) -> (Rpc, String, String) {
    let service = Service::start(options, store).await.unwrap();
    let (id, _) = service.submit(experiment(1)).await.unwrap();
    (Rpc::new(service), id, experiment(1).plan.tasks[0].prepared.clone())
}

fn asks(hash: &str) -> Request<v1::BlobRequest> {
    Request::new(v1::BlobRequest { hash: hash.to_owned() })
}

#[tokio::test]
async fn a_blob_that_the_store_cannot_give_now_is_not_called_missing() {
    let store = Arc::new(Faulty::default());
    let (rpc, _, hash) = serving(Options::default(), store.clone()).await;
    let code = async |hash: &str| rpc.blob(asks(hash)).await.err().map(|refused| refused.code());
    assert_eq!(code("none").await, Some(Code::NotFound));
    store.fail("blob", 1, || store::Error::Unavailable("no connection could be made in time".into()));
    assert_eq!(code(&hash).await, Some(Code::Unavailable));
    store.fail("blob", 1, || store::Error::Other("input/output error".into()));
    assert_eq!(code(&hash).await, Some(Code::Unavailable));
    assert_eq!(code(&hash).await, None);
}

#[tokio::test]
async fn so_many_blobs_are_sent_at_once_and_the_next_waits_for_one_to_be_through() {
    let (rpc, _, hash) = serving(Options::default(), Arc::default()).await;
    let mut sent = Vec::new();
    for _ in 0..BLOBS {
        sent.push(rpc.blob(asks(&hash)).await.unwrap_or_else(|e| panic!("{e}")));
    }
    let mut next = rpc.blob(asks(&hash));
    assert!((&mut next).now_or_never().is_none());
    // A part that is on its way makes no room.
    let mut first = sent.remove(0).into_inner();
    assert!(first.next().await.is_some_and(|part| part.is_ok()));
    assert!((&mut next).now_or_never().is_none());
    drop(first);
    assert!(next.await.is_ok());
}

#[tokio::test]
async fn an_export_keeps_its_place_until_it_is_sent() {
    let exporter: crate::server::Exporter =
        Arc::new(|_, _, folder| std::fs::write(folder.join("a.csv"), "a\n1\n").map_err(|e| e.to_string()));
    let options = Options { exporter: Some(exporter), ..Options::default() };
    let exporting = options.security.exporting();
    let places = exporting.available_permits();
    let (rpc, id, _) = serving(options, Arc::default()).await;
    let wish = v1::ExportRequest { id, format: "csv".into() };
    let reply = rpc.export(Request::new(wish)).await.unwrap_or_else(|e| panic!("{e}"));
    assert_eq!(exporting.available_permits(), places - 1);
    let parts: Vec<_> = reply.into_inner().collect().await;
    assert!(matches!(&parts[..], [Ok(part)] if part.name == "a.csv" && part.data == "a\n1\n"));
    assert_eq!(exporting.available_permits(), places);
}

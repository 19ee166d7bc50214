//! Imitation workers against a real coordinator: a small load, to its end.
#![allow(clippy::unwrap_used, reason = "tests")]

use ablate_load::model::{self, Size};
use ablate_load::service::Service;
use ablate_load::{Options, run};
use std::time::Duration;

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn forty_imitation_workers_finish_an_experiment_and_every_chunk_counts_once() {
    let folder = tempfile::tempdir().unwrap();
    let size = Size { layers: 6, heads: 8 };
    let spec = model::write(folder.path(), size).unwrap();
    let store = format!("sqlite://{}/ablate.db", folder.path().display());
    let mut service = Service::new(folder.path(), &store).unwrap();
    service.start().unwrap();
    service.wait().unwrap();
    service.client(&["submit", spec.to_str().unwrap()]).unwrap();
    let chunks = chunks(&service);
    let options = Options {
        url: service.url(),
        workers: 40,
        chunk: Duration::from_millis(1),
        window: 4,
        time: Duration::from_mins(2),
        warm_up: Duration::ZERO,
        chunks: Some(chunks),
    };
    let summary = run(options).await.unwrap();
    assert_eq!(summary.refused, None);
    // A tail is computed twice where a worker is free: such a copy is acknowledged too.
    assert!(summary.acknowledged >= chunks, "{summary:?}");
    let status = wait_for_done(&service);
    assert_eq!(status["chunks"]["accepted"].as_u64(), Some(chunks), "{status}");
}

fn status(service: &Service) -> serde_json::Value {
    serde_json::from_str(&service.client(&["status", "--json"]).unwrap()).unwrap()
}

fn chunks(service: &Service) -> u64 {
    status(service)["chunks"]["planned"].as_u64().unwrap()
}

fn wait_for_done(service: &Service) -> serde_json::Value {
    for _ in 0..600 {
        let now = status(service);
        if now["state"] == "done" {
            return now;
        }
        std::thread::sleep(Duration::from_millis(100));
    }
    panic!("it doesn't end: {}", status(service));
}

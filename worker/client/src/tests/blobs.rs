//! What becomes of an experiment whose data doesn't come at once, or not at all.

use super::*;
use pb::failure::Kind;

/// Announces an experiment.
fn open(plan: &Plan, model: &str) -> Body {
    let plan = serde_json::to_vec(plan).expect("JSON").into();
    let (experiment, model_source) = ("e".to_owned(), model.to_owned());
    Body::Open(pb::Open { experiment, plan, model_source, constants: Vec::new() })
}

fn away() -> Result<Vec<u8>, Status> {
    Err(Status::unavailable("no connection could be made in time"))
}

/// Why a chunk failed.
async fn failed(stream: &mut Played) -> pb::Failure {
    match stream.next().await {
        Some(Said::Failed(f)) => f.failure.unwrap_or_default(),
        other => panic!("expected a failure, heard {other:?}"),
    }
}

#[tokio::test]
async fn data_that_cannot_be_read_now_is_asked_for_again() {
    let mut stage = Stage::set(1).await;
    stage.answers.lock().unwrap().extend([away(), away(), Ok(b"other bytes".to_vec()), away()]);
    let mut stream = stage.stream().await;
    stream.welcome(60_000).await;
    stream.give(2);
    assert_eq!((chunk(&stream.result().await), chunk(&stream.result().await)), (0, 1));
    assert!(stage.answers.lock().unwrap().is_empty());
    stage.worker.abort();
}

#[tokio::test]
async fn an_experiment_without_its_data_or_for_another_engine_is_no_chunks_fault() {
    let mut stage = Stage::set(1).await;
    stage.answers.lock().unwrap().push_back(Err(Status::not_found("no such blob")));
    let mut stream = stage.stream().await;
    stream.welcome(60_000).await;
    stream.give(1);
    let failure = failed(&mut stream).await;
    assert!(matches!(&failure.kind, Some(Kind::DataMissing(m)) if !m.hash.is_empty()), "{failure:?}");
    stream.say(open(&Plan { engine: ablate_common::ENGINE_VERSION + 1, ..plan() }, "model.gguf"));
    stream.say(Body::Shard(pb::Shard {
        lease: 8,
        experiment: "e".into(),
        chunks: 1,
        ..pb::Shard::default()
    }));
    let failure = failed(&mut stream).await;
    assert!(matches!(&failure.kind, Some(Kind::DataMissing(_))), "{failure:?}");
    assert!(failure.detail.contains("engine"), "{failure:?}");
    assert_eq!(stage.engine.begun.load(Ordering::SeqCst), 0);
    stage.worker.abort();
}

#[tokio::test]
async fn what_was_announced_before_does_not_replace_what_is_announced_now() {
    let mut stage = Stage::set(1).await;
    let data = || Ok(serde_json::to_vec(&prepared()).expect("JSON"));
    stage.answers.lock().unwrap().extend([away(), data(), data()]);
    let mut stream = stage.stream().await;
    stream.welcome(60_000).await;
    let mut before = plan();
    before.spec.name = "before".into();
    // The engine takes no such model.
    stream.say(open(&before, "before.gguf"));
    until(|| stage.answers.lock().unwrap().len() < 3).await;
    stream.say(open(&plan(), "model.gguf"));
    // Both have come now: the second, and what was away.
    until(|| stage.answers.lock().unwrap().is_empty()).await;
    tokio::time::sleep(Duration::from_millis(100)).await;
    stream.give(1);
    assert_eq!(chunk(&stream.result().await), 0);
    stage.worker.abort();
}

//! The client against a coordinator that each test plays by hand.

#![expect(clippy::disallowed_methods, reason = "real lanes, in real time")]

mod blobs;

use super::*;
use crate::lane::{ExecError, Executor, Experiment, OpenExperiment, Progress};
use ablate_common::PROTOCOL_VERSION;
use ablate_common::head::HeadMap;
use ablate_common::metric::Metric;
use ablate_common::model::ModelInfo;
use ablate_common::plan::{Ablation, Plan, PlannedSweep, PlannedTask, SweepKind};
use ablate_common::scores::ChunkScores;
use ablate_common::spec::{Dtype, ModelSpec, Spec};
use ablate_common::task::{Example, Item, Prepared, Scope, TaskKind};
use ablate_common::units::{UnitIx, UnitMap};
use ablate_proto::v1::cluster_server::{Cluster, ClusterServer};
use ablate_proto::v1::worker_message::Body as Said;
use std::collections::VecDeque;
use std::path::Path;
use std::sync::atomic::{AtomicBool, AtomicUsize, Ordering};
use std::sync::{Arc, Mutex};
use tokio::task::JoinHandle;
use tokio_stream::wrappers::{TcpListenerStream, UnboundedReceiverStream};
use tonic::{Request, Response, Status, Streaming};

const PATIENCE: Duration = Duration::from_secs(10);

/// One stream as the test plays it.
struct Played {
    heard: Streaming<pb::WorkerMessage>,
    to: mpsc::UnboundedSender<Result<pb::CoordinatorMessage, Status>>,
}

impl Played {
    fn say(&self, body: Body) {
        self.to.send(Ok(pb::CoordinatorMessage { body: Some(body) })).expect("the stream is open");
    }

    /// The next message that is neither a renewal nor a credit; renewals are granted on the way.
    async fn next(&mut self) -> Option<Said> {
        loop {
            let message = tokio::time::timeout(PATIENCE, self.heard.message()).await.expect("in time");
            match message.ok().flatten()?.body? {
                Said::Renew(r) => self.say(Body::Renewed(pb::Renewed { leases: r.leases })),
                Said::Credit(_) => {}
                other => return Some(other),
            }
        }
    }

    async fn result(&mut self) -> pb::ChunkResult {
        match self.next().await {
            Some(Said::Result(r)) => r,
            other => panic!("expected a result, heard {other:?}"),
        }
    }

    async fn welcome(&mut self, lease_ms: u64) -> pb::Hello {
        let Some(Said::Hello(hello)) = self.next().await else { panic!("no hello") };
        self.say(Body::Welcome(pb::Welcome { worker: 1, epoch: 1, lease_ms, protocol: PROTOCOL_VERSION }));
        hello
    }

    fn give(&self, chunks: u32) {
        let plan = serde_json::to_vec(&plan()).expect("JSON");
        self.say(Body::Open(pb::Open {
            experiment: "e".into(),
            plan: plan.into(),
            model_source: "model.gguf".into(),
            constants: Vec::new(),
        }));
        self.say(Body::Shard(pb::Shard { lease: 7, experiment: "e".into(), chunks, ..pb::Shard::default() }));
    }

    fn ack(&self, result: &pb::ChunkResult) {
        self.say(Body::Ack(pb::Ack { id: result.id.clone(), duplicate: false }));
    }
}

/// What the next calls for a blob are answered with; the data that is asked for, once there is nothing here.
type Answers = Arc<Mutex<VecDeque<Result<Vec<u8>, Status>>>>;

struct Fake(mpsc::UnboundedSender<Played>, Answers);

#[tonic::async_trait]
impl Cluster for Fake {
    type WorkStream = UnboundedReceiverStream<Result<pb::CoordinatorMessage, Status>>;
    type BlobStream = UnboundedReceiverStream<Result<pb::BlobPart, Status>>;

    async fn work(
        &self,
        request: Request<Streaming<pb::WorkerMessage>>,
    ) -> Result<Response<Self::WorkStream>, Status> {
        let (to, out) = mpsc::unbounded_channel();
        self.0
            .send(Played { heard: request.into_inner(), to })
            .map_err(|_| Status::unavailable("the test is over"))?;
        Ok(Response::new(UnboundedReceiverStream::new(out)))
    }

    async fn blob(&self, request: Request<pb::BlobRequest>) -> Result<Response<Self::BlobStream>, Status> {
        let data = serde_json::to_vec(&prepared()).map_err(|e| Status::internal(e.to_string()))?;
        let bytes = self.1.lock().unwrap().pop_front().unwrap_or(Ok(data.clone()))?;
        if blake3::hash(&data).to_hex().as_str() != request.into_inner().hash {
            return Err(Status::not_found("no such blob"));
        }
        let (to, out) = mpsc::unbounded_channel();
        for part in bytes.chunks(10) {
            drop(to.send(Ok(pb::BlobPart { data: part.to_vec().into() })));
        }
        Ok(Response::new(UnboundedReceiverStream::new(out)))
    }
}

fn prepared() -> Prepared {
    let example = Example { a: 0, b: 0, gold: 0.0, cluster: 0, half: Some(0) };
    let items = vec![Item { tokens: vec![1, 2], ..Item::default() }];
    Prepared { kind: TaskKind::Ioi, items, item_half: vec![0], examples: vec![example], probe: None }
}

pub(crate) fn plan() -> Plan {
    let model = ModelSpec { source: "model.gguf".into(), dtype: Dtype::F32, sha256: None };
    let task = PlannedTask {
        name: "t".into(),
        kind: TaskKind::Ioi,
        metric: Metric::LogitDiff,
        prepared: blake3::hash(&serde_json::to_vec(&prepared()).expect("JSON")).to_hex().to_string(),
        items: 1,
        examples: 1,
        all: Vec::new(),
        select: Vec::new(),
    };
    Plan {
        engine: ablate_common::ENGINE_VERSION,
        spec: Spec {
            name: "e".into(),
            seed: 0,
            model,
            tasks: Vec::new(),
            ablations: Vec::new(),
            sweeps: Vec::new(),
        },
        model: ModelInfo {
            arch: "llama".into(),
            title: String::new(),
            weights_sha256: String::new(),
            heads: HeadMap::single_stream(3, 4),
            layers: 3,
            d_model: 8,
            n_heads: 4,
            n_kv_heads: 4,
            head_dim: 2,
            d_ff: 8,
            vocab: 10,
            context: 16,
            norm_eps: 1e-5,
            rope_theta: None,
            tied: true,
            details: ablate_common::model::Details::default(),
        },
        tasks: vec![task],
        ablations: vec![Ablation::Zero.into()],
        units: vec![UnitMap::heads(&HeadMap::single_stream(3, 4))],
        references: Vec::new(),
        sweeps: vec![PlannedSweep {
            kind: SweepKind::Single,
            ablation: 0,
            tasks: vec![0],
            units: 0,
            scope: Scope::All,
            chunk: 1,
        }],
    }
}

/// An engine that counts, and that works on a chunk for as long as `hold` is set.
#[derive(Default)]
struct FakeEngine {
    begun: AtomicUsize,
    stopped: AtomicUsize,
    hold: AtomicBool,
    differs: AtomicBool,
}

struct Handle(Arc<FakeEngine>);

impl Executor for Handle {
    fn run_chunk(
        &mut self,
        _: u32,
        _: u32,
        _: &[UnitIx],
        chunk: u32,
        stop: &AtomicBool,
    ) -> Result<ChunkScores, ExecError> {
        self.0.begun.fetch_add(1, Ordering::SeqCst);
        while self.0.hold.load(Ordering::SeqCst) {
            if stop.load(Ordering::SeqCst) {
                self.0.stopped.fetch_add(1, Ordering::SeqCst);
                return Err(ExecError::Stopped);
            }
            std::thread::sleep(Duration::from_millis(1));
        }
        Ok(ChunkScores { subsets: chunk, tasks: Vec::new() })
    }
}

struct FakeOpener(Arc<FakeEngine>);

impl OpenExperiment for FakeOpener {
    fn open(
        &self,
        _: &LaneDevice,
        experiment: &Experiment,
        _: Progress<'_>,
    ) -> Result<Box<dyn Executor>, ExecError> {
        let (plan, data) = (&experiment.plan, &experiment.prepared);
        let model = experiment.model.as_path();
        assert_eq!((plan.sweeps.len(), &data[..], model), (1, &[prepared()][..], Path::new("model.gguf")));
        if self.0.differs.load(Ordering::SeqCst) {
            return Err(ExecError::ModelDiffers { expected: "a".into(), found: "b".into() });
        }
        Ok(Box::new(Handle(self.0.clone())))
    }
}

/// A coordinator to be played: its address, the streams that come, and its blobs.
async fn coordinator() -> (std::net::SocketAddr, mpsc::UnboundedReceiver<Played>, Answers) {
    let listener = tokio::net::TcpListener::bind("127.0.0.1:0").await.expect("a port");
    let address = listener.local_addr().expect("an address");
    let (streams_to, streams) = mpsc::unbounded_channel();
    let answers = Answers::default();
    let fake = Fake(streams_to, answers.clone());
    let server = tonic::transport::Server::builder().add_service(ClusterServer::new(fake));
    tokio::spawn(server.serve_with_incoming(TcpListenerStream::new(listener)));
    (address, streams, answers)
}

struct Stage {
    streams: mpsc::UnboundedReceiver<Played>,
    answers: Answers,
    engine: Arc<FakeEngine>,
    drain: watch::Sender<bool>,
    worker: JoinHandle<std::io::Result<Outcome>>,
}

impl Stage {
    async fn set(lanes: u32) -> Self {
        let (address, streams, answers) = coordinator().await;
        let engine = Arc::new(FakeEngine::default());
        let lane = |lane| LaneDevice {
            lane,
            device: crate::lane::Named::Cpu,
            name: "cpu".into(),
            class: "fake".into(),
            threads: 1,
        };
        let config = Config {
            route: Route::parse(&address.to_string(), ablate_net::Access::default()).expect("a URL"),
            name: "test:1".into(),
            lanes: (0..lanes).map(lane).collect(),
            start: lane::threads(Arc::new(FakeOpener(engine.clone()))),
            protocol: PROTOCOL_VERSION,
            engine: ablate_common::ENGINE_VERSION,
            dial: link::network(),
            limits: spool::LIMITS,
            compute: Compute::Pool,
            model_root: None,
            other_work_patience: Duration::ZERO,
        };
        let (drain, drained) = watch::channel(false);
        Self { streams, answers, engine, drain, worker: tokio::spawn(run(config, drained)) }
    }

    async fn stream(&mut self) -> Played {
        tokio::time::timeout(PATIENCE, self.streams.recv()).await.expect("in time").expect("a stream")
    }

    async fn outcome(self) -> Outcome {
        tokio::time::timeout(PATIENCE, self.worker)
            .await
            .expect("in time")
            .expect("no panic")
            .expect("no error")
    }
}

async fn until(what: impl Fn() -> bool) {
    let wait = async {
        while !what() {
            tokio::time::sleep(Duration::from_millis(2)).await;
        }
    };
    tokio::time::timeout(PATIENCE, wait).await.expect("in time");
}

fn chunk(result: &pb::ChunkResult) -> u32 {
    result.id.as_ref().expect("an id").chunk
}

#[tokio::test]
async fn results_are_sent_again_after_the_stream_is_cut_before_the_ack() {
    let mut stage = Stage::set(1).await;
    let mut first = stage.stream().await;
    let hello = first.welcome(5000).await;
    first.give(3);
    let before: Vec<pb::ChunkResult> = vec![first.result().await, first.result().await, first.result().await];
    assert_eq!(before.iter().map(chunk).collect::<Vec<_>>(), [0, 1, 2]);
    assert_eq!(ChunkScores::decode(&before[2].scores).expect("scores").subsets, 2);
    first.ack(&before[0]);
    // The stream ends behind the acknowledgement: that is read first.
    let Played { heard, to } = first;
    drop(to);
    let mut second = stage.stream().await;
    drop(heard);
    assert_eq!(second.welcome(5000).await, hello, "the session is the same");
    let again = vec![second.result().await, second.result().await];
    assert_eq!(again, before[1..]);
    again.iter().for_each(|r| second.ack(r));
    stage.drain.send(true).expect("the worker listens");
    assert_eq!(second.next().await, Some(Said::Goodbye(pb::Goodbye {})));
    assert_eq!(stage.engine.begun.load(Ordering::SeqCst), 3, "nothing is computed twice");
    drop(second);
    assert_eq!(stage.outcome().await, Outcome::Drained(0));
}

#[tokio::test]
async fn a_lease_that_is_not_renewed_stops_its_work() {
    let mut stage = Stage::set(1).await;
    stage.engine.hold.store(true, Ordering::SeqCst);
    let mut stream = stage.stream().await;
    // Long beside what it takes to begin, on any machine.
    stream.welcome(3000).await;
    stream.give(5);
    let engine = stage.engine.clone();
    until(|| engine.begun.load(Ordering::SeqCst) == 1).await;
    // Nobody answers the renewals.
    until(|| engine.stopped.load(Ordering::SeqCst) == 1).await;
    engine.hold.store(false, Ordering::SeqCst);
    tokio::time::sleep(Duration::from_millis(100)).await;
    assert_eq!(engine.begun.load(Ordering::SeqCst), 1, "the shard's other chunks are not begun");
    // The same lease, granted anew, is worked off.
    stream.give(2);
    assert_eq!(chunk(&stream.result().await), 0);
    stage.worker.abort();
}

#[tokio::test]
async fn leases_are_renewed_on_the_stream_and_one_that_is_taken_back_stops_its_work() {
    let mut stage = Stage::set(1).await;
    stage.engine.hold.store(true, Ordering::SeqCst);
    let engine = stage.engine.clone();
    let mut stream = stage.stream().await;
    stream.welcome(6000).await;
    stream.give(5);
    until(|| engine.begun.load(Ordering::SeqCst) == 1).await;
    // How long which answer holds a lease is tried in desk/tests.rs, by a clock that no machine holds up.
    let renewal = loop {
        let message = tokio::time::timeout(PATIENCE, stream.heard.message()).await.expect("in time");
        let body = message.expect("a message").expect("an open stream").body;
        if let Some(Said::Renew(r)) = body {
            break r;
        }
    };
    assert_eq!(renewal.leases, [7]);
    stream.say(Body::Renewed(pb::Renewed { leases: renewal.leases }));
    stream.say(Body::Revoke(pb::Revoke { lease: 7 }));
    until(|| engine.stopped.load(Ordering::SeqCst) == 1).await;
    assert_eq!(engine.begun.load(Ordering::SeqCst), 1);
    stage.worker.abort();
}

#[tokio::test]
async fn another_version_is_refused_with_what_differs() {
    let mut stage = Stage::set(1).await;
    let stream = stage.stream().await;
    let kind = Some(pb::reject::Kind::VersionDiffers(pb::VersionDiffers { protocol: 9, engine: 8 }));
    stream.say(Body::Reject(pb::Reject { detail: String::new(), kind }));
    let Outcome::Refused(why) = stage.outcome().await else { panic!("not refused") };
    assert!(
        why.contains("protocol 9 there") && why.contains("engine 8 there") && why.contains("install"),
        "{why}"
    );
}

#[tokio::test]
async fn a_model_with_other_bytes_is_a_typed_failure_and_ends_a_leashed_worker() {
    let mut stage = Stage::set(1).await;
    stage.engine.differs.store(true, Ordering::SeqCst);
    let mut stream = stage.stream().await;
    stream.welcome(5000).await;
    stream.give(2);
    let Some(Said::Failed(failed)) = stream.next().await else { panic!("no failure") };
    let kind = failed.failure.and_then(|f| f.kind);
    assert_eq!(
        kind,
        Some(pb::failure::Kind::ModelDiffers(pb::ModelDiffers { expected: "a".into(), found: "b".into() }))
    );
    drop(stream);
    assert!(matches!(stage.outcome().await, Outcome::ModelDiffers(_)));
}

#[tokio::test]
async fn two_lanes_share_a_shard_and_draining_finishes_what_is_begun() {
    let mut stage = Stage::set(2).await;
    stage.engine.hold.store(true, Ordering::SeqCst);
    let engine = stage.engine.clone();
    let mut stream = stage.stream().await;
    assert_eq!(stream.welcome(5000).await.lanes.len(), 2);
    stream.give(10);
    until(|| engine.begun.load(Ordering::SeqCst) == 2).await;
    stage.drain.send(true).expect("the worker listens");
    tokio::time::sleep(Duration::from_millis(100)).await;
    engine.hold.store(false, Ordering::SeqCst);
    let mut chunks = Vec::new();
    for _ in 0..2 {
        let result = stream.result().await;
        stream.ack(&result);
        chunks.push(chunk(&result));
    }
    chunks.sort_unstable();
    assert_eq!(chunks, [0, 9]);
    assert_eq!(stream.next().await, Some(Said::Goodbye(pb::Goodbye {})));
    drop(stream);
    assert_eq!(stage.outcome().await, Outcome::Drained(0));
    assert_eq!(engine.begun.load(Ordering::SeqCst), 2);
}

#[tokio::test]
async fn a_shard_that_is_no_part_of_the_plan_fails_without_running() {
    let mut stage = Stage::set(1).await;
    let mut stream = stage.stream().await;
    stream.welcome(5000).await;
    stream.give(13);
    for at in 0..13 {
        let Some(Said::Failed(failed)) = stream.next().await else { panic!("no failure") };
        assert_eq!(failed.id.map(|id| id.chunk), Some(at));
    }
    assert_eq!(stage.engine.begun.load(Ordering::SeqCst), 0);
    stage.worker.abort();
}

#[tokio::test]
async fn a_new_stream_is_told_what_the_leases_hold() {
    let mut stage = Stage::set(1).await;
    stage.engine.hold.store(true, Ordering::SeqCst);
    let engine = stage.engine.clone();
    let mut first = stage.stream().await;
    first.welcome(5000).await;
    first.give(4);
    until(|| engine.begun.load(Ordering::SeqCst) == 1).await;
    drop(first);
    let mut second = stage.stream().await;
    second.welcome(5000).await;
    let message = tokio::time::timeout(PATIENCE, second.heard.message()).await.expect("in time");
    let held = pb::Held { lease: 7, experiment: "e".into(), sweep: 0, round: 0, chunks: vec![0, 1, 2, 3] };
    assert_eq!(
        message.ok().flatten().and_then(|m| m.body),
        Some(Said::Renew(pb::Renew { leases: vec![7], held: vec![held] }))
    );
    engine.hold.store(false, Ordering::SeqCst);
    second.say(Body::Renewed(pb::Renewed { leases: vec![7] }));
    for at in 0..4 {
        assert_eq!(chunk(&second.result().await), at);
    }
    assert_eq!(engine.begun.load(Ordering::SeqCst), 4, "the chunk in work went on");
    stage.worker.abort();
}

#[tokio::test]
async fn a_coordinator_that_stands_by_names_the_one_to_work_for() {
    let mut stage = Stage::set(1).await;
    let (address, mut leader, _) = coordinator().await;
    let standby = stage.stream().await;
    let kind = pb::reject::Kind::NotLeader(pb::NotLeader { url: format!("http://{address}") });
    standby.say(Body::Reject(pb::Reject { detail: String::new(), kind: Some(kind) }));
    let mut stream = tokio::time::timeout(PATIENCE, leader.recv()).await.expect("in time").expect("a stream");
    stream.welcome(5000).await;
    stream.give(1);
    assert_eq!(chunk(&stream.result().await), 0);
    stage.worker.abort();
}

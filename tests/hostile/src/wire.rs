//! Messages of the wire format, each kind of them. The first byte says which message the others are.

use ablate_proto::v1::{self, coordinator_message, failure, reject, worker_message};
use prost::Message;
use tonic::{Code, Status};

/// Reads a message; whether it took it.
type Reader = fn(&[u8]) -> bool;

/// Every message of `ablate.proto`, in its order.
pub const KINDS: [(&str, Reader); 59] = [
    ("WorkerMessage", taken::<v1::WorkerMessage>),
    ("CoordinatorMessage", taken::<v1::CoordinatorMessage>),
    ("Hello", taken::<v1::Hello>),
    ("Lane", taken::<v1::Lane>),
    ("Credit", taken::<v1::Credit>),
    ("ChunkId", taken::<v1::ChunkId>),
    ("ChunkResult", taken::<v1::ChunkResult>),
    ("ChunkFailed", taken::<v1::ChunkFailed>),
    ("Failure", taken::<v1::Failure>),
    ("ModelMissing", taken::<v1::ModelMissing>),
    ("ModelDiffers", taken::<v1::ModelDiffers>),
    ("OutOfMemory", taken::<v1::OutOfMemory>),
    ("Execution", taken::<v1::Execution>),
    ("DataMissing", taken::<v1::DataMissing>),
    ("DoesNotFit", taken::<v1::DoesNotFit>),
    ("Renew", taken::<v1::Renew>),
    ("Held", taken::<v1::Held>),
    ("Renewed", taken::<v1::Renewed>),
    ("Goodbye", taken::<v1::Goodbye>),
    ("Welcome", taken::<v1::Welcome>),
    ("Reject", taken::<v1::Reject>),
    ("VersionDiffers", taken::<v1::VersionDiffers>),
    ("NotLeader", taken::<v1::NotLeader>),
    ("LimitReached", taken::<v1::LimitReached>),
    ("Unidentified", taken::<v1::Unidentified>),
    ("NotPermitted", taken::<v1::NotPermitted>),
    ("OverLimit", taken::<v1::OverLimit>),
    ("Open", taken::<v1::Open>),
    ("Close", taken::<v1::Close>),
    ("Shard", taken::<v1::Shard>),
    ("Ack", taken::<v1::Ack>),
    ("Revoke", taken::<v1::Revoke>),
    ("Drain", taken::<v1::Drain>),
    ("BlobRequest", taken::<v1::BlobRequest>),
    ("BlobPart", taken::<v1::BlobPart>),
    ("LeaderRequest", taken::<v1::LeaderRequest>),
    ("LeaderReply", taken::<v1::LeaderReply>),
    ("SubmitRequest", taken::<v1::SubmitRequest>),
    ("SubmitReply", taken::<v1::SubmitReply>),
    ("ListRequest", taken::<v1::ListRequest>),
    ("ListReply", taken::<v1::ListReply>),
    ("StatusRequest", taken::<v1::StatusRequest>),
    ("ControlRequest", taken::<v1::ControlRequest>),
    ("WorkersRequest", taken::<v1::WorkersRequest>),
    ("WorkersReply", taken::<v1::WorkersReply>),
    ("WorkerStatus", taken::<v1::WorkerStatus>),
    ("ExperimentStatus", taken::<v1::ExperimentStatus>),
    ("QuarantinedChunk", taken::<v1::QuarantinedChunk>),
    ("SweepStatus", taken::<v1::SweepStatus>),
    ("LiveRequest", taken::<v1::LiveRequest>),
    ("LiveReply", taken::<v1::LiveReply>),
    ("LiveGroup", taken::<v1::LiveGroup>),
    ("LiveUnit", taken::<v1::LiveUnit>),
    ("LiveCurve", taken::<v1::LiveCurve>),
    ("LivePoint", taken::<v1::LivePoint>),
    ("LivePairs", taken::<v1::LivePairs>),
    ("LivePair", taken::<v1::LivePair>),
    ("ExportRequest", taken::<v1::ExportRequest>),
    ("FilePart", taken::<v1::FilePart>),
];

fn taken<M: Message + Default + PartialEq>(bytes: &[u8]) -> bool {
    let Ok(message) = M::decode(bytes) else { return false };
    let again = M::decode(message.encode_to_vec().as_slice());
    assert!(
        again.is_ok_and(|a| a.encode_to_vec() == message.encode_to_vec()),
        "a message changes when it is sent on"
    );
    true
}

/// Decodes a message, or what a status's details are made into.
///
/// # Panics
/// Where a message changes when it is sent on, or a caller would wait for long.
#[must_use]
pub fn proto(bytes: &[u8]) -> bool {
    let Some((&kind, rest)) = bytes.split_first() else { return false };
    match KINDS.get(kind as usize % (KINDS.len() + 1)) {
        Some((_, read)) => read(rest),
        None => {
            let status = Status::with_details(Code::ResourceExhausted, "", rest.to_vec().into());
            let wait = ablate_proto::retry_after(&status);
            assert!(wait.is_none_or(|w| w.as_secs() <= 60), "a caller sleeps for {wait:?}");
            wait.is_some()
        }
    }
}

/// A message with its kind before it.
fn of(name: &str, message: &impl Message) -> Vec<u8> {
    let kind = KINDS.iter().position(|k| k.0 == name).unwrap_or(KINDS.len());
    [vec![kind as u8], message.encode_to_vec()].concat()
}

fn chunk() -> v1::ChunkId {
    v1::ChunkId { experiment: "ab".repeat(32), sweep: 1, round: 2, chunk: 3 }
}

fn lane() -> v1::Lane {
    v1::Lane { device: "cpu".into(), device_class: "class".into() }
}

/// A failure of each kind.
pub fn failures() -> impl Iterator<Item = failure::Kind> {
    use failure::Kind;
    [
        Kind::ModelMissing(v1::ModelMissing { path: "/m".into() }),
        Kind::ModelDiffers(v1::ModelDiffers { expected: "a".into(), found: "b".into() }),
        Kind::OutOfMemory(v1::OutOfMemory { requested_bytes: 1 << 33 }),
        Kind::Execution(v1::Execution {}),
        Kind::DataMissing(v1::DataMissing { hash: "ab".repeat(32) }),
        Kind::DoesNotFit(v1::DoesNotFit { device: "cpu".into(), needed_bytes: 9, free_bytes: 8 }),
    ]
    .into_iter()
}

fn held() -> v1::Held {
    v1::Held { lease: 1, experiment: "e".into(), sweep: 0, round: 0, chunks: vec![0, 1, 2] }
}

/// A worker's messages.
fn said() -> Vec<worker_message::Body> {
    use worker_message::Body;
    let hello = v1::Hello {
        protocol: 2,
        engine: 3,
        version: "1".into(),
        name: "n".into(),
        lanes: vec![lane(); 2],
        session: "s".into(),
    };
    let result = v1::ChunkResult {
        id: Some(chunk()),
        lease: 9,
        lane: 1,
        busy_us: 5,
        idle_us: 6,
        scores: vec![1, 2, 3].into(),
        device_class: "class".into(),
    };
    let failed = |kind| {
        let failure = v1::Failure { detail: "why".into(), kind: Some(kind) };
        Body::Failed(v1::ChunkFailed { id: Some(chunk()), lease: 9, failure: Some(failure) })
    };
    let plain = [
        Body::Hello(hello),
        Body::Credit(v1::Credit { shards: 2 }),
        Body::Result(result),
        Body::Renew(v1::Renew { leases: vec![1, 2, u64::MAX], held: vec![held()] }),
        Body::Goodbye(v1::Goodbye {}),
    ];
    plain.into_iter().chain(failures().map(failed)).collect()
}

fn shard() -> v1::Shard {
    v1::Shard {
        lease: 1,
        experiment: "e".into(),
        sweep: 1,
        round: 1,
        list: vec![4, 5],
        first_chunk: 2,
        chunks: 3,
    }
}

fn open() -> v1::Open {
    v1::Open {
        experiment: "e".into(),
        plan: b"{\"engine\":4}".to_vec().into(),
        model_source: "/m".into(),
        constants: vec![String::new(), "ab".repeat(32)],
    }
}

/// Reasons to reject a worker.
fn rejects() -> Vec<v1::Reject> {
    use reject::Kind;
    let kinds = [
        Kind::VersionDiffers(v1::VersionDiffers { protocol: 3, engine: 4 }),
        Kind::NotLeader(v1::NotLeader { url: "http://a:1".into() }),
        Kind::LimitReached(v1::LimitReached { limit: 4096 }),
    ];
    kinds.into_iter().map(|kind| v1::Reject { detail: "d".into(), kind: Some(kind) }).collect()
}

/// A coordinator's messages.
fn told() -> Vec<coordinator_message::Body> {
    use coordinator_message::Body;
    let plain = [
        Body::Welcome(v1::Welcome { worker: 1, epoch: 2, lease_ms: 30_000, protocol: 3 }),
        Body::Open(open()),
        Body::Shard(shard()),
        Body::Ack(v1::Ack { id: Some(chunk()), duplicate: true }),
        Body::Revoke(v1::Revoke { lease: 1 << 32 }),
        Body::Renewed(v1::Renewed { leases: vec![1, 2] }),
        Body::Close(v1::Close { experiment: "e".into() }),
        Body::Drain(v1::Drain {}),
    ];
    plain.into_iter().chain(rejects().into_iter().map(Body::Reject)).collect()
}

/// What clients say and hear.
fn clients() -> Vec<Vec<u8>> {
    let sweep = v1::SweepStatus {
        name: "single".into(),
        subsets_total: 5,
        subsets_done: 4,
        chunks_total: 3,
        chunks_done: 2,
        round: 0,
        rounds: 1,
    };
    let status = v1::ExperimentStatus {
        id: "e".into(),
        name: "n".into(),
        state: "running".into(),
        sweeps: vec![sweep.clone(); 2],
        chunks_planned: 9,
        error: "why".into(),
        ..v1::ExperimentStatus::default()
    };
    let worker =
        v1::WorkerStatus { id: 1, name: "w".into(), lanes: vec![lane()], ..v1::WorkerStatus::default() };
    let submit =
        v1::SubmitRequest { spec_toml: "name = \"a\"".into(), base_dir: "/d".into(), origin: "o".into() };
    let unit =
        v1::LiveUnit { name: "L0.H1".into(), layer: Some(0), delta: Some(0.5), ..v1::LiveUnit::default() };
    let point = v1::LivePoint { removed: 1, value: 2.0, retained: Some(0.9), unit: "L0.H1".into() };
    let curve =
        v1::LiveCurve { order: "greedy".into(), points: vec![point.clone()], ..v1::LiveCurve::default() };
    let pair = v1::LivePair { a: 0, b: 1, interaction: -0.5, se: Some(0.1) };
    let pairs = v1::LivePairs { known: 1, planned: 3, below: vec![pair], ..v1::LivePairs::default() };
    let group = v1::LiveGroup {
        units: vec![unit.clone()],
        curves: vec![curve.clone()],
        pairs: Some(pairs.clone()),
        ..v1::LiveGroup::default()
    };
    vec![
        of("LeaderRequest", &v1::LeaderRequest {}),
        of("LeaderReply", &v1::LeaderReply { leading: true, epoch: 3, url: "http://a:1".into() }),
        of("SubmitRequest", &submit),
        of("SubmitReply", &v1::SubmitReply { id: "e".into(), existed: true }),
        of("ListRequest", &v1::ListRequest {}),
        of("ListReply", &v1::ListReply { experiments: vec![status.clone()] }),
        of("StatusRequest", &v1::StatusRequest { id: "e".into() }),
        of("ControlRequest", &v1::ControlRequest { id: "e".into(), action: 3 }),
        of("WorkersRequest", &v1::WorkersRequest {}),
        of("WorkersReply", &v1::WorkersReply { workers: vec![worker.clone()] }),
        of("WorkerStatus", &worker),
        of("ExperimentStatus", &status),
        of("SweepStatus", &sweep),
        of(
            "QuarantinedChunk",
            &v1::QuarantinedChunk { error: "why".into(), ..v1::QuarantinedChunk::default() },
        ),
        of("LiveRequest", &v1::LiveRequest { id: "e".into(), seen: 2 }),
        of("LiveReply", &v1::LiveReply { revision: 3, groups: vec![group.clone()] }),
        of("LiveGroup", &group),
        of("LiveUnit", &unit),
        of("LiveCurve", &curve),
        of("LivePoint", &point),
        of("LivePairs", &pairs),
        of("LivePair", &pairs.below[0]),
        of("ExportRequest", &v1::ExportRequest { id: "e".into(), format: "csv".into() }),
        of("FilePart", &v1::FilePart { name: "heads.csv".into(), data: vec![7; 9].into() }),
        of("BlobRequest", &v1::BlobRequest { hash: "ab".repeat(32) }),
        of("BlobPart", &v1::BlobPart { data: vec![7; 9].into() }),
    ]
}

/// Details of refused calls.
fn refusals() -> Vec<Vec<u8>> {
    let roles = vec!["read".into()];
    let over = v1::OverLimit { what: "calls".into(), limit: 5, retry_after_ms: 100 };
    vec![
        of("Unidentified", &v1::Unidentified { reason: 2 }),
        of("NotPermitted", &v1::NotPermitted { roles: roles.clone(), needed: roles }),
        of("OverLimit", &over),
        of("details of a status", &over),
    ]
}

/// Each kind that stands in another by itself.
fn parts() -> Vec<Vec<u8>> {
    let mut all = Vec::new();
    for body in said() {
        use worker_message::Body;
        all.push(match &body {
            Body::Hello(m) => of("Hello", m),
            Body::Credit(m) => of("Credit", m),
            Body::Result(m) => of("ChunkResult", m),
            Body::Failed(m) => of("ChunkFailed", m),
            Body::Renew(m) => of("Renew", m),
            Body::Goodbye(m) => of("Goodbye", m),
        });
        all.push(of("WorkerMessage", &v1::WorkerMessage { body: Some(body) }));
    }
    for body in told() {
        use coordinator_message::Body;
        all.push(match &body {
            Body::Welcome(m) => of("Welcome", m),
            Body::Reject(m) => of("Reject", m),
            Body::Open(m) => of("Open", m),
            Body::Shard(m) => of("Shard", m),
            Body::Ack(m) => of("Ack", m),
            Body::Revoke(m) => of("Revoke", m),
            Body::Renewed(m) => of("Renewed", m),
            Body::Close(m) => of("Close", m),
            Body::Drain(m) => of("Drain", m),
        });
        all.push(of("CoordinatorMessage", &v1::CoordinatorMessage { body: Some(body) }));
    }
    for kind in failures() {
        use failure::Kind;
        all.push(match &kind {
            Kind::ModelMissing(m) => of("ModelMissing", m),
            Kind::ModelDiffers(m) => of("ModelDiffers", m),
            Kind::OutOfMemory(m) => of("OutOfMemory", m),
            Kind::Execution(m) => of("Execution", m),
            Kind::DataMissing(m) => of("DataMissing", m),
            Kind::DoesNotFit(m) => of("DoesNotFit", m),
        });
        all.push(of("Failure", &v1::Failure { detail: "why".into(), kind: Some(kind) }));
    }
    for reject in rejects() {
        use reject::Kind;
        all.extend(reject.kind.iter().map(|kind| match kind {
            Kind::VersionDiffers(m) => of("VersionDiffers", m),
            Kind::NotLeader(m) => of("NotLeader", m),
            Kind::LimitReached(m) => of("LimitReached", m),
        }));
    }
    all.extend([of("Lane", &lane()), of("ChunkId", &chunk()), of("Held", &held())]);
    all
}

/// One of each kind at least.
#[must_use]
pub fn seeds() -> Vec<Vec<u8>> {
    [parts(), clients(), refusals()].concat()
}

//! Messages of the wire format. The first byte says which message the others are.

use ablate_proto::v1::{self, coordinator_message, worker_message};
use prost::Message;
use tonic::{Code, Status};

fn taken<M: Message + Default + PartialEq>(bytes: &[u8]) -> bool {
    let Ok(message) = M::decode(bytes) else { return false };
    let again = M::decode(message.encode_to_vec().as_slice());
    assert!(
        again.is_ok_and(|a| a.encode_to_vec() == message.encode_to_vec()),
        "a message changes when it is sent on"
    );
    true
}

/// Decodes a message, and what a status's details are made into.
#[must_use]
pub fn proto(bytes: &[u8]) -> bool {
    let Some((kind, rest)) = bytes.split_first() else { return false };
    match kind % 9 {
        0 => taken::<v1::WorkerMessage>(rest),
        1 => taken::<v1::CoordinatorMessage>(rest),
        2 => taken::<v1::SubmitRequest>(rest),
        3 => taken::<v1::ExperimentStatus>(rest),
        4 => taken::<v1::WorkersReply>(rest),
        5 => taken::<v1::ControlRequest>(rest),
        6 => taken::<v1::FilePart>(rest),
        7 => taken::<v1::LiveReply>(rest),
        _ => {
            let status = Status::with_details(Code::ResourceExhausted, "", rest.to_vec().into());
            let wait = ablate_proto::retry_after(&status);
            assert!(wait.is_none_or(|w| w.as_secs() <= 60), "a caller sleeps for {wait:?}");
            wait.is_some()
        }
    }
}

/// One of each kind.
#[must_use]
pub fn seeds() -> Vec<Vec<u8>> {
    let chunk = v1::ChunkId { experiment: "ab".repeat(32), sweep: 1, round: 2, chunk: 3 };
    let lane = v1::Lane { device: "cpu".into(), device_class: "class".into() };
    let failure = v1::Failure {
        detail: "why".into(),
        kind: Some(v1::failure::Kind::ModelDiffers(v1::ModelDiffers {
            expected: "a".into(),
            found: "b".into(),
        })),
    };
    let from_worker = [
        worker_message::Body::Hello(v1::Hello {
            protocol: 2,
            engine: 3,
            version: "1".into(),
            name: "n".into(),
            lanes: vec![lane.clone(); 2],
            session: "s".into(),
        }),
        worker_message::Body::Credit(v1::Credit { shards: 2 }),
        worker_message::Body::Result(v1::ChunkResult {
            id: Some(chunk.clone()),
            lease: 9,
            lane: 1,
            busy_us: 5,
            idle_us: 0,
            scores: vec![1, 2, 3].into(),
            device_class: "class".into(),
        }),
        worker_message::Body::Failed(v1::ChunkFailed {
            id: Some(chunk.clone()),
            lease: 9,
            failure: Some(failure),
        }),
        worker_message::Body::Renew(v1::Renew {
            leases: vec![1, 2, u64::MAX],
            held: vec![v1::Held {
                lease: 1,
                experiment: "e".into(),
                sweep: 0,
                round: 0,
                chunks: vec![0, 1, 2],
            }],
        }),
    ];
    let from_coordinator = [
        coordinator_message::Body::Shard(v1::Shard {
            lease: 1,
            experiment: "e".into(),
            sweep: 1,
            round: 1,
            list: vec![4, 5],
            first_chunk: 2,
            chunks: 3,
        }),
        coordinator_message::Body::Ack(v1::Ack { id: Some(chunk), duplicate: true }),
    ];
    let with = |kind: u8, bytes: Vec<u8>| [vec![kind], bytes].concat();
    let mut all: Vec<Vec<u8>> = from_worker
        .into_iter()
        .map(|body| with(0, v1::WorkerMessage { body: Some(body) }.encode_to_vec()))
        .collect();
    all.extend(
        from_coordinator
            .into_iter()
            .map(|body| with(1, v1::CoordinatorMessage { body: Some(body) }.encode_to_vec())),
    );
    let submit =
        v1::SubmitRequest { spec_toml: "name = \"a\"".into(), base_dir: "/d".into(), origin: "o".into() };
    all.push(with(2, submit.encode_to_vec()));
    let sweep = v1::SweepStatus { name: "single".into(), subsets_total: 5, ..v1::SweepStatus::default() };
    let status =
        v1::ExperimentStatus { id: "e".into(), sweeps: vec![sweep], ..v1::ExperimentStatus::default() };
    all.push(with(3, status.encode_to_vec()));
    let worker = v1::WorkerStatus { id: 1, lanes: vec![lane], ..v1::WorkerStatus::default() };
    all.push(with(4, v1::WorkersReply { workers: vec![worker] }.encode_to_vec()));
    all.push(with(5, v1::ControlRequest { id: "e".into(), action: 3 }.encode_to_vec()));
    all.push(with(6, v1::FilePart { name: "heads.csv".into(), data: vec![7; 9].into() }.encode_to_vec()));
    let over = v1::OverLimit { what: "calls".into(), limit: 5, retry_after_ms: 100 };
    let unit =
        v1::LiveUnit { name: "L0.H1".into(), layer: Some(0), delta: Some(0.5), ..v1::LiveUnit::default() };
    let point = v1::LivePoint { removed: 1, value: 2.0, retained: Some(0.9), unit: "L0.H1".into() };
    let curve = v1::LiveCurve { order: "greedy".into(), points: vec![point], ..v1::LiveCurve::default() };
    let group = v1::LiveGroup { units: vec![unit], curves: vec![curve], ..v1::LiveGroup::default() };
    all.push(with(7, v1::LiveReply { revision: 3, groups: vec![group] }.encode_to_vec()));
    all.push(with(8, over.encode_to_vec()));
    all
}

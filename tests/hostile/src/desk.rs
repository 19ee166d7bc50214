//! What a coordinator's stream brings a worker: messages, each with its length before it, taken by the real desk. Plans that an Open
//! carries are read and checked as in the worker; jobs that come of it must be the plan's.

use crate::experiment;
use ablate_proto::v1::{self, coordinator_message::Body};
use ablate_worker_client::desk::Desk;
use ablate_worker_client::fetch;
use ablate_worker_client::lane::{Done, Experiment, Job};
use ablate_worker_client::spool::Unacked;
use bytes::Buf;
use prost::Message;
use std::path::PathBuf;
use std::sync::Arc;
use std::time::{Duration, Instant};

/// Lanes of the worker.
const LANES: usize = 2;
/// Messages that wait to be sent, at most (`worker/client/src/desk.rs`), and what one step adds.
const OUTBOX: usize = (1 << 16) + 4096;

/// Takes a stream; whether any message of it was taken.
///
/// # Panics
/// Where a job isn't the plan's.
#[must_use]
pub fn run(bytes: &[u8]) -> bool {
    let mut now = Instant::now();
    let mut desk = Desk::new(vec!["class".to_owned(); LANES], Unacked::new(1 << 20, 1 << 20), now);
    let (mut rest, mut taken) = (bytes, false);
    while rest.has_remaining() {
        let Ok(message) = v1::CoordinatorMessage::decode_length_delimited(&mut rest) else { break };
        let Some(body) = message.body else { continue };
        taken = true;
        now += Duration::from_millis(500);
        take(&mut desk, body, now);
        desk.tick(now);
        for (lane, job) in desk.dispatch(now) {
            check(&job);
            let result = Ok(vec![7; 8]);
            let busy = Duration::from_millis(1);
            desk.done(Done { lane: lane as u32, result, busy, waited: busy }, now);
        }
        let said = desk.take_outbox();
        assert!(said.len() <= OUTBOX, "{} messages at once", said.len());
        while desk.unacked.next_to_send().is_some() {}
    }
    // Leases end by themselves.
    now += Duration::from_secs(1 << 20);
    desk.tick(now);
    assert!(desk.dispatch(now).is_empty(), "work without a lease");
    taken
}

fn take(desk: &mut Desk, body: Body, now: Instant) {
    match body {
        Body::Welcome(w) => desk.connected(Duration::from_millis(w.lease_ms.min(1 << 20)), now),
        Body::Open(open) => {
            if desk.open(&open) {
                desk.opened(&open.experiment, opened(&open));
            }
        }
        Body::Shard(shard) => desk.shard(shard, now),
        Body::Ack(v1::Ack { id: Some(id), .. }) => desk.ack(&id),
        Body::Revoke(r) => desk.revoke(r.lease),
        Body::Renewed(r) => desk.renewed(&r.leases),
        Body::Close(c) => desk.close(&c.experiment),
        Body::Drain(_) => desk.drain(),
        Body::Reject(_) => desk.disconnected(),
        Body::Ack(_) => {}
    }
}

fn opened(open: &v1::Open) -> Result<Experiment, v1::Failure> {
    let kind = Some(v1::failure::Kind::Execution(v1::Execution {}));
    let plan = fetch::plan_from(&open.plan).map_err(|detail| v1::Failure { detail, kind })?;
    Ok(Experiment {
        id: open.experiment.clone(),
        plan: Arc::new(plan),
        prepared: Arc::default(),
        constants: Arc::default(),
        model: PathBuf::from(&open.model_source),
    })
}

/// What a lane does first with a job.
fn check(job: &Job) {
    let plan = &job.experiment.plan;
    let ranks = plan.chunk_ranks(job.sweep, job.round, job.chunk);
    assert!(ranks.start < ranks.end, "a job of no subset");
    let space = plan.space(job.sweep, &job.list);
    for rank in ranks.take(4) {
        let removed = plan.removed(job.sweep, &space, rank).expect("the rank is in the space");
        assert!(removed.iter().all(|h| (h.0 as usize) < plan.heads().len()), "a head that isn't there");
    }
}

fn framed(all: impl IntoIterator<Item = Body>) -> Vec<u8> {
    let one = |body| v1::CoordinatorMessage { body: Some(body) }.encode_length_delimited_to_vec();
    all.into_iter().flat_map(one).collect()
}

/// Streams of each kind of message.
#[must_use]
pub fn seeds() -> Vec<Vec<u8>> {
    let welcome = || Body::Welcome(v1::Welcome { worker: 1, epoch: 1, lease_ms: 30_000, protocol: 3 });
    let plan = serde_json::to_vec(&experiment::plan()).expect("JSON");
    let open = || {
        Body::Open(v1::Open {
            experiment: experiment::ID.into(),
            plan: plan.clone().into(),
            model_source: "m".into(),
            constants: vec![String::new()],
        })
    };
    let shard = |lease, sweep, list: &[u32], first_chunk, chunks| {
        Body::Shard(v1::Shard {
            lease,
            experiment: experiment::ID.into(),
            sweep,
            round: list.len() as u32,
            list: list.to_vec(),
            first_chunk,
            chunks,
        })
    };
    let id = v1::ChunkId { experiment: experiment::ID.into(), sweep: 1, round: 0, chunk: 0 };
    let ack = Body::Ack(v1::Ack { id: Some(id), duplicate: false });
    let close = Body::Close(v1::Close { experiment: experiment::ID.into() });
    let not_leader = v1::reject::Kind::NotLeader(v1::NotLeader { url: "http://a".into() });
    let reject = Body::Reject(v1::Reject { detail: "d".into(), kind: Some(not_leader) });
    vec![
        framed([welcome(), open(), shard(1, 1, &[], 0, 2), shard(2, 2, &[], 1, 3), ack]),
        framed([welcome(), open(), shard(1, 3, &[4], 0, 1), Body::Revoke(v1::Revoke { lease: 1 })]),
        framed([
            welcome(),
            shard(3, 2, &[], 0, 4),
            Body::Renewed(v1::Renewed { leases: vec![3] }),
            open(),
            close,
        ]),
        framed([welcome(), reject, welcome(), Body::Drain(v1::Drain {})]),
    ]
}

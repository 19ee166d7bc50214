//! What a worker's stream brings a coordinator: a Hello and messages after it, each with its length before it. They go the way they go in
//! the service: hello, results checked against the plan, and everything else as events of the real scheduler.

use crate::experiment;
use ablate_common::plan::Plan;
use ablate_coordinator::scheduler::{Action, Config, Event, Scheduler, Summary, SweepShape};
use ablate_coordinator::server::heard;
use ablate_proto::v1::{self, worker_message::Body};
use bytes::Buf;
use prost::Message;
use std::collections::BTreeMap;

/// The worker's connection, and another's that is honest.
const WORKER: u64 = 1;
const OTHER: u64 = 2;
/// The other's lanes.
const LANES: u32 = 2;

fn shape(plan: &Plan) -> Vec<SweepShape> {
    (0u32..)
        .zip(&plan.sweeps)
        .map(|(i, s)| SweepShape {
            rounds: (0..s.rounds()).map(|r| plan.round_chunks(i, r)).collect(),
            decides: s.kind.decides(),
            reference: 0,
        })
        .collect()
}

/// A scheduler with an experiment and an honest worker that has no credit left.
fn scheduler(plan: &Plan) -> Scheduler {
    let mut scheduler = Scheduler::new(Config::default(), 1 << 32);
    let summary = Summary {
        id: experiment::ID.to_owned(),
        sweeps: shape(plan),
        rounds: (0..plan.sweeps.len() as u32).map(|s| (s, 0, Vec::new(), false)).collect(),
        accepted: Vec::new(),
        quarantined: Vec::new(),
        computed: (0, 0),
        busy_us: BTreeMap::new(),
        running: true,
        protocol: plan.protocol(),
    };
    scheduler.on(Event::Added(Box::new(summary)), 0);
    let class = "class".to_owned();
    let protocol = ablate_common::PROTOCOL_VERSION;
    scheduler.on(Event::Joined { worker: OTHER, lanes: LANES, protocol, class }, 0);
    scheduler.on(Event::Credit { worker: OTHER, shards: 1 }, 0);
    scheduler
}

/// Runs a stream; whether its Hello and a message after it were taken.
///
/// # Panics
/// Where the scheduler does what no worker may bring it to.
#[must_use]
pub fn run(bytes: &[u8]) -> bool {
    let plan = experiment::plan();
    let all = plan.total_chunks();
    let mut rest = bytes;
    let mut next = || {
        let m = rest.has_remaining().then(|| v1::WorkerMessage::decode_length_delimited(&mut rest).ok());
        m.flatten()
    };
    let Some(Body::Hello(hello)) = next().and_then(|m| m.body) else { return false };
    let Ok(heard::Joining { lanes, protocol, class }) = heard::hello(&hello) else { return false };
    let mut scheduler = scheduler(&plan);
    let mut now = 1;
    scheduler.on(Event::Joined { worker: WORKER, lanes, protocol, class }, now);
    let mut taken = false;
    while let Some(message) = next() {
        let Some(body) = message.body else { continue };
        taken = true;
        now += 10;
        let events = match body {
            Body::Result(r) => result(&plan, r, &hello).into_iter().collect(),
            body => heard::events(WORKER, body),
        };
        for event in events {
            let said = scheduler.on(event, now);
            watch(&scheduler, &plan, lanes, all, &said);
        }
    }
    // What it had goes back, and time passes.
    for event in [Event::Gone { worker: WORKER, said: false }, Event::Tick] {
        now += 60_000;
        let said = scheduler.on(event, now);
        watch(&scheduler, &plan, lanes, all, &said);
    }
    assert_eq!(scheduler.leased_to(WORKER), 0, "a worker that is gone holds chunks");
    taken
}

/// A result as the committer sees it: an event, if its chunk is the plan's.
fn result(plan: &Plan, r: v1::ChunkResult, hello: &v1::Hello) -> Option<Event> {
    let arrived = heard::arrived(r, WORKER, &hello.name, &hello.version)?;
    let one = arrived.incoming;
    assert!(
        i64::try_from(one.busy_us).is_ok() && i64::try_from(arrived.idle_us).is_ok(),
        "SQL has no such number"
    );
    if one.key.experiment != experiment::ID || heard::check(plan, &one.key, &one.scores).is_err() {
        return None;
    }
    let at = (one.key.sweep, one.key.round, one.key.chunk);
    let (experiment, lease, busy_us) = (one.key.experiment, arrived.lease, one.busy_us);
    Some(Event::Committed { experiment, at, worker: WORKER, lease, duplicate: false, busy_us })
}

/// Whatever a worker says, the coordinator's word stays the plan's.
fn watch(scheduler: &Scheduler, plan: &Plan, lanes: u32, all: u64, said: &[Action]) {
    for action in said {
        if let Action::Shard { sweep, round, first, count, .. } = action {
            let chunks = plan.round_chunks(*sweep, *round);
            assert!(first + count <= chunks, "a shard of {count} chunks from {first}, of {chunks}");
        }
    }
    let shards = u64::from(4 * lanes.max(1));
    assert!(u64::from(scheduler.leased_to(WORKER)) <= (2 * shards + 1) * all, "more leases than credit");
    let p = scheduler.progress(experiment::ID).expect("it was added");
    assert!(p.accepted + p.quarantined <= all, "{p:?}");
}

fn framed(all: impl IntoIterator<Item = Body>) -> Vec<u8> {
    let one = |body| v1::WorkerMessage { body: Some(body) }.encode_length_delimited_to_vec();
    all.into_iter().flat_map(one).collect()
}

/// A stream of each kind of message.
#[must_use]
pub fn seeds() -> Vec<Vec<u8>> {
    let plan = experiment::plan();
    let lane = v1::Lane { device: "cpu".into(), device_class: "class".into() };
    let hello = |protocol| {
        Body::Hello(v1::Hello {
            protocol,
            engine: ablate_common::ENGINE_VERSION,
            version: "1".into(),
            name: "n".into(),
            lanes: vec![lane.clone(); 2],
            session: "s".into(),
        })
    };
    let id = |sweep, chunk| v1::ChunkId { experiment: experiment::ID.into(), sweep, round: 0, chunk };
    let result = |sweep, chunk| {
        Body::Result(v1::ChunkResult {
            id: Some(id(sweep, chunk)),
            lease: 1 << 32,
            lane: 1,
            busy_us: 5,
            idle_us: 1,
            scores: experiment::scores(&plan, sweep, chunk).into(),
            device_class: "class".into(),
        })
    };
    let failed = |kind| {
        let failure = v1::Failure { detail: "why".into(), kind: Some(kind) };
        Body::Failed(v1::ChunkFailed { id: Some(id(2, 1)), lease: 1 << 32, failure: Some(failure) })
    };
    let held =
        v1::Held { lease: 7, experiment: experiment::ID.into(), sweep: 2, round: 0, chunks: vec![0, 1, 2] };
    let renew = Body::Renew(v1::Renew { leases: vec![7, 1 << 32, u64::MAX], held: vec![held] });
    let credit = || Body::Credit(v1::Credit { shards: 2 });
    let mut all = vec![
        framed([hello(3), credit(), result(1, 0), result(1, 1), result(2, 0), credit()]),
        framed([hello(2), renew, credit(), Body::Goodbye(v1::Goodbye {})]),
    ];
    all.extend(crate::wire::failures().map(|kind| framed([hello(3), credit(), failed(kind)])));
    all
}

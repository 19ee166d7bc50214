//! What workers say, as the service takes it: pure functions of messages, so that whatever reaches the scheduler or the store
//! from a stream can be tried with bytes of any kind (`tests/hostile`).

pub use super::commit::{Arrived, check};

#[cfg(feature = "mutations")]
use crate::mutation;
use crate::scheduler::{ChunkAt, Event, Fault, Held, WorkerId};
use crate::store::{ChunkKey, Incoming};
use ablate_common::{ENGINE_VERSION, OLDEST_PROTOCOL, PROTOCOL_VERSION};
use ablate_proto::v1::{self, worker_message::Body};

/// Lanes of one worker that count.
const MAX_LANES: usize = 256;

/// What counts of a worker that says hello.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Joining {
    /// Its lanes.
    pub lanes: u32,
    /// The newest protocol that both speak.
    pub protocol: u32,
    /// Device classes of its lanes.
    pub class: String,
}

/// Takes a Hello.
///
/// # Errors
/// The answer to one whose numbers would differ, or who would be misread.
pub fn hello(hello: &v1::Hello) -> Result<Joining, v1::Reject> {
    // One that is newer offers what it has; it hears what is spoken here.
    let spoken = (OLDEST_PROTOCOL..=PROTOCOL_VERSION).contains(&hello.protocol);
    let equal = hello.engine == ENGINE_VERSION;
    #[cfg(feature = "mutations")]
    let equal = equal || mutation::is(mutation::Mutation::AnyEngine);
    if !spoken || !equal {
        let detail = format!(
            "the worker speaks protocol {} with engine {}, the coordinator protocols {OLDEST_PROTOCOL} to {PROTOCOL_VERSION} with engine {ENGINE_VERSION}; run the same version of both",
            hello.protocol, hello.engine
        );
        let differs = v1::VersionDiffers { protocol: PROTOCOL_VERSION, engine: ENGINE_VERSION };
        return Err(v1::Reject { detail, kind: Some(v1::reject::Kind::VersionDiffers(differs)) });
    }
    let class: Vec<&str> = hello.lanes.iter().map(|l| l.device_class.as_str()).collect();
    Ok(Joining {
        lanes: hello.lanes.len().min(MAX_LANES) as u32,
        protocol: hello.protocol.min(PROTOCOL_VERSION),
        class: class.join(" + "),
    })
}

/// Takes a result; none where it is nobody's.
#[must_use]
pub fn arrived(r: v1::ChunkResult, worker: WorkerId, name: &str, version: &str) -> Option<Arrived> {
    let id = r.id?;
    let incoming = Incoming {
        key: ChunkKey { experiment: id.experiment, sweep: id.sweep, round: id.round, chunk: id.chunk },
        scores: r.scores.into(),
        device_class: r.device_class,
        worker: name.to_owned(),
        version: version.to_owned(),
        // SQL's integers are signed.
        busy_us: r.busy_us.min(i64::MAX as u64),
    };
    Some(Arrived { incoming, worker, lease: r.lease, idle_us: r.idle_us.min(i64::MAX as u64) })
}

/// The scheduler's events that a message is. Results aren't any: they go to the committer.
#[must_use]
pub fn events(worker: WorkerId, body: Body) -> Vec<Event> {
    match body {
        Body::Credit(c) => vec![Event::Credit { worker, shards: c.shards }],
        Body::Renew(r) => {
            let bring = (!r.held.is_empty())
                .then(|| Event::Bring { worker, held: r.held.into_iter().map(held).collect() });
            bring.into_iter().chain([Event::Renew { worker, leases: r.leases }]).collect()
        }
        Body::Goodbye(_) => vec![Event::Gone { worker, said: true }],
        Body::Failed(f) => failed(worker, f).into_iter().collect(),
        Body::Hello(_) | Body::Result(_) => Vec::new(),
    }
}

fn failed(worker: WorkerId, f: v1::ChunkFailed) -> Option<Event> {
    use v1::failure::Kind;
    let id = f.id?;
    let failure = f.failure.unwrap_or_default();
    let fault = match failure.kind {
        Some(Kind::ModelMissing(_) | Kind::ModelDiffers(_) | Kind::DoesNotFit(_)) => {
            Fault::Model(failure.detail)
        }
        _ => Fault::Chunk(failure.detail),
    };
    let at: ChunkAt = (id.sweep, id.round, id.chunk);
    Some(Event::Failed { experiment: id.experiment, at, worker, lease: f.lease, fault })
}

fn held(h: v1::Held) -> Held {
    Held { lease: h.lease, experiment: h.experiment, round: (h.sweep, h.round), chunks: h.chunks }
}

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
pub const MAX_LANES: usize = 256;
/// Bytes of a worker's name, version or device class, at most: they are kept with every worker and every chunk.
pub const MAX_TEXT: usize = 1 << 10;

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

/// Whether what a worker says of itself is as short as that should be.
///
/// # Errors
/// Names what is too long.
pub fn fits(hello: &v1::Hello) -> Result<(), String> {
    let own = [("version", &hello.version), ("name", &hello.name), ("session", &hello.session)];
    let lanes = hello.lanes.iter().flat_map(|l| [("device", &l.device), ("device class", &l.device_class)]);
    match own.into_iter().chain(lanes).find(|(_, text)| text.len() > MAX_TEXT) {
        Some((what, text)) => {
            Err(format!("the worker's {what} has {} bytes, over the limit of {MAX_TEXT}", text.len()))
        }
        None => Ok(()),
    }
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
    let class: Vec<&str> = hello.lanes.iter().take(MAX_LANES).map(|l| l.device_class.as_str()).collect();
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
        // Whichever chunk it is: the worker can't open the experiment.
        Some(Kind::ModelMissing(_) | Kind::ModelDiffers(_) | Kind::DoesNotFit(_) | Kind::DataMissing(_)) => {
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

#[cfg(test)]
mod tests {
    use super::*;
    use v1::failure::Kind;

    #[test]
    fn what_a_worker_says_of_itself_has_a_limit() {
        let lane = v1::Lane { device: "x".repeat(MAX_TEXT), device_class: "x".repeat(MAX_TEXT) };
        let fine = v1::Hello {
            version: "x".repeat(MAX_TEXT),
            name: "x".repeat(MAX_TEXT),
            lanes: vec![lane; 2],
            session: "x".repeat(MAX_TEXT),
            ..v1::Hello::default()
        };
        assert_eq!(fits(&fine), Ok(()));
        type Text = fn(&mut v1::Hello) -> &mut String;
        let longer: [(&str, Text); 5] = [
            ("version", |h| &mut h.version),
            ("name", |h| &mut h.name),
            ("session", |h| &mut h.session),
            ("device", |h| &mut h.lanes[1].device),
            ("device class", |h| &mut h.lanes[1].device_class),
        ];
        for (what, text) in longer {
            let mut hello = fine.clone();
            text(&mut hello).push('x');
            let why = fits(&hello).unwrap_err();
            assert!(why.contains(&format!("{what} has 1025 bytes")), "{why}");
        }
    }

    #[test]
    fn a_worker_that_cannot_open_an_experiment_is_kept_from_it_and_no_chunk_is_to_blame() {
        let fault = |kind| {
            let failure = v1::Failure { detail: "why".into(), kind: Some(kind) };
            let id = Some(v1::ChunkId { experiment: "e".into(), ..v1::ChunkId::default() });
            let body = Body::Failed(v1::ChunkFailed { id, lease: 1, failure: Some(failure) });
            match events(1, body).remove(0) {
                Event::Failed { fault, .. } => fault,
                other => panic!("{other:?}"),
            }
        };
        let (model, chunk) = (Fault::Model("why".into()), Fault::Chunk("why".into()));
        assert_eq!(fault(Kind::DataMissing(v1::DataMissing::default())), model);
        assert_eq!(fault(Kind::ModelMissing(v1::ModelMissing::default())), model);
        assert_eq!(fault(Kind::Execution(v1::Execution {})), chunk);
        assert_eq!(fault(Kind::OutOfMemory(v1::OutOfMemory::default())), chunk);
    }
}

//! One imitation worker: its stream, its shards and their chunks.

use crate::Load;
use ablate_common::{ENGINE_VERSION, PROTOCOL_VERSION};
use ablate_proto::MAX_MESSAGE;
use ablate_proto::v1::cluster_client::ClusterClient;
use ablate_proto::v1::coordinator_message::Body;
use ablate_proto::v1::{self as pb, worker_message};
use anyhow::{Context, bail};
use std::collections::{HashMap, VecDeque};
use std::sync::atomic::Ordering;
use std::sync::{Arc, PoisonError};
use std::time::Duration;
use tokio::sync::mpsc::{UnboundedSender, unbounded_channel};
use tokio::time::{Instant, sleep_until};
use tokio_stream::wrappers::UnboundedReceiverStream;
use tonic::transport::Endpoint;

/// Shards that a worker has at once, as a real one of one lane.
const SHARDS: u32 = 2;
/// Between two attempts to connect.
const RETRY: Duration = Duration::from_millis(20);
/// How long a connection may take to be made and welcomed.
const HANDSHAKE: Duration = Duration::from_secs(30);
/// Between two looks at whether to end.
const LOOK: Duration = Duration::from_millis(50);

/// Reads a coordinator's URL.
pub fn endpoint(url: &str) -> anyhow::Result<Endpoint> {
    let endpoint = Endpoint::from_shared(url.to_owned())
        .with_context(|| format!("{url} is no URL of the form http://HOST:PORT"))?;
    Ok(endpoint.connect_timeout(Duration::from_secs(5)).tcp_nodelay(true))
}

/// Works until told to stop, over as many streams as it takes.
pub async fn work(load: Arc<Load>, endpoint: Endpoint, number: u32) {
    let mut before = false;
    while !load.stopped() {
        let mut session = Session::new(&load, number);
        match session.run(&endpoint).await {
            Ok(()) => return,
            Err(refused) if refused.is::<Refused>() => {
                let mut said = load.refused.lock().unwrap_or_else(PoisonError::into_inner);
                *said = Some(refused.to_string());
                load.stop.store(true, Ordering::Relaxed);
                return;
            }
            Err(_) => tokio::time::sleep(RETRY).await,
        }
        if std::mem::replace(&mut before, session.welcomed) && session.welcomed {
            load.reconnects.fetch_add(1, Ordering::Relaxed);
        }
    }
}

#[derive(Debug)]
struct Refused(String);

impl std::fmt::Display for Refused {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.write_str(&self.0)
    }
}

impl std::error::Error for Refused {}

/// A chunk that is to be worked on.
struct Chunk {
    lease: u64,
    id: pb::ChunkId,
    /// The last of its shard.
    last: bool,
}

struct Session<'a> {
    load: &'a Load,
    number: u32,
    welcomed: bool,
    /// When the shards were asked for that haven't come yet.
    asked: VecDeque<Instant>,
    queue: VecDeque<Chunk>,
    /// Leases, with how many of their chunks have no acknowledgement.
    leases: HashMap<u64, u32>,
    /// What was sent and when, in the order of sending: acknowledgements mostly come in the same.
    unacknowledged: VecDeque<(pb::ChunkId, u64, Instant)>,
    /// When the chunk in work is ready.
    ready: Option<Instant>,
}

impl<'a> Session<'a> {
    fn new(load: &'a Load, number: u32) -> Self {
        Self {
            load,
            number,
            welcomed: false,
            asked: VecDeque::new(),
            queue: VecDeque::new(),
            leases: HashMap::new(),
            unacknowledged: VecDeque::new(),
            ready: None,
        }
    }

    async fn run(&mut self, endpoint: &Endpoint) -> anyhow::Result<()> {
        let (to, out) = unbounded_channel();
        send(&to, worker_message::Body::Hello(self.hello()))?;
        let shake = async {
            let channel = endpoint.connect().await?;
            let mut client = ClusterClient::new(channel)
                .max_decoding_message_size(MAX_MESSAGE)
                .max_encoding_message_size(MAX_MESSAGE);
            let mut from = client.work(UnboundedReceiverStream::new(out)).await?.into_inner();
            let first = from.message().await?.and_then(|m| m.body);
            anyhow::Ok((from, first))
        };
        let (mut from, first) = tokio::time::timeout(HANDSHAKE, shake).await??;
        let welcome = match first {
            Some(Body::Welcome(w)) => w,
            Some(Body::Reject(r)) if matches!(r.kind, Some(pb::reject::Kind::NotLeader(_))) => {
                bail!(r.detail)
            }
            Some(Body::Reject(r)) => return Err(Refused(r.detail).into()),
            _ => bail!("no welcome came"),
        };
        self.welcomed = true;
        self.ask(&to, SHARDS)?;
        let mut renew = tokio::time::interval(Duration::from_millis(welcome.lease_ms / 3));
        let mut look = tokio::time::interval(LOOK);
        loop {
            self.begin();
            let ready = self.ready;
            let done = async {
                match ready {
                    // A timer has milliseconds: chunks that take none would take one.
                    Some(at) if at <= Instant::now() => {}
                    Some(at) => sleep_until(at).await,
                    None => std::future::pending().await,
                }
            };
            tokio::select! {
                message = from.message() => match message?.and_then(|m| m.body) {
                    Some(body) => if !self.heard(body)? { return Ok(()) },
                    None => bail!("the stream ended"),
                },
                () = done => self.finish(&to)?,
                _ = renew.tick() => {
                    let leases = self.leases.keys().copied().collect();
                    send(&to, worker_message::Body::Renew(pb::Renew { leases, held: Vec::new() }))?;
                }
                _ = look.tick() => if self.load.stopped() {
                    send(&to, worker_message::Body::Goodbye(pb::Goodbye {}))?;
                    drop(to);
                    let end = async { while let Ok(Some(_)) = from.message().await {} };
                    // A coordinator that doesn't end the stream is left.
                    let _ = tokio::time::timeout(Duration::from_secs(2), end).await;
                    return Ok(());
                },
            }
        }
    }

    fn hello(&self) -> pb::Hello {
        pb::Hello {
            protocol: PROTOCOL_VERSION,
            engine: ENGINE_VERSION,
            version: env!("CARGO_PKG_VERSION").to_owned(),
            name: format!("imitation {}", self.number),
            lanes: vec![pb::Lane { device: "none".to_owned(), device_class: "imitation".to_owned() }],
            session: format!("{:032x}", fastrand::u128(..)),
        }
    }

    fn ask(&mut self, to: &UnboundedSender<pb::WorkerMessage>, shards: u32) -> anyhow::Result<()> {
        self.asked.extend((0..shards).map(|_| Instant::now()));
        send(to, worker_message::Body::Credit(pb::Credit { shards }))
    }

    /// Begins the next chunk where the lane is free.
    fn begin(&mut self) {
        let room = self.unacknowledged.len() < self.load.options.window as usize;
        if self.ready.is_none() && room && !self.queue.is_empty() {
            self.ready = Some(Instant::now() + self.load.options.chunk);
        }
    }

    /// Sends the chunk that was worked on.
    fn finish(&mut self, to: &UnboundedSender<pb::WorkerMessage>) -> anyhow::Result<()> {
        self.ready = None;
        let Some(Chunk { lease, id, last }) = self.queue.pop_front() else { return Ok(()) };
        let experiment =
            self.load.experiment(&id.experiment).context("a shard of an experiment that wasn't opened")?;
        let scores = experiment.scores(id.sweep, id.round, id.chunk);
        self.load.bytes.fetch_add(scores.len() as u64, Ordering::Relaxed);
        self.load.sent.fetch_add(1, Ordering::Relaxed);
        let result = pb::ChunkResult {
            id: Some(id.clone()),
            lease,
            lane: 0,
            idle_us: 0,
            busy_us: self.load.options.chunk.as_micros() as u64,
            scores: scores.into(),
            device_class: "imitation".to_owned(),
        };
        send(to, worker_message::Body::Result(result))?;
        self.unacknowledged.push_back((id, lease, Instant::now()));
        if last { self.ask(to, 1) } else { Ok(()) }
    }

    /// False where the worker is to end.
    fn heard(&mut self, body: Body) -> anyhow::Result<bool> {
        match body {
            Body::Open(open) => self.load.open(&open.experiment, &open.plan)?,
            Body::Shard(shard) => self.shard(&shard),
            Body::Ack(pb::Ack { id: Some(id), duplicate }) => self.acknowledged(&id, duplicate),
            Body::Revoke(r) => {
                self.leases.remove(&r.lease);
                // What is in work, the first, stays: its result is a copy then.
                let working = usize::from(self.ready.is_some());
                let mut at = 0;
                self.queue.retain(|c| {
                    at += 1;
                    at <= working || c.lease != r.lease
                });
                self.asked.push_back(Instant::now());
            }
            Body::Drain(_) => return Ok(false),
            _ => {}
        }
        Ok(true)
    }

    fn shard(&mut self, shard: &pb::Shard) {
        self.load.shards.fetch_add(1, Ordering::Relaxed);
        {
            let mut first = self.load.first_shard.lock().unwrap_or_else(PoisonError::into_inner);
            first.get_or_insert(self.load.began.elapsed());
        }
        if let Some(asked) = self.asked.pop_front()
            && self.load.warm()
        {
            Load::wait(&self.load.lease_waits, asked.elapsed());
        }
        self.leases.insert(shard.lease, shard.chunks);
        for k in 0..shard.chunks {
            let id = pb::ChunkId {
                experiment: shard.experiment.clone(),
                sweep: shard.sweep,
                round: shard.round,
                chunk: shard.first_chunk + k,
            };
            self.queue.push_back(Chunk { lease: shard.lease, id, last: k + 1 == shard.chunks });
        }
    }

    fn acknowledged(&mut self, id: &pb::ChunkId, duplicate: bool) {
        let Some(at) = self.unacknowledged.iter().position(|u| u.0 == *id) else { return };
        let Some((_, lease, sent)) = self.unacknowledged.remove(at) else { return };
        if let Some(open) = self.leases.get_mut(&lease) {
            *open -= 1;
            if *open == 0 {
                self.leases.remove(&lease);
            }
        }
        self.load.acknowledged.fetch_add(1, Ordering::Relaxed);
        self.load.duplicates.fetch_add(u64::from(duplicate), Ordering::Relaxed);
        if self.load.warm() {
            self.load.counted.fetch_add(1, Ordering::Relaxed);
            Load::wait(&self.load.ack_waits, sent.elapsed());
        }
    }
}

fn send(to: &UnboundedSender<pb::WorkerMessage>, body: worker_message::Body) -> anyhow::Result<()> {
    to.send(pb::WorkerMessage { body: Some(body) }).context("the stream is closed")
}

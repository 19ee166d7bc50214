//! The worker's side of the stream: connects, takes shards, hands chunks to the lanes, and keeps every
//! result until the coordinator has acknowledged it. Reconnects for ever.

pub mod compute;
pub mod desk;
pub mod failure;
pub mod fetch;
pub mod lane;
pub mod link;
#[cfg(feature = "mutations")]
pub mod mutation;
pub mod route;
pub mod spool;
#[cfg(test)]
mod tests;

use crate::compute::Compute;
use crate::lane::{Done, ExecError, Experiment, Jobs, LaneDevice, Starter};
use ablate_proto::older;
use ablate_proto::v1::{self as pb, coordinator_message::Body, worker_message};
use desk::Desk;
use fetch::OpenError;
use link::{Dial, Link, LinkError};
use route::Route;
use spool::Unacked;
use std::collections::BTreeMap;
use std::future::Future;
use std::path::PathBuf;
use std::pin::Pin;
use std::time::{Duration, Instant};
use tokio::sync::{mpsc, watch};

/// How often an experiment's data is asked for again, while the link stands: longer than a store hesitates, or than others take
/// that ask at the same time.
const FETCHES: u32 = 10;
/// How long a drained worker waits for its last acknowledgements.
const LAST_ACKS: Duration = Duration::from_secs(10);

/// What a worker is started with.
pub struct Config {
    /// Where the coordinators are.
    pub route: Route,
    /// Host and process, for people.
    pub name: String,
    /// Lanes.
    pub lanes: Vec<LaneDevice>,
    /// Starts lanes: [`lane::threads`].
    pub start: Starter,
    /// Newest version of the protocol to speak; coordinators that only know an older one are met there.
    pub protocol: u32,
    /// Version of the engine's numbers: [`ablate_common::ENGINE_VERSION`], but in tests.
    pub engine: u32,
    /// Makes connections: [`link::network`].
    pub dial: Dial,
    /// Bytes of results kept in memory, and in files, until they are acknowledged: [`spool::LIMITS`].
    pub limits: (usize, usize),
    /// Where plans and data are read.
    pub compute: Compute,
    /// Where models are looked for by file name when the coordinator's path does not exist here.
    pub model_root: Option<PathBuf>,
    /// How long a worker that can't open an experiment waits for work on another one before it ends with
    /// [`Outcome::ModelDiffers`] or [`Outcome::DoesNotFit`].
    pub other_work_patience: Duration,
}

/// How a worker ended.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Outcome {
    /// Told to drain, and drained. Says how many results were left unacknowledged.
    Drained(usize),
    /// The coordinator refused it for good.
    Refused(String),
    /// The experiment's model has other bytes here, and there is no other work.
    ModelDiffers(String),
    /// The experiment doesn't fit into the memory here, and there is no other work.
    DoesNotFit(String),
}

/// What a fetch brought: its number, experiment, result.
type Fetched = (u64, String, Result<Experiment, OpenError>);

type Connecting = Pin<Box<dyn Future<Output = Result<Link, LinkError>> + Send>>;

struct Client {
    config: Config,
    hello: pb::Hello,
    desk: Desk,
    jobs: Vec<Jobs>,
    link: Option<Link>,
    /// Rounds without a coordinator when that was last said.
    told: Option<u32>,
    opened: mpsc::UnboundedSender<Fetched>,
    /// By experiment the fetch that counts: what one of an earlier link or announcement brings does not.
    fetching: BTreeMap<String, u64>,
    fetches: u64,
    /// Links so far.
    links: u64,
    draining: bool,
    /// Why an experiment can't be opened here, and since when, while there is no other work.
    unable: Option<(Outcome, Instant)>,
}

/// Works until `drain` turns true, the coordinator drains or refuses this worker.
///
/// # Errors
/// Where the system gives no threads.
pub async fn run(config: Config, mut drain: watch::Receiver<bool>) -> std::io::Result<Outcome> {
    let (done_to, mut done) = mpsc::unbounded_channel::<Done>();
    let (opened_to, mut opened) = mpsc::unbounded_channel::<Fetched>();
    let mut jobs = Vec::new();
    for device in &config.lanes {
        let report = done_to.clone();
        jobs.push((config.start)(device, Box::new(move |d| report.send(d).is_ok()))?);
    }
    let lanes = config
        .lanes
        .iter()
        .map(|l| pb::Lane { device: l.name.clone(), device_class: l.class.clone() })
        .collect();
    let hello = pb::Hello {
        protocol: config.protocol,
        engine: config.engine,
        version: env!("CARGO_PKG_VERSION").to_owned(),
        name: config.name.clone(),
        lanes,
        session: format!("{:032x}", fastrand::u128(..)),
    };
    let classes = config.lanes.iter().map(|l| l.class.clone()).collect();
    let desk = Desk::new(classes, Unacked::new(config.limits.0, config.limits.1), now());
    let mut me = Client {
        config,
        hello,
        desk,
        jobs,
        link: None,
        told: None,
        opened: opened_to,
        fetching: BTreeMap::new(),
        fetches: 0,
        links: 0,
        draining: false,
        unable: None,
    };
    let mut connecting = me.connect();
    let mut tick = tokio::time::interval(Duration::from_millis(50));
    tick.set_missed_tick_behavior(tokio::time::MissedTickBehavior::Delay);
    let mut idle_since: Option<Instant> = None;
    loop {
        // In this order, so that neither a simulation nor a flood of messages decides what comes first.
        tokio::select! {
            biased;
            Ok(()) = drain.changed(), if !me.draining => if *drain.borrow() { me.drain("told to") },
            _ = tick.tick() => me.desk.tick(now()),
            Some(d) = done.recv() => me.desk.done(d, now()),
            Some((number, id, result)) = opened.recv() => if me.fetching.get(&id) == Some(&number) {
                me.fetched(&id, result);
            },
            result = &mut connecting, if me.link.is_none() => match result {
                Ok(link) => me.up(link),
                Err(LinkError::Refused(why)) => return Ok(Outcome::Refused(why)),
                // One that was connected before outlives a certificate that is renewed late.
                Err(LinkError::Untrusted(why)) if me.links == 0 => return Ok(Outcome::Refused(why)),
                Err(LinkError::Again(why) | LinkError::Untrusted(why)) => connecting = me.again(&why),
                Err(LinkError::StandsBy(leader)) => connecting = me.stands_by(&leader),
                Err(LinkError::Older(protocol, place)) => connecting = me.older(protocol, *place),
            },
            message = receive(&mut me.link) => match message {
                Ok(Some(pb::CoordinatorMessage { body: Some(body) })) => me.heard(body),
                Ok(Some(_)) => tracing::debug!("a message of an unknown kind"),
                Ok(None) => connecting = me.again("the coordinator ended the stream"),
                Err(status) => connecting = me.again(&format!("stream: {}", causes(&status))),
            },
        }
        me.dispatch();
        if !me.flush() {
            connecting = me.again("the stream is closed");
        }
        if let Some(outcome) = me.unable() {
            me.leave().await;
            return Ok(outcome);
        }
        if me.draining && me.desk.is_idle() {
            let since = *idle_since.get_or_insert_with(now);
            if me.desk.unacked.is_empty() || now().saturating_duration_since(since) > LAST_ACKS {
                me.leave().await;
                return Ok(Outcome::Drained(me.desk.unacked.len()));
            }
        }
    }
}

/// The runtime's clock, which a simulation sets.
fn now() -> Instant {
    tokio::time::Instant::now().into_std()
}

async fn receive(link: &mut Option<Link>) -> Result<Option<pb::CoordinatorMessage>, tonic::Status> {
    match link {
        Some(link) => link.from.message().await,
        None => std::future::pending().await,
    }
}

/// What ended a stream, down to its cause: that pings had no answer, say.
fn causes(status: &tonic::Status) -> String {
    let mut said = status.message().to_owned();
    let mut cause = std::error::Error::source(status);
    while let Some(e) = cause {
        let one = e.to_string();
        if !said.contains(&one) {
            said.push_str(": ");
            said.push_str(&one);
        }
        cause = e.source();
    }
    said
}

impl Client {
    fn up(&mut self, link: Link) {
        let w = &link.welcome;
        tracing::info!(
            worker = w.worker,
            epoch = w.epoch,
            lease_ms = w.lease_ms,
            protocol = w.protocol,
            resent = self.desk.unacked.len(),
            "connected"
        );
        self.config.route.linked();
        self.told = None;
        self.links += 1;
        self.desk.connected(Duration::from_millis(w.lease_ms), now());
        self.link = Some(link);
    }

    /// The connection is gone, or was never there: the next attempt.
    fn again(&mut self, why: &str) -> Connecting {
        if self.link.take().is_some() {
            self.desk.disconnected();
            self.fetching.clear();
        }
        let rounds = self.config.route.rounds();
        if self.told != Some(rounds) && rounds.is_multiple_of(10) {
            self.told = Some(rounds);
            tracing::warn!("no coordinator: {why}; trying again until one answers");
        } else {
            tracing::debug!("no coordinator: {why}");
        }
        self.connect()
    }

    /// One that isn't to be worked for: the next attempt.
    fn stands_by(&mut self, leader: &str) -> Connecting {
        tracing::debug!(leader, "this coordinator stands by");
        self.config.route.stands_by(leader);
        self.connect()
    }

    /// One that isn't upgraded yet: at once again, in its own protocol.
    fn older(&mut self, protocol: u32, place: link::Place) -> Connecting {
        tracing::info!(protocol, "the coordinator is of an earlier release; speaking its protocol");
        let hello = pb::Hello { protocol, ..self.hello.clone() };
        Box::pin(link::connect(self.config.dial.clone(), place, hello, Duration::ZERO))
    }

    fn connect(&mut self) -> Connecting {
        let (place, after) = self.config.route.attempt();
        Box::pin(link::connect(self.config.dial.clone(), place, self.hello.clone(), after))
    }

    fn heard(&mut self, body: Body) {
        let now = now();
        match body {
            Body::Open(open) => {
                if self.desk.open(&open) {
                    self.fetch(open);
                }
            }
            Body::Shard(shard) => self.desk.shard(shard, now),
            Body::Ack(pb::Ack { id: Some(id), .. }) => self.desk.ack(&id),
            Body::Ack(_) => tracing::debug!("an acknowledgement of nothing"),
            Body::Revoke(r) => self.desk.revoke(r.lease),
            Body::Renewed(r) => self.desk.renewed(&r.leases),
            Body::Close(c) => self.desk.close(&c.experiment),
            Body::Drain(_) => self.drain("the coordinator asked"),
            Body::Welcome(_) => tracing::debug!("a second welcome"),
            Body::Reject(r) => tracing::warn!("rejected: {}", r.detail),
        }
    }

    fn fetch(&mut self, open: pb::Open) {
        let Some(link) = &self.link else { return };
        self.fetches += 1;
        self.fetching.insert(open.experiment.clone(), self.fetches);
        let (client, root, to) = (link.client.clone(), self.config.model_root.clone(), self.opened.clone());
        let (number, compute, stream) = (self.fetches, self.config.compute, link.to.downgrade());
        tokio::spawn(async move {
            let id = open.experiment.clone();
            let mut attempt = 0;
            let result = loop {
                let result = fetch::open(client.clone(), open.clone(), root.clone(), compute).await;
                let Err(OpenError::Connection(why)) = &result else { break result };
                if attempt == FETCHES {
                    break result;
                }
                tracing::debug!("fetching {id}: {why}");
                tokio::time::sleep(link::backoff(attempt)).await;
                attempt += 1;
                // The next link announces the experiment anew.
                if stream.upgrade().is_none() {
                    return;
                }
            };
            // Nobody listens only where the worker is ending.
            drop(to.send((number, id, result)));
        });
    }

    fn fetched(&mut self, id: &str, result: Result<Experiment, OpenError>) {
        self.fetching.remove(id);
        let result = result.map_err(|e| match e {
            OpenError::Failure(f) => f,
            OpenError::Connection(why) => {
                let hash = String::new();
                pb::Failure {
                    detail: format!("the experiment's data cannot be fetched: {why}"),
                    kind: Some(pb::failure::Kind::DataMissing(pb::DataMissing { hash })),
                }
            }
        });
        if let Err(f) = &result {
            tracing::error!(experiment = id, "{}", f.detail);
        }
        self.desk.opened(id, result);
    }

    fn drain(&mut self, why: &str) {
        tracing::info!("draining ({why}): the chunks in work are finished and sent, no new ones are begun");
        self.draining = true;
        self.desk.drain();
    }

    fn dispatch(&mut self) {
        let now = now();
        for (lane, job) in self.desk.dispatch(now) {
            if self.jobs.get(lane).is_none_or(|to| !to(job)) {
                let result = Err(ExecError::Failed("the lane's thread is gone".to_owned()));
                self.desk.done(
                    Done { lane: lane as u32, result, busy: Duration::ZERO, waited: Duration::ZERO },
                    now,
                );
            }
        }
    }

    /// Sends what there is to send. False where the stream is closed.
    fn flush(&mut self) -> bool {
        let Some(link) = &self.link else { return true };
        let protocol = link.welcome.protocol;
        let send =
            |body| link.to.send(older::from_worker(pb::WorkerMessage { body: Some(body) }, protocol)).is_ok();
        let mut open = self.desk.take_outbox().into_iter().all(send);
        while open && let Some(result) = self.desk.unacked.next_to_send() {
            open = send(worker_message::Body::Result(result));
        }
        open
    }

    fn unable(&mut self) -> Option<Outcome> {
        if let Some(error) = self.desk.cannot.take() {
            let said = error.to_string();
            let outcome = if matches!(error, ExecError::DoesNotFit { .. }) {
                tracing::error!("{said}");
                Outcome::DoesNotFit(said)
            } else {
                tracing::error!(
                    "{said}; give this worker the experiment's model (--model-root), or start a new experiment with this one"
                );
                Outcome::ModelDiffers(said)
            };
            self.unable = Some((outcome, now()));
        }
        if self.desk.has_other_work() {
            self.unable = None;
        }
        let (outcome, since) = self.unable.as_ref()?;
        (now().saturating_duration_since(*since) >= self.config.other_work_patience).then(|| outcome.clone())
    }

    /// Says goodbye and gives the messages under way a moment to leave.
    async fn leave(&mut self) {
        let Some(Link { to, mut from, .. }) = self.link.take() else { return };
        drop(to.send(pb::WorkerMessage { body: Some(worker_message::Body::Goodbye(pb::Goodbye {})) }));
        drop(to);
        let end = async { while let Ok(Some(_)) = from.message().await {} };
        if tokio::time::timeout(Duration::from_secs(1), end).await.is_err() {
            tracing::debug!("the coordinator did not end the stream");
        }
    }
}

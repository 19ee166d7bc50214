//! The actor that owns the scheduler: commands in, the scheduler's actions out.

mod act;
mod export;
mod load;
#[cfg(test)]
mod tests;

use super::commit::{Plans, Receipt, Verdict};
use super::heard::{self, Joining};
use super::known::{Connected, ToWorker};
use super::lead::{self, Fatal};
use super::patience::TRIES;
use super::stop::Stopped;
use super::{Compute, Control, Error, Exporter, Options, Status, WorkerStatus};
use crate::scheduler::{ChunkAt, Event, Fault, Millis, Scheduler, WorkerId};
use crate::store::{self, Listing, NewExperiment, Outcome, State, Store, Stored};
use ablate_proto::older;
use ablate_proto::v1::{self, coordinator_message::Body};
use act::ack;
use export::Exports;
use load::other_engine;
use std::collections::BTreeMap;
use std::sync::Arc;
use std::time::Duration;
use tokio::sync::{mpsc, oneshot, watch};
use tokio::time::Instant;

/// How often leases are looked at, and the status is worked out.
const TICK: Duration = Duration::from_millis(250);
/// Least time between two statuses that nobody asked for.
const PUBLISH: Duration = Duration::from_millis(50);
/// Commands taken in one go.
const BURST: usize = 1024;
/// Workers that may be connected.
const MAX_WORKERS: usize = 4096;

/// What the actor is told.
pub enum Command {
    /// An experiment from the store.
    Load(Box<Stored>),
    /// All of the store's experiments were sent: answers once their status can be asked for.
    Loaded(oneshot::Sender<()>),
    /// A new experiment.
    Submit(Box<NewExperiment>, oneshot::Sender<Result<(String, bool), Error>>),
    /// A user's wish.
    Control(String, Control, oneshot::Sender<Result<Status, Error>>),
    /// Who is there.
    Workers(oneshot::Sender<Vec<WorkerStatus>>),
    /// A worker connected.
    Join(v1::Hello, Joining, ToWorker, oneshot::Sender<Option<WorkerId>>),
    /// A worker's message.
    Message(WorkerId, v1::worker_message::Body),
    /// A worker's stream ended.
    Gone(WorkerId),
    /// What became of results.
    Committed(Vec<(Receipt, Verdict)>),
    /// The tables of an experiment that is through were written, or could not be: by the export with this number.
    Exported(String, u64, Result<(), String>),
    /// An experiment can't go on.
    Broken(String, String),
    /// The store refused.
    Fatal(store::Error),
    /// The constants of an experiment's ablation have this name.
    Fitted(String, u32, String),
    /// A scheduler's event from a task.
    Event(Event),
}

/// See the module.
pub struct Actor {
    store: Arc<dyn Store>,
    epoch: u64,
    scheduler: Scheduler,
    lease_ms: u64,
    clock: Instant,
    me: mpsc::WeakSender<Command>,
    plans: Plans,
    statuses: watch::Sender<BTreeMap<String, Status>>,
    fatal: watch::Sender<Option<Fatal>>,
    exporter: Option<Exporter>,
    exports: Exports,
    compute: Compute,
    most: usize,
    experiments: BTreeMap<String, Stored>,
    /// (experiment, ablation) → name of its constants in the store.
    constants: BTreeMap<(String, u32), String>,
    workers: BTreeMap<WorkerId, Connected>,
    next_worker: WorkerId,
    published: Instant,
    /// A write failed: nothing more is decided or written in this leadership.
    stopped: bool,
}

impl Actor {
    /// An actor with nothing loaded.
    pub fn new(
        store: Arc<dyn Store>,
        epoch: u64,
        options: &Options,
        me: mpsc::WeakSender<Command>,
        plans: Plans,
        statuses: watch::Sender<BTreeMap<String, Status>>,
        fatal: watch::Sender<Option<Fatal>>,
    ) -> Self {
        Self {
            store,
            epoch,
            // Leases of different leaderships never share an id.
            scheduler: Scheduler::new(options.scheduler, epoch << 32),
            lease_ms: options.scheduler.lease,
            clock: Instant::now(),
            me,
            plans,
            statuses,
            fatal,
            exporter: options.exporter.clone(),
            exports: Exports::default(),
            compute: options.compute,
            most: options.security.limits().experiments,
            experiments: BTreeMap::new(),
            constants: BTreeMap::new(),
            workers: BTreeMap::new(),
            next_worker: 1,
            published: Instant::now(),
            stopped: false,
        }
    }

    fn now(&self) -> Millis {
        self.clock.elapsed().as_millis() as Millis
    }

    /// Runs until it is told to stop or every handle is gone. `_alive` is let go of at the end.
    pub async fn run(
        mut self,
        mut inbox: mpsc::Receiver<Command>,
        stopped: Stopped,
        _alive: watch::Receiver<()>,
    ) {
        let mut tick = tokio::time::interval(TICK);
        tick.set_missed_tick_behavior(tokio::time::MissedTickBehavior::Delay);
        loop {
            let command = tokio::select! {
                biased;
                () = stopped.wait() => return,
                _ = tick.tick() => None,
                command = inbox.recv() => match command { Some(c) => Some(c), None => return },
            };
            let ticked = command.is_none();
            match command {
                Some(command) => self.take(command).await,
                None => self.event(Event::Tick).await,
            }
            // Whatever else has queued up goes before the status is worked out again.
            for _ in 0..BURST {
                let Ok(command) = inbox.try_recv() else { break };
                self.take(command).await;
            }
            if ticked || self.published.elapsed() >= PUBLISH {
                self.publish();
            }
        }
    }

    fn publish(&mut self) {
        self.published = Instant::now();
        let workers = self.workers.len() as u32;
        let all = self
            .experiments
            .iter()
            .map(|(id, s)| (id.clone(), Status::new(s, self.scheduler.progress(id).as_ref(), workers)))
            .collect();
        self.statuses.send_replace(all);
    }

    async fn take(&mut self, command: Command) {
        match command {
            Command::Loaded(reply) => {
                self.publish();
                // A start that was given up has nobody to tell.
                let _ = reply.send(());
            }
            Command::Load(stored) => self.take_up(&stored, TRIES).await,
            Command::Submit(new, reply) => {
                let answer = self.submit(*new).await;
                self.publish();
                // The client may have gone.
                let _ = reply.send(answer);
            }
            Command::Control(id, control, reply) => {
                let answer = self.control(&id, control).await;
                self.publish();
                let _ = reply.send(answer);
            }
            Command::Workers(reply) => {
                let _ = reply.send(self.worker_statuses());
            }
            Command::Join(hello, joining, to, reply) => self.join(hello, joining, to, reply).await,
            Command::Message(worker, body) => self.message(worker, body).await,
            Command::Gone(worker) => {
                if let Some(w) = self.workers.remove(&worker) {
                    tracing::info!(worker = w.hello.name, "worker gone");
                    self.event(Event::Gone { worker, said: false }).await;
                }
            }
            Command::Committed(all) => {
                for (receipt, verdict) in all {
                    self.committed(receipt, verdict).await;
                }
            }
            Command::Exported(id, number, written) => self.exported(id, number, written).await,
            Command::Broken(id, why) => {
                // What its user has ended meanwhile stays so.
                if self.goes_on(&id) {
                    tracing::error!(experiment = id, why, "the experiment can't go on");
                    self.end(&id, State::Failed(why)).await;
                    self.event(Event::Cancel(id)).await;
                }
            }
            Command::Fitted(id, ablation, hash) => {
                self.constants.insert((id.clone(), ablation), hash);
                // Before any shard that needs them: one stream keeps the order.
                if let Some(open) = self.open(&id) {
                    let all: Vec<WorkerId> = self.workers.keys().copied().collect();
                    all.into_iter().for_each(|w| self.tell(w, Body::Open(open.clone())));
                }
            }
            Command::Fatal(e) => self.stop(&e),
            Command::Event(event) => self.event(event).await,
        }
    }

    fn stop(&mut self, e: &store::Error) {
        tracing::error!(error = %e, "the coordinator can't go on");
        self.stopped = true;
        lead::report(&self.fatal, e);
    }

    async fn submit(&mut self, new: NewExperiment) -> Result<(String, bool), Error> {
        let id = new.plan.identity();
        if self.experiments.len() >= self.most && !self.experiments.contains_key(&id) {
            return Err(Error::Full(self.most));
        }
        let (model_path, output) = (new.model_path.clone(), new.output.clone());
        let made = self.store.put_experiment(self.epoch, new).await?;
        if let Some(there) = self.experiments.get_mut(&id) {
            there.model_path = model_path;
            there.output = output;
        } else {
            let Listing { experiments, unreadable } = self.store.listing().await?;
            let Some(stored) = experiments.into_iter().find(|s| s.id == id) else {
                let why = unreadable.into_iter().find(|u| u.0 == id);
                return Err(why.map_or_else(|| Error::NoExperiment(id), |(_, e)| Error::Store(e)));
            };
            self.load(&stored).await?;
        }
        Ok((id, !made))
    }

    async fn control(&mut self, id: &str, control: Control) -> Result<Status, Error> {
        let stored = self.experiments.get(id).ok_or_else(|| Error::NoExperiment(id.to_owned()))?;
        if control == Control::Retry
            && let Some(why) = other_engine(&stored.plan)
        {
            return Err(Error::State(why));
        }
        let (state, event) = match (control, &stored.state) {
            (Control::Pause, State::Running) => (State::Paused, Event::Pause(id.to_owned())),
            (Control::Resume, State::Paused) => (State::Running, Event::Resume(id.to_owned())),
            (Control::Cancel, State::Running | State::Paused) => {
                (State::Cancelled, Event::Cancel(id.to_owned()))
            }
            (Control::Retry, State::Running | State::Done | State::Failed(_) | State::Cancelled) => {
                (State::Running, Event::Retry(id.to_owned()))
            }
            (c, s) => {
                let advice = match s {
                    State::Cancelled | State::Done | State::Failed(_) if c != Control::Cancel => {
                        "; `ablate retry` takes it up again"
                    }
                    _ => "",
                };
                let what = format!("{c:?} doesn't fit an experiment that is {}", s.name()).to_lowercase();
                return Err(Error::State(what + advice));
            }
        };
        if control == Control::Retry {
            self.store.release(self.epoch, id).await?;
            if let Some(s) = self.experiments.get_mut(id) {
                s.state = state;
            }
        } else {
            self.set_state(id, state).await?;
        }
        if matches!(control, Control::Retry | Control::Cancel) {
            self.exports.overtake(id);
        }
        if control == Control::Retry && self.scheduler.progress(id).is_none() {
            // It couldn't be read before, and may have been mended.
            if let Some(stored) = self.experiments.get(id).cloned() {
                self.take_up(&stored, 0).await;
            }
        } else {
            self.event(event).await;
        }
        let stored = self.experiments.get(id).ok_or_else(|| Error::NoExperiment(id.to_owned()))?;
        Ok(Status::new(stored, self.scheduler.progress(id).as_ref(), self.workers.len() as u32))
    }

    /// Whether it hasn't ended.
    fn goes_on(&self, id: &str) -> bool {
        self.experiments.get(id).is_some_and(|s| !super::ended(&s.state))
    }

    async fn set_state(&mut self, id: &str, state: State) -> Result<(), store::Error> {
        self.store.set_state(self.epoch, id, state.clone()).await?;
        if let Some(s) = self.experiments.get_mut(id) {
            s.state = state;
        }
        Ok(())
    }

    fn worker_statuses(&self) -> Vec<WorkerStatus> {
        self.workers.iter().map(|(&id, w)| w.status(id, self.scheduler.leased_to(id))).collect()
    }

    async fn join(
        &mut self,
        hello: v1::Hello,
        Joining { lanes, protocol, class }: Joining,
        to: ToWorker,
        reply: oneshot::Sender<Option<WorkerId>>,
    ) {
        if self.workers.len() >= MAX_WORKERS {
            let detail = format!("{MAX_WORKERS} workers are connected, and no more are taken");
            let limit = v1::reject::Kind::LimitReached(v1::LimitReached { limit: MAX_WORKERS as u64 });
            let body = Some(Body::Reject(v1::Reject { detail, kind: Some(limit) }));
            // Its receiver waits for the reply.
            let _ = to.try_send(Ok(v1::CoordinatorMessage { body }));
            let _ = reply.send(None);
            return;
        }
        let id = self.next_worker;
        self.next_worker += 1;
        tracing::info!(worker = hello.name, lanes = hello.lanes.len(), "worker connected");
        let since = Instant::now();
        let new = Connected { hello, protocol, to, since, accepted: 0, failures: 0, busy_us: 0, idle_us: 0 };
        self.workers.insert(id, new);
        let welcome = v1::Welcome { worker: id, epoch: self.epoch, lease_ms: self.lease_ms, protocol };
        self.tell(id, Body::Welcome(welcome));
        if reply.send(Some(id)).is_ok() {
            self.event(Event::Joined { worker: id, lanes, protocol, class }).await;
        } else {
            self.workers.remove(&id);
        }
    }

    /// Sends to a worker. One that doesn't read is as good as gone.
    fn tell(&mut self, worker: WorkerId, body: Body) {
        if let Some(w) = self.workers.get(&worker)
            && w.to
                .try_send(Ok(older::from_coordinator(
                    v1::CoordinatorMessage { body: Some(body) },
                    w.protocol,
                )))
                .is_err()
        {
            tracing::warn!(worker = w.hello.name, "worker doesn't read its stream");
            if let Some(me) = self.me.upgrade() {
                tokio::spawn(async move { me.send(Command::Gone(worker)).await });
            }
        }
    }

    async fn message(&mut self, worker: WorkerId, body: v1::worker_message::Body) {
        for event in heard::events(worker, body) {
            match event {
                Event::Failed { experiment, at, worker, lease, fault } => {
                    self.failed(worker, lease, experiment, at, fault).await;
                }
                event => self.event(event).await,
            }
        }
    }

    async fn committed(&mut self, receipt: Receipt, verdict: Verdict) {
        let Receipt { key, worker, lease, busy_us, idle_us } = receipt;
        let at: ChunkAt = (key.sweep, key.round, key.chunk);
        let duplicate = match verdict {
            Verdict::Stored(Outcome::Accepted) => false,
            Verdict::Stored(Outcome::Duplicate { .. }) => true,
            other => {
                // Acknowledged, so that the worker lets go of it: nothing wants it.
                self.tell(worker, ack(key.experiment.clone(), at, true));
                if let Verdict::Malformed(e) = other {
                    self.failed(worker, lease, key.experiment, at, Fault::Chunk(e)).await;
                }
                return;
            }
        };
        if let Some(w) = self.workers.get_mut(&worker) {
            w.accepted += u64::from(!duplicate);
            w.busy_us += busy_us;
            w.idle_us += idle_us;
        }
        let experiment = key.experiment;
        if !self.scheduler.holds(lease) {
            tracing::info!(experiment, ?at, worker, lease, duplicate, "a result came after its lease");
        }
        self.event(Event::Committed { experiment, at, worker, lease, duplicate, busy_us }).await;
    }

    async fn failed(&mut self, worker: WorkerId, lease: u64, experiment: String, at: ChunkAt, fault: Fault) {
        if let Some(w) = self.workers.get_mut(&worker) {
            w.failures += 1;
        }
        tracing::warn!(worker, experiment, ?at, ?fault, "chunk failed");
        self.event(Event::Failed { experiment, at, worker, lease, fault }).await;
    }
}

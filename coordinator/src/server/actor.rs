//! The actor that owns the scheduler: commands in, the scheduler's actions out.

use super::commit::Arrived;
use super::{Control, Error, Exporter, Options, Status, WorkerStatus};
use crate::scheduler::{Action, ChunkAt, Event, Fault, Millis, Scheduler, Summary, SweepShape, WorkerId};
use crate::store::{self, ChunkKey, NewExperiment, Outcome, State, Store, Stored};
use ablate_common::decide;
use ablate_common::head::HeadIx;
use ablate_common::plan::{Plan, SweepKind};
use ablate_common::task::Prepared;
use ablate_proto::v1::{self, coordinator_message::Body};
use std::collections::BTreeMap;
use std::sync::Arc;
use std::time::Instant;
use tokio::sync::{mpsc, oneshot, watch};

/// A worker's end of its stream.
pub type ToWorker = mpsc::Sender<Result<v1::CoordinatorMessage, tonic::Status>>;

/// What the actor is told.
pub enum Command {
    /// An experiment from the store.
    Load(Box<Stored>),
    /// A new experiment.
    Submit(Box<NewExperiment>, oneshot::Sender<Result<(String, bool), Error>>),
    /// A user's wish.
    Control(String, Control, oneshot::Sender<Result<Status, Error>>),
    /// Who is there.
    Workers(oneshot::Sender<Vec<WorkerStatus>>),
    /// A worker connected.
    Join(v1::Hello, ToWorker, oneshot::Sender<WorkerId>),
    /// A worker's message.
    Message(WorkerId, v1::worker_message::Body),
    /// A worker's stream ended.
    Gone(WorkerId),
    /// A result is durable.
    Committed(Box<Arrived>, Outcome),
    /// A scheduler's event from a task.
    Event(Event),
}

struct Connected {
    hello: v1::Hello,
    to: ToWorker,
    since: Instant,
    accepted: u64,
    failures: u64,
}

/// See the module.
pub struct Actor {
    store: Arc<dyn Store>,
    epoch: u64,
    scheduler: Scheduler,
    lease_ms: u64,
    clock: Instant,
    me: mpsc::WeakSender<Command>,
    commits: mpsc::Sender<Arrived>,
    statuses: watch::Sender<BTreeMap<String, Status>>,
    fatal: watch::Sender<Option<String>>,
    exporter: Option<Exporter>,
    experiments: BTreeMap<String, Stored>,
    workers: BTreeMap<WorkerId, Connected>,
    next_worker: WorkerId,
}

impl Actor {
    /// An actor with nothing loaded.
    pub fn new(
        store: Arc<dyn Store>,
        epoch: u64,
        options: &Options,
        me: mpsc::WeakSender<Command>,
        commits: mpsc::Sender<Arrived>,
        statuses: watch::Sender<BTreeMap<String, Status>>,
        fatal: watch::Sender<Option<String>>,
    ) -> Self {
        Self {
            store,
            epoch,
            // Leases of different leaderships never share an id.
            scheduler: Scheduler::new(options.scheduler, epoch << 32),
            lease_ms: options.scheduler.lease,
            clock: Instant::now(),
            me,
            commits,
            statuses,
            fatal,
            exporter: options.exporter.clone(),
            experiments: BTreeMap::new(),
            workers: BTreeMap::new(),
            next_worker: 1,
        }
    }

    fn now(&self) -> Millis {
        self.clock.elapsed().as_millis() as Millis
    }

    /// Runs until every handle is gone.
    pub async fn run(mut self, mut inbox: mpsc::Receiver<Command>) {
        let mut tick = tokio::time::interval(std::time::Duration::from_millis(250));
        loop {
            let command = tokio::select! {
                command = inbox.recv() => match command { Some(c) => Some(c), None => return },
                _ = tick.tick() => None,
            };
            match command {
                Some(command) => self.take(command).await,
                None => self.event(Event::Tick).await,
            }
            // Whatever else has queued up goes before the status is worked out again.
            while let Ok(command) = inbox.try_recv() {
                self.take(command).await;
            }
            self.publish();
        }
    }

    fn publish(&self) {
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
            Command::Load(stored) => {
                if let Err(e) = self.load(*stored).await {
                    self.stop(&e);
                }
            }
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
            Command::Join(hello, to, reply) => self.join(hello, to, reply).await,
            Command::Message(worker, body) => self.message(worker, body).await,
            Command::Gone(worker) => {
                if let Some(w) = self.workers.remove(&worker) {
                    tracing::info!(worker = w.hello.name, "worker gone");
                    self.event(Event::Gone(worker)).await;
                }
            }
            Command::Committed(arrived, outcome) => self.committed(*arrived, outcome).await,
            Command::Event(event) => self.event(event).await,
        }
    }

    fn stop(&self, e: &store::Error) {
        tracing::error!(error = %e, "the coordinator can't go on");
        self.fatal.send_replace(Some(e.to_string()));
    }

    async fn load(&mut self, stored: Stored) -> Result<(), store::Error> {
        let id = stored.id.clone();
        let plan = &stored.plan;
        let sweeps = (0u32..)
            .zip(&plan.sweeps)
            .map(|(i, s)| SweepShape {
                rounds: (0..s.rounds()).map(|r| plan.round_chunks(i, r)).collect(),
                decides: matches!(s.kind, SweepKind::Greedy { .. }),
                reference: reference_of(plan, i),
            })
            .collect();
        let rounds = self.store.rounds(&id).await?;
        let summary = Summary {
            id: id.clone(),
            sweeps,
            rounds: rounds
                .into_iter()
                .map(|r| (r.sweep, r.round, r.list.iter().map(|h| h.0).collect(), r.decision.is_some()))
                .collect(),
            accepted: self.store.accepted(&id).await?,
            quarantined: self.store.quarantined(&id).await?.into_iter().map(|q| (q.0, q.1, q.2)).collect(),
            computed: (stored.computed, stored.duplicate),
            running: stored.state == State::Running,
        };
        let over = matches!(stored.state, State::Cancelled | State::Failed(_));
        self.experiments.insert(id, stored);
        if !over {
            self.event(Event::Added(Box::new(summary))).await;
        }
        Ok(())
    }

    async fn submit(&mut self, new: NewExperiment) -> Result<(String, bool), Error> {
        let id = new.plan.identity();
        let made = self.store.put_experiment(self.epoch, new).await?;
        if !self.experiments.contains_key(&id) {
            let all = self.store.experiments().await?;
            let stored =
                all.into_iter().find(|s| s.id == id).ok_or_else(|| Error::NoExperiment(id.clone()))?;
            self.load(stored).await?;
        }
        Ok((id, !made))
    }

    async fn control(&mut self, id: &str, control: Control) -> Result<Status, Error> {
        let stored = self.experiments.get(id).ok_or_else(|| Error::NoExperiment(id.to_owned()))?;
        let (state, event) = match (control, &stored.state) {
            (Control::Pause, State::Running) => (State::Paused, Event::Pause(id.to_owned())),
            (Control::Resume, State::Paused) => (State::Running, Event::Resume(id.to_owned())),
            (Control::Cancel, State::Running | State::Paused) => {
                (State::Cancelled, Event::Cancel(id.to_owned()))
            }
            (Control::Retry, State::Running | State::Done) => (State::Running, Event::Retry(id.to_owned())),
            (c, s) => {
                return Err(Error::State(
                    format!("{c:?} doesn't fit an experiment that is {}", s.name()).to_lowercase(),
                ));
            }
        };
        if control == Control::Retry {
            self.store.release(self.epoch, id).await?;
        }
        self.set_state(id, state).await?;
        self.event(event).await;
        let stored = self.experiments.get(id).ok_or_else(|| Error::NoExperiment(id.to_owned()))?;
        Ok(Status::new(stored, self.scheduler.progress(id).as_ref(), self.workers.len() as u32))
    }

    async fn set_state(&mut self, id: &str, state: State) -> Result<(), store::Error> {
        self.store.set_state(self.epoch, id, state.clone()).await?;
        if let Some(s) = self.experiments.get_mut(id) {
            s.state = state;
        }
        Ok(())
    }

    fn worker_statuses(&self) -> Vec<WorkerStatus> {
        self.workers
            .iter()
            .map(|(&id, w)| WorkerStatus {
                id,
                name: w.hello.name.clone(),
                version: w.hello.version.clone(),
                lanes: w.hello.lanes.iter().map(|l| (l.device.clone(), l.device_class.clone())).collect(),
                leased: self.scheduler.leased_to(id),
                accepted: w.accepted,
                failures: w.failures,
                connected_ms: w.since.elapsed().as_millis() as u64,
            })
            .collect()
    }

    async fn join(&mut self, hello: v1::Hello, to: ToWorker, reply: oneshot::Sender<WorkerId>) {
        let id = self.next_worker;
        self.next_worker += 1;
        tracing::info!(worker = hello.name, lanes = hello.lanes.len(), "worker connected");
        let lanes = hello.lanes.len() as u32;
        self.workers.insert(id, Connected { hello, to, since: Instant::now(), accepted: 0, failures: 0 });
        let welcome = v1::Welcome {
            worker: id,
            epoch: self.epoch,
            lease_ms: self.lease_ms,
            protocol: ablate_common::PROTOCOL_VERSION,
        };
        self.tell(id, Body::Welcome(welcome));
        if reply.send(id).is_ok() {
            self.event(Event::Joined { worker: id, lanes }).await;
        } else {
            self.workers.remove(&id);
        }
    }

    /// Sends to a worker. One that doesn't read is as good as gone.
    fn tell(&mut self, worker: WorkerId, body: Body) {
        if let Some(w) = self.workers.get(&worker)
            && w.to.try_send(Ok(v1::CoordinatorMessage { body: Some(body) })).is_err()
        {
            tracing::warn!(worker = w.hello.name, "worker doesn't read its stream");
            if let Some(me) = self.me.upgrade() {
                tokio::spawn(async move { me.send(Command::Gone(worker)).await });
            }
        }
    }

    async fn message(&mut self, worker: WorkerId, body: v1::worker_message::Body) {
        use v1::worker_message::Body as From;
        match body {
            From::Hello(_) => {}
            From::Credit(c) => self.event(Event::Credit { worker, shards: c.shards }).await,
            From::Renew(r) => self.event(Event::Renew { worker, leases: r.leases }).await,
            From::Goodbye(_) => self.event(Event::Gone(worker)).await,
            From::Result(r) => {
                let (Some(id), Some(w)) = (r.id, self.workers.get(&worker)) else { return };
                let incoming = store::Incoming {
                    key: ChunkKey {
                        experiment: id.experiment,
                        sweep: id.sweep,
                        round: id.round,
                        chunk: id.chunk,
                    },
                    scores: r.scores.to_vec(),
                    device_class: r.device_class,
                    worker: w.hello.name.clone(),
                    busy_us: r.busy_us,
                };
                let commits = self.commits.clone();
                let arrived = Arrived { incoming, worker, lease: r.lease };
                // Never waits here: the committer's answers come through this very actor.
                if let Err(mpsc::error::TrySendError::Full(arrived)) = commits.try_send(arrived) {
                    tokio::spawn(async move { commits.send(arrived).await });
                }
            }
            From::Failed(f) => {
                let Some(id) = f.id else { return };
                if let Some(w) = self.workers.get_mut(&worker) {
                    w.failures += 1;
                }
                let failure = f.failure.unwrap_or_default();
                let fault = match failure.kind {
                    Some(v1::failure::Kind::ModelMissing(_) | v1::failure::Kind::ModelDiffers(_)) => {
                        Fault::Model(failure.detail)
                    }
                    _ => Fault::Chunk(failure.detail),
                };
                tracing::warn!(
                    worker,
                    sweep = id.sweep,
                    round = id.round,
                    chunk = id.chunk,
                    ?fault,
                    "chunk failed"
                );
                let at = (id.sweep, id.round, id.chunk);
                self.event(Event::Failed { experiment: id.experiment, at, worker, lease: f.lease, fault })
                    .await;
            }
        }
    }

    async fn committed(&mut self, arrived: Arrived, outcome: Outcome) {
        let key = arrived.incoming.key;
        let at: ChunkAt = (key.sweep, key.round, key.chunk);
        if outcome == Outcome::Accepted
            && let Some(w) = self.workers.get_mut(&arrived.worker)
        {
            w.accepted += 1;
        }
        if outcome == Outcome::Unknown {
            // Acknowledged, so that the worker lets go of it: no experiment wants it.
            let id = v1::ChunkId { experiment: key.experiment, sweep: at.0, round: at.1, chunk: at.2 };
            return self.tell(arrived.worker, Body::Ack(v1::Ack { id: Some(id), duplicate: true }));
        }
        self.event(Event::Committed {
            experiment: key.experiment,
            at,
            worker: arrived.worker,
            lease: arrived.lease,
            duplicate: outcome != Outcome::Accepted,
            busy_us: arrived.incoming.busy_us,
        })
        .await;
    }

    async fn event(&mut self, event: Event) {
        let now = self.now();
        for action in self.scheduler.on(event, now) {
            self.act(action).await;
        }
    }

    async fn act(&mut self, action: Action) {
        match action {
            Action::Open(worker, id) => {
                let Some(s) = self.experiments.get(&id) else { return };
                let open = v1::Open {
                    plan: serde_json::to_vec(&s.plan).unwrap_or_default().into(),
                    model_source: s.model_path.to_string_lossy().into_owned(),
                    experiment: id,
                };
                self.tell(worker, Body::Open(open));
            }
            Action::Shard { worker, lease, experiment, sweep, round, list, first, count } => self.tell(
                worker,
                Body::Shard(v1::Shard {
                    lease,
                    experiment,
                    sweep,
                    round,
                    list,
                    first_chunk: first,
                    chunks: count,
                }),
            ),
            Action::Ack { worker, experiment, at, duplicate } => {
                let id = v1::ChunkId { experiment, sweep: at.0, round: at.1, chunk: at.2 };
                self.tell(worker, Body::Ack(v1::Ack { id: Some(id), duplicate }));
            }
            Action::Renewed(worker, leases) => self.tell(worker, Body::Renewed(v1::Renewed { leases })),
            Action::Revoke(worker, lease) => self.tell(worker, Body::Revoke(v1::Revoke { lease })),
            Action::Drain(worker) => self.tell(worker, Body::Drain(v1::Drain {})),
            Action::Decide(id, sweep, round) => self.decide(id, sweep, round),
            Action::Quarantine(id, at, error) => {
                tracing::error!(experiment = id, ?at, error, "chunk quarantined");
                if let Err(e) = self.store.quarantine(self.epoch, &id, &(at.0, at.1, at.2, error)).await {
                    self.stop(&e);
                }
            }
            Action::Finished(id) => self.finished(id).await,
        }
    }

    /// Decides a round in a task of its own: reading its scores takes time.
    fn decide(&self, id: String, sweep: u32, round: u32) {
        let (Some(s), Some(me)) = (self.experiments.get(&id), self.me.upgrade()) else { return };
        let (plan, store, epoch, fatal) =
            (s.plan.clone(), Arc::clone(&self.store), self.epoch, self.fatal.clone());
        tokio::spawn(async move {
            match decide_round(store.as_ref(), epoch, &id, plan, sweep, round).await {
                Ok(opens) => {
                    let event = Event::Decided { experiment: id, sweep, round, opens };
                    // At shutdown nobody listens; the stored decision is found again on the next start.
                    let _ = me.send(Command::Event(event)).await;
                }
                Err(e) => {
                    tracing::error!(error = %e, sweep, round, "a round can't be decided");
                    fatal.send_replace(Some(e.to_string()));
                }
            }
        });
    }

    async fn finished(&mut self, id: String) {
        if self.experiments.get(&id).is_none_or(|s| s.state == State::Done) {
            return;
        }
        if let Some(p) = self.scheduler.progress(&id)
            && let Some(s) = self.experiments.get(&id)
        {
            let seconds = s
                .plan
                .sweeps
                .iter()
                .zip(&p.busy_us)
                .map(|(w, &us)| (format!("lanes busy, {}", w.kind.name()), us as f64 / 1e6))
                .collect();
            if let Err(e) = self.store.add_seconds(self.epoch, &id, &seconds).await {
                self.stop(&e);
            }
        }
        if let Err(e) = self.set_state(&id, State::Done).await {
            return self.stop(&e);
        }
        if let (Some(export), Some(s)) = (self.exporter.clone(), self.experiments.get(&id)) {
            let (store, output) = (Arc::clone(&self.store), s.output.clone());
            tokio::spawn(async move {
                match store.results(&id).await {
                    Ok(results) => {
                        let written =
                            tokio::task::spawn_blocking(move || export(&results, "parquet", &output)).await;
                        if let Ok(Err(e)) = written {
                            tracing::error!(error = e, experiment = id, "tables can't be written");
                        }
                    }
                    Err(e) => tracing::error!(error = %e, experiment = id, "results can't be read"),
                }
            });
        }
    }
}

/// Reference sweep with the same ablation as sweep `i`.
fn reference_of(plan: &Plan, i: u32) -> u32 {
    let ablation = plan.sweeps[i as usize].ablation;
    plan.sweeps.iter().position(|s| s.kind == SweepKind::Reference && s.ablation == ablation).unwrap_or(0)
        as u32
}

type Opens = Vec<(u32, u32, Vec<u32>)>;

async fn decide_round(
    store: &dyn Store,
    epoch: u64,
    id: &str,
    plan: Plan,
    sweep: u32,
    round: u32,
) -> Result<Opens, store::Error> {
    let rounds = store.rounds(id).await?;
    let missing = || store::Error::Damaged(format!("round {round} of sweep {sweep} was never opened"));
    let list: Vec<HeadIx> =
        rounds.into_iter().find(|r| (r.sweep, r.round) == (sweep, round)).ok_or_else(missing)?.list;
    let scores = store.round(id, sweep, round).await?;
    let reference = store.round(id, reference_of(&plan, sweep), 0).await?;
    let last = round + 1 == plan.sweeps[sweep as usize].rounds();
    let earlier = if last && round > 0 { Some(store.round(id, sweep, 0).await?) } else { None };
    let SweepKind::Greedy { objective, .. } = plan.sweeps[sweep as usize].kind else { return Ok(Vec::new()) };
    let blob = store.blob(&plan.tasks[objective as usize].prepared).await?;
    let decided = tokio::task::spawn_blocking(move || {
        let prepared: Prepared = serde_json::from_slice(&blob).map_err(|e| e.to_string())?;
        decide::decide(&plan, sweep, round, &list, &scores, &reference, earlier.as_ref(), &prepared)
    })
    .await
    .map_err(|e| store::Error::Other(e.to_string()))?
    .map_err(store::Error::Damaged)?;
    store.decide(epoch, id, sweep, round, &decided).await?;
    Ok(decided.opens.into_iter().map(|(s, r, l)| (s, r, l.into_iter().map(|h| h.0).collect())).collect())
}

//! Following an experiment's chunks: each is read from the store once, in a thread of its own that yields to everything else on the machine,
//! for as long as somebody looks. Names of new chunks come from the committer; who falls behind asks the store which there are.

#[cfg(test)]
mod tests;

use crate::server::{Handle, Status};
use crate::store::{ChunkAt, ChunkKey, Store};
use ablate_common::plan::{Plan, SweepKind};
use ablate_common::scores::ChunkScores;
use ablate_common::task::Prepared;
use ablate_output::live::{self, Live, Ready};
use serde::Serialize;
use std::collections::{BTreeMap, HashSet, VecDeque};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::{Duration, SystemTime, UNIX_EPOCH};
use tokio::sync::broadcast::error::RecvError;
use tokio::sync::{broadcast, mpsc, oneshot};
use tokio::task::AbortHandle;
use tokio::time::Instant;

/// Experiments that are followed at once.
const MOST: usize = 4;
/// How long one is followed that nobody asks for.
const PATIENCE: Duration = Duration::from_secs(120);
/// Chunks that are read at a time.
const BATCH: usize = 8;
/// For each moment of work, so many of rest.
const REST: u32 = 3;
/// Longest rest.
const LONGEST: Duration = Duration::from_secs(2);
/// How often rounds are looked at.
const ROUNDS: Duration = Duration::from_millis(900);
/// How long somebody's question may wait for its answer.
const ANSWER: Duration = Duration::from_secs(10);
/// After which time one that failed is tried anew.
const AGAIN: Duration = Duration::from_secs(5);

type Ask = Box<dyn for<'l, 'a> FnOnce(&'l mut Live<'a>) + Send>;

/// How far an experiment's chunks are read.
#[derive(Clone, Debug, Default, PartialEq, Serialize)]
pub struct Look {
    pub id: String,
    /// Version of what is computed; 0 before anything is.
    pub version: u64,
    /// Chunks that are read, of those that matter and are there.
    pub read: u64,
    pub of: u64,
    /// Why it can't be followed; empty where it can.
    pub error: String,
}

/// One experiment that is followed.
pub struct Follow {
    asks: mpsc::Sender<Ask>,
    look: Mutex<Look>,
    used: Mutex<Instant>,
    /// When it ended with an error.
    failed: Mutex<Option<Instant>>,
    task: Mutex<Option<AbortHandle>>,
}

fn lock<T>(m: &Mutex<T>) -> MutexGuard<'_, T> {
    m.lock().unwrap_or_else(PoisonError::into_inner)
}

impl Drop for Follow {
    fn drop(&mut self) {
        if let Some(task) = lock(&self.task).take() {
            task.abort();
        }
    }
}

impl Follow {
    /// Asks what is computed; none where it takes too long.
    pub async fn ask<T: Send + 'static>(
        &self,
        question: impl for<'a> FnOnce(&mut Live<'a>) -> T + Send + 'static,
    ) -> Option<T> {
        tokio::time::timeout(ANSWER, ask(&self.asks, question)).await.ok().flatten()
    }

    /// How far it is.
    pub fn look(&self) -> Look {
        lock(&self.look).clone()
    }

    /// Whether somebody asked for it lately, and it hasn't failed a while ago.
    fn wanted(&self, now: Instant) -> bool {
        let since = |t: Instant| now.saturating_duration_since(t);
        since(*lock(&self.used)) < PATIENCE && lock(&self.failed).is_none_or(|t| since(t) < AGAIN)
    }
}

/// Asks, however long the answer takes; none where nothing answers any more.
async fn ask<T: Send + 'static>(
    asks: &mpsc::Sender<Ask>,
    question: impl for<'a> FnOnce(&mut Live<'a>) -> T + Send + 'static,
) -> Option<T> {
    let (reply, answer) = oneshot::channel();
    let boxed: Ask = Box::new(move |live| {
        // Whoever asked may have gone.
        let _ = reply.send(question(live));
    });
    asks.send(boxed).await.ok()?;
    answer.await.ok()
}

/// All that are followed.
pub struct Follows {
    handle: Handle,
    all: Mutex<BTreeMap<String, Arc<Follow>>>,
}

impl Follows {
    /// None yet.
    pub fn new(handle: Handle) -> Self {
        Self { handle, all: Mutex::default() }
    }

    /// Follows an experiment from now on, or goes on with it; none where there is no such experiment.
    pub fn get(&self, id: &str) -> Option<Arc<Follow>> {
        let plan = self.handle.plan(id)?;
        let mut all = lock(&self.all);
        let now = Instant::now();
        all.retain(|_, f| f.wanted(now));
        if let Some(follow) = all.get(id) {
            *lock(&follow.used) = now;
            return Some(Arc::clone(follow));
        }
        if all.len() >= MOST {
            let oldest = all.iter().min_by_key(|(_, f)| *lock(&f.used)).map(|(k, _)| k.clone());
            oldest.map(|k| all.remove(&k));
        }
        let (asks, asked) = mpsc::channel(64);
        let look = Mutex::new(Look { id: id.to_owned(), ..Look::default() });
        let follow = Arc::new(Follow {
            asks: asks.clone(),
            look,
            used: Mutex::new(now),
            failed: Mutex::default(),
            task: Mutex::default(),
        });
        let mut run = Run {
            handle: self.handle.clone(),
            store: self.handle.store(),
            id: id.to_owned(),
            plan,
            asks,
            follow: Arc::downgrade(&follow),
            seen: HashSet::new(),
            queue: VecDeque::new(),
            waiting: Vec::new(),
            greedy: BTreeMap::new(),
            listed: HashSet::new(),
            skipped: false,
            rounds_at: None,
        };
        let task = tokio::spawn(async move {
            let Err(why) = run.run(asked).await else { return };
            let Some(follow) = run.follow.upgrade() else { return };
            tracing::warn!(experiment = run.id, why, "can't be followed");
            lock(&follow.look).error = why;
            *lock(&follow.failed) = Some(Instant::now());
            drop(follow);
            // Whoever asks after that makes a new try.
            tokio::time::sleep(AGAIN).await;
            run.handle.follows().forget();
        });
        *lock(&follow.task) = Some(task.abort_handle());
        all.insert(id.to_owned(), Arc::clone(&follow));
        Some(follow)
    }

    /// Lets go of those that nobody asks for any more, and of those that failed a while ago.
    fn forget(&self) {
        let now = Instant::now();
        lock(&self.all).retain(|_, f| f.wanted(now));
    }

    /// How far one is that is followed; looking is asking for it.
    pub fn look(&self, id: &str) -> Option<Look> {
        let all = lock(&self.all);
        let follow = all.get(id)?;
        *lock(&follow.used) = Instant::now();
        Some(follow.look())
    }
}

/// Where a greedy sweep stands.
#[derive(Default)]
struct Greedy {
    /// Rounds whose choice is known and taken.
    taken: u32,
    /// Latest round of which a chunk was seen.
    latest: u32,
}

struct Run {
    handle: Handle,
    store: Arc<dyn Store>,
    id: String,
    plan: Arc<Plan>,
    asks: mpsc::Sender<Ask>,
    follow: std::sync::Weak<Follow>,
    seen: HashSet<ChunkAt>,
    queue: VecDeque<ChunkAt>,
    /// Pairs whose units alone aren't there yet.
    waiting: Vec<ChunkAt>,
    greedy: BTreeMap<u32, Greedy>,
    /// Paths whose order is known.
    listed: HashSet<u32>,
    /// Whether pairs were taken although a unit alone was missing.
    skipped: bool,
    rounds_at: Option<Instant>,
}

impl Run {
    async fn run(&mut self, asked: mpsc::Receiver<Ask>) -> Result<(), String> {
        // First it listens, then it looks: no chunk falls between.
        let mut feed = self.handle.accepted();
        let mut blobs = Vec::new();
        for task in &self.plan.tasks {
            blobs.push(self.store.blob(&task.prepared).await.map_err(|e| e.to_string())?);
        }
        let (id, plan) = (self.id.clone(), Plan::clone(&self.plan));
        std::thread::Builder::new()
            .name("dashboard".to_owned())
            .spawn(move || compute(id, plan, blobs, asked))
            .map_err(|e| format!("no thread: {e}"))?;
        self.resync().await?;
        loop {
            self.handle.follows().forget();
            if self.follow.strong_count() == 0 {
                return Ok(());
            }
            self.drain(&mut feed).await?;
            self.rounds().await?;
            if self.step().await? {
                continue;
            }
            tokio::select! {
                got = feed.recv() => match got {
                    Ok(keys) => self.note(&keys),
                    Err(RecvError::Lagged(_)) => self.resync().await?,
                    Err(RecvError::Closed) => return Ok(()),
                },
                () = tokio::time::sleep(ROUNDS) => {}
                () = self.handle.stopping() => return Ok(()),
            }
        }
    }

    /// Looks up which chunks there are.
    async fn resync(&mut self) -> Result<(), String> {
        for at in self.store.accepted(&self.id).await.map_err(|e| e.to_string())? {
            self.add(at);
        }
        self.tell(None);
        Ok(())
    }

    async fn drain(&mut self, feed: &mut broadcast::Receiver<Arc<[ChunkKey]>>) -> Result<(), String> {
        loop {
            match feed.try_recv() {
                Ok(keys) => self.note(&keys),
                Err(broadcast::error::TryRecvError::Lagged(_)) => self.resync().await?,
                Err(_) => return Ok(()),
            }
        }
    }

    fn note(&mut self, keys: &[ChunkKey]) {
        for k in keys {
            if k.experiment == self.id {
                self.add((k.sweep, k.round, k.chunk));
            }
        }
    }

    fn add(&mut self, at: ChunkAt) {
        match self.plan.sweeps.get(at.0 as usize).map(|s| &s.kind) {
            Some(SweepKind::Greedy { .. }) => {
                let greedy = self.greedy.entry(at.0).or_default();
                greedy.latest = greedy.latest.max(at.1);
            }
            Some(SweepKind::Pairs) if self.seen.insert(at) => self.queue.push_back(at),
            // What others wait for goes first.
            Some(
                SweepKind::Reference
                | SweepKind::Single
                | SweepKind::Path { .. }
                | SweepKind::Random { .. }
                | SweepKind::Matched { .. },
            ) if self.seen.insert(at) => self.queue.push_front(at),
            _ => {}
        }
    }

    fn status(&self) -> Option<Status> {
        self.handle.subscribe().borrow().get(&self.id).cloned()
    }

    /// Whether no more scores of units alone come.
    async fn settled(&self) -> Result<bool, String> {
        let Some(status) = self.status() else { return Ok(false) };
        let single = |i: usize| self.plan.sweeps.get(i).is_some_and(|s| s.kind == SweepKind::Single);
        let open: u64 = (0..status.sweeps.len())
            .filter(|&i| single(i))
            .map(|i| status.sweeps[i].chunks_total.saturating_sub(status.sweeps[i].chunks_done))
            .sum();
        if status.ended() || open == 0 {
            // What is accepted may still have to be read.
            return Ok(!self.queue.iter().any(|at| single(at.0 as usize)));
        }
        if status.quarantined < open {
            return Ok(false);
        }
        let aside = self.store.quarantined(&self.id).await.map_err(|e| e.to_string())?;
        Ok(aside.iter().filter(|q| single(q.0 as usize)).count() as u64 >= open)
    }

    /// Takes the next few chunks; whether there were any.
    async fn step(&mut self) -> Result<bool, String> {
        if self.queue.is_empty() && self.waiting.is_empty() {
            return Ok(false);
        }
        let settled = self.settled().await?;
        if self.skipped && !settled {
            // What was set aside is tried again: all pairs are counted anew.
            self.skipped = false;
            self.again().await?;
        }
        let fresh = self.queue.is_empty();
        let mut some: Vec<ChunkAt> = Vec::new();
        if fresh {
            some.extend(self.waiting.drain(..self.waiting.len().min(BATCH)));
        } else {
            some.extend(self.queue.drain(..self.queue.len().min(BATCH)));
        }
        let asked = some.clone();
        let ready = ask(&self.asks, move |live| {
            asked.iter().map(|&at| live.ready(at, settled)).collect::<Vec<Ready>>()
        });
        let Some(ready) = ready.await else { return Err("what was read can't be taken".to_owned()) };
        let mut now = Vec::new();
        for (at, ready) in some.into_iter().zip(ready) {
            match ready {
                Ready::Now => now.push(at),
                Ready::Later => self.waiting.push(at),
                Ready::Never => {}
            }
        }
        if now.is_empty() {
            return Ok(!fresh);
        }
        for &at in &now {
            let along = &self.plan.sweeps[at.0 as usize].kind;
            if matches!(along, SweepKind::Path { .. } | SweepKind::Matched { .. }) && self.listed.insert(at.0)
            {
                self.list(at.0, 0).await?;
            }
        }
        self.skipped |= settled && self.quarantined() > 0;
        let bytes = self.store.scores(&self.id, &now).await.map_err(|e| e.to_string())?;
        let began = Instant::now();
        let version = ask(&self.asks, move |live| {
            for (at, bytes) in bytes {
                if let Ok(scores) = ChunkScores::decode(&bytes) {
                    live.take(at, &scores);
                }
            }
            live.version()
        });
        let Some(version) = version.await else { return Err("what was read can't be taken".to_owned()) };
        self.tell(Some(version));
        tokio::time::sleep((began.elapsed() * REST).min(LONGEST)).await;
        Ok(true)
    }

    fn quarantined(&self) -> u64 {
        self.status().map_or(0, |s| s.quarantined)
    }

    /// Forgets all that was read, and reads it again.
    async fn again(&mut self) -> Result<(), String> {
        ask(&self.asks, |live| live.reset()).await.ok_or("what was read can't be forgotten")?;
        self.seen.clear();
        self.queue.clear();
        self.waiting.clear();
        self.listed.clear();
        self.greedy.clear();
        self.resync().await
    }

    fn tell(&self, version: Option<u64>) {
        if let Some(follow) = self.follow.upgrade() {
            let mut look = lock(&follow.look);
            look.of = self.seen.len() as u64;
            look.read = look.of - (self.queue.len() + self.waiting.len()) as u64;
            look.version = version.unwrap_or(look.version);
        }
    }

    /// Hands on the input of a round, with what the round removed where it has ended; how many units that are.
    async fn list(&mut self, sweep: u32, round: u32) -> Result<u32, String> {
        let opened = self.store.opened(&self.id, sweep, round).await.map_err(|e| e.to_string())?;
        let Some(opened) = opened else { return Ok(0) };
        let mut list = opened.list;
        list.extend(opened.decision.and_then(|d| d.remove));
        let n = list.len() as u32;
        ask(&self.asks, move |live| live.set_list(sweep, list)).await.ok_or("an order can't be taken")?;
        Ok(n)
    }

    /// Looks what greedy sweeps have removed since the last look.
    async fn rounds(&mut self) -> Result<(), String> {
        let now = Instant::now();
        if self.rounds_at.is_some_and(|t| now.saturating_duration_since(t) < ROUNDS) {
            return Ok(());
        }
        self.rounds_at = Some(now);
        for sweep in self.greedy.keys().copied().collect::<Vec<u32>>() {
            let Greedy { taken, latest } = self.greedy[&sweep];
            if taken >= self.plan.sweeps[sweep as usize].rounds() || (taken > latest) {
                continue;
            }
            let removed = self.list(sweep, latest).await?;
            for round in taken..removed {
                let Some(Some(chunk)) = ask(&self.asks, move |live| live.greedy_chunk(sweep, round)).await
                else {
                    continue;
                };
                let at = (sweep, round, chunk);
                let bytes = self.store.scores(&self.id, &[at]).await.map_err(|e| e.to_string())?;
                let took = ask(&self.asks, move |live| {
                    for (at, bytes) in bytes {
                        if let Ok(scores) = ChunkScores::decode(&bytes) {
                            live.take_greedy(at, &scores);
                        }
                    }
                    live.version()
                });
                self.tell(took.await);
            }
            if let Some(greedy) = self.greedy.get_mut(&sweep) {
                greedy.taken = greedy.taken.max(removed);
            }
        }
        Ok(())
    }
}

/// Where versions begin: past all that an earlier reading told, be it of a coordinator before this one. None takes a chunk each microsecond.
#[expect(clippy::disallowed_methods, reason = "what outlives the process is known by the wall clock alone")]
fn first_version() -> u64 {
    SystemTime::now().duration_since(UNIX_EPOCH).map_or(0, |d| d.as_micros() as u64)
}

/// Computes what is asked, until nobody can ask any more.
fn compute(id: String, plan: Plan, blobs: Vec<Vec<u8>>, mut asked: mpsc::Receiver<Ask>) {
    // On Linux this is the thread's own: whatever else the machine does goes first. Where it isn't allowed, so be it.
    let _ = rustix::process::nice(10);
    let mut prepared = Vec::new();
    for blob in blobs {
        let Ok(mut task) = serde_json::from_slice::<Prepared>(&blob) else { return };
        drop(blob);
        // Nothing here looks at images or at what probes are fitted on.
        task.items.iter_mut().for_each(|i| i.image = None);
        task.probe = None;
        prepared.push(task);
    }
    let frame = live::frame(id, plan, prepared);
    let mut live = Live::new(&frame).beginning_at(first_version());
    while let Some(question) = asked.blocking_recv() {
        question(&mut live);
    }
}

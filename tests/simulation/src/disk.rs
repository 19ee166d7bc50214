//! The store behind a faulty disk and a faulty connection: the memory store, with a lead on the database's clock
//! as PostgreSQL's has it, and a journal that knows nothing of the store.

use crate::faults::Bug;
use crate::trace::{Sim, lock};
use ablate_common::decide::Round;
use ablate_common::plan::Decision;
use ablate_coordinator::store::{
    Answer, ChunkAt, Error, Incoming, MemoryStore, NewExperiment, Outcome, Quarantined, State, Store, Stored,
    StoredRound,
};
use ablate_output::results::Results;
use rand::Rng;
use rand_chacha::ChaCha8Rng;
use std::collections::BTreeMap;
use std::ops::Range;
use std::sync::{Arc, Mutex};
use std::time::Duration;

/// What is wrong with the disk now.
#[derive(Clone, Copy, Debug, Default)]
pub struct Sick {
    /// Of a thousand operations, how many fail before anything is done.
    pub fails: u32,
    /// Of a thousand, how many are done without an answer that says so.
    pub unanswered: u32,
    /// No room: writes fail.
    pub full: bool,
    /// Milliseconds that an operation takes at most.
    pub slow: u64,
}

#[derive(Debug)]
struct Lead {
    epoch: u64,
    holder: (usize, u64),
    expires: u64,
}

#[derive(Debug)]
struct Inner {
    rng: ChaCha8Rng,
    sick: Sick,
    lead: Option<Lead>,
    epoch: u64,
    /// Bytes accepted for each chunk, in order.
    journal: BTreeMap<ChunkAt, Vec<blake3::Hash>>,
    /// Chunks that are set aside, and since when.
    aside: BTreeMap<ChunkAt, u64>,
    /// How far its wall clock was set, in ms.
    set: i64,
}

/// A disk that all coordinators share.
#[derive(Debug)]
pub struct Disk {
    sim: Arc<Sim>,
    /// What it holds.
    pub store: MemoryStore,
    inner: Mutex<Inner>,
    bug: Option<Bug>,
}

impl Disk {
    /// An empty one.
    #[must_use]
    pub fn new(sim: Arc<Sim>, rng: ChaCha8Rng, bug: Option<Bug>) -> Self {
        let inner = Inner {
            rng,
            sick: Sick::default(),
            lead: None,
            epoch: 0,
            journal: BTreeMap::new(),
            aside: BTreeMap::new(),
            set: 0,
        };
        Self { sim, store: MemoryStore::default(), inner: Mutex::new(inner), bug }
    }

    /// Makes it sick, or well.
    pub fn set(&self, sick: Sick) {
        lock(&self.inner).sick = sick;
    }

    /// Sets its wall clock ahead or back.
    pub fn step_clock(&self, ms: i64) {
        lock(&self.inner).set += ms;
    }

    /// What its wall clock says. Leads run out by it, as they do by PostgreSQL's.
    fn clock(&self, inner: &Inner) -> u64 {
        const MIDNIGHT: u64 = 1 << 40;
        (MIDNIGHT + self.sim.now()).saturating_add_signed(inner.set)
    }

    /// Since when a chunk without a result is set aside, if it is, as the coordinator knows that leads now by `epoch`.
    pub fn aside(&self, at: ChunkAt, epoch: u64) -> Option<u64> {
        let inner = lock(&self.inner);
        inner.aside.get(&at).copied().filter(|_| epoch == inner.epoch && !inner.journal.contains_key(&at))
    }

    /// Whether a chunk was committed.
    pub fn has(&self, at: ChunkAt) -> bool {
        lock(&self.inner).journal.contains_key(&at)
    }

    /// How often each chunk was accepted.
    pub fn accepted(&self) -> BTreeMap<ChunkAt, usize> {
        lock(&self.inner).journal.iter().map(|(at, all)| (*at, all.len())).collect()
    }

    fn commit(&self, node: usize, epoch: u64, batch: &[Incoming], outcomes: &[Outcome]) {
        self.written(node, epoch, "results");
        let mut inner = lock(&self.inner);
        for (one, outcome) in batch.iter().zip(outcomes) {
            let at = (one.key.sweep, one.key.round, one.key.chunk);
            self.sim.say(format_args!("disk: node {node} epoch {epoch} chunk {at:?} {outcome:?}"));
            if *outcome == Outcome::Accepted {
                let all = inner.journal.entry(at).or_default();
                all.push(blake3::hash(&one.scores));
                if all.len() > 1 {
                    self.sim.violated(
                        "accepted once",
                        format_args!("chunk {at:?} was accepted {} times", all.len()),
                    );
                }
            }
        }
    }

    /// A write succeeded.
    fn written(&self, node: usize, epoch: u64, what: &str) {
        let newest = lock(&self.inner).epoch;
        if epoch != newest {
            self.sim.violated(
                "epochs are hard",
                format_args!("node {node} wrote {what} with epoch {epoch} after epoch {newest} began"),
            );
        }
    }
}

/// A coordinator's connection to the disk.
#[derive(Clone, Debug)]
pub struct Connection {
    disk: Arc<Disk>,
    node: usize,
    /// Number of the process on this node.
    life: u64,
    /// How long a lead holds; none where one coordinator has the disk to itself.
    lead: Option<Duration>,
}

/// What an operation's end will be.
struct Fate {
    unanswered: bool,
    after: u64,
}

impl Connection {
    /// For one life of a node.
    #[must_use]
    pub fn new(disk: Arc<Disk>, node: usize, life: u64, lead: Option<Duration>) -> Self {
        Self { disk, node, life, lead }
    }

    /// The time that it takes to reach the disk, and what may happen on the way.
    async fn begin(&self, what: &str, writes: bool) -> Result<Fate, Error> {
        let (before, fate, refused) = {
            let mut inner = lock(&self.disk.inner);
            let sick = inner.sick;
            let mut span = || if sick.slow > 0 { inner.rng.random_range(0..=sick.slow) } else { 1 };
            let (before, after) = (span(), span());
            let draw = inner.rng.random_range(0..1000);
            let unanswered = draw < sick.unanswered;
            let failed = !unanswered && draw < sick.unanswered + sick.fails;
            let refused = if writes && sick.full {
                Some(("disk full", Error::DiskFull))
            } else if failed && draw % 4 == 0 {
                Some(("disk errors", Error::Other("simulated: input/output error".to_owned())))
            } else if failed {
                Some(("disk errors", Error::Unavailable("simulated".to_owned())))
            } else {
                None
            };
            (before, Fate { unanswered, after }, refused)
        };
        tokio::time::sleep(Duration::from_millis(before)).await;
        if let Some((kind, e)) = refused {
            self.disk.sim.fault(kind);
            self.disk.sim.say(format_args!("disk: node {} {what} fails: {e}", self.node));
            return Err(e);
        }
        Ok(fate)
    }

    async fn end<T>(&self, what: &str, fate: Fate, result: Result<T, Error>) -> Result<T, Error> {
        tokio::time::sleep(Duration::from_millis(fate.after)).await;
        if fate.unanswered && result.is_ok() {
            self.disk.sim.fault("answers of the disk lost");
            self.disk.sim.say(format_args!("disk: node {} {what} is done, but not answered", self.node));
            return Err(Error::Unavailable("simulated: the answer is lost".to_owned()));
        }
        result
    }

    fn read<'a, T: Send + 'a>(
        &'a self,
        what: &'static str,
        op: impl FnOnce(&'a MemoryStore) -> Answer<'a, T> + Send + 'a,
    ) -> Answer<'a, T> {
        Box::pin(async move {
            let fate = self.begin(what, false).await?;
            let result = op(&self.disk.store).await;
            self.end(what, fate, result).await
        })
    }

    fn write<'a, T: Send + 'a>(
        &'a self,
        what: &'static str,
        epoch: u64,
        op: impl FnOnce(&'a MemoryStore, u64) -> Answer<'a, T> + Send + 'a,
    ) -> Answer<'a, T> {
        Box::pin(async move {
            let fate = self.begin(what, true).await?;
            let result = op(&self.disk.store, self.epoch(epoch)).await;
            match &result {
                Ok(_) => self.disk.written(self.node, epoch, what),
                Err(e) => self.disk.sim.say(format_args!("disk: node {} {what}: {e}", self.node)),
            }
            self.end(what, fate, result).await
        })
    }

    /// A coordinator took the lead.
    fn leads(&self, epoch: u64) {
        let disk = &self.disk;
        let mut inner = lock(&disk.inner);
        let now = disk.clock(&inner);
        disk.sim.say(format_args!("disk: node {} leads with epoch {epoch}", self.node));
        if epoch <= inner.epoch {
            disk.sim
                .violated("epochs are hard", format_args!("epoch {epoch} was given to a second coordinator"));
        }
        inner.epoch = epoch;
        if let Some(time) = self.lead {
            if epoch > 1 {
                disk.sim.fault("takeovers");
            }
            inner.lead =
                Some(Lead { epoch, holder: (self.node, self.life), expires: now + time.as_millis() as u64 });
        }
    }

    /// The epoch that a write is checked against.
    fn epoch(&self, epoch: u64) -> u64 {
        if self.disk.bug == Some(Bug::WritesWithoutEpoch) { lock(&self.disk.inner).epoch } else { epoch }
    }

    async fn accept_now(&self, epoch: u64, batch: &[Incoming]) -> Result<Vec<Outcome>, Error> {
        let mut outcomes = self.disk.store.accept(self.epoch(epoch), batch).await?;
        if self.disk.bug == Some(Bug::AcceptsTwice) {
            let again = |o: &mut Outcome| {
                if matches!(o, Outcome::Duplicate { .. }) {
                    *o = Outcome::Accepted;
                }
            };
            outcomes.iter_mut().for_each(again);
        }
        self.disk.commit(self.node, epoch, batch, &outcomes);
        Ok(outcomes)
    }
}

impl Store for Connection {
    fn acquire_epoch(&self) -> Answer<'_, u64> {
        Box::pin(async move {
            let fate = self.begin("taking the lead", true).await?;
            let (disk, me) = (&self.disk, (self.node, self.life));
            {
                let inner = lock(&disk.inner);
                let now = disk.clock(&inner);
                if let Some(lead) = inner.lead.as_ref().filter(|l| l.expires > now && l.holder != me) {
                    return Err(Error::Led(url(lead.holder.0)));
                }
            }
            let old = lock(&disk.inner).epoch;
            let same = old > 0 && disk.bug == Some(Bug::LeadsWithoutEpoch);
            let epoch = if same { old } else { disk.store.acquire_epoch().await? };
            self.leads(epoch);
            self.end("taking the lead", fate, Ok(epoch)).await
        })
    }

    fn lead_time(&self) -> Option<Duration> {
        self.lead
    }

    fn renew_lead(&self, epoch: u64) -> Answer<'_, ()> {
        Box::pin(async move {
            let fate = self.begin("renewing the lead", true).await?;
            let renewed = {
                let mut inner = lock(&self.disk.inner);
                let (newer, now) = (inner.epoch, self.disk.clock(&inner));
                match (&mut inner.lead, self.lead) {
                    (Some(lead), Some(time))
                        if lead.epoch == epoch && lead.holder == (self.node, self.life) =>
                    {
                        lead.expires = now + time.as_millis() as u64;
                        Ok(())
                    }
                    _ => Err(Error::StaleEpoch { ours: epoch, newer }),
                }
            };
            self.end("renewing the lead", fate, renewed).await
        })
    }

    fn resign(&self, epoch: u64) -> Answer<'_, ()> {
        Box::pin(async move {
            let fate = self.begin("resigning", true).await?;
            {
                let mut inner = lock(&self.disk.inner);
                if let Some(lead) = inner.lead.as_mut().filter(|l| l.epoch == epoch) {
                    lead.expires = 0;
                }
            }
            self.end("resigning", fate, Ok(())).await
        })
    }

    fn put_experiment(&self, epoch: u64, new: NewExperiment) -> Answer<'_, bool> {
        self.write("an experiment", epoch, move |s, epoch| s.put_experiment(epoch, new))
    }

    fn experiments(&self) -> Answer<'_, Vec<Stored>> {
        self.read("experiments", |s| s.experiments())
    }

    fn set_state<'a>(&'a self, epoch: u64, id: &'a str, state: State) -> Answer<'a, ()> {
        self.disk.sim.say(format_args!("disk: node {} sets {}", self.node, state.name()));
        lock(&self.disk.sim.checks).over = state != State::Running;
        self.write("a state", epoch, move |s, epoch| s.set_state(epoch, id, state))
    }

    fn accept<'a>(&'a self, epoch: u64, batch: &'a [Incoming]) -> Answer<'a, Vec<Outcome>> {
        Box::pin(async move {
            let fate = self.begin("results", true).await?;
            let result = self.accept_now(epoch, batch).await;
            self.end("results", fate, result).await
        })
    }

    fn accepted<'a>(&'a self, id: &'a str) -> Answer<'a, Vec<ChunkAt>> {
        self.read("accepted chunks", |s| s.accepted(id))
    }

    fn busy<'a>(&'a self, id: &'a str) -> Answer<'a, BTreeMap<u32, u64>> {
        self.read("working time", |s| s.busy(id))
    }

    fn chunks<'a>(&'a self, id: &'a str, sweep: u32, round: u32, of: Range<u32>) -> Answer<'a, Round> {
        self.read("a round", move |s| s.chunks(id, sweep, round, of))
    }

    fn rounds<'a>(&'a self, id: &'a str) -> Answer<'a, Vec<StoredRound>> {
        self.read("rounds", |s| s.rounds(id))
    }

    fn decide<'a>(
        &'a self,
        epoch: u64,
        id: &'a str,
        sweep: u32,
        round: u32,
        decision: &'a Decision,
        constants: Option<&'a [u8]>,
    ) -> Answer<'a, ()> {
        self.disk.sim.say(format_args!("disk: node {} decides {sweep} {round}: {decision:?}", self.node));
        self.write("a decision", epoch, move |s, epoch| {
            s.decide(epoch, id, sweep, round, decision, constants)
        })
    }

    fn quarantine<'a>(&'a self, epoch: u64, id: &'a str, what: &'a Quarantined) -> Answer<'a, ()> {
        let at = (what.0, what.1, what.2);
        self.write("a quarantine", epoch, move |s, epoch| {
            Box::pin(async move {
                s.quarantine(epoch, id, what).await?;
                lock(&self.disk.inner).aside.insert(at, self.disk.sim.now());
                Ok(())
            })
        })
    }

    fn quarantined<'a>(&'a self, id: &'a str) -> Answer<'a, Vec<Quarantined>> {
        self.read("the quarantine", |s| s.quarantined(id))
    }

    fn release<'a>(&'a self, epoch: u64, id: &'a str) -> Answer<'a, ()> {
        self.disk.sim.say(format_args!("disk: node {} releases what was set aside", self.node));
        lock(&self.disk.sim.checks).over = false;
        self.write("a release", epoch, move |s, epoch| {
            Box::pin(async move {
                s.release(epoch, id).await?;
                lock(&self.disk.inner).aside.clear();
                Ok(())
            })
        })
    }

    fn add_seconds<'a>(
        &'a self,
        epoch: u64,
        id: &'a str,
        seconds: &'a BTreeMap<String, f64>,
    ) -> Answer<'a, ()> {
        self.write("seconds", epoch, move |s, epoch| s.add_seconds(epoch, id, seconds))
    }

    fn blob<'a>(&'a self, hash: &'a str) -> Answer<'a, Vec<u8>> {
        self.read("a blob", |s| s.blob(hash))
    }

    fn results<'a>(&'a self, id: &'a str) -> Answer<'a, Results> {
        self.read("results", |s| s.results(id))
    }
}

/// A node's address.
#[must_use]
pub fn url(node: usize) -> String {
    format!("http://n{node}:1")
}

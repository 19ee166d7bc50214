//! A store in memory that fails or panics as often as a test tells it to.

use super::*;
use std::sync::{Mutex, PoisonError};

/// What an operation ends with; it may panic.
type Fault = fn() -> Error;

/// See the module.
#[derive(Default)]
pub(crate) struct Faulty {
    inner: MemoryStore,
    faults: Mutex<BTreeMap<&'static str, (usize, Fault)>>,
}

impl Faulty {
    /// The next so many calls of the operation called `what` end with `fault`.
    pub(crate) fn fail(&self, what: &'static str, times: usize, fault: Fault) {
        self.faults.lock().unwrap_or_else(PoisonError::into_inner).insert(what, (times, fault));
    }

    fn due(&self, what: &str) -> Option<Fault> {
        let mut faults = self.faults.lock().unwrap_or_else(PoisonError::into_inner);
        let (left, fault) = faults.get_mut(what)?;
        *left = left.checked_sub(1)?;
        Some(*fault)
    }

    fn run<'a, T: Send + 'a>(
        &'a self,
        what: &'static str,
        op: impl FnOnce(&'a MemoryStore) -> Answer<'a, T> + Send + 'a,
    ) -> Answer<'a, T> {
        Box::pin(async move {
            match self.due(what) {
                Some(fault) => Err(fault()),
                None => op(&self.inner).await,
            }
        })
    }
}

impl Store for Faulty {
    fn acquire_epoch(&self) -> Answer<'_, u64> {
        self.run("acquire_epoch", |s| s.acquire_epoch())
    }

    fn put_experiment(&self, epoch: u64, new: NewExperiment) -> Answer<'_, bool> {
        self.run("put_experiment", move |s| s.put_experiment(epoch, new))
    }

    fn experiments(&self) -> Answer<'_, Vec<Stored>> {
        self.run("experiments", |s| s.experiments())
    }

    fn set_state<'a>(&'a self, epoch: u64, id: &'a str, state: State) -> Answer<'a, ()> {
        self.run("set_state", move |s| s.set_state(epoch, id, state))
    }

    fn accept<'a>(&'a self, epoch: u64, batch: &'a [Incoming]) -> Answer<'a, Vec<Outcome>> {
        self.run("accept", move |s| s.accept(epoch, batch))
    }

    fn accepted<'a>(&'a self, id: &'a str) -> Answer<'a, Vec<ChunkAt>> {
        self.run("accepted", move |s| s.accepted(id))
    }

    fn busy<'a>(&'a self, id: &'a str) -> Answer<'a, BTreeMap<u32, u64>> {
        self.run("busy", move |s| s.busy(id))
    }

    fn chunks<'a>(&'a self, id: &'a str, sweep: u32, round: u32, of: Range<u32>) -> Answer<'a, Round> {
        self.run("chunks", move |s| s.chunks(id, sweep, round, of))
    }

    fn rounds<'a>(&'a self, id: &'a str) -> Answer<'a, Vec<StoredRound>> {
        self.run("rounds", move |s| s.rounds(id))
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
        self.run("decide", move |s| s.decide(epoch, id, sweep, round, decision, constants))
    }

    fn quarantine<'a>(&'a self, epoch: u64, id: &'a str, what: &'a Quarantined) -> Answer<'a, ()> {
        self.run("quarantine", move |s| s.quarantine(epoch, id, what))
    }

    fn quarantined<'a>(&'a self, id: &'a str) -> Answer<'a, Vec<Quarantined>> {
        self.run("quarantined", move |s| s.quarantined(id))
    }

    fn release<'a>(&'a self, epoch: u64, id: &'a str) -> Answer<'a, ()> {
        self.run("release", move |s| s.release(epoch, id))
    }

    fn add_seconds<'a>(
        &'a self,
        epoch: u64,
        id: &'a str,
        seconds: &'a BTreeMap<String, f64>,
    ) -> Answer<'a, ()> {
        self.run("add_seconds", move |s| s.add_seconds(epoch, id, seconds))
    }

    fn blob<'a>(&'a self, hash: &'a str) -> Answer<'a, Vec<u8>> {
        self.run("blob", move |s| s.blob(hash))
    }

    fn results<'a>(&'a self, id: &'a str) -> Answer<'a, Results> {
        self.run("results", move |s| s.results(id))
    }
}

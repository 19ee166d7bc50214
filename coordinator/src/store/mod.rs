//! Where everything that must survive lives. Every write carries the coordinator's epoch and fails if a
//! newer leader exists; a chunk is accepted at most once; a round's decision and the rounds that it
//! opens are one transaction.

mod assemble;
#[cfg(test)]
pub(crate) mod conformance;
mod encode;
mod error;
#[cfg(test)]
pub(crate) mod faulty;
mod memory;
pub mod postgres;
pub(crate) mod schema;
mod sqlite;

pub use error::Error;
pub use memory::MemoryStore;
pub use postgres::PostgresStore;
pub use sqlite::SqliteStore;

use crate::token::Token;
use ablate_common::decide::Round;
use ablate_common::plan::{Decision, Plan};
use ablate_common::task::Prepared;
use ablate_common::units::UnitIx;
use ablate_output::results::Results;
use futures::future::BoxFuture;
use std::collections::{BTreeMap, BTreeSet};
use std::ops::Range;
use std::path::PathBuf;
use std::time::Duration;

/// An experiment as it is handed in.
#[derive(Clone, Debug)]
pub struct NewExperiment {
    /// Recorded plan; its identity is the experiment's.
    pub plan: Plan,
    /// Prepared tasks, in the plan's order.
    pub prepared: Vec<Prepared>,
    /// Where the model lies.
    pub model_path: PathBuf,
    /// The spec as written.
    pub spec_text: String,
    /// Folder for tables.
    pub output: PathBuf,
}

/// State of an experiment.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum State {
    /// Shards are leased.
    Running,
    /// Nothing is leased until resumed.
    Paused,
    /// Ended by the user.
    Cancelled,
    /// Every chunk is accepted or quarantined.
    Done,
    /// Can't go on.
    Failed(String),
}

impl State {
    /// The name on the wire and in the store.
    #[must_use]
    pub fn name(&self) -> &'static str {
        match self {
            Self::Running => "running",
            Self::Paused => "paused",
            Self::Cancelled => "cancelled",
            Self::Done => "done",
            Self::Failed(_) => "failed",
        }
    }
}

/// An experiment as stored.
#[derive(Clone, Debug)]
pub struct Stored {
    /// Identity.
    pub id: String,
    /// Recorded plan.
    pub plan: Plan,
    /// Where the model lies.
    pub model_path: PathBuf,
    /// Folder for tables.
    pub output: PathBuf,
    /// State.
    pub state: State,
    /// Results that reached the coordinator.
    pub computed: u64,
    /// Of these, those for chunks that had one already.
    pub duplicate: u64,
}

/// All experiments of a store, those apart that can't be read: one of them is no reason to do without the others.
#[derive(Debug, Default)]
pub struct Listing {
    /// Those that can be read.
    pub experiments: Vec<Stored>,
    /// The others: identity, and why.
    pub unreadable: Vec<(String, Error)>,
}

impl Listing {
    /// All of them, or why not.
    fn whole(self) -> Result<Vec<Stored>, Error> {
        match self.unreadable.into_iter().next() {
            Some((_, e)) => Err(e),
            None => Ok(self.experiments),
        }
    }
}

impl FromIterator<(String, Result<Stored, Error>)> for Listing {
    fn from_iter<T: IntoIterator<Item = (String, Result<Stored, Error>)>>(all: T) -> Self {
        let mut listing = Self::default();
        for (id, read) in all {
            match read {
                Ok(stored) => listing.experiments.push(stored),
                Err(e) => listing.unreadable.push((id, e)),
            }
        }
        listing
    }
}

/// Name of a chunk.
#[derive(Clone, Debug, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub struct ChunkKey {
    /// Experiment's identity.
    pub experiment: String,
    /// Sweep.
    pub sweep: u32,
    /// Round.
    pub round: u32,
    /// Chunk.
    pub chunk: u32,
}

/// A result on its way into the store.
#[derive(Clone, Debug)]
pub struct Incoming {
    /// Which chunk.
    pub key: ChunkKey,
    /// Chunk codec's bytes.
    pub scores: Vec<u8>,
    /// Device class that computed it.
    pub device_class: String,
    /// Worker's name.
    pub worker: String,
    /// Version of its program.
    pub version: String,
    /// Time the lane worked on it, in microseconds.
    pub busy_us: u64,
}

/// What became of a result.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Outcome {
    /// First for its chunk.
    Accepted,
    /// The chunk had a result already.
    Duplicate {
        /// Whether the bytes are equal, where two workers of one device class computed them: others' needn't be, and a
        /// worker's own, sent again, says nothing.
        equal: Option<bool>,
    },
    /// The experiment or chunk doesn't exist.
    Unknown,
}

impl Outcome {
    /// Of a result whose chunk has the result of `worker`, computed on `class`.
    fn second(one: &Incoming, equal: bool, class: &str, worker: &str) -> Self {
        let comparable = one.device_class == class && one.worker != worker;
        Self::Duplicate { equal: comparable.then_some(equal) }
    }
}

/// A round as stored.
#[derive(Clone, Debug)]
pub struct StoredRound {
    /// Sweep.
    pub sweep: u32,
    /// Round.
    pub round: u32,
    /// Its input.
    pub list: Vec<UnitIx>,
    /// What followed, once it ended.
    pub decision: Option<Decision>,
}

/// A chunk within an experiment: (sweep, round, chunk).
pub type ChunkAt = (u32, u32, u32);

/// A chunk that several workers failed at: (sweep, round, chunk, error).
pub type Quarantined = (u32, u32, u32, String);

/// Result of a store's operation.
pub type Answer<'a, T> = BoxFuture<'a, Result<T, Error>>;

/// A durable store. One conformance suite (`store::conformance`) runs against all of them.
pub trait Store: Send + Sync + 'static {
    /// Takes the lead: the new epoch, above all before it. [`Error::Busy`] or [`Error::Led`] where another
    /// process that is alive holds it and the store can tell.
    fn acquire_epoch(&self) -> Answer<'_, u64>;
    /// How long a lead holds without [`Self::renew_lead`]; none where it holds as long as the process lives.
    fn lead_time(&self) -> Option<Duration> {
        None
    }
    /// Holds the lead for another [`Self::lead_time`] from now on the store's clock; [`Error::StaleEpoch`]
    /// where another coordinator has it.
    fn renew_lead(&self, _epoch: u64) -> Answer<'_, ()> {
        Box::pin(std::future::ready(Ok(())))
    }
    /// Gives the lead up, so that another can take it at once.
    fn resign(&self, _epoch: u64) -> Answer<'_, ()> {
        Box::pin(std::future::ready(Ok(())))
    }
    /// Stores an experiment with its opening rounds; false where it was there already.
    fn put_experiment(&self, epoch: u64, new: NewExperiment) -> Answer<'_, bool>;
    /// All experiments; fails where one of them can't be read.
    fn experiments(&self) -> Answer<'_, Vec<Stored>>;
    /// All experiments, those apart that can't be read.
    fn listing(&self) -> Answer<'_, Listing> {
        Box::pin(
            async move { Ok(Listing { experiments: self.experiments().await?, unreadable: Vec::new() }) },
        )
    }
    /// Sets an experiment's state.
    fn set_state<'a>(&'a self, epoch: u64, id: &'a str, state: State) -> Answer<'a, ()>;
    /// Takes results, all in one transaction: durable when this returns.
    fn accept<'a>(&'a self, epoch: u64, batch: &'a [Incoming]) -> Answer<'a, Vec<Outcome>>;
    /// (sweep, round, chunk) of every accepted chunk, without its scores.
    fn accepted<'a>(&'a self, id: &'a str) -> Answer<'a, Vec<ChunkAt>>;
    /// Lanes' working time by sweep, in microseconds.
    fn busy<'a>(&'a self, id: &'a str) -> Answer<'a, BTreeMap<u32, u64>>;
    /// The scores of some chunks of a round: those of them that are there.
    fn chunks<'a>(&'a self, id: &'a str, sweep: u32, round: u32, of: Range<u32>) -> Answer<'a, Round>;
    /// The scores of a round.
    fn round<'a>(&'a self, id: &'a str, sweep: u32, round: u32) -> Answer<'a, Round> {
        self.chunks(id, sweep, round, 0..u32::MAX)
    }
    /// The stored bytes of some chunks; those without a result are left out.
    fn scores<'a>(&'a self, id: &'a str, chunks: &'a [ChunkAt]) -> Answer<'a, Vec<(ChunkAt, Vec<u8>)>> {
        Box::pin(async move {
            let rounds: BTreeSet<(u32, u32)> = chunks.iter().map(|c| (c.0, c.1)).collect();
            let mut out = Vec::with_capacity(chunks.len());
            for (sweep, round) in rounds {
                let all = self.round(id, sweep, round).await?;
                let of = chunks.iter().filter(|c| (c.0, c.1) == (sweep, round));
                out.extend(of.filter_map(|&c| Some((c, all.get(&c.2)?.encode()))));
            }
            Ok(out)
        })
    }
    /// Opened rounds.
    fn rounds<'a>(&'a self, id: &'a str) -> Answer<'a, Vec<StoredRound>>;
    /// One of them; none where it wasn't opened.
    fn opened<'a>(&'a self, id: &'a str, sweep: u32, round: u32) -> Answer<'a, Option<StoredRound>> {
        Box::pin(async move {
            let all = self.rounds(id).await?;
            Ok(all.into_iter().find(|r| (r.sweep, r.round) == (sweep, round)))
        })
    }
    /// Stores a round's decision and opens the rounds that follow; `constants` are the bytes that the decision names.
    fn decide<'a>(
        &'a self,
        epoch: u64,
        id: &'a str,
        sweep: u32,
        round: u32,
        decision: &'a Decision,
        constants: Option<&'a [u8]>,
    ) -> Answer<'a, ()>;
    /// Sets a chunk aside, unless it has a result: one may come while others fail at it.
    fn quarantine<'a>(&'a self, epoch: u64, id: &'a str, what: &'a Quarantined) -> Answer<'a, ()>;
    /// Chunks that are set aside.
    fn quarantined<'a>(&'a self, id: &'a str) -> Answer<'a, Vec<Quarantined>>;
    /// Puts chunks that are set aside back to work: in one step with the state `running`, as an experiment that is done and
    /// has none of them has all its results.
    fn release<'a>(&'a self, epoch: u64, id: &'a str) -> Answer<'a, ()>;
    /// Adds to the seconds of a step.
    fn add_seconds<'a>(
        &'a self,
        epoch: u64,
        id: &'a str,
        seconds: &'a BTreeMap<String, f64>,
    ) -> Answer<'a, ()>;
    /// Bytes by hash.
    fn blob<'a>(&'a self, hash: &'a str) -> Answer<'a, Vec<u8>>;
    /// Everything recorded of an experiment.
    fn results<'a>(&'a self, id: &'a str) -> Answer<'a, Results>;
    /// Who may call. Tokens are the operator's, not the leader's: they are read and changed without an epoch, while a
    /// coordinator runs or not.
    fn tokens(&self) -> Answer<'_, Vec<Token>> {
        Box::pin(std::future::ready(Ok(Vec::new())))
    }
    /// Keeps a token; [`Error::Refused`] where its name is taken.
    fn put_token(&self, _token: Token) -> Answer<'_, ()> {
        Box::pin(std::future::ready(Err(Error::Refused("this store keeps no tokens".to_owned()))))
    }
    /// Lets go of the token with an id or name, and gives it; none where there is none.
    fn revoke_token<'a>(&'a self, _which: &'a str) -> Answer<'a, Option<Token>> {
        Box::pin(std::future::ready(Ok(None)))
    }
    /// Closes what it holds open. Nothing is asked of it after that.
    fn closed(&self) -> BoxFuture<'_, ()> {
        Box::pin(std::future::ready(()))
    }
}

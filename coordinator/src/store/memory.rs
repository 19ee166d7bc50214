//! A store that forgets: for simulations and tests.

use super::assemble::{self, Differing, Frame};
use super::encode::{MAX_TOKENS, name_taken, too_many_tokens};
use super::{
    Answer, ChunkAt, Error, Incoming, NewExperiment, Outcome, Quarantined, State, Store, Stored, StoredRound,
};
use crate::token::Token;
use ablate_common::decide::{self, Round};
use ablate_common::plan::Decision;
use ablate_common::scores::ChunkScores;
use ablate_output::results::Results;
use std::collections::BTreeMap;
use std::ops::Range;
use std::sync::{Mutex, MutexGuard, PoisonError};

#[derive(Debug)]
struct Kept {
    stored: Stored,
    rounds: BTreeMap<(u32, u32), StoredRound>,
    chunks: BTreeMap<ChunkAt, Incoming>,
    aside: BTreeMap<ChunkAt, String>,
    seconds: BTreeMap<String, f64>,
    busy_us: BTreeMap<u32, u64>,
    compared: u64,
    differing: Vec<Differing>,
}

impl Kept {
    fn open(&mut self, sweep: u32, round: u32, list: Vec<ablate_common::units::UnitIx>) {
        self.rounds.entry((sweep, round)).or_insert(StoredRound { sweep, round, list, decision: None });
    }

    fn accept(&mut self, one: &Incoming) -> Outcome {
        let at = (one.key.sweep, one.key.round, one.key.chunk);
        if !self.rounds.contains_key(&(at.0, at.1)) {
            return Outcome::Unknown;
        }
        self.stored.computed += 1;
        *self.busy_us.entry(at.0).or_default() += one.busy_us;
        if let Some(there) = self.chunks.get(&at) {
            self.stored.duplicate += 1;
            let equal = there.scores == one.scores;
            let outcome = Outcome::second(one, equal, &there.device_class, &there.worker);
            if let Outcome::Duplicate { equal: Some(equal) } = outcome {
                self.compared += 1;
                let differing = (at, there.worker.clone(), one.worker.clone());
                if !equal && !self.differing.contains(&differing) {
                    self.differing.push(differing);
                }
            }
            return outcome;
        }
        self.aside.remove(&at);
        self.chunks.insert(at, one.clone());
        Outcome::Accepted
    }

    fn quarantined(&self) -> Vec<Quarantined> {
        self.aside.iter().map(|(at, e)| (at.0, at.1, at.2, e.clone())).collect()
    }
}

#[derive(Debug, Default)]
struct Inner {
    epoch: u64,
    blobs: BTreeMap<String, Vec<u8>>,
    experiments: BTreeMap<String, Kept>,
    tokens: Vec<Token>,
}

impl Inner {
    fn check(&self, ours: u64) -> Result<(), Error> {
        if self.epoch == ours { Ok(()) } else { Err(Error::StaleEpoch { ours, newer: self.epoch }) }
    }

    fn get(&self, id: &str) -> Result<&Kept, Error> {
        self.experiments.get(id).ok_or_else(|| Error::NotFound(format!("experiment {id}")))
    }

    fn change(&mut self, epoch: u64, id: &str) -> Result<&mut Kept, Error> {
        self.check(epoch)?;
        self.experiments.get_mut(id).ok_or_else(|| Error::NotFound(format!("experiment {id}")))
    }

    fn put(&mut self, epoch: u64, new: NewExperiment) -> Result<bool, Error> {
        self.check(epoch)?;
        let id = new.plan.identity();
        for ((hash, ..), prepared) in new.plan.blobs().zip(&new.prepared) {
            let data = serde_json::to_vec(prepared).map_err(|e| Error::Damaged(e.to_string()))?;
            self.blobs.insert(hash.to_owned(), data);
        }
        if let Some(kept) = self.experiments.get_mut(&id) {
            kept.stored.model_path = new.model_path;
            kept.stored.output = new.output;
            return Ok(false);
        }
        let opening = decide::opening(&new.plan);
        let stored = Stored {
            id: id.clone(),
            plan: new.plan,
            model_path: new.model_path,
            output: new.output,
            state: State::Running,
            computed: 0,
            duplicate: 0,
        };
        let mut kept = Kept {
            stored,
            rounds: BTreeMap::new(),
            chunks: BTreeMap::new(),
            aside: BTreeMap::new(),
            seconds: BTreeMap::new(),
            busy_us: BTreeMap::new(),
            compared: 0,
            differing: Vec::new(),
        };
        opening.into_iter().for_each(|(sweep, round, list)| kept.open(sweep, round, list));
        self.experiments.insert(id, kept);
        Ok(true)
    }

    fn results(&self, id: &str) -> Result<Results, Error> {
        let kept = self.get(id)?;
        let mut prepared = Vec::new();
        for task in &kept.stored.plan.tasks {
            let blob = self.blobs.get(&task.prepared).ok_or_else(|| Error::NotFound("blob".into()))?;
            prepared.push(serde_json::from_slice(blob).map_err(|e| Error::Damaged(e.to_string()))?);
        }
        let frame = Frame {
            id: id.to_owned(),
            plan: kept.stored.plan.clone(),
            prepared,
            computed: kept.stored.computed,
            duplicate: kept.stored.duplicate,
            compared: (kept.compared, kept.differing.clone()),
            rounds: kept.rounds.values().cloned().collect(),
            quarantined: kept.quarantined(),
            seconds: kept.seconds.clone(),
            busy_us: kept.busy_us.clone(),
        };
        let mut results = frame.results();
        for (&at, c) in &kept.chunks {
            assemble::add(&mut results, at, &c.scores, &c.device_class, &c.version)?;
        }
        Ok(results)
    }
}

/// A store in memory.
#[derive(Debug, Default)]
pub struct MemoryStore {
    inner: Mutex<Inner>,
}

impl MemoryStore {
    fn inner(&self) -> MutexGuard<'_, Inner> {
        self.inner.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

fn ready<'a, T: Send + 'a>(result: Result<T, Error>) -> Answer<'a, T> {
    Box::pin(std::future::ready(result))
}

impl Store for MemoryStore {
    fn acquire_epoch(&self) -> Answer<'_, u64> {
        let mut inner = self.inner();
        inner.epoch += 1;
        ready(Ok(inner.epoch))
    }

    fn put_experiment(&self, epoch: u64, new: NewExperiment) -> Answer<'_, bool> {
        ready(self.inner().put(epoch, new))
    }

    fn experiments(&self) -> Answer<'_, Vec<Stored>> {
        ready(Ok(self.inner().experiments.values().map(|k| k.stored.clone()).collect()))
    }

    fn set_state<'a>(&'a self, epoch: u64, id: &'a str, state: State) -> Answer<'a, ()> {
        ready(self.inner().change(epoch, id).map(|k| k.stored.state = state))
    }

    fn accept<'a>(&'a self, epoch: u64, batch: &'a [Incoming]) -> Answer<'a, Vec<Outcome>> {
        let mut inner = self.inner();
        if let Err(e) = inner.check(epoch) {
            return ready(Err(e));
        }
        let take = |one: &Incoming| match inner.experiments.get_mut(&one.key.experiment) {
            Some(kept) => kept.accept(one),
            None => Outcome::Unknown,
        };
        ready(Ok(batch.iter().map(take).collect()))
    }

    fn accepted<'a>(&'a self, id: &'a str) -> Answer<'a, Vec<ChunkAt>> {
        ready(Ok(self.inner().get(id).map_or(Vec::new(), |k| k.chunks.keys().copied().collect())))
    }

    fn busy<'a>(&'a self, id: &'a str) -> Answer<'a, BTreeMap<u32, u64>> {
        ready(Ok(self.inner().get(id).map_or(BTreeMap::new(), |k| k.busy_us.clone())))
    }

    fn chunks<'a>(&'a self, id: &'a str, sweep: u32, round: u32, of: Range<u32>) -> Answer<'a, Round> {
        let inner = self.inner();
        let Ok(kept) = inner.get(id) else { return ready(Ok(Round::new())) };
        if of.is_empty() {
            return ready(Ok(Round::new()));
        }
        let of = kept.chunks.range((sweep, round, of.start)..(sweep, round, of.end));
        ready(
            of.map(|(at, c)| match ChunkScores::decode(&c.scores) {
                Ok(scores) => Ok((at.2, scores)),
                Err(e) => Err(Error::Damaged(e.to_string())),
            })
            .collect(),
        )
    }

    fn rounds<'a>(&'a self, id: &'a str) -> Answer<'a, Vec<StoredRound>> {
        ready(Ok(self.inner().get(id).map_or(Vec::new(), |k| k.rounds.values().cloned().collect())))
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
        let mut inner = self.inner();
        let changed = inner.change(epoch, id).map(|kept| {
            if let Some(r) = kept.rounds.get_mut(&(sweep, round)) {
                r.decision = Some(decision.clone());
            }
            decision.opens.iter().for_each(|(s, r, list)| kept.open(*s, *r, list.clone()));
        });
        if let (Ok(()), Some(hash), Some(bytes)) = (&changed, &decision.constants, constants) {
            inner.blobs.insert(hash.clone(), bytes.to_vec());
        }
        ready(changed)
    }

    fn quarantine<'a>(&'a self, epoch: u64, id: &'a str, what: &'a Quarantined) -> Answer<'a, ()> {
        ready(self.inner().change(epoch, id).map(|kept| {
            let at = (what.0, what.1, what.2);
            if !kept.chunks.contains_key(&at) {
                kept.aside.insert(at, what.3.clone());
            }
        }))
    }

    fn quarantined<'a>(&'a self, id: &'a str) -> Answer<'a, Vec<Quarantined>> {
        ready(Ok(self.inner().get(id).map_or(Vec::new(), Kept::quarantined)))
    }

    fn release<'a>(&'a self, epoch: u64, id: &'a str) -> Answer<'a, ()> {
        ready(self.inner().change(epoch, id).map(|kept| {
            kept.aside.clear();
            kept.stored.state = State::Running;
        }))
    }

    fn add_seconds<'a>(
        &'a self,
        epoch: u64,
        id: &'a str,
        seconds: &'a BTreeMap<String, f64>,
    ) -> Answer<'a, ()> {
        ready(self.inner().change(epoch, id).map(|kept| {
            seconds.iter().for_each(|(step, s)| *kept.seconds.entry(step.clone()).or_default() += s);
        }))
    }

    fn blob<'a>(&'a self, hash: &'a str) -> Answer<'a, Vec<u8>> {
        let found = self.inner().blobs.get(hash).cloned();
        ready(found.ok_or_else(|| Error::NotFound(format!("blob {hash}"))))
    }

    fn results<'a>(&'a self, id: &'a str) -> Answer<'a, Results> {
        ready(self.inner().results(id))
    }

    fn tokens(&self) -> Answer<'_, Vec<Token>> {
        ready(Ok(self.inner().tokens.clone()))
    }

    fn put_token(&self, token: Token) -> Answer<'_, ()> {
        let tokens = &mut self.inner().tokens;
        if tokens.len() >= MAX_TOKENS {
            return ready(Err(too_many_tokens()));
        }
        if tokens.iter().any(|t| t.name == token.name || t.id == token.id) {
            return ready(Err(name_taken(&token)));
        }
        tokens.push(token);
        ready(Ok(()))
    }

    fn revoke_token<'a>(&'a self, which: &'a str) -> Answer<'a, Option<Token>> {
        let tokens = &mut self.inner().tokens;
        let at = tokens.iter().position(|t| t.id == which || t.name == which);
        ready(Ok(at.map(|at| tokens.remove(at))))
    }
}

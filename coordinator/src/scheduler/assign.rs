//! Who gets what: shards of pending chunks in sweep order, then audits, and, once nothing is pending, copies of the slowest leased
//! chunks. Experiments that run at the same time have their turns.

use super::state::{Experiment, Lease, Round};
use super::{Action, Held, LeaseId, Millis, Scheduler, WorkerId};
#[cfg(feature = "mutations")]
use crate::mutation;
use std::collections::BTreeSet;

/// Workers that can take more: (chunks leased per lane, worker).
pub(super) type Ready = BTreeSet<(u32, WorkerId)>;

/// How long a worker stays with an experiment while it has chunks for it, in ms: a lane that goes to another one may have to open
/// it, which can take longer than a shard.
const STINT: Millis = 30_000;

/// Pending chunks of a round that a worker can have: ((sweep, round), chunks).
type Run = ((u32, u32), BTreeSet<u32>);

impl Scheduler {
    /// Spends the workers' credit. Those with the least leased go first, so that a late worker isn't
    /// left without while another hoards.
    pub(super) fn assign(&mut self, now: Millis, out: &mut Vec<Action>) {
        if now < self.config.quiet {
            return;
        }
        let able = self.workers.iter().filter(|(_, w)| w.credit > 0 && !w.draining);
        let mut ready: Ready = able.map(|(&id, w)| (self.leases.chunks_of(id) / w.lanes, id)).collect();
        if ready.is_empty() {
            return;
        }
        // At a sweep's tail hundreds of workers are idle, and nothing is pending at each of thousands of events.
        let pending = |e: &Experiment| e.running && e.rounds.values().any(|r| !r.pending.is_empty());
        if self.experiments.values().any(pending) {
            let lanes: u32 = self.workers.values().filter(|w| !w.draining).map(|w| w.lanes).sum();
            ready = self.give_each(ready, |s, worker| s.give_pending(worker, lanes, now, out));
        }
        if self.experiments.values().any(|e| !e.audits.is_empty()) {
            ready = self.give_each(ready, |s, worker| s.give_audit(worker, now, out));
        }
        self.give_copies(&ready, now, out);
    }

    /// Gives one thing after the other, each to the worker with the least leased that can have it; who is left without. What
    /// there is to give only becomes less: who can have nothing of it now doesn't later.
    fn give_each(&mut self, mut ready: Ready, mut give: impl FnMut(&mut Self, WorkerId) -> bool) -> Ready {
        let mut without = Ready::new();
        while let Some((load, worker)) = ready.pop_first() {
            if !give(self, worker) {
                without.insert((load, worker));
            } else if let Some(w) = self.workers.get(&worker).filter(|w| w.credit > 0) {
                ready.insert((self.leases.chunks_of(worker) / w.lanes, worker));
            }
        }
        without
    }

    /// Takes over a lease that a worker brings, for a whole lease from now: what of it is still to be done, and
    /// nobody else has.
    pub(super) fn adopt(&mut self, worker: WorkerId, held: &Held, now: Millis, out: &mut Vec<Action>) {
        #[cfg(feature = "mutations")]
        if mutation::is(mutation::Mutation::NotTakenOver) {
            return;
        }
        let Held { lease: id, experiment, round: at, chunks } = held;
        // Ids to come are this coordinator's to give.
        if *id >= self.next_lease || self.leases.contains(*id) {
            return;
        }
        let (until, before) = (self.until(now), self.leased_to(worker));
        let has = self.leases.count_of(worker);
        let Some(w) = self.workers.get_mut(&worker).filter(|w| !w.draining && has < 4 * w.lanes as usize)
        else {
            return;
        };
        let fit = |e: &&mut Experiment| e.running && !e.finished && !e.excluded.contains_key(&worker);
        let Some(e) = self.experiments.get_mut(experiment).filter(fit) else { return };
        let Some(r) = e.rounds.get_mut(at) else { return };
        let open: BTreeSet<u32> = chunks.iter().copied().filter(|c| r.pending.remove(c)).collect();
        if open.is_empty() {
            return;
        }
        // It is back: what it had didn't end it.
        for &c in &open {
            if let Some(n) = e.losses.get_mut(&(at.0, at.1, c)) {
                *n = n.saturating_sub(1);
            }
        }
        if w.opened.insert(experiment.clone()) {
            out.push(Action::Open(worker, experiment.clone()));
        }
        let ahead = u64::from((before + open.len() as u32).div_ceil(w.lanes));
        let (sweep, round) = *at;
        self.leases.insert(
            *id,
            Lease { worker, experiment: experiment.clone(), sweep, round, open, ahead, since: now, until },
        );
    }

    fn give_pending(&mut self, worker: WorkerId, lanes: u32, now: Millis, out: &mut Vec<Action>) -> bool {
        let Some(w) = self.workers.get(&worker) else { return false };
        let stays = w.stint.as_ref().filter(|(_, since)| now.saturating_sub(*since) < STINT);
        let found = stays
            .and_then(|(id, _)| Some((id, self.run_for(worker, id, self.experiments.get(id)?, lanes, now)?)))
            .or_else(|| self.next_turn(worker, lanes, now));
        let Some((id, (at, chunks))) = found else { return false };
        let (experiment, latest) = (id.clone(), self.next_lease);
        let mut list = Vec::new();
        if let Some(e) = self.experiments.get_mut(&experiment) {
            e.latest = latest;
            if let Some(r) = e.rounds.get_mut(&at) {
                chunks.iter().for_each(|c| {
                    r.pending.remove(c);
                });
                list.clone_from(&r.list);
            }
        }
        if let Some(w) = self.workers.get_mut(&worker)
            && w.stint.as_ref().is_none_or(|(id, _)| *id != experiment)
        {
            w.stint = Some((experiment.clone(), now));
        }
        self.lease(worker, experiment, at, list, chunks, now, out);
        true
    }

    /// Whose turn it is: the experiment of which other workers have the fewest shards, each of which is about as long as any
    /// other; of those with the fewest, the one that has waited longest for a shard.
    fn next_turn(&self, worker: WorkerId, lanes: u32, now: Millis) -> Option<(&String, Run)> {
        let mut best: Option<((u32, LeaseId), &String, Run)> = None;
        for (id, e) in self.experiments.iter().filter(|(_, e)| e.running) {
            let turn = (self.leases.elsewhere(worker, id), e.latest);
            if best.as_ref().is_none_or(|b| turn < b.0)
                && let Some(run) = self.run_for(worker, id, e, lanes, now)
            {
                best = Some((turn, id, run));
            }
        }
        best.map(|(_, id, run)| (id, run))
    }

    /// The first pending chunks of an experiment that a worker can have.
    fn run_for(&self, worker: WorkerId, id: &str, e: &Experiment, lanes: u32, now: Millis) -> Option<Run> {
        if !e.running || e.excluded.contains_key(&worker) {
            return None;
        }
        // Rarely is there one.
        let able = if e.failures.is_empty() { BTreeSet::new() } else { self.able(e) };
        // Others get as long as a lease to take what failed here.
        let since = now.checked_sub(self.config.lease);
        let fits = |at: &(u32, u32), c: u32| !e.better_elsewhere((at.0, at.1, c), worker, &able, since);
        let (&at, round) = e.rounds.iter().find(|(at, r)| r.pending.iter().any(|&c| fits(at, c)))?;
        let share = (round.pending.len() as u32).div_ceil(2 * lanes.max(1));
        let by_time = self.workers.get(&worker)?.expected(id, at.0);
        let by_time = by_time.map_or(1, |ms| (self.config.shard / ms) as u32);
        Some((at, run_of(round, by_time.clamp(1, share.max(1)), |c| fits(&at, c))))
    }

    /// Workers that can have an experiment's chunks.
    fn able(&self, e: &Experiment) -> BTreeSet<WorkerId> {
        let able = self.workers.iter().filter(|(id, w)| !w.draining && !e.excluded.contains_key(id));
        able.map(|(&id, _)| id).collect()
    }

    #[expect(clippy::too_many_arguments, reason = "the parts of a lease")]
    pub(super) fn lease(
        &mut self,
        worker: WorkerId,
        experiment: String,
        (sweep, round): (u32, u32),
        list: Vec<u32>,
        chunks: BTreeSet<u32>,
        now: Millis,
        out: &mut Vec<Action>,
    ) {
        let (until, id): (Millis, LeaseId) = (self.until(now), self.next_lease);
        let before = self.leased_to(worker);
        let (Some(w), Some(&first)) = (self.workers.get_mut(&worker), chunks.first()) else { return };
        w.credit -= 1;
        if w.opened.insert(experiment.clone()) {
            out.push(Action::Open(worker, experiment.clone()));
        }
        let count = chunks.len() as u32;
        out.push(Action::Shard {
            worker,
            lease: id,
            experiment: experiment.clone(),
            sweep,
            round,
            list,
            first,
            count,
        });
        let ahead = u64::from((before + count).div_ceil(w.lanes));
        self.leases
            .insert(id, Lease { worker, experiment, sweep, round, open: chunks, ahead, since: now, until });
        self.next_lease += 1;
    }
}

/// The first run of neighbouring pending chunks that fit, at most `limit` long.
fn run_of(round: &Round, limit: u32, fits: impl Fn(u32) -> bool) -> BTreeSet<u32> {
    let mut chunks = BTreeSet::new();
    for &c in round.pending.iter().filter(|&&c| fits(c)) {
        if chunks.last().is_some_and(|&last| last + 1 != c) || chunks.len() as u32 == limit {
            break;
        }
        chunks.insert(c);
    }
    chunks
}

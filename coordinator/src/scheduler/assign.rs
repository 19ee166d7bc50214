//! Who gets what: shards of pending chunks in sweep order, and, once nothing is pending, copies of the
//! slowest leased chunks (the first result wins, copies are compared).

use super::state::{Experiment, Lease, Round};
use super::{Action, Held, LeaseId, Millis, Scheduler, WorkerId};
#[cfg(feature = "mutations")]
use crate::mutation;
use std::collections::BTreeSet;

impl Scheduler {
    /// Spends the workers' credit. Those with the least leased go first, so that a late worker isn't
    /// left without while another hoards.
    pub(super) fn assign(&mut self, now: Millis, out: &mut Vec<Action>) {
        if now < self.config.quiet {
            return;
        }
        loop {
            let mut ready: Vec<(u32, WorkerId)> = self
                .workers
                .iter()
                .filter(|(_, w)| w.credit > 0 && !w.draining)
                .map(|(&id, w)| (self.leased_to(id) / w.lanes, id))
                .collect();
            ready.sort_unstable();
            let given = ready.iter().any(|&(_, worker)| self.give_pending(worker, now, out));
            if given || ready.iter().any(|&(_, worker)| self.give_audit(worker, now, out)) {
                continue;
            }
            for (_, worker) in ready {
                self.give_copy(worker, now, out);
            }
            return;
        }
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
        if *id >= self.next_lease || self.leases.contains_key(id) {
            return;
        }
        let (until, before) = (self.until(now), self.leased_to(worker));
        let has = self.leases.values().filter(|l| l.worker == worker).count();
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

    fn give_pending(&mut self, worker: WorkerId, now: Millis, out: &mut Vec<Action>) -> bool {
        let lanes: u32 = self.workers.values().filter(|w| !w.draining).map(|w| w.lanes).sum();
        let Some(w) = self.workers.get(&worker) else { return false };
        // Others get as long as a lease to take what failed here.
        let since = now.checked_sub(self.config.lease);
        let active = |e: &Experiment| -> BTreeSet<WorkerId> {
            let able = self.workers.iter().filter(|(id, w)| !w.draining && !e.excluded.contains_key(id));
            able.map(|(&id, _)| id).collect()
        };
        let found = self
            .experiments
            .iter()
            .filter(|(_, e)| e.running && !e.excluded.contains_key(&worker))
            .find_map(|(id, e)| {
                // Rarely is there one.
                let able = if e.failures.is_empty() { BTreeSet::new() } else { active(e) };
                let fits =
                    |at: &(u32, u32), c: u32| !e.better_elsewhere((at.0, at.1, c), worker, &able, since);
                let (&at, round) = e.rounds.iter().find(|(at, r)| r.pending.iter().any(|&c| fits(at, c)))?;
                let share = (round.pending.len() as u32).div_ceil(2 * lanes.max(1));
                let by_time = w.expected(id, at.0).map_or(1, |ms| (self.config.shard / ms) as u32);
                Some((
                    id.clone(),
                    at,
                    run_of(round, by_time.clamp(1, share.max(1)), |c| fits(&at, c)),
                    round.list.clone(),
                ))
            });
        let Some((experiment, (sweep, round), chunks, list)) = found else { return false };
        if let Some(r) = self.experiments.get_mut(&experiment).and_then(|e| e.rounds.get_mut(&(sweep, round)))
        {
            chunks.iter().for_each(|c| {
                r.pending.remove(c);
            });
        }
        self.lease(worker, experiment, (sweep, round), list, chunks, now, out);
        true
    }

    /// A copy of a chunk of the oldest lease, where another worker has had it for more than twice the time
    /// that it should need (with what it had to do before), and nobody else has a copy.
    fn give_copy(&mut self, worker: WorkerId, now: Millis, out: &mut Vec<Action>) {
        let Some(w) = self.workers.get(&worker) else { return };
        let copies = |lease: &Lease, chunk: u32| {
            let same = |l: &&Lease| {
                l.experiment == lease.experiment
                    && (l.sweep, l.round) == (lease.sweep, lease.round)
                    && l.open.contains(&chunk)
            };
            self.leases.values().filter(same).count()
        };
        // Set aside while its worker still works on it: a copy would fail as the others did.
        let aside = |l: &Lease, chunk: u32| {
            let round = self.experiments.get(&l.experiment).and_then(|e| e.rounds.get(&(l.sweep, l.round)));
            round.is_some_and(|r| r.aside.contains(&chunk))
        };
        let slowest = self
            .leases
            .values()
            .filter(|l| l.worker != worker)
            .filter(|l| {
                self.experiments
                    .get(&l.experiment)
                    .is_some_and(|e| e.running && !e.excluded.contains_key(&worker))
            })
            .filter_map(|l| {
                let theirs = self.workers.get(&l.worker).and_then(|o| o.expected(&l.experiment, l.sweep));
                let each = w.expected(&l.experiment, l.sweep).or(theirs).unwrap_or(self.config.shard);
                if now.saturating_sub(l.since) <= 2 * each * l.ahead {
                    return None;
                }
                // From its end: its worker goes from the beginning.
                let &chunk = l.open.iter().rev().find(|&&c| copies(l, c) == 1 && !aside(l, c))?;
                Some((l.since, l, chunk))
            })
            .min_by_key(|(since, ..)| *since)
            .map(|(_, l, chunk)| (l.experiment.clone(), (l.sweep, l.round), chunk));
        let Some((experiment, at, chunk)) = slowest else { return };
        let list = self.experiments.get(&experiment).and_then(|e| e.rounds.get(&at)).map(|r| r.list.clone());
        self.lease(worker, experiment, at, list.unwrap_or_default(), [chunk].into(), now, out);
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

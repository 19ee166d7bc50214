//! Audits: a share of the chunks, drawn by their names, is computed once more by another worker with the same device classes, and
//! the store compares the bytes. An audit is given once nothing else is left to give. An experiment's end waits for its audits, but
//! neither for workers that aren't there nor, longer than a few leases, for those that don't come to it.

use super::state::Worker;
use super::{Action, ChunkAt, Millis, Scheduler, WorkerId};

/// So many leases' time an experiment's end waits for audits at most.
const LEASES: Millis = 4;

/// A number below a million that a chunk's name gives (FNV-1a, and a finishing mix).
fn draw(experiment: &str, (sweep, round, chunk): ChunkAt) -> u32 {
    let numbers = [sweep, round, chunk].into_iter().flat_map(u32::to_le_bytes);
    let hash = experiment
        .bytes()
        .chain(numbers)
        .fold(0xcbf2_9ce4_8422_2325_u64, |h, b| (h ^ u64::from(b)).wrapping_mul(0x0100_0000_01b3));
    let mixed = (hash ^ (hash >> 32)).wrapping_mul(0x9e37_79b9_7f4a_7c15);
    (((mixed >> 32) * 1_000_000) >> 32) as u32
}

/// Whether a worker can check what another one did.
fn can_check(w: &Worker, class: &str) -> bool {
    !w.draining && w.class == class
}

impl Scheduler {
    /// A result came: whether it is to be computed once more, or was the second one.
    pub(super) fn audit(&mut self, id: &str, at: ChunkAt, worker: WorkerId, duplicate: bool) {
        let share = self.config.audit;
        let class = self.workers.get(&worker).map(|w| w.class.clone());
        let Some(e) = self.experiments.get_mut(id) else { return };
        if duplicate {
            e.auditing.remove(&at);
        } else if let Some(class) = class
            && draw(id, at) < share
        {
            e.audits.insert(at, (worker, class));
        }
    }

    /// Whether audits are under way, or could be, where nothing else is left. Those that nobody can do are given up.
    pub(super) fn audits_left(&mut self, id: &str) -> bool {
        let (now, patience) = (self.now, LEASES * self.config.lease);
        let Some(e) = self.experiments.get_mut(id) else { return false };
        let (workers, excluded) = (&self.workers, &e.excluded);
        e.audits.retain(|_, (by, class)| {
            workers.iter().any(|(w, x)| w != by && !excluded.contains_key(w) && can_check(x, class))
        });
        if now.saturating_sub(*e.audits_since.get_or_insert(now)) >= patience {
            e.audits.clear();
            e.auditing.clear();
        }
        !e.audits.is_empty() || !e.auditing.is_empty()
    }

    /// Ends what only audits kept from its end, where those can't be done any more.
    pub(super) fn settle_audits(&mut self, out: &mut Vec<Action>) {
        if self.config.audit == 0 {
            return;
        }
        let all: Vec<String> = self.experiments.keys().cloned().collect();
        all.iter().for_each(|id| self.settle(id, out));
    }

    /// Leases an audit to a worker that is free.
    pub(super) fn give_audit(&mut self, worker: WorkerId, now: Millis, out: &mut Vec<Action>) -> bool {
        let Some(w) = self.workers.get(&worker) else { return false };
        let found = self.experiments.iter().find_map(|(id, e)| {
            if !e.running || e.finished || e.excluded.contains_key(&worker) {
                return None;
            }
            let fits = |(by, class): &(WorkerId, String)| *by != worker && can_check(w, class);
            let (&at, _) = e.audits.iter().find(|(_, from)| fits(from))?;
            let list = e.rounds.get(&(at.0, at.1))?.list.clone();
            Some((id.clone(), at, list))
        });
        let Some((id, at, list)) = found else { return false };
        self.with(&id, |e| {
            e.audits.remove(&at);
            e.auditing.insert(at);
        });
        self.lease(worker, id, (at.0, at.1), list, [at.2].into(), now, out);
        true
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_draw_is_even() {
        let drawn = (0..100_000).filter(|&c| draw("an experiment", (1, 0, c)) < 20_000).count();
        assert!((1_800..2_200).contains(&drawn), "{drawn} of 100,000 at 2 %");
    }
}

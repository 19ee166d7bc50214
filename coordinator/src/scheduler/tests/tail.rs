//! Copies at a sweep's tail: found in one go for all workers, they are those that one worker after the other would find.

use super::*;
use crate::scheduler::assign::Ready;
use crate::scheduler::state::Lease;

const IDS: [&str; 2] = ["e", "f"];
const WORKERS: std::ops::RangeInclusive<WorkerId> = 1..=5;

/// What [`Scheduler::copies`] says, told simply: each worker in turn looks at all leases.
fn one_by_one(mut s: Scheduler, ready: &Ready, now: Millis) -> Vec<(WorkerId, LeaseId, u32)> {
    let mut all = Vec::new();
    for &(_, worker) in ready {
        let Some((id, chunk)) = slowest(&s, worker, now) else { continue };
        all.push((worker, id, chunk));
        let Lease { experiment, sweep, round, .. } = s.leases.get(id).unwrap().clone();
        s.workers.get_mut(&worker).unwrap().credit = 1;
        s.lease(worker, experiment, (sweep, round), vec![], [chunk].into(), now, &mut Vec::new());
    }
    all
}

/// The oldest lease that another worker has had for too long, and its last chunk that nobody else has.
fn slowest(s: &Scheduler, worker: WorkerId, now: Millis) -> Option<(LeaseId, u32)> {
    let mut oldest: Option<(Millis, LeaseId, u32)> = None;
    for (id, l) in s.leases.iter().filter(|(_, l)| l.worker != worker) {
        let e = &s.experiments[&l.experiment];
        if !e.running || e.excluded.contains_key(&worker) {
            continue;
        }
        let theirs = s.workers[&l.worker].expected(&l.experiment, l.sweep);
        let own = s.workers[&worker].expected(&l.experiment, l.sweep);
        let each = own.or(theirs).unwrap_or(s.config.shard);
        if now.saturating_sub(l.since) <= 2 * each * l.ahead {
            continue;
        }
        let same = |o: &Lease| (&o.experiment, o.sweep, o.round) == (&l.experiment, l.sweep, l.round);
        let alone = |c: u32| s.leases.iter().filter(|(_, o)| same(o) && o.open.contains(&c)).count() == 1;
        let aside = &e.rounds[&(l.sweep, l.round)].aside;
        let chunk = l.open.iter().rev().copied().find(|&c| alone(c) && !aside.contains(&c));
        if let Some(chunk) = chunk
            && oldest.is_none_or(|o| l.since < o.0)
        {
            oldest = Some((l.since, id, chunk));
        }
    }
    oldest.map(|(_, id, chunk)| (id, chunk))
}

/// Two experiments, and five workers that know nothing of their chunks yet.
fn start() -> Scheduler {
    let mut s = Scheduler::new(Config::default(), 1000);
    for id in IDS {
        s.on(Event::Added(Box::new(Summary { id: id.into(), ..summary(1) })), 0);
    }
    for worker in WORKERS {
        s.on(joined(worker, 1), 0);
    }
    s
}

proptest! {
    #[test]
    fn copies_are_those_that_each_worker_would_find(
        speeds in prop::collection::vec((WORKERS, 0usize..2, 1u32..3, 1u64..8_000_000), 0..12),
        leases in prop::collection::vec((WORKERS, 0usize..2, 1u32..3, 0u32..5, 1u32..4, 0u64..60_000, 1u64..4), 0..24),
        aside in prop::collection::vec((0usize..2, 0u32..7), 0..3),
        excluded in prop::collection::vec((WORKERS, 0usize..2), 0..2),
        paused in any::<bool>(),
        now in 0u64..120_000,
    ) {
        let mut s = start();
        for (worker, of, sweep, us) in speeds {
            s.workers.get_mut(&worker).unwrap().measure(IDS[of], sweep, us);
        }
        for (of, chunk) in aside {
            s.with(IDS[of], |e| {
                e.set_aside((1, 0, chunk));
            });
        }
        for (worker, of) in excluded {
            s.with(IDS[of], |e| {
                e.excluded.insert(worker, "it doesn't fit".into());
            });
        }
        if paused {
            s.on(Event::Pause("f".into()), 0);
        }
        for (id, (worker, of, sweep, first, count, since, ahead)) in (1..).zip(leases) {
            let (experiment, open) = (IDS[of].to_owned(), (first..first + count).collect());
            s.leases.insert(id, Lease { worker, experiment, sweep, round: 0, open, ahead, since, until: now + 1 });
        }
        s.leases.check();
        let ready: Ready = WORKERS.map(|w| (s.leased_to(w), w)).collect();
        prop_assert_eq!(s.copies(&ready, now), one_by_one(s.clone(), &ready, now));
    }
}

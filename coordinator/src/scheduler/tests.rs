//! The scheduler under random events: nothing is lost, nothing is counted twice, everything ends.

mod tail;
mod turns;

use super::*;
use proptest::prelude::*;
use std::collections::BTreeSet;

fn summary(rounds: u32) -> Summary {
    let shape = |rounds: Vec<u32>, decides| SweepShape { rounds, decides, needs: vec![0] };
    Summary {
        id: "e".into(),
        sweeps: vec![
            shape(vec![1], false),
            shape(vec![7], false),
            shape((0..rounds).map(|_| 3).collect(), true),
        ],
        rounds: vec![(0, 0, vec![], false), (1, 0, vec![], false), (2, 0, vec![], false)],
        accepted: vec![],
        quarantined: vec![],
        computed: (0, 0),
        busy_us: BTreeMap::new(),
        running: true,
        protocol: 2,
    }
}

fn joined(worker: WorkerId, lanes: u32) -> Event {
    Event::Joined { worker, lanes, protocol: 3, class: "x".into() }
}

/// A driver that keeps what the store would keep.
struct Driver {
    config: Config,
    scheduler: Scheduler,
    now: Millis,
    accepted: BTreeSet<ChunkAt>,
    shards: Vec<(WorkerId, LeaseId, u32, u32, Vec<u32>)>,
    aside: BTreeSet<ChunkAt>,
    finished: bool,
    last_round: u32,
    /// Rounds of the greedy sweep that were decided.
    decided: u32,
    leaderships: u64,
}

impl Driver {
    fn new(rounds: u32) -> Self {
        Self::auditing(rounds, 0)
    }

    /// With audits of so many millionths.
    fn auditing(rounds: u32, audit: u32) -> Self {
        let config = Config { audit, ..Config::default() };
        let mut d = Self {
            config,
            scheduler: Scheduler::new(config, 1),
            now: 0,
            accepted: BTreeSet::new(),
            shards: Vec::new(),
            aside: BTreeSet::new(),
            finished: false,
            last_round: rounds - 1,
            decided: 0,
            leaderships: 0,
        };
        d.send(Event::Added(Box::new(summary(rounds))));
        d
    }

    fn send(&mut self, event: Event) {
        let mut todo = self.scheduler.on(event, self.now);
        while let Some(action) = todo.pop() {
            match action {
                Action::Shard { worker, lease, sweep, round, list, first, count, .. } => {
                    assert_eq!(list.len() as u32, if sweep == 2 { round } else { 0 });
                    let aside = (first..first + count).any(|c| self.aside.contains(&(sweep, round, c)));
                    assert!(!aside, "leased while it is set aside");
                    self.shards.push((worker, lease, sweep, round, (first..first + count).collect()));
                }
                Action::Decide(id, sweep, round) => {
                    assert!((0..3).all(|c| self.accepted.contains(&(sweep, round, c))), "decided early");
                    assert!(self.accepted.contains(&(0, 0, 0)), "decided without the reference");
                    self.decided = self.decided.max(round + 1);
                    let opens = if round < self.last_round {
                        vec![(2, round + 1, (0..=round).collect())]
                    } else {
                        vec![]
                    };
                    todo.extend(
                        self.scheduler.on(Event::Decided { experiment: id, sweep, round, opens }, self.now),
                    );
                }
                Action::Quarantine(_, at, _) => assert!(self.aside.insert(at)),
                Action::Finished(_) => {
                    assert!(!self.finished, "finished twice");
                    self.finished = true;
                }
                _ => {}
            }
        }
        self.scheduler.leases.check();
    }

    /// Another coordinator takes over with what the store kept; workers 1 to 3 bring what they hold, but for
    /// one of them, which is gone.
    fn takeover(&mut self, gone: WorkerId) {
        self.leaderships += 1;
        self.scheduler = Scheduler::new(self.config, self.leaderships << 32);
        let mut kept = summary(self.last_round + 1);
        kept.rounds.truncate(2);
        kept.rounds.extend(
            (0..=self.decided.min(self.last_round)).map(|r| (2, r, (0..r).collect(), r < self.decided)),
        );
        kept.accepted = self.accepted.iter().copied().collect();
        kept.quarantined = self.aside.iter().copied().collect();
        kept.computed = (kept.accepted.len() as u64, 0);
        self.finished = false;
        self.send(Event::Added(Box::new(kept)));
        self.shards.retain(|s| s.0 != gone);
        for worker in (1..4).filter(|&w| w != gone) {
            self.send(joined(worker, 1));
            let of: Vec<_> = self.shards.iter().filter(|s| s.0 == worker).cloned().collect();
            let held = of
                .iter()
                .map(|(_, lease, sweep, round, chunks)| Held {
                    lease: *lease,
                    experiment: "e".into(),
                    round: (*sweep, *round),
                    chunks: chunks.clone(),
                })
                .collect();
            self.send(Event::Bring { worker, held });
            let leases: Vec<LeaseId> = of.iter().map(|s| s.1).collect();
            let told = self.scheduler.on(Event::Renew { worker, leases }, self.now);
            let Some(Action::Renewed(_, kept)) = told.first() else { panic!("{told:?}") };
            self.shards.retain(|s| s.0 != worker || kept.contains(&s.1));
            self.send(Event::Credit { worker, shards: 1 });
        }
    }

    /// One chunk of the k-th known shard: done or failed.
    fn work(&mut self, k: usize, fail: bool) {
        if self.shards.is_empty() {
            return;
        }
        let k = k % self.shards.len();
        let (worker, lease, sweep, round, chunks) = &mut self.shards[k];
        let (worker, lease, at) = (*worker, *lease, (*sweep, *round, chunks.remove(0)));
        if chunks.is_empty() {
            self.shards.swap_remove(k);
        }
        let experiment = "e".to_owned();
        if fail {
            self.send(Event::Failed { experiment, at, worker, lease, fault: Fault::Chunk("x".into()) });
        } else {
            let duplicate = !self.accepted.insert(at);
            self.aside.remove(&at);
            self.send(Event::Committed { experiment, at, worker, lease, duplicate, busy_us: 1_000_000 });
        }
        self.send(Event::Credit { worker, shards: 1 });
    }
}

proptest! {
    #[test]
    fn every_chunk_is_accepted_once_whatever_happens(rounds in 1u32..4, audit in prop::sample::select(vec![0, 500_000, 1_000_000]), events in prop::collection::vec((0u8..9, any::<usize>()), 0..120)) {
        let mut d = Driver::auditing(rounds, audit);
        for (kind, k) in events {
            let worker = (k % 3) as u64 + 1;
            match kind {
                0 => { d.send(joined(worker, 1)); d.send(Event::Credit { worker, shards: 2 }); }
                1 => { d.shards.retain(|s| s.0 != worker); d.send(Event::Gone { worker, said: false }); }
                2 => { d.now += (k % 50_000) as u64; d.send(Event::Tick); }
                3 => d.work(k, true),
                4 => d.takeover(k as u64 % 4 + 1),
                _ => d.work(k, false),
            }
        }
        // A steady worker ends it, with a retry for what was set aside.
        d.send(joined(9, 2));
        let all = 1 + 7 + 3 * rounds as usize;
        for _ in 0..400 {
            if d.finished && d.accepted.len() == all { break; }
            d.send(Event::Credit { worker: 9, shards: 1 });
            d.shards.retain(|s| s.0 == 9);
            d.work(0, false);
            d.now += 40_000;
            d.send(Event::Tick);
            if d.finished && d.accepted.len() < all { d.finished = false; d.aside.clear(); d.send(Event::Retry("e".into())); }
        }
        prop_assert!(d.finished);
        prop_assert_eq!(d.accepted.len(), all);
        let progress = d.scheduler.progress("e").unwrap();
        prop_assert_eq!(progress.accepted as usize, all);
        prop_assert_eq!(progress.computed - progress.duplicate, all as u64);
    }
}

#[test]
fn a_shard_is_never_larger_than_a_fair_share() {
    let mut d = Driver::new(1);
    for worker in [1, 2] {
        d.send(joined(worker, 1));
        d.send(Event::Credit { worker, shards: 2 });
    }
    let first: Vec<u32> = d.shards.iter().map(|s| s.0 as u32).collect();
    assert!(first.contains(&1) && first.contains(&2));
    assert!(d.shards.iter().all(|s| s.4.len() <= 2));
}

#[test]
fn a_worker_with_the_wrong_model_is_left_out_of_that_experiment_only() {
    let mut d = Driver::new(1);
    d.send(joined(1, 1));
    d.send(Event::Credit { worker: 1, shards: 1 });
    let (worker, lease, sweep, round, chunks) = d.shards.remove(0);
    let fault = Fault::Model("differs".into());
    d.send(Event::Failed { experiment: "e".into(), at: (sweep, round, chunks[0]), worker, lease, fault });
    d.send(Event::Credit { worker: 1, shards: 2 });
    assert!(d.shards.is_empty());
    d.send(joined(2, 1));
    d.send(Event::Credit { worker: 2, shards: 1 });
    assert_eq!(d.shards[0].4, chunks);
}

fn join(d: &mut Driver, worker: WorkerId, credit: u32) {
    d.send(joined(worker, 1));
    d.send(Event::Credit { worker, shards: credit });
}

fn fail(d: &mut Driver) -> ChunkAt {
    let (worker, lease, sweep, round, chunks) = d.shards.remove(0);
    let at = (sweep, round, chunks[0]);
    d.send(Event::Failed { experiment: "e".into(), at, worker, lease, fault: Fault::Chunk("x".into()) });
    at
}

#[test]
fn a_chunk_that_fails_on_two_workers_is_set_aside() {
    let mut d = Driver::new(1);
    join(&mut d, 1, 1);
    let at = fail(&mut d);
    join(&mut d, 2, 1);
    assert_eq!(fail(&mut d), at);
    assert_eq!(d.aside, [at].into());
}

#[test]
fn a_worker_that_fails_five_times_in_a_row_is_drained() {
    let mut d = Driver::new(1);
    join(&mut d, 1, 4);
    for _ in 0..5 {
        fail(&mut d);
        d.send(Event::Credit { worker: 1, shards: 1 });
    }
    let shards = d.shards.len();
    d.send(Event::Credit { worker: 1, shards: 1 });
    assert!(d.shards.len() <= shards && d.scheduler.workers[&1].draining);
}

#[test]
fn a_lease_is_given_up_a_quarter_later_than_the_worker_thinks_and_renewal_extends_it() {
    let mut d = Driver::new(1);
    join(&mut d, 1, 1);
    let lease = d.shards[0].1;
    d.now = 30_000;
    assert!(d.scheduler.on(Event::Tick, 37_000).is_empty());
    let renewed = d.scheduler.on(Event::Renew { worker: 1, leases: vec![lease, 99] }, 37_000);
    assert_eq!(renewed, [Action::Renewed(1, vec![lease])]);
    assert!(d.scheduler.on(Event::Tick, 74_000).is_empty());
    assert_eq!(d.scheduler.on(Event::Tick, 74_500), [Action::Expired(1, lease)]);
    assert_eq!(
        d.scheduler.on(Event::Renew { worker: 1, leases: vec![lease] }, 74_500),
        [Action::Renewed(1, vec![])]
    );
}

#[test]
fn an_idle_worker_copies_what_another_has_had_for_too_long_once() {
    let mut d = Driver::new(1);
    join(&mut d, 1, 1);
    // All but one chunk of everything that is open at the start.
    join(&mut d, 2, 1);
    let slow = d.shards.iter().position(|s| s.0 == 1).map(|k| d.shards.remove(k)).unwrap();
    while !d.shards.is_empty() {
        d.work(0, false);
    }
    d.now = 9_000;
    d.send(Event::Tick);
    assert!(d.shards.is_empty(), "too early");
    // Nobody knows how long a chunk of that sweep takes: a shard's worth is assumed.
    d.now = 11_000;
    d.send(Event::Tick);
    assert_eq!(d.shards.len(), 1, "one copy");
    assert_eq!((d.shards[0].0, &d.shards[0].4), (2, &slow.4));
    d.send(Event::Credit { worker: 2, shards: 1 });
    assert_eq!(d.shards.len(), 1, "no second copy");
}

#[test]
fn a_greedy_round_without_all_its_chunks_ends_its_sweep_only() {
    let mut d = Driver::new(3);
    join(&mut d, 1, 1);
    join(&mut d, 2, 1);
    for _ in 0..200 {
        if d.finished {
            break;
        }
        let bad = d.shards.iter().position(|s| s.2 == 2 && s.3 == 1);
        match bad {
            Some(k) => d.work(k, true),
            None => d.work(0, false),
        }
        let worker = 3 + u64::from(d.now as u32);
        d.now += 1;
        join(&mut d, worker, 1);
    }
    assert!(d.finished);
    assert!(d.aside.iter().all(|at| (at.0, at.1) == (2, 1)) && !d.aside.is_empty());
    assert!(!d.accepted.iter().any(|at| (at.0, at.1) == (2, 2)));
}

#[test]
fn a_cancelled_experiment_is_taken_back_from_its_workers() {
    let mut d = Driver::new(1);
    join(&mut d, 1, 1);
    let lease = d.shards[0].1;
    let out = d.scheduler.on(Event::Cancel("e".into()), 0);
    assert_eq!(out, [Action::Revoke(1, lease), Action::Close(1, "e".into())]);
    assert!(d.scheduler.on(Event::Credit { worker: 1, shards: 2 }, 0).is_empty());
}

#[test]
fn a_coordinator_that_takes_over_adopts_the_leases_that_workers_bring() {
    let mut d = Driver::new(1);
    for worker in [1, 2] {
        d.send(joined(worker, 1));
        d.send(Event::Credit { worker, shards: 2 });
    }
    let held: Vec<_> = d.shards.clone();
    assert_eq!(held.len(), 4, "one chunk each, before any speed is known");
    d.takeover(2);
    let of_one: Vec<LeaseId> = held.iter().filter(|s| s.0 == 1).map(|s| s.1).collect();
    assert!(of_one.iter().all(|l| d.shards.iter().any(|s| s.1 == *l)), "kept");
    assert_eq!(d.scheduler.leased_to(1), 3, "two brought, one new");
    // Nobody else gets what is held; a lease that isn't this coordinator's to know is refused.
    let taken: BTreeSet<ChunkAt> =
        d.shards.iter().flat_map(|s| s.4.iter().map(|&c| (s.2, s.3, c)).collect::<Vec<_>>()).collect();
    assert_eq!(taken.len(), d.shards.iter().map(|s| s.4.len()).sum::<usize>());
    let forged = Held { lease: u64::MAX, experiment: "e".into(), round: (1, 0), chunks: (0..7).collect() };
    d.send(Event::Bring { worker: 3, held: vec![forged] });
    assert_eq!(d.scheduler.leased_to(3), 1);
    // An adopted lease ends like any other.
    d.send(Event::Tick);
    d.now += 40_000;
    d.send(Event::Tick);
    assert_eq!(d.scheduler.leased_to(1) + d.scheduler.leased_to(3), 0);
}

#[test]
fn after_a_takeover_nothing_is_leased_until_workers_had_time_to_bring_theirs() {
    let mut s = Scheduler::new(Config { quiet: 2000, ..Config::default() }, 1);
    s.on(Event::Added(Box::new(summary(1))), 0);
    s.on(joined(1, 1), 10);
    assert!(s.on(Event::Credit { worker: 1, shards: 1 }, 1999).is_empty());
    assert!(matches!(s.on(Event::Tick, 2000).last(), Some(Action::Shard { .. })));
}

#[test]
fn a_chunk_that_failed_goes_to_another_worker_first_and_back_only_if_nobody_took_it() {
    let mut d = Driver::new(1);
    join(&mut d, 1, 1);
    d.send(joined(2, 1));
    let at = fail(&mut d);
    // Worker 1 gets other work meanwhile.
    d.send(Event::Credit { worker: 1, shards: 1 });
    assert!(d.shards.iter().all(|s| (s.2, s.3, s.4[0]) != at), "{:?}", d.shards);
    d.send(Event::Credit { worker: 2, shards: 1 });
    assert!(d.shards.iter().any(|s| s.0 == 2 && (s.2, s.3, s.4[0]) == at), "{:?}", d.shards);

    // Where the other takes nothing, the first gets it again after a lease's time.
    let mut d = Driver::new(1);
    join(&mut d, 1, 1);
    d.send(joined(2, 1));
    let at = fail(&mut d);
    d.now = 31_000;
    d.send(Event::Credit { worker: 1, shards: 1 });
    assert!(d.shards.iter().any(|s| s.0 == 1 && (s.2, s.3, s.4[0]) == at), "{:?}", d.shards);
}

#[test]
fn a_chunk_that_five_workers_vanish_with_is_set_aside_and_lost_workers_are_no_failures_of_others() {
    let mut d = Driver::new(1);
    for worker in 1..=4 {
        join(&mut d, worker, 2);
        d.shards.clear();
        d.send(Event::Gone { worker, said: false });
    }
    assert!(d.aside.is_empty(), "four may be bad luck");
    // One that says goodbye, or comes back with what it had, doesn't count.
    join(&mut d, 5, 1);
    d.shards.clear();
    d.send(Event::Gone { worker: 5, said: true });
    assert!(d.aside.is_empty());
    join(&mut d, 6, 1);
    d.shards.clear();
    d.send(Event::Gone { worker: 6, said: false });
    assert_eq!(d.aside, [(0, 0, 0)].into(), "only what was in work: not what waited behind it");

    let mut d = Driver::new(1);
    for worker in 1..=20 {
        join(&mut d, worker, 1);
        let (_, lease, sweep, round, chunks) = d.shards.remove(0);
        d.send(Event::Gone { worker, said: false });
        d.send(joined(100 + worker, 1));
        let held = Held { lease, experiment: "e".into(), round: (sweep, round), chunks };
        d.send(Event::Bring { worker: 100 + worker, held: vec![held] });
        d.send(Event::Gone { worker: 100 + worker, said: true });
    }
    assert!(d.aside.is_empty(), "a bad network is no bad chunk");
}

#[test]
fn a_worker_of_an_older_protocol_gets_what_it_can_do_only() {
    let mut d = Driver::new(1);
    let mut newer = summary(1);
    (newer.id, newer.protocol) = ("a newer one".into(), 3);
    d.send(Event::Added(Box::new(newer)));
    d.send(Event::Joined { worker: 1, lanes: 1, protocol: 2, class: "x".into() });
    let given = d.scheduler.on(Event::Credit { worker: 1, shards: 4 }, 0);
    let of = |a: &Action| matches!(a, Action::Shard { experiment, .. } if experiment == "e");
    assert!(given.iter().any(of) && !given.iter().any(|a| matches!(a, Action::Open(_, id) if id != "e")));
    let said = d.scheduler.progress("a newer one").unwrap().refused.unwrap();
    assert!(said.contains("protocol 2") && said.contains("needs 3"), "{said}");
    d.scheduler.on(Event::Retry("a newer one".into()), 0);
    assert!(d.scheduler.progress("a newer one").unwrap().refused.is_some(), "a retry doesn't upgrade it");
    d.scheduler.on(joined(2, 1), 0);
    let given = d.scheduler.on(Event::Credit { worker: 2, shards: 1 }, 0);
    assert!(given.contains(&Action::Open(2, "a newer one".into())), "{given:?}");
}

/// Works until nothing is leased; (worker, chunk) of every result.
fn finish(d: &mut Driver) -> Vec<(WorkerId, ChunkAt)> {
    let mut all = Vec::new();
    while let Some((worker, _, sweep, round, chunks)) = d.shards.first().cloned() {
        all.push((worker, (sweep, round, chunks[0])));
        d.work(0, false);
    }
    all
}

#[test]
fn audits_are_done_by_another_worker_of_the_same_class_before_the_end() {
    let mut d = Driver::auditing(1, 1_000_000);
    join(&mut d, 1, 1);
    join(&mut d, 2, 1);
    let done = finish(&mut d);
    assert!(d.finished);
    let mut by: BTreeMap<ChunkAt, BTreeSet<WorkerId>> = BTreeMap::new();
    done.iter().for_each(|&(w, at)| assert!(by.entry(at).or_default().insert(w), "twice by one"));
    assert!(by.values().all(|w| w.len() == 2), "{by:?}");
    let progress = d.scheduler.progress("e").unwrap();
    assert_eq!((progress.accepted, progress.duplicate), (11, 11));

    // Nobody else can: nothing waits for that.
    for class in [None, Some("another")] {
        let mut d = Driver::auditing(1, 1_000_000);
        join(&mut d, 1, 1);
        if let Some(class) = class {
            d.send(Event::Joined { worker: 2, lanes: 1, protocol: 3, class: class.into() });
            d.send(Event::Credit { worker: 2, shards: 1 });
        }
        assert_eq!(finish(&mut d).len(), 11);
        assert!(d.finished);
    }

    // The one that was to do it is lost.
    let mut d = Driver::auditing(1, 1_000_000);
    join(&mut d, 1, 1);
    d.send(joined(2, 1));
    assert_eq!(finish(&mut d).len(), 11);
    assert!(!d.finished, "it waits for the other");
    d.send(Event::Gone { worker: 2, said: false });
    assert!(d.finished);
}

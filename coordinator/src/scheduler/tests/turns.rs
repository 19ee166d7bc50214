//! Experiments that run at the same time have their turns.

use super::*;
use std::collections::VecDeque;

/// An experiment of one sweep of so many chunks.
fn of(id: &str, chunks: u32) -> Event {
    Event::Added(Box::new(Summary {
        id: id.into(),
        sweeps: vec![SweepShape { rounds: vec![chunks], decides: false, needs: vec![] }],
        rounds: vec![(0, 0, vec![], false)],
        ..summary(1)
    }))
}

/// Workers of one lane that need a second for a chunk, and have a second shard while they work on the first.
struct Fleet {
    scheduler: Scheduler,
    now: Millis,
    queues: BTreeMap<WorkerId, VecDeque<(LeaseId, String, ChunkAt)>>,
    /// The experiment of each chunk that was computed, in order.
    did: Vec<String>,
}

impl Fleet {
    fn new(experiments: &[&str], workers: u64) -> Self {
        let scheduler = Scheduler::new(Config::default(), 1);
        let mut fleet = Self { scheduler, now: 0, queues: BTreeMap::new(), did: Vec::new() };
        experiments.iter().for_each(|id| fleet.send(of(id, 10_000)));
        for worker in 1..=workers {
            fleet.send(joined(worker, 1));
            fleet.send(Event::Credit { worker, shards: 2 });
        }
        fleet
    }

    fn send(&mut self, event: Event) {
        for action in self.scheduler.on(event, self.now) {
            if let Action::Shard { worker, lease, experiment, sweep, round, first, count, .. } = action {
                let chunks = (first..first + count).map(|c| (lease, experiment.clone(), (sweep, round, c)));
                self.queues.entry(worker).or_default().extend(chunks);
            }
        }
        self.scheduler.leases.check();
    }

    /// So many seconds pass: each worker is through with as many chunks.
    fn pass(&mut self, seconds: u32) {
        for _ in 0..seconds {
            self.now += 1000;
            let workers: Vec<WorkerId> = self.queues.keys().copied().collect();
            for worker in workers {
                let Some(queue) = self.queues.get_mut(&worker) else { continue };
                let Some((lease, experiment, at)) = queue.pop_front() else { continue };
                self.did.push(experiment.clone());
                // A worker asks for more as soon as a shard is computed, before its last result is stored.
                if queue.iter().all(|waiting| waiting.0 != lease) {
                    self.send(Event::Credit { worker, shards: 1 });
                }
                let (duplicate, busy_us) = (false, 1_000_000);
                self.send(Event::Committed { experiment, at, worker, lease, duplicate, busy_us });
            }
        }
    }

    fn done(&self, id: &str) -> usize {
        self.did.iter().filter(|d| *d == id).count()
    }
}

#[test]
fn experiments_that_run_at_the_same_time_share_the_workers() {
    let mut fleet = Fleet::new(&["a", "b"], 4);
    fleet.pass(100);
    let (a, b) = (fleet.done("a"), fleet.done("b"));
    assert_eq!(a + b, 400, "nobody waited");
    assert!(a.abs_diff(b) <= 40, "{a} and {b}");
}

#[test]
fn a_lone_worker_gives_each_experiment_its_turn_but_not_at_each_shard() {
    let mut fleet = Fleet::new(&["a", "b", "c"], 1);
    fleet.pass(300);
    for id in ["a", "b", "c"] {
        assert!(fleet.done(id) >= 80, "{id}: {} of 300", fleet.done(id));
    }
    let changes = fleet.did.windows(2).filter(|w| w[0] != w[1]).count();
    assert!(changes <= 10, "it went to another experiment {changes} times");
}

#[test]
fn an_experiment_that_comes_later_does_not_wait_for_the_one_before_it() {
    let mut fleet = Fleet::new(&["a"], 4);
    fleet.pass(60);
    fleet.send(of("b", 10_000));
    // What each has, and the shard that it gets then.
    fleet.pass(15);
    assert!(fleet.done("b") > 0);
    let before = fleet.done("b");
    fleet.pass(100);
    let share = fleet.done("b") - before;
    assert!((130..=270).contains(&share), "{share} of 400");
}

#[test]
fn a_worker_with_nothing_left_to_do_for_its_experiment_goes_to_another_at_once() {
    let mut fleet = Fleet::new(&[], 1);
    fleet.send(of("a", 2));
    fleet.send(of("b", 10_000));
    fleet.pass(4);
    assert_eq!((fleet.done("a"), fleet.done("b")), (2, 2));
}

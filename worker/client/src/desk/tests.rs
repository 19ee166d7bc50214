//! Leases on the desk, by a clock that each test sets.

use super::*;
use crate::spool;
use crate::tests::plan;
use std::path::PathBuf;

const LEASE: Duration = Duration::from_secs(30);

/// A desk of one lane that works on the first of five chunks under lease 7, given at `from`; and what stops that chunk.
fn at_work(from: Instant) -> (Desk, Arc<AtomicBool>) {
    let unacked = Unacked::new(spool::MEMORY_LIMIT, spool::FILE_LIMIT);
    let mut desk = Desk::new(vec!["cpu".into()], unacked, from);
    desk.connected(LEASE, from);
    assert!(desk.open(&pb::Open { experiment: "e".into(), ..pb::Open::default() }));
    let experiment = Experiment {
        id: "e".into(),
        plan: Arc::new(plan()),
        prepared: Arc::default(),
        constants: Arc::default(),
        model: PathBuf::new(),
    };
    desk.opened("e", Ok(experiment));
    let shard = pb::Shard { lease: 7, experiment: "e".into(), chunks: 5, ..pb::Shard::default() };
    desk.shard(shard, from);
    let mut jobs = desk.dispatch(from);
    assert_eq!(jobs.len(), 1);
    let (_, job) = jobs.remove(0);
    assert!(asked(&mut desk, from).is_empty(), "it is too early");
    (desk, job.stop)
}

/// The leases in each renewal that is sent at this time.
fn asked(desk: &mut Desk, now: Instant) -> Vec<Vec<u64>> {
    desk.tick(now);
    let renewal = |body| if let Body::Renew(r) = body { Some(r.leases) } else { None };
    desk.take_outbox().into_iter().filter_map(renewal).collect()
}

fn stopped(stop: &AtomicBool) -> bool {
    stop.load(Ordering::Relaxed)
}

#[test]
fn a_lease_lives_while_renewals_are_answered_and_then_for_as_long_as_the_last_of_them_says() {
    let from = crate::now();
    let at = |seconds: u64| from + Duration::from_secs(seconds);
    let (mut desk, stop) = at_work(from);
    for third in 1..=9 {
        assert_eq!(asked(&mut desk, at(10 * third)), [[7]], "{third} thirds of the lease later");
        desk.renewed(&[7]);
    }
    for second in [100, 110, 119] {
        desk.tick(at(second));
        assert!(!stopped(&stop), "after {second} s");
    }
    desk.tick(at(120));
    assert!(stopped(&stop), "nobody has answered for a whole lease");
    let (result, busy, waited) = (Err(ExecError::Stopped), Duration::ZERO, Duration::ZERO);
    desk.done(Done { lane: 0, result, busy, waited }, at(120));
    assert!(desk.dispatch(at(120)).is_empty(), "the shard's other chunks are not begun");
}

#[test]
fn a_lease_that_the_coordinator_does_not_hold_or_takes_back_ends_at_once() {
    let from = crate::now();
    let (mut desk, stop) = at_work(from);
    assert_eq!(asked(&mut desk, from + LEASE / 3), [[7]]);
    desk.renewed(&[]);
    assert!(stopped(&stop));
    let (mut desk, stop) = at_work(from);
    desk.revoke(7);
    assert!(stopped(&stop));
}

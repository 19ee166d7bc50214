//! Thousands of mutations of valid bytes for every target, the same ones each time. `ABLATE_CASES` sets how many.
#![allow(clippy::unwrap_used, reason = "tests")]

use ablate_hostile::mutate::{Numbers, mutated};
use ablate_hostile::{TARGETS, Target};
use stats_alloc::{INSTRUMENTED_SYSTEM, Region, StatsAlloc};
use std::alloc::System;
use std::panic::{AssertUnwindSafe, catch_unwind};
use std::sync::mpsc;
use std::time::Duration;

#[global_allocator]
static COUNTED: &StatsAlloc<System> = &INSTRUMENTED_SYSTEM;

/// Bytes that may be allocated whatever is read.
const ANYWAY: u64 = 16 << 20;
/// A case that takes so long hangs: others take microseconds.
const HANGS: Duration = Duration::from_secs(120);

fn cases() -> u64 {
    std::env::var("ABLATE_CASES").ok().and_then(|n| n.parse().ok()).unwrap_or(4000)
}

fn shown(bytes: &[u8]) -> String {
    let hex: String = bytes.iter().take(4096).map(|b| format!("{b:02x}")).collect();
    format!("{} bytes: {hex}\n{}", bytes.len(), String::from_utf8_lossy(&bytes[..bytes.len().min(2000)]))
}

fn check(target: &Target, bytes: &[u8]) -> bool {
    let region = Region::new(COUNTED);
    let took = catch_unwind(AssertUnwindSafe(|| (target.run)(bytes)));
    let allocated = region.change().bytes_allocated as u64;
    let took = took.unwrap_or_else(|_| panic!("{} panicked on {}", target.name, shown(bytes)));
    let most = ANYWAY + target.worth * bytes.len() as u64;
    assert!(allocated <= most, "{} allocated {allocated} bytes for {}", target.name, shown(bytes));
    took
}

/// One test, so that nothing else allocates meanwhile.
#[test]
fn no_mutation_of_foreign_bytes_panics_hangs_or_allocates_more_than_it_is_worth() {
    for target in TARGETS {
        let seeds = (target.seeds)();
        for (i, seed) in seeds.iter().enumerate() {
            assert!(check(&target, seed), "{} refuses its seed {i}: {}", target.name, shown(seed));
        }
        let (to, results) = mpsc::channel();
        let worker = std::thread::spawn(move || {
            let mut numbers = Numbers(0x00ab_1a7e);
            for _ in 0..cases() {
                let bytes = mutated(&seeds, &mut numbers);
                to.send(Err(bytes.clone())).unwrap();
                let took = check(&target, &bytes);
                to.send(Ok(took)).unwrap();
            }
        });
        let (mut taken, mut last) = (0, Vec::new());
        loop {
            match results.recv_timeout(HANGS) {
                Ok(Err(bytes)) => last = bytes,
                Ok(Ok(took)) => taken += u64::from(took),
                Err(mpsc::RecvTimeoutError::Timeout) => panic!("{} hangs on {}", target.name, shown(&last)),
                Err(mpsc::RecvTimeoutError::Disconnected) => break,
            }
        }
        if let Err(panic) = worker.join() {
            std::panic::resume_unwind(panic);
        }
        println!("{}: {} cases, {taken} taken", target.name, cases());
        assert!(taken < cases(), "{} refuses nothing", target.name);
    }
}

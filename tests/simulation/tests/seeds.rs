//! Hundreds of clusters under faults. `make simulate SEEDS=N` runs more of them.

use ablate_simulation::{Options, run};

#[test]
fn every_seed_keeps_the_invariants_and_ends_with_the_undisturbed_tables() {
    let failed: Vec<String> = std::thread::scope(|s| {
        let half = |odd: u64| {
            s.spawn(move || {
                let outcomes = (0..150).map(|n| run(2 * n + odd, Options::default()));
                outcomes
                    .filter(|o| !o.violations.is_empty())
                    .map(|o| format!("seed {}: {:?}", o.seed, o.violations))
                    .collect::<Vec<_>>()
            })
        };
        [half(0), half(1)].into_iter().flat_map(|h| h.join().expect("no panic")).collect()
    });
    assert!(failed.is_empty(), "replay with `make simulate SEED=n`:\n{}", failed.join("\n"));
}

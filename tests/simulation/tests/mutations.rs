//! Known bugs, put back one by one, are found.
#![cfg(feature = "mutations")]

use ablate_simulation::mutations;

#[test]
fn each_known_bug_is_found_within_four_hundred_seeds() {
    let all = mutations::find(400);
    let missed: Vec<&str> = all.iter().filter(|f| f.seed.is_none()).map(|f| f.name).collect();
    all.iter().for_each(|f| eprintln!("{f}"));
    assert!(missed.is_empty(), "not found: {missed:?}");
    assert!(all.len() >= 15);
}

//! Seeds say everything.

use ablate_simulation::{Options, Profile, run};

#[test]
fn two_runs_of_one_seed_give_the_same_trace() {
    for seed in 0..16 {
        let options = Options { lines: true, ..Options::default() };
        let (a, b) = (run(seed, options), run(seed, options));
        let differs = a.lines.iter().zip(&b.lines).find(|(a, b)| a != b);
        assert_eq!(differs, None, "seed {seed}");
        assert_eq!(
            (a.lines.len(), &a.trace, &a.violations),
            (b.lines.len(), &b.trace, &b.violations),
            "seed {seed}"
        );
        assert!(a.lines.len() > 50, "seed {seed}");
    }
}

#[test]
fn other_seeds_give_other_runs() {
    let traces: std::collections::BTreeSet<String> =
        (0..8).map(|s| run(s, Options::default()).trace).collect();
    assert_eq!(traces.len(), 8);
}

#[test]
fn a_run_in_which_nothing_goes_wrong_computes_each_chunk_once() {
    let calm = run(3, Options { profile: Some(Profile::Undisturbed), ..Options::default() });
    assert_eq!((calm.violations.as_slice(), calm.faults.len()), (&[] as &[String], 0));
    assert_eq!(calm.computed, calm.planned);
}

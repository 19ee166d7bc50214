//! Pairs given a base as they are planned.

use super::*;
use ablate_common::units::{UnitIx, UnitKind};

/// Two layers of two heads.
const TASK: &str = "kind = \"induction\"\nexamples = 6\nmax_tokens = 11";

fn with_base(before: &str, sweep: &str) -> Result<PreparedExperiment, Error> {
    let dir = folder("llama");
    run(dir.path(), TASK, &format!("{before}[[sweep]]\nkind = \"pairs\"\n{sweep}"))
}

#[test]
fn a_base_is_in_every_subset_of_its_sweep_and_needs_no_other() {
    let p = with_base("", "base = [\"self L1.H0\"]").unwrap();
    let kinds: Vec<&str> = p.plan.sweeps.iter().map(|s| s.kind.name()).collect();
    assert_eq!(kinds, ["reference", "conditional"]);
    assert_eq!(p.plan.sweeps[1].kind, SweepKind::Conditional { base: vec![UnitIx(2)] });
    let space = p.plan.space(1, &[]);
    let removed: Vec<Vec<u32>> = (0..p.plan.round_subsets(1, 0))
        .map(|r| p.plan.removed(1, &space, r).unwrap().iter().map(|h| h.0).collect())
        .collect();
    let expected: [&[u32]; 7] = [&[2], &[0, 2], &[1, 2], &[2, 3], &[0, 1, 2], &[0, 2, 3], &[1, 2, 3]];
    assert_eq!(removed, expected);
    assert!(!p.plan.decides(1));
    assert_eq!(
        (p.plan.protocol(), p.plan.base_name(0), p.plan.base_name(1)),
        (5, None, Some("L1.H0".into()))
    );
    let costs = cost(&p.plan, &p.prepared);
    assert_eq!(
        (costs[1].name.as_str(), costs[1].subsets, costs[1].rounds),
        ("conditional, given L1.H0", 7, 1)
    );
    assert!(costs[1].flops > 0.0 && costs[1].flops.is_finite() && costs[1].bytes >= costs[0].bytes);
    let back: Plan = serde_json::from_slice(&serde_json::to_vec(&p.plan).unwrap()).unwrap();
    assert_eq!((back.identity(), &back), (p.plan.identity(), &p.plan));
}

#[test]
fn a_plan_without_a_base_says_nothing_of_one() {
    let p = with_base("", "groups = false").unwrap();
    let kinds: Vec<&str> = p.plan.sweeps.iter().map(|s| s.kind.name()).collect();
    assert_eq!((kinds, p.plan.protocol()), (vec!["reference", "pairs", "single"], 2));
    let text = serde_json::to_string(&p.plan).unwrap();
    assert!(!text.contains("\"base\"") && !text.contains("conditional"), "{text}");
    // Beside plain pairs, which bring their singles, those given a base are a sweep of their own.
    let both = with_base("[[sweep]]\nkind = \"pairs\"\ngroups = false\n", "base = [\"L0.H1\"]").unwrap();
    let kinds: Vec<&str> = both.plan.sweeps.iter().map(|s| s.kind.name()).collect();
    assert_eq!(kinds, ["reference", "pairs", "single", "conditional"]);
}

#[test]
fn layers_and_sets_are_bases_by_their_names() {
    let sets = "unit = \"set\"\n[ablation.sets]\nfew = [\"L0.H0\"]\n\"two of them\" = [\"L0.H1\", \"L1.H0\"]\nlast = [\"L1.H1\"]\n";
    let p = with_base(sets, "base = [\"two of them\"]").unwrap();
    assert_eq!((p.plan.units(1).kind, p.plan.round_subsets(1, 0)), (UnitKind::Set, 4));
    let last = p.plan.removed(1, &p.plan.space(1, &[]), 3).unwrap();
    assert_eq!(last.len(), 4);
    let e = with_base("unit = \"layer\"\n", "base = [\"L1\"]").unwrap_err();
    assert!(e.to_string().contains("1 of 2 layers are left"), "{e}");
}

#[test]
fn a_base_that_is_no_base_is_refused() {
    for (sweep, what) in [
        (
            "base = [\"L2.H0\"]",
            "\"L2.H0\" is none of the heads that [[ablation]] 1 removes (L0.H0 to L1.H1); correct base",
        ),
        ("base = [\"cross L0.H0\"]", "none of the heads"),
        ("base = [\"L0\"]", "none of the heads"),
        ("base = [\"L0.H0\", \"self L0.H0\"]", "\"self L0.H0\" is there twice"),
        ("base = [\"L0.H0\", \"L0.H1\", \"L1.H0\"]", "1 of 4 heads are left"),
        ("base = [\"L0.H0\"]\nstreams = [\"cross\"]", "stream \"cross\" selects no head"),
    ] {
        let e = with_base("", sweep).unwrap_err();
        assert!(e.exit_code() == 2 && e.to_string().starts_with("[[sweep]] 1: "), "{sweep}: {e}");
        assert!(e.to_string().contains(what), "{sweep}: {e}");
    }
}

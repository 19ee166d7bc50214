//! What pairs call for: groups and triples.

use super::*;

/// Adds a follow-up of the pairs with two slots a task for groups and two for triples: heads 1 and 5, and 2 with these; a slot of each
/// stays empty.
pub(super) fn follow_up(r: &mut Results) {
    let kind = SweepKind::Joint { pairs: 2, groups: 2, triples: 2 };
    let follow = PlannedSweep { kind, chunk: 3, ..r.plan.sweeps[2].clone() };
    r.plan.sweeps.push(follow);
    let sweep = r.plan.sweeps.len() as u32 - 1;
    let sets = [vec![UnitIx(1), UnitIx(5)], vec![], vec![UnitIx(1), UnitIx(2), UnitIx(5)], vec![]];
    let list = ablate_common::joint::encode(&[sets.clone(), sets].concat());
    let round = scores(&r.plan, &r.prepared, sweep, 0, &list, true);
    r.rounds.insert((sweep, 0), round);
}

#[test]
fn what_pairs_call_for_is_the_same_in_parts_and_is_measured() {
    let mut r = experiment(2, 4, 14, true);
    let follow = PlannedSweep {
        kind: SweepKind::Joint { pairs: 2, groups: 2, triples: 2 },
        chunk: 3,
        ..r.plan.sweeps[2].clone()
    };
    r.plan.sweeps.push(follow);
    assert!(r.plan.decides(2) && r.plan.round_subsets(7, 0) == 8);
    assert_eq!(ablate_common::joint::needs(&r.plan, 2), [0, 1]);
    let mut known = r.clone();
    let pairs = known.rounds.remove(&(2, 0)).unwrap().chunks;
    let picked = |size: usize| {
        let mut picker = joint::Picker::new(known.clone(), 2);
        let all: Vec<_> = pairs.clone().into_iter().collect();
        all.chunks(size).for_each(|part| picker.add(part.iter().cloned().collect()));
        picker.finish()
    };
    let sets = picked(usize::MAX);
    assert_eq!((sets.len(), &sets), (8, &picked(1)));
    // Of the first task only two heads stand in for each other; triples need two pairs with a head in common.
    assert_eq!(sets[..4], [vec![UnitIx(1), UnitIx(5)], vec![], vec![], vec![]]);
    // Before the round is open its slots are there, and empty.
    assert_eq!(r.plan.space(7, &[]).subset(7), Some(vec![]));

    let sets = [vec![UnitIx(1), UnitIx(5)], vec![], vec![UnitIx(1), UnitIx(2), UnitIx(5)], vec![]];
    let list = ablate_common::joint::encode(&[sets.clone(), sets].concat());
    r.rounds.insert((7, 0), scores(&r.plan, &r.prepared, 7, 0, &list, true));
    for g in &analyse(&r).groups {
        let ([group], [triple]) = (&g.groups[..], &g.triples[..]) else { panic!("{:?}", g.groups) };
        let pair = g.pairs.iter().find(|p| (p.a.0, p.b.0) == (1, 5)).unwrap();
        assert_eq!(group.units, [pair.a, pair.b]);
        assert_eq!((group.delta.value, group.interaction), (pair.delta_ab, pair.interaction));
        assert!((group.sum_pairs - group.delta.value).abs() < 1e-9);
        assert!((group.delta.value - group.sum_alone - group.interaction.value).abs() < 1e-9);
        assert_eq!(triple.units.map(|u| u.0), [1, 2, 5]);
        // Losses of the first task are sums over heads and pairs of them.
        assert_eq!(triple.interaction.value.abs() < 1e-9, g.name == "ioi", "{triple:?}");
    }
    let dir = tempfile::tempdir().unwrap();
    export(&r, dir.path(), Format::Parquet).unwrap();
    let rows = |name: &str| read(&dir.path().join(name)).iter().map(|b| b.num_rows()).sum::<usize>();
    assert_eq!((rows("groups.parquet"), rows("triples.parquet")), (2, 2));
    // Spare slots are no subsets.
    let mut without = r.clone();
    without.rounds.remove(&(7, 0));
    let other = tempfile::tempdir().unwrap();
    export(&without, other.path(), Format::Parquet).unwrap();
    let before: usize =
        read(&other.path().join("scores.parquet")).iter().map(arrow_array::RecordBatch::num_rows).sum();
    assert_eq!(rows("scores.parquet") - before, 2 * 4);
}

#[test]
fn what_was_chosen_or_sampled_is_not_called_all() {
    let dir = tempfile::tempdir().unwrap();
    let page = |r: &Results| {
        let path = dir.path().join("report.html");
        report(r, &path).unwrap();
        std::fs::read_to_string(path).unwrap()
    };
    let mut r = experiment(2, 4, 8, true);
    let plain = page(&r);
    assert!(plain.contains(
        "Nothing was screened or extrapolated: no model and no gradient decided what was measured. Random orders are a sample of all orders."
    ));
    assert!(plain.contains("<td class=\"r\">28</td><td>all</td>"), "every pair");
    assert!(plain.contains("<td>a sample of 20 random orders</td>") && !plain.contains("chosen from"));
    follow_up(&mut r);
    // Orders that scores of the unablated model give are decided by these.
    if let SweepKind::Path { order, .. } = &mut r.plan.sweeps[5].kind {
        *order = Order::Gradient;
    }
    r.plan.ablations = vec![Ablation::Resample { donors: ablate_common::plan::Donors::Seeded }.into()];
    let page = page(&r);
    for words in [
        "Groups and triples are not all that there are: they were chosen from the pairs that are resolved on the same examples.",
        "<td class=\"r\">4</td><td>chosen from resolved pairs: 2 groups (at most 2 a task), 2 triples (at most 2 a task, made of its 512 strongest pairs)</td>",
        "<td>one order, by gradient importance</td>",
        "Donors of resample ablation are a sample",
    ] {
        assert!(page.contains(words), "{words}");
    }
    assert!(!page.contains("no model and no gradient decided"));
}

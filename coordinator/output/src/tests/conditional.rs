//! Pairs given a base.

use super::*;

/// The places in the plan of pairs given head 2, and given heads 1 and 3.
const GIVEN: [u32; 2] = [7, 8];
const BASES: [&[u32]; 2] = [&[2], &[1, 3]];

fn given() -> Results {
    let mut r = experiment(2, 4, 14, true);
    for (at, base) in GIVEN.into_iter().zip(BASES) {
        let kind = SweepKind::Conditional { base: base.iter().copied().map(UnitIx).collect() };
        let sweep = PlannedSweep { kind, chunk: 5, ..r.plan.sweeps[2].clone() };
        r.plan.sweeps.push(sweep);
        let round = scores(&r.plan, &r.prepared, at, 0, &[], true);
        r.rounds.insert((at, 0), round);
    }
    r
}

fn near(got: f64, want: f64) {
    assert!((got - want).abs() < 1e-9, "{got} {want}");
}

#[test]
fn interactions_given_a_base_are_those_of_the_definition() {
    const EXAMPLES: u64 = 60;
    let a = analyse(&given());
    for g in &a.groups {
        assert_eq!(g.conditional.iter().map(|c| c.pairs.len()).collect::<Vec<_>>(), [21, 15], "{}", g.name);
        for p in g.conditional.iter().flat_map(|c| &c.pairs) {
            near(p.delta_ab - p.delta_a - p.delta_b, p.interaction.value);
            assert!(p.q >= p.interaction.p * (1.0 - 1e-12) && p.interaction.se >= 0.0, "{p:?}");
        }
    }
    // Losses of the first task are means over examples, each a cluster of its own.
    for (c, base) in a.groups[0].conditional.iter().zip(BASES) {
        let lost = |more: &[u32], example: u64| {
            let mut set: Vec<HeadIx> = base.iter().chain(more).copied().map(HeadIx).collect();
            set.sort_unstable();
            damage(&set, 0, example)
        };
        let mean = |f: &dyn Fn(u64) -> f64| (0..EXAMPLES).map(f).sum::<f64>() / EXAMPLES as f64;
        near(c.delta.value, mean(&|e| lost(&[], e)));
        for p in &c.pairs {
            let (i, j) = (p.a.0, p.b.0);
            assert!(i < j && !base.contains(&i) && !base.contains(&j));
            let own = |e: u64| lost(&[i, j], e) - lost(&[i], e) - lost(&[j], e) + lost(&[], e);
            let value = mean(&own);
            near(p.interaction.value, value);
            near(p.delta_a, mean(&|e| lost(&[i], e) - lost(&[], e)));
            near(p.delta_b, mean(&|e| lost(&[j], e) - lost(&[], e)));
            let squares: f64 = (0..EXAMPLES).map(|e| (own(e) - value).powi(2)).sum();
            near(p.interaction.se, (squares / (EXAMPLES * (EXAMPLES - 1)) as f64).sqrt());
        }
    }
    // Heads 1 and 5 stand in for each other whether head 2 is there or not; once 1 is gone nothing interacts.
    let [two, one_and_three] = &a.groups[0].conditional[..] else { panic!("two bases") };
    let first = two.strongest(1)[0];
    assert_eq!((first.a.0, first.b.0, first.relation), (1, 5, Relation::Redundant));
    assert!(
        (first.normalised().unwrap() - first.interaction.value / (first.delta_a.abs() + first.delta_b.abs()))
            .abs()
            < 1e-12
    );
    assert_eq!((two.base.as_str(), one_and_three.base.as_str()), ("L0.H2", "L0.H1 + L0.H3"));
    assert_eq!((two.count(Relation::Redundant), one_and_three.count(Relation::Unresolved)), (1, 15));
}

#[test]
fn a_third_order_interaction_is_what_a_base_changes() {
    let mut r = given();
    let kind = SweepKind::Joint { pairs: 2, groups: 0, triples: 1 };
    let follow = PlannedSweep { kind, ..r.plan.sweeps[2].clone() };
    r.plan.sweeps.push(follow);
    let triple = vec![UnitIx(1), UnitIx(2), UnitIx(5)];
    let list = ablate_common::joint::encode(&[triple.clone(), triple]);
    r.rounds.insert((9, 0), scores(&r.plan, &r.prepared, 9, 0, &list, true));
    for g in &analyse(&r).groups {
        let find =
            |pairs: &[PairRow]| pairs.iter().find(|p| (p.a.0, p.b.0) == (1, 5)).unwrap().interaction.value;
        near(find(&g.conditional[0].pairs) - find(&g.pairs), g.triples[0].interaction.value);
    }
}

#[test]
fn the_table_is_there_where_it_is_asked_for_and_pairs_stay_what_they_were() {
    let (with, without) = (tempfile::tempdir().unwrap(), tempfile::tempdir().unwrap());
    let mut r = given();
    let a = analyse(&r);
    export_analysed(&r, &a, with.path(), Format::Parquet).unwrap();
    export(&experiment(2, 4, 14, true), without.path(), Format::Parquet).unwrap();
    for name in ["pairs.parquet", "heads.parquet", "selected.parquet"] {
        let bytes = |dir: &tempfile::TempDir| std::fs::read(dir.path().join(name)).unwrap();
        assert!(bytes(&with) == bytes(&without), "{name}");
    }
    assert!(!without.path().join("conditional.parquet").exists());
    let table = read(&with.path().join("conditional.parquet"));
    assert_eq!(table.iter().map(arrow_array::RecordBatch::num_rows).sum::<usize>(), 2 * (21 + 15));
    let names = |dir: &tempfile::TempDir, file: &str| -> Vec<String> {
        let schema = read(&dir.path().join(file))[0].schema();
        schema.fields().iter().map(|f| f.name().clone()).collect()
    };
    let columns = names(&with, "conditional.parquet");
    let own = ["base".to_owned(), "delta_base".to_owned()];
    assert_eq!(columns, [names(&with, "pairs.parquet"), own.to_vec()].concat());

    let summary = |dir: &tempfile::TempDir| -> serde_json::Value {
        serde_json::from_slice(&std::fs::read(dir.path().join("summary.json")).unwrap()).unwrap()
    };
    assert!(summary(&without)["tasks"][0].get("conditional").is_none());
    let told = summary(&with)["tasks"][0]["conditional"].clone();
    assert_eq!((&told[0]["base"], &told[1]["base"]), (&"L0.H2".into(), &"L0.H1 + L0.H3".into()));
    let top = &told[0]["strongest"][0];
    assert_eq!(
        (&top["a"], &top["b"], &top["relation"]),
        (&"L0.H1".into(), &"L1.H1".into(), &"redundant".into())
    );
    let plain = a.groups[0].pairs.iter().find(|p| (p.a.0, p.b.0) == (1, 5)).unwrap();
    near(top["whole_model"]["interaction"].as_f64().unwrap(), plain.interaction.value);
    assert!(headline_analysed(&r, &a).contains("With L0.H2 removed (Δ +1."));
    let page = with.path().join("report.html");
    report_analysed(&r, &a, &page).unwrap();
    let page = std::fs::read_to_string(&page).unwrap();
    assert!(page.contains("With L0.H2 gone, L0.H1 and L1.H1 stand in for each other."));
    assert!(page.contains("With L0.H1 + L0.H3 gone, no two interact measurably."));
    assert!(page.contains("I, given L0.H2") && page.contains("I of the whole model"));
    // What is said of a base leads to its table, and not to the figures of the whole model.
    for id in ["g0-given-0", "g0-given-1", "g1-given-1"] {
        assert_eq!(page.matches(&format!("<a href=\"#{id}\">Table</a>")).count(), 1, "{id}");
        assert_eq!(page.matches(&format!("id=\"{id}\"")).count(), 1, "{id}");
    }

    // Without plain pairs there is nothing to stand beside, and without scores the table has no rows.
    r.rounds.remove(&(2, 0));
    let alone = analyse(&r);
    assert_eq!(alone.groups[0].conditional[0].pairs.len(), 21);
    report_analysed(&r, &alone, &with.path().join("report.html")).unwrap();
    let page = std::fs::read_to_string(with.path().join("report.html")).unwrap();
    assert!(page.contains("I, given L0.H2") && !page.contains("I of the whole model"));
    for at in GIVEN {
        r.rounds.remove(&(at, 0));
    }
    export(&r, with.path(), Format::Csv).unwrap();
    let text = std::fs::read_to_string(with.path().join("conditional.csv")).unwrap();
    assert!(text.lines().count() == 1 && text.trim_end().ends_with("b_name,base,delta_base"), "{text}");
}

#[test]
fn chunks_that_are_missing_leave_out_the_pairs_that_need_them() {
    // The first chunk has the base alone and heads 0, 1, 3 and 4; the second 5 to 7 and two pairs.
    let mut r = given();
    let chunk = |r: &mut Results, c: u32| r.rounds.get_mut(&(7, 0)).unwrap().chunks.remove(&c).unwrap();
    let second = chunk(&mut r, 1);
    let left = analyse(&r);
    let units: Vec<u32> = left.groups[0].conditional[0].pairs.iter().flat_map(|p| [p.a.0, p.b.0]).collect();
    assert!(!units.is_empty() && units.iter().all(|u| [0, 1, 3, 4].contains(u)), "{units:?}");
    r.rounds.get_mut(&(7, 0)).unwrap().chunks.insert(1, second);
    // Without the base alone there is nothing to compare with.
    chunk(&mut r, 0);
    assert_eq!(analyse(&r).groups[0].conditional.len(), 1);
}

#[test]
fn sweeps_of_one_base_that_differ_in_streams_are_one_family() {
    let mut r = experiment(2, 4, 14, true);
    let all = r.plan.units[0].clone();
    for (at, (kept, base)) in (7..).zip([(&[0u32, 1, 2, 3][..], 2), (&[2, 4, 5, 6, 7][..], 0)]) {
        r.plan.units.push(all.kept(|u| kept.contains(&u.0)));
        let kind = SweepKind::Conditional { base: vec![UnitIx(base)] };
        let sweep = PlannedSweep { kind, units: at - 6, chunk: 5, ..r.plan.sweeps[2].clone() };
        r.plan.sweeps.push(sweep);
        let round = scores(&r.plan, &r.prepared, at, 0, &[], true);
        r.rounds.insert((at, 0), round);
    }
    for g in &analyse(&r).groups {
        let [c] = &g.conditional[..] else { panic!("one base") };
        let pairs: Vec<(u32, u32)> = c.pairs.iter().map(|p| (p.a.0, p.b.0)).collect();
        assert_eq!(pairs, [(0, 1), (0, 3), (1, 3), (4, 5), (4, 6), (4, 7), (5, 6), (5, 7), (6, 7)]);
        let p: Vec<f64> = c.pairs.iter().map(|p| p.interaction.p).collect();
        let q = ablate_common::stats::fdr::benjamini_hochberg(&p);
        assert!(c.pairs.iter().zip(&q).all(|(p, q)| p.q == *q), "{q:?}");
    }
}

#[test]
fn people_are_told_a_long_base_in_short() {
    let mut r = experiment(2, 4, 14, true);
    let kind = SweepKind::Conditional { base: (0..5).map(UnitIx).collect() };
    r.plan.sweeps.push(PlannedSweep { kind, ..r.plan.sweeps[2].clone() });
    let round = scores(&r.plan, &r.prepared, 7, 0, &[], true);
    r.rounds.insert((7, 0), round);
    let (full, short) = ("L0.H0 + L0.H1 + L0.H2 + L0.H3 + L1.H0", "5 heads (L0.H0, L0.H1, …)");
    let plan = &r.plan;
    assert_eq!((plan.base_name(7).as_deref(), plan.base_short(7).as_deref()), (Some(full), Some(short)));
    assert_eq!((plan.given(7), plan.given(2)), (format!(", given {short}"), String::new()));
    assert_eq!((plan.base_name(2), plan.base_short(99)), (None, None));
    let a = analyse(&r);
    assert_eq!(facts::summary(&r, &a)["tasks"][0]["conditional"][0]["base"], full);
    assert!(headline_analysed(&r, &a).contains(&format!("With {short} removed")));
    let dir = tempfile::tempdir().unwrap();
    let page = dir.path().join("report.html");
    report_analysed(&r, &a, &page).unwrap();
    let page = std::fs::read_to_string(&page).unwrap();
    assert!(
        page.contains(&format!("I, given {short}")) && page.contains(&format!("conditional, given {short}"))
    );
    assert_eq!(page.matches(full).count(), 2, "a caption of each task has all names");
}

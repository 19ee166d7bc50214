//! Attention, repair and shift: tables of synthetic scores with known means.

use super::*;
use ablate_common::attention::{COLUMNS, queries};
use ablate_common::head::Stream;
use ablate_common::plan::{Shown, Source};
use ablate_common::shift::points;
use ablate_common::stats::Estimate;
use ablate_common::units::UnitKind;
use arrow_array::Array;
use arrow_array::cast::AsArray;
use arrow_array::types::Float64Type;

/// Adds a sweep whose scores `value` gives for (rank, column, row), in chunks of `chunk`.
fn add(
    r: &mut Results,
    kind: SweepKind,
    tasks: &[u32],
    chunk: u32,
    value: impl Fn(u64, usize, usize) -> f64,
) -> u32 {
    let scope = Scope::All;
    r.plan.sweeps.push(PlannedSweep { kind, ablation: 0, tasks: tasks.to_vec(), units: 0, scope, chunk });
    let sweep = r.plan.sweeps.len() as u32 - 1;
    let mut round = RoundResult::default();
    for at in 0..r.plan.round_chunks(sweep, 0) {
        let ranks = r.plan.chunk_ranks(sweep, 0, at);
        let block = |&task: &u32| {
            let rows = r.plan.rows(sweep, &r.prepared[task as usize]).len();
            let columns = r.plan.columns(sweep, task).len();
            let cell = |rank: u64| {
                let value = &value;
                (0..columns).flat_map(move |c| (0..rows).map(move |row| value(rank, c, row)))
            };
            let values = ranks.clone().flat_map(cell).collect();
            TaskScores { task, examples: rows as u32, columns: columns as u32, values }
        };
        let tasks = tasks.iter().map(block).collect();
        round.chunks.insert(at, ChunkScores { subsets: (ranks.end - ranks.start) as u32, tasks });
    }
    r.rounds.insert((sweep, 0), round);
    sweep
}

fn column(batches: &[arrow_array::RecordBatch], name: &str) -> Vec<Option<f64>> {
    let of = |b: &arrow_array::RecordBatch| {
        let all = b.column_by_name(name).unwrap().as_primitive::<Float64Type>().clone();
        (0..all.len()).map(move |i| (!all.is_null(i)).then(|| all.value(i))).collect::<Vec<_>>()
    };
    batches.iter().flat_map(of).collect()
}

#[test]
fn scores_of_attention_are_means_over_the_queries_that_have_them() {
    let mut r = experiment(2, 4, 8, true);
    // Texts of their own lengths; in the first task no token repeats.
    for (i, item) in r.prepared[0].items.iter_mut().enumerate() {
        item.tokens = (0..3 + i as u32 % 4).collect();
    }
    for (i, item) in r.prepared[1].items.iter_mut().enumerate() {
        item.tokens = (0..3 + i as u32 % 4).map(|t| t % 2).collect();
    }
    let of: Vec<Vec<[u32; 7]>> = r
        .prepared
        .iter()
        .map(|p| p.items.iter().map(|i| queries(i, Stream::SelfAttention)).collect())
        .collect();
    // Every query of head h and column c has the same score, so that its mean is that and has no error.
    let truth = |rank: u64, c: usize| 0.1 + 0.02 * rank as f64 + 0.1 * c as f64;
    for task in 0..2u32 {
        let counts = of[task as usize].clone();
        let value = move |rank, c, row: usize| truth(rank, c) * f64::from(counts[row][c]);
        add(&mut r, SweepKind::Attention { greedy: None }, &[task], 3, value);
    }
    let a = analyse(&r);
    for (t, g) in a.groups.iter().enumerate() {
        assert_eq!(g.attention.len(), 8);
        for (rank, row) in (0u64..).zip(&g.attention) {
            assert_eq!((row.layer, row.head), (rank as u32 / 4, rank as u32 % 4));
            let all = [
                Some(row.confidence),
                Some(row.entropy),
                row.first_token,
                row.previous_token,
                row.duplicate_token,
                row.induction,
                Some(row.rollout),
            ];
            for (c, got) in all.into_iter().enumerate() {
                let known = t == 1 || !(c == 4 || c == 5);
                assert_eq!(got.is_some(), known, "{}, {}", g.name, COLUMNS[c]);
                let Some(got) = got else { continue };
                assert!((got - truth(rank, c)).abs() < 1e-12 && row.errors[c] < 1e-12, "{got}");
            }
        }
    }
    // As every item says the same, so do the halves.
    for g in &a.groups {
        for name in ["rollout", "confidence", "entropy"] {
            let row = g.reliability.iter().find(|r| r.score == format!("{name} {}", g.name)).unwrap();
            assert!(row.n == 8 && row.split_half > 0.999, "{row:?}");
        }
    }
    let dir = tempfile::tempdir().unwrap();
    export_analysed(&r, &a, dir.path(), Format::Parquet).unwrap();
    let table = read(&dir.path().join("attention.parquet"));
    let induction = column(&table, "induction");
    assert!(induction[..8].iter().all(Option::is_none) && induction[8..].iter().all(Option::is_some));
    assert!(!dir.path().join("repair.parquet").exists() && !dir.path().join("patterns.parquet").exists());
    assert!(read(&dir.path().join("scores.parquet"))[0].column_by_name("confidence").is_none());
}

#[test]
fn attention_is_compared_under_every_ablation_of_heads() {
    let mut r = experiment(2, 4, 8, true);
    add(&mut r, SweepKind::Attention { greedy: None }, &[0, 1], 3, |rank, _, _| 1.0 + rank as f64);
    // A second ablation of heads, with the scores of the first.
    r.plan.ablations.push(Ablation::Zero.into());
    for from in [0, 1u32] {
        let sweep = PlannedSweep { ablation: 1, ..r.plan.sweeps[from as usize].clone() };
        r.plan.sweeps.push(sweep);
        let round = r.rounds[&(from, 0)].clone();
        r.rounds.insert((r.plan.sweeps.len() as u32 - 1, 0), round);
    }
    let compared = |a: &Analysis, x: &str, y: &str| {
        let of = |row: &&AgreementRow| row.scope == "all" && row.score_a == x && row.score_b == y;
        a.agreement.iter().filter(of).count()
    };
    let reliable = |a: &Analysis| {
        a.groups.iter().flat_map(|g| &g.reliability).filter(|r| r.score == "rollout ioi").count()
    };
    let a = analyse(&r);
    assert_eq!(compared(&a, "delta ioi mean", "rollout ioi"), 1);
    assert_eq!(compared(&a, "delta ioi zero", "rollout ioi"), 1);
    assert_eq!((compared(&a, "rollout ioi", "confidence ioi"), reliable(&a)), (1, 1));
    // The first removes something else than heads.
    r.plan.ablations[0].unit = UnitKind::Layer;
    let a = analyse(&r);
    assert_eq!(compared(&a, "delta ioi mean", "rollout ioi"), 0);
    assert_eq!(compared(&a, "delta ioi zero", "rollout ioi"), 1);
    assert_eq!((compared(&a, "rollout ioi", "confidence ioi"), reliable(&a)), (1, 1));
}

#[test]
fn gradients_of_texts_that_share_pairs_have_no_halves() {
    let mut r = experiment(2, 4, 8, true);
    let value = |rank: u64, _: usize, row: usize| rank as f64 + noise(rank, row as u64);
    add(&mut r, SweepKind::Gradient { greedy: None }, &[0, 1], 3, value);
    let a = analyse(&r);
    let scores = |g: &Group| g.reliability.iter().map(|r| r.score.clone()).collect::<Vec<_>>();
    assert_eq!(scores(&a.groups[0]), ["delta ioi mean", "gradient ioi mean", "attribution ioi mean"]);
    assert_eq!(scores(&a.groups[1]), ["delta news mean"]);
}

#[test]
fn patterns_are_told_by_example_head_and_token() {
    let mut r = experiment(1, 2, 8, true);
    let text = |s: &str| s.split(' ').map(str::to_owned).collect::<Vec<_>>();
    let items = vec![
        Shown { example: 2, item: 0, queries: text("a b"), keys: Vec::new() },
        Shown { example: 2, item: 5, queries: text("c"), keys: text("x y z") },
    ];
    add(&mut r, SweepKind::Patterns { items }, &[1], 2, |rank, _, row| 10.0 * rank as f64 + row as f64);
    assert!(patterns(&r, 0).is_empty());
    let all = patterns(&r, 1);
    assert_eq!(all.len(), 4);
    assert_eq!((all[1].example, all[1].sequence, all[1].head.head), (2, 0, 1));
    assert_eq!(all[1].attention, [10.0, 11.0, 12.0, 13.0]);
    assert_eq!(
        (all[2].sequence, &all[2].keys[2], &all[2].attention[..]),
        (1, &"z".to_owned(), &[4.0, 5.0, 6.0][..])
    );
    let dir = tempfile::tempdir().unwrap();
    let written = export(&r, dir.path(), Format::Parquet).unwrap();
    let rows = written.files.iter().find(|f| f.path.ends_with("patterns.parquet")).unwrap().rows;
    assert_eq!(rows, 14);
    let table = read(&dir.path().join("patterns.parquet"));
    let tokens = |name: &str| -> Vec<String> {
        let of = |b: &arrow_array::RecordBatch| {
            let all = b.column_by_name(name).unwrap().as_string::<i32>().clone();
            (0..all.len()).map(move |i| all.value(i).to_owned()).collect::<Vec<_>>()
        };
        table.iter().flat_map(of).collect()
    };
    assert_eq!(tokens("query_token")[..4], ["a", "a", "b", "b"]);
    assert_eq!(tokens("key_token")[8..11], ["x", "y", "z"]);
    export(&r, dir.path(), Format::Csv).unwrap();
    assert_eq!(std::fs::read_to_string(dir.path().join("patterns.csv")).unwrap().lines().count(), 15);
}

#[test]
fn repair_is_the_direct_effect_less_the_whole() {
    let mut r = experiment(2, 4, 8, true);
    let singles = r.rounds[&(1, 0)].chunks.clone();
    let whole =
        move |rank: u64, row: usize| singles[&(rank as u32 / 7)].tasks[0].column(rank as usize % 7, 0)[row];
    // Of the logit difference half a unit more is lost while everything else stands still, in head 3 nothing.
    let repaired = |rank: u64, row: usize| {
        if rank == 3 { 0.0 } else { 0.5 + 0.1 * noise(rank, row as u64) }
    };
    add(&mut r, SweepKind::Repair, &[0], 5, move |rank, _, row| whole(rank, row) - repaired(rank, row));
    let a = analyse(&r);
    let rows = &a.groups[0].repair;
    assert!(rows.len() == 8 && a.groups[1].repair.is_empty());
    for (row, head) in rows.iter().zip(&a.groups[0].heads) {
        assert_eq!((row.ix, row.n), (head.ix, 60));
        assert!((row.total - head.delta.value).abs() < 1e-12);
        assert!((row.repair.value - (row.direct - row.total)).abs() < 1e-12);
        let none = row.ix.0 == 3;
        assert_eq!((row.q < 0.05, row.repair.value.abs() < 1e-9), (!none, none), "{row:?}");
        assert!(none || (row.repair.value - 0.5).abs() < 0.05);
    }
    let dir = tempfile::tempdir().unwrap();
    export_analysed(&r, &a, dir.path(), Format::Parquet).unwrap();
    let table = read(&dir.path().join("repair.parquet"));
    assert_eq!(column(&table, "repair").len(), 8);
    assert_eq!(column(&table, "direct")[0], Some(rows[0].direct));
}

#[test]
fn what_is_made_up_for_is_told_by_size_and_not_by_sign() {
    let r = experiment(2, 4, 8, true);
    let mut a = analyse(&r);
    let row = |unit, direct: f64, total: f64, q| {
        let value = direct - total;
        let repair = Estimate { value, se: 0.01, low: value - 0.02, high: value + 0.02, p: 1e-6 };
        RepairRow { ix: UnitIx(unit), direct, total, repair, q, n: 60 }
    };
    // Of two heads whose removal helps one is made up for and one amplified; the last isn't resolved.
    a.groups[0].repair = vec![
        row(0, -0.5, -0.1, 1e-5),
        row(1, -0.1, -0.5, 1e-5),
        row(2, 0.5, 0.2, 1e-5),
        row(3, 0.1, -0.3, 1e-5),
        row(4, 0.9, 0.1, 0.3),
    ];
    let figures = crate::figure::figures(&r, &a).unwrap();
    let f = figures.iter().find(|f| f.name.starts_with("repair")).unwrap();
    assert_eq!(
        f.finding,
        "What comes behind makes up for the effect of 2 of 5 heads, amplifies that of 1 and turns the sign of 1 (q ≤ 0.05). Most is made up for L0.H0: directly −0.500, in the end −0.100, difference −0.400 [−0.420, −0.380]."
    );
    let told = |name: &str| f.svg.split("data-tip=\"").find(|t| t.starts_with(name)).unwrap();
    for (name, words) in [
        ("L0.H0", "whole −0.100: made up for in part"),
        ("L0.H1", "whole −0.500: amplified"),
        ("L0.H3", "whole −0.300: its sign turned"),
        ("L1.H0", "whole +0.100: unresolved"),
    ] {
        assert!(told(name).contains(words), "{}", told(name));
    }
    // Where nothing is made up for there is no most.
    a.groups[0].repair.iter_mut().for_each(|r| r.q = 0.3);
    let figures = crate::figure::figures(&r, &a).unwrap();
    let f = figures.iter().find(|f| f.name.starts_with("repair")).unwrap();
    assert!(f.finding.ends_with("turns the sign of 0 (q ≤ 0.05)."), "{}", f.finding);
}

#[test]
fn shifts_are_flagged_named_and_compared_with_the_reference_set() {
    let mut r = experiment(2, 3, 8, true);
    let places = points(r.plan.heads()).len();
    assert_eq!(places, 3);
    // Rank 1 is all heads, head h has rank h + 2: head 4 doubles the last stream, all heads shrink it to a third.
    let ratio = |rank: u64, row: usize| match (rank, row) {
        (6, 2) => 2.0,
        (1, 2) => 1.0 / 3.0,
        _ => 1.0 + 0.01 * row as f64,
    };
    let value = move |rank, column, row: usize| {
        let base = 10.0 * (1 + row) as f64;
        [base * ratio(rank, row), base, 1.5 * ratio(rank, row), 1.25 * base][column]
    };
    add(&mut r, SweepKind::Shift, &[0, 1], 3, value);
    r.plan.ablations[0].sources = vec![Source { reference: Some(0), donors: Vec::new() }, Source::default()];
    let a = analyse(&r);
    let g = &a.groups[0];
    assert_eq!(g.shift.len(), 7 * places);
    assert!(g.shift[..places].iter().all(|s| s.ix.is_none()));
    let flagged: Vec<_> =
        g.shift.iter().filter(|s| s.flagged).map(|s| (s.ix.map(|u| u.0), s.at_layer)).collect();
    assert_eq!(flagged, [(None, 2), (Some(4), 2)]);
    assert_eq!((g.shift[4].reference, a.groups[1].shift[4].reference), (Some(25.0), None));
    assert_eq!((g.shift[4].reference_ratio, a.groups[1].shift[4].reference_ratio), (Some(0.8), None));
    assert!((g.shift[2].ratio - 1.0 / 3.0).abs() < 1e-12 && (g.shift[2].largest - 0.5).abs() < 1e-12);
    let said = facts::warnings(&r, g);
    let said = said.iter().find(|w| w.contains("residual stream")).unwrap();
    assert!(said.contains("all heads (0.33×), L1.H1 (2.00×)"), "{said}");
    let dir = tempfile::tempdir().unwrap();
    export_analysed(&r, &a, dir.path(), Format::Parquet).unwrap();
    let table = read(&dir.path().join("shift.parquet"));
    assert_eq!(column(&table, "ratio").len(), 2 * 7 * places);
    assert_eq!(column(&table, "reference")[7 * places], None);
    assert_eq!(column(&table, "reference_ratio")[4], Some(0.8));

    // Removals change nothing, but the set that b comes from is of another size.
    let mut r = experiment(2, 3, 8, true);
    add(&mut r, SweepKind::Shift, &[0, 1], 3, |_, column, _| [6.0, 6.0, 1.0, 2.0][column]);
    r.plan.ablations[0].sources = vec![Source { reference: Some(0), donors: Vec::new() }, Source::default()];
    let a = analyse(&r);
    assert!(a.groups[0].shift.iter().all(|s| s.flagged && !s.moved()));
    assert!(a.groups[1].shift.iter().all(|s| !s.flagged));
    let said = facts::warnings(&r, &a.groups[0]).join(" ");
    assert!(said.contains("3.00× that on the set") && !said.contains("Removing all heads"), "{said}");
}

#[test]
fn every_figure_has_the_numbers_that_it_shows() {
    let mut r = experiment(2, 4, 8, true);
    follow::follow_up(&mut r);
    add(&mut r, SweepKind::Attention { greedy: None }, &[0, 1], 3, |_, _, _| 0.2);
    add(&mut r, SweepKind::Shift, &[0, 1], 3, |_, column, _| [6.0, 6.0, 1.0, 2.0][column]);
    // A token that would end a line of a table; of two by two weights three are drawn.
    let text = |s: &str| s.split(' ').map(str::to_owned).collect::<Vec<_>>();
    for task in [0, 1] {
        let items = vec![Shown { example: 2, item: 2, queries: text("a\r b"), keys: Vec::new() }];
        let weight = |_, _, row: usize| if row == 1 { 0.01 } else { 0.5 };
        add(&mut r, SweepKind::Patterns { items }, &[task], 2, weight);
    }
    let a = analyse(&r);
    let figures = crate::figure::figures(&r, &a).unwrap();
    for kind in [
        "heads",
        "top",
        "selected",
        "attention",
        "shift",
        "top-pairs",
        "graph",
        "groups",
        "triples",
        "portrait",
    ] {
        assert!(figures.iter().any(|f| f.name.starts_with(&format!("{kind}-"))), "no {kind}");
    }
    for f in &figures {
        // The page has the pairs of a matrix packed.
        let Some(table) = &f.data else {
            assert!(f.order.is_some(), "{} has no numbers", f.name);
            continue;
        };
        assert!(!table.rows.is_empty(), "{}", f.name);
        assert!(table.rows.iter().all(|row| row.len() == table.columns.len()), "{}", f.name);
    }
    let of = |name: &str| figures.iter().find(|f| f.name == name).and_then(|f| f.data.as_ref()).unwrap();
    // Those of the planted head, whose pattern is drawn on the task where it matters most.
    let rows = &of("portrait-l0-h2").rows;
    let count = |what: &str| rows.iter().filter(|row| row[0] == what).count();
    assert_eq!((count("confidence"), count("entropy"), count("delta"), count("weight")), (1, 1, 2, 3));
    let first = rows.iter().find(|row| row[0] == "weight").unwrap();
    assert_eq!((&first[3], &first[5]), (&"a\u{fffd}".into(), &"a\u{fffd}".into()));
    assert_eq!(first[6], 0.5);
    let head = &a.groups[0].heads[2];
    let top = &of("top-ioi-mean").rows[0];
    assert_eq!((&top[0], &top[6]), (&"L0.H2".into(), &crate::figure::rounded(head.delta.value, 6)));
    let pair = &of("top-pairs-ioi-mean").rows[0];
    assert_eq!((&pair[0], &pair[1], &pair[9]), (&"L0.H1".into(), &"L1.H1".into(), &"redundant".into()));
    assert_eq!(of("groups-ioi-mean").rows[0][0], "L0.H1 L1.H1");
    assert_eq!(of("triples-ioi-mean").rows[0][0], "L0.H1 L0.H2 L1.H1");
    assert_eq!(of("selected-ioi-mean").rows[0][1], "L0.H2");
}

//! Synthetic experiments with known truth.

mod conditional;
mod follow;
pub(crate) mod matched;
mod observed;
mod page;

use super::*;
use crate::results::{Results, RoundResult, RunInfo};
use ablate_common::ENGINE_VERSION;
use ablate_common::head::{HeadIx, HeadMap};
use ablate_common::metric::Metric;
use ablate_common::model::ModelInfo;
use ablate_common::plan::{Ablation, Decision, Order, Plan, PlannedSweep, PlannedTask, Pool, SweepKind};
use ablate_common::scores::{ChunkScores, TaskScores};
use ablate_common::spec::{Dtype, ModelSpec, Spec};
use ablate_common::task::{Example, Item, Prepared, Scope, TaskKind};
use ablate_common::units::{UnitIx, UnitMap};
use parquet::arrow::arrow_reader::ParquetRecordBatchReaderBuilder;
use std::collections::BTreeMap;
use std::path::Path;

/// A number in [−1, 1) from integers.
fn noise(a: u64, b: u64) -> f64 {
    let mut x = a.wrapping_mul(0x9E37_79B9_7F4A_7C15) ^ b.wrapping_mul(0xD1B5_4A32_D192_ED03);
    x = (x ^ (x >> 29)).wrapping_mul(0xBF58_476D_1CE4_E5B9);
    (x >> 11) as f64 / (1u64 << 52) as f64 - 1.0
}

/// What head `h` adds to a task; heads 1 and 5 stand in for each other.
fn damage(subset: &[HeadIx], task: u64, example: u64) -> f64 {
    let has = |h: u32| subset.contains(&HeadIx(h));
    let one = |h: &HeadIx| {
        let w = if h.0 == 2 { 1.5 } else { 0.06 * (noise(u64::from(h.0), task) + 0.7) };
        w * (1.0 + 0.3 * noise(example, u64::from(h.0) + 100))
    };
    let both = if has(1) && has(5) { 1.0 + 0.2 * noise(example, 9) } else { 0.0 };
    subset.iter().map(one).sum::<f64>() + both
}

fn scores(
    plan: &Plan,
    prepared: &[Prepared],
    sweep: u32,
    round: u32,
    list: &[UnitIx],
    floor: bool,
) -> RoundResult {
    let planned = &plan.sweeps[sweep as usize];
    let space = plan.space(sweep, list);
    let mut out = RoundResult { list: list.to_vec(), ..RoundResult::default() };
    for chunk in 0..plan.round_chunks(sweep, round) {
        let ranks = plan.chunk_ranks(sweep, round, chunk);
        let tasks = planned
            .tasks
            .iter()
            .map(|&t| {
                let p = &prepared[t as usize];
                let keep = p.examples_in(planned.scope);
                let mut values = Vec::new();
                for rank in ranks.clone() {
                    let subset = plan.removed(sweep, &space, rank).unwrap();
                    for &e in &keep {
                        let e = u64::from(e);
                        let hurt = if floor { damage(&subset, u64::from(t), e) } else { 0.0 };
                        values.push(match p.kind {
                            TaskKind::Similarity => {
                                p.examples[e as usize].gold + noise(e, 3) * (0.15 + 0.2 * hurt)
                            }
                            _ => 4.0 + noise(e, 4) - hurt,
                        });
                    }
                }
                TaskScores { task: t, examples: keep.len() as u32, columns: 1, values }
            })
            .collect();
        out.chunks.insert(chunk, ChunkScores { subsets: (ranks.end - ranks.start) as u32, tasks });
    }
    out
}

fn ioi(n: u32) -> Prepared {
    let items = (0..n).map(|_| Item { tokens: vec![1, 2, 3], ..Item::default() }).collect();
    let example = |i: u32| Example { a: i, b: i, gold: 0.0, cluster: i, half: Some((i % 2) as u8) };
    Prepared {
        kind: TaskKind::Ioi,
        items,
        item_half: (0..n).map(|i| (i % 2) as u8).collect(),
        examples: (0..n).map(example).collect(),
        probe: None,
    }
}

fn similarity(texts: u32) -> Prepared {
    let items = (0..texts).map(|i| Item { tokens: vec![i + 1; 4], ..Item::default() }).collect();
    let mut examples = Vec::new();
    for a in 0..texts {
        for b in a + 1..texts {
            let half = (a % 2 == b % 2).then_some((a % 2) as u8);
            let gold = (noise(u64::from(a), u64::from(b) + 50) + 1.0) / 2.0;
            examples.push(Example { a, b, gold, cluster: examples.len() as u32, half });
        }
    }
    Prepared {
        kind: TaskKind::Similarity,
        items,
        item_half: (0..texts).map(|i| (i % 2) as u8).collect(),
        examples,
        probe: None,
    }
}

/// A whole experiment on `layers` × `heads`; without `floor` no removal does anything.
pub(crate) fn experiment(layers: u32, heads: u32, texts: u32, floor: bool) -> Results {
    let prepared = vec![ioi(60), similarity(texts)];
    let n = layers * heads;
    let steps = (0.79 * f64::from(n)).ceil() as u32;
    let task = |name: &str, p: &Prepared, metric| PlannedTask {
        name: name.into(),
        kind: p.kind,
        metric,
        prepared: "00".repeat(32),
        items: p.items.len() as u32,
        examples: p.examples.len() as u32,
        all: Vec::new(),
        select: Vec::new(),
    };
    let sweep =
        |kind, scope| PlannedSweep { kind, ablation: 0, tasks: vec![0, 1], units: 0, scope, chunk: 7 };
    let greedy = SweepKind::Greedy { steps, objective: 0 };
    let points: Vec<u32> = (1..=10).map(|k| (steps * k).div_ceil(10)).collect();
    let plan = Plan {
        engine: ENGINE_VERSION,
        spec: Spec {
            name: "planted <b>pair</b>".into(),
            seed: 3,
            model: ModelSpec { source: "none".into(), dtype: Dtype::F32, sha256: None },
            tasks: Vec::new(),
            ablations: vec![Ablation::Mean { pool: Pool::Tokens }.into()],
            sweeps: Vec::new(),
        },
        model: ModelInfo {
            arch: "llama".into(),
            title: "Synthetic </script> model".into(),
            weights_sha256: "ab".repeat(32),
            heads: HeadMap::single_stream(layers, heads),
            layers,
            d_model: 8,
            n_heads: heads,
            n_kv_heads: heads,
            head_dim: 2,
            d_ff: 8,
            vocab: 9,
            context: 16,
            norm_eps: 1e-5,
            rope_theta: None,
            tied: true,
            details: ablate_common::model::Details::default(),
        },
        tasks: vec![
            task("ioi", &prepared[0], Metric::LogitDiff),
            task("news", &prepared[1], Metric::Pearson),
        ],
        ablations: vec![Ablation::Mean { pool: Pool::Tokens }.into()],
        units: vec![UnitMap::heads(&HeadMap::single_stream(layers, heads))],
        references: Vec::new(),
        sweeps: vec![
            sweep(SweepKind::Reference, Scope::All),
            sweep(SweepKind::Single, Scope::All),
            sweep(SweepKind::Pairs, Scope::All),
            PlannedSweep { tasks: vec![0], ..sweep(greedy, Scope::Select) },
            sweep(SweepKind::Path { greedy: 3, order: Order::Greedy }, Scope::All),
            sweep(SweepKind::Path { greedy: 3, order: Order::Importance }, Scope::All),
            sweep(SweepKind::Random { orders: 20, seed: 5, points }, Scope::All),
        ],
    };
    let mut order: Vec<UnitIx> = (0..n).map(UnitIx).collect();
    order.sort_by(|a, b| damage(&[HeadIx(a.0)], 0, 0).total_cmp(&damage(&[HeadIx(b.0)], 0, 0)));
    // Keep one of the two that stand in for each other to the end.
    order.retain(|h| h.0 != 5);
    order.push(UnitIx(5));
    let mut rounds = BTreeMap::new();
    for s in [0, 1, 2, 6] {
        rounds.insert((s, 0), scores(&plan, &prepared, s, 0, &[], floor));
    }
    for r in 0..steps {
        let mut round = scores(&plan, &prepared, 3, r, &order[..r as usize], floor);
        round.decision = Some(Decision { remove: Some(order[r as usize]), ..Decision::default() });
        rounds.insert((3, r), round);
    }
    for s in [4, 5] {
        let mut list = order[..steps as usize].to_vec();
        if s == 5 {
            list.reverse();
        }
        rounds.insert((s, 0), scores(&plan, &prepared, s, 0, &list, floor));
    }
    let run = RunInfo {
        planned: plan.total_chunks(),
        device_classes: BTreeMap::from([("cpu x".into(), 4), ("cpu <y>".into(), 5)]),
        versions: BTreeMap::from([("ablate".into(), "0.1.0".into())]),
        ..RunInfo::default()
    };
    Results { id: plan.identity(), plan, prepared, rounds, run }
}

fn read(path: &Path) -> Vec<arrow_array::RecordBatch> {
    let file = std::fs::File::open(path).unwrap();
    let reader = ParquetRecordBatchReaderBuilder::try_new(file).unwrap().build().unwrap();
    reader.map(Result::unwrap).collect()
}

#[test]
fn the_planted_pair_and_head_are_found() {
    let r = experiment(2, 4, 30, true);
    let a = analyse(&r);
    for g in &a.groups {
        let top = facts::top_heads(g, 1)[0];
        assert_eq!((top.ix.0, top.q < 0.05), (2, true), "{}", g.name);
        let pair = facts::top_pairs(g, 1)[0];
        assert_eq!((pair.a.0, pair.b.0, pair.relation), (1, 5, Relation::Redundant), "{}", g.name);
        let sum = pair.delta_ab - pair.delta_a - pair.delta_b;
        assert!((pair.interaction.value - sum).abs() < 1e-9);
        assert!(pair.normalised().unwrap() > 1.0);
        assert_eq!((g.heads.len(), g.pairs.len(), g.curves.len()), (8, 28, 22));
        let greedy = &g.curves[0];
        assert_eq!(
            (greedy.order.as_str(), greedy.half, greedy.flagged, greedy.points.len()),
            ("greedy", Some(1), false, 8)
        );
        assert_eq!(greedy.points[0].retained, Some(1.0));
        assert_eq!(greedy.retained_at(0.79).unwrap().0, 7);
        assert!(greedy.area(|r| r).is_some() && greedy.largest(0.9).is_some());
    }
    // Everything else in the first task is additive, but for rounding.
    assert_eq!(facts::count(&a.groups[0], Relation::Redundant), 1);
    assert_eq!(facts::count(&a.groups[0], Relation::Overlapping), 0);
    assert_eq!(a.agreement.len(), 2);
    let text = headline_analysed(&r, &a);
    assert!(text.contains("L0.H1 + L1.H1") && text.contains("Retained without 7 of 8 heads"), "{text}");
}

#[test]
fn curves_have_bands_and_orders_a_row_each() {
    let a = analyse(&experiment(2, 4, 30, true));
    for g in &a.groups {
        for c in g.curves.iter().filter(|c| !c.order.starts_with("random")) {
            for p in &c.points {
                let (low, high) = (p.retained_low.unwrap(), p.retained_high.unwrap());
                let r = p.retained.unwrap();
                assert!(
                    low <= r + 1e-12 && r <= high + 1e-12,
                    "{} {}: {r} in {low} {high}",
                    g.name,
                    p.removed
                );
                assert!(p.value_low.unwrap() < p.value && p.value < p.value_high.unwrap());
                assert!(p.removed == 0 || p.removed == c.heads || low < high);
            }
            // Nothing is removed: r is 1 for certain.
            assert!((c.points[0].retained_low.unwrap() - 1.0).abs() < 1e-9);
            let (low, high) = c.area_ci.unwrap();
            assert!(low < c.area(|r| r).unwrap() && c.area(|r| r).unwrap() < high);
        }
        let rows = orders(g);
        let names: Vec<&str> = rows.iter().map(|r| r.order.as_str()).collect();
        assert_eq!((rows.len(), names[0], names[22]), (23, "greedy", "random"));
        let together = &rows[22];
        assert_eq!((together.orders, together.half, rows[0].cpr), (20, Some(1), None));
        assert!(together.area_low < together.area && together.area < together.area_high);
        assert!(rows[0].area_low < rows[0].area && rows[0].r_079_low <= rows[0].r_079);
    }
}

#[test]
fn an_order_that_removes_every_head_has_cpr_and_cmd() {
    let r = experiment(2, 4, 8, true);
    let mut c = analyse(&r).groups[0].curves[0].clone();
    assert!(c.cpr().is_none() && c.cmd().is_none());
    // r = 1, 0.5, −0.25, 0 at κ = 0, 1/4, 1/2, 1: areas 3/16 + 1/32 − 1/16, and of |1 − r| 1/16 + 7/32 + 9/16.
    c.points.truncate(4);
    for (p, (removed, r)) in c.points.iter_mut().zip([(0, 1.0), (1, 0.5), (2, -0.25), (4, 0.0)]) {
        (p.removed, p.retained) = (removed, Some(r));
    }
    (c.heads, c.last) = (4, 4);
    assert!((c.cpr().unwrap() - 0.15625).abs() < 1e-12 && (c.cmd().unwrap() - 0.84375).abs() < 1e-12);
    // A point whose r isn't known ends what is retained, and takes nothing of what is before it.
    c.points[2].retained = None;
    assert_eq!((c.largest(0.9), c.largest(0.4)), (Some(0.0), Some(0.25)));
}

#[test]
fn scores_are_reliable_where_the_halves_agree_and_the_first_are_measured_again() {
    let a = analyse(&experiment(2, 4, 30, true));
    for g in &a.groups {
        let r = &g.reliability[0];
        assert_eq!((r.score.clone(), r.n), (format!("delta {} mean", g.name), 8));
        assert!(r.corrected >= r.split_half && r.split_half > 0.3, "{} {}", g.name, r.split_half);
        assert!(r.ci_low <= r.corrected && r.corrected <= r.ci_high);
        // Head 2 and the pair (1, 5) are the first on either half.
        let first = |pair: bool| g.selected.iter().find(|s| s.b.is_some() == pair).unwrap();
        assert_eq!((first(false).a.0, first(false).rank, first(true).a.0), (2, 1, 1));
        assert!(
            first(true).effect_select > 0.0 && first(true).effect.value > 0.0 && first(true).effect.se > 0.0
        );
        assert_eq!(g.selected.len(), 18, "eight units and ten pairs");
    }
    assert_eq!(a.groups[0].selected[0].n, 30, "half of the examples");
    let head = &a.polysemanticity[2];
    assert_eq!((a.polysemanticity.len(), head.tasks.len(), head.resolved), (8, 2, 2));
    let participation = head.participation.unwrap();
    assert!((1.0..=2.0).contains(&participation) && head.strongest == "ioi", "{head:?}");
}

#[test]
fn a_floor_that_is_no_worse_is_flagged() {
    let a = analyse(&experiment(2, 2, 8, false));
    for c in a.groups.iter().flat_map(|g| &g.curves) {
        assert!(c.flagged && c.points.iter().all(|p| p.retained.is_none() && p.value.is_finite()));
    }
    assert!(a.groups[0].heads.iter().all(|h| h.delta.value == 0.0 && h.delta.p == 1.0));
    assert!(a.groups.iter().flat_map(|g| &g.pairs).all(|p| p.relation == Relation::Unresolved));
}

#[test]
fn pairs_count_for_both_of_their_texts() {
    let mut r = experiment(1, 2, 50, true);
    // As the data tell it: the document of a pair is that of its first text.
    r.prepared[1].examples.iter_mut().for_each(|e| e.cluster = e.a);
    let a = analyse(&r);
    let g = &a.groups[1];
    assert_eq!((g.examples, g.clusters), (1225, 50));
    let said = facts::warnings(&r, g);
    assert!(!said.iter().any(|w| w.contains("weigh alike")), "{said:?}");
    // 300 pairs of 25 texts are left to report on.
    assert_eq!((g.curves[0].examples, g.curves[0].clusters), (300, 25));
    assert!(
        said.iter().any(|w| w.contains("the half that reports, 300 examples in 25 clusters")),
        "{said:?}"
    );
    assert!(facts::warnings(&r, &a.groups[0])[0].starts_with("60 examples in 60 clusters"));
    // One text is in almost all pairs.
    r.prepared[1].examples.iter_mut().skip(50).for_each(|e| e.a = 0);
    let said = facts::warnings(&r, g);
    assert!(said.iter().any(|w| w.contains("weigh alike")), "{said:?}");
}

#[test]
fn tables_are_complete_and_the_same_bytes_every_time() {
    let r = experiment(2, 3, 8, true);
    let (a, b) = (tempfile::tempdir().unwrap(), tempfile::tempdir().unwrap());
    let written = export(&r, a.path(), Format::Parquet).unwrap();
    let mut other = r.clone();
    other.run.seconds.insert("prepare".into(), 2.5);
    export(&other, b.path(), Format::Parquet).unwrap();
    assert!(!written.partial);
    let rows: BTreeMap<String, u64> = written
        .files
        .iter()
        .map(|f| (f.path.file_name().unwrap().to_string_lossy().into_owned(), f.rows))
        .collect();
    for (name, &rows) in &rows {
        let same = std::fs::read(a.path().join(name)).unwrap() == std::fs::read(b.path().join(name)).unwrap();
        assert_eq!(same, name != "run.json", "{name}");
        if name.ends_with(".parquet") {
            let got: usize = read(&a.path().join(name)).iter().map(|b| b.num_rows()).sum();
            assert_eq!(got as u64, rows, "{name}");
        }
    }
    assert_eq!((rows["heads.parquet"], rows["pairs.parquet"], rows["agreement.parquet"]), (12, 30, 2));
    assert_eq!(std::fs::read_dir(a.path()).unwrap().count(), rows.len());
    let has = |file: &str, columns: &str| {
        let batches = read(&a.path().join(file));
        let schema = batches[0].schema();
        for c in columns.split(' ') {
            assert!(schema.column_with_name(c).is_some(), "{file} lacks {c}");
        }
    };
    has(
        "heads.parquet",
        "task metric stream layer head baseline value delta se ci_low ci_high p_value q_value n method unit",
    );
    has(
        "pairs.parquet",
        "task metric a_stream a_layer a_head b_stream b_layer b_head delta_a delta_b delta_ab interaction se ci_low ci_high p_value q_value relation normalised method unit",
    );
    has(
        "curve.parquet",
        "task metric order step stream layer head removed fraction value retained ratio method unit value_low value_high retained_low retained_high",
    );
    has(
        "orders.parquet",
        "task metric method unit order objective half r_079 r_079_low largest_99 largest_90 area area_high cpr cmd",
    );
    has("reliability.parquet", "task metric method unit score split_half corrected ci_low ci_high n");
    has(
        "selected.parquet",
        "task metric method unit effect_kind rank a_name b_name effect_select effect ci_low",
    );
    has(
        "polysemanticity.parquet",
        "method unit stream layer head name participation tasks deltas ses strongest",
    );
    has(
        "agreement.parquet",
        "task score_a score_b scope spearman kendall ci_low ci_high method unit kendall_low top_k jaccard jaccard_high",
    );
    has("examples.parquet", "task index cluster half tokens scored method unit");
    has("scores.parquet", "task metric sweep round subset logit_diff cosine method unit");
}

#[test]
fn csv_and_json_hold_the_same_rows() {
    let r = experiment(2, 2, 6, true);
    let dir = tempfile::tempdir().unwrap();
    export(&r, dir.path(), Format::Csv).unwrap();
    export(&r, dir.path(), Format::Json).unwrap();
    let csv = std::fs::read_to_string(dir.path().join("pairs.csv")).unwrap();
    let json: serde_json::Value =
        serde_json::from_slice(&std::fs::read(dir.path().join("pairs.json")).unwrap()).unwrap();
    assert!(csv.starts_with("task,metric,method,unit,a_stream"), "{csv}");
    assert_eq!(csv.lines().count() - 1, json.as_array().unwrap().len());
    let curve: serde_json::Value =
        serde_json::from_slice(&std::fs::read(dir.path().join("curve.json")).unwrap()).unwrap();
    assert_eq!(curve[0].get("layer"), Some(&serde_json::Value::Null), "nothing is removed at first");
    assert!(std::fs::read_to_string(dir.path().join("scores.csv")).unwrap().contains("\"\"layer\"\":1"));
}

#[test]
fn what_is_missing_leaves_rows_out_and_is_said() {
    let mut r = experiment(2, 2, 6, true);
    r.rounds.remove(&(4, 0));
    if let Some(round) = r.rounds.get_mut(&(2, 0)) {
        round.chunks.clear();
    }
    if let Some(c) = r.rounds.get_mut(&(1, 0)).and_then(|x| x.chunks.get_mut(&0)) {
        c.tasks[0].values.pop();
        c.tasks[1].values[0] = f64::NAN;
    }
    let a = analyse(&r);
    assert!(a.groups[0].heads.is_empty() && a.groups[0].pairs.is_empty());
    assert!(a.groups[1].heads[0].q.is_nan() && !a.groups[1].heads[1].q.is_nan());
    let dir = tempfile::tempdir().unwrap();
    assert!(export_analysed(&r, &a, dir.path(), Format::Parquet).unwrap().partial);
    report_analysed(&r, &a, &dir.path().join("report.html")).unwrap();
    r.rounds.clear();
    assert!(export(&r, dir.path(), Format::Parquet).unwrap().partial);
    assert!(read(&dir.path().join("pairs.parquet")).is_empty());
    report(&r, &dir.path().join("report.html")).unwrap();
    assert!(headline(&r).contains("missing"));
}

#[test]
fn the_report_escapes_what_it_shows() {
    // ABLATE_REPORT names a file to keep for a look, of the size of a real model.
    let keep = std::env::var_os("ABLATE_REPORT");
    let r = if keep.is_some() { experiment(6, 12, 40, true) } else { experiment(2, 3, 8, true) };
    let dir = tempfile::tempdir().unwrap();
    let path = keep.map_or_else(|| dir.path().join("report.html"), Into::into);
    report(&r, &path).unwrap();
    let page = std::fs::read_to_string(&path).unwrap();
    assert_eq!(page.matches("</script>").count(), page.matches("<script").count());
    assert!(page.contains("<figure id=\"pairs-") && page.contains("<figure id=\"curve-"));
    let written = present(&r, &analyse(&r), dir.path()).unwrap();
    let pictures = written.iter().filter(|f| f.path.extension().is_some_and(|e| e == "png")).count();
    assert!(pictures > 8 && written.len() == 2 * pictures + 1, "{written:?}");
    assert!(written.iter().all(|f| std::fs::metadata(&f.path).unwrap().len() > 500));
    assert!(
        page.contains("planted &lt;b&gt;pair") && !page.contains("<b>pair") && !page.contains("http://x")
    );
    assert!(page.contains("2 device classes"));
    assert!(page.contains("Rounds of greedy sweeps ran on the half") && !page.contains("was frozen"));
}

//! Fits of optimal ablation against PyTorch's autograd and Adam on transformers in f64 (tests/reference/optimal.py): the
//! constants of every head, their losses, and what sets of heads do with them, on tiny random models, for every kind of task: heads, pairs,
//! K/V groups, layers, and sets with their pairs.
#![allow(clippy::unwrap_used, reason = "tests")]

mod cluster;

use super::plans::{batch, load, of_heads, sweep, task};
use ablate_common::fit::{self, Fitted};
use ablate_common::head::HeadIx;
use ablate_common::model::ModelInfo;
use ablate_common::plan::{Ablation, Plan, PlannedAblation, PlannedSweep, SweepKind};
use ablate_common::scores::ChunkScores;
use ablate_common::task::{Prepared, TaskKind};
use ablate_common::units::{HeadSet, UnitKind, UnitMap};
use ablate_tests::proof::{Worst, proved};
use ablate_tests::reference::script;
use ablate_tests::tiny::tasks;
use ablate_worker::engine::{Engine, SharedModel};
use serde::Deserialize;
use serde_json::json;
use std::collections::{BTreeMap, BTreeSet, HashMap};
use std::path::Path;
use std::sync::Arc;
use std::sync::atomic::AtomicBool;
use tch::Kind;

const STEPS: u32 = 6;
/// Large enough that some heads overshoot, so that the best is not always the last.
const RATE: f64 = 0.5;
/// Of losses and scores, relative to the largest of their table.
const LIMIT: f64 = 1e-9;
/// Of constants: Adam divides gradients by their own size, so that the smallest say how exact it can be.
const LIMIT_OF_CONSTANTS: f64 = 1e-6;
/// Of many pairs, every so many are compared.
const EVERY: usize = 11;

/// Models of tiny.py and seq2seq.py, and the tasks that each is asked.
const CASES: &[(&str, &[&str])] = &[
    ("llama", &["text", "end", "choice"]),
    ("gpt2", &["greater"]),
    ("gemma2", &["text"]),
    ("gpt_neox", &["end"]),
    ("bert", &["similarity"]),
    ("albert", &["similarity"]),
    ("bert-masked", &["masked"]),
    ("bert-classes", &["first"]),
    ("marian", &["translated"]),
    ("t5-gated", &["translated"]),
];

/// Models that are asked for larger units as well.
const LARGER: &[(&str, &[UnitKind])] = &[
    ("llama", &[UnitKind::KvGroup, UnitKind::Layer, UnitKind::Set]),
    ("bert", &[UnitKind::Layer, UnitKind::Set]),
    ("t5-gated", &[UnitKind::Layer, UnitKind::Set]),
];
/// Heads of a layer, and of these the ones that share a K/V head (llama).
const HEADS: u32 = 6;
const GROUP: u32 = 3;

fn larger(case: &str) -> &'static [UnitKind] {
    LARGER.iter().find(|l| l.0 == case).map_or(&[], |l| l.1)
}

/// Sets of a model's heads, across layers (and streams) and within one; two have a head in common.
fn sets(heads: u32) -> [Vec<u32>; 3] {
    [vec![1, 9, heads - 1], vec![2, 4], vec![4, 9, heads - 5]]
}

/// Heads of every unit of a kind, and of pairs of sets.
fn units_of(kind: UnitKind, heads: u32) -> Vec<Vec<u32>> {
    let runs =
        |of: u32| -> Vec<Vec<u32>> { (0..heads / of).map(|k| (k * of..(k + 1) * of).collect()).collect() };
    match kind {
        UnitKind::Head => runs(1),
        UnitKind::KvGroup => runs(GROUP),
        UnitKind::Layer => runs(HEADS),
        UnitKind::Set => {
            let sets = sets(heads);
            let both = |(a, b): (usize, usize)| -> Vec<u32> {
                let union: BTreeSet<u32> = sets[a].iter().chain(&sets[b]).copied().collect();
                union.into_iter().collect()
            };
            let pairs = [(0, 1), (0, 2), (1, 2)].map(both);
            sets.iter().cloned().chain(pairs).collect()
        }
    }
}

#[derive(Deserialize)]
struct Fit {
    nothing: f64,
    mean: f64,
    fitted: f64,
    step: u32,
    constant: Vec<f64>,
}

#[derive(Deserialize)]
struct Answer {
    fits: Vec<Fit>,
    scores: Vec<Vec<f64>>,
}

/// A fit, every head, and every pair; then for each larger kind a fit, its units, and pairs of sets. `chunk` heads are fitted at once.
fn plan(info: &ModelInfo, prepared: &[&Prepared], chunk: u32, larger: &[UnitKind]) -> Plan {
    let planned = |p: &&Prepared| task(p, vec![batch(p, &[0, 2, 4]), batch(p, &[1, 3])]);
    let optimal = Ablation::Optimal { steps: STEPS, rate: RATE };
    let named = |(name, heads): (&str, &Vec<u32>)| HeadSet {
        name: name.into(),
        heads: heads.iter().map(|&h| info.heads.head(HeadIx(h)).unwrap()).collect(),
    };
    let sets: Vec<HeadSet> =
        ["across", "within", "again"].into_iter().zip(&sets(info.heads.len() as u32)).map(named).collect();
    let mut plan = Plan {
        tasks: prepared.iter().map(planned).collect(),
        ablations: vec![optimal.into()],
        sweeps: [(SweepKind::Fit, chunk), (SweepKind::Single, 5), (SweepKind::Pairs, 40)]
            .map(|(kind, chunk)| sweep(kind, 0, prepared.len(), chunk))
            .to_vec(),
        ..of_heads(info)
    };
    for &unit in larger {
        let (ablation, units) = (plan.ablations.len() as u32, plan.units.len() as u32);
        plan.ablations.push(PlannedAblation { unit, ..optimal.into() });
        plan.units.push(UnitMap::of(unit, info, &sets).unwrap());
        plan.sweeps.push(sweep(SweepKind::Fit, ablation, prepared.len(), chunk));
        let pairs = (unit == UnitKind::Set).then_some(SweepKind::Pairs);
        for kind in std::iter::once(SweepKind::Single).chain(pairs) {
            plan.sweeps.push(PlannedSweep { units, ..sweep(kind, ablation, prepared.len(), 2) });
        }
    }
    plan
}

fn model(path: &Path, kind: Kind) -> (ModelInfo, Arc<SharedModel>) {
    let (info, model) = load(path, kind);
    (info, Arc::new(SharedModel::new(model)))
}

fn run(engine: &mut Engine, plan: &Plan, sweep: u32) -> HashMap<u32, ChunkScores> {
    let stop = AtomicBool::new(false);
    let chunks = 0..plan.round_chunks(sweep, 0);
    chunks.map(|chunk| (chunk, engine.run(sweep, 0, &[], chunk, &stop).unwrap())).collect()
}

/// What an engine of its own fits by the first of a plan's fits, or by the last, as all workers are given it. All ablations of the
/// plan get these constants: whatever their units are, a fit is of heads.
fn fitted(
    (info, model): &(ModelInfo, Arc<SharedModel>),
    prepared: &[&Prepared],
    chunk: u32,
    larger: &[UnitKind],
    last: bool,
) -> (Arc<Plan>, Engine, ChunkScores) {
    let plan = Arc::new(plan(info, prepared, chunk, larger));
    let data = Arc::new(prepared.iter().map(|&p| p.clone()).collect::<Vec<_>>());
    let new = || Engine::new(Arc::clone(model), Arc::clone(&plan), Arc::clone(&data));
    let ablations = 0..plan.ablations.len() as u32;
    let which = if last { ablations.end - 1 } else { 0 };
    let sweep = fit::sweep_of(&plan, which).unwrap();
    let constants = fit::whole(&plan, sweep, &run(&mut new(), &plan, sweep)).unwrap();
    let engine = new().with_constants(Arc::new(ablations.map(|a| (a, constants.clone())).collect()));
    (plan, engine, constants)
}

/// Sweeps that wait for constants.
fn waiting(plan: &Plan) -> impl Iterator<Item = u32> {
    (0u32..).zip(&plan.sweeps).filter(|s| s.1.kind != SweepKind::Fit).map(|s| s.0)
}

/// Heads of what is compared: every unit, and some pairs. With (sweep, rank).
fn subsets(plan: &Plan) -> Vec<(u32, u64, Vec<HeadIx>)> {
    let of = |sweep: u32| {
        let space = plan.space(sweep, &[]);
        let ranks = (0..plan.round_subsets(sweep, 0)).step_by(if sweep == 2 { EVERY } else { 1 });
        ranks.map(|r| (sweep, r, plan.removed(sweep, &space, r).unwrap())).collect::<Vec<_>>()
    };
    waiting(plan).flat_map(of).collect()
}

/// Has the reference make its models and answer.
fn ask(folder: &Path, job: &serde_json::Value) {
    let question = folder.join("job.json");
    std::fs::write(&question, job.to_string()).unwrap();
    script("optimal.py", &[&question, folder]).unwrap();
}

fn near(got: f64, want: f64, scale: f64, limit: f64) -> bool {
    (got - want).abs() <= limit * scale.max(want.abs())
}

#[test]
fn fitted_constants_and_what_sets_do_with_them_equal_autograd_and_adam() {
    let folder = tempfile::tempdir().unwrap();
    let all = tasks();
    let cases: BTreeMap<&str, &[&str]> = CASES.iter().copied().collect();
    // The plans don't need the models' weights, but the models' shapes are the reference's to say.
    let single = |heads: u32| (0..heads).map(|h| vec![h]);
    let pairs =
        |heads: u32| (0..heads).flat_map(move |a| (a + 1..heads).map(move |b| vec![a, b])).step_by(EVERY);
    let heads = |case: &str| match case {
        "marian" | "t5-gated" => (if case == "marian" { 6 } else { 7 }) * 6,
        _ => 18u32,
    };
    let more =
        |case: &str| larger(case).iter().flat_map(|&kind| units_of(kind, heads(case))).collect::<Vec<_>>();
    let asked: BTreeMap<&str, Vec<Vec<u32>>> = cases
        .keys()
        .map(|&c| (c, single(heads(c)).chain(pairs(heads(c))).chain(more(c)).collect()))
        .collect();
    let job = json!({"cases": cases, "tasks": all, "steps": STEPS, "rate": RATE, "subsets": asked});
    ask(folder.path(), &job);

    let mut worst: BTreeMap<&str, [Worst; 4]> = BTreeMap::new();
    for &(case, names) in CASES {
        let path = folder.path().join(case);
        let bytes = std::fs::read(path.with_extension("json")).unwrap();
        let answers: BTreeMap<String, Answer> = serde_json::from_slice(&bytes).unwrap();
        let prepared: Vec<&Prepared> = names.iter().map(|n| &all[n]).collect();
        let model = model(&path, Kind::Double);
        let (plan, mut engine, constants) = fitted(&model, &prepared, 1000, larger(case), false);
        let (_, _, split) = fitted(&model, &prepared, 4, larger(case), true);
        assert_eq!(constants, split, "{case}: in chunks of heads, and for whatever units, the same bits");
        let slot = worst.entry(case).or_default();
        for (block, name) in constants.tasks.iter().zip(names) {
            let want = &answers[*name].fits;
            assert_eq!(constants.subsets as usize, want.len());
            for (head, want) in want.iter().enumerate() {
                let got = Fitted::of(block, head).unwrap();
                let at = format!("{case}, {name}, head {head}");
                assert!(got.fitted <= got.mean, "{at}: never worse than the mean");
                assert_eq!(got.step, want.step, "{at}");
                let wanted = [want.nothing, want.mean, want.fitted];
                slot[0].see_all(&[got.nothing, got.mean, got.fitted], &wanted);
                assert_eq!(got.constant.len(), want.constant.len(), "{at}");
                let scale = want.constant.iter().fold(0.0, |a: f64, b| a.max(b.abs()));
                slot[1].cases += 1;
                for (got, want) in got.constant.iter().zip(&want.constant) {
                    slot[1].see_off(got - want, scale);
                }
            }
        }
        let sweeps: BTreeMap<u32, _> = waiting(&plan).map(|s| (s, run(&mut engine, &plan, s))).collect();
        let subsets = subsets(&plan);
        assert_eq!(subsets.len(), asked[case].len(), "{case}: everything is compared");
        for (at, (sweep, rank, subset)) in subsets.into_iter().enumerate() {
            let told: Vec<u32> = subset.iter().map(|h| h.0).collect();
            assert_eq!(told, asked[case][at], "{case}: the subset that the reference was asked");
            let of_heads = plan.units(sweep).kind == UnitKind::Head;
            let slot = &mut slot[if of_heads { 2 } else { 3 }];
            let size = u64::from(plan.sweeps[sweep as usize].chunk);
            let chunk = &sweeps[&sweep][&((rank / size) as u32)];
            for (block, name) in chunk.tasks.iter().zip(names) {
                let task = &plan.tasks[block.task as usize];
                let loss = task.columns()[0] == "nll" || task.kind == TaskKind::Similarity;
                let sign = if loss { 1.0 } else { -1.0 };
                let want = &answers[*name].scores[at];
                let got = block.column((rank % size) as usize, 0);
                slot.see_all(&got.iter().map(|got| sign * got).collect::<Vec<_>>(), want);
            }
        }
    }
    let mut failed = Vec::new();
    for (case, all) in worst {
        println!(
            "{case:10} losses {:.1e}, constants {:.1e}, scores {:.1e}, of larger units {:.1e}",
            all[0].rel, all[1].rel, all[2].rel, all[3].rel
        );
        let limits = [LIMIT, LIMIT_OF_CONSTANTS, LIMIT_OF_CONSTANTS, LIMIT_OF_CONSTANTS];
        let kinds: Vec<&str> = larger(case).iter().map(|kind| kind.plural()).collect();
        let of_larger = format!("scores of {} with fitted constants", kinds.join(", "));
        let checks = [
            "losses of fits",
            "fitted constants of heads",
            "scores with fitted constants",
            of_larger.as_str(),
        ];
        for ((worst, limit), check) in all.into_iter().zip(limits).zip(checks) {
            if worst.cases == 0 && kinds.is_empty() {
                continue;
            }
            let check = format!("optimal ablation beside autograd and Adam, f64: {check}");
            if !proved(&format!("tiny {case}"), &check, worst, limit) {
                failed.push((case, check));
            }
        }
    }
    assert!(failed.is_empty(), "{failed:?}");
}

#[test]
fn fits_in_single_precision_are_near_those_in_double_and_never_worse_than_the_mean() {
    let folder = tempfile::tempdir().unwrap();
    let all = tasks();
    let job =
        json!({"cases": {"llama": []}, "tasks": {}, "steps": 0, "rate": RATE, "subsets": {"llama": []}});
    ask(folder.path(), &job);
    let path = folder.path().join("llama");
    let prepared = [&all["text"], &all["end"]];
    let of = |kind| fitted(&model(&path, kind), &prepared, 1000, &[], false).2;
    let (double, single) = (of(Kind::Double), of(Kind::Float));
    for (single, double) in single.tasks.iter().zip(&double.tasks) {
        for head in 0..18 {
            let (got, want) = (Fitted::of(single, head).unwrap(), Fitted::of(double, head).unwrap());
            assert!(got.fitted <= got.mean);
            assert!(near(got.fitted, want.fitted, 1.0, 1e-3), "{} and {}", got.fitted, want.fitted);
        }
    }
}

#[test]
fn sweeps_that_wait_for_constants_are_refused_without_them() {
    let folder = tempfile::tempdir().unwrap();
    let all = tasks();
    let job = json!({"cases": {"bert": []}, "tasks": {}, "steps": 0, "rate": RATE, "subsets": {"bert": []}});
    ask(folder.path(), &job);
    let (info, model) = model(&folder.path().join("bert"), Kind::Double);
    let task = &all["similarity"];
    let plan = Arc::new(plan(&info, &[task], 4, &[]));
    let mut engine = Engine::new(model, Arc::clone(&plan), Arc::new(vec![task.clone()]));
    let error = engine.run(1, 0, &[], 0, &AtomicBool::new(false)).unwrap_err();
    assert!(error.to_string().contains("constants"), "{error}");
}

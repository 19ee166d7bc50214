//! Fits of optimal ablation against PyTorch's autograd and Adam on transformers in f64 (tests/reference/optimal.py): the
//! constants of every head, their losses, and what sets of heads do with them, on tiny random models, for every kind of task.
#![allow(clippy::unwrap_used, reason = "tests")]

mod cluster;

use super::plans::{batch, load, of_heads, sweep, task};
use ablate_common::fit::{self, Fitted};
use ablate_common::head::HeadIx;
use ablate_common::model::ModelInfo;
use ablate_common::plan::{Ablation, Plan, SweepKind};
use ablate_common::scores::ChunkScores;
use ablate_common::task::{Prepared, TaskKind};
use ablate_tests::proof::{Worst, proved};
use ablate_tests::reference::script;
use ablate_tests::tiny::tasks;
use ablate_worker::engine::{Engine, SharedModel};
use serde::Deserialize;
use serde_json::json;
use std::collections::{BTreeMap, HashMap};
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

/// A fit, every head, and every pair; `chunk` heads are fitted at once.
fn plan(info: &ModelInfo, prepared: &[&Prepared], chunk: u32) -> Plan {
    let planned = |p: &&Prepared| task(p, vec![batch(p, &[0, 2, 4]), batch(p, &[1, 3])]);
    let sweep = |(kind, chunk)| sweep(kind, 0, prepared.len(), chunk);
    Plan {
        tasks: prepared.iter().map(planned).collect(),
        ablations: vec![Ablation::Optimal { steps: STEPS, rate: RATE }.into()],
        sweeps: [(SweepKind::Fit, chunk), (SweepKind::Single, 5), (SweepKind::Pairs, 40)].map(sweep).to_vec(),
        ..of_heads(info)
    }
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

/// What an engine of its own fits, as all workers are given it.
fn fitted(path: &Path, prepared: &[&Prepared], chunk: u32, kind: Kind) -> (Arc<Plan>, Engine, ChunkScores) {
    let (info, model) = model(path, kind);
    let plan = Arc::new(plan(&info, prepared, chunk));
    let data = Arc::new(prepared.iter().map(|&p| p.clone()).collect::<Vec<_>>());
    let new = || Engine::new(Arc::clone(&model), Arc::clone(&plan), Arc::clone(&data));
    let constants = fit::whole(&plan, 0, &run(&mut new(), &plan, 0)).unwrap();
    let engine = new().with_constants(Arc::new(BTreeMap::from([(0, constants.clone())])));
    (plan, engine, constants)
}

/// Heads of what is compared: every single one, and some pairs. With (sweep, rank).
fn subsets(plan: &Plan) -> Vec<(u32, u64, Vec<HeadIx>)> {
    let of = |sweep: u32, every: usize| {
        let space = plan.space(sweep, &[]);
        let ranks = (0..plan.round_subsets(sweep, 0)).step_by(every);
        ranks.map(|r| (sweep, r, plan.removed(sweep, &space, r).unwrap())).collect::<Vec<_>>()
    };
    [of(1, 1), of(2, EVERY)].concat()
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
    let asked: BTreeMap<&str, Vec<Vec<u32>>> =
        cases.keys().map(|&c| (c, single(heads(c)).chain(pairs(heads(c))).collect())).collect();
    let job = json!({"cases": cases, "tasks": all, "steps": STEPS, "rate": RATE, "subsets": asked});
    ask(folder.path(), &job);

    let mut worst: BTreeMap<&str, [Worst; 3]> = BTreeMap::new();
    for &(case, names) in CASES {
        let path = folder.path().join(case);
        let bytes = std::fs::read(path.with_extension("json")).unwrap();
        let answers: BTreeMap<String, Answer> = serde_json::from_slice(&bytes).unwrap();
        let prepared: Vec<&Prepared> = names.iter().map(|n| &all[n]).collect();
        let (plan, mut engine, constants) = fitted(&path, &prepared, 1000, Kind::Double);
        let (_, _, split) = fitted(&path, &prepared, 4, Kind::Double);
        assert_eq!(constants, split, "{case}: chunks of heads give the same bits");
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
        let sweeps: BTreeMap<u32, _> = [1, 2].map(|s| (s, run(&mut engine, &plan, s))).into();
        for (at, (sweep, rank, subset)) in subsets(&plan).into_iter().enumerate() {
            let told: Vec<u32> = subset.iter().map(|h| h.0).collect();
            assert_eq!(told, asked[case][at], "{case}: the subset that the reference was asked");
            let size = u64::from(plan.sweeps[sweep as usize].chunk);
            let chunk = &sweeps[&sweep][&((rank / size) as u32)];
            for (block, name) in chunk.tasks.iter().zip(names) {
                let task = &plan.tasks[block.task as usize];
                let loss = task.columns()[0] == "nll" || task.kind == TaskKind::Similarity;
                let sign = if loss { 1.0 } else { -1.0 };
                let want = &answers[*name].scores[at];
                let got = block.column((rank % size) as usize, 0);
                slot[2].see_all(&got.iter().map(|got| sign * got).collect::<Vec<_>>(), want);
            }
        }
    }
    let mut failed = Vec::new();
    for (case, all) in worst {
        println!(
            "{case:10} losses {:.1e}, constants {:.1e}, scores {:.1e}",
            all[0].rel, all[1].rel, all[2].rel
        );
        let limits = [LIMIT, LIMIT_OF_CONSTANTS, LIMIT_OF_CONSTANTS];
        let checks = ["losses of fits", "fitted constants of heads", "scores with fitted constants"];
        for ((worst, limit), check) in all.into_iter().zip(limits).zip(checks) {
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
    let (_, _, double) = fitted(&path, &prepared, 1000, Kind::Double);
    let (_, _, single) = fitted(&path, &prepared, 1000, Kind::Float);
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
    let plan = Arc::new(plan(&info, &[task], 4));
    let mut engine = Engine::new(model, Arc::clone(&plan), Arc::new(vec![task.clone()]));
    let error = engine.run(1, 0, &[], 0, &AtomicBool::new(false)).unwrap_err();
    assert!(error.to_string().contains("constants"), "{error}");
}

//! Gradient sweeps against PyTorch's autograd on transformers in f64 (tests/reference/gradients.py): zᵀ ∂ℓ/∂z and
//! (ẑ − z)ᵀ ∂ℓ/∂z of every head and row, on tiny random models of every architecture, for every kind of task and every way
//! to replace z; and the engine's own derivative by differences.
#![allow(clippy::unwrap_used, reason = "tests")]

use super::plans::{self, methods};
use ablate_common::head::HeadIx;
use ablate_common::model::ModelInfo;
use ablate_common::plan::{Plan, PlannedSweep, SweepKind};
use ablate_common::scores::TaskScores;
use ablate_common::task::{Prepared, Scope, TaskKind};
use ablate_common::units::{UnitKind, UnitMap};
use ablate_tests::proof::{Worst, proved};
use ablate_tests::tiny::tasks;
use ablate_worker::engine::Engine;
use ablate_worker::engine::trie::{Cut, Intervention};
use std::collections::BTreeMap;
use std::path::Path;
use std::sync::Arc;
use std::sync::atomic::AtomicBool;
use tch::Kind;

const LIMIT: f64 = 1e-9;

/// Column or method → head → row.
type Answer = BTreeMap<String, Vec<Vec<f64>>>;

/// Models of tiny.py and seq2seq.py, and the tasks that each is asked.
const CASES: &[(&str, &[&str])] = &[
    ("llama", &["text", "end", "choice", "greater"]),
    ("gpt2", &["text", "end"]),
    ("gpt2-relu", &["text", "choice", "greater"]),
    ("gemma2", &["text", "end", "greater"]),
    ("qwen2", &["text"]),
    ("qwen2-window", &["text"]),
    ("qwen3", &["text"]),
    ("mistral", &["text"]),
    ("gpt_neox", &["text"]),
    ("gpt_neox-serial", &["end"]),
    ("opt", &["text"]),
    ("opt-post", &["text"]),
    ("phi3", &["text"]),
    ("bert", &["similarity"]),
    ("roberta-padding", &["similarity"]),
    ("distilbert", &["similarity"]),
    ("albert", &["similarity"]),
    ("bert-masked", &["masked"]),
    ("albert-masked", &["masked"]),
    ("bert-classes", &["first"]),
    ("distilbert-classes", &["first"]),
    ("llama-classes", &["last"]),
    ("marian", &["translated"]),
    ("marian-two", &["translated"]),
    ("t5", &["translated"]),
    ("t5-gated", &["translated"]),
];

/// Gradient sweeps over heads, then layers, for each method; `chunk` units at once.
fn plan(info: &ModelInfo, prepared: &[&Prepared], chunk: u32) -> Plan {
    let units = [UnitKind::Head, UnitKind::Layer].map(|kind| UnitMap::of(kind, info, &[]).unwrap());
    let mut sweeps = Vec::new();
    for ablation in 0..methods().len() as u32 {
        for (units, scope) in [(0, Scope::All), (1, Scope::All), (0, Scope::Select)] {
            let kind = SweepKind::Gradient { greedy: None };
            let tasks = (0..prepared.len() as u32).collect();
            sweeps.push(PlannedSweep { kind, ablation, tasks, units, scope, chunk });
        }
    }
    plans::plan(info, prepared, units.to_vec(), sweeps)
}

fn engine(path: &Path, prepared: &[&Prepared], chunk: u32, kind: Kind) -> (Engine, Arc<Plan>) {
    let (info, model) = plans::load(path, kind);
    plans::engine(model, plan(&info, prepared, chunk), prepared)
}

/// By task the columns of a sweep by unit: [task][column][unit][row].
fn columns(engine: &mut Engine, plan: &Plan, sweep: u32) -> Vec<[Vec<Vec<f64>>; 2]> {
    let stop = AtomicBool::new(false);
    let mut out: Vec<[Vec<Vec<f64>>; 2]> = Vec::new();
    for chunk in 0..plan.round_chunks(sweep, 0) {
        let scores = engine.run(sweep, 0, &[], chunk, &stop).unwrap();
        out.resize_with(scores.tasks.len(), || [Vec::new(), Vec::new()]);
        for (task, block) in out.iter_mut().zip(&scores.tasks) {
            for unit in 0..scores.subsets as usize {
                let column = |b: &TaskScores, c| b.column(unit, c).to_vec();
                (0..2).for_each(|c| task[c].push(column(block, c)));
            }
        }
    }
    out
}

/// |got − want| relative to the largest number in `scale`; heads are cases.
fn deviation(got: &[Vec<f64>], want: &[Vec<f64>], scale: &[Vec<f64>]) -> Worst {
    assert_eq!((got.len(), got[0].len()), (want.len(), want[0].len()));
    let scale = scale.iter().flatten().fold(0.0, |a: f64, b| a.max(b.abs()));
    assert!(scale > 1e-9, "nothing to compare, {scale:e}");
    let mut worst = Worst { cases: got.len(), ..Worst::default() };
    got.iter().flatten().zip(want.iter().flatten()).for_each(|(g, w)| worst.see_off(g - w, scale));
    worst
}

/// zᵀ ∂ℓ/∂z is the slope of ℓ where a head's z is multiplied by ξ, at ξ = 1: by central differences of the engine's own
/// scores, for some heads. Similarity's ℓ isn't one of its scores.
fn differences(engine: &mut Engine, plan: &Plan, case: &str, got: &[[Vec<Vec<f64>>; 2]]) {
    const STEP: f64 = 1e-4;
    let stop = AtomicBool::new(false);
    let tasks: Vec<u32> = (0..got.len() as u32).collect();
    for (ix, head) in (0..).zip(plan.heads().iter()).step_by(5) {
        let stage = plan.heads().stage_of(head);
        let scaled = [1.0 + STEP, 1.0 - STEP]
            .map(|keep| Intervention { stages: vec![(stage, vec![Cut { head: head.head, keep }])] });
        let scores = engine.run_interventions(0, &[], &scaled, &tasks, Scope::All, &stop).unwrap();
        for (block, got) in scores.tasks.iter().zip(got) {
            let task = &plan.tasks[block.task as usize];
            if task.kind == TaskKind::Similarity {
                continue;
            }
            let sign = if task.columns()[0] == "nll" { 1.0 } else { -1.0 };
            let all: &[Vec<f64>] = &got[0];
            let scale = all.iter().flatten().fold(0.0, |a: f64, b| a.max(b.abs()));
            for (row, want) in all[ix].iter().enumerate() {
                let slope = sign * (block.column(0, 0)[row] - block.column(1, 0)[row]) / (2.0 * STEP);
                assert!((slope - want).abs() < 1e-3 * scale + 1e-6, "{case}, {head}: {slope} and {want}");
            }
        }
    }
}

#[test]
fn every_gradient_is_that_of_autograd() {
    let folder = tempfile::tempdir().unwrap();
    let all = tasks();
    plans::ask("gradients.py", CASES, &all, folder.path());

    let mut worst: BTreeMap<(&str, &str), Worst> = BTreeMap::new();
    for &(case, names) in CASES {
        let path = folder.path().join(case);
        let bytes = std::fs::read(path.with_extension("json")).unwrap();
        let answers: BTreeMap<String, Answer> = serde_json::from_slice(&bytes).unwrap();
        let prepared: Vec<&Prepared> = names.iter().map(|n| &all[n]).collect();
        let (mut wide, plan) = engine(&path, &prepared, 1000, Kind::Double);
        let (mut split, parts) = engine(&path, &prepared, 7, Kind::Double);
        let (mut narrow, _) = engine(&path, &prepared, 1000, Kind::Float);
        for (m, (method, _)) in (0u32..).zip(methods()) {
            let got = columns(&mut wide, &plan, 3 * m);
            for (t, name) in names.iter().enumerate() {
                for (c, column) in ["gradient", method].into_iter().enumerate() {
                    let want = &answers[*name][column];
                    worst.entry((case, column)).or_default().join(deviation(&got[t][c], want, want));
                }
            }
            if method == "zero" {
                differences(&mut wide, &plan, case, &got);
            }
            if method != "mean" {
                continue;
            }
            assert_eq!(got, columns(&mut split, &parts, 3 * m), "{case}: chunks of units are the same bits");
            let layers = columns(&mut wide, &plan, 3 * m + 1);
            let single = columns(&mut narrow, &plan, 3 * m);
            for (t, name) in names.iter().enumerate() {
                for (c, column) in ["gradient", method].into_iter().enumerate() {
                    let want = &answers[*name][column];
                    let off = deviation(&single[t][c], want, want);
                    assert!(off.within(2e-3), "{case}, {name}, {method}, {column} in f32: {off:?}");
                    // A layer's is the sum of its heads'.
                    let map = &plan.units[1];
                    let sums: Vec<Vec<f64>> = (0..map.len() as u32)
                        .map(|l| {
                            let heads: &[HeadIx] = map.heads_of(ablate_common::units::UnitIx(l));
                            let row = |r: usize| heads.iter().map(|h| want[h.at()][r]).sum();
                            (0..want[0].len()).map(row).collect()
                        })
                        .collect();
                    let off = deviation(&layers[t][c], &sums, want);
                    assert!(off.within(LIMIT), "{case}, {name}, {method}, {column} of layers: {off:?}");
                }
            }
        }
    }
    let mut failed = Vec::new();
    for ((case, column), worst) in worst {
        println!("{case:16} {column:10} {:.1e} of the largest number of its table", worst.rel);
        let what = if column == "gradient" { "gradients of heads" } else { "attribution of heads" };
        let check = format!("{what} beside autograd, every task, f64: {column}");
        if !proved(&format!("tiny {case}"), &check, worst, LIMIT) {
            failed.push((case, column));
        }
    }
    assert!(failed.is_empty(), "above {LIMIT:e}: {failed:?}");
}

//! Tasks that show the model the same share its forward passes, and get the numbers that each gets alone. Lanes of one device
//! share what is measured of the unablated model, and get the bits that each would measure.
#![allow(clippy::unwrap_used, reason = "tests")]

use super::plans::load;
use ablate_common::head::HeadIx;
use ablate_common::plan::{Plan, SweepKind};
use ablate_common::scores::ChunkScores;
use ablate_common::spec;
use ablate_common::task::Scope;
use ablate_tests::smollm2;
use ablate_worker::engine::trie::{Cut, Intervention};
use ablate_worker::engine::{Engine, SharedModel};
use std::fmt::Write as _;
use std::path::Path;
use std::sync::Arc;
use std::sync::atomic::AtomicBool;
use tch::Kind;

const PROMPTS: [(&str, &str, &str); 4] = [
    ("When Mary and John went to the store, John gave a drink to", " Mary", " John"),
    ("The capital of France is", " Paris", " Rome"),
    ("The keys to the cabinet", " are", " is"),
    ("Two and two make", " four", " five"),
];

/// Tasks by name, each with its part of a spec.
fn tasks(folder: &Path) -> Vec<(&'static str, String)> {
    let (mut texts, mut records) = (String::new(), String::new());
    for (prompt, target, foil) in PROMPTS {
        writeln!(texts, "{}", serde_json::json!({"text": prompt})).unwrap();
        writeln!(records, "{}", serde_json::json!({"prompt": prompt, "target": target, "foil": foil}))
            .unwrap();
    }
    let (text, record) = (folder.join("texts.jsonl"), folder.join("records.jsonl"));
    std::fs::write(&text, texts).unwrap();
    std::fs::write(&record, records).unwrap();
    let of = |kind: &str, metric: &str, data: &Path| {
        format!("kind = \"{kind}\"\nmetric = \"{metric}\"\ndata = {data:?}\nmax_tokens = 32\n")
    };
    vec![
        ("loss", of("language_modeling", "loss", &text)),
        ("last", of("logit_difference", "logit_diff", &record)),
        ("accuracy", of("language_modeling", "accuracy", &text)),
        ("kl", of("language_modeling", "kl", &text)),
        ("ioi", "kind = \"ioi\"\nexamples = 3\n".to_owned()),
        ("ioi_kl", "kind = \"ioi\"\nmetric = \"kl\"\nexamples = 3\n".to_owned()),
    ]
}

fn model() -> Arc<SharedModel> {
    Arc::new(SharedModel::new(load(&smollm2(), Kind::Double).1))
}

fn engine(model: &Arc<SharedModel>, tasks: &[&(&str, String)], ablations: &str) -> (Arc<Plan>, Engine) {
    let mut text = format!("name = \"s\"\n[model]\nsource = {:?}\ndtype = \"f64\"\n", smollm2());
    for (name, own) in tasks {
        write!(text, "[[task]]\nname = \"{name}\"\n{own}").unwrap();
    }
    write!(text, "{ablations}\n[[sweep]]\nkind = \"single\"\n").unwrap();
    let spec = spec::parse(&text, "sharing.toml").unwrap();
    let made = ablate_prepare::prepare(&spec, Path::new("."), &|_, _, _| {}).unwrap();
    let plan = Arc::new(made.plan);
    (Arc::clone(&plan), Engine::new(Arc::clone(model), plan, Arc::new(made.prepared)))
}

/// Nothing, one head early and one late, and a pair, on top of some heads gone.
fn scores(plan: &Plan, engine: &mut Engine, base: &[HeadIx]) -> ChunkScores {
    let cut = |heads: &[(usize, u32)]| Intervention {
        stages: heads.iter().map(|&(stage, head)| (stage, vec![Cut { head, keep: 0.0 }])).collect(),
    };
    let subsets = [cut(&[]), cut(&[(2, 4)]), cut(&[(28, 1)]), cut(&[(5, 0), (20, 8)])];
    let all: Vec<u32> = (0..plan.tasks.len() as u32).collect();
    engine.run_interventions(0, base, &subsets, &all, Scope::All, &AtomicBool::new(false)).unwrap()
}

#[test]
fn tasks_on_the_same_sequences_share_their_passes_and_get_the_numbers_of_each_alone() {
    let folder = tempfile::tempdir().unwrap();
    let tasks = tasks(folder.path());
    let (model, all): (_, Vec<_>) = (model(), tasks.iter().collect());
    let base = [HeadIx(30), HeadIx(200)];
    for ablation in ["[ablation]\nmethod = \"mean\"", "[ablation]\nmethod = \"resample\""] {
        let (plan, mut together) = engine(&model, &all, ablation);
        let shared = scores(&plan, &mut together, &base);
        // One pass for the four tasks on the prompts, and one for the two on names.
        let batches = |t: usize| plan.tasks[t].all.len() as u64;
        assert_eq!(together.passes(), batches(0) + batches(4), "{ablation}");
        for (task, own) in all.iter().zip(&shared.tasks) {
            let (plan, mut alone) = engine(&model, &[task], ablation);
            let one = scores(&plan, &mut alone, &base);
            let (a, b) = (&own.values, &one.tasks[0].values);
            assert_eq!(a.len(), b.len(), "{}", task.0);
            let worst = a.iter().zip(b).map(|(a, b)| (a - b).abs() / b.abs().max(1.0)).fold(0.0, f64::max);
            assert!(worst < 1e-12, "{ablation}, {}: {worst:e}", task.0);
            assert!(b.iter().any(|v| *v != 0.0), "{}", task.0);
        }
    }
}

#[test]
fn lanes_and_ablations_measure_once_what_they_have_in_common_and_get_the_bits_of_one_alone() {
    let folder = tempfile::tempdir().unwrap();
    let tasks = tasks(folder.path());
    let task: Vec<_> = tasks[..1].iter().collect();
    let model = model();
    for (method, measurements) in [
        ("method = \"mean\"", Some(1)),
        ("method = \"mean\"\npool = \"position\"", Some(1)),
        // Once for each batch.
        ("method = \"resample\"", None),
    ] {
        let both = format!("[[ablation]]\n{method}\n[[ablation]]\n{method}\nunit = \"layer\"\n");
        let lane = || {
            let (plan, mut engine) = engine(&model, &task, &both);
            let stop = AtomicBool::new(false);
            let singles = (0u32..).zip(&plan.sweeps).filter(|s| s.1.kind == SweepKind::Single);
            let run = |(sweep, _)| engine.run(sweep, 0, &[], 0, &stop).unwrap().encode();
            let bytes: Vec<Vec<u8>> = singles.map(run).collect();
            assert_eq!(bytes.len(), 2);
            (bytes, engine, plan)
        };
        // What nobody holds any more is measured again.
        let before = model.measurements();
        let (alone, first, plan) = lane();
        drop(first);
        let expected = measurements.unwrap_or(plan.tasks[0].all.len() as u64);
        assert_eq!(model.measurements() - before, expected, "{method}: two ablations of one lane");
        let before = model.measurements();
        let lanes: Vec<_> = std::thread::scope(|scope| {
            let started: Vec<_> = (0..3).map(|_| scope.spawn(lane)).collect();
            started.into_iter().map(|lane| lane.join().unwrap()).collect()
        });
        assert_eq!(model.measurements() - before, expected, "{method}: three lanes at once");
        assert!(lanes.iter().all(|(bytes, ..)| *bytes == alone), "{method}");
    }
}

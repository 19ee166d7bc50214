//! Classification by a linear probe on MiniLM, from a spec and records on: the fit against scikit-learn on
//! transformers' embeddings in f64, and the scores with heads removed; and whole runs by the built programs.
#![allow(clippy::unwrap_used, reason = "tests")]

use ablate_common::head::HeadIx;
use ablate_common::model::inspect;
use ablate_common::spec;
use ablate_common::task::Scope;
use ablate_tests::minilm;
use ablate_tests::program::{ablate, differing, export_json, json as read_json, refused, run, said, tables};
use ablate_tests::proof::{Worst, proved};
use ablate_tests::reference::{pairs_of, script};
use ablate_worker::engine::classify::FittedProbe;
use ablate_worker::engine::trie::{Cut, Intervention};
use ablate_worker::engine::{Engine, SharedModel, arch};
use ablate_worker::load::Weights;
use serde::Deserialize;
use serde_json::json;
use std::path::Path;
use std::sync::Arc;
use std::sync::atomic::AtomicBool;
use tch::{Device, Kind};

/// How far the solvers' tolerances may lead apart.
const LIMIT: f64 = 1e-6;

/// Records of short reviews, three labels or two, written for this test.
fn reviews(folder: &Path, three: bool) -> String {
    let praise = ["wonderful", "a joy", "better than the book", "quick and friendly", "worth every penny"];
    let blame = ["dreadful", "a waste of an evening", "broken on arrival", "rude and slow", "far too long"];
    let plain = ["about two hours long", "in black and white", "sold in boxes of six", "on the second floor"];
    let things = ["The film", "The service", "Our hotel", "This kettle"];
    let mut lines = String::new();
    for (t, thing) in things.iter().enumerate() {
        let mut add = |label: &str, said: &[&str]| {
            for (k, words) in said.iter().enumerate() {
                let end = ["", " indeed", ", as we had been told"][(t + k) % 3];
                let record = json!({"text": format!("{thing} was {words}{end}."), "label": label, "document": 7 * t + k});
                lines += &format!("{record}\n");
            }
        };
        add("bad", &blame);
        add("good", &praise);
        if three {
            add("neither", &plain);
        }
    }
    let path = folder.join(format!("reviews-{three}.jsonl"));
    std::fs::write(&path, lines).unwrap();
    format!("kind = \"classification\"\ndata = {path:?}\nmax_tokens = 12")
}

fn spec_of(task: &str, sweeps: &str) -> String {
    format!(
        "name = \"probe\"\nseed = 3\n[model]\nsource = {:?}\ndtype = \"f64\"\n[[task]]\nname = \"reviews\"\n{task}\n\
         [ablation]\nmethod = \"zero\"\n{sweeps}",
        minilm()
    )
}

#[derive(Deserialize)]
struct Answer {
    weights: Vec<Vec<f64>>,
    bias: Vec<f64>,
    nll: Vec<Vec<f64>>,
    prediction: Vec<Vec<f64>>,
}

/// |a − b|, number by number.
fn apart(a: &[f64], b: &[f64]) -> Worst {
    assert_eq!(a.len(), b.len());
    let mut worst = Worst { cases: 1, ..Worst::default() };
    a.iter().zip(b).for_each(|(a, b)| worst.see_off(a - b, 1.0));
    worst
}

#[test]
fn a_probe_and_what_it_says_with_heads_removed_equal_scikit_learn() {
    let folder = tempfile::tempdir().unwrap();
    let made = [true, false].map(|three| {
        let text = spec_of(&reviews(folder.path(), three), "[[sweep]]\nkind = \"single\"\n");
        ablate_prepare::prepare(&spec::parse(&text, "probe.toml").unwrap(), Path::new("."), &|_, _, _| {})
            .unwrap()
    });
    let heads = made[0].plan.model.n_heads;
    let subsets: Vec<Vec<HeadIx>> =
        std::iter::once(Vec::new()).chain((0..72).step_by(14).map(|h| vec![HeadIx(h)])).collect();
    let cases: Vec<_> = made
        .iter()
        .map(|m| {
            let p = &m.prepared[0];
            let probe = p.probe.as_ref().unwrap();
            json!({"probe": {"items": probe.items, "labels": probe.labels}, "items": p.items, "examples": p.examples})
        })
        .collect();
    let asked: Vec<_> = subsets.iter().map(|s| pairs_of(s, heads)).collect();
    let (question, answer) = (folder.path().join("job.json"), folder.path().join("result.json"));
    std::fs::write(&question, json!({"path": minilm(), "cases": cases, "subsets": asked}).to_string())
        .unwrap();
    script("probe.py", &[&question, &answer]).unwrap();
    let answers: Vec<Answer> = serde_json::from_slice(&std::fs::read(&answer).unwrap()).unwrap();

    let inspected = inspect(&minilm()).unwrap();
    let weights = Weights::open(&inspected.weights, Device::Cpu, Kind::Double).unwrap();
    let stop = AtomicBool::new(false);
    for (made, answer) in made.into_iter().zip(answers) {
        let load = || {
            tch::no_grad(|| {
                arch::load(&inspected.info, &weights, Device::Cpu, Kind::Double, &|_, _, _| {}).unwrap()
            })
        };
        let p = &made.prepared[0];
        let probe = p.probe.as_ref().unwrap();
        let model = load();
        let fitted = tch::no_grad(|| FittedProbe::fit(&model, p, probe, &stop).unwrap());
        let (mut rows, mut bias) = fitted.parameters();
        if probe.classes.len() == 2 {
            // The first label's row is 0.
            assert!(rows.drain(..rows.len() / 2).chain(bias.drain(..1)).all(|v| v == 0.0));
        }
        let mut of_fit = apart(&rows, &answer.weights.concat());
        of_fit.join(apart(&bias, &answer.bias));
        let plan = Arc::new(made.plan);
        let mut engine = Engine::new(
            Arc::new(SharedModel::new(load())),
            Arc::clone(&plan),
            Arc::new(made.prepared.clone()),
        );
        let cut = |h: &HeadIx| ((h.0 / heads) as usize, vec![Cut { head: h.0 % heads, keep: 0.0 }]);
        let asked: Vec<Intervention> =
            subsets.iter().map(|s| Intervention { stages: s.iter().map(cut).collect() }).collect();
        let scores = engine.run_interventions(0, &[], &asked, &[0], Scope::All, &stop).unwrap();
        let labels: Vec<f64> = p.examples.iter().map(|e| e.gold).collect();
        let mut worst = Worst::default();
        for at in 0..subsets.len() {
            worst.join(apart(scores.tasks[0].column(at, 0), &answer.nll[at]));
            assert_eq!(scores.tasks[0].column(at, 1), answer.prediction[at]);
            assert_eq!(scores.tasks[0].column(at, 2), labels);
        }
        let labels = probe.classes.len();
        println!("{labels} labels: weights {:.1e}, nll {:.1e}", of_fit.rel, worst.rel);
        let ok = [
            proved("MiniLM", &format!("probe of {labels} labels, f64: weights"), of_fit, LIMIT),
            proved("MiniLM", &format!("probe of {labels} labels, f64: scores of heads"), worst, LIMIT),
        ];
        assert_eq!(ok, [true; 2], "weights {of_fit:?}, nll {worst:?}");
    }
}

#[test]
fn a_probed_run_tells_what_it_is_and_does_not_depend_on_the_number_of_workers() {
    let folder = tempfile::tempdir().unwrap();
    let task = format!("{}\nmetric = \"f1_binary\"\ntrain = 0.4", reviews(folder.path(), false));
    let sweeps = "[[sweep]]\nkind = \"single\"\n";
    let path = folder.path().join("spec.toml");
    std::fs::write(&path, spec_of(&task, sweeps).replace("f64", "f32")).unwrap();
    let mut plan = ablate();
    plan.arg("plan").arg(&path);
    let planned = said(plan);
    let words = "2 labels by a linear probe of the unablated embedding, fitted on";
    assert!(planned.contains(words) && planned.contains("label \"bad\": [CLS]|the|"), "{planned}");
    let (one, two) = (folder.path().join("one"), folder.path().join("two"));
    said(run(&path, &one, &[]));
    said(run(&path, &two, &["--workers", "2"]));
    assert_eq!(differing(&tables(&one), &tables(&two)), [""; 0]);
    export_json(&one, &folder.path().join("json"));
    let heads = read_json(&folder.path().join("json/heads.json"));
    let first = &heads.as_array().unwrap()[0];
    assert_eq!((heads.as_array().unwrap().len(), first["metric"].as_str()), (72, Some("f1_binary")));
    assert!(first["baseline"].as_f64().unwrap() > 0.8 && first["p_value"].is_number(), "{first}");

    let wrong = |changed: String, words: &[&str]| {
        std::fs::write(&path, changed).unwrap();
        refused(&run(&path, &folder.path().join("wrong"), &[]).output().unwrap(), words);
    };
    wrong(spec_of(&format!("{task}\nprobe = false"), sweeps), &["spec.toml:", "train", "probe = false"]);
    wrong(
        spec_of(&task.replace("train = 0.4", "probe = false"), sweeps),
        &["no classification head of its own"],
    );
}

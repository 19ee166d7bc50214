//! Tiny random ViTs: every ablation, of every head alone, of pairs, and on top of a base set.

use super::{Answer, LIMIT, ask, image, made, records};
use ablate_common::head::HeadIx;
use ablate_common::model::inspect;
use ablate_common::pixels::Pixels;
use ablate_common::plan::{Ablation, Batch, Donors, Plan};
use ablate_common::spec;
use ablate_common::task::{Item, Prepared, Scope};
use ablate_prepare::PreparedExperiment;
use ablate_prepare::images::Preprocessor;
use ablate_tests::reference::pairs_of;
use ablate_tests::tensors::every_tensor_is_checked;
use ablate_worker::engine::base::{BaseSet, DeviceBatch};
use ablate_worker::engine::model::Model;
use ablate_worker::engine::score::host;
use ablate_worker::engine::trie::{Cut, Intervention};
use ablate_worker::engine::{Engine, SharedModel, arch, classify};
use ablate_worker::load::Weights;
use serde_json::{Value, json};
use std::collections::BTreeMap;
use std::path::Path;
use std::sync::Arc;
use std::sync::atomic::AtomicBool;
use tch::{Device, Kind};

/// Ablations of two specs: one spec takes a method once.
const METHODS: [&str; 2] = [
    r#"
[[ablation]]
method = "zero"
[[ablation]]
method = "mean"
[[ablation]]
method = "scale"
scale = -0.5
[[ablation]]
method = "resample"
"#,
    r#"
[[ablation]]
method = "mean"
pool = "position"
"#,
];
const PAIRED: &str = "[[ablation]]\nmethod = \"resample\"\ndonors = \"paired\"\n";
const SWEEPS: &str = "[[sweep]]\nkind = \"single\"\n[[sweep]]\nkind = \"pairs\"\n";

const COLOURS: [&str; 8] =
    ["rgb0.png", "alpha.png", "rgb1.png", "gray2.png", "rgb2.png", "palette.png", "rgb3.png", "two-tone.png"];
const GRAYS: [&str; 6] =
    ["gray0.png", "gray1.png", "gray-alpha.png", "gray3.png", "two-tone.png", "gray5.png"];

struct Case {
    name: &'static str,
    images: &'static [&'static str],
    made: [PreparedExperiment; 2],
    asked: Vec<Vec<HeadIx>>,
    question: Value,
}

/// By case: how many images go through the model together.
fn case(name: &'static str, images: &'static [&'static str], together: usize) -> Case {
    let folder = tempfile::tempdir().unwrap();
    let path = made().join(name);
    let probed = name == "bare";
    let labels = inspect(&path).unwrap().info.details.labels;
    // By number and by name; a probe's are its own.
    let label = |k: usize| match (probed, k % 2) {
        (true, _) => json!(["yes", "no"][k % 2]),
        (false, 0) => json!(k * 7 % labels.len()),
        (false, _) => json!(labels[k * 7 % labels.len()]),
    };
    let data = records(folder.path(), images, label);
    let made = METHODS.map(|methods| {
        let paired = if probed || methods == METHODS[0] { "" } else { PAIRED };
        let text = format!(
            "name = \"{name}\"\nseed = 5\n[model]\nsource = {path:?}\ndtype = \"f64\"\n[[task]]\nname = \"images\"\n\
             kind = \"classification\"\ndata = {data:?}\n{methods}{paired}{SWEEPS}"
        );
        let parsed = spec::parse(&text, "images.toml").unwrap();
        let mut made = ablate_prepare::prepare(&parsed, Path::new("."), &|_, _, _| {}).unwrap();
        let all: Vec<u32> = (0..made.plan.tasks[0].items).collect();
        let len = made.plan.model.context;
        made.plan.tasks[0].all =
            all.chunks(together).map(|items| Batch { items: items.to_vec(), len }).collect();
        made
    });
    let heads = made[0].plan.heads().len() as u32;
    let mut asked: Vec<Vec<HeadIx>> = vec![Vec::new(), (0..heads).map(HeadIx).collect()];
    asked.extend((0..heads).map(|h| vec![HeadIx(h)]));
    let pairs = (0..heads).flat_map(|i| (i + 1..heads).map(move |j| vec![HeadIx(i), HeadIx(j)]));
    asked.extend(pairs.step_by(25));
    asked.push(base(heads).into_iter().chain([HeadIx(heads - 1)]).collect());
    let question = question(name, images, &made, &asked);
    Case { name, images, made, asked, question }
}

/// A base set: the first head, and two of the middle.
fn base(heads: u32) -> Vec<HeadIx> {
    [0, heads / 2, heads / 2 + 1].map(HeadIx).to_vec()
}

fn method(a: &Ablation) -> &'static str {
    match a {
        Ablation::Mean { pool: ablate_common::plan::Pool::Position } => "position",
        Ablation::Resample { donors: Donors::Paired } => "paired",
        other => other.name(),
    }
}

fn question(name: &str, images: &[&str], made: &[PreparedExperiment; 2], asked: &[Vec<HeadIx>]) -> Value {
    let path = super::made().join(name);
    let mut methods = BTreeMap::new();
    for a in made.iter().flat_map(|m| &m.plan.ablations) {
        let how = match a.method {
            Ablation::Zero => json!({"scale": 0.0}),
            Ablation::Scale { scale } => json!({"scale": scale}),
            Ablation::Mean { pool } => json!({"pool": pool}),
            Ablation::Resample { donors: Donors::Seeded } => json!({"donors": a.sources[0].donors}),
            Ablation::Resample { donors: Donors::Paired } => json!({"paired": true}),
            Ablation::Optimal { .. } => unreachable!("fits have a test of their own"),
        };
        methods.insert(method(&a.method), how);
    }
    let files: Vec<_> = images.iter().map(|n| image(n)).collect();
    let others: Vec<_> = (0..images.len()).map(|k| image(images[(k + 1) % images.len()])).collect();
    let (prepared, model) = (&made[0].prepared[0], &made[0].plan.model);
    let labels: Vec<f64> = prepared.examples.iter().map(|e| e.gold).collect();
    let subsets: Vec<_> = asked.iter().map(|s| pairs_of(s, model.n_heads)).collect();
    let mut question = json!({"path": path, "images": files, "counterfactuals": others, "labels": labels,
        "subsets": subsets, "methods": methods});
    if let Some(probe) = &prepared.probe {
        let shape = model.details.image.unwrap();
        let preprocessor = Preprocessor::read(&path, shape).unwrap();
        let own: Vec<Item> = files.iter().map(|f| preprocessor.item(f).unwrap()).collect();
        let fitted: Vec<_> =
            probe.items.iter().map(|i| own.iter().position(|o| o.image == i.image).unwrap()).collect();
        question["probe"] = json!({"fitted": fitted, "labels": probe.labels});
        question["counterfactuals"] = json!([]);
    }
    question
}

/// Sums of an image's values and of their squares, by channel.
fn sums(image: &Pixels) -> Vec<[f64; 2]> {
    let planes = image.levels.chunks_exact((image.height * image.width) as usize);
    let one = |(c, plane): (usize, &[u8])| {
        let table = image.scaling.table(c);
        let values = || plane.iter().map(|&l| f64::from(table[l as usize]));
        [values().sum(), values().map(|v| v * v).sum()]
    };
    planes.enumerate().map(one).collect()
}

fn load(path: &Path, kind: Kind) -> Model {
    let inspected = inspect(path).unwrap();
    let weights = Weights::open(&inspected.weights, Device::Cpu, kind).unwrap();
    tch::no_grad(|| arch::load(&inspected.info, &weights, Device::Cpu, kind, &|_, _, _| {}).unwrap())
}

/// Largest deviation of what the unablated model says of its images.
fn finals(model: &Model, plan: &Plan, prepared: &Prepared, expected: &[Vec<f64>]) -> f64 {
    let mut worst: f64 = 0.0;
    for batch in &plan.tasks[0].all {
        let device = DeviceBatch::new(model, prepared, batch);
        let mut base = BaseSet::empty(model, 1);
        let last = base.state(model, 0, &device).0.x[model.blocks.len()].unsqueeze(0);
        let x = model.finish(&device.at_scored(last));
        let got = classify::logits(model, &device, &x, None)
            .unwrap_or_else(|| classify::embeddings(model, &device, &x));
        let want: Vec<f64> = batch.items.iter().flat_map(|&i| expected[i as usize].clone()).collect();
        let got = host(&got);
        assert_eq!(got.len(), want.len());
        worst = got.iter().zip(want).fold(worst, |w, (g, e)| w.max(off(*g, e)));
    }
    worst
}

fn off(got: f64, want: f64) -> f64 {
    let off = (got - want).abs() / want.abs().max(1.0);
    assert!(!off.is_nan(), "{got} instead of {want}");
    off
}

/// Largest deviations of pixels, of logits, and of losses.
fn compare(case: Case, answer: &Answer) -> [f64; 3] {
    let Case { name, made, asked, .. } = case;
    let each = made.map(|made| compare_spec(name, made, &asked, answer));
    [0, 1, 2].map(|k| f64::max(each[0][k], each[1][k]))
}

fn compare_spec(name: &str, made: PreparedExperiment, asked: &[Vec<HeadIx>], answer: &Answer) -> [f64; 3] {
    let path = super::made().join(name);
    let PreparedExperiment { plan, prepared, .. } = made;
    let labels: Vec<f64> = prepared[0].examples.iter().map(|e| e.gold).collect();
    let mut of_pixels: f64 = 0.0;
    if prepared[0].probe.is_none() {
        for (item, want) in prepared[0].items.iter().zip(&answer.pixels) {
            for (got, want) in sums(item.image.as_ref().unwrap()).concat().iter().zip(want.concat()) {
                of_pixels = of_pixels.max(off(*got, want));
            }
        }
    }
    let model = load(&path, Kind::Double);
    let of_logits = tch::no_grad(|| finals(&model, &plan, &prepared[0], &answer.last));
    for (kind, limit) in [(Kind::Float, 1e-2), (Kind::BFloat16, f64::MAX)] {
        let off = tch::no_grad(|| finals(&load(&path, kind), &plan, &prepared[0], &answer.last));
        assert!(off <= limit, "{name}: {off:e} in {kind:?}");
    }
    let plan: Arc<Plan> = Arc::new(plan);
    let mut engine = Engine::new(Arc::new(SharedModel::new(model)), Arc::clone(&plan), Arc::new(prepared));
    let stop = AtomicBool::new(false);
    let (mut worst, mut seen): (f64, usize) = (0.0, 0);
    let mut check =
        |scores: &ablate_common::scores::TaskScores, at: usize, ablation: u32, subset: &[HeadIx]| {
            let Some(k) = asked.iter().position(|s| s == subset) else { return };
            let want = &answer.methods[method(&plan.ablations[ablation as usize].method)];
            for (got, want) in scores.column(at, 0).iter().zip(&want.nll[k]) {
                worst = worst.max(off(*got, *want));
            }
            assert_eq!(scores.column(at, 1), want.prediction[k], "{name} {subset:?}");
            assert_eq!(scores.column(at, 2), labels);
            seen += 1;
        };
    for (sweep, planned) in (0u32..).zip(&plan.sweeps) {
        let space = plan.space(sweep, &[]);
        for chunk in 0..plan.round_chunks(sweep, 0) {
            let scores = engine.run(sweep, 0, &[], chunk, &stop).unwrap();
            for (at, rank) in plan.chunk_ranks(sweep, 0, chunk).enumerate() {
                let subset = plan.removed(sweep, &space, rank).unwrap();
                check(&scores.tasks[0], at, planned.ablation, &subset);
            }
        }
    }
    let heads = plan.heads().len() as u32;
    let last = HeadIx(heads - 1);
    let head = plan.heads().head(last).unwrap();
    let more = Intervention { stages: vec![(head.layer as usize, vec![Cut { head: head.head, keep: 0.0 }])] };
    for (ablation, planned) in (0u32..).zip(&plan.ablations) {
        if matches!(planned.method, Ablation::Scale { .. }) {
            continue;
        }
        let more = std::slice::from_ref(&more);
        let scores = engine.run_interventions(ablation, &base(heads), more, &[0], Scope::All, &stop).unwrap();
        let whole: Vec<HeadIx> = base(heads).into_iter().chain([last]).collect();
        check(&scores.tasks[0], 0, ablation, &whole);
    }
    let (methods, scaled) =
        (plan.ablations.len(), plan.ablations.iter().filter(|a| a.method.name() == "scale").count());
    assert_eq!(seen, methods * asked.len() - scaled, "every asked subset was compared");
    [of_pixels, of_logits, worst]
}

#[test]
fn every_ablation_of_every_head_equals_transformers() {
    let cases = [
        case("plain", &COLOURS[..6], 4),
        case("oblong", &COLOURS[..5], 1),
        case("gray", &GRAYS, 4),
        case("bare", &COLOURS, 2),
    ];
    let questions: Vec<Value> = cases.iter().map(|c| c.question.clone()).collect();
    let answers = ask(&questions);
    let mut failed = Vec::new();
    for (case, answer) in cases.into_iter().zip(&answers) {
        every_tensor_is_checked(&made().join(case.name), &["pooler."]);
        assert_eq!(answer.pixels.len(), case.images.len());
        let name = case.name;
        let [pixels, logits, losses] = compare(case, answer);
        println!("{name:8} pixels {pixels:.1e}, logits {logits:.1e}, losses {losses:.1e}");
        if [pixels, logits, losses].iter().any(|d| *d > LIMIT) {
            failed.push(name);
        }
    }
    assert!(failed.is_empty(), "above {LIMIT:e}: {failed:?}");
}

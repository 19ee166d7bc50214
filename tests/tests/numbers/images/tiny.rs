//! Tiny random ViTs: every ablation, of every head alone, of pairs, and on top of a base set.

use super::{Answer, LIMIT, ask, image, made, records};
use crate::plans::load;
use ablate_common::head::HeadIx;
use ablate_common::model::inspect;
use ablate_common::pixels::Pixels;
use ablate_common::plan::{Ablation, Batch, Donors, Plan};
use ablate_common::spec;
use ablate_common::task::{Item, Prepared, Scope};
use ablate_prepare::PreparedExperiment;
use ablate_prepare::images::Preprocessor;
use ablate_tests::proof::{Worst, proved};
use ablate_tests::reference::pairs_of;
use ablate_tests::tensors::every_tensor_is_checked;
use ablate_worker::engine::base::{BaseSet, DeviceBatch};
use ablate_worker::engine::model::Model;
use ablate_worker::engine::score::host;
use ablate_worker::engine::trie::{Cut, Intervention};
use ablate_worker::engine::{Engine, SharedModel, classify};
use serde_json::{Value, json};
use std::collections::BTreeMap;
use std::path::Path;
use std::sync::Arc;
use std::sync::atomic::AtomicBool;
use tch::Kind;

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
/// Narrower formats, and how far what is said of a batch's images may be off, all together, relative to its length as a vector:
/// so many rounding errors of one operation. (Three layers of about ten operations each, and attention that is far from even.)
const NARROW: [(Kind, &str, f64); 3] = [
    (Kind::Float, "f32", 256.0 / 16_777_216.0),
    (Kind::Half, "f16", 64.0 / 2048.0),
    (Kind::BFloat16, "bf16", 32.0 / 256.0),
];
const PAIRED: &str = "[[ablation]]\nmethod = \"resample\"\ndonors = \"paired\"\n";
const SWEEPS: &str = "[[sweep]]\nkind = \"single\"\n[[sweep]]\nkind = \"pairs\"\ngroups = false\n";

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

/// Deviations of what the unablated model says of its images: number by number, and of each batch's as a vector.
fn finals(model: &Model, plan: &Plan, prepared: &Prepared, expected: &[Vec<f64>]) -> [Worst; 2] {
    let (mut each, mut whole) = (Worst::default(), Worst::default());
    let norm = |v: &mut dyn Iterator<Item = f64>| v.map(|x| x * x).sum::<f64>().sqrt();
    for batch in &plan.tasks[0].all {
        let device = DeviceBatch::new(model, prepared, batch);
        let mut base = BaseSet::empty(model, 1);
        let last = base.state(model, 0, &device).0.x[model.blocks.len()].unsqueeze(0);
        let x = model.finish(&device.at_scored(last));
        let got = classify::logits(model, &device, &x, None)
            .unwrap_or_else(|| classify::embeddings(model, &device, &x));
        let want: Vec<f64> = batch.items.iter().flat_map(|&i| expected[i as usize].clone()).collect();
        let got = host(&got);
        each.see_all(&got, &want);
        whole.cases += 1;
        let off = norm(&mut got.iter().zip(&want).map(|(g, w)| g - w));
        whole.see_off(off, norm(&mut want.iter().copied()));
    }
    [each, whole]
}

/// What was compared, how far off it is, and the limit.
type Rows = Vec<(String, Worst, f64)>;

/// Deviations of pixels, of logits in every format, and of losses.
fn compare(case: Case, answer: &Answer) -> Rows {
    let Case { name, made, asked, .. } = case;
    made.map(|made| compare_spec(name, made, &asked, answer)).concat()
}

fn compare_spec(name: &str, made: PreparedExperiment, asked: &[Vec<HeadIx>], answer: &Answer) -> Rows {
    let path = super::made().join(name);
    let PreparedExperiment { plan, prepared, .. } = made;
    let labels: Vec<f64> = prepared[0].examples.iter().map(|e| e.gold).collect();
    let mut of_pixels = Worst::default();
    if prepared[0].probe.is_none() {
        for (item, want) in prepared[0].items.iter().zip(&answer.pixels) {
            let got: Vec<f64> = sums(item.image.as_ref().unwrap()).into_iter().flatten().collect();
            of_pixels.see_all(&got, &want.iter().flatten().copied().collect::<Vec<f64>>());
        }
    }
    let (_, model) = load(&path, Kind::Double);
    let off = |model: &Model| tch::no_grad(|| finals(model, &plan, &prepared[0], &answer.last));
    let mut rows: Rows = vec![
        ("pixels".into(), of_pixels, LIMIT),
        ("logits or embeddings, f64".into(), off(&model)[0], LIMIT),
    ];
    for (kind, narrow, limit) in NARROW {
        let off = off(&load(&path, kind).1)[1];
        rows.push((format!("logits or embeddings as vectors, {narrow}"), off, limit));
    }
    let plan: Arc<Plan> = Arc::new(plan);
    let mut engine = Engine::new(Arc::new(SharedModel::new(model)), Arc::clone(&plan), Arc::new(prepared));
    let stop = AtomicBool::new(false);
    let (mut worst, mut seen) = (Worst::default(), 0);
    let mut check =
        |scores: &ablate_common::scores::TaskScores, at: usize, ablation: u32, subset: &[HeadIx]| {
            let Some(k) = asked.iter().position(|s| s == subset) else { return };
            let want = &answer.methods[method(&plan.ablations[ablation as usize].method)];
            worst.see_all(scores.column(at, 0), &want.nll[k]);
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
    let methods: Vec<&str> = plan.ablations.iter().map(|a| method(&a.method)).collect();
    rows.push((format!("losses of heads, pairs, sets, f64: {}", methods.join(", ")), worst, LIMIT));
    rows
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
        for (check, worst, limit) in compare(case, answer) {
            println!("{name:8} {check:50} {:.1e}", worst.rel);
            if !proved(&format!("tiny vit {name}"), &check, worst, limit) {
                failed.push((name, check));
            }
        }
    }
    assert!(failed.is_empty(), "too far from transformers: {failed:?}");
}

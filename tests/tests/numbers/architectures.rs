//! Every architecture against Hugging Face transformers in f64: tiny random models of odd sizes, made and
//! run by tests/reference/tiny.py, loaded from their directories; the final states at every position, each
//! head alone, pairs, and sets on top of a base set, by zero and by mean, on items of mixed lengths.
//!
//! The engine pads on the right, and only there: where a sequence begins is part of no plan, and no number may depend
//! on what shares its batch. So items are asked in batches of unlike lengths, each in a batch of its own (one of them a single
//! token), and all in one; and transformers is asked with each item alone, in a batch padded on the left, and in one padded on the right.
#![allow(clippy::unwrap_used, reason = "tests")]

use super::plans::{load, of_heads, sweep, task};
use ablate_common::head::HeadIx;
use ablate_common::model::{DECODERS, ENCODERS, ModelInfo, inspect};
use ablate_common::plan::{Ablation, Batch, Plan, Pool, SweepKind};
use ablate_common::task::{Example, Item, Prepared, Scope, Scored, TaskKind};
use ablate_tests::proof::{Worst, proved};
use ablate_tests::reference::script;
use ablate_tests::tensors::every_tensor_is_checked;
use ablate_worker::engine::base::{BaseSet, DeviceBatch};
use ablate_worker::engine::model::Model;
use ablate_worker::engine::score::host;
use ablate_worker::engine::trie::{Cut, Intervention};
use ablate_worker::engine::{Engine, SharedModel};
use serde::Deserialize;
use std::collections::{BTreeMap, BTreeSet};
use std::path::Path;
use std::sync::Arc;
use std::sync::atomic::AtomicBool;
use tch::Kind;

const ITEMS: [&[u32]; 4] = [&[7], &[3, 60], &[5, 9, 22, 5, 41, 13, 2], &[1, 0, 33, 17, 4, 52, 8, 29, 11]];
const FOILS: [u32; 4] = [1, 3, 5, 7];
const LAYERS: u32 = 3;
const HEADS: u32 = 6;
const LIMIT: f64 = 1e-9;
/// What a batch's padding and neighbours may do to a score in f64.
const LIMIT_OF_BATCHES: f64 = 1e-11;
/// Unlike lengths; one item each, one of them a single token; all, in another order.
const LAYOUTS: [&[&[u32]]; 3] = [&[&[0, 3], &[1, 2]], &[&[0], &[1], &[2], &[3]], &[&[3, 0, 2, 1]]];
/// Narrower formats, and how far a position's logits or states may be off, all together, relative to their length as a vector:
/// so many rounding errors of one operation. (Three layers of about ten operations each, and attention that is far from even.)
const NARROW: [(Kind, &str, f64); 3] = [
    (Kind::Float, "f32", 256.0 / 16_777_216.0),
    (Kind::Half, "f16", 64.0 / 2048.0),
    (Kind::BFloat16, "bf16", 32.0 / 256.0),
];

/// Column → subset → example.
type Columns = BTreeMap<String, Vec<Vec<f64>>>;

#[derive(Deserialize)]
struct Answer {
    #[serde(rename = "final")]
    last: Vec<Vec<Vec<f64>>>,
    zero: Columns,
    mean: Columns,
    padded: BTreeMap<String, Padded>,
}

/// The same from one batch that is padded on a side.
#[derive(Deserialize)]
struct Padded {
    #[serde(rename = "final")]
    last: Vec<Vec<Vec<f64>>>,
    zero: Columns,
}

fn target(item: usize, position: usize) -> u32 {
    (item as u32 * 17 + position as u32 * 5 + 2) % 61
}

fn prepared(kind: TaskKind) -> Prepared {
    let items: Vec<Item> = ITEMS
        .iter()
        .enumerate()
        .map(|(i, tokens)| {
            let last = tokens.len() - 1;
            let at = |p: usize| Scored { position: p as u32, target: target(i, p), foil: FOILS[i] };
            let scored = match kind {
                TaskKind::Similarity => Vec::new(),
                TaskKind::LanguageModeling => (0..=last).map(at).collect(),
                _ => vec![at(last)],
            };
            Item { tokens: tokens.to_vec(), scored, ..Item::default() }
        })
        .collect();
    let n = items.len() as u32;
    let example = |a, b| Example { a, b, gold: 0.0, cluster: a, half: None };
    let examples = if kind == TaskKind::Similarity {
        (0..n).flat_map(|a| (a + 1..n).map(move |b| example(a, b))).collect()
    } else {
        (0..n).map(|a| example(a, a)).collect()
    };
    Prepared { kind, item_half: vec![0; items.len()], items, examples, probe: None }
}

fn plan(info: &ModelInfo, prepared: &[Prepared], all: &[Batch]) -> Plan {
    let sweep = |kind, ablation, chunk| sweep(kind, ablation, prepared.len(), chunk);
    Plan {
        tasks: prepared.iter().map(|p| task(p, all.to_vec())).collect(),
        ablations: vec![Ablation::Zero.into(), Ablation::Mean { pool: Pool::Tokens }.into()],
        sweeps: (0..2)
            .flat_map(|a| [sweep(SweepKind::Single, a, 7), sweep(SweepKind::Pairs, a, 40)])
            .collect(),
        ..of_heads(info)
    }
}

fn head(layer: u32, head: u32) -> HeadIx {
    HeadIx(layer * HEADS + head)
}

/// What the reference is asked: nothing removed, each head, some pairs, and larger sets.
fn subsets() -> Vec<Vec<HeadIx>> {
    let n = LAYERS * HEADS;
    let mut all = vec![Vec::new()];
    all.extend((0..n).map(|h| vec![HeadIx(h)]));
    // Within a layer and across, from the first to the last.
    all.extend(
        (0..n)
            .flat_map(|i| (i + 1..n).map(move |j| (i, j)))
            .step_by(7)
            .map(|(i, j)| vec![HeadIx(i), HeadIx(j)]),
    );
    all.extend(based().iter().map(|(base, more)| [base.as_slice(), more].concat()));
    all
}

/// Base sets with what is removed besides: views with fewer heads, one with a whole layer gone.
fn based() -> [(Vec<HeadIx>, Vec<HeadIx>); 3] {
    [
        (vec![head(0, 1), head(1, 4)], vec![head(1, 0)]),
        (vec![head(0, 0), head(0, 2), head(0, 5)], vec![head(0, 3), head(2, 2)]),
        ((0..HEADS).map(|h| head(1, h)).collect(), vec![head(2, 5)]),
    ]
}

fn batches(layout: &[&[u32]]) -> Vec<Batch> {
    let len = |items: &[u32]| items.iter().map(|&i| ITEMS[i as usize].len() as u32).max().unwrap();
    layout.iter().map(|items| Batch { items: items.to_vec(), len: len(items) }).collect()
}

/// Deviations of the final states or logits at every position, number by number relative to max(1, |expected|), and
/// position by position relative to the length of the expected vector.
fn final_states(
    model: &Model,
    prepared: &Prepared,
    batches: &[Batch],
    expected: &[Vec<Vec<f64>>],
) -> [Worst; 2] {
    let (mut each, mut whole) = (Worst::default(), Worst::default());
    let norm = |v: &mut dyn Iterator<Item = f64>| v.map(|x| x * x).sum::<f64>().sqrt();
    for b in batches {
        let mut unscored = prepared.clone();
        unscored.items.iter_mut().for_each(|i| i.scored.clear());
        let device = DeviceBatch::new(model, &unscored, b);
        let mut base = BaseSet::empty(model, 1);
        let x = model.finish(&base.state(model, 0, &device).0.x[LAYERS as usize]);
        let last = model.logits(&x).unwrap_or(x);
        for (row, &item) in b.items.iter().enumerate() {
            assert_eq!(expected[item as usize].len(), ITEMS[item as usize].len());
            for (t, want) in expected[item as usize].iter().enumerate() {
                let got = host(&last.get((row * b.len as usize + t) as i64));
                each.see_all(&got, want);
                let off = norm(&mut got.iter().zip(want).map(|(g, w)| g - w));
                whole.cases += 1;
                whole.see_off(off, norm(&mut want.iter().copied()));
            }
        }
    }
    [each, whole]
}

struct Compared<'a> {
    engine: Engine,
    plan: Arc<Plan>,
    subsets: &'a [Vec<HeadIx>],
    answer: &'a Answer,
    /// Reference columns by task.
    columns: Vec<Vec<&'static str>>,
}

/// What single heads scored: (ablation, subset) → scores of all tasks.
type Scores = BTreeMap<(u32, usize), Vec<f64>>;

impl Compared<'_> {
    /// |Δ − Δref| / max(1, |ℓ(∅)|) of every example in `task` for the subset at `asked`, whose scores
    /// are given column by column beside those of the empty subset.
    fn deviation(
        &self,
        reference: &Columns,
        task: usize,
        asked: usize,
        got: &[&[f64]],
        none: &[&[f64]],
    ) -> Worst {
        let mut worst = Worst { cases: 1, ..Worst::default() };
        for (c, name) in self.columns[task].iter().enumerate() {
            let want = &reference[*name];
            for e in 0..want[asked].len() {
                let scale = want[0][e].abs().max(1.0);
                worst.see_off((got[c][e] - none[c][e]) - (want[asked][e] - want[0][e]), scale);
                worst.see_off(none[c][e] - want[0][e], scale);
            }
        }
        worst
    }

    fn reference(&self, ablation: u32) -> &Columns {
        if ablation == 0 { &self.answer.zero } else { &self.answer.mean }
    }

    /// Runs `more` on top of `base` and compares it with the union.
    fn interventions(&mut self, ablation: u32, base: &[HeadIx], more: &[Vec<HeadIx>]) -> Worst {
        let stop = AtomicBool::new(false);
        let cuts = |set: &[HeadIx]| {
            let mut layers: BTreeMap<usize, Vec<Cut>> = BTreeMap::new();
            for h in set {
                layers.entry((h.0 / HEADS) as usize).or_default().push(Cut { head: h.0 % HEADS, keep: 0.0 });
            }
            Intervention { stages: layers.into_iter().collect() }
        };
        let tasks: Vec<u32> = (0..self.columns.len() as u32).collect();
        let mut run = |base: &[HeadIx], sets: &[Intervention]| {
            self.engine.run_interventions(ablation, base, sets, &tasks, Scope::All, &stop).unwrap()
        };
        let none = run(&[], &[Intervention::default()]);
        let got = run(base, &more.iter().map(|m| cuts(m)).collect::<Vec<_>>());
        let mut worst = Worst::default();
        for (i, m) in more.iter().enumerate() {
            let union = [base, m].concat();
            let asked = self.subsets.iter().position(|s| *s == union).unwrap();
            for (t, (got, none)) in got.tasks.iter().zip(&none.tasks).enumerate() {
                let got: Vec<&[f64]> = (0..got.columns as usize).map(|c| got.column(i, c)).collect();
                let none: Vec<&[f64]> = (0..none.columns as usize).map(|c| none.column(0, c)).collect();
                worst.join(self.deviation(self.reference(ablation), t, asked, &got, &none));
            }
        }
        worst
    }

    /// Single heads (and pairs, where they are asked for) through the sweeps, chunk by chunk: deviations from
    /// each item alone, from the batch padded on the left and the one padded on the right; and the scores.
    fn sweeps(&mut self, pairs: bool) -> ([Worst; 3], Scores) {
        let stop = AtomicBool::new(false);
        let plan = Arc::clone(&self.plan);
        let (mut worst, mut seen) = ([Worst::default(); 3], Scores::new());
        let tasks: Vec<u32> = (0..self.columns.len() as u32).collect();
        for (sweep, planned) in (0u32..).zip(&plan.sweeps) {
            if planned.kind == SweepKind::Pairs && !pairs {
                continue;
            }
            let (ablation, nothing) = (planned.ablation, [Intervention::default()]);
            let none =
                self.engine.run_interventions(ablation, &[], &nothing, &tasks, Scope::All, &stop).unwrap();
            let space = plan.space(sweep, &[]);
            for chunk in 0..plan.round_chunks(sweep, 0) {
                let scores = self.engine.run(sweep, 0, &[], chunk, &stop).unwrap();
                for (i, rank) in plan.chunk_ranks(sweep, 0, chunk).enumerate() {
                    let subset = plan.removed(sweep, &space, rank).unwrap();
                    let Some(asked) = self.subsets.iter().position(|s| *s == subset) else { continue };
                    for (t, (got, none)) in scores.tasks.iter().zip(&none.tasks).enumerate() {
                        let got: Vec<&[f64]> = (0..got.columns as usize).map(|c| got.column(i, c)).collect();
                        let none: Vec<&[f64]> =
                            (0..none.columns as usize).map(|c| none.column(0, c)).collect();
                        worst[0].join(self.deviation(self.reference(ablation), t, asked, &got, &none));
                        for (side, worst) in ["left", "right"].iter().zip(&mut worst[1..]) {
                            let padded = &self.answer.padded[*side].zero;
                            if ablation == 0 && subset.len() < 2 {
                                worst.join(self.deviation(padded, t, asked, &got, &none));
                            }
                        }
                        seen.entry((ablation, asked)).or_default().extend(got.concat());
                    }
                }
            }
        }
        let most = if pairs { 2 } else { 1 };
        let small = self.subsets.iter().filter(|s| (1..=most).contains(&s.len())).count();
        assert_eq!(seen.len(), 2 * small, "every single head and asked pair was compared");
        (worst, seen)
    }
}

/// Compares a model with the reference, and records it; false where a limit is passed.
fn check(path: &Path, subsets: &[Vec<HeadIx>]) -> bool {
    let answer: Answer =
        serde_json::from_slice(&std::fs::read(path.with_extension("json")).unwrap()).unwrap();
    let name = format!("tiny {}", path.file_name().unwrap().to_string_lossy());
    let (info, model) = load(path, Kind::Double);
    let kinds = if info.causal() {
        vec![TaskKind::LanguageModeling, TaskKind::LogitDifference]
    } else {
        vec![TaskKind::Similarity]
    };
    let columns = if info.causal() { vec![vec!["nll"], vec!["logit_diff"]] } else { vec![vec!["cosine"]] };
    let tasks = Arc::new(kinds.into_iter().map(prepared).collect::<Vec<Prepared>>());
    let states = |model: &Model, expected: &[Vec<Vec<f64>>]| {
        let mut all = [Worst::default(); 2];
        for layout in LAYOUTS {
            let of = tch::no_grad(|| final_states(model, &tasks[0], &batches(layout), expected));
            all.iter_mut().zip(of).for_each(|(all, of)| all.join(of));
        }
        all
    };
    let what = if info.causal() { "logits" } else { "final states" };
    let mut rows = vec![(format!("{what} at every position, f64"), states(&model, &answer.last)[0], LIMIT)];
    for side in ["left", "right"] {
        let off = states(&model, &answer.padded[side].last)[0];
        rows.push((format!("{what}, reference padded {side}, f64"), off, LIMIT));
    }
    for (kind, name, limit) in NARROW {
        let off = states(&load(path, kind).1, &answer.last)[1];
        rows.push((format!("{what} as vectors, {name}"), off, limit));
    }
    let model = Arc::new(SharedModel::new(model));
    let (mut swept, mut on_base) = ([Worst::default(); 3], Worst::default());
    let (mut first, mut apart) = (None, Worst::default());
    for (at, layout) in LAYOUTS.iter().enumerate() {
        let plan = Arc::new(plan(&info, &tasks, &batches(layout)));
        let engine = Engine::new(Arc::clone(&model), Arc::clone(&plan), Arc::clone(&tasks));
        let mut compared = Compared { engine, plan, subsets, answer: &answer, columns: columns.clone() };
        let (off, scores) = compared.sweeps(at == 0);
        swept.iter_mut().zip(off).for_each(|(all, of)| all.join(of));
        for ablation in 0..2 {
            for (base, more) in based() {
                on_base.join(compared.interventions(ablation, &base, &[more]));
            }
        }
        let first: &Scores = first.get_or_insert_with(|| scores.clone());
        for (subset, values) in &scores {
            apart.see_all(values, &first[subset]);
        }
    }
    let [alone, left, right] = swept;
    rows.push(("deltas of every head and of pairs, zero and mean, f64".into(), alone, LIMIT));
    rows.push(("deltas of every head, reference padded left, f64".into(), left, LIMIT));
    rows.push(("deltas of every head, reference padded right, f64".into(), right, LIMIT));
    rows.push(("deltas of sets on base sets, zero and mean, f64".into(), on_base, LIMIT));
    rows.push(("scores in other batches, f64 (no reference)".into(), apart, LIMIT_OF_BATCHES));
    let shown: Vec<String> = rows.iter().map(|r| format!("{:.1e}", r.1.rel)).collect();
    println!("{name:21} {}", shown.join(" "));
    rows.into_iter().fold(true, |ok, (check, worst, limit)| proved(&name, &check, worst, limit) && ok)
}

#[test]
fn every_architecture_equals_transformers() {
    let folder = tempfile::tempdir().unwrap();
    let subsets = subsets();
    let targets: Vec<Vec<u32>> =
        ITEMS.iter().enumerate().map(|(i, t)| (0..t.len()).map(|p| target(i, p)).collect()).collect();
    let asked: Vec<Vec<(u32, u32)>> =
        subsets.iter().map(|s| s.iter().map(|h| (h.0 / HEADS, h.0 % HEADS)).collect()).collect();
    let job = serde_json::json!({"items": ITEMS, "targets": targets, "foils": FOILS, "subsets": asked});
    let question = folder.path().join("job.json");
    std::fs::write(&question, job.to_string()).unwrap();
    let made = folder.path().join("made");
    script("tiny.py", &[&question, &made]).unwrap();
    let mut names: Vec<_> =
        std::fs::read_dir(&made).unwrap().map(|e| e.unwrap().path()).filter(|p| p.is_dir()).collect();
    names.sort();
    let (mut archs, mut failed) = (BTreeSet::new(), Vec::new());
    for path in &names {
        every_tensor_is_checked(path, &["pooler."]);
        archs.insert(inspect(path).unwrap().info.arch);
        if !check(path, &subsets) {
            failed.push(path.file_name().unwrap().to_string_lossy().into_owned());
        }
    }
    // Encoder-decoders have a test of their own (seq2seq.rs).
    let known: BTreeSet<String> =
        [&DECODERS[..], &ENCODERS].concat().into_iter().map(str::to_owned).collect();
    assert_eq!(archs, known, "a model of every architecture was made");
    assert!(failed.is_empty(), "too far from transformers: {failed:?}");
}

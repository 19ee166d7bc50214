//! Every kind of ablation on every kind of unit against Hugging Face transformers in f64, on tiny random models:
//! each unit alone, pairs, and a unit on top of a greedy sweep's base. What heads cost in f16 and bf16, against the same.
#![allow(clippy::unwrap_used, reason = "tests")]

use super::plans::{batch, load, of_heads, sweep, task};
use ablate_common::head::{Head, HeadIx, Stream};
use ablate_common::model::ModelInfo;
use ablate_common::plan::{
    Ablation, Donors, Plan, PlannedAblation, PlannedReference, PlannedSweep, Pool, Source, SweepKind,
};
use ablate_common::task::{Example, Item, Prepared, Scope, Scored, TaskKind};
use ablate_common::units::{HeadSet, UnitIx, UnitKind, UnitMap};
use ablate_tests::proof::{Worst, proved};
use ablate_tests::reference::script;
use ablate_worker::engine::trie::Intervention;
use ablate_worker::engine::{Engine, SharedModel};
use serde_json::json;
use std::collections::{BTreeMap, BTreeSet};
use std::path::Path;
use std::sync::Arc;
use std::sync::atomic::AtomicBool;
use tch::Kind;

/// Items of mixed lengths, two of them equally long.
const ITEMS: [&[u32]; 5] =
    [&[7], &[3, 60], &[5, 9, 22, 5, 41, 13, 2], &[1, 0, 33, 17, 4, 52, 8, 29, 11], &[8, 8, 1, 30, 2, 2, 59]];
const FOILS: [u32; 5] = [1, 3, 5, 7, 9];
/// Other items: one as long as the longest of those, and shorter ones.
const ELSEWHERE: [&[u32]; 3] = [&[40, 2, 19], &[6, 31, 31, 8, 50, 24, 12, 3, 17], &[55]];
/// Shorter, longer and equally long donors.
const OWN_DONORS: [u32; 5] = [1, 3, 4, 0, 2];
const OTHER_DONORS: [u32; 5] = [2, 0, 1, 1, 0];
const CASES: [&str; 3] = ["llama", "gemma2", "bert"];
const HEADS: u32 = 6;
const LIMIT: f64 = 1e-9;
/// Models of which deltas are compared in narrower formats as well.
const NARROWED: [&str; 2] = ["llama", "bert"];
/// These formats, and how far all heads' deltas may be off as one vector, relative to its length: so many rounding errors of one
/// operation, of 11 bits and of 8. Three layers of about ten operations each leave final states and logits 3 to 17 of them off
/// (architectures.rs), and a delta is the difference of two losses that are read from such; transformers' own deltas in these
/// formats are 8 to 13 of them off. One wrong head among 18 would alone be off by about 1/√18, which is 60 of bf16's and 480 of f16's.
const NARROW: [(Kind, &str, f64); 2] =
    [(Kind::Half, "f16", 48.0 / 2048.0), (Kind::BFloat16, "bf16", 48.0 / 256.0)];

/// Method → column → subset → example.
type Answer = BTreeMap<String, BTreeMap<String, Vec<Vec<f64>>>>;

/// (name, method, source)
fn methods() -> Vec<(&'static str, Ablation, Source)> {
    let own = Source::default;
    let other = || Source { reference: Some(0), donors: Vec::new() };
    let seeded = Ablation::Resample { donors: Donors::Seeded };
    vec![
        ("zero", Ablation::Zero, own()),
        ("half", Ablation::Scale { scale: 0.5 }, own()),
        ("flip", Ablation::Scale { scale: -1.0 }, own()),
        ("mean", Ablation::Mean { pool: Pool::Tokens }, own()),
        ("mean-position", Ablation::Mean { pool: Pool::Position }, own()),
        ("mean-reference", Ablation::Mean { pool: Pool::Tokens }, other()),
        ("mean-position-reference", Ablation::Mean { pool: Pool::Position }, other()),
        ("resample", seeded, Source { reference: None, donors: OWN_DONORS.to_vec() }),
        ("resample-reference", seeded, Source { reference: Some(0), donors: OTHER_DONORS.to_vec() }),
    ]
}

fn told(method: &(&str, Ablation, Source)) -> serde_json::Value {
    let reference = if method.2.reference.is_some() { json!(ELSEWHERE) } else { json!(ITEMS) };
    match method.1 {
        Ablation::Mean { pool } => json!({"pool": pool, "reference": reference}),
        Ablation::Resample { .. } => json!({"donors": method.2.donors, "reference": reference}),
        Ablation::Scale { scale } => json!({"scale": scale}),
        _ => json!({"scale": 0.0}),
    }
}

fn sets() -> Vec<HeadSet> {
    let set = |name: &str, heads: &[(u32, u32)]| HeadSet {
        name: name.into(),
        heads: heads
            .iter()
            .map(|&(layer, head)| Head { stream: Stream::SelfAttention, layer, head })
            .collect(),
    };
    vec![
        set("across", &[(2, 1), (0, 3)]),
        set("within", &[(1, 0), (1, 4)]),
        set("again", &[(0, 3), (1, 0), (1, 4)]),
    ]
}

const KINDS: [UnitKind; 4] = [UnitKind::Head, UnitKind::KvGroup, UnitKind::Layer, UnitKind::Set];

fn units(info: &ModelInfo) -> Vec<UnitMap> {
    KINDS.map(|kind| UnitMap::of(kind, info, &sets()).unwrap()).to_vec()
}

fn target(item: usize, position: usize) -> u32 {
    (item as u32 * 17 + position as u32 * 5 + 2) % 61
}

fn prepared(kind: TaskKind, tokens: &[&[u32]]) -> Prepared {
    let item = |(i, tokens): (usize, &&[u32])| {
        let last = tokens.len() - 1;
        let at = |p: usize| Scored {
            position: p as u32,
            target: target(i, p),
            foil: FOILS.get(i).copied().unwrap_or(0),
        };
        let scored = match kind {
            TaskKind::Similarity => Vec::new(),
            TaskKind::LanguageModeling => (0..=last).map(at).collect(),
            _ => vec![at(last)],
        };
        Item { tokens: tokens.to_vec(), scored, ..Item::default() }
    };
    let items: Vec<Item> = tokens.iter().enumerate().map(item).collect();
    let n = items.len() as u32;
    let example = |a, b| Example { a, b, gold: 0.0, cluster: a, half: None };
    let examples = if kind == TaskKind::Similarity {
        (0..n).flat_map(|a| (a + 1..n).map(move |b| example(a, b))).collect()
    } else {
        (0..n).map(|a| example(a, a)).collect()
    };
    Prepared { kind, item_half: vec![0; items.len()], items, examples, probe: None }
}

/// What means and donors come from where they don't come from the task.
fn elsewhere() -> Prepared {
    prepared(TaskKind::Similarity, &ELSEWHERE)
}

fn plan(info: &ModelInfo, prepared: &[Prepared]) -> Plan {
    let units = units(info);
    let (mut ablations, mut sweeps) = (Vec::new(), Vec::new());
    for (_, method, source) in methods() {
        for (u, map) in (0u32..).zip(&units) {
            let ablation = ablations.len() as u32;
            ablations.push(PlannedAblation {
                method,
                unit: map.kind,
                sources: vec![source.clone(); prepared.len()],
            });
            let greedy = SweepKind::Greedy { steps: map.len() as u32 - 1, objective: 0 };
            for (kind, chunk) in [(SweepKind::Single, 4), (SweepKind::Pairs, 40), (greedy, 5)] {
                sweeps.push(PlannedSweep { units: u, ..sweep(kind, ablation, prepared.len(), chunk) });
            }
        }
    }
    let planned = |p: &Prepared| task(p, vec![batch(p, &[0, 3]), batch(p, &[1, 2, 4])]);
    let other = elsewhere();
    Plan {
        tasks: prepared.iter().map(planned).collect(),
        ablations,
        units,
        references: vec![PlannedReference {
            prepared: String::new(),
            items: 3,
            examples: 0,
            batches: vec![batch(&other, &[0, 1]), batch(&other, &[2])],
        }],
        sweeps,
        ..of_heads(info)
    }
}

/// The greedy bases of a kind of unit: what is removed before the candidates of a round.
fn bases(map: &UnitMap) -> Vec<Vec<UnitIx>> {
    let n = map.len() as u32;
    let base = |units: &[u32]| units.iter().map(|&u| UnitIx(u % n)).collect::<Vec<_>>();
    match map.kind {
        UnitKind::Head => vec![base(&[9, 1, 4]), base(&[0, 1, 2, 3, 4, 5, 13])],
        UnitKind::KvGroup => vec![base(&[n - 1, 0])],
        UnitKind::Layer | UnitKind::Set => vec![base(&[1])],
    }
}

/// Every round to compare: (sweep, round, its list).
fn rounds(plan: &Plan) -> Vec<(u32, u32, Vec<UnitIx>)> {
    let mut out = Vec::new();
    for (at, sweep) in (0u32..).zip(&plan.sweeps) {
        match sweep.kind {
            SweepKind::Greedy { .. } => {
                let each = bases(plan.units(at)).into_iter();
                out.extend(each.map(|base| (at, base.len() as u32, base)));
            }
            _ => out.push((at, 0, Vec::new())),
        }
    }
    out
}

/// Whether the subset at `rank` is compared: of the many pairs of heads, some.
fn asked(plan: &Plan, sweep: u32, rank: u64) -> bool {
    let many = plan.round_subsets(sweep, 0) > 100;
    !many || rank.is_multiple_of(19)
}

fn heads(subset: &[HeadIx]) -> Vec<(u32, u32)> {
    subset.iter().map(|h| (h.0 / HEADS, h.0 % HEADS)).collect()
}

/// Subsets of every round of `plan` that are compared; and what heads' deltas are from: nothing removed, and the bases alone.
fn subsets(plan: &Plan) -> BTreeSet<Vec<HeadIx>> {
    let mut out = BTreeSet::new();
    for (sweep, round, list) in rounds(plan) {
        if plan.units(sweep).kind == UnitKind::Head {
            out.insert(plan.units(sweep).union(&list));
        }
        let space = plan.space(sweep, &list);
        for rank in (0..plan.round_subsets(sweep, round)).filter(|&r| asked(plan, sweep, r)) {
            out.insert(plan.removed(sweep, &space, rank).unwrap());
        }
    }
    out
}

/// An engine beside the reference's answer.
struct Compared {
    engine: Engine,
    plan: Arc<Plan>,
    answer: Answer,
    /// The reference's column of each task.
    columns: &'static [&'static str],
}

fn compared(path: &Path, kind: Kind) -> Compared {
    let answer = serde_json::from_slice(&std::fs::read(path.with_extension("json")).unwrap()).unwrap();
    let (info, model) = load(path, kind);
    let (kinds, columns): (&[TaskKind], &[&str]) = if info.causal() {
        (&[TaskKind::LanguageModeling, TaskKind::LogitDifference], &["nll", "logit_diff"])
    } else {
        (&[TaskKind::Similarity], &["cosine"])
    };
    let mut data: Vec<Prepared> = kinds.iter().map(|&k| prepared(k, &ITEMS)).collect();
    let plan = Arc::new(plan(&info, &data));
    data.push(elsewhere());
    let engine = Engine::new(Arc::new(SharedModel::new(model)), Arc::clone(&plan), Arc::new(data));
    Compared { engine, plan, answer, columns }
}

/// Deviations of every score, by method and unit.
fn check(path: &Path, subsets: &[Vec<HeadIx>]) -> BTreeMap<(String, &'static str), Worst> {
    let Compared { mut engine, plan, answer, columns } = compared(path, Kind::Double);
    let mut worst: BTreeMap<_, Worst> = BTreeMap::new();
    for (sweep, round, list) in rounds(&plan) {
        let ablation = plan.sweeps[sweep as usize].ablation as usize;
        let method = methods()[ablation / KINDS.len()].0.to_owned();
        let space = plan.space(sweep, &list);
        for chunk in 0..plan.round_chunks(sweep, round) {
            let scores = engine.run(sweep, round, &list, chunk, &AtomicBool::new(false)).unwrap();
            for (i, rank) in plan.chunk_ranks(sweep, round, chunk).enumerate() {
                if !asked(&plan, sweep, rank) {
                    continue;
                }
                let subset = plan.removed(sweep, &space, rank).unwrap();
                let at = subsets.iter().position(|s| *s == subset).unwrap();
                let slot = worst.entry((method.clone(), plan.units(sweep).kind.name())).or_default();
                for (block, column) in scores.tasks.iter().zip(columns) {
                    let want = &answer[&method][*column][at];
                    slot.see_all(block.column(i, 0), want);
                }
            }
        }
    }
    worst
}

/// How far every head's delta by the mean is off in a narrower format, alone and given a base: all of a task together, as one vector,
/// relative to its length.
fn narrowed(path: &Path, kind: Kind, subsets: &[Vec<HeadIx>]) -> Worst {
    let Compared { mut engine, plan, answer, columns } = compared(path, kind);
    let stop = AtomicBool::new(false);
    // The first unit of each method is the head.
    let ablation = (methods().iter().position(|m| m.0 == "mean").unwrap() * KINDS.len()) as u32;
    let tasks: Vec<u32> = (0..columns.len() as u32).collect();
    let place = |subset: &[HeadIx]| subsets.iter().position(|s| s == subset).unwrap();
    let mut worst = Worst::default();
    for (sweep, round, list) in rounds(&plan) {
        let planned = &plan.sweeps[sweep as usize];
        // With a whole layer gone BERT's cosines are all but the same, and what is left of a delta is rounding.
        if planned.ablation != ablation || planned.kind == SweepKind::Pairs || list.len() > 3 {
            continue;
        }
        let base = plan.units(sweep).union(&list);
        let nothing = [Intervention::default()];
        let none = engine.run_interventions(ablation, &base, &nothing, &tasks, Scope::All, &stop).unwrap();
        let (space, begins) = (plan.space(sweep, &list), place(&base));
        // By task: Σ (Δ − Δref)² and Σ Δref².
        let mut sums = vec![(0f64, 0f64); columns.len()];
        for chunk in 0..plan.round_chunks(sweep, round) {
            let scores = engine.run(sweep, round, &list, chunk, &stop).unwrap();
            for (i, rank) in plan.chunk_ranks(sweep, round, chunk).enumerate() {
                let at = place(&plan.removed(sweep, &space, rank).unwrap());
                worst.cases += 1;
                for (t, (off, length)) in sums.iter_mut().enumerate() {
                    let (got, without) = (scores.tasks[t].column(i, 0), none.tasks[t].column(0, 0));
                    let want = &answer["mean"][columns[t]];
                    assert_eq!((got.len(), without.len()), (want[at].len(), want[at].len()));
                    for (e, got) in got.iter().enumerate() {
                        let delta = want[at][e] - want[begins][e];
                        *off += (got - without[e] - delta).powi(2);
                        *length += delta * delta;
                    }
                }
            }
        }
        for (off, length) in sums {
            worst.see_off(off.sqrt(), length.sqrt());
        }
    }
    worst
}

#[test]
fn every_kind_of_ablation_and_unit_equals_transformers() {
    let folder = tempfile::tempdir().unwrap();
    // KV groups of these models have 1 or 3 heads: all subsets of both are asked of every model.
    let info = |kv: u32| -> ModelInfo {
        serde_json::from_value(json!({"arch": "llama", "title": "", "weights_sha256": "", "layers": 3, "n_heads": HEADS,
            "heads": ablate_common::head::HeadMap::single_stream(3, HEADS), "n_kv_heads": kv, "head_dim": 2, "d_model": 8,
            "d_ff": 8, "vocab": 61, "context": 24, "rope_theta": null, "norm_eps": 1e-5, "tied": true}))
        .unwrap()
    };
    let task = prepared(TaskKind::Similarity, &ITEMS);
    let mut all = subsets(&plan(&info(2), std::slice::from_ref(&task)));
    all.extend(subsets(&plan(&info(HEADS), std::slice::from_ref(&task))));
    let all: Vec<Vec<HeadIx>> = all.into_iter().collect();
    let targets: Vec<Vec<u32>> =
        ITEMS.iter().enumerate().map(|(i, t)| (0..t.len()).map(|p| target(i, p)).collect()).collect();
    let told: BTreeMap<&str, _> = methods().iter().map(|m| (m.0, told(m))).collect();
    let job = json!({"items": ITEMS, "targets": targets, "foils": FOILS, "cases": CASES, "methods": told,
        "subsets": all.iter().map(|s| heads(s)).collect::<Vec<_>>()});
    let question = folder.path().join("job.json");
    std::fs::write(&question, job.to_string()).unwrap();
    let made = folder.path().join("made");
    script("kinds.py", &[&question, &made]).unwrap();
    let mut failed = Vec::new();
    for case in CASES {
        let worst = check(&made.join(case), &all);
        assert_eq!(worst.len(), methods().len() * KINDS.len());
        for (method, ..) in methods() {
            let of = |unit: &'static str| worst[&(method.to_owned(), unit)].rel;
            let shown: Vec<String> =
                KINDS.iter().map(|k| format!("{} {:.1e}", k.plural(), of(k.name()))).collect();
            println!("{case:10} {method:24} {}", shown.join(", "));
        }
        for ((method, unit), worst) in worst {
            let check = format!("scores of each {unit}, pairs, on a base, f64: {method}");
            if !proved(&format!("tiny {case}"), &check, worst, LIMIT) {
                failed.push((case, method, unit));
            }
        }
    }
    for case in NARROWED {
        for (kind, format, limit) in NARROW {
            let worst = narrowed(&made.join(case), kind, &all);
            println!("{case:10} deltas in {format}: off by {:.1e} of their length", worst.rel);
            // Each head alone, and each that isn't in the base with it.
            assert_eq!(worst.cases, 18 + 15);
            let check = format!("deltas of every head, given a base, mean, as vectors, {format}");
            if !proved(&format!("tiny {case}"), &check, worst, limit) {
                failed.push((case, check, format));
            }
        }
    }
    assert!(failed.is_empty(), "too far from transformers: {failed:?}");
}

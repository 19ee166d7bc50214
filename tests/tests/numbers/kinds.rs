//! Every kind of ablation on every kind of unit against Hugging Face transformers in f64, on tiny random models:
//! each unit alone, pairs, and a unit on top of a greedy sweep's base.
#![allow(clippy::unwrap_used, reason = "tests")]

use super::plans::{batch, load, of_heads, sweep, task};
use ablate_common::head::{Head, HeadIx, Stream};
use ablate_common::model::ModelInfo;
use ablate_common::plan::{
    Ablation, Donors, Plan, PlannedAblation, PlannedReference, PlannedSweep, Pool, Source, SweepKind,
};
use ablate_common::task::{Example, Item, Prepared, Scored, TaskKind};
use ablate_common::units::{HeadSet, UnitIx, UnitKind, UnitMap};
use ablate_tests::proof::{Worst, proved};
use ablate_tests::reference::script;
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

/// Subsets of every round of `plan` that are compared.
fn subsets(plan: &Plan) -> BTreeSet<Vec<HeadIx>> {
    let mut out = BTreeSet::new();
    for (sweep, round, list) in rounds(plan) {
        let space = plan.space(sweep, &list);
        for rank in (0..plan.round_subsets(sweep, round)).filter(|&r| asked(plan, sweep, r)) {
            out.insert(plan.removed(sweep, &space, rank).unwrap());
        }
    }
    out
}

/// Deviations of every score, by method and unit.
fn check(path: &Path, subsets: &[Vec<HeadIx>]) -> BTreeMap<(String, &'static str), Worst> {
    let answer: Answer =
        serde_json::from_slice(&std::fs::read(path.with_extension("json")).unwrap()).unwrap();
    let (info, model) = load(path, Kind::Double);
    let (kinds, columns): (&[TaskKind], &[&str]) = if info.causal() {
        (&[TaskKind::LanguageModeling, TaskKind::LogitDifference], &["nll", "logit_diff"])
    } else {
        (&[TaskKind::Similarity], &["cosine"])
    };
    let mut data: Vec<Prepared> = kinds.iter().map(|&k| prepared(k, &ITEMS)).collect();
    let plan = Arc::new(plan(&info, &data));
    data.push(elsewhere());
    let mut engine = Engine::new(Arc::new(SharedModel::new(model)), Arc::clone(&plan), Arc::new(data));
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
    assert!(failed.is_empty(), "above {LIMIT:e}: {failed:?}");
}

//! Units other than heads on the three streams of tiny encoder-decoders: KV groups, layers of the encoder, of the decoder and of
//! its cross-attention, and sets across all three; each alone, in pairs, and on top of a greedy sweep's base.
use super::compare::{Answer, Question, ask, given, plan as heads_plan};
use crate::plans::load;
use ablate_common::head::Stream::{Cross, Decoder, Encoder};
use ablate_common::head::{Head, HeadIx, HeadMap, Stream};
use ablate_common::metric::Metric;
use ablate_common::model::ModelInfo;
use ablate_common::plan::{Ablation, Donors, Plan, PlannedAblation, PlannedSweep, Pool, Source, SweepKind};
use ablate_common::task::Scope;
use ablate_common::units::{HeadSet, UnitIx, UnitKind, UnitMap};
use ablate_tests::proof::{Worst, proved};
use ablate_worker::engine::{Engine, SharedModel};
use serde_json::json;
use std::collections::{BTreeMap, BTreeSet};
use std::sync::Arc;
use std::sync::atomic::AtomicBool;
use tch::Kind;

const HEADS: u32 = 6;
const LIMIT: f64 = 1e-9;
const KINDS: [UnitKind; 3] = [UnitKind::KvGroup, UnitKind::Layer, UnitKind::Set];
/// Cases with the layers of encoder and decoder.
const CASES: [(&str, u32, u32); 2] = [("marian", 2, 2), ("t5-gated", 1, 3)];

fn methods() -> Vec<PlannedAblation> {
    let paired = PlannedAblation {
        sources: vec![Source { reference: Some(0), donors: vec![0, 1, 2, 3, 4] }],
        ..Ablation::Resample { donors: Donors::Paired }.into()
    };
    vec![
        Ablation::Zero.into(),
        Ablation::Mean { pool: Pool::Position }.into(),
        Ablation::Scale { scale: -0.5 }.into(),
        paired,
    ]
}

fn sets() -> Vec<HeadSet> {
    let set = |name: &str, heads: &[(Stream, u32, u32)]| HeadSet {
        name: name.into(),
        heads: heads.iter().map(|&(stream, layer, head)| Head { stream, layer, head }).collect(),
    };
    vec![
        set("across", &[(Cross, 1, 5), (Encoder, 0, 3), (Decoder, 0, 1)]),
        set("cross", &[(Cross, 0, 0), (Cross, 0, 4)]),
        set("again", &[(Encoder, 0, 3), (Encoder, 0, 2), (Cross, 0, 4)]),
        set("decoder", &[(Decoder, 1, 5), (Decoder, 0, 0)]),
    ]
}

/// A model's shape, which is known before it is made.
fn shape(encoder: u32, decoder: u32) -> ModelInfo {
    let heads = HeadMap {
        streams: vec![(Encoder, encoder, HEADS), (Decoder, decoder, HEADS), (Cross, decoder, HEADS)],
    };
    serde_json::from_value(json!({"arch": "t5", "title": "", "weights_sha256": "", "layers": encoder, "n_heads": HEADS,
        "heads": heads, "n_kv_heads": HEADS, "head_dim": 2, "d_model": 8, "d_ff": 8, "vocab": 61, "context": 24,
        "rope_theta": null, "norm_eps": 1e-5, "tied": true}))
    .unwrap()
}

fn units(info: &ModelInfo) -> Vec<UnitMap> {
    KINDS.map(|kind| UnitMap::of(kind, info, &sets()).unwrap()).to_vec()
}

fn plan(info: &ModelInfo, question: &Question) -> Plan {
    let batches = [vec![2], vec![0, 1, 3, 4]];
    let mut plan = heads_plan(info, &question.prepared, Metric::Loss, &question.ablations, &batches);
    plan.units = units(info);
    (plan.ablations, plan.sweeps) = (Vec::new(), Vec::new());
    for method in &question.ablations {
        for (u, map) in (0u32..).zip(&plan.units) {
            let ablation = plan.ablations.len() as u32;
            plan.ablations.push(PlannedAblation { unit: map.kind, ..method.clone() });
            let greedy = SweepKind::Greedy { steps: map.len() as u32 - 1, objective: 0 };
            for (kind, chunk) in [(SweepKind::Single, 5), (SweepKind::Pairs, 40), (greedy, 7)] {
                plan.sweeps.push(PlannedSweep {
                    kind,
                    ablation,
                    tasks: vec![0],
                    units: u,
                    scope: Scope::All,
                    chunk,
                });
            }
        }
    }
    plan
}

/// Every round to compare: (sweep, round, what it has removed).
fn rounds(plan: &Plan) -> Vec<(u32, u32, Vec<UnitIx>)> {
    let round = |(at, sweep): (u32, &PlannedSweep)| {
        let n = plan.units(at).len() as u32;
        let base: &[u32] = match (&sweep.kind, plan.units(at).kind) {
            (SweepKind::Greedy { .. }, UnitKind::KvGroup) => &[n - 1, 0, 7],
            (SweepKind::Greedy { .. }, _) => &[n - 2, 0],
            _ => &[],
        };
        (at, base.len() as u32, base.iter().map(|&u| UnitIx(u)).collect())
    };
    (0u32..).zip(&plan.sweeps).map(round).collect()
}

/// Of the many pairs of groups some are compared.
fn asked(plan: &Plan, sweep: u32, round: u32, rank: u64) -> bool {
    plan.round_subsets(sweep, round) < 100 || rank.is_multiple_of(23)
}

/// Nothing, and every subset that is compared.
fn subsets(plan: &Plan) -> Vec<Vec<HeadIx>> {
    let mut all = BTreeSet::from([Vec::new()]);
    for (sweep, round, list) in rounds(plan) {
        let space = plan.space(sweep, &list);
        let ranks = (0..plan.round_subsets(sweep, round)).filter(|&r| asked(plan, sweep, round, r));
        all.extend(ranks.map(|r| plan.removed(sweep, &space, r).unwrap()));
    }
    all.into_iter().collect()
}

/// Deviations by method and unit.
fn compare(
    question: &Question,
    answer: &Answer,
    plan: &Arc<Plan>,
    engine: &mut Engine,
) -> BTreeMap<String, Worst> {
    let mut worst: BTreeMap<String, Worst> = BTreeMap::new();
    for (sweep, round, list) in rounds(plan) {
        let ablation = plan.sweeps[sweep as usize].ablation as usize;
        let want = &answer.scores[ablation / KINDS.len()];
        let slot = worst.entry(plan.ablations[ablation].title()).or_default();
        let space = plan.space(sweep, &list);
        for chunk in 0..plan.round_chunks(sweep, round) {
            let scores = engine.run(sweep, round, &list, chunk, &AtomicBool::new(false)).unwrap();
            for (i, rank) in plan.chunk_ranks(sweep, round, chunk).enumerate() {
                if !asked(plan, sweep, round, rank) {
                    continue;
                }
                let subset = plan.removed(sweep, &space, rank).unwrap();
                let at = question.subsets.binary_search(&subset).unwrap();
                for (c, column) in plan.tasks[0].columns().iter().enumerate() {
                    slot.see_all(scores.tasks[0].column(i, c), &want[*column][at]);
                }
            }
        }
    }
    worst
}

#[test]
fn groups_layers_and_sets_of_encoder_decoders_equal_transformers() {
    let folder = tempfile::tempdir().unwrap();
    let questions = CASES.map(|(name, encoder, decoder)| {
        let t5 = name.starts_with("t5");
        let mut question = Question {
            name: name.into(),
            path: None,
            prepared: super::tiny::prepared(if t5 { 0 } else { 60 }),
            heads: shape(encoder, decoder).heads,
            ablations: methods(),
            subsets: Vec::new(),
            decoded: Vec::new(),
            context: if t5 { 512 } else { 24 },
        };
        question.subsets = subsets(&plan(&shape(encoder, decoder), &question));
        question
    });
    let answers = ask(&questions, folder.path());
    let mut failed = Vec::new();
    for ((question, answer), (_, encoder, decoder)) in questions.iter().zip(&answers).zip(CASES) {
        let path = folder.path().join(&question.name);
        let (info, model) = load(&path, Kind::Double);
        assert_eq!(units(&info), units(&shape(encoder, decoder)), "what was asked is what the model has");
        let plan = Arc::new(plan(&info, question));
        let model = Arc::new(SharedModel::new(model));
        let mut engine = Engine::new(model, Arc::clone(&plan), given(&question.prepared));
        for (what, worst) in compare(question, answer, &plan, &mut engine) {
            println!("{:9} {what:22} {:.1e}", question.name, worst.rel);
            let check = format!("scores of units alone, in pairs, on a base, f64: {what}");
            if !proved(&format!("tiny {}", question.name), &check, worst, LIMIT) {
                failed.push((question.name.clone(), what));
            }
        }
    }
    assert!(failed.is_empty(), "above {LIMIT:e}: {failed:?}");
}

//! Random small models of odd sizes, tasks for them, and plans of every sweep.

use ablate_common::head::HeadMap;
use ablate_common::metric::Metric;
use ablate_common::model::ModelInfo;
use ablate_common::plan::{
    Ablation, Batch, Order, Plan, PlannedAblation, PlannedReference, PlannedSweep, PlannedTask, Source,
    SweepKind,
};
use ablate_common::spec::{Dtype, ModelSpec, Spec};
use ablate_common::task::{Example, Item, Prepared, Scope, Scored, TaskKind};
use ablate_common::units::{UnitIx, UnitMap};
use ablate_worker::engine::arch::{Activation, Arch, Mlp, NormKind, NormPlace, Positions};
use ablate_worker::engine::model::{Block, Feed, Model, Norm, rotary_tables};
use std::sync::Mutex;
use tch::{Device, Kind, Tensor};

pub const LAYERS: u32 = 3;
pub const HEADS: u32 = 6;
pub const VOCAB: u32 = 37;

/// A small model of "llama" or "bert".
pub fn info(arch: &str) -> ModelInfo {
    ModelInfo {
        arch: arch.into(),
        title: arch.into(),
        weights_sha256: String::new(),
        heads: HeadMap::single_stream(LAYERS, HEADS),
        layers: LAYERS,
        d_model: 20,
        n_heads: HEADS,
        n_kv_heads: if arch == "llama" { 2 } else { HEADS },
        head_dim: 4,
        d_ff: 28,
        vocab: VOCAB,
        context: 16,
        norm_eps: 1e-5,
        rope_theta: Some(1e4),
        tied: true,
        details: ablate_common::model::Details::default(),
    }
}

fn random(shape: &[i64], kind: Kind) -> Tensor {
    Tensor::randn(shape, (Kind::Double, Device::Cpu)).g_mul_scalar(0.4).to_kind(kind)
}

/// libtorch's generator is one for the process, and tests run in parallel.
static GENERATOR: Mutex<()> = Mutex::new(());

/// A model with random weights; equal arguments give equal ones.
pub fn model(arch: &str, kind: Kind, seed: i64) -> Model {
    let _alone = GENERATOR.lock().unwrap();
    tch::manual_seed(seed);
    let info = info(arch);
    let llama = arch == "llama";
    let (d, h, kv, dh, ff) = (
        i64::from(info.d_model),
        i64::from(info.n_heads),
        i64::from(info.n_kv_heads),
        i64::from(info.head_dim),
        i64::from(info.d_ff),
    );
    let norm = || Norm { weight: random(&[d], kind) + 1.0, bias: (!llama).then(|| random(&[d], kind)) };
    let bias = |n: i64| (!llama).then(|| random(&[n], kind));
    let blocks = (0..info.layers)
        .map(|_| {
            let wo = random(&[d, h * dh], kind);
            Block {
                attn_norm: norm(),
                qkv: random(&[(h + 2 * kv) * dh, d], kind),
                qkv_bias: bias((h + 2 * kv) * dh),
                qk_norm: None,
                wo_heads: wo.view([d, h, dh]).permute([1, 2, 0]).contiguous(),
                wo,
                wo_bias: bias(d),
                post_attn_norm: None,
                feed: Some(Feed {
                    norm: norm(),
                    up: random(&[if llama { 2 * ff } else { ff }, d], kind),
                    up_bias: bias(ff),
                    down: random(&[d, ff], kind),
                    down_bias: bias(d),
                    post_norm: None,
                }),
            }
        })
        .collect();
    let embed = random(&[i64::from(VOCAB), d], kind);
    let positions = if llama { Positions::Rotary { theta: 1e4 } } else { Positions::Learned };
    Model {
        arch: if llama {
            Arch {
                norm: NormKind::Rms,
                place: NormPlace::Pre,
                positions,
                mlp: Mlp { activation: Activation::Silu, gated: true },
                causal: true,
            }
        } else {
            Arch {
                norm: NormKind::Layer,
                place: NormPlace::Post,
                positions,
                mlp: Mlp { activation: Activation::Gelu, gated: false },
                causal: false,
            }
        },
        unembed: llama.then(|| embed.shallow_clone()),
        position: (!llama).then(|| random(&[16, d], kind)),
        patches: None,
        masked: None,
        decoder: None,
        classifier: None,
        embed_scale: None,
        embed_norm: (!llama).then(norm),
        embed_project: None,
        final_norm: llama.then(norm),
        rotary: rotary_tables(positions, None, 16, dh, kind, Device::Cpu),
        embed,
        blocks,
        info,
        device: Device::Cpu,
        kind,
    }
}

/// A task on six items of mixed lengths.
pub fn prepared(kind: TaskKind) -> Prepared {
    let lengths = [1u32, 7, 5, 7, 2, 6];
    let items: Vec<Item> = lengths
        .iter()
        .enumerate()
        .map(|(i, &n)| {
            let tokens: Vec<u32> = (0..n).map(|t| (i as u32 * 11 + t * 7 + t * t) % VOCAB).collect();
            let scored = match kind {
                TaskKind::Similarity => Vec::new(),
                TaskKind::Ioi => vec![Scored { position: n - 1, target: 3, foil: 5 + i as u32 }],
                _ => (0..n).map(|t| Scored { position: t, target: (t * 5 + 1) % VOCAB, foil: 0 }).collect(),
            };
            Item { tokens, scored, ..Item::default() }
        })
        .collect();
    let n = items.len() as u32;
    let item_half: Vec<u8> = (0..n).map(|i| (i % 2) as u8).collect();
    let examples = if kind == TaskKind::Similarity {
        (0..n)
            .flat_map(|a| (a + 1..n).map(move |b| (a, b)))
            .map(|(a, b)| Example {
                a,
                b,
                gold: f64::from(a * b),
                cluster: a,
                half: (a % 2 == b % 2).then_some((a % 2) as u8),
            })
            .collect()
    } else {
        (0..n).map(|a| Example { a, b: a, gold: 0.0, cluster: a, half: Some((a % 2) as u8) }).collect()
    };
    Prepared { kind, items, item_half, examples, probe: None }
}

/// What a case removes and replaces it by.
#[derive(Clone)]
pub struct Case {
    pub ablation: Ablation,
    pub units: UnitMap,
    /// Items that b is measured on, where they aren't the task's own.
    pub reference: Option<Prepared>,
    /// Resample: the donor of each item.
    pub donors: Vec<u32>,
}

impl Case {
    /// Heads, with b from the task's own items.
    pub fn heads(ablation: Ablation) -> Self {
        let units = UnitMap::heads(&info("llama").heads);
        Self { ablation, units, reference: None, donors: Vec::new() }
    }
}

/// What is already removed where pairs are measured given a base: units in two layers where there are enough.
fn given(n: u32) -> Vec<UnitIx> {
    if n > 4 { vec![UnitIx(1), UnitIx(n / 2)] } else { vec![UnitIx(n / 2)] }
}

/// A plan of every sweep of a case.
pub fn plan(arch: &str, kind: TaskKind, prepared: &Prepared, case: &Case) -> Plan {
    let (ablation, n) = (case.ablation, case.units.len() as u32);
    let steps = n * 5 / 6;
    let source = Source { reference: case.reference.as_ref().map(|_| 0), donors: case.donors.clone() };
    let reference = |p: &Prepared| {
        let one = |i: u32| Batch { items: vec![i], len: p.items[i as usize].tokens.len() as u32 };
        let n = p.items.len() as u32;
        PlannedReference {
            prepared: String::new(),
            items: n,
            examples: 0,
            batches: (0..n).map(one).collect(),
        }
    };
    let batch = |items: &[u32]| Batch {
        items: items.to_vec(),
        len: items.iter().map(|&i| prepared.items[i as usize].tokens.len() as u32).max().unwrap(),
    };
    let sweep =
        |kind, scope, chunk| PlannedSweep { kind, ablation: 0, tasks: vec![0], units: 0, scope, chunk };
    Plan {
        engine: ablate_common::ENGINE_VERSION,
        spec: Spec {
            name: "t".into(),
            seed: 0,
            model: ModelSpec { source: String::new(), dtype: Dtype::F64, sha256: None },
            tasks: Vec::new(),
            ablations: vec![ablation.into()],
            sweeps: Vec::new(),
        },
        model: info(arch),
        tasks: vec![PlannedTask {
            name: "t".into(),
            kind,
            metric: Metric::of(kind)[0],
            prepared: String::new(),
            items: prepared.items.len() as u32,
            examples: prepared.examples.len() as u32,
            all: vec![batch(&[0, 4]), batch(&[2, 5, 1, 3])],
            select: vec![batch(&[0, 4]), batch(&[2])],
        }],
        ablations: vec![PlannedAblation { method: ablation, unit: case.units.kind, sources: vec![source] }],
        units: vec![case.units.clone()],
        references: case.reference.iter().map(reference).collect(),
        sweeps: vec![
            sweep(SweepKind::Reference, Scope::All, 2),
            sweep(SweepKind::Single, Scope::All, 7),
            sweep(SweepKind::Pairs, Scope::All, 40),
            sweep(SweepKind::Greedy { steps, objective: 0 }, Scope::Select, 5),
            sweep(SweepKind::Path { greedy: 3, order: Order::Greedy }, Scope::All, 4),
            sweep(SweepKind::Random { orders: 2, seed: 5, points: vec![1, n / 2, n] }, Scope::All, 6),
            sweep(
                SweepKind::Matched { greedy: 3, orders: 2, seed: 5, points: vec![1, steps] },
                Scope::All,
                4,
            ),
            sweep(SweepKind::Conditional { base: given(n) }, Scope::All, 9),
        ],
    }
}

//! A Llama of random weights, made on the device: for shapes whose files aren't at hand.

use crate::cases::Shape;
use ablate_common::head::HeadMap;
use ablate_common::metric::Metric;
use ablate_common::model::{Details, ModelInfo};
use ablate_common::plan::{Ablation, Batch, Plan, PlannedSweep, PlannedTask, Pool, SweepKind};
use ablate_common::spec::{Dtype, ModelSpec, Spec};
use ablate_common::task::{Example, Item, Prepared, Scope, Scored, TaskKind};
use ablate_common::units::UnitMap;
use ablate_worker::engine::arch::{Activation, Arch, Mlp, NormKind, NormPlace, Positions};
use ablate_worker::engine::model::{Block, Feed, Model, Norm, rotary_tables};
use tch::{Device, Kind, Tensor};

/// Subsets of a chunk, which go through the model together.
const CHUNK: u32 = 16;
const THETA: f64 = 5e5;

fn info(shape: Shape, context: u32) -> ModelInfo {
    ModelInfo {
        arch: "llama".into(),
        title: String::new(),
        weights_sha256: String::new(),
        heads: HeadMap::single_stream(shape.layers, shape.heads),
        layers: shape.layers,
        d_model: shape.d_model,
        n_heads: shape.heads,
        n_kv_heads: shape.kv_heads,
        head_dim: shape.d_model / shape.heads,
        d_ff: shape.d_ff,
        vocab: shape.vocab,
        context,
        norm_eps: 1e-5,
        rope_theta: Some(THETA),
        tied: false,
        details: Details::default(),
    }
}

/// The model; the same seed gives the same weights in every format, but for rounding.
pub fn model(shape: Shape, context: u32, kind: Kind, device: Device) -> Model {
    tch::manual_seed(8);
    let random = |size: &[i64]| Tensor::randn(size, (Kind::Float, device)).g_mul_scalar(0.02).to_kind(kind);
    let [d, h, kv, ff, vocab] =
        [shape.d_model, shape.heads, shape.kv_heads, shape.d_ff, shape.vocab].map(i64::from);
    let dh = d / h;
    let norm = || Norm { weight: random(&[d]) + 1.0, bias: None };
    let block = |_| {
        let wo = random(&[d, d]);
        Block {
            attn_norm: norm(),
            qkv: random(&[(h + 2 * kv) * dh, d]),
            qkv_bias: None,
            qk_norm: None,
            wo_heads: wo.view([d, h, dh]).permute([1, 2, 0]).contiguous(),
            wo,
            wo_bias: None,
            post_attn_norm: None,
            feed: Some(Feed {
                norm: norm(),
                up: random(&[2 * ff, d]),
                up_bias: None,
                down: random(&[d, ff]),
                down_bias: None,
                post_norm: None,
            }),
        }
    };
    let positions = Positions::Rotary { theta: THETA };
    Model {
        arch: Arch {
            norm: NormKind::Rms,
            place: NormPlace::Pre,
            positions,
            mlp: Mlp { activation: Activation::Silu, gated: true },
            causal: true,
        },
        blocks: (0..shape.layers).map(block).collect(),
        unembed: Some(random(&[vocab, d])),
        embed: random(&[vocab, d]),
        final_norm: Some(norm()),
        rotary: rotary_tables(positions, None, i64::from(context), dh, kind, device),
        position: None,
        patches: None,
        masked: None,
        decoder: None,
        classifier: None,
        embed_scale: None,
        embed_norm: None,
        embed_project: None,
        info: info(shape, context),
        device,
        kind,
    }
}

/// Random sequences, all of whose positions are scored, as one batch.
pub fn task(shape: Shape, sequences: u32, tokens: u32) -> Prepared {
    let token = |s: u32, t: u32| (s.wrapping_mul(2_654_435_761) ^ t.wrapping_mul(40_503)) % shape.vocab;
    let item = |s: u32| Item {
        tokens: (0..tokens).map(|t| token(s, t)).collect(),
        scored: (0..tokens).map(|t| Scored { position: t, target: token(s, t + 1), foil: 0 }).collect(),
        ..Item::default()
    };
    Prepared {
        kind: TaskKind::LanguageModeling,
        items: (0..sequences).map(item).collect(),
        item_half: vec![0; sequences as usize],
        examples: (0..sequences).map(|a| Example { a, b: a, gold: 0.0, cluster: a, half: None }).collect(),
        probe: None,
    }
}

/// Reference, single heads and pairs, by mean.
pub fn plan(shape: Shape, sequences: u32, tokens: u32, dtype: Dtype) -> Plan {
    let (info, ablation) = (info(shape, tokens), Ablation::Mean { pool: Pool::Tokens });
    let sweep =
        |kind, chunk| PlannedSweep { kind, ablation: 0, tasks: vec![0], units: 0, scope: Scope::All, chunk };
    Plan {
        engine: ablate_common::ENGINE_VERSION,
        spec: Spec {
            name: "shape".into(),
            seed: 0,
            model: ModelSpec { source: String::new(), dtype, sha256: None },
            tasks: Vec::new(),
            ablations: vec![ablation.into()],
            sweeps: Vec::new(),
        },
        tasks: vec![PlannedTask {
            name: "t".into(),
            kind: TaskKind::LanguageModeling,
            metric: Metric::Loss,
            prepared: String::new(),
            items: sequences,
            examples: sequences,
            all: vec![Batch { items: (0..sequences).collect(), len: tokens }],
            select: Vec::new(),
        }],
        ablations: vec![ablation.into()],
        units: vec![UnitMap::heads(&info.heads)],
        references: Vec::new(),
        sweeps: vec![
            sweep(SweepKind::Reference, 2),
            sweep(SweepKind::Single, CHUNK),
            sweep(SweepKind::Pairs, CHUNK),
        ],
        model: info,
    }
}

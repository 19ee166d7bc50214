//! How much of the machine's matrix-product peak the engine reaches, on random weights of a real
//! model's shape: `cargo run --release -p ablate-worker --example throughput -- [threads]`.
#![allow(clippy::unwrap_used, clippy::print_stdout, reason = "an example")]

use ablate_common::head::HeadMap;
use ablate_common::model::ModelInfo;
use ablate_common::plan::Batch;
use ablate_common::task::{Example, Item, Prepared, Scored, TaskKind};
use ablate_worker::engine::arch::{Activation, Arch, Mlp, NormKind, NormPlace, Positions};
use ablate_worker::engine::base::{BaseSet, DeviceBatch};
use ablate_worker::engine::model::{Block, Feed, Model, Norm, rotary_tables};
use ablate_worker::engine::pass::Pass;
use ablate_worker::engine::trie::{Cut, Intervention, Trie};
use std::sync::atomic::AtomicBool;
use std::time::Instant;
use tch::{Device, Kind, Tensor};

fn model(kind: Kind) -> Model {
    let info = ModelInfo {
        arch: "llama".into(),
        title: String::new(),
        weights_sha256: String::new(),
        heads: HeadMap::single_stream(30, 9),
        layers: 30,
        d_model: 576,
        n_heads: 9,
        n_kv_heads: 3,
        head_dim: 64,
        d_ff: 1536,
        vocab: 4096,
        context: 256,
        norm_eps: 1e-5,
        rope_theta: Some(1e5),
        tied: true,
        details: ablate_common::model::Details::default(),
    };
    let r = |shape: &[i64]| Tensor::randn(shape, (Kind::Float, Device::Cpu)).g_mul_scalar(0.02).to_kind(kind);
    let norm = || Norm { weight: r(&[576]) + 1.0, bias: None };
    let blocks = (0..30)
        .map(|_| {
            let wo = r(&[576, 576]);
            Block {
                attn_norm: norm(),
                qkv: r(&[15 * 64, 576]),
                qkv_bias: None,
                qk_norm: None,
                wo_heads: wo.view([576, 9, 64]).permute([1, 2, 0]).contiguous(),
                wo,
                wo_bias: None,
                post_attn_norm: None,
                feed: Some(Feed {
                    norm: norm(),
                    up: r(&[3072, 576]),
                    up_bias: None,
                    down: r(&[576, 1536]),
                    down_bias: None,
                    post_norm: None,
                }),
            }
        })
        .collect();
    let positions = Positions::Rotary { theta: 1e5 };
    let embed = r(&[4096, 576]);
    Model {
        arch: Arch {
            norm: NormKind::Rms,
            place: NormPlace::Pre,
            positions,
            mlp: Mlp { activation: Activation::Silu, gated: true },
            causal: true,
        },
        unembed: Some(embed.shallow_clone()),
        embed,
        position: None,
        patches: None,
        masked: None,
        decoder: None,
        classifier: None,
        embed_scale: None,
        embed_norm: None,
        embed_project: None,
        blocks,
        final_norm: Some(norm()),
        rotary: rotary_tables(positions, None, 256, 64, kind, Device::Cpu),
        info,
        device: Device::Cpu,
        kind,
    }
}

fn main() {
    let threads: i32 = std::env::args().nth(1).map_or(2, |t| t.parse().unwrap());
    tch::set_num_threads(threads);
    tch::no_grad(|| {
        for kind in [Kind::Float, Kind::BFloat16] {
            let peak = {
                let (a, b) = (
                    Tensor::randn([4096, 576], (kind, Device::Cpu)),
                    Tensor::randn([3072, 576], (kind, Device::Cpu)),
                );
                let _ = a.linear(&b, None::<&Tensor>);
                let t = Instant::now();
                for _ in 0..20 {
                    let _ = a.linear(&b, None::<&Tensor>);
                }
                20.0 * 2.0 * 4096.0 * 576.0 * 3072.0 / t.elapsed().as_secs_f64()
            };
            let m = model(kind);
            for (examples, len, subsets) in [(4u32, 64u32, 32usize), (32, 16, 32), (8, 64, 64), (8, 64, 8)] {
                let prepared = Prepared {
                    kind: TaskKind::Ioi,
                    items: (0..examples)
                        .map(|i| Item {
                            tokens: (0..len).map(|t| (i * 7 + t) % 4096).collect(),
                            scored: vec![Scored { position: len - 1, target: 1, foil: 2 }],
                            ..Item::default()
                        })
                        .collect(),
                    item_half: vec![0; examples as usize],
                    examples: (0..examples)
                        .map(|a| Example { a, b: a, gold: 0.0, cluster: a, half: Some(0) })
                        .collect(),
                    probe: None,
                };
                let batch = DeviceBatch::new(&m, &prepared, &Batch { items: (0..examples).collect(), len });
                let mut set = BaseSet::empty(&m, 1);
                let (base, views) = set.state(&m, 0, &batch);
                // Pairs of head (5, 0) with the heads after it.
                let cuts: Vec<Intervention> = (0..subsets as u32)
                    .map(|k| Intervention {
                        stages: vec![
                            (5, vec![Cut { head: 0, keep: 0.0 }]),
                            (6 + k as usize / 9, vec![Cut { head: k % 9, keep: 0.0 }]),
                        ],
                    })
                    .collect();
                let trie = Trie::new(&cuts);
                let pass = Pass { model: &m, batch: &batch, base, views, replacement: None };
                pass.run(&trie, &AtomicBool::new(false)).unwrap();
                let t = Instant::now();
                pass.run(&trie, &AtomicBool::new(false)).unwrap();
                let s = t.elapsed().as_secs_f64();
                let per_layer =
                    2.0 * f64::from(examples * len) * (576.0 * 960.0 + 576.0 * 576.0 + 3.0 * 576.0 * 1536.0);
                let flops = trie.stage_rows(30) as f64 * per_layer;
                println!(
                    "{kind:?} {threads} threads, {examples} x {len}, {subsets} subsets: {s:.3} s, {:.0} of {:.0} GFLOP/s = {:.0} %, {:.1} subsets/s",
                    flops / s / 1e9,
                    peak / 1e9,
                    100.0 * flops / s / peak,
                    subsets as f64 / s
                );
            }
        }
    });
}

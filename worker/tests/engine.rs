//! The engine against a plain loop of whole forward passes with masked z, on random small models of
//! odd sizes, in f64. The loop shares the layers' arithmetic with the engine but none of its sharing:
//! no trie, no base state, no sliced weights, one item at a time, no padding.
#![allow(clippy::unwrap_used, reason = "tests")]

use ablate_common::head::{Head, HeadIx, HeadMap, Stream};
use ablate_common::metric::Metric;
use ablate_common::model::ModelInfo;
use ablate_common::plan::{
    Ablation, Batch, Donors, Order, Plan, PlannedAblation, PlannedReference, PlannedSweep, PlannedTask, Pool,
    Source, SweepKind,
};
use ablate_common::scores::TaskScores;
use ablate_common::spec::{Dtype, ModelSpec, Spec};
use ablate_common::task::{Example, Item, Prepared, Scope, Scored, TaskKind};
use ablate_common::units::{HeadSet, UnitIx, UnitKind, UnitMap};
use ablate_worker::engine::arch::{Activation, Arch, Mlp, NormKind, NormPlace, Positions};
use ablate_worker::engine::model::{BaseCut, Block, Feed, Model, Norm, rotary_tables};
use ablate_worker::engine::score::host;
use ablate_worker::engine::trie::{Cut, Intervention};
use ablate_worker::engine::{Engine, SharedModel};
use std::sync::atomic::AtomicBool;
use std::sync::{Arc, Mutex};
use tch::{Device, Kind, Tensor};

const LAYERS: u32 = 3;
const HEADS: u32 = 6;
const VOCAB: u32 = 37;

fn info(arch: &str) -> ModelInfo {
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

fn model(arch: &str, kind: Kind, seed: i64) -> Model {
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

fn prepared(kind: TaskKind) -> Prepared {
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
struct Case {
    ablation: Ablation,
    units: UnitMap,
    /// Items that b is measured on, where they aren't the task's own.
    reference: Option<Prepared>,
    /// Resample: the donor of each item.
    donors: Vec<u32>,
}

impl Case {
    fn heads(ablation: Ablation) -> Self {
        let units = UnitMap::heads(&info("llama").heads);
        Self { ablation, units, reference: None, donors: Vec::new() }
    }
}

/// What is already removed where pairs are measured given a base: units in two layers where there are enough.
fn given(n: u32) -> Vec<UnitIx> {
    if n > 4 { vec![UnitIx(1), UnitIx(n / 2)] } else { vec![UnitIx(n / 2)] }
}

fn plan(arch: &str, kind: TaskKind, prepared: &Prepared, case: &Case) -> Plan {
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
            sweep(SweepKind::Conditional { base: given(n) }, Scope::All, 9),
        ],
    }
}

/// The plain loop: scores of `subset` on every example of `scope`, column by column.
struct Loop<'a> {
    model: &'a Model,
    prepared: &'a Prepared,
    case: &'a Case,
}

impl Loop<'_> {
    /// z of each layer (unablated) and the final residual stream of one item; `b [len, heads, head_dim]` of
    /// each layer.
    fn forward(&self, item: &Item, subset: &[HeadIx], b: Option<&[Tensor]>) -> (Vec<Tensor>, Tensor) {
        let m = self.model;
        let tokens: Vec<i64> = item.tokens.iter().map(|&t| i64::from(t)).collect();
        let len = tokens.len() as i64;
        let mut x = m.embed(&Tensor::from_slice(&tokens).view([1, len]));
        let mut zs = Vec::new();
        for (l, block) in m.blocks.iter().enumerate() {
            let view = m.view(l, &BaseCut::Removed(Vec::new(), None));
            let (z, _) = m.attention(l, &view, &x, len, None);
            let (h, dh) = (i64::from(HEADS), m.head_dim());
            let new = z.view([len, h, dh]).copy();
            for ix in subset.iter().filter(|ix| ix.0 / HEADS == l as u32) {
                let head = i64::from(ix.0 % HEADS);
                let mut slot = new.select(1, head);
                match self.case.ablation {
                    Ablation::Zero => drop(slot.zero_()),
                    Ablation::Scale { scale } => drop(slot.g_mul_scalar_(scale)),
                    Ablation::Mean { .. } | Ablation::Resample { .. } | Ablation::Optimal { .. } => {
                        slot.copy_(&b.unwrap()[l].select(1, head));
                    }
                }
            }
            let out = new.view([len, h * dh]).linear(&block.wo, block.wo_bias.as_ref());
            x = m.after_attention(l, &x, &out);
            zs.push(z.view([len, h, dh]));
        }
        (zs, m.finish(&x))
    }

    /// b of every item, by layer.
    fn replacements(&self) -> Option<Vec<Vec<Tensor>>> {
        let source = self.case.reference.as_ref().unwrap_or(self.prepared);
        let each: Vec<Vec<Tensor>> = source.items.iter().map(|i| self.forward(i, &[], None).0).collect();
        let pool = match self.case.ablation {
            // Fitted constants aren't asked of this loop.
            Ablation::Zero | Ablation::Scale { .. } | Ablation::Optimal { .. } => return None,
            Ablation::Mean { pool } => pool,
            Ablation::Resample { .. } => {
                let of = |(item, &donor): (&Item, &u32)| {
                    let last = source.items[donor as usize].tokens.len() - 1;
                    let at: Vec<i64> = (0..item.tokens.len()).map(|p| p.min(last) as i64).collect();
                    each[donor as usize].iter().map(|z| z.index_select(0, &Tensor::from_slice(&at))).collect()
                };
                return Some(self.prepared.items.iter().zip(&self.case.donors).map(of).collect());
            }
        };
        let means: Vec<Tensor> = (0..LAYERS as usize)
            .map(|l| match pool {
                Pool::Tokens => Tensor::cat(&each.iter().map(|z| &z[l]).collect::<Vec<_>>(), 0).mean_dim(
                    [0i64].as_slice(),
                    false,
                    None::<Kind>,
                ),
                Pool::Position => {
                    let longest = each.iter().map(|z| z[l].size()[0]).max().unwrap();
                    let at = |t: i64| {
                        let here: Vec<Tensor> =
                            each.iter().filter(|z| z[l].size()[0] > t).map(|z| z[l].get(t)).collect();
                        Tensor::stack(&here, 0).mean_dim([0i64].as_slice(), false, None::<Kind>)
                    };
                    Tensor::stack(&(0..longest).map(at).collect::<Vec<_>>(), 0)
                }
            })
            .collect();
        let of = |item: &Item| -> Vec<Tensor> {
            let len = item.tokens.len() as i64;
            let one = |m: &Tensor| match pool {
                Pool::Tokens => m.unsqueeze(0).expand([len, -1, -1], false),
                Pool::Position => m.narrow(0, 0, len),
            };
            means.iter().map(one).collect()
        };
        Some(self.prepared.items.iter().map(of).collect())
    }

    fn scores(&self, subset: &[HeadIx], scope: Scope, b: Option<&[Vec<Tensor>]>) -> Vec<Vec<f64>> {
        let all = self.prepared.items.iter().enumerate();
        let finals: Vec<Tensor> =
            all.map(|(i, item)| self.forward(item, subset, b.map(|b| b[i].as_slice())).1).collect();
        let examples = self.prepared.examples_in(scope);
        let mut columns = vec![Vec::new(); self.prepared.kind.columns().len()];
        for e in examples {
            let e = &self.prepared.examples[e as usize];
            let x = &finals[e.a as usize];
            match self.prepared.kind {
                TaskKind::Similarity => {
                    let pool = |x: &Tensor| x.mean_dim([0i64].as_slice(), false, None::<Kind>);
                    let (u, v) = (pool(x), pool(&finals[e.b as usize]));
                    columns[0].push(host(&(u.dot(&v) / (u.norm() * v.norm())))[0]);
                }
                kind => {
                    let logits = x.matmul(&self.model.unembed.as_ref().unwrap().transpose(0, 1));
                    let p = logits.log_softmax(-1, None::<Kind>);
                    let (mut nll, mut correct) = (0.0, 0.0);
                    for s in &self.prepared.items[e.a as usize].scored {
                        let (t, target) = (i64::from(s.position), i64::from(s.target));
                        if kind == TaskKind::Ioi {
                            let diff = logits.double_value(&[t, target])
                                - logits.double_value(&[t, i64::from(s.foil)]);
                            columns[0].push(diff);
                        }
                        nll -= p.double_value(&[t, target]);
                        correct +=
                            f64::from(u8::from(logits.get(t).argmax(0, false).int64_value(&[]) == target));
                    }
                    if kind != TaskKind::Ioi {
                        columns[0].push(nll);
                        columns[1].push(correct);
                    }
                }
            }
        }
        columns
    }
}

fn assert_close(block: &TaskScores, at: usize, expected: &[Vec<f64>], what: &str) {
    for (c, column) in expected.iter().enumerate() {
        for (k, (&want, &got)) in column.iter().zip(block.column(at, c)).enumerate() {
            assert!(
                (want - got).abs() <= 1e-10 * want.abs().max(1.0),
                "{what}: column {c} example {k}: {got} instead of {want}"
            );
        }
    }
}

fn check(arch: &str, kind: TaskKind, ablation: Ablation) {
    check_case(arch, kind, &Case::heads(ablation));
}

fn check_case(arch: &str, kind: TaskKind, case: &Case) {
    let prepared = prepared(kind);
    let plan = Arc::new(plan(arch, kind, &prepared, case));
    let reference = model(arch, Kind::Double, 7);
    let plain = Loop { model: &reference, prepared: &prepared, case };
    let b = plain.replacements();
    let shared = Arc::new(SharedModel::new(model(arch, Kind::Double, 7)));
    let data = std::iter::once(&prepared).chain(&case.reference).cloned().collect();
    let mut engine = Engine::new(shared, Arc::clone(&plan), Arc::new(data));
    let stop = AtomicBool::new(false);
    let steps = plan.sweeps[3].rounds();
    let random: Vec<UnitIx> = [14, 3, 8, 0, 17, 6, 2, 9, 11, 16, 5, 1, 13, 10, 4].map(UnitIx).to_vec();
    let n = case.units.len() as u32;
    let random: Vec<UnitIx> = random.into_iter().filter(|u| u.0 < n).take(steps as usize).collect();
    for sweep in 0..plan.sweeps.len() as u32 {
        let scope = plan.sweeps[sweep as usize].scope;
        // A greedy sweep goes back and forth between rounds: after a resume a base set may also shrink.
        for round in
            if sweep == 3 { vec![0, 1, 2.min(steps - 1), steps - 1, 3.min(steps - 1)] } else { vec![0] }
        {
            let list = match sweep {
                3 => random[..round as usize].to_vec(),
                4 => random.clone(),
                _ => Vec::new(),
            };
            let space = plan.space(sweep, &list);
            for chunk in 0..plan.round_chunks(sweep, round) {
                let scores = engine.run(sweep, round, &list, chunk, &stop).unwrap();
                for (i, rank) in plan.chunk_ranks(sweep, round, chunk).enumerate() {
                    let subset = plan.removed(sweep, &space, rank).unwrap();
                    let expected = plain.scores(&subset, scope, b.as_deref());
                    assert_close(
                        &scores.tasks[0],
                        i,
                        &expected,
                        &format!("{arch} {kind:?} sweep {sweep} {subset:?}"),
                    );
                }
            }
        }
    }
}

#[test]
fn every_sweep_equals_the_plain_loop_on_a_grouped_query_decoder() {
    check("llama", TaskKind::LanguageModeling, Ablation::Zero);
    check("llama", TaskKind::Ioi, Ablation::Mean { pool: Pool::Tokens });
}

#[test]
fn every_sweep_equals_the_plain_loop_on_a_padded_encoder() {
    check("bert", TaskKind::Similarity, Ablation::Zero);
    check("bert", TaskKind::Similarity, Ablation::Mean { pool: Pool::Tokens });
}

#[test]
fn means_by_position_and_sign_flips_equal_the_plain_loop() {
    check("llama", TaskKind::Induction, Ablation::Mean { pool: Pool::Position });
    check("bert", TaskKind::Similarity, Ablation::Mean { pool: Pool::Position });
    check("llama", TaskKind::Ioi, Ablation::Scale { scale: -1.0 });
    check("llama", TaskKind::LanguageModeling, Ablation::Scale { scale: 0.5 });
    check("bert", TaskKind::Similarity, Ablation::Scale { scale: -1.0 });
}

/// A donor of the same length, shorter ones and longer ones.
fn donated(reference: Option<Prepared>) -> Case {
    let ablation = Ablation::Resample { donors: Donors::Seeded };
    let donors = if reference.is_some() { vec![1, 0, 1, 1, 0, 1] } else { vec![1, 2, 3, 0, 5, 4] };
    Case { reference, donors, ..Case::heads(ablation) }
}

/// Two items that aren't the task's, one longer than all of those.
fn elsewhere() -> Prepared {
    let item = |n: u32| Item { tokens: (0..n).map(|t| (t * 11 + n) % VOCAB).collect(), ..Item::default() };
    Prepared {
        kind: TaskKind::LanguageModeling,
        items: vec![item(3), item(13)],
        item_half: vec![0, 0],
        examples: Vec::new(),
        probe: None,
    }
}

#[test]
fn donors_states_equal_the_plain_loop() {
    check_case("llama", TaskKind::LanguageModeling, &donated(None));
    check_case("bert", TaskKind::Similarity, &donated(None));
    check_case("llama", TaskKind::Ioi, &donated(Some(elsewhere())));
    check_case("bert", TaskKind::Similarity, &donated(Some(elsewhere())));
}

#[test]
fn means_over_a_reference_set_equal_the_plain_loop() {
    for pool in [Pool::Tokens, Pool::Position] {
        let case = Case { reference: Some(elsewhere()), ..Case::heads(Ablation::Mean { pool }) };
        check_case("llama", TaskKind::LanguageModeling, &case);
        check_case("bert", TaskKind::Similarity, &case);
    }
}

/// Sets that cross layers, overlap, and leave heads out.
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
        set("one", &[(2, 5)]),
    ]
}

#[test]
fn every_kind_of_unit_equals_the_plain_loop() {
    let mean = Ablation::Mean { pool: Pool::Tokens };
    for (arch, kind, unit, ablation) in [
        ("llama", TaskKind::LanguageModeling, UnitKind::KvGroup, mean),
        ("llama", TaskKind::Ioi, UnitKind::Layer, Ablation::Zero),
        ("llama", TaskKind::Ioi, UnitKind::Set, mean),
        ("bert", TaskKind::Similarity, UnitKind::Layer, mean),
        ("bert", TaskKind::Similarity, UnitKind::Set, Ablation::Scale { scale: -1.0 }),
    ] {
        let units = UnitMap::of(unit, &info(arch), &sets()).unwrap();
        check_case(arch, kind, &Case { units, ..Case::heads(ablation) });
    }
    let units = UnitMap::of(UnitKind::Set, &info("llama"), &sets()).unwrap();
    check_case("llama", TaskKind::LanguageModeling, &Case { units, ..donated(None) });
}

fn engine(kind: Kind, ablation: Ablation) -> Engine {
    let prepared = prepared(TaskKind::LanguageModeling);
    let plan = plan("llama", TaskKind::LanguageModeling, &prepared, &Case::heads(ablation));
    Engine::new(Arc::new(SharedModel::new(model("llama", kind, 3))), Arc::new(plan), Arc::new(vec![prepared]))
}

fn at(layer: usize, heads: &[(u32, f64)]) -> Intervention {
    Intervention { stages: vec![(layer, heads.iter().map(|&(head, keep)| Cut { head, keep }).collect())] }
}

#[test]
fn a_head_left_as_it_is_changes_nothing() {
    let stop = AtomicBool::new(false);
    // In f64 within 1e-12 of the unablated run, mixed into a batch of real removals.
    let mut wide = engine(Kind::Double, Ablation::Zero);
    let mixed = [
        Intervention::default(),
        at(0, &[(2, 1.0)]),
        at(1, &[(0, 0.0)]),
        at(1, &[(4, 1.0), (5, 1.0)]),
        at(2, &[(1, 0.0)]),
    ];
    let scores = wide.run_interventions(0, &[], &mixed, &[0], Scope::All, &stop).unwrap();
    for subset in [1, 3] {
        for (a, b) in scores.tasks[0].column(0, 0).iter().zip(scores.tasks[0].column(subset, 0)) {
            assert!((a - b).abs() <= 1e-12 * a.abs().max(1.0), "{a} {b}");
        }
    }
    // Bit for bit against a row of the same batch that leaves the prefix at the same layer untouched.
    for kind in [Kind::Float, Kind::Double] {
        let mut engine = engine(kind, Ablation::Zero);
        let rows = [at(1, &[]), at(1, &[(3, 1.0)]), at(1, &[(0, 0.0)]), at(2, &[(1, 0.0)])];
        let scores = engine.run_interventions(0, &[], &rows, &[0], Scope::All, &stop).unwrap();
        let bits = |s: usize| scores.tasks[0].column(s, 0).iter().map(|v| v.to_bits()).collect::<Vec<_>>();
        assert_eq!(bits(0), bits(1));
        assert_ne!(bits(0), bits(2));
    }
}

#[test]
fn a_resumed_engine_gives_the_same_bits() {
    let stop = AtomicBool::new(false);
    let list: Vec<UnitIx> = [14, 3, 8, 0, 17].map(UnitIx).to_vec();
    for kind in [Kind::Float, Kind::BFloat16] {
        let mut steady = engine(kind, Ablation::Mean { pool: Pool::Tokens });
        for round in 0..5 {
            steady.run(3, round, &list[..round as usize], 0, &stop).unwrap();
        }
        let here = steady.run(3, 5, &list, 1, &stop).unwrap().encode();
        let fresh =
            engine(kind, Ablation::Mean { pool: Pool::Tokens }).run(3, 5, &list, 1, &stop).unwrap().encode();
        assert_eq!(here, fresh, "{kind:?}");
    }
}

#[test]
fn a_stopped_pass_says_so() {
    let stop = AtomicBool::new(true);
    let mut engine = engine(Kind::Float, Ablation::Zero);
    assert_eq!(engine.run(1, 0, &[], 0, &stop), Err(ablate_worker::engine::Error::Stopped));
    assert!(matches!(engine.run(1, 0, &[], 99, &stop), Err(ablate_worker::engine::Error::Failed(_))));
}

#[test]
fn memory_for_base_states_changes_no_bit() {
    let stop = AtomicBool::new(false);
    let list: Vec<UnitIx> = [14, 3, 8].map(UnitIx).to_vec();
    let all = |room: u64| {
        let mut engine = engine(Kind::Float, Ablation::Mean { pool: Pool::Tokens }).keeping(room);
        let mut bytes = Vec::new();
        for (sweep, round, list) in [(1, 0, &[][..]), (3, 0, &[]), (3, 3, &list), (1, 0, &[])] {
            bytes.push(engine.run(sweep, round, list, 0, &stop).unwrap().encode());
        }
        bytes
    };
    let roomy = all(u64::MAX);
    assert_eq!(roomy, all(0));
    assert_eq!(roomy, all(20_000));
}

//! Tiny random Marians and T5s of odd sizes, made and run by
//! tests/reference/seq2seq.py. Logits; greedy decoding; each head of the three streams alone, pairs across them, everything
//! removed, and sets on top of base sets; by zero, by both means, scaled, and by donors, on items of mixed lengths.
//! In batches of unlike lengths, with each item (one of them a source and a target of one token) alone, and with all in one; beside
//! transformers with each item alone, and in batches padded on the right and, for T5, on the left. (Marian counts
//! positions from where the batch begins, so that it can't be padded there.)
use super::compare::{Answer, Compared, Question, ask, given, logits, plan};
use crate::plans::load;
use ablate_common::head::Stream::{Cross, Decoder, Encoder};
use ablate_common::head::{HeadIx, HeadMap};
use ablate_common::metric::Metric;
use ablate_common::model::{ENCODER_DECODERS, ModelInfo, inspect};
use ablate_common::plan::{Ablation, Donors, PlannedAblation, Pool, Source};
use ablate_common::task::{Example, Item, Prepared, Scored, TaskKind};
use ablate_tests::proof::{Worst, proved};
use ablate_tests::tensors::every_tensor_is_checked;
use ablate_worker::engine::{Engine, SharedModel};
use std::collections::{BTreeMap, BTreeSet};
use std::sync::Arc;
use tch::Kind;

const CASES: [&str; 5] = ["marian", "marian-swish", "marian-two", "t5", "t5-gated"];
/// Cases that decode.
const DECODING: [&str; 2] = ["marian-swish", "t5-gated"];
/// Tensors that files may lack.
const OPTIONAL: &[&str] =
    &["final_logits_bias", "model.encoder.embed_positions.", "model.decoder.embed_positions.", "lm_head."];
const LIMIT: f64 = 1e-9;
/// Batches: unlike lengths; one item each; all, in another order.
const LAYOUTS: [&[&[u32]]; 3] =
    [&[&[2], &[0, 1, 3, 4]], &[&[0], &[1], &[2], &[3], &[4]], &[&[3, 0, 4, 2, 1]]];
/// Narrower formats, and how far all logits may be off as one vector, relative to its length: so many rounding errors of one
/// operation. T5's scores aren't scaled, so that attention is sharp: in transformers' own f32, f16 and bf16 the tiny T5 is
/// 4.4e-6, 1.5e-2 and 0.17 off its f64, the others a tenth of that and less.
const NARROW: [(Kind, &str, f64); 3] = [
    (Kind::Float, "f32", 128.0 / 16_777_216.0),
    (Kind::Half, "f16", 64.0 / 2048.0),
    (Kind::BFloat16, "bf16", 64.0 / 256.0),
];
/// Tokens that every case's source and target know.
const VOCAB: u32 = 46;
/// Lengths of (source, target).
const LENGTHS: [(u32, u32); 5] = [(1, 1), (9, 4), (6, 2), (2, 7), (7, 5)];

/// Five items whose targets begin with `start`.
pub fn prepared(start: u32) -> Prepared {
    let tokens = |seed: u32, n: u32| (0..n).map(move |t| (seed * 23 + t * 7 + t * t * 3) % VOCAB);
    let items: Vec<Item> = (0u32..)
        .zip(LENGTHS)
        .map(|(i, (source, target))| {
            let targets: Vec<u32> = tokens(50 + i, target).collect();
            Item {
                tokens: tokens(i, source).collect(),
                decoder: std::iter::once(start).chain(targets[..targets.len() - 1].iter().copied()).collect(),
                scored: (0..)
                    .zip(targets)
                    .map(|(position, target)| Scored { position, target, foil: 0 })
                    .collect(),
                ..Item::default()
            }
        })
        .collect();
    let n = items.len() as u32;
    let example = |a| Example { a, b: a, gold: 0.0, cluster: a, half: Some((a % 2) as u8) };
    Prepared {
        kind: TaskKind::Seq2seq,
        item_half: (0..n).map(|a| (a % 2) as u8).collect(),
        items,
        examples: (0..n).map(example).collect(),
        probe: None,
    }
}

/// Base sets with what is removed besides: from each stream, a whole stage, and everything before the decoder.
fn based(heads: &HeadMap) -> Vec<(Vec<HeadIx>, Vec<Vec<HeadIx>>)> {
    let n = heads.len() as u32;
    let of = |v: &[u32]| v.iter().map(|&h| HeadIx(h % n)).collect::<Vec<_>>();
    let stage = |at: usize| -> Vec<HeadIx> {
        heads.iter().filter(|&h| heads.stage_of(h) == at).filter_map(|h| heads.index(h)).collect()
    };
    let decoder = heads.decoder_stage().unwrap();
    let before: Vec<HeadIx> = (0..decoder as u32 * 6).map(HeadIx).collect();
    let last = HeadIx(n - 1);
    vec![
        (of(&[1, 4, n - 2]), vec![of(&[2]), of(&[n - 5, n - 1]), of(&[0, n - 8])]),
        (stage(decoder), vec![vec![HeadIx(3)], vec![HeadIx(3), last], vec![last]]),
        (stage(decoder + 1), vec![vec![HeadIx(3)], vec![HeadIx(decoder as u32 * 6 + 1)]]),
        (before, vec![vec![last]]),
    ]
}

fn subsets(heads: &HeadMap) -> Vec<Vec<HeadIx>> {
    let n = heads.len() as u32;
    let mut all = vec![Vec::new(), (0..n).map(HeadIx).collect()];
    all.extend((0..n).map(|h| vec![HeadIx(h)]));
    let pairs = (0..n).flat_map(|i| (i + 1..n).map(move |j| vec![HeadIx(i), HeadIx(j)]));
    all.extend(pairs.step_by(41));
    // The first head is the encoder's, the last one a cross-attention's: the stride may miss that pair of streams.
    all.push(vec![HeadIx(0), HeadIx(n - 1)]);
    for (base, more) in based(heads) {
        all.extend(more.iter().map(|m| {
            let mut union = [base.as_slice(), m].concat();
            union.sort_unstable();
            union
        }));
    }
    all
}

/// Numbers of subsets that decode: nothing, everything, a head of each stream, a pair across, the first union.
fn decoded(subsets: &[Vec<HeadIx>], heads: &HeadMap) -> Vec<usize> {
    let n = heads.len();
    let streams =
        |s: &Vec<HeadIx>| s.iter().filter_map(|&h| heads.head(h)).map(|h| h.stream).collect::<BTreeSet<_>>();
    let across = subsets.iter().position(|s| s.len() == 2 && streams(s) == [Encoder, Cross].into()).unwrap();
    let decoder = heads.layers(Encoder) as usize * 6;
    vec![0, 1, 2 + 3, 2 + decoder + 1, 1 + n, across, subsets.iter().position(|s| s.len() == 4).unwrap()]
}

/// Compares a model with the reference, and records it; false where a limit is passed.
fn check(question: &Question, answer: &Answer, info: &ModelInfo, path: &std::path::Path) -> bool {
    let name = format!("tiny {}", question.name);
    let layouts = LAYOUTS.map(|l| l.iter().map(|items| items.to_vec()).collect::<Vec<_>>());
    let states = |kind: Kind, expected: &[Vec<Vec<f64>>]| {
        let (model, mut all) = (load(path, kind).1, [Worst::default(); 2]);
        for batches in &layouts {
            let of = tch::no_grad(|| logits(&model, &question.prepared, batches, expected));
            all.iter_mut().zip(of).for_each(|(all, of)| all.join(of));
        }
        all
    };
    let at = "logits at every position";
    let mut rows = vec![(format!("{at}, f64"), states(Kind::Double, &answer.logits)[0], LIMIT)];
    for (side, padded) in &answer.padded {
        let off = states(Kind::Double, &padded.logits)[0];
        rows.push((format!("{at}, reference padded {side}, f64"), off, LIMIT));
    }
    for (kind, narrow, limit) in NARROW {
        let off = states(kind, &answer.logits)[1];
        rows.push((format!("all logits as one vector, {narrow}"), off, limit));
    }
    let model = Arc::new(SharedModel::new(load(path, Kind::Double).1));
    // Those that don't decode are asked how far their distributions are from the unablated ones.
    let metric = if question.decoded.is_empty() { Metric::Kl } else { Metric::Bleu };
    let (mut swept, mut on_base) = (Worst::default(), Worst::default());
    let mut padded: BTreeMap<&String, Worst> = BTreeMap::new();
    for batches in &layouts {
        let plan = Arc::new(plan(info, &question.prepared, metric, &question.ablations, batches));
        let engine = Engine::new(Arc::clone(&model), Arc::clone(&plan), given(&question.prepared));
        let mut compared = Compared { engine, plan, question, answer };
        swept.join(compared.sweeps());
        on_base.join(compared.based(&based(&info.heads)));
        let zero = question.ablations.iter().position(|a| a.method == Ablation::Zero);
        if let Some(zero) = zero {
            for side in answer.padded.keys() {
                padded.entry(side).or_default().join(compared.padded(zero as u32, side));
            }
        }
    }
    let methods: Vec<String> = question.ablations.iter().map(|a| a.title()).collect();
    let methods = methods.join(", ");
    rows.push((format!("deltas of every head and of pairs, f64: {methods}"), swept, LIMIT));
    rows.push((format!("deltas of sets on base sets, f64: {methods}"), on_base, LIMIT));
    for (side, off) in padded {
        rows.push((format!("deltas of every head, reference padded {side}, f64"), off, LIMIT));
    }
    let shown: Vec<String> = rows.iter().map(|r| format!("{:.1e}", r.1.rel)).collect();
    println!("{name:19} {}", shown.join(" "));
    rows.into_iter().fold(true, |ok, (check, worst, limit)| proved(&name, &check, worst, limit) && ok)
}

#[test]
fn encoder_decoders_equal_transformers() {
    let folder = tempfile::tempdir().unwrap();
    let starts: BTreeMap<&str, u32> = CASES
        .iter()
        .map(|&n| {
            (
                n,
                if n.starts_with("t5") {
                    0
                } else if n == "marian-two" {
                    46
                } else {
                    60
                },
            )
        })
        .collect();
    // By turns: each architecture is asked all.
    let resample = PlannedAblation {
        sources: vec![Source { reference: None, donors: vec![1, 3, 4, 0, 2] }],
        ..Ablation::Resample { donors: Donors::Seeded }.into()
    };
    let paired = PlannedAblation {
        sources: vec![Source { reference: Some(0), donors: vec![0, 1, 2, 3, 4] }],
        ..Ablation::Resample { donors: Donors::Paired }.into()
    };
    let ablations: [Vec<PlannedAblation>; 2] = [
        vec![Ablation::Zero.into(), Ablation::Mean { pool: Pool::Position }.into(), paired],
        vec![Ablation::Mean { pool: Pool::Tokens }.into(), Ablation::Scale { scale: -0.5 }.into(), resample],
    ];
    // The heads of a case are known before its model is made.
    let map = |name: &str| {
        let (encoder, decoder) = match name {
            "marian-swish" => (3, 1),
            "t5-gated" => (1, 3),
            _ => (2, 2),
        };
        HeadMap { streams: vec![(Encoder, encoder, 6), (Decoder, decoder, 6), (Cross, decoder, 6)] }
    };
    let questions: Vec<Question> = CASES
        .iter()
        .zip(ablations.iter().cycle())
        .map(|(&name, ablations)| Question {
            name: name.into(),
            path: None,
            prepared: prepared(starts[name]),
            subsets: subsets(&map(name)),
            heads: map(name),
            ablations: ablations.clone(),
            decoded: if DECODING.contains(&name) {
                decoded(&subsets(&map(name)), &map(name))
            } else {
                Vec::new()
            },
            context: if name.starts_with("t5") { 512 } else { 24 },
        })
        .collect();
    let answers = ask(&questions, folder.path());
    let (mut archs, mut failed) = (BTreeSet::new(), Vec::new());
    for (question, answer) in questions.iter().zip(&answers) {
        let path = folder.path().join(&question.name);
        every_tensor_is_checked(&path, OPTIONAL);
        let info = inspect(&path).unwrap().info;
        assert_eq!(info.heads, question.heads);
        archs.insert(info.arch.clone());
        if !check(question, answer, &info, &path) {
            failed.push(question.name.clone());
        }
    }
    assert_eq!(archs, ENCODER_DECODERS.iter().map(|a| (*a).to_owned()).collect());
    assert!(failed.is_empty(), "too far from transformers: {failed:?}");
}

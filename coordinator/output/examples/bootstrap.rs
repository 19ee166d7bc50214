//! How long the statistics of an experiment take, and how much memory: single heads and all pairs on synthetic scores, through
//! the code that makes the tables.
//!
//! `cargo run --release -p ablate-output --example bootstrap -- METRIC HEADS EXAMPLES [FILE]`, METRIC being pearson, spearman, f1,
//! matthews, bleu or logit_diff; by default spearman of 270 heads (36,315 pairs) on 512 examples. FILE gets the same as JSON.
#![allow(clippy::unwrap_used, clippy::disallowed_methods, reason = "an example, which measures real time")]

use ablate_common::ENGINE_VERSION;
use ablate_common::head::HeadMap;
use ablate_common::metric::Metric;
use ablate_common::model::{Details, ModelInfo};
use ablate_common::plan::{Ablation, Plan, PlannedSweep, PlannedTask, SweepKind};
use ablate_common::scores::{ChunkScores, TaskScores};
use ablate_common::spec::{Dtype, ModelSpec, Spec};
use ablate_common::stats::bleu;
use ablate_common::task::{Example, Item, Prepared, Scope, TaskKind};
use ablate_common::units::UnitMap;
use ablate_output::results::{Results, RoundResult, RunInfo};
use std::collections::BTreeMap;
use std::path::Path;
use std::time::Instant;

/// A number in [0, 1) from integers.
fn noise(a: u64, b: u64) -> f64 {
    let mut x = a.wrapping_mul(0x9E37_79B9_7F4A_7C15) ^ b.wrapping_mul(0xD1B5_4A32_D192_ED03);
    x = (x ^ (x >> 29)).wrapping_mul(0xBF58_476D_1CE4_E5B9);
    (x >> 11) as f64 / (1u64 << 53) as f64
}

fn main() {
    let args: Vec<String> = std::env::args().skip(1).collect();
    let word = |at: usize, usual: &str| args.get(at).cloned().unwrap_or_else(|| usual.to_owned());
    let number =
        |at: usize, usual: &str| word(at, usual).parse::<u32>().expect("HEADS and EXAMPLES are numbers");
    let (kind, metric) = match word(0, "spearman").as_str() {
        "pearson" => (TaskKind::Similarity, Metric::Pearson),
        "spearman" => (TaskKind::Similarity, Metric::Spearman),
        "f1" => (TaskKind::Classification, Metric::F1),
        "matthews" => (TaskKind::Classification, Metric::Matthews),
        "bleu" => (TaskKind::Seq2seq, Metric::Bleu),
        "logit_diff" => (TaskKind::Ioi, Metric::LogitDiff),
        other => panic!("{other}: the metrics are pearson, spearman, f1, matthews, bleu and logit_diff"),
    };
    let results = experiment(kind, metric, number(1, "270"), number(2, "512"));
    let before = peak();
    let began = Instant::now();
    let analysis = ablate_output::analyse(&results);
    let seconds = began.elapsed().as_secs_f64();
    let group = &analysis.groups[0];
    let threads = std::thread::available_parallelism().map_or(1, usize::from);
    let (peak_mb, scores_mb) = (peak() >> 20, before >> 20);
    println!(
        "{}: {} heads and {} pairs on {} examples in {seconds:.1} s on {threads} threads; {peak_mb} MB at most, {scores_mb} MB of it the scores",
        metric.name(),
        group.heads.len(),
        group.pairs.len(),
        group.examples,
    );
    let resolved = group.pairs.iter().filter(|p| p.q <= 0.05).count();
    println!("{resolved} pairs at q ≤ 0.05; the first interaction is {:?}", group.pairs[0].interaction);
    if let Some(file) = args.get(3).map(Path::new) {
        let row = serde_json::json!({
            "metric": metric.name(),
            "heads": group.heads.len(),
            "pairs": group.pairs.len(),
            "examples": group.examples,
            "seconds": seconds,
            "threads": threads,
            "peak_mb": peak_mb,
            "scores_mb": scores_mb,
            "resolved": resolved,
        });
        std::fs::create_dir_all(file.parent().unwrap_or(Path::new("."))).expect("FILE's folder can be made");
        std::fs::write(file, serde_json::to_string_pretty(&[row]).unwrap()).expect("FILE can be written");
        println!("written to {}", file.display());
    }
}

/// Most memory that this process has held, in bytes.
fn peak() -> u64 {
    let status = std::fs::read_to_string("/proc/self/status").unwrap_or_default();
    let line = status.lines().find_map(|l| l.strip_prefix("VmHWM:")).unwrap_or_default();
    line.trim().trim_end_matches(" kB").parse::<u64>().unwrap_or(0) << 10
}

/// Examples, and for similarity texts: 50 at most, which share pairs.
fn prepared(kind: TaskKind, examples: u32) -> Prepared {
    let item = || Item { tokens: vec![1, 2, 3], ..Item::default() };
    let example = |i: u32| Example {
        a: i,
        b: i,
        gold: f64::from(i % 3),
        cluster: i / 4,
        half: Some((i / 4 % 2) as u8),
    };
    let (items, examples) = if kind == TaskKind::Similarity {
        let texts = (2..).find(|t| t * (t - 1) / 2 >= examples).unwrap_or(2).max(50);
        let pairs = (0..texts).flat_map(|a| (a + 1..texts).map(move |b| (a, b)));
        let pair = |(i, (a, b)): (u32, (u32, u32))| {
            let half = (a % 2 == b % 2).then_some((a % 2) as u8);
            Example { a, b, gold: noise(u64::from(i), 1), cluster: i, half }
        };
        let step = (texts * (texts - 1) / 2 / examples).max(1) as usize;
        let chosen = pairs.step_by(step).take(examples as usize);
        (texts, (0..).zip(chosen).map(pair).collect())
    } else {
        (examples, (0..examples).map(example).collect())
    };
    Prepared {
        kind,
        items: (0..items).map(|_| item()).collect(),
        item_half: (0..items).map(|i| (i % 2) as u8).collect(),
        examples,
        probe: None,
    }
}

fn experiment(kind: TaskKind, metric: Metric, heads: u32, examples: u32) -> Results {
    let layers = (1..=heads.min(100)).rev().find(|l| heads.is_multiple_of(*l)).unwrap_or(1);
    let map = HeadMap::single_stream(layers, heads / layers);
    let prepared = prepared(kind, examples);
    let sweep =
        |kind| PlannedSweep { kind, ablation: 0, tasks: vec![0], units: 0, scope: Scope::All, chunk: 256 };
    let plan = Plan {
        engine: ENGINE_VERSION,
        spec: Spec {
            name: "synthetic".into(),
            seed: 0,
            model: ModelSpec { source: "none".into(), dtype: Dtype::F32, sha256: None },
            tasks: Vec::new(),
            ablations: vec![Ablation::Zero.into()],
            sweeps: Vec::new(),
        },
        model: ModelInfo {
            arch: "llama".into(),
            title: "synthetic".into(),
            weights_sha256: "00".repeat(32),
            heads: map.clone(),
            layers,
            d_model: 8,
            n_heads: heads / layers,
            n_kv_heads: heads / layers,
            head_dim: 2,
            d_ff: 8,
            vocab: 9,
            context: 16,
            norm_eps: 1e-5,
            rope_theta: None,
            tied: true,
            details: Details::default(),
        },
        tasks: vec![PlannedTask {
            name: "scores".into(),
            kind,
            metric,
            prepared: "00".repeat(32),
            items: prepared.items.len() as u32,
            examples: prepared.examples.len() as u32,
            all: Vec::new(),
            select: Vec::new(),
        }],
        ablations: vec![Ablation::Zero.into()],
        units: vec![UnitMap::heads(&map)],
        references: Vec::new(),
        sweeps: [SweepKind::Reference, SweepKind::Single, SweepKind::Pairs].map(sweep).to_vec(),
    };
    let rounds = (0..3).map(|s| ((s, 0), round(&plan, &prepared, s))).collect::<BTreeMap<_, _>>();
    let prepared = vec![prepared];
    Results { id: plan.identity(), plan, prepared, rounds, run: RunInfo::default() }
}

/// Scores of a sweep: what is right, with noise that grows a little with the subset.
fn round(plan: &Plan, prepared: &Prepared, sweep: u32) -> RoundResult {
    let n = prepared.examples.len();
    let columns = plan.columns(sweep, 0).len();
    let mut out = RoundResult::default();
    for chunk in 0..plan.round_chunks(sweep, 0) {
        let ranks = plan.chunk_ranks(sweep, 0, chunk);
        let mut values = Vec::with_capacity((ranks.end - ranks.start) as usize * columns * n);
        for rank in ranks.clone() {
            let subset = u64::from(sweep) << 40 | rank;
            let wrong = 0.2 + 0.1 * noise(subset, 7);
            let at = |e: usize, k: u64| noise(subset, (e as u64) << 3 | k);
            match prepared.kind {
                TaskKind::Similarity => {
                    values.extend((0..n).map(|e| prepared.examples[e].gold + wrong * at(e, 0)));
                }
                TaskKind::Classification => {
                    let label = |e: usize| prepared.examples[e].gold;
                    values.extend((0..n).map(|e| at(e, 0)));
                    values.extend(
                        (0..n).map(|e| if at(e, 1) < wrong { (at(e, 2) * 3.0).floor() } else { label(e) }),
                    );
                    values.extend((0..n).map(label));
                }
                TaskKind::Seq2seq => {
                    const REFERENCE: [u32; 8] = [1, 2, 3, 4, 5, 6, 7, 8];
                    // One token is decoded as another now and then.
                    let of = |e: usize| {
                        let mut decoded = REFERENCE;
                        if at(e, 1) < wrong {
                            decoded[(8.0 * at(e, 2)) as usize] = 9;
                        }
                        bleu::counts(&decoded, &REFERENCE)
                    };
                    let counts: Vec<[f64; bleu::COUNTS]> = (0..n).map(of).collect();
                    values.extend((0..n).map(|e| at(e, 0)));
                    values.extend(std::iter::repeat_n(1.0, n));
                    values.extend((0..bleu::COUNTS).flat_map(|c| counts.iter().map(move |own| own[c])));
                }
                _ => values.extend((0..n).map(|e| 2.0 + noise(e as u64, 3) - wrong * at(e, 0))),
            }
        }
        let task = TaskScores { task: 0, examples: n as u32, columns: columns as u32, values };
        out.chunks
            .insert(chunk, ChunkScores { subsets: (ranks.end - ranks.start) as u32, tasks: vec![task] });
    }
    out
}

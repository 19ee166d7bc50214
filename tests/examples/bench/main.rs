//! `make bench`: Ablate's engine against what researchers use today, on the same weights, tokens, subsets and
//! threads, with the numbers compared. Prints a table and writes target/proof/bench.json and bench.md.
//! Arguments: names of cases ("smollm2-64" …); without any, all of them. With "alone" among them no peer is asked, and
//! Ablate's own rates are printed and not kept.
#![allow(clippy::unwrap_used, clippy::print_stdout, clippy::print_stderr, reason = "a benchmark")]

mod table;

use ablate_common::head::HeadIx;
use ablate_common::model::inspect;
use ablate_common::plan::{Plan, SweepKind};
use ablate_common::spec::{self, Dtype};
use ablate_common::task::Prepared;
use ablate_common::units::UnitIx;
use ablate_tests::program::lee;
use ablate_tests::reference::pairs_of;
use ablate_tests::{minilm, root, smollm2};
use ablate_worker::engine::trie::{Cut, Intervention, Trie};
use ablate_worker::engine::{Engine, SharedModel, arch};
use ablate_worker::load::Weights;
use serde_json::{Value, json};
use std::path::{Path, PathBuf};
use std::process::Command;
use std::sync::Arc;
use std::sync::atomic::AtomicBool;
use std::time::Instant;
use tch::{Device, Kind, Tensor};

const THREADS: i32 = 2;
/// Subsets of each sweep that a peer runs.
const PEER_SUBSETS: usize = 4;

struct Case {
    name: &'static str,
    model: &'static str,
    format: &'static str,
    path: PathBuf,
    task: &'static str,
    /// The task's part of the spec.
    spec: String,
    dtypes: &'static [(Dtype, &'static [(&'static str, &'static str)])],
}

const F32: (Dtype, &[(&str, &str)]) =
    (Dtype::F32, &[("transformer_lens", "f32"), ("nnsight", "f32"), ("hooks", "f32")]);
/// bf16 against the f32 loop that people run, and against TransformerLens in bf16.
const BF16: (Dtype, &[(&str, &str)]) =
    (Dtype::Bf16, &[("transformer_lens", "f32"), ("transformer_lens", "bf16")]);

fn cases(folder: &Path) -> Vec<Case> {
    let wiki = root().join("models/data/wiki.jsonl");
    let lm = |examples: u32, tokens: u32| {
        format!(
            "kind = \"language_modeling\"\ndata = {wiki:?}\nexamples = {examples}\nmax_tokens = {tokens}\n"
        )
    };
    let causal = |name, task, spec, dtypes| Case {
        name,
        model: "SmolLM2",
        format: "gguf",
        path: smollm2(),
        task,
        spec,
        dtypes,
    };
    let encoder = |name, texts: usize, tokens: u32| {
        let place = folder.join(name);
        std::fs::create_dir_all(&place).unwrap();
        let data = lee(&place, texts);
        let spec = format!("kind = \"similarity\"\ndata = {data:?}\nmax_tokens = {tokens}\n");
        Case { name, model: "MiniLM", format: "hf", path: minilm(), task: "similarity", spec, dtypes: &[F32] }
    };
    vec![
        causal("smollm2-64", "language_modeling", lm(4, 64), &[F32, BF16]),
        causal("smollm2-256", "language_modeling", lm(2, 256), &[F32]),
        causal("smollm2-ioi", "ioi", "kind = \"ioi\"\nexamples = 16\n".to_owned(), &[F32]),
        encoder("minilm-32", 32, 32),
        encoder("minilm-128", 12, 128),
    ]
}

/// Part of a sweep that was run: its subsets with the first column of their scores.
struct Ran {
    sweep: &'static str,
    subsets: Vec<Vec<HeadIx>>,
    scores: Vec<Vec<f64>>,
    seconds: f64,
    /// Least operations that give these scores, and the seconds that they take at the measured peak of each shape.
    least: Least,
}

/// Operations, and seconds at the peak of their shapes.
#[derive(Clone, Copy, Default)]
struct Least {
    flops: f64,
    seconds: f64,
}

impl Least {
    fn add(&mut self, flops: f64, per_s: f64) {
        self.flops += flops;
        self.seconds += flops / per_s;
    }
}

/// Operations a second of each of a model's products, and of the largest of a layer.
struct Peaks {
    qkv: f64,
    out: f64,
    up: f64,
    down: f64,
    logits: f64,
}

struct Loaded {
    plan: Arc<Plan>,
    prepared: Prepared,
    engine: Engine,
    peaks: Peaks,
}

fn kind_of(dtype: Dtype) -> Kind {
    match dtype {
        Dtype::F64 => Kind::Double,
        Dtype::F32 => Kind::Float,
        Dtype::Bf16 => Kind::BFloat16,
        Dtype::F16 => Kind::Half,
    }
}

fn load(case: &Case, dtype: Dtype) -> Loaded {
    let text = format!(
        "name = \"bench\"\n[model]\nsource = {:?}\ndtype = \"{}\"\n[[task]]\nname = \"t\"\n{}[ablation]\nmethod = \"mean\"\n\
         [[sweep]]\nkind = \"single\"\n[[sweep]]\nkind = \"pairs\"\n[[sweep]]\nkind = \"greedy\"\nfraction = 0.79\nsplit = \"none\"\n",
        case.path,
        name_of(dtype),
        case.spec
    );
    let spec = spec::parse(&text, "bench.toml").unwrap();
    let made = ablate_prepare::prepare(&spec, Path::new("."), &|_, _, _| {}).unwrap();
    let inspected = inspect(&case.path).unwrap();
    let kind = kind_of(dtype);
    let weights = Weights::open(&inspected.weights, Device::Cpu, kind).unwrap();
    let model = arch::load(&inspected.info, &weights, Device::Cpu, kind, &|_, _, _| {}).unwrap();
    let peaks = peaks(&model, kind);
    let plan = Arc::new(made.plan);
    let prepared = made.prepared[0].clone();
    let engine = Engine::new(Arc::new(SharedModel::new(model)), Arc::clone(&plan), Arc::new(made.prepared));
    Loaded { plan, prepared, engine, peaks }
}

fn name_of(dtype: Dtype) -> &'static str {
    match dtype {
        Dtype::F64 => "f64",
        Dtype::F32 => "f32",
        Dtype::Bf16 => "bf16",
        Dtype::F16 => "f16",
    }
}

/// Measures the products by themselves, each the best of a few.
fn peaks(model: &ablate_worker::engine::model::Model, kind: Kind) -> Peaks {
    let peak = |w: &Tensor, rows: i64| {
        let (n, d) = (w.size()[0], w.size()[1]);
        let x = Tensor::randn([rows, d], (kind, Device::Cpu));
        let once = || {
            let began = Instant::now();
            let _ = x.linear(w, None::<&Tensor>);
            began.elapsed().as_secs_f64()
        };
        2.0 * rows as f64 * (n * d) as f64 / (0..12).map(|_| once()).fold(f64::INFINITY, f64::min)
    };
    let block = &model.blocks[0];
    let feed = |of: fn(&ablate_worker::engine::model::Feed) -> &Tensor| {
        block.feed.as_ref().map_or(1.0, |f| peak(of(f), 4096))
    };
    Peaks {
        qkv: peak(&block.qkv, 4096),
        out: peak(&block.wo, 4096),
        up: feed(|f| &f.up),
        down: feed(|f| &f.down),
        logits: model.unembed.as_ref().map_or(1.0, |w| peak(w, 512)),
    }
}

/// Least work for subsets beyond a base set, whose states are there: what two subsets share is counted once, a
/// removed head not at all, the last layer behind its attention and the logits only where they are scored.
fn least(loaded: &Loaded, base: &[HeadIx], subsets: &[Vec<HeadIx>]) -> Least {
    let (plan, peaks) = (&loaded.plan, &loaded.peaks);
    let m = &plan.model;
    let heads: Vec<Intervention> = subsets
        .iter()
        .map(|s| {
            let mut layers = std::collections::BTreeMap::<usize, Vec<Cut>>::new();
            for head in s.iter().filter(|h| !base.contains(h)).filter_map(|&h| plan.heads().head(h)) {
                layers.entry(head.layer as usize).or_default().push(Cut { head: head.head, keep: 0.0 });
            }
            Intervention { stages: layers.into_iter().collect() }
        })
        .collect();
    let trie = Trie::new(&heads);
    let gone: Vec<Vec<u32>> = (0..m.layers)
        .map(|l| {
            base.iter()
                .filter_map(|&h| plan.heads().head(h))
                .filter(|h| h.layer == l)
                .map(|h| h.head)
                .collect()
        })
        .collect();
    let (mut tokens, mut squares, mut scored) = (0.0, 0.0, 0.0);
    for item in &loaded.prepared.items {
        let n = item.tokens.len() as f64;
        tokens += n;
        squares += n * n;
        scored += if item.scored.is_empty() { n } else { item.positions() as f64 };
    }
    let (d, dh, ff) = (f64::from(m.d_model), f64::from(m.head_dim), f64::from(m.d_ff));
    let group = m.n_heads / m.n_kv_heads;
    let mut sum = Least::default();
    let attention = |sum: &mut Least, layer: usize, at: f64| {
        let kept: Vec<u32> = (0..m.n_heads).filter(|h| !gone[layer].contains(h)).collect();
        let mut kv: Vec<u32> = kept.iter().map(|h| h / group).collect();
        kv.dedup();
        let q = kept.len() as f64 * dh;
        sum.add(2.0 * d * (q + 2.0 * kv.len() as f64 * dh) * tokens, peaks.qkv);
        sum.add(4.0 * q * squares / if m.arch == "llama" { 2.0 } else { 1.0 }, peaks.up);
        sum.add(2.0 * d * q * at, peaks.out);
    };
    for node in &trie.nodes {
        let layers = m.layers as usize;
        // Rows in which nothing ends are needed up to the attention that their last child changes.
        let (end, only_attention) = if node.ends.is_empty() {
            (node.last_child.unwrap_or(node.stage), true)
        } else {
            (layers, false)
        };
        for layer in node.stage..end {
            let at = if layer + 1 == layers { scored } else { tokens };
            if layer == node.stage {
                sum.add(2.0 * d * dh * node.cuts.len() as f64 * at, peaks.out);
            } else {
                attention(&mut sum, layer, at);
            }
            sum.add(2.0 * (f64::from(m.mlp_matrices()) - 1.0) * d * ff * at, peaks.up);
            sum.add(2.0 * d * ff * at, peaks.down);
        }
        if only_attention && end > node.stage {
            attention(&mut sum, end, if end + 1 == layers { scored } else { tokens });
        }
        if !node.ends.is_empty() && loaded.prepared.kind.by_token() {
            sum.add(2.0 * d * f64::from(m.vocab) * scored, peaks.logits);
        }
    }
    sum
}

impl Loaded {
    fn run(&mut self, sweep: u32, round: u32, list: &[UnitIx], chunks: &[u32], name: &'static str) -> Ran {
        let stop = AtomicBool::new(false);
        let plan = Arc::clone(&self.plan);
        let space = plan.space(sweep, list);
        let size = u64::from(plan.sweeps[sweep as usize].chunk);
        let (mut subsets, mut scores) = (Vec::new(), Vec::new());
        let began = Instant::now();
        for &chunk in chunks {
            let ran = self.engine.run(sweep, round, list, chunk, &stop).unwrap();
            let block = &ran.tasks[0];
            let first = u64::from(chunk) * size;
            for at in 0..size.min(plan.round_subsets(sweep, round) - first) {
                subsets.push(plan.removed(sweep, &space, first + at).unwrap());
                scores.push(block.column(at as usize, 0).to_vec());
            }
        }
        let seconds = began.elapsed().as_secs_f64();
        let base = plan.units(sweep).union(space.base());
        let least = least(self, &base, &subsets);
        Ran { sweep: name, subsets, scores, seconds, least }
    }

    /// Single whole, eight chunks of the pairs, one whole round of greedy in the middle of its way.
    fn sweeps(&mut self) -> Vec<Ran> {
        let plan = Arc::clone(&self.plan);
        let find =
            |wanted: fn(&SweepKind) -> bool| plan.sweeps.iter().position(|s| wanted(&s.kind)).unwrap() as u32;
        let single = find(|k| matches!(k, SweepKind::Single));
        let pairs = find(|k| matches!(k, SweepKind::Pairs));
        let greedy = find(|k| matches!(k, SweepKind::Greedy { .. }));
        // Warms up, and computes what every sweep shares.
        drop(self.engine.run(0, 0, &[], 0, &AtomicBool::new(false)).unwrap());
        drop(self.engine.run(single, 0, &[], 0, &AtomicBool::new(false)).unwrap());
        let every = |sweep: u32, round: u32| (0..plan.round_chunks(sweep, round)).collect::<Vec<u32>>();
        let chunks = plan.round_chunks(pairs, 0);
        let some: Vec<u32> = (0..8).map(|k| (2 * k + 1) * chunks / 16).collect();
        // A plausible order of removal: a third of the heads, the later layers' first.
        let heads: Vec<UnitIx> = (0..plan.heads().len() as u32).rev().step_by(3).map(UnitIx).collect();
        let round = heads.len() as u32;
        vec![
            self.run(single, 0, &[], &every(single, 0), "single"),
            self.run(pairs, 0, &[], &some, "pairs"),
            self.run(greedy, round, &heads, &every(greedy, round), "greedy"),
        ]
    }
}

/// What a peer answered.
struct Peer {
    columns: Vec<Vec<f64>>,
    seconds: Vec<f64>,
    peak_mb: f64,
}

fn ask(case: &Case, loaded: &Loaded, peer: &str, dtype: &str, subsets: &[Vec<HeadIx>]) -> Peer {
    let heads = loaded.plan.model.n_heads;
    let asked: Vec<_> = subsets.iter().map(|s| pairs_of(s, heads)).collect();
    let job = json!({"model": {"kind": case.format, "path": case.path}, "dtype": dtype, "threads": THREADS, "heads": heads,
        "ablation": "mean", "peer": peer, "prepared": loaded.prepared, "subsets": asked});
    let folder = tempfile::tempdir().unwrap();
    let (question, answer) = (folder.path().join("job.json"), folder.path().join("answer.json"));
    std::fs::write(&question, serde_json::to_vec(&job).unwrap()).unwrap();
    let script = root().join("tests/bench/peers.py");
    let out = Command::new(root().join(".deps/peers/bin/python"))
        .arg(script)
        .args([&question, &answer])
        .output()
        .unwrap();
    assert!(out.status.success(), "{peer}: {}", String::from_utf8_lossy(&out.stderr));
    let v: Value = serde_json::from_slice(&std::fs::read(&answer).unwrap()).unwrap();
    let column = loaded.prepared.kind.columns()[0];
    Peer {
        columns: serde_json::from_value(v["columns"][column].clone()).unwrap(),
        seconds: serde_json::from_value(v["seconds"].clone()).unwrap(),
        peak_mb: v["peak_mb"].as_f64().unwrap(),
    }
}

/// Most memory this process has had, in MB.
fn own_peak_mb() -> f64 {
    let status = std::fs::read_to_string("/proc/self/status").unwrap();
    let line = status.lines().find_map(|l| l.strip_prefix("VmHWM:")).unwrap();
    line.trim().trim_end_matches(" kB").trim().parse::<f64>().unwrap() / 1024.0
}

/// Largest difference of a score, for each scored token where a score sums them.
fn difference(prepared: &Prepared, ours: &[f64], theirs: &[f64]) -> f64 {
    let each = prepared.examples.iter().zip(ours.iter().zip(theirs));
    each.map(|(e, (a, b))| (a - b).abs() / f64::from(prepared.scored_tokens(e).max(1))).fold(0.0, f64::max)
}

fn bench(case: &Case, alone: bool, rows: &mut Vec<Value>) {
    for &(dtype, peers) in case.dtypes {
        let mut loaded = load(case, dtype);
        let ran = loaded.sweeps();
        if alone {
            for r in &ran {
                let (rate, share) = (r.subsets.len() as f64 / r.seconds, 100.0 * r.least.seconds / r.seconds);
                println!("{:12} {:4} {:7} {rate:8.2}/s {share:6.1} %", case.name, name_of(dtype), r.sweep);
            }
            continue;
        }
        let memory = own_peak_mb();
        // A few of each sweep's subsets, evenly spread.
        let picked: Vec<(usize, usize)> = ran
            .iter()
            .enumerate()
            .flat_map(|(s, r)| {
                (0..PEER_SUBSETS).map(move |k| (s, (2 * k + 1) * r.subsets.len() / (2 * PEER_SUBSETS)))
            })
            .collect();
        let subsets: Vec<Vec<HeadIx>> = picked.iter().map(|&(s, i)| ran[s].subsets[i].clone()).collect();
        let tokens = loaded.prepared.items.iter().map(|i| i.tokens.len()).max().unwrap_or(0);
        for &(peer, peer_dtype) in peers {
            eprintln!("{} {}: asking {peer} in {peer_dtype}", case.name, name_of(dtype));
            let answer = ask(case, &loaded, peer, peer_dtype, &subsets);
            for (s, r) in ran.iter().enumerate() {
                let mine: Vec<usize> = (0..picked.len()).filter(|&k| picked[k].0 == s).collect();
                let theirs = mine.len() as f64 / mine.iter().map(|&k| answer.seconds[k]).sum::<f64>();
                let ours = r.subsets.len() as f64 / r.seconds;
                let diff = mine
                    .iter()
                    .map(|&k| difference(&loaded.prepared, &r.scores[picked[k].1], &answer.columns[k]))
                    .fold(0.0, f64::max);
                let row = json!({"case": case.name, "model": case.model, "task": case.task, "rows": loaded.prepared.items.len(),
                    "tokens": tokens, "sweep": r.sweep, "subsets": r.subsets.len(), "dtype": name_of(dtype), "peer": peer,
                    "peer_dtype": peer_dtype, "threads": THREADS, "subsets_per_s": ours, "peer_subsets_per_s": theirs,
                    "ratio": ours / theirs, "max_abs_diff": diff, "flop_share_of_peak": r.least.seconds / r.seconds,
                    "gflops": r.least.flops / r.seconds / 1e9, "peak_gflops": r.least.flops / r.least.seconds / 1e9, "peak_mb": memory,
                    "peer_peak_mb": answer.peak_mb});
                println!("{}", table::line(&row));
                rows.push(row);
            }
        }
    }
}

fn main() {
    tch::set_num_threads(THREADS);
    let folder = tempfile::tempdir().unwrap();
    let (alone, wanted): (Vec<String>, Vec<String>) = std::env::args().skip(1).partition(|a| a == "alone");
    let mut rows = Vec::new();
    for case in cases(folder.path()) {
        if wanted.is_empty() || wanted.iter().any(|w| w == case.name) {
            tch::no_grad(|| bench(&case, !alone.is_empty(), &mut rows));
        }
    }
    if !alone.is_empty() {
        return;
    }
    let place = root().join("target/proof");
    std::fs::create_dir_all(&place).unwrap();
    std::fs::write(place.join("bench.json"), serde_json::to_vec_pretty(&rows).unwrap()).unwrap();
    std::fs::write(place.join("bench.md"), table::markdown(&rows, THREADS)).unwrap();
}

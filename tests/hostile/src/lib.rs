//! Everything that reads what others wrote, as functions of bytes: fuzzed for long by `tests/fuzz`, for seconds by this crate's own test.
//! A target may refuse its bytes, and must not panic, hang, or allocate more than they are worth.

pub mod blob;
pub mod desk;
pub mod experiment;
pub mod gguf;
pub mod heard;
pub mod mutate;
pub mod wire;

use ablate_common::model::{WeightIndex, safetensors_header};
use ablate_common::plan::Plan;
use ablate_common::scores::{ChunkScores, TaskScores};
use std::collections::BTreeMap;
use std::path::Path;

/// A reader of foreign bytes.
#[derive(Clone, Copy, Debug)]
pub struct Target {
    /// Its name, and that of its binary in `tests/fuzz`.
    pub name: &'static str,
    /// Reads bytes; whether it took them.
    pub run: fn(&[u8]) -> bool,
    /// Bytes that it takes.
    pub seeds: fn() -> Vec<Vec<u8>>,
    /// Bytes that may be allocated, all in all, for a byte that is read; besides some megabytes.
    pub worth: u64,
}

/// All of them.
pub const TARGETS: [Target; 9] = [
    Target { name: "spec", run: spec, seeds: spec_seeds, worth: 1000 },
    Target { name: "proto", run: wire::proto, seeds: wire::seeds, worth: 1000 },
    // A block of 128 KiB of equal bytes is four; the values are copied from it.
    Target { name: "chunk", run: chunk, seeds: chunk_seeds, worth: 3 * (32 << 10) },
    Target { name: "safetensors", run: safetensors, seeds: safetensors_seeds, worth: 1000 },
    Target { name: "gguf", run: gguf::run, seeds: gguf::seeds, worth: 1000 },
    Target { name: "plan", run: plan, seeds: plan_seeds, worth: 1000 },
    Target { name: "heard", run: heard::run, seeds: heard::seeds, worth: 3 * (32 << 10) },
    // A shard of a few bytes may name 65,536 chunks, each of which fails by itself.
    Target { name: "desk", run: desk::run, seeds: desk::seeds, worth: 4 << 20 },
    Target { name: "blob", run: blob::run, seeds: blob::seeds, worth: 3 * (32 << 10) },
];

/// A submitted spec.
#[must_use]
pub fn spec(bytes: &[u8]) -> bool {
    let Ok(text) = std::str::from_utf8(bytes) else { return false };
    match ablate_common::spec::parse(text, "spec.toml") {
        Ok(_) => true,
        Err(e) => {
            let lines = text.matches('\n').count() + 1;
            assert!(e.line >= 1 && e.line <= lines, "line {} of {lines}: {}", e.line, e.what);
            assert!(!e.what.is_empty(), "a complaint says something");
            false
        }
    }
}

fn spec_seeds() -> Vec<Vec<u8>> {
    const WHOLE: &str = r#"
name = "all"
seed = 3
[model]
source = "models/m.gguf"
dtype = "bf16"
[[task]]
name = "wiki"
kind = "language_modeling"
data = "data/wiki.jsonl"
examples = 64
max_tokens = 128
metric = "loss"
[[task]]
name = "ioi"
kind = "ioi"
examples = 16
[[ablation]]
method = "mean"
pool = "position"
[[ablation]]
method = "resample"
donors = "seeded"
unit = "set"
[ablation.sets]
first = ["L0.H0", "L0.H1"]
[[sweep]]
kind = "single"
tasks = ["wiki"]
[[sweep]]
kind = "pairs"
strategy = "exhaustive"
[[sweep]]
kind = "greedy"
fraction = 0.5
objective = "wiki"
split = "halves"
orders = ["greedy", "importance", "random"]
"#;
    const SMALL: &str = "name = \"a\"\n[model]\nsource = \"m\"\n[[task]]\nname = \"t\"\nkind = \"ioi\"\nexamples = 2\n[ablation]\nmethod = \"zero\"\n[[sweep]]\nkind = \"single\"\n";
    vec![SMALL.as_bytes().to_vec(), WHOLE.as_bytes().to_vec()]
}

/// A chunk's scores, as a worker sends them.
///
/// # Panics
/// Where what was taken isn't encoded to bytes that are taken again.
#[must_use]
pub fn chunk(bytes: &[u8]) -> bool {
    let Ok(scores) = ChunkScores::decode(bytes) else { return false };
    let again = ChunkScores::decode(&scores.encode()).expect("its own bytes");
    assert_eq!(again.subsets, scores.subsets);
    for (a, b) in again.tasks.iter().zip(&scores.tasks) {
        assert!((a.task, a.examples, a.columns) == (b.task, b.examples, b.columns));
        assert!(a.values.iter().zip(&b.values).all(|(a, b)| a.to_bits() == b.to_bits()));
    }
    true
}

fn chunk_seeds() -> Vec<Vec<u8>> {
    let block = |task, examples: u32, columns: u32, subsets: u32| TaskScores {
        task,
        examples,
        columns,
        values: (0..subsets * examples * columns).map(|i| f64::from(i).sqrt()).collect(),
    };
    let of = |subsets, shapes: &[(u32, u32)]| {
        let tasks = (0..).zip(shapes).map(|(t, s)| block(t, s.0, s.1, subsets)).collect();
        ChunkScores { subsets, tasks }.encode()
    };
    vec![of(0, &[]), of(3, &[(5, 1)]), of(7, &[(4, 2), (9, 1)])]
}

/// The header of a safetensors file.
#[must_use]
pub fn safetensors(bytes: &[u8]) -> bool {
    let (mut weights, mut skipped) = (WeightIndex::default(), BTreeMap::new());
    let len = bytes.len() as u64;
    let read = safetensors_header::read(bytes, len, Path::new("m.safetensors"), &mut weights, &mut skipped);
    for t in weights.tensors.values().filter(|_| read.is_ok()) {
        assert!(t.offset.checked_add(t.len).is_some_and(|end| end <= len), "a tensor past the end");
        assert_eq!(t.dtype.bytes(&t.shape), Some(t.len));
    }
    read.is_ok()
}

fn safetensors_seeds() -> Vec<Vec<u8>> {
    use ::safetensors::Dtype;
    use ::safetensors::tensor::TensorView;
    let zeros = [0u8; 256];
    let view = |dtype, shape: &[usize], bytes| {
        TensorView::new(dtype, shape.to_vec(), &zeros[..bytes]).expect("a view")
    };
    let all = [
        ("model.a", view(Dtype::F32, &[4, 8], 128)),
        ("model.b", view(Dtype::BF16, &[5], 10)),
        ("model.positions", view(Dtype::I64, &[2], 16)),
        ("model.empty", view(Dtype::F16, &[0, 3], 0)),
    ];
    [&all[..1], &all[..]]
        .map(|t| ::safetensors::serialize(t.iter().map(|(n, v)| (*n, v)), None).expect("a file"))
        .to_vec()
}

/// A plan, as a worker gets it.
#[must_use]
pub fn plan(bytes: &[u8]) -> bool {
    let Ok(plan) = serde_json::from_slice::<Plan>(bytes) else { return false };
    plan.identity().len() == 64
}

fn plan_seeds() -> Vec<Vec<u8>> {
    vec![serde_json::to_vec(&experiment::plan()).expect("JSON")]
}

/// Runs the target of a name: what the programs of `tests/fuzz` are.
///
/// # Panics
/// Where there is none, or where it finds something.
pub fn run(name: &str, bytes: &[u8]) {
    let target = TARGETS.iter().find(|t| t.name == name).expect("a target");
    let _ = (target.run)(bytes);
}

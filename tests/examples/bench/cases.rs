//! What is measured: models, tasks, formats, and who is asked besides.

use ablate_common::spec::Dtype;
use ablate_tests::program::lee;
use ablate_tests::{minilm, root, smollm2};
use std::path::{Path, PathBuf};

/// Where a case's model and task come from.
pub enum Source {
    /// A model's file, with its format as peers.py calls it, and the task's part of a spec.
    File { path: PathBuf, format: &'static str, task: String },
    /// Random weights of a shape (see shape.rs), so many sequences of so many random tokens.
    Shape { shape: Shape, sequences: u32, tokens: u32 },
}

/// A Llama's shape.
#[derive(Clone, Copy)]
pub struct Shape {
    pub layers: u32,
    pub d_model: u32,
    pub heads: u32,
    pub kv_heads: u32,
    pub d_ff: u32,
    pub vocab: u32,
}

/// A number format, with the peers that are asked and the formats in which they are.
pub type Formats = &'static [(Dtype, &'static [(&'static str, &'static str)])];

pub struct Case {
    pub name: &'static str,
    pub model: &'static str,
    pub task: &'static str,
    pub source: Source,
    pub formats: Formats,
    /// Runs on a GPU, and only where there is one.
    pub gpu: bool,
    /// Runs only where it is named.
    pub named: bool,
}

const F32: (Dtype, &[(&str, &str)]) =
    (Dtype::F32, &[("transformer_lens", "f32"), ("nnsight", "f32"), ("hooks", "f32")]);
/// bf16 against the f32 loop that people run, and against TransformerLens in bf16.
const BF16: (Dtype, &[(&str, &str)]) =
    (Dtype::Bf16, &[("transformer_lens", "f32"), ("transformer_lens", "bf16")]);
const ALONE: (Dtype, &[(&str, &str)]) = (Dtype::Bf16, &[]);

const LLAMA_3_8B: Shape =
    Shape { layers: 32, d_model: 4096, heads: 32, kv_heads: 8, d_ff: 14_336, vocab: 128_256 };
/// The same way through the code, in seconds on a CPU.
const SMALL: Shape = Shape { layers: 4, d_model: 512, heads: 4, kv_heads: 2, d_ff: 1024, vocab: 4096 };

/// All cases; data that are made lie in `folder`.
pub fn cases(folder: &Path) -> Vec<Case> {
    let wiki = root().join("models/data/wiki.jsonl");
    let lm = |examples: u32, tokens: u32| {
        format!(
            "kind = \"language_modeling\"\ndata = {wiki:?}\nexamples = {examples}\nmax_tokens = {tokens}\n"
        )
    };
    let causal = |name, task, spec, formats| Case {
        name,
        model: "SmolLM2",
        task,
        source: Source::File { path: smollm2(), format: "gguf", task: spec },
        formats,
        gpu: false,
        named: false,
    };
    let encoder = |name, texts: usize, tokens: u32| {
        let place = folder.join(name);
        std::fs::create_dir_all(&place).unwrap();
        let data = lee(&place, texts);
        let task = format!("kind = \"similarity\"\ndata = {data:?}\nmax_tokens = {tokens}\n");
        Case {
            name,
            model: "MiniLM",
            task: "similarity",
            source: Source::File { path: minilm(), format: "hf", task },
            formats: &[F32],
            gpu: false,
            named: false,
        }
    };
    let shape = |name, model, shape, sequences, tokens| Case {
        name,
        model,
        task: "language_modeling",
        source: Source::Shape { shape, sequences, tokens },
        formats: &[ALONE],
        gpu: false,
        named: true,
    };
    vec![
        causal("smollm2-64", "language_modeling", lm(4, 64), &[F32, BF16]),
        causal("smollm2-256", "language_modeling", lm(2, 256), &[F32]),
        causal("smollm2-ioi", "ioi", "kind = \"ioi\"\nexamples = 16\n".to_owned(), &[F32]),
        encoder("minilm-32", 32, 32),
        encoder("minilm-128", 12, 128),
        Case { gpu: true, ..causal("smollm2-gpu", "language_modeling", lm(32, 128), &[BF16]) },
        Case {
            gpu: true,
            named: false,
            ..shape("llama-3-8b-gpu", "Llama-3-8B's shape", LLAMA_3_8B, 32, 128)
        },
        shape("llama-small", "a small Llama's shape", SMALL, 4, 32),
    ]
}

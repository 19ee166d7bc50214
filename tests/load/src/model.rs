//! A model as wide in heads as a large one and otherwise as small as can be, and an experiment with it: planning, leases and
//! storage then have the sizes of the large one, and nobody ever runs it.

use anyhow::Context;
use serde_json::{Map, Value, json};
use std::fmt::Write as _;
use std::path::{Path, PathBuf};

/// Prompts of the experiment; each subset has a score for each.
pub const PROMPTS: usize = 10;
/// Words of the vocabulary.
const WORDS: usize = 64;
/// Positions.
const POSITIONS: usize = 16;

/// Heads of a model.
#[derive(Clone, Copy, Debug)]
pub struct Size {
    /// Layers.
    pub layers: usize,
    /// Heads of a layer, each of one dimension.
    pub heads: usize,
}

impl Size {
    /// All pairs of heads.
    #[must_use]
    pub fn pairs(self) -> u64 {
        let n = (self.layers * self.heads) as u64;
        n * (n - 1) / 2
    }
}

/// Writes a GPT-2 of random weights in f32, prompts, and the spec of all its pairs; returns the spec's path.
///
/// # Errors
/// Where the folder can't be written.
pub fn write(folder: &Path, size: Size) -> anyhow::Result<PathBuf> {
    let model = folder.join("model");
    std::fs::create_dir_all(&model).with_context(|| model.display().to_string())?;
    let config = json!({"model_type": "gpt2", "architectures": ["GPT2LMHeadModel"], "vocab_size": WORDS,
        "n_positions": POSITIONS, "n_embd": size.heads, "n_layer": size.layers, "n_head": size.heads,
        "n_inner": size.heads, "activation_function": "gelu_new", "layer_norm_epsilon": 1e-5});
    let words: Map<String, Value> = (0..WORDS).map(|i| (word(i), i.into())).collect();
    let tokenizer = json!({"version": "1.0", "truncation": null, "padding": null, "added_tokens": [], "normalizer": null,
        "pre_tokenizer": {"type": "WhitespaceSplit"}, "post_processor": null, "decoder": null,
        "model": {"type": "WordLevel", "vocab": words, "unk_token": word(0)}});
    std::fs::write(model.join("config.json"), config.to_string())?;
    std::fs::write(model.join("tokenizer.json"), tokenizer.to_string())?;
    std::fs::write(model.join("model.safetensors"), weights(size))?;
    let mut data = String::new();
    for n in 0..PROMPTS {
        let prompt: Vec<String> = (0..3 + n % 3).map(|k| word(1 + (7 * n + 5 * k) % 50)).collect();
        let record = json!({"prompt": prompt.join(" "), "target": format!(" w{}", 51 + n % 6), "foil": format!(" w{}", 57 + n % 6)});
        writeln!(data, "{record}")?;
    }
    std::fs::write(folder.join("prompts.jsonl"), data)?;
    let spec = folder.join("load.toml");
    let text = "name = \"load\"\nseed = 1\n[model]\nsource = \"model\"\ndtype = \"f32\"\n[[task]]\nname = \"prompts\"\n\
                kind = \"logit_difference\"\ndata = \"prompts.jsonl\"\nmax_tokens = 16\n[ablation]\nmethod = \"zero\"\n[[sweep]]\nkind = \"pairs\"\ngroups = false\n";
    std::fs::write(&spec, text)?;
    Ok(spec)
}

fn word(i: usize) -> String {
    if i == 0 { "<unk>".to_owned() } else { format!("w{i}") }
}

/// The model's file: safetensors, f32.
fn weights(size: Size) -> Vec<u8> {
    let d = size.heads;
    let mut tensors: Vec<(String, Vec<usize>)> = vec![
        ("transformer.wte.weight".into(), vec![WORDS, d]),
        ("transformer.wpe.weight".into(), vec![POSITIONS, d]),
        ("transformer.ln_f.weight".into(), vec![d]),
        ("transformer.ln_f.bias".into(), vec![d]),
    ];
    for l in 0..size.layers {
        let mut put =
            |name: &str, shape: Vec<usize>| tensors.push((format!("transformer.h.{l}.{name}"), shape));
        put("attn.c_attn.weight", vec![d, 3 * d]);
        put("attn.c_attn.bias", vec![3 * d]);
        put("attn.c_proj.weight", vec![d, d]);
        put("attn.c_proj.bias", vec![d]);
        put("mlp.c_fc.weight", vec![d, d]);
        put("mlp.c_fc.bias", vec![d]);
        put("mlp.c_proj.weight", vec![d, d]);
        put("mlp.c_proj.bias", vec![d]);
        for norm in ["ln_1", "ln_2"] {
            put(&format!("{norm}.weight"), vec![d]);
            put(&format!("{norm}.bias"), vec![d]);
        }
    }
    let (mut header, mut data, mut random) = (Map::new(), Vec::new(), fastrand::Rng::with_seed(1));
    for (name, shape) in tensors {
        let begin = data.len();
        for _ in 0..shape.iter().product() {
            data.extend((random.f32() - 0.5).to_le_bytes());
        }
        header.insert(name, json!({"dtype": "F32", "shape": shape, "data_offsets": [begin, data.len()]}));
    }
    let mut text = Value::Object(header).to_string();
    text.extend(std::iter::repeat_n(' ', text.len().next_multiple_of(8) - text.len()));
    let mut file = (text.len() as u64).to_le_bytes().to_vec();
    file.extend(text.as_bytes());
    file.extend(data);
    file
}

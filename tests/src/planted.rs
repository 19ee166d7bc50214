//! Small models with hand-set weights, saved as Hugging Face directories of a GPT-2.
//!
//! The residual stream holds named numbers, *features*. Feature f lies at dimension 2f, and its negative at
//! 2f + 1, so that every vector has mean 0. Feature 0 is [`LARGE`] at every position: with a gain of
//! `LARGE` · √(2 / width) a LayerNorm then gives back what it reads, but for a factor 1 − O(features² / LARGE²).
//! The feed-forward parts give 0, and attention scores aren't scaled.
#![expect(clippy::unwrap_used, reason = "tests")]

use serde_json::{Value, json};
use std::collections::BTreeMap;
use std::path::Path;

/// Feature 0. Squared it is far above every other feature, and rounding of it in f64 far below.
pub const LARGE: f64 = 1e5;

/// What a head reads the residual stream for.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Part {
    /// Its query.
    Query,
    /// Its key.
    Key,
    /// Its value.
    Value,
}

/// A model in the making.
#[derive(Clone, Debug)]
pub struct Planted {
    words: Vec<&'static str>,
    prefix: bool,
    layers: usize,
    heads: usize,
    positions: usize,
    width: usize,
    tensors: BTreeMap<String, (Vec<usize>, Vec<f64>)>,
}

impl Planted {
    /// A model whose heads do nothing yet. Word k is token k; the first is special, and stands before every
    /// text where `prefix`. It has room for `heads · head_dim / 2` features.
    #[must_use]
    pub fn new(
        words: Vec<&'static str>,
        prefix: bool,
        positions: usize,
        layers: usize,
        (heads, head_dim): (usize, usize),
    ) -> Self {
        let (width, vocab) = (heads * head_dim, words.len());
        let mut new = Self { words, prefix, layers, heads, positions, width, tensors: BTreeMap::new() };
        new.zeros("transformer.wte.weight", &[vocab, width]);
        new.zeros("transformer.wpe.weight", &[positions, width]);
        new.zeros("lm_head.weight", &[vocab, width]);
        new.norm("transformer.ln_f");
        for layer in 0..layers {
            let at = format!("transformer.h.{layer}");
            new.norm(&format!("{at}.ln_1"));
            new.norm(&format!("{at}.ln_2"));
            for (name, from, to) in [
                ("attn.c_attn", width, 3 * width),
                ("attn.c_proj", width, width),
                ("mlp.c_fc", width, 4),
                ("mlp.c_proj", 4, width),
            ] {
                new.zeros(&format!("{at}.{name}.weight"), &[from, to]);
                new.zeros(&format!("{at}.{name}.bias"), &[to]);
            }
        }
        for token in 0..vocab {
            new.embed(token, 0, LARGE);
        }
        new
    }

    fn zeros(&mut self, name: &str, shape: &[usize]) {
        self.tensors.insert(name.into(), (shape.to_vec(), vec![0.0; shape.iter().product()]));
    }

    fn norm(&mut self, name: &str) {
        self.zeros(&format!("{name}.bias"), &[self.width]);
        let gain = LARGE * (2.0 / self.width as f64).sqrt();
        self.tensors.insert(format!("{name}.weight"), (vec![self.width], vec![gain; self.width]));
    }

    fn add(&mut self, name: &str, row: usize, column: usize, value: f64) {
        let (shape, values) = self.tensors.get_mut(name).unwrap();
        assert!(row < shape[0] && column < shape[1], "{name} [{row}, {column}]");
        values[row * shape[1] + column] += value;
    }

    fn add_feature(&mut self, name: &str, row: usize, feature: usize, value: f64) {
        self.add(name, row, 2 * feature, value);
        self.add(name, row, 2 * feature + 1, -value);
    }

    /// A token begins with `value` at `feature`.
    pub fn embed(&mut self, token: usize, feature: usize, value: f64) {
        self.add_feature("transformer.wte.weight", token, feature, value);
    }

    /// Every token of a position begins with `value` at `feature`, besides what it is.
    pub fn place(&mut self, position: usize, feature: usize, value: f64) {
        self.add_feature("transformer.wpe.weight", position, feature, value);
    }

    /// Dimension `dim` of a head's query, key or value gets `factor` times `feature`.
    pub fn read(
        &mut self,
        (layer, head): (usize, usize),
        part: Part,
        dim: usize,
        feature: usize,
        factor: f64,
    ) {
        let column = part as usize * self.width + head * (self.width / self.heads) + dim;
        self.add(&format!("transformer.h.{layer}.attn.c_attn.weight"), 2 * feature, column, factor);
    }

    /// `feature` gets `factor` times dimension `dim` of a head's z.
    pub fn write(&mut self, (layer, head): (usize, usize), dim: usize, feature: usize, factor: f64) {
        let row = head * (self.width / self.heads) + dim;
        self.add_feature(&format!("transformer.h.{layer}.attn.c_proj.weight"), row, feature, factor);
    }

    /// The logit of a token gets `factor` times `feature`.
    pub fn unembed(&mut self, token: usize, feature: usize, factor: f64) {
        self.add("lm_head.weight", token, 2 * feature, factor);
    }

    /// Writes config.json, tokenizer.json and model.safetensors.
    ///
    /// # Panics
    /// Where the folder can't be written.
    pub fn save(&self, folder: &Path) {
        std::fs::create_dir_all(folder).unwrap();
        let config = json!({"model_type": "gpt2", "n_embd": self.width, "n_head": self.heads, "n_layer": self.layers,
            "n_inner": 4, "n_positions": self.positions, "vocab_size": self.words.len(), "layer_norm_epsilon": 1e-5,
            "activation_function": "relu", "scale_attn_weights": false, "tie_word_embeddings": false});
        std::fs::write(folder.join("config.json"), config.to_string()).unwrap();
        std::fs::write(folder.join("tokenizer.json"), self.tokenizer().to_string()).unwrap();
        std::fs::write(folder.join("model.safetensors"), safetensors(&self.tensors)).unwrap();
    }

    /// Words between spaces.
    fn tokenizer(&self) -> Value {
        let first = self.words[0];
        let vocab: serde_json::Map<String, Value> =
            self.words.iter().zip(0u32..).map(|(w, i)| ((*w).to_owned(), json!(i))).collect();
        let sequence = |id: &str| json!({"Sequence": {"id": id, "type_id": 0}});
        let special = json!({"SpecialToken": {"id": first, "type_id": 0}});
        let post = json!({"type": "TemplateProcessing", "single": [special, sequence("A")],
            "pair": [sequence("A"), sequence("B")], "special_tokens": {first: {"id": first, "ids": [0], "tokens": [first]}}});
        json!({"version": "1.0", "truncation": null, "padding": null, "normalizer": null,
            "added_tokens": [{"id": 0, "content": first, "single_word": false, "lstrip": false, "rstrip": false,
                "normalized": false, "special": true}],
            "pre_tokenizer": {"type": "WhitespaceSplit"}, "decoder": null,
            "post_processor": if self.prefix { post } else { Value::Null },
            "model": {"type": "WordLevel", "vocab": vocab, "unk_token": self.words.last()}})
    }
}

/// A safetensors file of f64 tensors: name → (shape, values).
#[must_use]
pub fn safetensors(tensors: &BTreeMap<String, (Vec<usize>, Vec<f64>)>) -> Vec<u8> {
    let (mut header, mut data) = (serde_json::Map::new(), Vec::new());
    for (name, (shape, values)) in tensors {
        let from = data.len();
        data.extend(values.iter().flat_map(|v| v.to_le_bytes()));
        header.insert(
            name.clone(),
            json!({"dtype": "F64", "shape": shape, "data_offsets": [from, data.len()]}),
        );
    }
    let header = Value::Object(header).to_string().into_bytes();
    [&(header.len() as u64).to_le_bytes()[..], &header, &data].concat()
}

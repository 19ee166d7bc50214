//! Small GPT-2 models with hand-set weights, of which the answer is known before anything is measured.
//!
//! The residual stream holds named features. Each is a pair of dimensions, +f and −f, and beside them stands a
//! constant C, so large that LayerNorm divides by the same number everywhere: the mean is 0 and the deviation
//! differs by less than 1e-12 of itself. The norms' gain takes that division back, so a head or neuron
//! reads features as they are and adds to them. Scores of attention are large, so that a head looks at one place.
#![expect(clippy::expect_used, reason = "tests")]

use serde_json::{Map, Value, json};
use std::path::Path;

/// Heads of a layer.
pub const HEADS: usize = 4;
/// Width of a head.
const WIDTH: usize = 32;
/// Width of the residual stream.
const D: usize = HEADS * WIDTH;
/// Neurons of a layer.
const NEURONS: usize = 8;
/// √(2 C² / D) = 2²⁰.
const DEVIATION: f64 = 1_048_576.0;

/// A feature of the residual stream, from 1 on; below `D / 2`.
pub type Feature = usize;

/// What a head does. Dimensions are those of the head, from 0.
#[derive(Clone, Debug, Default)]
pub struct HeadSpec {
    /// Query: (feature, dimension, weight).
    pub q: Vec<(Feature, usize, f64)>,
    /// Constant part of the query: (dimension, value).
    pub q_bias: Vec<(usize, f64)>,
    /// Key.
    pub k: Vec<(Feature, usize, f64)>,
    /// Value.
    pub v: Vec<(Feature, usize, f64)>,
    /// Output: (dimension, feature, weight).
    pub o: Vec<(usize, Feature, f64)>,
}

/// A neuron: relu(Σ weight · feature + bias), which is added to features with weights.
#[derive(Clone, Debug, Default)]
pub struct Neuron {
    /// (feature, weight).
    pub reads: Vec<(Feature, f64)>,
    /// Its bias.
    pub bias: f64,
    /// (feature, weight).
    pub writes: Vec<(Feature, f64)>,
}

/// One layer.
#[derive(Clone, Debug, Default)]
pub struct Layer {
    /// Up to [`HEADS`]; the rest do nothing.
    pub heads: Vec<HeadSpec>,
    /// Up to 8.
    pub neurons: Vec<Neuron>,
}

/// A model.
#[derive(Clone, Debug, Default)]
pub struct Net {
    /// Words of the vocabulary; token ids are their places.
    pub words: Vec<String>,
    /// Features that a word has: (word, feature, value).
    pub embed: Vec<(usize, Feature, f64)>,
    /// Features that a position has: (position, feature, value).
    pub positions: Vec<(usize, Feature, f64)>,
    /// Layers.
    pub layers: Vec<Layer>,
    /// Logits: (word, feature, weight).
    pub logits: Vec<(usize, Feature, f64)>,
}

/// A matrix, row by row.
struct Matrix(usize, usize, Vec<f64>);

impl Matrix {
    fn new(rows: usize, columns: usize) -> Self {
        Self(rows, columns, vec![0.0; rows * columns])
    }

    fn add(&mut self, row: usize, column: usize, value: f64) {
        self.2[row * self.1 + column] += value;
    }

    /// `column` reads a feature from rows that are dimensions of the residual stream.
    fn read(&mut self, feature: Feature, column: usize, weight: f64) {
        assert!((1..D / 2).contains(&feature), "feature {feature}");
        self.add(2 * feature, column, weight / 2.0);
        self.add(2 * feature + 1, column, -weight / 2.0);
    }

    /// `row` writes a feature to columns that are dimensions of the residual stream.
    fn write(&mut self, row: usize, feature: Feature, weight: f64) {
        assert!((1..D / 2).contains(&feature), "feature {feature}");
        self.add(row, 2 * feature, weight);
        self.add(row, 2 * feature + 1, -weight);
    }

    fn turned(&self) -> Self {
        let mut t = Self::new(self.1, self.0);
        for r in 0..self.0 {
            for c in 0..self.1 {
                t.add(c, r, self.2[r * self.1 + c]);
            }
        }
        t
    }
}

impl Net {
    /// Writes the model as a Hugging Face directory of f64 weights, with a tokenizer that splits at spaces.
    ///
    /// # Panics
    /// Where the folder can't be written, or a feature or head doesn't fit.
    pub fn save(&self, folder: &Path) {
        std::fs::create_dir_all(folder).expect("the folder can be made");
        let config = json!({"model_type": "gpt2", "architectures": ["GPT2LMHeadModel"], "vocab_size": self.words.len(),
            "n_positions": 32, "n_embd": D, "n_layer": self.layers.len(), "n_head": HEADS, "n_inner": NEURONS,
            "activation_function": "relu", "layer_norm_epsilon": 1e-12, "scale_attn_weights": false, "tie_word_embeddings": false});
        let words: Map<String, Value> =
            self.words.iter().enumerate().map(|(i, w)| (w.clone(), i.into())).collect();
        let tokenizer = json!({"version": "1.0", "truncation": null, "padding": null, "added_tokens": [], "normalizer": null,
            "pre_tokenizer": {"type": "WhitespaceSplit"}, "post_processor": null, "decoder": null,
            "model": {"type": "WordLevel", "vocab": words, "unk_token": self.words[0]}});
        for (name, value) in [("config.json", config), ("tokenizer.json", tokenizer)] {
            std::fs::write(folder.join(name), value.to_string()).expect("the folder can be written");
        }
        std::fs::write(folder.join("model.safetensors"), safetensors(&self.tensors()))
            .expect("the folder can be written");
    }

    fn tensors(&self) -> Vec<(String, Vec<usize>, Vec<f64>)> {
        let mut all = Vec::new();
        let mut put = |name: &str, m: Matrix| all.push((format!("transformer.{name}"), vec![m.0, m.1], m.2));
        let mut embed = Matrix::new(self.words.len(), D);
        // C itself, half in +, half in −; √(2 C² / D) is the deviation.
        let constant = DEVIATION * (D as f64 / 2.0).sqrt();
        for word in 0..self.words.len() {
            embed.add(word, 0, constant);
            embed.add(word, 1, -constant);
        }
        self.embed.iter().for_each(|&(word, f, value)| embed.write(word, f, value));
        put("wte.weight", embed);
        let mut positions = Matrix::new(32, D);
        self.positions.iter().for_each(|&(at, f, value)| positions.write(at, f, value));
        put("wpe.weight", positions);
        let mut logits = Matrix::new(D, self.words.len());
        self.logits.iter().for_each(|&(word, f, weight)| logits.read(f, word, weight));
        let logits = logits.turned();
        let mut vectors = Vec::new();
        let mut vector =
            |name: String, v: Vec<f64>| vectors.push((format!("transformer.{name}"), vec![v.len()], v));
        for (l, layer) in self.layers.iter().enumerate() {
            assert!(layer.heads.len() <= HEADS && layer.neurons.len() <= NEURONS);
            let (mut qkv, mut out) = (Matrix::new(D, 3 * D), Matrix::new(D, D));
            let mut bias = vec![0.0; 3 * D];
            for (h, head) in layer.heads.iter().enumerate() {
                for (part, reads) in [&head.q, &head.k, &head.v].into_iter().enumerate() {
                    for &(f, dim, weight) in reads {
                        assert!(dim < WIDTH);
                        qkv.read(f, part * D + h * WIDTH + dim, weight);
                    }
                }
                head.q_bias.iter().for_each(|&(dim, value)| bias[h * WIDTH + dim] += value);
                head.o.iter().for_each(|&(dim, f, weight)| out.write(h * WIDTH + dim, f, weight));
            }
            let (mut up, mut down, mut up_bias) =
                (Matrix::new(D, NEURONS), Matrix::new(NEURONS, D), vec![0.0; NEURONS]);
            for (n, neuron) in layer.neurons.iter().enumerate() {
                neuron.reads.iter().for_each(|&(f, weight)| up.read(f, n, weight));
                neuron.writes.iter().for_each(|&(f, weight)| down.write(n, f, weight));
                up_bias[n] = neuron.bias;
            }
            put(&format!("h.{l}.attn.c_attn.weight"), qkv);
            put(&format!("h.{l}.attn.c_proj.weight"), out);
            put(&format!("h.{l}.mlp.c_fc.weight"), up);
            put(&format!("h.{l}.mlp.c_proj.weight"), down);
            vector(format!("h.{l}.attn.c_attn.bias"), bias);
            vector(format!("h.{l}.attn.c_proj.bias"), vec![0.0; D]);
            vector(format!("h.{l}.mlp.c_fc.bias"), up_bias);
            vector(format!("h.{l}.mlp.c_proj.bias"), vec![0.0; D]);
            for norm in ["ln_1", "ln_2"] {
                vector(format!("h.{l}.{norm}.weight"), vec![DEVIATION; D]);
                vector(format!("h.{l}.{norm}.bias"), vec![0.0; D]);
            }
        }
        vector("ln_f.weight".into(), vec![DEVIATION; D]);
        vector("ln_f.bias".into(), vec![0.0; D]);
        all.extend(vectors);
        all.push(("lm_head.weight".into(), vec![logits.0, logits.1], logits.2));
        all
    }
}

fn safetensors(tensors: &[(String, Vec<usize>, Vec<f64>)]) -> Vec<u8> {
    let (mut header, mut data) = (Map::new(), Vec::new());
    for (name, shape, values) in tensors {
        let from = data.len();
        values.iter().for_each(|v| data.extend(v.to_le_bytes()));
        header.insert(
            name.clone(),
            json!({"dtype": "F64", "shape": shape, "data_offsets": [from, data.len()]}),
        );
    }
    let header = Value::Object(header).to_string();
    [&(header.len() as u64).to_le_bytes()[..], header.as_bytes(), &data].concat()
}

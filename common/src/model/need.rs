//! The tensors that an architecture needs, by the names that its files use.

use super::{ModelInfo, WeightIndex};
use std::collections::BTreeMap;

/// A list of (name, shape).
pub type Needs = Vec<(String, Vec<u64>)>;

/// Tensors of a Llama in GGUF naming.
pub fn llama_gguf(m: &ModelInfo) -> Needs {
    let (d, ff, q, kv) = dims(m);
    let vocab = u64::from(m.vocab);
    let mut out = vec![("token_embd.weight".into(), vec![vocab, d]), ("output_norm.weight".into(), vec![d])];
    if !m.tied {
        out.push(("output.weight".into(), vec![vocab, d]));
    }
    for n in 0..m.layers {
        for (name, shape) in [
            ("attn_norm", vec![d]),
            ("attn_q", vec![q, d]),
            ("attn_k", vec![kv, d]),
            ("attn_v", vec![kv, d]),
            ("attn_output", vec![d, q]),
            ("ffn_norm", vec![d]),
            ("ffn_gate", vec![ff, d]),
            ("ffn_up", vec![ff, d]),
            ("ffn_down", vec![d, ff]),
        ] {
            out.push((format!("blk.{n}.{name}.weight"), shape));
        }
    }
    out
}

/// A gain without a shift.
pub fn bare(out: &mut Needs, name: &str, n: u64) {
    out.push((format!("{name}.weight"), vec![n]));
}

/// A matrix of `rows` outputs, with or without a bias.
pub fn linear(out: &mut Needs, name: &str, rows: u64, cols: u64, bias: bool) {
    out.push((format!("{name}.weight"), vec![rows, cols]));
    if bias {
        out.push((format!("{name}.bias"), vec![rows]));
    }
}

/// A norm (no `cols`) or a matrix, with its bias.
pub fn pair(out: &mut Needs, name: &str, rows: u64, cols: Option<u64>) {
    out.push((format!("{name}.weight"), std::iter::once(rows).chain(cols).collect()));
    out.push((format!("{name}.bias"), vec![rows]));
}

/// Tensors of a BERT, with `prefix` ("" or "bert.") before every name.
pub fn bert(m: &ModelInfo, types: u64, prefix: &str) -> Needs {
    let (d, ff, ..) = dims(m);
    let mut out: Needs = Vec::new();
    for (name, rows) in
        [("word", u64::from(m.vocab)), ("position", u64::from(m.context)), ("token_type", types)]
    {
        out.push((format!("{prefix}embeddings.{name}_embeddings.weight"), vec![rows, d]));
    }
    let mut pair = |name: String, rows, cols| pair(&mut out, &name, rows, cols);
    pair(format!("{prefix}embeddings.LayerNorm"), d, None);
    for n in 0..m.layers {
        let layer = format!("{prefix}encoder.layer.{n}");
        for part in ["query", "key", "value"] {
            pair(format!("{layer}.attention.self.{part}"), d, Some(d));
        }
        pair(format!("{layer}.attention.output.dense"), d, Some(d));
        pair(format!("{layer}.attention.output.LayerNorm"), d, None);
        pair(format!("{layer}.intermediate.dense"), ff, Some(d));
        pair(format!("{layer}.output.dense"), d, Some(ff));
        pair(format!("{layer}.output.LayerNorm"), d, None);
    }
    out
}

/// `d_model`, `d_ff`, and the widths of all queries and of all keys.
pub fn dims(m: &ModelInfo) -> (u64, u64, u64, u64) {
    let head = u64::from(m.head_dim);
    (u64::from(m.d_model), u64::from(m.d_ff), u64::from(m.n_heads) * head, u64::from(m.n_kv_heads) * head)
}

/// Checks that `index` holds all of `needs` with the right shapes; `skipped` names tensors of types that
/// can't be read.
pub fn check(needs: Needs, index: &WeightIndex, skipped: &BTreeMap<String, String>) -> Result<(), String> {
    for (name, shape) in needs {
        match index.tensors.get(&name) {
            Some(t) if t.shape == shape => {}
            Some(t) => {
                return Err(format!(
                    "tensor {name} has shape {:?}, but the model's configuration needs {shape:?}",
                    t.shape
                ));
            }
            None => {
                return Err(match skipped.get(&name) {
                    Some(dtype) => format!("tensor {name} is of type {dtype}, which can't be read"),
                    None => {
                        format!("tensor {name} is missing: the file is incomplete or of another architecture")
                    }
                });
            }
        }
    }
    Ok(())
}

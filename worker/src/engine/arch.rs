//! Architectures as data: what the one block does, and where an architecture's files keep its weights.

use super::model::{Block, Model, Norm, rotary_tables};
use crate::load::{Error, Weights};
use ablate_common::model::ModelInfo;
use tch::{Device, Kind, Tensor};

/// Kind of normalisation.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum NormKind {
    /// Mean and variance, gain and shift.
    Layer,
    /// Root mean square, gain.
    Rms,
}

/// Where the norms stand.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum NormPlace {
    /// Before attention and before the feed-forward part.
    Pre,
    /// After each residual sum.
    Post,
}

/// How positions come in.
#[derive(Clone, Copy, Debug, PartialEq)]
pub enum Positions {
    /// Learned vectors added to the embeddings.
    Learned,
    /// Rotation of queries and keys.
    Rotary {
        /// Base of the frequencies.
        theta: f64,
    },
}

/// Kind of feed-forward part.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Mlp {
    /// silu(gate) · up.
    SiluGated,
    /// Exact GELU.
    Gelu,
}

/// What the block does.
#[derive(Clone, Copy, Debug, PartialEq)]
pub struct Arch {
    /// Kind of norm.
    pub norm: NormKind,
    /// Where norms stand.
    pub place: NormPlace,
    /// Positions.
    pub positions: Positions,
    /// Feed-forward part.
    pub mlp: Mlp,
    /// Whether attention looks only backwards.
    pub causal: bool,
}

/// Loads a model whose headers [`ablate_common::model::inspect`] has checked.
///
/// # Errors
/// Where the architecture isn't known or a tensor can't be read.
pub fn load(
    info: &ModelInfo,
    weights: &Weights<'_>,
    device: Device,
    kind: Kind,
    progress: &dyn Fn(&str, u64, u64),
) -> Result<Model, Error> {
    match info.arch.as_str() {
        "llama" => llama(info, weights, device, kind, progress),
        "bert" => bert(info, weights, device, kind, progress),
        other => Err(Error::Tensor {
            name: other.into(),
            detail: "this worker has no such architecture (llama, bert)".into(),
        }),
    }
}

/// W_O by head, `[n_heads, head_dim, d_model]`.
fn by_head(wo: &Tensor, info: &ModelInfo) -> Tensor {
    let (h, dh) = (i64::from(info.n_heads), i64::from(info.head_dim));
    wo.view([-1, h, dh]).permute([1, 2, 0]).contiguous()
}

fn llama(
    info: &ModelInfo,
    w: &Weights<'_>,
    device: Device,
    kind: Kind,
    progress: &dyn Fn(&str, u64, u64),
) -> Result<Model, Error> {
    let gguf = w.has("token_embd.weight");
    // GGUF keeps the rows of Q and K in the order of interleaved rotation; put the halves back.
    let unpermute = |t: Tensor, heads: u32| -> Tensor {
        if !gguf {
            return t;
        }
        let (h, dh, d) = (i64::from(heads), i64::from(info.head_dim), t.size()[1]);
        t.view([h, dh / 2, 2, d]).transpose(1, 2).reshape([h * dh, d])
    };
    let rms = |name: &str| -> Result<Norm, Error> { Ok(Norm { weight: w.get(name)?, bias: None }) };
    let mut blocks = Vec::new();
    for i in 0..info.layers {
        progress("load model", u64::from(i), u64::from(info.layers));
        let names = if gguf {
            [
                "attn_q",
                "attn_k",
                "attn_v",
                "attn_output",
                "ffn_gate",
                "ffn_up",
                "ffn_down",
                "attn_norm",
                "ffn_norm",
            ]
            .map(|n| format!("blk.{i}.{n}.weight"))
        } else {
            [
                "self_attn.q_proj",
                "self_attn.k_proj",
                "self_attn.v_proj",
                "self_attn.o_proj",
                "mlp.gate_proj",
                "mlp.up_proj",
                "mlp.down_proj",
                "input_layernorm",
                "post_attention_layernorm",
            ]
            .map(|n| format!("model.layers.{i}.{n}.weight"))
        };
        let [q, k, v, o, gate, up, down, attn_norm, mlp_norm] = names;
        let wo = w.get(&o)?;
        blocks.push(Block {
            attn_norm: rms(&attn_norm)?,
            qkv: Tensor::cat(
                &[unpermute(w.get(&q)?, info.n_heads), unpermute(w.get(&k)?, info.n_kv_heads), w.get(&v)?],
                0,
            ),
            qkv_bias: None,
            wo_heads: by_head(&wo, info),
            wo,
            wo_bias: None,
            mlp_norm: rms(&mlp_norm)?,
            up: Tensor::cat(&[w.get(&gate)?, w.get(&up)?], 0),
            up_bias: None,
            down: w.get(&down)?,
            down_bias: None,
        });
    }
    let embed = w.get(if gguf { "token_embd.weight" } else { "model.embed_tokens.weight" })?;
    let unembed = if info.tied {
        embed.shallow_clone()
    } else {
        w.get(if gguf { "output.weight" } else { "lm_head.weight" })?
    };
    let positions = Positions::Rotary { theta: info.rope_theta.unwrap_or(10_000.0) };
    progress("load model", u64::from(info.layers), u64::from(info.layers));
    Ok(Model {
        arch: Arch {
            norm: NormKind::Rms,
            place: NormPlace::Pre,
            positions,
            mlp: Mlp::SiluGated,
            causal: true,
        },
        embed,
        position: None,
        embed_norm: None,
        blocks,
        final_norm: Some(rms(if gguf { "output_norm.weight" } else { "model.norm.weight" })?),
        unembed: Some(unembed),
        rotary: rotary_tables(positions, i64::from(info.context), i64::from(info.head_dim), kind, device),
        info: info.clone(),
        device,
        kind,
    })
}

fn bert(
    info: &ModelInfo,
    w: &Weights<'_>,
    device: Device,
    kind: Kind,
    progress: &dyn Fn(&str, u64, u64),
) -> Result<Model, Error> {
    let prefix = if w.has("bert.embeddings.word_embeddings.weight") { "bert." } else { "" };
    let get = |name: &str| w.get(&format!("{prefix}{name}"));
    // Old checkpoints call a LayerNorm's gain and shift gamma and beta.
    let norm = |name: &str| -> Result<Norm, Error> {
        let pick = |new: &str, old: &str| {
            let new = format!("{name}.{new}");
            if w.has(&format!("{prefix}{new}")) { get(&new) } else { get(&format!("{name}.{old}")) }
        };
        Ok(Norm { weight: pick("weight", "gamma")?, bias: Some(pick("bias", "beta")?) })
    };
    let mut blocks = Vec::new();
    for i in 0..info.layers {
        progress("load model", u64::from(i), u64::from(info.layers));
        let part = |name: &str| get(&format!("encoder.layer.{i}.{name}"));
        let stack = |kind: &str| -> Result<Tensor, Error> {
            let parts = ["query", "key", "value"].map(|p| part(&format!("attention.self.{p}.{kind}")));
            Ok(Tensor::cat(&parts.into_iter().collect::<Result<Vec<_>, _>>()?, 0))
        };
        let wo = part("attention.output.dense.weight")?;
        blocks.push(Block {
            attn_norm: norm(&format!("encoder.layer.{i}.attention.output.LayerNorm"))?,
            qkv: stack("weight")?,
            qkv_bias: Some(stack("bias")?),
            wo_heads: by_head(&wo, info),
            wo,
            wo_bias: Some(part("attention.output.dense.bias")?),
            mlp_norm: norm(&format!("encoder.layer.{i}.output.LayerNorm"))?,
            up: part("intermediate.dense.weight")?,
            up_bias: Some(part("intermediate.dense.bias")?),
            down: part("output.dense.weight")?,
            down_bias: Some(part("output.dense.bias")?),
        });
    }
    progress("load model", u64::from(info.layers), u64::from(info.layers));
    let position = get("embeddings.position_embeddings.weight")?
        + get("embeddings.token_type_embeddings.weight")?.get(0);
    Ok(Model {
        arch: Arch {
            norm: NormKind::Layer,
            place: NormPlace::Post,
            positions: Positions::Learned,
            mlp: Mlp::Gelu,
            causal: false,
        },
        embed: get("embeddings.word_embeddings.weight")?,
        position: Some(position),
        embed_norm: Some(norm("embeddings.LayerNorm")?),
        blocks,
        final_norm: None,
        unembed: None,
        rotary: None,
        info: info.clone(),
        device,
        kind,
    })
}

//! Llama and the decoders built like it: llama, mistral, qwen2, qwen3, phi3, gemma2.

use super::super::need::{Needs, bare, dims, linear};
use super::super::{Activation, Error, ModelInfo, WeightIndex};
use super::config::Config;

type Read = Result<(ModelInfo, Needs), Error>;

/// How a family member's tensors differ from Llama's.
#[derive(Clone, Copy, Default)]
struct Naming {
    /// Queries, keys and values in one matrix, gate and up in another.
    fused: bool,
    /// Norms of each head's queries and keys.
    qk_norm: bool,
    /// Norms behind attention and feed-forward part, too.
    sandwich: bool,
}

/// Shape and rotary embedding, as all of the family have them.
fn base(c: &Config<'_>, info: &mut ModelInfo, share: &str) -> Result<(), Error> {
    c.shape(info, ["hidden_size", "num_attention_heads", "num_hidden_layers"])?;
    if let Some(n) = c.uint("num_key_value_heads")? {
        info.n_kv_heads = n;
    }
    info.d_ff = c.need("intermediate_size")?;
    info.context = c.need("max_position_embeddings")?;
    info.norm_eps = c.float("rms_norm_eps")?;
    info.tied = c.flag("tie_word_embeddings", false)?;
    info.details.activation = c.activation("hidden_act", Activation::Silu)?;
    c.rotary(info, "rope_theta", (share, 1.0))
}

pub fn llama(c: &Config<'_>, mut info: ModelInfo, _: &WeightIndex) -> Read {
    base(c, &mut info, "")?;
    c.only("layer_types", &[])?;
    let bias = c.flag("attention_bias", false)?;
    (info.details.qkv_bias, info.details.out_bias) = (bias, bias);
    info.details.mlp_bias = c.flag("mlp_bias", false)?;
    let needs = needs(&info, Naming::default());
    Ok((info, needs))
}

pub fn mistral(c: &Config<'_>, mut info: ModelInfo, _: &WeightIndex) -> Read {
    base(c, &mut info, "")?;
    c.only("layer_types", &[])?;
    c.only("attention_bias", &[false.into()])?;
    // Missing and null are different: the first is Mistral 7B's own window.
    let window =
        if c.is_null("sliding_window") { None } else { Some(c.uint("sliding_window")?.unwrap_or(4096)) };
    same_window(&mut info, window);
    let needs = needs(&info, Naming::default());
    Ok((info, needs))
}

pub fn qwen2(c: &Config<'_>, mut info: ModelInfo, _: &WeightIndex) -> Read {
    base(c, &mut info, "")?;
    info.details.qkv_bias = true;
    qwen_windows(c, &mut info)?;
    let needs = needs(&info, Naming::default());
    Ok((info, needs))
}

pub fn qwen3(c: &Config<'_>, mut info: ModelInfo, _: &WeightIndex) -> Read {
    base(c, &mut info, "")?;
    if c.get("head_dim").is_none() {
        info.head_dim = 128;
    }
    let bias = c.flag("attention_bias", false)?;
    (info.details.qkv_bias, info.details.out_bias) = (bias, bias);
    qwen_windows(c, &mut info)?;
    let needs = needs(&info, Naming { qk_norm: true, ..Naming::default() });
    Ok((info, needs))
}

pub fn phi3(c: &Config<'_>, mut info: ModelInfo, _: &WeightIndex) -> Read {
    base(c, &mut info, "partial_rotary_factor")?;
    c.only("layer_types", &[])?;
    if let Some(scaling) = &info.details.rope_scaling {
        return Err(c.unsupported(format!("rope_scaling {scaling:?} isn't supported in a phi3")));
    }
    let window = c.uint("sliding_window")?;
    same_window(&mut info, window);
    let needs = needs(&info, Naming { fused: true, ..Naming::default() });
    Ok((info, needs))
}

pub fn gemma2(c: &Config<'_>, mut info: ModelInfo, _: &WeightIndex) -> Read {
    // hidden_act is an older name, which hidden_activation overrides.
    base(c, &mut info, "")?;
    info.details.activation = c.activation("hidden_activation", Activation::GeluTanh)?;
    if c.get("head_dim").is_none() {
        info.head_dim = 256;
    }
    info.tied = c.flag("tie_word_embeddings", true)?;
    let bias = c.flag("attention_bias", false)?;
    (info.details.qkv_bias, info.details.out_bias) = (bias, bias);
    info.details.attention_scale = Some(c.positive("query_pre_attn_scalar")?.unwrap_or(256.0).powf(-0.5));
    let cap = |key: &str, usual: f64| -> Result<Option<f64>, Error> {
        if c.is_null(key) { Ok(None) } else { Ok(Some(c.positive(key)?.unwrap_or(usual))) }
    };
    info.details.attention_softcap = cap("attn_logit_softcapping", 50.0)?;
    info.details.logit_softcap = cap("final_logit_softcapping", 30.0)?;
    let window =
        if c.is_null("sliding_window") { None } else { Some(c.uint("sliding_window")?.unwrap_or(4096)) };
    layer_windows(c, &mut info, window, |layer| layer % 2 == 0)?;
    let needs = needs(&info, Naming { sandwich: true, ..Naming::default() });
    Ok((info, needs))
}

/// Qwen's window, in force only where another key says so, from a layer on.
fn qwen_windows(c: &Config<'_>, info: &mut ModelInfo) -> Result<(), Error> {
    let window = if c.flag("use_sliding_window", false)? && !c.is_null("sliding_window") {
        Some(c.uint("sliding_window")?.unwrap_or(4096))
    } else {
        None
    };
    let first = c.uint("max_window_layers")?.unwrap_or(28);
    layer_windows(c, info, window, |layer| layer >= first)
}

fn same_window(info: &mut ModelInfo, window: Option<u32>) {
    if window.is_some() {
        info.details.windows = vec![window; info.layers as usize];
    }
}

/// Windows by `layer_types`, or else where `usual` says so.
fn layer_windows(
    c: &Config<'_>,
    info: &mut ModelInfo,
    window: Option<u32>,
    usual: impl Fn(u32) -> bool,
) -> Result<(), Error> {
    let sliding: Vec<bool> = match c.get("layer_types") {
        None => (0..info.layers).map(|l| window.is_some() && usual(l)).collect(),
        Some(v) => {
            let types = v.as_array().filter(|a| a.len() == info.layers as usize).ok_or_else(|| {
                c.bad(format!("layer_types should be a list of {} names, but is {v}", info.layers))
            })?;
            types
                .iter()
                .map(|t| match t.as_str() {
                    Some("sliding_attention") => Ok(true),
                    Some("full_attention") => Ok(false),
                    _ => Err(c.unsupported(format!("{t} in layer_types isn't supported"))),
                })
                .collect::<Result<_, _>>()?
        }
    };
    if sliding.contains(&true) {
        if window.is_none() {
            return Err(c.bad("layer_types has sliding_attention, but there is no sliding_window".into()));
        }
        info.details.windows = sliding.into_iter().map(|s| if s { window } else { None }).collect();
    }
    Ok(())
}

fn needs(m: &ModelInfo, naming: Naming) -> Needs {
    let (d, ff, q, kv) = dims(m);
    let (vocab, details) = (u64::from(m.vocab), &m.details);
    let mut out = Vec::new();
    linear(&mut out, "model.embed_tokens", vocab, d, false);
    bare(&mut out, "model.norm", d);
    if !m.tied {
        linear(&mut out, "lm_head", vocab, d, false);
    }
    for n in 0..m.layers {
        let layer = format!("model.layers.{n}");
        let mut matrix =
            |name: &str, rows, cols, bias| linear(&mut out, &format!("{layer}.{name}"), rows, cols, bias);
        if naming.fused {
            matrix("self_attn.qkv_proj", q + 2 * kv, d, details.qkv_bias);
            matrix("mlp.gate_up_proj", 2 * ff, d, details.mlp_bias);
        } else {
            for (name, rows) in [("q_proj", q), ("k_proj", kv), ("v_proj", kv)] {
                matrix(&format!("self_attn.{name}"), rows, d, details.qkv_bias);
            }
            matrix("mlp.gate_proj", ff, d, details.mlp_bias);
            matrix("mlp.up_proj", ff, d, details.mlp_bias);
        }
        matrix("self_attn.o_proj", d, q, details.out_bias);
        matrix("mlp.down_proj", d, ff, details.mlp_bias);
        let mut norms = vec!["input_layernorm", "post_attention_layernorm"];
        if naming.sandwich {
            norms.extend(["pre_feedforward_layernorm", "post_feedforward_layernorm"]);
        }
        for name in norms {
            bare(&mut out, &format!("{layer}.{name}"), d);
        }
        if naming.qk_norm {
            for name in ["q_norm", "k_norm"] {
                bare(&mut out, &format!("{layer}.self_attn.{name}"), u64::from(m.head_dim));
            }
        }
    }
    out
}

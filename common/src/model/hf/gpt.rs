//! Decoders with LayerNorm: gpt2, gpt_neox, opt.

use super::super::need::{Needs, dims, linear, pair};
use super::super::{Activation, Error, ModelInfo, WeightIndex};
use super::config::Config;

type Read = Result<(ModelInfo, Needs), Error>;

pub fn gpt2(c: &Config<'_>, mut info: ModelInfo, weights: &WeightIndex) -> Read {
    c.shape(&mut info, ["n_embd", "n_head", "n_layer"])?;
    c.only("head_dim", &[])?;
    c.only("scale_attn_by_inverse_layer_idx", &[false.into()])?;
    c.only("reorder_and_upcast_attn", &[false.into()])?;
    info.d_ff = c.uint("n_inner")?.unwrap_or(info.d_model.saturating_mul(4));
    info.context = c.need("n_positions")?;
    info.norm_eps = c.float("layer_norm_epsilon")?;
    info.tied = c.flag("tie_word_embeddings", true)?;
    info.details.activation = c.activation("activation_function", Activation::GeluTanh)?;
    if !c.flag("scale_attn_weights", true)? {
        info.details.attention_scale = Some(1.0);
    }
    let prefix = if weights.tensors.contains_key("transformer.wte.weight") { "transformer." } else { "" };
    let (d, ff, ..) = dims(&info);
    let mut out = Vec::new();
    linear(&mut out, &format!("{prefix}wte"), info.vocab.into(), d, false);
    linear(&mut out, &format!("{prefix}wpe"), info.context.into(), d, false);
    pair(&mut out, &format!("{prefix}ln_f"), d, None);
    if !info.tied {
        linear(&mut out, "lm_head", info.vocab.into(), d, false);
    }
    for n in 0..info.layers {
        let layer = format!("{prefix}h.{n}");
        for norm in ["ln_1", "ln_2"] {
            pair(&mut out, &format!("{layer}.{norm}"), d, None);
        }
        // These are kept transposed: rows are inputs.
        for (name, from, to) in
            [("attn.c_attn", d, 3 * d), ("attn.c_proj", d, d), ("mlp.c_fc", d, ff), ("mlp.c_proj", ff, d)]
        {
            out.push((format!("{layer}.{name}.weight"), vec![from, to]));
            out.push((format!("{layer}.{name}.bias"), vec![to]));
        }
    }
    Ok((info, out))
}

pub fn gpt_neox(c: &Config<'_>, mut info: ModelInfo, _: &WeightIndex) -> Read {
    c.shape(&mut info, ["hidden_size", "num_attention_heads", "num_hidden_layers"])?;
    c.only("head_dim", &[])?;
    info.d_ff = c.need("intermediate_size")?;
    info.context = c.need("max_position_embeddings")?;
    info.norm_eps = c.float("layer_norm_eps")?;
    info.tied = c.flag("tie_word_embeddings", false)?;
    info.details.activation = c.activation("hidden_act", Activation::Gelu)?;
    info.details.parallel = c.flag("use_parallel_residual", true)?;
    let bias = c.flag("attention_bias", true)?;
    (info.details.qkv_bias, info.details.out_bias) = (bias, bias);
    c.rotary(&mut info, "rotary_emb_base", ("rotary_pct", 0.25))?;
    let (d, ff, ..) = dims(&info);
    let mut out = Vec::new();
    linear(&mut out, "gpt_neox.embed_in", info.vocab.into(), d, false);
    pair(&mut out, "gpt_neox.final_layer_norm", d, None);
    if !info.tied {
        linear(&mut out, "embed_out", info.vocab.into(), d, false);
    }
    for n in 0..info.layers {
        let layer = format!("gpt_neox.layers.{n}");
        for norm in ["input_layernorm", "post_attention_layernorm"] {
            pair(&mut out, &format!("{layer}.{norm}"), d, None);
        }
        linear(&mut out, &format!("{layer}.attention.query_key_value"), 3 * d, d, bias);
        linear(&mut out, &format!("{layer}.attention.dense"), d, d, bias);
        pair(&mut out, &format!("{layer}.mlp.dense_h_to_4h"), ff, Some(d));
        pair(&mut out, &format!("{layer}.mlp.dense_4h_to_h"), d, Some(ff));
    }
    Ok((info, out))
}

pub fn opt(c: &Config<'_>, mut info: ModelInfo, weights: &WeightIndex) -> Read {
    c.shape(&mut info, ["hidden_size", "num_attention_heads", "num_hidden_layers"])?;
    c.only("head_dim", &[])?;
    c.only("layer_norm_elementwise_affine", &[true.into()])?;
    c.only("_remove_final_layer_norm", &[false.into()])?;
    info.d_ff = c.need("ffn_dim")?;
    info.context = c.need("max_position_embeddings")?;
    info.norm_eps = 1e-5;
    info.tied = c.flag("tie_word_embeddings", true)?;
    info.details.activation = c.activation("activation_function", Activation::Relu)?;
    info.details.post_norm = !c.flag("do_layer_norm_before", true)?;
    info.details.embedding_width = c.uint("word_embed_proj_dim")?.filter(|&n| n != info.d_model);
    let bias = c.flag("enable_bias", true)?;
    (info.details.qkv_bias, info.details.out_bias, info.details.mlp_bias) = (bias, bias, bias);
    let prefix =
        if weights.tensors.contains_key("decoder.embed_tokens.weight") { "decoder" } else { "model.decoder" };
    let (d, ff, ..) = dims(&info);
    let embedding = info.details.embedding_width.map_or(d, u64::from);
    let mut out = Vec::new();
    linear(&mut out, &format!("{prefix}.embed_tokens"), info.vocab.into(), embedding, false);
    // Two more positions than tokens: the first two are never used.
    linear(&mut out, &format!("{prefix}.embed_positions"), u64::from(info.context) + 2, d, false);
    if embedding != d {
        linear(&mut out, &format!("{prefix}.project_in"), d, embedding, false);
        linear(&mut out, &format!("{prefix}.project_out"), embedding, d, false);
    }
    if !info.details.post_norm {
        pair(&mut out, &format!("{prefix}.final_layer_norm"), d, None);
    }
    if !info.tied {
        linear(&mut out, "lm_head", info.vocab.into(), embedding, false);
    }
    for n in 0..info.layers {
        let layer = format!("{prefix}.layers.{n}");
        for norm in ["self_attn_layer_norm", "final_layer_norm"] {
            pair(&mut out, &format!("{layer}.{norm}"), d, None);
        }
        for name in ["q_proj", "k_proj", "v_proj", "out_proj"] {
            linear(&mut out, &format!("{layer}.self_attn.{name}"), d, d, bias);
        }
        linear(&mut out, &format!("{layer}.fc1"), ff, d, bias);
        linear(&mut out, &format!("{layer}.fc2"), d, ff, bias);
    }
    Ok((info, out))
}

//! Decoders with LayerNorm.

use super::{Activation, Arch, NormKind, NormPlace, Positions, Source, by_head};
use crate::engine::model::{Block, Feed, Model};
use crate::load::Error;
use tch::Tensor;

/// GPT-2. Its matrices are kept transposed: rows are inputs.
pub fn gpt2(s: &Source<'_>) -> Result<Model, Error> {
    let prefix = if s.weights.has("transformer.wte.weight") { "transformer." } else { "" };
    let mlp = s.mlp(Activation::GeluTanh, false);
    let arch = Arch {
        norm: NormKind::Layer,
        place: NormPlace::Pre,
        positions: Positions::Learned,
        mlp,
        causal: true,
    };
    let mut model = s.model(arch, s.get(&format!("{prefix}wte.weight"))?);
    for layer in 0..s.info.layers {
        s.loaded(layer);
        let at = format!("{prefix}h.{layer}");
        let turned = |name: &str| -> Result<(Tensor, Option<Tensor>), Error> {
            let (weight, bias) = s.linear(&format!("{at}.{name}"), true)?;
            Ok((weight.transpose(0, 1).contiguous(), bias))
        };
        let (qkv, qkv_bias) = turned("attn.c_attn")?;
        let (wo, wo_bias) = turned("attn.c_proj")?;
        let (up, up_bias) = turned("mlp.c_fc")?;
        let (down, down_bias) = turned("mlp.c_proj")?;
        model.blocks.push(Block {
            attn_norm: s.norm(&format!("{at}.ln_1"), true)?,
            qkv,
            qkv_bias,
            qk_norm: None,
            wo_heads: by_head(&wo, s.info),
            wo,
            wo_bias,
            post_attn_norm: None,
            feed: Some(Feed {
                norm: s.norm(&format!("{at}.ln_2"), true)?,
                up,
                up_bias,
                down,
                down_bias,
                post_norm: None,
            }),
        });
    }
    s.loaded(s.info.layers);
    model.position = Some(s.get(&format!("{prefix}wpe.weight"))?);
    model.final_norm = Some(s.norm(&format!("{prefix}ln_f"), true)?);
    model.unembed =
        if s.info.tied { Some(model.embed.shallow_clone()) } else { s.unembedding("lm_head.weight")? };
    Ok(model)
}

/// GPT-NeoX: queries, keys and values of a head lie together.
pub fn gpt_neox(s: &Source<'_>) -> Result<Model, Error> {
    let details = &s.info.details;
    let (positions, rotary) = s.rotary();
    let place = if details.parallel { NormPlace::Parallel } else { NormPlace::Pre };
    let mlp = s.mlp(Activation::Gelu, false);
    let arch = Arch { norm: NormKind::Layer, place, positions, mlp, causal: true };
    let mut model = s.model(arch, s.get("gpt_neox.embed_in.weight")?);
    let (h, dh) = (i64::from(s.info.n_heads), i64::from(s.info.head_dim));
    // [head, (q, k, v), …] → [(q, k, v), head, …].
    let by_kind = |t: &Tensor| t.view([h, 3, dh, -1]).transpose(0, 1).reshape([3 * h * dh, -1]);
    for layer in 0..s.info.layers {
        s.loaded(layer);
        let at = format!("gpt_neox.layers.{layer}");
        let (qkv, qkv_bias) = s.linear(&format!("{at}.attention.query_key_value"), details.qkv_bias)?;
        let (wo, wo_bias) = s.linear(&format!("{at}.attention.dense"), details.out_bias)?;
        let (up, up_bias) = s.linear(&format!("{at}.mlp.dense_h_to_4h"), true)?;
        let (down, down_bias) = s.linear(&format!("{at}.mlp.dense_4h_to_h"), true)?;
        model.blocks.push(Block {
            attn_norm: s.norm(&format!("{at}.input_layernorm"), true)?,
            qkv: by_kind(&qkv),
            qkv_bias: qkv_bias.map(|b| by_kind(&b).view(-1)),
            qk_norm: None,
            wo_heads: by_head(&wo, s.info),
            wo,
            wo_bias,
            post_attn_norm: None,
            feed: Some(Feed {
                norm: s.norm(&format!("{at}.post_attention_layernorm"), true)?,
                up,
                up_bias,
                down,
                down_bias,
                post_norm: None,
            }),
        });
    }
    s.loaded(s.info.layers);
    model.rotary = rotary;
    model.final_norm = Some(s.norm("gpt_neox.final_layer_norm", true)?);
    model.unembed =
        if s.info.tied { Some(model.embed.shallow_clone()) } else { s.unembedding("embed_out.weight")? };
    Ok(model)
}

/// OPT: the first two learned positions are never used.
pub fn opt(s: &Source<'_>) -> Result<Model, Error> {
    let details = &s.info.details;
    let prefix = if s.weights.has("decoder.embed_tokens.weight") { "decoder" } else { "model.decoder" };
    let place = if details.post_norm { NormPlace::Post } else { NormPlace::Pre };
    let mlp = s.mlp(Activation::Relu, false);
    let arch = Arch { norm: NormKind::Layer, place, positions: Positions::Learned, mlp, causal: true };
    let table = s.get(&format!("{prefix}.embed_tokens.weight"))?;
    let head = if s.info.tied { Some(table.shallow_clone()) } else { s.unembedding("lm_head.weight")? };
    // Projections from and to a narrower embedding are linear: they go into the tables.
    let (embed, unembed) = if details.embedding_width.is_some() {
        let project = |name: &str| s.get(&format!("{prefix}.{name}.weight"));
        let back = project("project_out")?;
        (table.matmul(&project("project_in")?.transpose(0, 1)), head.map(|h| h.matmul(&back)))
    } else {
        (table, head)
    };
    let mut model = s.model(arch, embed);
    for layer in 0..s.info.layers {
        s.loaded(layer);
        let at = format!("{prefix}.layers.{layer}");
        let qkv = ["q_proj", "k_proj", "v_proj"].map(|n| format!("{at}.self_attn.{n}"));
        let (qkv, qkv_bias) = s.stacked(&qkv, details.qkv_bias)?;
        let (wo, wo_bias) = s.linear(&format!("{at}.self_attn.out_proj"), details.out_bias)?;
        let (up, up_bias) = s.linear(&format!("{at}.fc1"), details.mlp_bias)?;
        let (down, down_bias) = s.linear(&format!("{at}.fc2"), details.mlp_bias)?;
        model.blocks.push(Block {
            attn_norm: s.norm(&format!("{at}.self_attn_layer_norm"), true)?,
            qkv,
            qkv_bias,
            qk_norm: None,
            wo_heads: by_head(&wo, s.info),
            wo,
            wo_bias,
            post_attn_norm: None,
            feed: Some(Feed {
                norm: s.norm(&format!("{at}.final_layer_norm"), true)?,
                up,
                up_bias,
                down,
                down_bias,
                post_norm: None,
            }),
        });
    }
    s.loaded(s.info.layers);
    let positions = s.get(&format!("{prefix}.embed_positions.weight"))?;
    model.position = Some(positions.narrow(0, 2, i64::from(s.info.context)));
    if !details.post_norm {
        model.final_norm = Some(s.norm(&format!("{prefix}.final_layer_norm"), true)?);
    }
    model.unembed = unembed;
    Ok(model)
}

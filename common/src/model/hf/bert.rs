//! Encoders: bert, roberta, distilbert, albert.

use super::super::need::{self, Needs, dims, linear, pair};
use super::super::{Activation, Error, ModelInfo, WeightIndex};
use super::config::Config;

type Read = Result<(ModelInfo, Needs), Error>;

fn base(c: &Config<'_>, info: &mut ModelInfo, usual: Activation) -> Result<(), Error> {
    c.only("is_decoder", &[false.into()])?;
    c.only("head_dim", &[])?;
    c.shape(info, ["hidden_size", "num_attention_heads", "num_hidden_layers"])?;
    info.d_ff = c.need("intermediate_size")?;
    info.context = c.need("max_position_embeddings")?;
    info.norm_eps = c.float("layer_norm_eps")?;
    info.tied = c.flag("tie_word_embeddings", true)?;
    info.details.activation = c.activation("hidden_act", usual)?;
    Ok(())
}

/// BERT, and RoBERTa, which counts positions otherwise.
pub fn bert(c: &Config<'_>, mut info: ModelInfo, weights: &WeightIndex) -> Read {
    base(c, &mut info, Activation::Gelu)?;
    let own = format!("{}.", info.arch);
    let has = |p: &str| weights.tensors.contains_key(&format!("{p}embeddings.word_embeddings.weight"));
    let prefix = if has(&own) { own.as_str() } else { "" };
    let types = c.uint("type_vocab_size")?.unwrap_or(2).into();
    let positions = info.context;
    if info.arch == "roberta" {
        let padding = c.uint("pad_token_id")?.unwrap_or(1);
        info.details.padding = Some(padding);
        info.context =
            positions.checked_sub(padding.saturating_add(1)).filter(|&n| n > 0).ok_or_else(|| {
                c.bad(format!("{positions} positions leave none behind a pad_token_id of {padding}"))
            })?;
    }
    let mut needs = need::bert(&info, types, prefix);
    for (name, shape) in &mut needs {
        if name.ends_with("embeddings.position_embeddings.weight") {
            shape[0] = positions.into();
        }
    }
    Ok((info, needs))
}

pub fn distilbert(c: &Config<'_>, mut info: ModelInfo, weights: &WeightIndex) -> Read {
    c.only("head_dim", &[])?;
    c.shape(&mut info, ["dim", "n_heads", "n_layers"])?;
    info.d_ff = c.need("hidden_dim")?;
    info.context = c.need("max_position_embeddings")?;
    info.norm_eps = 1e-12;
    info.tied = c.flag("tie_word_embeddings", true)?;
    info.details.activation = c.activation("activation", Activation::Gelu)?;
    let own = weights.tensors.contains_key("distilbert.embeddings.word_embeddings.weight");
    let prefix = if own { "distilbert." } else { "" };
    let (d, ff, ..) = dims(&info);
    let mut out = Vec::new();
    linear(&mut out, &format!("{prefix}embeddings.word_embeddings"), info.vocab.into(), d, false);
    linear(&mut out, &format!("{prefix}embeddings.position_embeddings"), info.context.into(), d, false);
    pair(&mut out, &format!("{prefix}embeddings.LayerNorm"), d, None);
    for n in 0..info.layers {
        let layer = format!("{prefix}transformer.layer.{n}");
        for part in ["q_lin", "k_lin", "v_lin", "out_lin"] {
            pair(&mut out, &format!("{layer}.attention.{part}"), d, Some(d));
        }
        pair(&mut out, &format!("{layer}.sa_layer_norm"), d, None);
        pair(&mut out, &format!("{layer}.ffn.lin1"), ff, Some(d));
        pair(&mut out, &format!("{layer}.ffn.lin2"), d, Some(ff));
        pair(&mut out, &format!("{layer}.output_layer_norm"), d, None);
    }
    Ok((info, out))
}

pub fn albert(c: &Config<'_>, mut info: ModelInfo, weights: &WeightIndex) -> Read {
    base(c, &mut info, Activation::GeluTanh)?;
    c.only("inner_group_num", &[1.into()])?;
    let groups = c.uint("num_hidden_groups")?.unwrap_or(1);
    if groups == 0 || !info.layers.is_multiple_of(groups) {
        return Err(
            c.unsupported(format!("num_hidden_groups = {groups} of {} layers isn't supported", info.layers))
        );
    }
    info.details.groups = Some(groups);
    let width = c.uint("embedding_size")?.unwrap_or(128);
    info.details.embedding_width = Some(width);
    let own = weights.tensors.contains_key("albert.embeddings.word_embeddings.weight");
    let prefix = if own { "albert." } else { "" };
    let ((d, ff, ..), width) = (dims(&info), u64::from(width));
    let mut out = Vec::new();
    let types = c.uint("type_vocab_size")?.unwrap_or(2);
    for (name, rows) in [("word", info.vocab), ("position", info.context), ("token_type", types)] {
        linear(&mut out, &format!("{prefix}embeddings.{name}_embeddings"), rows.into(), width, false);
    }
    pair(&mut out, &format!("{prefix}embeddings.LayerNorm"), width, None);
    pair(&mut out, &format!("{prefix}encoder.embedding_hidden_mapping_in"), d, Some(width));
    for n in 0..groups {
        let layer = format!("{prefix}encoder.albert_layer_groups.{n}.albert_layers.0");
        for part in ["query", "key", "value", "dense"] {
            pair(&mut out, &format!("{layer}.attention.{part}"), d, Some(d));
        }
        pair(&mut out, &format!("{layer}.attention.LayerNorm"), d, None);
        pair(&mut out, &format!("{layer}.ffn"), ff, Some(d));
        pair(&mut out, &format!("{layer}.ffn_output"), d, Some(ff));
        pair(&mut out, &format!("{layer}.full_layer_layer_norm"), d, None);
    }
    Ok((info, out))
}

//! Encoders.

use super::{Activation, Arch, NormKind, NormPlace, Positions, Source, by_head};
use crate::engine::masked::MaskedHead;
use crate::engine::model::{Block, Feed, Model, Norm};
use crate::load::Error;
use ablate_common::model::MaskedNames;
use tch::Tensor;

/// Names of a block's parts below its layer's name: attention's three inputs and output, the norm behind
/// it, the feed-forward part's matrices, and the norm behind that.
struct Names {
    qkv: [&'static str; 3],
    out: &'static str,
    attn_norm: &'static str,
    up: &'static str,
    down: &'static str,
    mlp_norm: &'static str,
}

impl Source<'_> {
    fn encoder(&self, activation: Activation, embed: &str) -> Result<Model, Error> {
        let mlp = self.mlp(activation, false);
        let (norm, place) = (NormKind::Layer, NormPlace::Post);
        let arch = Arch { norm, place, positions: Positions::Learned, mlp, causal: false };
        Ok(self.model(arch, self.get(embed)?))
    }

    fn encoder_block(&self, at: &str, names: &Names) -> Result<Block, Error> {
        let part = |name: &str| self.linear(&format!("{at}.{name}"), true);
        let (qkv, qkv_bias) = self.stacked(&names.qkv.map(|n| format!("{at}.{n}")), true)?;
        let (wo, wo_bias) = part(names.out)?;
        let (up, up_bias) = part(names.up)?;
        let (down, down_bias) = part(names.down)?;
        Ok(Block {
            attn_norm: self.old_norm(&format!("{at}.{}", names.attn_norm))?,
            qkv,
            qkv_bias,
            qk_norm: None,
            wo_heads: by_head(&wo, self.info),
            wo,
            wo_bias,
            post_attn_norm: None,
            feed: Some(Feed {
                norm: self.old_norm(&format!("{at}.{}", names.mlp_norm))?,
                up,
                up_bias,
                down,
                down_bias,
                post_norm: None,
            }),
        })
    }

    /// The masked-LM head with `activation`, where the files hold one; `embed` is the decoder's where tied.
    fn masked_head(&self, activation: Activation, embed: &Tensor) -> Result<Option<MaskedHead>, Error> {
        let has = |name: &str| self.weights.has(name);
        let Some(names) = MaskedNames::of(&self.info.arch).filter(|n| n.present(has)) else {
            return Ok(None);
        };
        let part = |name: &str, kind: &str| self.get(&format!("{name}.{kind}"));
        Ok(Some(MaskedHead {
            dense: (part(names.dense, "weight")?, part(names.dense, "bias")?),
            activation,
            norm: self.norm(names.norm, true)?,
            decoder: if self.info.tied { embed.shallow_clone() } else { part(names.decoder, "weight")? },
            bias: self.get(&names.bias_of(self.info.tied, has))?,
        }))
    }

    /// Old checkpoints call a LayerNorm's gain and shift gamma and beta.
    fn old_norm(&self, name: &str) -> Result<Norm, Error> {
        if self.weights.has(&format!("{name}.weight")) {
            return self.norm(name, true);
        }
        let get = |part: &str| self.get(&format!("{name}.{part}"));
        Ok(Norm { weight: get("gamma")?, bias: Some(get("beta")?) })
    }
}

/// BERT and RoBERTa.
pub fn bert(s: &Source<'_>) -> Result<Model, Error> {
    const NAMES: Names = Names {
        qkv: ["attention.self.query", "attention.self.key", "attention.self.value"],
        out: "attention.output.dense",
        attn_norm: "attention.output.LayerNorm",
        up: "intermediate.dense",
        down: "output.dense",
        mlp_norm: "output.LayerNorm",
    };
    let own = format!("{}.", s.info.arch);
    let prefix =
        if s.weights.has(&format!("{own}embeddings.word_embeddings.weight")) { own.as_str() } else { "" };
    let table = |kind: &str| s.get(&format!("{prefix}embeddings.{kind}_embeddings.weight"));
    let mut model = s.encoder(Activation::Gelu, &format!("{prefix}embeddings.word_embeddings.weight"))?;
    for layer in 0..s.info.layers {
        s.loaded(layer);
        model.blocks.push(s.encoder_block(&format!("{prefix}encoder.layer.{layer}"), &NAMES)?);
    }
    s.loaded(s.info.layers);
    model.position = Some(table("position")? + table("token_type")?.get(0));
    model.embed_norm = Some(s.old_norm(&format!("{prefix}embeddings.LayerNorm"))?);
    // RoBERTa's head has its activation, whatever the layers' is.
    let own = if s.info.arch == "roberta" { Activation::Gelu } else { model.arch.mlp.activation };
    model.masked = s.masked_head(own, &model.embed)?;
    Ok(model)
}

/// DistilBERT: no token types.
pub fn distilbert(s: &Source<'_>) -> Result<Model, Error> {
    const NAMES: Names = Names {
        qkv: ["attention.q_lin", "attention.k_lin", "attention.v_lin"],
        out: "attention.out_lin",
        attn_norm: "sa_layer_norm",
        up: "ffn.lin1",
        down: "ffn.lin2",
        mlp_norm: "output_layer_norm",
    };
    let own = s.weights.has("distilbert.embeddings.word_embeddings.weight");
    let prefix = if own { "distilbert." } else { "" };
    let mut model = s.encoder(Activation::Gelu, &format!("{prefix}embeddings.word_embeddings.weight"))?;
    for layer in 0..s.info.layers {
        s.loaded(layer);
        model.blocks.push(s.encoder_block(&format!("{prefix}transformer.layer.{layer}"), &NAMES)?);
    }
    s.loaded(s.info.layers);
    model.position = Some(s.get(&format!("{prefix}embeddings.position_embeddings.weight"))?);
    model.embed_norm = Some(s.old_norm(&format!("{prefix}embeddings.LayerNorm"))?);
    model.masked = s.masked_head(model.arch.mlp.activation, &model.embed)?;
    Ok(model)
}

/// ALBERT: layers share weights, and heads are those of each application.
pub fn albert(s: &Source<'_>) -> Result<Model, Error> {
    const NAMES: Names = Names {
        qkv: ["attention.query", "attention.key", "attention.value"],
        out: "attention.dense",
        attn_norm: "attention.LayerNorm",
        up: "ffn",
        down: "ffn_output",
        mlp_norm: "full_layer_layer_norm",
    };
    let own = s.weights.has("albert.embeddings.word_embeddings.weight");
    let prefix = if own { "albert." } else { "" };
    let table = |kind: &str| s.get(&format!("{prefix}embeddings.{kind}_embeddings.weight"));
    let mut model = s.encoder(Activation::GeluTanh, &format!("{prefix}embeddings.word_embeddings.weight"))?;
    let groups = s.info.distinct_layers();
    let each = s.info.layers / groups.max(1);
    for group in 0..groups {
        s.loaded(group * each);
        let at = format!("{prefix}encoder.albert_layer_groups.{group}.albert_layers.0");
        let block = s.encoder_block(&at, &NAMES)?;
        for _ in 0..each {
            model.blocks.push(block.share());
        }
    }
    s.loaded(s.info.layers);
    model.position = Some(table("position")? + table("token_type")?.get(0));
    model.embed_norm = Some(s.old_norm(&format!("{prefix}embeddings.LayerNorm"))?);
    model.embed_project = Some(s.linear(&format!("{prefix}encoder.embedding_hidden_mapping_in"), true)?);
    model.masked = s.masked_head(model.arch.mlp.activation, &model.embed)?;
    Ok(model)
}

//! Encoder-decoders.

use super::{Activation, Arch, NormKind, NormPlace, Positions, Source, by_head};
use crate::engine::decoder::Decoder;
use crate::engine::model::{Block, Feed, Model};
use crate::load::Error;
use ablate_common::head::Stream;
use ablate_common::model::Tables;
use tch::{Device, Kind, Tensor};

/// Names of an attention's parts below its own: queries, keys, values and output.
type Parts = [&'static str; 4];

impl Source<'_> {
    /// A model with the tables of both sides and their head, but without blocks.
    fn encoder_decoder(&self, arch: Arch) -> Result<Model, Error> {
        let names = Tables::of(self.info, |name| self.weights.has(name));
        let source = self.get(&names.source)?;
        let same = |name: &str, other: &str, table: &Tensor| {
            if name == other { Ok(table.shallow_clone()) } else { self.get(name) }
        };
        let target = same(&names.target, &names.source, &source)?;
        let unembed = same(&names.output, &names.target, &target)?;
        let mut model = self.model(arch, source);
        let details = self.info.details.seq2seq.as_ref();
        model.embed_scale = details
            .and_then(|s| s.embed_scale)
            .map(|scale| Tensor::from(scale).to_kind(self.kind).to_device(self.device));
        model.unembed = Some(unembed);
        model.decoder = Some(Box::new(Decoder {
            embed: target,
            position: None,
            memory_norm: None,
            output_scale: details.and_then(|s| s.output_scale),
            bias: None,
            relative: None,
        }));
        Ok(model)
    }

    /// A stage's block: its attention at `at`, whose norm is at `norm`, without a feed-forward part.
    fn attention(&self, at: &str, parts: Parts, norm: &str, shift: bool) -> Result<Block, Error> {
        let name = |part: &str| format!("{at}.{part}");
        let [q, k, v, o] = parts;
        let (qkv, qkv_bias) = self.stacked(&[q, k, v].map(name), shift)?;
        let (wo, wo_bias) = self.linear(&name(o), shift)?;
        Ok(Block {
            attn_norm: self.norm(norm, shift)?,
            qkv,
            qkv_bias,
            qk_norm: None,
            wo_heads: by_head(&wo, self.info),
            wo,
            wo_bias,
            post_attn_norm: None,
            feed: None,
        })
    }

    /// Vectors of a side's positions: learned where the files hold them, else sinusoidal.
    fn positions(&self, side: &str) -> Result<Tensor, Error> {
        let name = format!("model.{side}.embed_positions.weight");
        if self.weights.has(&name) {
            return self.get(&name);
        }
        let (context, d) = (i64::from(self.info.context), i64::from(self.info.d_model));
        let wide = (Kind::Double, Device::Cpu);
        let exponent = Tensor::arange_start_step(0, d, 2, wide) / d as f64;
        let frequency = Tensor::from(10_000f64).to_kind(Kind::Double).pow(&exponent);
        let angle = Tensor::arange(context, wide).unsqueeze(1) / frequency.unsqueeze(0);
        // Sines, then cosines: of an odd width there is one cosine fewer. transformers keeps them in f32.
        let table = Tensor::cat(&[angle.sin(), angle.narrow(1, 0, d / 2).cos()], 1);
        Ok(table.to_kind(Kind::Float).to_kind(self.kind).to_device(self.device))
    }
}

/// Marian.
pub fn marian(s: &Source<'_>) -> Result<Model, Error> {
    const PARTS: Parts = ["q_proj", "k_proj", "v_proj", "out_proj"];
    let arch = Arch {
        norm: NormKind::Layer,
        place: NormPlace::Post,
        positions: Positions::Learned,
        mlp: s.mlp(Activation::Gelu, false),
        causal: false,
    };
    let mut model = s.encoder_decoder(arch)?;
    let attention = |at: &str, kind: &str| {
        s.attention(&format!("{at}.{kind}"), PARTS, &format!("{at}.{kind}_layer_norm"), true)
    };
    let feed = |at: &str| -> Result<Feed, Error> {
        let (up, up_bias) = s.linear(&format!("{at}.fc1"), true)?;
        let (down, down_bias) = s.linear(&format!("{at}.fc2"), true)?;
        let norm = s.norm(&format!("{at}.final_layer_norm"), true)?;
        Ok(Feed { norm, up, up_bias, down, down_bias, post_norm: None })
    };
    let encoder = s.info.heads.layers(Stream::Encoder);
    for layer in 0..encoder {
        s.loaded(layer);
        let at = format!("model.encoder.layers.{layer}");
        let feed = Some(feed(&at)?);
        model.blocks.push(Block { feed, ..attention(&at, "self_attn")? });
    }
    for layer in 0..s.info.heads.layers(Stream::Decoder) {
        s.loaded(encoder + layer);
        let at = format!("model.decoder.layers.{layer}");
        model.blocks.push(attention(&at, "self_attn")?);
        let feed = Some(feed(&at)?);
        model.blocks.push(Block { feed, ..attention(&at, "encoder_attn")? });
    }
    s.loaded(s.info.layers);
    model.position = Some(s.positions("encoder")?);
    if let Some(decoder) = &mut model.decoder {
        decoder.position = Some(s.positions("decoder")?);
        if s.weights.has("final_logits_bias") {
            decoder.bias = Some(s.get("final_logits_bias")?.view(-1));
        }
    }
    Ok(model)
}

/// T5.
pub fn t5(s: &Source<'_>) -> Result<Model, Error> {
    const PARTS: Parts = ["q", "k", "v", "o"];
    let seq2seq = s.info.details.seq2seq.as_ref();
    let arch = Arch {
        norm: NormKind::Rms,
        place: NormPlace::Pre,
        positions: Positions::Relative,
        mlp: s.mlp(Activation::Relu, seq2seq.is_some_and(|s| s.gated)),
        causal: false,
    };
    let mut model = s.encoder_decoder(arch)?;
    let attention = |at: &str, kind: &str| {
        s.attention(&format!("{at}.{kind}"), PARTS, &format!("{at}.layer_norm"), false)
    };
    let up: &[&str] = if arch.mlp.gated { &["wi_0", "wi_1"] } else { &["wi"] };
    let feed = |at: &str| -> Result<Feed, Error> {
        let names: Vec<String> = up.iter().map(|n| format!("{at}.DenseReluDense.{n}")).collect();
        let (up, _) = s.stacked(&names, false)?;
        let (down, _) = s.linear(&format!("{at}.DenseReluDense.wo"), false)?;
        let norm = s.norm(&format!("{at}.layer_norm"), false)?;
        Ok(Feed { norm, up, up_bias: None, down, down_bias: None, post_norm: None })
    };
    let encoder = s.info.heads.layers(Stream::Encoder);
    for layer in 0..encoder {
        s.loaded(layer);
        let at = format!("encoder.block.{layer}.layer");
        let feed = Some(feed(&format!("{at}.1"))?);
        model.blocks.push(Block { feed, ..attention(&format!("{at}.0"), "SelfAttention")? });
    }
    for layer in 0..s.info.heads.layers(Stream::Decoder) {
        s.loaded(encoder + layer);
        let at = format!("decoder.block.{layer}.layer");
        model.blocks.push(attention(&format!("{at}.0"), "SelfAttention")?);
        let feed = Some(feed(&format!("{at}.2"))?);
        model.blocks.push(Block { feed, ..attention(&format!("{at}.1"), "EncDecAttention")? });
    }
    s.loaded(s.info.layers);
    model.final_norm = Some(s.norm("decoder.final_layer_norm", false)?);
    let table =
        |side: &str| s.get(&format!("{side}.block.0.layer.0.SelfAttention.relative_attention_bias.weight"));
    if let Some(decoder) = &mut model.decoder {
        decoder.memory_norm = Some(s.norm("encoder.final_layer_norm", false)?);
        if let Some(relative) = seq2seq.and_then(|s| s.relative) {
            decoder.relative = Some((relative, table("encoder")?, table("decoder")?));
        }
    }
    Ok(model)
}

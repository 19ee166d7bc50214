//! Llama and the decoders built like it.

use super::{Activation, Arch, NormKind, NormPlace, Source, by_head};
use crate::engine::model::{Block, Feed, Model, Norm};
use crate::load::Error;
use tch::Tensor;

impl Source<'_> {
    fn decoder(
        &self,
        norm: NormKind,
        activation: Activation,
        embed: &str,
        head: &str,
    ) -> Result<Model, Error> {
        let (positions, rotary) = self.rotary();
        let mlp = self.mlp(activation, true);
        let arch = Arch { norm, place: NormPlace::Pre, positions, mlp, causal: true };
        let mut model = self.model(arch, self.get(embed)?);
        model.unembed =
            if self.info.tied { Some(model.embed.shallow_clone()) } else { self.unembedding(head)? };
        model.rotary = rotary;
        Ok(model)
    }

    /// The parts that all of the family name alike in a Hugging Face directory; `fused`: queries, keys
    /// and values are one matrix, gate and up another.
    fn hf_block(&self, layer: u32, fused: bool) -> Result<Block, Error> {
        let (info, at) = (self.info, format!("model.layers.{layer}"));
        let (qkv, up) = if fused {
            (vec!["self_attn.qkv_proj"], vec!["mlp.gate_up_proj"])
        } else {
            (
                vec!["self_attn.q_proj", "self_attn.k_proj", "self_attn.v_proj"],
                vec!["mlp.gate_proj", "mlp.up_proj"],
            )
        };
        let named = |names: Vec<&str>| names.iter().map(|n| format!("{at}.{n}")).collect::<Vec<_>>();
        let (qkv, qkv_bias) = self.stacked(&named(qkv), info.details.qkv_bias)?;
        let (up, up_bias) = self.stacked(&named(up), info.details.mlp_bias)?;
        let (wo, wo_bias) = self.linear(&format!("{at}.self_attn.o_proj"), info.details.out_bias)?;
        let (down, down_bias) = self.linear(&format!("{at}.mlp.down_proj"), info.details.mlp_bias)?;
        Ok(Block {
            attn_norm: self.norm(&format!("{at}.input_layernorm"), false)?,
            qkv,
            qkv_bias,
            qk_norm: None,
            wo_heads: by_head(&wo, info),
            wo,
            wo_bias,
            post_attn_norm: None,
            feed: Some(Feed {
                norm: self.norm(&format!("{at}.post_attention_layernorm"), false)?,
                up,
                up_bias,
                down,
                down_bias,
                post_norm: None,
            }),
        })
    }

    fn hf_model(
        &self,
        norm: NormKind,
        activation: Activation,
        block: impl Fn(u32) -> Result<Block, Error>,
    ) -> Result<Model, Error> {
        let mut model = self.decoder(norm, activation, "model.embed_tokens.weight", "lm_head.weight")?;
        for layer in 0..self.info.layers {
            self.loaded(layer);
            model.blocks.push(block(layer)?);
        }
        self.loaded(self.info.layers);
        model.final_norm = Some(self.norm("model.norm", false)?);
        Ok(model)
    }
}

/// Llama, Mistral, Qwen 2 and 3; Llama also from GGUF files.
pub fn llama(s: &Source<'_>) -> Result<Model, Error> {
    if s.weights.has("token_embd.weight") {
        return gguf(s);
    }
    s.hf_model(NormKind::Rms, Activation::Silu, |layer| {
        let mut block = s.hf_block(layer, false)?;
        if s.info.arch == "qwen3" {
            let gain = |name: &str| s.get(&format!("model.layers.{layer}.self_attn.{name}.weight"));
            block.qk_norm = Some((gain("q_norm")?, gain("k_norm")?));
        }
        Ok(block)
    })
}

/// Phi 3.
pub fn phi3(s: &Source<'_>) -> Result<Model, Error> {
    s.hf_model(NormKind::Rms, Activation::Silu, |layer| s.hf_block(layer, true))
}

/// Gemma 2: norms on both sides of attention and feed-forward part, embeddings scaled by √`d_model`.
pub fn gemma2(s: &Source<'_>) -> Result<Model, Error> {
    let mut model = s.hf_model(NormKind::RmsPlusOne, Activation::GeluTanh, |layer| {
        let mut block = s.hf_block(layer, false)?;
        let norm = |name: &str| s.norm(&format!("model.layers.{layer}.{name}"), false);
        block.post_attn_norm = Some(norm("post_attention_layernorm")?);
        if let Some(feed) = &mut block.feed {
            feed.norm = norm("pre_feedforward_layernorm")?;
            feed.post_norm = Some(norm("post_feedforward_layernorm")?);
        }
        Ok(block)
    })?;
    // In the format of the computation, as the model was trained.
    model.embed_scale =
        Some(Tensor::from(f64::from(s.info.d_model).sqrt()).to_kind(s.kind).to_device(s.device));
    Ok(model)
}

fn gguf(s: &Source<'_>) -> Result<Model, Error> {
    let info = s.info;
    // GGUF keeps the rows of Q and K in the order of interleaved rotation; put the halves back.
    let unpermute = |t: Tensor, heads: u32| -> Tensor {
        let (h, dh, d) = (i64::from(heads), i64::from(info.head_dim), t.size()[1]);
        t.view([h, dh / 2, 2, d]).transpose(1, 2).reshape([h * dh, d])
    };
    let norm = |name: &str| -> Result<Norm, Error> { s.norm(name, false) };
    let mut model = s.decoder(NormKind::Rms, Activation::Silu, "token_embd.weight", "output.weight")?;
    for i in 0..info.layers {
        s.loaded(i);
        let get = |name: &str| s.get(&format!("blk.{i}.{name}.weight"));
        let wo = get("attn_output")?;
        model.blocks.push(Block {
            attn_norm: norm(&format!("blk.{i}.attn_norm"))?,
            qkv: Tensor::cat(
                &[
                    unpermute(get("attn_q")?, info.n_heads),
                    unpermute(get("attn_k")?, info.n_kv_heads),
                    get("attn_v")?,
                ],
                0,
            ),
            qkv_bias: None,
            qk_norm: None,
            wo_heads: by_head(&wo, info),
            wo,
            wo_bias: None,
            post_attn_norm: None,
            feed: Some(Feed {
                norm: norm(&format!("blk.{i}.ffn_norm"))?,
                up: Tensor::cat(&[get("ffn_gate")?, get("ffn_up")?], 0),
                up_bias: None,
                down: get("ffn_down")?,
                down_bias: None,
                post_norm: None,
            }),
        });
    }
    s.loaded(info.layers);
    model.final_norm = Some(norm("output_norm")?);
    Ok(model)
}

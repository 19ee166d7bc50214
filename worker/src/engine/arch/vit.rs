//! Models of images.

use super::{Activation, Arch, NormKind, NormPlace, Positions, Source, by_head};
use crate::engine::model::{Block, Feed, Model};
use crate::load::Error;
use tch::Tensor;

/// `ViT`: an encoder with norms before its parts, over the CLS token and the patches. A sequence's tokens are the
/// numbers of its places; what the embedding has for a place is all that doesn't depend on the image: the position,
/// and the CLS token's vector or the bias of the patches' projection.
pub fn vit(s: &Source<'_>) -> Result<Model, Error> {
    let prefix = if s.weights.has("vit.embeddings.cls_token") { "vit." } else { "" };
    let (norm, place) = (NormKind::Layer, NormPlace::Pre);
    let mlp = s.mlp(Activation::Gelu, false);
    let arch = Arch { norm, place, positions: Positions::Learned, mlp, causal: false };
    let position = s.get(&format!("{prefix}embeddings.position_embeddings"))?.squeeze_dim(0);
    let cls = s.get(&format!("{prefix}embeddings.cls_token"))?.view([1, -1]);
    let (weight, bias) = s.linear(&format!("{prefix}embeddings.patch_embeddings.projection"), true)?;
    let every = bias.map(|b| b.unsqueeze(0).expand([position.size()[0] - 1, -1], false));
    let constant = Tensor::cat(&std::iter::once(cls).chain(every).collect::<Vec<_>>(), 0);
    let mut model = s.model(arch, position + constant);
    model.patches = Some(weight.flatten(1, -1));
    for layer in 0..s.info.layers {
        s.loaded(layer);
        model.blocks.push(block(s, &format!("{prefix}encoder.layer.{layer}"))?);
    }
    s.loaded(s.info.layers);
    model.final_norm = Some(s.norm(&format!("{prefix}layernorm"), true)?);
    Ok(model)
}

fn block(s: &Source<'_>, at: &str) -> Result<Block, Error> {
    let part = |name: &str| s.linear(&format!("{at}.{name}"), true);
    let names = ["query", "key", "value"].map(|n| format!("{at}.attention.attention.{n}"));
    let (qkv, qkv_bias) = s.stacked(&names, s.info.details.qkv_bias)?;
    let (wo, wo_bias) = part("attention.output.dense")?;
    let (up, up_bias) = part("intermediate.dense")?;
    let (down, down_bias) = part("output.dense")?;
    Ok(Block {
        attn_norm: s.norm(&format!("{at}.layernorm_before"), true)?,
        qkv,
        qkv_bias,
        qk_norm: None,
        wo_heads: by_head(&wo, s.info),
        wo,
        wo_bias,
        post_attn_norm: None,
        feed: Some(Feed {
            norm: s.norm(&format!("{at}.layernorm_after"), true)?,
            up,
            up_bias,
            down,
            down_bias,
            post_norm: None,
        }),
    })
}

//! Models of images: vit.

use super::super::need::{Needs, dims, linear, pair};
use super::super::{Activation, Error, ImageShape, ModelInfo, WeightIndex};
use super::config::Config;

/// ViT, with its classification head or without.
pub fn vit(c: &Config<'_>, mut info: ModelInfo, weights: &WeightIndex) -> Result<(ModelInfo, Needs), Error> {
    c.only("head_dim", &[])?;
    c.heads(&mut info, ["hidden_size", "num_attention_heads", "num_hidden_layers"])?;
    info.d_ff = c.need("intermediate_size")?;
    info.norm_eps = c.float("layer_norm_eps")?;
    info.tied = true;
    info.details.activation = c.activation("hidden_act", Activation::Gelu)?;
    info.details.qkv_bias = c.flag("qkv_bias", true)?;
    let ((height, width), (patch_height, patch_width)) =
        (c.sides("image_size", 224)?, c.sides("patch_size", 16)?);
    c.only("num_channels", &[1.into(), 3.into()])?;
    let channels = c.uint("num_channels")?.unwrap_or(3);
    let image = ImageShape { channels, height, width, patch_height, patch_width };
    image.plausible().map_err(|what| c.bad(what))?;
    info.details.image = Some(image);
    (info.context, info.vocab) = (image.places(), image.places());

    let own = weights.tensors.contains_key("vit.embeddings.cls_token");
    let prefix = if own { "vit." } else { "" };
    let (d, ff, ..) = dims(&info);
    let mut out: Needs = vec![
        (format!("{prefix}embeddings.cls_token"), vec![1, 1, d]),
        (format!("{prefix}embeddings.position_embeddings"), vec![1, info.context.into(), d]),
    ];
    let patches = format!("{prefix}embeddings.patch_embeddings.projection");
    out.push((format!("{patches}.bias"), vec![d]));
    out.push((
        format!("{patches}.weight"),
        vec![d, channels.into(), patch_height.into(), patch_width.into()],
    ));
    for n in 0..info.layers {
        let layer = format!("{prefix}encoder.layer.{n}");
        for part in ["query", "key", "value"] {
            linear(&mut out, &format!("{layer}.attention.attention.{part}"), d, d, info.details.qkv_bias);
        }
        pair(&mut out, &format!("{layer}.attention.output.dense"), d, Some(d));
        pair(&mut out, &format!("{layer}.layernorm_before"), d, None);
        pair(&mut out, &format!("{layer}.layernorm_after"), d, None);
        pair(&mut out, &format!("{layer}.intermediate.dense"), ff, Some(d));
        pair(&mut out, &format!("{layer}.output.dense"), d, Some(ff));
    }
    pair(&mut out, &format!("{prefix}layernorm"), d, None);
    Ok((info, out))
}

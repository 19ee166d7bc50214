//! Attention proper: rotary positions, scores and their mixtures of values.

use super::arch::Positions;
use super::model::Model;
use ablate_common::model::RopeScaling;
use tch::{Device, Kind, Tensor};

/// Mixtures of values, z: `q` is `[rows, heads, len, head_dim]`, and so is z; `k` and `v` have as many heads, or
/// fewer that serve equally many query heads each, in order, of as many tokens or, where `causal` is false, any
/// number. `mask` is added to the scores: `[rows, 1, 1, len]` where padding must be hidden; causal models need
/// none.
pub fn attend(
    model: &Model,
    layer: usize,
    q: &Tensor,
    k: &Tensor,
    v: &Tensor,
    mask: Option<&Tensor>,
    causal: bool,
) -> Tensor {
    let (details, len) = (&model.info.details, q.size()[2]);
    // A window that holds the whole row hides nothing.
    let window = details.window(layer).map(i64::from).filter(|&w| w < len);
    if q.requires_grad() || k.requires_grad() {
        return differentiable(model, q, [k, v], mask, causal.then(|| hidden(model, len, window)).as_ref());
    }
    if let Some(cap) = details.attention_softcap {
        let scale = details.attention_scale.unwrap_or_else(|| (model.head_dim() as f64).powf(-0.5));
        let (k, v) = &(repeated(k, q.size()[1]), repeated(v, q.size()[1]));
        let scores = q.matmul(&k.transpose(-2, -1)).g_mul_scalar_(scale / cap).tanh_().g_mul_scalar_(cap);
        let scores = match mask {
            Some(mask) => scores + mask,
            None => scores,
        };
        let scores = if causal { scores + hidden(model, len, window) } else { scores };
        let wide = if model.kind == Kind::Double { Kind::Double } else { Kind::Float };
        return scores.softmax(-1, wide).to_kind(model.kind).matmul(v);
    }
    let band = window.filter(|_| causal).map(|w| hidden(model, len, Some(w)));
    Tensor::scaled_dot_product_attention(
        q,
        k,
        v,
        band.as_ref().or(mask),
        0.0,
        causal && band.is_none(),
        details.attention_scale,
        k.size()[1] < q.size()[1],
    )
}

/// [`attend`] by products whose gradient is the same bits every time, as that of libtorch's fused kernels isn't on all
/// devices, and without writing over what the gradient needs. `band` hides what a causal row doesn't see.
fn differentiable(
    model: &Model,
    q: &Tensor,
    [k, v]: [&Tensor; 2],
    mask: Option<&Tensor>,
    band: Option<&Tensor>,
) -> Tensor {
    weights(model, q, k, mask, band).to_kind(model.kind).matmul(&repeated(v, q.size()[1]))
}

/// The weights of [`attend`], `[rows, heads, len, keys]`, in f32 at least: what each query gives to each key. `band` hides what a causal
/// row doesn't see.
pub(super) fn weights(
    model: &Model,
    q: &Tensor,
    k: &Tensor,
    mask: Option<&Tensor>,
    band: Option<&Tensor>,
) -> Tensor {
    let details = &model.info.details;
    let scale = details.attention_scale.unwrap_or_else(|| (model.head_dim() as f64).powf(-0.5));
    let k = repeated(k, q.size()[1]);
    let mut scores = q.matmul(&k.transpose(-2, -1)) * scale;
    if let Some(cap) = details.attention_softcap {
        scores = (scores / cap).tanh() * cap;
    }
    for hides in [mask, band].into_iter().flatten() {
        scores += hides;
    }
    let wide = if model.kind == Kind::Double { Kind::Double } else { Kind::Float };
    scores.softmax(-1, wide)
}

/// Heads of `x [rows, heads, len, width]` repeated, each as often as the others, to `heads` heads.
fn repeated(x: &Tensor, heads: i64) -> Tensor {
    let size = x.size();
    let each = heads / size[1];
    if each == 1 {
        return x.shallow_clone();
    }
    x.unsqueeze(2).expand([-1, -1, each, -1, -1], false).reshape([size[0], heads, size[2], size[3]])
}

/// −∞ where a token doesn't look, 0 where it does, `[len, len]`: behind it, and `window` or more before it.
pub(super) fn hidden(model: &Model, len: i64, window: Option<i64>) -> Tensor {
    let seen = Tensor::ones([len, len], (Kind::Bool, model.device)).tril(0);
    let seen = match window {
        Some(w) => seen.triu(1 - w),
        None => seen,
    };
    Tensor::zeros([len, len], (model.kind, model.device)).masked_fill(&seen.logical_not(), f64::NEG_INFINITY)
}

/// Rotary embedding of `x [rows, len, heads, head_dim]` by tables of `[len, 1, width]`: the first `width`
/// dimensions, their halves rotated together; the rest stays.
pub fn rotate(x: &Tensor, cos: &Tensor, sin: &Tensor) -> Tensor {
    let (width, all) = (cos.size()[2], x.size()[3]);
    let half = width / 2;
    let part = x.narrow(3, 0, width);
    let rotated = &part * cos;
    let (first, second) = (part.narrow(3, 0, half), part.narrow(3, half, half));
    // Two products added in place: no tensor of turned halves is made.
    let _ = rotated.narrow(3, 0, half).addcmul_(&second, &-sin.narrow(2, 0, half));
    let _ = rotated.narrow(3, half, half).addcmul_(&first, &sin.narrow(2, half, half));
    if width == all {
        return rotated;
    }
    Tensor::cat(&[rotated, x.narrow(3, width, all - width)], 3)
}

/// cos and sin tables of the rotary embedding, computed in f64: `[context, 1, width]`, where `width`
/// dimensions of a head are rotated.
#[must_use]
pub fn rotary_tables(
    positions: Positions,
    scaling: Option<&RopeScaling>,
    context: i64,
    width: i64,
    kind: Kind,
    device: Device,
) -> Option<(Tensor, Tensor)> {
    let Positions::Rotary { theta } = positions else { return None };
    let wide = (Kind::Double, Device::Cpu);
    let exponent = Tensor::arange_start_step(0, width, 2, wide) / width as f64;
    let frequency = (exponent * -theta.ln()).exp();
    let frequency = match scaling {
        Some(scaling) => stretch(&frequency, scaling),
        None => frequency,
    };
    let angle = Tensor::arange(context, wide).unsqueeze(1) * frequency.unsqueeze(0);
    let angle = Tensor::cat(&[&angle, &angle], 1).unsqueeze(1);
    Some((angle.cos().to_kind(kind).to_device(device), angle.sin().to_kind(kind).to_device(device)))
}

/// Frequencies `[width / 2]` as a scaling stretches them.
fn stretch(frequency: &Tensor, scaling: &RopeScaling) -> Tensor {
    match *scaling {
        RopeScaling::Linear { factor } => frequency / factor,
        RopeScaling::Llama3 { factor, low, high, original } => {
            // 1 where `high` turns or more fit into the original context, 0 where `low` or fewer do.
            let turns = frequency * (original / std::f64::consts::TAU);
            let kept = ((turns - low) / (high - low)).clamp(0.0, 1.0);
            frequency * &kept + (frequency / factor) * (1.0 - kept)
        }
    }
}

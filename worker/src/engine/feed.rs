//! What comes behind the attention in a layer: residual sums, norms, and the feed-forward part.

use super::arch::{Mlp, NormKind, NormPlace};
use super::block::{Feed, Norm};
use super::fused;
use super::masked::Apply;
use super::model::Model;
use tch::{Device, Kind, Tensor};

impl Model {
    /// The rest of a layer: residual stream `x` and attention output `out` (both `[n, d_model]`) → the
    /// residual stream after the layer. In slices, so that temporaries stay small.
    pub fn after_attention(&self, layer: usize, x: &Tensor, out: &Tensor) -> Tensor {
        let n = x.size()[0];
        if n <= self.slice() {
            return self.after_attention_slice(layer, x, out);
        }
        let result = Tensor::empty([n, self.d_model()], (self.kind, self.device));
        let mut at = 0;
        while at < n {
            let m = self.slice().min(n - at);
            result.narrow(0, at, m).copy_(&self.after_attention_slice(
                layer,
                &x.narrow(0, at, m),
                &out.narrow(0, at, m),
            ));
            at += m;
        }
        result
    }

    fn after_attention_slice(&self, layer: usize, x: &Tensor, out: &Tensor) -> Tensor {
        let block = &self.blocks[layer];
        let place = self.arch.place;
        let normed = block.post_attn_norm.as_ref().map(|norm| self.norm(norm, out));
        let out = normed.as_ref().unwrap_or(out);
        let Some(feed) = &block.feed else {
            return match place {
                NormPlace::Pre | NormPlace::Parallel => x + out,
                NormPlace::Post => self.norm_of_sum(&block.attn_norm, x, (out, None), false).0,
            };
        };
        match place {
            NormPlace::Pre => {
                let (read, sum) = self.norm_of_sum(&feed.norm, x, (out, None), true);
                let act = self.activated(feed, &read);
                match &feed.post_norm {
                    Some(norm) => {
                        self.norm(norm, &act.linear(&feed.down, feed.down_bias.as_ref())).g_add_(&sum)
                    }
                    None => act.linear(&feed.down, feed.down_bias.as_ref()).g_add_(&sum),
                }
            }
            NormPlace::Parallel => {
                let act = self.activated(feed, &self.norm(&feed.norm, x));
                act.linear(&feed.down, feed.down_bias.as_ref()).g_add_(&(x + out))
            }
            NormPlace::Post => {
                let mid = self.norm_of_sum(&block.attn_norm, x, (out, None), false).0;
                let act = self.activated(feed, &mid);
                // In f32 the bias waits for the sum; narrower formats are rounded behind it.
                let waits = self.kind == Kind::Float;
                let (now, later) =
                    if waits { (None, feed.down_bias.as_ref()) } else { (feed.down_bias.as_ref(), None) };
                self.norm_of_sum(&feed.norm, &mid, (&act.linear(&feed.down, now), later), false).0
            }
        }
    }

    /// [`Self::after_attention`] of changed streams in a model whose norms stand in the stream (`NormPlace::Post`), with a feed-forward part
    /// that adds what it added behind the unablated `x` and `out`, both `[1, n, d_model]`; `streams` and what attention adds to each, `own`,
    /// are `[rows, n, d_model]`.
    pub(super) fn frozen_after(
        &self,
        stage: usize,
        x: &Tensor,
        out: &Tensor,
        streams: &Tensor,
        own: &Tensor,
    ) -> Tensor {
        let block = &self.blocks[stage];
        let behind = |x: &Tensor, out: &Tensor| {
            let normed = block.post_attn_norm.as_ref().map(|norm| self.norm(norm, out));
            self.norm(&block.attn_norm, &(x + normed.as_ref().unwrap_or(out)))
        };
        let changed = behind(streams, own);
        let Some(feed) = &block.feed else { return changed };
        let read = behind(x, out);
        let added = self.activated(feed, &read.squeeze_dim(0)).linear(&feed.down, feed.down_bias.as_ref());
        self.norm(&feed.norm, &(changed + added))
    }

    /// The norm of `x` plus `more` and its bias, and the sum, which is empty unless asked for.
    fn norm_of_sum(
        &self,
        norm: &Norm,
        x: &Tensor,
        (more, bias): (&Tensor, Option<&Tensor>),
        keep: bool,
    ) -> (Tensor, Tensor) {
        let own = (&norm.weight, norm.bias.as_ref());
        if let Some((normed, sum)) = fused::norm(x, Some((more, bias)), own, self.norm_form(), keep) {
            return (normed, sum.unwrap_or_default());
        }
        let sum = match bias {
            Some(bias) => x + (more + bias),
            None => x + more,
        };
        (self.norm(norm, &sum), sum)
    }

    /// What the feed-forward part's second matrix reads, of normed states `h [n, d_model]`.
    fn activated(&self, feed: &Feed, h: &Tensor) -> Tensor {
        let Mlp { activation, gated } = self.arch.mlp;
        // In f32 the bias waits for the activation's pass; narrower formats are rounded behind it.
        let waits = !gated && self.kind == Kind::Float && self.device == Device::Cpu && !h.requires_grad();
        let (now, later) = if waits { (None, feed.up_bias.as_ref()) } else { (feed.up_bias.as_ref(), None) };
        let mut up = h.linear(&feed.up, now);
        if gated {
            fused::gate(&up, activation).unwrap_or_else(|| {
                let parts = up.chunk(2, -1);
                let mut gate = activation.apply(&parts[0]);
                // A gradient may need what the product would be written over.
                if gate.requires_grad() { gate * &parts[1] } else { gate.g_mul_(&parts[1]) }
            })
        } else if fused::activate(&mut up, later, activation).is_some() {
            up
        } else {
            activation.apply(&later.map_or_else(|| up.shallow_clone(), |bias| &up + bias))
        }
    }

    fn norm_form(&self) -> fused::Form {
        fused::Form {
            centred: self.arch.norm == NormKind::Layer,
            plus_one: self.arch.norm == NormKind::RmsPlusOne,
            eps: self.info.norm_eps as f32,
        }
    }

    /// Normalises the last dimension of `x`; in f32 at least.
    pub(super) fn norm(&self, norm: &Norm, x: &Tensor) -> Tensor {
        let own = (&norm.weight, norm.bias.as_ref());
        if let Some((normed, _)) = fused::norm(x, None, own, self.norm_form(), false) {
            return normed;
        }
        match self.arch.norm {
            NormKind::Layer => {
                let shape = norm.weight.size();
                x.layer_norm(shape, Some(own.0), own.1, self.info.norm_eps, false)
            }
            kind => self.rms(&norm.weight, x, kind),
        }
    }

    pub(super) fn rms(&self, gain: &Tensor, x: &Tensor, kind: NormKind) -> Tensor {
        let form = fused::Form {
            centred: false,
            plus_one: kind == NormKind::RmsPlusOne,
            eps: self.info.norm_eps as f32,
        };
        if let Some((normed, _)) = fused::norm(x, None, (gain, None), form, false) {
            return normed;
        }
        let half = matches!(self.kind, Kind::Half | Kind::BFloat16);
        let wide = if half { x.to_kind(Kind::Float) } else { x.shallow_clone() };
        // One reading of x: a sum of squares by itself would write them all first.
        let length = wide.linalg_norm(2.0, [-1i64].as_slice(), true, None::<Kind>);
        let width = *x.size().last().unwrap_or(&1) as f64;
        let scale = (length.square() / width + self.info.norm_eps).rsqrt();
        let scaled = wide * scale;
        if kind == NormKind::RmsPlusOne {
            let gain = gain.to_kind(scaled.kind()) + 1.0;
            (scaled * gain).to_kind(self.kind)
        } else {
            scaled.to_kind(self.kind).g_mul_(gain)
        }
    }
}

//! The model: one configurable block, filled by an adapter per architecture. Rows of tokens are
//! matrices `[rows · tokens, d_model]`; attention happens per row of `len` tokens.

use super::arch::{Arch, NormKind, NormPlace};
pub use super::attend::rotary_tables;
use super::attend::{attend, rotate};
pub use super::block::{Block, Feed, Norm};
use super::classify::ClassifierHead;
use super::decoder::Decoder;
use super::fused;
use super::masked::MaskedHead;
use ablate_common::head::Stream;
use ablate_common::memory::{CPU_SLICE_TOKENS, SLICE_TOKENS};
use ablate_common::model::ModelInfo;
use tch::{Device, Kind, Tensor};

/// A loaded model.
#[derive(Debug)]
pub struct Model {
    /// What the block does.
    pub arch: Arch,
    /// Shape.
    pub info: ModelInfo,
    /// Token embedding `[vocab, d_model]`, or narrower where it is projected.
    pub embed: Tensor,
    /// Factor of the token embedding, one number.
    pub embed_scale: Option<Tensor>,
    /// Of a model of images what the pixels of a patch are multiplied by: `[d_model, channels · patch height · patch
    /// width]`.
    pub patches: Option<Tensor>,
    /// Learned positions `[context, d_model]`, with what every token gets besides (token type 0).
    pub position: Option<Tensor>,
    /// Norm of the embeddings.
    pub embed_norm: Option<Norm>,
    /// Projection of the normed embeddings `[d_model, width]`, and its bias.
    pub embed_project: Option<(Tensor, Option<Tensor>)>,
    /// Stages, in the order of [`ablate_common::head::HeadMap::stage`]: layers, but two for each of an
    /// encoder-decoder's decoder.
    pub blocks: Vec<Block>,
    /// Norm before the unembedding.
    pub final_norm: Option<Norm>,
    /// Unembedding `[vocab, d_model]`; none for encoders.
    pub unembed: Option<Tensor>,
    /// Masked-LM head; none for decoders, and for encoders without one.
    pub masked: Option<MaskedHead>,
    /// What an encoder-decoder has besides; none for other models.
    pub decoder: Option<Box<Decoder>>,
    /// Classification head; none where the model has none.
    pub classifier: Option<ClassifierHead>,
    /// cos and sin of the rotary angles, each `[context, 1, rotated width]`.
    pub rotary: Option<(Tensor, Tensor)>,
    /// Device of all weights.
    pub device: Device,
    /// Number format of the computation.
    pub kind: Kind,
}

/// The heads of one stage that a state computes, with their slices of the weights. Removed heads cost
/// nothing: their Q, K, V and O slices are not multiplied.
#[derive(Debug)]
pub struct AttnView {
    /// Heads that are computed, ascending.
    pub kept: Vec<u32>,
    pub(super) qkv: Tensor,
    pub(super) qkv_bias: Option<Tensor>,
    /// Gain of each kept query and key head's norm: `[kept + kept K/V, head_dim]`.
    qk_gain: Option<Tensor>,
    wo: Tensor,
    pub(super) n_kv: i64,
    /// For each kept query head its place among the kept K/V heads; none where each K/V head serves as many
    /// query heads as any other, in order.
    kv_index: Option<Tensor>,
    /// What the removed heads add to the output: `[d_model]`, or `[context, d_model]` by position.
    constant: Option<Tensor>,
    /// Factor per kept head (scaled, not removed, heads of the base): `[kept, 1]`.
    factor: Option<Tensor>,
}

/// What a state does to the heads of one stage that belong to its base set.
#[derive(Debug)]
pub enum BaseCut {
    /// The listed heads are gone; the tensor is Σ b_h W_O over them.
    Removed(Vec<u32>, Option<Tensor>),
    /// The listed heads are multiplied by ξ.
    Scaled(Vec<u32>, f64),
}

/// Tokens processed together on a CPU: what a slice's operations make of one another is read again from its cache.
const CPU_SLICE: i64 = CPU_SLICE_TOKENS as i64;

/// On other devices: bounds the temporaries of the feed-forward part.
const SLICE: i64 = SLICE_TOKENS as i64;

impl Model {
    /// Width of a head.
    #[must_use]
    pub fn head_dim(&self) -> i64 {
        i64::from(self.info.head_dim)
    }

    /// Width of the residual stream.
    #[must_use]
    pub fn d_model(&self) -> i64 {
        i64::from(self.info.d_model)
    }

    /// The heads of a stage that a base state computes.
    #[must_use]
    pub fn view(&self, layer: usize, cut: &BaseCut) -> AttnView {
        let block = &self.blocks[layer];
        let (h, kv, dh) = (self.info.n_heads, self.info.n_kv_heads, self.head_dim());
        let removed: &[u32] = if let BaseCut::Removed(r, _) = cut { r } else { &[] };
        let kept: Vec<u32> = (0..h).filter(|i| !removed.contains(i)).collect();
        let group = h / kv;
        let mut kv_kept: Vec<u32> = kept.iter().map(|q| q / group).collect();
        kv_kept.dedup();
        let kv_of: Vec<i64> =
            kept.iter().map(|q| kv_kept.iter().position(|&k| k == q / group).unwrap_or(0) as i64).collect();
        let each = kept.len().checked_div(kv_kept.len()).unwrap_or(1);
        let even = kv_of.iter().enumerate().all(|(i, &k)| (i / each) as i64 == k);
        let constant =
            if let BaseCut::Removed(_, c) = cut { c.as_ref().map(Tensor::shallow_clone) } else { None };
        let factor = match cut {
            BaseCut::Scaled(heads, xi) if !heads.is_empty() => {
                let f: Vec<f64> = (0..h).map(|i| if heads.contains(&i) { *xi } else { 1.0 }).collect();
                Some(Tensor::from_slice(&f).to_kind(self.kind).to_device(self.device).unsqueeze(-1))
            }
            _ => None,
        };
        let (qkv, qkv_bias, wo) = if kept.len() == h as usize {
            (
                block.qkv.shallow_clone(),
                block.qkv_bias.as_ref().map(Tensor::shallow_clone),
                block.wo.shallow_clone(),
            )
        } else {
            let rows = |heads: &[u32], first: u32| -> Vec<i64> {
                heads.iter().flat_map(|&i| (0..dh).map(move |d| i64::from(first + i) * dh + d)).collect()
            };
            let mut pick = rows(&kept, 0);
            pick.extend(rows(&kv_kept, h));
            pick.extend(rows(&kv_kept, h + kv));
            let pick = self.indices(&pick);
            let columns = self.indices(&rows(&kept, 0));
            (
                block.qkv.index_select(0, &pick),
                block.qkv_bias.as_ref().map(|b| b.index_select(0, &pick)),
                block.wo.index_select(1, &columns),
            )
        };
        let qk_gain = block.qk_norm.as_ref().map(|(q, k)| {
            let each = |gain: &Tensor, heads: usize| gain.unsqueeze(0).expand([heads as i64, dh], false);
            Tensor::cat(&[each(q, kept.len()), each(k, kv_kept.len())], 0)
        });
        AttnView {
            qk_gain,
            n_kv: kv_kept.len() as i64,
            kv_index: (!even).then(|| self.indices(&kv_of)),
            kept,
            qkv,
            qkv_bias,
            wo,
            constant,
            factor,
        }
    }

    /// Index tensor on the model's device.
    pub fn indices(&self, values: &[i64]) -> Tensor {
        Tensor::from_slice(values).to_device(self.device)
    }

    /// Residual stream before stage 0: `tokens [batch, len]` → `[batch · len, d_model]`.
    pub fn embed(&self, tokens: &Tensor) -> Tensor {
        self.embedding(&self.embed, self.position.as_ref(), tokens)
    }

    /// Vectors of `table` for `tokens [batch, len]`, with the positions' from the first on.
    pub(super) fn embedding(&self, table: &Tensor, position: Option<&Tensor>, tokens: &Tensor) -> Tensor {
        let (batch, len) = (tokens.size()[0], tokens.size()[1]);
        let mut x = table.index_select(0, &tokens.reshape(-1));
        if let Some(scale) = &self.embed_scale {
            x *= scale;
        }
        if let Some(position) = position {
            x = match self.info.details.padding {
                None => (x.view([batch, len, -1]) + position.narrow(0, 0, len)).view([batch * len, -1]),
                Some(padding) => {
                    let counted = tokens.ne(i64::from(padding)).to_kind(Kind::Int64);
                    let at = counted.cumsum(1, Kind::Int64) * counted + i64::from(padding);
                    x + position.index_select(0, &at.view(-1))
                }
            };
        }
        if let Some(norm) = &self.embed_norm {
            x = self.norm(norm, &x);
        }
        match &self.embed_project {
            Some((weight, bias)) => x.linear(weight, bias.as_ref()),
            None => x,
        }
    }

    /// Whether a token of the stage sees only what is before it, and itself.
    pub(super) fn causal(&self, stage: usize) -> bool {
        match self.info.heads.stage(stage).stream {
            Stream::SelfAttention => self.arch.causal,
            Stream::Decoder => true,
            Stream::Encoder | Stream::Cross => false,
        }
    }

    /// z and output `[tokens, …]` of an attention all of whose heads are gone: its bias and constant stay.
    pub(super) fn no_heads(&self, stage: usize, view: &AttnView, tokens: i64, len: i64) -> (Tensor, Tensor) {
        let z = Tensor::zeros([tokens, 0], (self.kind, self.device));
        let zero = Tensor::zeros([tokens, self.d_model()], (self.kind, self.device));
        let out = match &self.blocks[stage].wo_bias {
            Some(b) => zero + b,
            None => zero,
        };
        (z, self.add_constant(out, view, tokens / len, len))
    }

    /// What attention reads of the residual stream.
    pub(super) fn before_attention(&self, stage: usize, x: &Tensor) -> Tensor {
        match self.arch.place {
            NormPlace::Pre | NormPlace::Parallel => self.norm(&self.blocks[stage].attn_norm, x),
            NormPlace::Post => x.shallow_clone(),
        }
    }

    /// From mixtures of values `z [rows, len, kept, head_dim]` to z as stored and the attention's output.
    pub(super) fn project(
        &self,
        stage: usize,
        view: &AttnView,
        z: Tensor,
        rows: i64,
        len: i64,
    ) -> (Tensor, Tensor) {
        let z = match &view.factor {
            Some(f) => z * f,
            None => z,
        };
        let z = z.reshape([rows * len, view.kept.len() as i64 * self.head_dim()]);
        let out = z.linear(&view.wo, self.blocks[stage].wo_bias.as_ref());
        (z, self.add_constant(out, view, rows, len))
    }

    /// Self-attention of one stage over `x [rows · len, d_model]`. `mask`, where padding must be hidden, is
    /// added to the scores: `[rows, 1, 1, len]`. Gives z of the kept heads `[rows · len, kept · head_dim]`
    /// and what attention adds to the residual stream `[rows · len, d_model]`.
    pub fn attention(
        &self,
        layer: usize,
        view: &AttnView,
        x: &Tensor,
        len: i64,
        mask: Option<&Tensor>,
    ) -> (Tensor, Tensor) {
        let rows = x.size()[0] / len;
        let step = (self.slice() / len).max(1);
        if rows <= step {
            return self.attention_slice(layer, view, x, len, mask);
        }
        let options = (self.kind, self.device);
        let z = Tensor::empty([rows * len, view.kept.len() as i64 * self.head_dim()], options);
        let out = Tensor::empty([rows * len, self.d_model()], options);
        let mut at = 0;
        while at < rows {
            let m = step.min(rows - at);
            let mask = mask.map(|t| t.narrow(0, at, m));
            let (part_z, part_out) =
                self.attention_slice(layer, view, &x.narrow(0, at * len, m * len), len, mask.as_ref());
            z.narrow(0, at * len, m * len).copy_(&part_z);
            out.narrow(0, at * len, m * len).copy_(&part_out);
            at += m;
        }
        (z, out)
    }

    /// Tokens processed together.
    pub(super) fn slice(&self) -> i64 {
        if self.device == Device::Cpu { CPU_SLICE } else { SLICE }
    }

    fn attention_slice(
        &self,
        layer: usize,
        view: &AttnView,
        x: &Tensor,
        len: i64,
        mask: Option<&Tensor>,
    ) -> (Tensor, Tensor) {
        let tokens = x.size()[0];
        if view.kept.is_empty() {
            return self.no_heads(layer, view, tokens, len);
        }
        let [q, k, v] = self.by_head(layer, view, x, len);
        let z = match self.relative_mask(layer, &view.kept, len, mask) {
            Some(bias) => attend(self, layer, &q, &k, &v, Some(&bias), false),
            None => attend(self, layer, &q, &k, &v, mask, self.causal(layer)),
        };
        self.project(layer, view, z.transpose(1, 2), tokens / len, len)
    }

    /// Queries, keys and values that a self-attention makes of `x [rows · len, d_model]`, by head, `[rows, heads, len, head_dim]`: with
    /// their norms and positions.
    pub(super) fn by_head(&self, layer: usize, view: &AttnView, x: &Tensor, len: i64) -> [Tensor; 3] {
        let (dh, nq, nkv) = (self.head_dim(), view.kept.len() as i64, view.n_kv);
        let rows = x.size()[0] / len;
        let h = self.before_attention(layer, x);
        let qkv = h.linear(&view.qkv, view.qkv_bias.as_ref()).view([rows, len, nq + 2 * nkv, dh]);
        let v = qkv.narrow(2, nq + nkv, nkv);
        let mut qk = qkv.narrow(2, 0, nq + nkv);
        if let Some(gain) = &view.qk_gain {
            qk = self.rms(gain, &qk, NormKind::Rms);
        }
        if let Some((cos, sin)) = &self.rotary {
            let (cos, sin) = (cos.narrow(0, 0, len), sin.narrow(0, 0, len));
            // In place: queries and keys were made here.
            if fused::rotate(&qk, &cos, &sin).is_none() {
                qk = rotate(&qk, &cos, &sin);
            }
        }
        let q = qk.narrow(2, 0, nq);
        let (mut k, mut v) = (qk.narrow(2, nq, nkv), v);
        if let Some(index) = &view.kv_index {
            k = k.index_select(2, index);
            v = v.index_select(2, index);
        }
        [q, k, v].map(|t| t.transpose(1, 2))
    }

    fn add_constant(&self, out: Tensor, view: &AttnView, rows: i64, len: i64) -> Tensor {
        match &view.constant {
            None => out,
            Some(c) if c.dim() == 1 => out + c,
            Some(c) => {
                let d = self.d_model();
                (out.view([rows, len, d]) + c.narrow(0, 0, len)).view([rows * len, d])
            }
        }
    }

    /// The states that the unembedding reads: behind the final norm.
    pub fn finish(&self, x: &Tensor) -> Tensor {
        let x = match &self.final_norm {
            Some(norm) => self.norm(norm, x),
            None => x.shallow_clone(),
        };
        match self.decoder.as_ref().and_then(|d| d.output_scale) {
            Some(scale) => x * scale,
            None => x,
        }
    }

    /// Logits of final states `x [n, d_model]`: `[n, vocab]`; none for encoders.
    #[must_use]
    pub fn logits(&self, x: &Tensor) -> Option<Tensor> {
        let logits = x.linear(self.unembed.as_ref()?, self.unembed_bias());
        Some(self.cap_logits(logits))
    }

    /// Bias of the unembedding.
    pub(super) fn unembed_bias(&self) -> Option<&Tensor> {
        self.decoder.as_ref()?.bias.as_ref()
    }

    /// Soft-caps logits, where the model does.
    pub fn cap_logits(&self, logits: Tensor) -> Tensor {
        match self.info.details.logit_softcap {
            Some(cap) if logits.requires_grad() => (logits / cap).tanh() * cap,
            Some(cap) => (logits / cap).tanh_().g_mul_scalar_(cap),
            None => logits,
        }
    }
}

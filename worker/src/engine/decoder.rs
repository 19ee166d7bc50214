//! What an encoder-decoder has beyond one stack of blocks: the target's embeddings, attention to what the
//! encoder made of the source (its *memory*), and relative positions.

use super::attend::{attend, hidden};
use super::block::Norm;
use super::model::{AttnView, Model};
use ablate_common::head::Stream;
use ablate_common::model::Relative;
use tch::{Device, Kind, Tensor};

/// The decoder's own parts.
#[derive(Debug)]
pub struct Decoder {
    /// Embedding of the target's tokens `[target vocabulary, d_model]`.
    pub embed: Tensor,
    /// Vectors of the target's positions `[context, d_model]`.
    pub position: Option<Tensor>,
    /// Norm of what the encoder gives.
    pub memory_norm: Option<Norm>,
    /// Factor of the decoder's final states.
    pub output_scale: Option<f64>,
    /// Bias of the unembedding `[target vocabulary]`.
    pub bias: Option<Tensor>,
    /// Relative positions: their buckets, and the numbers `[buckets, heads]` that the encoder's and the
    /// decoder's self-attention add to the scores.
    pub relative: Option<(Relative, Tensor, Tensor)>,
}

/// Keys and values of memories at one stage, each `[rows, kept heads, len, head_dim]`.
#[derive(Debug)]
pub struct Keys {
    /// Keys.
    pub k: Tensor,
    /// Values.
    pub v: Tensor,
}

impl Keys {
    /// Those of the memories at `pick`, where each memory is `batch` rows.
    pub fn pick(&self, pick: &Tensor, batch: i64) -> Self {
        let [k, v] = [&self.k, &self.v].map(|t| {
            let size = t.size();
            let by_memory = t.view([size[0] / batch, batch, size[1], size[2], size[3]]);
            let rows = pick.size()[0] * batch;
            by_memory.index_select(0, pick).view([rows, size[1], size[2], size[3]])
        });
        Self { k, v }
    }
}

impl Model {
    /// Residual stream before the decoder: `tokens [batch, len]` → `[batch · len, d_model]`.
    pub fn embed_target(&self, tokens: &Tensor) -> Tensor {
        match &self.decoder {
            Some(decoder) => self.embedding(&decoder.embed, decoder.position.as_ref(), tokens),
            None => self.embed(tokens),
        }
    }

    /// The memory, from the encoder's last residual stream `[.., d_model]`.
    pub fn memory(&self, x: &Tensor) -> Tensor {
        match self.decoder.as_ref().and_then(|d| d.memory_norm.as_ref()) {
            Some(norm) => self.norm(norm, x),
            None => x.shallow_clone(),
        }
    }

    /// Keys and values that a stage of the decoder reads of memories `[rows · len, d_model]`.
    pub fn keys(&self, view: &AttnView, memory: &Tensor, len: i64) -> Keys {
        let (dh, n, rows) = (self.head_dim(), view.kept.len() as i64, memory.size()[0] / len);
        let part = |at: i64| {
            let weight = view.qkv.narrow(0, at * dh, n * dh);
            let bias = view.qkv_bias.as_ref().map(|b| b.narrow(0, at * dh, n * dh));
            memory.linear(&weight, bias.as_ref()).view([rows, len, n, dh]).transpose(1, 2).contiguous()
        };
        Keys { k: part(n), v: part(2 * n) }
    }

    /// Attention of `x [rows · len, d_model]` to memories. `keys` are of as many rows, or of fewer: row r
    /// reads the memory at r modulo their number. `mask` hides the source's padding: `[memories, 1, 1, len of the
    /// source]`. Gives what [`Model::attention`] gives.
    pub fn cross_attention(
        &self,
        stage: usize,
        view: &AttnView,
        x: &Tensor,
        len: i64,
        keys: &Keys,
        mask: Option<&Tensor>,
    ) -> (Tensor, Tensor) {
        let (tokens, dh, n) = (x.size()[0], self.head_dim(), view.kept.len() as i64);
        if n == 0 {
            return self.no_heads(stage, view, tokens, len);
        }
        let (rows, memories) = (tokens / len, keys.k.size()[0]);
        let copies = rows / memories;
        let weight = view.qkv.narrow(0, 0, n * dh);
        let bias = view.qkv_bias.as_ref().map(|b| b.narrow(0, 0, n * dh));
        let q = self.before_attention(stage, x).linear(&weight, bias.as_ref());
        // Queries see no order among themselves: all that read one memory stand in one row.
        let q = q.view([copies, memories, len, n, dh]).permute([1, 3, 0, 2, 4]);
        let q = q.reshape([memories, n, copies * len, dh]);
        let z = attend(self, stage, &q, &keys.k, &keys.v, mask, false);
        let z = z.view([memories, n, copies, len, dh]).permute([2, 0, 3, 1, 4]);
        self.project(stage, view, z, rows, len)
    }

    /// What a self-attention with relative positions adds to the scores of `heads`, `[1 or rows, heads, len, len]`:
    /// their numbers by distance, `mask`, and −∞ where a decoder doesn't look. `None` for other models.
    pub fn relative_mask(
        &self,
        stage: usize,
        heads: &[u32],
        len: i64,
        mask: Option<&Tensor>,
    ) -> Option<Tensor> {
        let bias = self.relative(stage, heads, 0, len, len)?;
        let bias = if self.causal(stage) { bias + hidden(self, len, None) } else { bias };
        Some(match mask {
            Some(mask) => bias + mask,
            None => bias,
        })
    }

    /// Numbers by distance of `queries` tokens from position `from` on to the first `keys` tokens:
    /// `[1, heads, queries, keys]`.
    pub fn relative(
        &self,
        stage: usize,
        heads: &[u32],
        from: i64,
        queries: i64,
        keys: i64,
    ) -> Option<Tensor> {
        let (relative, encoder, decoder) = self.decoder.as_ref()?.relative.as_ref()?;
        let both = self.info.heads.stage(stage).stream == Stream::Encoder;
        let table = if both { encoder } else { decoder };
        let heads = self.indices(&heads.iter().map(|&h| i64::from(h)).collect::<Vec<_>>());
        let buckets = buckets(*relative, both, from, queries, keys).to_device(self.device);
        let bias = table.index_select(1, &heads).index_select(0, &buckets.view(-1));
        Some(bias.view([queries, keys, -1]).permute([2, 0, 1]).unsqueeze(0))
    }
}

/// Bucket of each key's place from each query's, `[queries, keys]`; `both`: keys lie on both sides, and each
/// has half of the buckets. Logarithms are taken in f32 whatever the model's format: a distance where they are
/// all but whole falls as it did when the model was trained.
fn buckets(relative: Relative, both: bool, from: i64, queries: i64, keys: i64) -> Tensor {
    let whole = (Kind::Int64, Device::Cpu);
    let place = Tensor::arange(keys, whole).unsqueeze(0)
        - Tensor::arange_start(from, from + queries, whole).unsqueeze(1);
    let all = i64::from(relative.buckets);
    let (count, side, distance) = if both {
        (all / 2, place.gt(0).to_kind(Kind::Int64) * (all / 2), place.abs())
    } else {
        (all, place.zeros_like(), -place.clamp_max(0))
    };
    let exact = count / 2;
    let log = (distance.to_kind(Kind::Float) / exact as f64).log();
    let growth = (f64::from(relative.distance) / exact as f64).ln();
    let far = (log / growth * (count - exact) as f64).clamp_min(0.0).to_kind(Kind::Int64) + exact;
    let far = far.clamp_max(count - 1);
    side + distance.where_self(&distance.lt(exact), &far)
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::engine::score::host;

    #[test]
    fn distances_fall_into_the_buckets_of_transformers() {
        let relative = Relative { buckets: 32, distance: 128 };
        let at = |both, from, keys| host(&buckets(relative, both, from, 1, keys));
        // T5Attention._relative_position_bucket(torch.arange(-140, 0)[None], False) from position 140 on, at
        // distances 140, 128, 127, 64, 32, 16, 15, 1.
        let one = at(false, 140, 140);
        let of = |v: &[f64], d: usize| v[140 - d];
        assert_eq!(
            [140, 128, 127, 64, 32, 16, 15, 1].map(|d| of(&one, d)),
            [31.0, 31.0, 31.0, 26.0, 21.0, 16.0, 15.0, 1.0]
        );
        let two = at(true, 140, 281);
        let of = |d: i64| two[(140 + d) as usize];
        let want = [15.0, 14.0, 12.0, 8.0, 7.0, 1.0, 0.0, 17.0, 23.0, 24.0, 26.0, 28.0, 30.0, 31.0];
        assert_eq!([-128, -64, -32, -8, -7, -1, 0, 1, 7, 8, 16, 32, 64, 140].map(of), want);
    }
}

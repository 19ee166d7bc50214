//! One stage's weights.

use tch::Tensor;

/// A learned normalisation.
#[derive(Debug)]
pub struct Norm {
    /// Gain `[d_model]`.
    pub weight: Tensor,
    /// Shift `[d_model]` (LayerNorm only).
    pub bias: Option<Tensor>,
}

/// The weights of one stage of the forward pass: attention and, in most, a feed-forward part behind it. A
/// transformer layer is one; a layer of an encoder-decoder's decoder is two, its self-attention alone, and its
/// attention to the encoder with the feed-forward part.
#[derive(Debug)]
pub struct Block {
    /// Norm of the attention: before it (pre) or after its residual sum (post).
    pub attn_norm: Norm,
    /// Queries, keys, values stacked: `[(n_heads + 2 n_kv_heads) · head_dim, d_model]`. Of attention to an
    /// encoder, keys and values are those of what it gives.
    pub qkv: Tensor,
    /// Its bias.
    pub qkv_bias: Option<Tensor>,
    /// Gains of the norms of each head's queries and keys, each `[head_dim]`.
    pub qk_norm: Option<(Tensor, Tensor)>,
    /// Output projection W_O: `[d_model, n_heads · head_dim]`.
    pub wo: Tensor,
    /// Bias of the output projection: stays when heads go.
    pub wo_bias: Option<Tensor>,
    /// W_O by head: `[n_heads, head_dim, d_model]`.
    pub wo_heads: Tensor,
    /// Norm of what attention adds to the residual stream, behind W_O and its bias.
    pub post_attn_norm: Option<Norm>,
    /// Feed-forward part, where one follows.
    pub feed: Option<Feed>,
}

/// A feed-forward part's weights.
#[derive(Debug)]
pub struct Feed {
    /// Norm before it, or after its residual sum.
    pub norm: Norm,
    /// First matrix; for gated kinds gate and up stacked: `[d_ff or 2 d_ff, d_model]`.
    pub up: Tensor,
    /// Its bias.
    pub up_bias: Option<Tensor>,
    /// Second matrix `[d_model, d_ff]`.
    pub down: Tensor,
    /// Its bias.
    pub down_bias: Option<Tensor>,
    /// Norm of what it adds to the residual stream.
    pub post_norm: Option<Norm>,
}

impl Block {
    /// The same weights for another layer, without a copy.
    #[must_use]
    pub fn share(&self) -> Self {
        let maybe = |t: &Option<Tensor>| t.as_ref().map(Tensor::shallow_clone);
        Self {
            attn_norm: self.attn_norm.share(),
            qkv: self.qkv.shallow_clone(),
            qkv_bias: maybe(&self.qkv_bias),
            qk_norm: self.qk_norm.as_ref().map(|(q, k)| (q.shallow_clone(), k.shallow_clone())),
            wo: self.wo.shallow_clone(),
            wo_bias: maybe(&self.wo_bias),
            wo_heads: self.wo_heads.shallow_clone(),
            post_attn_norm: self.post_attn_norm.as_ref().map(Norm::share),
            feed: self.feed.as_ref().map(Feed::share),
        }
    }
}

impl Feed {
    fn share(&self) -> Self {
        let maybe = |t: &Option<Tensor>| t.as_ref().map(Tensor::shallow_clone);
        Self {
            norm: self.norm.share(),
            up: self.up.shallow_clone(),
            up_bias: maybe(&self.up_bias),
            down: self.down.shallow_clone(),
            down_bias: maybe(&self.down_bias),
            post_norm: self.post_norm.as_ref().map(Norm::share),
        }
    }
}

impl Norm {
    fn share(&self) -> Self {
        Self { weight: self.weight.shallow_clone(), bias: self.bias.as_ref().map(Tensor::shallow_clone) }
    }
}

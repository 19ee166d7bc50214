//! Model files: what a model is made of, read from its headers only. Nothing here loads a weight.

use crate::head::HeadMap;
use serde::{Deserialize, Serialize};

/// Shape of a model, as architecture-neutral data, and the identity of its bytes.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct ModelInfo {
    /// Hugging Face `model_type` ("llama", "bert").
    pub arch: String,
    /// For people: "SmolLM2 135M Instruct (Q4_1, dequantised)", or the folder's name.
    pub title: String,
    /// sha256 over the weight files' contents in name order, hex.
    pub weights_sha256: String,
    /// Heads of every stream.
    pub heads: HeadMap,
    /// Transformer layers.
    pub layers: u32,
    /// Width of the residual stream.
    pub d_model: u32,
    /// Query heads per layer.
    pub n_heads: u32,
    /// Key/value heads per layer.
    pub n_kv_heads: u32,
    /// Width of a head.
    pub head_dim: u32,
    /// Width of the feed-forward layer.
    pub d_ff: u32,
    /// Tokens in the vocabulary.
    pub vocab: u32,
    /// Longest sequence.
    pub context: u32,
    /// Epsilon of the norms.
    pub norm_eps: f64,
    /// Base of the rotary embedding; none where positions are learned.
    pub rope_theta: Option<f64>,
    /// Whether the unembedding is the embedding's transpose.
    pub tied: bool,
}

impl ModelInfo {
    /// Whether attention looks only backwards, so that the model has next-token logits.
    #[must_use]
    pub fn causal(&self) -> bool {
        self.arch != "bert"
    }
}

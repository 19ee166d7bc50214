//! What a configuration says about the forward pass beyond the shape.

use super::image::ImageShape;
use super::seq2seq::Seq2Seq;
use serde::{Deserialize, Serialize};

/// Activation of the feed-forward part.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Activation {
    /// x Φ(x).
    Gelu,
    /// Its approximation by tanh.
    GeluTanh,
    /// max(x, 0).
    Relu,
    /// x σ(x).
    Silu,
}

/// How the frequencies of a rotary embedding are stretched for longer contexts.
#[derive(Clone, Copy, Debug, PartialEq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case", tag = "kind")]
pub enum RopeScaling {
    /// All divided by `factor`.
    Linear {
        /// The divisor.
        factor: f64,
    },
    /// Wavelengths above `original / low` tokens divided by `factor`, below `original / high` kept, and
    /// interpolated between.
    Llama3 {
        /// The divisor.
        factor: f64,
        /// Low-frequency factor.
        low: f64,
        /// High-frequency factor.
        high: f64,
        /// Context that the model was first trained with, in tokens.
        original: f64,
    },
}

/// What a model's configuration says about its forward pass beyond its shape. A field is absent where
/// the architecture's plain form holds, so that a plan keeps its identity when a new field comes; an
/// unknown field is refused, for it would change the numbers.
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize)]
#[serde(default, deny_unknown_fields)]
pub struct Details {
    /// Activation; none: the architecture's usual one.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub activation: Option<Activation>,
    /// Dimensions of a head that are rotated, from the first; none: all.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub rotary_dim: Option<u32>,
    /// Stretched rotary frequencies.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub rope_scaling: Option<RopeScaling>,
    /// Factor of the attention scores; none: 1 / √`head_dim`.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub attention_scale: Option<f64>,
    /// c of attention scores s that become c tanh(s / c).
    #[serde(skip_serializing_if = "Option::is_none")]
    pub attention_softcap: Option<f64>,
    /// The same of the logits.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub logit_softcap: Option<f64>,
    /// By layer, the tokens that a token sees, itself included; none: all before it. Empty: all layers so.
    #[serde(skip_serializing_if = "Vec::is_empty")]
    pub windows: Vec<Option<u32>>,
    /// Whether attention and feed-forward part both read the layer's input.
    #[serde(skip_serializing_if = "is_false")]
    pub parallel: bool,
    /// Whether the norms stand behind the residual sums, where both places are known (OPT).
    #[serde(skip_serializing_if = "is_false")]
    pub post_norm: bool,
    /// Whether queries, keys and values have a bias, where that is configurable.
    #[serde(skip_serializing_if = "is_false")]
    pub qkv_bias: bool,
    /// Whether W_O has a bias, where that is configurable.
    #[serde(skip_serializing_if = "is_false")]
    pub out_bias: bool,
    /// Whether the feed-forward part has biases, where that is configurable.
    #[serde(skip_serializing_if = "is_false")]
    pub mlp_bias: bool,
    /// Padding token p of a model that numbers the other tokens p + 1, p + 2, … and padding p (RoBERTa).
    #[serde(skip_serializing_if = "Option::is_none")]
    pub padding: Option<u32>,
    /// Width of the token embedding where it is projected to `d_model`.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub embedding_width: Option<u32>,
    /// Names of the labels of the model's classification head, by number; empty: it has none.
    #[serde(skip_serializing_if = "Vec::is_empty")]
    pub labels: Vec<String>,
    /// Groups of equal length of consecutive layers that share their weights; none: no sharing.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub groups: Option<u32>,
    /// What an encoder-decoder has besides.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub seq2seq: Option<Seq2Seq>,
    /// Images that the model looks at, in place of text.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub image: Option<ImageShape>,
}

#[expect(clippy::trivially_copy_pass_by_ref, reason = "serde's signature")]
fn is_false(b: &bool) -> bool {
    !*b
}

impl Details {
    /// Whether nothing is beyond the architecture's plain form.
    #[must_use]
    pub fn is_plain(&self) -> bool {
        *self == Self::default()
    }

    /// Tokens that a token of `layer` sees, itself included; none: all before it.
    #[must_use]
    pub fn window(&self, layer: usize) -> Option<u32> {
        self.windows.get(layer).copied().flatten()
    }

    /// Refuses numbers that no model has.
    pub(super) fn plausible(&self, head_dim: u32, layers: u32) -> Result<(), String> {
        if self.rotary_dim.is_some_and(|n| n == 0 || n > head_dim || n % 2 == 1) {
            return Err(format!("rotating {:?} of {head_dim} dimensions can't be right", self.rotary_dim));
        }
        let mut positive = vec![
            ("attention scale", self.attention_scale),
            ("attention soft cap", self.attention_softcap),
            ("logit soft cap", self.logit_softcap),
        ];
        match self.rope_scaling {
            Some(RopeScaling::Linear { factor }) => positive.push(("rope factor", Some(factor))),
            Some(RopeScaling::Llama3 { factor, low, high, original }) => {
                positive.extend([
                    ("rope factor", Some(factor)),
                    ("low_freq_factor", Some(low)),
                    ("high_freq_factor above low_freq_factor", Some(high - low)),
                    ("original_max_position_embeddings", Some(original)),
                ]);
            }
            None => {}
        }
        for (what, n) in positive {
            if n.is_some_and(|n| !n.is_finite() || n <= 0.0) {
                return Err(format!("{what} of {n:?} can't be right"));
            }
        }
        if self.windows.iter().flatten().any(|&w| w == 0) {
            return Err("a sliding window of 0 can't be right".into());
        }
        if !self.windows.is_empty() && self.windows.len() != layers as usize {
            return Err(format!("{} windows can't belong to {layers} layers", self.windows.len()));
        }
        if self.embedding_width == Some(0) {
            return Err("an embedding width of 0 can't be right".into());
        }
        self.image.as_ref().map_or(Ok(()), ImageShape::plausible)?;
        self.seq2seq.as_ref().map_or(Ok(()), Seq2Seq::plausible)
    }
}

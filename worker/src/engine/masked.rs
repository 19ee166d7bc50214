//! The masked-LM head of encoders.

use super::arch::Activation;
use super::block::Norm;
use super::model::Model;
use tch::Tensor;

/// What turns the final states into predictions of masked tokens.
#[derive(Debug)]
pub struct MaskedHead {
    /// Matrix of the transform, and its bias.
    pub dense: (Tensor, Tensor),
    /// Activation of the transform.
    pub activation: Activation,
    /// Norm of the transform.
    pub norm: Norm,
    /// Decoder `[vocab, width]`.
    pub decoder: Tensor,
    /// Its bias `[vocab]`.
    pub bias: Tensor,
}

impl MaskedHead {
    /// The states that the decoder reads, of final states `x [.., d_model]`.
    pub fn transform(&self, model: &Model, x: &Tensor) -> Tensor {
        let hidden = x.linear(&self.dense.0, Some(&self.dense.1));
        model.norm(&self.norm, &self.activation.apply(&hidden))
    }
}

/// What libtorch computes for an activation.
pub trait Apply {
    /// The activation of every element.
    fn apply(self, t: &Tensor) -> Tensor;
}

impl Apply for Activation {
    fn apply(self, t: &Tensor) -> Tensor {
        match self {
            Self::Gelu => t.gelu("none"),
            Self::GeluTanh => t.gelu("tanh"),
            Self::Relu => t.relu(),
            Self::Silu => t.silu(),
        }
    }
}

//! Architectures as data: what the one block does, and where an architecture's files keep its weights.

mod bert;
mod gpt;
mod llama;
mod seq2seq;
mod vit;

use super::classify::ClassifierHead;
use super::model::{Model, Norm, rotary_tables};
use crate::load::{Error, Weights};
pub use ablate_common::model::Activation;
use ablate_common::model::{ClassifierNames, ModelInfo, known};
use tch::{Device, Kind, Tensor};

/// Kind of normalisation.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum NormKind {
    /// Mean and variance, gain and shift.
    Layer,
    /// Root mean square, gain.
    Rms,
    /// Root mean square, gain kept less 1.
    RmsPlusOne,
}

/// Where the norms stand.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum NormPlace {
    /// Before attention and before the feed-forward part.
    Pre,
    /// After each residual sum.
    Post,
    /// Before attention and before the feed-forward part, which both read the layer's input.
    Parallel,
}

/// How positions come in.
#[derive(Clone, Copy, Debug, PartialEq)]
pub enum Positions {
    /// Learned, or fixed, vectors added to the embeddings.
    Learned,
    /// A number per head and distance added to the attention scores.
    Relative,
    /// Rotation of queries and keys.
    Rotary {
        /// Base of the frequencies.
        theta: f64,
    },
}

/// Kind of feed-forward part.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Mlp {
    /// Activation.
    pub activation: Activation,
    /// Whether it is activation(gate) · up.
    pub gated: bool,
}

/// What the block does.
#[derive(Clone, Copy, Debug, PartialEq)]
pub struct Arch {
    /// Kind of norm.
    pub norm: NormKind,
    /// Where norms stand.
    pub place: NormPlace,
    /// Positions.
    pub positions: Positions,
    /// Feed-forward part.
    pub mlp: Mlp,
    /// Whether attention looks only backwards (of an encoder-decoder's parts, their stream says).
    pub causal: bool,
}

/// Loads a model whose headers [`ablate_common::model::inspect`] has checked.
///
/// # Errors
/// Where the architecture isn't known or a tensor can't be read.
pub fn load(
    info: &ModelInfo,
    weights: &Weights<'_>,
    device: Device,
    kind: Kind,
    progress: &dyn Fn(&str, u64, u64),
) -> Result<Model, Error> {
    let source = Source { info, weights, device, kind, progress };
    let mut model = match info.arch.as_str() {
        "albert" => bert::albert(&source),
        "bert" | "roberta" => bert::bert(&source),
        "distilbert" => bert::distilbert(&source),
        "gemma2" => llama::gemma2(&source),
        "gpt2" => gpt::gpt2(&source),
        "gpt_neox" => gpt::gpt_neox(&source),
        "llama" | "mistral" | "qwen2" | "qwen3" => llama::llama(&source),
        "marian" => seq2seq::marian(&source),
        "opt" => gpt::opt(&source),
        "phi3" => llama::phi3(&source),
        "t5" => seq2seq::t5(&source),
        "vit" => vit::vit(&source),
        other => Err(Error::Tensor {
            name: other.into(),
            detail: format!("this worker has no such architecture ({})", known()),
        }),
    }?;
    model.classifier = source.classifier()?;
    Ok(model)
}

/// What an adapter reads from.
struct Source<'a> {
    info: &'a ModelInfo,
    weights: &'a Weights<'a>,
    device: Device,
    kind: Kind,
    progress: &'a dyn Fn(&str, u64, u64),
}

/// A matrix and its bias.
type Linear = (Tensor, Option<Tensor>);

impl Source<'_> {
    fn get(&self, name: &str) -> Result<Tensor, Error> {
        self.weights.get(name)
    }

    /// `NAME.weight` and, where there is one, `NAME.bias`.
    fn linear(&self, name: &str, bias: bool) -> Result<Linear, Error> {
        let weight = self.get(&format!("{name}.weight"))?;
        Ok((weight, if bias { Some(self.get(&format!("{name}.bias"))?) } else { None }))
    }

    /// Several matrices of the same input on top of each other.
    fn stacked(&self, names: &[String], bias: bool) -> Result<Linear, Error> {
        let parts = names.iter().map(|n| self.linear(n, bias)).collect::<Result<Vec<_>, _>>()?;
        let weight = Tensor::cat(&parts.iter().map(|p| &p.0).collect::<Vec<_>>(), 0);
        let biases: Vec<&Tensor> = parts.iter().filter_map(|p| p.1.as_ref()).collect();
        Ok((weight, (!biases.is_empty()).then(|| Tensor::cat(&biases, 0))))
    }

    /// A norm with gain and, for LayerNorm, shift.
    fn norm(&self, name: &str, shift: bool) -> Result<Norm, Error> {
        let (weight, bias) = self.linear(name, shift)?;
        Ok(Norm { weight, bias })
    }

    /// The unembedding by its own name; none where a classification head stands in its place.
    fn unembedding(&self, name: &str) -> Result<Option<Tensor>, Error> {
        if !self.info.details.labels.is_empty() && !self.weights.has(name) {
            return Ok(None);
        }
        self.get(name).map(Some)
    }

    /// The classification head, where the model has one.
    fn classifier(&self) -> Result<Option<ClassifierHead>, Error> {
        let names = ClassifierNames::of(&self.info.arch).filter(|_| !self.info.details.labels.is_empty());
        let Some(names) = names else { return Ok(None) };
        let dense = match names.dense {
            None => None,
            Some(name) => {
                Some((self.get(&format!("{name}.weight"))?, self.get(&format!("{name}.bias"))?, names.tanh))
            }
        };
        let (out, bias) = self.linear(names.out, names.bias)?;
        Ok(Some(ClassifierHead { dense, out, bias }))
    }

    /// Tells how many layers are loaded.
    fn loaded(&self, layers: u32) {
        (self.progress)("load model", u64::from(layers), u64::from(self.info.layers));
    }

    /// The configured activation, or the architecture's usual one.
    fn mlp(&self, usual: Activation, gated: bool) -> Mlp {
        Mlp { activation: self.info.details.activation.unwrap_or(usual), gated }
    }

    /// Positions by rotation.
    fn rotary(&self) -> (Positions, Option<(Tensor, Tensor)>) {
        let positions = Positions::Rotary { theta: self.info.rope_theta.unwrap_or(10_000.0) };
        let details = &self.info.details;
        let width = i64::from(details.rotary_dim.unwrap_or(self.info.head_dim));
        let scaling = details.rope_scaling.as_ref();
        let context = i64::from(self.info.context);
        (positions, rotary_tables(positions, scaling, context, width, self.kind, self.device))
    }

    /// A model of which all but the given is absent.
    fn model(&self, arch: Arch, embed: Tensor) -> Model {
        Model {
            arch,
            info: self.info.clone(),
            embed,
            embed_scale: None,
            position: None,
            patches: None,
            embed_norm: None,
            embed_project: None,
            blocks: Vec::new(),
            final_norm: None,
            unembed: None,
            masked: None,
            decoder: None,
            classifier: None,
            rotary: None,
            device: self.device,
            kind: self.kind,
        }
    }
}

/// W_O by head, `[n_heads, head_dim, d_model]`.
fn by_head(wo: &Tensor, info: &ModelInfo) -> Tensor {
    let (h, dh) = (i64::from(info.n_heads), i64::from(info.head_dim));
    wo.view([-1, h, dh]).permute([1, 2, 0]).contiguous()
}

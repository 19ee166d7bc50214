//! Classification heads: a matrix to the labels, in encoders behind a transform (matrix, activation) of the first
//! token's state, in decoders of the last token's state, in models of images of the CLS token's state.

use super::need::Needs;
use super::{ModelInfo, WeightIndex};

/// Names of a classification head's parts in an architecture's files.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct ClassifierNames {
    /// The transform's matrix, with a bias; none in decoders and models of images.
    pub dense: Option<&'static str>,
    /// Whether the transform's activation is tanh; otherwise it is max(x, 0).
    pub tanh: bool,
    /// The matrix to the labels, one row each.
    pub out: &'static str,
    /// Whether that has a bias.
    pub bias: bool,
}

impl ClassifierNames {
    /// Names of an architecture's head; `None` where it has none that is known.
    #[must_use]
    pub fn of(arch: &str) -> Option<Self> {
        let (dense, out) = match arch {
            "albert" => (Some("albert.pooler"), "classifier"),
            "bert" => (Some("bert.pooler.dense"), "classifier"),
            "distilbert" => (Some("pre_classifier"), "classifier"),
            "roberta" => (Some("classifier.dense"), "classifier.out_proj"),
            "vit" => (None, "classifier"),
            _ if super::DECODERS.contains(&arch) => (None, "score"),
            _ => return None,
        };
        Some(Self { dense, tanh: arch != "distilbert", out, bias: dense.is_some() || arch == "vit" })
    }
}

/// Names of the unembedding in the files of untied decoders.
const UNEMBEDDINGS: [&str; 2] = ["lm_head.weight", "embed_out.weight"];

/// Whether the model has logits over tokens: not where it was saved with a classification head in its
/// unembedding's place.
#[must_use]
pub fn has_unembedding(info: &ModelInfo, weights: &WeightIndex) -> bool {
    info.causal()
        && (info.details.labels.is_empty()
            || info.tied
            || UNEMBEDDINGS.iter().any(|name| weights.tensors.contains_key(*name)))
}

/// Adds the tensors of the head, where the model has one, to what the model `needs`, and leaves out the
/// unembedding that it stands in for.
pub fn amend(needs: &mut Needs, info: &ModelInfo, weights: &WeightIndex) {
    let labels = info.details.labels.len() as u64;
    let Some(names) = ClassifierNames::of(&info.arch).filter(|_| labels > 0) else { return };
    let d = u64::from(info.d_model);
    if let Some(dense) = names.dense {
        needs.push((format!("{dense}.weight"), vec![d, d]));
        needs.push((format!("{dense}.bias"), vec![d]));
    }
    if names.bias {
        needs.push((format!("{}.bias", names.out), vec![labels]));
    }
    needs.push((format!("{}.weight", names.out), vec![labels, d]));
    if info.causal() && !has_unembedding(info, weights) {
        needs.retain(|(name, _)| !UNEMBEDDINGS.contains(&name.as_str()));
    }
}

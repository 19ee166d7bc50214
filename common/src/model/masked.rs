//! The masked-LM heads of encoders: a transform (matrix, activation, norm) and a decoder with a bias.

use super::need::Needs;
use super::{ModelInfo, WeightIndex};

/// Names of a masked-LM head's parts in an architecture's files.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct MaskedNames {
    /// The transform's matrix.
    pub dense: &'static str,
    /// The transform's norm.
    pub norm: &'static str,
    /// The decoder, one row per token.
    pub decoder: &'static str,
    /// The decoder's bias where it shares the embedding's weights.
    pub bias: &'static str,
}

impl MaskedNames {
    /// Names of an architecture's head; `None` where it has none that is known.
    #[must_use]
    pub fn of(arch: &str) -> Option<Self> {
        let [dense, norm, decoder, bias] = match arch {
            "albert" => {
                ["predictions.dense", "predictions.LayerNorm", "predictions.decoder", "predictions.bias"]
            }
            "bert" => [
                "cls.predictions.transform.dense",
                "cls.predictions.transform.LayerNorm",
                "cls.predictions.decoder",
                "cls.predictions.bias",
            ],
            "distilbert" => {
                ["vocab_transform", "vocab_layer_norm", "vocab_projector", "vocab_projector.bias"]
            }
            "roberta" => ["lm_head.dense", "lm_head.layer_norm", "lm_head.decoder", "lm_head.bias"],
            _ => return None,
        };
        Some(Self { dense, norm, decoder, bias })
    }

    /// The bias that counts: a tied decoder's may go by either name.
    #[must_use]
    pub fn bias_of(&self, tied: bool, has: impl Fn(&str) -> bool) -> String {
        let own = format!("{}.bias", self.decoder);
        if !tied || (!has(self.bias) && has(&own)) { own } else { self.bias.to_owned() }
    }

    /// Whether any part of the head is among the tensors.
    #[must_use]
    pub fn present(&self, has: impl Fn(&str) -> bool) -> bool {
        let parts = [self.dense, self.norm, self.decoder];
        has(self.bias) || parts.iter().any(|p| has(&format!("{p}.weight")) || has(&format!("{p}.bias")))
    }
}

/// The tensors of the head, where the files hold any of it.
pub fn needs(info: &ModelInfo, weights: &WeightIndex) -> Needs {
    let has = |name: &str| weights.tensors.contains_key(name);
    let Some(names) = MaskedNames::of(&info.arch).filter(|n| n.present(has)) else { return Vec::new() };
    let (d, vocab) = (u64::from(info.d_model), u64::from(info.vocab));
    let width = u64::from(info.details.embedding_width.unwrap_or(info.d_model));
    let mut out = vec![
        (format!("{}.weight", names.dense), vec![width, d]),
        (format!("{}.bias", names.dense), vec![width]),
        (format!("{}.weight", names.norm), vec![width]),
        (format!("{}.bias", names.norm), vec![width]),
        (names.bias_of(info.tied, has), vec![vocab]),
    ];
    if !info.tied {
        out.push((format!("{}.weight", names.decoder), vec![vocab, width]));
    }
    out
}

//! What an encoder-decoder has besides the shape that its encoder shares with other models.

use super::ModelInfo;
use serde::{Deserialize, Serialize};

/// The decoder's part of a configuration.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Seq2Seq {
    /// Width of the decoder's feed-forward layer.
    pub decoder_ff: u32,
    /// Tokens in the target's vocabulary.
    pub target_vocab: u32,
    /// Token that the decoder begins with.
    pub start: u32,
    /// Tokens that end a target; the first ends the targets of data.
    pub end: Vec<u32>,
    /// Whether source and target share one embedding.
    pub shared: bool,
    /// Whether the feed-forward part is gated.
    #[serde(default, skip_serializing_if = "std::ops::Not::not")]
    pub gated: bool,
    /// Factor of the token embeddings.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub embed_scale: Option<f64>,
    /// Factor of the decoder's final states.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub output_scale: Option<f64>,
    /// Relative positions, in place of vectors added to the embeddings.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub relative: Option<Relative>,
}

/// Buckets of relative positions: a distance has one of its own at first, then buckets grow.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Relative {
    /// Buckets; in the encoder half of them are for each direction.
    pub buckets: u32,
    /// Distance from which on all share the last bucket.
    pub distance: u32,
}

impl Seq2Seq {
    /// Refuses numbers that no model has.
    pub(super) fn plausible(&self) -> Result<(), String> {
        for (what, n, most) in [
            ("the decoder's feed-forward width", self.decoder_ff, 1 << 24),
            ("target vocabulary", self.target_vocab, 1 << 26),
        ] {
            if n == 0 || n > most {
                return Err(format!("{what} of {n} can't be right (1 to {most})"));
            }
        }
        if let Some(token) = self.end.iter().chain([&self.start]).find(|t| **t >= self.target_vocab) {
            return Err(format!(
                "token {token} begins or ends targets, but there are {} only",
                self.target_vocab
            ));
        }
        if self.end.is_empty() {
            return Err("eos_token_id is missing, so that nothing ends a target".into());
        }
        match self.relative {
            Some(r) if r.buckets < 4 || r.buckets % 4 != 0 || r.buckets > 1 << 16 => {
                Err(format!("{} buckets of relative positions can't be right", r.buckets))
            }
            Some(r) if r.distance <= r.buckets / 2 => {
                Err(format!("a distance of {} within {} buckets can't be right", r.distance, r.buckets))
            }
            _ => Ok(()),
        }
    }
}

/// Names of the token tables of an encoder-decoder's files, of which several may go by one name.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Tables {
    /// Embedding of the source.
    pub source: String,
    /// Embedding of the target.
    pub target: String,
    /// Unembedding.
    pub output: String,
}

impl Tables {
    /// The names by which `has` finds the tables. Files that a framework wrote keep one of the names of a table
    /// that is used in several places; which one depends on the framework.
    #[must_use]
    pub fn of(info: &ModelInfo, has: impl Fn(&str) -> bool) -> Self {
        let prefix = if info.arch == "marian" { "model." } else { "" };
        let shared = info.details.seq2seq.as_ref().is_none_or(|s| s.shared);
        let names =
            |parts: &[&str]| -> Vec<String> { parts.iter().map(|p| format!("{prefix}{p}.weight")).collect() };
        let head = "lm_head.weight".to_owned();
        let first = |all: &[String]| all.iter().find(|n| has(n)).unwrap_or(&all[0]).clone();
        let (source, target) = if shared {
            let all = names(&["shared", "encoder.embed_tokens", "decoder.embed_tokens"]);
            (all.clone(), all)
        } else {
            (names(&["encoder.embed_tokens"]), names(&["decoder.embed_tokens"]))
        };
        let target = first(&target);
        // A head of its own is used where there is one, as transformers does.
        let output = if info.tied && !has(&head) { target.clone() } else { head };
        Self { source: first(&source), target, output }
    }
}

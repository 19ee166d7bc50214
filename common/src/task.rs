//! Prepared tasks: what a model is shown and where it is scored. The coordinator tokenizes once and
//! stores the result by hash; workers fetch it and never see a tokenizer.

use crate::model::ModelInfo;
use crate::pixels::Pixels;
use crate::plan::Batch;
use serde::{Deserialize, Serialize};

/// What a task asks of the model.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum TaskKind {
    /// Next-token loss on text.
    LanguageModeling,
    /// Loss of masked tokens of text.
    MaskedLm,
    /// Next-token loss on the repeat of random tokens.
    Induction,
    /// Indirect-object identification: logit of the indirect object minus the subject's.
    Ioi,
    /// Probability of the digits that make a year greater than another, minus that of those that don't.
    GreaterThan,
    /// Logit of a target token minus that of a foil, at the end of a prompt.
    LogitDifference,
    /// Which of several continuations of a prompt has the highest log-probability.
    NextTokenChoice,
    /// Loss of a target that an encoder-decoder gives to a source.
    Seq2seq,
    /// Which of several labels a text or an image has, by the model's own head or by a probe of its embedding.
    Classification,
    /// Cosine of two texts' embeddings against a human score.
    Similarity,
}

impl TaskKind {
    /// The name in specs and tables.
    #[must_use]
    pub fn name(self) -> &'static str {
        match self {
            Self::LanguageModeling => "language_modeling",
            Self::MaskedLm => "masked_lm",
            Self::Induction => "induction",
            Self::Ioi => "ioi",
            Self::GreaterThan => "greater_than",
            Self::LogitDifference => "logit_difference",
            Self::NextTokenChoice => "next_token_choice",
            Self::Seq2seq => "seq2seq",
            Self::Classification => "classification",
            Self::Similarity => "similarity",
        }
    }

    /// Whether every scored token counts as much as any other, so that an example weighs as many as it has.
    #[must_use]
    pub fn by_token(self) -> bool {
        matches!(self, Self::LanguageModeling | Self::MaskedLm | Self::Induction | Self::Seq2seq)
    }

    /// The scores kept per example whatever the metric, in the order in which a chunk stores them; see
    /// [`crate::metric::Metric::columns`] for those that a metric adds behind them.
    #[must_use]
    pub fn columns(self) -> &'static [&'static str] {
        match self {
            Self::LanguageModeling | Self::MaskedLm | Self::Induction | Self::Seq2seq => &["nll", "correct"],
            Self::Ioi | Self::LogitDifference => &["logit_diff"],
            Self::GreaterThan => &["prob_diff"],
            // The negative log of the right one's share, and the numbers of the chosen and the right one.
            Self::NextTokenChoice | Self::Classification => &["nll", "prediction", "label"],
            Self::Similarity => &["cosine"],
        }
    }
}

/// One position whose logits are looked at.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Scored {
    /// Position in the item's tokens; its logits predict the token after it, or for masked tokens its own.
    pub position: u32,
    /// Token whose log-probability (or logit) counts.
    pub target: u32,
    /// Token whose logit is subtracted (logit-difference kinds), or 1 where the target's probability is added
    /// and 0 where it is subtracted (greater-than); otherwise 0.
    pub foil: u32,
}

/// One sequence that goes through the model.
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize)]
pub struct Item {
    /// Token ids, special tokens included; never empty. For an encoder-decoder those of the source. Of an image the
    /// numbers of its places: 0 (the CLS token), 1 (the first patch), …
    pub tokens: Vec<u32>,
    /// What the decoder of an encoder-decoder reads: its first token, and the target but for its last. Scored
    /// positions are positions here then. Empty for other models.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub decoder: Vec<u32>,
    /// The image, for a model that looks at images.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub image: Option<Box<Pixels>>,
    /// Scored positions, ascending; empty where the embedding is the mean over all tokens. A greater-than item has an entry for each token
    /// that it weighs, all of the same position.
    pub scored: Vec<Scored>,
}

impl Item {
    /// Most tokens that are decoded greedily in place of the target: twice as many as it has, and 8 more, within
    /// the model's `context`. An ablated model may never end by itself.
    #[must_use]
    pub fn decoded_at_most(&self, context: u32) -> usize {
        (2 * self.scored.len() + 8).min(context as usize)
    }

    /// Positions whose logits are needed.
    #[must_use]
    pub fn positions(&self) -> usize {
        self.scored.chunk_by(|a, b| a.position == b.position).count()
    }
}

/// One scored example. For most kinds example `k` is item `k`.
#[derive(Clone, Copy, Debug, PartialEq, Serialize, Deserialize)]
pub struct Example {
    /// The item (for similarity: the first text; for a choice: the first continuation's).
    pub a: u32,
    /// The second text (similarity), or the last continuation's item (choices, which are all from `a` to `b`);
    /// otherwise equal to `a`.
    pub b: u32,
    /// Human score (similarity), or number of the right choice or label; otherwise 0.
    pub gold: f64,
    /// Document that the example is a part of: errors are clustered by it.
    pub cluster: u32,
    /// Seeded half of the documents, 0 (selects) or 1 (reports); `None` for a similarity pair that
    /// crosses the halves.
    pub half: Option<u8>,
}

/// A task as the model will see it.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct Prepared {
    /// What the task asks.
    pub kind: TaskKind,
    /// Sequences, each run once per subset.
    pub items: Vec<Item>,
    /// Seeded half of each item (0 or 1).
    pub item_half: Vec<u8>,
    /// Scored examples.
    pub examples: Vec<Example>,
    /// What a probe is fitted on (classification without the model's own head).
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub probe: Option<Probe>,
}

/// What a linear probe is fitted on, and nothing is scored on: the unablated model's embeddings of `items`.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct Probe {
    /// Names of the labels, by number.
    pub classes: Vec<String>,
    /// Sequences; scored at the position whose state is the embedding, or nowhere where that is the mean over
    /// all tokens.
    pub items: Vec<Item>,
    /// Number of each item's label.
    pub labels: Vec<u32>,
    /// Batches that cover all items.
    pub batches: Vec<Batch>,
}

/// Which examples a sweep runs on.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Scope {
    /// Every example.
    All,
    /// The half on which a greedy sweep selects.
    Select,
}

impl Prepared {
    /// Whether every sequence, a probe's included, is of the sort that the model reads: an image of its size and as
    /// many places, or text.
    ///
    /// # Errors
    /// What is wrong with the first that isn't.
    pub fn readable_by(&self, model: &ModelInfo) -> Result<(), String> {
        let probed = self.probe.iter().flat_map(|p| &p.items);
        for item in self.items.iter().chain(probed) {
            // A token without a row of its own is an index past the end of a table, perhaps on a GPU.
            if item.tokens.iter().any(|&t| t >= model.vocab)
                || item.decoder.iter().any(|&t| t >= model.target_vocab())
            {
                return Err("the data has a token that the model doesn't know".into());
            }
            match (&model.details.image, &item.image) {
                (None, None) => {}
                (None, Some(_)) => return Err("the data has an image, but the model reads text".into()),
                (Some(_), None) => return Err("the data has a text, but the model reads images".into()),
                (Some(shape), Some(image)) => {
                    let own = (image.channels, image.height, image.width);
                    if own != (shape.channels, shape.height, shape.width)
                        || !item.tokens.iter().copied().eq(0..shape.places())
                    {
                        return Err("the data has an image of another size than the model's".into());
                    }
                }
            }
        }
        Ok(())
    }

    /// Indices of the examples in `scope`, ascending: the order of a chunk's scores.
    #[must_use]
    pub fn examples_in(&self, scope: Scope) -> Vec<u32> {
        let keep = |e: &Example| scope == Scope::All || e.half == Some(0);
        (0u32..).zip(&self.examples).filter(|(_, e)| keep(e)).map(|(i, _)| i).collect()
    }

    /// Indices of the items that `scope` needs, ascending.
    #[must_use]
    pub fn items_in(&self, scope: Scope) -> Vec<u32> {
        (0..self.items.len() as u32)
            .filter(|&i| scope == Scope::All || self.item_half[i as usize] == 0)
            .collect()
    }

    /// The items that an example is made of.
    #[must_use]
    pub fn items_of(&self, example: &Example) -> Vec<u32> {
        match self.kind {
            TaskKind::NextTokenChoice => (example.a..=example.b).collect(),
            _ if example.a == example.b => vec![example.a],
            _ => vec![example.a, example.b],
        }
    }

    /// Scored tokens of an example: the weight of its summed loss (1 where no tokens are scored).
    #[must_use]
    pub fn scored_tokens(&self, example: &Example) -> u32 {
        if self.kind.by_token() { self.items[example.a as usize].scored.len() as u32 } else { 1 }
    }
}

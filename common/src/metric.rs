//! Metrics: how per-example scores become one number, and which way is worse.

use crate::task::TaskKind;
use serde::{Deserialize, Serialize};

/// A metric of a task.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Metric {
    /// Token-weighted mean negative log-likelihood, in nats; for choices and labels, of the right one among them.
    Loss,
    /// exp of [`Metric::Loss`].
    Perplexity,
    /// Share of scored tokens predicted (or of examples whose difference is above 0, or whose
    /// right choice or label is chosen).
    Accuracy,
    /// Macro F1 of the predicted labels.
    F1,
    /// F1 of the second of two labels.
    F1Binary,
    /// Matthews' correlation of predicted and right labels.
    Matthews,
    /// Mean logit difference.
    LogitDiff,
    /// Mean difference of two sets of tokens' probabilities.
    ProbDiff,
    /// Mean over the scored tokens of KL(p₀ ‖ p), in nats: p₀ is the unablated model's distribution of the
    /// token there (the next one, or the masked one), p the ablated one's.
    Kl,
    /// BLEU of what the model decodes greedily, 0 to 100; see [`crate::stats::bleu`].
    Bleu,
    /// Pearson correlation of cosine with human score.
    Pearson,
    /// Spearman correlation (midranks) of cosine with human score.
    Spearman,
}

impl Metric {
    /// The name in specs and tables.
    #[must_use]
    pub fn name(self) -> &'static str {
        match self {
            Self::Loss => "loss",
            Self::Perplexity => "perplexity",
            Self::Accuracy => "accuracy",
            Self::F1 => "f1",
            Self::F1Binary => "f1_binary",
            Self::Matthews => "matthews",
            Self::LogitDiff => "logit_diff",
            Self::ProbDiff => "prob_diff",
            Self::Kl => "kl",
            Self::Bleu => "bleu",
            Self::Pearson => "pearson",
            Self::Spearman => "spearman",
        }
    }

    /// Whether a lower value is better; the loss ℓ is the metric itself then, and −metric otherwise.
    #[must_use]
    pub fn lower_is_better(self) -> bool {
        matches!(self, Self::Loss | Self::Perplexity | Self::Kl)
    }

    /// Whether the metric is a (weighted) mean over examples, so that its error is a standard error.
    #[must_use]
    pub fn is_mean(self) -> bool {
        matches!(self, Self::Loss | Self::Accuracy | Self::LogitDiff | Self::ProbDiff | Self::Kl)
    }

    /// ℓ: the value oriented so that more is worse.
    #[must_use]
    pub fn as_loss(self, value: f64) -> f64 {
        if self.lower_is_better() { value } else { -value }
    }

    /// The scores kept per example of a task of this kind that reports this metric, in the order in which a
    /// chunk stores them. A divergence needs the logits of all tokens twice, so it is kept only where asked for.
    #[must_use]
    pub fn columns(self, kind: TaskKind) -> &'static [&'static str] {
        match (self, kind) {
            (Self::Bleu, TaskKind::Seq2seq) => &[
                "nll",
                "correct",
                "match_1",
                "match_2",
                "match_3",
                "match_4",
                "ngrams_1",
                "ngrams_2",
                "ngrams_3",
                "ngrams_4",
                "hypothesis_tokens",
                "reference_tokens",
            ],
            (Self::Kl, _) if kind.by_token() => &["nll", "correct", "kl"],
            (Self::Kl, TaskKind::Ioi | TaskKind::LogitDifference) => &["logit_diff", "kl"],
            _ => kind.columns(),
        }
    }

    /// Metrics of a kind of task; the first is its default.
    #[must_use]
    pub fn of(kind: TaskKind) -> &'static [Metric] {
        match kind {
            TaskKind::LanguageModeling | TaskKind::MaskedLm | TaskKind::Induction => {
                &[Self::Loss, Self::Perplexity, Self::Accuracy, Self::Kl]
            }
            TaskKind::Seq2seq => &[Self::Loss, Self::Perplexity, Self::Accuracy, Self::Kl, Self::Bleu],
            TaskKind::Ioi | TaskKind::LogitDifference => &[Self::LogitDiff, Self::Accuracy, Self::Kl],
            TaskKind::GreaterThan => &[Self::ProbDiff, Self::Accuracy],
            TaskKind::NextTokenChoice => &[Self::Accuracy, Self::Loss, Self::F1, Self::Matthews],
            TaskKind::Classification => {
                &[Self::Accuracy, Self::Loss, Self::F1, Self::F1Binary, Self::Matthews]
            }
            TaskKind::Similarity => &[Self::Pearson, Self::Spearman],
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_divergence_is_the_last_column_of_every_kind_that_has_one() {
        for kind in [
            TaskKind::LanguageModeling,
            TaskKind::MaskedLm,
            TaskKind::Induction,
            TaskKind::Seq2seq,
            TaskKind::Ioi,
            TaskKind::LogitDifference,
        ] {
            assert!(Metric::of(kind).contains(&Metric::Kl), "{kind:?}");
            let (own, plain) = (Metric::Kl.columns(kind), kind.columns());
            assert_eq!(own.split_last(), Some((&"kl", plain)), "{kind:?}");
        }
        for kind in
            [TaskKind::GreaterThan, TaskKind::NextTokenChoice, TaskKind::Classification, TaskKind::Similarity]
        {
            assert!(!Metric::of(kind).contains(&Metric::Kl), "{kind:?}");
        }
    }
}

//! Scores of attention patterns: what an attention sweep measures of each head of the unablated model, and where flow through
//! the model begins.
//!
//! A(q, k) is the weight that a query's position q gives to a key's position k; padding counts nowhere. For each head and item
//! there are the [`COLUMNS`]: sums over the item's queries, of which [`queries`] says how many there are, so that means over any items
//! are ratios of sums and nothing that is undefined is stored.
//!
//! Rollout is the attention rollout of Abnar & Zuidema (2020), read backwards: flow begins, spread evenly, at the scored positions
//! (at all where none are scored), and each layer sends it on by ½ I + ½ mean_h A_h. A head's score is the flow that it moves between
//! tokens on the way, Σ_q w(q) Σ_{k≠q} A_h(q, k) / (2 H), where w is the flow that arrives behind its layer. In an
//! encoder-decoder flow begins in the decoder; attention to the encoder sends its half to the encoder's tokens, which gather it from all
//! layers of the decoder and send it on in theirs. There all keys are other tokens, so that all cross heads of a layer move as much.

use crate::head::Stream;
use crate::plan::Shown;
use crate::scores::TaskScores;
use crate::task::{Item, Prepared, TaskKind};
use std::collections::HashSet;

/// What is kept per head and item, each a sum over queries q: the largest weight; the entropy −Σ A ln A; the weights on position 0 (q ≥ 1;
/// of cross heads all q), on q − 1, on earlier positions of q's own token, and on the positions behind those; and rollout.
pub const COLUMNS: [&str; 7] =
    ["confidence", "entropy", "first_token", "previous_token", "duplicate_token", "induction", "rollout"];

/// The place of rollout among the columns.
pub const ROLLOUT: usize = 6;

/// The one column of a pattern: its rows are cells (query, key), see [`Shown`].
pub const PATTERN: [&str; 1] = ["attention"];

/// Bytes that the patterns of a task's examples may take.
pub const PATTERN_BYTES: u64 = 64 << 20;

/// How many queries of an item each column of a head of `stream` is summed over. Rollout is one number an item.
#[must_use]
pub fn queries(item: &Item, stream: Stream) -> [u32; 7] {
    let tokens = match stream {
        Stream::SelfAttention | Stream::Encoder => &item.tokens,
        Stream::Decoder | Stream::Cross => &item.decoder,
    };
    let n = tokens.len() as u32;
    if stream == Stream::Cross {
        // Queries and keys are of two texts.
        return [n, n, n, 0, 0, 0, 1];
    }
    let (mut seen, mut again) = (HashSet::new(), 0);
    for token in tokens {
        again += u32::from(!seen.insert(token));
    }
    let later = n.saturating_sub(1);
    [n, n, later, later, again, again, 1]
}

/// Where rollout's flow begins: the share of each position of an item's last stream.
#[must_use]
pub fn begins(item: &Item) -> Vec<f64> {
    let n = if item.decoder.is_empty() { item.tokens.len() } else { item.decoder.len() };
    let places = item.positions();
    if places == 0 {
        return vec![1.0 / n.max(1) as f64; n];
    }
    let mut out = vec![0.0; n];
    for s in &item.scored {
        if let Some(share) = out.get_mut(s.position as usize) {
            *share = 1.0 / places as f64;
        }
    }
    out
}

/// The document of each item: errors are clustered by it. A text of a similarity task is one of its own.
#[must_use]
pub fn documents(prepared: &Prepared) -> Vec<u32> {
    let mut out: Vec<u32> = (0..prepared.items.len() as u32).collect();
    if prepared.kind != TaskKind::Similarity {
        for example in &prepared.examples {
            for item in prepared.items_of(example) {
                if let Some(slot) = out.get_mut(item as usize) {
                    *slot = example.cluster;
                }
            }
        }
    }
    out
}

/// Mean rollout of the unit at `unit` of a block.
#[must_use]
pub fn rollout(block: &TaskScores, unit: usize) -> f64 {
    let of = block.column(unit, ROLLOUT);
    of.iter().sum::<f64>() / of.len() as f64
}

/// Cells of some items' patterns together.
#[must_use]
pub fn cells(items: &[Shown]) -> u64 {
    items.iter().map(|i| i.queries.len() as u64 * i.keys().len() as u64).sum()
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::task::Scored;

    #[test]
    fn queries_are_counted_where_there_is_something_to_look_at() {
        let item = Item { tokens: vec![5, 7, 5, 5, 9], decoder: vec![1, 2], ..Item::default() };
        assert_eq!(queries(&item, Stream::SelfAttention), [5, 5, 4, 4, 2, 2, 1]);
        assert_eq!(queries(&item, Stream::Decoder), [2, 2, 1, 1, 0, 0, 1]);
        assert_eq!(queries(&item, Stream::Cross), [2, 2, 2, 0, 0, 0, 1]);
        let one = Item { tokens: vec![5], ..Item::default() };
        assert_eq!(queries(&one, Stream::SelfAttention), [1, 1, 0, 0, 0, 0, 1]);
    }

    #[test]
    fn flow_begins_at_scored_positions_each_once() {
        let at = |position| Scored { position, target: 0, foil: 0 };
        let item = Item { tokens: vec![1; 4], scored: vec![at(1), at(3), at(3)], ..Item::default() };
        assert_eq!(begins(&item), [0.0, 0.5, 0.0, 0.5]);
        assert_eq!(begins(&Item { scored: Vec::new(), ..item }), [0.25; 4]);
    }
}

//! Tasks, kind by kind.

mod choices;
pub mod classes;
mod counterfactual;
mod ioi;
mod pairs;
mod prompts;
mod seq2seq;
mod text;
mod years;

pub use counterfactual::counterfactuals;

use crate::data::Data;
use crate::reader::Reader;
use ablate_common::model::ModelInfo;
use ablate_common::spec::TaskSpec;
use ablate_common::task::{Example, Item, Prepared, Scored, TaskKind};
use rand::SeedableRng;
use rand::seq::SliceRandom;
use rand_chacha::ChaCha8Rng;
use std::collections::HashMap;

/// Prepares one task for a model. `seed` decides the halves and what is
/// generated: the same for all tasks of a spec, so that those that ask for the same show the model the same.
pub fn prepare(
    task: &TaskSpec,
    data: Option<&Data>,
    reader: &Reader,
    model: &ModelInfo,
    seed: u64,
) -> Result<Prepared, String> {
    let data = || data.ok_or_else(|| format!("a {} task needs data", task.kind.name()));
    // With the model's labels: see `classes::classification`.
    if task.kind == TaskKind::Classification {
        return Ok(plain(task.kind, classes::shown(task, data()?, reader)?, seed));
    }
    let text = reader.text()?;
    let items = match task.kind {
        TaskKind::Similarity => return pairs::similarity(task, data()?, text, seed),
        TaskKind::NextTokenChoice => return choices::next_token_choice(task, data()?, text, seed),
        TaskKind::Classification => unreachable!("answered above"),
        TaskKind::LanguageModeling => text::language_modeling(task, data()?, text)?,
        TaskKind::MaskedLm => text::masked_lm(task, data()?, text, seed)?,
        TaskKind::Seq2seq => seq2seq::seq2seq(task, data()?, text, model)?,
        TaskKind::LogitDifference => prompts::logit_difference(task, data()?, text)?,
        TaskKind::Induction => prompts::induction(task, text, seed)?,
        TaskKind::GreaterThan => years::greater_than(task, text, seed)?,
        TaskKind::Ioi => ioi::ioi(task, text, seed)?,
    };
    Ok(plain(task.kind, items, seed))
}

/// A task whose examples are its items.
fn plain(kind: TaskKind, (items, clusters): Items, split_seed: u64) -> Prepared {
    let count = clusters.iter().max().map_or(0, |&c| c + 1);
    let half = halves(count, split_seed);
    let item_half: Vec<u8> = clusters.iter().map(|&c| half[c as usize]).collect();
    let examples = (0u32..)
        .zip(&clusters)
        .zip(&item_half)
        .map(|((i, &cluster), &h)| Example { a: i, b: i, gold: 0.0, cluster, half: Some(h) })
        .collect();
    Prepared { kind, items, item_half, examples, probe: None }
}

/// Items with the document of each.
type Items = (Vec<Item>, Vec<u32>);

/// Seeded half of each of `count` documents; the first half has the odd one.
fn halves(count: u32, seed: u64) -> Vec<u8> {
    let mut order: Vec<u32> = (0..count).collect();
    order.shuffle(&mut ChaCha8Rng::seed_from_u64(seed));
    let mut half = vec![1; count as usize];
    for &d in &order[..(count as usize).div_ceil(2)] {
        half[d as usize] = 0;
    }
    half
}

/// An item scored on the next token at every position but the last.
fn next_token(tokens: Vec<u32>) -> Item {
    let scored = (0u32..)
        .zip(tokens.iter().skip(1))
        .map(|(position, &target)| Scored { position, target, foil: 0 })
        .collect();
    Item { tokens, scored, ..Item::default() }
}

/// Numbers documents in the order in which they are first named.
#[derive(Default)]
struct Documents {
    named: HashMap<String, u32>,
    count: u32,
}

impl Documents {
    /// The number of a record's document; a record without a name is a document of its own.
    fn number(&mut self, name: Option<&serde_json::Value>) -> u32 {
        let next = self.count;
        let number = match name {
            None => next,
            Some(v) => *self.named.entry(v.to_string()).or_insert(next),
        };
        if number == next {
            self.count += 1;
        }
        number
    }
}

/// The most examples as `usize`.
fn most(task: &TaskSpec) -> usize {
    task.examples.map_or(usize::MAX, |n| n as usize)
}

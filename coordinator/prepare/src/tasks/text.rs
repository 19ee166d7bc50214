//! language_modeling and masked_lm.

use super::{Documents, Items, most, next_token};
use crate::data::Data;
use crate::tokenizer::Text;
use ablate_common::spec::TaskSpec;
use ablate_common::task::{Item, Scored};
use rand::SeedableRng;
use rand_chacha::ChaCha8Rng;
use serde::Deserialize;
use serde_json::Value;

#[derive(Deserialize)]
struct Record {
    text: String,
    document: Option<Value>,
}

/// Share of the tokens that are masked, in percent.
const MASKED: usize = 15;

/// Text, every token of which is predicted from those before it.
pub fn language_modeling(task: &TaskSpec, data: &Data, text: &Text) -> Result<Items, String> {
    let item = |bare: &[u32], _| {
        let tokens = text.wrap(bare);
        (!bare.is_empty() && tokens.len() >= 2).then(|| next_token(tokens))
    };
    let none = "text has fewer than two tokens, so that none can be predicted; leave the record out";
    items(task, data, text, 2, none, &item)
}

/// Text, seeded tokens of which are hidden and predicted from all others.
pub fn masked_lm(task: &TaskSpec, data: &Data, text: &Text, seed: u64) -> Result<Items, String> {
    let mask = text.mask().ok_or(
        "the tokenizer has no token [MASK] or <mask>, so that nothing can be masked; use the tokenizer.json that belongs to the model",
    )?;
    let item = |bare: &[u32], number| masked(text, bare, mask, seed, number);
    let none = "text has no ordinary token that could be masked; leave the record out";
    items(task, data, text, 1, none, &item)
}

/// An item with some of its ordinary tokens masked, at least one; which ones depends on the seed and the
/// item's number only.
fn masked(text: &Text, bare: &[u32], mask: u32, seed: u64, number: usize) -> Option<Item> {
    let mut tokens = text.wrap(bare);
    let first = text.prefix.len();
    let ordinary: Vec<usize> = (first..first + bare.len()).filter(|&p| !text.is_special(tokens[p])).collect();
    if ordinary.is_empty() {
        return None;
    }
    let count = ((ordinary.len() * MASKED + 50) / 100).max(1);
    let mut rng = ChaCha8Rng::seed_from_u64(seed);
    rng.set_stream(number as u64);
    let mut chosen = rand::seq::index::sample(&mut rng, ordinary.len(), count).into_vec();
    chosen.sort_unstable();
    let scored = chosen
        .into_iter()
        .map(|i| {
            let position = ordinary[i];
            let target = std::mem::replace(&mut tokens[position], mask);
            Scored { position: position as u32, target, foil: 0 }
        })
        .collect();
    Some(Item { tokens, scored, ..Item::default() })
}

/// What makes an item of a text's tokens and the item's number; `None` where it would score nothing.
type Make<'a> = dyn Fn(&[u32], usize) -> Option<Item> + 'a;

/// Records, truncated; or a text file's documents (separated by blank lines), cut into windows. A record that
/// makes no item is refused with `none`.
fn items(
    task: &TaskSpec,
    data: &Data,
    text: &Text,
    least: u32,
    none: &str,
    make: &Make<'_>,
) -> Result<Items, String> {
    let room = text.room(task.max_tokens);
    if room == 0 || task.max_tokens < least {
        return Err(format!(
            "max_tokens = {} leaves no room for text beside the special tokens",
            task.max_tokens
        ));
    }
    if data.is_text() {
        windows(task, data, text, room, make)
    } else {
        records(task, data, text, room, none, make)
    }
}

fn records(
    task: &TaskSpec,
    data: &Data,
    text: &Text,
    room: usize,
    none: &str,
    make: &Make<'_>,
) -> Result<Items, String> {
    let (mut items, mut clusters, mut documents) = (Vec::new(), Vec::new(), Documents::default());
    for (line, r) in data.records::<Record>(most(task), r#"{"text": "…"}"#)? {
        let mut bare = text.bare(&r.text).map_err(|e| data.at(line, &e))?;
        bare.truncate(room);
        items.push(make(&bare, items.len()).ok_or_else(|| data.at(line, none))?);
        clusters.push(documents.number(r.document.as_ref()));
    }
    Ok((items, clusters))
}

fn windows(task: &TaskSpec, data: &Data, text: &Text, room: usize, make: &Make<'_>) -> Result<Items, String> {
    let (mut items, mut clusters, mut documents) = (Vec::new(), Vec::new(), Documents::default());
    let lines: Vec<&str> = data.text.lines().collect();
    for document in lines.split(|l| l.trim().is_empty()).filter(|d| !d.is_empty()) {
        let bare = text.bare(&document.join("\n"))?;
        let mut number = None;
        for window in bare.chunks(room) {
            let Some(item) = make(window, items.len()) else { continue };
            if items.len() == most(task) {
                return Ok((items, clusters));
            }
            clusters.push(*number.get_or_insert_with(|| documents.number(None)));
            items.push(item);
        }
    }
    if items.is_empty() {
        return Err(data.at(1, "there is no text in the file"));
    }
    Ok((items, clusters))
}

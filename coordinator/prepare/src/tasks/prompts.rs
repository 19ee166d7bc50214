//! logit_difference and induction.

use super::{Documents, Items, most};
use crate::data::Data;
use crate::tokenizer::Text;
use ablate_common::spec::TaskSpec;
use ablate_common::task::{Item, Scored};
use rand::{Rng, SeedableRng};
use rand_chacha::ChaCha8Rng;
use serde::Deserialize;
use serde_json::Value;

#[derive(Deserialize)]
struct Record {
    prompt: String,
    target: String,
    foil: String,
    document: Option<Value>,
}

/// Prompts with a target and a foil, each a single token after the prompt.
pub fn logit_difference(task: &TaskSpec, data: &Data, text: &Text) -> Result<Items, String> {
    let shape = r#"{"prompt": "…", "target": " x", "foil": " y"}"#;
    let room = text.room(task.max_tokens);
    if room == 0 {
        return Err(format!("max_tokens = {} leaves no room for a prompt", task.max_tokens));
    }
    let (mut items, mut clusters, mut documents) = (Vec::new(), Vec::new(), Documents::default());
    for (line, r) in data.records::<Record>(most(task), shape)? {
        let prompt = text.bare(&r.prompt).map_err(|e| data.at(line, &e))?;
        if prompt.is_empty() {
            return Err(data.at(line, "prompt has no token"));
        }
        let single = |what: &str, word: &str| -> Result<u32, String> {
            let whole = text.bare(&format!("{}{word}", r.prompt)).map_err(|e| data.at(line, &e))?;
            match whole.strip_prefix(prompt.as_slice()) {
                Some([one]) => Ok(*one),
                _ => Err(data.at(
                    line,
                    &format!("{what} {word:?} isn't a single token after the prompt (a word usually begins with its space, \" word\")"),
                )),
            }
        };
        let (target, foil) = (single("target", &r.target)?, single("foil", &r.foil)?);
        if target == foil {
            return Err(data.at(line, "target and foil are the same token"));
        }
        // A longer prompt loses its beginning: what is scored is its end.
        let kept = &prompt[prompt.len().saturating_sub(room)..];
        items.push(prompt_item(text, kept, target, foil));
        clusters.push(documents.number(r.document.as_ref()));
    }
    Ok((items, clusters))
}

/// A prompt scored at its last token.
pub fn prompt_item(text: &Text, prompt: &[u32], target: u32, foil: u32) -> Item {
    let position = (text.prefix.len() + prompt.len() - 1) as u32;
    Item { tokens: text.wrap(prompt), scored: vec![Scored { position, target, foil }], ..Item::default() }
}

/// Seeded random tokens, twice; scored on the second time's tokens but the first.
pub fn induction(task: &TaskSpec, text: &Text, seed: u64) -> Result<Items, String> {
    let prefix = text.prefix.len();
    let half = (task.max_tokens as usize).saturating_sub(prefix) / 2;
    if half < 2 {
        return Err(format!(
            "max_tokens = {} is too short: a repeat needs at least {}",
            task.max_tokens,
            prefix + 4
        ));
    }
    let vocabulary = text.ordinary();
    if vocabulary.len() < 2 {
        return Err("the tokenizer has no ordinary tokens".into());
    }
    let distinct = vocabulary.len() >= 2 * half;
    let mut rng = ChaCha8Rng::seed_from_u64(seed);
    let count = task.examples.unwrap_or(64);
    let items = (0..count)
        .map(|_| {
            let mut once: Vec<u32> = Vec::with_capacity(half);
            while once.len() < half {
                let token = vocabulary[rng.random_range(0..vocabulary.len() as u32) as usize];
                if !distinct || !once.contains(&token) {
                    once.push(token);
                }
            }
            let tokens = [&text.prefix[..], &once, &once].concat();
            let scored = (prefix + half..prefix + 2 * half - 1)
                .map(|p| Scored { position: p as u32, target: tokens[p + 1], foil: 0 })
                .collect();
            Item { tokens, scored, ..Item::default() }
        })
        .collect();
    Ok((items, (0..count).collect()))
}

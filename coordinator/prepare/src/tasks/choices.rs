//! next_token_choice.

use super::{Documents, halves, most};
use crate::data::Data;
use crate::tokenizer::Text;
use ablate_common::spec::TaskSpec;
use ablate_common::task::{Example, Item, Prepared, Scored, TaskKind};
use serde::Deserialize;
use serde_json::Value;

#[derive(Deserialize)]
struct Record {
    prompt: String,
    choices: Vec<String>,
    answer: usize,
    document: Option<Value>,
}

/// Prompts with several continuations of any length, of which one is right; each continuation is an item.
pub fn next_token_choice(
    task: &TaskSpec,
    data: &Data,
    text: &Text,
    split_seed: u64,
) -> Result<Prepared, String> {
    let shape = r#"{"prompt": "…", "choices": [" x", " y z"], "answer": 0}"#;
    let room = text.room(task.max_tokens);
    let (mut items, mut examples, mut documents) = (Vec::new(), Vec::new(), Documents::default());
    for (line, r) in data.records::<Record>(most(task), shape)? {
        let bad = |what: String| data.at(line, &what);
        let prompt = text.bare(&r.prompt).map_err(bad)?;
        if prompt.is_empty() {
            return Err(bad("prompt has no token".into()));
        }
        if r.choices.len() < 2 {
            return Err(bad(format!("there must be two choices or more, but there are {}", r.choices.len())));
        }
        if r.answer >= r.choices.len() {
            return Err(bad(format!(
                "answer = {} is no choice: they are numbered 0 to {}",
                r.answer,
                r.choices.len() - 1
            )));
        }
        let mut choices: Vec<Vec<u32>> = Vec::new();
        for word in &r.choices {
            let whole = text.bare(&format!("{}{word}", r.prompt)).map_err(bad)?;
            let own = whole.strip_prefix(prompt.as_slice()).filter(|own| !own.is_empty()).ok_or_else(|| {
                bad(format!(
                    "choice {word:?} doesn't begin with a token of its own after the prompt (a word usually begins with its space, \" word\")"
                ))
            })?;
            if choices.iter().any(|c| c == own) {
                return Err(bad(format!("choice {word:?} is there twice")));
            }
            choices.push(own.to_vec());
        }
        let longest = choices.iter().map(Vec::len).max().unwrap_or(0);
        // A longer prompt loses its beginning, by as much for every choice.
        let left = room.checked_sub(longest).filter(|&n| n > 0).ok_or_else(|| {
            bad(format!(
                "max_tokens = {} leaves no room for a prompt beside a choice of {longest} tokens",
                task.max_tokens
            ))
        })?;
        let kept = &prompt[prompt.len().saturating_sub(left)..];
        let a = items.len() as u32;
        items.extend(choices.iter().map(|choice| choice_item(text, kept, choice)));
        let cluster = documents.number(r.document.as_ref());
        examples.push(Example { a, b: items.len() as u32 - 1, gold: r.answer as f64, cluster, half: None });
    }
    let half = halves(documents.count, split_seed);
    let mut item_half = Vec::with_capacity(items.len());
    for e in &mut examples {
        let half = half[e.cluster as usize];
        e.half = Some(half);
        item_half.resize(e.b as usize + 1, half);
    }
    Ok(Prepared { kind: TaskKind::NextTokenChoice, items, item_half, examples, probe: None })
}

/// A prompt with a continuation that is scored token by token.
fn choice_item(text: &Text, prompt: &[u32], choice: &[u32]) -> Item {
    let first = text.prefix.len() + prompt.len() - 1;
    let scored = (first as u32..)
        .zip(choice)
        .map(|(position, &target)| Scored { position, target, foil: 0 })
        .collect();
    Item { tokens: text.wrap(&[prompt, choice].concat()), scored, ..Item::default() }
}

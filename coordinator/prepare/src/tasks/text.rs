//! language_modeling.

use super::{Documents, Items, most, next_token};
use crate::data::Data;
use crate::tokenizer::Text;
use ablate_common::spec::TaskSpec;
use serde::Deserialize;
use serde_json::Value;

#[derive(Deserialize)]
struct Record {
    text: String,
    document: Option<Value>,
}

/// Records, truncated; or a text file's documents (separated by blank lines), cut into windows.
pub fn language_modeling(task: &TaskSpec, data: &Data, text: &Text) -> Result<Items, String> {
    let room = text.room(task.max_tokens);
    if room == 0 || task.max_tokens < 2 {
        return Err(format!(
            "max_tokens = {} leaves no room for text beside the special tokens",
            task.max_tokens
        ));
    }
    if data.is_text() { windows(task, data, text, room) } else { records(task, data, text, room) }
}

fn records(task: &TaskSpec, data: &Data, text: &Text, room: usize) -> Result<Items, String> {
    let (mut items, mut clusters, mut documents) = (Vec::new(), Vec::new(), Documents::default());
    for (line, r) in data.records::<Record>(most(task), r#"{"text": "…"}"#)? {
        let mut bare = text.bare(&r.text).map_err(|e| data.at(line, &e))?;
        bare.truncate(room);
        let tokens = text.wrap(&bare);
        if bare.is_empty() || tokens.len() < 2 {
            return Err(data.at(
                line,
                "text has fewer than two tokens, so that none can be predicted; leave the record out",
            ));
        }
        items.push(next_token(tokens));
        clusters.push(documents.number(r.document.as_ref()));
    }
    Ok((items, clusters))
}

fn windows(task: &TaskSpec, data: &Data, text: &Text, room: usize) -> Result<Items, String> {
    let (mut items, mut clusters, mut documents) = (Vec::new(), Vec::new(), Documents::default());
    let lines: Vec<&str> = data.text.lines().collect();
    for document in lines.split(|l| l.trim().is_empty()).filter(|d| !d.is_empty()) {
        let bare = text.bare(&document.join("\n"))?;
        let fits = bare.chunks(room).map(|w| text.wrap(w)).filter(|w| w.len() >= 2);
        let mut number = None;
        for tokens in fits {
            if items.len() == most(task) {
                return Ok((items, clusters));
            }
            clusters.push(*number.get_or_insert_with(|| documents.number(None)));
            items.push(next_token(tokens));
        }
    }
    if items.is_empty() {
        return Err(data.at(1, "there is no text in the file"));
    }
    Ok((items, clusters))
}

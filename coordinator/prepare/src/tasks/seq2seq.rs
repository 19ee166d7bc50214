//! seq2seq.

use super::{Documents, Items, most};
use crate::data::Data;
use crate::tokenizer::Text;
use ablate_common::model::{ModelInfo, Seq2Seq};
use ablate_common::spec::TaskSpec;
use ablate_common::task::{Item, Scored};
use serde::Deserialize;
use serde_json::Value;

#[derive(Deserialize)]
struct Record {
    source: Option<String>,
    source_tokens: Option<Vec<u32>>,
    target: Option<String>,
    target_tokens: Option<Vec<u32>>,
    document: Option<Value>,
}

/// Sources with the targets that an encoder-decoder is to give them, every token of which is predicted from
/// the source and those before it.
pub fn seq2seq(task: &TaskSpec, data: &Data, text: &Text, model: &ModelInfo) -> Result<Items, String> {
    let shape = r#"{"source": "…", "target": "…"} (or "source_tokens", "target_tokens": [1, 2, 3])"#;
    let Some(model) = &model.details.seq2seq else { return Err("the model has no decoder".into()) };
    let (room, most_tokens) = (text.room(task.max_tokens), task.max_tokens as usize);
    if room == 0 {
        return Err(format!("max_tokens = {} leaves no room for a source", task.max_tokens));
    }
    let (mut items, mut clusters, mut documents) = (Vec::new(), Vec::new(), Documents::default());
    for (line, r) in data.records::<Record>(most(task), shape)? {
        let bad = |what: &str| data.at(line, what);
        let tokens = match (&r.source, r.source_tokens) {
            (Some(source), None) => {
                let mut bare = text.bare(source).map_err(|e| bad(&e))?;
                if bare.is_empty() {
                    return Err(bad("source has no token"));
                }
                bare.truncate(room);
                text.wrap(&bare)
            }
            (None, Some(mut tokens)) if !tokens.is_empty() => {
                tokens.truncate(most_tokens);
                tokens
            }
            _ => {
                return Err(bad(&format!(
                    "there must be one source, with a token; a record here is {shape}"
                )));
            }
        };
        let target = match (&r.target, r.target_tokens) {
            (Some(_), None) if !model.shared => {
                return Err(bad(
                    "the model's target has a vocabulary of its own, which tokenizer.json doesn't know; give target_tokens",
                ));
            }
            (Some(target), None) => text.wrap(&text.bare(target).map_err(|e| bad(&e))?),
            (None, Some(tokens)) => tokens,
            _ => return Err(bad(&format!("there must be one target; a record here is {shape}"))),
        };
        let target = ended(target, model, most_tokens);
        let decoder = std::iter::once(model.start).chain(target.iter().copied()).take(target.len()).collect();
        let scored =
            (0u32..).zip(&target).map(|(position, &target)| Scored { position, target, foil: 0 }).collect();
        items.push(Item { tokens, decoder, scored, ..Item::default() });
        clusters.push(documents.number(r.document.as_ref()));
    }
    Ok((items, clusters))
}

/// A target with the token that ends it, cut to `most` tokens.
fn ended(mut target: Vec<u32>, model: &Seq2Seq, most: usize) -> Vec<u32> {
    if target.last().is_none_or(|last| !model.end.contains(last)) {
        target.extend(model.end.first());
    }
    target.truncate(most);
    target
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_target_ends_once_and_is_cut_to_its_beginning() {
        let model = Seq2Seq {
            decoder_ff: 1,
            target_vocab: 9,
            start: 0,
            end: vec![2, 3],
            shared: true,
            gated: false,
            embed_scale: None,
            output_scale: None,
            relative: None,
        };
        assert_eq!(ended(vec![5, 6], &model, 4), [5, 6, 2]);
        assert_eq!(ended(vec![5, 3], &model, 4), [5, 3], "either of the ends");
        assert_eq!(ended(vec![], &model, 4), [2]);
        assert_eq!(ended(vec![5, 6, 7, 8], &model, 3), [5, 6, 7]);
    }
}

//! similarity.

use super::{halves, most};
use crate::data::Data;
use crate::tokenizer::Text;
use ablate_common::spec::TaskSpec;
use ablate_common::task::{Example, Item, Prepared, TaskKind};
use serde::Deserialize;
use std::collections::HashMap;

#[derive(Deserialize)]
struct Record {
    a: String,
    b: String,
    score: f64,
}

/// Pairs of texts with a human score; each distinct text is one item.
pub fn similarity(task: &TaskSpec, data: &Data, text: &Text, split_seed: u64) -> Result<Prepared, String> {
    let records = data.records::<Record>(most(task), r#"{"a": "…", "b": "…", "score": 1.5}"#)?;
    let room = text.room(task.max_tokens);
    if room == 0 {
        return Err(format!("max_tokens = {} leaves no room for a text", task.max_tokens));
    }
    let (mut items, mut index): (Vec<Item>, HashMap<&str, u32>) = (Vec::new(), HashMap::new());
    let mut examples = Vec::new();
    for (line, r) in &records {
        let mut ids = [0; 2];
        for (id, (what, s)) in ids.iter_mut().zip([("a", r.a.as_str()), ("b", r.b.as_str())]) {
            *id = match index.get(s) {
                Some(&i) => i,
                None => {
                    let mut bare = text.bare(s).map_err(|e| data.at(*line, &e))?;
                    if bare.is_empty() {
                        return Err(data.at(*line, &format!("{what} has no token")));
                    }
                    bare.truncate(room);
                    items.push(Item { tokens: text.wrap(&bare), ..Item::default() });
                    let new = (items.len() - 1) as u32;
                    index.insert(s, new);
                    new
                }
            };
        }
        let [a, b] = ids;
        examples.push(Example { a, b, gold: r.score, cluster: a, half: None });
    }
    if examples.len() < 3 || examples.iter().all(|e| e.gold == examples[0].gold) {
        return Err(data.at(1, "a correlation needs at least 3 pairs with different scores"));
    }
    let item_half = halves(items.len() as u32, split_seed);
    for e in &mut examples {
        let (a, b) = (item_half[e.a as usize], item_half[e.b as usize]);
        e.half = (a == b).then_some(a);
    }
    Ok(Prepared { kind: TaskKind::Similarity, items, item_half, examples, probe: None })
}

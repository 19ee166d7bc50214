//! Counterfactuals: for each item another one of the same tokens in number, whose states a paired resample
//! ablation puts in their place.

use super::{classes, ioi, most, years};
use crate::data::Data;
use crate::reader::Reader;
use crate::tokenizer::Text;
use ablate_common::spec::TaskSpec;
use ablate_common::task::{Item, Prepared, TaskKind};
use rand::seq::IndexedRandom;
use rand::{Rng, SeedableRng};
use rand_chacha::ChaCha8Rng;
use serde::Deserialize;
use serde_json::Value;

/// Keeps the draws apart from those that made the items.
const COUNTERFACTUAL: u64 = 0xc0_47e4;

#[derive(Deserialize)]
struct Record {
    text: Option<String>,
    prompt: Option<String>,
    a: Option<String>,
    b: Option<String>,
    counterfactual: Option<String>,
    a_counterfactual: Option<String>,
    b_counterfactual: Option<String>,
    document: Option<Value>,
}

#[derive(Deserialize)]
struct SourceRecord {
    source: Option<String>,
    source_tokens: Option<Vec<u32>>,
    counterfactual: Option<String>,
    counterfactual_tokens: Option<Vec<u32>>,
}

/// Each item's counterfactual: its tokens, special ones included, or its image. Nothing is scored in it.
///
/// # Errors
/// Where a record has none, or one of another length (with its line), or none can be made.
pub fn counterfactuals(
    task: &TaskSpec,
    data: Option<&Data>,
    reader: &Reader,
    prepared: &Prepared,
    seed: u64,
) -> Result<Vec<Item>, String> {
    if let (Reader::Images(preprocessor), Some(data)) = (reader, data) {
        return classes::counterfactual_images(task, data, preprocessor, prepared, seed);
    }
    let all = tokens(task, data, reader.text()?, prepared, seed)?;
    // A decoder is shown the same beginning of the target, of another source.
    let one =
        |(tokens, item): (Vec<u32>, &Item)| Item { tokens, decoder: item.decoder.clone(), ..Item::default() };
    Ok(all.into_iter().zip(&prepared.items).map(one).collect())
}

fn tokens(
    task: &TaskSpec,
    data: Option<&Data>,
    text: &Text,
    prepared: &Prepared,
    seed: u64,
) -> Result<Vec<Vec<u32>>, String> {
    match (task.kind, data) {
        (TaskKind::Ioi, _) => other_names(text, prepared, seed),
        (TaskKind::Induction, _) => unrepeated(text, prepared, seed),
        (TaskKind::GreaterThan, _) => {
            years::counterfactuals(task, text, seed).map(|all| all.iter().map(|t| text.wrap(t)).collect())
        }
        (_, Some(data)) if data.is_text() => Err(format!(
            "{}: a text file carries no counterfactuals, which donors = \"paired\" needs; use .jsonl",
            data.path.display()
        )),
        (TaskKind::Seq2seq, Some(data)) => sources(task, data, text, prepared),
        (_, Some(data)) => recorded(task, data, text, prepared, seed),
        (_, None) => Err(format!("a {} task needs data", task.kind.name())),
    }
}

/// Tokens of a record's counterfactual `given`, which must be as many as those of `original`.
fn paired(
    data: &Data,
    line: usize,
    text: &Text,
    [key, other]: [&str; 2],
    original: Option<&str>,
    given: Option<&str>,
) -> Result<Vec<u32>, String> {
    let bad = |what: String| data.at(line, &what);
    let original = original.ok_or_else(|| bad(format!("the record has no {key}")))?;
    let given = given.ok_or_else(|| {
        bad(format!(
            "the record has no {other}, which donors = \"paired\" needs; give one, or set donors = \"seeded\""
        ))
    })?;
    let (wanted, tokens) = (text.bare(original).map_err(bad)?.len(), text.bare(given).map_err(bad)?);
    if tokens.len() != wanted {
        return Err(bad(format!(
            "{other} has {} tokens, but {key} has {wanted}: donors = \"paired\" needs as many",
            tokens.len()
        )));
    }
    Ok(tokens)
}

/// seq2seq: other sources, as texts or as tokens.
fn sources(task: &TaskSpec, data: &Data, text: &Text, prepared: &Prepared) -> Result<Vec<Vec<u32>>, String> {
    let shape = r#"{"source": "…", "counterfactual": "…", …} (or "source_tokens", "counterfactual_tokens": [1, 2, 3])"#;
    let records = data.records::<SourceRecord>(most(task), shape)?;
    let one = |((line, r), item): (&(usize, SourceRecord), &Item)| {
        match (&r.source_tokens, &r.counterfactual_tokens) {
        (Some(source), Some(tokens)) => {
            if tokens.len() != source.len() {
                return Err(data.at(*line, &format!(
                    "counterfactual_tokens has {} tokens, but source_tokens has {}: donors = \"paired\" needs as many",
                    tokens.len(),
                    source.len()
                )));
            }
            Ok(tokens[..item.tokens.len()].to_vec())
        }
        (Some(_), None) => Err(data.at(*line, "the record has no counterfactual_tokens, which donors = \"paired\" needs beside source_tokens; give them, or set donors = \"seeded\"")),
        (None, _) => {
            let keys = ["source", "counterfactual"];
            let tokens = paired(data, *line, text, keys, r.source.as_deref(), r.counterfactual.as_deref())?;
            Ok(beginning(text, item, &tokens))
        }
    }
    };
    records.iter().zip(&prepared.items).map(one).collect()
}

fn recorded(
    task: &TaskSpec,
    data: &Data,
    text: &Text,
    prepared: &Prepared,
    seed: u64,
) -> Result<Vec<Vec<u32>>, String> {
    let records = data.records::<Record>(most(task), r#"{…, "counterfactual": "…"}"#)?;
    let records = classes::evaluated_of(records, task, prepared, seed, |r| r.document.as_ref());
    let mut out: Vec<Vec<u32>> = vec![Vec::new(); prepared.items.len()];
    for ((line, r), e) in records.iter().zip(&prepared.examples) {
        let pair = |keys, original: &Option<String>, given: &Option<String>| {
            paired(data, *line, text, keys, original.as_deref(), given.as_deref())
        };
        match prepared.kind {
            TaskKind::Similarity => {
                let a = pair(["a", "a_counterfactual"], &r.a, &r.a_counterfactual)?;
                let b = pair(["b", "b_counterfactual"], &r.b, &r.b_counterfactual)?;
                for (at, tokens) in [(e.a, a), (e.b, b)] {
                    let tokens = beginning(text, &prepared.items[at as usize], &tokens);
                    let slot = &mut out[at as usize];
                    if !slot.is_empty() && *slot != tokens {
                        return Err(data.at(*line, "a text that stands in several records has another counterfactual here than before"));
                    }
                    *slot = tokens;
                }
            }
            TaskKind::LogitDifference | TaskKind::NextTokenChoice => {
                let tokens = pair(["prompt", "counterfactual"], &r.prompt, &r.counterfactual)?;
                for i in prepared.items_of(e) {
                    let item = &prepared.items[i as usize];
                    // A continuation stays as it is; of a prompt that was too long the end was kept.
                    let own = if prepared.kind == TaskKind::NextTokenChoice { item.scored.len() } else { 0 };
                    let (first, last) = (text.prefix.len(), item.tokens.len() - text.suffix.len() - own);
                    let mut all = item.tokens.clone();
                    all[first..last].copy_from_slice(&tokens[tokens.len() - (last - first)..]);
                    out[i as usize] = all;
                }
            }
            _ => {
                let tokens = pair(["text", "counterfactual"], &r.text, &r.counterfactual)?;
                let item = &prepared.items[e.a as usize];
                let mut all = beginning(text, item, &tokens);
                if prepared.kind == TaskKind::MaskedLm {
                    for s in &item.scored {
                        // What is hidden there is hidden here.
                        all[s.position as usize] = item.tokens[s.position as usize];
                    }
                }
                out[e.a as usize] = all;
            }
        }
    }
    Ok(out)
}

/// As much of the beginning of `bare` as the item has of its own, with the special tokens around it.
fn beginning(text: &Text, item: &Item, bare: &[u32]) -> Vec<u32> {
    let kept = item.tokens.len() - text.prefix.len() - text.suffix.len();
    text.wrap(&bare[..kept])
}

fn rng(seed: u64, number: usize) -> ChaCha8Rng {
    let mut rng = ChaCha8Rng::seed_from_u64(seed ^ COUNTERFACTUAL);
    rng.set_stream(number as u64);
    rng
}

/// ioi: three other names, all different, where the two stood.
fn other_names(text: &Text, prepared: &Prepared, seed: u64) -> Result<Vec<Vec<u32>>, String> {
    let mut names: Vec<u32> = ioi::names(text).into_iter().map(|n| n.1).collect();
    names.sort_unstable();
    names.dedup();
    let one = |(number, item): (usize, &Item)| {
        let s = item.scored.first().ok_or("an ioi item scores nothing")?;
        let free: Vec<u32> = names.iter().copied().filter(|n| !item.tokens.contains(n)).collect();
        if free.len() < 3 {
            return Err("the tokenizer has too few names of a single token for counterfactuals".to_owned());
        }
        let mut drawn = free.choose_multiple(&mut rng(seed, number), 3).copied();
        let [first, second, third] = [(); 3].map(|()| drawn.next().unwrap_or_default());
        let mut subject = [second, third].into_iter();
        let swap = |&t: &u32| match t {
            t if t == s.target => first,
            t if t == s.foil => subject.next().unwrap_or(third),
            t => t,
        };
        Ok(item.tokens.iter().map(swap).collect())
    };
    prepared.items.iter().enumerate().map(one).collect()
}

/// induction: the second half with other tokens before it, none of which occurs in it.
fn unrepeated(text: &Text, prepared: &Prepared, seed: u64) -> Result<Vec<Vec<u32>>, String> {
    let vocabulary = text.ordinary();
    let first = text.prefix.len();
    let one = |(number, item): (usize, &Item)| {
        let half = (item.tokens.len() - first) / 2;
        let repeat = &item.tokens[first + half..];
        if vocabulary.len() < 2 * half {
            return Err(format!(
                "the tokenizer has {} ordinary tokens, too few for {half} that don't occur in the repeat; lower max_tokens",
                vocabulary.len()
            ));
        }
        let mut rng = rng(seed, number);
        let mut other: Vec<u32> = Vec::with_capacity(half);
        while other.len() < half {
            let token = vocabulary[rng.random_range(0..vocabulary.len() as u32) as usize];
            if !repeat.contains(&token) && !other.contains(&token) {
                other.push(token);
            }
        }
        Ok([&item.tokens[..first], &other, repeat].concat())
    };
    prepared.items.iter().enumerate().map(one).collect()
}

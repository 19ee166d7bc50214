//! classification: texts or images with labels, by the model's own head or by a linear probe.

use super::{Documents, halves, most};
use crate::batches;
use crate::data::Data;
use crate::images::{self, Preprocessor};
use crate::reader::Reader;
use crate::tokenizer::Text;
use ablate_common::model::ModelInfo;
use ablate_common::spec::TaskSpec;
use ablate_common::task::{Example, Item, Prepared, Probe, Scored, TaskKind};
use rand::SeedableRng;
use rand::seq::SliceRandom;
use rand_chacha::ChaCha8Rng;
use rayon::prelude::*;
use serde::Deserialize;
use serde_json::Value;
use std::collections::{BTreeSet, HashSet};
use std::path::Path;

#[derive(Deserialize)]
struct Record {
    text: String,
    label: Option<Value>,
    document: Option<Value>,
    text_b: Option<Value>,
}

#[derive(Deserialize)]
struct ImageRecord {
    image: String,
    label: Option<Value>,
    document: Option<Value>,
    counterfactual: Option<String>,
}

/// Share of the documents that a probe is fitted on, unless told.
const TRAIN: f64 = 0.5;

/// Stream of the seed that draws those documents; halves are drawn from the first.
const SPLIT: u64 = 1;

/// A record, read.
struct Labelled {
    line: usize,
    item: Item,
    label: Value,
    cluster: u32,
}

/// Texts or images with labels. Whether the model's own head decides or a probe is in [`Prepared::probe`].
pub fn classification(
    task: &TaskSpec,
    data: &Data,
    reader: &Reader,
    model: &ModelInfo,
    split_seed: u64,
) -> Result<Prepared, String> {
    let (records, documents) = read(task, data, reader, true)?;
    if probed(task, model) {
        fitted(task, data, model, records, documents, split_seed)
    } else {
        own(data, model, records, documents, split_seed)
    }
}

/// Whether a task of this model is a probe's.
pub fn probed(task: &TaskSpec, model: &ModelInfo) -> bool {
    task.probe.unwrap_or(task.train.is_some() || model.details.labels.is_empty())
}

/// The texts or images alone, with the document of each; they need no labels.
pub fn shown(task: &TaskSpec, data: &Data, reader: &Reader) -> Result<super::Items, String> {
    let (records, _) = read(task, data, reader, false)?;
    Ok(records.into_iter().map(|r| (r.item, r.cluster)).unzip())
}

fn read(
    task: &TaskSpec,
    data: &Data,
    reader: &Reader,
    labelled: bool,
) -> Result<(Vec<Labelled>, u32), String> {
    match reader {
        Reader::Text(text) => texts(task, data, text, labelled),
        Reader::Images(preprocessor) => pictures(task, data, preprocessor, labelled),
    }
}

/// A label, which may only be missing where none is asked for.
fn label(
    data: &Data,
    line: usize,
    found: Option<Value>,
    labelled: bool,
    shape: &str,
) -> Result<Value, String> {
    match found {
        None if labelled => Err(data.at(line, &format!("missing field `label`; a record here is {shape}"))),
        found => Ok(found.unwrap_or_default()),
    }
}

fn pictures(
    task: &TaskSpec,
    data: &Data,
    preprocessor: &Preprocessor,
    labelled: bool,
) -> Result<(Vec<Labelled>, u32), String> {
    let shape = r#"{"image": "cat.png", "label": "x"}"#;
    let records = data.records::<ImageRecord>(most(task), shape)?;
    let items = loaded(data, preprocessor, records.iter().map(|(line, r)| (*line, r.image.as_str())))?;
    let (mut out, mut documents) = (Vec::new(), Documents::default());
    for ((line, r), item) in records.into_iter().zip(items) {
        let cluster = documents.number(r.document.as_ref());
        out.push(Labelled { line, item, label: label(data, line, r.label, labelled, shape)?, cluster });
    }
    Ok((out, documents.count))
}

/// The images that lines of a data file name, in their order.
fn loaded<'a>(
    data: &Data,
    preprocessor: &Preprocessor,
    named: impl Iterator<Item = (usize, &'a str)>,
) -> Result<Vec<Item>, String> {
    let named: Vec<(usize, &str)> = named.collect();
    preprocessor.bounded(named.len()).map_err(|e| data.at(named.last().map_or(1, |n| n.0), &e))?;
    let folder = data.path.parent().unwrap_or(Path::new("."));
    let one = |&(line, name): &(usize, &str)| {
        images::located(folder, name).and_then(|file| preprocessor.item(&file)).map_err(|e| data.at(line, &e))
    };
    // All are read before the first error is looked for, so that it is always the same one.
    named.par_iter().map(one).collect::<Vec<_>>().into_iter().collect()
}

/// The image that each record names as its counterfactual.
///
/// # Errors
/// Where a record has none, or one that can't be read (with its line).
pub fn counterfactual_images(
    task: &TaskSpec,
    data: &Data,
    preprocessor: &Preprocessor,
    prepared: &Prepared,
    split_seed: u64,
) -> Result<Vec<Item>, String> {
    let records = data.records::<ImageRecord>(most(task), r#"{…, "counterfactual": "dog.png"}"#)?;
    let records = evaluated_of(records, task, prepared, split_seed, |r| r.document.as_ref());
    let mut named = Vec::new();
    for (line, r) in &records {
        let what = "the record has no counterfactual, which donors = \"paired\" needs; give one, or set donors = \"seeded\"";
        named.push((*line, r.counterfactual.as_deref().ok_or_else(|| data.at(*line, what))?));
    }
    loaded(data, preprocessor, named.into_iter())
}

fn texts(task: &TaskSpec, data: &Data, text: &Text, labelled: bool) -> Result<(Vec<Labelled>, u32), String> {
    let room = text.room(task.max_tokens);
    if room == 0 {
        return Err(format!("max_tokens = {} leaves no room for a text", task.max_tokens));
    }
    let (mut out, mut documents) = (Vec::new(), Documents::default());
    let shape = r#"{"text": "…", "label": "x"}"#;
    for (line, r) in data.records::<Record>(most(task), shape)? {
        let bad = |what: &str| data.at(line, what);
        let label = label(data, line, r.label, labelled, shape)?;
        if r.text_b.is_some() {
            return Err(bad("text_b, a second text, isn't built yet; leave it out"));
        }
        let mut bare = text.bare(&r.text).map_err(|e| bad(&e))?;
        if bare.is_empty() {
            return Err(bad("text has no token"));
        }
        bare.truncate(room);
        let cluster = documents.number(r.document.as_ref());
        let item = Item { tokens: text.wrap(&bare), ..Item::default() };
        out.push(Labelled { line, item, label, cluster });
    }
    Ok((out, documents.count))
}

/// A sequence whose state at the place of the model's head (or, `probe`, of a probe) is looked at.
fn item(bare: Item, causal: bool, probe: bool) -> Item {
    let position = if causal { bare.tokens.len() as u32 - 1 } else { 0 };
    let mean = probe && !causal && bare.image.is_none();
    let scored = if mean { Vec::new() } else { vec![Scored { position, target: 0, foil: 0 }] };
    Item { scored, ..bare }
}

/// Evaluated items: every record that is given with its label's number.
fn evaluated(
    records: Vec<Labelled>,
    labels: &[u32],
    documents: u32,
    split_seed: u64,
    make: impl Fn(Item) -> Item,
) -> Prepared {
    let half = halves(documents, split_seed);
    let item_half: Vec<u8> = records.iter().map(|r| half[r.cluster as usize]).collect();
    let examples = (0u32..)
        .zip(records.iter().zip(labels))
        .zip(&item_half)
        .map(|((a, (r, &label)), &half)| Example {
            a,
            b: a,
            gold: f64::from(label),
            cluster: r.cluster,
            half: Some(half),
        })
        .collect();
    let items = records.into_iter().map(|r| make(r.item)).collect();
    Prepared { kind: TaskKind::Classification, items, item_half, examples, probe: None }
}

fn own(
    data: &Data,
    model: &ModelInfo,
    records: Vec<Labelled>,
    documents: u32,
    split_seed: u64,
) -> Result<Prepared, String> {
    let names = &model.details.labels;
    let number = |r: &Labelled| -> Result<u32, String> {
        let found = match &r.label {
            Value::Number(n) => n.as_u64().filter(|&n| n < names.len() as u64).map(|n| n as u32),
            Value::String(name) => names.iter().position(|n| n == name).map(|n| n as u32),
            _ => None,
        };
        found.ok_or_else(|| {
            let shown = names.iter().take(8).map(String::as_str).collect::<Vec<_>>().join(", ");
            let more = if names.len() > 8 { ", …" } else { "" };
            let what = format!(
                "label {} is none of the model's: 0 to {} or {shown}{more} (or set probe = true)",
                r.label,
                names.len() - 1
            );
            data.at(r.line, &what)
        })
    };
    let labels = records.iter().map(number).collect::<Result<Vec<u32>, String>>()?;
    Ok(evaluated(records, &labels, documents, split_seed, |bare| item(bare, model.causal(), false)))
}

/// The documents that a probe is fitted on.
fn drawn(task: &TaskSpec, documents: u32, split_seed: u64) -> HashSet<u32> {
    let share = task.train.unwrap_or(TRAIN);
    let chosen = (share * f64::from(documents)).round().clamp(0.0, f64::from(documents)) as usize;
    let mut order: Vec<u32> = (0..documents).collect();
    let mut rng = ChaCha8Rng::seed_from_u64(split_seed);
    rng.set_stream(SPLIT);
    order.shuffle(&mut rng);
    order.into_iter().take(chosen).collect()
}

/// Of records in the order of their file those that are evaluated: all, or where a probe is fitted, the others.
pub fn evaluated_of<T>(
    records: Vec<(usize, T)>,
    task: &TaskSpec,
    prepared: &Prepared,
    split_seed: u64,
    document: impl Fn(&T) -> Option<&Value>,
) -> Vec<(usize, T)> {
    if prepared.probe.is_none() {
        return records;
    }
    let mut documents = Documents::default();
    let numbers: Vec<u32> = records.iter().map(|(_, r)| documents.number(document(r))).collect();
    let fit = drawn(task, documents.count, split_seed);
    records.into_iter().zip(numbers).filter(|(_, n)| !fit.contains(n)).map(|(r, _)| r).collect()
}

/// A reference set with labels, all of which is looked at by the head or probe that `task` has.
///
/// # Errors
/// Where a record can't be read, or its label is none of those that are told apart.
pub fn judged(
    task: &TaskSpec,
    data: &Data,
    reader: &Reader,
    model: &ModelInfo,
    split_seed: u64,
    probe: Option<&Probe>,
) -> Result<Prepared, String> {
    let (records, documents) = read(task, data, reader, true)?;
    let Some(probe) = probe else { return own(data, model, records, documents, split_seed) };
    let number = |r: &Labelled| {
        let named = name(r, data)?.1;
        let found = probe.classes.iter().position(|c| *c == named);
        let all = probe.classes.join(", ");
        let found = found.ok_or_else(|| {
            data.at(r.line, &format!("label {named} is none of those that the probe tells apart: {all}"))
        })?;
        Ok(found as u32)
    };
    let labels = records.iter().map(number).collect::<Result<Vec<u32>, String>>()?;
    Ok(evaluated(records, &labels, documents, split_seed, |bare| item(bare, model.causal(), true)))
}

/// A label's name, and what it is sorted by: numbers by size, then strings.
fn name(r: &Labelled, data: &Data) -> Result<(i64, String), String> {
    match &r.label {
        Value::String(s) => Ok((i64::MAX, s.clone())),
        Value::Number(n) if n.as_i64().is_some_and(|n| n < i64::MAX) => {
            Ok((n.as_i64().unwrap_or(0), n.to_string()))
        }
        other => Err(data.at(r.line, &format!("label {other} is neither a string nor a whole number"))),
    }
}

fn fitted(
    task: &TaskSpec,
    data: &Data,
    model: &ModelInfo,
    records: Vec<Labelled>,
    documents: u32,
    split_seed: u64,
) -> Result<Prepared, String> {
    let named = records.iter().map(|r| name(r, data)).collect::<Result<Vec<_>, String>>()?;
    let sorted: Vec<&(i64, String)> = named.iter().collect::<BTreeSet<_>>().into_iter().collect();
    if sorted.len() < 2 || sorted.len() > MOST_CLASSES {
        let what = format!("there are {} labels, and a probe tells 2 to {MOST_CLASSES} apart", sorted.len());
        return Err(data.at(1, &what));
    }
    let labels: Vec<u32> =
        named.iter().map(|n| sorted.iter().position(|s| *s == n).unwrap_or(0) as u32).collect();
    let train = drawn(task, documents, split_seed);
    let (share, chosen) = (task.train.unwrap_or(TRAIN), train.len());
    let make = |bare| item(bare, model.causal(), true);
    let (mut fit, mut rest, mut rest_labels) = ((Vec::new(), Vec::new()), Vec::new(), Vec::new());
    // Documents of the rest are numbered anew, so that their halves are halves.
    let mut numbers = Documents::default();
    for (mut r, label) in records.into_iter().zip(labels) {
        if train.contains(&r.cluster) {
            fit.0.push(make(r.item));
            fit.1.push(label);
        } else {
            r.cluster = numbers.number(Some(&Value::from(r.cluster)));
            rest.push(r);
            rest_labels.push(label);
        }
    }
    let lacking = (0u32..).zip(&sorted).find(|(k, _)| !fit.1.contains(k));
    if let Some((_, (_, name))) = lacking {
        return Err(format!(
            "label {name:?} occurs in none of the {chosen} of {documents} documents that the probe is fitted on; \
             give more examples of it, raise train or change seed"
        ));
    }
    if rest.is_empty() {
        return Err(format!("train = {share} leaves no document of {documents} to evaluate on; lower it"));
    }
    let classes = sorted.iter().map(|s| s.1.clone()).collect();
    let mut prepared = evaluated(rest, &rest_labels, numbers.count, split_seed, make);
    let batches = batches::of_items(&fit.0, (0..fit.0.len() as u32).collect());
    prepared.probe = Some(Probe { classes, items: fit.0, labels: fit.1, batches });
    Ok(prepared)
}

/// Most labels that a probe tells apart: far more are likely numbers that were never labels.
const MOST_CLASSES: usize = 256;

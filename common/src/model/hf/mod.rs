//! Hugging Face directories: config.json and one or several safetensors files. A family of architectures
//! has a file of its own, which reads the configuration and lists the tensors that it needs.

mod bert;
mod config;
mod gpt;
mod llama;
mod seq2seq;
mod vit;

use super::{
    Error, Inspected, ModelInfo, TokenizerSource, WeightIndex, classifier, masked, need, safetensors_header,
};
use config::Config;
use serde::Deserialize;
use serde_json::Value;
use std::collections::{BTreeMap, BTreeSet};
use std::fs::File;
use std::io::Read;
use std::path::{Path, PathBuf};

/// Most outputs of a classification head.
const MOST_LABELS: u32 = 4096;
/// Longest JSON file that is read.
const MAX_JSON: u64 = 64 << 20;

/// Reads config.json and the headers of the weights; the hash is left empty.
pub fn inspect(dir: &Path) -> Result<Inspected, Error> {
    let config_path = dir.join("config.json");
    let config = Config { path: &config_path, value: json(&config_path)? };
    let (weights, skipped) = index(dir)?;
    let title = std::path::absolute(dir)
        .ok()
        .and_then(|p| p.file_name().map(|n| n.to_string_lossy().into_owned()))
        .unwrap_or_else(|| "model".into());
    let model_type = config
        .text("model_type")?
        .ok_or_else(|| config.bad(format!("model_type is missing (supported: {})", super::known())))?;
    let read = match model_type {
        "bert" | "roberta" => bert::bert,
        "distilbert" => bert::distilbert,
        "albert" => bert::albert,
        "gpt2" => gpt::gpt2,
        "gpt_neox" => gpt::gpt_neox,
        "opt" => gpt::opt,
        "llama" => llama::llama,
        "mistral" => llama::mistral,
        "qwen2" => llama::qwen2,
        "qwen3" => llama::qwen3,
        "phi3" => llama::phi3,
        "gemma2" => llama::gemma2,
        "marian" => seq2seq::marian,
        "t5" => seq2seq::t5,
        "vit" => vit::vit,
        other => {
            return Err(config.unsupported(format!(
                "model_type {other:?} isn't supported (supported: {})",
                super::known()
            )));
        }
    };
    config.refuse_common(super::ENCODER_DECODERS.contains(&model_type))?;
    if super::DECODERS.contains(&model_type) {
        config.only("is_causal", &[true.into()])?;
    }
    let (mut info, mut needs) = read(&config, ModelInfo::blank(model_type, title), &weights)?;
    if config.made_for("ForSequenceClassification")? || config.made_for("ForImageClassification")? {
        info.details.labels = labels(&config)?;
    }
    super::plausible(&info).map_err(|what| config.bad(what))?;
    needs.extend(masked::needs(&info, &weights));
    classifier::amend(&mut needs, &info, &weights);
    need::check(needs, &weights, &skipped).map_err(|what| Error::Bad { path: dir.to_owned(), what })?;
    Ok(Inspected { info, weights, tokenizer: TokenizerSource::Json(dir.join("tokenizer.json")) })
}

/// Names of the labels of the model's classification head.
fn labels(config: &Config<'_>) -> Result<Vec<String>, Error> {
    match config.text("problem_type")? {
        None | Some("single_label_classification") => {}
        Some(other) => {
            return Err(config.unsupported(format!(
                "problem_type = {other:?} isn't supported (supported: single_label_classification)"
            )));
        }
    }
    let Some(names) = config.get("id2label") else {
        let count = config.uint("num_labels")?.unwrap_or(2);
        return Ok((0..count.min(MOST_LABELS)).map(|n| format!("LABEL_{n}")).collect());
    };
    let map = names
        .as_object()
        .filter(|l| (1..=MOST_LABELS as usize).contains(&l.len()))
        .ok_or_else(|| config.bad(format!("id2label should name 1 to {MOST_LABELS} labels")))?;
    (0..map.len())
        .map(|n| map.get(&n.to_string()).and_then(Value::as_str).map(str::to_owned))
        .collect::<Option<_>>()
        .ok_or_else(|| {
            config.bad(format!("id2label should name labels 0 to {}, each by a string", map.len() - 1))
        })
}

/// The safetensors files of a directory, in name order.
pub fn weight_files(dir: &Path) -> Result<Vec<PathBuf>, Error> {
    let index = dir.join("model.safetensors.index.json");
    let single = dir.join("model.safetensors");
    if index.is_file() {
        return Ok(shards(&index)?
            .into_values()
            .collect::<BTreeSet<_>>()
            .into_iter()
            .map(|f| dir.join(f))
            .collect());
    }
    if single.is_file() {
        return Ok(vec![single]);
    }
    let pickles = std::fs::read_dir(dir)
        .map_err(|e| Error::io(dir, e))?
        .flatten()
        .any(|e| e.path().extension().is_some_and(|x| x == "bin" || x == "pt" || x == "pth" || x == "ckpt"));
    let what = if pickles {
        "it holds only pickled weights (.bin or .pt), which are never read; convert them to model.safetensors first"
    } else {
        "it has no model.safetensors and no model.safetensors.index.json"
    };
    Err(Error::Bad { path: dir.to_owned(), what: what.into() })
}

/// Tensor → file name, from an index file.
fn shards(path: &Path) -> Result<BTreeMap<String, String>, Error> {
    #[derive(Deserialize)]
    struct Index {
        weight_map: BTreeMap<String, String>,
    }
    let bad = |what: String| Error::Bad { path: path.to_owned(), what };
    let index: Index = serde_json::from_value(json(path)?).map_err(|e| bad(e.to_string()))?;
    for file in index.weight_map.values() {
        if !file.ends_with(".safetensors") || Path::new(file).file_name().is_none_or(|n| n != file.as_str()) {
            return Err(bad(format!("{file:?} isn't the name of a safetensors file in the same folder")));
        }
    }
    if index.weight_map.is_empty() {
        return Err(bad("weight_map is empty".into()));
    }
    Ok(index.weight_map)
}

fn index(dir: &Path) -> Result<(WeightIndex, BTreeMap<String, String>), Error> {
    let (mut weights, mut skipped) = (WeightIndex::default(), BTreeMap::new());
    for file in weight_files(dir)? {
        safetensors_index(&file, &mut weights, &mut skipped)?;
    }
    let index = dir.join("model.safetensors.index.json");
    if index.is_file() {
        for (name, file) in shards(&index)? {
            let file = dir.join(file);
            if weights.tensors.get(&name).is_none_or(|t| t.file != file) && !skipped.contains_key(&name) {
                return Err(Error::Bad {
                    path: file,
                    what: format!("tensor {name} isn't in it, though the index says so"),
                });
            }
        }
    }
    Ok((weights, skipped))
}

fn safetensors_index(
    path: &Path,
    weights: &mut WeightIndex,
    skipped: &mut BTreeMap<String, String>,
) -> Result<(), Error> {
    let file = File::open(path).map_err(|e| Error::io(path, e))?;
    let len = file.metadata().map_err(|e| Error::io(path, e))?.len();
    safetensors_header::read(file, len, path, weights, skipped)
}

fn json(path: &Path) -> Result<Value, Error> {
    let file = File::open(path).map_err(|e| Error::io(path, e))?;
    let mut text = Vec::new();
    file.take(MAX_JSON).read_to_end(&mut text).map_err(|e| Error::io(path, e))?;
    serde_json::from_slice(&text)
        .map_err(|e| Error::Bad { path: path.to_owned(), what: format!("it isn't JSON: {e}") })
}

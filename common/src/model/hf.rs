//! Hugging Face directories: config.json and one or several safetensors files.

use super::{Error, Inspected, ModelInfo, TensorEntry, TensorType, TokenizerSource, WeightIndex, need};
use crate::head::HeadMap;
use safetensors::Dtype;
use safetensors::tensor::Metadata;
use serde::Deserialize;
use serde_json::Value;
use std::collections::{BTreeMap, BTreeSet};
use std::fs::File;
use std::io::Read;
use std::path::{Path, PathBuf};

/// Longest safetensors header that is read.
const MAX_HEADER: u64 = 100_000_000;
/// Longest JSON file that is read.
const MAX_JSON: u64 = 64 << 20;

/// Architectures that can be read.
const KNOWN: &str = "bert, llama";

/// Reads config.json and the headers of the weights; the hash is left empty.
pub fn inspect(dir: &Path) -> Result<Inspected, Error> {
    let config_path = dir.join("config.json");
    let config = Config { path: &config_path, value: json(&config_path)? };
    let (weights, skipped) = index(dir)?;
    let title = std::path::absolute(dir)
        .ok()
        .and_then(|p| p.file_name().map(|n| n.to_string_lossy().into_owned()))
        .unwrap_or_else(|| "model".into());
    let (info, needs) = match config.text("model_type")? {
        Some("llama") => {
            let info = llama(&config, title)?;
            let needs = need::llama_hf(&info);
            (info, needs)
        }
        Some("bert") => {
            let info = bert(&config, title)?;
            let prefix = if weights.tensors.contains_key("bert.embeddings.word_embeddings.weight") {
                "bert."
            } else {
                ""
            };
            let needs = need::bert(&info, config.uint("type_vocab_size")?.unwrap_or(2).into(), prefix);
            (info, needs)
        }
        Some(other) => {
            return Err(
                config.unsupported(format!("model_type {other:?} isn't supported (supported: {KNOWN})"))
            );
        }
        None => return Err(config.bad(format!("model_type is missing (supported: {KNOWN})"))),
    };
    super::plausible(&info).map_err(|what| config.bad(what))?;
    need::check(needs, &weights, &skipped).map_err(|what| Error::Bad { path: dir.to_owned(), what })?;
    Ok(Inspected { info, weights, tokenizer: TokenizerSource::Json(dir.join("tokenizer.json")) })
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
    let bad = |what: String| Error::Bad { path: path.to_owned(), what };
    let mut file = File::open(path).map_err(|e| Error::io(path, e))?;
    let len = file.metadata().map_err(|e| Error::io(path, e))?.len();
    let mut size = [0; 8];
    if len < 8 {
        return Err(bad(format!("it is truncated: it has {len} bytes")));
    }
    file.read_exact(&mut size).map_err(|e| Error::io(path, e))?;
    let header = u64::from_le_bytes(size);
    if header > MAX_HEADER {
        return Err(bad(format!("its header would be {header} bytes: no safetensors file, or damaged")));
    }
    let start = 8 + header;
    if start > len {
        return Err(bad(format!(
            "it is truncated: its header needs {start} bytes, the file has {len}; fetch it again"
        )));
    }
    let mut text = Vec::new();
    file.take(header).read_to_end(&mut text).map_err(|e| Error::io(path, e))?;
    let meta: Metadata =
        serde_json::from_slice(&text).map_err(|e| bad(format!("its header can't be read: {e}")))?;
    let expected = start.saturating_add(meta.data_len() as u64);
    if expected != len {
        let state = if len < expected { "it is truncated" } else { "it has bytes that no tensor owns" };
        return Err(bad(format!(
            "{state}: the header describes {expected} bytes, the file has {len}; fetch it again"
        )));
    }
    for (name, t) in meta.tensors() {
        let dtype = match t.dtype {
            Dtype::F64 => TensorType::F64,
            Dtype::F32 => TensorType::F32,
            Dtype::F16 => TensorType::F16,
            Dtype::BF16 => TensorType::BF16,
            other => {
                skipped.insert(name, format!("{other:?}"));
                continue;
            }
        };
        let shape: Vec<u64> = t.shape.iter().map(|&n| n as u64).collect();
        let (from, to) = t.data_offsets;
        let size = (to as u64).saturating_sub(from as u64);
        if dtype.bytes(&shape) != Some(size) {
            return Err(bad(format!("tensor {name}: {size} bytes don't fit shape {shape:?} of {dtype}")));
        }
        let entry =
            TensorEntry { dtype, shape, file: path.to_owned(), offset: start + from as u64, len: size };
        if let Some(before) = weights.tensors.insert(name.clone(), entry) {
            return Err(bad(format!("tensor {name} is also in {}", before.file.display())));
        }
    }
    Ok(())
}

fn json(path: &Path) -> Result<Value, Error> {
    let file = File::open(path).map_err(|e| Error::io(path, e))?;
    let mut text = Vec::new();
    file.take(MAX_JSON).read_to_end(&mut text).map_err(|e| Error::io(path, e))?;
    serde_json::from_slice(&text)
        .map_err(|e| Error::Bad { path: path.to_owned(), what: format!("it isn't JSON: {e}") })
}

/// config.json.
struct Config<'a> {
    path: &'a Path,
    value: Value,
}

impl Config<'_> {
    fn bad(&self, what: String) -> Error {
        Error::Bad { path: self.path.to_owned(), what }
    }

    fn unsupported(&self, what: String) -> Error {
        Error::Unsupported { path: self.path.to_owned(), what }
    }

    fn get(&self, key: &str) -> Option<&Value> {
        self.value.get(key).filter(|v| !v.is_null())
    }

    fn text(&self, key: &str) -> Result<Option<&str>, Error> {
        self.get(key)
            .map(|v| v.as_str().ok_or_else(|| self.bad(format!("{key} should be a string, but is {v}"))))
            .transpose()
    }

    fn uint(&self, key: &str) -> Result<Option<u32>, Error> {
        let read = |v: &Value| v.as_u64().and_then(|n| u32::try_from(n).ok());
        self.get(key)
            .map(|v| read(v).ok_or_else(|| self.bad(format!("{key} should be a whole number, but is {v}"))))
            .transpose()
    }

    fn need(&self, key: &str) -> Result<u32, Error> {
        self.uint(key)?.filter(|&n| n > 0).ok_or_else(|| self.bad(format!("{key} is missing or 0")))
    }

    fn float(&self, key: &str) -> Result<f64, Error> {
        let v = self.get(key).ok_or_else(|| self.bad(format!("{key} is missing")))?;
        v.as_f64().ok_or_else(|| self.bad(format!("{key} should be a number, but is {v}")))
    }

    /// Refuses a key whose value is none of `fine` (where it is given at all).
    fn only(&self, key: &str, fine: &[Value]) -> Result<(), Error> {
        match self.get(key) {
            Some(v) if !fine.contains(v) => Err(self.unsupported(format!("{key} = {v} isn't supported"))),
            _ => Ok(()),
        }
    }
}

fn llama(c: &Config<'_>, title: String) -> Result<ModelInfo, Error> {
    c.only("hidden_act", &["silu".into()])?;
    c.only("attention_bias", &[false.into()])?;
    c.only("mlp_bias", &[false.into()])?;
    c.only("rope_scaling", &[])?;
    let rope = c.get("rope_parameters");
    if let Some(kind) = rope.and_then(|r| r.get("rope_type"))
        && kind != "default"
    {
        return Err(c.unsupported(format!("rope_type {kind} isn't supported yet")));
    }
    let theta = rope.and_then(|r| r.get("rope_theta")).or_else(|| c.get("rope_theta"));
    let theta = theta
        .map_or(Some(10_000.0), Value::as_f64)
        .ok_or_else(|| c.bad("rope_theta should be a number".into()))?;
    let (d_model, n_heads, layers) =
        (c.need("hidden_size")?, c.need("num_attention_heads")?, c.need("num_hidden_layers")?);
    let head_dim = match c.uint("head_dim")? {
        Some(n) => n,
        None => divided(c, d_model, n_heads)?,
    };
    Ok(ModelInfo {
        arch: "llama".into(),
        title,
        weights_sha256: String::new(),
        heads: HeadMap::single_stream(layers, n_heads),
        layers,
        d_model,
        n_heads,
        n_kv_heads: c.uint("num_key_value_heads")?.unwrap_or(n_heads),
        head_dim,
        d_ff: c.need("intermediate_size")?,
        vocab: c.need("vocab_size")?,
        context: c.need("max_position_embeddings")?,
        norm_eps: c.float("rms_norm_eps")?,
        rope_theta: Some(theta),
        tied: c.get("tie_word_embeddings").and_then(Value::as_bool).unwrap_or(false),
    })
}

fn bert(c: &Config<'_>, title: String) -> Result<ModelInfo, Error> {
    c.only("hidden_act", &["gelu".into()])?;
    c.only("position_embedding_type", &["absolute".into()])?;
    c.only("is_decoder", &[false.into()])?;
    c.only("add_cross_attention", &[false.into()])?;
    let (d_model, n_heads, layers) =
        (c.need("hidden_size")?, c.need("num_attention_heads")?, c.need("num_hidden_layers")?);
    Ok(ModelInfo {
        arch: "bert".into(),
        title,
        weights_sha256: String::new(),
        heads: HeadMap::single_stream(layers, n_heads),
        layers,
        d_model,
        n_heads,
        n_kv_heads: n_heads,
        head_dim: divided(c, d_model, n_heads)?,
        d_ff: c.need("intermediate_size")?,
        vocab: c.need("vocab_size")?,
        context: c.need("max_position_embeddings")?,
        norm_eps: c.float("layer_norm_eps")?,
        rope_theta: None,
        tied: true,
    })
}

fn divided(c: &Config<'_>, d_model: u32, n_heads: u32) -> Result<u32, Error> {
    if d_model.is_multiple_of(n_heads) {
        Ok(d_model / n_heads)
    } else {
        Err(c.bad(format!("{n_heads} heads don't divide a hidden_size of {d_model}")))
    }
}

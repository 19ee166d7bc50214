//! A Llama in a GGUF file.

use super::gguf::{self, Header, Value};
use super::{
    Details, Error, GgufTokenizer, Inspected, ModelInfo, TensorEntry, TensorType, TokenizerSource,
    WeightIndex, need,
};
use crate::head::HeadMap;
use std::collections::BTreeMap;
use std::fs::File;
use std::io::BufReader;
use std::path::Path;

/// Reads the header of the file at `path`; the hash is left empty.
pub fn inspect(path: &Path) -> Result<Inspected, Error> {
    let bad = |what: String| Error::Bad { path: path.to_owned(), what };
    let file = File::open(path).map_err(|e| Error::io(path, e))?;
    let len = file.metadata().map_err(|e| Error::io(path, e))?.len();
    let header = gguf::read_header(BufReader::new(file), len)
        .map_err(|what| bad(format!("{what}; fetch the file again")))?;
    let weights = index(path, &header, len)?;
    let info = info(path, &header, &weights)?;
    need::check(need::llama_gguf(&info), &weights, &BTreeMap::new()).map_err(bad)?;
    let tokenizer = TokenizerSource::Gguf(Box::new(tokenizer(&header).map_err(bad)?));
    Ok(Inspected { info, weights, tokenizer })
}

fn index(path: &Path, header: &Header, len: u64) -> Result<WeightIndex, Error> {
    let bad = |what: String| Error::Bad { path: path.to_owned(), what };
    let mut weights = WeightIndex::default();
    for t in &header.tensors {
        let dtype = gguf::tensor_type(t.type_id).map_err(|name| Error::Unsupported {
            path: path.to_owned(),
            what: format!(
                "tensor {} is quantised as {name}, which isn't supported (supported: {})",
                t.name,
                TensorType::ALL.map(|t| t.to_string()).join(", ")
            ),
        })?;
        let size = dtype.bytes(&t.shape).ok_or_else(|| {
            bad(format!(
                "tensor {} has shape {:?}, which is no whole number of {dtype} blocks",
                t.name, t.shape
            ))
        })?;
        let offset = header
            .data
            .checked_add(t.offset)
            .ok_or_else(|| bad(format!("tensor {}: its offset overflows", t.name)))?;
        match offset.checked_add(size) {
            Some(end) if end <= len => {}
            end => {
                return Err(bad(format!(
                    "it is truncated: tensor {} ends at byte {}, but the file has {len} bytes; fetch it again",
                    t.name,
                    end.map_or_else(|| "2^64".to_owned(), |e| e.to_string())
                )));
            }
        }
        let entry = TensorEntry { dtype, shape: t.shape.clone(), file: path.to_owned(), offset, len: size };
        if weights.tensors.insert(t.name.clone(), entry).is_some() {
            return Err(bad(format!("tensor {} is there twice", t.name)));
        }
    }
    Ok(weights)
}

fn info(path: &Path, h: &Header, weights: &WeightIndex) -> Result<ModelInfo, Error> {
    let bad = |what: String| Error::Bad { path: path.to_owned(), what };
    let unsupported = |what: String| Error::Unsupported { path: path.to_owned(), what };
    let arch = h
        .text("general.architecture")
        .map_err(bad)?
        .ok_or_else(|| bad("general.architecture is missing".into()))?;
    if arch != "llama" {
        return Err(unsupported(format!(
            "architecture {arch:?} isn't supported in GGUF files (supported: llama)"
        )));
    }
    let opt = |key: &str| h.uint(&format!("llama.{key}")).map_err(bad);
    let uint =
        |key: &str| opt(key)?.filter(|&n| n > 0).ok_or_else(|| bad(format!("llama.{key} is missing or 0")));
    let float = |key: &str| h.float(&format!("llama.{key}")).map_err(bad);
    let d_model = uint("embedding_length")?;
    let n_heads = uint("attention.head_count")?;
    let head_dim = match opt("attention.key_length")? {
        Some(n) => n,
        None if d_model % n_heads == 0 => d_model / n_heads,
        None => return Err(bad(format!("{n_heads} heads don't divide a width of {d_model}"))),
    };
    if let Some(rope) = opt("rope.dimension_count")?
        && rope != head_dim
    {
        return Err(unsupported(format!(
            "rotary embedding of {rope} of {head_dim} dimensions isn't supported"
        )));
    }
    if h.text("llama.rope.scaling.type").map_err(bad)?.is_some_and(|s| s != "none")
        || weights.tensors.contains_key("rope_freqs.weight")
    {
        return Err(unsupported("scaled rotary embeddings aren't supported yet".into()));
    }
    if opt("expert_count")?.is_some_and(|n| n > 0) {
        return Err(unsupported("mixtures of experts aren't supported".into()));
    }
    if let Some(name) = weights.tensors.keys().find(|n| n.starts_with("blk.") && n.ends_with(".bias")) {
        return Err(unsupported(format!("projections with a bias ({name}) aren't supported")));
    }
    let embd = weights
        .tensors
        .get("token_embd.weight")
        .ok_or_else(|| bad("tensor token_embd.weight is missing".into()))?;
    let vocab = embd
        .shape
        .first()
        .and_then(|&n| u32::try_from(n).ok())
        .ok_or_else(|| bad("token_embd.weight has no rows".into()))?;
    let layers = uint("block_count")?;
    let model = ModelInfo {
        arch: "llama".into(),
        title: title(path, weights),
        weights_sha256: String::new(),
        heads: HeadMap::single_stream(layers, n_heads),
        layers,
        d_model,
        n_heads,
        n_kv_heads: opt("attention.head_count_kv")?.unwrap_or(n_heads),
        head_dim,
        d_ff: uint("feed_forward_length")?,
        vocab,
        context: uint("context_length")?,
        norm_eps: float("attention.layer_norm_rms_epsilon")?
            .ok_or_else(|| bad("llama.attention.layer_norm_rms_epsilon is missing".into()))?,
        rope_theta: Some(float("rope.freq_base")?.unwrap_or(10_000.0)),
        tied: !weights.tensors.contains_key("output.weight"),
        details: Details::default(),
    };
    super::plausible(&model).map_err(bad)?;
    Ok(model)
}

/// "NAME (Q4_1, dequantised)", after the file's name and its commonest quantisation.
fn title(path: &Path, weights: &WeightIndex) -> String {
    let stem = path.file_stem().map(|s| s.to_string_lossy().into_owned()).unwrap_or_default();
    let mut count: BTreeMap<TensorType, u32> = BTreeMap::new();
    for t in weights.tensors.values().filter(|t| t.dtype.quantised()) {
        *count.entry(t.dtype).or_default() += 1;
    }
    let Some((dtype, _)) = count.into_iter().max_by_key(|c| c.1) else { return stem };
    let name = dtype.to_string();
    let base = stem.strip_suffix(&name).map_or(stem.as_str(), |s| s.trim_end_matches(['.', '-', '_']));
    format!("{base} ({name}, dequantised)")
}

fn tokenizer(h: &Header) -> Result<GgufTokenizer, String> {
    let key = |k: &str| format!("tokenizer.ggml.{k}");
    let strings = |k: &str| match h.metadata.get(&key(k)) {
        Some(Value::Strings(v)) => Ok(v.clone()),
        Some(_) => Err(format!("tokenizer.ggml.{k} should be an array of strings")),
        None => Ok(Vec::new()),
    };
    let types = match h.metadata.get(&key("token_type")) {
        Some(Value::Ints(v)) => v.clone(),
        _ => Vec::new(),
    };
    Ok(GgufTokenizer {
        model: h.text(&key("model"))?.unwrap_or_default().to_owned(),
        pre: h.text(&key("pre"))?.unwrap_or_default().to_owned(),
        tokens: strings("tokens")?,
        types,
        merges: strings("merges")?,
        bos: h.uint(&key("bos_token_id"))?,
        eos: h.uint(&key("eos_token_id"))?,
        add_bos: h.flag(&key("add_bos_token"))?,
        add_eos: h.flag(&key("add_eos_token"))?,
    })
}

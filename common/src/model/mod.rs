//! Model files: what a model is made of, read from its headers only. Nothing here loads a weight.

mod classifier;
mod details;
pub mod gguf;
mod hf;
mod image;
mod llama_gguf;
mod masked;
mod need;
pub mod safetensors_header;
mod seq2seq;
mod tensors;
#[cfg(test)]
mod tests;

pub use classifier::{ClassifierNames, has_unembedding};
pub use details::{Activation, Details, RopeScaling};
pub use image::ImageShape;
pub use masked::MaskedNames;
pub use seq2seq::{Relative, Seq2Seq, Tables};
pub use tensors::{TensorEntry, TensorType, WeightIndex};

use crate::head::HeadMap;
use serde::{Deserialize, Serialize};
use sha2::{Digest, Sha256};
use std::fs::File;
use std::io::Read;
use std::path::{Path, PathBuf};

/// Why a model can't be used. Every variant is something that the user can put right.
#[derive(Debug, thiserror::Error)]
pub enum Error {
    /// A file is missing or can't be read.
    #[error("{}: {source}", path.display())]
    Io {
        /// The file.
        path: PathBuf,
        /// What the system said.
        source: std::io::Error,
    },
    /// A file is damaged, truncated or contradicts itself.
    #[error("{}: {what}", path.display())]
    Bad {
        /// The file or folder.
        path: PathBuf,
        /// What is wrong, and what to do.
        what: String,
    },
    /// The model is of a kind that isn't supported.
    #[error("{}: {what}", path.display())]
    Unsupported {
        /// The file or folder.
        path: PathBuf,
        /// What isn't supported, and what is.
        what: String,
    },
}

impl Error {
    pub(crate) fn io(path: &Path, source: std::io::Error) -> Self {
        Self::Io { path: path.to_owned(), source }
    }
}

/// A model's shape, the places of its tensors, and its tokenizer's.
#[derive(Clone, Debug)]
pub struct Inspected {
    /// Shape and identity.
    pub info: ModelInfo,
    /// Where the tensors lie.
    pub weights: WeightIndex,
    /// Where the tokenizer comes from.
    pub tokenizer: TokenizerSource,
}

/// Where a model's tokenizer comes from.
#[derive(Clone, Debug)]
pub enum TokenizerSource {
    /// A tokenizer.json, which may be missing (only a worker does without).
    Json(PathBuf),
    /// A GGUF file's metadata.
    Gguf(Box<GgufTokenizer>),
}

/// A tokenizer as a GGUF file describes it.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct GgufTokenizer {
    /// Kind of model: "gpt2" is byte-level BPE.
    pub model: String,
    /// Kind of pre-tokenizer ("smollm", "llama-bpe" …).
    pub pre: String,
    /// Tokens by id.
    pub tokens: Vec<String>,
    /// Type of each token (3: control); may be empty.
    pub types: Vec<i64>,
    /// Merges, "LEFT RIGHT", best first.
    pub merges: Vec<String>,
    /// Id of the token at the beginning of a sequence.
    pub bos: Option<u32>,
    /// Id of the token at the end of a sequence.
    pub eos: Option<u32>,
    /// Whether encoding adds the first.
    pub add_bos: Option<bool>,
    /// Whether encoding adds the second.
    pub add_eos: Option<bool>,
}

/// Reads the headers of the model at `path` (a Hugging Face directory or a .gguf file), checks that
/// every tensor is there, and hashes the weights.
///
/// # Errors
/// Where files are missing, damaged or of an unsupported kind.
pub fn inspect(path: &Path) -> Result<Inspected, Error> {
    inspect_with(path, &|_, _| ())
}

/// [`inspect`], telling `progress` how many bytes of how many are hashed.
///
/// # Errors
/// As [`inspect`].
pub fn inspect_with(path: &Path, progress: &dyn Fn(u64, u64)) -> Result<Inspected, Error> {
    let mut out = inspect_headers(path)?;
    out.info.weights_sha256 = weights_sha256_with(path, progress)?;
    Ok(out)
}

/// [`inspect`] without the hash: `weights_sha256` is left empty.
///
/// # Errors
/// As [`inspect`].
pub fn inspect_headers(path: &Path) -> Result<Inspected, Error> {
    let meta = std::fs::metadata(path).map_err(|e| Error::io(path, e))?;
    if meta.is_dir() {
        hf::inspect(path)
    } else if is_gguf(path) {
        llama_gguf::inspect(path)
    } else {
        Err(not_a_model(path))
    }
}

/// sha256 (hex) over the contents of the model's weight files, in name order.
///
/// # Errors
/// Where a file can't be read.
pub fn weights_sha256(path: &Path) -> Result<String, Error> {
    weights_sha256_with(path, &|_, _| ())
}

/// [`weights_sha256`], telling `progress` how many bytes of how many are done.
///
/// # Errors
/// Where a file can't be read.
pub fn weights_sha256_with(path: &Path, progress: &dyn Fn(u64, u64)) -> Result<String, Error> {
    let files = weight_files(path)?;
    let mut total = 0;
    for f in &files {
        total += std::fs::metadata(f).map_err(|e| Error::io(f, e))?.len();
    }
    let (mut hash, mut done, mut buffer) = (Sha256::new(), 0, vec![0; 1 << 20]);
    for f in &files {
        let mut file = File::open(f).map_err(|e| Error::io(f, e))?;
        loop {
            let n = file.read(&mut buffer).map_err(|e| Error::io(f, e))?;
            if n == 0 {
                break;
            }
            hash.update(&buffer[..n]);
            done += n as u64;
            progress(done, total);
        }
    }
    Ok(hash.finalize().iter().map(|b| format!("{b:02x}")).collect())
}

/// The files that hold the model's weights, in name order.
///
/// # Errors
/// Where there are none.
pub fn weight_files(path: &Path) -> Result<Vec<PathBuf>, Error> {
    let meta = std::fs::metadata(path).map_err(|e| Error::io(path, e))?;
    if meta.is_dir() {
        hf::weight_files(path)
    } else if is_gguf(path) {
        Ok(vec![path.to_owned()])
    } else {
        Err(not_a_model(path))
    }
}

fn is_gguf(path: &Path) -> bool {
    path.extension().is_some_and(|e| e.eq_ignore_ascii_case("gguf"))
}

fn not_a_model(path: &Path) -> Error {
    Error::Bad {
        path: path.to_owned(),
        what: "a model is a Hugging Face directory or a .gguf file; this is neither".into(),
    }
}

/// Refuses shapes that no model has, so that later arithmetic can't overflow.
fn plausible(m: &ModelInfo) -> Result<(), String> {
    for (what, n, most) in [
        ("layers", m.layers, 4096),
        ("heads", m.n_heads, 4096),
        ("key/value heads", m.n_kv_heads, 4096),
        ("width of a head", m.head_dim, 1 << 16),
        ("width", m.d_model, 1 << 20),
        ("feed-forward width", m.d_ff, 1 << 24),
        ("vocabulary", m.vocab, 1 << 26),
        ("context", m.context, u32::MAX),
    ] {
        if n == 0 || n > most {
            return Err(format!("{what} of {n} can't be right (1 to {most})"));
        }
    }
    if !m.n_heads.is_multiple_of(m.n_kv_heads) {
        return Err(format!("{} query heads can't share {} key/value heads", m.n_heads, m.n_kv_heads));
    }
    if m.rope_theta.is_some_and(|t| !t.is_finite() || t <= 0.0)
        || (m.rope_theta.is_some() && m.details.rotary_dim.unwrap_or(m.head_dim) % 2 == 1)
    {
        return Err("the rotary embedding's base or width can't be right".into());
    }
    m.details.plausible(m.head_dim, m.layers)?;
    if !(m.norm_eps.is_finite() && m.norm_eps >= 0.0) {
        return Err(format!("a norm epsilon of {} can't be right", m.norm_eps));
    }
    Ok(())
}

/// Shape of a model, as architecture-neutral data, and the identity of its bytes.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct ModelInfo {
    /// Hugging Face `model_type`, one of [`DECODERS`], [`ENCODERS`], [`ENCODER_DECODERS`] or [`VISION`].
    pub arch: String,
    /// For people: "SmolLM2 135M Instruct (Q4_1, dequantised)", or the folder's name.
    pub title: String,
    /// sha256 over the weight files' contents in name order, hex.
    pub weights_sha256: String,
    /// Heads of every stream.
    pub heads: HeadMap,
    /// Transformer layers; of an encoder-decoder those of both.
    pub layers: u32,
    /// Width of the residual stream.
    pub d_model: u32,
    /// Query heads per layer.
    pub n_heads: u32,
    /// Key/value heads per layer.
    pub n_kv_heads: u32,
    /// Width of a head.
    pub head_dim: u32,
    /// Width of the feed-forward layer; of an encoder-decoder the encoder's.
    pub d_ff: u32,
    /// Tokens in the vocabulary; of an encoder-decoder the source's. A model of images has a token for each place
    /// of its sequences: the CLS token, and each patch.
    pub vocab: u32,
    /// Longest sequence.
    pub context: u32,
    /// Epsilon of the norms.
    pub norm_eps: f64,
    /// Base of the rotary embedding; none where positions are learned.
    pub rope_theta: Option<f64>,
    /// Whether the unembedding is the embedding's transpose.
    pub tied: bool,
    /// What else the configuration says about the forward pass.
    #[serde(default, skip_serializing_if = "Details::is_plain")]
    pub details: Details,
}

/// Architectures that predict the next token, by `model_type`.
pub const DECODERS: [&str; 9] =
    ["gemma2", "gpt2", "gpt_neox", "llama", "mistral", "opt", "phi3", "qwen2", "qwen3"];

/// Architectures that look both ways, by `model_type`.
pub const ENCODERS: [&str; 4] = ["albert", "bert", "distilbert", "roberta"];

/// Architectures whose decoder reads what an encoder made of a source, by `model_type`.
pub const ENCODER_DECODERS: [&str; 2] = ["marian", "t5"];

/// Architectures that look at images, by `model_type`.
pub const VISION: [&str; 1] = ["vit"];

/// All architectures, for people.
#[must_use]
pub fn known() -> String {
    let mut all = [&DECODERS[..], &ENCODERS, &ENCODER_DECODERS, &VISION].concat();
    all.sort_unstable();
    all.join(", ")
}

impl ModelInfo {
    /// A model of an architecture of which nothing else is known yet.
    fn blank(arch: &str, title: String) -> Self {
        Self {
            arch: arch.into(),
            title,
            weights_sha256: String::new(),
            heads: HeadMap::single_stream(0, 0),
            layers: 0,
            d_model: 0,
            n_heads: 0,
            n_kv_heads: 0,
            head_dim: 0,
            d_ff: 0,
            vocab: 0,
            context: 0,
            norm_eps: 0.0,
            rope_theta: None,
            tied: false,
            details: Details::default(),
        }
    }

    /// Whether all attention looks only backwards, so that the model has next-token logits of any text.
    #[must_use]
    pub fn causal(&self) -> bool {
        DECODERS.contains(&self.arch.as_str())
    }

    /// Tokens whose logits the model gives.
    #[must_use]
    pub fn target_vocab(&self) -> u32 {
        self.details.seq2seq.as_ref().map_or(self.vocab, |s| s.target_vocab)
    }

    /// Matrices of the feed-forward part: three where it is gated.
    #[must_use]
    pub fn mlp_matrices(&self) -> u32 {
        let gated = match &self.details.seq2seq {
            Some(s) => s.gated,
            None => self.rope_theta.is_some() && self.arch != "gpt_neox",
        };
        if gated { 3 } else { 2 }
    }

    /// Layers whose weights are their own.
    #[must_use]
    pub fn distinct_layers(&self) -> u32 {
        self.details.groups.unwrap_or(self.layers)
    }
}

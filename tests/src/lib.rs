//! What the integration tests share: the built programs, the Python reference, and where files lie.

pub mod authority;
pub mod browser;
pub mod coordinators;
pub mod planted;
pub mod program;
pub mod proof;
pub mod reference;
pub mod service;
pub mod tensors;
pub mod tiny;

use std::path::{Path, PathBuf};

/// The root of the checkout.
#[must_use]
pub fn root() -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR")).parent().map(Path::to_path_buf).unwrap_or_default()
}

/// SmolLM2's GGUF file, put in place by `make setup`.
#[must_use]
pub fn smollm2() -> PathBuf {
    root().join("models/smollm2/SmolLM2-135M-Instruct.Q4_1.gguf")
}

/// MiniLM's Hugging Face directory, put in place by `make setup`.
#[must_use]
pub fn minilm() -> PathBuf {
    root().join("models/minilm")
}

//! Data files: read whole, checked by hash, with line numbers.

use crate::{Error, parquet};
use serde::de::DeserializeOwned;
use sha2::{Digest, Sha256};
use std::path::{Path, PathBuf};

/// Largest data file that is read.
const MAX_FILE: u64 = 4 << 30;

/// A data file.
#[derive(Debug)]
pub struct Data {
    /// Where it lies.
    pub path: PathBuf,
    /// Its text.
    pub text: String,
}

/// Reads a data file and checks its hash, where one is given.
pub fn read(path: &Path, sha256: Option<&str>) -> Result<Data, Error> {
    let bad = |what: String| Error::Input(format!("{}: {what}", path.display()));
    let size = std::fs::metadata(path).map_err(|e| bad(e.to_string()))?.len();
    if size > MAX_FILE {
        return Err(bad(format!("{size} bytes are more than the {MAX_FILE} that a data file may have")));
    }
    let bytes = std::fs::read(path).map_err(|e| bad(e.to_string()))?;
    if let Some(wanted) = sha256 {
        let hash: String = Sha256::digest(&bytes).iter().map(|b| format!("{b:02x}")).collect();
        if !hash.starts_with(wanted) {
            return Err(bad(format!(
                "its sha256 is {hash}, but the spec says {wanted}; fetch the right file or correct sha256 in [[task]]"
            )));
        }
    }
    if is_parquet(path) {
        return Ok(Data { path: path.to_owned(), text: parquet::lines(bytes).map_err(bad)? });
    }
    let text = String::from_utf8(bytes).map_err(|e| {
        let line = 1 + e.as_bytes()[..e.utf8_error().valid_up_to()].iter().filter(|&&b| b == b'\n').count();
        Error::Input(format!("{}:{line}: the text isn't UTF-8; convert the file", path.display()))
    })?;
    Ok(Data { path: path.to_owned(), text: text.strip_prefix('\u{feff}').map(str::to_owned).unwrap_or(text) })
}

/// Whether a file's name is that of a Parquet file.
fn is_parquet(path: &Path) -> bool {
    path.extension().is_some_and(|e| e.eq_ignore_ascii_case("parquet"))
}

impl Data {
    /// An error about a line (from 1); of a Parquet file, about a row.
    pub fn at(&self, line: usize, what: &str) -> String {
        let row = if is_parquet(&self.path) { "row " } else { "" };
        format!("{}:{row}{line}: {what}", self.path.display())
    }

    /// Whether it is a text file rather than records.
    pub fn is_text(&self) -> bool {
        self.path.extension().is_some_and(|e| e.eq_ignore_ascii_case("txt"))
    }

    /// The first `most` records with their lines; empty lines are skipped. `shape` says what a record
    /// looks like.
    pub fn records<T: DeserializeOwned>(&self, most: usize, shape: &str) -> Result<Vec<(usize, T)>, String> {
        let mut out = Vec::new();
        for (i, line) in self.text.lines().enumerate().filter(|l| !l.1.trim().is_empty()) {
            if out.len() == most {
                break;
            }
            let record = serde_json::from_str(line).map_err(|e| {
                // serde_json's own place is always in line 1 of this one line.
                let what = e.to_string();
                let what = what.split(" at line ").next().unwrap_or_default();
                self.at(i + 1, &format!("{what}; a record here is {shape}"))
            })?;
            out.push((i + 1, record));
        }
        if out.is_empty() {
            return Err(self.at(1, &format!("there is no record; a record here is {shape}")));
        }
        Ok(out)
    }
}

/// Refuses a sentence-embedding model that doesn't pool by the mean, the only way that is built.
pub fn mean_pooled(model: &Path) -> Result<(), Error> {
    let path = model.join("1_Pooling").join("config.json");
    let Ok(text) = std::fs::read(&path) else { return Ok(()) };
    let bad = |what: &str| Error::Input(format!("{}: {what}", path.display()));
    let config: serde_json::Map<String, serde_json::Value> =
        serde_json::from_slice(&text).map_err(|e| bad(&format!("it can't be read: {e}")))?;
    for (key, on) in config.iter().filter(|(k, _)| k.starts_with("pooling_mode_")) {
        if on.as_bool() == Some(true) && key != "pooling_mode_mean_tokens" {
            return Err(bad(&format!(
                "{key} isn't supported: similarity tasks pool by the mean over tokens"
            )));
        }
    }
    Ok(())
}

//! Headers of safetensors files. Every size is checked against the file's length before it is used; no tensor data is read.

use super::{Error, TensorEntry, TensorType, WeightIndex};
use safetensors::Dtype;
use safetensors::tensor::Metadata;
use std::collections::BTreeMap;
use std::io::Read;
use std::path::Path;

/// Longest header that is read.
const MAX_HEADER: u64 = 100_000_000;

/// Reads the header of a file of `len` bytes into `weights`; tensors of types that nothing here computes with go into `skipped`,
/// with their type. `path` names the file in entries and complaints.
///
/// # Errors
/// Where the bytes aren't a safetensors header, or contradict the file's length or each other.
pub fn read(
    mut source: impl Read,
    len: u64,
    path: &Path,
    weights: &mut WeightIndex,
    skipped: &mut BTreeMap<String, String>,
) -> Result<(), Error> {
    let bad = |what: String| Error::Bad { path: path.to_owned(), what };
    let mut size = [0; 8];
    if len < 8 {
        return Err(bad(format!("it is truncated: it has {len} bytes; fetch it again")));
    }
    source.read_exact(&mut size).map_err(|e| Error::io(path, e))?;
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
    source.take(header).read_to_end(&mut text).map_err(|e| Error::io(path, e))?;
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

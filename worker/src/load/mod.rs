//! Weights from mapped files into libtorch tensors: one copy, straight into the format and onto the
//! device of the computation. Quantised GGUF blocks are dequantised by candle.

pub mod mapped;

use ablate_common::model::{TensorEntry, TensorType, WeightIndex};
use candle_core::quantized::{GgmlDType, ggml_file::qtensor_from_ggml};
use memmap2::Mmap;
use std::collections::HashMap;
use std::path::PathBuf;
use tch::{Device, Kind, Tensor};
use thiserror::Error;

/// Why weights could not be loaded.
#[derive(Debug, Error)]
pub enum Error {
    /// The files lack a tensor that the architecture needs.
    #[error("the model has no tensor {0}")]
    NoTensor(String),
    /// A file can't be read.
    #[error("{path}: {source}", path = path.display())]
    Io {
        /// The file.
        path: PathBuf,
        /// What the system said.
        source: std::io::Error,
    },
    /// A tensor's bytes are not what its header says.
    #[error("tensor {name}: {detail}")]
    Tensor {
        /// Name in the file.
        name: String,
        /// What is wrong.
        detail: String,
    },
}

/// Mapped weight files, read tensor by tensor.
#[derive(Debug)]
pub struct Weights<'a> {
    index: &'a WeightIndex,
    maps: HashMap<PathBuf, Mmap>,
    device: Device,
    kind: Kind,
}

impl<'a> Weights<'a> {
    /// Maps all files of `index`; tensors will be of `kind` on `device`.
    ///
    /// # Errors
    /// Where a file can't be mapped.
    pub fn open(index: &'a WeightIndex, device: Device, kind: Kind) -> Result<Self, Error> {
        let mut maps = HashMap::new();
        for entry in index.tensors.values() {
            if !maps.contains_key(&entry.file) {
                let map = mapped::map(&entry.file)
                    .map_err(|source| Error::Io { path: entry.file.clone(), source })?;
                maps.insert(entry.file.clone(), map);
            }
        }
        Ok(Self { index, maps, device, kind })
    }

    /// Whether the files hold `name`.
    #[must_use]
    pub fn has(&self, name: &str) -> bool {
        self.index.tensors.contains_key(name)
    }

    /// One tensor, row-major, with its outermost dimension first.
    ///
    /// # Errors
    /// Where it is missing or damaged.
    pub fn get(&self, name: &str) -> Result<Tensor, Error> {
        let entry = self.index.tensors.get(name).ok_or_else(|| Error::NoTensor(name.to_owned()))?;
        let bad = |detail: String| Error::Tensor { name: name.to_owned(), detail };
        let bytes = self
            .maps
            .get(&entry.file)
            .and_then(|m| m.get(entry.offset as usize..)?.get(..entry.len as usize))
            .ok_or_else(|| bad("lies outside of its file".into()))?;
        let shape: Vec<i64> = entry.shape.iter().map(|&n| n as i64).collect();
        let plain = |kind| Tensor::f_from_data_size(bytes, &shape, kind).map_err(|e| bad(e.to_string()));
        let host = match entry.dtype {
            TensorType::F64 => plain(Kind::Double)?,
            TensorType::F32 => plain(Kind::Float)?,
            TensorType::F16 => plain(Kind::Half)?,
            TensorType::BF16 => plain(Kind::BFloat16)?,
            _ => {
                let values = dequantise(entry, bytes).map_err(bad)?;
                Tensor::f_from_slice(&values)
                    .and_then(|t| t.f_view(shape.as_slice()))
                    .map_err(|e| bad(e.to_string()))?
            }
        };
        host.f_to_device(self.device).and_then(|t| t.f_to_kind(self.kind)).map_err(|e| bad(e.to_string()))
    }
}

fn dequantise(entry: &TensorEntry, bytes: &[u8]) -> Result<Vec<f32>, String> {
    let dtype = match entry.dtype {
        TensorType::Q4_0 => GgmlDType::Q4_0,
        TensorType::Q4_1 => GgmlDType::Q4_1,
        TensorType::Q5_0 => GgmlDType::Q5_0,
        TensorType::Q5_1 => GgmlDType::Q5_1,
        TensorType::Q8_0 => GgmlDType::Q8_0,
        TensorType::Q2K => GgmlDType::Q2K,
        TensorType::Q3K => GgmlDType::Q3K,
        TensorType::Q4K => GgmlDType::Q4K,
        TensorType::Q5K => GgmlDType::Q5K,
        TensorType::Q6K => GgmlDType::Q6K,
        TensorType::Q8K => GgmlDType::Q8K,
        other => return Err(format!("{other:?} is not a quantisation")),
    };
    let dims = entry.shape.iter().map(|&n| n as usize).collect();
    let device = candle_core::Device::Cpu;
    qtensor_from_ggml(dtype, bytes, dims, &device)
        .and_then(|q| q.dequantize(&device))
        .and_then(|t| t.flatten_all()?.to_vec1::<f32>())
        .map_err(|e| e.to_string())
}

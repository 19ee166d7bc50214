//! Where the tensors of a model lie in its files, and in which number format.

use std::collections::BTreeMap;
use std::fmt;
use std::path::PathBuf;

/// Number format of a stored tensor.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, PartialOrd, Ord)]
#[allow(missing_docs, reason = "the names are the formats' own")]
pub enum TensorType {
    F64,
    F32,
    F16,
    BF16,
    Q4_0,
    Q4_1,
    Q5_0,
    Q5_1,
    Q8_0,
    Q2K,
    Q3K,
    Q4K,
    Q5K,
    Q6K,
    Q8K,
}

impl TensorType {
    /// Every format that can be read.
    pub const ALL: [Self; 15] = [
        Self::F64,
        Self::F32,
        Self::F16,
        Self::BF16,
        Self::Q4_0,
        Self::Q4_1,
        Self::Q5_0,
        Self::Q5_1,
        Self::Q8_0,
        Self::Q2K,
        Self::Q3K,
        Self::Q4K,
        Self::Q5K,
        Self::Q6K,
        Self::Q8K,
    ];

    /// (values per block, bytes per block).
    #[must_use]
    pub fn block(self) -> (u64, u64) {
        match self {
            Self::F64 => (1, 8),
            Self::F32 => (1, 4),
            Self::F16 | Self::BF16 => (1, 2),
            Self::Q4_0 => (32, 18),
            Self::Q4_1 => (32, 20),
            Self::Q5_0 => (32, 22),
            Self::Q5_1 => (32, 24),
            Self::Q8_0 => (32, 34),
            Self::Q2K => (256, 84),
            Self::Q3K => (256, 110),
            Self::Q4K => (256, 144),
            Self::Q5K => (256, 176),
            Self::Q6K => (256, 210),
            Self::Q8K => (256, 292),
        }
    }

    /// Whether values are stored in quantised blocks.
    #[must_use]
    pub fn quantised(self) -> bool {
        self.block().0 > 1
    }

    /// Bytes of a tensor whose innermost dimension is the last of `shape`; `None` where that isn't a
    /// whole number of blocks or the size overflows.
    #[must_use]
    pub fn bytes(self, shape: &[u64]) -> Option<u64> {
        let (values, bytes) = self.block();
        let inner = shape.last().copied().unwrap_or(1);
        if !inner.is_multiple_of(values) {
            return None;
        }
        let count = shape.iter().try_fold(1u64, |n, &d| n.checked_mul(d))?;
        (count / values).checked_mul(bytes)
    }
}

impl fmt::Display for TensorType {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let name = format!("{self:?}");
        match name.strip_suffix('K') {
            Some(base) => write!(f, "{base}_K"),
            None => f.write_str(&name),
        }
    }
}

/// One tensor in a file.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct TensorEntry {
    /// Number format.
    pub dtype: TensorType,
    /// Row-major, outermost dimension first (GGUF's own order reversed).
    pub shape: Vec<u64>,
    /// The file that holds it.
    pub file: PathBuf,
    /// First byte, from the start of the file.
    pub offset: u64,
    /// Bytes.
    pub len: u64,
}

/// All readable tensors of a model, under the names that its files use.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct WeightIndex {
    /// Name → place.
    pub tensors: BTreeMap<String, TensorEntry>,
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn sizes_are_whole_blocks_and_never_overflow() {
        assert_eq!(TensorType::Q4_1.bytes(&[3, 64]), Some(3 * 2 * 20));
        assert_eq!(TensorType::Q4_1.bytes(&[64, 3]), None);
        assert_eq!(TensorType::F32.bytes(&[]), Some(4));
        assert_eq!(TensorType::F64.bytes(&[u64::MAX, 2]), None);
        assert_eq!(TensorType::Q6K.to_string(), "Q6_K");
        assert_eq!(TensorType::Q8_0.to_string(), "Q8_0");
    }
}

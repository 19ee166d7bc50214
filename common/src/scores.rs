//! The chunk codec: the per-example scores of a run of subsets as compressed columns. The bytes are a
//! pure function of the scores, so equal scores are equal bytes.

use std::cell::RefCell;
use thiserror::Error;

/// Per-example scores of one task for the subsets of one chunk.
#[derive(Clone, Debug, PartialEq)]
pub struct TaskScores {
    /// Index of the task in the plan.
    pub task: u32,
    /// Examples in the sweep's scope.
    pub examples: u32,
    /// Columns of the task's kind.
    pub columns: u32,
    /// `values[(subset * columns + column) * examples + example]`.
    pub values: Vec<f64>,
}

impl TaskScores {
    /// One column of one subset, by example.
    ///
    /// # Panics
    /// Where `subset` or `column` is past the end.
    #[must_use]
    pub fn column(&self, subset: usize, column: usize) -> &[f64] {
        let n = self.examples as usize;
        let at = (subset * self.columns as usize + column) * n;
        &self.values[at..at + n]
    }
}

/// The scores of one chunk.
#[derive(Clone, Debug, PartialEq)]
pub struct ChunkScores {
    /// Subsets in the chunk.
    pub subsets: u32,
    /// A block per task of the sweep, in the sweep's order.
    pub tasks: Vec<TaskScores>,
}

/// Why bytes are not a chunk.
#[derive(Debug, Error, PartialEq, Eq)]
pub enum Error {
    /// The bytes end early, go on too long or contradict themselves.
    #[error("chunk scores are malformed: {0}")]
    Malformed(&'static str),
    /// Larger than a chunk may be.
    #[error("chunk scores of {0} bytes are over the limit of {MAX_BYTES}")]
    TooLarge(u64),
}

/// A task's part of a chunk, without its values.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct TaskShape {
    /// As [`TaskScores::task`].
    pub task: u32,
    /// As [`TaskScores::examples`].
    pub examples: u32,
    /// As [`TaskScores::columns`].
    pub columns: u32,
    /// How many values that makes for all the chunk's subsets.
    pub values: usize,
}

const MAGIC: &[u8; 4] = b"ABC1";
/// Largest decompressed size of a chunk.
pub const MAX_BYTES: u64 = 1 << 30;
/// Most bytes that one of zstd's can stand for: a block of 128 KiB of one value takes four.
const MOST_PER_BYTE: u64 = (128 << 10) / 4;

impl ChunkScores {
    /// Encodes: magic, counts, then zstd over the values with bytes shuffled (all first bytes, all second
    /// bytes, …), which is what makes neighbouring floats compress.
    #[must_use]
    pub fn encode(&self) -> Vec<u8> {
        let mut out = MAGIC.to_vec();
        let mut put = |v: u32| out.extend_from_slice(&v.to_le_bytes());
        put(self.subsets);
        put(self.tasks.len() as u32);
        for t in &self.tasks {
            put(t.task);
            put(t.examples);
            put(t.columns);
        }
        let values: Vec<f64> = self.tasks.iter().flat_map(|t| t.values.iter().copied()).collect();
        let mut planes = vec![0u8; values.len() * 8];
        for (i, v) in values.iter().enumerate() {
            for (b, byte) in v.to_le_bytes().into_iter().enumerate() {
                planes[b * values.len() + i] = byte;
            }
        }
        // Compressing from memory into memory fails only where memory is gone.
        out.extend(zstd::bulk::compress(&planes, 1).expect("compression in memory"));
        out
    }

    /// Decodes, checking every size before it is used.
    ///
    /// # Errors
    /// Where `bytes` were not made by [`Self::encode`].
    pub fn decode(bytes: &[u8]) -> Result<Self, Error> {
        let (subsets, shapes, planes) = Self::planes(bytes)?;
        let n = planes.len() / 8;
        let mut values = (0..n).map(|i| f64::from_le_bytes(std::array::from_fn(|b| planes[b * n + i])));
        let tasks = shapes
            .into_iter()
            .map(|s| TaskScores {
                task: s.task,
                examples: s.examples,
                columns: s.columns,
                values: values.by_ref().take(s.values).collect(),
            })
            .collect();
        Ok(Self { subsets, tasks })
    }

    /// Checks all that [`Self::decode`] checks, without making the scores: subsets, and the shapes of the tasks.
    ///
    /// # Errors
    /// As of [`Self::decode`].
    pub fn shapes(bytes: &[u8]) -> Result<(u32, Vec<TaskShape>), Error> {
        Self::planes(bytes).map(|(subsets, shapes, _)| (subsets, shapes))
    }

    /// Subsets, shapes, and the values' bytes: all first ones, all second ones …
    fn planes(bytes: &[u8]) -> Result<(u32, Vec<TaskShape>, Vec<u8>), Error> {
        let mut rest = bytes.strip_prefix(MAGIC).ok_or(Error::Malformed("no magic"))?;
        let mut take = || {
            let (head, tail) = rest.split_first_chunk::<4>().ok_or(Error::Malformed("truncated"))?;
            rest = tail;
            Ok(u32::from_le_bytes(*head))
        };
        let subsets = take()?;
        let count = take()?;
        let mut total: u64 = 0;
        let mut shapes = Vec::new();
        for _ in 0..count {
            let (task, examples, columns) = (take()?, take()?, take()?);
            let n = u64::from(subsets)
                .checked_mul(u64::from(examples))
                .and_then(|n| n.checked_mul(u64::from(columns)))
                .ok_or(Error::Malformed("counts overflow"))?;
            total = total.saturating_add(n.saturating_mul(8));
            if total > MAX_BYTES {
                return Err(Error::TooLarge(total));
            }
            shapes.push(TaskShape { task, examples, columns, values: n as usize });
        }
        // What is promised is allocated at once: no more than so few bytes can hold.
        if total > (rest.len() as u64).saturating_mul(MOST_PER_BYTE) {
            return Err(Error::Malformed("more scores than the bytes can hold"));
        }
        // A context is 100 KB, which is more than most chunks are.
        thread_local!(static CONTEXT: RefCell<Option<zstd::bulk::Decompressor<'static>>> = const { RefCell::new(None) });
        let planes = CONTEXT
            .with_borrow_mut(|context| {
                if context.is_none() {
                    *context = Some(zstd::bulk::Decompressor::new()?);
                }
                context.as_mut().map_or(Ok(Vec::new()), |c| c.decompress(rest, total as usize))
            })
            .map_err(|_: std::io::Error| Error::Malformed("compression"))?;
        if planes.len() as u64 != total {
            return Err(Error::Malformed("wrong length"));
        }
        Ok((subsets, shapes, planes))
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    #[test]
    fn scores_that_are_all_alike_survive_the_codec_however_well_they_compress() {
        let task = TaskScores { task: 0, examples: 4000, columns: 1, values: vec![0.0; 4000 * 1000] };
        let chunk = ChunkScores { subsets: 1000, tasks: vec![task] };
        assert_eq!(ChunkScores::decode(&chunk.encode()).unwrap(), chunk);
    }

    proptest! {
        #[test]
        fn chunks_survive_the_codec_bit_for_bit(subsets in 0u32..5, shapes in prop::collection::vec((0u32..9, 0u32..7, 1u32..3), 0..4), seed: u64) {
            let mut x = seed;
            let mut next = || { x = x.wrapping_mul(6364136223846793005).wrapping_add(1442695040888963407); f64::from_bits(x) };
            let tasks = shapes.into_iter().map(|(task, examples, columns)| TaskScores {
                task, examples, columns, values: (0..subsets * examples * columns).map(|_| next()).collect(),
            }).collect();
            let chunk = ChunkScores { subsets, tasks };
            let bytes = chunk.encode();
            let back = ChunkScores::decode(&bytes).unwrap();
            prop_assert_eq!(back.encode(), bytes);
            let bits = |c: &ChunkScores| c.tasks.iter().flat_map(|t| t.values.iter().map(|v| v.to_bits())).collect::<Vec<_>>();
            prop_assert_eq!(bits(&back), bits(&chunk));
        }

        #[test]
        fn a_few_bytes_cannot_promise_a_gigabyte(subsets in 1u32.., examples in 1u32.., rest in prop::collection::vec(any::<u8>(), 0..30)) {
            let mut bytes = MAGIC.to_vec();
            for n in [subsets, 1, 0, examples, 1] {
                bytes.extend(n.to_le_bytes());
            }
            bytes.extend(&rest);
            let promised = u64::from(subsets) * u64::from(examples) * 8;
            if promised > 30 * MOST_PER_BYTE {
                prop_assert!(ChunkScores::decode(&bytes).is_err());
            }
        }

        #[test]
        fn random_bytes_never_panic(bytes in prop::collection::vec(any::<u8>(), 0..200)) {
            let mut with_magic = MAGIC.to_vec();
            with_magic.extend(&bytes);
            let _ = ChunkScores::decode(&bytes);
            let _ = ChunkScores::decode(&with_magic);
        }
    }
}

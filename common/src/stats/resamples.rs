//! Seeded resamples of documents: what the bootstraps of metrics over whole data sets share.

use multiversion::multiversion;
use rand::{Rng, SeedableRng};
use rand_chacha::ChaCha8Rng;
use std::collections::HashMap;

/// Resamples whose sums are formed together: those of a few columns stay in the fastest cache.
const BLOCK: usize = 128;

/// How often each example occurs in each resample: as often as its document was drawn.
#[derive(Clone, Debug)]
pub struct Resamples {
    documents: usize,
    examples: usize,
    number: usize,
    /// `counts[example * number + resample]`.
    counts: Vec<u16>,
}

impl Resamples {
    /// `number` resamples of the documents `clusters` (one per example), each of as many documents as there are,
    /// with replacement. Equal arguments give equal resamples.
    #[must_use]
    pub fn new(clusters: &[u32], number: usize, seed: u64) -> Self {
        let mut numbers: HashMap<u32, usize> = HashMap::new();
        let dense: Vec<usize> = clusters
            .iter()
            .map(|&c| {
                let next = numbers.len();
                *numbers.entry(c).or_insert(next)
            })
            .collect();
        let documents = numbers.len();
        let mut counts = vec![0u16; number * dense.len()];
        let mut drawn = vec![0u16; documents];
        for r in 0..if documents == 0 { 0 } else { number } {
            let mut rng = ChaCha8Rng::seed_from_u64(seed);
            rng.set_stream(r as u64 + 1);
            drawn.fill(0);
            for _ in 0..documents {
                let at = rng.random_range(0..documents as u32) as usize;
                drawn[at] = drawn[at].saturating_add(1);
            }
            for (e, &d) in dense.iter().enumerate() {
                counts[e * number + r] = drawn[d];
            }
        }
        Self { documents, examples: clusters.len(), number, counts }
    }

    /// Number of documents.
    #[must_use]
    pub fn documents(&self) -> usize {
        self.documents
    }

    /// Number of examples.
    #[must_use]
    pub fn examples(&self) -> usize {
        self.examples
    }

    /// Number of resamples.
    #[must_use]
    pub fn number(&self) -> usize {
        self.number
    }

    /// How often an example occurs in each resample, in order.
    ///
    /// # Panics
    /// Where there is no such example.
    #[must_use]
    pub fn of(&self, example: usize) -> &[u16] {
        &self.counts[example * self.number..(example + 1) * self.number]
    }

    /// Sums over each resample of `width` numbers of each example: `entries` gives those that aren't 0, as (which of the
    /// numbers, value). The sum of number c in resample r is at `c * number + r`.
    pub fn sums<I>(&self, width: usize, entries: impl Fn(usize) -> I) -> Vec<f64>
    where
        I: IntoIterator<Item = (usize, f64)>,
    {
        let mut out = vec![0.0; width * self.number];
        let mut block = vec![0.0; width * BLOCK];
        let mut times = [0.0; BLOCK];
        for from in (0..self.number).step_by(BLOCK) {
            let size = BLOCK.min(self.number - from);
            block.fill(0.0);
            for e in 0..self.examples {
                widen(&self.of(e)[from..from + size], &mut times[..size]);
                for (c, value) in entries(e) {
                    add(&mut block[c * BLOCK..c * BLOCK + size], &times[..size], value);
                }
            }
            for c in 0..width {
                let at = c * self.number + from;
                out[at..at + size].copy_from_slice(&block[c * BLOCK..c * BLOCK + size]);
            }
        }
        out
    }

    /// NaN for every resample.
    #[must_use]
    pub fn undefined(&self) -> Vec<f64> {
        vec![f64::NAN; self.number]
    }
}

// Products and sums are rounded one by one whatever the instructions, so that all machines get the same bits.

#[multiversion(targets("x86_64+avx2"))]
fn widen(counts: &[u16], out: &mut [f64]) {
    for (out, &n) in out.iter_mut().zip(counts) {
        *out = f64::from(n);
    }
}

#[multiversion(targets("x86_64+avx2"))]
fn add(sums: &mut [f64], times: &[f64], value: f64) {
    for (sum, n) in sums.iter_mut().zip(times) {
        *sum += n * value;
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn documents_are_drawn_whole_and_by_the_seed() {
        let r = Resamples::new(&[4, 4, 7, 9], 300, 5);
        assert_eq!((r.documents(), r.examples(), r.number()), (3, 4, 300));
        assert_eq!(r.of(0), r.of(1));
        for k in 0..300 {
            assert_eq!(r.of(0)[k] + r.of(2)[k] + r.of(3)[k], 3);
        }
        assert_eq!(r.counts, Resamples::new(&[4, 4, 7, 9], 300, 5).counts);
        assert_ne!(r.counts, Resamples::new(&[4, 4, 7, 9], 300, 6).counts);
    }

    #[test]
    fn sums_are_those_of_the_repeated_examples() {
        let r = Resamples::new(&[0, 1, 1, 2, 3], 2 * BLOCK + 17, 1);
        let columns = [[1.5, -2.0, 0.0, 4.0, 0.25], [0.0, 1.0, 1.0, 0.0, 3.0]];
        let sums = r.sums(2, |e| [(0, columns[0][e]), (1, columns[1][e])]);
        for (c, column) in columns.iter().enumerate() {
            for k in 0..r.number() {
                let want: f64 = (0..5).map(|e| f64::from(r.of(e)[k]) * column[e]).sum();
                assert_eq!(sums[c * r.number() + k], want);
            }
        }
        assert!(Resamples::new(&[], 3, 1).sums(1, |_| [(0, 1.0)]).iter().all(|&s| s == 0.0));
    }
}

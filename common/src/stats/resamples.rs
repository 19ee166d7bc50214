//! Seeded resamples of documents: what the bootstraps of metrics over whole data sets share.

use rand::{Rng, SeedableRng};
use rand_chacha::ChaCha8Rng;
use std::collections::HashMap;

/// How often each example occurs in each resample: as often as its document was drawn.
#[derive(Clone, Debug)]
pub struct Resamples {
    documents: usize,
    examples: usize,
    number: usize,
    /// `counts[resample * examples + example]`.
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
        let mut counts = Vec::with_capacity(number * dense.len());
        let mut drawn = vec![0u16; documents];
        for r in 0..if documents == 0 { 0 } else { number } {
            let mut rng = ChaCha8Rng::seed_from_u64(seed);
            rng.set_stream(r as u64 + 1);
            drawn.fill(0);
            for _ in 0..documents {
                let at = rng.random_range(0..documents as u32) as usize;
                drawn[at] = drawn[at].saturating_add(1);
            }
            counts.extend(dense.iter().map(|&d| drawn[d]));
        }
        Self { documents, examples: clusters.len(), number, counts }
    }

    /// Number of documents.
    #[must_use]
    pub fn documents(&self) -> usize {
        self.documents
    }

    /// `score` of every resample's counts (one per example), in order; NaN for each where there is no example.
    pub fn vector(&self, mut score: impl FnMut(&[u16]) -> f64) -> Vec<f64> {
        if self.examples == 0 {
            return self.undefined();
        }
        self.counts.chunks_exact(self.examples).map(&mut score).collect()
    }

    /// NaN for every resample.
    #[must_use]
    pub fn undefined(&self) -> Vec<f64> {
        vec![f64::NAN; self.number]
    }
}

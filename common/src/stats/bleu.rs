//! BLEU of whole data sets [Papineni et al. 2002], as sacrebleu computes it: from n-gram counts summed over the
//! examples, with its default ("exp") smoothing, from 0 to 100. N-grams are of token ids.

use super::resamples::Resamples;
use std::collections::HashMap;

/// Longest n-gram.
const ORDER: usize = 4;

/// Counts kept of each example: hypothesis n-grams that the reference holds (n = 1 to 4, each at most as often as
/// there), all of its n-grams, and the two lengths in tokens.
pub const COUNTS: usize = 2 * ORDER + 2;

/// The counts of one example.
#[must_use]
pub fn counts(hypothesis: &[u32], reference: &[u32]) -> [f64; COUNTS] {
    let mut out = [0.0; COUNTS];
    for n in 1..=ORDER {
        let mut left: HashMap<&[u32], usize> = HashMap::new();
        for gram in reference.windows(n) {
            *left.entry(gram).or_default() += 1;
        }
        let matches = hypothesis
            .windows(n)
            .filter(|gram| match left.get_mut(gram) {
                Some(count) if *count > 0 => {
                    *count -= 1;
                    true
                }
                _ => false,
            })
            .count();
        out[n - 1] = matches as f64;
        out[ORDER + n - 1] = (hypothesis.len() + 1).saturating_sub(n) as f64;
    }
    out[2 * ORDER] = hypothesis.len() as f64;
    out[2 * ORDER + 1] = reference.len() as f64;
    out
}

/// BLEU of summed counts; NaN where one is no number.
#[must_use]
pub fn bleu(sums: &[f64; COUNTS]) -> f64 {
    if sums.iter().any(|s| !s.is_finite()) {
        return f64::NAN;
    }
    let (matches, rest) = sums.split_at(ORDER);
    let (all, lengths) = rest.split_at(ORDER);
    // Without an n-gram of some order there is no mean of all orders.
    if all.contains(&0.0) || matches.iter().all(|&m| m == 0.0) {
        return 0.0;
    }
    let mut smooth = 1.0;
    let mut logs = 0.0;
    for (&matches, &all) in matches.iter().zip(all) {
        logs += if matches == 0.0 {
            smooth *= 2.0;
            (100.0 / (smooth * all)).ln()
        } else {
            (100.0 * matches / all).ln()
        };
    }
    let brevity = if lengths[0] < lengths[1] { (1.0 - lengths[1] / lengths[0]).exp() } else { 1.0 };
    brevity * (logs / ORDER as f64).exp()
}

/// BLEU of examples whose counts are `columns[c][k]`, example `k` as often as `weight` says; NaN where a
/// column is missing.
#[must_use]
pub fn weighted(columns: &[&[f64]], examples: usize, weight: impl Fn(usize) -> f64) -> f64 {
    let mut sums = [0.0; COUNTS];
    if columns.len() != COUNTS || columns.iter().any(|c| c.len() < examples) {
        return f64::NAN;
    }
    for (sum, column) in sums.iter_mut().zip(columns) {
        *sum = (0..examples).map(|k| weight(k) * column[k]).sum();
    }
    bleu(&sums)
}

/// BLEU of every resample of documents.
#[must_use]
pub fn resampled(columns: &[&[f64]], resamples: &Resamples) -> Vec<f64> {
    let (n, times) = (resamples.examples(), resamples.number());
    if n == 0 || columns.len() != COUNTS || columns.iter().any(|c| c.len() < n) {
        return resamples.undefined();
    }
    let sums = resamples.sums(COUNTS, |k| columns.iter().map(move |c| c[k]).enumerate());
    (0..times).map(|r| bleu(&std::array::from_fn(|c| sums[c * times + r]))).collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    type Pair = (&'static [u32], &'static [u32]);
    const CASES: &[(&[Pair], f64)] = &[
        (&[(&[1, 2, 3, 4, 5, 6], &[1, 2, 3, 4, 5, 6])], 100.00000000000004),
        (
            &[
                (&[1, 2, 3, 4, 5, 6], &[1, 2, 3, 9, 5, 6, 7, 8]),
                (&[4, 4, 4, 4, 4], &[4, 4, 1, 4]),
                (&[], &[3, 2]),
            ],
            19.845417338382557,
        ),
        (&[(&[1, 2, 3], &[1, 2, 3])], 0.0),
        (&[(&[1, 5, 2, 6, 3], &[1, 2, 3, 4, 5]), (&[9], &[9, 9])], 12.918868300740419),
        (&[(&[7, 8], &[1, 2, 3, 4, 5])], 0.0),
        (
            &[
                (&[1, 2, 9, 3, 4, 8, 1, 2], &[1, 2, 3, 4, 1, 2]),
                (&[5, 6, 7, 8], &[5, 6, 7, 8, 9, 10, 11, 12, 13]),
            ],
            29.588031349552907,
        ),
    ];

    fn of(pairs: &[(&[u32], &[u32])]) -> f64 {
        let all: Vec<[f64; COUNTS]> = pairs.iter().map(|(h, r)| counts(h, r)).collect();
        let columns: Vec<Vec<f64>> = (0..COUNTS).map(|c| all.iter().map(|e| e[c]).collect()).collect();
        weighted(&columns.iter().map(Vec::as_slice).collect::<Vec<_>>(), all.len(), |_| 1.0)
    }

    #[test]
    fn bleu_is_that_of_sacrebleu() {
        // sacrebleu.corpus_bleu of the same ids as words, tokenize="none".
        for (pairs, wanted) in CASES {
            let got = of(pairs);
            assert!((got - wanted).abs() < 1e-9, "{pairs:?}: {got} is not {wanted}");
        }
    }

    #[test]
    fn documents_are_drawn_whole() {
        let all = [counts(&[1, 2, 3, 4, 5], &[1, 2, 3, 4, 5]), counts(&[1, 2, 3, 4, 9], &[1, 2, 3, 4, 5])];
        let columns: Vec<Vec<f64>> = (0..COUNTS).map(|c| all.iter().map(|e| e[c]).collect()).collect();
        let columns: Vec<&[f64]> = columns.iter().map(Vec::as_slice).collect();
        let one = resampled(&columns, &Resamples::new(&[7, 7], 20, 3));
        let both = weighted(&columns, 2, |_| 1.0);
        assert!(one.iter().all(|v| (v - both).abs() < 1e-12), "one document");
        let two = resampled(&columns, &Resamples::new(&[7, 8], 200, 3));
        let near = |wanted: f64| two.iter().any(|v| (v - wanted).abs() < 1e-9);
        assert!(near(100.0) && near(both));
        assert!(resampled(&columns[..3], &Resamples::new(&[7, 8], 2, 3)).iter().all(|v| v.is_nan()));
    }
}

//! Paired bootstrap of correlations: metrics that aren't means over examples.
//!
//! Texts are resampled, not pairs: a resample draws as many texts as there are, with replacement, text t
//! w_t times, and the pair (a, b) then counts w_a · w_b times (pairs of a text with itself don't
//! exist). The same resamples serve every subset, so that differences and interactions are paired
//! [Efron & Tibshirani 1993]. The interval is the percentile one; p is two-sided normal on the
//! bootstrap's standard error.

use super::{Estimate, normal_two_sided, standardised};
use rand::{Rng, SeedableRng};
use rand_chacha::ChaCha8Rng;
use std::collections::HashMap;

/// Which correlation with the gold score.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Correlation {
    /// Of the values.
    Pearson,
    /// Of their midranks.
    Spearman,
}

/// Resamples that one lane of the inner loop handles together: their sums stay in registers.
const LANES: usize = 8;

/// The resamples of one set of examples, made once.
#[derive(Clone, Debug)]
pub struct Bootstrap {
    kind: Correlation,
    resamples: usize,
    /// Gold scores, centred.
    gold: Vec<f64>,
    /// `weights[(block * n + example) * LANES + lane]`: counts, small enough to be exact in f32.
    weights: Vec<f32>,
    /// Per resample: (Σw, Σwy, Σwy²); for Spearman of y's weighted midranks.
    sums: Vec<(f64, f64, f64)>,
    /// Spearman only: weighted midranks of gold, laid out as `weights`.
    gold_ranks: Vec<f32>,
}

impl Bootstrap {
    /// `resamples` resamples of the texts that `pairs` (one per gold score) refer to. Equal arguments give
    /// equal resamples.
    #[must_use]
    pub fn new(kind: Correlation, gold: &[f64], pairs: &[(u32, u32)], resamples: usize, seed: u64) -> Self {
        let n = gold.len().min(pairs.len());
        let mut texts: HashMap<u32, usize> = HashMap::new();
        let mut dense = Vec::with_capacity(n);
        for &(a, b) in &pairs[..n] {
            let mut of = |t| {
                let next = texts.len();
                *texts.entry(t).or_insert(next)
            };
            dense.push((of(a), of(b)));
        }
        let mean = gold[..n].iter().sum::<f64>() / n as f64;
        let gold: Vec<f64> = gold[..n].iter().map(|y| y - mean).collect();
        let blocks = resamples.div_ceil(LANES);
        let mut weights = vec![0f32; blocks * n * LANES];
        let mut count = vec![0u32; texts.len()];
        for r in 0..if texts.is_empty() { 0 } else { resamples } {
            let mut rng = ChaCha8Rng::seed_from_u64(seed);
            rng.set_stream(r as u64 + 1);
            count.fill(0);
            for _ in 0..texts.len() {
                count[rng.random_range(0..texts.len() as u32) as usize] += 1;
            }
            for (i, &(a, b)) in dense.iter().enumerate() {
                weights[(r / LANES * n + i) * LANES + r % LANES] = (count[a] * count[b]) as f32;
            }
        }
        let mut out = Self { kind, resamples, gold, weights, sums: Vec::new(), gold_ranks: Vec::new() };
        if kind == Correlation::Spearman {
            let order = order(&out.gold);
            out.gold_ranks = vec![0f32; out.weights.len()];
            for r in 0..resamples {
                let at = |i: usize| (r / LANES * n + i) * LANES + r % LANES;
                let (weights, gold, ranks) = (&out.weights, &out.gold, &mut out.gold_ranks);
                weighted_midranks(
                    &order,
                    gold,
                    |i| f64::from(weights[at(i)]),
                    |i, v| ranks[at(i)] = v as f32,
                );
            }
        }
        out.sums = (0..resamples)
            .map(|r| {
                (0..n).fold((0.0, 0.0, 0.0), |s, i| {
                    let at = (r / LANES * n + i) * LANES + r % LANES;
                    let w = f64::from(out.weights[at]);
                    let y = if kind == Correlation::Spearman {
                        f64::from(out.gold_ranks[at])
                    } else {
                        out.gold[i]
                    };
                    (s.0 + w, s.1 + w * y, s.2 + w * y * y)
                })
            })
            .collect();
        out
    }

    /// Number of resamples.
    #[must_use]
    pub fn resamples(&self) -> usize {
        self.resamples
    }

    /// The correlation of `scores` with gold in every resample, in order; NaN where it is undefined in one, and
    /// everywhere where a score is NaN or one is missing.
    #[must_use]
    pub fn vector(&self, scores: &[f64]) -> Vec<f64> {
        let n = self.gold.len();
        if scores.len() < n || scores[..n].iter().any(|s| !s.is_finite()) {
            return vec![f64::NAN; self.resamples];
        }
        match self.kind {
            Correlation::Pearson => self.pearson(&scores[..n]),
            Correlation::Spearman => self.spearman(&scores[..n]),
        }
    }

    fn pearson(&self, scores: &[f64]) -> Vec<f64> {
        let n = self.gold.len();
        let mean = scores.iter().sum::<f64>() / n as f64;
        let products: Vec<[f64; 3]> = scores
            .iter()
            .zip(&self.gold)
            .map(|(x, y)| {
                let x = x - mean;
                [x, x * x, x * y]
            })
            .collect();
        let mut out = Vec::with_capacity(self.resamples);
        for (block, sums) in self.sums.chunks(LANES).enumerate() {
            let (mut sx, mut sxx, mut sxy) = ([0.0f64; LANES], [0.0f64; LANES], [0.0f64; LANES]);
            let (rows, _) = self.weights[block * n * LANES..(block + 1) * n * LANES].as_chunks::<LANES>();
            for (w, p) in rows.iter().zip(&products) {
                for k in 0..LANES {
                    let w = f64::from(w[k]);
                    sx[k] += w * p[0];
                    sxx[k] += w * p[1];
                    sxy[k] += w * p[2];
                }
            }
            for (k, s) in sums.iter().enumerate() {
                out.push(correlation(*s, sx[k], sxx[k], sxy[k]));
            }
        }
        out
    }

    fn spearman(&self, scores: &[f64]) -> Vec<f64> {
        let n = self.gold.len();
        let order = order(scores);
        (0..self.resamples)
            .map(|r| {
                let at = |i: usize| (r / LANES * n + i) * LANES + r % LANES;
                let (mut sx, mut sxx, mut sxy) = (0.0, 0.0, 0.0);
                let weight = |i: usize| f64::from(self.weights[at(i)]);
                weighted_midranks(&order, scores, weight, |i, rank| {
                    let w = weight(i);
                    sx += w * rank;
                    sxx += w * rank * rank;
                    sxy += w * rank * f64::from(self.gold_ranks[at(i)]);
                });
                correlation(self.sums[r], sx, sxx, sxy)
            })
            .collect()
    }

    /// An estimate from its point value and its value in every resample. Resamples in which it is undefined
    /// are left out; NaN where they are the majority.
    #[must_use]
    pub fn estimate(value: f64, resampled: &[f64]) -> Estimate {
        let mut v: Vec<f64> = resampled.iter().copied().filter(|x| x.is_finite()).collect();
        if value.is_nan() || v.len() < 2 || v.len() * 2 < resampled.len() {
            return Estimate { value, ..Estimate::NAN };
        }
        let n = v.len() as f64;
        let mean = v.iter().sum::<f64>() / n;
        let se = (v.iter().map(|x| (x - mean) * (x - mean)).sum::<f64>() / (n - 1.0)).sqrt();
        v.sort_unstable_by(f64::total_cmp);
        let p = normal_two_sided(standardised(value, se));
        Estimate { value, se, low: quantile(&v, 0.025), high: quantile(&v, 0.975), p }
    }
}

/// r from the sums of y (Σw, Σwy, Σwy²) and of x; NaN where either has no variance beyond rounding.
fn correlation((w, y, yy): (f64, f64, f64), x: f64, xx: f64, xy: f64) -> f64 {
    let (sxx, syy) = (xx - x * x / w, yy - y * y / w);
    if sxx <= 1e-13 * xx || syy <= 1e-13 * yy { f64::NAN } else { (xy - x * y / w) / (sxx * syy).sqrt() }
}

/// The `q` quantile of ascending `v`, linear between neighbours (NumPy's default). NaN for none.
#[must_use]
pub fn quantile(v: &[f64], q: f64) -> f64 {
    let Some(last) = v.len().checked_sub(1) else { return f64::NAN };
    let at = q.clamp(0.0, 1.0) * last as f64;
    let low = at.floor() as usize;
    v[low] + (at - low as f64) * (v[(low + 1).min(last)] - v[low])
}

/// Indices that sort `x`.
fn order(x: &[f64]) -> Vec<usize> {
    let mut order: Vec<usize> = (0..x.len()).collect();
    order.sort_by(|&a, &b| x[a].total_cmp(&x[b]));
    order
}

/// Midranks of a sample in which value `x[i]` occurs `weight(i)` times. Values without weight get none.
fn weighted_midranks(
    order: &[usize],
    x: &[f64],
    weight: impl Fn(usize) -> f64,
    mut give: impl FnMut(usize, f64),
) {
    let (mut from, mut before) = (0, 0.0);
    while from < order.len() {
        let (mut to, mut group) = (from, 0.0);
        while to < order.len() && x[order[to]] == x[order[from]] {
            group += weight(order[to]);
            to += 1;
        }
        if group > 0.0 {
            for &i in &order[from..to] {
                give(i, before + (group + 1.0) / 2.0);
            }
        }
        before += group;
        from = to;
    }
}

/// 95 % interval of a rank statistic of `n` units by resampling the units: `statistic` gets the drawn
/// indices. (NaN, NaN) where it is undefined in most resamples.
#[must_use]
pub fn interval_over_units(
    n: usize,
    resamples: usize,
    seed: u64,
    statistic: impl Fn(&[usize]) -> f64 + Sync,
) -> (f64, f64) {
    use rayon::prelude::*;
    if n == 0 {
        return (f64::NAN, f64::NAN);
    }
    let mut v: Vec<f64> = (0..resamples)
        .into_par_iter()
        .map(|r| {
            let mut rng = ChaCha8Rng::seed_from_u64(seed);
            rng.set_stream(r as u64 + 1);
            let drawn: Vec<usize> = (0..n).map(|_| rng.random_range(0..n as u32) as usize).collect();
            statistic(&drawn)
        })
        .filter(|x| x.is_finite())
        .collect();
    if v.len() * 2 < resamples || v.is_empty() {
        return (f64::NAN, f64::NAN);
    }
    v.sort_unstable_by(f64::total_cmp);
    (quantile(&v, 0.025), quantile(&v, 0.975))
}

#[cfg(test)]
mod tests {
    use super::super::point::{midranks, pearson};
    use super::*;

    /// Five texts, all ten pairs, and scores with a tie.
    fn sample() -> (Vec<(u32, u32)>, Vec<f64>, Vec<f64>) {
        let pairs: Vec<(u32, u32)> = (0..5).flat_map(|a| (a + 1..5).map(move |b| (a, b))).collect();
        let gold = vec![0.1, 0.9, 0.4, 0.4, 0.7, 0.2, 0.8, 0.3, 0.6, 0.5];
        let x = vec![0.2, 0.7, 0.5, 0.4, 0.9, 0.1, 0.7, 0.3, 0.2, 0.6];
        (pairs, gold, x)
    }

    #[test]
    fn a_resample_is_the_correlation_of_the_repeated_pairs() {
        let (pairs, gold, x) = sample();
        for kind in [Correlation::Pearson, Correlation::Spearman] {
            let b = Bootstrap::new(kind, &gold, &pairs, 37, 5);
            let v = b.vector(&x);
            assert_eq!(v.len(), 37);
            let mut defined = 0;
            for (r, got) in v.iter().enumerate() {
                let (mut xs, mut ys) = (Vec::new(), Vec::new());
                for i in 0..10 {
                    for _ in 0..b.weights[(r / LANES * 10 + i) * LANES + r % LANES] as usize {
                        xs.push(x[i]);
                        ys.push(gold[i]);
                    }
                }
                let want = match kind {
                    Correlation::Pearson => pearson(&xs, &ys),
                    Correlation::Spearman => pearson(&midranks(&xs), &midranks(&ys)),
                };
                if got.is_finite() {
                    defined += 1;
                    assert!((got - want).abs() < 1e-9, "{kind:?} {r}: {got} is not {want}");
                }
            }
            assert!(defined > 30, "{defined}");
        }
    }

    #[test]
    fn weights_are_products_of_text_counts_and_seeded() {
        let (pairs, gold, x) = sample();
        let b = Bootstrap::new(Correlation::Pearson, &gold, &pairs, 16, 1);
        for r in 0..16 {
            let w = |i: usize| b.weights[(r / LANES * 10 + i) * LANES + r % LANES];
            // Five draws of five texts: all pairs' products sum to (25 − Σ w²) / 2.
            let total: f32 = (0..10).map(w).sum();
            assert!(total <= 10.0 && total.fract() == 0.0, "{total}");
        }
        let bits = |b: &Bootstrap| b.vector(&x).iter().map(|v| v.to_bits()).collect::<Vec<_>>();
        assert_eq!(bits(&b), bits(&Bootstrap::new(Correlation::Pearson, &gold, &pairs, 16, 1)));
        assert_ne!(b.weights, Bootstrap::new(Correlation::Pearson, &gold, &pairs, 16, 2).weights);
    }

    #[test]
    fn nan_passes_through_and_constants_are_undefined() {
        let (pairs, gold, mut x) = sample();
        let b = Bootstrap::new(Correlation::Pearson, &gold, &pairs, 9, 1);
        assert!(b.vector(&[0.3; 10]).iter().all(|v| v.is_nan()));
        x[3] = f64::NAN;
        assert!(b.vector(&x).iter().all(|v| v.is_nan()));
        assert!(Bootstrap::estimate(0.1, &b.vector(&x)).p.is_nan());
        assert!(Bootstrap::new(Correlation::Spearman, &[], &[], 3, 1).vector(&[]).iter().all(|v| v.is_nan()));
    }

    #[test]
    fn an_estimate_is_sd_percentiles_and_normal_p() {
        let v: Vec<f64> = (1..=5).map(f64::from).collect();
        let e = Bootstrap::estimate(3.0, &v);
        assert!((e.se - 2.5f64.sqrt()).abs() < 1e-12);
        assert!((e.low - 1.1).abs() < 1e-12 && (e.high - 4.9).abs() < 1e-12);
        // 2 * scipy.stats.norm.sf(3 / sqrt(2.5)).
        assert!((e.p - 0.057_779_571_123_6).abs() < 1e-6, "{}", e.p);
        assert_eq!(Bootstrap::estimate(0.0, &[0.0; 4]).p, 1.0);
    }

    #[test]
    fn units_are_resampled_with_the_seed() {
        let x: Vec<f64> = (0..50).map(f64::from).collect();
        let mean = |d: &[usize]| d.iter().map(|&i| x[i]).sum::<f64>() / d.len() as f64;
        let (low, high) = interval_over_units(50, 500, 3, mean);
        assert!(low > 18.0 && low < 24.5 && high > 24.5 && high < 31.0, "{low} {high}");
        assert_eq!((low, high), interval_over_units(50, 500, 3, mean));
        assert!(interval_over_units(0, 10, 1, |_| 1.0).0.is_nan());
    }
}

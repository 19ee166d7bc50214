//! Paired bootstrap of correlations with a gold score, of pairs of texts.
//!
//! Texts are resampled, not pairs: a resample draws as many texts as there are, with replacement, text t
//! w_t times, and the pair (a, b) then counts w_a · w_b times (pairs of a text with itself don't
//! exist). The same resamples serve every subset, so that differences and interactions are paired
//! [Efron & Tibshirani 1993].
//!
//! Such resamples have the right shape but not the right spread: what is a pair's own counts three times in their
//! variance, since w_a · w_b has the variance 3 [Owen 2007], and what is a text's own comes out too small where there are few
//! texts. So their deviations are scaled to a standard error that is nearly unbiased in both cases. The
//! jackknife over texts [Efron & Stein 1981] counts what is a pair's own twice, and the pair's influence ψ on the correlation says
//! how much that is:
//!
//! var = (T−1)/T Σ_t (r₍₋ₜ₎ − r̄)² − (T−1)/T Σ_(a,b) ψ²/2 · (1/(n−n_a)² + 1/(n−n_b)²),
//!
//! at least Σ ψ²/(n(n−1)), what independent pairs would have; T texts, n pairs, n_t of them with text t. This is the
//! variance for dyads of Aronow, Samii & Assenova 2015 with the jackknife's second-order terms. p and the width
//! of the interval are from Student's t with 2 (Σ d²)² / (Σ d⁴ − (Σ d²)²/T) degrees of freedom, d = r₍₋ₜ₎ − r̄: fewer where
//! a few texts carry the error; T − 1 and n − 1 at most.

mod side;
#[cfg(test)]
mod tests;

use super::bootstrap::quantile;
use super::{Estimate, NORMAL_975, standardised, t_quantile_975, t_two_sided};
use multiversion::multiversion;
use rand::{Rng, SeedableRng};
use rand_chacha::ChaCha8Rng;
use side::{Side, above, weighted_midranks};
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

/// With more texts than these the jackknife takes their influence in place of leaving each out: by then it is the same.
const MOST_LEFT_OUT: usize = 512;

/// The resamples of one set of examples, made once.
#[derive(Clone, Debug)]
pub struct CorrelationBootstrap {
    kind: Correlation,
    resamples: usize,
    /// Texts that are left out one by one behind the resamples.
    left_out: usize,
    /// Gold scores, centred.
    gold: Vec<f64>,
    /// Numbers of each pair's texts.
    pairs: Vec<(usize, usize)>,
    /// Pairs of each text.
    degrees: Vec<f64>,
    /// `weights[draw / LANES * n + example][draw % LANES]`: counts, small enough to be exact in f32. Draws are the
    /// resamples, then all texts but one.
    weights: Vec<[f32; LANES]>,
    /// Per draw: (Σw, Σwy, Σwy²); for Spearman of y's weighted midranks.
    sums: Vec<(f64, f64, f64)>,
    /// Spearman only: weight times the weighted midrank of gold, laid out as `weights`.
    ranked: Vec<[f32; LANES]>,
    /// What of a pair's influence is gold's.
    gold_side: Side,
}

impl CorrelationBootstrap {
    /// `resamples` resamples of the texts that `pairs` (one per gold score) refer to. Equal arguments give
    /// equal resamples.
    #[must_use]
    pub fn new(kind: Correlation, gold: &[f64], pairs: &[(u32, u32)], resamples: usize, seed: u64) -> Self {
        let n = gold.len().min(pairs.len());
        let mut texts: HashMap<u32, usize> = HashMap::new();
        let mut of = |t| {
            let next = texts.len();
            *texts.entry(t).or_insert(next)
        };
        let pairs: Vec<(usize, usize)> = pairs[..n].iter().map(|&(a, b)| (of(a), of(b))).collect();
        let mut degrees = vec![0.0; texts.len()];
        for &(a, b) in &pairs {
            degrees[a] += 1.0;
            degrees[b] += 1.0;
        }
        let mean = gold[..n].iter().sum::<f64>() / n as f64;
        let gold: Vec<f64> = gold[..n].iter().map(|y| y - mean).collect();
        let left_out = if texts.len() <= MOST_LEFT_OUT { texts.len() } else { 0 };
        let gold_side = Side::new(kind, &gold);
        let mut out = Self {
            kind,
            resamples,
            left_out,
            gold,
            pairs,
            degrees,
            weights: Vec::new(),
            sums: Vec::new(),
            ranked: Vec::new(),
            gold_side,
        };
        out.draw(seed);
        out.sum_gold();
        out
    }

    /// Draws and leave-outs.
    fn draw(&mut self, seed: u64) {
        let (n, texts) = (self.gold.len(), self.degrees.len());
        self.weights = vec![[0f32; LANES]; (self.resamples + self.left_out).div_ceil(LANES) * n];
        let mut count = vec![0u32; texts];
        for r in 0..if texts == 0 { 0 } else { self.resamples + self.left_out } {
            if let Some(gone) = r.checked_sub(self.resamples) {
                count.fill(1);
                count[gone] = 0;
            } else {
                let mut rng = ChaCha8Rng::seed_from_u64(seed);
                rng.set_stream(r as u64 + 1);
                count.fill(0);
                for _ in 0..texts {
                    count[rng.random_range(0..texts as u32) as usize] += 1;
                }
            }
            for (i, &(a, b)) in self.pairs.iter().enumerate() {
                self.weights[r / LANES * n + i][r % LANES] = (count[a] * count[b]) as f32;
            }
        }
    }

    /// Gold's sums in every draw, and for Spearman its weighted midranks.
    fn sum_gold(&mut self) {
        let n = self.gold.len();
        if self.kind == Correlation::Spearman {
            self.ranked = vec![[0f32; LANES]; self.weights.len()];
        }
        let mut ranks = vec![0.0; n];
        for r in 0..self.resamples + self.left_out {
            let weight = |i: usize| f64::from(self.weights[r / LANES * n + i][r % LANES]);
            let y = if self.kind == Correlation::Spearman {
                weighted_midranks(&self.gold_side, weight, &mut ranks);
                for (i, rank) in ranks.iter().enumerate() {
                    self.ranked[r / LANES * n + i][r % LANES] = (weight(i) * rank) as f32;
                }
                &ranks
            } else {
                &self.gold
            };
            let add = |s: (f64, f64, f64), (i, y): (usize, &f64)| {
                let w = weight(i);
                (s.0 + w, s.1 + w * y, s.2 + w * y * y)
            };
            self.sums.push(y.iter().enumerate().fold((0.0, 0.0, 0.0), add));
        }
    }

    /// Number of resamples.
    #[must_use]
    pub fn resamples(&self) -> usize {
        self.resamples
    }

    /// Number of texts.
    #[must_use]
    pub fn texts(&self) -> usize {
        self.degrees.len()
    }

    /// What [`Self::estimate`] needs of `scores`: their correlation with gold in every resample, in order, and without each text,
    /// and each pair's influence on it. NaN where it is undefined, and everywhere where a score is NaN or one is
    /// missing. Sums and differences of vectors are those of the correlations.
    #[must_use]
    pub fn vector(&self, scores: &[f64]) -> Vec<f64> {
        let n = self.gold.len();
        let draws = self.resamples + self.left_out;
        if n == 0 || scores.len() < n || scores[..n].iter().any(|s| !s.is_finite()) {
            return vec![f64::NAN; draws + n];
        }
        let scores = &scores[..n];
        let side = Side::new(self.kind, scores);
        let mut out = Vec::with_capacity(draws + n);
        match self.kind {
            Correlation::Pearson => self.pearson(scores, &mut out),
            Correlation::Spearman => self.spearman(&side, &mut out),
        }
        self.influence(&side, &mut out);
        out
    }

    fn pearson(&self, scores: &[f64], out: &mut Vec<f64>) {
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
        for (rows, sums) in self.weights.chunks_exact(n).zip(self.sums.chunks(LANES)) {
            let [x, xx, xy] = products_of(rows, &products);
            out.extend(sums.iter().enumerate().map(|(k, s)| correlation(*s, x[k], xx[k], xy[k])));
        }
    }

    fn spearman(&self, side: &Side, out: &mut Vec<f64>) {
        let n = self.gold.len();
        let blocks = self.weights.chunks_exact(n).zip(self.ranked.chunks_exact(n));
        for ((rows, ranked), sums) in blocks.zip(self.sums.chunks(LANES)) {
            let [xx, xy] = ranks_of(rows, ranked, &side.order, &side.tied);
            // Midranks of W draws add up to W (W + 1) / 2, whatever their ties.
            out.extend(
                sums.iter().enumerate().map(|(k, s)| correlation(*s, s.0 * (s.0 + 1.0) / 2.0, xx[k], xy[k])),
            );
        }
    }

    /// ψ of every pair: what it adds to r, to first order, is ψ/n.
    fn influence(&self, x: &Side, out: &mut Vec<f64>) {
        let (y, n) = (&self.gold_side, self.gold.len() as f64);
        let mut both: Vec<f64> = x.scores.iter().zip(&y.scores).map(|(x, y)| x * y).collect();
        let scale = x.deviation * y.deviation;
        let shift = match self.kind {
            Correlation::Pearson => 0.0,
            Correlation::Spearman => 0.25,
        };
        let r = (both.iter().sum::<f64>() / n - shift) / scale;
        if self.kind == Correlation::Spearman {
            // A pair moves the ranks of all others.
            for (sum, more) in both.iter_mut().zip(above(x, &y.scores)) {
                *sum += more / n;
            }
            for (sum, more) in both.iter_mut().zip(above(y, &x.scores)) {
                *sum += more / n;
            }
        }
        let mean = both.iter().sum::<f64>() / n;
        let variances = x.variance.iter().zip(&y.variance);
        out.extend(both.iter().zip(variances).map(|(b, (vx, vy))| (b - mean) / scale - r / 2.0 * (vx + vy)));
    }

    /// The estimate of a correlation, or of a sum of several times their factors, from its value and the sum of their
    /// [`Self::vector`]s. Resamples in which it is undefined are left out; NaN where they are the majority.
    #[must_use]
    pub fn estimate(&self, value: f64, vector: &[f64]) -> Estimate {
        let unknown = Estimate { value, ..Estimate::NAN };
        let draws = self.resamples + self.left_out;
        if value.is_nan() || vector.len() != draws + self.gold.len() {
            return unknown;
        }
        let mut v: Vec<f64> = vector[..self.resamples].iter().copied().filter(|x| x.is_finite()).collect();
        if v.len() < 2 || v.len() * 2 < self.resamples {
            return unknown;
        }
        let (se, dof) = self.error(&vector[self.resamples..draws], &vector[draws..]);
        if !se.is_finite() {
            return unknown;
        }
        let mean = v.iter().sum::<f64>() / v.len() as f64;
        let spread = (v.iter().map(|x| (x - mean) * (x - mean)).sum::<f64>() / (v.len() - 1) as f64).sqrt();
        v.sort_unstable_by(f64::total_cmp);
        let scale = if spread > 0.0 { se / spread * (t_quantile_975(dof) / NORMAL_975) } else { 0.0 };
        Estimate {
            value,
            se,
            low: value + scale * (quantile(&v, 0.025) - mean),
            high: value + scale * (quantile(&v, 0.975) - mean),
            p: t_two_sided(standardised(value, se), dof),
        }
    }

    /// Standard error and its degrees of freedom, from the values without each text and the pairs' influence.
    fn error(&self, left_out: &[f64], influence: &[f64]) -> (f64, f64) {
        let (n, texts) = (self.gold.len() as f64, self.degrees.len() as f64);
        let shifts: Vec<f64> = if left_out.is_empty() {
            let mut sums = vec![0.0; self.degrees.len()];
            for (&(a, b), psi) in self.pairs.iter().zip(influence) {
                sums[a] += psi;
                sums[b] += psi;
            }
            // A text without which nothing is left says nothing of its influence here either.
            sums.iter().zip(&self.degrees).map(|(s, d)| if n > *d { s / (n - d) } else { 0.0 }).collect()
        } else {
            let known = left_out.iter().filter(|v| v.is_finite());
            let mean = known.clone().sum::<f64>() / known.count() as f64;
            // A text without which nothing is left says nothing of its influence.
            left_out.iter().map(|v| if v.is_finite() { v - mean } else { 0.0 }).collect()
        };
        let squares: f64 = shifts.iter().map(|d| d * d).sum();
        let fourth: f64 = shifts.iter().map(|d| d.powi(4)).sum();
        let twice = |(a, b): (usize, usize)| {
            let without = |t: usize| 1.0 / (n - self.degrees[t]).powi(2);
            if n > self.degrees[a].max(self.degrees[b]) { without(a) + without(b) } else { 0.0 }
        };
        let own: f64 = self.pairs.iter().zip(influence).map(|(&p, psi)| psi * psi / 2.0 * twice(p)).sum();
        let alone = influence.iter().map(|psi| psi * psi).sum::<f64>() / (n * (n - 1.0));
        let variance = ((texts - 1.0) / texts * (squares - own)).max(alone);
        let most = (texts - 1.0).min(n - 1.0);
        let dof = 2.0 * squares * squares / (fourth - squares * squares / texts);
        (variance.sqrt(), if dof.is_finite() && dof > 0.0 { dof.clamp(1.0, most.max(1.0)) } else { most })
    }
}

// Products and sums are rounded one by one whatever the instructions, so that all machines get the same bits.

/// Σ w · p for the three `products` of each example.
#[multiversion(targets("x86_64+avx2"))]
fn products_of(weights: &[[f32; LANES]], products: &[[f64; 3]]) -> [[f64; LANES]; 3] {
    let (mut a, mut b, mut c) = ([0.0f64; LANES], [0.0f64; LANES], [0.0f64; LANES]);
    for (w, p) in weights.iter().zip(products) {
        for k in 0..LANES {
            let w = f64::from(w[k]);
            a[k] += w * p[0];
            b[k] += w * p[1];
            c[k] += w * p[2];
        }
    }
    [a, b, c]
}

/// Σ w · rank² and Σ w · rank · y of weighted midranks, in one walk in the order of x.
#[multiversion(targets("x86_64+avx2"))]
fn ranks_of(
    weights: &[[f32; LANES]],
    ranked: &[[f32; LANES]],
    order: &[u32],
    tied: &[bool],
) -> [[f64; LANES]; 2] {
    let (mut xx, mut xy, mut before) = ([0.0f64; LANES], [0.0f64; LANES], [0.0f64; LANES]);
    let mut at = 0;
    while at < order.len() {
        let first = order[at] as usize;
        let (mut w, mut y) = (weights[first].map(f64::from), ranked[first].map(f64::from));
        at += 1;
        while at < order.len() && tied[at] {
            let i = order[at] as usize;
            for k in 0..LANES {
                w[k] += f64::from(weights[i][k]);
                y[k] += f64::from(ranked[i][k]);
            }
            at += 1;
        }
        for k in 0..LANES {
            let rank = before[k] + (w[k] + 1.0) * 0.5;
            xx[k] += w[k] * (rank * rank);
            xy[k] += rank * y[k];
            before[k] += w[k];
        }
    }
    [xx, xy]
}

/// r from the sums of y (Σw, Σwy, Σwy²) and of x; NaN where either has no variance beyond rounding.
fn correlation((w, y, yy): (f64, f64, f64), x: f64, xx: f64, xy: f64) -> f64 {
    let (sxx, syy) = (xx - x * x / w, yy - y * y / w);
    if sxx <= 1e-13 * xx || syy <= 1e-13 * yy { f64::NAN } else { (xy - x * y / w) / (sxx * syy).sqrt() }
}

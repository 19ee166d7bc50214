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

use super::bootstrap::quantile;
use super::{Estimate, NORMAL_975, standardised, t_quantile_975, t_two_sided};
use multiversion::multiversion;
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

/// What one side of a correlation adds to each pair's influence.
#[derive(Clone, Debug, Default)]
struct Side {
    /// Standard scores, or midranks by n.
    scores: Vec<f64>,
    /// Influence on the variance, by the variance.
    variance: Vec<f64>,
    /// Standard deviation of `scores`.
    deviation: f64,
    order: Vec<u32>,
    /// Whether each of `order` is as large as the one before it.
    tied: Vec<bool>,
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

impl Side {
    fn new(kind: Correlation, x: &[f64]) -> Self {
        let n = x.len() as f64;
        if kind == Correlation::Pearson {
            let mean = x.iter().sum::<f64>() / n;
            let deviation = (x.iter().map(|x| (x - mean) * (x - mean)).sum::<f64>() / n).sqrt();
            let scores: Vec<f64> = x.iter().map(|x| (x - mean) / deviation).collect();
            let variance = scores.iter().map(|z| z * z - 1.0).collect();
            return Self { scores, variance, deviation: 1.0, ..Self::default() };
        }
        let mut order: Vec<u32> = (0..x.len() as u32).collect();
        order.sort_by(|&a, &b| x[a as usize].total_cmp(&x[b as usize]));
        let same = |k: usize| k > 0 && x[order[k] as usize] == x[order[k - 1] as usize];
        let tied = (0..order.len()).map(same).collect();
        let mut side = Self { order, tied, scores: vec![0.0; x.len()], ..Self::default() };
        let mut ranks = vec![0.0; x.len()];
        weighted_midranks(&side, |_| 1.0, &mut ranks);
        side.scores = ranks.iter().map(|r| (r - 0.5) / n).collect();
        let spread = side.scores.iter().map(|f| f * f).sum::<f64>() / n - 0.25;
        let more = above(&side, &side.scores);
        let own: Vec<f64> = side.scores.iter().zip(more).map(|(f, m)| f * f + 2.0 * m / n).collect();
        let mean = own.iter().sum::<f64>() / n;
        side.variance = own.iter().map(|v| (v - mean) / spread).collect();
        side.deviation = spread.sqrt();
        side
    }
}

/// For each example the sum of `v` over all that are larger, and half of that over those that are as large.
fn above(side: &Side, v: &[f64]) -> Vec<f64> {
    let mut out = vec![0.0; v.len()];
    let (mut to, mut sum) = (side.order.len(), 0.0);
    while to > 0 {
        let mut from = to - 1;
        while side.tied[from] {
            from -= 1;
        }
        let group = &side.order[from..to];
        let own: f64 = group.iter().map(|&i| v[i as usize]).sum();
        for &i in group {
            out[i as usize] = sum + own / 2.0;
        }
        sum += own;
        to = from;
    }
    out
}

/// Midranks of a sample in which example `i` occurs `weight(i)` times; 0 for what doesn't occur.
fn weighted_midranks(side: &Side, weight: impl Fn(usize) -> f64, ranks: &mut [f64]) {
    let (mut from, mut before) = (0, 0.0);
    while from < side.order.len() {
        let mut to = from + 1;
        while to < side.order.len() && side.tied[to] {
            to += 1;
        }
        let group = &side.order[from..to];
        let size: f64 = group.iter().map(|&i| weight(i as usize)).sum();
        let rank = if size > 0.0 { before + (size + 1.0) / 2.0 } else { 0.0 };
        for &i in group {
            ranks[i as usize] = rank;
        }
        before += size;
        from = to;
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

    fn of(kind: Correlation, x: &[f64], y: &[f64]) -> f64 {
        match kind {
            Correlation::Pearson => pearson(x, y),
            Correlation::Spearman => pearson(&midranks(x), &midranks(y)),
        }
    }

    #[test]
    fn a_draw_is_the_correlation_of_the_repeated_pairs() {
        let (pairs, gold, x) = sample();
        for kind in [Correlation::Pearson, Correlation::Spearman] {
            let b = CorrelationBootstrap::new(kind, &gold, &pairs, 37, 5);
            let v = b.vector(&x);
            assert_eq!((v.len(), b.texts()), (37 + 5 + 10, 5));
            let mut defined = 0;
            for (r, got) in v[..42].iter().enumerate() {
                let (mut xs, mut ys) = (Vec::new(), Vec::new());
                for i in 0..10 {
                    for _ in 0..b.weights[r / LANES * 10 + i][r % LANES] as usize {
                        xs.push(x[i]);
                        ys.push(gold[i]);
                    }
                }
                let want = of(kind, &xs, &ys);
                if got.is_finite() {
                    defined += 1;
                    assert!((got - want).abs() < 1e-9, "{kind:?} {r}: {got} is not {want}");
                }
                assert!(r < 37 || xs.len() == 6, "four of ten pairs go with a text");
            }
            assert!(defined > 35, "{defined}");
        }
    }

    #[test]
    fn weights_are_products_of_text_counts_and_seeded() {
        let (pairs, gold, x) = sample();
        let b = CorrelationBootstrap::new(Correlation::Pearson, &gold, &pairs, 16, 1);
        for r in 0..16 {
            let w = |i: usize| b.weights[r / LANES * 10 + i][r % LANES];
            // Five draws of five texts: all pairs' products sum to (25 − Σ w²) / 2.
            let total: f32 = (0..10).map(w).sum();
            assert!(total <= 10.0 && total.fract() == 0.0, "{total}");
        }
        let again = |seed| CorrelationBootstrap::new(Correlation::Pearson, &gold, &pairs, 16, seed);
        let bits = |b: &CorrelationBootstrap| b.vector(&x).iter().map(|v| v.to_bits()).collect::<Vec<_>>();
        assert_eq!(bits(&b), bits(&again(1)));
        assert_ne!(b.weights, again(2).weights);
    }

    #[test]
    fn influence_is_the_derivative_by_a_pairs_weight() {
        // Sixty pairs with ties on both sides: r of the sample with one pair n · ε times more, against ψ · ε.
        let pairs: Vec<(u32, u32)> = (0..60).map(|i| (i, i + 60)).collect();
        let number = |i: u32, k: u32| f64::from((i * k * 7919 + i * i) % 41);
        let gold: Vec<f64> = (0..60).map(|i| number(i, 3)).collect();
        let x: Vec<f64> = (0..60).map(|i| number(i, 5) + gold[i as usize] / 2.0).collect();
        for kind in [Correlation::Pearson, Correlation::Spearman] {
            let b = CorrelationBootstrap::new(kind, &gold, &pairs, 0, 1);
            let v = b.vector(&x);
            let psi = &v[120..];
            assert!(psi.iter().sum::<f64>().abs() < 1e-9);
            let times = 400;
            let repeat = |v: &[f64], more: usize| -> Vec<f64> {
                let n = |i: usize| times + usize::from(i == more);
                (0..60).flat_map(|i| std::iter::repeat_n(v[i], n(i))).collect()
            };
            let r = of(kind, &x, &gold);
            for (i, psi) in psi.iter().enumerate() {
                let moved = of(kind, &repeat(&x, i), &repeat(&gold, i));
                let slope = (moved - r) * f64::from(60 * times as u32);
                assert!((slope - psi).abs() < 0.02, "{kind:?} {i}: {slope} is not {psi}");
            }
        }
    }

    #[test]
    fn nan_passes_through_and_constants_are_undefined() {
        let (pairs, gold, mut x) = sample();
        let b = CorrelationBootstrap::new(Correlation::Pearson, &gold, &pairs, 9, 1);
        assert!(b.vector(&[0.3; 10])[..9].iter().all(|v| v.is_nan()));
        x[3] = f64::NAN;
        assert!(b.vector(&x).iter().all(|v| v.is_nan()));
        assert!(b.estimate(0.1, &b.vector(&x)).p.is_nan());
        let none = CorrelationBootstrap::new(Correlation::Spearman, &[], &[], 3, 1);
        assert!(
            none.vector(&[]).iter().all(|v| v.is_nan()) && none.estimate(0.1, &none.vector(&[])).se.is_nan()
        );
    }

    #[test]
    fn no_difference_has_no_error_and_pairs_of_their_own_texts_are_independent() {
        let (pairs, gold, x) = sample();
        let b = CorrelationBootstrap::new(Correlation::Spearman, &gold, &pairs, 50, 1);
        let e = b.estimate(0.0, &vec![0.0; b.vector(&x).len()]);
        assert_eq!((e.value, e.se, e.low, e.high, e.p), (0.0, 0.0, 0.0, 0.0, 1.0));
        // Pairs that share no text: the error is that of independent pairs, by leaving out or by influence.
        let n = 400u32;
        let y: Vec<f64> = (0..n).map(|i| f64::from(i * 37 % 401)).collect();
        let x: Vec<f64> = (0..n).map(|i| f64::from(i * 91 % 397) + y[i as usize]).collect();
        for half in [n / 2, n] {
            let own: Vec<(u32, u32)> = (0..half).map(|i| (2 * i, 2 * i + 1)).collect();
            let b = CorrelationBootstrap::new(Correlation::Pearson, &y[..half as usize], &own, 400, 1);
            let v = b.vector(&x);
            let e = b.estimate(0.5, &v);
            let psi = &v[v.len() - half as usize..];
            let want = psi.iter().map(|p| p * p).sum::<f64>().sqrt() / f64::from(half);
            assert!((e.se / want - 1.0).abs() < 0.05, "{} is not {want}", e.se);
            assert!(e.low < 0.5 && e.high > 0.5 && e.p < 1e-6);
        }
    }

    #[test]
    fn a_text_that_is_in_every_pair_leaves_the_error_known() {
        // More texts than are left out one by one.
        let pairs: Vec<(u32, u32)> = (1..=600).map(|i| (0, i)).collect();
        let y: Vec<f64> = (0..600u32).map(|i| f64::from(i * 37 % 601)).collect();
        let x: Vec<f64> = (0..600u32).map(|i| f64::from(i * 91 % 397) + y[i as usize]).collect();
        let b = CorrelationBootstrap::new(Correlation::Pearson, &y, &pairs, 100, 1);
        let e = b.estimate(0.5, &b.vector(&x));
        assert!(e.se > 0.005 && e.se < 0.02, "{}", e.se);
    }
}

//! One side of a correlation: its ranks, and what it adds to the influence of pairs.

use super::Correlation;

/// What one side of a correlation adds to each pair's influence.
#[derive(Clone, Debug, Default)]
pub(super) struct Side {
    /// Standard scores, or midranks by n.
    pub(super) scores: Vec<f64>,
    /// Influence on the variance, by the variance.
    pub(super) variance: Vec<f64>,
    /// Standard deviation of `scores`.
    pub(super) deviation: f64,
    pub(super) order: Vec<u32>,
    /// Whether each of `order` is as large as the one before it.
    pub(super) tied: Vec<bool>,
}

impl Side {
    pub(super) fn new(kind: Correlation, x: &[f64]) -> Self {
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
pub(super) fn above(side: &Side, v: &[f64]) -> Vec<f64> {
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
pub(super) fn weighted_midranks(side: &Side, weight: impl Fn(usize) -> f64, ranks: &mut [f64]) {
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

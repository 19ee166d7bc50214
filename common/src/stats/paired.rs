//! Paired differences of (weighted) means, with standard errors clustered by document.
//!
//! A metric is L = Σ xᵢ / Σ nᵢ over examples (for loss: summed negative log-likelihood over scored tokens).
//! A contrast Δ = Σₖ cₖ f(Lₖ) of several runs on the same examples (f: identity, or exp for
//! perplexity) has the residuals rᵢ = Σₖ cₖ f′(Lₖ) (xₖᵢ − Lₖ nᵢ), summed to R_g within each of the G
//! clusters, and var Δ = G/(G−1) · Σ R_g² / (Σ n)²: the linearised ratio estimator [Cochran 1977, ch. 6;
//! Cameron & Miller 2015], which for f = exp is the delta method. With equal weights and every
//! example its own cluster it is the paired standard error s/√n. p and interval are from Student's t
//! with G − 1 degrees of freedom.

use super::{Estimate, standardised, t_quantile_975, t_two_sided};
use std::collections::HashMap;

/// What is done to a mean before it is compared.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Link {
    /// f(L) = L.
    Identity,
    /// f(L) = exp L: perplexity from log loss.
    Exp,
}

impl Link {
    /// f(`mean`).
    #[must_use]
    pub fn apply(self, mean: f64) -> f64 {
        match self {
            Self::Identity => mean,
            Self::Exp => mean.exp(),
        }
    }

    /// f′(`mean`).
    #[must_use]
    pub fn slope(self, mean: f64) -> f64 {
        match self {
            Self::Identity => 1.0,
            Self::Exp => mean.exp(),
        }
    }
}

/// Examples with their weights and clusters: what every contrast on them shares.
#[derive(Clone, Debug)]
pub struct Weighted {
    weights: Vec<f64>,
    total: f64,
    cluster: Vec<u32>,
    clusters: usize,
    quantile: f64,
}

impl Weighted {
    /// Example `i` has weight `weights[i]` (scored tokens; 1 for plain means) and belongs to document
    /// `clusters[i]`, any number. Missing clusters are their own.
    #[must_use]
    pub fn new(weights: Vec<f64>, clusters: &[u32]) -> Self {
        let mut dense: HashMap<(bool, u32), u32> = HashMap::new();
        let cluster: Vec<u32> = (0..weights.len())
            .map(|i| {
                let key = clusters.get(i).map_or((false, i as u32), |&c| (true, c));
                let next = dense.len() as u32;
                *dense.entry(key).or_insert(next)
            })
            .collect();
        let clusters = dense.len();
        let total = weights.iter().sum();
        Self { weights, total, cluster, clusters, quantile: t_quantile_975(clusters as f64 - 1.0) }
    }

    /// Number of clusters.
    #[must_use]
    pub fn clusters(&self) -> usize {
        self.clusters
    }

    /// Number of clusters that weigh alike and would give as much: (Σ n)² / Σ n² over the clusters. Far fewer than there are
    /// where a few hold most of the weight: then errors come out too small.
    #[must_use]
    pub fn effective(&self) -> f64 {
        let mut of = vec![0.0; self.clusters];
        for (&g, n) in self.cluster.iter().zip(&self.weights) {
            of[g as usize] += n;
        }
        self.total * self.total / of.iter().map(|n| n * n).sum::<f64>()
    }

    /// Number of examples.
    #[must_use]
    pub fn len(&self) -> usize {
        self.weights.len()
    }

    /// Whether there is no example.
    #[must_use]
    pub fn is_empty(&self) -> bool {
        self.weights.is_empty()
    }

    /// Σ x / Σ n.
    #[must_use]
    pub fn mean(&self, sums: &[f64]) -> f64 {
        sums.iter().take(self.len()).sum::<f64>() / self.total
    }

    /// Σₖ cₖ f(Lₖ) over `terms` (cₖ, per-example sums), with its clustered standard error. NaN where a
    /// term is shorter than the examples or there are fewer than two clusters (then only the value is known).
    #[must_use]
    pub fn contrast(&self, terms: &[(f64, &[f64])], link: Link) -> Estimate {
        if self.is_empty() || terms.iter().any(|t| t.1.len() < self.len()) {
            return Estimate::NAN;
        }
        let mut value = 0.0;
        let mut sums = vec![0.0; self.clusters];
        for &(c, x) in terms {
            let mean = self.mean(x);
            value += c * link.apply(mean);
            let slope = c * link.slope(mean);
            for (i, (&x, &n)) in x.iter().zip(&self.weights).enumerate() {
                sums[self.cluster[i] as usize] += slope * (x - mean * n);
            }
        }
        let g = self.clusters as f64;
        let se = (g / (g - 1.0) * sums.iter().map(|r| r * r).sum::<f64>()).sqrt() / self.total;
        if !se.is_finite() || value.is_nan() {
            return Estimate { value, ..Estimate::NAN };
        }
        let half = self.quantile * se;
        let p = t_two_sided(standardised(value, se), g - 1.0);
        Estimate { value, se, low: value - half, high: value + half, p }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    fn close(a: f64, b: f64, tolerance: f64) {
        assert!((a - b).abs() <= tolerance * b.abs().max(1.0), "{a} is not {b}");
    }

    #[test]
    fn effective_clusters_are_those_that_weigh_alike() {
        close(Weighted::new(vec![3.0; 10], &[1, 1, 2, 2, 3, 3, 4, 4, 5, 5]).effective(), 5.0, 1e-12);
        close(Weighted::new(vec![50.0, 1.0, 1.0], &[]).effective(), 52.0 * 52.0 / 2502.0, 1e-12);
    }

    #[test]
    fn equal_weights_and_own_clusters_give_the_paired_t_test() {
        // scipy.stats.ttest_rel([2,4,3,7,9],[1,2,3,4,5]): differences 1 2 0 3 4, mean 2, s = sqrt(2.5),
        // t = 2/(s/sqrt 5) = 2.8284271, p = 0.0474206555.
        let w = Weighted::new(vec![1.0; 5], &[0, 1, 2, 3, 4]);
        let e = w.contrast(
            &[(1.0, &[2.0, 4.0, 3.0, 7.0, 9.0]), (-1.0, &[1.0, 2.0, 3.0, 4.0, 5.0])],
            Link::Identity,
        );
        close(e.value, 2.0, 1e-15);
        close(e.se, (0.5f64).sqrt(), 1e-12);
        close(e.p, 0.047_420_655_584_3, 1e-7);
        close(e.high - e.value, 2.776_445_105_2 * 0.5f64.sqrt(), 1e-8);
    }

    #[test]
    fn the_ratio_estimator_is_as_worked_by_hand() {
        // Differences 3, 1, 4 over 1, 2, 3 tokens in documents a, a, b: L = 8/6; residuals 3 − 4/3, 1 − 8/3, 4 − 4:
        // cluster sums 0 and 0, so no error at all. With document b holding the second: 5/3 and −5/3.
        let d = [3.0, 1.0, 4.0];
        let zero = Weighted::new(vec![1.0, 2.0, 3.0], &[7, 7, 9]).contrast(&[(1.0, &d)], Link::Identity);
        close(zero.value, 8.0 / 6.0, 1e-15);
        assert!(zero.se < 1e-15);
        let e = Weighted::new(vec![1.0, 2.0, 3.0], &[7, 9, 9]).contrast(&[(1.0, &d)], Link::Identity);
        close(e.se, (2.0f64 * 2.0 * 25.0 / 9.0).sqrt() / 6.0, 1e-12);
    }

    #[test]
    fn perplexity_scales_the_error_by_its_slope() {
        let w = Weighted::new(vec![2.0, 2.0, 4.0], &[]);
        let x = [2.0, 3.0, 4.0];
        let (log, exp) = (w.contrast(&[(1.0, &x)], Link::Identity), w.contrast(&[(1.0, &x)], Link::Exp));
        close(exp.value, log.value.exp(), 1e-15);
        close(exp.se, log.se * log.value.exp(), 1e-14);
    }

    #[test]
    fn what_is_undefined_is_nan() {
        let one = Weighted::new(vec![1.0, 1.0], &[4, 4]).contrast(&[(1.0, &[1.0, 2.0])], Link::Identity);
        assert!(one.value == 1.5 && one.se.is_nan() && one.p.is_nan() && one.low.is_nan());
        let nan = Weighted::new(vec![1.0; 3], &[]).contrast(&[(1.0, &[1.0, f64::NAN, 2.0])], Link::Identity);
        assert!(nan.value.is_nan() && nan.p.is_nan());
        let same = Weighted::new(vec![1.0; 3], &[]).contrast(&[(1.0, &[0.0; 3])], Link::Identity);
        assert_eq!((same.value, same.se, same.p), (0.0, 0.0, 1.0));
        assert!(Weighted::new(vec![], &[]).contrast(&[], Link::Identity).value.is_nan());
    }

    proptest! {
        #[test]
        fn examples_of_one_document_can_be_merged(x in prop::collection::vec((-5.0f64..5.0, 1u32..9, 0u32..6), 4..40)) {
            let weights: Vec<f64> = x.iter().map(|e| f64::from(e.1)).collect();
            let clusters: Vec<u32> = x.iter().map(|e| e.2).collect();
            let sums: Vec<f64> = x.iter().map(|e| e.0).collect();
            let mut merged: std::collections::BTreeMap<u32, (f64, f64)> = Default::default();
            for e in &x {
                let m = merged.entry(e.2).or_default();
                m.0 += e.0;
                m.1 += f64::from(e.1);
            }
            let a = Weighted::new(weights, &clusters).contrast(&[(1.0, &sums)], Link::Identity);
            let sums: Vec<f64> = merged.values().map(|m| m.0).collect();
            let b = Weighted::new(merged.values().map(|m| m.1).collect(), &[]).contrast(&[(1.0, &sums)], Link::Identity);
            prop_assert!((a.value - b.value).abs() < 1e-9);
            prop_assert!(merged.len() < 2 || (a.se - b.se).abs() < 1e-9);
        }

        #[test]
        fn swapping_the_sides_flips_the_sign_only(x in prop::collection::vec((-5.0f64..5.0, -5.0f64..5.0), 3..30)) {
            let w = Weighted::new(vec![1.0; x.len()], &[]);
            let (a, b): (Vec<f64>, Vec<f64>) = x.into_iter().unzip();
            let e = w.contrast(&[(1.0, &a), (-1.0, &b)], Link::Identity);
            let f = w.contrast(&[(1.0, &b), (-1.0, &a)], Link::Identity);
            prop_assert!((e.value + f.value).abs() < 1e-12 && (e.se - f.se).abs() < 1e-12 && (e.p - f.p).abs() < 1e-9);
            prop_assert!((e.low + f.high).abs() < 1e-9);
        }
    }
}

//! False discovery rate.

/// Benjamini–Hochberg q-values [Benjamini & Hochberg 1995]: q of the k-th smallest of m p-values is the
/// least of p₍ⱼ₎ · m / j over j ≥ k, at most 1. NaN stays NaN and isn't counted in m.
#[must_use]
pub fn benjamini_hochberg(p: &[f64]) -> Vec<f64> {
    let mut order: Vec<usize> = (0..p.len()).filter(|&i| !p[i].is_nan()).collect();
    order.sort_by(|&a, &b| p[a].total_cmp(&p[b]));
    let mut q = vec![f64::NAN; p.len()];
    let m = order.len() as f64;
    let mut least = 1.0f64;
    for (rank, &i) in order.iter().enumerate().rev() {
        least = least.min(p[i] * (m / (rank as f64 + 1.0)));
        q[i] = least;
    }
    q
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    #[test]
    fn q_values_are_scipys() {
        // scipy.stats.false_discovery_control([0.01, 0.04, 0.03, 0.005, 0.8]).
        let q = benjamini_hochberg(&[0.01, 0.04, f64::NAN, 0.03, 0.005, 0.8]);
        for (q, want) in q.iter().zip([0.025, 0.05, f64::NAN, 0.05, 0.025, 0.8]) {
            assert!((q - want).abs() < 1e-15 || (q.is_nan() && want.is_nan()));
        }
    }

    proptest! {
        #[test]
        fn q_is_monotone_in_p_and_never_below_it(p in prop::collection::vec(0.0f64..=1.0, 1..60)) {
            let q = benjamini_hochberg(&p);
            for i in 0..p.len() {
                prop_assert!(q[i] >= p[i] && q[i] <= 1.0);
                for j in 0..p.len() {
                    prop_assert!(p[i] > p[j] || q[i] <= q[j]);
                }
            }
        }
    }
}

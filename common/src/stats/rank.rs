//! Agreement of two rankings.

use super::point::{midranks, pearson};

/// Spearman's correlation with midranks; NaN where a sample has no variance or holds a NaN.
#[must_use]
pub fn spearman(x: &[f64], y: &[f64]) -> f64 {
    if x.iter().chain(y).any(|v| v.is_nan()) {
        return f64::NAN;
    }
    pearson(&midranks(x), &midranks(y))
}

/// Kendall's τ-b: (concordant − discordant) / √((n₀ − ties of x)(n₀ − ties of y)), in O(n log n)
/// [Knight 1966]. NaN where a sample is constant or holds a NaN, or their lengths differ.
#[must_use]
pub fn kendall(x: &[f64], y: &[f64]) -> f64 {
    if x.len() != y.len() || x.iter().chain(y).any(|v| v.is_nan()) {
        return f64::NAN;
    }
    // Adding 0 makes −0 the same as 0 for `total_cmp`.
    let mut pairs: Vec<(f64, f64)> = x.iter().zip(y).map(|(a, b)| (a + 0.0, b + 0.0)).collect();
    pairs.sort_by(|a, b| a.0.total_cmp(&b.0).then(a.1.total_cmp(&b.1)));
    let tied = |same: &dyn Fn(usize) -> bool| {
        let (mut sum, mut run) = (0u64, 1u64);
        for i in 1..=pairs.len() {
            if i < pairs.len() && same(i) {
                run += 1;
            } else {
                sum += run * (run - 1) / 2;
                run = 1;
            }
        }
        sum
    };
    let n0 = pairs.len() as u64 * (pairs.len() as u64).saturating_sub(1) / 2;
    let tied_x = tied(&|i| pairs[i].0 == pairs[i - 1].0);
    let tied_xy = tied(&|i| pairs[i] == pairs[i - 1]);
    let mut ys: Vec<f64> = pairs.iter().map(|p| p.1).collect();
    let discordant = inversions(&mut ys);
    let tied_y = {
        let (mut sum, mut from) = (0u64, 0);
        for to in 1..=ys.len() {
            if to == ys.len() || ys[to] != ys[from] {
                sum += ((to - from) * (to - from - 1) / 2) as u64;
                from = to;
            }
        }
        sum
    };
    let score = (n0 + tied_xy) as f64 - (tied_x + tied_y) as f64 - 2.0 * discordant as f64;
    score / (((n0 - tied_x) as f64) * ((n0 - tied_y) as f64)).sqrt()
}

/// Sorts `v` and counts the pairs that were out of order.
fn inversions(v: &mut [f64]) -> u64 {
    if v.len() < 2 {
        return 0;
    }
    let mid = v.len() / 2;
    let mut count = inversions(&mut v[..mid]) + inversions(&mut v[mid..]);
    let (left, right) = (v[..mid].to_vec(), v[mid..].to_vec());
    let (mut i, mut j) = (0, 0);
    for slot in v {
        if i < left.len() && (j == right.len() || left[i] <= right[j]) {
            *slot = left[i];
            i += 1;
        } else {
            count += (left.len() - i) as u64;
            *slot = right[j];
            j += 1;
        }
    }
    count
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    #[test]
    fn correlations_are_scipys() {
        // scipy.stats.kendalltau([12, 2, 1, 12, 2], [1, 4, 7, 1, 0]) = -0.4714045, its documentation's example.
        let (x, y) = ([12.0, 2.0, 1.0, 12.0, 2.0], [1.0, 4.0, 7.0, 1.0, 0.0]);
        assert!((kendall(&x, &y) + 0.471_404_520_791_031_7).abs() < 1e-12);
        // scipy.stats.spearmanr([1, 2, 3, 4, 5], [5, 6, 7, 8, 7]) = 0.8207826816681233, its documentation's.
        let r = spearman(&[1.0, 2.0, 3.0, 4.0, 5.0], &[5.0, 6.0, 7.0, 8.0, 7.0]);
        assert!((r - 0.820_782_681_668_123_3).abs() < 1e-12);
        assert!(kendall(&[1.0, 1.0], &[1.0, 2.0]).is_nan());
        assert!(spearman(&[1.0, f64::NAN], &[1.0, 2.0]).is_nan());
        assert!(kendall(&[], &[]).is_nan());
    }

    proptest! {
        #[test]
        fn kendall_is_its_definition(x in prop::collection::vec((0i32..6, 0i32..6), 2..30)) {
            let (a, b): (Vec<f64>, Vec<f64>) = x.iter().map(|&(a, b)| (f64::from(a), f64::from(b))).unzip();
            let (mut s, mut nx, mut ny) = (0.0, 0.0, 0.0);
            for i in 0..a.len() {
                for j in 0..i {
                    let (dx, dy) = ((a[i] - a[j]), (b[i] - b[j]));
                    let sign = |d: f64| if d == 0.0 { 0.0 } else { d.signum() };
                    s += sign(dx) * sign(dy);
                    nx += f64::from(u8::from(dx != 0.0));
                    ny += f64::from(u8::from(dy != 0.0));
                }
            }
            let (want, got) = (s / (nx * ny).sqrt(), kendall(&a, &b));
            prop_assert!((want - got).abs() < 1e-12 || (want.is_nan() && got.is_nan()));
            prop_assert!((kendall(&b, &a) - got).abs() < 1e-12 || got.is_nan());
        }
    }
}

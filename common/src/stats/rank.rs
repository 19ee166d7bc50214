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

/// Jaccard's index of the `k` units that each score ranks first, by descending score, the earlier unit first where they are
/// equal: how many both name, of those that either names. NaN where a score is, lengths differ, or there is none.
#[must_use]
pub fn top_jaccard(x: &[f64], y: &[f64], k: usize) -> f64 {
    if x.len() != y.len() || x.iter().chain(y).any(|v| v.is_nan()) {
        return f64::NAN;
    }
    let first = |v: &[f64]| -> Vec<bool> {
        let mut order: Vec<usize> = (0..v.len()).collect();
        order.sort_by(|&a, &b| (v[b] + 0.0).total_cmp(&(v[a] + 0.0)).then(a.cmp(&b)));
        let mut named = vec![false; v.len()];
        order.iter().take(k).for_each(|&i| named[i] = true);
        named
    };
    let (a, b) = (first(x), first(y));
    let count = |f: fn(bool, bool) -> bool| a.iter().zip(&b).filter(|(a, b)| f(**a, **b)).count() as f64;
    count(|a, b| a && b) / count(|a, b| a || b)
}

/// How many of `n` units count as the first: a tenth, rounded up, at least one.
#[must_use]
pub fn top_of(n: usize) -> usize {
    n.div_ceil(10).max(1)
}

/// Reliability of a score from the correlation of its values on two halves of the examples: that of the whole, r = 2 r½ / (1 + r½)
/// [Spearman 1910; Brown 1910]. NaN where r½ is −1.
#[must_use]
pub fn spearman_brown(half: f64) -> f64 {
    if half > -1.0 { 2.0 * half / (1.0 + half) } else { f64::NAN }
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

    #[test]
    fn the_first_are_compared_by_name() {
        let (x, y) = ([5.0, 4.0, 3.0, 2.0, 1.0], [5.0, 1.0, 4.0, 2.0, 3.0]);
        assert_eq!(top_jaccard(&x, &x, 2), 1.0);
        assert_eq!(top_jaccard(&x, &y, 2), 1.0 / 3.0);
        assert_eq!(top_jaccard(&x, &y, 5), 1.0);
        assert_eq!(
            top_jaccard(&[0.0, -0.0, 1.0], &[0.0, 0.0, 1.0], 2),
            1.0,
            "equal scores go by their place"
        );
        assert!(top_jaccard(&[], &[], 1).is_nan() && top_jaccard(&[f64::NAN], &[1.0], 1).is_nan());
        assert_eq!((top_of(0), top_of(10), top_of(11), top_of(270)), (1, 1, 2, 27));
        assert_eq!((spearman_brown(0.5), spearman_brown(1.0), spearman_brown(0.0)), (2.0 / 3.0, 1.0, 0.0));
        assert!(spearman_brown(-1.0).is_nan());
    }

    proptest! {
        #[test]
        fn ranks_are_all_that_counts(x in prop::collection::vec((-9.0f64..9.0, -9.0f64..9.0), 2..40), k in 1usize..9) {
            let (a, b): (Vec<f64>, Vec<f64>) = x.into_iter().unzip();
            let of = |a: &[f64], b: &[f64]| [spearman(a, b), kendall(a, b), top_jaccard(a, b, k)];
            let larger: Vec<f64> = a.iter().map(|v| 4.0 * v).collect();
            for (one, other) in of(&a, &b).into_iter().zip(of(&larger, &b)) {
                prop_assert!((one - other).abs() < 1e-12 || (one.is_nan() && other.is_nan()));
            }
            prop_assert_eq!(top_jaccard(&a, &b, k), top_jaccard(&b, &a, k));
        }

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

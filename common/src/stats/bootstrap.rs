//! What is made of a statistic's values in resamples: the percentile interval, and a standard error with a
//! two-sided normal p [Efron & Tibshirani 1993].

use super::{Estimate, normal_two_sided, standardised};
use rand::{Rng, SeedableRng};
use rand_chacha::ChaCha8Rng;

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

/// The `q` quantile of ascending `v`, linear between neighbours (NumPy's default). NaN for none.
#[must_use]
pub fn quantile(v: &[f64], q: f64) -> f64 {
    let Some(last) = v.len().checked_sub(1) else { return f64::NAN };
    let at = q.clamp(0.0, 1.0) * last as f64;
    let low = at.floor() as usize;
    v[low] + (at - low as f64) * (v[(low + 1).min(last)] - v[low])
}

/// 95 % intervals of statistics of `n` units by resampling the units: `statistics` gets the drawn
/// indices. (NaN, NaN) where one is undefined in most resamples.
#[must_use]
pub fn intervals_over_units<const K: usize>(
    n: usize,
    resamples: usize,
    seed: u64,
    statistics: impl Fn(&[usize]) -> [f64; K] + Sync,
) -> [(f64, f64); K] {
    use rayon::prelude::*;
    if n == 0 {
        return [(f64::NAN, f64::NAN); K];
    }
    let all: Vec<[f64; K]> = (0..resamples)
        .into_par_iter()
        .map(|r| {
            let mut rng = ChaCha8Rng::seed_from_u64(seed);
            rng.set_stream(r as u64 + 1);
            let drawn: Vec<usize> = (0..n).map(|_| rng.random_range(0..n as u32) as usize).collect();
            statistics(&drawn)
        })
        .collect();
    std::array::from_fn(|k| {
        let mut v: Vec<f64> = all.iter().map(|s| s[k]).filter(|x| x.is_finite()).collect();
        if v.len() * 2 < resamples || v.is_empty() {
            return (f64::NAN, f64::NAN);
        }
        v.sort_unstable_by(f64::total_cmp);
        (quantile(&v, 0.025), quantile(&v, 0.975))
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn an_estimate_is_sd_percentiles_and_normal_p() {
        let v: Vec<f64> = (1..=5).map(f64::from).collect();
        let e = estimate(3.0, &v);
        assert!((e.se - 2.5f64.sqrt()).abs() < 1e-12);
        assert!((e.low - 1.1).abs() < 1e-12 && (e.high - 4.9).abs() < 1e-12);
        // 2 * scipy.stats.norm.sf(3 / sqrt(2.5)).
        assert!((e.p - 0.057_779_571_123_6).abs() < 1e-6, "{}", e.p);
        assert_eq!(estimate(0.0, &[0.0; 4]).p, 1.0);
    }

    #[test]
    fn units_are_resampled_with_the_seed() {
        let x: Vec<f64> = (0..50).map(f64::from).collect();
        let mean = |d: &[usize]| d.iter().map(|&i| x[i]).sum::<f64>() / d.len() as f64;
        let of = || intervals_over_units(50, 500, 3, |d| [mean(d), f64::NAN]);
        let [(low, high), unknown] = of();
        assert!(low > 18.0 && low < 24.5 && high > 24.5 && high < 31.0, "{low} {high}");
        assert_eq!((low, high), of()[0]);
        assert!(unknown.0.is_nan() && intervals_over_units(0, 10, 1, |_| [1.0])[0].0.is_nan());
    }
}

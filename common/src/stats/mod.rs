//! Statistics over stored per-example scores: pure functions, seeded where random. What each number
//! means is said in DEFINITIONS (Statistics): everything is paired by example.

pub mod bleu;
pub mod bootstrap;
pub mod correlations;
pub mod fdr;
pub mod labels;
pub mod logistic;
pub mod paired;
pub mod point;
pub mod rank;
pub mod resamples;

use statrs::distribution::{Continuous, ContinuousCDF, StudentsT};
use statrs::function::erf::erfc;

/// A difference with its uncertainty, in the unit of the metric. Every field is NaN where it is
/// undefined (a score is NaN, fewer than two clusters).
#[derive(Clone, Copy, Debug, PartialEq)]
pub struct Estimate {
    /// Point estimate.
    pub value: f64,
    /// Standard error.
    pub se: f64,
    /// Lower end of the 95 % interval.
    pub low: f64,
    /// Upper end of the 95 % interval.
    pub high: f64,
    /// Two-sided p-value of "the value is 0".
    pub p: f64,
}

impl Estimate {
    /// Nothing is known.
    pub const NAN: Self = Self { value: f64::NAN, se: f64::NAN, low: f64::NAN, high: f64::NAN, p: f64::NAN };
}

/// P(|T| ≥ |`t`|) for Student's t with `dof` degrees of freedom; NaN for a NaN `t` or `dof` ≤ 0.
#[must_use]
pub fn t_two_sided(t: f64, dof: f64) -> f64 {
    if t.is_nan() {
        return f64::NAN;
    }
    match StudentsT::new(0.0, 1.0, dof) {
        Ok(_) if t.is_infinite() => 0.0,
        Ok(d) => (2.0 * d.sf(t.abs())).min(1.0),
        Err(_) => f64::NAN,
    }
}

/// The 97.5 % quantile of Student's t with `dof` degrees of freedom; NaN for `dof` ≤ 0.
#[must_use]
pub fn t_quantile_975(dof: f64) -> f64 {
    StudentsT::new(0.0, 1.0, dof).map_or(f64::NAN, |d| {
        // Its inverse is good to six digits; Newton's steps give the rest.
        let step = |q: f64| q - (d.cdf(q) - 0.975) / d.pdf(q);
        step(step(d.inverse_cdf(0.975)))
    })
}

/// P(|Z| ≥ |`z`|) for a standard normal.
#[must_use]
pub fn normal_two_sided(z: f64) -> f64 {
    if z.is_nan() { f64::NAN } else { erfc(z.abs() / std::f64::consts::SQRT_2) }
}

/// The 97.5 % quantile of the standard normal.
const NORMAL_975: f64 = 1.959_963_984_540_054;

/// `value` / `se`, where 0/0 counts as 0: no difference on any example is no evidence of one.
fn standardised(value: f64, se: f64) -> f64 {
    if value == 0.0 && se == 0.0 { 0.0 } else { value / se }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn tails_and_quantiles_are_the_known_ones() {
        // scipy.stats.t.sf(2.0, 10) * 2, t.ppf(0.975, 10), t.ppf(0.975, 1); norm.sf(1.96) * 2, norm.sf(8) * 2.
        assert!((t_two_sided(2.0, 10.0) - 0.073_388_034_770_740_2).abs() < 1e-12);
        assert!((t_quantile_975(10.0) - 2.228_138_851_964_939_4).abs() < 1e-8);
        assert!((t_quantile_975(1.0) - 12.706_204_736_432_095).abs() < 1e-6);
        assert!(
            (normal_two_sided(-1.96) - 0.049_995_790_296_440_87).abs() < 1e-10,
            "{:e}",
            normal_two_sided(-1.96)
        );
        assert!((normal_two_sided(8.0) / 1.244_192_114_854_356_8e-15 - 1.0).abs() < 1e-8);
        assert!(t_two_sided(1.0, 0.0).is_nan() && t_quantile_975(0.0).is_nan());
        assert_eq!(t_two_sided(f64::INFINITY, 3.0), 0.0);
    }
}

use super::*;
use crate::stats::point::{midranks, pearson};

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
    assert!(none.vector(&[]).iter().all(|v| v.is_nan()) && none.estimate(0.1, &none.vector(&[])).se.is_nan());
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

//! Whether what is said of uncertainty is so: on synthetic scores with known truth, 95 % intervals cover it in 93 to 97 % of
//! 2,000 repeats, and of what Benjamini–Hochberg calls found at q ≤ 0.05 at most a twentieth is false, in as many (of
//! Spearman 500).
//!
//! Every design has at least 50 clusters and 200 examples: with fewer the tables warn. `--nocapture` prints the table of
//! docs/statistics.md.
#![allow(clippy::unwrap_used, reason = "tests")]

use ablate_common::stats::Estimate;
use ablate_common::stats::bootstrap;
use ablate_common::stats::correlations::{Correlation, CorrelationBootstrap};
use ablate_common::stats::fdr::benjamini_hochberg;
use ablate_common::stats::labels::{LabelBootstrap, LabelMetric};
use ablate_common::stats::paired::{Link, Weighted};
use rand::{Rng, SeedableRng};
use rand_chacha::ChaCha8Rng;
use rayon::prelude::*;
use std::f64::consts::PI;

const REPEATS: u64 = 2000;

/// A standard normal number.
fn normal(rng: &mut ChaCha8Rng) -> f64 {
    let (u, v): (f64, f64) = (rng.random(), rng.random());
    (-2.0 * (1.0 - u).ln()).sqrt() * (2.0 * PI * v).cos()
}

fn normals(rng: &mut ChaCha8Rng, n: usize) -> Vec<f64> {
    (0..n).map(|_| normal(rng)).collect()
}

/// Mean 0, variance 1, skewness 2.
fn skewed(rng: &mut ChaCha8Rng) -> f64 {
    -(1.0 - rng.random::<f64>()).ln() - 1.0
}

/// Asserts that `of`, called with a generator for each repeat, gives an interval that covers `truth` as often as it says.
fn covers(name: &str, truth: f64, of: impl Fn(&mut ChaCha8Rng) -> Estimate + Sync) {
    let covered = coverage(name, truth, of);
    assert!((0.93..=0.97).contains(&covered), "{name}: {covered}");
}

/// How often the interval of `of` covers `truth`.
fn coverage(name: &str, truth: f64, of: impl Fn(&mut ChaCha8Rng) -> Estimate + Sync) -> f64 {
    let hits: Vec<[f64; 4]> = (0..REPEATS)
        .into_par_iter()
        .map(|repeat| {
            let mut rng = ChaCha8Rng::seed_from_u64(repeat);
            let e = of(&mut rng);
            [
                f64::from(u8::from(e.low <= truth && truth <= e.high)),
                f64::from(u8::from(truth > e.high)),
                (e.value - truth) * (e.value - truth),
                e.se * e.se,
            ]
        })
        .collect();
    let mean = |k: usize| hits.iter().map(|h| h[k]).sum::<f64>() / REPEATS as f64;
    let (covered, above) = (mean(0), mean(1));
    println!(
        "| {name} | {:.1} % | {:.1} % | {:.1} % | {:.2} |",
        100.0 * covered,
        100.0 * above,
        100.0 * (1.0 - covered - above),
        (mean(3) / mean(2)).sqrt()
    );
    covered
}

/// Asserts that the false share of what is found at q ≤ 0.05 is a twentieth at most on average, and that what is there is
/// found more often than not: `of` gives p-values, of which the first `real` are of real effects.
fn discovers(name: &str, real: usize, repeats: u64, of: impl Fn(&mut ChaCha8Rng) -> Vec<f64> + Sync) {
    let shares: Vec<(f64, f64)> = (0..repeats)
        .into_par_iter()
        .map(|repeat| {
            let q = benjamini_hochberg(&of(&mut ChaCha8Rng::seed_from_u64(repeat)));
            let found = |q: &[f64]| q.iter().filter(|q| **q <= 0.05).count() as f64;
            let (all, right) = (found(&q), found(&q[..real]));
            ((all - right) / all.max(1.0), right / real as f64)
        })
        .collect();
    let mean = |f: fn(&(f64, f64)) -> f64| shares.iter().map(f).sum::<f64>() / repeats as f64;
    let (wrong, power) = (mean(|s| s.0), mean(|s| s.1));
    println!("| {name} | {:.1} % | {:.0} % |", 100.0 * wrong, 100.0 * power);
    assert!(wrong <= 0.05 && power > 0.5, "{name}: {wrong} {power}");
}

/// Documents of several examples of several tokens: (document, tokens) of each example.
fn documents(rng: &mut ChaCha8Rng, heavy: bool) -> (Vec<u32>, Vec<f64>) {
    let (mut cluster, mut tokens) = (Vec::new(), Vec::new());
    for g in 0..50u32 {
        let size = if heavy { (1.0 + normal(rng)).exp().ceil() as u32 } else { rng.random_range(4..=9) };
        for _ in 0..size.min(60) {
            cluster.push(g);
            tokens.push(f64::from(rng.random_range(20..=128u32)));
        }
    }
    (cluster, tokens)
}

/// Per example a sum over its tokens whose mean by token is `mean`: half of the variance is the document's.
fn sums(rng: &mut ChaCha8Rng, cluster: &[u32], tokens: &[f64], mean: f64) -> Vec<f64> {
    let own = normals(rng, 50);
    let each = cluster.iter().zip(tokens);
    each.map(|(&g, n)| n * (mean + 0.4 * (own[g as usize] + skewed(rng)))).collect()
}

#[test]
fn intervals_of_means_cover() {
    println!("| scores | covered | truth above | below | se / sd |\n|---|---|---|---|---|");
    covers("mean of 200 skewed differences", 0.1, |rng| {
        let x: Vec<f64> = (0..200).map(|_| 0.1 + skewed(rng)).collect();
        Weighted::new(vec![1.0; 200], &[]).contrast(&[(1.0, &x)], Link::Identity)
    });
    let by_token = |rng: &mut ChaCha8Rng, heavy: bool| {
        let (cluster, tokens) = documents(rng, heavy);
        let base = sums(rng, &cluster, &tokens, 3.0);
        let more = sums(rng, &cluster, &tokens, 0.1);
        let ablated: Vec<f64> = base.iter().zip(&more).map(|(a, b)| a + b).collect();
        Weighted::new(tokens, &cluster).contrast(&[(1.0, &ablated), (-1.0, &base)], Link::Identity)
    };
    covers("by token, 50 documents of 4 to 9 examples", 0.1, |rng| by_token(rng, false));
    // Why tables warn where a few documents hold most of the tokens: these count as about 25.
    let heavy = coverage("by token, 50 log-normal documents", 0.1, |rng| by_token(rng, true));
    assert!((0.89..0.95).contains(&heavy), "{heavy}");
    covers("interaction, by token, 50 documents", 0.2, |rng| {
        let (cluster, tokens) = documents(rng, false);
        let [base, a, b, both] = [3.0, 0.3, 0.4, 0.2].map(|m| sums(rng, &cluster, &tokens, m));
        let add =
            |v: &[&[f64]]| -> Vec<f64> { (0..base.len()).map(|i| v.iter().map(|x| x[i]).sum()).collect() };
        let (with_a, with_b) = (add(&[&base, &a]), add(&[&base, &b]));
        let with_both = add(&[&base, &a, &b, &both]);
        let terms: [(f64, &[f64]); 4] = [(1.0, &with_both), (-1.0, &with_a), (-1.0, &with_b), (1.0, &base)];
        Weighted::new(tokens, &cluster).contrast(&terms, Link::Identity)
    });
    covers("perplexity, 50 documents", 1.6f64.exp() - 1.5f64.exp(), |rng| {
        let (cluster, tokens) = documents(rng, false);
        let base = sums(rng, &cluster, &tokens, 1.5);
        let more = sums(rng, &cluster, &tokens, 0.1);
        let ablated: Vec<f64> = base.iter().zip(&more).map(|(a, b)| a + b).collect();
        Weighted::new(tokens, &cluster).contrast(&[(1.0, &ablated), (-1.0, &base)], Link::Exp)
    });
}

/// Scores of pairs of 50 texts: what is a text's own has the variance `node`² and what is a pair's own `noise`².
struct Pairs {
    texts: Vec<(u32, u32)>,
    node: f64,
    noise: f64,
}

impl Pairs {
    /// All pairs, or as many of them, drawn.
    fn new(rng: &mut ChaCha8Rng, number: Option<usize>, node: f64, noise: f64) -> Self {
        let mut texts: Vec<(u32, u32)> = (0..50).flat_map(|a| (a + 1..50).map(move |b| (a, b))).collect();
        if let Some(number) = number {
            for i in 0..number {
                let j = rng.random_range(i..texts.len());
                texts.swap(i, j);
            }
            texts.truncate(number);
        }
        Self { texts, node, noise }
    }

    fn scores(&self, rng: &mut ChaCha8Rng) -> Vec<f64> {
        let own = normals(rng, 50);
        let of = |&(a, b): &(u32, u32)| {
            self.node * (own[a as usize] + own[b as usize]) / 2f64.sqrt() + self.noise * normal(rng)
        };
        self.texts.iter().map(of).collect()
    }
}

/// The sum of scores by their weights.
fn mix(parts: &[(f64, &[f64])]) -> Vec<f64> {
    (0..parts[0].1.len()).map(|i| parts.iter().map(|(w, x)| w * x[i]).sum()).collect()
}

/// Correlation of weight · gold + what else has the variance `rest`.
fn truth(kind: Correlation, weight: f64, rest: f64) -> f64 {
    let r = weight / (weight * weight + rest).sqrt();
    match kind {
        Correlation::Pearson => r,
        // Of normal scores.
        Correlation::Spearman => 6.0 / PI * (r / 2.0).asin(),
    }
}

#[test]
fn intervals_of_correlations_cover() {
    println!("| scores | covered | truth above | below | se / sd |\n|---|---|---|---|---|");
    let (pearson, spearman) = (Correlation::Pearson, Correlation::Spearman);
    for (name, kind, number, node, noise) in [
        ("Pearson, 300 pairs of 50 texts, pairs' own", pearson, Some(300), 0.0, 1.0),
        ("Pearson, 300 pairs of 50 texts, half texts'", pearson, Some(300), 1.0, 1.0),
        ("Pearson, 300 pairs of 50 texts, mostly texts'", pearson, Some(300), 1.0, 0.3),
        ("Pearson, all 1,225 pairs, pairs' own", pearson, None, 0.0, 1.0),
        ("Pearson, all 1,225 pairs, half texts'", pearson, None, 1.0, 1.0),
        ("Pearson, all 1,225 pairs, mostly texts'", pearson, None, 1.0, 0.3),
        ("Spearman, 300 pairs of 50 texts, pairs' own", spearman, Some(300), 0.0, 1.0),
        ("Spearman, 300 pairs of 50 texts, half texts'", spearman, Some(300), 1.0, 1.0),
        ("Spearman, all 1,225 pairs, mostly texts'", spearman, None, 1.0, 0.3),
    ] {
        // Cosines with the gold score in them at 0.7 and 0.5, sharing most of what else is in them.
        let wanted = truth(kind, 0.5, 0.5) - truth(kind, 0.7, 0.34);
        covers(name, wanted, |rng| {
            let pairs = Pairs::new(rng, number, node, noise);
            let [gold, shared, a, b] = [(); 4].map(|()| pairs.scores(rng));
            let before = mix(&[(0.7, &gold), (0.5, &shared), (0.3, &a)]);
            let after = mix(&[(0.5, &gold), (0.5, &shared), (0.5, &b)]);
            let boot = CorrelationBootstrap::new(kind, &gold, &pairs.texts, 200, 1);
            difference(kind, &boot, &gold, &before, &after)
        });
    }
    // Why percentiles of resampled texts don't do.
    for (name, noise, wrong) in [
        ("plain percentiles, all 1,225 pairs, pairs' own", (0.0, 1.0), 0.99..=1.0),
        ("plain percentiles, all 1,225 pairs, mostly texts'", (1.0, 0.3), 0.0..=0.93),
    ] {
        let wanted = truth(pearson, 0.5, 0.5) - truth(pearson, 0.7, 0.34);
        let covered = coverage(name, wanted, |rng| {
            let pairs = Pairs::new(rng, None, noise.0, noise.1);
            let [gold, shared, a, b] = [(); 4].map(|()| pairs.scores(rng));
            let before = mix(&[(0.7, &gold), (0.5, &shared), (0.3, &a)]);
            let after = mix(&[(0.5, &gold), (0.5, &shared), (0.5, &b)]);
            let boot = CorrelationBootstrap::new(pearson, &gold, &pairs.texts, 200, 1);
            let value = difference(pearson, &boot, &gold, &before, &after).value;
            let v: Vec<f64> =
                boot.vector(&after).iter().zip(boot.vector(&before)).map(|(a, b)| a - b).collect();
            bootstrap::estimate(value, &v[..200])
        });
        assert!(wrong.contains(&covered), "{name}: {covered}");
    }
}

fn difference(
    kind: Correlation,
    boot: &CorrelationBootstrap,
    gold: &[f64],
    before: &[f64],
    after: &[f64],
) -> Estimate {
    from(kind, boot, gold, &(value(kind, before, gold), boot.vector(before)), after)
}

/// The difference of `after` to a correlation whose value and vector are known.
fn from(
    kind: Correlation,
    boot: &CorrelationBootstrap,
    gold: &[f64],
    before: &(f64, Vec<f64>),
    after: &[f64],
) -> Estimate {
    let vector: Vec<f64> = boot.vector(after).iter().zip(&before.1).map(|(a, b)| a - b).collect();
    boot.estimate(value(kind, after, gold) - before.0, &vector)
}

fn value(kind: Correlation, scores: &[f64], gold: &[f64]) -> f64 {
    use ablate_common::stats::{point::pearson, rank::spearman};
    match kind {
        Correlation::Pearson => pearson(scores, gold),
        Correlation::Spearman => spearman(scores, gold),
    }
}

/// Labels of which a share is 1, and predictions of two models that are right by chance, and alike within a document.
fn predictions(rng: &mut ChaCha8Rng, ones: f64, right: [f64; 2]) -> (Vec<f64>, Vec<u32>, [Vec<f64>; 2]) {
    let (mut labels, mut cluster, mut predicted) = (Vec::new(), Vec::new(), [Vec::new(), Vec::new()]);
    for document in 0..80u32 {
        for _ in 0..rng.random_range(2..=6) {
            let label = f64::from(u8::from(rng.random::<f64>() < ones));
            let hard: f64 = rng.random();
            for (predicted, right) in predicted.iter_mut().zip(right) {
                // Two in three times both models stumble over the same.
                let own: f64 = rng.random();
                let at = if rng.random::<f64>() < 0.67 { hard } else { own };
                predicted.push(if at < right { label } else { 1.0 - label });
            }
            labels.push(label);
            cluster.push(document);
        }
    }
    (labels, cluster, predicted)
}

#[test]
fn intervals_of_label_metrics_cover() {
    println!("| scores | covered | truth above | below | se / sd |\n|---|---|---|---|---|");
    let (before, after) = (0.85, 0.75);
    let binary =
        |ones: f64, right: f64| 2.0 * ones * right / (ones + ones * right + (1.0 - ones) * (1.0 - right));
    let macro_f1 = |ones: f64, right: f64| (binary(ones, right) + binary(1.0 - ones, right)) / 2.0;
    let matthews = |ones: f64, right: f64| {
        let said = ones * right + (1.0 - ones) * (1.0 - right);
        (ones * right - ones * said) / (ones * (1.0 - ones) * said * (1.0 - said)).sqrt()
    };
    type Truth<'a> = &'a (dyn Fn(f64, f64) -> f64 + Sync);
    let cases: [(&str, LabelMetric, Truth<'_>); 3] = [
        ("macro F1, 80 documents of 2 to 6", LabelMetric::MacroF1, &macro_f1),
        ("binary F1, 80 documents of 2 to 6", LabelMetric::BinaryF1, &binary),
        ("Matthews, 80 documents of 2 to 6", LabelMetric::Matthews, &matthews),
    ];
    for (name, metric, of) in cases {
        covers(name, of(0.35, after) - of(0.35, before), |rng| {
            let (labels, cluster, [a, b]) = predictions(rng, 0.35, [before, after]);
            let boot = LabelBootstrap::new(metric, &labels, &cluster, 500, 1);
            let vector: Vec<f64> = boot.vector(&b).iter().zip(boot.vector(&a)).map(|(b, a)| b - a).collect();
            bootstrap::estimate(metric.value(&b, &labels) - metric.value(&a, &labels), &vector)
        });
    }
}

#[test]
fn the_false_discovery_rate_holds() {
    const REAL: usize = 10;
    const TESTED: usize = 60;
    println!("| 10 effects among 60 | false share of what is found | found |\n|---|---|---|");
    discovers("means of 200 paired differences", REAL, REPEATS, |rng| {
        let w = Weighted::new(vec![1.0; 200], &[]);
        let of = |k| {
            let effect = if k < REAL { 0.4 } else { 0.0 };
            let a: Vec<f64> = (0..200).map(|_| effect + skewed(rng)).collect();
            let b: Vec<f64> = (0..200).map(|_| skewed(rng)).collect();
            w.contrast(&[(1.0, &a), (-1.0, &b)], Link::Identity).p
        };
        (0..TESTED).map(of).collect()
    });
    discovers("by token, 50 documents", REAL, REPEATS, |rng| {
        let (cluster, tokens) = documents(rng, false);
        let w = Weighted::new(tokens.clone(), &cluster);
        let of = |k| {
            let x = sums(rng, &cluster, &tokens, if k < REAL { 0.3 } else { 0.0 });
            w.contrast(&[(1.0, &x)], Link::Identity).p
        };
        (0..TESTED).map(of).collect()
    });
    // Ranking takes three times as long.
    let (pearson, spearman) = ((Correlation::Pearson, REPEATS), (Correlation::Spearman, 500));
    for (name, (kind, repeats), node, noise) in [
        ("Pearson, 300 pairs of 50 texts, pairs' own", pearson, 0.0, 1.0),
        ("Pearson, 300 pairs of 50 texts, half texts'", pearson, 1.0, 1.0),
        ("Spearman, 300 pairs of 50 texts, pairs' own", spearman, 0.0, 1.0),
        ("Spearman, 300 pairs of 50 texts, half texts'", spearman, 1.0, 1.0),
    ] {
        discovers(name, REAL, repeats, |rng| {
            let pairs = Pairs::new(rng, Some(300), node, noise);
            let gold = pairs.scores(rng);
            let shared = pairs.scores(rng);
            // p comes from the jackknife: the resamples only shape the interval.
            let boot = CorrelationBootstrap::new(kind, &gold, &pairs.texts, 8, 1);
            let own = pairs.scores(rng);
            let before = mix(&[(0.7, &gold), (0.5, &shared), (0.3, &own)]);
            let before = (value(kind, &before, &gold), boot.vector(&before));
            let of = |k| {
                let own = pairs.scores(rng);
                let weight = if k < REAL { 0.45 } else { 0.7 };
                let after = mix(&[(weight, &gold), (0.5, &shared), (0.3, &own)]);
                from(kind, &boot, &gold, &before, &after).p
            };
            (0..TESTED).map(of).collect()
        });
    }
}

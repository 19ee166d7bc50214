//! Every statistic on random inputs, against SciPy and scikit-learn.
#![allow(clippy::unwrap_used, reason = "tests")]

use ablate_common::stats::bootstrap::{self, quantile};
use ablate_common::stats::correlations::{Correlation, CorrelationBootstrap};
use ablate_common::stats::fdr::benjamini_hochberg;
use ablate_common::stats::labels::{LabelBootstrap, LabelMetric};
use ablate_common::stats::paired::{Link, Weighted};
use ablate_common::stats::point::{midranks, pearson, same};
use ablate_common::stats::rank::{kendall, spearman, top_jaccard, top_of};
use ablate_common::stats::{normal_two_sided, t_quantile_975, t_two_sided};
use ablate_tests::proof::{Worst, proved};
use ablate_tests::reference::script;
use serde::{Deserialize, Serialize};

type Two = (Vec<f64>, Vec<f64>);

#[derive(Serialize)]
struct Job {
    t: Vec<(f64, f64)>,
    p: Vec<Vec<f64>>,
    xy: Vec<Two>,
    distinct: Vec<Two>,
    long: Vec<Two>,
    labels: Vec<Two>,
    clustered: Vec<(Vec<f64>, Vec<u32>)>,
}

#[derive(Deserialize)]
struct Answer {
    t_two_sided: Vec<f64>,
    t_quantile: Vec<f64>,
    normal_two_sided: Vec<f64>,
    bh: Vec<Vec<f64>>,
    pearson: Vec<f64>,
    spearman: Vec<f64>,
    kendall: Vec<f64>,
    midranks: Vec<Vec<f64>>,
    quantiles: Vec<[f64; 3]>,
    ttest: Vec<[f64; 3]>,
    cluster: Vec<[f64; 3]>,
    f1_macro: Vec<f64>,
    f1_binary: Vec<f64>,
    matthews: Vec<f64>,
    accuracy: Vec<f64>,
    jaccard: Vec<f64>,
    bootstrap_se: Vec<[f64; 3]>,
}

/// Random numbers without a library: SplitMix64.
struct Draw(u64);

impl Draw {
    /// In [0, 1).
    fn unit(&mut self) -> f64 {
        self.0 = self.0.wrapping_add(0x9E37_79B9_7F4A_7C15);
        let mut z = self.0;
        z = (z ^ (z >> 30)).wrapping_mul(0xBF58_476D_1CE4_E5B9);
        z = (z ^ (z >> 27)).wrapping_mul(0x94D0_49BB_1331_11EB);
        ((z ^ (z >> 31)) >> 11) as f64 / (1u64 << 53) as f64
    }

    /// In 0..`n`.
    fn below(&mut self, n: u32) -> u32 {
        (self.unit() * f64::from(n)) as u32
    }

    /// `n` numbers of `levels` values (0: of any).
    fn numbers(&mut self, n: usize, levels: u32) -> Vec<f64> {
        (0..n)
            .map(|_| if levels == 0 { self.unit() * 4.0 - 1.5 } else { f64::from(self.below(levels)) })
            .collect()
    }

    /// Two samples that have to do with each other; with ties where `levels` isn't 0.
    fn two(&mut self, n: usize, levels: u32) -> Two {
        let x = self.numbers(n, levels);
        let y = x.iter().map(|v| if self.unit() < 0.4 { *v } else { self.numbers(1, levels)[0] }).collect();
        (x, y)
    }
}

fn job() -> Job {
    let mut d = Draw(11);
    let t = (0..200).map(|k| (d.unit() * f64::from(k % 14), 1.0 + f64::from(d.below(400)))).collect();
    let p = (0..40).map(|k| (0..=k * 5).map(|_| d.unit().powi(1 + k % 4)).collect()).collect();
    let xy = (0..80).map(|k| d.two(5 + k * 3, [0, 3, 20][k % 3])).collect();
    let distinct = (0..40)
        .map(|k| {
            let (x, y) = d.two(4 + k * 7, 0);
            (x, y.iter().map(|v| v + d.unit()).collect())
        })
        .collect();
    let long = (0..2).map(|_| d.two(400, 0)).collect();
    let labels = (0..80).map(|k| d.two(6 + k, 2 + (k as u32) % 4)).collect();
    let clustered = (2..30u32)
        .map(|g| {
            let of: Vec<u32> = (0..g * 3).map(|i| i % g).collect();
            (of.iter().map(|&c| f64::from(c % 5) - 1.5 + d.unit()).collect(), of)
        })
        .collect();
    Job { t, p, xy, distinct, long, labels, clustered }
}

const LIMIT: f64 = 1e-9;

/// Sees numbers beside those wanted: near each other, or both undefined.
fn close(seen: &mut Worst, what: &str, got: &[f64], want: &[f64]) {
    assert_eq!(got.len(), want.len(), "{what}");
    for (k, (&a, &b)) in got.iter().zip(want).enumerate() {
        let mut own = Worst { cases: 1, ..Worst::default() };
        if !(a.is_nan() && b.is_nan()) {
            own.see(a, b);
        }
        assert!(own.within(LIMIT), "{what} {k}: {a} is not {b}");
        seen.join(own);
    }
}

#[test]
fn every_statistic_is_that_of_scipy_or_scikit_learn() {
    let job = job();
    let seen = &mut Worst::default();
    let folder = tempfile::tempdir().unwrap();
    let (question, answer) = (folder.path().join("job.json"), folder.path().join("result.json"));
    std::fs::write(&question, serde_json::to_vec(&job).unwrap()).unwrap();
    script("scipy_stats.py", &[&question, &answer]).unwrap();
    let text = std::fs::read_to_string(&answer).unwrap();
    let want: Answer = serde_json::from_str(&text).unwrap_or_else(|e| panic!("{e}: {text}"));

    let of_t = |f: &dyn Fn(f64, f64) -> f64| job.t.iter().map(|&(t, dof)| f(t, dof)).collect::<Vec<f64>>();
    close(seen, "p of t", &of_t(&t_two_sided), &want.t_two_sided);
    close(seen, "quantile of t", &of_t(&|_, dof| t_quantile_975(dof)), &want.t_quantile);
    close(seen, "p of z", &of_t(&|z, _| normal_two_sided(z)), &want.normal_two_sided);
    for (p, want) in job.p.iter().zip(&want.bh) {
        close(seen, "Benjamini–Hochberg", &benjamini_hochberg(p), want);
    }
    let of_xy = |f: fn(&[f64], &[f64]) -> f64| job.xy.iter().map(|(x, y)| f(x, y)).collect::<Vec<f64>>();
    close(seen, "Pearson", &of_xy(pearson), &want.pearson);
    close(seen, "Spearman", &of_xy(spearman), &want.spearman);
    close(seen, "Kendall", &of_xy(kendall), &want.kendall);
    for (k, (x, y)) in job.xy.iter().enumerate() {
        close(seen, "midranks", &midranks(x), &want.midranks[k]);
        let mut sorted = x.clone();
        sorted.sort_by(f64::total_cmp);
        close(seen, "quantiles", &[0.025, 0.5, 0.975].map(|q| quantile(&sorted, q)), &want.quantiles[k]);
        let e = Weighted::new(vec![1.0; x.len()], &[]).contrast(&[(1.0, x), (-1.0, y)], Link::Identity);
        close(seen, "paired t test", &[e.p, e.low, e.high], &want.ttest[k]);
    }
    for ((x, clusters), want) in job.clustered.iter().zip(&want.cluster) {
        let e = Weighted::new(vec![1.0; x.len()], clusters).contrast(&[(1.0, x)], Link::Identity);
        close(seen, "documents of one size", &[e.p, e.low, e.high], want);
    }
    let of_labels = |m: LabelMetric| job.labels.iter().map(|(y, p)| m.value(p, y)).collect::<Vec<f64>>();
    close(seen, "macro F1", &of_labels(LabelMetric::MacroF1), &want.f1_macro);
    close(seen, "binary F1", &of_labels(LabelMetric::BinaryF1), &want.f1_binary);
    close(seen, "Matthews", &of_labels(LabelMetric::Matthews), &want.matthews);
    let accuracy = |(y, p): &Two| y.iter().zip(p).map(|(y, p)| same(*p, *y)).sum::<f64>() / y.len() as f64;
    close(seen, "accuracy", &job.labels.iter().map(accuracy).collect::<Vec<_>>(), &want.accuracy);
    let jaccard = |(x, y): &Two| top_jaccard(x, y, top_of(x.len()));
    close(seen, "Jaccard", &job.distinct.iter().map(jaccard).collect::<Vec<_>>(), &want.jaccard);

    let check = "every statistic beside SciPy and scikit-learn";
    assert!(proved("statistics", check, *seen, LIMIT), "{seen:?}");

    // Random resamples differ: pairs that share no text are SciPy's paired bootstrap, up to their noise.
    for ((x, y), want) in job.long.iter().zip(&want.bootstrap_se) {
        let pairs: Vec<(u32, u32)> = (0..x.len() as u32).map(|i| (2 * i, 2 * i + 1)).collect();
        let b = CorrelationBootstrap::new(Correlation::Pearson, y, &pairs, 4000, 1);
        let e = b.estimate(pearson(x, y), &b.vector(x));
        for (got, want) in
            [(e.se, want[0]), (e.low - e.value, want[1] - e.value), (e.high - e.value, want[2] - e.value)]
        {
            assert!((got / want - 1.0).abs() < 0.08, "{got} is not {want}");
        }
    }
}

#[test]
fn a_bootstrap_of_labels_is_that_of_each_resample() {
    let mut d = Draw(5);
    let (labels, predicted) = d.two(90, 3);
    let clusters: Vec<u32> = (0..90).map(|i| i / 3).collect();
    let boot = LabelBootstrap::new(LabelMetric::MacroF1, &labels, &clusters, 400, 2);
    let e = bootstrap::estimate(LabelMetric::MacroF1.value(&predicted, &labels), &boot.vector(&predicted));
    assert!(e.low < e.value && e.value < e.high && e.se > 0.0 && e.se < 0.1, "{e:?}");
}

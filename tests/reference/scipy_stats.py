"""SciPy's and scikit-learn's answers for the statistics of ablate-common: reads a job of random inputs, writes each number.

Shares nothing with the program under test."""

import json
import sys

import numpy as np
from scipy import stats
from sklearn import metrics


def main():
    job = json.load(open(sys.argv[1]))
    out = {}
    out["t_two_sided"] = [2 * stats.t.sf(abs(t), dof) for t, dof in job["t"]]
    out["t_quantile"] = [stats.t.ppf(0.975, dof) for _, dof in job["t"]]
    out["normal_two_sided"] = [2 * stats.norm.sf(abs(t)) for t, _ in job["t"]]
    out["bh"] = [stats.false_discovery_control(p, method="bh").tolist() for p in job["p"]]
    out["pearson"] = [stats.pearsonr(x, y).statistic for x, y in job["xy"]]
    out["spearman"] = [stats.spearmanr(x, y).statistic for x, y in job["xy"]]
    out["kendall"] = [stats.kendalltau(x, y, variant="b").statistic for x, y in job["xy"]]
    out["midranks"] = [stats.rankdata(x).tolist() for x, _ in job["xy"]]
    out["quantiles"] = [np.quantile(x, [0.025, 0.5, 0.975]).tolist() for x, _ in job["xy"]]
    out["ttest"] = []
    for x, y in job["xy"]:
        t = stats.ttest_rel(x, y)
        interval = t.confidence_interval(0.95)
        out["ttest"].append([t.pvalue, interval.low, interval.high])
    # One number per document, as the t test of documents of one example each with their means.
    out["cluster"] = []
    for x, clusters in job["clustered"]:
        means = [np.mean([v for v, c in zip(x, clusters) if c == k]) for k in sorted(set(clusters))]
        t = stats.ttest_1samp(means, 0.0)
        interval = t.confidence_interval(0.95)
        out["cluster"].append([t.pvalue, interval.low, interval.high])
    out["f1_macro"] = [metrics.f1_score(y, p, average="macro") for y, p in job["labels"]]
    out["f1_binary"] = [
        metrics.f1_score([int(v == 1) for v in y], [int(v == 1) for v in p]) for y, p in job["labels"]
    ]
    out["matthews"] = [metrics.matthews_corrcoef(y, p) for y, p in job["labels"]]
    out["accuracy"] = [metrics.accuracy_score(y, p) for y, p in job["labels"]]
    out["jaccard"] = []
    for x, y in job["distinct"]:
        k = max(1, -(-len(x) // 10))
        top = [np.isin(np.arange(len(v)), np.argsort(v)[::-1][:k]) for v in (x, y)]
        out["jaccard"].append(metrics.jaccard_score(*top))
    # The spread of a correlation of independent pairs, by SciPy's jackknife-like bootstrap's standard error.
    out["bootstrap_se"] = []
    for x, y in job["long"]:
        rng = np.random.default_rng(0)
        found = stats.bootstrap(
            (x, y),
            lambda a, b, axis: stats.pearsonr(a, b, axis=axis).statistic,
            paired=True,
            vectorized=True,
            n_resamples=4000,
            method="percentile",
            rng=rng,
        )
        interval = found.confidence_interval
        out["bootstrap_se"].append([found.standard_error, interval.low, interval.high])
    json.dump(out, open(sys.argv[2], "w"))


main()

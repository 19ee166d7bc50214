"""Statistics of per-example differences, as the tables have them."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any, NamedTuple

from ._extras import need


class Estimate(NamedTuple):
    """A mean with its standard error."""

    #: Σ differences / Σ weights.
    value: float
    #: Its standard error, clustered.
    se: float
    #: Number of clusters; p is from Student's t with one degree of freedom less.
    clusters: int


def clustered(
    differences: Sequence[float] | Any,
    weights: Sequence[float] | Any | None = None,
    clusters: Sequence[Any] | Any | None = None,
) -> Estimate:
    """Estimate a (weighted) mean difference and its clustered standard error, as `heads` and `pairs` do for metrics
    that are means.

    The mean is Σ d / Σ w. With the residuals r = d − mean · w, summed to R within each of G clusters, its variance is
    G/(G − 1) · Σ R² / (Σ w)². With equal weights and every example its own cluster that is the paired standard error
    s/√n.

    Args:
        differences: of each example, summed over its scored tokens: the column `difference` of
            :meth:`ablate_results.Run.example_deltas`, or any sum and difference of such columns.
        weights: of each example: `scored`. Default: 1.
        clusters: of each example: `cluster`. Default: every example is its own.

    """
    numpy = need("numpy", "clustered()")
    d = numpy.asarray(differences, dtype=float)
    w = numpy.ones_like(d) if weights is None else numpy.asarray(weights, dtype=float)
    groups = numpy.arange(len(d)) if clusters is None else numpy.asarray(clusters)
    if not len(d) == len(w) == len(groups):
        raise ValueError(
            f"{len(d)} differences, {len(w)} weights and {len(groups)} clusters: all must be one per example"
        )
    mean = d.sum() / w.sum()
    number = numpy.unique(groups, return_inverse=True)[1]
    sums = numpy.bincount(number, weights=d - mean * w)
    n = len(sums)
    se = numpy.sqrt(n / (n - 1) * (sums**2).sum()) / w.sum() if n > 1 else numpy.nan
    return Estimate(float(mean), float(se), n)

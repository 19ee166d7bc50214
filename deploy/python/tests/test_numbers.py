"""Numbers of the tables computed again from the stored scores, with numpy alone, by the published definitions."""

import numpy as np
import pytest
from conftest import GIVEN

import ablate_results as ar

REVIEWS = {"task": "reviews", "method": "mean"}


def t_two_sided(t: np.ndarray, freedom: int) -> np.ndarray:
    """P(|T| > t) of Student's t, by integrating its density over t = √ν tan θ, where it is cos^(ν − 1) θ."""
    grid = np.linspace(0.0, np.pi / 2, 200_001)
    density = np.cos(grid) ** (freedom - 1)
    below = np.concatenate([[0.0], np.cumsum((density[1:] + density[:-1]) / 2)])
    return 1 - np.interp(np.arctan(np.abs(t) / np.sqrt(freedom)), grid, below / below[-1])


def benjamini_hochberg(p: np.ndarray) -> np.ndarray:
    order = np.argsort(p)
    scaled = p[order] * len(p) / np.arange(1, len(p) + 1)
    out = np.empty_like(p)
    out[order] = np.minimum(1, np.minimum.accumulate(scaled[::-1])[::-1])
    return out


def clustered_se(d: np.ndarray, weight: np.ndarray, cluster: np.ndarray) -> float:
    mean = d.sum() / weight.sum()
    sums = np.array([(d - mean * weight)[cluster == c].sum() for c in np.unique(cluster)])
    return float(np.sqrt(len(sums) / (len(sums) - 1) * (sums**2).sum()) / weight.sum())


def scores_of(run: ar.Run, sweep: str) -> tuple[list[frozenset], np.ndarray]:
    """Subsets of a sweep on the reviews, and their scores, a row each."""
    rows = run.table("scores", filters=[("task", "==", "reviews"), ("sweep", "==", sweep)], frames="arrow").to_pylist()
    subsets = [frozenset((h["layer"], h["head"]) for h in r["subset"]) for r in rows]
    return subsets, np.array([r["nll"] for r in rows])


@pytest.fixture
def reviewed(run: ar.Run):
    examples = run.examples[run.examples.task == "reviews"]
    return examples.scored.to_numpy(dtype=float), examples.cluster.to_numpy()


def check(rows, value: str, differences: np.ndarray, weight: np.ndarray, cluster: np.ndarray) -> None:
    """Every statistic of rows whose per-example differences are known."""
    clusters = len(np.unique(cluster))
    expected = differences.sum(axis=1) / weight.sum()
    se = np.array([clustered_se(d, weight, cluster) for d in differences])
    np.testing.assert_allclose(rows[value], expected, rtol=1e-9, atol=1e-14)
    np.testing.assert_allclose(rows.se, se, rtol=1e-7, atol=1e-14)
    p = t_two_sided(expected / se, clusters - 1)
    np.testing.assert_allclose(rows.p_value, p, rtol=1e-4, atol=1e-7)
    np.testing.assert_allclose(rows.q_value, benjamini_hochberg(rows.p_value.to_numpy()), rtol=1e-12)
    half = (rows.ci_high - rows.ci_low) / 2
    np.testing.assert_allclose(rows.ci_low + half, rows[value], rtol=1e-9, atol=1e-14)
    np.testing.assert_allclose(t_two_sided(half / rows.se, clusters - 1), 0.05, rtol=1e-6)


def test_deltas_and_their_errors_follow_from_the_scores(run: ar.Run, reviewed) -> None:
    weight, cluster = reviewed
    assert len(np.unique(cluster)) < len(cluster), "documents hold several examples, so clustering matters"
    subsets, nll = scores_of(run, "single")
    _, reference = scores_of(run, "reference")
    rows = run.heads[run.heads.task == "reviews"].reset_index()
    assert [frozenset([p]) for p in zip(rows["layer"], rows["head"], strict=True)] == subsets
    assert len(rows) == 72
    check(rows, "delta", nll - reference[0], weight, cluster)
    np.testing.assert_allclose(rows.value, nll.sum(axis=1) / weight.sum(), rtol=1e-12)
    np.testing.assert_allclose(rows.baseline, reference[0].sum() / weight.sum(), rtol=1e-12)
    assert set(rows.n) == {len(weight)}


def test_interactions_and_their_errors_follow_from_the_scores(run: ar.Run, reviewed) -> None:
    subsets, both = scores_of(run, "pairs")
    alone = dict(zip(*scores_of(run, "single"), strict=True))
    nothing = scores_of(run, "reference")[1][0]
    rows = run.pairs
    assert len(rows) == len(subsets) == 72 * 71 // 2
    a, b = (list(zip(rows[f"{s}_layer"], rows[f"{s}_head"], strict=True)) for s in "ab")
    assert [frozenset(pair) for pair in zip(a, b, strict=True)] == subsets
    of = [np.array([alone[frozenset([h])] for h in side]) for side in (a, b)]
    check(rows, "interaction", both - of[0] - of[1] + nothing, *reviewed)
    np.testing.assert_allclose(rows.interaction, rows.delta_ab - rows.delta_a - rows.delta_b, rtol=1e-9, atol=1e-12)
    resolved = rows.q_value <= 0.05
    assert set(rows.relation[~resolved]) == {"unresolved"}
    assert (rows.relation[resolved] == np.where(rows.interaction[resolved] > 0, "redundant", "overlapping")).all()


def test_an_interaction_given_a_base_follows_from_the_scores(run: ar.Run) -> None:
    rows = run.conditional
    assert set(rows.base) == {" + ".join(GIVEN)}
    assert len(rows) == 12 * 11 // 2
    assert set(rows.a_layer) == set(rows.b_layer) == {5}
    terms = run.example_deltas(GIVEN, **REVIEWS)
    alone = terms.difference
    np.testing.assert_allclose(rows.delta_base, ar.clustered(alone, terms.scored, terms.cluster)[0], rtol=1e-9)
    for row in rows.iloc[::20].itertuples():
        a, b, ab = (
            run.example_deltas([*GIVEN, *more], **REVIEWS).difference
            for more in ([row.a_name], [row.b_name], [row.a_name, row.b_name])
        )
        estimate = ar.clustered(ab - a - b + alone, terms.scored, terms.cluster)
        np.testing.assert_allclose(estimate[:2], (row.interaction, row.se), rtol=1e-7, atol=1e-14)


def test_matched_orders_are_there_beside_the_plain_ones(run: ar.Run) -> None:
    orders = run.orders[run.orders.task == "reviews"].set_index("order").orders
    assert (orders["random"], orders["matched"]) == (20, 20)
    curve = run.curve[run.curve.task == "reviews"]
    plain, matched = (list(curve[curve.order == f"{kind}-07"].removed) for kind in ("random", "matched"))
    assert plain == matched


def test_a_correlation_and_its_delta_follow_from_the_scores(run: ar.Run, gold: list[float]) -> None:
    of = {"task": "sentences", "method": "mean"}
    nothing = np.corrcoef(run.per_example("none", **of).cosine, gold)[0, 1]
    for row in run.heads[run.heads.task == "sentences"].iloc[::17].itertuples():
        value = np.corrcoef(run.per_example([row.name], **of).cosine, gold)[0, 1]
        np.testing.assert_allclose([row.baseline, row.value, row.delta], [nothing, value, nothing - value], atol=1e-12)


def test_example_deltas_and_clustered_give_the_tables_numbers(run: ar.Run) -> None:
    row = run.top_heads(1, **REVIEWS).iloc[0]
    terms = run.example_deltas(row["name"], **REVIEWS)
    estimate = ar.clustered(terms.difference, terms.scored, terms.cluster)
    np.testing.assert_allclose(estimate[:2], (row.delta, row.se), rtol=1e-9)
    assert estimate.clusters == row.clusters == terms.cluster.nunique()
    pair = run.pairs.loc[run.pairs.interaction.abs().idxmax()]
    a, b, ab = (
        run.example_deltas(s, **REVIEWS).difference for s in (pair.a_name, pair.b_name, [pair.a_name, pair.b_name])
    )
    estimate = ar.clustered(ab - a - b, terms.scored, terms.cluster)
    np.testing.assert_allclose(estimate[:2], (pair.interaction, pair.se), rtol=1e-7, atol=1e-14)
    with pytest.raises(ar.AblateError, match="pearson isn't a mean"):
        run.example_deltas("L0.H0", task="sentences")


def test_clustered_is_the_paired_error_where_examples_are_their_own_clusters() -> None:
    d = np.array([0.5, -1.0, 2.0, 0.25])
    assert ar.clustered(d) == pytest.approx((d.mean(), d.std(ddof=1) / 2, 4))
    with pytest.raises(ValueError, match="one per example"):
        ar.clustered(d, d[:3])


def test_what_is_retained_follows_from_the_values(run: ar.Run) -> None:
    summary = next(t for t in run.summary["tasks"] if t["task"] == "reviews")
    for order in summary["curves"][0]["orders"]:
        rows = run.curve[(run.curve.order == order["order"]) & (run.curve.task == "reviews")]
        start, floor = rows.value.iloc[0], order["floor"]
        assert rows.fraction.iloc[-1] == pytest.approx(4 / 72)
        if order["flagged"]:
            assert rows.retained.isna().all()
        else:
            np.testing.assert_allclose(rows.retained, (rows.value - floor) / (start - floor), rtol=1e-9)
        # Of a log loss that of its perplexity.
        np.testing.assert_allclose(rows.ratio, np.exp(start - rows.value), rtol=1e-9)
        # Each step's value is that of the heads removed so far; another sweep's batches round otherwise.
        names = list(rows.name.iloc[1:])
        terms = run.per_example(names[:3], **REVIEWS)
        np.testing.assert_allclose(terms.nll.sum() / terms.scored.sum(), rows.value.iloc[3], rtol=1e-6)

"""Figures show the numbers of the tables."""

from pathlib import Path

import matplotlib.pyplot as plt
import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import pytest
from test_tables import write

import ablate_results as ar


def drawn(ax: plt.Axes) -> None:
    """It can be drawn at all, and without a warning."""
    ax.figure.canvas.draw()


def image(ax: plt.Axes) -> np.ndarray:
    [found] = ax.get_images()
    return np.ma.filled(found.get_array(), np.nan)


def test_heads(run: ar.Run) -> None:
    ax = ar.plot.heads(run, "reviews")
    drawn(ax)
    np.testing.assert_array_equal(image(ax), run.delta_matrix("reviews"))
    resolved = run.heads[(run.heads.task == "reviews") & (run.heads.q_value <= 0.05)]
    [marks] = ax.get_lines()
    assert set(zip(*marks.get_data(), strict=True)) == set(zip(resolved["head"], resolved["layer"], strict=True))
    low, high = ax.get_images()[0].get_clim()
    assert low == -high, "0 has the colour of nothing"
    assert "reviews" in ax.get_title()
    _, own = plt.subplots()
    assert ar.plot.heads(run, "reviews", marks=False, limit=0.1, ax=own) is own
    assert not own.get_lines()


def test_pairs(run: ar.Run) -> None:
    ax = ar.plot.pairs(run, "reviews")
    drawn(ax)
    np.testing.assert_array_equal(image(ax), run.interaction_matrix("reviews"))
    assert len(ax.get_lines()[0].get_xdata()) == (run.pairs.relation != "unresolved").sum()
    assert [t.get_text() for t in ax.get_xticklabels()] == [f"L{i}" for i in range(6)]
    few = ["L5.H0", "L0.H3", "L2.H2"]
    ax = ar.plot.pairs(run, "reviews", units=few)
    drawn(ax)
    assert [t.get_text() for t in ax.get_yticklabels()] == few
    names = run.names("reviews")
    at = [names.index(n) for n in few]
    np.testing.assert_array_equal(image(ax), run.interaction_matrix("reviews")[np.ix_(at, at)])
    with pytest.raises(ar.NotThere, match=r"no unit 'L9\.H9'"):
        ar.plot.pairs(run, "reviews", units=["L9.H9"])


def test_curve(run: ar.Run) -> None:
    ax = ar.plot.curve(run, "reviews", y="value")
    drawn(ax)
    lines = {line.get_label(): line for line in ax.get_lines()}
    assert {"greedy", "importance", "random, median", "matched, median"} <= set(lines)
    rows = run.curve[(run.curve.task == "reviews") & (run.curve.order == "greedy")]
    np.testing.assert_array_equal(lines["greedy"].get_xydata(), rows[["fraction", "value"]])
    assert len({(line.get_color(), line.get_linestyle()) for line in ax.get_lines()}) == len(ax.get_lines())
    labels = [t.get_text() for t in ax.get_legend().get_texts()]
    assert any(label.endswith("random orders, all") for label in labels)
    with pytest.raises(ar.NotThere, match="has no colour"):
        ar.plot.curve(run, "reviews", y="colour")


def test_a_curve_with_bands(tmp_path: Path) -> None:
    base = {"task": "ioi", "metric": "logit_diff", "method": "mean", "unit": "head", "greedy_sweep": 1}
    rows = [
        base
        | {"order": order, "removed": k, "fraction": k / 4, "value": 1 - k / 4, "retained": 1 - k / 4 - drop}
        | {"retained_low": 0.9 - k / 4 - drop, "retained_high": 1.1 - k / 4 - drop}
        for order, drop, steps in (("greedy", 0, range(5)), ("random-00", 0.2, (0, 2, 4)), ("random-01", 0.4, (0, 4)))
        for k in steps
    ]
    plain = list(rows)
    pq.write_table(pa.Table.from_pylist(rows), tmp_path / "curve.parquet")
    (tmp_path / "summary.json").write_text(
        '{"tasks": [{"task": "ioi", "metric": "logit_diff", "method": "mean", "unit": "head"}]}'
    )
    run = ar.load(tmp_path)
    ax = ar.plot.curve(run)
    drawn(ax)
    assert len(ax.collections) == 2, "a band of the greedy order and one of the random orders"
    band = ax.collections[1].get_paths()[0].vertices
    assert band[:, 1].max() == pytest.approx(1.1)
    median = next(line for line in ax.get_lines() if line.get_label() == "random, median")
    np.testing.assert_allclose(median.get_xydata(), [[0, 0.7], [0.5, 0.2], [1, -0.3]], atol=1e-12)
    rows += [row | {"greedy_sweep": 2} for row in rows]
    pq.write_table(pa.Table.from_pylist(rows), tmp_path / "curve.parquet")
    with pytest.raises(ar.Ambiguous, match=r"greedy_sweep: \[1, 2\]"):
        ar.plot.curve(ar.load(tmp_path))
    drawn(ar.plot.curve(ar.load(tmp_path), greedy_sweep=2))
    renamed = [row | {"order": str(row["order"]).replace("random", "matched")} for row in plain]
    matched = [row for row in renamed if row["order"] != "greedy"]
    pq.write_table(pa.Table.from_pylist(plain + matched), tmp_path / "curve.parquet")
    ax = ar.plot.curve(ar.load(tmp_path))
    drawn(ax)
    assert len(ax.collections) == 3, "a band of the greedy order and one of each kind of random orders"
    lines = {line.get_label(): line for line in ax.get_lines()}
    assert {"greedy", "random, median", "matched, median"} <= set(lines)
    np.testing.assert_array_equal(lines["matched, median"].get_xydata(), lines["random, median"].get_xydata())
    labels = [t.get_text() for t in ax.get_legend().get_texts()]
    assert {"2 random orders, all", "2 orders matched per layer, all"} <= set(labels)


def test_agreement(run: ar.Run) -> None:
    ax = ar.plot.agreement(run)
    drawn(ax)
    rows = run.agreement
    assert len(ax.get_yticklabels()) == rows[["score_a", "score_b"]].drop_duplicates().shape[0]
    points = {
        line.get_label(): line.get_xdata() for line in ax.get_lines() if line.get_marker() not in ("None", None, "")
    }
    np.testing.assert_array_equal(points["all heads"], rows[rows.scope == "all"].spearman)
    np.testing.assert_array_equal(points["within layer"], rows[rows.scope == "within_layer"].spearman)
    drawn(ar.plot.agreement(run, column="kendall", method="mean"))
    with pytest.raises(ar.NotThere, match="no rows of task 'nothing'"):
        ar.plot.agreement(run, "nothing")


def test_attention(tmp_path: Path) -> None:
    write(tmp_path, "parquet")
    run = ar.load(tmp_path)
    ax = ar.plot.attention(run, "L1.H2")
    drawn(ax)
    np.testing.assert_allclose(image(ax), [[1, 0, 0], [0.5, 0.5, 0], [1 / 3] * 3])
    assert [t.get_text() for t in ax.get_xticklabels()] == ["t0", "t1", "t2"]
    assert ar.plot.attention(run, (1, 2), 0, "ioi").get_title() == "L1.H2 on example 0 of ioi"
    with pytest.raises(ar.NotThere, match="no pattern of 'L0.H0'"):
        ar.plot.attention(run, "L0.H0")
    with pytest.raises(ar.NotThere, match="on example 5"):
        ar.plot.attention(run, "L1.H2", 5)


def test_a_few_far_values_do_not_bleach_the_others() -> None:
    values = np.concatenate([np.linspace(-1, 1, 400), [50.0]])
    limit, extend = ar.plot._limit(values)
    assert limit == pytest.approx(1, abs=0.05)
    assert extend == "both", "and the scale says so"
    assert ar.plot._limit(values[:400]) == (1.0, "neither")
    assert ar.plot._limit(np.array([np.nan])) == (1.0, "neither")

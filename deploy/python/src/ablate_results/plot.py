"""Figures for notebooks and papers. Each function draws into an Axes, which it returns.

Colours can be told apart by the colour-blind: diverging blue to red around 0, and the palette of Okabe and Ito for
lines, whose styles differ too.
"""

from __future__ import annotations

from collections.abc import Sequence
from itertools import cycle
from typing import TYPE_CHECKING, Any

import pyarrow as pa
import pyarrow.compute as pc

from ._conditions import Condition
from ._examples import Place, _one
from ._extras import need
from .errors import Ambiguous, NotThere

if TYPE_CHECKING:
    from matplotlib.axes import Axes

    from .run import Run

#: Of Okabe and Ito, without yellow, which white paper swallows.
COLOURS = ("#0072B2", "#D55E00", "#009E73", "#CC79A7", "#56B4E9", "#E69F00", "#000000")
_GREY = "#808080"
#: Kinds of random orders: what they are called, their colour and the style of their median.
_SHUFFLES: dict[str, tuple[str, str, str]] = {
    "random": ("random orders", _GREY, "-"),
    "matched": ("orders matched per layer", "#8A6D00", ":"),
}
_STYLES = ("-", "--", "-.", (0, (3, 1, 1, 1, 1, 1)), (0, (5, 1)), (0, (1, 1)))
#: Largest q at which something counts as resolved.
RESOLVED = 0.05
#: Most units whose names stand at an axis.
_NAMED = 40


def _axes(ax: Axes | None, width: float, height: float) -> Axes:
    if ax is not None:
        return ax
    pyplot = need("matplotlib.pyplot", "a plot")
    return pyplot.subplots(figsize=(width, height), layout="constrained")[1]  # type: ignore[no-any-return]


def _title(of: Condition, what: str) -> str:
    return f"{what}: {of.task}, {of.method} ablation"


def _loss(metric: str) -> str:
    """Name a metric as the loss that it is turned into."""
    return metric if metric in ("loss", "perplexity", "kl") else f"−{metric}"


def _limit(values: Any) -> tuple[float, str]:
    """Choose the end of a scale: the largest size, or the 99th percentile where few values are far beyond it."""
    numpy = need("numpy", "a plot")
    sizes = numpy.abs(values[numpy.isfinite(values)])
    if sizes.size == 0 or sizes.max() == 0:
        return 1.0, "neither"
    # Of few values none is an outlier.
    most = float(numpy.quantile(sizes, 0.99)) if sizes.size > 200 else float(sizes.max())  # noqa: PLR2004
    return (most, "both") if 0 < most < sizes.max() / 2 else (float(sizes.max()), "neither")


def _map(ax: Axes, values: Any, label: str, limit: float | None, **more: Any) -> None:
    """Draw a matrix in diverging colours around 0, with its scale beside it; what isn't known is hatched."""
    end, extend = _limit(values) if limit is None else (limit, "both")
    ax.set_facecolor("#dddddd")
    image = ax.imshow(values, cmap="RdBu_r", vmin=-end, vmax=end, interpolation="nearest", **more)
    ax.figure.colorbar(image, ax=ax, label=label, extend=extend, shrink=0.9)


def heads(
    run: Run,
    task: str | None = None,
    method: str | None = None,
    *,
    unit: str | None = None,
    stream: str | None = None,
    limit: float | None = None,
    marks: bool = True,
    ax: Axes | None = None,
) -> Axes:
    """Draw Δ as a heat map of layers (rows, the first at the bottom) by heads; dots mark what is resolved at q ≤
    0.05.

    Red: removing the head hurts. Blue: it helps. Grey: not measured.

    Args:
        run: the results.
        task: the task, where there are several.
        method: the method, where there are several.
        unit: the unit, where there are several.
        stream: "encoder", "decoder" or "cross", where there are several.
        limit: Δ at the ends of the scale; default: the largest, or, of more than 200 heads of which few are far
            beyond the others, the 99th percentile, with arrows at the scale's ends.
        marks: whether to mark what is resolved.
        ax: where to draw; default: a figure of its own.

    """
    numpy = need("numpy", "a plot")
    of = run.condition(task, method, unit)
    named = (of.task, of.method)
    values = run.matrix("heads", "delta", *named, unit=of.unit, stream=stream)
    layers, columns = values.shape
    ax = _axes(ax, 1.8 + 0.32 * max(columns, 8), 1.2 + 0.26 * max(layers, 6))
    _map(ax, values, f"Δ ({_loss(of.metric)})", limit, origin="lower", aspect="auto")
    if marks:
        q = run.matrix("heads", "q_value", *named, unit=of.unit, stream=stream)
        layer, head = numpy.nonzero(q <= RESOLVED)
        ax.plot(
            head,
            layer,
            "o",
            markersize=4,
            color="white",
            markeredgecolor="black",
            markeredgewidth=0.7,
            clip_on=False,
        )
    ax.set(
        xlabel={"kv_group": "KV group"}.get(of.unit, "head"),
        ylabel="layer",
        title=_title(of, "Δ of each head"),
    )
    _whole(ax, columns, layers)
    return ax


def _whole(ax: Axes, columns: int, rows: int) -> None:
    """Put ticks at whole numbers, every one where there is room."""
    ax.set_xticks(range(0, columns, max(1, -(-columns // 16))))
    ax.set_yticks(range(0, rows, max(1, -(-rows // 16))))


def pairs(
    run: Run,
    task: str | None = None,
    method: str | None = None,
    *,
    unit: str | None = None,
    units: Sequence[str] | None = None,
    limit: float | None = None,
    marks: bool = True,
    ax: Axes | None = None,
) -> Axes:
    """Draw the interactions of all pairs as a matrix; dots mark what is resolved at q ≤ 0.05.

    Red: redundant (either can do the job). Blue: overlapping. Grey: not measured. Lines part the layers.

    Args:
        run: the results.
        task: the task, where there are several.
        method: the method, where there are several.
        unit: the unit, where there are several.
        units: only these units, in this order, such as those of a redundancy group.
        limit: interaction at the ends of the scale; default as for :func:`heads`.
        marks: whether to mark what is resolved, once above the diagonal.
        ax: where to draw; default: a figure of its own.

    """
    numpy = need("numpy", "a plot")
    of = run.condition(task, method, unit)
    named = {"task": of.task, "method": of.method, "unit": of.unit}
    names = run.names(**named)
    values, q = (run.interaction_matrix(**named, column=c) for c in ("interaction", "q_value"))
    if units is not None:
        unknown = [u for u in units if u not in names]
        if unknown:
            raise NotThere(f"{run.path} has no unit {unknown[0]!r}; names are those of run.names()")
        at = [names.index(u) for u in units]
        names, values, q = list(units), values[numpy.ix_(at, at)], q[numpy.ix_(at, at)]
    side = min(9.0, 3.0 + 0.16 * len(names))
    ax = _axes(ax, side + 1.2, side)
    _map(ax, values, f"interaction ({_loss(of.metric)})", limit)
    if marks:
        row, column = numpy.nonzero(numpy.triu(q <= RESOLVED, 1))
        size = max(1.0, min(5.0, 160 / max(1, len(names))))
        ax.plot(column, row, "o", markersize=size, color="black")
    if len(names) <= _NAMED:
        ax.set_xticks(range(len(names)), names, rotation=90, fontsize=7)
        ax.set_yticks(range(len(names)), names, fontsize=7)
    else:
        _layers(ax, names)
    ax.set_title(_title(of, "Interactions"))
    return ax


def _layers(ax: Axes, names: list[str]) -> None:
    """Label layers instead of units, and part them."""
    layers = [name.split(".")[0] for name in names]
    starts = [i for i, layer in enumerate(layers) if i == 0 or layer != layers[i - 1]]
    ends = [*starts[1:], len(names)]
    middles = [(a + b - 1) / 2 for a, b in zip(starts, ends, strict=True)]
    every = max(1, -(-len(starts) // 16))
    labels = [layers[s] for s in starts]
    ax.set_xticks(middles[::every], labels[::every], fontsize=8)
    ax.set_yticks(middles[::every], labels[::every], fontsize=8)
    for at in starts[1:]:
        ax.axhline(at - 0.5, color="#999999", linewidth=0.5)
        ax.axvline(at - 0.5, color="#999999", linewidth=0.5)


def curve(
    run: Run,
    task: str | None = None,
    method: str | None = None,
    *,
    unit: str | None = None,
    y: str = "retained",
    greedy_sweep: int | None = None,
    ax: Axes | None = None,
) -> Axes:
    """Draw pruning curves: an order each, with its 95 % band where the run has one, and the random orders of each kind
    as a band with their median: plain ones grey, those matched per layer to greedy ochre.

    Args:
        run: the results.
        task: the task, where there are several.
        method: the method, where there are several.
        unit: the unit, where there are several.
        y: "retained" (1: as unpruned, 0: as with all heads gone), "value" (the metric) or "ratio".
        greedy_sweep: which greedy sweep, where there are several.
        ax: where to draw; default: a figure of its own.

    """
    of = run.condition(task, method, unit)
    rows = run._rows("curve", of)
    sweeps = [s for s in rows.column("greedy_sweep").unique().to_pylist() if s is not None]
    if greedy_sweep is None and len(sweeps) > 1:
        raise Ambiguous(f"{run.path} has several greedy sweeps; choose one (greedy_sweep: {sweeps})")
    if greedy_sweep is not None:
        rows = rows.filter(pc.equal(rows.column("greedy_sweep"), greedy_sweep))
    if y not in rows.column_names or rows.column(y).null_count == rows.num_rows:
        raise NotThere(
            f"{run.path}: the curve has no {y}; where removing every head isn't worse than removing none, only "
            'y="value" is given'
        )
    ax = _axes(ax, 6.4, 4.2)
    orders = rows.column("order").unique().to_pylist()
    random = {kind: [o for o in orders if str(o).startswith(kind)] for kind in _SHUFFLES}
    for kind, of_kind in random.items():
        if of_kind:
            _random(ax, kind, [_order(rows, o) for o in of_kind], y)
    others = [o for o in orders if not str(o).startswith(tuple(_SHUFFLES))]
    for order, colour, style in zip(others, cycle(COLOURS), cycle(_STYLES), strict=False):
        points = _order(rows, order)
        x, value = points.column("fraction").to_numpy(), _floats(points, y)
        if f"{y}_low" in points.column_names:
            low, high = _floats(points, f"{y}_low"), _floats(points, f"{y}_high")
            ax.fill_between(x, low, high, color=colour, alpha=0.18, linewidth=0)
        ax.plot(x, value, color=colour, linestyle=style, linewidth=1.8, label=order)
    if y == "retained":
        for at in (0.0, 1.0):
            ax.axhline(at, color=_GREY, linewidth=0.7, zorder=0)
    label = {"retained": "retained", "value": of.metric, "ratio": "ratio to the unpruned"}[y] if y in _LABELLED else y
    ax.set(xlabel="share of heads removed (κ)", ylabel=label, title=_title(of, "Pruning"))
    ax.set_xlim(left=0)
    ax.spines[["top", "right"]].set_visible(False)
    ax.legend(frameon=False)
    return ax


_LABELLED = ("retained", "value", "ratio")


def _order(rows: pa.Table, order: str) -> pa.Table:
    return rows.filter(pc.equal(rows.column("order"), order)).sort_by("removed")


def _floats(rows: pa.Table, column: str) -> Any:
    return pc.fill_null(rows.column(column), float("nan")).to_numpy()


def _random(ax: Axes, kind: str, orders: list[pa.Table], y: str) -> None:
    """Draw random orders of a kind as the span of all and their median, at every share that one of them was measured
    at.
    """
    words, colour, style = _SHUFFLES[kind]
    numpy = need("numpy", "a plot")
    x = numpy.unique(numpy.concatenate([o.column("fraction").to_numpy() for o in orders]))
    nan = float("nan")
    lines = numpy.array(
        [numpy.interp(x, o.column("fraction").to_numpy(), _floats(o, y), left=nan, right=nan) for o in orders]
    )
    known = numpy.isfinite(lines).any(axis=0)
    x, lines = x[known], lines[:, known]
    low, high = numpy.nanmin(lines, axis=0), numpy.nanmax(lines, axis=0)
    ax.fill_between(x, low, high, color=colour, alpha=0.22, linewidth=0, label=f"{len(orders)} {words}, all")
    median = numpy.nanmedian(lines, axis=0)
    ax.plot(x, median, color=colour, linestyle=style, linewidth=1.4, label=f"{kind}, median")


def agreement(
    run: Run,
    task: str | None = None,
    method: str | None = None,
    *,
    column: str = "spearman",
    ax: Axes | None = None,
) -> Axes:
    """Draw how far two scores rank the heads alike, two by two, over all heads and within layers, with 95 %
    intervals.

    Args:
        run: the results.
        task: only rows whose tasks include this one.
        method: only rows whose methods include this one.
        column: "spearman", "kendall" or "jaccard".
        ax: where to draw; default: a figure of its own.

    """
    rows = run._table("agreement").to_pylist()
    for name, wanted in (("task", task), ("method", method)):
        rows = [r for r in rows if wanted is None or wanted in r[name].split(", ")]
    if not rows:
        raise NotThere(f"{run.path}: agreement has no rows of task {task!r} and method {method!r}")
    ends = ("ci_low", "ci_high") if column == "spearman" else (f"{column}_low", f"{column}_high")
    names = list(dict.fromkeys(f"{r['score_a']} – {r['score_b']}" for r in rows))
    scopes = list(dict.fromkeys(r["scope"] for r in rows))
    ax = _axes(ax, 7.0, 1.3 + 0.42 * len(names))
    for k, (scope, colour, marker) in enumerate(zip(scopes, COLOURS, "osD^", strict=False)):
        of = [r for r in rows if r["scope"] == scope]
        at = [names.index(f"{r['score_a']} – {r['score_b']}") + 0.18 * (k - (len(scopes) - 1) / 2) for r in of]
        for r, y in zip(of, at, strict=True):
            if r.get(ends[0]) is not None:
                ax.plot([r[ends[0]], r[ends[1]]], [y, y], color=colour, linewidth=1.6, solid_capstyle="butt")
        label = scope.replace("_", " ") if scope != "all" else "all heads"
        ax.plot([r[column] for r in of], at, marker, color=colour, markersize=5, label=label)
    ax.axvline(0, color=_GREY, linewidth=0.7, zorder=0)
    ax.set_yticks(range(len(names)), names, fontsize=8)
    ax.set_ylim(len(names) - 0.5, -0.5)
    label = {"spearman": "Spearman's ρ", "kendall": "Kendall's τ-b", "jaccard": "Jaccard of the top"}.get(
        column, column
    )
    ax.set(xlabel=label, xlim=(min(-0.05, ax.get_xlim()[0]), 1.02), title="Agreement of scores")
    ax.spines[["top", "right"]].set_visible(False)
    ax.legend(frameon=False, loc="best", fontsize=8)
    return ax


def attention(
    run: Run,
    head: str | tuple[int, int] | tuple[str, int, int],
    example: int | None = None,
    task: str | None = None,
    *,
    ax: Axes | None = None,
) -> Axes:
    """Draw one head's attention on one example: a row per query, whose weights sum to 1, a column per key.

    Args:
        run: the results.
        head: "L3.H5", (3, 5) or ("cross", 0, 1).
        example: index of the example; default: the first that was kept.
        task: the task, where there are several.
        ax: where to draw; default: a figure of its own.

    """
    numpy = need("numpy", "a plot")
    rows = run._table("patterns")
    tasks = rows.column("task").unique().to_pylist()
    if task is None and len(tasks) > 1:
        raise Ambiguous(f"{run.path} has patterns of several tasks; choose one (task: {', '.join(tasks)})")
    rows = rows.filter(pc.equal(rows.column("task"), tasks[0] if task is None else task))
    stream, layer, number = _place(rows, head)
    for column, value in (("stream", stream), ("layer", layer), ("head", number)):
        rows = rows.filter(pc.equal(rows.column(column), value))
    kept = sorted(rows.column("example").unique().to_pylist())
    example = kept[0] if example is None and kept else example
    rows = rows.filter(pc.equal(rows.column("example"), example)) if kept else rows
    if rows.num_rows == 0:
        raise NotThere(f"{run.path}: no pattern of {head} on example {example} was kept; examples are {kept}")
    query, key = (rows.column(c).to_numpy().astype(int) for c in ("query", "key"))
    weights = numpy.zeros((query.max() + 1, key.max() + 1))
    weights[query, key] = rows.column("attention").to_numpy()
    labels = {
        side: dict(zip(rows.column(side).to_pylist(), rows.column(f"{side}_token").to_pylist(), strict=True))
        for side in ("query", "key")
    }
    ax = _axes(ax, 2.4 + 0.24 * weights.shape[1], 1.6 + 0.24 * weights.shape[0])
    image = ax.imshow(weights, cmap="cividis", vmin=0, vmax=max(1e-9, float(weights.max())), interpolation="nearest")
    ax.figure.colorbar(image, ax=ax, label="attention", shrink=0.9)
    for axis, side, turned in ((ax.xaxis, "key", 90), (ax.yaxis, "query", 0)):
        at = sorted(labels[side])
        # A dollar sign would begin a formula.
        texts = [str(labels[side][a] or "").replace("$", r"\$").replace("\n", "⏎") for a in at]
        axis.set_ticks(at, texts, rotation=turned, fontsize=7)
    name = f"L{layer}.H{number}" if stream == "self" else f"{stream} L{layer}.H{number}"
    ax.set(xlabel="key", ylabel="query", title=f"{name} on example {example} of {rows.column('task')[0]}")
    return ax


def _place(rows: pa.Table, head: Any) -> Place:
    columns = (rows.column(c).to_pylist() for c in ("stream", "layer", "head"))
    there = sorted(set(zip(*columns, strict=True)))
    found = _one(head, there)
    if len(found) != 1:
        raise NotThere(f'no pattern of {head!r} was kept; a head is named as in "L3.H5"')
    return found.pop()

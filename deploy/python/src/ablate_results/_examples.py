"""Scores of single examples, and what a metric is the mean of."""

from __future__ import annotations

import re
from collections.abc import Callable, Iterable, Sequence
from typing import Any, NamedTuple

import pyarrow as pa
import pyarrow.compute as pc

from ._conditions import Condition, listed
from ._extras import need
from ._folder import Folder
from ._tables import SCORE_KEYS
from .errors import AblateError, NotThere

#: A head: its name ("L3.H5", "cross L0.H1"), or its place, (layer, head) or (stream, layer, head).
Head = str | tuple[int, int] | tuple[str, int, int]
#: Heads removed together; a single name is a subset of its own, "none" is nothing and "all" every head.
Subset = str | Sequence[Head]
Place = tuple[str, int, int]

_NAME = re.compile(r"(?:(self|encoder|decoder|cross) )?L(\d+)(?:\.H(\d+))?")


def heads_of(subset: Subset, every: Iterable[Place]) -> frozenset[Place]:
    """Read a subset; ``every`` head of the model is what "all" and names of layers ("L3") mean."""
    every = list(every)
    if isinstance(subset, str):
        if subset in ("none", ""):
            return frozenset()
        if subset == "all":
            return frozenset(every)
        subset = [subset]
    out: set[Place] = set()
    for head in subset:
        found = _one(head, every)
        if not found:
            raise NotThere(f"the model has no {head!r}; its heads are {_name(every[0])} to {_name(every[-1])}")
        out |= found
    return frozenset(out)


def _one(head: Head, every: list[Place]) -> set[Place]:
    if isinstance(head, str):
        match = _NAME.fullmatch(head)
        if match is None:
            raise NotThere(f'{head!r} names no head; write "L0.H3" or "cross L0.H3", (0, 3) or ("cross", 0, 3)')
        stream, layer, number = match.group(1) or "self", int(match.group(2)), match.group(3)
        return {h for h in every if h[:2] == (stream, layer) and number in (None, str(h[2]))}
    place: Place = head if len(head) == 3 else ("self", *head)  # noqa: PLR2004
    return {h for h in every if h == place}


def _name(place: Place) -> str:
    stream, layer, head = place
    return f"L{layer}.H{head}" if stream == "self" else f"{stream} L{layer}.H{head}"


class Found(NamedTuple):
    """A row of `scores`: its columns that aren't null, an array of values each."""

    sweep: str
    scope: str
    columns: dict[str, pa.Array]


def find(folder: Folder, condition: Condition, subset: Subset, sweep: str | None) -> Found:
    """Find the scores of a subset; those on all examples go before those on a half."""
    keys = [*(k for k in SCORE_KEYS if k not in ("rank", "metric")), "metric"]
    lists = [c for c in folder.columns("scores") if c not in SCORE_KEYS]
    wanted = heads_of(subset, _every(folder, condition, keys))
    half: Found | None = None
    for part, at, row in _rows(folder, condition, keys, wanted):
        if sweep is not None and row["sweep"] != sweep:
            continue
        scope = str(row["scope"])
        if half is not None and scope != "all":
            continue
        values = _values(folder, part, at, lists)
        found = Found(str(row["sweep"]), scope, values)
        # A gradient sweep's columns are of another kind.
        if "gradient" in values and sweep is None:
            continue
        if scope == "all":
            return found
        half = found
    if half is None:
        heads = listed(map(_name, sorted(wanted)))
        raise NotThere(
            f"no sweep{'' if sweep is None else ' ' + sweep} of {folder.path} removed just {heads} "
            f"({condition.task}, {condition.method}); `single` and `pairs` do, `conditional` with its base, and "
            "`greedy` its own subsets"
        )
    return half


def _rows(folder: Folder, condition: Condition, keys: list[str], wanted: frozenset[Place]) -> Any:
    """Give (part, row of it, keys) of the rows of a subset."""
    for part in range(folder.parts("scores")):
        table = folder.part("scores", part, keys)
        mask = pc.equal(pc.list_value_length(table.column("subset")), len(wanted))
        for name in ("task", "method", "unit"):
            mask = pc.and_(mask, pc.equal(table.column(name), getattr(condition, name)))
        at = pc.indices_nonzero(mask)
        kept = table.take(at)
        for row, place in zip(kept.to_pylist(), at.to_pylist(), strict=True):
            if frozenset(map(_place, row["subset"])) == wanted:
                yield part, place, row


def _place(head: dict[str, Any]) -> Place:
    return head["stream"], head["layer"], head["head"]


def _every(folder: Folder, condition: Condition, keys: list[str]) -> list[Place]:
    """Give all heads: the reference sweep removes all of them at once."""
    largest: list[Place] = []
    for part in range(folder.parts("scores")):
        table = folder.part("scores", part, keys)
        mask = pc.equal(table.column("sweep"), "reference")
        for name in ("method", "unit"):
            mask = pc.and_(mask, pc.equal(table.column(name), getattr(condition, name)))
        for heads in table.filter(mask).column("subset").to_pylist():
            if len(heads) > len(largest):
                largest = sorted(map(_place, heads))
        if largest:
            return largest
    raise NotThere(f"{folder.path}: `scores` has no reference for {condition.method}, {condition.unit}")


def _values(folder: Folder, part: int, at: int, lists: list[str]) -> dict[str, pa.Array]:
    """Read a row's lists."""
    row = folder.part("scores", part, lists).slice(at, 1)
    cells = {c: row.column(c)[0] for c in lists}
    return {c: v.values for c, v in cells.items() if v.is_valid}


def of_scope(examples: pa.Table, scope: str) -> pa.Table:
    """Give the examples that scores of a scope are of, in their order: all, or those of the half that selects."""
    return examples if scope == "all" else examples.filter(pc.equal(examples.column("half"), 0))


def _correct(columns: dict[str, Any]) -> Any:
    if "correct" in columns:
        return columns["correct"]
    numpy = need("numpy", "per-example terms")
    if "prediction" in columns:
        prediction = columns["prediction"]
        hit = (prediction == columns["label"]).astype(float)
        return numpy.where(numpy.isnan(prediction), prediction, hit)
    margin = columns["logit_diff"] if "logit_diff" in columns else columns["prob_diff"]
    return numpy.where(numpy.isnan(margin), margin, (margin > 0).astype(float))


_LOSSES: dict[str, Callable[[dict[str, Any]], Any]] = {
    "loss": lambda c: c["nll"],
    "perplexity": lambda c: c["nll"],
    "kl": lambda c: c["kl"],
    "logit_diff": lambda c: -c["logit_diff"],
    "prob_diff": lambda c: -c["prob_diff"],
    "accuracy": lambda c: -_correct(c),
}


def losses(metric: str, columns: dict[str, pa.Array]) -> Any:
    """What the loss of a metric is the mean of, per example, as sums over its scored tokens."""
    if metric not in _LOSSES:
        raise AblateError(
            f"{metric} isn't a mean over examples, so that no example has a delta of its own; "
            "per_example() gives the scores it is computed from"
        )
    return _LOSSES[metric]({c: v.to_numpy(zero_copy_only=False) for c, v in columns.items()})

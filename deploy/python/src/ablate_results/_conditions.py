"""Which task, metric, method and unit a number belongs to."""

from __future__ import annotations

from collections.abc import Iterable
from typing import NamedTuple

from .errors import Ambiguous, NotThere


class Condition(NamedTuple):
    """What rows of a table have in common: statistics and q-values are over one condition's rows."""

    #: Name of the task, as in the spec.
    task: str
    #: What is measured on it: "loss", "logit_diff", …
    metric: str
    #: What a removed head's output is replaced by: "zero", "mean", "resample", "optimal" or "scale"; "none" for scores
    #: of the unablated model.
    method: str
    #: What is removed as a whole: "head", "kv_group", "layer" or "set".
    unit: str


def listed(words: Iterable[str]) -> str:
    """List words for a message."""
    return ", ".join(dict.fromkeys(words)) or "none"


def choose(
    conditions: Iterable[Condition], task: str | None, method: str | None, unit: str | None, where: str
) -> Condition:
    """Choose the one condition that fits; a name that is left out must not be needed."""
    fitting = list(conditions)
    for part, wanted in (("task", task), ("method", method), ("unit", unit)):
        kept = [c for c in fitting if wanted is None or getattr(c, part) == wanted]
        if not kept:
            have = listed(getattr(c, part) for c in fitting)
            raise NotThere(f"{where} has no {part} {wanted!r}; there is: {have}")
        fitting = kept
    # Heads are what most ask for.
    heads = [c for c in fitting if c.unit == "head"]
    if unit is None and len(heads) == 1 and len({(c.task, c.method) for c in fitting}) == 1:
        fitting = heads
    if len(fitting) > 1:
        parts = [p for p in ("task", "metric", "method", "unit") if len({getattr(c, p) for c in fitting}) > 1]
        choices = "; ".join(f"{p}: {listed(getattr(c, p) for c in fitting)}" for p in parts)
        raise Ambiguous(f"{where} has several of what was asked for; choose one ({choices})")
    return fitting[0]

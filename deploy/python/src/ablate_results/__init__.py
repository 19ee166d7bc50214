"""Read, plot and follow what Ablate measures.

::

    import ablate_results as ar

    run = ar.load("runs/minilm")  # or frames="polars"
    run.top_heads(5)
    ar.plot.heads(run)

:func:`load` opens a folder of results, :mod:`ablate_results.plot` draws them, and :class:`Client` submits experiments
to a coordinator and follows them.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from ._conditions import Condition
from ._stats import Estimate, clustered
from .errors import (
    AblateError,
    Ambiguous,
    CoordinatorError,
    Damaged,
    ExperimentFailed,
    Failed,
    MissingExtra,
    MissingTable,
    NoCoordinator,
    NoExperiment,
    NotLeader,
    NotPermitted,
    NotResults,
    NotThere,
    OverLimit,
    Refused,
    ResultsWarning,
    Unidentified,
)
from .run import Run, load

if TYPE_CHECKING:
    from . import plot
    from .client import Client, Status, Sweep, Worker

__version__ = "0.1.0"

__all__ = [
    "AblateError",
    "Ambiguous",
    "Client",
    "Condition",
    "CoordinatorError",
    "Damaged",
    "Estimate",
    "ExperimentFailed",
    "Failed",
    "MissingExtra",
    "MissingTable",
    "NoCoordinator",
    "NoExperiment",
    "NotLeader",
    "NotPermitted",
    "NotResults",
    "NotThere",
    "OverLimit",
    "Refused",
    "ResultsWarning",
    "Run",
    "Status",
    "Sweep",
    "Unidentified",
    "Worker",
    "clustered",
    "load",
    "plot",
]

_LATER = {"Client": "client", "Status": "client", "Sweep": "client", "Worker": "client"}


def __getattr__(name: str) -> Any:
    """Import what needs an extra only when it is used."""
    import importlib

    if name in ("plot", "client"):
        return importlib.import_module(f".{name}", __name__)
    if name in _LATER:
        return getattr(importlib.import_module(f".{_LATER[name]}", __name__), name)
    raise AttributeError(f"module {__name__!r} has no attribute {name!r}")

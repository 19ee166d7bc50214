"""What an experiment found: its tables, read when they are asked for."""

from __future__ import annotations

import os
import warnings
from functools import cached_property
from pathlib import Path
from typing import Any

import pyarrow as pa
import pyarrow.compute as pc

from . import _examples, _matrices
from ._conditions import Condition, choose, listed
from ._examples import Subset
from ._folder import Folder
from ._frames import KINDS, Frames, frame
from ._tables import TABLES
from ._tabs import Tables
from .errors import AblateError, MissingTable, NotThere, ResultsWarning


class Run(Tables):
    """A folder of ``ablate run`` or ``ablate export``, in Parquet, CSV or JSON; made by :func:`load`.

    Every table is a property and read when it is first used; :attr:`tables` names those that there are. Layers and
    heads count from 0. A *condition* is a task with its metric, an ablation's method, and what is removed as a whole
    (its unit); methods below that take ``task``, ``method`` and ``unit`` need them only where the run has several.

    Attributes:
        path: the folder.
        frames: what tables are given as: "pandas", "polars" or "arrow".
        warnings: what a reader should know about the whole run; :func:`load` warned of it.

    """

    def __init__(self, path: str | os.PathLike[str], frames: Frames = "pandas") -> None:
        """Look at the folder; tables are read later."""
        if frames not in KINDS:
            raise ValueError(f"frames is {frames!r}; one of {listed(KINDS)} it must be")
        self._folder = Folder(Path(path))
        self.path: Path = self._folder.path
        self.frames: Frames = frames
        self._read: dict[str, Any] = {}
        self.warnings: tuple[str, ...] = tuple(self._warnings())

    def __repr__(self) -> str:
        """Say what it is of."""
        conditions = "; ".join(f"{c.task} ({c.metric}), {c.method}, {c.unit}" for c in self.conditions)
        return f"<Run {self.name!r} in {self.path}: {conditions}; tables {listed(self.tables)}>"

    # What it is of.

    @cached_property
    def summary(self) -> dict[str, Any]:
        """`summary.json`: the findings in numbers, by condition (under "tasks")."""
        return self._folder.json("summary")

    @cached_property
    def run(self) -> dict[str, Any]:
        """`run.json`: how the numbers came about.

        The spec, the recorded plan, hashes of model and data, versions, device classes with the chunks of each,
        seconds by step, chunks (planned, computed, accepted, duplicate), and what is missing or was set aside.
        """
        return self._folder.json("run")

    @property
    def name(self) -> str:
        """Name of the experiment, as in its spec."""
        return str(self.summary.get("name", self.path.name))

    @property
    def id(self) -> str:
        """Identity of the experiment: a hash of all that decides its numbers."""
        return str(self.run.get("id", self.summary.get("id", "")))

    @property
    def partial(self) -> bool:
        """Whether chunks of the plan are missing, so that tables lack rows."""
        return bool(self.run.get("partial", False))

    @property
    def tables(self) -> tuple[str, ...]:
        """Names of the tables that are there; one without rows counts where a sweep asked for it."""
        return tuple(n for n in self._folder.files if not (self._unasked(n) and self._folder.empty(n)))

    @cached_property
    def conditions(self) -> tuple[Condition, ...]:
        """Every combination of task, metric, method and unit that was measured."""
        named = ("task", "metric", "method", "unit")
        told = self.summary.get("tasks", [])
        if all(all(n in t for n in named) for t in told) and told:
            return tuple(Condition(*(t[n] for n in named)) for t in told)
        return _conditions(self._table("heads")) if "heads" in self._folder.files else ()

    def flags(self, task: str | None = None, method: str | None = None, unit: str | None = None) -> list[str]:
        """Say what should make a reader of a condition careful: few examples, scores that aren't numbers, and so on."""
        of = self.condition(task, method, unit)
        for told in self.summary.get("tasks", []):
            if (told.get("task"), told.get("method"), told.get("unit")) == (of.task, of.method, of.unit):
                return [str(f) for f in told.get("flags", [])]
        return []

    def condition(self, task: str | None = None, method: str | None = None, unit: str | None = None) -> Condition:
        """Choose a condition by what is named of it.

        Raises:
            NotThere: where nothing fits; the message lists what there is.
            Ambiguous: where several fit. "head" goes before other units.

        """
        return choose(self.conditions, task, method, unit, str(self.path))

    # Tables.

    def table(
        self,
        name: str,
        *,
        columns: list[str] | None = None,
        filters: Any = None,
        frames: Frames | None = None,
    ) -> Any:
        """Read a table.

        Args:
            name: its name, such as "heads"; :attr:`tables` has those that there are.
            columns: only these columns; of Parquet no others are read, which matters for `scores` and millions of
                pairs.
            filters: only rows that fit, as ``pyarrow.parquet.read_table`` takes them:
                ``[("q_value", "<=", 0.05), ("task", "==", "ioi")]``.
            frames: "pandas", "polars" or "arrow" instead of the run's own.

        Raises:
            MissingTable: where no sweep of the run gives it; the message says which would.

        """
        frames = self.frames if frames is None else frames
        whole = columns is None and filters is None
        if whole and frames == self.frames:
            if name not in self._read:
                self._read[name] = frame(self._table(name), frames)
            return self._read[name]
        return frame(self._table(name, columns, filters), frames)

    def _table(self, name: str, columns: list[str] | None = None, filters: Any = None) -> pa.Table:
        if name not in TABLES:
            raise MissingTable(name, f"there is no table {name!r}; tables are {listed(TABLES)}")
        if name not in self._folder.files:
            raise self._missing(name)
        table = self._folder.read(name, columns, filters)
        # Some tables are always written. That a sweep found nothing is a result; that none was asked for isn't.
        if table.num_rows == 0 and filters is None and self._unasked(name):
            raise self._missing(name)
        return table

    def _unasked(self, name: str) -> bool:
        """Whether an empty table means that nothing of the run could give it a row."""
        return not self.partial and not self._asked() & set(TABLES[name].kinds)

    def _asked(self) -> set[str]:
        return {str(s["kind"]["kind"]) for s in self.run.get("spec", {}).get("sweeps", [])}

    def _missing(self, name: str) -> MissingTable:
        said = f"{self.path} has no table {name}: it comes from {TABLES[name].source}"
        kinds = self._asked() & set(TABLES[name].kinds)
        if kinds and self.partial:
            said += "; the run isn't complete, go on with it"
        elif TABLES[name].kinds and not kinds:
            said += "; add that to the spec and run it (into another folder)"
        return MissingTable(name, said)

    def _rows(self, name: str, of: Condition, columns: list[str] | None = None) -> pa.Table:
        """Give a condition's rows of a table, or of what has no method ("none")."""
        table = self._table(name)
        keep = pc.equal(table.column("task"), of.task)
        if "unit" in table.column_names:
            keep = pc.and_(keep, pc.equal(table.column("unit"), of.unit))
        if "method" in table.column_names:
            method = table.column("method")
            keep = pc.and_(keep, pc.or_(pc.equal(method, of.method), pc.equal(method, "none")))
        rows = table.filter(keep)
        if rows.num_rows == 0:
            raise NotThere(f"{self.path}: {name} has no rows of {of.task}, {of.method}, {of.unit}")
        return rows.select(columns) if columns is not None else rows

    # What researchers ask for.

    def names(self, task: str | None = None, method: str | None = None, unit: str | None = None) -> list[str]:
        """Name the units of a condition ("L3.H5", "cross L0.H1", "L3.KV1", "L3", or a set's name), in the order of
        the model.
        """
        return [str(n) for n in self._rows("heads", self.condition(task, method, unit)).column("name").to_pylist()]

    def matrix(
        self,
        table: str,
        column: str,
        task: str | None = None,
        method: str | None = None,
        *,
        unit: str | None = None,
        stream: str | None = None,
    ) -> Any:
        """Lay a column of any table with a row per unit out by layer and head.

        ``run.matrix("heads", "q_value")``, ``run.matrix("attention", "entropy")``, ``run.matrix("repair",
        "repair")``.

        Returns:
            A float numpy array of shape (layers, heads); NaN where the table has no row or no value.

        """
        rows = self._rows(table, self.condition(task, method, unit))
        if column not in rows.column_names:
            raise NotThere(f"{self.path}: {table} has no column {column!r}; it has {listed(rows.column_names)}")
        return _matrices.layers_by_heads(rows, column, stream, str(self.path))

    def delta_matrix(
        self,
        task: str | None = None,
        method: str | None = None,
        *,
        unit: str | None = None,
        stream: str | None = None,
    ) -> Any:
        """Lay Δ out by layer and head: how much the loss rises when the unit is removed, in the unit of the metric.

        For a metric where more is better the loss is its negative, so that a positive Δ always means that removing
        hurts.

        Returns:
            A float numpy array of shape (layers, heads); of KV groups (layers, groups), of whole layers (layers, 1).
            NaN where nothing was measured.

        """
        return self.matrix("heads", "delta", task, method, unit=unit, stream=stream)

    def interaction_matrix(
        self,
        task: str | None = None,
        method: str | None = None,
        *,
        unit: str | None = None,
        column: str = "interaction",
    ) -> Any:
        """Lay interactions out by unit and unit, in the order of :meth:`names`: I(i, j) = Δ(ij) − Δ(i) − Δ(j), in the
        metric's unit.

        Above 0 the two are redundant (either can do the job), below 0 overlapping; believe either only where
        `q_value` is at most 0.05.

        Args:
            task: the task, where there are several.
            method: the method, where there are several.
            unit: the unit, where there are several.
            column: another column of `pairs`: "q_value", "se", "delta_ab", "normalised".

        Returns:
            A symmetric float numpy array of shape (units, units); NaN on the diagonal and where a pair wasn't
            measured.

        """
        of = self.condition(task, method, unit)
        rows = self._rows("pairs", of, ["a_name", "b_name", column])
        return _matrices.units_by_units(rows, self.names(*_named(of)), column)

    def top_heads(
        self,
        n: int = 10,
        task: str | None = None,
        method: str | None = None,
        *,
        unit: str | None = None,
        by: str = "delta",
        absolute: bool = False,
    ) -> Any:
        """Give the rows of `heads` with the largest values, largest first; those that aren't numbers are left out.

        Args:
            n: how many at most.
            task: the task, where there are several.
            method: the method, where there are several.
            unit: the unit, where there are several.
            by: the column.
            absolute: compare sizes, whatever the sign: heads whose removal helps count too.

        """
        rows = self._rows("heads", self.condition(task, method, unit))
        values = rows.column(by).cast(pa.float64())
        rows = rows.append_column(" by", pc.abs(values) if absolute else values)
        rows = rows.filter(pc.is_finite(rows.column(" by"))).sort_by([(" by", "descending")])
        return frame(rows.slice(0, n).drop_columns([" by"]), self.frames)

    def top_pairs(
        self,
        n: int = 10,
        task: str | None = None,
        method: str | None = None,
        *,
        unit: str | None = None,
        relation: str = "redundant",
    ) -> Any:
        """Give the resolved pairs (q ≤ 0.05) of a relation with the largest interactions, largest first.

        Args:
            n: how many at most.
            task: the task, where there are several.
            method: the method, where there are several.
            unit: the unit, where there are several.
            relation: "redundant" (I > 0) or "overlapping" (I < 0, most negative first); "unresolved" by size.

        """
        rows = self._rows("pairs", self.condition(task, method, unit))
        rows = rows.filter(pc.equal(rows.column("relation"), relation))
        rows = rows.append_column(" by", pc.abs(rows.column("interaction"))).sort_by([(" by", "descending")])
        return frame(rows.slice(0, n).drop_columns([" by"]), self.frames)

    def per_example(
        self,
        subset: Subset,
        task: str | None = None,
        method: str | None = None,
        *,
        unit: str | None = None,
        sweep: str | None = None,
    ) -> Any:
        """Give the stored scores of a subset, example by example: what every number of the run is computed from.

        Args:
            subset: heads that were removed together: ``["L3.H5"]`` or ``[(3, 5)]``, ``["L3.H5", "L4.H1"]``, ``["cross
                L0.H1"]``; "L3" is a whole layer, "none" the unablated model, "all" the floor.
            task: the task, where there are several.
            method: the method, where there are several.
            unit: the unit, where there are several.
            sweep: only scores of this kind of sweep ("single", "greedy", …). By default the first that has the
                subset, those on all examples before those on a half; a gradient sweep must be named.

        Returns:
            A row per example: `index`, `cluster` (examples of one document), `half` (0 selects, 1 reports; null
            without halves), `tokens`, `scored` (tokens that are scored: the example's weight), and the scores: `nll`
            and `correct` summed over the scored tokens, `logit_diff`, `prob_diff`, `cosine`, `prediction` and
            `label`, as the kind of task has them.

        """
        of = self.condition(task, method, unit)
        found = _examples.find(self._folder, of, subset, sweep)
        return frame(self._beside(of, found.scope, found.columns), self.frames)

    def example_deltas(
        self,
        subset: Subset,
        task: str | None = None,
        method: str | None = None,
        *,
        unit: str | None = None,
    ) -> Any:
        """Give the terms of Δ(subset), example by example, for metrics that are means.

        Σ difference / Σ scored is Δ of the subset (of a perplexity: Δ of the log loss).
        :func:`ablate_results.clustered` gives its standard error, and of any other combination of such columns.

        Args:
            subset: as for :meth:`per_example`.
            task: the task, where there are several.
            method: the method, where there are several.
            unit: the unit, where there are several.

        Returns:
            A row per example: `index`, `cluster`, `half`, `tokens`, `scored`, then `unablated` and `ablated`, the
            loss summed over the example's scored tokens (of a metric where more is better: its negative), and
            `difference`, the second minus the first.

        """
        of = self.condition(task, method, unit)
        found = _examples.find(self._folder, of, subset, None)
        none = _examples.find(self._folder, of, "none", None)
        whole = self._beside(of, "all", {"unablated": _losses(of, none)})
        whole = _examples.of_scope(whole, found.scope)
        ablated = _losses(of, found)
        difference = pc.subtract(ablated, whole.column("unablated").combine_chunks())
        whole = whole.append_column("ablated", ablated).append_column("difference", difference)
        return frame(whole, self.frames)

    def _beside(self, of: Condition, scope: str, columns: dict[str, pa.Array]) -> pa.Table:
        """Put columns beside the examples that they are of."""
        table = self._table("examples")
        examples = table.filter(pc.equal(table.column("task"), of.task))
        examples = _examples.of_scope(examples, scope).select(["index", "cluster", "half", "tokens", "scored"])
        for name, values in columns.items():
            if len(values) != examples.num_rows:
                raise AblateError(
                    f"{self.path}: scores has {len(values)} values of {name} for {examples.num_rows} examples; the "
                    "tables are of different exports: `ablate export` writes all of them again"
                )
            examples = examples.append_column(name, values)
        return examples

    def _warnings(self) -> list[str]:
        """Collect what a reader should know before any number."""
        out = [str(w) for w in self.run.get("warnings", [])]
        classes = self.run.get("device_classes", {})
        if len(classes) > 1 and not any("device classes" in w for w in out):
            out.append(f"Computed on {len(classes)} device classes: {listed(classes)}.")
        if self.partial:
            missing = self.run.get("missing", [])
            parts = listed(f"{m['kind']} has {m['chunks']} of {m['planned']} chunks" for m in missing)
            out.append(f"The run isn't complete ({parts}): tables lack the rows that need the others.")
        return out


def _losses(of: Condition, found: _examples.Found) -> pa.Array:
    return pa.array(_examples.losses(of.metric, found.columns), type=pa.float64())


def _named(of: Condition) -> tuple[str, str, str]:
    return of.task, of.method, of.unit


def _conditions(table: pa.Table) -> tuple[Condition, ...]:
    rows = (
        table.select(["task", "metric", "method", "unit"]).group_by(["task", "metric", "method", "unit"]).aggregate([])
    )
    return tuple(Condition(**row) for row in rows.to_pylist())


def load(folder: str | os.PathLike[str], frames: Frames = "pandas") -> Run:
    """Open the results of an experiment.

    Args:
        folder: output folder of ``ablate run``, or of ``ablate export`` in any of its formats (Parquet, CSV, JSON).
        frames: what tables are given as: "pandas" (default), "polars" or "arrow".

    Warns:
        ResultsWarning: where the run isn't complete, was computed on several device classes, lost shards, or has
            anything else that its numbers should not be read without.

    Raises:
        NotResults: where the folder holds no tables.

    """
    run = Run(folder, frames)
    for said in run.warnings:
        warnings.warn(f"{run.path}: {said}", ResultsWarning, stacklevel=2)
    return run

"""Tables of units as matrices."""

from __future__ import annotations

from typing import Any

import pyarrow as pa
import pyarrow.compute as pc

from ._conditions import listed
from ._extras import need
from .errors import Ambiguous, NotThere


def layers_by_heads(rows: pa.Table, column: str, stream: str | None, where: str) -> Any:
    """Lay a column out by layer and head, NaN where no row stands; KV groups at their number within the layer."""
    numpy = need("numpy", "a matrix")
    streams = [s for s in rows.column("stream").unique().to_pylist() if s is not None]
    if not streams:
        raise NotThere(f"{where}: sets of heads stand in no layer, so they make no matrix; use the table")
    if stream is None and len(streams) > 1:
        raise Ambiguous(f"{where} has several streams; choose one (stream: {listed(streams)})")
    stream = streams[0] if stream is None else stream
    if stream not in streams:
        raise NotThere(f"{where} has no stream {stream!r}; there is: {listed(streams)}")
    rows = rows.filter(pc.equal(rows.column("stream"), stream))
    layers = rows.column("layer").to_numpy().astype(int)
    # A layer as a whole has no head: one column.
    heads = pc.fill_null(rows.column("head"), 0).to_numpy().astype(int)
    if pc.any(pc.match_substring_regex(rows.column("name"), r"\.KV\d+$")).as_py():
        # A KV group's head is the first of its query heads.
        heads = numpy.unique(heads, return_inverse=True)[1]
    out = numpy.full((layers.max() + 1, heads.max() + 1), numpy.nan)
    out[layers, heads] = pc.fill_null(rows.column(column).cast(pa.float64()), float("nan")).to_numpy()
    return out


def units_by_units(pairs: pa.Table, names: list[str], column: str) -> Any:
    """Lay a column of pairs out symmetrically; NaN on the diagonal and for pairs without a row."""
    numpy = need("numpy", "a matrix")
    out = numpy.full((len(names), len(names)), numpy.nan)
    values = pc.fill_null(pairs.column(column).cast(pa.float64()), float("nan")).to_numpy()
    known = pa.array(names, type=pa.string())
    a, b = (pc.index_in(pairs.column(f"{side}_name"), value_set=known).to_numpy().astype(int) for side in "ab")
    out[a, b] = values
    out[b, a] = values
    return out

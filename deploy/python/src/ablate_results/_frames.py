"""From Arrow to the frames that researchers work with."""

from __future__ import annotations

from typing import Any, Literal

import pyarrow as pa
import pyarrow.compute as pc

from ._extras import need

Frames = Literal["pandas", "polars", "arrow"]
KINDS = ("pandas", "polars", "arrow")


def frame(table: pa.Table, frames: Frames) -> Any:
    """Convert a table: to a pandas.DataFrame, a polars.DataFrame, or not at all."""
    if frames == "arrow":
        return table
    if frames == "polars":
        return need("polars", 'frames="polars"').from_arrow(_signed(table))
    pandas = need("pandas", 'frames="pandas"')
    table = _signed(table)
    out = table.to_pandas()
    for name, column in zip(table.column_names, table.columns, strict=True):
        # A whole number that may be missing would turn into a float.
        if pa.types.is_integer(column.type) and column.null_count > 0:
            values = pc.fill_null(column, 0).to_numpy()
            out[name] = pandas.arrays.IntegerArray(values, pc.is_null(column).to_numpy().astype(bool))
    return out


def _signed(table: pa.Table) -> pa.Table:
    """Turn unsigned whole numbers into signed ones: differences of layers and heads may be below 0."""
    for at, field in enumerate(table.schema):
        if pa.types.is_unsigned_integer(field.type):
            table = table.set_column(at, field.name, table.column(at).cast(pa.int64()))
    return table

"""Files of an output folder, read as Arrow tables with the same types whatever their format."""

from __future__ import annotations

import json
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from itertools import islice
from pathlib import Path
from typing import Any

import pyarrow as pa
import pyarrow.csv
import pyarrow.parquet

from ._tables import NULLABLE, TABLES, column_type
from .errors import Damaged, NotResults, NotThere

#: Endings of tables, in the order in which they are looked for: Parquet keeps everything, JSON has no NaN.
FORMATS = ("parquet", "csv", "json")


class Folder:
    """A folder that ``ablate run`` or ``ablate export`` wrote."""

    def __init__(self, path: Path) -> None:
        """Look at what is there; nothing is read yet."""
        self.path = path
        self._texts: dict[str, pa.Table] = {}
        if not path.is_dir():
            raise NotResults(f"{path} isn't a folder; give the output folder of an `ablate run` or `ablate export`")
        self.files = {name: file for name in TABLES if (file := self._find(name)) is not None}
        if not self.files:
            more = (
                f"; it holds an unfinished run: `ablate run` goes on with it, and `ablate export {path}` writes the "
                "tables of what has been computed so far"
                if (path / "state.db").exists()
                else "; give the output folder of an `ablate run` or `ablate export`"
            )
            raise NotResults(f"{path} holds no tables{more}")

    def _find(self, name: str) -> Path | None:
        files = (self.path / f"{name}.{ending}" for ending in FORMATS)
        return next((f for f in files if f.is_file()), None)

    def json(self, name: str) -> dict[str, Any]:
        """Read `summary` or `run`; empty where the file is missing."""
        path = self.path / f"{name}.json"
        try:
            value = json.loads(path.read_bytes())
        except FileNotFoundError:
            return {}
        except ValueError as e:
            raise Damaged(f"{path} isn't JSON: {e}; `ablate export` writes it again") from e
        if not isinstance(value, dict):
            raise Damaged(f"{path} holds no JSON object; `ablate export` writes it again")
        return value

    def read(self, name: str, columns: Sequence[str] | None = None, filters: Any = None) -> pa.Table:
        """Read a table that is there; of Parquet only the columns, and row groups that the filters may fit."""
        path = self.files[name]
        unknown = [c for c in columns or () if c not in self.columns(name)]
        if unknown:
            raise NotThere(f"{path} has no column {unknown[0]!r}; it has {', '.join(self.columns(name))}")
        if path.suffix == ".parquet":
            with _complaining(path):
                return pyarrow.parquet.read_table(path, columns=columns, filters=filters)
        table = self._text(name)
        if filters is not None:
            table = table.filter(pyarrow.parquet.filters_to_expression(filters))
        return table.select(columns) if columns is not None else table

    def empty(self, name: str) -> bool:
        """Say whether a table has no row, without reading it all."""
        path = self.files[name]
        with _complaining(path):
            if path.suffix == ".parquet":
                return int(pyarrow.parquet.read_metadata(path).num_rows) == 0
            with path.open(encoding="utf-8") as file:
                if path.suffix == ".csv":
                    return not any(islice(file, 1, 2))
                return not file.read(64).strip().removeprefix("[").removesuffix("]").strip()

    def parts(self, name: str) -> int:
        """Count the parts in which a table can be read: row groups."""
        path = self.files[name]
        if path.suffix != ".parquet":
            return 1
        with _complaining(path):
            return int(pyarrow.parquet.read_metadata(path).num_row_groups)

    def part(self, name: str, number: int, columns: Sequence[str]) -> pa.Table:
        """Read some columns of a part."""
        path = self.files[name]
        if path.suffix != ".parquet":
            return self.read(name, columns)
        with _complaining(path), pyarrow.parquet.ParquetFile(path) as file:
            return file.read_row_group(number, columns=list(columns))

    def _text(self, name: str) -> pa.Table:
        """Read a table of CSV or JSON, once."""
        if name not in self._texts:
            path = self.files[name]
            with _complaining(path):
                self._texts[name] = _csv(path, name) if path.suffix == ".csv" else _json(path, name)
        return self._texts[name]

    def columns(self, name: str) -> list[str]:
        """Name the columns of a table."""
        path = self.files[name]
        if path.suffix == ".parquet":
            with _complaining(path):
                return list(pyarrow.parquet.read_schema(path).names)
        return list(self._text(name).column_names)


@contextmanager
def _complaining(path: Path) -> Iterator[None]:
    """Turn what goes wrong with a file into an error that names it."""
    try:
        yield
    except (pa.ArrowException, ValueError, OSError) as e:
        raise Damaged(f"{path} can't be read: {e}; `ablate export` writes it again") from e


def _is_list(kind: pa.DataType | None) -> bool:
    return kind is not None and bool(pa.types.is_list(kind))


def _csv(path: Path, name: str) -> pa.Table:
    with path.open(encoding="utf-8") as file:
        header = file.readline().rstrip("\n").split(",")
    kinds = {c: column_type(name, c) for c in header}
    # Lists are text in CSV.
    types = {c: pa.string() if _is_list(k) else k for c, k in kinds.items() if k is not None}
    table = pyarrow.csv.read_csv(
        path,
        parse_options=pyarrow.csv.ParseOptions(newlines_in_values=True),
        convert_options=pyarrow.csv.ConvertOptions(
            column_types=types, null_values=[""], strings_can_be_null=True, quoted_strings_can_be_null=False
        ),
    )
    for at, column in enumerate(header):
        kind = kinds[column]
        if kind is not None and _is_list(kind):
            cells = [_list(text, kind) for text in table.column(column).to_pylist()]
            table = table.set_column(at, pa.field(column, kind), pa.array(cells, type=kind))
    return table


def _list(text: str | None, kind: pa.ListType) -> list[Any] | None:
    """Read a cell: heads are JSON, other lists "[1.0, 2.0]" or "[a, b]"."""
    if text is None:
        return None
    if pa.types.is_struct(kind.value_type):
        cells = json.loads(text)
        return cells if isinstance(cells, list) else None
    inner = text.strip().removeprefix("[").removesuffix("]")
    cells = inner.split(", ") if inner else []
    if pa.types.is_floating(kind.value_type):
        return [float(c) if c else None for c in cells]
    return list(cells)


def _json(path: Path, name: str) -> pa.Table:
    rows = json.loads(path.read_bytes())
    if not isinstance(rows, list):
        raise ValueError("not an array of rows")
    columns = list(dict.fromkeys([*(c for row in rows for c in row), *(NULLABLE.get(name, ()) if rows else ())]))
    arrays = {c: pa.array([row.get(c) for row in rows], type=column_type(name, c)) for c in columns}
    return pa.table(arrays)

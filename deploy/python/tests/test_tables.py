"""Tables of newer sweeps, in the form that documents give them, in every format."""

import csv
import json
from pathlib import Path

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import pytest

import ablate_results as ar

BASE = {"task": "ioi", "metric": "logit_diff", "method": "mean", "unit": "head"}
AT = {"stream": "self", "layer": 1, "head": 2, "name": "L1.H2"}
TEST = {"se": 0.1, "ci_low": 0.2, "ci_high": 0.6, "p_value": 0.01, "q_value": 0.02}
JOINT = {
    "interaction": 0.3,
    "interaction_se": 0.1,
    "interaction_low": 0.1,
    "interaction_high": 0.5,
    "interaction_p": 0.01,
    "interaction_q": 0.02,
}
PLACES = {f"{s}_{k}": v for s, v in zip("abc", (0, 1, 2), strict=True) for k in ("layer", "head")}
NAMES = {f"{s}_{k}": v for s in "abc" for k, v in (("stream", "self"), ("name", f"L{'abc'.index(s)}.H0"))}

ROWS = {
    "attention": [
        BASE
        | {"method": "none"}
        | AT
        | {"confidence": 0.5, "entropy": 1.25, "first_token": 0.1, "previous_token": 0.9}
        | {"duplicate_token": None, "induction": None, "rollout": 0.25, "n": 64},
    ],
    "patterns": [
        BASE
        | {"method": "none", "example": 0}
        | AT
        | {"query": q, "key": k, "query_token": f"t{q}", "key_token": f"t{k}", "attention": 1 / (q + 1)}
        for q in range(3)
        for k in range(q + 1)
    ],
    "repair": [BASE | AT | {"direct": 0.5, "total": 0.25, "repair": 0.25} | TEST | {"n": 64}],
    "shift": [
        BASE
        | {"stream": None, "layer": None, "head": None, "name": "all", "at_stream": "self", "at_layer": 3}
        | {"unablated": 10.0, "norm": 25.0, "ratio": 2.5, "largest": 4.0, "reference": None}
        | {"reference_ratio": None, "flagged": True},
    ],
    "groups": [
        BASE
        | {"group": 0, "size": 3, "units": ["L1.H2", "L3.H0", "cross L0.H1"], "delta": 0.9}
        | TEST
        | {"sum_alone": 0.2, "sum_pairs": 0.6}
        | JOINT
        | {"n": 64},
    ],
    "conditional": [
        BASE
        | {k: v for k, v in (NAMES | PLACES).items() if k[0] in "ab"}
        | {"delta_a": 0.1, "delta_b": 0.2, "delta_ab": 0.6, "interaction": 0.3}
        | TEST
        | {"relation": "redundant", "normalised": None, "base": "L0.H3 + L1.H2", "delta_base": 0.05},
    ],
    "triples": [BASE | NAMES | PLACES | {"delta": 0.8, "interaction": float("nan")} | TEST],
    "polysemanticity": [
        {"method": "mean", "unit": "head"}
        | AT
        | {"participation": 1.5, "resolved": 1}
        | {"tasks": ["ioi", "wiki"], "deltas": [0.5, float("nan")], "ses": [0.1, 0.2]}
        | {"strongest": "ioi", "strongest_share": 0.7},
    ],
    "reliability": [
        {"score": "delta ioi mean", "split_half": 0.8, "corrected": 0.9, "ci_low": 0.7, "ci_high": 0.95, "n": 72}
    ],
    "selected": [
        BASE
        | {"effect_kind": kind, "rank": 1}
        | {f"a_{k}": v for k, v in AT.items()}
        | {f"b_{k}": v if kind == "interaction" else None for k, v in AT.items()}
        | {"effect_select": 0.8, "effect": 0.5, "se": 0.1, "ci_low": 0.3, "ci_high": 0.7, "p_value": 0.01}
        | {"n": 32, "clusters": 16}
        for kind in ("delta", "interaction")
    ],
    "orders": [
        BASE
        | {"order": "greedy", "objective": "ioi", "half": 1, "r_079": 0.3, "r_079_low": 0.2, "r_079_high": 0.4}
        | {"largest_99": 0.1, "largest_95": 0.2, "largest_90": 0.3, "area": 0.7, "area_low": 0.6, "area_high": 0.8}
        | {"cpr": None, "cmd": None},
    ],
}


def cell(value: object) -> str:
    """A value as `ablate export --format csv` writes it."""
    if isinstance(value, list):
        return f"[{', '.join(map(cell, value))}]"
    if value is None:
        return ""
    if isinstance(value, bool):
        return "true" if value else "false"
    return "NaN" if isinstance(value, float) and np.isnan(value) else str(value)


def write(folder: Path, form: str) -> None:
    for name, rows in ROWS.items():
        path = folder / f"{name}.{form}"
        if form == "parquet":
            pq.write_table(pa.Table.from_pylist(rows), path)
        elif form == "csv":
            with path.open("w", newline="") as file:
                writer = csv.writer(file, lineterminator="\n")
                writer.writerow(rows[0])
                writer.writerows([cell(v) for v in row.values()] for row in rows)
        else:
            # As Arrow writes it: NaN is null.
            path.write_text(json.dumps(rows).replace("NaN", "null"))
    (folder / "summary.json").write_text(json.dumps({"name": "made", "tasks": [BASE]}))


def same(a: object, b: object) -> bool:
    """Equal, with lists and heads looked into, and nulls and NaN equal to each other."""
    if isinstance(a, (list, np.ndarray)) and isinstance(b, (list, np.ndarray)):
        return len(a) == len(b) and all(map(same, a, b))
    if isinstance(a, dict) and isinstance(b, dict):
        return a == b
    missing = [v is None or (isinstance(v, float) and np.isnan(v)) for v in (a, b)]
    return all(missing) or (not any(missing) and a == b)


@pytest.mark.parametrize("form", ["parquet", "csv", "json"])
@pytest.mark.parametrize("frames", ["pandas", "polars", "arrow"])
def test_every_table_is_read_in_every_format(tmp_path: Path, form: str, frames: str) -> None:
    write(tmp_path, form)
    run = ar.load(tmp_path, frames=frames)
    assert set(run.tables) == set(ROWS)
    for name, rows in ROWS.items():
        table = getattr(run, name)
        assert len(table) == len(rows), name
        arrow = run.table(name, frames="arrow").to_pylist()
        for found, expected in zip(arrow, rows, strict=True):
            assert all(same(found.get(k), v) for k, v in expected.items()), (name, found, expected)


def test_json_of_older_releases_has_no_nulls(tmp_path: Path) -> None:
    write(tmp_path, "json")
    for name, rows in ROWS.items():
        known = [{k: v for k, v in row.items() if v is not None} for row in rows]
        (tmp_path / f"{name}.json").write_text(json.dumps(known).replace("NaN", "null"))
    run = ar.load(tmp_path, frames="arrow")
    assert run.attention.column("induction").to_pylist() == [None]
    assert run.shift.column("reference").type == pa.float64()


def test_matrices_of_other_tables(tmp_path: Path) -> None:
    write(tmp_path, "parquet")
    run = ar.load(tmp_path)
    matrix = run.matrix("attention", "previous_token")
    assert matrix.shape == (2, 3)
    assert matrix[1, 2] == 0.9
    assert np.isnan(matrix).sum() == 5
    assert run.matrix("repair", "repair")[1, 2] == 0.25
    with pytest.raises(ar.NotThere, match="stand in no layer"):
        run.matrix("shift", "ratio")
    with pytest.raises(ar.NotThere, match="no column 'colour'"):
        run.matrix("repair", "colour")


def test_units_that_are_not_heads_and_several_streams(tmp_path: Path) -> None:
    rows = []
    for unit, places in {
        "kv_group": [("self", layer, head, f"L{layer}.KV{head // 3}") for layer in range(2) for head in (0, 3, 6)],
        "layer": [("self", layer, None, f"L{layer}") for layer in range(2)],
        "set": [(None, None, None, "early")],
        "head": [(s, 0, h, f"{s} L0.H{h}") for s in ("encoder", "cross") for h in range(2)],
    }.items():
        for k, (stream, layer, head, name) in enumerate(places):
            place = {"stream": stream, "layer": layer, "head": head, "name": name}
            rows.append(BASE | {"unit": unit} | place | {"delta": float(k), "q_value": 0.5})
    pq.write_table(pa.Table.from_pylist(rows), tmp_path / "heads.parquet")
    run = ar.load(tmp_path)
    assert {c.unit for c in run.conditions} == {"kv_group", "layer", "set", "head"}, (
        "told by the table without a summary"
    )
    np.testing.assert_array_equal(run.delta_matrix(unit="kv_group"), [[0, 1, 2], [3, 4, 5]])
    np.testing.assert_array_equal(run.delta_matrix(unit="layer"), [[0], [1]])
    np.testing.assert_array_equal(run.delta_matrix(stream="cross"), [[2, 3]])
    with pytest.raises(ar.Ambiguous, match="stream: encoder, cross"):
        run.delta_matrix()
    with pytest.raises(ar.NotThere, match="no stream 'self'"):
        run.delta_matrix(stream="self")
    with pytest.raises(ar.NotThere, match="sets of heads"):
        run.delta_matrix(unit="set")
    assert run.names(unit="set") == ["early"]


def test_an_optional_library_that_is_missing_is_named(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    import sys

    write(tmp_path, "parquet")
    for module, extra, act in (
        ("polars", "polars", lambda: ar.load(tmp_path, frames="polars").repair),
        ("pandas", "pandas", lambda: ar.load(tmp_path).repair),
        ("numpy", "pandas", lambda: ar.load(tmp_path, frames="arrow").matrix("repair", "repair")),
    ):
        with monkeypatch.context() as m:
            m.setitem(sys.modules, module, None)
            with pytest.raises(ar.MissingExtra, match=rf"pip install 'ablate-results\[{extra}\]'"):
                act()

"""Opening folders: frames, formats, and what is said of what isn't there."""

import json
import shutil
import warnings
from pathlib import Path

import numpy as np
import pandas as pd
import polars as pl
import pyarrow as pa
import pytest
from conftest import ablate
from test_tables import same

import ablate_results as ar

MAIN = ("heads", "pairs", "curve", "agreement", "gradients", "scores", "examples")


def test_tables_come_as_pandas_polars_or_arrow(made: Path) -> None:
    for frames, kind in (("pandas", pd.DataFrame), ("polars", pl.DataFrame), ("arrow", pa.Table)):
        run = ar.load(made, frames=frames)
        for name in MAIN:
            table = getattr(run, name)
            assert isinstance(table, kind), name
            assert len(table) > 0
            assert getattr(run, name) is table, "it is read once"
        assert isinstance(run.top_heads(3, task="reviews"), kind)
        assert isinstance(run.per_example("none", task="reviews"), kind)
    with pytest.raises(ValueError, match="pandas, polars, arrow"):
        ar.load(made, frames="numpy")


def test_tables_are_read_when_they_are_asked_for(made: Path, tmp_path: Path) -> None:
    copy = shutil.copytree(made, tmp_path / "copy", ignore=shutil.ignore_patterns("state.db*"))
    (copy / "pairs.parquet").write_bytes(b"no Parquet")
    run = ar.load(copy)
    assert len(run.heads) == 144
    with pytest.raises(ar.Damaged, match=r"pairs\.parquet can't be read"):
        _ = run.pairs


def test_missing_whole_numbers_stay_whole(run: ar.Run) -> None:
    first = run.curve[run.curve.step == 0]
    assert first["layer"].isna().all()
    assert str(run.curve["layer"].dtype) == "Int64"
    assert str(run.heads["layer"].dtype) == "int64", "and signed, so that differences may be below 0"


def test_some_columns_and_rows_can_be_read(run: ar.Run) -> None:
    some = run.table("pairs", columns=["a_name", "interaction"], filters=[("a_layer", "==", 5)], frames="polars")
    assert some.columns == ["a_name", "interaction"]
    assert len(some) == 12 * 11 // 2
    with pytest.raises(ar.NotThere, match="no column.*it has task, metric"):
        run.table("heads", columns=["colour"])


def test_what_it_is_of(run: ar.Run, made: Path) -> None:
    assert run.name == "tour"
    assert len(run.id) == 64
    assert [tuple(c) for c in run.conditions] == [
        ("reviews", "loss", "mean", "head"),
        ("sentences", "pearson", "mean", "head"),
    ]
    assert set(MAIN) <= set(run.tables)
    assert run.run["chunks"]["accepted"] == run.run["chunks"]["planned"]
    assert not run.partial
    assert run.warnings == ()
    assert str(made) in repr(run)
    assert any("50 clusters" in flag for flag in run.flags("reviews"))


def test_a_task_must_be_named_where_there_are_several(run: ar.Run) -> None:
    with pytest.raises(ar.Ambiguous, match="task: reviews, sentences"):
        run.delta_matrix()
    with pytest.raises(ar.NotThere, match=r"no task 'review'; there is: reviews, sentences"):
        run.delta_matrix("review")
    with pytest.raises(ar.NotThere, match=r"no method 'zero'; there is: mean"):
        run.top_heads(method="zero", task="reviews")


def test_a_matrix_holds_what_the_table_holds(run: ar.Run) -> None:
    matrix = run.delta_matrix("sentences")
    assert matrix.shape == (6, 12)
    rows = run.heads[run.heads.task == "sentences"]
    np.testing.assert_array_equal(matrix[rows["layer"], rows["head"]], rows.delta)
    np.testing.assert_array_equal(run.matrix("heads", "se", "sentences")[rows["layer"], rows["head"]], rows.se)
    pairs = run.interaction_matrix("reviews")
    names = run.names("reviews")
    assert names[:2] == ["L0.H0", "L0.H1"]
    assert names[-1] == "L5.H11"
    assert pairs.shape == (72, 72)
    assert np.isnan(np.diag(pairs)).all()
    np.testing.assert_array_equal(pairs, pairs.T)
    for row in run.pairs.iloc[::97].itertuples():
        assert pairs[names.index(row.a_name), names.index(row.b_name)] == row.interaction
    with pytest.raises(ar.NotThere, match="no rows of sentences"):
        run.interaction_matrix("sentences")


def test_top_heads_are_sorted_by_what_was_asked(run: ar.Run) -> None:
    top = run.top_heads(5, "reviews")
    assert list(top.delta) == sorted(run.heads[run.heads.task == "reviews"].delta, reverse=True)[:5]
    sizes = run.top_heads(100, "reviews", absolute=True).delta.abs()
    assert sizes.is_monotonic_decreasing
    assert len(sizes) == 72
    pairs = run.top_pairs(4, "reviews", relation="unresolved")
    assert pairs.interaction.abs().is_monotonic_decreasing
    assert set(pairs.relation) == {"unresolved"}


def test_scores_are_found_by_what_was_removed(run: ar.Run) -> None:
    one = run.per_example(["L2.H3"], task="reviews")
    assert list(one.columns) == ["index", "cluster", "half", "tokens", "scored", "nll", "prediction", "label"]
    for alike in ("L2.H3", [(2, 3)], [("self", 2, 3)]):
        pd.testing.assert_frame_equal(run.per_example(alike, task="reviews"), one)
    pair = run.per_example(["L2.H3", "L4.H0"], task="reviews")
    pd.testing.assert_frame_equal(run.per_example([(4, 0), (2, 3)], task="reviews"), pair)
    assert not np.array_equal(pair.nll, one.nll)
    floor = run.per_example("all", task="reviews")
    assert floor.nll.sum() / floor.scored.sum() == pytest.approx(run.summary["tasks"][0]["floor"], rel=1e-12)
    assert "gradient" in run.per_example("L2.H3", task="reviews", sweep="gradient")
    with pytest.raises(ar.NotThere, match=r"no sweep of .* removed just L0\.H0, L1\.H1, L2\.H2"):
        run.per_example(["L0.H0", "L1.H1", "L2.H2"], task="reviews")
    with pytest.raises(ar.NotThere, match=r"no 'L9\.H0'; its heads are L0\.H0 to L5\.H11"):
        run.per_example("L9.H0", task="reviews")
    with pytest.raises(ar.NotThere, match="names no head"):
        run.per_example("H0", task="reviews")


@pytest.mark.parametrize("form", ["csv", "json"])
def test_exports_in_text_hold_the_same(made: Path, run: ar.Run, tmp_path: Path, form: str) -> None:
    ablate("export", made, "--format", form, "--out", tmp_path)
    assert not list(tmp_path.glob("*.parquet"))
    text = ar.load(tmp_path)
    assert text.tables == run.tables
    for name in MAIN:
        expected, found = getattr(run, name), getattr(text, name)
        for column in expected.columns:
            kept = f"{name}.{column}"
            if len(expected) and isinstance(expected[column].dropna().iloc[0:1].squeeze(), np.ndarray):
                assert all(map(same, expected[column], found[column])), kept
            else:
                pd.testing.assert_series_equal(found[column], expected[column], check_exact=True, obj=kept)
        if form == "csv":
            arrow = (r.table(name, frames="arrow").schema.remove_metadata() for r in (text, run))
            assert [(f.name, f.type) for f in next(arrow)] == [(f.name, f.type) for f in next(arrow)], name
    pd.testing.assert_frame_equal(
        text.per_example(["L0.H1", "L5.H11"], task="reviews"), run.per_example(["L0.H1", "L5.H11"], task="reviews")
    )
    np.testing.assert_array_equal(text.delta_matrix("reviews"), run.delta_matrix("reviews"))


def test_a_table_that_no_sweep_gives_names_the_sweep(run: ar.Run) -> None:
    for name, kind in (("attention", "attention"), ("repair", "repair"), ("shift", "shift"), ("patterns", "attention")):
        with pytest.raises(ar.MissingTable, match=f'no table {name}: it comes from a sweep of kind "{kind}"') as e:
            getattr(run, name)
        assert e.value.table == name
        assert "add that to the spec" in str(e.value)
        assert not hasattr(run, name), "so that hasattr() and notebooks' completion work"
    with pytest.raises(ar.MissingTable, match="third_order above 0") as e:
        _ = run.triples
    assert "add that" not in str(e.value), "there is such a sweep, without that option"
    with pytest.raises(ar.MissingTable, match='method = "optimal"'):
        _ = run.constants
    with pytest.raises(ar.MissingTable, match="there is no table 'nothing'; tables are heads, pairs"):
        run.table("nothing")


def test_what_a_reader_should_know_is_warned_of(made: Path, tmp_path: Path) -> None:
    copy = shutil.copytree(made, tmp_path / "copy", ignore=shutil.ignore_patterns("state.db*"))
    facts = json.loads((copy / "run.json").read_text())
    facts["partial"] = True
    facts["missing"] = [{"sweep": 2, "kind": "pairs", "round": 0, "chunks": 3, "planned": 10}]
    facts["device_classes"] = {"one": 5, "other": 6}
    facts["warnings"] = ["Computed on 2 device classes: the numbers are not those of any one of them, bit for bit."]
    (copy / "run.json").write_text(json.dumps(facts))
    with pytest.warns(ar.ResultsWarning) as said:
        run = ar.load(copy)
    (copy / "curve.parquet").unlink()
    with pytest.raises(ar.MissingTable, match="the run isn't complete, go on with it"):
        _ = ar.Run(copy).curve
    texts = [str(w.message) for w in said]
    assert len(texts) == 2, "each thing is said once"
    assert "Computed on 2 device classes" in texts[0]
    assert "isn't complete (pairs has 3 of 10 chunks)" in texts[1]
    assert {Path(w.filename).name for w in said} == {Path(__file__).name}, "and points at the caller"
    assert run.partial
    # An older run.json has no list of warnings.
    del facts["warnings"]
    (copy / "run.json").write_text(json.dumps(facts))
    with pytest.warns(ar.ResultsWarning) as said:
        ar.load(copy)
    assert any("2 device classes: one, other" in str(w.message) for w in said)


def test_an_interrupted_runs_export_says_that_it_is_partial(made: Path, tmp_path: Path) -> None:
    """The state of a run, less some chunks: what a run that was stopped leaves."""
    import sqlite3

    shutil.copy(made / "state.db", tmp_path / "state.db")
    with sqlite3.connect(tmp_path / "state.db") as db:
        [(pairs,)] = db.execute(
            "SELECT sweep FROM chunks WHERE round = 0 GROUP BY sweep ORDER BY count(*) DESC LIMIT 1"
        ).fetchall()
        db.execute("DELETE FROM chunks WHERE sweep = ? AND chunk = 0", (pairs,))
    with pytest.raises(ar.NotResults, match="unfinished run.*`ablate run` goes on"):
        ar.load(tmp_path)
    ablate("export", tmp_path)
    with pytest.warns(ar.ResultsWarning, match="isn't complete"):
        run = ar.load(tmp_path)
    assert len(run.pairs) + len(run.heads) < 72 * 71 // 2 + 144


def test_folders_without_results_are_refused(tmp_path: Path) -> None:
    with pytest.raises(ar.NotResults, match="isn't a folder"):
        ar.load(tmp_path / "nowhere")
    with pytest.raises(ar.NotResults, match="holds no tables; give the output folder"):
        ar.load(tmp_path)


def test_numbers_are_loaded_without_a_warning(made: Path) -> None:
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        run = ar.load(made)
        for name in run.tables:
            run.table(name)

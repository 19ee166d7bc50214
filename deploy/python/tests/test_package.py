"""The package itself: generated code, what a wheel holds, what imports need, examples and the notebook."""

import ast
import json
import re
import runpy
import subprocess
import sys
import zipfile
from email import message_from_bytes
from pathlib import Path

import nbclient
import nbformat
import pytest
from conftest import PACKAGE, ROOT

import ablate_results as ar

TOUR = PACKAGE / "notebooks" / "tour.ipynb"


def test_the_generated_code_is_current() -> None:
    script = runpy.run_path(str(PACKAGE / "generate.py"))
    for name, text in script["generated"]().items():
        committed = (script["OUT"] / name).read_text()
        assert committed == text, (
            f"{name} isn't what ablate.proto gives; run .deps/results/bin/python deploy/python/generate.py"
        )


def test_a_wheel_holds_all_that_is_needed(tmp_path: Path) -> None:
    subprocess.run([sys.executable, "-m", "hatchling", "build", "-t", "wheel", "-d", tmp_path], cwd=PACKAGE, check=True)
    [wheel] = tmp_path.glob("*.whl")
    with zipfile.ZipFile(wheel) as files:
        names = set(files.namelist())
        own = {
            str(p.relative_to(PACKAGE / "src"))
            for p in (PACKAGE / "src").rglob("*.py*")
            if "__pycache__" not in p.parts
        }
        assert own | {"ablate_results/py.typed"} <= names
        assert not [n for n in names if n.startswith("tests") or n.endswith(".pyc")]
        facts = message_from_bytes(files.read(next(n for n in names if n.endswith("METADATA"))))
    plain = [r for r in facts.get_all("Requires-Dist") if "extra ==" not in r]
    assert [re.split(r"[<>=]", r)[0] for r in plain] == ["pyarrow"]
    assert {"pandas", "polars", "plot", "client", "notebook"} <= set(facts.get_all("Provides-Extra"))
    workspace = re.search(r'^version = "(.*)"', (ROOT / "Cargo.toml").read_text(), re.MULTILINE)
    assert facts["Version"] == ar.__version__ == workspace[1]
    # It can be imported without anything but pyarrow.
    code = f"""
import sys
for module in ("numpy", "pandas", "polars", "matplotlib", "grpc", "google.protobuf"):
    sys.modules[module] = None
sys.path.insert(0, {str(wheel)!r})
import ablate_results as ar
assert ".whl" in ar.__file__
try:
    ar.Client()
except ar.MissingExtra as e:
    assert "ablate-results[client]" in str(e), e
else:
    raise SystemExit(1)
"""
    subprocess.run([sys.executable, "-c", code], check=True, cwd=tmp_path)


def test_every_public_name_is_there_and_documented() -> None:
    for name in ar.__all__:
        assert getattr(ar, name).__doc__, name
    for name in ar.load.__globals__["TABLES"]:
        assert len(getattr(ar.Run, name).__doc__) > 100, name


def blocks(path: Path) -> list[str]:
    return re.findall(r"```python\n(.*?)```", path.read_text(), re.DOTALL)


def test_the_readmes_examples_run(made: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    first, *others = blocks(PACKAGE / "README.md")
    assert len([line for line in first.splitlines() if line.strip()]) == 5
    (tmp_path / "runs").mkdir()
    (tmp_path / "runs" / "my-sweep").symlink_to(made)
    monkeypatch.chdir(tmp_path)
    scope: dict[str, object] = {}
    exec(compile(first, "README.md", "exec"), scope)
    assert (tmp_path / "heads.pdf").stat().st_size > 1000
    for other in others:
        tree = ast.parse(other)
        # What speaks to a coordinator is tested with one.
        if "Client" not in other:
            exec(compile(tree, "README.md", "exec"), scope)


def test_the_notebook_goes_from_results_to_a_figure(
    made: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("ABLATE_RESULTS", str(made))
    monkeypatch.setenv("PYTHONPATH", str(PACKAGE / "src"))
    monkeypatch.setenv("IPYTHONDIR", str(tmp_path / "ipython"))
    notebook = nbformat.read(TOUR, as_version=4)
    client = nbclient.NotebookClient(
        notebook, timeout=300, kernel_name="python3", resources={"metadata": {"path": str(tmp_path)}}
    )
    client.execute()
    figures = [o for cell in notebook.cells for o in cell.get("outputs", []) if "image/png" in o.get("data", {})]
    assert len(figures) >= 4
    assert (tmp_path / "figure.pdf").stat().st_size > 1000
    errors = [
        o
        for cell in notebook.cells
        for o in cell.get("outputs", [])
        if o.get("output_type") == "stream" and o["name"] == "stderr"
    ]
    assert not errors, errors


def test_notebooks_are_kept_without_outputs() -> None:
    for path in (PACKAGE / "notebooks").glob("*.ipynb"):
        cells = json.loads(path.read_text())["cells"]
        code = [c for c in cells if c["cell_type"] == "code"]
        assert code
        assert all(c["outputs"] == [] and c["execution_count"] is None for c in code), (
            f"strip the outputs of {path.name}"
        )

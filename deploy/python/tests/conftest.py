"""A real run of MiniLM by the built programs, shared by all tests."""

import json
import os
import subprocess
from collections.abc import Iterator
from pathlib import Path

import matplotlib
import pytest

import ablate_results as ar

matplotlib.use("agg")

ROOT = Path(__file__).resolve().parents[3]
PACKAGE = ROOT / "deploy" / "python"
ABLATE = ROOT / "target" / "release" / "ablate"
MINILM = ROOT / "models" / "minilm"

# Tests say by themselves whom they speak to.
for name in [n for n in os.environ if n.startswith("ABLATE_")]:
    del os.environ[name]


def ablate(*args: str | Path, **more: str) -> str:
    """What the program says on stdout; a failure is the test's."""
    environment = {**os.environ, "ABLATE_LOG": "error", **more}
    done = subprocess.run([ABLATE, *args], capture_output=True, text=True, env=environment, check=False, cwd=ROOT)
    assert done.returncode == 0, f"ablate {' '.join(map(str, args))} ended with {done.returncode}:\n{done.stderr}"
    return done.stdout


def reviews(path: Path) -> Path:
    """Short reviews, two a document, written for these tests."""
    things = ["film", "hotel", "kettle"]
    good = ["Wonderful", "Excellent", "Beautiful", "Friendly", "Perfect", "Great"]
    bad = ["Horrible", "Terrible", "Ugly", "Rude", "Broken", "Awful"]
    lines = []
    for t, thing in enumerate(things):
        for k, both in enumerate(zip(good, bad, strict=True)):
            for label, word in zip(("good", "bad"), both, strict=True):
                lines.append({"text": f"{word} {thing}", "label": label, "document": 6 * t + k})
    path.write_text("".join(json.dumps(line) + "\n" for line in lines))
    return path


def sentences(path: Path) -> list[float]:
    """Pairs of sentences with a score of their likeness; gives the scores."""
    texts = ["Cats sleep", "Cats rest", "Stocks fell", "Markets dropped", "Rain comes"]
    likeness = iter([4.5, 0.5, 0.7, 1.0, 0.6, 0.4, 1.2, 4.2, 1.4, 0.9])
    rows = [{"a": a, "b": b, "score": next(likeness)} for i, a in enumerate(texts) for b in texts[i + 1 :]]
    path.write_text("".join(json.dumps(row) + "\n" for row in rows))
    return [row["score"] for row in rows]


def spec(folder: Path, name: str, ablations: str, sweeps: str) -> Path:
    """A spec of both tasks on MiniLM, beside its data."""
    reviews(folder / "reviews.jsonl")
    sentences(folder / "sentences.jsonl")
    path = folder / f"{name}.toml"
    path.write_text(
        f'name = "{name}"\nseed = 3\n[model]\nsource = "{MINILM}"\ndtype = "f32"\n'
        '[[task]]\nname = "reviews"\nkind = "classification"\ndata = "reviews.jsonl"\nmax_tokens = 8\ntrain = 0.7\n'
        'metric = "loss"\n'
        '[[task]]\nname = "sentences"\nkind = "similarity"\ndata = "sentences.jsonl"\nmax_tokens = 8\n'
        f'metric = "pearson"\n{ablations}{sweeps}'
    )
    return path


MEAN = '[ablation]\nmethod = "mean"\n'
#: What pairs are given: all heads but those of the last layer.
GIVEN = [f"L{layer}.H{head}" for layer in range(5) for head in range(12)]
SWEEPS = f"""
[[sweep]]
kind = "single"
[[sweep]]
kind = "gradient"
[[sweep]]
kind = "pairs"
tasks = ["reviews"]
[[sweep]]
kind = "pairs"
tasks = ["reviews"]
base = {json.dumps(GIVEN)}
[[sweep]]
kind = "greedy"
tasks = ["reviews"]
fraction = 0.05
split = "none"
orders = ["greedy", "importance", "random", "matched"]
"""


@pytest.fixture(scope="session")
def programs() -> Path:
    """The built programs and the model; without them nothing can be tested."""
    missing = [p for p in (ABLATE, ABLATE.with_name("ablate-worker"), MINILM / "model.safetensors") if not p.exists()]
    assert not missing, f"{missing[0]} is missing: `make python` builds and fetches what these tests need"
    return ABLATE


@pytest.fixture(scope="session")
def made(programs: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The folder of a run with every head, every pair, pairs given a base, gradients and pruning."""
    folder = tmp_path_factory.mktemp("made")
    path = spec(folder, "tour", MEAN, SWEEPS)
    ablate("run", path, "--out", folder / "out", "--device", "cpu", "--threads", "1")
    return folder / "out"


@pytest.fixture
def run(made: Path) -> ar.Run:
    """The run, as pandas."""
    return ar.load(made)


@pytest.fixture
def gold(tmp_path: Path) -> list[float]:
    """What people are said to think of the pairs of sentences."""
    return sentences(tmp_path / "sentences.jsonl")


@pytest.fixture(autouse=True)
def _closed() -> Iterator[None]:
    """Figures don't pile up."""
    yield
    import matplotlib.pyplot as plt

    plt.close("all")

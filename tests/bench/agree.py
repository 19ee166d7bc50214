"""Do the peers of the benchmark agree with each other? Builds small jobs, runs every peer, prints a table.

usage: .deps/peers/bin/python tests/bench/agree.py [--threads N] [--dtype f64|f32|bf16] [--ablation mean|zero …] [CASE …]

Largest differences are from the plain hooks: of a token's loss, a logit difference, a cosine. One above LIMIT
ends it with 1. In f32 that is no finer because of SmolLM2's head (0, 0): without it a logit difference rounds
by up to 2.4e-4 (plain hooks in f32 against f64), and eager and sdpa attention round differently. Nor is f64
exact, since transformers' norms stay in f32. A head ablated wrongly moves these numbers by 1e-2 and more.
"""

import argparse
import json
import subprocess
import sys
import tempfile
from pathlib import Path

root = Path(__file__).resolve().parent.parent.parent
sys.path.insert(0, str(root / "tests/reference"))
import lean_torch  # noqa: E402, F401
import transformers  # noqa: E402

LLAMA = {"kind": "gguf", "path": str(root / "models/smollm2/SmolLM2-135M-Instruct.Q4_1.gguf")}
BERT = {"kind": "hf", "path": str(root / "models/minilm")}
LIMIT = {"f64": 1e-4, "f32": 1e-3, "bf16": float("inf")}
NAMES = [("Mary", "John"), ("Anna", "Peter"), ("Anastasia", "Bob"), ("Sarah", "Christopher")]


def lines(name):
    return [json.loads(line) for line in (root / "models/data" / name).read_text().splitlines()]


def example(at):
    return {"a": at, "b": at, "gold": 0.0}


def wiki(rows, length):
    path = Path(LLAMA["path"])
    tokenizer = transformers.AutoTokenizer.from_pretrained(str(path.parent), gguf_file=path.name)
    items = []
    for line in lines("wiki.jsonl"):
        tokens = tokenizer(line["text"])["input_ids"][:length]
        if len(tokens) == length and len(items) < rows:
            scored = [{"position": at, "target": tokens[at + 1], "foil": 0} for at in range(length - 1)]
            items.append({"tokens": tokens, "scored": scored})
    return {"kind": "language_modeling", "items": items, "examples": [example(i) for i in range(rows)]}


def ioi():
    path = Path(LLAMA["path"])
    tokenizer = transformers.AutoTokenizer.from_pretrained(str(path.parent), gguf_file=path.name)
    items = []
    for a, b in NAMES:
        tokens = tokenizer(f"When {a} and {b} went to the store, {b} gave a drink to")["input_ids"]
        target, foil = (tokenizer(f" {name}")["input_ids"][0] for name in (a, b))
        items.append({"tokens": tokens, "scored": [{"position": len(tokens) - 1, "target": target, "foil": foil}]})
    return {"kind": "ioi", "items": items, "examples": [example(i) for i in range(len(items))]}


def lee(texts, length):
    tokenizer = transformers.AutoTokenizer.from_pretrained(BERT["path"])
    found = list(dict.fromkeys(text for line in lines("lee-pairs.jsonl") for text in (line["a"], line["b"])))[:texts]
    tokens = [tokenizer(text, truncation=True, max_length=length)["input_ids"] for text in found]
    pairs = [{"a": a, "b": b, "gold": 0.0} for a in range(texts) for b in range(a)]
    return {"kind": "similarity", "items": [{"tokens": t, "scored": []} for t in tokens], "examples": pairs}


SMOL = [[], [[3, 2]], [[17, 0], [20, 8]], [[0, 0], [29, 8]], [[5, 1], [5, 7], [11, 4], [28, 3]],
        [[5, 1], [5, 7], [11, 4], [28, 3], [2, 6]]]
MINI = [[], [[1, 2]], [[0, 0], [5, 11]], [[3, 7], [3, 8]], [[2, 1], [4, 9], [5, 0]], [[2, 1], [4, 9], [5, 0], [1, 5]]]
CASES = {
    "smollm2-4x64": (LLAMA, lambda: wiki(4, 64), 9, SMOL),
    "smollm2-ioi": (LLAMA, ioi, 9, SMOL),
    "minilm-16x32": (BERT, lambda: lee(16, 32), 12, MINI),
    "minilm-12x128": (BERT, lambda: lee(12, 128), 12, MINI),
}


def main():
    parser = argparse.ArgumentParser()
    parser.add_argument("--threads", type=int, default=2)
    parser.add_argument("--dtype", default="f32", choices=LIMIT)
    parser.add_argument("--ablation", nargs="+", default=["mean", "zero"], choices=["mean", "zero"])
    parser.add_argument("cases", nargs="*")
    asked = parser.parse_args()
    wrong = False
    for name in asked.cases or CASES:
        model, make, heads, subsets = CASES[name]
        prepared = make()
        for ablation in asked.ablation:
            first = None
            for peer in ("hooks", "transformer_lens", "nnsight"):
                job = {"model": model, "dtype": asked.dtype, "threads": asked.threads, "heads": heads, "peer": peer,
                       "ablation": ablation, "prepared": prepared, "subsets": subsets}
                with tempfile.TemporaryDirectory() as folder:
                    question, answer = Path(folder) / "job.json", Path(folder) / "result.json"
                    question.write_text(json.dumps(job))
                    subprocess.run([sys.executable, root / "tests/bench/peers.py", question, answer], check=True)
                    result = json.loads(answer.read_text())
                (columns,) = result["columns"].values()
                first = first or columns
                per = [max(1, len(prepared["items"][e["a"]]["scored"])) for e in prepared["examples"]]
                apart = max(abs(x - y) / n for mine, theirs in zip(columns, first, strict=True)
                            for x, y, n in zip(mine, theirs, per, strict=True))
                moved = max(abs(x - y) / n for x, y, n in zip(columns[-1], columns[0], per, strict=True))
                wrong |= not apart <= LIMIT[asked.dtype]
                print(f"{name:<14} {asked.dtype:<4} {ablation:<4} {peer:<16} {len(subsets) / sum(result['seconds']):8.2f} subsets/s, best {1 / min(result['seconds']):.2f}"
                      f"  apart {apart:.1e} (ablation moves {moved:.1e})  {result['peak_mb']:6.0f} MB  {result['batching']}", flush=True)
    sys.exit(wrong)


if __name__ == "__main__":
    main()

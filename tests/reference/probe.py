"""A linear probe of an encoder's embeddings: transformers in f64, and scikit-learn's logistic regression.

usage: probe.py JOB.json RESULT.json

JOB: {"path", "cases": [{"probe": {items, labels}, "items", "examples"}, ...], "subsets": [[[layer, head], ...], ...]}
RESULT: a list by case of {"weights": [label or row][dimension], "bias": [row],
                           "nll", "prediction": [subset][example]}

The probe is fitted on the unablated embeddings of its own items, and asked about the items of the examples with the
heads of each subset at 0. scikit-learn has one row of weights for two labels.
"""

import json
import sys
import warnings
from pathlib import Path

import lean_torch  # noqa: F401  (must come before torch)
import numpy
import torch
from reference import Reference
from sklearn.exceptions import ConvergenceWarning
from sklearn.linear_model import LogisticRegression

warnings.simplefilter("error", ConvergenceWarning)


def main():
    job = json.loads(Path(sys.argv[1]).read_text())
    result = []
    for case in job["cases"]:
        first = len(case["probe"]["items"])
        items = case["probe"]["items"] + case["items"]
        reference = Reference({"model": {"kind": "hf", "path": job["path"]}, "dtype": "f64", "ablation": "zero",
                               "prepared": {"kind": "similarity", "items": items}})

        @torch.no_grad()
        def embed(subset, which, reference=reference):
            reference.removed = {}
            for layer, head in subset:
                reference.removed.setdefault(layer, []).append(head)
            rows = {}
            for group in reference.groups(which):
                rows.update(zip(group, (x.mean(0) for x in reference.forward(group, shortcut=True)), strict=True))
            return numpy.array([rows[i].tolist() for i in which])

        probe = LogisticRegression(C=1.0, tol=1e-12, max_iter=100_000, solver="newton-cholesky")
        probe.fit(embed([], range(first)), case["probe"]["labels"])
        out = {"weights": probe.coef_.tolist(), "bias": probe.intercept_.tolist(), "nll": [], "prediction": []}
        for subset in job["subsets"]:
            x = embed(subset, [first + e["a"] for e in case["examples"]])
            logs = probe.predict_log_proba(x)
            out["nll"].append([-float(row[int(e["gold"])]) for row, e in zip(logs, case["examples"], strict=True)])
            out["prediction"].append(probe.predict(x).astype(float).tolist())
        result.append(out)
    Path(sys.argv[2]).write_text(json.dumps(result))


if __name__ == "__main__":
    main()

"""What transformers scores in f64 on tiny random models, task by task.

The models are those of tiny.py; here they are asked for the scores of prepared tasks, each computed from an
item's whole logits: nothing is sliced, shared or kept from one item to the next but the unablated log-probabilities.

usage: tasks.py JOB.json FOLDER    (writes FOLDER/NAME/{config.json,model.safetensors} and FOLDER/NAME.json)

JOB: {"cases": {name: [name of a task, ...]}, "tasks": {name: {"metric", "prepared"}},
      "subsets": [[[layer, head], ...], ...]}
NAME.json: {name of a task: {"zero": {column: [subset][example]}, "mean": the same}}
"""

import json
import sys
from pathlib import Path

import tiny
import torch


class Asked(tiny.Tiny):
    def ask(self, task):
        """The scores of every subset, by zero and by mean over the task's own items."""
        self.task, self.items = task["prepared"], task["prepared"]["items"]
        self.job["items"] = [item["tokens"] for item in self.items]
        self.removed, self.means, self.seen = {}, None, [[] for _ in range(self.layers)]
        self.unablated = [self.log_probabilities(item, []) for item in range(len(self.items))]
        means = [torch.cat(zs).mean(0) for zs in self.seen]
        self.seen = None
        result = {}
        for ablation, self.means in (("zero", None), ("mean", means)):
            each = [self.columns(task["metric"], subset) for subset in self.job["subsets"]]
            result[ablation] = {k: [e[k] for e in each] for k in each[0]}
        return result

    def log_probabilities(self, item, subset):
        logits = self.final(item, subset)
        return logits - torch.logsumexp(logits, -1, keepdim=True)

    def labels(self, subset):
        logs = [self.log_probabilities(e["a"], subset) for e in self.task["examples"]]
        golds = [int(e["gold"]) for e in self.task["examples"]]
        return {"nll": [-float(x[gold]) for x, gold in zip(logs, golds, strict=True)],
                "prediction": [float(x.argmax()) for x in logs], "label": [float(gold) for gold in golds]}

    def columns(self, metric, subset):
        kind = self.task["kind"]
        if kind == "classification":
            return self.labels(subset)
        finals = [self.log_probabilities(item, subset) for item in range(len(self.items))]
        scored = [[(s["position"], s["target"], s["foil"]) for s in item["scored"]] for item in self.items]
        each = list(zip(finals, scored, strict=True))
        if kind == "next_token_choice":
            logs = [sum(x[p, t] for p, t, _ in at) for x, at in each]
            out = {"nll": [], "prediction": [], "label": []}
            for e in self.task["examples"]:
                among = torch.stack(logs[e["a"] : e["b"] + 1])
                right = int(e["gold"])
                out["nll"].append(-float(torch.log_softmax(among, 0)[right]))
                out["prediction"].append(float(among.argmax()))
                out["label"].append(float(right))
        elif kind == "greater_than":
            out = {"prob_diff": [float(sum(x[p, t].exp() * (2 * up - 1) for p, t, up in at)) for x, at in each]}
        elif kind in ("logit_difference", "ioi"):
            out = {"logit_diff": [float(sum(x[p, t] - x[p, f] for p, t, f in at)) for x, at in each]}
        else:
            out = {"nll": [-float(sum(x[p, t] for p, t, _ in at)) for x, at in each],
                   "correct": [float(sum(x[p].argmax() == t for p, t, _ in at)) for x, at in each]}
        if metric == "kl":
            out["kl"] = [sum(float((first[p].exp() * (first[p] - x[p])).sum()) for p, _, _ in at)
                         for first, (x, at) in zip(self.unablated, each, strict=True)]
        return out


def main():
    job, folder = json.loads(Path(sys.argv[1]).read_text()), Path(sys.argv[2])
    tiny.double_throughout()
    with torch.no_grad():
        for name, tasks in job["cases"].items():
            model = Asked(name, folder / name, job)
            result = {task: model.ask(job["tasks"][task]) for task in tasks}
            (folder / f"{name}.json").write_text(json.dumps(result))


if __name__ == "__main__":
    main()

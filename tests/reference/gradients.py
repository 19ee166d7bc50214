"""Gradients of the loss at every head's z by PyTorch's autograd, in f64, on the tiny models of tiny.py and seq2seq.py.

Every item goes through the model alone and keeps its graph. z is what the pre-hook on an output projection is given;
per row (an example, or for similarity a text) and head the answer is the sum of z · ∂ℓ/∂z over the positions of the
row's items, and of (ẑ − z) · ∂ℓ/∂z for every method.

usage: gradients.py JOB.json FOLDER    (writes FOLDER/NAME/{config.json,model.safetensors} and FOLDER/NAME.json)

JOB: {"cases": {name: [name of a task, ...]}, "tasks": {name: prepared}, "donors": {name of a task: [item, ...]}}
NAME.json: {name of a task: {"gradient" | "zero" | "half" | "mean" | "mean-position" | "resample": [head][row]}}
"""

import json
import sys
from pathlib import Path

import seq2seq
import tiny
import torch


class Decoderless(tiny.Tiny):
    """A model of one stack."""

    def hook(self, _, args):
        self.call += 1
        self.zs.append(args[0])

    def run(self, item):
        self.zs = []
        self.job["items"] = [item["tokens"]]
        return self.final(0), self.zs


class EncoderDecoder(seq2seq.Model):
    def hook(self, at, args):
        self.zs[at] = args[0]

    def run(self, item):
        self.zs = {}
        logits = self.logits(item["tokens"], item["decoder"])
        # The order of heads: encoder, decoder, cross.
        order = sorted(self.zs, key=lambda at: (["encoder", "decoder", "cross"].index(at[0]), at[1]))
        return logits, [self.zs[at] for at in order]


def pearson(x, y):
    x, y = x - x.mean(), y - y.mean()
    return (x @ y) / (x.norm() * y.norm())


def rows(task, finals):
    """(ℓ, items, factor) of each row; of several rows with one ℓ it is the same tensor."""
    kind, items, examples = task["kind"], task["items"], task["examples"]
    if kind == "similarity":
        e = [x.mean(0) for x in finals]
        cosines = torch.stack([e[p["a"]] @ e[p["b"]] / (e[p["a"]].norm() * e[p["b"]].norm()) for p in examples])
        loss = -pearson(cosines, torch.tensor([p["gold"] for p in examples]))
        return [(loss, [i], len(items)) for i in range(len(items))]
    if kind == "classification":
        return [(-torch.log_softmax(finals[e["a"]], 0)[int(e["gold"])], [e["a"]], 1) for e in examples]
    logs = [torch.log_softmax(x, -1) for x in finals]
    summed = [sum(log[s["position"], s["target"]] for s in i["scored"]) for log, i in zip(logs, items, strict=True)]
    out = []
    for e in examples:
        a, scored = e["a"], items[e["a"]]["scored"]
        if kind == "next_token_choice":
            among = list(range(a, e["b"] + 1))
            loss = -torch.log_softmax(torch.stack([summed[i] for i in among]), 0)[int(e["gold"])]
            out.append((loss, among, 1))
        elif kind == "greater_than":
            loss = -sum(logs[a][s["position"], s["target"]].exp() * (2 * s["foil"] - 1) for s in scored)
            out.append((loss, [a], 1))
        elif kind == "logit_difference":
            x, (s,) = finals[a], scored
            out.append((x[s["position"], s["foil"]] - x[s["position"], s["target"]], [a], 1))
        else:
            out.append((-summed[a], [a], 1))
    return out


def changes(zs, donors):
    """ẑ − z by method, item and attention, each [position, width]."""
    flat = [[z.detach().reshape(-1, z.shape[-1]) for z in own] for own in zs]

    def each(b):
        return [[b(layer, item, z) - z for layer, z in enumerate(own)] for item, own in enumerate(flat)]

    def position(layer, _, z):
        seen = [own[layer] for own in flat]
        return torch.stack([torch.stack([s[p] for s in seen if len(s) > p]).mean(0) for p in range(len(z))])

    def donor(layer, item, z):
        given = flat[donors[item]][layer]
        return torch.stack([given[min(p, len(given) - 1)] for p in range(len(z))])

    return {"zero": each(lambda layer, item, z: 0 * z), "half": each(lambda layer, item, z: z / 2),
            "mean": each(lambda layer, item, z: torch.cat([own[layer] for own in flat]).mean(0)),
            "mean-position": each(position), "resample": each(donor)}


def answer(model, task, donors):
    finals, zs = zip(*(model.run(item) for item in task["items"]), strict=True)
    factors = {"gradient": [[z.detach().reshape(-1, z.shape[-1]) for z in own] for own in zs], **changes(zs, donors)}
    result = {name: [] for name in factors}
    for loss, among, times in rows(task, finals):
        grads = torch.autograd.grad(loss, [z for i in among for z in zs[i]], retain_graph=True)
        grads = iter(grads)
        sums = {name: 0 for name in factors}
        for i in among:
            for layer in range(len(zs[i])):
                g = next(grads)
                g = g.reshape(-1, g.shape[-1])
                for name, factor in factors.items():
                    by_head = (factor[i][layer] * g).reshape(len(g), model.heads, -1).sum((0, 2)) * times
                    sums[name] = sums[name] + torch.nn.functional.pad(
                        by_head, (layer * model.heads, (len(zs[i]) - 1 - layer) * model.heads))
        for name, total in sums.items():
            result[name].append(total.tolist())
    return {name: [list(of_head) for of_head in zip(*values, strict=True)] for name, values in result.items()}


def main():
    job, folder = json.loads(Path(sys.argv[1]).read_text()), Path(sys.argv[2])
    twofold = [name for name in job["cases"] if name in seq2seq.CASES]
    for name in twofold:
        seq2seq.make(name, folder / name)
    # Files may hold float32: they are read before that stands for float64.
    models = {name: EncoderDecoder(folder / name) for name in twofold}
    seq2seq.buckets_as_trained()
    tiny.double_throughout()
    for name, tasks in job["cases"].items():
        model = models.get(name) or Decoderless(name, folder / name, job)
        result = {task: answer(model, job["tasks"][task], job["donors"][task]) for task in tasks}
        (folder / f"{name}.json").write_text(json.dumps(result))


if __name__ == "__main__":
    main()

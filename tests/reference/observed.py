"""Attention patterns, direct effects and norms of the residual stream in f64, on the tiny models of tiny.py and seq2seq.py.

Every item goes through the model alone. Patterns are transformers' own (output_attentions); their scores are counted cell by cell.
A direct effect is measured by a whole run in which the outputs of all other sublayers (attention's projections, and the
feed-forward parts' last matrices) are replaced by those of the unablated run. Norms are of what the layers are given.

usage: observed.py JOB.json FOLDER    (writes FOLDER/NAME/{config.json,model.safetensors} and FOLDER/NAME.json)

JOB: {"cases": {name: [name of a task, ...]}, "tasks": {name: prepared}, "donors": {name of a task: [item, ...]}}
NAME.json: {name of a task: {"attention": {column: [head][item]}, "patterns": [head][item][query][key],
            "direct": {method: [head][example]}, "shift": {method: {"norm" | "largest": [none, all, head, ...][point]}}}}
"""

import json
import math
import re
import sys
from pathlib import Path

import gradients
import seq2seq
import tiny
import torch

DOWN = re.compile(r"(mlp\.(down_proj|c_proj|dense_4h_to_h)|fc2|ffn\.lin2|ffn_output|DenseReluDense\.wo|(?<!attention\.)output\.dense)$")
LAYER = re.compile(r"(?:^|\.)(?:layers|layer|h|albert_layers|block)\.\d+$")
DIRECT = ("zero", "half", "mean", "resample")
SHIFTED = ("zero", "half", "mean-position", "resample")
COLUMNS = ("confidence", "entropy", "first_token", "previous_token", "duplicate_token", "induction", "rollout")


class Observed:
    """What both sorts of model share: `calls` counts how often each sort of module has run."""

    def watch(self, projections, layers, crosses=()):
        """projections: (place among the attentions, module); layers: (side, module)."""
        self.mode, self.kept, self.change, self.cut, self.streams = None, None, None, None, None
        self.calls = {}
        downs = [m for n, m in self.model.named_modules() if DOWN.search(n) and isinstance(m, torch.nn.Module)]
        assert downs
        for at, module in projections:
            module.register_forward_pre_hook(lambda _, args, at=at: self.on_z(at, args))
            module.register_forward_hook(lambda _, args, out, at=at: self.on_out(("attention", at), out))
        for at, module in enumerate(downs):
            module.register_forward_hook(lambda _, args, out, at=at: self.on_out(("feed", at), out))
        for side, module in layers:
            module.register_forward_pre_hook(lambda _, a, k, side=side: self.on_layer(side, a, k), with_kwargs=True)
            module.register_forward_hook(lambda _, a, out, side=side: self.on_end(side, out))
        for module in crosses:
            module.register_forward_pre_hook(lambda _, a, k: self.on_layer("decoder", a, k), with_kwargs=True)

    def count(self, key):
        self.calls[key] = self.calls.get(key, -1) + 1
        return self.calls[key]

    def on_z(self, at, args):
        (z,) = args
        at = self.place(at, self.count(("z", at)))
        shape, z = z.shape, z.reshape(-1, z.shape[-1])
        if self.mode == "keep":
            self.zs[at] = z.clone()
        if self.change is not None and at == self.change[0]:
            z = z + self.change[1]
            return (z.reshape(shape),)
        if self.cut is not None and at in self.cut:
            z = z.clone()
            width = z.shape[-1] // self.heads
            for head in self.cut[at]:
                part = slice(head * width, (head + 1) * width)
                z[:, part] = self.put(at, z)[:, part]
            return (z.reshape(shape),)
        return None

    def on_out(self, key, out):
        place = (*key, self.count(key))
        if self.mode == "keep":
            self.kept[place] = out.clone()
        elif self.mode == "frozen":
            if key[0] == "attention" and self.place(key[1], place[-1]) == self.change[0]:
                return None
            return self.kept[place]
        return None

    def on_layer(self, side, args, kwargs):
        if self.streams is not None:
            x = args[0] if args else kwargs["hidden_states"]
            self.streams.append((side, x[0].norm(dim=-1)))

    def on_end(self, side, out):
        x = out[0] if isinstance(out, tuple) else out
        x = x[0] if x.dim() == 3 else x
        self.end[side] = x.norm(dim=-1)

    def forward(self, item):
        self.calls, self.end = {}, {}
        return self.finals(item)

    def unablated(self, item):
        """Final values, z by attention, and all outputs of sublayers."""
        self.mode, self.kept, self.zs = "keep", {}, {}
        final = self.forward(item)
        self.mode = None
        return final, [self.zs[at] for at in self.order], self.kept

    def direct(self, item, kept, at, change):
        self.mode, self.kept, self.change = "frozen", kept, (at, change)
        final = self.forward(item)
        self.mode, self.change = None, None
        return final

    def norms(self, item, cut, put):
        """Summed norms of each point of the residual stream, with the number of its tokens."""
        self.cut, self.put, self.streams = cut, put, []
        self.forward(item)
        points, self.cut, self.streams = self.streams, None, None
        sides = [side for side, _ in points]
        for side in dict.fromkeys(sides):
            last = len(points) - [s for s, _ in reversed(points)].index(side)
            points.insert(last, (side, self.end[side]))
        return [(float(x.sum()), len(x)) for _, x in points]


class Plain(Observed, tiny.Tiny):
    def __init__(self, name, folder, job):
        tiny.Tiny.__init__(self, name, folder, job)
        found = [m for n, m in self.model.named_modules()
                 if n.endswith(tiny.PROJECTIONS) and ".mlp." not in n and not n.startswith("classifier")]
        self.shared = len(found) == 1 < self.layers
        self.order = list(range(self.layers))
        layers = [("self", m) for n, m in self.model.named_modules() if LAYER.search(n) and "albert_layer_groups" not in n
                  or re.search(r"albert_layers\.\d+$", n)]
        self.watch(list(enumerate(found)), layers)

    def hook(self, _, args):
        return None

    def place(self, at, call):
        return call if self.shared else at

    def finals(self, item):
        tokens = torch.tensor([item["tokens"]])
        out = self.model(input_ids=tokens, attention_mask=torch.ones_like(tokens))
        return (out.logits if "logits" in out else out.last_hidden_state)[0]

    def weights(self, item):
        self.calls = {}
        tokens = torch.tensor([item["tokens"]])
        out = self.model(input_ids=tokens, attention_mask=torch.ones_like(tokens), output_attentions=True)
        return [("self", a[0]) for a in out.attentions]


class Twofold(Observed, seq2seq.Model):
    def __init__(self, path):
        seq2seq.Model.__init__(self, path)
        modules = dict(self.model.named_modules())
        projections, layers, crosses = [], [], []
        for name, module in modules.items():
            if found := seq2seq.PROJECTION.search(name):
                side, layer, kind = found.groups()
                stream = "cross" if kind in ("encoder_attn", "EncDecAttention") else side
                projections.append(((stream, int(layer)), module))
            if re.search(r"(encoder|decoder)\.(layers|block)\.\d+$", name):
                layers.append(("encoder" if "encoder." in name else "decoder", module))
            # What stands between the two attentions of a decoder's layer reads the stream there.
            if name.endswith("encoder_attn") or re.search(r"decoder\.block\.\d+\.layer\.1$", name):
                crosses.append(module)
        order = ["encoder", "decoder", "cross"]
        self.order = sorted((at for at, _ in projections), key=lambda at: (order.index(at[0]), at[1]))
        self.watch(projections, layers, crosses)

    def hook(self, _, args):
        return None

    def place(self, at, call):
        assert call == 0
        return at

    def finals(self, item):
        return self.logits(item["tokens"], item["decoder"])

    def weights(self, item):
        self.calls = {}
        out = self.model(input_ids=torch.tensor([item["tokens"]]), decoder_input_ids=torch.tensor([item["decoder"]]),
                         attention_mask=torch.ones(1, len(item["tokens"]), dtype=torch.long), use_cache=False,
                         output_attentions=True)
        by = {"encoder": out.encoder_attentions, "decoder": out.decoder_attentions, "cross": out.cross_attentions}
        return [(stream, by[stream][layer][0]) for stream, layer in self.order]


def cells(stream, a, tokens):
    """The first six columns of one head's pattern `a [query][key]`, counted cell by cell."""
    sums = [0.0] * 6
    cross = stream == "cross"
    for q, row in enumerate(a):
        sums[0] += max(row)
        sums[1] -= sum(x * math.log(x) for x in row if x > 0)
        if q > 0 or cross:
            sums[2] += row[0]
        if cross:
            continue
        if q > 0:
            sums[3] += row[q - 1]
        for p in range(q):
            if tokens[p] == tokens[q]:
                sums[4] += row[p]
                sums[5] += row[p + 1]
    return sums


def rollout(weights, item):
    """Flow that each head moves, attention by attention (the order of `weights`), by following every path's mean."""
    last = item["decoder"] or item["tokens"]
    places = sorted({s["position"] for s in item["scored"]}) or range(len(last))
    here = [1 / len(places) if p in places else 0.0 for p in range(len(last))]
    there = [0.0] * len(item["tokens"])
    encoder = [at for at, (s, _) in enumerate(weights) if s == "encoder"]
    decoder = [at for at, (s, _) in enumerate(weights) if s == "decoder"]
    cross = [at for at, (s, _) in enumerate(weights) if s == "cross"]
    order = [at for pair in zip(reversed(cross), reversed(decoder), strict=True) for at in pair] + encoder[::-1]
    moved = {}
    for at in order or range(len(weights) - 1, -1, -1):
        stream, a = weights[at]
        if stream == "encoder" and at == encoder[-1]:
            here = there
        heads = len(a)
        moved[at] = [sum(here[q] * a[h][q][k] for q in range(len(here)) for k in range(len(a[h][q]))
                         if stream == "cross" or k != q) / (2 * heads) for h in range(heads)]
        mean = [[sum(a[h][q][k] for h in range(heads)) / heads for k in range(len(a[0][q]))] for q in range(len(here))]
        sent = [sum(here[q] * mean[q][k] for q in range(len(here))) / 2 for k in range(len(mean[0]))]
        half = [w / 2 for w in here]
        if stream == "cross":
            here, there = half, [a + b for a, b in zip(there, sent, strict=True)]
        else:
            here = [a + b for a, b in zip(half, sent, strict=True)]
    return [moved[at] for at in range(len(weights))]


def attention(model, task):
    result, patterns = {c: [] for c in COLUMNS}, []
    for item in task["items"]:
        weights = [(stream, a.tolist()) for stream, a in model.weights(item)]
        flow = rollout(weights, item)
        rows, own = [], []
        for (stream, heads), moved in zip(weights, flow, strict=True):
            tokens = item["decoder"] if stream == "decoder" else item["tokens"]
            for a, m in zip(heads, moved, strict=True):
                rows.append([*cells(stream, a, tokens), m])
                own.append(a)
        patterns.append(own)
        for c, column in enumerate(COLUMNS):
            result[column].append([row[c] for row in rows])
    turn = lambda table: [list(of_head) for of_head in zip(*table, strict=True)]
    return {c: turn(v) for c, v in result.items()}, turn(patterns)


def scores(task, finals):
    """The first column of the task's scores, by example."""
    if task["kind"] == "similarity":
        e = [x.mean(0) for x in finals]
        return [float(e[p["a"]] @ e[p["b"]] / (e[p["a"]].norm() * e[p["b"]].norm())) for p in task["examples"]]
    sign = -1 if task["kind"] in ("logit_difference", "greater_than") else 1
    return [sign * float(loss) for loss, _, _ in gradients.rows(task, finals)]


def every_head(model):
    """(place among the attentions, head), in Ablate's order."""
    return [(layer, head) for layer in range(len(model.order)) for head in range(model.heads)]


def direct(model, task, seen, changes, methods=DIRECT, heads=None):
    result = {}
    for method in methods:
        result[method] = []
        for layer, head in heads or every_head(model):
            finals = []
            for i, item in enumerate(task["items"]):
                _, zs, kept = seen[i]
                width = zs[layer].shape[-1] // model.heads
                part = slice(head * width, (head + 1) * width)
                change = torch.zeros_like(zs[layer])
                change[:, part] = changes[method][i][layer][:, part]
                finals.append(model.direct(item, kept, model.order[layer], change))
            result[method].append(scores(task, finals))
    return result


def shift(model, task, seen, changes, methods=SHIFTED, heads=None):
    result = {}
    every = {at: list(range(model.heads)) for at in model.order}
    heads = [{model.order[layer]: [head]} for layer, head in heads or every_head(model)]
    for method in methods:
        norms, largest = [], []
        base = None
        for cut in [{}, every, *heads]:
            each = []
            for i, item in enumerate(task["items"]):
                def put(at, z, i=i):
                    layer = model.order.index(at)
                    if method == "half":
                        return z / 2
                    return seen[i][1][layer] + changes[method][i][layer]
                each.append(model.norms(item, cut, put))
            base = base or each
            points = range(len(each[0]))
            norms.append([sum(e[p][0] for e in each) / sum(e[p][1] for e in each) for p in points])
            largest.append([max(e[p][0] / b[p][0] for e, b in zip(each, base, strict=True)) for p in points])
        result[method] = {"norm": norms, "largest": largest}
    return result


def answer(model, task, donors):
    for item in task["items"]:
        item.setdefault("decoder", [])
    seen = [model.unablated(item) for item in task["items"]]
    changes = gradients.changes([zs for _, zs, _ in seen], donors)
    scored, patterns = attention(model, task)
    return {"attention": scored, "patterns": patterns, "direct": direct(model, task, seen, changes),
            "shift": shift(model, task, seen, changes)}


def main():
    job, folder = json.loads(Path(sys.argv[1]).read_text()), Path(sys.argv[2])
    twofold = [name for name in job["cases"] if name in seq2seq.CASES]
    for name in twofold:
        seq2seq.make(name, folder / name)
    # Files may hold float32: they are read before that stands for float64.
    models = {name: Twofold(folder / name) for name in twofold}
    seq2seq.buckets_as_trained()
    tiny.double_throughout()
    with torch.no_grad():
        for name, tasks in job["cases"].items():
            model = models.get(name) or Plain(name, folder / name, job)
            result = {task: answer(model, job["tasks"][task], job["donors"][task]) for task in tasks}
            (folder / f"{name}.json").write_text(json.dumps(result))


if __name__ == "__main__":
    main()

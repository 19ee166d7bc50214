"""The reference of the parity tests: Hugging Face transformers in f64 (or f32) on the same weights.

Heads are ablated by forward pre-hooks on each attention output projection, which replace slices of its
input z. transformers' Llama computes norms, rotary tables and eager softmax in float32 even in an f64
model; these are patched to the model's own format, and the cross-entropy is taken from the logits here.
No padding: only items of equal length go through the model together. One thing is shared, for time: layers
before the first ablated one return what they returned without ablation (`Recorded`), which
is checked to be the same, bit for bit, as computing them, each time the reference runs.

usage: reference.py JOB.json RESULT.json

JOB: {"model": {"kind": "gguf" | "hf", "path"}, "dtype": "f64" | "f32",
      "ablation": "zero" | "mean" | "resample", "donors": [[token, ...], ...] (resample: for each item as many
      tokens as its own, whose z takes its place), "prepared": {kind, items, item_half, examples},
      "subsets": [[[layer, head], ...], ...],
      "greedy": {"rounds", "half", "among": [[layer, head], ...] (optional: of these only)} (optional: brute force,
      objective loss / -logit_diff / -pearson)}
RESULT: {"columns": {name: [subset][example]}, "removed": [[layer, head], ...]}
"""

import json
import sys
from pathlib import Path

import lean_torch  # noqa: F401  (must come before torch)
import torch
import transformers
from transformers.models.bert import modeling_bert
from transformers.models.llama import modeling_llama


def rms_norm(self, x):
    return self.weight * (x * torch.rsqrt(x.pow(2).mean(-1, keepdim=True) + self.variance_epsilon))


def rotary(self, x, position_ids=None, **_):
    head_dim = getattr(self.config, "head_dim", None) or self.config.hidden_size // self.config.num_attention_heads
    parameters = getattr(self.config, "rope_parameters", None) or {}
    theta = parameters.get("rope_theta") or self.config.rope_theta
    frequency = 1.0 / theta ** (torch.arange(0, head_dim, 2, dtype=torch.float64) / head_dim)
    angle = position_ids[..., None].to(torch.float64) * frequency
    angle = torch.cat((angle, angle), dim=-1)
    return angle.cos().to(x.dtype), angle.sin().to(x.dtype)


def eager(module, query, key, value, attention_mask, scaling=None, dropout=0.0, **_):
    groups = query.shape[1] // key.shape[1]
    key, value = key.repeat_interleave(groups, 1), value.repeat_interleave(groups, 1)
    scores = query @ key.transpose(2, 3) * (scaling if scaling is not None else query.shape[-1] ** -0.5)
    if attention_mask is not None:
        scores = scores + attention_mask[:, :, :, : key.shape[2]]
    weights = torch.softmax(scores, dim=-1)
    return (weights @ value).transpose(1, 2).contiguous(), weights


modeling_llama.LlamaRMSNorm.forward = rms_norm
modeling_llama.LlamaRotaryEmbedding.forward = rotary
modeling_llama.eager_attention_forward = eager
modeling_bert.eager_attention_forward = eager


GROUP = 16  # items that go through the model together, at most


class Recorded:
    """A layer that can return what it returned earlier instead of computing it."""

    def __init__(self, layer):
        self.compute = layer.forward
        self.key = None
        self.skip = False
        self.outputs = {}
        layer.forward = self

    def __call__(self, *args, **kwargs):
        if self.skip:
            return self.outputs[self.key]
        out = self.compute(*args, **kwargs)
        if self.key is not None and self.key not in self.outputs:
            self.outputs[self.key] = out
        return out


class Reference:
    def __init__(self, job):
        dtype = {"f64": torch.float64, "f32": torch.float32}[job["dtype"]]
        path = Path(job["model"]["path"])
        if job["model"]["kind"] == "gguf":
            model = transformers.AutoModelForCausalLM.from_pretrained(
                str(path.parent), gguf_file=path.name, attn_implementation="eager", dtype=torch.float32)
            self.layers = model.model.layers
            self.projections = [layer.self_attn.o_proj for layer in self.layers]
        else:
            model = transformers.AutoModel.from_pretrained(
                str(path), attn_implementation="eager", dtype=torch.float32)
            self.layers = model.encoder.layer
            self.projections = [layer.attention.output.dense for layer in self.layers]
        self.model = model.to(dtype).eval()
        self.heads = model.config.num_attention_heads
        self.width = self.projections[0].in_features // self.heads
        self.prepared = job["prepared"]
        self.ablation = job["ablation"]
        self.donors, self.states, self.group = job.get("donors"), {}, None
        self.removed = {}
        self.seen = None
        for layer, projection in enumerate(self.projections):
            projection.register_forward_pre_hook(lambda _, args, layer=layer: self.hook(layer, args))
        self.recorded = [Recorded(layer) for layer in self.layers]
        self.means = None
        with torch.no_grad():
            self.measure_means()
            self.check_shortcut()

    def hook(self, layer, args):
        (z,) = args
        if self.seen is not None:
            self.seen[layer].append(z.clone())
        heads = self.removed.get(layer)
        if not heads:
            return None
        z = z.clone()
        for head in heads:
            part = slice(head * self.width, (head + 1) * self.width)
            if self.states:
                z[..., part] = self.states[self.group][layer][..., part]
            else:
                z[..., part] = 0.0 if self.means is None else self.means[layer][part]
        return (z,)

    def groups(self, items):
        """Items of equal length, in groups."""
        by_length = {}
        for item in items:
            by_length.setdefault(len(self.prepared["items"][item]["tokens"]), []).append(item)
        return [tuple(same[at : at + GROUP]) for same in by_length.values() for at in range(0, len(same), GROUP)]

    def measure_means(self):
        """Records every layer without ablation; E[z] of every head over all tokens of all items."""
        self.seen = [[] for _ in self.projections]
        for group in self.groups(range(len(self.prepared["items"]))):
            self.forward(group, shortcut=True)
        if self.ablation == "mean":
            flat = [torch.cat([z.flatten(0, 1) for z in zs]) for zs in self.seen]
            self.means = [zs.to(torch.float64).mean(0).to(zs.dtype) for zs in flat]
        if self.ablation == "resample":
            for group in self.groups(range(len(self.prepared["items"]))):
                self.seen = [[] for _ in self.projections]
                self.forward(group, shortcut=False, tokens=[self.donors[item] for item in group])
                self.states[group] = [zs[0] for zs in self.seen]
        self.seen = None

    def check_shortcut(self):
        group = self.groups(range(len(self.prepared["items"])))[0]
        self.removed = {len(self.layers) // 2: [0]}
        whole, short = self.forward(group, shortcut=False), self.forward(group, shortcut=True)
        self.removed = {}
        if not all(torch.equal(w, s) for w, s in zip(whole, short, strict=True)):
            raise AssertionError("recorded layers change the result")

    def forward(self, group, shortcut, tokens=None):
        """Final states (embedding models) or logits at the items' scored positions, an item each."""
        self.group = group
        tokens = torch.tensor(tokens or [self.prepared["items"][item]["tokens"] for item in group])
        first = min(self.removed, default=0)
        for at, layer in enumerate(self.recorded):
            layer.key = group if shortcut and (at < first or not self.removed) else None
            layer.skip = shortcut and at < first and group in layer.outputs
        inputs = {"input_ids": tokens, "attention_mask": torch.ones_like(tokens), "use_cache": False}
        if not hasattr(self.model, "lm_head"):
            del inputs["use_cache"]
            return list(self.model(**inputs).last_hidden_state)
        scored = [[s["position"] for s in self.prepared["items"][item]["scored"]] for item in group]
        asked = sorted({position for positions in scored for position in positions})
        logits = self.model(**inputs, logits_to_keep=torch.tensor(asked)).logits
        return [row[[asked.index(p) for p in positions]] for row, positions in zip(logits, scored, strict=True)]

    @torch.no_grad()
    def scores(self, subset, items=None):
        """Columns of per-example scores for one subset; examples whose items aren't run are left out."""
        self.removed = {}
        for layer, head in subset:
            self.removed.setdefault(layer, []).append(head)
        kind = self.prepared["kind"]
        finals = {}
        for group in self.groups(range(len(self.prepared["items"])) if items is None else items):
            finals.update(zip(group, self.forward(group, shortcut=True), strict=True))
        self.removed = {}
        examples = [e for e in self.prepared["examples"] if e["a"] in finals and e["b"] in finals]
        if kind == "similarity":
            pooled = {i: x.mean(0).to(torch.float64) for i, x in finals.items()}
            return {"cosine": [
                float(torch.nn.functional.cosine_similarity(pooled[e["a"]], pooled[e["b"]], dim=0)) for e in examples]}
        if kind == "greater_than":
            sums = []
            for e in examples:
                p = torch.softmax(finals[e["a"]].to(torch.float64), 1)
                scored = enumerate(self.prepared["items"][e["a"]]["scored"])
                sums.append(float(sum(p[i, s["target"]] * (1 if s["foil"] else -1) for i, s in scored)))
            return {"prob_diff": sums}
        if kind in ("ioi", "logit_difference"):
            diffs = []
            for e in examples:
                (s,) = self.prepared["items"][e["a"]]["scored"]
                row = finals[e["a"]][0]
                diffs.append(float(row[s["target"]] - row[s["foil"]]))
            return {"logit_diff": diffs}
        nll, correct = [], []
        for e in examples:
            logits = finals[e["a"]]
            target = torch.tensor([s["target"] for s in self.prepared["items"][e["a"]]["scored"]])
            picked = logits.gather(1, target[:, None])[:, 0]
            nll.append(float((torch.logsumexp(logits, 1) - picked).to(torch.float64).sum()))
            correct.append(float((logits.argmax(1) == target).sum()))
        return {"nll": nll, "correct": correct}

    def loss(self, subset, items):
        columns = self.scores(subset, items)
        chosen = [e for e in self.prepared["examples"] if e["a"] in items and e["b"] in items]
        if "nll" in columns:
            tokens = sum(len(self.prepared["items"][e["a"]]["scored"]) for e in chosen)
            return sum(columns["nll"]) / tokens
        if "logit_diff" in columns:
            return -sum(columns["logit_diff"]) / len(chosen)
        both = torch.tensor([columns["cosine"], [e["gold"] for e in chosen]], dtype=torch.float64)
        return -float(torch.corrcoef(both)[0, 1])

    def greedy(self, rounds, half, among=None):
        items = [i for i, h in enumerate(self.prepared["item_half"]) if half is None or h == half]
        removed = []
        base = self.loss([], items)
        every = [(layer, head) for layer in range(len(self.projections)) for head in range(self.heads)
                 if among is None or [layer, head] in among]
        for _ in range(rounds):
            deltas = [(h, self.loss([*removed, h], items) - base) for h in every if h not in removed]
            limit = min(d for _, d in deltas) + 1e-6 * max(1.0, abs(base))
            removed.append(next(h for h, d in deltas if d <= limit))
        return removed


def main():
    job = json.loads(Path(sys.argv[1]).read_text())
    reference = Reference(job)
    result = {"columns": {}, "removed": []}
    with torch.no_grad():
        for subset in job["subsets"]:
            for name, values in reference.scores(subset).items():
                result["columns"].setdefault(name, []).append(values)
        if job.get("greedy"):
            result["removed"] = reference.greedy(**job["greedy"])
    Path(sys.argv[2]).write_text(json.dumps(result))


if __name__ == "__main__":
    main()

"""Constants of optimal ablation by PyTorch's autograd and its own Adam, in f64, on the tiny models of tiny.py and seq2seq.py.

Every item goes through the model alone. A pre-hook on an output projection puts one vector in place of one head's part of
its input z, at every position of every item. It begins at the mean of z over all tokens; the learning rate is `rate` times the root mean square of the
head's z; of the vectors seen, the one with the lowest loss over all examples stays. Subsets are then run with the vectors
of their heads, each fitted alone.

usage: optimal.py JOB.json FOLDER    (writes FOLDER/NAME/{config.json,model.safetensors} and FOLDER/NAME.json)

JOB: {"cases": {name: [name of a task, ...]}, "tasks": {name: prepared}, "steps": number, "rate": number,
      "subsets": {name: [[number of a head, ...], ...]}}
NAME.json: {name of a task: {"fits": [head]{"nothing", "mean", "fitted", "step", "constant"},
            "scores": [subset][example], for similarity cosines, else losses}}
"""

import json
import sys
from pathlib import Path

import gradients
import seq2seq
import tiny
import torch


class Replacing:
    """What both kinds of model do at an attention's input: `place` names it."""

    def replaced(self, place, z):
        z = z if not self.given else z.clone()
        width = z.shape[-1] // self.heads
        for head, b in self.given.get(place, []):
            z[..., head * width:(head + 1) * width] = b
        return (z,)

    def finals(self, items, given):
        """Logits or last hidden states with `given` {place: [(head of the place, vector), ...]}, and z as it was seen."""
        self.given = given
        return zip(*(self.run(item) for item in items), strict=True)


class Decoderless(Replacing, gradients.Decoderless):
    def hook(self, _, args):
        place, self.call = self.call, self.call + 1
        self.zs.append(args[0])
        return self.replaced(place, args[0])


class EncoderDecoder(Replacing, gradients.EncoderDecoder):
    def hook(self, at, args):
        self.zs[at] = args[0]
        order = sorted(self.places, key=lambda at: (["encoder", "decoder", "cross"].index(at[0]), at[1]))
        return self.replaced(order.index(at), args[0])


def loss(task, finals):
    """Over all examples, weighed by their scored tokens where each is one of many."""
    rows = gradients.rows(task, finals)
    if task["kind"] == "similarity":
        return rows[0][0]
    summed = task["kind"] in ("language_modeling", "masked_lm", "seq2seq")
    weights = [len(task["items"][among[0]]["scored"]) if summed else 1 for _, among, _ in rows]
    return sum(row[0] for row in rows) / sum(weights)


def scores(task, finals):
    if task["kind"] == "similarity":
        e = [x.mean(0) for x in finals]
        return [float(torch.cosine_similarity(e[p["a"]], e[p["b"]], 0)) for p in task["examples"]]
    return [float(row[0]) for row in gradients.rows(task, finals)]


def fit(model, task, place, head, z, nothing, job):
    size = z.square().mean().sqrt().item()
    b = z.mean(0).clone().requires_grad_()
    adam = torch.optim.Adam([b], lr=job["rate"] * (size or 1.0))
    best = {"nothing": nothing, "fitted": float("inf")}
    for step in range(job["steps"] + 1):
        finals, _ = model.finals(task["items"], {place: [(head, b)]})
        at = loss(task, finals)
        value = at.item()
        best.setdefault("mean", value)
        if value < best["fitted"]:
            best.update(fitted=value, step=step, constant=b.tolist())
        if step < job["steps"]:
            (b.grad,) = torch.autograd.grad(at, [b])
            adam.step()
    return best


def answer(model, task, subsets, job):
    with torch.no_grad():
        finals, zs = model.finals(task["items"], {})
        nothing = float(loss(task, finals))
        flat = [torch.cat([own[place].reshape(-1, own[place].shape[-1]) for own in zs]) for place in range(len(zs[0]))]
    fits = []
    for place, z in enumerate(flat):
        for head, part in enumerate(z.split(z.shape[-1] // model.heads, 1)):
            fits.append(fit(model, task, place, head, part, nothing, job))
    out = []
    with torch.no_grad():
        for subset in subsets:
            given = {}
            for head in subset:
                given.setdefault(head // model.heads, []).append(
                    (head % model.heads, torch.tensor(fits[head]["constant"])))
            finals, _ = model.finals(task["items"], given)
            out.append(scores(task, finals))
    return {"fits": fits, "scores": out}


def main():
    job, folder = json.loads(Path(sys.argv[1]).read_text()), Path(sys.argv[2])
    twofold = [name for name in job["cases"] if name in seq2seq.CASES]
    for name in twofold:
        seq2seq.make(name, folder / name)
    models = {name: EncoderDecoder(folder / name) for name in twofold}
    seq2seq.buckets_as_trained()
    tiny.double_throughout()
    for name, tasks in job["cases"].items():
        model = models.get(name) or Decoderless(name, folder / name, job)
        model.model.requires_grad_(False)
        result = {task: answer(model, job["tasks"][task], job["subsets"][name], job) for task in tasks}
        (folder / f"{name}.json").write_text(json.dumps(result))


if __name__ == "__main__":
    main()

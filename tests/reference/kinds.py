"""Every way of replacing z, as transformers computes it in f64 on tiny random models.

The models are those of tiny.py. b is taken from whole unablated runs, an item at a time, and put in z's place
by the same pre-hooks; sets of heads are all that a unit is here.

usage: kinds.py JOB.json FOLDER    (writes FOLDER/NAME/{config.json,model.safetensors} and FOLDER/NAME.json)

JOB: tiny.py's items, targets, foils and subsets, and
     {"cases": [name, ...], "methods": {name: {"scale": number} or {"pool": "tokens" | "position"} or
      {"donors": [number of the donor, ...]}, each of the last two with "reference": [[token, ...], ...]}}
NAME.json: {name of a method: {column: [subset][example]}}
"""

import json
import sys
from pathlib import Path

import tiny
import torch


class Kinds(tiny.Tiny):
    def hook(self, _, args):
        (z,) = args
        layer, self.call = self.call, self.call + 1
        if self.seen is not None:
            self.seen[layer].append(z[0].clone())
        heads = self.removed.get(layer)
        if not heads:
            return None
        new, width = z.clone(), z.shape[-1] // self.heads
        for head in heads:
            part = slice(head * width, (head + 1) * width)
            new[0, :, part] = self.replaced(layer, z[0])[:, part]
        return (new,)

    def replaced(self, layer, z):
        """ẑ of all heads of the layer, [position, heads · width]."""
        if "scale" in self.method:
            return self.method["scale"] * z
        if (layer, self.item) not in self.measured:
            self.measured[layer, self.item] = self.measure(self.states[layer], z)
        return self.measured[layer, self.item]

    def measure(self, seen, z):
        if "donors" in self.method:
            donor = seen[self.method["donors"][self.item]]
            return torch.stack([donor[min(p, len(donor) - 1)] for p in range(len(z))])
        if self.method["pool"] == "tokens":
            return torch.cat(seen).mean(0).expand_as(z)
        return torch.stack([torch.stack([s[p] for s in seen if len(s) > p]).mean(0) for p in range(len(z))])

    def final(self, item, subset=()):
        self.item = item
        return super().final(item, subset)

    def ask(self, method):
        self.measured = {}
        self.method, own = method, self.job["items"]
        if "reference" in method:
            self.job["items"], self.seen = method["reference"], [[] for _ in range(self.layers)]
            for item in range(len(method["reference"])):
                self.final(item)
            self.states, self.seen, self.job["items"] = self.seen, None, own
        each = [self.scores(subset) for subset in self.job["subsets"]]
        return {k: [e[k] for e in each] for k in each[0]}


def main():
    job, folder = json.loads(Path(sys.argv[1]).read_text()), Path(sys.argv[2])
    tiny.double_throughout()
    with torch.no_grad():
        for name in job["cases"]:
            model = Kinds(name, folder / name, job)
            result = {name: model.ask(method) for name, method in job["methods"].items()}
            (folder / f"{name}.json").write_text(json.dumps(result))


if __name__ == "__main__":
    main()

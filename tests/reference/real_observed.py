"""What observed.py measures, in f64 on real models, for the items that Ablate prepared.

usage: real_observed.py JOB.json RESULT.json

JOB: {name: {"path", "family": "llama" | "encoder", "prepared": {kind, items, examples}, "heads": [[layer, head], ...],
             "reference": [item, ...]}}
RESULT: {name: {"attention", "patterns", "direct", "shift", as observed.py has them, of zero ablation, direct effects and norms of `heads` only,
                "reference": mean norms [point] of the unablated model on the reference items}}
"""

import json
import sys
from pathlib import Path

import gradients
import lean_torch  # noqa: F401
import observed
import seq2seq
import tiny
import torch
import transformers
from real_gradients import PROJECTIONS


class Real(observed.Observed):
    def __init__(self, case):
        path = Path(case["path"])
        kind = transformers.AutoModelForCausalLM if case["family"] == "llama" else transformers.AutoModel
        where = {"pretrained_model_name_or_path": str(path)} if path.is_dir() else {
            "pretrained_model_name_or_path": str(path.parent), "gguf_file": path.name}
        self.model = kind.from_pretrained(**where, attn_implementation="eager", dtype=torch.float32).double().eval()
        self.heads, layers = self.model.config.num_attention_heads, self.model.config.num_hidden_layers
        named = list(self.model.named_modules())
        found = [m for n, m in named if n.endswith(PROJECTIONS)]
        assert len(found) == layers
        self.order = list(range(layers))
        self.watch(list(enumerate(found)), [("self", m) for n, m in named if observed.LAYER.search(n)])

    def place(self, at, call):
        assert call == 0
        return at

    def output(self, item, **more):
        return self.model(input_ids=torch.tensor([item["tokens"]]), **more)

    def finals(self, item):
        out = self.output(item)
        return (out.logits if "logits" in out else out.last_hidden_state)[0]

    def weights(self, item):
        self.calls = {}
        return [("self", a[0]) for a in self.output(item, output_attentions=True).attentions]


def main():
    job = json.loads(Path(sys.argv[1]).read_text())
    models = {name: Real(case) for name, case in job.items()}
    seq2seq.buckets_as_trained()
    tiny.double_throughout()
    result = {}
    with torch.no_grad():
        for name, model in models.items():
            case, task = job[name], job[name]["prepared"]
            if task["kind"] == "ioi":
                task["kind"] = "logit_difference"
            for item in [*task["items"], *case["reference"]]:
                item.setdefault("decoder", [])
            seen = [model.unablated(item) for item in task["items"]]
            changes = gradients.changes([zs for _, zs, _ in seen], list(range(len(seen))))
            scored, patterns = observed.attention(model, task)
            norms = [model.norms(item, {}, None) for item in case["reference"]]
            means = [sum(e[p][0] for e in norms) / sum(e[p][1] for e in norms) for p in range(len(norms[0]))]
            result[name] = {
                "attention": scored, "patterns": patterns, "reference": means,
                "direct": observed.direct(model, task, seen, changes, ("zero",), case["heads"]),
                "shift": observed.shift(model, task, seen, changes, ("zero",), case["heads"])}
    Path(sys.argv[2]).write_text(json.dumps(result))


if __name__ == "__main__":
    main()

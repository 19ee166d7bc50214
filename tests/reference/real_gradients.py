"""Gradients at every head's z by PyTorch's autograd in f64, on real models, for the items that Ablate prepared.

usage: real_gradients.py JOB.json RESULT.json

JOB: {name: {"path", "family": "llama" | "encoder" | "masked" | "classes" | "images" | "seq2seq",
             "prepared": {kind, items, examples, probe}, "images": [file, ...] (of each item)}}
RESULT: {name: {"gradient" | "zero" | "mean" | ...: [head][row]}}, as gradients.py has them; donors are the items themselves

A probe is scikit-learn's logistic regression of the unablated embeddings of the probe's own items.
"""

import json
import sys
from pathlib import Path

import gradients
import images
import lean_torch  # noqa: F401
import numpy
import seq2seq
import tiny
import torch
import transformers
from reference import eager
from sklearn.linear_model import LogisticRegression
from transformers.models.albert import modeling_albert

modeling_albert.eager_attention_forward = eager
# What a head's output projection is called.
PROJECTIONS = ("self_attn.o_proj", "attention.output.dense", "attention.dense")


class Real:
    def __init__(self, case):
        path, family = Path(case["path"]), case["family"]
        kind = {"llama": transformers.AutoModelForCausalLM, "encoder": transformers.AutoModel,
                "masked": transformers.AutoModelForMaskedLM,
                "classes": transformers.AutoModelForSequenceClassification}[family]
        where = {"pretrained_model_name_or_path": str(path)} if path.is_dir() else {
            "pretrained_model_name_or_path": str(path.parent), "gguf_file": path.name}
        self.model = kind.from_pretrained(**where, attn_implementation="eager", dtype=torch.float32).double().eval()
        config = self.model.config
        self.heads, self.layers, self.probe = config.num_attention_heads, config.num_hidden_layers, None
        found = [m for n, m in self.model.named_modules() if n.endswith(PROJECTIONS)]
        assert len(found) in (1, self.layers), len(found)
        for projection in found:
            projection.register_forward_pre_hook(lambda _, args: self.zs.append(args[0]))
        if probe := case["prepared"].get("probe"):
            with torch.no_grad():
                seen = [self.final(item)[0].mean(0) for item in probe["items"]]
            fit = LogisticRegression(C=1.0, tol=1e-12, max_iter=100_000, solver="newton-cholesky")
            fit.fit(numpy.array([x.tolist() for x in seen]), probe["labels"])
            weight, bias = torch.tensor(fit.coef_), torch.tensor(fit.intercept_)
            # Of two labels scikit-learn has the logit of the second.
            self.probe = (torch.cat((0 * weight, weight)), torch.cat((0 * bias, bias))) if len(bias) == 1 else (weight, bias)

    def final(self, item):
        self.zs = []
        out = self.model(input_ids=torch.tensor([item["tokens"]]))
        out = out.logits[0] if "logits" in out else out.last_hidden_state[0]
        assert out.dtype == torch.float64 and len(self.zs) == self.layers
        return out, self.zs

    def run(self, item):
        out, zs = self.final(item)
        if self.probe:
            out = self.probe[0] @ out.mean(0) + self.probe[1]
        return out, zs


class Images(images.Asked):
    def __init__(self, case):
        super().__init__(case)
        files = iter(case["images"])
        for item in case["prepared"]["items"]:
            item["pixels"] = self.pixels(next(files))

    def hook(self, _, args):
        self.call += 1
        self.zs.append(args[0])

    def run(self, item):
        self.zs = []
        return self.final(item["pixels"]), self.zs


def main():
    job = json.loads(Path(sys.argv[1]).read_text())
    families = {"seq2seq": lambda case: gradients.EncoderDecoder(case["path"]), "images": Images}
    models = {name: families.get(case["family"], Real)(case) for name, case in job.items()}
    seq2seq.buckets_as_trained()
    tiny.double_throughout()
    result = {}
    for name, model in models.items():
        prepared = job[name]["prepared"]
        if prepared["kind"] == "ioi":
            prepared["kind"] = "logit_difference"
        result[name] = gradients.answer(model, prepared, list(range(len(prepared["items"]))))
    Path(sys.argv[2]).write_text(json.dumps(result))


if __name__ == "__main__":
    main()

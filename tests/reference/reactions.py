"""Chemistry models in transformers, in f64: Δ of every head alone, on the items that Ablate prepared.

usage: reactions.py JOB.json RESULT.json

JOB: {"path", "ablation": "zero" | "mean", "texts": [str], "prepared": {items: [{tokens, scored}], ...}}
RESULT: {"losses": [unablated, then each head's in forward order]}: the token-weighted mean loss of the masked tokens,
or, where examples have labels (kind "classification"), the mean loss of the right class.

A layer whose weights are shared (ALBERT) has a head for each application: applications are counted.
The tokens are checked against the texts by a tokenizer of a few lines.
"""

import json
import re
import sys
from pathlib import Path

import lean_torch  # noqa: F401
import torch
import transformers
from reference import eager
from transformers.models.albert import modeling_albert

modeling_albert.eager_attention_forward = eager


def check_tokens(job):
    vocabulary = json.loads((Path(job["path"]) / "tokenizer.json").read_text())["model"]["vocab"]
    mask = vocabulary["[MASK]"]
    for text, item in zip(job["texts"], job["prepared"]["items"], strict=True):
        words = ["[CLS]", *re.findall(r"\[.+?\]|Br|Cl|>>|%\d\d|.", text), "[SEP]"]
        told = {s["position"]: s["target"] for s in item["scored"]} if item["tokens"].count(mask) else {}
        seen = [told.get(at, token) for at, token in enumerate(item["tokens"])]
        if seen != [vocabulary[w] for w in words]:
            raise AssertionError(f"{text}: {item['tokens']}")


class Model:
    def __init__(self, job):
        with_labels = job["prepared"]["kind"] == "classification"
        family = transformers.AutoModelForSequenceClassification if with_labels else transformers.AutoModelForMaskedLM
        self.model = family.from_pretrained(job["path"], attn_implementation="eager", dtype=torch.float32).double().eval()
        config = self.model.config
        self.heads, self.layers = config.num_attention_heads, config.num_hidden_layers
        self.width = config.hidden_size // self.heads
        if config.model_type == "albert":
            outs = [self.model.albert.encoder.albert_layer_groups[0].albert_layers[0].attention.dense]
        else:
            outs = [layer.attention.output.dense for layer in self.model.bert.encoder.layer]
        self.at, self.gone, self.seen, self.means = 0, {}, None, None
        for out in outs:
            out.register_forward_pre_hook(self.hook)
        self.labels = [int(e["gold"]) for e in job["prepared"]["examples"]] if with_labels else None
        self.items = job["prepared"]["items"]
        if job["ablation"] == "mean":
            self.seen = [[] for _ in range(self.layers)]
            self.loss({})
            self.means, self.seen = [torch.cat(zs).mean(0) for zs in self.seen], None

    def hook(self, _, args):
        (z,), layer, self.at = args, self.at, self.at + 1
        if self.seen is not None:
            self.seen[layer].append(z[0].clone())
        if layer not in self.gone:
            return None
        part = slice(self.gone[layer] * self.width, (self.gone[layer] + 1) * self.width)
        z = z.clone()
        z[..., part] = 0.0 if self.means is None else self.means[layer][part]
        return (z,)

    @torch.no_grad()
    def loss(self, gone):
        self.gone, nll, count = gone, 0.0, 0
        for i, item in enumerate(self.items):
            self.at = 0
            logits = self.model(input_ids=torch.tensor([item["tokens"]])).logits[0]
            if self.labels is not None:
                nll, count = nll - float(torch.log_softmax(logits, 0)[self.labels[i]]), count + 1
                continue
            for s in item["scored"]:
                nll, count = nll - float(torch.log_softmax(logits[s["position"]], 0)[s["target"]]), count + 1
        return nll / count


def main():
    job = json.loads(Path(sys.argv[1]).read_text())
    check_tokens(job)
    model = Model(job)
    heads = [{layer: head} for layer in range(model.layers) for head in range(model.heads)]
    Path(sys.argv[2]).write_text(json.dumps({"losses": [model.loss(gone) for gone in [{}, *heads]]}))


if __name__ == "__main__":
    main()

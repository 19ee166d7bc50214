"""Tiny random models of every architecture, and what transformers computes with them in f64.

Each is a model of odd sizes whose weights, biases and norms are all random, saved as a Hugging Face
directory and run with eager attention, an item at a time, without padding; and, for comparison, all items as one batch
that is padded on the left, and one that is padded on the right. Heads are ablated by forward pre-hooks on each attention output projection, which replace slices of its input z. transformers computes
norms, rotary angles and softmax in float32 even in an f64 model; while this runs, float32 *is* float64.

usage: tiny.py JOB.json FOLDER    (writes FOLDER/NAME/{config.json,model.safetensors} and FOLDER/NAME.json)

JOB: {"items": [[token, ...], ...], "targets": [[token, ...], ...], "foils": [token, ...],
      "subsets": [[[layer, head], ...], ...]}
NAME.json: {"final": [item][position][logit or dimension], "zero": SCORES, "mean": SCORES,
            "padded": {"left" | "right": {"final", "zero": SCORES of the leading subsets of at most one head}}}
SCORES: [subset][item], for decoders {"nll", "logit_diff"}, for encoders {"cosine"} by pair (0,1), (0,2), ...
"""

import itertools
import json
import sys
from pathlib import Path

import lean_torch  # noqa: F401  (must come before torch)
import torch
import transformers

torch.set_num_threads(1)
transformers.logging.set_verbosity_error()
transformers.logging.disable_progress_bar()

LAYERS, HEADS, VOCAB, POSITIONS = 3, 6, 61, 24
LLAMA3 = {"rope_type": "llama3", "factor": 4.0, "low_freq_factor": 1.0, "high_freq_factor": 3.0,
          "original_max_position_embeddings": 20, "rope_theta": 30.0}
# head_dim, heads of keys and values, and sizes of the family that Llama began.
SHAPE = {"hidden_size": 42, "num_attention_heads": HEADS, "num_key_value_heads": 2, "head_dim": 10,
         "num_hidden_layers": LAYERS, "intermediate_size": 44, "vocab_size": VOCAB,
         "max_position_embeddings": POSITIONS, "rms_norm_eps": 1e-5, "pad_token_id": None,
         "bos_token_id": None, "eos_token_id": None}
# For those whose heads fill the width.
WIDE = {**{k: v for k, v in SHAPE.items() if k != "head_dim"}, "hidden_size": 60, "num_key_value_heads": 6}
BERT = {"hidden_size": 36, "num_attention_heads": HEADS, "num_hidden_layers": LAYERS, "intermediate_size": 52,
        "vocab_size": VOCAB, "max_position_embeddings": POSITIONS, "layer_norm_eps": 1e-6}
OPT = {"hidden_size": 36, "num_attention_heads": HEADS, "num_hidden_layers": LAYERS, "ffn_dim": 52,
       "vocab_size": VOCAB, "max_position_embeddings": POSITIONS, "word_embed_proj_dim": 36}
GPT2 = {"n_embd": 36, "n_head": HEADS, "n_layer": LAYERS, "n_positions": POSITIONS, "vocab_size": VOCAB}
NEOX = {**{k: v for k, v in WIDE.items() if k not in ("num_key_value_heads", "rms_norm_eps")},
        "layer_norm_eps": 1e-4}
LM, BASE, MASKED, CLASSES = "LM", "base", "masked LM", "classes"


def rope(**more):
    return {"rope_parameters": {"rope_type": "default", "rope_theta": 50.0, **more}}


# name: (configuration class, model with a head or without, settings)
CASES = {
    "gpt2": ("GPT2Config", LM, {**GPT2, "n_inner": 52}),
    "gpt2-relu": ("GPT2Config", LM, {**GPT2, "activation_function": "relu", "scale_attn_weights": False,
                                     "tie_word_embeddings": False}),
    "qwen2": ("Qwen2Config", LM, {**WIDE, **rope(), "num_key_value_heads": 3}),
    "qwen2-window": ("Qwen2Config", LM, {**WIDE, **rope(), "use_sliding_window": True,
                                         "sliding_window": 3, "max_window_layers": 1}),
    "qwen3": ("Qwen3Config", LM, {**SHAPE, **rope(), "tie_word_embeddings": True}),
    "qwen3-bias": ("Qwen3Config", LM, {**SHAPE, **rope(), "attention_bias": True}),
    "mistral": ("MistralConfig", LM, {**SHAPE, **rope(), "sliding_window": 4}),
    "gpt_neox": ("GPTNeoXConfig", LM, {**NEOX, **rope(partial_rotary_factor=0.4)}),
    "gpt_neox-serial": ("GPTNeoXConfig", LM, {**NEOX, **rope(partial_rotary_factor=1.0), "attention_bias": False,
                                              "use_parallel_residual": False, "hidden_act": "gelu_new"}),
    "roberta": ("RobertaConfig", BASE, {**BERT, "type_vocab_size": 1}),
    "roberta-padding": ("RobertaConfig", BASE, {**BERT, "pad_token_id": 5}),
    "distilbert": ("DistilBertConfig", BASE, {"dim": 36, "n_heads": HEADS, "n_layers": LAYERS, "hidden_dim": 52,
                                              "vocab_size": VOCAB, "max_position_embeddings": POSITIONS}),
    "opt": ("OPTConfig", LM, OPT),
    "opt-post": ("OPTConfig", LM, {**OPT, "do_layer_norm_before": False, "word_embed_proj_dim": 20}),
    "phi3": ("Phi3Config", LM, {**WIDE, **rope(partial_rotary_factor=0.6), "num_key_value_heads": 3,
                                "sliding_window": 5}),
    "gemma2": ("Gemma2Config", LM, {**SHAPE, **rope(), "sliding_window": 4,
                                    "query_pre_attn_scalar": 7, "attn_logit_softcapping": 2.0,
                                    "final_logit_softcapping": 3.0}),
    "albert": ("AlbertConfig", BASE, {**BERT, "embedding_size": 14}),
    "albert-groups": ("AlbertConfig", BASE, {**BERT, "embedding_size": 14, "num_hidden_groups": 3}),
    "llama": ("LlamaConfig", LM, {**SHAPE, **rope(), "attention_bias": True, "mlp_bias": True}),
    "llama-linear": ("LlamaConfig", LM, {**SHAPE, **rope(rope_type="linear", factor=2.5)}),
    "llama-llama3": ("LlamaConfig", LM, {**SHAPE, "rope_parameters": LLAMA3}),
    "bert": ("BertConfig", BASE, {**BERT, "hidden_act": "gelu_new"}),
}
# Encoders with their masked-LM heads: asked by tasks.py only.
DISTIL = {"dim": 36, "n_heads": HEADS, "n_layers": LAYERS, "hidden_dim": 52, "vocab_size": VOCAB,
          "max_position_embeddings": POSITIONS}
MASKED_CASES = {
    "bert-masked": ("BertConfig", MASKED, {**BERT, "hidden_act": "gelu_new"}),
    "bert-masked-own": ("BertConfig", MASKED, {**BERT, "tie_word_embeddings": False}),
    "roberta-masked": ("RobertaConfig", MASKED, {**BERT, "hidden_act": "relu"}),
    "distilbert-masked": ("DistilBertConfig", MASKED, {**DISTIL, "activation": "relu"}),
    "albert-masked": ("AlbertConfig", MASKED, {**BERT, "embedding_size": 14}),
}
# Models with classification heads: asked by tasks.py only.
CLASS_CASES = {
    "bert-classes": ("BertConfig", CLASSES, {**BERT, "num_labels": 4}),
    "roberta-classes": ("RobertaConfig", CLASSES, {**BERT, "num_labels": 2}),
    "distilbert-classes": ("DistilBertConfig", CLASSES, {**DISTIL, "num_labels": 3}),
    "albert-classes": ("AlbertConfig", CLASSES, {**BERT, "embedding_size": 14, "num_labels": 3}),
    "llama-classes": ("LlamaConfig", CLASSES, {**SHAPE, **rope(), "num_labels": 3}),
    "gpt2-classes": ("GPT2Config", CLASSES, {**GPT2, "num_labels": 2}),
    "gpt_neox-classes": ("GPTNeoXConfig", CLASSES, {**NEOX, **rope(partial_rotary_factor=0.4), "num_labels": 3}),
    "opt-classes": ("OPTConfig", CLASSES, {**OPT, "num_labels": 3, "pad_token_id": None,
                                           "tie_word_embeddings": False}),
}
# The input of these is z, all heads side by side.
PROJECTIONS = ("o_proj", "c_proj", "attention.dense", "attention.output.dense", "out_lin", "out_proj")


def double_throughout():
    """From here on, what asks for float32 gets float64."""
    torch.set_default_dtype(torch.float64)
    torch.float32 = torch.float = torch.float64
    torch.Tensor.float = torch.Tensor.double


class Tiny:
    def __init__(self, name, folder, job):
        config, head, settings = {**CASES, **MASKED_CASES, **CLASS_CASES}[name]
        self.job = job
        self.decoder = head != BASE  # it has logits
        config = getattr(transformers, config)(**settings)
        config._attn_implementation = "eager"
        kind = {LM: transformers.AutoModelForCausalLM, MASKED: transformers.AutoModelForMaskedLM,
                BASE: transformers.AutoModel, CLASSES: transformers.AutoModelForSequenceClassification}[head]
        torch.manual_seed(sum(map(ord, name)))
        self.model = kind.from_config(config, attn_implementation="eager").to(torch.float64).eval()
        with torch.no_grad():
            for key, p in self.model.named_parameters():
                # Biases and norms' gains away from 0 and 1; matrices large enough for uneven attention.
                norm = p.dim() == 1 and key.endswith("weight")
                p.copy_(torch.randn_like(p) * 0.4 + (0.8 if norm else 0.0))
        folder.mkdir(parents=True)
        self.model.save_pretrained(folder)
        self.removed, self.means, self.seen, self.call = {}, None, None, 0
        # Modules that several layers share are called once for each.
        found = [m for n, m in self.model.named_modules()
                 if n.endswith(PROJECTIONS) and ".mlp." not in n and not n.startswith("classifier")]
        self.layers = config.num_hidden_layers
        assert len(found) in (1, self.layers), found
        for projection in found:
            projection.register_forward_pre_hook(self.hook)
        self.heads = config.num_attention_heads

    def hook(self, _, args):
        (z,) = args
        layer, self.call = self.call, self.call + 1
        if self.seen is not None:
            self.seen[layer].append(z.reshape(-1, z.shape[-1]).clone())
        heads = self.removed.get(layer)
        if not heads:
            return None
        z, width = z.clone(), z.shape[-1] // self.heads
        for head in heads:
            part = slice(head * width, (head + 1) * width)
            z[..., part] = 0.0 if self.means is None else self.means[layer][part]
        return (z,)

    def remove(self, subset):
        self.removed, self.call = {}, 0
        for layer, head in subset:
            self.removed.setdefault(layer, []).append(head)

    def final(self, item, subset=()):
        """Logits or last hidden states of an item, [position, ...]; logits of labels, [label]."""
        self.remove(subset)
        tokens = torch.tensor([self.job["items"][item]])
        out = self.model(input_ids=tokens, attention_mask=torch.ones_like(tokens))
        assert self.call == self.layers
        out = out.logits if self.decoder else out.last_hidden_state
        assert out.dtype == torch.float64
        return out[0]

    def padded(self, side, subset=()):
        """`final` of every item, from one batch of all that is padded on a side."""
        items = self.job["items"]
        longest, roberta = max(map(len, items)), self.model.config.model_type == "roberta"

        def pad(values, by):
            more = [by] * (longest - len(values))
            return more + values if side == "left" else values + more

        # RoBERTa takes positions from its padding token.
        tokens = torch.tensor([pad(i, self.model.config.pad_token_id if roberta else 0) for i in items])
        mask = torch.tensor([pad([1] * len(i), 0) for i in items])
        positions = {} if roberta else {"position_ids": torch.tensor([pad(list(range(len(i))), 0) for i in items])}
        self.remove(subset)
        out = self.model(input_ids=tokens, attention_mask=mask, **positions)
        out = out.logits if self.decoder else out.last_hidden_state
        assert out.dtype == torch.float64
        return [x[m.bool()] for x, m in zip(out, mask, strict=True)]

    def scores(self, subset, finals=None):
        finals = finals or [self.final(item, subset) for item in range(len(self.job["items"]))]
        if not self.decoder:
            pooled = [x.mean(0) for x in finals]
            pairs = [(a, b) for a in range(len(pooled)) for b in range(a + 1, len(pooled))]
            return {"cosine": [float(pooled[a] @ pooled[b] / pooled[a].norm() / pooled[b].norm()) for a, b in pairs]}
        nll, diff = [], []
        for x, targets, foil in zip(finals, self.job["targets"], self.job["foils"], strict=True):
            picked = x.gather(1, torch.tensor(targets)[:, None])[:, 0]
            nll.append(float((torch.logsumexp(x, 1) - picked).sum()))
            diff.append(float(x[-1, targets[-1]] - x[-1, foil]))
        return {"nll": nll, "logit_diff": diff}

    def answer(self):
        self.seen = [[] for _ in range(self.layers)]
        final = [self.final(item).tolist() for item in range(len(self.job["items"]))]
        means = [torch.cat(zs).mean(0) for zs in self.seen]
        self.seen = None
        result = {"final": final}
        for ablation, self.means in (("zero", None), ("mean", means)):
            each = [self.scores(subset) for subset in self.job["subsets"]]
            result[ablation] = {k: [e[k] for e in each] for k in each[0]}
        self.means, result["padded"] = None, {}
        alone = list(itertools.takewhile(lambda subset: len(subset) < 2, self.job["subsets"]))
        for side in ("left", "right"):
            each = [self.scores(subset, self.padded(side, subset)) for subset in alone]
            result["padded"][side] = {"final": [x.tolist() for x in self.padded(side)],
                                      "zero": {k: [e[k] for e in each] for k in each[0]}}
        return result


def main():
    job, folder = json.loads(Path(sys.argv[1]).read_text()), Path(sys.argv[2])
    double_throughout()
    with torch.no_grad():
        for name in CASES:
            result = Tiny(name, folder / name, job).answer()
            (folder / f"{name}.json").write_text(json.dumps(result))


if __name__ == "__main__":
    main()

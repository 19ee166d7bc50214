"""What transformers computes with encoder-decoders in f64: tiny random ones made here, or a real one.

An item goes through the model alone, without padding and without a cache, with eager attention; tiny models are asked for
all items as one padded batch besides. Heads are ablated
by forward pre-hooks on each attention's output projection, which replace slices of its input z. Decoding takes the
highest logit of a whole forward pass over all that is decoded so far, until a token that ends targets or the limit.

usage: seq2seq.py JOB.json FOLDER    (tiny models are saved as FOLDER/NAME; writes FOLDER/NAME.json)

JOB: {"models": {NAME: path, or null for a tiny one of that name}, "prepared": {NAME: a prepared task},
      "ablations": {NAME: [{"method": "zero" | "mean" | "scale" | "resample", "pool", "scale", "sources"}, ...]}, "subsets": {NAME: [[[stream, layer, head], ...], ...]},
      "decoded": {NAME: [numbers of subsets that decode]}, "limits": {NAME: [tokens, ...]}}
NAME.json: {"logits": [item][position][token], "scores": [ablation]{column: [subset][item]},
            "decoded": [ablation][subset that decodes][item][token],
            "padded": {"left" | "right": {"logits", "zero": {column: [subset of at most one head][item]}}}}
"""

import json
import re
import sys
from pathlib import Path

import lean_torch  # noqa: F401  (must come before torch)
import torch
import transformers
from safetensors.torch import load_file, save_file
from tiny import double_throughout
from transformers.models.t5.modeling_t5 import T5Attention

torch.set_num_threads(1)
transformers.logging.set_verbosity_error()
transformers.logging.disable_progress_bar()

HEADS = 6
MARIAN = {"vocab_size": 61, "d_model": 42, "encoder_layers": 2, "decoder_layers": 2, "encoder_attention_heads": HEADS,
          "decoder_attention_heads": HEADS, "encoder_ffn_dim": 52, "decoder_ffn_dim": 44, "max_position_embeddings": 24,
          "pad_token_id": 60, "decoder_start_token_id": 60, "eos_token_id": 2}
T5 = {"vocab_size": 61, "d_model": 36, "d_kv": 10, "d_ff": 44, "num_layers": 2, "num_heads": HEADS,
      "relative_attention_num_buckets": 8, "relative_attention_max_distance": 9, "layer_norm_epsilon": 1e-5,
      "pad_token_id": 0, "eos_token_id": 2, "decoder_start_token_id": 0}
# name: (configuration class, settings, whether the files hold learned positions or an unembedding of their own)
CASES = {
    "marian": ("MarianConfig", {**MARIAN, "scale_embedding": True}, True),
    "marian-swish": ("MarianConfig", {**MARIAN, "activation_function": "swish", "encoder_layers": 3,
                                      "decoder_layers": 1}, False),
    "marian-two": ("MarianConfig", {**MARIAN, "activation_function": "relu", "decoder_vocab_size": 47,
                                    "share_encoder_decoder_embeddings": False, "tie_word_embeddings": False,
                                    "pad_token_id": 46, "decoder_start_token_id": 46}, False),
    "t5": ("T5Config", T5, False),
    "t5-gated": ("T5Config", {**T5, "feed_forward_proj": "gated-gelu", "tie_word_embeddings": False,
                              "num_layers": 1, "num_decoder_layers": 3}, True),
}
PROJECTION = re.compile(r"(?:^|\.)(encoder|decoder)\.(?:layers|block)\.(\d+)\.(?:layer\.\d\.)?"
                        r"(self_attn|encoder_attn|SelfAttention|EncDecAttention)\.(?:out_proj|o)$")


def buckets_as_trained():
    """Buckets of relative positions come from float32 logarithms, whatever the rest is computed in."""
    bucket, single = T5Attention._relative_position_bucket, torch.Tensor.float

    def in_float32(*args, **kwargs):
        double, torch.Tensor.float = torch.Tensor.float, single
        try:
            return bucket(*args, **kwargs)
        finally:
            torch.Tensor.float = double

    T5Attention._relative_position_bucket = staticmethod(in_float32)


def make(name, folder):
    """Saves a tiny model whose weights, biases and norms are all random."""
    config, settings, more = CASES[name]
    model = transformers.AutoModelForSeq2SeqLM.from_config(getattr(transformers, config)(**settings))
    torch.manual_seed(sum(map(ord, name)))
    model = model.to(torch.float64)
    with torch.no_grad():
        for key, p in model.named_parameters():
            norm = p.dim() == 1 and key.endswith("weight")
            # Sinusoidal positions are parameters too; only where the files are to hold others are they changed.
            if "embed_positions" not in key:
                p.copy_(torch.randn_like(p) * 0.4 + (0.8 if norm else 0.0))
        if hasattr(model, "final_logits_bias"):
            model.final_logits_bias.copy_(torch.randn_like(model.final_logits_bias))
    model.save_pretrained(folder)
    if more:  # what saving leaves out
        path = folder / "model.safetensors"
        weights = load_file(path)
        if config == "MarianConfig":
            for side in ("encoder", "decoder"):
                weights[f"model.{side}.embed_positions.weight"] = torch.randn(24, settings["d_model"])
        else:
            weights["lm_head.weight"] = torch.randn(settings["vocab_size"], settings["d_model"])
        save_file(weights, path, metadata={"format": "pt"})


class Model:
    def __init__(self, path):
        self.model = transformers.AutoModelForSeq2SeqLM.from_pretrained(
            path, dtype=torch.float64, attn_implementation="eager").eval()
        config = self.model.config
        end = config.eos_token_id
        self.start, self.end = config.decoder_start_token_id, end if isinstance(end, list) else [end]
        self.heads = config.num_attention_heads
        self.removed, self.keep, self.means, self.seen = {}, 0.0, None, None
        self.states, self.donor, self.item = None, None, None
        self.places = []
        for name, module in self.model.named_modules():
            if found := PROJECTION.search(name):
                side, layer, kind = found.groups()
                stream = "cross" if kind in ("encoder_attn", "EncDecAttention") else side
                self.places.append((stream, int(layer)))
                module.register_forward_pre_hook(lambda _, args, at=self.places[-1]: self.hook(at, args))
        assert len(self.places) == len(set(self.places)) > 0

    def hook(self, at, args):
        (z,) = args
        if self.seen is not None:
            self.seen[at].append(z[0].clone())
        heads = self.removed.get(at)
        if not heads:
            return None
        z, width = z.clone(), z.shape[-1] // self.heads
        for head in heads:
            part = slice(head * width, (head + 1) * width)
            b = self.means and self.means[at]
            if self.donor:
                b, item = self.donor[at], self.item
                most = len(item["tokens"] if at[0] == "encoder" else item["decoder"])
                b = b[[min(p, len(b) - 1) for p in range(most)]]
            # The last position stands for all behind it.
            b = 0.0 if b is None else b[[min(p, len(b) - 1) for p in range(z.shape[1])], part]
            z[..., part] = self.keep * z[..., part] + (1 - self.keep) * b
        return (z,)

    def remove(self, subset):
        self.removed = {}
        for stream, layer, head in subset:
            self.removed.setdefault((stream, layer), []).append(head)

    def logits(self, tokens, decoder):
        out = self.model(input_ids=torch.tensor([tokens]), decoder_input_ids=torch.tensor([decoder]),
                         attention_mask=torch.ones(1, len(tokens), dtype=torch.long), use_cache=False)
        assert out.logits.dtype == torch.float64
        return out.logits[0]

    def padded(self, items, side):
        """Logits of every item from one batch, whose sources and targets are padded on a side."""

        def pad(sequences):
            longest = max(map(len, sequences))
            rows = [(row, [0] * (longest - len(row))) for row in sequences]
            rows = [(more + row, more + [1] * len(row)) if side == "left" else (row + more, [1] * len(row) + more)
                    for row, more in rows]
            return (torch.tensor(each) for each in zip(*rows, strict=True))

        (tokens, mask), (decoder, seen) = pad([i["tokens"] for i in items]), pad([i["decoder"] for i in items])
        out = self.model(input_ids=tokens, attention_mask=mask, decoder_input_ids=decoder,
                         decoder_attention_mask=seen, use_cache=False)
        assert out.logits.dtype == torch.float64
        return [x[m.bool()] for x, m in zip(out.logits, seen, strict=True)]

    def in_batches(self, items, subsets):
        """What padding on either side gives; Marian counts its positions from where the batch begins."""
        self.keep, self.means, self.states, self.donor = 0.0, None, None, None
        result = {}
        for side in ("right",) if self.model.config.model_type == "marian" else ("left", "right"):
            each = []
            for subset in subsets:
                self.remove(subset)
                each.append(self.scores(items, subset, self.padded(items, side)))
            self.remove([])
            result[side] = {"logits": [x.tolist() for x in self.padded(items, side)],
                            "zero": {k: [e[k] for e in each] for k in each[0]}}
        return result

    def measure(self, items):
        """Means of z over the tokens of all items, by stream and layer: one, and one per position."""
        self.remove([])
        self.seen = {at: [] for at in self.places}
        logits = [self.logits(i["tokens"], i["decoder"]) for i in items]
        seen, self.seen = self.seen, None
        pooled, by_position = {}, {}
        for at, zs in seen.items():
            longest = max(z.shape[0] for z in zs)
            pooled[at] = torch.cat(zs).mean(0, keepdim=True).expand(longest, -1)
            by_position[at] = torch.stack([torch.stack([z[p] for z in zs if z.shape[0] > p]).mean(0)
                                           for p in range(longest)])
        return logits, {"tokens": pooled, "position": by_position}, seen

    def scores(self, items, subset, logits=None):
        self.remove(subset)
        nll, correct, kl = [], [], []
        for at, item in enumerate(items):
            self.donor, self.item = self.states and self.states[at], item
            x, first = logits[at] if logits else self.logits(item["tokens"], item["decoder"]), self.unablated[at]
            at = [(s["position"], s["target"]) for s in item["scored"]]
            nll.append(sum(float(torch.logsumexp(x[p], 0) - x[p, t]) for p, t in at))
            correct.append(sum(float(x[p].argmax() == t) for p, t in at))
            apart = first - (x - torch.logsumexp(x, -1, keepdim=True))
            kl.append(sum(float((first[p].exp() * apart[p]).sum()) for p, _ in at))
        return {"nll": nll, "correct": correct, "kl": kl}

    def decode(self, tokens, limit):
        out = []
        while len(out) < limit:
            token = int(self.logits(tokens, [self.start, *out])[-1].argmax())
            if token in self.end:
                break
            out.append(token)
        return out

    def answer(self, items, ablations, subsets, limits, decoded):
        logits, means, seen = self.measure(items)
        # Log-probabilities.
        self.unablated = [x - torch.logsumexp(x, -1, keepdim=True) for x in logits]
        result = {"logits": [x.tolist() for x in logits], "scores": [], "decoded": []}
        for ablation in ablations:
            self.keep = ablation.get("scale", 0.0)
            self.means = means[ablation["pool"]] if ablation["method"] == "mean" else None
            source = ablation["sources"][0] if ablation["method"] == "resample" else {}
            donors = source.get("donors")
            # A counterfactual is the item with its source backwards.
            theirs = seen if source.get("reference") is None else self.measure(
                [{**i, "tokens": i["tokens"][::-1]} for i in items])[2]
            self.states = donors and [{at: zs[d] for at, zs in theirs.items()} for d in donors]
            each = [self.scores(items, subset) for subset in subsets]
            result["scores"].append({k: [e[k] for e in each] for k in each[0]})
            if decoded:
                result["decoded"].append([])
                for subset in decoded:
                    self.remove(subsets[subset])
                    result["decoded"][-1].append([])
                    for at, (item, limit) in enumerate(zip(items, limits, strict=True)):
                        self.donor, self.item = self.states and self.states[at], item
                        result["decoded"][-1][-1].append(self.decode(item["tokens"], limit))
        return result


def main():
    job, folder = json.loads(Path(sys.argv[1]).read_text()), Path(sys.argv[2])
    folder.mkdir(parents=True, exist_ok=True)
    for name, path in job["models"].items():
        if path is None:
            make(name, folder / name)
    # Files may hold float32: they are read before that stands for float64.
    models = {name: Model(path or folder / name) for name, path in job["models"].items()}
    buckets_as_trained()
    double_throughout()
    with torch.no_grad():
        for name, model in models.items():
            result = model.answer(job["prepared"][name]["items"], job["ablations"][name], job["subsets"][name],
                                  job["limits"][name], job["decoded"][name])
            alone = [subset for subset in job["subsets"][name] if len(subset) < 2]
            result["padded"] = model.in_batches(job["prepared"][name]["items"], alone) if job["models"][name] is None else {}
            (folder / f"{name}.json").write_text(json.dumps(result))


if __name__ == "__main__":
    main()

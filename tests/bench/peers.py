"""What researchers use today, timed: one whole forward pass for each subset of heads.

usage: peers.py JOB.json RESULT.json
       peers.py --check

The job is the reference's (tests/reference/reference.py) with "peer", "threads" and "dtype" besides:
- "hooks": transformers with its fastest attention (sdpa), forward pre-hooks on the attention output
  projections, and logits only at the scored positions (`logits_to_keep`), as a careful user writes it;
- "transformer_lens": TransformerBridge.run_with_hooks on each layer's hook_z. It forces eager attention;
- "nnsight": an edit of the projection's input inside a trace.
Every peer gets all items as one batch, padded on the right: causal models never look there, encoders get a
mask. None records gradients. Means of z (mean ablation) are measured before the clock starts.
The answer has the same columns as the reference's, the seconds of each subset after one run that warms up, and
the process's peak memory.
"""

import json
import os
import resource
import sys
import tempfile
import time
from pathlib import Path

os.environ.setdefault("TQDM_DISABLE", "1")
sys.path.insert(0, str(Path(__file__).resolve().parent.parent / "reference"))
import lean_torch  # noqa: E402, F401
import torch  # noqa: E402
import transformers  # noqa: E402

transformers.utils.logging.set_verbosity_error()
transformers.utils.logging.disable_progress_bar()


def load(job, attention):
    path, dtype = Path(job["model"]["path"]), getattr(torch, {"f32": "float32", "bf16": "bfloat16"}[job["dtype"]])
    how = {"attn_implementation": attention, "dtype": torch.float32}
    if job["model"]["kind"] == "gguf":
        model = transformers.AutoModelForCausalLM.from_pretrained(str(path.parent), gguf_file=path.name, **how)
    else:
        model = transformers.AutoModel.from_pretrained(str(path), **how)
    return model.to(dtype).eval()


def projections(model):
    if hasattr(model, "lm_head"):
        return [layer.self_attn.o_proj for layer in model.model.layers]
    if isinstance(model, torch.nn.Module):
        return [layer.attention.output.dense for layer in model.encoder.layer]
    # BERT calls a module as nnsight calls a module's result: it is reached by its place.
    return [list(layer.attention)[1].dense for layer in model.encoder.layer]


def edit(z, heads, mean, width):
    """z [..., heads · width] or [..., heads, width] with these heads replaced."""
    z = z.clone()
    for head in heads:
        if z.dim() == 4:
            z[:, :, head] = 0.0 if mean is None else mean[head * width : (head + 1) * width]
        else:
            part = slice(head * width, (head + 1) * width)
            z[..., part] = 0.0 if mean is None else mean[part]
    return z


class Hooks:
    def __init__(self, job, inputs):
        self.model, self.inputs = load(job, "sdpa"), inputs
        self.removed, self.means, self.seen = {}, None, None
        for layer, projection in enumerate(projections(self.model)):
            projection.register_forward_pre_hook(lambda _, args, layer=layer: self.hook(layer, args))

    def hook(self, layer, args):
        if self.seen is not None:
            self.seen[layer] = args[0]
        heads = self.removed.get(layer)
        return (edit(args[0], heads, self.means and self.means[layer], self.width),) if heads else None

    def zs(self):
        self.seen = {}
        self.model(**self.inputs)
        zs, self.seen = [self.seen[layer] for layer in sorted(self.seen)], None
        return zs

    def run(self, removed, keep):
        self.removed = removed
        if keep is None:
            return self.model(**self.inputs).last_hidden_state
        return self.model(**self.inputs, use_cache=False, logits_to_keep=keep).logits


class Lens:
    def __init__(self, job, inputs):
        from transformer_lens.model_bridge import TransformerBridge

        model, path = load(job, "eager"), Path(job["model"]["path"])
        if not hasattr(model, "lm_head"):
            raise SystemExit("TransformerBridge has no adapter for a BertModel without a head")
        tokenizer = transformers.AutoTokenizer.from_pretrained(str(path.parent), gguf_file=path.name)
        with tempfile.TemporaryDirectory() as folder:
            model.config.save_pretrained(folder)
            tokenizer.save_pretrained(folder)
            self.model = TransformerBridge.boot_transformers(
                folder, hf_model=model, tokenizer=tokenizer, device="cpu", dtype=next(model.parameters()).dtype)
        self.tokens, self.layers = inputs["input_ids"], len(model.model.layers)

    def zs(self):
        zs = {}
        hooks = [(f"blocks.{layer}.attn.hook_z", lambda z, hook, layer=layer: zs.__setitem__(layer, z)) for layer in range(self.layers)]
        self.model.run_with_hooks(self.tokens, fwd_hooks=hooks, return_type=None)
        return [zs[layer].flatten(2) for layer in range(self.layers)]

    def run(self, removed, keep):
        def change(z, hook, layer):
            return edit(z, removed[layer], self.means and self.means[layer], self.width)

        hooks = [(f"blocks.{layer}.attn.hook_z", lambda z, hook, layer=layer: change(z, hook, layer)) for layer in removed]
        return self.model.run_with_hooks(self.tokens, fwd_hooks=hooks, return_type="logits")[:, keep]


class Nnsight:
    def __init__(self, job, inputs):
        from nnsight import NNsight

        self.plain, self.inputs = load(job, "sdpa"), inputs
        self.model = NNsight(self.plain)

    def zs(self):
        with self.model.trace(**self.inputs):
            zs = list().save()
            for projection in projections(self.model):
                zs.append(projection.input)
        return zs

    def run(self, removed, keep):
        edits = sorted(removed.items())
        with self.model.trace(**self.inputs):
            for layer, heads in edits:
                projection = projections(self.model)[layer]
                projection.input = edit(projection.input, heads, self.means and self.means[layer], self.width)
            out = self.model.output.save()
        return out.last_hidden_state if keep is None else out.logits[:, keep]


def columns(prepared, out, at, mask):
    """The reference's columns; `out` [items, positions or places in `at`, …]."""
    examples, kind = prepared["examples"], prepared["kind"]
    if kind == "similarity":
        pooled = (out * mask[..., None]).sum(1) / mask.sum(1, keepdim=True)
        pooled = torch.nn.functional.normalize(pooled.float(), dim=1)
        return {"cosine": [float(pooled[e["a"]] @ pooled[e["b"]]) for e in examples]}
    scored = [prepared["items"][e["a"]]["scored"] for e in examples]
    if kind in ("ioi", "logit_difference"):
        pick = lambda e, s: out[e["a"], at[s["position"]]]  # noqa: E731
        rows = [(pick(e, s[0]), s[0]) for e, s in zip(examples, scored, strict=True)]
        return {"logit_diff": [float(row[s["target"]] - row[s["foil"]]) for row, s in rows]}
    nll = []
    for e, positions in zip(examples, scored, strict=True):
        logits = out[e["a"], [at[s["position"]] for s in positions]].float()
        nll.append(float(torch.nn.functional.cross_entropy(logits, torch.tensor([s["target"] for s in positions]), reduction="sum")))
    return {"nll": nll}


def main(question, answer):
    job = json.loads(Path(question).read_text())
    torch.set_num_threads(job["threads"])
    prepared = job["prepared"]
    rows = [torch.tensor(item["tokens"]) for item in prepared["items"]]
    tokens = torch.nn.utils.rnn.pad_sequence(rows, batch_first=True)
    mask = torch.nn.utils.rnn.pad_sequence([torch.ones_like(row) for row in rows], batch_first=True)
    encoder = prepared["kind"] == "similarity"
    inputs = {"input_ids": tokens, "attention_mask": mask} if encoder else {"input_ids": tokens}
    asked = sorted({s["position"] for item in prepared["items"] for s in item["scored"]})
    keep, at = None if encoder else torch.tensor(asked), {p: i for i, p in enumerate(asked)}
    with torch.no_grad():
        peer = {"hooks": Hooks, "transformer_lens": Lens, "nnsight": Nnsight}[job["peer"]](job, inputs)
        peer.means = None
        zs = peer.zs()
        peer.width = zs[0].shape[-1] // job["heads"]
        if job["ablation"] == "mean":
            peer.means = [z[mask.bool()].double().mean(0).to(z.dtype) for z in zs]
        del zs
        result = {}
        subsets = [{} for _ in job["subsets"]]
        for removed, subset in zip(subsets, job["subsets"], strict=True):
            for layer, head in subset:
                removed.setdefault(layer, []).append(head)
        peer.run(subsets[-1], keep)
        seconds = []
        for removed in subsets:
            began = time.perf_counter()
            for name, values in columns(prepared, peer.run(removed, keep), at, mask).items():
                result.setdefault(name, []).append(values)
            seconds.append(time.perf_counter() - began)
    peak = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 1024
    Path(answer).write_text(json.dumps({"columns": result, "seconds": seconds, "peak_mb": peak}))


if __name__ == "__main__":
    if sys.argv[1:] == ["--check"]:
        import nnsight
        import transformer_lens.model_bridge  # noqa: F401

        print("peers: torch", torch.__version__, "transformers", transformers.__version__, "nnsight", nnsight.__version__)
    else:
        main(*sys.argv[1:])

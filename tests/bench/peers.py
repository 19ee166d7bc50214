"""What researchers use today, timed: one whole forward pass for each subset of heads.

usage: peers.py JOB.json RESULT.json
       peers.py --check

The job is the reference's (tests/reference/reference.py), for causal models and BERT, and besides:
  "peer":    "hooks", "transformer_lens" or "nnsight"
  "dtype":   "f32" or "bf16" ("f64" for checks); "threads"; "heads" (of a layer)
  "device":  "cpu" (where left out) or "cuda:0", for which this environment's torch must have CUDA
  "means":   optional, b of every head, [layer][heads · width]; otherwise mean ablation takes E[z] over
             the job's own items, measured before the clock starts
Greedy is a list of growing subsets.
The result: "columns" as the reference's, "seconds" of each subset, "peak_mb" of the process (loading
included), "batching", and "versions".

How each peer is used. The aim is the fastest way that its users would ordinarily write:
- hooks: plain transformers, forward pre-hooks on the attention output projections.
- transformer_lens: TransformerBridge.run_with_hooks on `blocks.{l}.attn.hook_z`. The bridge forces eager
  attention. Its `start_at_layer` saves nothing: the blocks before it are computed and thrown away.
  It has no adapter for a BERT without a head, so an encoder gets a masked-LM head of one word (1 % of
  the work), and its last block's `hook_out` is read.
- nnsight: edits the projection's input inside a trace.
All of them: torch.inference_mode, no key-value cache, logits only at the scored positions
(`logits_to_keep`, which all three pass on), sdpa attention where the peer allows it, all items in one
batch. Items of unequal length are either padded on the right (causal models never look there, encoders get
a mask) or run in batches of equal length; each is tried once before the clock starts, the faster one counts.
The clock covers what gives a subset's scores, from the forward pass to numbers in Python. One pass warms up.
"""

import json
import os
import sys
import tempfile
import time
import warnings
from pathlib import Path

os.environ["TQDM_DISABLE"] = os.environ["HF_HUB_OFFLINE"] = "1"
sys.path.insert(0, str(Path(__file__).resolve().parent.parent / "reference"))
import lean_torch  # noqa: E402, F401
import torch  # noqa: E402
import transformers  # noqa: E402
from torch.nn.functional import cross_entropy, normalize  # noqa: E402
from torch.nn.utils.rnn import pad_sequence  # noqa: E402

transformers.utils.logging.set_verbosity_error()
transformers.utils.logging.disable_progress_bar()

DEVICE = torch.device("cpu")
DTYPES = {"f64": torch.float64, "f32": torch.float32, "bf16": torch.bfloat16}


def load(job, attention):
    path = Path(job["model"]["path"])
    how = {"attn_implementation": attention, "dtype": torch.float32}
    if job["model"]["kind"] == "gguf":
        model = transformers.AutoModelForCausalLM.from_pretrained(str(path.parent), gguf_file=path.name, **how)
    elif job["prepared"]["kind"] == "similarity":
        model = transformers.AutoModel.from_pretrained(str(path), **how)
    else:
        model = transformers.AutoModelForCausalLM.from_pretrained(str(path), **how)
    return model.to(DTYPES[job["dtype"]]).to(DEVICE).eval()


def projections(model, output="output"):
    if hasattr(model, "lm_head"):
        return [layer.self_attn.o_proj for layer in model.model.layers]
    return [getattr(layer.attention, output).dense for layer in model.encoder.layer]


def wide(x):
    return x.float() if x.dtype == torch.bfloat16 else x


def edit(z, heads, mean, width):
    """z [items, positions, heads · width] or [items, positions, heads, width] with these heads replaced."""
    z = z.clone()
    for head in heads:
        part = slice(head * width, (head + 1) * width)
        b = 0.0 if mean is None else mean[part]
        if z.dim() == 4:
            z[:, :, head] = b
        else:
            z[..., part] = b
    return z


class Batch:
    """Items that go through the model together, padded on the right where their lengths differ."""

    def __init__(self, prepared, items):
        self.items = items
        rows = [torch.tensor(prepared["items"][item]["tokens"]) for item in items]
        self.tokens = pad_sequence(rows, batch_first=True).to(DEVICE)
        self.mask = pad_sequence([torch.ones_like(row) for row in rows], batch_first=True).to(DEVICE)
        self.scored = [prepared["items"][item]["scored"] for item in items]
        self.encoder = prepared["kind"] == "similarity"
        asked = sorted({s["position"] for scored in self.scored for s in scored})
        self.options = {} if self.encoder else {"use_cache": False, "logits_to_keep": torch.tensor(asked, device=DEVICE)}
        if self.encoder and len({len(row) for row in rows}) > 1:
            self.options["attention_mask"] = self.mask
        # Rows and columns of the logits of every scored position, and which item it is of.
        self.row = torch.tensor([i for i, scored in enumerate(self.scored) for _ in scored], device=DEVICE)
        self.column = torch.tensor([asked.index(s["position"]) for scored in self.scored for s in scored], device=DEVICE)
        self.every = all([s["position"] for s in scored] == asked for scored in self.scored)
        self.target, self.foil = (
            torch.tensor([s[name] for scored in self.scored for s in scored], device=DEVICE) for name in ("target", "foil"))

    def numbers(self, kind, out):
        """Of every item: its summed loss, its logit difference or its embedding."""
        if kind == "similarity":
            weights = self.mask[..., None]
            return normalize(wide((out * weights).sum(1) / weights.sum(1)), dim=1).unbind()
        if kind in ("ioi", "logit_difference"):
            return (out[self.row, self.column, self.target] - out[self.row, self.column, self.foil]).tolist()
        logits = out.flatten(0, 1) if self.every else out[self.row, self.column]
        losses = cross_entropy(wide(logits), self.target, reduction="none")
        return torch.zeros(len(self.items), dtype=losses.dtype, device=DEVICE).index_add_(0, self.row, losses).tolist()


def batchings(prepared):
    every = range(len(prepared["items"]))
    by_length = {}
    for item in every:
        by_length.setdefault(len(prepared["items"][item]["tokens"]), []).append(item)
    found = {"padded" if len(by_length) > 1 else "equal": [Batch(prepared, list(every))]}
    if len(by_length) > 1:
        found["by length"] = [Batch(prepared, items) for items in by_length.values()]
    return found


class Hooks:
    def __init__(self, job):
        self.model = load(job, "sdpa")
        self.removed, self.seen = {}, None
        for layer, projection in enumerate(projections(self.model)):
            projection.register_forward_pre_hook(lambda _, args, layer=layer: self.hook(layer, args))

    def hook(self, layer, args):
        if self.seen is not None:
            self.seen.append(args[0])
        heads = self.removed.get(layer)
        return (edit(args[0], heads, self.means[layer], self.width),) if heads else None

    def zs(self, batch):
        self.removed, self.seen = {}, []
        self.model(batch.tokens, **batch.options)
        zs, self.seen = self.seen, None
        return zs

    def run(self, removed, batch):
        self.removed = removed
        out = self.model(batch.tokens, **batch.options)
        return out.last_hidden_state if batch.encoder else out.logits


class Lens:
    def __init__(self, job):
        from transformer_lens.model_bridge import TransformerBridge

        model, path, how = load(job, "eager"), Path(job["model"]["path"]), {}
        self.layers = len(projections(model))
        if job["model"]["kind"] == "gguf":
            path, how = path.parent, {"gguf_file": path.name}
        tokenizer = transformers.AutoTokenizer.from_pretrained(str(path), **how)
        if not hasattr(model, "lm_head"):
            encoder, model = model, transformers.BertForMaskedLM(model.config).to(DEVICE, model.dtype).eval()
            model.bert = encoder
            model.cls.predictions.decoder = torch.nn.Linear(model.config.hidden_size, 1, dtype=encoder.dtype, device=DEVICE)
        with tempfile.TemporaryDirectory() as folder:
            model.config.save_pretrained(folder)
            tokenizer.save_pretrained(folder)
            self.model = TransformerBridge.boot_transformers(
                folder, hf_model=model, tokenizer=tokenizer, device=str(DEVICE), dtype=DTYPES[job["dtype"]])

    def hooked(self, batch, hooks, **options):
        return self.model.run_with_hooks(batch.tokens, fwd_hooks=hooks, **batch.options, **options)

    def zs(self, batch):
        zs = {}

        def keep(z, hook):
            zs[hook.layer()] = z

        self.hooked(batch, [(f"blocks.{layer}.attn.hook_z", keep) for layer in range(self.layers)], return_type=None)
        return [zs[layer].reshape(*batch.tokens.shape, -1) for layer in range(self.layers)]

    def run(self, removed, batch):
        def change(z, hook):
            layer = hook.layer()
            return edit(z, removed[layer], self.means[layer], self.width)

        hooks = [(f"blocks.{layer}.attn.hook_z", change) for layer in removed]
        if not batch.encoder:
            return self.hooked(batch, hooks, return_type="logits")
        last = []
        hooks.append((f"blocks.{self.layers - 1}.hook_out", lambda x, hook: last.append(x)))
        self.hooked(batch, hooks, return_type=None)
        return last[0]


class Nnsight:
    def __init__(self, job):
        from nnsight import NNsight

        with warnings.catch_warnings():
            warnings.simplefilter("ignore")  # about the name `output`, below
            self.model = NNsight(load(job, "sdpa"))

    def projections(self):
        """nnsight keeps `output` for itself and calls a submodule of that name `E_output`."""
        return projections(self.model, "E_output")

    def zs(self, batch):
        with self.model.trace(batch.tokens, **batch.options):
            zs = list().save()
            for projection in self.projections():
                zs.append(projection.input)
        return zs

    def run(self, removed, batch):
        edits = sorted(removed.items())
        with self.model.trace(batch.tokens, **batch.options):
            for layer, heads in edits:
                projection = self.projections()[layer]
                projection.input = edit(projection.input, heads, self.means[layer], self.width)
            out = self.model.output.save()
        return out.last_hidden_state if batch.encoder else out.logits


PEERS = {"hooks": Hooks, "transformer_lens": Lens, "nnsight": Nnsight}
COLUMNS = {"language_modeling": "nll", "induction": "nll", "ioi": "logit_diff", "logit_difference": "logit_diff",
           "similarity": "cosine"}


def scores(prepared, peer, removed, batches):
    """Of every example, in the reference's order."""
    kind, of = prepared["kind"], {}
    for batch in batches:
        of.update(zip(batch.items, batch.numbers(kind, peer.run(removed, batch)), strict=True))
    if kind == "similarity":
        a, b = (torch.stack([of[e[side]] for e in prepared["examples"]]) for side in "ab")
        return (a * b).sum(1).tolist()
    return [of[e["a"]] for e in prepared["examples"]]


def prepare(peer, job, batches):
    """b of every head, and the width of one."""
    seen = [[z[batch.mask.bool()] for z in peer.zs(batch)] for batch in batches]
    layers = [torch.cat(zs) for zs in zip(*seen, strict=True)]
    peer.width = layers[0].shape[-1] // job["heads"]
    if job["ablation"] == "zero":
        peer.means = [None] * len(layers)
    elif job["ablation"] == "mean":
        given = job.get("means") or [z.double().mean(0).tolist() for z in layers]
        peer.means = [torch.tensor(b, dtype=z.dtype, device=DEVICE) for b, z in zip(given, layers, strict=True)]
    else:
        raise SystemExit(f"peers.py doesn't know the ablation {job['ablation']!r}")


def peak_mb():
    """This process's peak. getrusage would give that of the process that started it, where that is larger."""
    status = Path("/proc/self/status").read_text()
    return int(status.split("VmHWM:")[1].split()[0]) / 1024


def versions():
    from importlib.metadata import version

    return {name: version(name) for name in ("torch", "transformers", "transformer-lens", "nnsight")}


@torch.inference_mode()
def main(question, answer):
    global DEVICE
    job = json.loads(Path(question).read_text())
    DEVICE = torch.device(job.get("device", "cpu"))
    if DEVICE.type == "cuda" and not torch.cuda.is_available():
        raise SystemExit("this environment's torch finds no GPU")
    torch.set_num_threads(job["threads"])
    prepared, name = job["prepared"], COLUMNS.get(job["prepared"]["kind"])
    if name is None:
        raise SystemExit(f"peers.py doesn't know the task {prepared['kind']!r}")
    peer = PEERS[job["peer"]](job)
    subsets = [{} for _ in job["subsets"]]
    for removed, subset in zip(subsets, job["subsets"], strict=True):
        for layer, head in subset:
            removed.setdefault(layer, []).append(head)

    def timed(removed, batches):
        began = time.perf_counter()
        column = scores(prepared, peer, removed, batches)
        return column, time.perf_counter() - began

    choices = batchings(prepared)
    prepare(peer, job, next(iter(choices.values())))
    for batches in choices.values():
        timed(subsets[-1], batches)
    batching = min(choices, key=lambda c: timed(subsets[-1], choices[c])[1]) if len(choices) > 1 else next(iter(choices))
    ran = [timed(removed, choices[batching]) for removed in subsets]
    Path(answer).write_text(json.dumps({
        "columns": {name: [column for column, _ in ran]}, "seconds": [seconds for _, seconds in ran],
        "peak_mb": peak_mb(), "batching": batching, "versions": versions()}))


if __name__ == "__main__":
    if sys.argv[1:] == ["--check"]:
        import nnsight  # noqa: F401
        import transformer_lens.model_bridge  # noqa: F401

        print("peers:", *(f"{name} {number}" for name, number in versions().items()))
    else:
        main(*sys.argv[1:])

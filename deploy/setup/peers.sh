#!/usr/bin/env bash
# What `make bench` compares Ablate with, in .deps/peers: TransformerLens, nnsight and transformers, on the
# same lean torch as the reference (deploy/setup/reference.sh). Quick and without effect once done.
set -euo pipefail
cd "$(dirname "$0")/../.."
out=.deps/peers
die() { echo "error: peers: $*" >&2; exit 1; }
[ -e "$out/ready-1" ] && { echo "peers: ready in $out"; exit 0; }
deploy/setup/reference.sh
# Of the reference's own Python: its torch is built for that version only.
"$out/bin/python" -m pip --version >/dev/null 2>&1 || .deps/ref/bin/python -m venv "$out" ||
  die "python3 -m venv failed; install the venv module (Debian and Ubuntu: apt-get install python3-venv) and try again"
echo "peers: fetching TransformerLens and nnsight by package name"
pip() { "$out/bin/python" -m pip install --quiet --disable-pip-version-check "$@"; }
site_of() { "$1" -c 'import sysconfig; print(sysconfig.get_paths()["purelib"])'; }
pip 'transformers==5.17.0' 'gguf==0.19.0' safetensors filelock typing-extensions sympy networkx jinja2 fsspec numpy psutil pyyaml \
  'beartype>=0.14.1' datasets einops fancy-einsum 'jaxtyping>=0.3' huggingface-hub packaging pandas rich tqdm 'typeguard>=4.2,<5' \
  greenlet pydantic cloudpickle websocket-client zstandard httpx ||
  die "pip could not fetch what the peers need; see its message above"
# Without their dependencies: they are above, torch, or never imported here (wandb, sentencepiece and the like).
pip --no-deps --no-warn-conflicts 'accelerate==1.15.0' 'transformer-lens==4.3.0' 'nnsight==0.8.1' ||
  die "pip could not fetch the peers; see its message above"
# Torch is the reference's, and the empty libraries too.
site=$(site_of "$out/bin/python")
torch=$(.deps/ref/bin/python -c 'import importlib.util, pathlib; print(pathlib.Path(importlib.util.find_spec("torch").origin).parent.parent)')
echo "$torch" >"$site/torch-of-reference.pth"
ln -sfn ../ref/stubs "$out/stubs"
"$out/bin/python" tests/bench/peers.py --check || die "the peers can't be imported; remove $out and try again"
touch "$out/ready-1"
echo "peers: ready in $out"

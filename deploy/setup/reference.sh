#!/usr/bin/env bash
# The Python reference of the parity tests (transformers in f64) in .deps/ref, lean: the Python side of
# PyPI's torch names CUDA libraries that a machine without a GPU never calls. Empty libraries of those
# names, made here, stand in for gigabytes of them; torch is then imported with lazy binding (see
# tests/reference/lean_torch.py). Quick and without effect once done.
set -euo pipefail
cd "$(dirname "$0")/../.."
out=.deps/ref
die() { echo "error: reference: $*" >&2; exit 1; }
[ -e "$out/ready-2" ] && { echo "reference: ready in $out"; exit 0; }
command -v cc >/dev/null || die "no C compiler (cc)"
[ -x "$out/bin/python" ] || python3 -m venv "$out" || die "python3 -m venv failed (Debian: apt-get install python3-venv)"
echo "reference: fetching transformers and torch (lean) by package name"
pip() { "$out/bin/python" -m pip install --quiet --disable-pip-version-check "$@"; }
pip --no-deps torch==2.11.0 'nvidia-cuda-runtime==13.0.*' 'nvidia-cuda-cupti==13.0.*' || die "pip could not fetch torch"
pip filelock typing-extensions sympy networkx jinja2 fsspec numpy safetensors gguf accelerate psutil pyyaml 'transformers==5.17.0' ||
  die "pip could not fetch transformers"

site=$("$out/bin/python" -c 'import sysconfig; print(sysconfig.get_paths()["purelib"])')
lib=$site/torch/lib
for _ in 1 2 3; do
  # Names that torch's libraries need and nobody has.
  missing=$(find "$lib" -maxdepth 1 -name '*.so*' -exec env LD_LIBRARY_PATH="$site/nvidia/cu13/lib" ldd {} \; 2>/dev/null |
    awk '/not found/ {print $1}' | sort -u)
  [ -z "$missing" ] && break
  for name in $missing; do
    echo | cc -shared -fPIC -x c - -o "$lib/$name" -Wl,-soname,"$name"
  done
done
"$out/bin/python" tests/reference/lean_torch.py || die "torch can't be imported; remove $out and try again"
touch "$out/ready-2"
echo "reference: ready in $out"

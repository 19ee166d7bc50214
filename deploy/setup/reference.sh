#!/usr/bin/env bash
# The Python reference of the parity tests (transformers in f64, scikit-learn, Pillow) in .deps/ref, lean: the Python side of
# PyPI's torch names CUDA libraries that a machine without a GPU never calls. Empty libraries of those
# names, made here, stand in for gigabytes of them; tests/reference/lean_torch.py loads them before
# torch. Where libtorch.sh has fetched torch already, that one is used. Quick and without effect once done.
set -euo pipefail
cd "$(dirname "$0")/../.."
out=.deps/ref
die() { echo "error: reference: $*" >&2; exit 1; }
[ -e "$out/ready-4" ] && { echo "reference: ready in $out"; exit 0; }
command -v python3 >/dev/null || die "python3 isn't installed; install Python 3.10 or later with pip and venv"
command -v cc >/dev/null || die "no C compiler (Debian and Ubuntu: apt-get install build-essential)"
"$out/bin/python" -m pip --version >/dev/null 2>&1 || python3 -m venv "$out" ||
  die "python3 -m venv failed; install the venv module (Debian and Ubuntu: apt-get install python3-venv) and try again"
echo "reference: fetching transformers, scikit-learn and Pillow by package name"
pip() { "$out/bin/python" -m pip install --quiet --disable-pip-version-check "$@"; }
site_of() { "$1" -c 'import sysconfig; print(sysconfig.get_paths()["purelib"])'; }
site=$(site_of "$out/bin/python")
pip 'transformers==5.17.0' 'gguf==0.19.0' safetensors filelock typing-extensions sympy networkx jinja2 fsspec numpy psutil pyyaml \
  'scikit-learn>=1.7,<1.10' 'scipy>=1.15,<1.19' 'pillow>=11,<13' ||
  die "pip could not fetch transformers, scikit-learn or Pillow; see its message above"
# Without its dependencies: they are torch, which comes below, and what is there already.
pip --no-deps --no-warn-conflicts 'accelerate>=1.1' || die "pip could not fetch accelerate; see its message above"

torch=
[ -x .deps/py/bin/python ] && torch=$(site_of .deps/py/bin/python)
if [ -n "$torch" ] && [ "$("$out/bin/python" -c 'import sys; print(sys.version_info[:2])')" = \
  "$(.deps/py/bin/python -c 'import sys; print(sys.version_info[:2])')" ] && [ -e "$torch/torch/lib/libtorch_python.so" ]; then
  echo "$torch" >"$site/torch-of-libtorch.pth"
else
  echo "reference: fetching torch 2.11.0 (about 530 MB) by package name"
  pip --no-deps --no-warn-conflicts torch==2.11.0 'nvidia-cuda-runtime==13.0.*' 'nvidia-cuda-cupti==13.0.*' ||
    die "pip could not fetch torch; see its message above"
  torch=$site
fi

# Names that torch's libraries need and nobody has.
stubs=$out/stubs
mkdir -p "$stubs"
find "$torch/torch/lib" -maxdepth 1 -name '*.so*' -exec env LD_LIBRARY_PATH="$torch/nvidia/cu13/lib" ldd {} \; 2>/dev/null |
  awk '/not found/ {print $1}' | sort -u |
  while read -r name; do
    cc -shared -fPIC -x c /dev/null -o "$stubs/$name" -Wl,-soname,"$name"
  done
"$out/bin/python" tests/reference/lean_torch.py || die "torch can't be imported; remove $out and try again"
touch "$out/ready-4"
echo "reference: ready in $out"

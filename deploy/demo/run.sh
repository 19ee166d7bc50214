#!/usr/bin/env bash
# The main job on two real models, by the real cluster path: coordinator and worker processes over gRPC.
set -euo pipefail
cd "$(dirname "$0")/../.."
# Other specs of the same names, and another place for the results: the tests use small ones.
specs=${ABLATE_DEMO_SPECS:-deploy/demo}
runs=${ABLATE_DEMO_RUNS:-runs}
began=$SECONDS
for name in minilm smollm2; do
  echo
  echo "== $name =="
  target/release/ablate run "$specs/$name.toml" --out "$runs/demo-$name" --device "${ABLATE_DEVICE:-cpu}"
done
echo
echo "The sweeps took $((SECONDS - began)) s. Open the reports:"
echo "  $runs/demo-minilm/report.html"
echo "  $runs/demo-smollm2/report.html"

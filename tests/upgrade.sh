#!/usr/bin/env bash
# An upgrade in the middle of a run, with the programs of an earlier commit: an old coordinator and two old workers begin a sweep, the
# coordinator is killed, the one of this checkout goes on with its store and its workers, and the tables must equal, byte by byte, those of a
# run of this checkout's programs alone.
#
#   tests/upgrade.sh [COMMIT]     default: the last commit that spoke the previous protocol. Builds it into target/upgrade (minutes).
set -euo pipefail
cd "$(dirname "$0")/.."
root=$PWD
commit=${1:-$(git log -1 --format=%H -G'PROTOCOL_VERSION: u32' -- common/src/lib.rs)^}
commit=$(git rev-parse --short "$commit")
place=$root/target/upgrade
export LIBTORCH=${LIBTORCH:-$root/.deps/libtorch} OMP_NUM_THREADS=1

echo "building $commit into $place; then this checkout"
rm -rf "$place/src" && mkdir -p "$place/src"
git archive "$commit" | tar -x -C "$place/src"
# A new engine ends experiments of an older one, on purpose. This is about what goes over the wire and into the store, and the sweep below
# has no scores that an engine since changed: the older programs say that they have this one's.
engine=$(sed -n 's/^pub const ENGINE_VERSION: u32 = \([0-9]*\);/\1/p' common/src/lib.rs)
sed -i "s/^\(pub const ENGINE_VERSION: u32 = \)[0-9]*;/\1$engine;/" "$place/src/common/src/lib.rs"
grep -q "ENGINE_VERSION: u32 = $engine;" "$place/src/common/src/lib.rs"
(cd "$place/src" && CARGO_TARGET_DIR="$place/target" cargo build --release --workspace --bins)
cargo build --release --workspace --bins
old=$place/target/release new=$root/target/release

run=$(mktemp -d)
started=()
trap 'kill -9 "${started[@]}" 2>/dev/null || true; wait 2>/dev/null || true; rm -rf "$run"' EXIT
cd "$run"
head -n 200 "$root/models/data/lee-pairs.jsonl" >pairs.jsonl
cat >spec.toml <<SPEC
name = "upgrade"
[model]
source = "$root/models/minilm"
[[task]]
name = "lee"
kind = "similarity"
data = "pairs.jsonl"
max_tokens = 16
[ablation]
method = "mean"
[[sweep]]
kind = "single"
[[sweep]]
kind = "pairs"
[[sweep]]
kind = "greedy"
fraction = 0.1
SPEC
port=$(python3 -c 'import socket; s = socket.socket(); s.bind(("127.0.0.1", 0)); print(s.getsockname()[1])')
export ABLATE_COORDINATOR=http://127.0.0.1:$port

serve() { # PROGRAMS' FOLDER
  "$1/ablate" serve --listen "127.0.0.1:$port" --store "sqlite://$run/state.db" --output "$run/served" 2>>serve.log &
  coordinator=$!
  started+=("$coordinator")
  until "$1/ablate" list >/dev/null 2>&1; do
    kill -0 "$coordinator" || { cat serve.log >&2; exit 1; }
    sleep 0.1
  done
}
# What python's expression makes of a line of JSON, d.
of() { python3 -c "import json, sys; d = json.loads(sys.stdin.readline()); print($1)"; }

serve "$old"
id=$("$old/ablate" submit spec.toml | head -n 1)
for n in 1 2; do
  "$old/ablate-worker" --coordinator "$ABLATE_COORDINATOR" --device cpu --threads 1 2>"worker-$n.log" &
  started+=("$!")
done
until [ "$("$old/ablate" status "$id" --json | of "int(d['chunks']['accepted'] >= d['chunks']['planned'] // 4)")" = 1 ]; do sleep 0.1; done
kill -9 "$coordinator"
wait "$coordinator" 2>/dev/null || true
serve "$new"
at=$("$new/ablate" status "$id" --json | of "'{accepted} of {planned}'.format(**d['chunks'])")
echo "upgraded after $at chunks"
until [ "$("$new/ablate" status "$id" --json | of "d['state']")" = done ]; do sleep 0.2; done
"$new/ablate" workers --json | while read -r line; do
  echo "$line" | of "'{name}: version {version}, protocol {protocol}, {accepted_chunks} chunks after the upgrade'.format(**d)"
done
"$new/ablate" export "$id" --out upgraded
# Programs before protocol 4 plan no follow-ups of pairs, and don't know the key that leaves them out.
sed -i 's/^kind = "pairs"$/&\ngroups = false/' spec.toml
"$new/ablate" run spec.toml --out alone --device cpu --threads 1 >/dev/null 2>&1
same=0
for table in alone/*.parquet; do
  cmp "$table" "upgraded/$(basename "$table")"
  same=$((same + 1))
done
echo "$same tables of $commit's workers and this checkout's coordinator equal those of this checkout alone, byte by byte"

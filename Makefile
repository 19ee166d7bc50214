# `make demo` and `make test` do all set-up themselves. See CONTRIBUTING.md.
CARGO ?= cargo
SHELL := /bin/bash
BIN := target/release

.PHONY: help setup rust libtorch models reference postgres browser build demo test python results lint fmt parity bench failover simulate chaos load idle bootstrap upgrade see clean

help:
	@echo "make demo    set everything up and find the heads that matter in two real models"
	@echo "make test    set everything up and run every test"
	@echo "make build   build target/release/ablate and target/release/ablate-worker"
	@echo "make python  test the Python package in deploy/python"
	@echo "make lint    rustfmt and clippy; make fmt formats"
	@echo "make clean   remove what cargo built; .deps, models and runs stay"
	@echo "make bench   the comparison with other tools on this machine; writes target/proof/bench.json"
	@echo "make failover ROUNDS=100  leaders killed one after another; writes target/proof/failover.json"
	@echo "make simulate SEEDS=10000  the cluster under simulated faults; writes target/proof/simulate.json"
	@echo "make chaos ROUNDS=50  real programs killed, stopped, cut off (as root); writes target/proof/chaos.json"
	@echo "make load    1,000 imitation workers on one coordinator; writes target/proof/load.json"
	@echo "make idle    how long workers of a real sweep wait for their coordinator; writes target/proof/idle.json"
	@echo "make bootstrap  the statistics of every pair of 270 heads, timed; writes target/proof/bootstrap.json"
	@echo "make upgrade the programs of an earlier commit upgraded in the middle of a run, tables compared"
	@echo "make parity  the long comparison with transformers in f64; writes target/proof/parity.json"

setup: libtorch models

rust:
	@command -v $(CARGO) >/dev/null || { echo "error: $(CARGO) isn't on the path; install Rust 1.95 or later" >&2; exit 1; }

libtorch:
	@deploy/setup/libtorch.sh

models:
	@deploy/setup/models.sh

reference: models
	@deploy/setup/reference.sh
	@.deps/ref/bin/python deploy/setup/reactions.py
	@.deps/ref/bin/python deploy/setup/antibodies.py

postgres:
	@deploy/setup/postgres.sh

# Chromium and its driver, for tests of pages; compiles nothing.
browser:
	@deploy/setup/chromium.sh

build: rust libtorch
	$(CARGO) build --release --workspace --bins

# The Python that tests the package ablate-results.
results:
	@deploy/setup/python.sh

demo: rust libtorch models build
	@deploy/demo/run.sh

lint: rust libtorch
	$(CARGO) fmt --all --check
	$(CARGO) clippy --release --workspace --features ablate-simulation/mutations --all-targets -- -D warnings

fmt: rust
	$(CARGO) fmt --all

# The binaries come first: the integration tests start them. Tests run side by side, so each takes one thread.
test: rust libtorch models reference postgres browser lint build python
	OMP_NUM_THREADS=1 $(CARGO) test --release --workspace --tests --no-fail-fast
	$(CARGO) test --release --workspace --features ablate-simulation/mutations --test mutations

# The Python package, against the built programs.
RESULTS := $(CURDIR)/.deps/results/bin
python: rust libtorch models results build
	cd deploy/python && $(RESULTS)/ruff check . && $(RESULTS)/ruff format --check . && $(RESULTS)/mypy
	cd deploy/python && $(RESULTS)/python -m pytest -q

# The report and the dashboard in Chromium: read as a reader does, and watched while a run goes on.
see: rust libtorch models browser build
	OMP_NUM_THREADS=1 $(CARGO) test --release --workspace --test programs -- report:: dashboard_live::

# Every comparison with a reference, one after the other, those that `make test` leaves out too; each appends its rows to
# target/proof/parity.jsonl.
PARITY := parity language architectures kinds seq2seq images tasks probe gradients real_gradients observed real_observed optimal reactions statistics
parity: rust libtorch models reference build
	@deploy/setup/peers.sh
	@mkdir -p target/proof && rm -f target/proof/parity.jsonl
	$(CARGO) build --release --workspace --examples
	OMP_NUM_THREADS=1 ABLATE_PARITY_LONG=1 ABLATE_PROOF=$(CURDIR)/target/proof $(CARGO) test --release --workspace --no-fail-fast \
	  --test numbers -- --include-ignored $(PARITY:%=%::); tested=$$?; target/release/examples/parity && exit $$tested

# Compares with TransformerLens, nnsight and plain hooks; writes target/proof/bench.json. CASES narrows it.
bench: rust libtorch models reference
	@deploy/setup/peers.sh
	$(CARGO) build --release --workspace --examples
	target/release/examples/bench $(CASES)

# Two coordinators on one database: the one that leads is killed ROUNDS times while chunks arrive.
ROUNDS ?= 100
failover: rust libtorch models postgres build
	ABLATE_FAILOVER_ROUNDS=$(ROUNDS) OMP_NUM_THREADS=1 $(CARGO) test --release --workspace --test programs a_leader_killed -- --nocapture

# The cluster in one process under simulated faults; SEED=n replays one run.
SEEDS ?= 10000
simulate: rust
	$(CARGO) build --release --workspace --features ablate-simulation/mutations --example simulate
	target/release/examples/simulate $(if $(SEED),--seed $(SEED),$(SEEDS))

# A coordinator with 1,000 imitation workers; writes target/proof/load.json.
load: rust libtorch
	$(CARGO) build --release --workspace --bins
	target/release/ablate-load

# How long the workers of a real sweep wait for their coordinator; writes target/proof/idle.json.
idle: rust libtorch models
	$(CARGO) build --release --workspace --bins
	target/release/ablate-idle

# Deltas and all 36,315 interactions of 270 heads by bootstrap, on synthetic scores: seconds and memory; writes
# target/proof/bootstrap.json. METRIC=… takes another metric.
METRIC ?= spearman
bootstrap: rust
	$(CARGO) run --release -p ablate-output --example bootstrap -- $(METRIC) 270 512 target/proof/bootstrap.json

# The programs of an earlier commit upgraded in the middle of a run; COMMIT=… chooses another than the last of the previous protocol.
upgrade: rust libtorch models
	tests/upgrade.sh $(COMMIT)

# Kills, stops and cuts off the programs on hosts in network namespaces (as root); ROUNDS=n.
chaos: rust libtorch models postgres
	$(CARGO) build --release --workspace --bins
	target/release/ablate-chaos --rounds $(ROUNDS)

clean:
	$(CARGO) clean

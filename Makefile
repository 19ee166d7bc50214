# `make demo` and `make test` do all set-up themselves. See CONTRIBUTING.md.
CARGO ?= cargo
SHELL := /bin/bash
BIN := target/release

.PHONY: help setup libtorch models reference build demo test lint parity bench simulate chaos load clean

help:
	@echo "make demo    set everything up and find the heads that matter in two real models"
	@echo "make test    set everything up and run every test"
	@echo "make build   build target/release/ablate and target/release/ablate-worker"
	@echo "make parity  the long comparison with transformers in f64; writes target/proof/parity.json"

setup: libtorch models

libtorch:
	@deploy/setup/libtorch.sh

models:
	@deploy/setup/models.sh

reference:
	@deploy/setup/reference.sh

build: libtorch
	$(CARGO) build --release --workspace --bins

demo: libtorch models build
	@deploy/demo/run.sh

lint: libtorch
	$(CARGO) fmt --all --check
	$(CARGO) clippy --release --workspace --all-targets -- -D warnings

# The binaries come first: the integration tests start them.
test: libtorch models reference lint build
	$(CARGO) test --release --workspace

parity: libtorch models reference
	@mkdir -p target/proof
	ABLATE_PARITY_LONG=1 $(CARGO) test --release -p ablate-tests --test parity -- --nocapture

bench simulate chaos load:
	@echo "make $@ is in the contract but isn't built yet" >&2; exit 2

clean:
	$(CARGO) clean

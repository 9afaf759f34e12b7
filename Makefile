# The two commands a newcomer needs: `make run` and `make test`. Everything else is a part of them.
SHELL := /bin/bash
.DEFAULT_GOAL := help
PYTHON ?= python3
VENV := .venv
BIN := $(VENV)/bin
UV_VERSION := 0.13.9
LOCK := requirements/dev.txt
LITELLM_VENV := .venv-litellm
LITELLM_LOCK := requirements/litellm.txt
PARTS := contract sidecar operator
# What the compiled gateway (as in its image) is tried with again: where compiled code could behave otherwise.
COMPILED_TESTS := $(addprefix tests/sidecar/test_,bad_requests.py departures.py failures.py many_streams.py mixed_traffic.py reload_state.py)

.PHONY: help setup litellm run test check lint bench generate docs screenshots fmt lock clean

help: ## this list
	@grep -hE '^[a-z]+:.*##' $(MAKEFILE_LIST) | sed -E 's/:[^#]*## /\t/' | expand -t 12

# One stamp: the environment is made anew only when the lock or a part's pyproject changes.
$(VENV)/.ready: $(LOCK) $(PARTS:%=%/pyproject.toml) Makefile
	@$(PYTHON) -c 'import sys; sys.exit(sys.version_info < (3, 11))' || { echo "llmroute needs Python 3.11 or newer; $(PYTHON) is $$($(PYTHON) -V 2>&1). Try: make PYTHON=python3.12 …" >&2; exit 1; }
	@echo "setup: virtual environment in $(VENV)" >&2
	@$(BIN)/python -m pip --version >/dev/null 2>&1 || $(PYTHON) -m venv --clear $(VENV) || { rm -rf $(VENV); echo "setup: $(PYTHON) cannot make a virtual environment; on Debian and Ubuntu: apt-get install python3-venv" >&2; exit 1; }
	@test "$$($(BIN)/uv --version 2>/dev/null | cut -d' ' -f2)" = $(UV_VERSION) || { echo "setup: uv $(UV_VERSION) (the installer)" >&2; $(BIN)/python -m pip install --quiet --disable-pip-version-check --require-hashes -r requirements/installer.txt; }
	@echo "setup: packages of $(LOCK), by hash" >&2
	@VIRTUAL_ENV=$(VENV) $(BIN)/uv pip install --quiet --require-hashes -r $(LOCK)
	@VIRTUAL_ENV=$(VENV) $(BIN)/uv pip install --quiet --no-deps --no-build-isolation $(PARTS:%=-e ./%)
	@touch $@

# litellm:// upstreams run in an environment of their own (docs/litellm.md). It is large, so only tests and `make litellm`
# make it; the stamp is its own. Bytecode is made here: without it litellm takes half a minute to import.
$(LITELLM_VENV)/.ready: $(LITELLM_LOCK) | $(VENV)/.ready
	@echo "litellm: virtual environment in $(LITELLM_VENV)" >&2
	@test -x $(LITELLM_VENV)/bin/python || $(PYTHON) -m venv --without-pip $(LITELLM_VENV)
	@echo "litellm: packages of $(LITELLM_LOCK), by hash" >&2
	@VIRTUAL_ENV=$(LITELLM_VENV) $(BIN)/uv pip sync --quiet --require-hashes --compile-bytecode $(LITELLM_LOCK)
	@touch $@

litellm: $(LITELLM_VENV)/.ready ## .venv-litellm, for litellm:// upstreams; its own lock, nothing else in it

setup: $(VENV)/.ready ## .venv with everything in it, the commands in .venv/bin

run: setup ## the quickstart on mock:// upstreams, on localhost
	@$(BIN)/llmroute run -f examples/quickstart.yaml $(RUN)

test: setup ## everything: lint, types, and every test, control plane included
	@$(BIN)/python -m tools.debian openssl=openssl curl=curl runc=runc iptables=iptables conntrack=conntrack ip=iproute2 \
	  busybox=busybox-static buildah=buildah debootstrap=debootstrap /usr/lib/cni/ptp=containernetworking-plugins \
	  prometheus=prometheus promtool=prometheus redis-server=redis-server chromium-headless-shell=chromium-headless-shell
	@$(MAKE) --no-print-directory litellm || { echo "SKIPPING ALL TESTS OF litellm:// UPSTREAMS: $(LITELLM_VENV) could not be made" >&2; test -z "$$CI"; }
	@$(BIN)/python -m tests.cluster
	@$(BIN)/python -m tools.compiled > /dev/null || test -z "$$CI"
	@$(MAKE) --no-print-directory lint
	@$(BIN)/pytest --maxfail=40
	@if program=$$($(BIN)/python -m tools.compiled); then LLMROUTE_TEST_PROGRAM=$$program $(BIN)/pytest -q --maxfail=40 $(COMPILED_TESTS); \
	  else echo "SKIPPING THE TESTS OF THE COMPILED GATEWAY" >&2; test -z "$$CI"; fi

check: setup lint ## the fast loop: lint, types, imports, unit tests
	@$(BIN)/pytest -q -m "not server and not cluster and not node"

lint: setup
	@$(BIN)/ruff check
	@$(BIN)/ruff format --check
	@$(BIN)/mypy
	@$(BIN)/lint-imports

bench: setup ## the gateway beside nginx, Envoy, LiteLLM and Portkey; an hour's traffic; injector, controller (BENCH=--help)
	@$(BIN)/python -m bench $(BENCH)
	@test -n "$(BENCH)" || for part in mixed injector controller; do $(BIN)/python -m bench.$$part || exit; done

generate: setup ## files that have a source in the code: the CRD and some of docs/
	@$(BIN)/python -m tools.generate

docs: setup ## the documentation as a site, in site/
	@$(BIN)/sphinx-build -W --keep-going -q -b html docs site
	@echo "docs: site/index.html" >&2

screenshots: setup ## docs/images, taken anew of the real thing
	@$(BIN)/python -m tools.screenshots

fmt: setup ## format the code and mend what lint can mend
	@$(BIN)/ruff check --fix --quiet || true
	@$(BIN)/ruff format

lock: setup ## resolve the locks anew (versions and hashes, no address)
	@tools/lock $(LOCK_ARGUMENTS)

clean: ## take the environment away
	rm -rf $(VENV) $(LITELLM_VENV)

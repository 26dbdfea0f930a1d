# `make` alone says what there is. Every target that runs something sets up what it needs first (infra/bootstrap.sh).
SHELL := /bin/sh
MAKEFLAGS += --no-print-directory
BIN := .venv/bin
PYTEST := $(BIN)/python -m pytest

.DEFAULT_GOAL := help
.PHONY: help bootstrap demo test check lint types links node-test slow chaos bench backends lock format clean

help: ## Say what there is
	@printf 'agentstream: run AI agents from Kafka\n\nusage: make TARGET\n\n'
	@grep -hE '^[a-z-]+:.*## ' $(MAKEFILE_LIST) | awk -F ':.*## ' '{printf "  %-10s %s\n", $$1, $$2}'
	@printf '\nNeeds Python 3.11 or newer, and Docker or Java 17 with Maven. `make demo` first; the first time takes a minute.\n'

demo: bootstrap ## Watch a real agent answer over a real Apache Kafka
	@$(BIN)/python -m agentstream.infra.demo

test: check node-test ## Lint, types, links and all tests but the long ones (under ten minutes)
	@$(PYTEST) -n 3 --dist loadfile --cov --cov-report=term:skip-covered

check: lint types links

lint: bootstrap ## Ruff: rules and format
	@$(BIN)/ruff check --quiet .
	@$(BIN)/ruff format --check --quiet . || { echo 'Some files are not formatted: run `make format`.'; exit 1; }

types: bootstrap ## mypy, strict
	@$(BIN)/mypy

links: bootstrap
	@$(PYTEST) -q --no-header tests/architecture/test_links.py

node-test: bootstrap
	@cd infra/pi-sidecar && ls test/*.test.js >/dev/null && ../../$(BIN)/python -m agentstream.infra.toolchain node --test test/*.test.js

slow: bootstrap ## Replay two hundred runs of Pi, and judge a change of their prompt (minutes)
	@$(PYTEST) -m slow tests/integration

chaos: bootstrap ## Kill workers and brokers for a long time (CHAOS_SCENARIO=network, cluster, pi or all: other things)
	@$(PYTEST) -m chaos -s tests/chaos$(if $(CHAOS_SCENARIO),$(patsubst /test_chaos_all.py,,$(CHAOS_SCENARIO:%=/test_chaos_%.py)),/test_chaos.py)

bench: bootstrap ## Measure
	@$(PYTEST) -m bench -s

backends: bootstrap ## Send spans to Arize Phoenix, and look at what it makes of them
	@$(BIN)/python -m tests.backends.install
	@$(PYTEST) -m backend tests/backends

format: bootstrap ## Let ruff format and fix what it can
	@$(BIN)/ruff check --fix --quiet . ; $(BIN)/ruff format .

lock: ## Resolve all requirements anew (needs uv and Maven)
	@sh infra/lock.sh

bootstrap: ## Set up .venv, Node, Pi and Kafka (the other targets do it by themselves)
	@sh infra/bootstrap.sh

clean: ## Remove all that the other targets made
	@rm -rf .venv .cache .mypy_cache .ruff_cache .pytest_cache .hypothesis .coverage .coverage.* htmlcov dist
	@rm -rf infra/pi-sidecar/node_modules infra/kafka/libs infra/kafka/libs.fresh
	@find . -name __pycache__ -type d -prune -exec rm -rf {} +

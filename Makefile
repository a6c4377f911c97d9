# Every target sets up what it needs: .venv with the package and its development tools, once for each pyproject.toml.

VENV := .venv
PYTHON := $(VENV)/bin/python
READY := $(VENV)/.ready
ARGS ?=
REPOS ?=
BENCH ?= harvest

.DEFAULT_GOAL := help
.PHONY: help demo test check format bench vllm

help:
	@echo "make demo             harvest a small history and show one sample"
	@echo "make test             run the tests"
	@echo "make check            formatting, lint, types, and the tests with those of the documentation"
	@echo "make vllm             install vLLM in an environment of its own, for the tests that need a real server"
	@echo "make format           format and sort imports"
	@echo "make bench REPOS=...  time a harvest of your own clones; BENCH=mutations, sandboxes, harness, rollouts, dataset, pack, midtrain or gpu time the others"

demo: $(READY)
	@$(VENV)/bin/agentdata demo $(ARGS)

test: $(READY)
	@$(PYTHON) -m pytest $(ARGS)

check: $(READY)
	@$(VENV)/bin/ruff format --check
	@$(VENV)/bin/ruff check
	@$(VENV)/bin/mypy
	@$(PYTHON) -m pytest

vllm: $(READY)
	@$(VENV)/bin/agentdata serve --install

format: $(READY)
	@$(VENV)/bin/ruff check --fix --quiet --exit-zero --select I
	@$(VENV)/bin/ruff format

bench: $(READY)
	@$(PYTHON) -m tests.bench_$(BENCH) $(ARGS) $(REPOS)

$(READY): pyproject.toml
	@git version 2>/dev/null | awk '{ split($$3, v, "."); new = v[1] > 2 || (v[1] == 2 && v[2] >= 34) } END { exit !new }' \
	  || { echo "git 2.34 or newer is needed: install or update git." >&2; exit 1; }
	@for python in python3.15 python3.14 python3.13 python3.12 python3.11 python3; do \
	  $$python -c 'import sys, venv, ensurepip; sys.exit(sys.version_info < (3, 11))' 2>/dev/null || continue; \
	  echo "Setting up $(VENV) with $$($$python --version)"; \
	  $$python -m venv --clear $(VENV) && \
	  $(PYTHON) -m pip install --quiet --disable-pip-version-check --editable '.[dev]' && \
	  touch $@; exit $$?; \
	done; \
	echo "Python 3.11 or newer with its venv module is needed: install it (on Debian and Ubuntu also python3-venv)." >&2; exit 1

# Tenor's everyday commands. Plain `make` prints what each does.
# Everything lives in .venv; `make setup` builds it from the hash-pinned lock with nothing but Python.

PYTHON ?= python3
VENV := .venv
BIN := $(VENV)/bin
READY := $(VENV)/.ready
UV_VERSION := 0.13.8
HORIZONS ?= 5m,1h
ARGS ?=
# Where Python may not keep what it compiles (many containers say so), each process would compile all that it imports.
COMPILE := $(if $(PYTHONDONTWRITEBYTECODE),--compile-bytecode)

.DEFAULT_GOAL := help
.PHONY: help setup run up test test-slow lint format validate bench lock clean

help:  ## print this help
	@echo "Tenor: config in, a served trading model out."
	@grep -E '^[a-z-]+:.*?## ' $(MAKEFILE_LIST) | awk -F':.*?## ' '{printf "  make %-10s %s\n", $$1, $$2}'

setup: $(READY)  ## create .venv and install everything the lock names

$(READY): requirements.lock pyproject.toml
	@$(PYTHON) -c 'import sys; sys.exit(not (3, 11) <= sys.version_info[:2] < (3, 14))' \
	  || { echo "Tenor needs Python 3.11, 3.12 or 3.13; $(PYTHON) is $$($(PYTHON) --version 2>&1). Try: make PYTHON=python3.12 $(MAKECMDGOALS)"; exit 1; }
	@test -x $(BIN)/python || $(PYTHON) -m venv $(VENV)
	@echo "setting up $(VENV) (first time: a few hundred megabytes to download)"
	@$(BIN)/python -m pip install --quiet --disable-pip-version-check uv==$(UV_VERSION)
	@$(BIN)/uv pip sync --quiet $(COMPILE) --python $(BIN)/python --require-hashes requirements.lock
	@$(BIN)/uv pip install --quiet --python $(BIN)/python --no-deps --editable .
	@touch $@

run: setup  ## materialize HORIZONS (default 5m,1h) on synthetic bars and fetch a prediction
	@$(BIN)/tenor run horizon=$(HORIZONS) $(ARGS)

up: setup  ## start the Dagster UI, its daemon and the inference service; Ctrl-C stops them
	@$(BIN)/tenor up $(ARGS)

test: setup  ## run the default test suite, two files at a time
	@$(BIN)/python -m pytest -n 2 --dist loadfile -m "not slow" $(ARGS)

test-slow: setup  ## run the slower checks
	@$(BIN)/python -m pytest -m slow $(ARGS)

lint: setup  ## check formatting, lint and types
	@$(BIN)/ruff format --check .
	@$(BIN)/ruff check .
	@$(BIN)/mypy

format: setup  ## format the code and apply safe lint fixes
	@$(BIN)/ruff format .
	@$(BIN)/ruff check --fix .

validate: setup  ## check every horizon's config and load the Dagster graph
	@$(BIN)/tenor validate

bench: setup  ## run the measured claims in bench/
	@for file in bench/[a-z]*.py; do echo "== $$file"; $(BIN)/python $$file || exit 1; done

lock: $(BIN)/uv  ## resolve pyproject.toml anew into requirements.lock
	@$(BIN)/uv pip compile --quiet --universal --generate-hashes --no-header --extra dev --extra otel --python-version 3.11 \
	  --prerelease if-necessary-or-explicit pyproject.toml -o requirements.lock

$(BIN)/uv:
	@test -x $(BIN)/python || $(PYTHON) -m venv $(VENV)
	@$(BIN)/python -m pip install --quiet --disable-pip-version-check uv==$(UV_VERSION)

clean:  ## delete what pipelines wrote (.tenor) and caches; keeps .venv
	@$(BIN)/tenor clean
	@find . -name __pycache__ -not -path './$(VENV)/*' -prune -exec rm -rf {} +
	@rm -rf .mypy_cache .ruff_cache .pytest_cache .hypothesis

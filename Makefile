# alignboard: every target creates .venv where it is missing and reuses it where it is not.
# A stamp file per level of install is keyed on pyproject.toml and constraints.txt, so a second run installs nothing.

PYTHON ?= python3
PYTEST_ARGS ?=
BENCHMARKS ?= benchmarks/reproduce.py

VENV := .venv
BIN := $(VENV)/bin
PIP := $(BIN)/python -m pip
BASE := $(VENV)/.stamp-base
TRAIN := $(VENV)/.stamp-train
FULL := $(VENV)/.stamp-full
SLOW := slow

.DEFAULT_GOAL := help
.PHONY: help demo boards test test-slow lint bench clean distclean

help:
	@echo "make demo       trains, asks, judges and ranks four families of tiny models: leaderboards/demo.html"
	@echo "make boards     the published AlpacaEval boards as files, and the audit of them (base install, no torch)"
	@echo "make test       the default test suite (installs every extra)"
	@echo "make test-slow  the tests marked slow: simulations and parity with upstream"
	@echo "make lint       formatting, lint, types and import contracts"
	@echo "make bench      the benchmarks, side by side with upstream where that is the claim"
	@echo "make clean      remove build products and caches; distclean removes $(VENV) as well"

$(BIN)/python:
	$(PYTHON) -m venv $(VENV)

$(BASE): pyproject.toml constraints.txt | $(BIN)/python
	$(PIP) install --quiet -c constraints.txt -e .
	@touch $@

$(TRAIN): $(BASE)
	$(PIP) install --quiet -c constraints.txt -e ".[train,lm-eval]"
	@touch $@

$(FULL): $(BASE)
	$(PIP) install --quiet -c constraints.txt -e ".[train,lm-eval,dev]"
	@touch $@

demo: $(TRAIN)
	$(BIN)/alignboard run demo

# `audit` answers 3 where it finds something, which it does on the published boards: not a failure.
boards: $(BASE)
	$(BIN)/alignboard board
	$(BIN)/alignboard audit || [ $$? -eq 3 ]

test: $(FULL)
	$(BIN)/pytest $(PYTEST_ARGS)

test-slow: $(FULL)
	$(BIN)/pytest -m $(SLOW) $(PYTEST_ARGS)

lint: $(FULL)
	$(BIN)/ruff format --check
	$(BIN)/ruff check
	$(BIN)/pyright
	$(BIN)/lint-imports

bench: $(FULL)
	@for script in $(BENCHMARKS); do echo "== $$script"; $(BIN)/python $$script || exit 1; done

clean:
	rm -rf build dist .pytest_cache .ruff_cache .hypothesis .import_linter_cache .alignboard
	find src tests benchmarks -type d -name __pycache__ -prune -exec rm -rf {} + 2>/dev/null || true

distclean: clean
	rm -rf $(VENV)

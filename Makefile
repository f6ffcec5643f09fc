# make demo | make test | make check: each makes .venv when it is missing, installs the pinned versions, and runs.
# The plain commands behind them stand in README.md.

.DEFAULT_GOAL := help
SHELL := /bin/bash
BIN := .venv/bin
INSTALLED := .venv/installed
# One thread per process: two test workers then share two cores, and sums have one order.
ONE_THREAD := OMP_NUM_THREADS=1 MKL_NUM_THREADS=1 OPENBLAS_NUM_THREADS=1
WORKERS ?= 2

.PHONY: help demo test check docs format clean

help:
	@echo "make demo    reconstruct a simulated scan; results in runs/demo"
	@echo "make test    all tests, lint and import floors included"
	@echo "make check   ruff, pyright, import-linter"
	@echo "make docs    the documentation as a site, in build/site/html"
	@echo "make format  let ruff rewrite the code"
	@echo "make clean   remove what was built (.venv stays; remove it by hand)"

# The first interpreter that runs, is new enough and can make an environment. The version the pins were made on comes
# first. PYTHON=... overrides.
$(BIN)/python:
	@for python in $(PYTHON) python3.11 python3 python3.12 python3.13 python3.14; do \
	  if $$python -c 'import sys, venv, ensurepip; sys.exit(sys.version_info < (3, 11))' 2>/dev/null; then \
	    echo "creating .venv with $$($$python --version)"; rm -rf .venv; exec $$python -m venv .venv; \
	  fi; \
	done; \
	echo "scidiff needs Python 3.11 or newer with the venv module, and found none in PATH." >&2; \
	echo "Install it (Debian, Ubuntu: apt install python3.11 python3.11-venv), or say which: make PYTHON=/path/to/python3.11 ..." >&2; \
	exit 1

$(INSTALLED): pyproject.toml constraints.txt | $(BIN)/python
	$(BIN)/python -m pip install --quiet --disable-pip-version-check --timeout 120 -c constraints.txt -e ".[test]"
	@touch $@

demo: $(INSTALLED)
	$(BIN)/scidiff demo --out runs/demo --overwrite

test: $(INSTALLED)
	$(ONE_THREAD) $(BIN)/python -m pytest -n $(WORKERS) --dist loadgroup --import-mode=importlib

check: $(INSTALLED)
	$(BIN)/ruff check .
	$(BIN)/ruff format --check .
	$(BIN)/lint-imports
	$(BIN)/pyright --pythonpath $(BIN)/python

docs: $(INSTALLED)
	$(BIN)/python -m pip install --quiet --disable-pip-version-check --timeout 120 -c constraints.txt -e ".[docs]"
	$(BIN)/python docs/site/build.py

format: $(INSTALLED)
	$(BIN)/ruff check --fix .
	$(BIN)/ruff format .

clean:
	rm -rf build dist *.egg-info runs/demo .pytest_cache .ruff_cache .hypothesis .import_linter_cache .coverage
	find . -name __pycache__ -not -path './.venv/*' -prune -exec rm -rf {} +

# make demo | make test | make check: each makes .venv when it is missing, installs the pinned versions, and runs.
# The plain commands behind them stand in README.md. `make table` prints its table of results.

.DEFAULT_GOAL := help
SHELL := /bin/bash
BIN := .venv/bin
INSTALLED := .venv/installed
# One thread per process: two test workers then share two cores, and sums have one order.
ONE_THREAD := OMP_NUM_THREADS=1 MKL_NUM_THREADS=1 OPENBLAS_NUM_THREADS=1
WORKERS ?= 2

.PHONY: help demo test table check docs format clean

help:
	@echo "make demo    reconstruct a simulated scan; results in runs/demo"
	@echo "make test    all tests, lint and import floors included"
	@echo "make table   the table of results: ten problems, eighteen methods (most of an hour on two cores); runs/table"
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

# Every method gets 100 network passes and at most 2000 through the operator, per member. Two cases each.
PROBLEMS := exact-inpainting exact-modes-2 exact-poisson-inverse 'mri:shape=[96,80],coils=4' ct:views=20 \
  'deblurring:shape=[64,64]' phase-retrieval:prior=rings,source=rings 'navier-stokes:shape=[32,32]' \
  darcy-inverse:size=32 black-hole
METHODS := mmps pigdm dps sda diffpir ddrm ddnm dds daps pnpdm red_diff enkg:particles=32 eki:particles=32 \
  deepinv-dps deepinv-pigdm deepinv-mmps deepinv-diffpir baseline-best

table: $(INSTALLED)
	$(BIN)/scidiff benchmark $(PROBLEMS) $(METHODS:%=-s %) --members 8 --seeds 2 \
	  --budget denoiser=100,operator=2000 --limit 300 --workers $(WORKERS) --out runs/table --resume

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

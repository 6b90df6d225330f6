# A fresh clone needs python3 (3.11 to 3.13) and make. Everything else is installed into .venv on first use.
# `make help` lists the targets.

PYTHON   ?= python3
NOTEBOOK ?= notebooks/00_tour.ipynb
VENV     := .venv
BIN      := $(VENV)/bin

EXPLORERS := probes/explorers
PACKAGES  := $(EXPLORERS)/node_modules/.package-lock.json

# The tests of a file stay together in one process (tests/conftest.py); one process per core, one thread each.
PYTEST       := $(BIN)/python -m pytest
SIDE_BY_SIDE := --numprocesses logical --maxprocesses 4 --dist loadscope --no-loadscope-reorder --durations=10
test: export OMP_NUM_THREADS ?= 1

# Prints the version of an unsupported interpreter. pyproject.toml states the same range.
SUPPORTED := import sys; v = sys.version_info[:2]; (3, 11) <= v < (3, 14) or print("%d.%d" % v)

.DEFAULT_GOAL := help
.DELETE_ON_ERROR:
.PHONY: help lab demo test test-slow lint lint-python lint-javascript format bundles clean

help: ## list the targets
	@awk -F ':.*## ' '/^[a-z-]+:.*## / { printf "make %-10s %s\n", $$1, $$2 }' $(firstword $(MAKEFILE_LIST))
	@echo
	@echo 'PYTHON=python3.12 selects the interpreter, NOTEBOOK=notebooks/01_depth.ipynb the notebook that make lab opens.'

lab: $(VENV)/.installed-lab ## open JupyterLab on the notebooks
	$(BIN)/dpt-workbench lab $(NOTEBOOK)

demo: $(VENV)/.installed-lab ## no browser needed: write depth and attention of a sample image to out/
	$(BIN)/dpt-workbench demo --out out

test: $(VENV)/.installed-test lint ## lint, then all tests except the slow ones
	$(PYTEST) $(SIDE_BY_SIDE)

test-slow: $(VENV)/.installed-test ## the tests that take minutes or gigabytes of memory
	$(PYTEST) -m slow

lint: lint-python lint-javascript ## check style, format, types and import layers of Python and JavaScript

lint-python: $(VENV)/.installed-test
	$(BIN)/ruff check .
	$(BIN)/ruff format --check .
	$(BIN)/mypy
	$(BIN)/lint-imports --no-logo pyproject.toml

# Without Node.js, make test skips the JavaScript checks. CI requires them.
ifneq ($(or $(shell command -v npm),$(CI)),)
lint-javascript: $(PACKAGES)
	cd $(EXPLORERS) && npm run --silent lint
else
lint-javascript:
	@echo 'Skipped: the JavaScript checks need Node.js and npm, which are not on PATH.'
endif

format: $(VENV)/.installed-test ## apply the formatters and the linters' safe fixes
	$(BIN)/ruff check --fix .
	$(BIN)/ruff format .
	@if command -v npm >/dev/null; then $(MAKE) --no-print-directory $(PACKAGES) && cd $(EXPLORERS) && npm run --silent format; fi

bundles: $(PACKAGES) ## rebuild the widgets' JavaScript and CSS (needs Node.js)
	cd $(EXPLORERS) && npm run --silent build

# npm ci installs the versions of package-lock.json. It runs again when the lock file changes.
$(PACKAGES): $(EXPLORERS)/package-lock.json $(EXPLORERS)/.npmrc
	cd $(EXPLORERS) && npm ci
	@touch $@

clean: ## remove .venv, out/ and caches
	rm -rf $(VENV) $(EXPLORERS)/node_modules out notebooks/out build dist *.egg-info .pytest_cache .mypy_cache .ruff_cache
	find dpt probes tests notebooks -name __pycache__ -prune -exec rm -rf {} +

# One stamp file per set of extras. It is out of date when the dependencies change.
EXTRAS_lab  := [lab,scale,onnx]
EXTRAS_test := [lab,scale,onnx,test]

$(VENV)/.installed-%: pyproject.toml constraints.txt
	@command -v '$(PYTHON)' >/dev/null || { \
	    echo 'No $(PYTHON) found. Install Python 3.11, 3.12 or 3.13, or name one: make PYTHON=/path/to/python ...' >&2; exit 1; }
	@[ -x $(BIN)/python ] || { wrong=$$('$(PYTHON)' -c '$(SUPPORTED)') && [ -z "$$wrong" ]; } || { \
	    echo "$(PYTHON) is Python $$('$(PYTHON)' -c 'import sys; print("%d.%d" % sys.version_info[:2])'); DPT Workbench" \
	         'needs 3.11, 3.12 or 3.13. Name one of those: make PYTHON=python3.12 ...' >&2; exit 1; }
	@[ -x $(BIN)/python ] || '$(PYTHON)' -m venv --clear $(VENV)
	@wrong=$$($(BIN)/python -c '$(SUPPORTED)'); [ -z "$$wrong" ] || { \
	    echo "$(VENV) was made with Python $$wrong; DPT Workbench needs 3.11, 3.12 or 3.13." \
	         'Run: make clean, then make PYTHON=python3.12 ...' >&2; exit 1; }
	@$(BIN)/python -m pip --version >/dev/null 2>&1 || $(BIN)/python -m ensurepip
	@echo 'Installing into $(VENV). The first time takes a few minutes.'
	$(BIN)/python -m pip install --disable-pip-version-check --constraint constraints.txt --editable '.$(EXTRAS_$*)'
	@touch $@

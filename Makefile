# A fresh clone needs python3 (3.11 to 3.13) and make; everything else is installed into .venv on first use.
# `make help` lists the targets.

PYTHON   ?= python3
NOTEBOOK ?= notebooks/02_attention.ipynb
VENV     := .venv
BIN      := $(VENV)/bin

EXPLORERS := probes/explorers
PACKAGES  := $(EXPLORERS)/node_modules/.package-lock.json

# The tests of a file stay together in one process (tests/conftest.py); one process per core, one thread each.
PYTEST       := $(BIN)/python -m pytest
SIDE_BY_SIDE := --numprocesses logical --maxprocesses 4 --dist loadgroup --no-loadscope-reorder --durations=10
test: export OMP_NUM_THREADS ?= 1

# Prints what is wrong with an interpreter, if anything. pyproject.toml states the same range.
SUPPORTED := import sys; v = sys.version_info[:2]; (3, 11) <= v < (3, 14) or print("%d.%d" % v)

.DEFAULT_GOAL := help
.DELETE_ON_ERROR:
.PHONY: help lab demo test test-slow lint lint-python lint-javascript format bundles clean

help: ## list the targets
	@awk -F ':.*## ' '/^[a-z-]+:.*## / { printf "make %-10s %s\n", $$1, $$2 }' $(firstword $(MAKEFILE_LIST))
	@echo
	@echo 'PYTHON=python3.12 chooses the interpreter, NOTEBOOK=notebooks/01_depth.ipynb what make lab opens.'

lab: $(VENV)/.installed-lab ## open JupyterLab on the notebooks
	$(BIN)/dpt-workbench lab $(NOTEBOOK)

demo: $(VENV)/.installed-lab ## without a browser: depth and attention of a sample picture, as PNG files in out/
	$(BIN)/dpt-workbench demo --out out

test: $(VENV)/.installed-test lint ## lint, then all tests but the slow ones
	$(PYTEST) $(SIDE_BY_SIDE)

test-slow: $(VENV)/.installed-test ## the tests that take minutes or gigabytes
	$(PYTEST) -m slow

lint: lint-python lint-javascript ## linters, formatters and type checkers of both languages, changing nothing

lint-python: $(VENV)/.installed-test
	$(BIN)/ruff check .
	$(BIN)/ruff format --check .
	$(BIN)/mypy
	$(BIN)/lint-imports --no-logo pyproject.toml

# JavaScript is checked where Node.js is; a clone without it runs everything else. CI requires it.
ifneq ($(or $(shell command -v npm),$(CI)),)
lint-javascript: $(PACKAGES)
	cd $(EXPLORERS) && npm run --silent lint
else
lint-javascript:
	@echo 'Skipped: the JavaScript checks need Node.js and npm, which are not on PATH.'
endif

format: $(VENV)/.installed-test ## rewrite the code as the linters and formatters want it
	$(BIN)/ruff check --fix .
	$(BIN)/ruff format .
	@if command -v npm >/dev/null; then $(MAKE) --no-print-directory $(PACKAGES) && cd $(EXPLORERS) && npm run --silent format; fi

bundles: $(PACKAGES) ## build the widgets' JavaScript and CSS; needs Node.js
	cd $(EXPLORERS) && npm run --silent build

# The versions of package-lock.json, installed again when it changes.
$(PACKAGES): $(EXPLORERS)/package-lock.json $(EXPLORERS)/.npmrc
	cd $(EXPLORERS) && npm ci
	@touch $@

clean: ## remove .venv, out/ and caches
	rm -rf $(VENV) $(EXPLORERS)/node_modules out build dist *.egg-info .pytest_cache .mypy_cache .ruff_cache
	find dpt probes tests notebooks -name __pycache__ -prune -exec rm -rf {} +

# One stamp per set of extras, made again when the dependencies change.
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
	@echo 'Installing into $(VENV); the first time this takes some minutes.'
	$(BIN)/python -m pip install --disable-pip-version-check --constraint constraints.txt --editable '.$(EXTRAS_$*)'
	@touch $@

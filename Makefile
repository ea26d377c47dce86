# gbp-onnx. `make help` says what there is; PYTHON names the interpreter that .venv is made with (3.11 or newer).

SHELL := bash
.SHELLFLAGS := -euo pipefail -c
.DELETE_ON_ERROR:
.DEFAULT_GOAL := help

PYTHON ?= python3
VENV ?= .venv
ORACLE ?= .venv-oracle
TORCH ?= torch==2.13.0

BIN := $(VENV)/bin
PIP := -m pip install --quiet --disable-pip-version-check
FIGURE := gbp-out/chelsea.png
ZOO ?= gbp-out/zoo
BUNDLED := models/squeezenet1_1.onnx

.PHONY: demo
demo: $(VENV)/.installed  ## Explain the bundled photograph with the bundled model and say where the figure is
	@$(BIN)/gbp-onnx explain -o $(FIGURE)
	@echo
	@echo "The figure is in $(FIGURE): photograph, Deconvnet, Guided Backpropagation, Saliency."

.PHONY: test
test: $(VENV)/.test  ## Run the tests, a process a core (no deep learning framework is installed)
	$(BIN)/python -m pytest -n auto

.PHONY: lint
lint: $(VENV)/.lint  ## Check style, formatting and types
	$(BIN)/ruff check .
	$(BIN)/ruff format --check .
	$(BIN)/mypy

.PHONY: bench
bench: $(VENV)/.bench  ## Measure speed on the bundled model (minutes); ARGS=--write renews docs/benchmarks.md
	$(BIN)/python -m benchmarks --peers $(ORACLE)/bin/python $(ARGS)
	$(BIN)/python -m benchmarks.building

.PHONY: bench-zoo
bench-zoo: $(VENV)/.bench $(ORACLE)/.peers  ## Measure seven networks beside other libraries (an hour; installs torch)
	$(ORACLE)/bin/python -m benchmarks.zoo $(ZOO)
	$(BIN)/python -m benchmarks --zoo $(ZOO) --growing $(BUNDLED) $(ZOO)/resnet50.onnx --rounds 5 \
		--peers $(ORACLE)/bin/python --json gbp-out/benchmarks.json $(ARGS)

.PHONY: oracle
oracle: $(ORACLE)/.installed  ## Compare with an independent evaluation in torch (installs torch)
	$(ORACLE)/bin/python -m pytest tests -m oracle
	$(ORACLE)/bin/python -m tests.oracle.run_corpus

.PHONY: conformance
conformance: $(VENV)/.test  ## Differentiate the operator tests that the onnx package ships; write docs/conformance.md
	$(BIN)/python -m tests.conformance --write

.PHONY: fuzz
fuzz: $(VENV)/.test  ## Differentiate 400 random configurations of each operator family
	$(BIN)/python -m tests.grids

.PHONY: docs
docs: $(VENV)/.installed  ## Write docs/operators.md anew from the derivative table
	$(BIN)/python docs/make_kernels.py
	$(BIN)/python docs/make_operators.py

.PHONY: clean
clean:  ## Remove environments, caches and what the demo made
	rm -rf $(VENV) $(ORACLE) gbp-out build dist .pytest_cache .mypy_cache .ruff_cache .hypothesis
	find . -name __pycache__ -type d -prune -exec rm -rf {} +

.PHONY: help
help:  ## Show this list
	@grep -hE '^[a-z-]+:.*## ' $(MAKEFILE_LIST) | sed -E 's/^([a-z-]+):.*## (.*)/  make \1\t\2/' | expand -t 16

# --- environments: a stamp for each stage, so that nothing is installed twice ----------------------------------

define new_environment
	@command -v $(PYTHON) >/dev/null || { echo "error: there is no $(PYTHON): install Python 3.11 or newer, or name one: make $(MAKECMDGOALS) PYTHON=python3.12" >&2; exit 2; }
	@$(PYTHON) -c 'import sys; sys.exit(sys.version_info < (3, 11))' || { echo "error: $(PYTHON) is $$($(PYTHON) -V 2>&1), gbp-onnx needs 3.11 or newer: make $(MAKECMDGOALS) PYTHON=python3.12" >&2; exit 2; }
	@$(PYTHON) -c 'import ensurepip, venv' 2>/dev/null || { echo "error: $(PYTHON) cannot make environments: install its venv module (Debian, Ubuntu: apt install python3-venv)" >&2; exit 2; }
	@echo "making $(1) with $$($(PYTHON) -V) (once)"
	@$(PYTHON) -m venv --clear $(1)
endef

$(BIN)/python:
	$(call new_environment,$(VENV))

$(VENV)/.installed: pyproject.toml | $(BIN)/python
	@echo "installing gbp-onnx into $(VENV)"
	@$(BIN)/python $(PIP) --editable '.[compare]'
	@touch $@

$(VENV)/.test: pyproject.toml | $(BIN)/python
	@echo "installing gbp-onnx and what its tests need into $(VENV)"
	@$(BIN)/python $(PIP) --editable '.[test]'
	@touch $@ $(VENV)/.installed

$(VENV)/.lint: pyproject.toml | $(BIN)/python
	@echo "installing gbp-onnx and the linters into $(VENV)"
	@$(BIN)/python $(PIP) --editable '.[lint,test]'
	@touch $@ $(VENV)/.installed

$(VENV)/.bench: pyproject.toml | $(BIN)/python
	@echo "installing gbp-onnx and what its benchmarks need into $(VENV)"
	@$(BIN)/python $(PIP) --editable '.[bench]'
	@touch $@ $(VENV)/.installed

$(ORACLE)/bin/python:
	$(call new_environment,$(ORACLE))

$(ORACLE)/.installed: pyproject.toml | $(ORACLE)/bin/python
	@echo "installing gbp-onnx and $(TORCH) into $(ORACLE)"
	@$(ORACLE)/bin/python $(PIP) --editable '.[test,oracle]' '$(TORCH)'
	@touch $@

$(ORACLE)/.peers: $(ORACLE)/.installed
	@echo "installing the libraries that benchmarks compare with into $(ORACLE)"
	@$(ORACLE)/bin/python $(PIP) --editable '.[peers]' '$(TORCH)'
	@touch $@

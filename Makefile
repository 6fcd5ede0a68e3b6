# Targets share one virtual environment, which is made and filled when needed. PYTHON picks the interpreter.
PYTHON ?= python3
VENV ?= .venv
BIN := $(VENV)/bin
WORKDIR ?= workdirs/quickstart

.PHONY: quickstart test test-rest test-all lint types docs notebooks clean

quickstart: $(VENV)/.installed  ## train, evaluate and report on bundled digits, offline
	$(BIN)/castream quickstart --workdir $(WORKDIR)

# Two tests at a time: most of a test is compiling, on one core.
PYTEST = $(BIN)/python -m pytest -n 2

test: lint types  ## lint, types, the everyday tests: minutes, nothing needed besides
	$(PYTEST) --dist loadfile -m "not slow and not system"

test-rest: $(VENV)/.installed-dev  ## what `make test` leaves out, and again what it skips where PyTorch or other data are absent
	$(PYTEST) --dist worksteal --durations 25 -m "slow or system or extra"

test-all: test test-rest  ## every test: several processes, notebooks, benchmarks, and what PyTorch and Chromium allow

SCHEMA = $(BIN)/check-jsonschema --quiet --builtin-schema

lint: $(VENV)/.installed-dev
	$(BIN)/ruff check .
	$(BIN)/ruff format --check .
	$(SCHEMA) vendor.github-workflows $(wildcard .github/workflows/*.yml)
	$(SCHEMA) custom.github-workflows-require-timeout $(wildcard .github/workflows/*.yml)
	$(SCHEMA) vendor.github-issue-forms $(filter-out %/config.yml,$(wildcard .github/ISSUE_TEMPLATE/*.yml))
	$(SCHEMA) vendor.github-issue-config .github/ISSUE_TEMPLATE/config.yml
	$(SCHEMA) vendor.citation-file-format CITATION.cff

types: $(VENV)/.installed-dev
	$(BIN)/pyright --pythonpath $(BIN)/python

$(VENV)/.installed: requirements.txt pyproject.toml
	@$(PYTHON) -c 'import sys; sys.version_info >= (3, 11) or sys.exit("castream_jax needs Python 3.11 or newer, this is %s: set PYTHON=…" % sys.version.split()[0])'
	$(PYTHON) -m venv $(VENV)
	$(BIN)/python -m pip install --quiet --disable-pip-version-check --editable .
	touch $@

$(VENV)/.installed-dev: $(VENV)/.installed requirements-dev.txt
	$(BIN)/python -m pip install --quiet --disable-pip-version-check --requirement requirements-dev.txt
	touch $@

# Material announces MkDocs 2 on every run; requirements-dev.txt stays below it. (--quiet would hide warnings from --strict.)
docs: $(VENV)/.installed-dev  ## the documentation site, in site/
	NO_MKDOCS_2_WARNING=1 $(BIN)/mkdocs build --strict

notebooks: $(VENV)/.installed-dev  ## run colab/ from top to bottom and keep the outputs
	$(BIN)/python colab/execute.py colab/*.ipynb

clean:
	rm -rf site build dist $(VENV) *.egg-info .pytest_cache .ruff_cache .hypothesis .coverage

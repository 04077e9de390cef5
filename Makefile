# Two commands do everything on a fresh machine: `make run` and `make test`.
PYTHON ?= python3
VENV ?= .venv
BIN := $(VENV)/bin
INSTALLED := $(VENV)/.installed

.PHONY: run test lint types pytest bench clean help

help:
	@echo "make run    create the environment, fine-tune SmolLM2-135M to call tools on the CPU, show calls before and after, export it"
	@echo "make test   lint, type check, all tests that need no GPU"
	@echo "make bench  measure a few ways to train on the CPU, and check what they did, in under 3 minutes"
	@echo "make clean  remove the environment (runs and caches stay)"

$(INSTALLED): pyproject.toml constraints.txt
	@$(PYTHON) -c 'import sys; sys.exit(sys.version_info < (3, 11) and "Python 3.11 or newer is needed: make PYTHON=python3.12 run")'
	$(PYTHON) -m venv $(VENV)
	$(BIN)/python -m pip install --quiet --disable-pip-version-check -c constraints.txt torch
	$(BIN)/python -m pip install --quiet --disable-pip-version-check -c constraints.txt -e '.[dev,gguf,serve]'
	@touch $@

run: $(INSTALLED)
	$(BIN)/toolkit run recipes/quickstart.toml

test: lint types pytest

lint: $(INSTALLED)
	$(BIN)/ruff check .
	$(BIN)/ruff format --check .

types: $(INSTALLED)
	$(BIN)/mypy -p toolkit -p bench

pytest: $(INSTALLED)
	$(BIN)/python -m pytest

bench: $(INSTALLED)
	$(BIN)/toolkit bench --quick

clean:
	rm -rf $(VENV)

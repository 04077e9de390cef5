# Two commands do everything on a fresh machine: `make run` and `make test`.
PYTHON ?= python3
VENV ?= .venv
BIN := $(VENV)/bin
INSTALLED := $(VENV)/.installed
TESTABLE := $(VENV)/.installed-dev
# what is installed is compiled when it is first imported, which most of it never is, and must be kept then
unexport PYTHONDONTWRITEBYTECODE
# what `pip install` is told to get PyTorch: without a GPU that is gigabytes less with the index of its CPU builds
TORCH ?= torch
PIP := $(BIN)/python -m pip install --quiet --disable-pip-version-check --no-compile -c constraints.txt

# a worker a core, at most four; a file's tests share what they train, so they stay with one worker
PYTEST := $(BIN)/python -m pytest -n logical --maxprocesses 4 --dist loadfile --no-loadscope-reorder

.PHONY: run test test-more test-slow families lint types pytest bench constraints clean help

help:
	@echo "make run    create the environment, fine-tune SmolLM2-135M to call tools on the CPU, show calls before and after, export it"
	@echo "make test   lint, type check, all tests that need no GPU, but for the longest"
	@echo "make test-more  those that make test leaves out, because a shorter test holds most of it"
	@echo "make test MORE=1  both at once, sooner than one after the other; .ci/run calls it"
	@echo "make test-slow  kill and damage runs by the dozen, and resume them; what is rarer; other random examples (hours)"
	@echo "make bench  measure a few ways to train on the CPU, and check what they did, in under 3 minutes"
	@echo "make constraints  resolve the constraints files for each Python, and write docs/versions.md (needs an index)"
	@echo "make clean  remove the environment (runs and caches stay)"

$(INSTALLED): pyproject.toml constraints.txt
	@$(PYTHON) -c 'import sys; sys.exit(sys.version_info < (3, 11) and "Python 3.11 or newer is needed: make PYTHON=python3.12 run")'
	$(PYTHON) -m venv $(VENV)
	$(PIP) $(TORCH)
	$(PIP) -e '.[gguf,serve]'
	@touch $@

$(TESTABLE): $(INSTALLED)
	$(PIP) -e '.[dev,gguf,serve]'
	@touch $@

run: $(INSTALLED)
	$(BIN)/toolkit run recipes/quickstart.toml

test: lint types pytest

lint: $(TESTABLE)
	$(BIN)/ruff check .
	$(BIN)/ruff format --check .
	$(BIN)/lint-imports --no-logo

types: $(TESTABLE)
	$(BIN)/mypy -p toolkit -p bench -p tests

pytest: $(TESTABLE)
	$(PYTEST) $(if $(MORE),,-m "not slow")

test-more: $(TESTABLE)
	$(PYTEST) --dist loadscope -m slow

test-slow: $(TESTABLE)
	$(BIN)/python -m pytest -m endurance tests
	TOOLKIT_FUZZ=200 $(BIN)/python -m pytest -m hypothesis tests

families: $(TESTABLE)
	TOOLKIT_FAMILIES_TABLE=docs/families.md $(BIN)/python -m pytest -m "endurance or not endurance" tests/families/test_every_family.py

bench: $(INSTALLED)
	$(BIN)/toolkit bench --quick

constraints: $(TESTABLE)
	$(BIN)/python -m pip install --quiet --disable-pip-version-check uv
	$(BIN)/python -m tests.pins.resolve

clean:
	rm -rf $(VENV)

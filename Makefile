# amenable: `make demo` shows a model that gets better from feedback, `make test` proves that the code does what it says.
# Needs git, make and Python 3.11 or newer; everything else goes into .venv.

PYTHON ?= $(shell for p in python3 python3.13 python3.12 python3.11; do \
	$$p -c 'import sys, venv, ensurepip; sys.exit(sys.version_info < (3, 11))' >/dev/null 2>&1 && { echo $$p; break; }; done)
BIN := .venv/bin
READY := .venv/.ready
WASI := .venv/.ready-wasi
# torch without CUDA is ten times smaller: make demo TORCH_INDEX=https://download.pytorch.org/whl/cpu
TORCH_INDEX ?=
PIP := $(BIN)/python -m pip install -q --disable-pip-version-check -c constraints.txt
PYTEST := HF_HUB_OFFLINE=1 $(BIN)/python -m pytest

.DEFAULT_GOAL := help
.PHONY: help demo test lint unit fast clean

help:
	@echo 'make demo    train a 0.5B code model on feedback from tests and show what it gained (CPU is enough)'
	@echo 'make test    lint, types and every test; the last line is the summary of the tests'
	@echo 'make fast    the tests that need no real model'
	@echo 'make lint    ruff and mypy'
	@echo 'make clean   remove .venv and the caches in this folder (not runs/)'

# A stamp, written last: an interrupted installation is taken up again.
$(READY): pyproject.toml constraints.txt
	@test -n '$(PYTHON)' || { \
		echo 'amenable needs Python 3.11 or newer with venv and pip; python3 here is '"$$(python3 --version 2>&1)"'.'; \
		echo 'Install one (Debian, Ubuntu: apt install python3 python3-venv), or name it: make PYTHON=/path/to/python3.11'; \
		exit 1; } >&2
	@test -x $(BIN)/python || { echo 'creating .venv with $(PYTHON)'; $(PYTHON) -m venv .venv; }
	@echo 'installing into .venv (a few minutes the first time: torch is large)'
	@$(PIP) $(if $(TORCH_INDEX),--extra-index-url $(TORCH_INDEX)) torch
	@$(PIP) -e '.[dev,hub,toxicity]'
	@touch $@

# what only the tests want: Python in WebAssembly, compiled at its first use; without it its tests are skipped
$(WASI): $(READY)
	@echo 'installing amenable[wasi] into .venv, for the tests of mode=wasi'
	@$(PIP) -e '.[wasi]' && touch $@ || echo 'amenable[wasi] could not be installed: its tests are skipped'

demo: $(READY)
	$(BIN)/amenable run ilf

lint: $(READY)
	@$(BIN)/ruff check -q amenable tests bench
	@$(BIN)/ruff format -q --check amenable tests bench
	@$(BIN)/mypy --no-error-summary

unit: $(READY) $(WASI)
	@$(PYTEST) $(PYTEST_ARGS)

fast: $(READY)
	@$(PYTEST) -m 'not slow' $(PYTEST_ARGS)

# one after the other also under `make -j`, so that the last line is pytest's own
test: $(READY)
	@$(MAKE) --no-print-directory lint
	@$(MAKE) --no-print-directory unit

clean:
	rm -rf .venv .mypy_cache .ruff_cache .pytest_cache .hypothesis *.egg-info
	find amenable tests -name __pycache__ -type d -prune -exec rm -rf {} +

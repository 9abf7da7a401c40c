# Each target sets up what it needs in .venv first, from the locks: `make compare` is all that a user has to type.
# ARGS is handed on: make compare ARGS="--seconds 1 --json", make test ARGS="tests/memory -x".

PYTHON ?= python3
VENV := .venv
BIN := $(VENV)/bin
PIP := $(BIN)/python -m pip --disable-pip-version-check
PYTEST := $(BIN)/python -m pytest
ARGS ?=
export PIP_NO_COMPILE := 1

.PHONY: help compare test guests qemu uncompiled coverage lint bench soak lock clean

help:
	@echo "make compare   run the main job: both paths, measured side by side"
	@echo "make test      run the tests"
	@echo "make guests    run the tests that boot guests; fetches a QEMU for them"
	@echo "make qemu      fetch a QEMU that has vfio-user-pci from Debian's packages, for this user only"
	@echo "make uncompiled  run the tests of the compiled loops as plain Python, and show what they reach"
	@echo "make coverage  run the tests, compiled and uncompiled, and show what they reach"
	@echo "make lint      ruff and mypy"
	@echo "make bench     measure, with what else one could pick in the same run"
	@echo "make soak      the long runs: every property and every kill many times"
	@echo "make lock      write the locks anew from pyproject.toml"
	@echo "make clean     remove all that was built"

compare: $(VENV)/.run
	@$(BIN)/vfwire compare $(ARGS)

test: $(VENV)/.dev
	@$(PYTEST) $(ARGS)

guests: $(VENV)/.dev qemu
	@$(PYTEST) --guests -m guests $(ARGS)

qemu: $(VENV)/.run
	@$(BIN)/vfwire guest qemu

# Compiled loops are invisible to coverage: the tests of those floors run a second time as plain Python.
uncompiled: $(VENV)/.dev
	@NUMBA_DISABLE_JIT=1 $(BIN)/coverage run -m pytest tests/memory tests/datapath $(ARGS)
	@$(BIN)/coverage combine --quiet
	@$(BIN)/coverage report --include='src/vfwire/memory/*,src/vfwire/datapath/*'

coverage: $(VENV)/.dev
	@$(BIN)/coverage erase
	@$(MAKE) --no-print-directory test PYTEST="$(BIN)/coverage run -m pytest"
	@NUMBA_DISABLE_JIT=1 $(BIN)/coverage run -m pytest tests/memory tests/datapath
	@$(BIN)/coverage combine --quiet
	@$(BIN)/coverage report

lint: $(VENV)/.dev
	@$(BIN)/ruff check
	@$(BIN)/ruff format --check
	@$(BIN)/mypy

bench: $(VENV)/.dev
	@$(BIN)/python -m bench $(ARGS)

soak: $(VENV)/.dev
	@$(PYTEST) --soak --timeout=3600 $(ARGS)

# One rule each for what runs and for what tests it, so that `compare` waits for no test tool.
$(VENV)/.run: pyproject.toml requirements.lock tools/make_venv.py
	@echo "== setting up $(VENV) (once; about half a minute)"
	@$(PYTHON) tools/make_venv.py $(VENV)
	@$(PIP) install --require-hashes -r requirements.lock
	@$(PIP) install --quiet --no-deps --no-build-isolation -e .
	@touch $@

$(VENV)/.dev: $(VENV)/.run requirements-dev.lock
	@echo "== adding the tools for tests (once; some seconds)"
	@$(PIP) install --require-hashes -r requirements-dev.lock
	@touch $@

# uv asks the index for hashes without downloading every wheel; it lives outside of .venv, and only here.
UV := $(VENV)-lock/bin/uv pip compile --quiet --generate-hashes --no-header --python-version 3.11 pyproject.toml
lock:
	@$(PYTHON) tools/make_venv.py $(VENV)-lock
	@$(VENV)-lock/bin/python -m pip install --quiet --disable-pip-version-check uv
	@$(UV) --upgrade -o requirements.lock
	@$(UV) --extra dev --constraint requirements.lock --upgrade -o requirements-dev.lock

clean:
	rm -rf $(VENV) $(VENV)-lock build src/*.egg-info .coverage .coverage.* .pytest_cache .mypy_cache .ruff_cache .hypothesis
	find . -name __pycache__ -prune -exec rm -rf {} +

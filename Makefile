# `make demo` and `make test` do all of their own set-up, into .venv.
PYTHON ?= python3
BIN := .venv/bin

# Tiny models gain nothing from a second thread, and a second worker doubles the pace.
WORKERS ?= auto
# A module goes to one worker, which builds its fixtures once; tests/conftest.py puts the longest modules first.
SPREAD := --dist loadscope --no-loadscope-reorder
PYTEST := OMP_NUM_THREADS=1 $(BIN)/python -m pytest

.PHONY: help setup demo loop test test-distributed test-nightly test-bounds bench gpu-report lint format clean

help:
	@echo "make demo              fine-tune, score and export the embedded default on a laptop's CPU, about 4 minutes"
	@echo "make loop              filter, rejection sampling and DPO on rows with planted faults, about 6 minutes"
	@echo "make test              the test suite"
	@echo "make test-distributed  the tests that start several processes"
	@echo "make test-nightly      the tests that take long"
	@echo "make test-bounds       the test suite with the oldest versions that pyproject.toml allows, in .venv-bounds"
	@echo "make bench             measure the data path, training and preference tuning beside others', about 7 minutes"
	@echo "make gpu-report        tables of what scripts/gpu/run.sh has measured, FOLDER=where it wrote"
	@echo "make lint              style, types, import layers, spelling"
	@echo "make format            rewrite the code in the project's style"
	@echo "make clean             remove .venv and all generated files"

setup: .venv/.ready

# uv is only used where it installs faster; the pins are the same. Compiled once here, a command starts in half of the time
# where PYTHONDONTWRITEBYTECODE is set, as in many containers.
.venv/.ready: pyproject.toml constraints.txt
	$(PYTHON) -c 'import sys; sys.exit("Python 3.11 or newer is needed: make PYTHON=python3.11 ..." if sys.version_info < (3, 11) else 0)'
	$(PYTHON) -m venv .venv
	$(BIN)/pip install --quiet --constraint constraints.txt uv
	$(BIN)/uv pip install --quiet --compile-bytecode --python $(BIN)/python --constraint constraints.txt --editable '.[dev,qlora,liger,eval,curate]'
	touch $@

DEMO := demo-$(shell date +%Y%m%d-%H%M%S)

demo: setup
	$(BIN)/qwenvl-train +recipe=sft_lora run_name=$(DEMO)
	$(BIN)/qwenvl-train eval run=runs/$(DEMO) eval.compare=base eval.worst=3 output=html
	$(BIN)/qwenvl-train export run=runs/$(DEMO)
	@echo
	@echo "Ask it yourself:"
	@echo "  $(BIN)/qwenvl-train chat run=runs/$(DEMO) chat.images=data/shapes/images/eval-000.png chat.prompt='Where does this part go?'"

loop: setup
	$(BIN)/python scripts/loop.py

test: setup
	$(PYTEST) -m 'not distributed and not nightly' --numprocesses $(WORKERS) $(SPREAD)

test-distributed: setup
	$(BIN)/python -m pytest -m 'distributed and not nightly'

test-nightly: setup
	$(PYTEST) -m nightly

test-bounds: .venv-bounds/.ready
	OMP_NUM_THREADS=1 .venv-bounds/bin/python -m pytest -m 'not distributed and not nightly' \
		--numprocesses $(WORKERS) $(SPREAD)

# Only what the package itself needs is old; the tools of the suite are those of constraints.txt.
.venv-bounds/.ready: pyproject.toml constraints.txt .venv/.ready
	$(PYTHON) -m venv --clear .venv-bounds
	$(BIN)/uv pip install --quiet --python .venv-bounds/bin/python --resolution lowest-direct --editable '.[heic,qlora,liger,eval,curate]'
	$(BIN)/uv pip install --quiet --python .venv-bounds/bin/python --constraint constraints.txt \
		hatchling hypothesis pytest pytest-xdist
	touch $@

bench: setup
	$(BIN)/python scripts/bench/data_path.py --output runs/bench/data_path.json
	$(BIN)/python scripts/bench/step.py --output runs/bench/step.json
	$(BIN)/python scripts/bench/dpo.py --output runs/bench/dpo.json

gpu-report: setup
	@$(BIN)/python scripts/gpu/report.py $(FOLDER)

lint: setup
	$(BIN)/ruff check .
	$(BIN)/ruff format --check .
	$(BIN)/mypy
	$(BIN)/lint-imports
	$(BIN)/codespell

format: setup
	$(BIN)/ruff check --fix .
	$(BIN)/ruff format .

clean:
	rm -rf .venv .venv-bounds dist build .pytest_cache .ruff_cache .mypy_cache .hypothesis .import_linter_cache

# `make demo`, `make test` and `make docs` work from a clean clone: each makes .venv first, if it is not there yet.

PYTHON ?= python3
BIN := .venv/bin

.PHONY: demo lint types test test-unit test-all gpu tutorials docs clean

# Both Pythons are asked first: `venv` puts nothing right in a .venv that an older one has made.
IS_NEW_ENOUGH := -c 'import sys; sys.exit(sys.version_info < (3, 11))'

.venv/installed: setup.py pyproject.toml
	@$(PYTHON) $(IS_NEW_ENOUGH) || { echo "MATEY needs Python 3.11 or newer, and $(PYTHON) is" \
		"$$($(PYTHON) --version 2>&1 | head -n 1); name another one: make PYTHON=python3.11" >&2; exit 2; }
	@test ! -e $(BIN)/python || $(BIN)/python $(IS_NEW_ENOUGH) || { echo "MATEY needs Python 3.11 or newer, and .venv was made with" \
		"$$($(BIN)/python --version 2>&1 | head -n 1); remove it, and give the same again: rm -r .venv" >&2; exit 2; }
	$(PYTHON) -m venv .venv
	$(BIN)/pip install --quiet --upgrade pip
	$(BIN)/pip install --quiet --editable '.[test]'
	touch $@

# A folder would count as made once its first file is begun; a simulation that was interrupted goes on.
data/demo/made: .venv/installed
	$(BIN)/python tools/simulate.py shallow_water --out $(@D)/shallow_water --trajectories 200 --resolution 64 --frames 101 --seed 0
	$(BIN)/python tools/simulate.py diffusion_reaction --out $(@D)/diffusion_reaction --trajectories 200 --resolution 64 --frames 101 --seed 0
	touch $@

demo: data/demo/made
	PATH="$(CURDIR)/$(BIN):$$PATH" DS_ACCELERATOR=cpu deepspeed --num_gpus 2 launch/pretrain.py \
		--deepspeed_config ds_configs/zero1.json --config launch/runs/demo.yaml
	PATH="$(CURDIR)/$(BIN):$$PATH" DS_ACCELERATOR=cpu deepspeed --num_gpus 2 launch/evaluate.py --checkpoint runs/demo --out runs/demo

lint: .venv/installed
	$(BIN)/ruff check .
	$(BIN)/ruff format --check .
	$(BIN)/lint-imports

types: .venv/installed
	$(BIN)/mypy

# Compiled files are kept even where a variable forbids it: pytest rewrites each test file, which takes 4 s in each process.
TESTS := PYTHONDONTWRITEBYTECODE= $(BIN)/python -m pytest

# Two processes of tests, each with the files of tests that it takes: one alone leaves a core idle half of the time.
IN_TWO := -n 2 --dist loadfile --max-worker-restart 0

test: .venv/installed
	$(TESTS) $(IN_TWO) -m "not slow"

# While editing: about a minute on two cores.
test-unit: .venv/installed
	$(TESTS) $(IN_TWO) -m "not slow and not processes and not whole"

# Files in their order: by xdist's own, those of few tests come last, and the longest of all are among them.
test-all: .venv/installed
	$(TESTS) $(IN_TWO) --no-loadscope-reorder

# On a machine with a GPU: what holds there and how fast it is, a line each at the end. Skipped with a sentence elsewhere.
gpu: .venv/installed
	$(TESTS) tests/gpu -m gpu

# Runs the notebooks of examples/, and stores them with what they show. After a change of one: `make tutorials NAMES=first_forecast`.
tutorials: .venv/installed
	$(BIN)/python -m tests.support.notebooks $(NAMES)

.venv/docs: .venv/installed
	$(BIN)/pip install --quiet --editable '.[docs]'
	touch $@

# Strictly: a broken link, or a docstring that cannot be read, ends it.
docs: .venv/docs
	$(BIN)/python docs/reference.py
	NO_MKDOCS_2_WARNING=1 $(BIN)/mkdocs build --quiet --strict
	@echo "site/index.html"

clean:
	rm -rf .venv build site *.egg-info

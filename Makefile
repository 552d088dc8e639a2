# `make study` reproduces the study, `make test` checks the software. Both set everything up first.
PYTHON ?= python3
CONFIG ?= config/config.yaml
BIN := .venv/bin
# Extra Snakemake options, such as ARGS="-n" or ARGS="--cores 1".
ARGS ?=

.PHONY: help setup study test check clean-venv

help:
	@echo "make study [CONFIG=config/config.yaml] [ARGS=...]   reproduce a study"
	@echo "make test                                           lint, types and all tests"
	@echo "make setup                                          only make .venv"

setup: .venv/ready

.venv/ready: pyproject.toml constraints.txt
	@echo "Setting up .venv (a few minutes, once) ..."
	@$(PYTHON) -m venv .venv
	@$(BIN)/python -m pip install --quiet --disable-pip-version-check \
		--constraint constraints.txt --editable '.[dev]'
	@touch $@

study: .venv/ready
	@$(BIN)/python workflow/scripts/fetch.py $(CONFIG)
	@$(BIN)/snakemake --profile profiles/default --configfile $(CONFIG) $(ARGS)

check: .venv/ready
	$(BIN)/ruff check .
	$(BIN)/ruff format --check .
	$(BIN)/mypy
	$(BIN)/snakefmt --check --compact-diff Snakefile workflow/rules
	$(BIN)/snakemake --lint --configfile $(CONFIG)

test: check
	$(BIN)/python -m pytest

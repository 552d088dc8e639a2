# `make study` reproduces the study, `make test` checks the software. Both set everything up first.
PYTHON ?= python3
CONFIG ?= config/config.yaml
# Where jobs run: profiles/default is this machine, profiles/slurm a cluster (docs/cluster.md).
PROFILE ?= profiles/default
BIN := .venv/bin
# Extra Snakemake options, such as ARGS="-n" or ARGS="--cores 1".
ARGS ?=

.PHONY: help setup fetch study verify plan pull record dvc-stages check check-model quick test test-faults \
	test-hostile test-long test-properties mutants audit test-browser test-remotes test-cluster test-gpu benchmark \
	benchmark-gpu docs page-bundle

help:
	@printf '%s\n' \
	'make COMMAND [NAME=value ...]. Each sets up what it needs first; no root, no GPU.' \
	'' \
	'To begin' \
	'  make pull                      finished results and figures of the recorded studies, in seconds' \
	'  make study                     or make the default study yourself, from text to figures: 10 to 15 minutes' \
	'  make test                      check the software: lint, types and all tests, 20 to 30 minutes' \
	'' \
	'Your model, your study (config/README.md; CONFIG=config/config.yaml if you name none)' \
	'  make check-model MODEL=...     is this model supported, and what would it cost?' \
	'  make plan    CONFIG=...        what a study would cost: time, memory, jobs' \
	'  make fetch   CONFIG=...        only fetch what it reads' \
	'  make study   CONFIG=config/preview.yaml   a first look, two to three minutes; put your model there' \
	'  make study   CONFIG=...        make it; ARGS="-n" only shows the jobs, PROFILE=profiles/slurm uses a cluster' \
	'  make verify  CONFIG=...        hash every result of it again' \
	'' \
	'Recorded results (docs/artifacts.md)' \
	'  make pull    CONFIG=... MODEL=...   one study of them, or one model of it' \
	'  make record  CONFIG=... MODEL=...   record them with DVC; all recorded studies if you name none' \
	'' \
	'While you change the software (CONTRIBUTING.md)' \
	'  make quick                     lint, types and unit tests, 2 to 3 minutes' \
	'  make check                     lint and types alone, of rules and of dvc.yaml too' \
	'  make dvc-stages                write dvc.yaml again, after a change of rules or imports' \
	'  make docs                      manual and reference as a site without network: site/index.html' \
	'  make page-bundle               bundle the sources of the explorer page again (needs node)' \
	'  make setup                     only make .venv' \
	'' \
	'More tests, and measuring the software' \
	'  make test-faults               runs that are killed, damaged and disturbed, over half an hour' \
	'  make test-hostile              models, texts and configs that were made to harm, at length, 10 minutes' \
	'  make test-properties           500 random models and samples for each property of what is measured' \
	'  make mutants MODULE=...        which small changes to a module of the measuring core no test notices' \
	'  make audit                     known vulnerabilities of the pinned packages, where a database can be reached' \
	'  make test-long                 10,000 prompts in one process with flat memory, 2 minutes' \
	'  make test-browser              the pages of results in a browser' \
	'  make test-remotes              stores on S3, WebDAV and SSH servers' \
	'  make test-cluster              the workflow through SLURM' \
	'  make test-gpu                  a GPU against the CPU' \
	'  make benchmark                 throughput, memory, seconds to an interval, half an hour' \
	'  make benchmark-gpu             the same of a GPU, a minute'

setup: .venv/ready

.venv/ready: pyproject.toml constraints.txt
	@echo "Setting up .venv (a few minutes, once) ..."
	@$(PYTHON) -m venv .venv
	@$(BIN)/python -m pip install --quiet --disable-pip-version-check \
		--constraint constraints.txt --editable '.[dev]'
	@# Also where Python is told to write no caches of its own: each job would compile the library again.
	@$(BIN)/python -m compileall -q workflow
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

# A hub name, a directory or a GGUF file; ARGS="--help" lists the options. `selfrepair init` writes a config for it.
check-model: .venv/ready
	@$(BIN)/selfrepair check $(if $(MODEL),"$(MODEL)") $(ARGS)

# Stages of DVC: of the study and the model that the command line names, or of all recorded studies (no name).
MODEL ?=
STAGES := $(BIN)/python workflow/scripts/recorded_stages.py \
	$(if $(MODEL)$(filter-out file,$(origin CONFIG)),$(CONFIG) $(MODEL))

# Snakemake's records of all studies come with any of them, packed. DVC asks a web server again before a file comes, not
# when it breaks off in the middle; a second pull goes on with the files that are missing.
pull: .venv/ready
	@stages=$$($(STAGES)) || exit 1; \
	pull() { $(BIN)/dvc pull $(ARGS) $${stages:+$$stages records}; }; \
	pull || { echo "warning: trying again in 5 s" >&2; sleep 5; pull; } || { echo "error: the store is unreachable" \
		"or lacks files (see $(BIN)/dvc remote list): try again, or run make study" >&2; exit 1; }
	@$(BIN)/python workflow/scripts/unpack_records.py

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

# MkDocs says which link leads nowhere, and which page would need the network; either ends it.
docs: .venv/ready
	@$(BIN)/python -m pip install --quiet --disable-pip-version-check \
		--constraint constraints.txt --editable '.[dev,docs]'
	@NO_MKDOCS_2_WARNING=1 $(BIN)/mkdocs build --quiet
	@echo "The documentation: site/index.html"

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
	$(PYTEST) -m "not slow and not hostile" tests/unit

test: check
	$(PYTEST)

# The tiny study killed, damaged and disturbed (docs/reliability.md); KILLS=100 for as many kills at random.
KILLS ?= 5
test-faults: .venv/ready
	KILLS=$(KILLS) $(BIN)/python -m pytest -m "faults or not faults" tests/faults

# What comes from outside and was made to harm (docs/reliability.md); `make test` has a short version of each.
test-hostile: .venv/ready
	$(BIN)/python -m pytest -m hostile tests

# Memory of a process that measures 10,000 prompts of a tiny model (docs/reliability.md).
test-long: .venv/ready
	$(BIN)/python -m pytest -m long tests/long

# What holds of every model, tried on random ones (docs/reliability.md); `make test` tries three for each property.
EXAMPLES ?= 500
test-properties: .venv/ready
	EXAMPLES=$(EXAMPLES) $(BIN)/python -m pytest tests/properties

# A module of the measuring core such as measure/ablation, several with commas, or all of them (hours).
MODULE ?=
SAMPLE ?= 20
SEED ?= 0
mutants: .venv/ready
	@$(BIN)/python -m pip install --quiet --disable-pip-version-check \
		--constraint constraints.txt --editable '.[dev,mutation]'
	@$(BIN)/python tests/mutants.py "$(MODULE)" $(SAMPLE) $(SEED)

# Known vulnerabilities of the pinned packages; status 3 and a line where no database of them can be reached.
audit: .venv/ready
	@$(BIN)/python workflow/scripts/audit.py constraints.txt

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

# The explorer page at length; skipped without Chromium, its check by axe without node.
test-browser: .venv/ready
	@$(BIN)/python -m pip install --quiet --disable-pip-version-check \
		--constraint constraints.txt --editable '.[dev,browser]'
	@test -d workflow/page/node_modules || ! command -v npm > /dev/null || npm ci --prefix workflow/page --ignore-scripts
	$(BIN)/python -m pytest -m "browser or not browser" tests/browser

# The scripts and styles of the explorer page, checked and bundled (node); what comes out is committed.
page-bundle:
	@npm ci --prefix workflow/page --ignore-scripts
	@npm run --prefix workflow/page check
	@npm run --prefix workflow/page bundle

benchmark: .venv/ready
	@$(BIN)/python workflow/scripts/fetch.py config/config.yaml
	@$(BIN)/python benchmarks/sweep.py
	@$(BIN)/python benchmarks/interval.py

benchmark-gpu: .venv/ready
	@$(BIN)/python workflow/scripts/fetch.py config/config.yaml
	@$(BIN)/python benchmarks/gpu.py

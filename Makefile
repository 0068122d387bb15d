# Gen4Det: `make demo` needs python3 (3.11 or later), make and nothing else. `make help` lists the targets.

PYTHON ?= python3
# More arguments for pip, e.g. PIP_ARGS="--extra-index-url URL" for an index with CPU builds of torch.
PIP_ARGS ?=
# Versions of all packages, also of those that others bring along. An index that lacks one of them: make setup LOCK=
LOCK ?= envs/develop.lock.txt
# More arguments for pytest and Snakemake, e.g. PYTEST_ARGS="-k config" or SNAKEMAKE_ARGS="--cores 1".
PYTEST_ARGS ?=
SNAKEMAKE_ARGS ?=
# The tests of a file stay on one worker and share what they prepare.
PARALLEL := --numprocesses auto --maxprocesses 4 --dist loadfile --no-loadscope-reorder

BIN := .venv/bin
SNAKEMAKE := $(BIN)/snakemake --profile local
RESULTS := results/miniature
STUDY := lvis_rare
OWN ?= config/own.yaml
TABLE := $(RESULTS)/tables/$(STUDY)
FIGURES := $(RESULTS)/figures/$(STUDY)
# Made first, before any evaluation: the last trainings wait for it.
FIRST := --prioritize $(RESULTS)/synthetic/lvis/mosaicfusion/set.json $(RESULTS)/synthetic/lvis/gen2det/set.json
# Of which scale, and where to; the folder beside the archive is the same, unpacked.
SCALE = $(if $(CONFIGFILE),--configfile $(CONFIGFILE) --)
REPORT := results/report.zip
PAGES := $(TABLE).csv $(FIGURES).pdf $(FIGURES)_gallery.pdf $(RESULTS)/reports/$(STUDY)/index.html
COMPARED := $(RESULTS)/tables/engines.csv $(RESULTS)/tables/engines_categories.csv $(RESULTS)/figures/engines.pdf \
	$(RESULTS)/reports/engines/index.html
# The stamp carries the hash of pins and lock: installing is repeated when the pins change, and only then.
HASH := $(shell cat pyproject.toml $(LOCK) | cksum | cut -d " " -f 1)
CONSTRAINTS = $(if $(LOCK),--constraint $(LOCK))
INSTALLED := .venv/installed-$(HASH)
# The environment of the submit host; its stamp carries the hash of its files.
SUBMITS := .venv-submit/installed-$(shell cat envs/submit.yaml envs/submit.lock.txt | cksum | cut -d " " -f 1)
# Installs Debian's Slurm where it can; `make test` and `make test-slurm` use it.
SLURM = tests/install.sh $$(cd tests/slurm && $(PYTHON) -c 'import local_cluster; print(*local_cluster.PACKAGES)')
# OpenCV comes twice, because two dependencies ask for two builds of it. Both unpack into one folder; the one
# without windows must be the last, since the other cannot be imported where there is no libGL.
OPENCV := $(shell grep -o 'opencv-python-headless==[0-9.]*' pyproject.toml)

.DEFAULT_GOAL := help
.PHONY: help setup submit demo compare own seeds report plan check-run why test test-slurm lint format schema lock unlock clean

help:  ## this list
	@awk -F ':.*## ' '/^[a-z-]+:.*## / {printf "  make %-10s %s\n", $$1, $$2}' $(MAKEFILE_LIST)

setup: $(INSTALLED)  ## create .venv with the pinned packages (repeated only when pyproject.toml changes)

$(INSTALLED):
	@$(PYTHON) -c 'import sys; sys.exit("$(PYTHON) is %d.%d; 3.11 or later is needed: make PYTHON=..." % sys.version_info[:2] if sys.version_info < (3, 11) else 0)'
	@test -x $(BIN)/python || { echo "setup: creating .venv"; $(PYTHON) -m venv .venv; } \
		|| { echo "setup: no virtual environment could be made; on Debian and Ubuntu, install python3-venv"; rm -rf .venv; exit 1; }
	@echo "setup: installing the packages that pyproject.toml pins (a few minutes the first time)"
	$(BIN)/python -m pip install --progress-bar off $(PIP_ARGS) $(CONSTRAINTS) --editable '.[dev]' \
		|| { echo "setup: if the index lacks a version of $(LOCK), make setup LOCK= takes what it has"; exit 1; }
	$(BIN)/python -m pip install --progress-bar off --quiet $(PIP_ARGS) --force-reinstall --no-deps $(OPENCV)
	@$(BIN)/python -c 'import cv2, diffusers, mmcv, mmdet, mmengine, torch; print("setup: ready, torch", torch.__version__)'
	@rm -f .venv/installed-*; touch $@

submit: $(SUBMITS)  ## create .venv-submit: Snakemake with the plugin for Slurm, without the libraries of the jobs

$(SUBMITS): envs/submit.yaml envs/submit.lock.txt
	@test -x .venv-submit/bin/python || $(PYTHON) -m venv .venv-submit
	.venv-submit/bin/python -m pip install --progress-bar off $(PIP_ARGS) $(if $(LOCK),--constraint envs/submit.lock.txt) \
		$$(sed -n 's/^ *- \(.*==.*\)/\1/p' $<)
	@rm -f .venv-submit/installed-*; touch $@

demo: setup  ## real against generated training data in the miniature: table and figures from nothing
	$(SNAKEMAKE) $(SNAKEMAKE_ARGS) $(FIRST) -- $(PAGES)
	@echo; cat $(TABLE).md; echo
	@echo "table:    $(TABLE).csv (.md, .tex)"
	@echo "figure:   $(FIGURES).pdf (.png)"
	@echo "gallery:  $(FIGURES)_gallery.pdf (.png), generated images, kept and rejected"
	@echo "page:     $(RESULTS)/reports/$(STUDY)/index.html, all of it in one file to hand on"
	@$(MAKE) --no-print-directory report

compare: setup  ## all five engines in one table, three seeds, two amounts (two hours on two cores by `make plan`; resumable)
	@$(MAKE) --no-print-directory plan CONFIGFILE=config/config.yaml STUDIES=engines
	$(SNAKEMAKE) $(SNAKEMAKE_ARGS) --config 'studies=[engines]' -- $(COMPARED)
	@echo; cat $(RESULTS)/tables/engines.md
	@echo "page to hand on: $(RESULTS)/reports/engines/index.html"

own: setup  ## your own data: make own DATA=folder [NAMES="cup, fish"] [ENGINES=mosaicfusion,gen2det] [OWN=config/own.yaml]
	@PYTHONPATH=workflow $(BIN)/python -m gen4det.orchestration.own --output $(OWN) $(if $(DATA),--data "$(DATA)") \
		$(if $(NAMES),--names "$(NAMES)") $(if $(ENGINES),--engines "$(ENGINES)")
	@$(MAKE) --no-print-directory plan CONFIGFILE=$(OWN)
	$(SNAKEMAKE) $(SNAKEMAKE_ARGS) --configfile $(OWN) -- all pages
	@echo; cat results/own/tables/own.md 2>/dev/null || true
	@test ! -e results/own/reports/own/index.html || echo "page to hand on: results/own/reports/own/index.html"
	@echo "data sets for use elsewhere: results/own/exports"

seeds: setup  ## the same with three training seeds: mean and spread
	$(SNAKEMAKE) $(SNAKEMAKE_ARGS) $(FIRST) --config 'seeds=[0,1,2]' -- $(PAGES)
	@echo; cat $(TABLE).md

report: setup  ## pages to hand on, of all studies; makes what is missing first: make report CONFIGFILE=config/paper.yaml
	$(SNAKEMAKE) $(SNAKEMAKE_ARGS) $(or $(SCALE),--) all pages
	$(SNAKEMAKE) --quiet all --report $(REPORT) --report-stylesheet workflow/report/style.css $(SCALE)
	@rm -rf $(REPORT:.zip=) && $(BIN)/python -m zipfile -e $(REPORT) $(dir $(REPORT))
	@echo "report:   $(REPORT:.zip=)/report.html; to hand on: $(REPORT)"
	@echo "pages on studies, a file each to hand on: below the results, reports/STUDY/index.html"

plan: setup  ## before a run: jobs, hours of a GPU or of cores, disk: make plan CONFIGFILE=config/paper.yaml (the default)
	@PYTHONPATH=workflow $(BIN)/python -m gen4det.orchestration.costs --configfile $(or $(CONFIGFILE),config/paper.yaml) \
		$(if $(STUDIES),--studies $(STUDIES)) $(if $(SHARDS),--shards $(SHARDS)) $(if $(COSTS),--costs $(COSTS))

check-run: setup  ## is a run within the spread of reference seeds? make check-run RUN=folder [REFERENCE=results/miniature]
	@test -n "$(RUN)" || { echo "check-run: name the results to be checked: make check-run RUN=folder"; exit 2; }
	@PYTHONPATH=workflow $(BIN)/python -m gen4det.stages.check_run --settings '{}' --run "$(RUN)" --reference "$(or $(REFERENCE),$(RESULTS))"

why: setup  ## for each result that is not up to date the reason: make why TARGET=FILE CONFIGFILE=config/paper.yaml
	@PYTHONPATH=workflow $(BIN)/python -m gen4det.orchestration.why $(if $(CONFIGFILE),--configfile $(CONFIGFILE)) -- $(TARGET)

test: setup  ## all tests; those of the profile `slurm` where a Slurm can be installed and started
	@$(SLURM) && $(MAKE) --no-print-directory submit || echo "test: no Slurm here; its tests will be skipped and say so"
	@tests/install.sh chromium || echo "test: no Chromium here; tests of pages in a browser will be skipped and say so"
	$(BIN)/python -m pytest $(PARALLEL) $(PYTEST_ARGS)

test-slurm: setup submit  ## the profile on a Slurm of its own: table, cancelled jobs, outages, dead drivers (half an hour)
	@$(SLURM)
	GEN4DET_TEST_SLURM=all $(BIN)/python -m pytest $(PYTEST_ARGS) tests/slurm

lint: setup  ## what CI asks of the text: ruff, snakefmt, snakemake --lint, generated files
	$(BIN)/ruff check .
	$(BIN)/ruff format --check .
	$(BIN)/snakefmt --check Snakefile workflow/rules
	$(BIN)/snakemake --lint
	$(BIN)/python -m gen4det.orchestration.settings_docs --check

format: setup  ## rewrite Python and Snakemake files in the common format
	$(BIN)/ruff check --fix .
	$(BIN)/ruff format .
	$(BIN)/snakefmt Snakefile workflow/rules

schema: setup  ## write config/schema/ and config/reference.yaml from the typed settings
	$(BIN)/python -m gen4det.orchestration.settings_docs

lock: setup  ## write envs/*.lock.txt: what pip makes today of the pins in pyproject.toml and envs/*.yaml
	PYTHONPATH=workflow $(BIN)/python -m gen4det.orchestration.locks

unlock: setup  ## after a crash or power cut: remove the lock that a run left behind
	$(SNAKEMAKE) --unlock

clean:  ## remove what the miniature made, and caches; never results of the full scale
	rm -rf $(RESULTS) $(REPORT) $(REPORT:.zip=) .pytest_cache .ruff_cache .hypothesis
	find workflow tests -name __pycache__ -type d -prune -exec rm -rf {} +

# Two commands do all on a fresh machine with Python 3.11 or newer: `make reproduce` and `make test`.
#
# Variables:
#   PYTHON       the Python to build the environment with                                          (default: python3)
#   TORCH_INDEX  address of a PyTorch wheel index, to choose the build: the "Get started" page of pytorch.org names one
#                for the CPU and one per CUDA version. Empty: your registry's default build.       (default: empty)
#   EXTRAS       optional dependencies of pyproject.toml; test contains DALI on Linux                  (default: test)
#   CORES        cores Snakemake may use                                                               (default: all)
#   SUITES       suites of `make reproduce`                                           (default: as params/config.yaml)
#   SUITE, MINUTES  of `make run-gpu`                                                            (MINUTES by default: 9)
#   GPUS         trainings that `make run-gpu` runs at once, one a GPU                                    (default: 1)
PYTHON ?= python3
TORCH_INDEX ?=
EXTRAS ?= test
CORES ?= all
SUITES ?=
SUITE ?=
MINUTES ?= 9
GPUS ?= 1

BIN := .venv/bin
INSTALLED := .venv/installed
TORCH_PINS := $(shell sed -n 's/^ *"\(torch\(vision\)\{0,1\}==[^"]*\)".*/\1/p' pyproject.toml)

.PHONY: setup reproduce run-gpu test test-fast test-processes test-workflow test-docs site test-browser test-gpu test-slow test-slurm lint chaos chaos-short bench audit ui schemas clean openvino

setup: $(INSTALLED)

$(INSTALLED): pyproject.toml constraints.txt
	@$(PYTHON) -c 'import sys; sys.exit(sys.version_info < (3, 11) and "error: Python 3.11 or newer is needed, found " + sys.version.split()[0] + "; name one with make PYTHON=python3.11")'
	test -x $(BIN)/python || $(PYTHON) -m venv .venv
ifneq ($(TORCH_INDEX),)
	$(BIN)/python -m pip install --index-url $(TORCH_INDEX) $(TORCH_PINS)
endif
	$(BIN)/python -m pip install --constraint constraints.txt --editable ".[$(EXTRAS)]"
	touch $(INSTALLED)

# Snakemake ends with the tables where it did anything: with nothing left to do, its last rule is still to be done again.
reproduce: setup
	$(BIN)/snakemake --cores $(CORES) $(if $(SUITES),--config suites=$(SUITES)) --forcerun all

# A suite in pieces, where a machine is lent for minutes: each call continues where the last one stopped, and every training
# saves its state before MINUTES are over, which `snakemake` then calls a failed job. The results are those of one run.
run-gpu: setup
	@test -n "$(SUITE)" || { echo "error: name a suite: make run-gpu SUITE=cifar10-short MINUTES=9" >&2; exit 2; }
	@case '$(MINUTES)' in ''|0*|*[!0-9]*) echo "error: MINUTES is '$(MINUTES)', expected a whole number such as 9" >&2; exit 2;; esac
	SLURM_JOB_END_TIME=$$(($$(date +%s) + 60 * $(MINUTES))) $(BIN)/snakemake --cores $(CORES) --resources gpu=$(GPUS) --retries 0 --config suites=$(SUITE) \
	  || { echo "not finished; if its time was over, the same command continues" >&2; exit 1; }

# Everything but what takes minutes by itself: `make test-processes`, `test-workflow`, `test-docs`, `test-browser`,
# `test-slow` and `test-slurm`. Tests often wait, for a process or a clock; the linters use that time.
test: setup
	@$(MAKE) --no-print-directory --jobs 2 lint test-fast

# Its own calls of make are none of this one's jobs.
test-fast: setup
	env -u MAKEFLAGS -u MFLAGS $(BIN)/python -m pytest -n 2 --dist worksteal -m "not slow and not processes and not workflow and not docs and not browser and not gpu"

# Trainings on several processes, and the process that sends to MLflow: minutes, of which much is waiting.
test-processes: setup
	$(BIN)/python -m pytest -n 3 --dist worksteal -m "processes and not slow"

# Workflows of every kind at the smallest size: minutes.
test-workflow: setup
	$(BIN)/python -m pytest -n 2 --dist worksteal -m "workflow and not slow"

# Every section of docs/extending.md, and the tutorial, carried out in a copy of the project, and the site: minutes.
test-docs: setup
	$(BIN)/python -m pytest -n 2 --dist worksteal -m docs

# The documentation as pages, below site/.
site: setup
	NO_MKDOCS_2_WARNING=1 $(BIN)/mkdocs build --quiet

# The pages, the MLflow UI and Snakemake's report in headless Chromium, which is installed where it is missing: minutes.
test-browser: setup
	$(BIN)/python -m pip install --quiet --constraint constraints.txt --editable ".[$(EXTRAS),browser]"
	$(BIN)/python -m tests.browser.chromium
	$(BIN)/python -m pytest -n 2 --dist loadgroup -m browser tests/browser

# What only a GPU can show, in under ten minutes: one table, and results/gpu.json.
test-gpu: setup
	$(BIN)/python -m pytest -q tests/gpu

test-slow: setup
	$(BIN)/python -m pytest -m "slow and not slurm"

# As root on Debian, which has Slurm's packages; elsewhere each test says what it lacks.
test-slurm: setup
	-command -v slurmctld > /dev/null || apt-get install --yes --no-install-recommends slurmctld slurmd slurm-client munge
	$(BIN)/python -m pip install --quiet --constraint constraints.txt --editable ".[$(EXTRAS),slurm]"
	$(BIN)/python -m pytest -s -m slurm tests/slurm

# At least 200 kills, full disks, damaged files, dead servers: prints a table, whose last line must end in "0 lost".
chaos: setup
	$(BIN)/python -m tests.chaos --kills 200

# Every kind of fault, a few times each: minutes.
chaos-short: setup
	$(BIN)/python -m tests.chaos --kills 20 --scale 1

# OpenVINO, for `recu bench --peers`, in an environment of its own.
openvino:
	test -x .venv-openvino/bin/python || $(PYTHON) -m venv .venv-openvino
	.venv-openvino/bin/python -m pip install --requirement benchmarks/openvino-requirements.txt

bench: setup
	$(BIN)/recu bench

audit: setup
	test -x .venv-audit/bin/python || $(PYTHON) -m venv .venv-audit
	-.venv-audit/bin/python -m pip install --quiet pip-audit==2.10.1
	.venv-audit/bin/python .ci/audit.py

lint: setup
	$(BIN)/ruff check .
	$(BIN)/ruff format --check .
	$(BIN)/snakefmt --check Snakefile workflow
	$(BIN)/snakemake --lint
	$(BIN)/mypy
	$(BIN)/codespell *.md docs params recu benchmarks workflow

ui: setup
	$(BIN)/recu ui

schemas: setup
	$(BIN)/python -m recu.experiment.json_schema

# What was made goes; what git tracks stays, also where somebody keeps results in it.
MADE := results .snakemake reports/figures reports/runs $(foreach form,md csv json tex html,'reports/*.$(form)')

clean:
	@if git rev-parse --is-inside-work-tree > /dev/null 2>&1; then \
	  git clean -fdxq --exclude=README.md -- $(MADE); \
	else \
	  rm -rf results .snakemake reports/figures reports/runs; \
	  find reports -maxdepth 1 ! -name README.md \( $(foreach form,md csv json tex html,-name '*.$(form)' -o) -false \) -delete; \
	fi
	@echo "Kept: data/ (prepared datasets), runs/ (trainings, which publish their results again), mlflow.db and mlartifacts/ (MLflow). Remove them by hand."

# Everything people and CI call. Each target sets up .venv by itself.
.DELETE_ON_ERROR:
.PHONY: help repro status sweep plan folds lits setup test test-all check docs bench clean

PYTHON ?= python3
BIN := .venv/bin
export PATH := $(CURDIR)/$(BIN):$(PATH)
export DVC_NO_ANALYTICS := 1

help:                          ## list the targets
	@sed -n 's/^\([a-z-]*\):[^#]*## /\1\t/p' $(MAKEFILE_LIST) | expand -t 12

repro: .venv/complete          ## run what is out of date in the study of params.yaml, WORKERS trainings at a time
	kidney-ssl run $(WORKERS)

SHARE := 1/1
sweep: .venv/complete          ## train the share SHARE=I/N of what the study lacks, without DVC
	kidney-ssl sweep $(SHARE)

status: .venv/complete         ## say what is out of date and what is stored, without training
	kidney-ssl status

plan: .venv/complete           ## say what repro would take: updates, hours, disk; RATES=, DEVICE_RATES=
	kidney-ssl plan $(WORKERS)

folds: .venv/complete          ## run the study once for each fold of data.folds, and metrics over them; STUDY=
	python -m stages.folds "$(WORKERS)" "$(STUDY)"

lits: .venv/complete           ## real CT: studies/lits.yaml over all folds, into results/lits; params.yaml stays as it is
	python -m stages.folds "$(WORKERS)" lits

setup: .venv/complete          ## make .venv, nothing else

# The mark is the last thing written: an installation that was cut off is not taken for a whole one.
.venv/complete: requirements.txt pyproject.toml setup.py
	$(PYTHON) -c 'import sys; sys.exit(sys.version_info < (3, 11) and "kidney-ssl needs Python 3.11 or newer, got " + sys.version.split()[0] + ": make PYTHON=python3.11 ...")'
	$(PYTHON) -m venv --clear .venv
	$(BIN)/python -m pip install --quiet --disable-pip-version-check -r requirements.txt
	touch $@

# A process a core; more than four take gigabytes and wait for the longest file.
PYTEST := pytest -n logical --maxprocesses=4 --dist loadfile --no-loadscope-reorder

test: .venv/complete           ## unit tests, a process a core, at most four
	$(PYTEST) tests/unit

test-all: .venv/complete       ## all tests, also whole studies, kills and processes that train together
	$(PYTEST)

check: .venv/complete          ## style, types, import directions, known vulnerabilities where the network answers
	ruff check .
	ruff format --check .
	mypy
	lint-imports --no-cache
	python .ci/audit.py

docs: .venv/complete           ## the documentation as a site that opens without a network, in site/
	NO_MKDOCS_2_WARNING=1 mkdocs build --strict --quiet

bench: .venv/complete          ## measurements, all or those of GROUPS, written to metrics/benchmarks.json
	python -m benchmarks $(GROUPS)

clean: .venv/complete          ## empty the run store, checkpoints and logs; no data, no result, no cache of DVC
	kidney-ssl clean

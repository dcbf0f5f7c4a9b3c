# Everything people and CI call. Each target sets up .venv by itself.
.DELETE_ON_ERROR:
.PHONY: repro plan folds setup test check bench clean

PYTHON ?= python3
BIN := .venv/bin
export PATH := $(CURDIR)/$(BIN):$(PATH)
export DVC_NO_ANALYTICS := 1

repro: .venv/complete          ## run what is out of date in the study of params.yaml, WORKERS arms at a time
	python -m stages $(WORKERS)

plan: .venv/complete           ## what repro would do: stages, updates, hours, disk
	python -m stages.plan $(WORKERS)

folds: .venv/complete          ## the study once for each fold of data.folds, and figures over them
	python -m stages.folds $(WORKERS)

setup: .venv/complete          ## make .venv, nothing else

# The mark is the last thing written: an installation that was cut off is not taken for a whole one.
.venv/complete: requirements.txt pyproject.toml
	$(PYTHON) -c 'import sys; sys.exit(sys.version_info < (3, 11) and "kidney-ssl needs Python 3.11 or newer, got " + sys.version.split()[0] + ": make PYTHON=python3.11 ...")'
	$(PYTHON) -m venv --clear .venv
	$(BIN)/python -m pip install --quiet --disable-pip-version-check -r requirements.txt
	touch $@

test: .venv/complete           ## all tests, two processes
	pytest -n 2 --dist loadgroup --no-loadscope-reorder

check: .venv/complete          ## style, types, import directions, known vulnerabilities where the network answers
	ruff check .
	ruff format --check .
	mypy
	lint-imports --no-cache
	python .ci/audit.py

bench: .venv/complete          ## side-by-side measurements, written to metrics/benchmarks.json
	python -m benchmarks

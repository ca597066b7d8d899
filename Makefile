# Two commands for a new user: `make demo` and `make test`. Both make .venv where it is missing.

PYTHON ?= python3
BIN := .venv/bin
DEMO := runs/demo

.PHONY: demo test install lint clean help

help:
	@echo "make demo   install, train on the embedded scenes, evaluate, and write pictures (minutes, no GPU needed)"
	@echo "make test   install with the dev extra and run the tests, on all cores"
	@echo "make lint   format check, linter, arrows between rooms, type checker"
	@echo "make clean  remove .venv, .litert and caches; runs/ stays"

demo: .venv/installed
	$(BIN)/python scripts/demo.py

test: .venv/installed-dev
	$(BIN)/python -m pytest --numprocesses logical --dist worksteal

# litert-torch asks for an older torch than the rest, and works with this one.
.litert/installed: constraints.txt | .venv/installed-dev
	$(BIN)/python -m pip install --constraint constraints.txt --no-deps --target .litert --upgrade \
		litert-torch litert-converter ai-edge-quantizer jax jaxlib immutabledict opt_einsum
	@touch $@

lint: .venv/installed-dev
	$(BIN)/ruff format --check .
	$(BIN)/ruff check .
	$(BIN)/lint-imports --no-cache --no-logo
	$(BIN)/mypy

install: .venv/installed

.venv/bin/python:
	$(PYTHON) -c 'import sys; sys.exit(sys.version_info < (3, 11) and "fcnseg needs Python 3.11 or newer; try make PYTHON=python3.12")'
	$(PYTHON) -m venv .venv

.venv/installed: pyproject.toml constraints.txt | .venv/bin/python
	$(BIN)/python -m pip install --constraint constraints.txt --editable .
	@touch $@

.venv/installed-dev: pyproject.toml constraints.txt | .venv/bin/python
	$(BIN)/python -m pip install --constraint constraints.txt --editable '.[dev]'
	@touch $@ .venv/installed

clean:
	rm -rf .venv .litert .mypy_cache .pytest_cache .ruff_cache .import_linter_cache dist

# make demo: from nothing to a page that shows what a code kept.  make test: the fast tests.  make docs: the docs' picture.  All make .venv first.
PYTHON ?= python3
VENV := .venv
BIN := $(VENV)/bin
STAMP := $(VENV)/.complete

.PHONY: setup demo test lint docs clean

setup: $(STAMP)

$(STAMP): pyproject.toml constraints.txt
	$(PYTHON) -m venv $(VENV)
	$(BIN)/python -m pip install --quiet --disable-pip-version-check -c constraints.txt -e '.[dev]'
	touch $(STAMP)

demo: setup
	rm -rf demo
	$(BIN)/vlae parts demo/parts --count 2000
	$(BIN)/vlae train demo/parts --output demo/run -c recipes/demo.yaml
	$(BIN)/vlae report demo/run
	$(BIN)/vlae report demo/run --lang ja --output demo/run/report.ja.html

test: setup
	$(BIN)/python -m pytest -q -n 2

lint: setup
	$(BIN)/ruff format --check .
	$(BIN)/ruff check .
	$(BIN)/mypy
	$(BIN)/lint-imports

docs: setup
	$(BIN)/python docs/pictures.py

clean:
	rm -rf $(VENV) demo

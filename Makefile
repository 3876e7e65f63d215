# From nothing but Python 3.11+ and make. Each target installs what it needs into .venv, once for each pyproject.toml.
#   make demo            the whole product on real data, in a minute
#   make test            ruff, mypy and pytest;  make test ARGS="-k wheel -x"  passes options on to pytest
#   make lint types      the quick halves of it
#   make clean           what builds and tests leave behind;  make distclean  .venv too

PYTHON ?= python3
VENV ?= .venv
BIN := $(VENV)/bin
ARGS ?=

INSTALLED_DEMO := $(VENV)/.installed-demo
INSTALLED_TEST := $(VENV)/.installed-test

.PHONY: demo test lint types clean distclean
.DELETE_ON_ERROR:

demo: $(INSTALLED_DEMO)
	$(BIN)/nbdense demo $(ARGS)

# mypy is among the tests (tests/test_wheel.py), because what it checks is the wheel, installed outside the clone.
test: lint
	$(BIN)/pytest $(ARGS)

lint: $(INSTALLED_TEST)
	$(BIN)/ruff check .

types: $(INSTALLED_TEST)
	$(BIN)/pytest -q tests/test_wheel.py -k types

$(VENV)/pyvenv.cfg:
	@$(PYTHON) -c 'import sys; sys.version_info >= (3, 11) or sys.exit("nbdense needs Python 3.11 or later; $(PYTHON) is " + sys.version.split()[0] + ". Say: make PYTHON=python3.11")'
	$(PYTHON) -m venv $(VENV)

$(INSTALLED_DEMO): pyproject.toml | $(VENV)/pyvenv.cfg
	$(BIN)/python -m pip install --quiet --disable-pip-version-check --editable '.[sklearn,onnxruntime]'
	@touch $@

# The test extra holds all that the demo needs.
$(INSTALLED_TEST): pyproject.toml | $(VENV)/pyvenv.cfg
	$(BIN)/python -m pip install --quiet --disable-pip-version-check --editable '.[test]'
	@touch $@ $(INSTALLED_DEMO)

clean:
	rm -rf build dist *.egg-info .cache .mypy_cache .pytest_cache .ruff_cache nbdense-demo
	find nbdense quant export tests benchmarks -name __pycache__ -type d -prune -exec rm -rf {} + 2>/dev/null || true

distclean: clean
	rm -rf $(VENV)

# From nothing but Python 3.11+ and make. Each target installs what it needs into .venv, once for each pyproject.toml.
#   make demo            the whole product on real data, in a minute
#   make test            ruff, mypy and pytest;  make test ARGS="-k wheel -x"  passes options on to pytest
#   make lint types      the quick halves of it
#   make test-aarch64    the kernel tests on arm64 code, under qemu; says which Debian packages it needs
#   make bench           beside its peers, in an environment of its own; writes the README's tables. DATA=folder of MNIST
#   make bench-quantization DATA=folder of MNIST    what quantization costs in accuracy, beside onnxruntime's; README too
#   make clean           what builds and tests leave behind;  make distclean  .venv too

PYTHON ?= python3
VENV ?= .venv
BENCH_VENV ?= .venv-bench
BIN := $(VENV)/bin
ARGS ?=

INSTALLED_DEMO := $(VENV)/.installed-demo
INSTALLED_TEST := $(VENV)/.installed-test
INSTALLED_BENCH := $(BENCH_VENV)/.installed

.PHONY: bench bench-quantization demo test test-aarch64 lint types clean distclean
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

# Installs no emulator: that takes root.
test-aarch64: $(INSTALLED_TEST)
	$(BIN)/python tests/aarch64/run.py $(ARGS)

# Twenty minutes on a quiet machine; `make bench ARGS=--help` says what can be chosen.
bench: $(INSTALLED_BENCH)
	$(BENCH_VENV)/bin/python -m benchmarks $(if $(DATA),--data "$(DATA)") \
		$(if $(ARGS),$(ARGS),--json benchmarks/results/published.json --readme)

# Its figures do not depend on the machine's speed; a few minutes. `make bench-quantization ARGS=--help` as above.
bench-quantization: $(INSTALLED_BENCH)
	$(BENCH_VENV)/bin/python -m benchmarks.quantization $(if $(DATA),--data "$(DATA)") \
		$(if $(ARGS),$(ARGS),--json benchmarks/results/quantization.json --readme)

$(VENV)/pyvenv.cfg $(BENCH_VENV)/pyvenv.cfg:
	@$(PYTHON) -c 'import sys; sys.version_info >= (3, 11) or sys.exit("nbdense needs Python 3.11 or later; $(PYTHON) is " + sys.version.split()[0] + ". Say: make PYTHON=python3.11")'
	$(PYTHON) -m venv $(@D)

$(INSTALLED_DEMO): pyproject.toml | $(VENV)/pyvenv.cfg
	$(BIN)/python -m pip install --quiet --disable-pip-version-check --editable '.[sklearn,onnxruntime]'
	@touch $@

# The test extra holds all that the demo needs.
$(INSTALLED_TEST): pyproject.toml | $(VENV)/pyvenv.cfg
	$(BIN)/python -m pip install --quiet --disable-pip-version-check --editable '.[test]'
	@touch $@ $(INSTALLED_DEMO)

# torch first and by itself, so that its CPU build is found as the machine's pip is set up to find it.
$(INSTALLED_BENCH): pyproject.toml | $(BENCH_VENV)/pyvenv.cfg
	$(BENCH_VENV)/bin/python -m pip install --quiet --disable-pip-version-check torch==2.13.0
	$(BENCH_VENV)/bin/python -m pip install --quiet --disable-pip-version-check --editable '.[bench]'
	@touch $@

clean:
	rm -rf build dist *.egg-info .cache .mypy_cache .pytest_cache .ruff_cache nbdense-demo
	find nbdense quant export tests benchmarks -name __pycache__ -type d -prune -exec rm -rf {} + 2>/dev/null || true

distclean: clean
	rm -rf $(VENV) $(BENCH_VENV)

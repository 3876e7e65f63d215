# From nothing but Python 3.11+ and make. Each target installs what it needs into .venv, the versions that
# constraints.txt pins, once for each pyproject.toml and constraints.txt.
#   make demo            the whole product on real data, in a minute
#   make test            ruff, mypy and pytest;  make test ARGS="-k wheel -x"  passes options on to pytest
#   make lint types      the quick halves of it
#   make docs            the site, in build/docs: warnings are errors, links are checked
#   make runtime         the wheel of nbdense-runtime, in dist/
#   make check-dist      sdist and wheels, in dist/: checked, and tried in an empty environment
#   make coverage        pytest, and which lines it reached: a table, and htmlcov/
#   make test-latest     pytest with the newest release of everything, in an environment of its own
#   make test-oldest     pytest with pyproject.toml's lower bounds, on Python 3.11, likewise
#   make constraints     pins the newest releases in constraints.txt
#   make check-page      report pages in headless Chromium, and pictures of them; says which Debian package it needs
#   make test-frameworks pytest with torch, Keras and Stable-Baselines3, whose models it takes; in the benchmarks' environment
#   make test-aarch64    the kernel tests on arm64 code, under qemu; says which Debian packages it needs
#   make bench           beside its peers, in an environment of its own; writes the docs' tables and plots. DATA=folder of MNIST
#   make bench-estimators    the part of it that is about the estimators, beside scikit-learn's
#   make bench-quantization DATA=folder of MNIST    what quantization costs in accuracy, beside onnxruntime's; docs too
#   make bench-sparsity DATA=folder of MNIST        what pruning and compression cost, beside published figures; docs too
#   make bench-edge      C for microcontrollers beside other generators', in an emulator; docs too
#   make bench-cuda      the CUDA engine beside torch, on a machine with an NVIDIA GPU; PYTHON is one that has torch for it
#   make clean           what builds and tests leave behind;  make distclean  .venv too

PYTHON ?= python3
VENV ?= .venv
BENCH_VENV ?= .venv-bench
LATEST_VENV ?= .venv-latest
OLDEST_VENV ?= .venv-oldest
OLDEST_PYTHON ?= python3.11
TOOLS_VENV ?= .venv-tools
DOCS_VENV ?= .venv-docs
DIST_VENV ?= .venv-dist
BIN := $(VENV)/bin
UV := $(TOOLS_VENV)/bin/uv
PIP_INSTALL := -m pip install --quiet --disable-pip-version-check
ARGS ?=
# Many tests have processes of their own: without bytecode each would compile nbdense's sources anew.
export PYTHONDONTWRITEBYTECODE :=
# A file's tests share what they make, and the longest files come first (tests/conftest.py).
PYTEST := pytest --numprocesses auto --maxprocesses 4 --dist loadfile --no-loadscope-reorder

INSTALLED_DEMO := $(VENV)/.installed-demo
INSTALLED_TEST := $(VENV)/.installed-test
INSTALLED_BENCH := $(BENCH_VENV)/.installed
INSTALLED_DOCS := $(DOCS_VENV)/.installed
INSTALLED_DIST := $(TOOLS_VENV)/.installed-dist

.PHONY: docs check-dist check-page runtime bench bench-cuda bench-edge bench-estimators bench-quantization bench-sparsity constraints coverage demo test test-aarch64 test-frameworks test-latest test-oldest lint types clean distclean
.DELETE_ON_ERROR:

demo: $(INSTALLED_DEMO)
	$(BIN)/nbdense demo $(ARGS)

# mypy is among the tests (tests/policy/test_wheel.py), because what it checks is the wheel, installed outside the clone.
test: lint
	$(BIN)/$(PYTEST) $(ARGS)

lint: $(INSTALLED_TEST)
	$(BIN)/ruff check .
	$(BIN)/ruff format --check .

# From the clone itself: the pages lie where their links lead.
docs: $(INSTALLED_DOCS)
	$(DOCS_VENV)/bin/sphinx-build --quiet --fail-on-warning --keep-going --fresh-env --conf-dir docs \
		--doctree-dir build/doctrees . build/docs

# The distribution that predicts by NumPy alone.
runtime: $(INSTALLED_TEST)
	$(BIN)/python -m build --wheel --no-isolation --outdir dist packaging/runtime

# The wheel is built from the sdist. What `make test` tries with packages hidden is tried here where they are not.
check-dist: $(INSTALLED_DIST)
	rm -rf dist $(DIST_VENV)
	$(TOOLS_VENV)/bin/python -m build --no-isolation --outdir dist .
	$(TOOLS_VENV)/bin/python -m build --no-isolation --wheel --outdir dist packaging/runtime
	$(TOOLS_VENV)/bin/twine check --strict dist/*
	$(PYTHON) -m venv $(DIST_VENV)
	$(DIST_VENV)/bin/python $(PIP_INSTALL) --constraint constraints.txt dist/nbdense-*.whl
	mkdir $(DIST_VENV)/empty
	cd $(DIST_VENV)/empty && NBDENSE_CACHE_DIR="$(CURDIR)/.cache/kernels" ../bin/python -I "$(CURDIR)/packaging/try_installed.py"
	$(DIST_VENV)/bin/nbdense --version

# Lines that the tests reach; of compiled code, those that tests run as plain Python.
coverage: $(INSTALLED_TEST)
	$(BIN)/$(PYTEST) --cov --cov-report=term:skip-covered --cov-report=html $(ARGS)

types: $(INSTALLED_TEST)
	$(BIN)/pytest -q tests/policy/test_wheel.py -k types

# The benchmarks' peers have no lower bounds, and old NumPy's types are not mypy's.
NOT_OLDEST := --ignore tests/benchmarks --deselect tests/policy/test_wheel.py::test_types

# Installed anew each time: what was the newest yesterday may not be today.
test-latest: | $(LATEST_VENV)/pyvenv.cfg
	$(LATEST_VENV)/bin/python $(PIP_INSTALL) --upgrade --upgrade-strategy eager --editable '.[test]'
	$(LATEST_VENV)/bin/python -m pip list --disable-pip-version-check
	$(LATEST_VENV)/bin/$(PYTEST) $(ARGS)

test-oldest: $(UV) | $(OLDEST_VENV)/pyvenv.cfg
	$(UV) pip compile --quiet --upgrade --extra test --resolution lowest-direct --python-version 3.11 --no-header --no-annotate \
		--output-file $(OLDEST_VENV)/constraints.txt pyproject.toml
	$(OLDEST_VENV)/bin/python $(PIP_INSTALL) --only-binary :all: --requirement $(OLDEST_VENV)/constraints.txt
	$(OLDEST_VENV)/bin/python $(PIP_INSTALL) --no-deps --no-build-isolation --editable .
	$(OLDEST_VENV)/bin/python -m pip list --disable-pip-version-check
	$(OLDEST_VENV)/bin/$(PYTEST) $(NOT_OLDEST) $(ARGS)

# For every Python and system at once; names and versions only.
constraints: $(UV)
	$(UV) pip compile --quiet --upgrade --extra test --extra docs --extra dist --universal --python-version 3.11 \
		--no-header --no-annotate --output-file constraints.txt pyproject.toml

# Installs no browser: that takes root. Pictures of the pages are in page-pictures/.
check-page: $(INSTALLED_TEST)
	$(BIN)/python tests/pages/run.py $(ARGS)

# Installs no emulator: that takes root.
test-aarch64: $(INSTALLED_TEST)
	$(BIN)/python tests/aarch64/run.py $(ARGS)

# Models of other libraries, by the libraries themselves; `make test` has them as stand-ins.
test-frameworks: $(INSTALLED_BENCH)
	$(BENCH_VENV)/bin/python -m pytest -m frameworks tests/export/frameworks $(ARGS)

# Twenty minutes on a quiet machine; `make bench ARGS=--help` says what can be chosen.
bench: $(INSTALLED_BENCH)
	$(BENCH_VENV)/bin/python -m benchmarks $(if $(DATA),--data "$(DATA)") \
		$(if $(ARGS),$(ARGS),--publish)
	$(if $(ARGS),,$(MAKE) bench-estimators)

# Beside scikit-learn's, on its small data sets; a minute.
bench-estimators: $(INSTALLED_BENCH)
	$(BENCH_VENV)/bin/python -m benchmarks.estimators \
		$(if $(ARGS),$(ARGS),--json benchmarks/results/estimators.json --pages)

# Its figures do not depend on the machine's speed; a few minutes. `make bench-quantization ARGS=--help` as above.
bench-quantization: $(INSTALLED_BENCH)
	$(BENCH_VENV)/bin/python -m benchmarks.quantization $(if $(DATA),--data "$(DATA)") \
		$(if $(ARGS),$(ARGS),--json benchmarks/results/quantization.json --pages)

# Likewise; half an hour on two quiet cores.
bench-sparsity: $(INSTALLED_BENCH)
	$(BENCH_VENV)/bin/python -m benchmarks.sparsity $(if $(DATA),--data "$(DATA)") \
		$(if $(ARGS),$(ARGS),--json benchmarks/results/sparsity.json --pages)

# C for microcontrollers in an emulator: its figures depend on no machine. A few minutes.
bench-edge: $(INSTALLED_BENCH)
	$(BENCH_VENV)/bin/python -m benchmarks.edge \
		$(if $(ARGS),$(ARGS),--json benchmarks/results/edge.json --pages)

# Into an environment that is there already: torch, numba-cuda and the driver have to fit each other.
bench-cuda:
	PYTHONPATH=. $(PYTHON) -m benchmarks.cuda $(ARGS)

$(OLDEST_VENV)/pyvenv.cfg: PYTHON = $(OLDEST_PYTHON)

$(addsuffix /pyvenv.cfg,$(VENV) $(BENCH_VENV) $(LATEST_VENV) $(OLDEST_VENV) $(TOOLS_VENV) $(DOCS_VENV)):
	@$(PYTHON) -c 'import sys; sys.version_info >= (3, 11) or sys.exit("nbdense needs Python 3.11 or later; $(PYTHON) is " + sys.version.split()[0] + ". Say: make PYTHON=python3.11")'
	$(PYTHON) -m venv $(@D)

# setuptools first: an isolated build would take the newest.
$(INSTALLED_DEMO): pyproject.toml constraints.txt | $(VENV)/pyvenv.cfg
	$(BIN)/python $(PIP_INSTALL) --constraint constraints.txt setuptools
	$(BIN)/python $(PIP_INSTALL) --constraint constraints.txt --no-build-isolation --editable '.[sklearn,onnxruntime]'
	@touch $@

# The test extra holds all that the demo needs.
$(INSTALLED_TEST): pyproject.toml constraints.txt | $(VENV)/pyvenv.cfg
	$(BIN)/python $(PIP_INSTALL) --constraint constraints.txt setuptools
	$(BIN)/python $(PIP_INSTALL) --constraint constraints.txt --no-build-isolation --editable '.[test]'
	@touch $@ $(INSTALLED_DEMO)

$(UV): | $(TOOLS_VENV)/pyvenv.cfg
	$(TOOLS_VENV)/bin/python $(PIP_INSTALL) uv

$(INSTALLED_DOCS): pyproject.toml constraints.txt | $(DOCS_VENV)/pyvenv.cfg
	$(DOCS_VENV)/bin/python $(PIP_INSTALL) --constraint constraints.txt setuptools
	$(DOCS_VENV)/bin/python $(PIP_INSTALL) --constraint constraints.txt --no-build-isolation --editable '.[docs]'
	@touch $@

$(INSTALLED_DIST): pyproject.toml constraints.txt | $(TOOLS_VENV)/pyvenv.cfg
	$(TOOLS_VENV)/bin/python $(PIP_INSTALL) --constraint constraints.txt build setuptools twine
	@touch $@

# torch first and by itself, so that its CPU build is found as the machine's pip is set up to find it.
$(INSTALLED_BENCH): pyproject.toml | $(BENCH_VENV)/pyvenv.cfg
	$(BENCH_VENV)/bin/python $(PIP_INSTALL) torch==2.13.0
	$(BENCH_VENV)/bin/python $(PIP_INSTALL) --editable '.[bench]'
	@touch $@

clean:
	rm -rf build packaging/runtime/build dist *.egg-info .cache .mypy_cache .pytest_cache .ruff_cache .coverage* htmlcov nbdense-demo page-pictures
	find nbdense quant export tests benchmarks -name __pycache__ -type d -prune -exec rm -rf {} + 2>/dev/null || true

distclean: clean
	rm -rf $(VENV) $(BENCH_VENV) $(LATEST_VENV) $(OLDEST_VENV) $(TOOLS_VENV) $(DOCS_VENV) $(DIST_VENV)

# Each verb stands alone: it makes the virtual environment it needs. `make run` and `make test` are all a newcomer needs.
PYTHON ?= python3
VENV := .venv
BIN := $(VENV)/bin
COMPILE = CUSTOM_COMPILE_COMMAND='make lock' $(VENV)-lock/bin/pip-compile --quiet --generate-hashes --strip-extras --allow-unsafe \
    --no-emit-index-url --no-emit-trusted-host --no-emit-find-links

.PHONY: run test test-native test-ipvs test-ipvs-matrix fuzz lint format bench install packages lock audit clean

run: install
	@$(BIN)/vipmesh demo

# `make test` installs what is missing when it may, and says what to install when it may not.
test: packages test-native test-ipvs

# Tests that share the host's kernel, an engine or whole processes run one after another, after all others have run on
# every core.
ONE_BY_ONE := tests/dataplane tests/docs tests/host tests/system

test-native: $(VENV)/.test
	$(BIN)/python -m pytest -m 'not ipvs and not ipvs_matrix' -n auto --dist loadfile $(ONE_BY_ONE:%=--ignore=%)
	$(BIN)/python -m pytest -m 'not ipvs and not ipvs_matrix' $(ONE_BY_ONE)

# Exit status 3 says that something is missing, and what: on a laptop the rest still counts, in CI nothing is skipped.
test-ipvs: $(VENV)/.test
	@IPVS_KERNEL_SECONDS=2700 tests/on-ipvs-kernel $(BIN)/python -m pytest tests/system/ipvs tests/system/cluster tests/system/hosts -m ipvs || \
	    { status=$$?; [ $$status = 3 ] && [ "$$CI" != true ] && echo 'SKIPPED: the tests on IPVS, see above' || exit $$status; }

# The labs of the firewall matrix that `test-ipvs` leaves out: minutes each in a virtual machine.
test-ipvs-matrix: $(VENV)/.test
	IPVS_KERNEL_SECONDS=7200 tests/on-ipvs-kernel $(BIN)/python -m pytest tests/system/hosts -m ipvs_matrix

# A search for input that the daemon cannot take, at each boundary. New inputs are kept in tests/fuzz/corpus with
# FUZZFLAGS=--keep; FUZZFLAGS="--seed N --target NAME" repeats a run.
MINUTES ?= 5
fuzz: $(VENV)/.test
	$(BIN)/python -m tests.fuzz --minutes $(MINUTES) $(FUZZFLAGS)

lint: $(VENV)/.lint
	$(BIN)/ruff check .
	$(BIN)/ruff format --check .
	$(BIN)/mypy
	$(BIN)/lint-imports

format: $(VENV)/.lint
	$(BIN)/ruff check --fix .
	$(BIN)/ruff format .

bench: $(VENV)/.test
	@for bench in dns userspace nftables firewall metrics channel events start status connectivity deploy engine_restart stacks autoscaling cluster failover probes hostile logs page; do PYTHONPATH=. $(BIN)/python bench/$$bench.py $(BENCHFLAGS) || exit $$?; done
	@PYTHONPATH=. $(BIN)/python bench/simulation.py --quick
	@IPVS_KERNEL_SECONDS=3600 tests/on-ipvs-kernel $(BIN)/python bench/ipvs.py $(BENCHFLAGS)

# The image installs exactly what these files name. They are made again when setup.cfg changes, or to take up new releases.
lock: $(VENV)/.lock
	$(COMPILE) --output-file requirements.lock setup.cfg
	$(COMPILE) --only-build-deps --build-deps-for wheel --output-file requirements-build.lock pyproject.toml

# Asks the database of the Python Packaging Authority for known vulnerabilities of what the image installs.
audit: $(VENV)/.lock
	$(VENV)-lock/bin/pip-audit --disable-pip --requirement requirements.lock

install: $(VENV)/.install

packages:
	@tests/install-packages

$(VENV)/.python:
	$(PYTHON) -c 'import sys; sys.version_info >= (3, 11) or sys.exit("vipmesh needs Python 3.11 or newer: make PYTHON=python3.12 ...")'
	$(PYTHON) -m venv $(VENV)
	@touch $@

$(VENV)/.install: $(VENV)/.python setup.cfg pyproject.toml
	$(BIN)/pip install --quiet --disable-pip-version-check -e .
	@touch $@

$(VENV)/.test: $(VENV)/.install
	$(BIN)/pip install --quiet --disable-pip-version-check -e '.[test]'
	@touch $@

$(VENV)/.lint: $(VENV)/.test
	$(BIN)/pip install --quiet --disable-pip-version-check -e '.[test,lint]'
	@touch $@

# In an environment of its own, since these tools need other releases of what the tests need.
$(VENV)/.lock: $(VENV)/.python
	$(PYTHON) -m venv $(VENV)-lock
	$(VENV)-lock/bin/pip install --quiet --disable-pip-version-check pip-tools pip-audit
	@touch $@

clean:
	rm -rf $(VENV) $(VENV)-lock build dist *.egg-info .mypy_cache .pytest_cache .ruff_cache .hypothesis .import_linter_cache

# Two commands matter: `make demo` and `make test`. Both make .venv themselves; neither needs a compiler.
#
# TORCH_ARGS goes to the pip that installs torch. On Linux without a GPU, the CPU build is a fraction of the download:
#   make demo TORCH_ARGS="--index-url https://download.pytorch.org/whl/cpu"
# RUN_ARGS goes to the demo's run; "--threads 2" makes its figures repeatable.

PYTHON ?= python3
VENV ?= .venv
TORCH_ARGS ?=
RUN_ARGS ?=
TORCH = torch==2.13.0
PIP = $(VENV)/bin/python -m pip --disable-pip-version-check
LOCKED = --quiet --no-deps --require-hashes --only-binary :all:
export HF_HUB_OFFLINE = 1

.PHONY: demo test test-long check lock schema clean

demo: $(VENV)/.base
	$(VENV)/bin/gristmill run recipes/quickstart.yaml $(RUN_ARGS)

test: export OMP_NUM_THREADS = 1
test test-long: export PYTHONDONTWRITEBYTECODE =  # hundreds of processes start
test: $(VENV)/.test
	$(VENV)/bin/python -m pytest -n 2 --dist worksteal

test-long: $(VENV)/.test
	$(VENV)/bin/python -m pytest -m "slow" -n 2 --dist worksteal --timeout 7200

check: $(VENV)/.test
	$(VENV)/bin/ruff format --check .
	$(VENV)/bin/ruff check .
	$(VENV)/bin/mypy

lock:
	uv pip compile -q --universal --python-version 3.11 --generate-hashes --no-build --no-header \
	    --excludes requirements-excluded.txt requirements.in -o requirements.lock
	uv pip compile -q --universal --python-version 3.11 --generate-hashes --no-build --no-header \
	    --excludes requirements-excluded.txt -c requirements.lock requirements-test.in -o requirements-test.lock
	uv pip compile -q --universal --python-version 3.11 --no-build --no-header --no-annotate \
	    --excludes requirements-excluded.txt -c requirements.lock requirements-test.in -o constraints.txt

schema: $(VENV)/.base
	$(VENV)/bin/python scripts/write_schema.py

clean:
	rm -rf $(VENV) build dist

$(VENV)/bin/python:
	$(PYTHON) -m venv $(VENV)

$(VENV)/.base: $(VENV)/bin/python requirements.lock constraints.txt pyproject.toml
	$(PIP) install $(LOCKED) -r requirements.lock
	$(PIP) install --quiet $(TORCH_ARGS) -c constraints.txt $(TORCH)
	$(PIP) install --quiet --no-deps --no-build-isolation --editable .
	touch $@

$(VENV)/.test: $(VENV)/.base requirements-test.lock
	$(PIP) install $(LOCKED) -r requirements-test.lock
	touch $@

# Start with `make quickstart` and `make test`.

PYTHON ?= python3
BIN := .venv/bin
# One more than there are cores: some tests wait.
WORKERS ?= $(shell expr $$(nproc 2>/dev/null || echo 2) + 1)
export MLFLOW_DISABLE_TELEMETRY := true

.PHONY: help quickstart test test-all test-fast test-gpu check format schema lock clean

help:  ## show this list
	@grep -hE '^[a-z-]+:.*##' $(MAKEFILE_LIST) | sed -E 's/:.*##/:/' | column -t -s:

quickstart: .venv/installed datasets/digits/manifest.json  ## train on real images, on this machine
	$(BIN)/python launch/submit.py --local configs/quickstart.yaml

test: .venv/installed  ## run the tests that need no GPU
	$(BIN)/python -m pytest -n $(WORKERS)

test-all: .venv/installed  ## the same, with more moments and places of each fault
	$(BIN)/python -m pytest -n $(WORKERS) -m "not gpu"

test-fast: .venv/installed  ## run the quick tests: no processes, nothing that takes seconds
	$(BIN)/python -m pytest -n $(WORKERS) -m "not gpu and not process and not slow"

test-gpu: .venv/installed  ## run the tests that need a GPU
	$(BIN)/python -m pytest -m gpu tests/gpu

check: .venv/installed  ## lint, format, types and import layers
	$(BIN)/ruff check .
	$(BIN)/ruff format --check .
	$(BIN)/basedpyright
	$(BIN)/lint-imports

format: .venv/installed  ## format the code
	$(BIN)/ruff check --fix .
	$(BIN)/ruff format .

schema: .venv/installed  ## write the JSON Schema of the configuration
	$(BIN)/python -m pipeline.config.json_schema > configs/schema.json
	$(BIN)/python -m pipeline.config.reference > docs/configuration.md

lock:  ## lock the dependencies of pyproject.toml
	$(BIN)/uv pip compile pyproject.toml --extra dev --universal --python-version 3.11 \
	    --generate-hashes --quiet --output-file requirements.lock

clean:  ## remove what the commands above made, except runs
	rm -rf .venv datasets/digits .pytest_cache .ruff_cache .hypothesis *.egg-info

datasets/digits/manifest.json: | .venv/installed
	$(BIN)/python data/prepare.py digits --out datasets/digits

# Touched last, so that an incomplete installation is repeated.
.venv/installed: requirements.lock pyproject.toml
	@$(PYTHON) -c 'import sys; sys.exit(sys.version_info < (3, 11))' \
	    || { echo "Python 3.11 or newer is needed; set PYTHON=python3.x" >&2; exit 2; }
	test -x $(BIN)/python || $(PYTHON) -m venv .venv
	$(BIN)/python -m pip install --quiet --disable-pip-version-check uv
	$(BIN)/uv pip sync --quiet --require-hashes requirements.lock
	$(BIN)/uv pip install --quiet --no-deps --no-build-isolation --editable .
	touch $@

# Needs Python 3.11+ (with venv) and make; everything else is set up here, in .venv.
PYTHON ?= python3
VENV := .venv
BIN := $(VENV)/bin
MODEL ?=
IMAGES ?=
WORKERS ?= 2

# Compiled at once: where PYTHONDONTWRITEBYTECODE is set, every start of a process would compile all that it imports.
INSTALL := $(BIN)/uv pip install --quiet --compile-bytecode --constraints constraints.txt --build-constraints constraints.txt

.DEFAULT_GOAL := help
.PHONY: help setup check test demo bench bench-engine lock clean

help: ## Show this list
	@awk -F ':.*## ' '/^[a-z-]+:.*## / {printf "make %-12s %s\n", $$1, $$2}' $(MAKEFILE_LIST)

setup: $(VENV)/.dev ## Everything for development, in .venv
check: $(VENV)/.dev ## Formatting, lint, types, layers
	$(BIN)/ruff format --check .
	$(BIN)/ruff check .
	$(BIN)/mypy
	$(BIN)/lint-imports

test: $(VENV)/.dev ## The whole suite, on a real Apache Kafka
	$(BIN)/pytest -n $(WORKERS) --dist loadfile $(ARGS)

demo: $(VENV)/.runtime ## Photographs in, detections out: make demo MODEL=yolov8n.onnx [IMAGES=photos/]
	@$(BIN)/sightstream demo $(if $(MODEL),--model '$(MODEL)') $(if $(IMAGES),--images '$(IMAGES)')

bench: $(VENV)/.dev $(VENV)-quix/.installed ## All benchmarks, side by side with plain clients and Quix Streams
	$(BIN)/python -m tests.benchmarks $(ARGS)

bench-engine: $(VENV)/.dev ## The detection engine beside Ultralytics and bare OpenVINO; on CUDA too, where there is a GPU
	$(BIN)/python -m tests.benchmarks engine engine-latency engine-codes engine-memory engine-gpu decoders $(ARGS)

lock: $(VENV)/.dev ## Write constraints.txt anew
	$(BIN)/uv pip compile pyproject.toml --quiet --upgrade --all-extras --universal --python-version 3.11 \
		--no-header --no-annotate --no-emit-index-url --no-emit-find-links --output-file constraints.txt

clean: ## Remove environments, caches and build output; data in var/ stays
	rm -rf $(VENV) $(VENV)-quix build dist .mypy_cache .ruff_cache .pytest_cache .hypothesis .import_linter_cache

$(BIN)/uv:
	@$(PYTHON) -c 'import sys; sys.exit(sys.version_info < (3, 11))' || \
		{ echo "Python 3.11 or newer is needed; $(PYTHON) is $$($(PYTHON) --version 2>&1). Say which: make PYTHON=python3.12 ..." >&2; exit 1; }
	$(PYTHON) -m venv $(VENV)
	$(BIN)/python -m pip install --quiet --disable-pip-version-check --constraint constraints.txt uv

# The light set that a demo needs. An environment with everything for development has it, too.
$(VENV)/.runtime: pyproject.toml constraints.txt | $(BIN)/uv
	@test -e $(VENV)/.dev || { echo "setting up $(VENV), once"; VIRTUAL_ENV=$(VENV) $(INSTALL) --editable .; }
	@touch $@

$(VENV)/.dev: pyproject.toml constraints.txt | $(BIN)/uv
	@echo "setting up $(VENV) for development, once: some gigabytes, since torch is part of it"
	VIRTUAL_ENV=$(VENV) $(INSTALL) --editable '.[dev]'
	@touch $@ $(VENV)/.runtime

$(VENV)-quix/.installed: tests/benchmarks/quix.txt | $(BIN)/uv
	$(BIN)/uv venv --quiet --clear $(VENV)-quix
	VIRTUAL_ENV=$(VENV)-quix $(BIN)/uv pip install --quiet --requirement tests/benchmarks/quix.txt
	@touch $@

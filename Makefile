# Needs Python 3.11+ (with venv) and make; everything else is set up here, in .venv.
PYTHON ?= python3
VENV := .venv
BIN := $(VENV)/bin
MODEL ?=
IMAGES ?=
WORKERS ?= 2
CODES := var/codes

# Compiled at once: where PYTHONDONTWRITEBYTECODE is set, every start of a process would compile all that it imports.
INSTALL := $(BIN)/uv pip install --quiet --compile-bytecode --constraints constraints.txt --build-constraints constraints.txt

.DEFAULT_GOAL := help
.PHONY: help setup check test demo model bench bench-engine bench-codes bench-gateway fuzz-api lock clean

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

demo: $(VENV)/.runtime ## Pictures in, detections out: make demo [MODEL=yolov8n.onnx] [IMAGES=photos/]
	@$(BIN)/sightstream demo $(if $(MODEL),--model '$(MODEL)') $(if $(IMAGES),--images '$(IMAGES)')

bench: $(VENV)/.dev $(VENV)-quix/.installed ## All benchmarks, side by side with plain clients and Quix Streams
	$(BIN)/python -m tests.benchmarks $(ARGS)

bench-engine: $(VENV)/.dev ## The detection engine beside Ultralytics and bare OpenVINO; on CUDA too, where there is a GPU
	$(BIN)/python -m tests.benchmarks engine engine-latency engine-codes engine-memory engine-gpu decoders $(ARGS)

bench-codes: $(VENV)/.dev ## The shipped detector on real pictures, beside OpenCV's detectors and with a decoder
	$(BIN)/python -m tests.benchmarks codes codes-reading engine-codes $(ARGS)

bench-gateway: $(VENV)/.dev ## The gateway beside a plain one, and submission beside a bare handler; writes docs/benchmarks.md
	$(BIN)/python -m tests.benchmarks gateway gateway-memory submission $(ARGS)

fuzz-api: $(VENV)/.dev ## 10,000 requests made from the OpenAPI document against a whole system: make fuzz-api [ARGS='--cases 500']
	$(BIN)/python -m tests.fuzz_api $(ARGS)

model: $(VENV)/.dev ## The shipped detector anew, from nothing but this repository: about an hour and a half on two cores
	$(BIN)/sightstream data synth $(CODES)/data --split train=16000 --split val=1000 --split test=1000 --backgrounds infra/demo_photos
	$(BIN)/sightstream train detectors/training/recipes/codes.toml --data $(CODES)/data --out $(CODES)/run
	$(PACKAGE_CODES)
	$(BIN)/sightstream evaluate --model codes --data $(CODES)/data/test --json $(CODES)/shipped.json
	$(BIN)/sightstream evaluate --model $(CODES)/package/codes.onnx --data $(CODES)/data/test --json $(CODES)/test.json \
		--pictures $(CODES)/package --baseline $(CODES)/shipped.json --max-regression 0.02
	$(PACKAGE_CODES) --report $(CODES)/test.json

# The threshold is chosen on pictures that were neither trained nor tested on.
PACKAGE_CODES = $(BIN)/sightstream package $(CODES)/run --name codes --out $(CODES)/package --data $(CODES)/data/val \
	--iou 0.5 --threshold-precision 0.95 --licence Apache-2.0 --about detectors/training/recipes/codes.md

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

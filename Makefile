# The README's commands. Each makes its own virtual environment first: PYTHON and VENV may be overruled.
PYTHON ?= python3
VENV ?= .venv
PEERS ?= .venv-peers
BIN := $(VENV)/bin
WORKERS ?= 2
TORCH ?= 2.8.0
OTHER ?= .venv-torch-$(TORCH)

.PHONY: demo test test-torch slow gpu check docs test-site docs-serve bench bench-full bench-peers clean

demo: $(VENV)/.demo
	$(BIN)/mdnc fit --config recipes/digits.yaml

# One thread a worker: threads of several workers on the same cores slow each other down.
test: $(VENV)/.dev
	OMP_NUM_THREADS=1 $(BIN)/pytest -n $(WORKERS) -m "not slow and not gpu and not site"

# What needs torch alone, on another version of it: of several GB, where pip's torch brings CUDA.
test-torch: $(OTHER)/.dev
	OMP_NUM_THREADS=1 $(OTHER)/bin/pytest -n $(WORKERS) -m "not slow and not gpu and not site" \
		tests/modules tests/ops tests/contribs tests/analysis tests/checkpoints tests/test_private_names.py

slow: $(VENV)/.dev
	OMP_NUM_THREADS=1 $(BIN)/pytest -n $(WORKERS) -m "slow and not gpu and not site"

gpu: $(VENV)/.dev
	$(BIN)/pytest -m gpu

check: $(VENV)/.dev
	$(BIN)/ruff format --check src tests benchmarks tools
	$(BIN)/ruff check src tests benchmarks tools
	$(BIN)/mypy
	$(BIN)/lint-imports

docs: $(VENV)/.docs
	$(BIN)/python -m tools.reference
	$(BIN)/zensical build --strict --config-file mkdocs.built.yml

# In a browser: Debian's packages chromium and chromium-driver.
test-site: $(VENV)/.dev docs
	$(BIN)/pytest -m site

docs-serve: docs
	$(BIN)/python -m http.server --directory site 8000

bench: $(VENV)/.dev
	$(BIN)/python -m benchmarks --quick

bench-full: $(VENV)/.dev
	$(BIN)/python -m benchmarks

bench-peers: $(PEERS)/.peers
	$(PEERS)/bin/python -m benchmarks --parts peers

clean:
	rm -rf $(VENV) $(PEERS) .venv-torch-* build dist site

$(VENV)/.python:
	$(PYTHON) -m venv $(VENV)
	$(BIN)/python -m pip install --quiet --upgrade pip
	touch $@

# torch goes first and alone: a package that asks for torch then finds the pinned one in place.
$(VENV)/.torch: $(VENV)/.python constraints.txt
	$(BIN)/python -m pip install --quiet -c constraints.txt torch
	touch $@

$(VENV)/.demo: $(VENV)/.torch pyproject.toml
	$(BIN)/python -m pip install --quiet -c constraints.txt -e '.[train,recipes]'
	touch $@

# What batchgeneratorsv2 asks for, only its own benchmarks use.
$(VENV)/.dev: $(VENV)/.torch pyproject.toml
	$(BIN)/python -m pip install --quiet -c constraints.txt -e '.[all,dev]'
	$(BIN)/python -m pip install --quiet -c constraints.txt --no-deps batchgeneratorsv2
	touch $@

$(VENV)/.docs: $(VENV)/.torch pyproject.toml
	$(BIN)/python -m pip install --quiet -c constraints.txt -e '.[all,docs]'
	touch $@

$(OTHER)/.dev: constraints.txt pyproject.toml
	$(PYTHON) -m venv $(OTHER)
	sed 's/^torch==.*/torch==$(TORCH)/' constraints.txt > $(OTHER)/constraints.txt
	$(OTHER)/bin/python -m pip install --quiet -c $(OTHER)/constraints.txt torch
	$(OTHER)/bin/python -m pip install --quiet -c $(OTHER)/constraints.txt -e '.[all,dev]'
	touch $@

# Of the peers' packages only those that leave torch alone may bring what they ask for.
$(PEERS)/.peers: constraints.txt benchmarks/peers.txt pyproject.toml
	$(PYTHON) -m venv $(PEERS)
	$(PEERS)/bin/python -m pip install --quiet -c constraints.txt torch
	$(PEERS)/bin/python -m pip install --quiet -c constraints.txt -e . huggingface_hub numpy pillow pyyaml safetensors
	$(PEERS)/bin/python -m pip install --quiet --no-deps -r benchmarks/peers.txt
	touch $@

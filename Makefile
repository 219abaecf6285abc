# Two verbs for a newcomer (demo, test), a few for developers (check: lint and the quick tests). Everything installs into
# .venv from constraints.txt.
PYTHON ?= python3
VENV   ?= .venv
BIN     = $(VENV)/bin
# PyPI's own Linux build of torch brings several GB of CUDA: where PyTorch's CPU index can be reached, pass it here,
#   make demo PIP_ARGS="--extra-index-url URL"
PIP_ARGS ?=
# A test file stays with one worker, for its tests share what they made. Compiled modules are kept, whatever the
# environment says: the commands that tests start would compile all of safegen each time.
PYTEST   = $(BIN)/python -m pytest -n logical --maxprocesses 4 --dist loadfile
unexport PYTHONDONTWRITEBYTECODE
PIP      = $(BIN)/python -m pip install -qq --disable-pip-version-check $(PIP_ARGS) -c constraints.txt
# Where libGL is missing, of the two builds of OpenCV that requirements bring only the headless one loads.
OPENCV   = $(BIN)/python -c 'import cv2' 2>/dev/null || $(PIP) --force-reinstall --no-deps opencv-python-headless

.PHONY: demo test check lint docs format bench picture lock clean

demo: $(VENV)/.installed
	$(BIN)/python -m safegen.cli.demo demo

test: $(VENV)/.installed-dev
	$(PYTEST)

check: lint
	$(PYTEST) -m "not slow"

lint: $(VENV)/.installed-dev
	$(BIN)/ruff check .
	$(BIN)/ruff format --check .
	$(BIN)/python tools/tree.py
	cd build/tree && $(abspath $(BIN))/lint-imports --config ../../pyproject.toml
	$(BIN)/mypy
	$(MAKE) docs

# The documentation as a site, in build/site. Strict: a broken link, an anchor that is gone or a page that nobody finds fails.
docs: $(VENV)/.installed-dev
	NO_MKDOCS_2_WARNING=1 $(BIN)/mkdocs build --quiet --strict

format: $(VENV)/.installed-dev
	$(BIN)/ruff check --fix .
	$(BIN)/ruff format .

# Everything that depends on the model's weights, measured again (some hours on two quiet cores), and all figures in documents.
bench: $(VENV)/.installed
	$(BIN)/python benchmarks/model/measure.py
	$(BIN)/python -m benchmarks.watermark.run --work build/watermark
	$(BIN)/python -m benchmarks.watermark.tradeoff
	$(BIN)/python -m benchmarks.watermark.trials
	$(BIN)/python -m benchmarks.watermark.scale
	$(BIN)/python benchmarks/pipeline/overhead.py
	$(BIN)/python benchmarks/figures.py
	$(MAKE) picture

picture: $(VENV)/.installed
	$(BIN)/python benchmarks/pipeline/picture.py

$(VENV)/bin/python:
	$(PYTHON) -c 'import sys; sys.exit(sys.version_info < (3, 11) and "safegen needs Python 3.11 or newer")'
	$(PYTHON) -m venv $(VENV)

$(VENV)/.installed: pyproject.toml constraints.txt | $(VENV)/bin/python
	@echo "Installing safegen into $(VENV) (once, a few minutes)..."
	$(PIP) torch
	$(PIP) -e .
	$(OPENCV)
	@touch $@

$(VENV)/.installed-dev: $(VENV)/.installed
	$(PIP) -e ".[dev]"
	$(OPENCV)
	@touch $@ $(VENV)/.installed

clean:
	rm -rf build dist *.egg-info .mypy_cache .ruff_cache .pytest_cache .hypothesis .import_linter_cache

# Freeze what a fresh environment resolves to; the local version suffix of CPU builds is dropped.
lock:
	rm -rf build/lock && $(PYTHON) -m venv build/lock
	build/lock/bin/python -m pip install -qq $(PIP_ARGS) "torch==2.13.0" && build/lock/bin/python -m pip install -qq $(PIP_ARGS) -e ".[dev,ner]"
	(head -1 constraints.txt; build/lock/bin/python -m pip freeze --exclude-editable | sed 's/+cpu//') > build/constraints.txt && mv build/constraints.txt constraints.txt

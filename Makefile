# make demo    a first result: set up, train two models for 100 steps, draw pictures
# make test    set up, then all tests
# make test-all  the long ones too: every hostile submission and every known mistake
# make setup   .venv with everything that the tests need
# make lint    style and format

PYTHON ?= python3
PY := .venv/bin/python
STAMP := .venv/.ready

.PHONY: setup demo test test-all lint clean

setup: $(STAMP)

$(STAMP): $(wildcard requirements*.txt)
	$(PYTHON) -c 'import sys; sys.exit("Python 3.10 or newer is needed, this is " + sys.version) if sys.version_info < (3, 10) else None'
	$(PYTHON) -m venv .venv
	$(PY) -m pip install --disable-pip-version-check -r requirements-dev.txt
	touch $@

demo: $(STAMP)
	$(PY) classification_main.py --model cnn
	$(PY) segmentation_main.py --model unet
	@echo
	@echo "The pictures are in the newest folders of runs/:"
	@ls -td runs/classification-cnn-* | head -1
	@ls -td runs/segmentation-unet-* | head -1

test: $(STAMP)
	$(PY) -m ruff check .
	$(PY) -m ruff format --check .
	$(PY) -m pytest

test-all: $(STAMP)
	$(PY) -m pytest -m ""

lint: $(STAMP)
	$(PY) -m ruff check --fix .
	$(PY) -m ruff format .

clean:
	rm -rf .venv .pytest_cache .ruff_cache .hypothesis

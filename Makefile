# make demo      a first result: set up, train two models for 100 steps, draw pictures
# make quick     a developer's loop: style, arrows and the light tests, in a minute
# make test      what a newcomer runs: style, types, arrows and all but the long tests
# make test-all  everything: every hostile submission, every known mistake, long kills
# make setup     .venv with everything that the tests need
# make lint      fix style and format

PYTHON ?= python3
PY := .venv/bin/python
STAMP := .venv/.ready
# Independent tests run two at a time; those that need the machine to themselves come after.
TOGETHER := OMP_NUM_THREADS=1 $(PY) -m pytest -n 2 --dist worksteal

.PHONY: setup demo quick test slow test-all static lint clean

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

static: $(STAMP)
	$(PY) -m ruff check .
	$(PY) -m ruff format --check .
	.venv/bin/lint-imports --no-logo

quick: static
	$(TOGETHER) -m quick

test: static
	.venv/bin/mypy
	$(TOGETHER) -m "not slow and not alone"
	$(PY) -m pytest -m "alone and not slow" || test $$? = 5  # 5: there is none

slow: $(STAMP)
	$(TOGETHER) -m "slow and not alone"
	$(PY) -m pytest -m "alone and slow"

test-all: test slow

lint: $(STAMP)
	$(PY) -m ruff check --fix .
	$(PY) -m ruff format .

clean:
	rm -rf .venv .pytest_cache .ruff_cache .hypothesis .mypy_cache .import_linter_cache

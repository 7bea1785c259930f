# The first that is here; 3.11 is what the tests run on.
PYTHON ?= $(or $(shell command -v python3.11 || command -v python3.12 || command -v python3.13),python3.11)
VENV := .venv
RUN := $(VENV)/bin/python

.PHONY: install install-dev quickstart docs test test-python test-latest test-slow test-hostile test-timed test-browser lint clean

# XLA asks the C library for a step's temporary memory anew at every step. In huge pages, where the kernel gives them to
# who asks, that saves thousands of page faults a step (docs/launch.md, On CPUs).
HUGE_PAGES := GLIBC_TUNABLES=glibc.malloc.hugetlb=1

# What the quickstart runs; `make install` takes the whole CPU runtime.
QUICKSTART := .[train,corpus,plots]

install: $(VENV)/.installed
install-dev: $(VENV)/.installed-dev

$(VENV)/bin/python:
	$(PYTHON) -m venv $(VENV)

$(VENV)/.installed: requirements.txt constraints.txt | $(VENV)/bin/python
	$(RUN) -m pip install -q -r requirements.txt
	$(RUN) -m pip install -q --no-deps -e .
	touch $@

$(VENV)/.installed-quickstart: pyproject.toml setup.py constraints.txt | $(VENV)/bin/python
	$(RUN) -m pip install -q -c constraints.txt -e '$(QUICKSTART)'
	touch $@

# The tests also read the 4,231 real robots.txt files of Protego's source distribution, which wheels do not carry; pip
# takes it by the digest in requirements-protego-source.txt and by no other.
PROTEGO := 0.7.0
PROTEGO_FILES := $(VENV)/share/protego-$(PROTEGO)

$(VENV)/.installed-dev: requirements-dev.txt requirements-beam.txt requirements-docs.txt requirements-protego-source.txt \
		requirements.txt constraints.txt | $(VENV)/bin/python
	$(RUN) -m pip install -q -r requirements-dev.txt
	$(RUN) -m pip install -q --no-deps -e .
	rm -rf $(PROTEGO_FILES) && mkdir -p $(PROTEGO_FILES)
	$(RUN) -m pip download -q --no-deps --no-binary protego --require-hashes -d $(PROTEGO_FILES) \
		-r requirements-protego-source.txt
	tar -xzf $(PROTEGO_FILES)/protego-$(PROTEGO).tar.gz -C $(PROTEGO_FILES) --strip-components=1
	rm $(PROTEGO_FILES)/protego-$(PROTEGO).tar.gz
	touch $@

quickstart: $(VENV)/.installed-quickstart
	$(HUGE_PAGES) $(RUN) -m apertus_jax run --gin_file=gin_configs/quickstart.gin

$(VENV)/.installed-docs: requirements-docs.txt pyproject.toml setup.py constraints.txt | $(VENV)/bin/python
	$(RUN) -m pip install -q -r requirements-docs.txt -e '.[train,corpus,evaluate]'
	touch $@

# A broken link, a missing reference or any other warning fails.
docs: $(VENV)/.installed-docs
	$(RUN) -m sphinx --quiet --fail-on-warning --keep-going docs build/docs
	@echo "open build/docs/index.html"

test: install-dev
	$(RUN) -m pytest -n 2 --dist loadfile --no-loadscope-reorder

# Of the core's tests those that need neither torch nor transformers.
CORE_TESTS = $(shell grep -LE 'torch|transformers' tests/model/test_*.py tests/objectives/test_*.py tests/optimization/test_*.py)

# The core's tests and the quickstart under another interpreter: make test-python PYTHON=python3.13
test-python:
	$(PYTHON) -m venv $(VENV)-python
	$(VENV)-python/bin/python -m pip install -q -c constraints.txt '$(QUICKSTART)' pytest pytest-xdist hypothesis
	$(VENV)-python/bin/python -m pytest $(CORE_TESTS)
	$(VENV)-python/bin/apertus run --gin_file=quickstart.gin --output=runs/quickstart-python

# The newest releases, unpinned: what breaks under them.
test-latest:
	$(PYTHON) -m venv $(VENV)-latest
	$(VENV)-latest/bin/python -m pip install -q --upgrade '$(QUICKSTART)' pytest hypothesis
	$(VENV)-latest/bin/python -m pip list | grep -iE '^(jax|flax|optax|orbax-checkpoint|grain) '
	$(VENV)-latest/bin/python -m pytest $(CORE_TESTS)

# All programs are compiled as users' are; `make test` leaves LLVM's optimizations out of some (tests/conftest.py).
test-slow: install-dev
	JAX_DISABLE_MOST_OPTIMIZATIONS=0 $(RUN) -m pytest -n 2 --dist loadfile -m slow

test-hostile: install-dev
	$(RUN) -m pytest -n 2 --dist load -m hostile tests/hostile

# What asserts processor time; one test at a time, on a machine that does nothing else.
test-timed: install-dev
	$(RUN) -m pytest -m timed

# Reports in a headless browser, at three widths, dark and light; screenshots in build/screenshots. It needs a Chromium:
# `apt-get install chromium`, or `.venv/bin/playwright install chromium`.
test-browser: install-dev
	$(RUN) -m pip install -q -r requirements-browser.txt
	$(RUN) -m pytest -m browser tests/browser

lint: install-dev
	$(RUN) -m ruff check .
	$(RUN) -m ruff format --check .
	$(RUN) -m mypy

clean:
	rm -rf runs build .pytest_cache .ruff_cache .mypy_cache

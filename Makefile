PYTHON ?= python3.11
VENV := .venv
RUN := $(VENV)/bin/python

.PHONY: install install-dev quickstart test test-slow lint clean

install: $(VENV)/.installed
install-dev: $(VENV)/.installed-dev

$(VENV)/bin/python:
	$(PYTHON) -m venv $(VENV)

$(VENV)/.installed: requirements.txt constraints.txt | $(VENV)/bin/python
	$(RUN) -m pip install -q -r requirements.txt
	$(RUN) -m pip install -q --no-deps -e .
	touch $@

# The tests also read the 4,231 real robots.txt files of Protego's source distribution, which wheels do not carry.
PROTEGO := 0.7.0
PROTEGO_FILES := $(VENV)/share/protego-$(PROTEGO)

$(VENV)/.installed-dev: requirements-dev.txt requirements-beam.txt requirements.txt constraints.txt | $(VENV)/bin/python
	$(RUN) -m pip install -q -r requirements-dev.txt
	$(RUN) -m pip install -q --no-deps -e .
	rm -rf $(PROTEGO_FILES) && mkdir -p $(PROTEGO_FILES)
	$(RUN) -m pip download -q --no-deps --no-binary protego -d $(PROTEGO_FILES) protego==$(PROTEGO)
	tar -xzf $(PROTEGO_FILES)/protego-$(PROTEGO).tar.gz -C $(PROTEGO_FILES) --strip-components=1
	rm $(PROTEGO_FILES)/protego-$(PROTEGO).tar.gz
	touch $@

quickstart: install
	$(RUN) -m apertus_jax run --gin_file=gin_configs/quickstart.gin

test: install-dev
	$(RUN) -m pytest -n 2 --dist loadfile

test-slow: install-dev
	$(RUN) -m pytest -n 2 --dist loadfile -m slow

lint: install-dev
	$(RUN) -m ruff check .
	$(RUN) -m ruff format --check .

clean:
	rm -rf runs .pytest_cache .ruff_cache

# Two commands on a fresh machine: `make demo` and `make test`. Everything lives in .venv.
PYTHON ?= python3
VENV := .venv
BIN := $(VENV)/bin
STAMP := $(VENV)/.installed
# The demo needs neither PyTorch nor the tools of development; where those are installed already, that will do.
DEMO := $(if $(wildcard $(STAMP)),$(STAMP),$(VENV)/.demo)

.PHONY: setup demo test check bench docs clean
.DELETE_ON_ERROR:

setup: $(STAMP)

$(STAMP): pyproject.toml constraints.txt setup.py $(wildcard src/hasten/_*.[ch])
	$(PYTHON) -m venv $(VENV)
	$(BIN)/python -m pip install -q --disable-pip-version-check -U "pip>=25.1"
	$(BIN)/python -m pip install -q --disable-pip-version-check -c constraints.txt -e '.[all]' --group dev
	touch $@

$(VENV)/.demo: pyproject.toml constraints.txt setup.py $(wildcard src/hasten/_*.[ch])
	$(PYTHON) -m venv $(VENV)
	$(BIN)/python -m pip install -q --disable-pip-version-check --no-compile -c constraints.txt \
	    -e '.[keras,litert,openvino,native,report]' scikit-learn
	touch $@

demo: $(DEMO)
	$(BIN)/python benchmarks/demo.py

# A file's tests stay together: they share what takes long to make. Each process holds the frameworks (1.5 GB).
test: $(STAMP)
	$(BIN)/python -m pytest -n logical --maxprocesses 4 --dist loadfile

check: $(STAMP)
	$(BIN)/ruff check .
	$(BIN)/ruff format --check .
	$(BIN)/mypy
	$(BIN)/lint-imports --no-cache

bench: $(STAMP)
	$(BIN)/python -m benchmarks peers

docs: $(STAMP)
	$(BIN)/mkdocs build --strict --site-dir site

clean:
	rm -rf $(VENV) build site demo

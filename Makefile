# Everything runs from a virtual environment in $(VENV), which `make install` sets up.
PYTHON ?= python3
VENV ?= .venv

BIN := $(VENV)/bin
DEMO := runs/demo

.DEFAULT_GOAL := help
.PHONY: help install demo reproduce test test-slow test-gpu docs docs-check check format clean

help:  ## List the targets
	@awk -F ':.*## ' '/^[a-z-]+:.*## / { printf "  make %-10s %s\n", $$1, $$2 }' $(MAKEFILE_LIST)

install: $(VENV)/.installed  ## Create the virtual environment with every dependency

$(VENV)/.installed: pyproject.toml constraints.txt
	@$(PYTHON) -c 'import sys; sys.exit(sys.version_info < (3, 11))' || { \
		echo "metarl needs Python 3.11 or newer, but $(PYTHON) is $$($(PYTHON) --version 2>&1)."; \
		echo "Name a newer one, for example: make install PYTHON=python3.12"; \
		exit 1; }
	$(PYTHON) -m venv $(VENV)
	$(BIN)/python -m pip install -c constraints.txt -e '.[dev]'
	@touch $@

demo: install  ## Train, evaluate and render a small example (safe to repeat)
	$(BIN)/metarl train half_cheetah_dir/demo --out $(DEMO) --continue
	$(BIN)/metarl evaluate $(DEMO) --split test --tasks 40 --episodes 20 --steps 3 --against random
	$(BIN)/metarl render $(DEMO) --task 1 --steps 1 --out $(DEMO)/videos/forward.mp4
	$(BIN)/metarl render $(DEMO) --task -1 --steps 1 --out $(DEMO)/videos/backward.mp4
	$(BIN)/metarl report $(DEMO)
	@echo
	@echo "run:    $(DEMO)"
	@echo "report: $(DEMO)/report/report.html"
	@echo "figure: $(DEMO)/evaluation/k_step-test.png"
	@echo "videos: $(DEMO)/videos/forward.mp4"
	@echo "        $(DEMO)/videos/backward.mp4"

reproduce: install  ## Repeat the figure of the MAML paper (hours; continues after a stop)
	$(BIN)/python -m examples.reproduce

test: install  ## Run the quick tests
	$(BIN)/python -m pytest -n 2

test-slow: install  ## Run the tests that train for a minute or more
	$(BIN)/python -m pytest -n 2 -m slow

test-gpu: install  ## Run the tests that need an NVIDIA GPU, and write its times into the docs
	$(BIN)/python -m pytest -m cuda
	$(BIN)/python -m examples.bench_devices --write docs/performance.md

docs: install  ## Write the documentation as a site, to be opened as build/site/index.html
	NO_MKDOCS_2_WARNING=1 $(BIN)/mkdocs build --strict

docs-check: install  ## Repeat the quick measurements behind the numbers of the docs
	$(BIN)/python -m examples.docs_check

check: install  ## Check the lint rules, the formatting, the types and the direction of imports
	$(BIN)/ruff check .
	$(BIN)/ruff format --check .
	$(BIN)/pyright
	$(BIN)/lint-imports

format: install  ## Format the code and apply the linter's safe fixes
	$(BIN)/ruff check --fix --exit-zero .
	$(BIN)/ruff format .

clean:  ## Remove caches and built packages (keeps runs/ and the environment)
	rm -rf build dist .pytest_cache .ruff_cache .hypothesis
	find envs metarl tests -type d -name __pycache__ -prune -exec rm -rf {} +

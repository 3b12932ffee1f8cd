# pymig's commands. The CLI behind them is .venv/bin/pymig; `make setup` makes it.
# On a server of your own: make migrate SHIP=x DATABASE_URL=postgresql://…

SHELL := /bin/bash
.SHELLFLAGS := -eu -o pipefail -c
.DEFAULT_GOAL := help
.DELETE_ON_ERROR:
MAKEFLAGS += --no-print-directory

VENV := .venv
PY := $(VENV)/bin/python
PYMIG := $(VENV)/bin/pymig
SETUP := $(VENV)/.setup
SETUP_BENCH := $(VENV)/.setup-bench
PIP_INSTALL := $(PY) -m pip install --quiet --disable-pip-version-check -c .ci/constraints.txt

# The first Python that is new enough; PYTHON=… chooses another.
PYTHON ?= $(shell for p in python3 python3.14 python3.13 python3.12 python3.11; do \
    "$$p" -c 'import sys; sys.exit(sys.version_info < (3, 11))' 2>/dev/null && echo "$$p" && break; \
    done)

# Given on the command line or in the environment; the recipes read them as shell variables, so that
# a name with blanks or quotes arrives as it is.
export SHIP SOURCE WORKERS COLUMN_TYPES STRATEGY TUNE REPAIR DATABASE_URL MINUTES SEED SEEDS COUNT HOLD
source = $(if $(SOURCE),--source "$$SOURCE")
ship = --ship "$${SHIP:-all}" $(source)
say_which = $(if $(SHIP),,$(error Say which: make $@ SHIP=X, a comma list, or SHIP=all))
workers = $(if $(WORKERS),--workers "$$WORKERS")
how = $(if $(COLUMN_TYPES),--column-types "$$COLUMN_TYPES") $(if $(STRATEGY),--strategy "$$STRATEGY") $(if $(filter-out 0,$(TUNE)),--tune)

# Major versions of PostgreSQL on this system that the tests run on, besides the embedded 18.
SYSTEM_PG := $(filter 15 16 17,$(patsubst /usr/lib/postgresql/%/bin/initdb,%,\
    $(wildcard /usr/lib/postgresql/*/bin/initdb)))
PYTEST = $(PY) -m pytest -n 4 --dist worksteal $(ARGS)

.PHONY: help setup console install uninstall precheck analyze plan migrate verify status watch worker certify cutover routing rollback pause resume cancel \
    throttle demo stop clean test lint format bench bench-quick bench-sync bench-read bench-stall soak stress faults docs screenshots

help: ## This list
	@grep -hE '^[a-z%-]+:.*## ' $(MAKEFILE_LIST) | sed -E 's/:[^#]*## /\t/' \
	    | while IFS=$$'\t' read -r name text; do printf '  make %-10s %s\n' "$$name" "$$text"; done
	@echo
	@echo '  SHIP= one, a comma list, or all. SOURCE= WORKERS= COLUMN_TYPES=text|native'
	@echo '  STRATEGY=auto|transpose|crosstab|json|filter TUNE=1. DATABASE_URL= or PG*: a server of your own.'

setup: $(SETUP) ## Make .venv with everything in it (the others do it when needed)

$(SETUP): pyproject.toml .ci/constraints.txt
	@[ -n "$(PYTHON)" ] || { echo 'pymig needs Python 3.11 or newer; set PYTHON=…' >&2; exit 1; }
	@echo 'Setting up $(VENV) …'
	@[ -x $(PY) ] || $(PYTHON) -m venv $(VENV)
	@$(PIP_INSTALL) -e '.[server,test]'
	@touch $@

$(SETUP_BENCH): $(SETUP)
	@$(PIP_INSTALL) -e '.[server,test,bench]'
	@touch $@

install: $(SETUP) ## Install pymig's schema into the database
	@$(PYMIG) install

uninstall: $(SETUP) ## Remove it; the narrow table stays as it is
	@$(PYMIG) uninstall

precheck: $(SETUP) ## Backups, disk, locks and settings before a migration; changes nothing
	@$(PYMIG) precheck $(source)

analyze: $(SETUP) ## What the data of SHIP is like (default: all), in samples; changes nothing (ARGS=)
	@$(PYMIG) analyze $(ship) $(if $(COLUMN_TYPES),--column-types "$$COLUMN_TYPES") $(ARGS)

plan: $(SETUP) ## What a migration of SHIP would do (default: all); changes nothing
	@$(PYMIG) plan $(ship)

migrate: $(SETUP) ## Migrate SHIP while data arrives, and verify it
	@: $(say_which)
	@$(PYMIG) migrate $(ship) $(workers) $(how)

verify: $(SETUP) ## Compare every cell of SHIP (default: all); REPAIR=1 mends differences
	@$(PYMIG) verify $(ship) $(if $(filter-out 0,$(REPAIR)),--repair)

status: $(SETUP) ## State, progress and sync lag of every ship
	@$(PYMIG) status $(source)

watch: $(SETUP) ## The same, live, on a screen with keys
	@$(PYMIG) status --watch $(source)

worker: $(SETUP) ## Keep wide equal to narrow, until Ctrl-C
	@$(PYMIG) worker $(source)

certify: $(SETUP) ## Compare every cell of SHIP and record that all are equal
	@: $(say_which)
	@$(PYMIG) certify $(ship)

cutover: $(SETUP) ## Let applications use the wide table of SHIP
	@: $(say_which)
	@$(PYMIG) cut-over $(ship)

routing: $(SETUP) ## Where readers get the rows of each ship from
	@$(PYMIG) routing $(source)

rollback: $(SETUP) ## Undo the migration of SHIP
	@: $(say_which)
	@$(PYMIG) rollback $(ship)

pause: $(SETUP) ## Let the history of SHIP (default: all) wait; sync goes on
	@$(PYMIG) pause $(ship)

resume: $(SETUP) ## Go on with it
	@$(PYMIG) resume $(ship)

cancel: $(SETUP) ## End the commands that move history of SHIP, until resume
	@: $(say_which)
	@$(PYMIG) cancel $(ship)

throttle: $(SETUP) ## What makes history wait, with limits and values (ARGS= to change them)
	@$(PYMIG) throttle $(ARGS)

console: $(SETUP) ## Show it all in a browser, at http://127.0.0.1:8808 (ARGS= for its options)
	@$(PYMIG) console $(ARGS)

demo: $(SETUP) ## A simulated fleet, migrated live and verified, on an embedded server
	@$(PYMIG) demo $(workers)

stop: ## Stop the embedded server
	@if [ -x $(PYMIG) ]; then $(PYMIG) server stop; else echo 'Nothing to stop: no $(VENV).'; fi

clean: ## Remove the embedded server with its data, and caches (not .venv)
	@if [ -x $(PYMIG) ]; then $(PYMIG) server clean; fi
	@rm -rf build dist .pytest_cache .mypy_cache .ruff_cache .hypothesis
	@find . -path ./$(VENV) -prune -o -name __pycache__ -type d -exec rm -rf {} +

test: MOST := $(if $(SYSTEM_PG),--most)
test: BRIEF := --brief
test: test-18 $(SYSTEM_PG:%=test-%) ## All tests on PostgreSQL 18, most on the system's (ARGS= for pytest)

test-18: $(SETUP)
	@PYMIG_TEST_PG=18-embedded $(PYTEST) $(MOST)

test-%: $(SETUP) ## All on one version: test-18 (embedded), test-15 (/usr/lib/postgresql/15)
	@PYMIG_TEST_PG=/usr/lib/postgresql/$*/bin $(PYTEST) $(BRIEF)

lint: $(SETUP) ## ruff and mypy
	@$(PY) -m ruff check
	@$(PY) -m ruff format --check
	@$(PY) -m mypy $(wildcard pymig tests bench)

format: $(SETUP) ## Format the Python code
	@$(PY) -m ruff check --fix
	@$(PY) -m ruff format

bench: $(SETUP_BENCH) ## Measure; ratios against the read floor and other tools
	@$(PY) -m bench $(ARGS)

bench-quick: $(SETUP_BENCH) ## The same on a small table, for a look
	@$(PY) -m bench --quick --repeats 2 $(ARGS)

bench-sync: $(SETUP_BENCH) ## What sync costs ingest, and its lag; on quiet cores (ARGS= for both)
	@$(PY) -m bench sync $(ARGS)
	@$(PY) -m bench lag $(ARGS)

bench-read: $(SETUP_BENCH) ## What read() and the compat view cost, beside queries by hand
	@$(PY) -m bench read $(ARGS)

bench-stall: $(SETUP_BENCH) ## What writers and readers notice of a cutover and a rollback
	@$(PY) -m bench stall --repeats 10 $(ARGS)

soak: $(SETUP) ## Everything at once for MINUTES= from SEED=; HOLD= seconds: arming behind long sessions
	@$(PY) -m tests.soak $(if $(MINUTES),--minutes "$$MINUTES") $(if $(SEED),--seed "$$SEED") \
	    $(if $(HOLD),--hold "$$HOLD")

stress: $(SETUP) ## The oracle stress for SEEDS=1-100, some at once
	@$(PY) -m tests.seeds $(if $(SEEDS),--seeds "$$SEEDS") $(ARGS)

faults: $(SETUP) ## COUNT=100 random faults while migrating, from SEED=; HOLD= seconds each
	@$(PY) -m tests.faults $(if $(COUNT),--count "$$COUNT") $(if $(SEED),--seed "$$SEED") \
	    $(if $(HOLD),--hold "$$HOLD")

docs: $(SETUP) ## Write docs/reference anew from COMMENT ON and the CLI, and the console's words
	@$(PY) -m docs
	@$(PY) -m pymig.console.translate

screenshots: $(SETUP) ## Take the pictures of docs/images anew (needs Chromium, takes six minutes)
	@$(PY) -m docs.screenshots.console
	@$(PY) -m docs.screenshots.terminal

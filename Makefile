# Every target installs what it needs into .venv. Requires make and Python 3.11 or newer.
SHELL := /bin/sh
PYTHON ?= python3
VENV := .venv
FUZZ_VENV := .venv-api-fuzz
PY := $(VENV)/bin/python
ARGS ?=

.DEFAULT_GOAL := help
.PHONY: help demo rehearse run stack stack-status stack-logs stack-down bench bench-quick bench-overload bench-money bench-attack audit trace test lives simulate check api-fuzz k8s-check dashboards settings format contracts clean

help: ## Show this list
	@printf 'Ataa, the backend of live donation drives. make …\n\n'
	@grep -E '^[a-z0-9-]+:.*## ' $(MAKEFILE_LIST) | awk -F ':.*## ' '{printf "  %-13s %s\n", $$1, $$2}'
	@printf '\nArguments are passed on with ARGS, for example make demo ARGS=--help\n'

demo: $(VENV)/.runtime ## Replay an 11-million-dollar drive and prove the books (ARGS=--exit: then stop; STACK=1: on Kafka)
	@$(PY) -m rehearsal demo $(if $(filter-out 0,$(STACK)),--real) $(ARGS)

rehearse: $(VENV)/.runtime ## Replay a real drive's busiest minutes on the running stack (ARGS="--times 10")
	@$(PY) -m rehearsal rehearse $(ARGS)

run: $(VENV)/.runtime ## Serve Ataa from one process until Ctrl-C; data is kept in ATAA_DATA_DIR (.ataa)
	@$(PY) -m embedded $(ARGS)

stack: $(VENV)/.runtime ## Start Kafka, PostgreSQL, Prometheus and the five services on this machine
	@$(PY) -m stack up $(ARGS)

stack-status: $(VENV)/.runtime ## Show the stack's processes: ports, state, memory, backlog
	@$(PY) -m stack status

stack-logs: $(VENV)/.runtime ## Show the stack's logs (ARGS="payments --follow")
	@$(PY) -m stack logs $(ARGS)

stack-down: $(VENV)/.runtime ## Stop the stack; its data is kept
	@$(PY) -m stack down

bench: $(VENV)/.runtime ## Measure every figure, embedded and on the stack (ARGS="--only reads": one group)
	@$(PY) -m bench run $(ARGS)

bench-quick: $(VENV)/.runtime ## Measure the embedded figures, shorter and without the slow groups
	@$(PY) -m bench run --quick $(ARGS)

bench-overload: $(VENV)/.runtime ## Send five times the peak: what is accepted, what gives way, what comes back
	@$(PY) -m bench overload $(ARGS)

bench-money: $(VENV)/.runtime ## Measure postings, webhooks, audit, inclusion proof and a storm of pledges (ARGS="--rows 100000": a shorter log)
	@$(PY) -m bench money $(ARGS)

bench-attack: $(VENV)/.runtime ## Simulate a card-testing attack: what passes, and what it costs donors (ARGS="--seed 2")
	@$(PY) -m bench attack $(ARGS)

test: $(VENV)/.dev ## Run the tests (ARGS="-k expression" selects some)
	@$(PY) -m pytest -n 4 --dist loadfile $(ARGS)

lives: $(VENV)/.dev ## Drive 2,000 random lives of payments against a plain model, with crashes (LIVES=100)
	@ATAA_LIVES=$(or $(LIVES),2000) $(PY) -m pytest -q tests/payments/life $(ARGS)

simulate: $(VENV)/.dev ## Run 10,000 simulated systems with faults (ARGS="--seeds 1000", "--seed 4711": replay one; --help)
	@$(PY) -m simulation $(ARGS)

check: $(VENV)/.dev ## Lint, check types and import contracts
	@$(VENV)/bin/ruff check .
	@$(VENV)/bin/ruff format --check .
	@$(VENV)/bin/mypy
	@$(VENV)/bin/lint-imports --no-cache
	@$(VENV)/bin/vulture

api-fuzz: $(FUZZ_VENV)/.ready $(VENV)/.runtime ## Fuzz the API of an embedded run with Schemathesis (ARGS="--max-examples 500")
	@$(PY) -m tests.api_fuzz $(ARGS)

k8s-check: $(VENV)/.k8s ## Render and validate every Kubernetes overlay
	@$(PY) deploy/k8s/check.py

dashboards: $(VENV)/.dashboards ## Generate the Grafana dashboards from their code
	@$(PY) deploy/grafana/surge_overview.py
	@$(PY) deploy/grafana/payments_ledger.py

audit: $(VENV)/.runtime ## Compare ledger, payments, log, totals and processor of a drive (DRIVE=winter; ARGS=--processor)
	@$(PY) -m ataa audit $(DRIVE) $(ARGS)

trace: $(VENV)/.runtime ## List the steps of one gift from all services (PLEDGE=plg_…)
	@$(PY) -m ataa trace $(PLEDGE) $(ARGS)

settings: $(VENV)/.runtime ## List every setting: variable, default, meaning
	@$(PY) -m embedded settings

contracts: $(VENV)/.runtime ## Generate the events' JSON Schemas in docs/contracts/
	@$(PY) -m backbone.contracts docs/contracts

format: $(VENV)/.dev ## Format the code
	@$(VENV)/bin/ruff check --fix --quiet . || true
	@$(VENV)/bin/ruff format .

clean: ## Remove the virtual environment, caches and the demo's data; other data in .ataa is kept
	rm -rf $(VENV) $(FUZZ_VENV) .mypy_cache .ruff_cache .pytest_cache .hypothesis .ataa/demo demo-report.json

$(VENV)/bin/python:
	@$(PYTHON) -c 'import sys; sys.exit(sys.version_info < (3, 11))' || \
	  { echo "ataa: Python 3.11 or newer is required; choose one with make PYTHON=…" >&2; exit 2; }
	@echo "Setting up $(VENV) (once) …"
	@$(PYTHON) -m venv $(VENV) || \
	  { rm -rf $(VENV); echo "ataa: cannot create a virtual environment (on Debian: apt install python3-venv)" >&2; exit 2; }

$(VENV)/.runtime: requirements.lock | $(VENV)/bin/python
	@echo "Installing the locked dependencies …"
	@$(PY) -m pip install --quiet --disable-pip-version-check --require-hashes -r requirements.lock
	@touch $@

$(VENV)/.dev: requirements-dev.lock $(VENV)/.runtime
	@echo "Installing the locked tools for tests and checks …"
	@$(PY) -m pip install --quiet --disable-pip-version-check --require-hashes -r requirements-dev.lock
	@touch $@

$(VENV)/.dashboards: requirements-dashboards.lock $(VENV)/.runtime
	@echo "Installing the locked tools for dashboards …"
	@$(PY) -m pip install --quiet --disable-pip-version-check --require-hashes -r requirements-dashboards.lock
	@touch $@

$(VENV)/.k8s: requirements-k8s.lock $(VENV)/.runtime
	@echo "Installing the locked tools for Kubernetes …"
	@$(PY) -m pip install --quiet --disable-pip-version-check --require-hashes -r requirements-k8s.lock
	@touch $@

$(FUZZ_VENV)/.ready: requirements-api-fuzz.lock | $(VENV)/bin/python
	@echo "Installing the locked Schemathesis …"
	@rm -rf $(FUZZ_VENV)
	@$(PY) -m venv $(FUZZ_VENV)
	@$(FUZZ_VENV)/bin/python -m pip install --quiet --disable-pip-version-check --require-hashes -r requirements-api-fuzz.lock
	@touch $@

PYTHON ?= python3
VENV := .venv
BIN := $(VENV)/bin
DEMO_READY := $(VENV)/.demo-ready
READY := $(VENV)/.ready
INSTALL := $(BIN)/pip install --quiet --disable-pip-version-check
PARALLEL := --dist loadgroup --numprocesses
COMPILE := $(BIN)/uv pip compile --quiet --universal --python-version 3.11 --generate-hashes \
  --no-emit-index-url --no-header --no-annotate

# Without bytecode each process that a test starts compiles all of ours again.
export PYTHONDONTWRITEBYTECODE :=

.PHONY: help python broker demo test coverage histories fuzz soak mutants faults ship bench screenshots lint types layers check audit release sbom lock docs clean

help: ## Print the targets
	@grep -hE '^[a-z]+:.*## ' $(MAKEFILE_LIST) | awk -F ':.*## ' '{printf "%-11s %s\n", $$1, $$2}'

python:
	@$(PYTHON) -c 'import sys; sys.exit(sys.version_info < (3, 11))' || \
	  { echo "Python 3.11 or newer is needed: name one, as in 'make $(MAKECMDGOALS) PYTHON=python3.13'" >&2; exit 1; }
	@$(PYTHON) -c 'import ensurepip, venv' 2>/dev/null || \
	  { echo "Python's venv is missing: apt-get install python3-venv" >&2; exit 1; }

$(DEMO_READY): docker/demo.lock pyproject.toml | python
	$(PYTHON) -m venv --clear $(VENV)
	$(INSTALL) --require-hashes -r docker/demo.lock
	$(INSTALL) --no-deps --no-build-isolation -e .
	@touch $@

$(READY): $(DEMO_READY) requirements.lock
	$(INSTALL) --require-hashes -r requirements.lock
	@touch $@

broker: python
	@$(PYTHON) -m consumer.demo.ways

demo: broker $(DEMO_READY) ## Start broker, sandbox and worker, place a dozen calls, account for each (ARGS=--keep leaves it running)
	@$(BIN)/call-consumer demo $(ARGS)

test: broker $(READY) ## Run the tests (ARGS=... goes to pytest)
	@$(BIN)/python -m pytest $(PARALLEL) 7 $(ARGS)

# Fewer processes: measured, each is slower, and some tests look at the clock.
coverage: broker $(READY) ## Run the tests, and measure how much of the code they reach
	@rm -f .coverage .coverage.*
	@$(BIN)/coverage run -m pytest $(PARALLEL) 4 $(ARGS)
	@$(BIN)/coverage combine --quiet
	@$(BIN)/coverage report --fail-under=95
	@$(BIN)/coverage report --fail-under=100 --include='consumer/decision.py,consumer/reconciliation.py,consumer/bitrix24/errors.py,consumer/bitrix24/lookup.py,consumer/bitrix24/responses.py,consumer/steps.py,consumer/results.py,consumer/ledger/changes.py'

histories: $(READY) ## Make up 10,000 histories of a request, and try the ten promises on each (10 minutes)
	@$(BIN)/python -m pytest --quiet --override-ini faulthandler_timeout=0 --histories 10000 $(ARGS) tests/test_histories.py

fuzz: $(READY) ## Make up 100,000 hostile inputs: bodies, headers, answers, history pages (a minute; ARGS='--seed N': the same again)
	@$(BIN)/python -m pytest --override-ini faulthandler_timeout=0 --fuzz 100000 --capture no $(ARGS) tests/test_fuzz.py | \
	  grep -v '"level"\|^20[0-9-]* '

faults: $(READY) ## Kill, cut, freeze and fill up everything, and account for each request (up to an hour; ARGS=--slice: 8 minutes; ARGS=--full: all at once, for hours)
	@$(BIN)/python -m tests.faults $(ARGS)

soak: $(READY) ## Place twelve hours' calls in a quarter of an hour, and see what grows (ARGS='--share 0.05': shorter)
	@$(BIN)/python -m tests.faults.soak $(ARGS)

mutants: $(READY) ## Change the pure modules in each way there is, and see whether a test notices (half an hour)
	@$(BIN)/mutmut run
	@$(BIN)/mutmut results

ship: $(READY) ## Build the image, start all of docker/compose.yaml, and test both (needs a container engine; 7 minutes)
	@$(BIN)/python -m pytest -rs -o faulthandler_timeout=600 tests/ship $(ARGS)

bench: $(READY) ## Measure against aio-pika + httpx by hand and Celery, in turn (a quarter of an hour; ARGS=--help)
	@$(BIN)/python -m tests.benchmarks $(ARGS)

screenshots: $(READY) ## Make the pictures of the operators' pages anew (needs chromium)
	@$(BIN)/python -m tests.web.screenshots

lint: $(READY) ## Check style and formatting
	@$(BIN)/ruff check
	@$(BIN)/ruff format --check

types: $(READY) ## Check the types
	@$(BIN)/mypy

layers: $(READY) ## Check that imports point down only
	@$(BIN)/lint-imports

check: lint types layers coverage ## All of the above: what CI runs

audit: $(READY) ## Look for known vulnerabilities in what is locked
	@said=$$($(BIN)/pip-audit --progress-spinner off --require-hashes --disable-pip -r requirements.lock 2>&1); failed=$$?; \
	case "$$said" in \
	  *'Found '*'known vulnerabilit'*) echo "$$said"; exit 1;; \
	  *'could not be audited'*) echo "not audited: the service does not know $$(echo "$$said" | grep -c 'could not be audited') of the packages, as a mirror may not";; \
	  *) [ $$failed = 0 ] && echo "$$said" || echo "not audited: $$(echo "$$said" | tail -n 1)";; \
	esac

release: $(READY) ## Build, verify and tag a release (VERSION=0.2.0; ARGS=--dry-run tags nothing, --without-image)
	@$(BIN)/python -m tests.release $(VERSION) $(ARGS)

sbom: $(READY) ## Write the bill of materials, as CycloneDX, to dist/
	@$(BIN)/python -m tests.release.sbom

lock: $(READY) ## Renew the lock files, ours, the demo's and the image's: newest versions that pyproject.toml allows
	@$(COMPILE) --upgrade --all-extras --group build -o requirements.lock pyproject.toml
	@$(COMPILE) --extra demo --group build -c requirements.lock -o docker/demo.lock pyproject.toml
	@$(COMPILE) --extra otel --extra postgres --extra web -c requirements.lock -o docker/requirements.lock pyproject.toml
	@$(COMPILE) --group build -c requirements.lock -o docker/build.lock

docs: $(READY) ## Renew the table of values in the chart's README
	@$(BIN)/python -m tests.deploy.values_table

clean: ## Remove what the other targets made
	rm -rf $(VENV) mutants .coverage .coverage.* .mypy_cache .pytest_cache .ruff_cache

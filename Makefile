PYTHON ?= python3
VENV := .venv
BIN := $(VENV)/bin
READY := $(VENV)/.ready
COMPILE := $(BIN)/uv pip compile --quiet --universal --python-version 3.11 --generate-hashes \
  --no-emit-index-url --no-header --no-annotate

# Without bytecode each process that a test starts compiles all of ours again.
export PYTHONDONTWRITEBYTECODE :=

.PHONY: help demo test faults ship bench screenshots lint types layers check audit lock clean

help: ## Print the targets
	@grep -hE '^[a-z]+:.*## ' $(MAKEFILE_LIST) | awk -F ':.*## ' '{printf "%-11s %s\n", $$1, $$2}'

$(READY): requirements.lock pyproject.toml
	@$(PYTHON) -c 'import sys; sys.exit(sys.version_info < (3, 11))' || \
	  { echo "Python 3.11 or newer is needed: name one, as in 'make $(MAKECMDGOALS) PYTHON=python3.13'" >&2; exit 1; }
	@$(PYTHON) -c 'import ensurepip, venv' 2>/dev/null || \
	  { echo "Python's venv is missing: apt-get install python3-venv" >&2; exit 1; }
	$(PYTHON) -m venv --clear $(VENV)
	$(BIN)/pip install --quiet --disable-pip-version-check --require-hashes -r requirements.lock
	$(BIN)/pip install --quiet --disable-pip-version-check --no-deps --no-build-isolation -e .
	@touch $@

demo: $(READY) ## Start broker, sandbox and worker, place a dozen calls, account for each (ARGS=--keep leaves it running)
	@$(BIN)/call-consumer demo $(ARGS)

test: $(READY) ## Run the tests, with coverage (ARGS=... goes to pytest)
	@rm -f .coverage .coverage.*
	@$(BIN)/coverage run -m pytest --numprocesses 6 --dist loadgroup $(ARGS)
	@$(BIN)/coverage combine --quiet
	@$(BIN)/coverage report --fail-under=95
	@$(BIN)/coverage report --fail-under=100 --include='consumer/decision.py,consumer/reconciliation.py,consumer/bitrix24/errors.py,consumer/bitrix24/lookup.py,consumer/bitrix24/responses.py,consumer/steps.py,consumer/results.py,consumer/ledger/changes.py'

faults: $(READY) ## Kill, cut, freeze and fill up everything, and account for each request (up to an hour; ARGS=--slice: 8 minutes)
	@$(BIN)/python -m tests.faults $(ARGS)

ship: $(READY) ## Build the image, start all of docker/compose.yaml, and test both (needs a container engine; 7 minutes)
	@$(BIN)/python -m pytest -rs tests/ship $(ARGS)

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

check: lint types layers test ## All of the above: what CI runs

audit: $(READY) ## Look for known vulnerabilities in what is locked
	@said=$$($(BIN)/pip-audit --progress-spinner off --require-hashes --disable-pip -r requirements.lock 2>&1); failed=$$?; \
	case "$$said" in \
	  *'Found '*'known vulnerabilit'*) echo "$$said"; exit 1;; \
	  *'could not be audited'*) echo "not audited: the service does not know $$(echo "$$said" | grep -c 'could not be audited') of the packages, as a mirror may not";; \
	  *) [ $$failed = 0 ] && echo "$$said" || echo "not audited: $$(echo "$$said" | tail -n 1)";; \
	esac

lock: $(READY) ## Renew the lock files, ours and the image's: newest versions that pyproject.toml allows
	@$(COMPILE) --upgrade --all-extras -o requirements.lock pyproject.toml
	@$(COMPILE) --extra otel --extra postgres --extra web -c requirements.lock -o docker/requirements.lock pyproject.toml
	@echo hatchling | $(COMPILE) -c requirements.lock -o docker/build.lock -

clean: ## Remove what the other targets made
	rm -rf $(VENV) .coverage .coverage.* .mypy_cache .pytest_cache .ruff_cache

# The same few verbs a developer, an operator and CI use. `make help` lists them.
SHELL := /bin/bash
.DEFAULT_GOAL := help
PYTHON ?= python3
BIN := .venv/bin
# Where it is set, each process that the tests start would compile the project anew.
unexport PYTHONDONTWRITEBYTECODE
PIP := $(BIN)/python -m pip --disable-pip-version-check --quiet

.PHONY: help
help: ## Show this list
	@awk -F ':.*## ' '/^[a-z-]+:.*## / {printf "  make %-10s %s\n", $$1, $$2}' $(MAKEFILE_LIST)

.PHONY: setup
setup: .venv/.ready ## Make .venv from the locked requirements: enough to run the worker and the demo

.PHONY: demo
demo: .venv/.ready ## See it work: embedded Redis, sandbox API, a worker, jobs, results; stops all it started
	@$(BIN)/lock-worker demo

.PHONY: test
test: .venv/.dev-ready ## Run all tests, on real servers that the suite starts itself
	@# Four at once also on two cores: most tests wait for servers. In the order of the folders: sorted by their number of tests, the
	@# longest single tests would come last, alone. Each skipped test is listed with its reason.
	@$(BIN)/python -m pytest -rs --numprocesses 4 --dist loadfile --no-loadscope-reorder

.PHONY: image-test
image-test: .venv/.dev-ready ## Build the image and run it as a cluster would, about 2 minutes; needs root, buildah, podman, runc, mmdebstrap
	@$(BIN)/python -m pytest -rs -m image tests/image

.PHONY: chaos
chaos: .venv/.dev-ready ## Kill, stall and starve workers for MINUTES=2, from SEED=, on TOPOLOGY=single|sentinel|cluster, and judge each job
	@$(BIN)/python -m tests.chaos --minutes $(or $(MINUTES),2) $(if $(SEED),--seed $(SEED)) --topology $(or $(TOPOLOGY),single)

.PHONY: bench
bench: .venv/.dev-ready ## Measure this worker beside other queues, about 30 minutes; ARGS=--quick for a short round
	@$(BIN)/python -m benchmarks $(ARGS)

.PHONY: bench-long
bench-long: .venv/.dev-ready ## Measure many workers, a backlog of millions, and memory over 1,000,000 jobs, about 20 minutes
	@$(BIN)/python -m benchmarks.scale
	@$(BIN)/python -m benchmarks.backlog
	@$(BIN)/python -m benchmarks.flat

.PHONY: check
check: .venv/.dev-ready ## Check style, types, the direction of imports, compose file, Dockerfile and generated pages
	$(BIN)/ruff check .
	$(BIN)/ruff format --check .
	$(BIN)/mypy
	$(BIN)/lint-imports
	$(BIN)/check-jsonschema --builtin-schema vendor.compose-spec docker-compose.yml deploy/compose/production.yml
	$(BIN)/hadolint Dockerfile

.PHONY: sbom
sbom: .venv/.dev-ready ## Write dist/sbom.cdx.json: what the image holds beside its base, as CycloneDX
	@mkdir -p dist
	@$(BIN)/cyclonedx-py requirements --pyproject pyproject.toml --output-reproducible --of JSON -o dist/sbom.cdx.json $(or $(REQUIREMENTS),requirements.lock)
	@echo dist/sbom.cdx.json

.PHONY: docs
docs: .venv/.dev-ready ## Write the generated pages and schemas in docs/, dashboard and alerts in deploy/ anew
	$(BIN)/python -m docs.generate
	$(BIN)/python -m deploy.grafana.dashboard
	$(BIN)/python -m deploy.kubernetes.alerts

.PHONY: lock
lock: .venv/.dev-ready ## Resolve the requirements anew and write the lock files
	$(call compile,requirements.lock,pyproject.toml)
	$(call compile,requirements-demo.lock,pyproject.toml --extra demo --group build -c requirements.lock)
	$(call compile,requirements-otel.lock,pyproject.toml --extra otel -c requirements.lock)
	$(call compile,requirements-build.lock,--group build -c requirements-demo.lock)
	$(call compile,requirements-dev.lock,pyproject.toml --extra demo --extra otel --group build --group dev -c requirements-demo.lock -c requirements-otel.lock)

.PHONY: clean
clean: ## Remove .venv and what tools left behind
	rm -rf .venv .mypy_cache .ruff_cache .pytest_cache .hypothesis .import_linter_cache
	find . -name __pycache__ -type d -prune -exec rm -rf {} +

compile = $(BIN)/uv pip compile --quiet --universal --python-version 3.11 --generate-hashes --no-emit-index-url --no-annotate \
	--custom-compile-command 'make lock' $(2) -o $(1)

.venv/.ready: requirements-demo.lock pyproject.toml
	@echo "Setting up .venv (once) ..."
	@$(PYTHON) -m venv .venv
	@$(PIP) install --require-hashes -r requirements-demo.lock
	@$(PIP) install --no-deps --no-build-isolation --editable .
	@touch $@

.venv/.dev-ready: .venv/.ready requirements-dev.lock
	@echo "Adding the tools for tests and checks to .venv (once) ..."
	@$(PIP) install --require-hashes -r requirements-dev.lock
	@touch $@

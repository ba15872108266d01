# Two commands matter: `make demo` shows the main job, `make test` proves it. Both prepare what they need.
SHELL := /bin/bash
PYTHON ?= python3
NODES ?= 5
SIZE ?= 150MiB
VENV := .venv
BIN := $(VENV)/bin
STAMP := $(VENV)/.installed

.PHONY: demo test gates measured compiled image venv packages lint unit clean lock help bytecode

help: ## list the targets
	@grep -E '^[a-z]+:.*##' $(MAKEFILE_LIST) | sed -E 's/:.*## /\t/' | expand -t 12

demo: $(STAMP) bytecode ## pull one image through NODES peers at once (NODES=5 SIZE=150MiB)
	@bash .ci/install-packages demo
	@$(BIN)/python -m benchmarks.cluster.demo --nodes $(NODES) --size $(SIZE)

test: $(STAMP) bytecode ## lint, types, import contracts and every test, with real clients and registries
	@bash .ci/install-packages test
	@$(BIN)/python -m tests.support.built_programs
	@$(MAKE) --no-print-directory lint
	@bash .ci/tests $(BIN)/python -m "not measured"

measured: $(STAMP) ## the simulator against a real run of 20 shaped nodes, for a machine with nothing else to do
	@bash .ci/install-packages test
	$(BIN)/python -m pytest tests -m measured

gates: $(STAMP) bytecode ## 20 real nodes against the physical limit, and the simulator's scenarios (about 80 s)
	@bash .ci/install-packages test
	@bash .ci/gates $(BIN)/layercast-bench

compiled: $(STAMP) ## the hot modules compiled into build/compiled, which decide the same (2 min, a C compiler)
	@rm -rf build/compiled build/wheel build/lib* build/temp* build/bdist*
	LAYERCAST_COMPILE=1 $(BIN)/python -m pip wheel --quiet --no-deps --no-build-isolation --wheel-dir build/wheel .
	$(BIN)/python -m pip install --quiet --no-deps --target build/compiled build/wheel/*.whl
	@bash .ci/same-decisions $(BIN)/layercast-bench build/compiled

image: $(STAMP) ## a container image, made without docker, and the list of what it holds, into build/image (3 min)
	@bash deploy/image/build $(BIN)/python build/image

unit: $(STAMP) bytecode ## the quick tests alone
	$(BIN)/python -m pytest --numprocesses 4 --dist worksteal tests/unit tests/conformance

lint: $(STAMP) ## ruff, mypy strict, import contracts
	$(BIN)/ruff check .
	$(BIN)/ruff format --check .
	$(BIN)/mypy
	$(BIN)/lint-imports

venv: $(STAMP) bytecode ## .venv with the locked dependencies

# With PYTHONDONTWRITEBYTECODE set, each of the many processes that these targets start would compile its modules: 0.13 s.
bytecode: $(STAMP)
	@$(BIN)/python -m compileall -q proto peer supernode benchmarks

# Without ensurepip (Debian splits it off) a venv cannot be made: as root we install it, else we say so.
$(STAMP): requirements.lock pyproject.toml
	@bash .ci/make-venv "$(PYTHON)" "$(VENV)"
	@touch $@

lock: ## resolve the dependencies afresh into requirements.lock
	$(BIN)/uv pip compile --quiet --universal --python-version 3.11 --generate-hashes --extra dev --extra plots --extra tracing --no-emit-index-url --custom-compile-command "make lock" -o requirements.lock pyproject.toml

clean: ## remove what the targets above made
	rm -rf $(VENV) build *.egg-info .mypy_cache .ruff_cache .pytest_cache .hypothesis .import_linter_cache

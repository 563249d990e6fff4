# make run    a real Triton as the cloud, and the gateway before it
# make test   the whole test suite, against that same Triton
# make help   everything else

PYTHON ?= python3
# Triton's python backend reads tensors wrongly under numpy 2, and numpy 1 has no wheels for Python 3.13.
CLOUD_PYTHON ?= $(shell for python in python3.11 python3.12 $(PYTHON) /usr/bin/python3; do \
	$$python -c 'import sys; sys.exit(sys.version_info[:2] not in ((3, 11), (3, 12)))' 2>/dev/null \
	&& echo $$python && break; done)

FUZZ_S ?= 60

# What trains and tests loads ONNX Runtime by itself too; the gateway sees to this on its own.
export ORT_DISABLE_TELEMETRY := 1

BIN := .venv/bin
PIP := $(BIN)/python -m pip --disable-pip-version-check --quiet
SOURCES := app backends conformance drills planning policies router tests
LOCK := $(BIN)/uv pip compile --quiet --universal --python-version 3.11 --generate-hashes --no-header --no-annotate \
	--no-emit-index-url pyproject.toml --group build

.PHONY: run test coverage check bench fuzz cloud peers slow-peers models lock help
.DELETE_ON_ERROR:

run: .venv/runtime.stamp cloud
	@exec $(BIN)/hybrid-router demo

test: .venv/dev.stamp cloud peers
	$(BIN)/python -m tests.side_by_side

coverage: .venv/dev.stamp cloud peers  ## the same in one process, slower, with a table of what no test reaches
	$(BIN)/python -m pytest --cov --cov-report=term

check: .venv/dev.stamp  ## what CI checks before it tests: lint, format, types, who imports whom
	$(BIN)/ruff check .
	$(BIN)/ruff format --check .
	$(BIN)/mypy $(SOURCES) deploy/arm64/wheels.py
	cd deploy/models && ../../$(BIN)/mypy --config-file ../../pyproject.toml train.py
	$(BIN)/lint-imports --no-cache

bench: .venv/dev.stamp cloud peers slow-peers  ## benchmarks, side by side in one run: three quarters of an hour
	$(BIN)/python -m tests.perf.hot_path
	$(BIN)/python -m tests.perf.lone
	$(BIN)/python -m tests.perf.parts
	$(BIN)/python -m tests.perf.peers
	$(BIN)/python -m tests.perf.through_triton
	$(BIN)/python -m tests.perf.decision
	$(BIN)/python -m tests.perf.batching
	$(BIN)/python -m tests.perf.idle_connections
	$(BIN)/python -m tests.perf.slow_device
	$(BIN)/python -m tests.perf.soak

fuzz: .venv/dev.stamp  ## look for input that the decoder chokes on, for FUZZ_S=60 seconds; findings go into fuzz/
	$(PIP) install 'atheris>=3,<4'
	@mkdir -p fuzz
	$(BIN)/python -m tests.fuzz.fuzz_oip -max_total_time=$(FUZZ_S) -max_len=20000 -artifact_prefix=fuzz/ \
		fuzz tests/fuzz/corpus/oip

cloud: .venv-cloud/installed.stamp  ## install the Triton that stands for the cloud

peers: .venv-peers/mlserver/installed.stamp .venv-peers/kserve/installed.stamp  ## install the model servers to test and compare with

slow-peers: $(patsubst %,.venv-peers/%/installed.stamp,litserve bentoml rayserve)  ## install the model servers that are only compared with

models: .venv/dev.stamp  ## train the sample models anew
	$(BIN)/python deploy/models/train.py

lock: .venv/dev.stamp  ## resolve the dependencies anew
	$(LOCK) -o requirements.lock
	$(BIN)/python deploy/arm64/wheels.py
	$(LOCK) --group dev -c requirements.lock -o requirements-dev.lock

help:
	@grep -hE '^[a-z-]+:.*##|^# make' $(MAKEFILE_LIST) | sed -E 's/^# //; s/^([a-z-]+):.*## /make \1   /'

.venv/bin/python:
	@$(PYTHON) -c 'import sys; sys.exit(not (3, 11) <= sys.version_info[:2] <= (3, 13))' || \
		{ echo "Python 3.11, 3.12 or 3.13 is needed; name one with make PYTHON=python3.11 ..."; exit 1; }
	@$(PYTHON) -m venv .venv || { echo "A virtual environment is needed: apt install python3-venv"; exit 1; }

.venv/runtime.stamp: requirements.lock pyproject.toml | .venv/bin/python
	@echo "Installing the gateway into .venv ..."
	@$(PIP) install --no-deps --require-hashes -r requirements.lock
	@$(PIP) install --no-deps --no-build-isolation -e .
	@touch $@

.venv/dev.stamp: requirements-dev.lock .venv/runtime.stamp
	@echo "Installing what the tests need into .venv ..."
	@$(PIP) install --no-deps --require-hashes -r requirements-dev.lock
	@touch $@

# A machine that cannot have Triton still runs the gateway, so this says what is wrong and goes on.
.venv-cloud/installed.stamp: deploy/triton/requirements.lock
	@if [ -z "$(CLOUD_PYTHON)" ]; then \
		echo "Triton is left out: it needs Python 3.11 or 3.12 (make CLOUD_PYTHON=...)"; \
	else \
		echo "Installing Triton into .venv-cloud ..."; \
		$(CLOUD_PYTHON) -m venv .venv-cloud \
		&& .venv-cloud/bin/python -m pip --disable-pip-version-check --quiet install --no-deps --require-hashes \
			-r $< \
		&& touch $@ || echo "Triton is left out: it could not be installed, see above"; \
	fi

# Each in an environment of its own, since their pins clash; the gateway itself needs none.
.venv-peers/%/installed.stamp: deploy/peers/%.lock
	@[ -n "$(CLOUD_PYTHON)" ] || { echo "The peers need Python 3.11 or 3.12 (make CLOUD_PYTHON=...)"; exit 1; }
	@echo "Installing $* into .venv-peers/$* ..."
	@$(CLOUD_PYTHON) -m venv .venv-peers/$*
	@.venv-peers/$*/bin/python -m pip --disable-pip-version-check --quiet install --no-deps --require-hashes -r $<
	@touch $@

# The same few commands here and in CI. Everything is installed into .venv.

PYTHON ?= python3
BIN = .venv/bin
# On all cores, one thread a process: threads that wait for each other cost more than they bring.
PYTEST = OMP_NUM_THREADS=1 $(1)/python -m pytest -n auto --dist loadfile
RUN = reference_runs/cifar10-mnist-small

.PHONY: demo test test-all test-oldest test-trainers test-trackers test-elsewhere lint types docs simulations fuzz faults benchmarks clean

demo: .venv/installed
	$(BIN)/ckptsel rank $(RUN)/seed0/checkpoints --data $(RUN)/targets/mnist-1000

test: .venv/installed-dev
	$(call PYTEST,$(BIN))

# What is slow and statistical besides; half an hour.
test-all: .venv/installed-dev
	$(call PYTEST,$(BIN)) -m 'slow or not slow'

# What trainers really write (transformers, open_clip, Lightning, DeepSpeed, ...), and the watch inside
# Lightning and transformers; no other test needs them. TIMM_TRAIN=train.py adds timm's own script.
test-trainers: .venv/installed-dev
	$(BIN)/python -m pip install --quiet --editable '.[trainers]'
	OMP_NUM_THREADS=1 $(BIN)/python -m pytest tests/test_trainers.py tests/test_integrations.py

# MLflow's server and Weights & Biases' files themselves; no other test needs them.
test-trackers: .venv/installed-dev
	$(BIN)/python -m pip install --quiet --editable '.[mlflow,wandb]'
	OMP_NUM_THREADS=1 $(BIN)/python -m pytest tests/test_trackers.py

# A Ray cluster of two nodes and moto's S3 server, both on this machine; no other test needs them.
test-elsewhere: .venv/installed-dev
	$(BIN)/python -m pip install --quiet --editable '.[elsewhere]'
	OMP_NUM_THREADS=1 $(BIN)/python -m pytest tests/test_ray.py tests/test_remote.py

# With the oldest versions that are supported, in an environment of its own.
test-oldest: .venv-oldest/installed-dev
	$(call PYTEST,.venv-oldest/bin)

lint: .venv/installed-dev
	$(BIN)/ruff format --check .
	$(BIN)/ruff check .
	$(BIN)/lint-imports
	$(BIN)/hadolint Dockerfile

types: .venv/installed-dev
	$(BIN)/mypy

docs: .venv/installed-dev
	$(BIN)/python -m tools.reference --check
	NO_MKDOCS_2_WARNING=1 $(BIN)/python -m mkdocs build --strict

# How often intervals are right: the numbers of docs/coverage.md. Two hours of one core; it goes on where
# it was stopped.
simulations: .venv/installed-dev
	OMP_NUM_THREADS=1 $(BIN)/python -m tools.simulate_intervals
	OMP_NUM_THREADS=1 $(BIN)/python -m tools.simulate_verdicts
	OMP_NUM_THREADS=1 $(BIN)/python -m tools.simulate_fits
	OMP_NUM_THREADS=1 $(BIN)/python -m tools.simulate_correlation

# A million broken inputs for every reader, and kill -9 at 200 random moments of each command: a few hours of
# one core; both go on where they were stopped.
fuzz: .venv/installed-dev
	OMP_NUM_THREADS=1 $(BIN)/python -m tools.fuzzing -n 200000

faults: .venv/installed-dev
	for what in rank confirm reproduce; do \
	    OMP_NUM_THREADS=1 $(BIN)/python -m tools.faults --what $$what --log build/faults/$$what.json || exit 1; \
	done

benchmarks: .venv/installed-dev
	$(BIN)/python -m pytest tests/benchmarks -o 'norecursedirs=.*' -s

.venv/installed: pyproject.toml
	$(PYTHON) -m venv .venv
	$(BIN)/python -m pip install --quiet --editable .
	touch $@

.venv/installed-dev: pyproject.toml
	$(PYTHON) -m venv .venv
	$(BIN)/python -m pip install --quiet --editable '.[dev]'
	touch $@

.venv-oldest/installed-dev: pyproject.toml tests/oldest.txt
	$(PYTHON) -m venv .venv-oldest
	.venv-oldest/bin/python -m pip install --quiet --constraint tests/oldest.txt --editable '.[dev]'
	touch $@

clean:
	rm -rf .venv .venv-oldest build dist site .pytest_cache .mypy_cache .ruff_cache

# make demo: train the starter model on, on the built-in phantom: three to six minutes on two cores, installation and all.
# make test: the tests, with PyTorch beside them as the reference; make test-all: those that take minutes, too.

PYTHON ?= python3
VENV ?= .venv
BIN := $(VENV)/bin

.PHONY: demo test test-all test-wheel test-slurm test-pods lint format docs notebooks lock clean

demo: $(VENV)/installed
	$(BIN)/python -m skullgan_jax.main --config=configs/small_data.py:demo --workdir=runs/demo --config.pretrained=starter \
		--config.epochs=5 --config.sample_every=1 --config.checkpoint_every=1
	@echo "Look at runs/demo/slices.png, runs/demo/progress.png and runs/demo/curves.png."

test: $(VENV)/installed-test
	$(BIN)/python -m pytest -n 2

# The rest, one after the other: it waits for processes, which should have the machine for themselves.
test-all: test
	$(BIN)/python -m pytest -m 'all and not slow'

# Builds the wheel, installs it in a fresh environment outside of this folder, and runs the commands there.
test-wheel: $(VENV)/installed-test
	$(BIN)/python -m pytest -m slow tests/test_wheel.py

# On a one-node Slurm of its own; needs the packages slurmctld, slurmd, slurm-client and munge.
test-slurm: $(VENV)/installed-test
	$(BIN)/python -m pytest -m slow tests/processes/test_slurm.py

# Processes that are killed, and buckets that do not answer, in their long form: an hour.
test-pods: $(VENV)/installed-test
	$(BIN)/python -m pytest -m 'all or slow or not slow' tests/test_errors.py tests/data/test_cache.py \
		tests/processes/test_distributed.py tests/sampling/test_run.py tests/sampling/test_going_on.py \
		tests/machine/test_places.py tests/processes/test_lock.py tests/processes/test_network.py \
		tests/train/test_bucket.py

lint: $(VENV)/installed-test
	$(BIN)/ruff check .
	$(BIN)/ruff format --check .
	$(BIN)/mypy

format: $(VENV)/installed-test
	$(BIN)/ruff check --fix .
	$(BIN)/ruff format .

docs: $(VENV)/installed-docs
	$(BIN)/mkdocs build --strict

# Run both notebooks and write their rendered copies to docs/notebooks.
notebooks: $(VENV)/installed-notebooks
	$(BIN)/python notebooks/render.py

$(VENV)/installed: pyproject.toml requirements.lock
	$(PYTHON) -m venv $(VENV)
	$(BIN)/pip install -q -c requirements.lock -e .
	touch $@

$(VENV)/installed-%: $(VENV)/installed
	$(BIN)/pip install -q -c requirements.lock -e '.[$*]'
	touch $@

# Resolve the versions of all platforms and extras anew.
lock:
	uv pip compile --universal --python-version 3.11 pyproject.toml --extra test --extra notebooks --extra docs \
		-o requirements.lock

clean:
	rm -rf $(VENV)

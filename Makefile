# make demo: train a small pair on the built-in phantom, five to ten minutes on two cores with everything installed anew.
# make test: the tests, with PyTorch beside them as the reference.

PYTHON ?= python3
BIN := .venv/bin

.PHONY: demo test test-slurm lint format notebooks lock clean

demo: .venv/installed
	$(BIN)/python -m skullgan_jax.main --config=configs/skull.py:demo --workdir=runs/demo
	@echo "Look at runs/demo/slices.png, runs/demo/progress.png and runs/demo/curves.png."

test: .venv/installed-test
	$(BIN)/python -m pytest

# On a one-node Slurm of its own; needs the packages slurmctld, slurmd, slurm-client and munge.
test-slurm: .venv/installed-test
	$(BIN)/python -m pytest -m slow tests/processes/test_slurm.py

lint: .venv/installed-test
	$(BIN)/ruff check .
	$(BIN)/ruff format --check .
	$(BIN)/mypy

format: .venv/installed-test
	$(BIN)/ruff check --fix .
	$(BIN)/ruff format .

# Run both notebooks and write their rendered copies to docs/notebooks.
notebooks: .venv/installed-notebooks
	$(BIN)/python notebooks/render.py

.venv/installed-notebooks: .venv/installed
	$(BIN)/pip install -q -c requirements.lock -e '.[notebooks]'
	touch $@

.venv/installed: pyproject.toml requirements.lock
	$(PYTHON) -m venv .venv
	$(BIN)/pip install -q -c requirements.lock -e .
	touch $@

.venv/installed-test: .venv/installed
	$(BIN)/pip install -q -c requirements.lock -e '.[test]'
	touch $@

# Resolve the versions of all platforms and extras anew.
lock:
	uv pip compile --universal --python-version 3.11 pyproject.toml --extra test --extra notebooks -o requirements.lock

clean:
	rm -rf .venv

# What people and CI run. Python 3.11 to 3.13; nothing but this file and the network for installing is needed.
PYTHON ?= python3
BIN := .venv/bin
# uv installs in seconds what pip installs in minutes.
INSTALL := $(BIN)/uv pip install --quiet --python $(BIN)/python -c constraints.txt
export TF_CPP_MIN_LOG_LEVEL ?= 2
# The first import of a module keeps its bytecode, also on machines whose environment turns that off: TensorFlow is then
# imported in 6 seconds, not 14. To compile all that was installed would take longer: a quarter of it is ever imported.
export PYTHONDONTWRITEBYTECODE :=

.PHONY: venv train wheel test test-all test-oldest test-backends browser parity faults bench fuzz audit clean
venv: .venv/.installed
.venv/.installed: pyproject.toml constraints.txt | .venv/bin/python
	$(INSTALL) -e .
	touch $@

.venv/.tested: pyproject.toml constraints.txt | .venv/bin/python
	$(INSTALL) -e ".[test]"
	touch .venv/.installed $@

.venv/bin/python:
	$(PYTHON) -m venv .venv
	$(BIN)/python -m pip install --quiet --disable-pip-version-check -c constraints.txt uv

train: venv
	$(BIN)/python -m cloudml_tf.train configs/tier1.json

# dist/cloudml_tf-*.whl, with the configurations inside: `pip install` of it needs nothing of this folder.
wheel: | .venv/bin/python
	rm -rf build dist/*.whl
	$(BIN)/uv build --quiet --wheel --python $(BIN)/python --out-dir dist

# Types are checked while the tests begin.
test: .venv/.tested
	+$(MAKE) --no-print-directory -j 2 lint quick

.PHONY: lint quick
lint: .venv/.tested
	$(BIN)/ruff check . && $(BIN)/ruff format --check .
	$(BIN)/mypy

# Two workers on two cores: further threads of each would wait for one another.
quick: .venv/.tested
	OMP_NUM_THREADS=1 OPENBLAS_NUM_THREADS=1 $(BIN)/pytest -n 2 --dist worksteal -m "not slow" --cov --cov-report=term --cov-fail-under=95 --durations=30

test-all: test
	$(BIN)/pytest -m slow

# The quick tests with the oldest versions that pyproject.toml allows, in an environment of their own.
export OLDEST_PYTHON ?= python3.12
test-oldest: .venv-oldest/.installed
	.venv-oldest/bin/pytest -n 2 -m "not slow" -p no:cacheprovider

.venv-oldest/.installed: pyproject.toml constraints-oldest.txt
	$(OLDEST_PYTHON) -m venv .venv-oldest
	.venv-oldest/bin/python -m pip install --quiet --disable-pip-version-check -c constraints-oldest.txt -e ".[test]"
	touch $@

# The network and what guards it on the other backends of Keras, in an environment that holds PyTorch and JAX too.
CORE := losses distributions metrics models regressions parallax height_network dense callbacks monitors pretraining
CORE_TESTS := $(CORE:%=tests/test_%.py)
test-backends: .venv-peers/.installed
	KERAS_BACKEND=jax JAX_PLATFORMS=cpu .venv-peers/bin/pytest -n 2 -p no:cacheprovider $(CORE_TESTS)
	KERAS_BACKEND=torch .venv-peers/bin/pytest -n 2 -p no:cacheprovider $(CORE_TESTS)
	.venv-peers/bin/pytest -p no:cacheprovider tests/test_backends.py

.venv-peers/.installed: pyproject.toml constraints.txt benchmarks/requirements.txt
	$(PYTHON) -m venv .venv-peers
	.venv-peers/bin/python -m pip install --quiet --disable-pip-version-check -c constraints.txt -e ".[test]" \
		-r benchmarks/requirements.txt
	touch $@

# The browser that tests/test_browser.py looks at the report with; without it those tests are skipped.
browser:
	bash .ci/browser

# Our R2 against tensorflow-addons, which needs Keras 2: a second environment of its own.
parity: venv
	bash benchmarks/parity.sh

# Real processes of every kind, killed at random moments and resumed; what came out of it: docs/faults.md.
faults: venv
	$(BIN)/python benchmarks/faults.py --kills 100

# Our training step against the same network in PyTorch, on a machine that does nothing else; then what a GPU would do.
bench: .venv-peers/.installed
	.venv-peers/bin/python benchmarks/step.py --frames 3
	.venv-peers/bin/python benchmarks/step.py --frames 7
	.venv-peers/bin/python benchmarks/shared_frames.py --frames 3
	.venv-peers/bin/python benchmarks/shared_frames.py --frames 7
	.venv-peers/bin/python benchmarks/inference.py
	.venv-peers/bin/python benchmarks/input.py
	.venv-peers/bin/python benchmarks/long_flights.py
	.venv-peers/bin/python benchmarks/time_to_tier.py
	.venv-peers/bin/python benchmarks/track.py
	.venv-peers/bin/python benchmarks/gpu_step.py --tiny
	.venv-peers/bin/python benchmarks/gpu_step.py --estimate

# Spoilt files and configurations by the thousand, guided by the lines that they reach; docs/safety.md has the figures.
fuzz: .venv-fuzz/.installed
	.venv-fuzz/bin/python benchmarks/fuzz.py --target config --minutes 10
	.venv-fuzz/bin/python benchmarks/fuzz.py --target flights --minutes 20

.venv-fuzz/.installed: pyproject.toml constraints.txt benchmarks/requirements-fuzz.txt
	$(PYTHON) -m venv .venv-fuzz
	.venv-fuzz/bin/python -m pip install --quiet --disable-pip-version-check -c constraints.txt -e ".[test]" \
		-r benchmarks/requirements-fuzz.txt
	touch $@

# Known holes of the pinned packages, after the database of PyPI. A package that could not be looked up is an error.
audit: .venv-audit/.installed
	.venv-audit/bin/pip-audit --strict --no-deps --disable-pip --progress-spinner off -r constraints.txt

.venv-audit/.installed: benchmarks/requirements-audit.txt
	$(PYTHON) -m venv .venv-audit
	.venv-audit/bin/python -m pip install --quiet --disable-pip-version-check -r benchmarks/requirements-audit.txt
	touch $@

clean:
	rm -rf .venv .venv-oldest .venv-peers .venv-parity .venv-fuzz .venv-audit build dist *.egg-info

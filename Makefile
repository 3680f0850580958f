# What people and CI run. Python 3.11 to 3.13; nothing but this file and the network for installing is needed.
PYTHON ?= python3
BIN := .venv/bin
PIP := $(BIN)/python -m pip install --quiet --disable-pip-version-check -c constraints.txt
export TF_CPP_MIN_LOG_LEVEL ?= 2

.PHONY: venv train test test-all test-oldest browser parity bench clean
venv: .venv/.installed
.venv/.installed: pyproject.toml constraints.txt
	$(PYTHON) -m venv .venv
	$(PIP) -e .
	touch $@

.venv/.tested: .venv/.installed
	$(PIP) -e ".[test]"
	touch $@

train: venv
	$(BIN)/python -m cloudml_tf.train configs/tier1.json

test: .venv/.tested
	$(BIN)/ruff check . && $(BIN)/ruff format --check .
	$(BIN)/mypy
	$(BIN)/pytest -n 2 -m "not slow" --cov --cov-report=term --cov-fail-under=90

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

# The browser that tests/test_browser.py looks at the report with; without it those tests are skipped.
browser:
	bash .ci/browser

# Our R2 against tensorflow-addons, which needs Keras 2: a second environment of its own.
parity: venv
	bash benchmarks/parity.sh

# Our training step against the same network in PyTorch, on a machine that does nothing else; then what a GPU would do.
bench: .venv-peers/.installed
	.venv-peers/bin/python benchmarks/step.py --frames 3
	.venv-peers/bin/python benchmarks/step.py --frames 7
	.venv-peers/bin/python benchmarks/gpu_step.py --tiny
	.venv-peers/bin/python benchmarks/gpu_step.py --estimate

.venv-peers/.installed: pyproject.toml constraints.txt benchmarks/requirements.txt
	$(PYTHON) -m venv .venv-peers
	.venv-peers/bin/python -m pip install --quiet --disable-pip-version-check -c constraints.txt -e . \
		-r benchmarks/requirements.txt
	touch $@

clean:
	rm -rf .venv .venv-oldest .venv-parity .venv-peers build *.egg-info

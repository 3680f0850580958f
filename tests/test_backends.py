"""The same numbers on every backend of Keras: each runs `backend_probe.py` in a process of its own."""

import json
import os
import subprocess
import sys
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from backends import installed

from cloudml_tf.config.run_folder import read_run
from cloudml_tf.data.prepare import prepare
from cloudml_tf.train import network
from cloudml_tf.utils.errors import ConfigError

PROBE = Path(__file__).parent / "backend_probe.py"
OTHERS = [
    pytest.param(name, marks=pytest.mark.skipif(not installed(name), reason=f"{name} is not installed"))
    for name in ("jax", "torch")
]
pytestmark = pytest.mark.slow  # `make test-backends` runs them all
Found = tuple[dict[str, np.ndarray], dict[str, Any]]


def python(backend: str, *arguments: str) -> subprocess.CompletedProcess[str]:
    """Run Python with that backend; warnings are errors, as in pyproject.toml."""
    environment = {**os.environ, "KERAS_BACKEND": backend, "TF_CPP_MIN_LOG_LEVEL": "3", "JAX_PLATFORMS": "cpu"}
    environment.pop("JAX_ENABLE_X64", None)
    command = [sys.executable, "-W", "error", "-W", "ignore:__array__ implementation", *arguments]
    return subprocess.run(command, env=environment, capture_output=True, text=True, timeout=600)


@pytest.fixture(scope="module")
def probe(tmp_path_factory: pytest.TempPathFactory):
    """A function: backend -> its arrays and logs. Each backend runs once, TensorFlow first."""
    home = tmp_path_factory.mktemp("backends")

    def find(backend: str) -> Found:
        if not (home / f"{backend}.json").is_file():
            done = python(backend, str(PROBE), str(home))
            assert done.returncode == 0, done.stderr[-3000:]
        with np.load(home / f"{backend}.npz") as file:
            arrays = {name: file[name] for name in file.files}
        return arrays, json.loads((home / f"{backend}.json").read_text())

    find("tensorflow")
    return find


@pytest.mark.parametrize("backend", OTHERS)
def test_the_same_weights_give_the_same_answers(backend: str, probe) -> None:
    expected, found = probe("tensorflow")[0], probe(backend)[0]
    for name in ("output", "core", "attention", "mirrored_frames", "mirrored_sun_angles_deg"):
        np.testing.assert_allclose(found[name], expected[name], rtol=0, atol=1e-5, err_msg=name)
    assert np.ptp(expected["output"]) > 0.1
    assert not np.allclose(expected["output"], expected["core"], atol=1e-3)  # the mirror image counts
    np.testing.assert_allclose(found["attention"].sum(axis=1), 1.0, atol=1e-5)


@pytest.mark.parametrize("backend", OTHERS)
def test_losses_and_their_gradients_agree(backend: str, probe) -> None:
    expected, found = probe("tensorflow")[0], probe(backend)[0]
    names = [name for name in expected if name.startswith("loss ")]
    assert len(names) == 4 * (5 * 4 + 3)  # value and gradient, plain and weighted
    for name in names:
        size = np.abs(expected[name]).max()
        np.testing.assert_allclose(found[name], expected[name], rtol=1e-5, atol=1e-5 * size, err_msg=name)


@pytest.mark.parametrize("backend", ["tensorflow", *OTHERS])
def test_a_training_with_every_callback_logs_the_same_keys(backend: str, probe) -> None:
    history, expected = probe(backend)[1]["history"], probe("tensorflow")[1]["history"]
    assert history.keys() == expected.keys()
    assert {"val_r2", "penalty_weight", "gradient_ratio", "dead_units", "seen_r2"} <= history.keys()
    assert all(np.isfinite(values).all() and len(values) == 3 for values in history.values())
    assert history["penalty_weight"] == [0.0, 0.25, 0.5]
    assert history["loss"][-1] < history["loss"][0]
    for score in ("r2", "variance_ratio", "correlation", "bias", "pred_std"):
        assert history[f"seen_{score}"] == pytest.approx(history[f"val_{score}"], rel=1e-3, abs=1e-4)
    # The validation sees the λ of its epoch too: mse + λ (1 - var(p))², 96 samples in one batch.
    parts = zip(history["val_rmse"], history["penalty_weight"], history["val_pred_std"], strict=True)
    expected_loss = [rmse**2 + weight * (1.0 - std**2 * 96 / 95) ** 2 for rmse, weight, std in parts]
    assert history["val_loss"] == pytest.approx(expected_loss, rel=1e-3)


@pytest.mark.parametrize("backend", ["tensorflow", *OTHERS])
def test_masked_reconstruction_learns(backend: str, probe) -> None:
    before, after = probe(backend)[1]["reconstruction"]
    assert after < 0.99 * before


@pytest.mark.parametrize("backend", OTHERS)
def test_a_run_is_trained_there_and_exported_with_tensorflow(backend: str, tiny_file, tmp_path: Path) -> None:
    quick = {"training": {"max_epochs": 1}, "output": {"export": True}}
    run = tmp_path / "run"
    train = ("-m", "cloudml_tf.train", str(tiny_file(**quick)), "--run-dir", str(run))
    refused = python(backend, *train)
    assert refused.returncode == ConfigError.exit_code
    assert f"an export is written with TensorFlow, and Keras runs on {backend}" in refused.stderr
    assert not run.exists()
    trained = python(backend, *train, "--set", "output.export=false")
    assert trained.returncode == 0, trained.stderr[-3000:]
    assert json.loads((run / "metrics.json").read_text())["training"]["backend"] == backend
    exported = python("tensorflow", "-m", "cloudml_tf", "export", str(run), "-o", str(tmp_path / "export"))
    assert exported.returncode == 0, exported.stderr[-3000:]
    config, description = read_run(run, {})
    prepared = prepare(config)
    answers = network.predict(network.load_regressor(run, config, description), prepared.parts["test"])
    with np.load(run / "predictions.npz") as file:
        np.testing.assert_allclose(prepared.scaling.target.physical(answers), file["test_prediction"], atol=1e-5)

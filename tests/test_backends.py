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

PROBE = Path(__file__).parent / "backend_probe.py"
OTHERS = [
    pytest.param(name, marks=pytest.mark.skipif(not installed(name), reason=f"{name} is not installed"))
    for name in ("jax", "torch")
]
Found = tuple[dict[str, np.ndarray], dict[str, Any]]


@pytest.fixture(scope="module")
def probe(tmp_path_factory: pytest.TempPathFactory):
    """A function: backend -> its arrays and logs. Each backend runs once, TensorFlow first."""
    home = tmp_path_factory.mktemp("backends")

    def find(backend: str) -> Found:
        if not (home / f"{backend}.json").is_file():
            environment = {**os.environ, "KERAS_BACKEND": backend, "TF_CPP_MIN_LOG_LEVEL": "3", "JAX_PLATFORMS": "cpu"}
            environment.pop("JAX_ENABLE_X64", None)
            command = [sys.executable, str(PROBE), str(home)]
            done = subprocess.run(command, env=environment, capture_output=True, text=True, timeout=600)
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
    part = history["val_loss"][-1] - history["val_rmse"][-1] ** 2  # λ (1 - s²)², with the λ of the last epoch
    assert part == pytest.approx(0.5 * (1.0 - history["val_pred_std"][-1] ** 2) ** 2, rel=0.35)


@pytest.mark.parametrize("backend", ["tensorflow", *OTHERS])
def test_masked_reconstruction_learns(backend: str, probe) -> None:
    before, after = probe(backend)[1]["reconstruction"]
    assert after < 0.95 * before

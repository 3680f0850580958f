"""The tiny twin: a simulated campaign of three short flights and a model of a few thousand weights."""

import json
from pathlib import Path
from typing import Any

import pytest

from cloudml_tf.config.load import parse_config
from cloudml_tf.config.schema import Config

TINY: dict[str, Any] = {
    "experiment_name": "tiny",
    "seed": 3,
    "split": {"kind": "flights", "train": ["sim01"], "val": ["sim02"], "test": ["sim03"]},
    "data": {
        "simulation": {
            "flight_count": 3,
            "frames_per_flight": 240,
            "frame_rows": 12,
            "frame_columns": 12,
            "lidar_interval_s": 2.0,
            "strip_width_m": 3200.0,
        }
    },
    "model": {"widths": [6, 8], "footprint": 5, "encoder_features": 16, "heads": 2, "head_units": 16, "dropout": 0.1},
    "training": {"max_epochs": 3, "batch_size": 16, "learning_rate": 3e-3},
    "evaluation": {"bootstrap_samples": 100},
}


def merged(base: dict[str, Any], changes: dict[str, Any]) -> dict[str, Any]:
    """A deep copy of `base` with the sections of `changes` laid over it."""
    out = json.loads(json.dumps(base))
    for key, value in changes.items():
        both = isinstance(value, dict) and isinstance(out.get(key), dict) and "kind" not in value
        out[key] = merged(out[key], value) if both else value
    return out


def pytest_runtest_setup(item: pytest.Item) -> None:
    """Skip what is TensorFlow's own where Keras runs on another backend."""
    marker = item.get_closest_marker("tensorflow")
    if marker is not None:
        import keras

        if keras.backend.backend() != "tensorflow":
            pytest.skip(marker.args[0])


@pytest.fixture(scope="session")
def cache(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Simulated flights, made once a session."""
    return tmp_path_factory.mktemp("cache")


@pytest.fixture
def tiny_content(cache: Path, tmp_path: Path):
    """A function: changes -> the tiny configuration as a dictionary, writing below tmp_path."""

    def make(**changes: Any) -> dict[str, Any]:
        places = {
            "data": {"cache": str(cache)},
            "output": {"runs": str(tmp_path / "runs"), "savedmodels": str(tmp_path / "savedmodels")},
        }
        return merged(merged(TINY, places), changes)

    return make


@pytest.fixture
def tiny(tiny_content):
    """A function: changes -> the tiny configuration."""

    def make(**changes: Any) -> Config:
        return parse_config(tiny_content(**changes))

    return make


@pytest.fixture
def tiny_file(tiny_content, tmp_path: Path):
    """A function: changes -> the path of the tiny configuration as a file."""

    def make(**changes: Any) -> Path:
        path = tmp_path / "tiny.json"
        path.write_text(json.dumps(tiny_content(**changes)))
        return path

    return make


@pytest.fixture(scope="session")
def finished(cache: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The folder of one finished tiny run, trained through the command line; tests read it and leave it as it is."""
    from cloudml_tf.commands.main import main

    home = tmp_path_factory.mktemp("finished")
    places = {
        "data": {"cache": str(cache)},
        "output": {"runs": str(home / "runs"), "savedmodels": str(home / "savedmodels")},
    }
    (home / "tiny.json").write_text(json.dumps(merged(TINY, places)))
    assert main(["train", str(home / "tiny.json"), "--run-dir", str(home / "run")]) == 0
    return home / "run"

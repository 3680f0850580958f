"""The tiny twin: a simulated campaign of three short flights and a model of a few thousand weights.

A tiny training takes a few seconds, nearly all of them for tracing graphs. A report and an export take as long again
each, so the tiny configuration has neither: a test that looks at them turns them on (`WHOLE`).
"""

import gc
import json
import os
import shutil
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest

from cloudml_tf.config.load import parse_config
from cloudml_tf.config.schema import Config
from cloudml_tf.utils.locks import alone_at
from cloudml_tf.utils.tf_graphs import forgotten_graphs

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
    "evaluation": {"baselines": False, "bootstrap_samples": 100},
    "output": {"report": False, "export": False},
}
TRAINED_S = 1.0  # of processor time: a test that took more has traced graphs
WHOLE: dict[str, Any] = {"evaluation": {"baselines": True}, "output": {"report": True, "export": True}}


def merged(base: dict[str, Any], changes: dict[str, Any]) -> dict[str, Any]:
    """A deep copy of `base` with the sections of `changes` laid over it."""
    out = json.loads(json.dumps(base))
    for key, value in changes.items():
        both = isinstance(value, dict) and isinstance(out.get(key), dict) and "kind" not in value
        out[key] = merged(out[key], value) if both else value
    return out


def pytest_collection_finish() -> None:
    """Keep the garbage collector from walking through a million objects again and again: see `forgotten`."""
    gc.collect()
    gc.freeze()
    gc.disable()


def pytest_runtest_setup(item: pytest.Item) -> None:
    """Skip what is TensorFlow's own where Keras runs on another backend."""
    marker = item.get_closest_marker("tensorflow")
    if marker is not None:
        import keras

        if keras.backend.backend() != "tensorflow":
            pytest.skip(marker.args[0])


@pytest.fixture(autouse=True)
def forgotten() -> Iterator[None]:
    """Free the graphs of a test at its end: a worker would grow by gigabytes, and become slower with each.

    Tracing a graph makes so many objects that the garbage collector, left to itself, takes a seventh of a training.
    """
    began = time.process_time()
    with forgotten_graphs():
        yield
    if time.process_time() - began > TRAINED_S:
        gc.collect()


@pytest.fixture(scope="session")
def shared_folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A temporary folder of the whole session: under pytest-xdist all workers have the same one."""
    base = tmp_path_factory.getbasetemp()
    return base.parent if "PYTEST_XDIST_WORKER" in os.environ else base


def made_once(place: Path, make: Callable[[Path], None]) -> Path:
    """`place`, written by `make` in the first worker that asks for it; the others wait until it is complete."""
    done = place.with_name(f"{place.name}.done")
    with alone_at(place, "another worker"):
        if not done.is_file():
            shutil.rmtree(place, ignore_errors=True)
            place.mkdir()
            make(place)
            done.touch()
    return place


@pytest.fixture(scope="session")
def cache(shared_folder: Path) -> Path:
    """Simulated flights, made once a session: the simulator writes a campaign under a lock."""
    return shared_folder / "cache"


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
def finished(cache: Path, shared_folder: Path) -> Path:
    """The folder of one finished tiny run with report and export, trained through the command line.

    Tests read it and leave it as it is.
    """

    def train_tiny(home: Path) -> None:
        from cloudml_tf.commands.main import main

        places = {
            "data": {"cache": str(cache)},
            "output": {"runs": str(home / "runs"), "savedmodels": str(home / "savedmodels")},
        }
        (home / "tiny.json").write_text(json.dumps(merged(merged(TINY, WHOLE), places)))
        assert main(["train", str(home / "tiny.json"), "--run-dir", str(home / "run")]) == 0

    return made_once(shared_folder / "finished", train_tiny) / "run"

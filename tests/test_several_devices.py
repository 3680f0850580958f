"""Training on several devices against training on one, each in a process of its own: TensorFlow divides a CPU once."""

import json
import os
import signal
import socket
import subprocess
import sys
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from cloudml_tf.config.load import parse_config
from cloudml_tf.config.schema import Config
from cloudml_tf.config.training import Training
from cloudml_tf.train import devices
from cloudml_tf.utils.errors import ConfigError

pytestmark = pytest.mark.tensorflow("tf.distribute is TensorFlow's")
HOME = Path(__file__).parents[1]
TRAIN = [sys.executable, "-m", "cloudml_tf.train"]
# What makes two runs differ by more than rounding is off: dropout draws masks for each share of a batch.
ALIKE: dict[str, Any] = {
    "model": {"dropout": 0.0},
    "augmentation": {"gain_std": 0.05, "noise_std": 0.1},
    "loss": {"target_variance": "batch", "pooled_batches": 2},
    "training": {"batch_size": 31, "ema_momentum": 0.9, "gradient_clip_norm": 0.3, "max_epochs": 4},
}


def cluster_of(count: int) -> list[str]:
    """TF_CONFIG of so many workers on this machine."""
    probes = [socket.socket() for _ in range(count)]
    for probe in probes:
        probe.bind(("127.0.0.1", 0))
    addresses = [f"127.0.0.1:{probe.getsockname()[1]}" for probe in probes]
    for probe in probes:
        probe.close()
    return [
        json.dumps({"cluster": {"worker": addresses}, "task": {"type": "worker", "index": index}})
        for index in range(count)
    ]


@pytest.fixture
def begin() -> Iterator[Callable[..., subprocess.Popen[str]]]:
    """A function that starts a training as a process; those that still run at the end are killed."""
    started = []

    def start(config: Path, folder: Path | None, *more: str, tf_config: str | None = None) -> subprocess.Popen[str]:
        environment = {**os.environ, "TF_NUM_INTRAOP_THREADS": "1", "TF_NUM_INTEROP_THREADS": "1"}
        environment |= {} if tf_config is None else {"TF_CONFIG": tf_config}
        where = [] if folder is None else ["--run-dir", str(folder)]
        process = subprocess.Popen(
            [*TRAIN, str(config), *where, *more],
            env=environment,
            cwd=HOME,
            text=True,
            stdout=subprocess.PIPE,
            stderr=subprocess.STDOUT,
        )
        started.append(process)
        return process

    yield start
    for process in started:
        if process.poll() is None:
            process.kill()
        process.communicate()


def ended(process: subprocess.Popen[str], seconds: float = 240.0) -> str:
    """What it said, once it has ended well."""
    said = process.communicate(timeout=seconds)[0]
    assert process.returncode == 0, said
    return said


def weights_of(folder: Path, name: str = "best") -> np.ndarray:
    """All weights of the network of a run, in the file's order; some files hold the optimizer's state too."""
    import h5py

    found: list[np.ndarray] = []

    def keep(where: str, item: Any) -> None:
        if isinstance(item, h5py.Dataset) and not where.startswith("optimizer") and item.dtype.kind == "f":
            found.append(np.ravel(item[()]))

    with h5py.File(folder / f"{name}.weights.h5") as file:
        file.visititems(keep)
    return np.concatenate(found)


def apart(first: Path, second: Path, name: str = "best") -> float:
    """The relative difference of two runs' weights."""
    a, b = weights_of(first, name), weights_of(second, name)
    return float(np.linalg.norm(a - b) / np.linalg.norm(a))


def history(folder: Path) -> dict[str, np.ndarray]:
    """history.csv by column."""
    rows = np.genfromtxt(folder / "history.csv", delimiter=",", names=True)
    return {name: np.atleast_1d(rows[name]) for name in rows.dtype.names or ()}


def check_same_run(one: Path, several: Path) -> None:
    """Weights, every column of the history, scores and decisions."""
    assert apart(one, several) < 1e-5
    assert apart(one, several, "last") < 1e-5
    ours, theirs = history(one), history(several)
    assert list(ours) == list(theirs)
    for name, values in ours.items():
        assert theirs[name] == pytest.approx(values, rel=2e-4, abs=1e-6, nan_ok=True), name
    first, second = (json.loads((folder / "metrics.json").read_text()) for folder in (one, several))
    assert second["training"]["best_epoch"] == first["training"]["best_epoch"]
    assert second["training"]["ending"] == first["training"]["ending"]
    assert second["test"]["r2"] == pytest.approx(first["test"]["r2"], abs=1e-4)


@pytest.mark.slow
def test_every_form_of_the_loss_on_two_replicas_and_the_naive_term_fails() -> None:
    command = [sys.executable, "benchmarks/replicas.py", "--json"]
    done = subprocess.run(command, cwd=HOME, capture_output=True, text=True, timeout=240)
    assert done.returncode == 0, done.stderr
    found = json.loads(done.stdout)
    assert len(found["cases"]) == 23
    for name, case in found["cases"].items():
        assert max(case["ours"]) <= 1e-5, name
        assert max(case["naive"]) > 1e-3, name


STOCK = """
import json
import keras, numpy as np
from cloudml_tf.train.devices import start
from cloudml_tf.losses import VariancePreservingLoss
from cloudml_tf.config.training import Training
rng = np.random.default_rng(0)
x = rng.normal(size=(128, 4)).astype("float32")
y = (x[:, :1] + rng.normal(size=(128, 1))).astype("float32")
w = rng.uniform(0.5, 2.0, size=128).astype("float32")
found = []
for training in (Training(devices="mirrored", replicas=2), Training()):
    with start(training).scope():
        keras.utils.set_random_seed(0)
        layers = [keras.Input((4,)), keras.layers.Dense(8, "tanh"), keras.layers.Dense(1)]
        model = keras.Sequential(layers)
        model.compile(keras.optimizers.Adam(0.01), VariancePreservingLoss(pooled_batches=2))
    loss = model.fit(x, y, sample_weight=w, batch_size=32, epochs=3, shuffle=False, verbose=0).history["loss"]
    found.append({"loss": loss, "weights": np.concatenate([v.ravel() for v in model.get_weights()]).tolist()})
print(json.dumps(found))
"""


@pytest.mark.slow
def test_the_loss_alone_in_a_mirrored_fit_of_keras() -> None:
    command = [sys.executable, "-c", STOCK]
    done = subprocess.run(command, cwd=HOME, capture_output=True, text=True, check=True, timeout=120)
    two, one = json.loads(done.stdout.splitlines()[-1])
    assert two["weights"] == pytest.approx(one["weights"], rel=1e-4, abs=1e-5)
    # Keras takes the mean of the replicas' weighted means; the penalty in it is that of the whole batch.
    assert two["loss"] == pytest.approx(one["loss"], rel=1e-4)


@pytest.mark.slow
def test_two_devices_train_what_one_trains(tiny_file: Any, tmp_path: Path, begin: Any) -> None:
    config = tiny_file(**ALIKE)
    ended(begin(config, tmp_path / "one"))
    said = ended(begin(config, tmp_path / "two", "--set", "training.devices=mirrored", "--set", "training.replicas=2"))
    assert "2 devices in sync" in said
    check_same_run(tmp_path / "one", tmp_path / "two")


@pytest.mark.slow
def test_two_workers_train_what_one_trains(tiny_file: Any, tmp_path: Path, begin: Any) -> None:
    config = tiny_file(**ALIKE, tracking={"tensorboard": True})
    ended(begin(config, tmp_path / "one"))
    ours = ["--set", "training.devices=workers"]
    chief, worker = (
        begin(config, folder, *ours, tf_config=text)
        for folder, text in zip((tmp_path / "two", None), cluster_of(2), strict=True)
    )
    assert "worker 1 of 2, the chief; 2 devices in sync" in ended(chief)
    assert "the chief writes the results" in ended(worker)
    check_same_run(tmp_path / "one", tmp_path / "two")
    assert not (tmp_path / "runs").exists()  # the worker has written nothing


@pytest.mark.slow
def test_two_workers_stop_together_and_go_on_after_a_kill(tiny_file: Any, tmp_path: Path, begin: Any) -> None:
    changes = {**ALIKE, "training": {**ALIKE["training"], "max_epochs": 30, "early_stopping_patience": 4}}
    config = tiny_file(**changes)
    ended(begin(config, tmp_path / "one"))
    ours = ["--set", "training.devices=workers"]
    folder = tmp_path / "two"
    chief, worker = (begin(config, folder, *ours, tf_config=text) for text in cluster_of(2))
    end = time.monotonic() + 120
    while not (folder / "checkpoint.npz").exists() or len(history(folder)["epoch"]) < 2:
        assert time.monotonic() < end
        assert chief.poll() is None, chief.communicate()[0]
        time.sleep(0.05)
    worker.send_signal(signal.SIGKILL)
    said = chief.communicate(timeout=180)[0]
    assert chief.returncode == 2, said
    assert "no longer responds" in said
    assert "Traceback" not in said
    both = [begin(config, folder, *ours, "--resume", tf_config=text) for text in cluster_of(2)]
    for process in both:
        ended(process)
    check_same_run(tmp_path / "one", folder)


@pytest.mark.slow
def test_workers_that_differ_are_refused(tiny_file: Any, tmp_path: Path, begin: Any) -> None:
    config = tiny_file(**ALIKE)
    both = [
        begin(config, tmp_path / str(seed), "--seed", str(seed), "--set", "training.devices=workers", tf_config=text)
        for seed, text in enumerate(cluster_of(2))
    ]
    for process in both:
        said = process.communicate(timeout=120)[0]
        assert process.returncode == 2, said
        assert "the workers differ in: configuration" in said


def with_tf_config(monkeypatch: pytest.MonkeyPatch, content: Any) -> None:
    monkeypatch.setenv("TF_CONFIG", content if isinstance(content, str) else json.dumps(content))


def test_the_place_of_a_process_in_its_cluster(monkeypatch: pytest.MonkeyPatch) -> None:
    jobs = {"chief": ["a:1"], "worker": ["b:1", "c:1"]}
    with_tf_config(monkeypatch, {"cluster": jobs, "task": {"type": "worker", "index": 1}})
    assert devices.cluster() == devices.Cluster(("a:1", "b:1", "c:1"), 2)
    assert not devices.is_chief(Training(devices="workers"))
    assert devices.is_chief(Training())
    assert "3 workers" in devices.warnings(Training())[0]
    with_tf_config(monkeypatch, {"cluster": {"worker": ["b:1"]}, "task": {"type": "worker", "index": 0}})
    assert devices.is_chief(Training(devices="workers"))
    assert devices.warnings(Training()) == []
    with_tf_config(monkeypatch, "meant for somebody else")
    assert devices.warnings(Training()) == []
    monkeypatch.delenv("TF_CONFIG")
    assert devices.cluster() is None


@pytest.mark.parametrize(
    "content",
    [
        "nonsense",
        "[]",
        {"cluster": {"worker": ["a:1"]}},
        {"cluster": {"worker": ["a:1"]}, "task": {"type": "worker", "index": 1}},
        {"cluster": {"worker": ["a:1"], "ps": ["b:1"]}, "task": {"type": "worker", "index": 0}},
        {"cluster": {"worker": ["a:1"]}, "task": {"type": "evaluator", "index": 0}},
    ],
)
def test_a_cluster_that_is_none(monkeypatch: pytest.MonkeyPatch, content: Any) -> None:
    with_tf_config(monkeypatch, content)
    with pytest.raises(ConfigError, match="TF_CONFIG needs a cluster of workers"):
        devices.cluster()


def test_devices_that_are_not_to_be_had(monkeypatch: pytest.MonkeyPatch, tiny: Callable[..., Config]) -> None:
    monkeypatch.delenv("TF_CONFIG", raising=False)
    with pytest.raises(ConfigError, match="'workers' needs the environment variable TF_CONFIG"):
        devices.start(Training(devices="workers"))
    with pytest.raises(ConfigError, match="batch_size must be at least the number of devices that share it, 1"):
        devices.start(Training(devices="mirrored", replicas=1).model_copy(update={"batch_size": 0}))
    with pytest.raises(ConfigError, match="run_length needs devices one"):
        tiny(training={"devices": "mirrored", "run_length": 4})
    with pytest.raises(ConfigError, match="replicas needs devices mirrored"):
        tiny(training={"replicas": 2})
    with pytest.raises(ConfigError, match="Pretrain first"):
        tiny(training={"devices": "workers"}, pretraining={"enabled": True})


def test_what_trains_many_networks_refuses_workers(tiny_content: Callable[..., dict[str, Any]]) -> None:
    from cloudml_tf.experiments.grid.cells import Grid, cells
    from cloudml_tf.experiments.search.settings import Search

    base = tiny_content(training={"devices": "workers"})
    assert parse_config(base).training.devices == "workers"
    with pytest.raises(ConfigError, match="a grid trains many networks"):
        cells(Grid(experiment_name="x", base=base, rows={"a": {"set": {}}}, seeds=(1,)))
    space = {"loss.weight": [0, 1]}
    with pytest.raises(ConfigError, match="a search trains many networks"):
        Search(experiment_name="x", base=base, space=space, tuner={"kind": "grid"}).config()

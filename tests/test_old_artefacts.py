"""Files that an earlier commit wrote are read as they were then: runs, exports, checkpoints and .keras files.

What lies in tests/artefacts, and who wrote it, is told in its README.md. Everything goes through doors that stay: the
command line, the public names of the package, Keras and TensorFlow.
"""

import csv
import functools
import io
import json
import os
import shutil
import subprocess
import sys
import zipfile
from collections.abc import Callable, Iterator
from importlib import metadata
from pathlib import Path
from typing import Any

import h5py
import numpy as np
import pytest
from artefacts.afresh import below, machine

from cloudml_tf import load_config, simulate_flights

ROOT = Path(__file__).parent.parent
FOLDER = ROOT / "tests/artefacts"
# What differs from run to run, is a path, or is a text for people.
OTHERWISE = {"seconds", "folder", "model", "export", "runs", "failed", "label", "summary", "findings", "notes"}
OTHERWISE |= {"ending", "warnings", "meaning", "config_difference"}
OTHERWISE |= {"phase3"}  # runs of so few epochs are not judged any more

with zipfile.ZipFile(FOLDER / "artefacts.zip") as _archive:
    _files = sorted(name for name in _archive.namelist() if name.endswith(".keras"))
    NETWORKS = [Path(name).stem for name in _files]
    with zipfile.ZipFile(io.BytesIO(_archive.read(_files[0]))) as _file:
        WRITTEN_BY = json.loads(_file.read("metadata.json"))["keras_version"]


def release(text: str) -> tuple[int, ...]:
    """The first two numbers of a version."""
    return tuple(map(int, text.split(".")[:2]))


reads_keras_files = pytest.mark.skipif(
    release(metadata.version("keras")) < release(WRITTEN_BY),
    reason=f"a .keras file of Keras {WRITTEN_BY} cannot be loaded by an older Keras",
)

pytestmark = pytest.mark.tensorflow("the old runs are of TensorFlow, and so are the exports")


def cloudml(*words: str) -> int:
    """One command, in this process, which saves the seconds that TensorFlow takes to load. Edit it here alone."""
    from cloudml_tf.commands.main import main

    return main(list(words))


@pytest.fixture(scope="module")
def home(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The unpacked archive, with its simulated flights beside it. Tests leave what is old as it is.

    A positive roll was recorded with the left wing down at that time, and one of the old networks has learned from it.
    """
    home = tmp_path_factory.mktemp("old")
    with zipfile.ZipFile(FOLDER / "artefacts.zip") as archive:
        archive.extractall(home)
    settings = load_config(home / "nadir.json").data.simulation
    folder = Path(simulate_flights(settings, home / "cache/simulated")[0]).parent
    for path in folder.glob("*/NAV_*.h5"):
        with h5py.File(path, "r+") as file:
            file["nav/roll"][:] = -file["nav/roll"][:]
    camera = Path(content(home / "nadir/data.json")["files"]["sim03"]["camera"])  # cache/simulated/KEY/sim03/file
    if not (old := home / camera.parents[1]).exists():  # the key changes with the simulator's source
        old.symlink_to(folder.resolve())
    return home


@pytest.fixture(scope="module", autouse=True)
def fresh(home: Path) -> Iterator[Callable[[], dict[str, np.ndarray]]]:
    """A function that waits for the answers of a fresh process, which works while other tests run."""
    command = [sys.executable, str(FOLDER / "afresh.py"), str(home), str(home / "fresh.npz")]
    paths = {**os.environ, "PYTHONPATH": str(ROOT)}
    process = subprocess.Popen(command, env=paths, stdout=subprocess.PIPE, stderr=subprocess.STDOUT, text=True)

    @functools.cache
    def said() -> str:
        return str(process.communicate(timeout=300)[0])

    def answers() -> dict[str, np.ndarray]:
        text = said()
        assert process.returncode == 0, text
        with np.load(home / "fresh.npz") as file:
            return dict(file)

    yield answers
    said()


@pytest.fixture(autouse=True)
def _inside(home: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """The paths in the old files are relative."""
    monkeypatch.chdir(home)


def content(path: Path | str) -> Any:
    return json.loads(Path(path).read_text())


def written_here(home: Path) -> bool:
    """Whether this machine wrote the old files, or one like it: then a training has to repeat every bit."""
    return bool(json.loads((home / "expected/machine.json").read_text()) == machine())


@pytest.fixture(scope="module")
def near(home: Path) -> float:
    """How far an answer may be from the old one. Other processors and versions round otherwise."""
    return 1e-6 if written_here(home) else 1e-4


def same(found: Any, expected: Any, tolerance: float = 1e-6, where: str = "") -> None:
    """All that is expected is there, floats to within `tolerance`. There may be more."""
    if isinstance(expected, dict):
        for key in expected.keys() - OTHERWISE:
            assert key in found, f"{where}.{key} is missing"
            same(found[key], expected[key], tolerance, f"{where}.{key}")
    elif isinstance(expected, list):
        assert len(found) == len(expected), where
        for number, values in enumerate(zip(found, expected, strict=True)):
            same(*values, tolerance, f"{where}[{number}]")
    elif isinstance(expected, float):
        assert found == pytest.approx(expected, rel=tolerance, abs=tolerance), where
    else:
        assert found == expected, where


def history(path: Path) -> list[dict[str, float]]:
    with open(path) as file:
        return [{name: float(value) for name, value in row.items()} for row in csv.DictReader(file)]


def ends_alike(run: Path, expected: Path, exact: bool) -> None:
    """Every epoch and every score.

    Epochs are equal bit by bit where `exact`. Scores are not quite: TensorFlow rounds the last bit of a prediction
    by the sizes of batches that the network has met before, and a training that was resumed has met fewer.
    """
    if exact:
        assert (run / "history.csv").read_text() == (expected / "history.csv").read_text()
    same(history(run / "history.csv"), history(expected / "history.csv"), 0.0 if exact else 1e-3, "history")
    same(content(run / "metrics.json"), content(expected / "metrics.json"), 1e-6 if exact else 1e-3, "metrics")


def weights(path: Path) -> dict[str, np.ndarray]:
    found: dict[str, np.ndarray] = {}
    with h5py.File(path) as file:
        file.visititems(lambda name, item: found.update({name: item[()]}) if isinstance(item, h5py.Dataset) else None)
    return found


# --- commands on finished runs and exports


def slowly(name: str) -> Any:
    """A parameter for `make test-all` alone."""
    return pytest.param(name, marks=pytest.mark.slow)


FLIGHTS = {"nadir": ["sim03"], "quantile": ["sim03"], "swath": ["7", "8"]}


@pytest.mark.parametrize("model", ["nadir", slowly("nadir_model"), slowly("swath"), slowly("swath_model")])
def test_an_evaluation_gives_the_old_scores(model: str, near: float, tmp_path: Path) -> None:
    run = model.removesuffix("_model")
    assert cloudml("evaluate", model, "--flights", *FLIGHTS[run], "--run-dir", str(tmp_path / "judged")) == 0
    found = content(tmp_path / "judged/evaluation.json")
    same(found, content(f"expected/evaluation_{model}.json"), near)
    same(found["test"], content(f"{run}/metrics.json")["test"], near if model == run else 1e-4, "the run's own test")


@pytest.mark.parametrize("model", ["nadir", "nadir_model", "quantile", "swath", "swath_model"])
def test_a_prediction_gives_the_old_values(model: str, near: float, tmp_path: Path) -> None:
    import xarray as xr

    run = model.removesuffix("_model")
    assert cloudml("predict", model, *FLIGHTS[run], "-o", str(tmp_path / "out.nc")) == 0
    with np.load("expected/predictions.npz") as file:
        expected = below(file, run)
    tolerance = near if model == run else max(near, 1e-5)
    with xr.open_dataset(tmp_path / "out.nc", decode_times=False) as found:
        for name, values in expected.items():
            np.testing.assert_allclose(found[name].values, values, rtol=tolerance, atol=tolerance, err_msg=name)


@pytest.mark.parametrize("run", [slowly("nadir"), slowly("swath")])
def test_a_run_is_exported_again_and_answers_as_its_old_export(run: str, near: float, tmp_path: Path) -> None:
    import tensorflow as tf

    assert cloudml("export", run, "-o", str(tmp_path / "again")) == 0
    model = tf.saved_model.load(str(tmp_path / "again"))
    with np.load("expected/savedmodels.npz") as file:
        stored = below(file, f"{run}_model/serving_default")
    answers = model.signatures["serving_default"](
        **{name: tf.constant(values) for name, values in below(stored, "inputs").items()}
    )
    for name, values in below(stored, "outputs").items():
        np.testing.assert_allclose(answers[name].numpy(), values, rtol=max(near, 1e-5), atol=near, err_msg=name)


@pytest.mark.parametrize("run", ["nadir", "interrupted"])
def test_a_diagnosis_is_the_old_one(run: str, tmp_path: Path) -> None:
    assert cloudml("diagnose", run, "--run-dir", str(tmp_path)) == 0
    found, expected = content(tmp_path / "diagnosis.json"), content(f"expected/diagnosis_{run}.json")
    # The finished run has no tier, and a baseline beats it on the test split: it was called healthy.
    assert found["verdict"] == ("unclear" if run == "nadir" else expected["verdict"])
    kept = [[(one["name"], one["set"]) for one in each["findings"]] for each in (found, expected)]
    assert kept[0] == kept[1]


def test_a_comparison_is_the_old_one(tmp_path: Path) -> None:
    assert cloudml("compare", "nadir", "quantile", "--run-dir", str(tmp_path / "compared")) == 0
    found, expected = content(tmp_path / "compared/comparison.json"), content("expected/comparison.json")
    rows = {row["metric"]: row for row in found.pop("rows")}
    for old in expected.pop("rows"):
        row = rows[old["metric"]]
        assert row["winner"] == (old["winner"] if old["exceeds_interval"] else None)  # named within chance too, once
        same({**row, "winner": row["leader"]}, {**old, "leader": old["winner"]})
    same(found, expected)


# --- trainings that go on from what is old


@pytest.mark.slow
def test_an_interrupted_training_ends_as_it_would_have(home: Path) -> None:
    shutil.copytree("interrupted", "resumed")
    assert cloudml("train", "nadir.json", "--run-dir", "resumed", "--resume") == 0
    ends_alike(home / "resumed", home / "nadir", written_here(home))
    slack = 0.0 if written_here(home) else 1e-3
    for name in ("best.weights.h5", "last.weights.h5"):
        found, expected = weights(home / "resumed" / name), weights(home / "nadir" / name)
        assert found.keys() == expected.keys()
        for key, values in expected.items():
            np.testing.assert_allclose(found[key], values, rtol=0, atol=slack, err_msg=key)


@pytest.mark.slow
def test_a_training_goes_on_from_an_old_run(home: Path) -> None:
    options = ["--init-from", "nadir", "--set", "training.max_epochs=1", "--set", "evaluation.baselines=false"]
    assert cloudml("train", "nadir.json", *options, "--run-dir", "onwards") == 0
    ends_alike(home / "onwards", home / "expected/onwards", written_here(home))


@pytest.mark.slow
def test_a_training_takes_an_old_pretraining(home: Path) -> None:
    assert cloudml("train", "pretrained.json", "--run-dir", "pretrained") == 0
    ends_alike(home / "pretrained", home / "expected/pretrained", written_here(home))


@pytest.mark.slow
def test_an_interrupted_pretraining_ends_as_it_would_have(home: Path) -> None:
    shutil.copytree("pretraining_interrupted", "pretraining_resumed")
    assert cloudml("pretrain", "pretraining.json", "--run-dir", "pretraining_resumed", "--resume") == 0
    found, expected = (content(f"{name}/pretraining.json") for name in ("pretraining_resumed", "pretraining"))
    slack = 0.0 if written_here(home) else 1e-3
    same(found["history"], expected["history"], slack)
    same(found, expected, max(slack, 1e-6))
    with np.load("pretraining_resumed/encoder.npz") as ours, np.load("pretraining/encoder.npz") as theirs:
        for key in theirs.files:
            np.testing.assert_allclose(ours[key], theirs[key], rtol=0, atol=slack, err_msg=key)


# --- a fresh process; these tests come last, for it works while the others run


@pytest.mark.parametrize("name", NETWORKS)
@reads_keras_files
def test_a_keras_file_loads_and_answers_as_it_did(fresh, near: float, name: str) -> None:
    found = fresh()
    loaded = json.loads(str(found["loaded"]))
    assert name in loaded["loaded"], loaded["missing"][name]
    with np.load("expected/networks.npz") as file:
        stored = below(file, name)
    for key, values in stored.items():
        if key.startswith("outputs/"):
            np.testing.assert_allclose(found[f"{name}/{key}"], values, rtol=near, atol=near, err_msg=key)
        elif key in ("scores", "after"):  # a step makes differences of rounding larger
            np.testing.assert_allclose(found[f"{name}/{key}"], values, rtol=10 * near, atol=10 * near, err_msg=key)


@reads_keras_files
def test_our_loss_and_metrics_need_only_their_own_modules(fresh) -> None:
    assert json.loads(str(fresh()["loaded"]))["loaded"]["plain"] in ("keras", "package", "losses")


@pytest.mark.xfail(strict=True, reason="the package imports nothing by itself, so Keras knows none of its classes yet")
@reads_keras_files
def test_importing_the_package_is_enough_to_load_a_keras_file(fresh) -> None:
    assert set(json.loads(str(fresh()["loaded"]))["loaded"].values()) <= {"keras", "package"}


@pytest.mark.parametrize(
    "where", ["nadir_model/serving_default", "nadir_model/shared_frames", "swath_model/serving_default"]
)
def test_a_savedmodel_answers_as_it_did_with_tensorflow_alone(fresh, near: float, where: str) -> None:
    found = below(fresh(), f"{where}/outputs")
    with np.load("expected/savedmodels.npz") as file:
        stored = below(file, f"{where}/outputs")
    assert found.keys() == stored.keys()
    for name, values in stored.items():
        np.testing.assert_allclose(found[name], values, rtol=near, atol=near, err_msg=name)

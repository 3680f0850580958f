"""Flights as gridded scenes: which frames, where labels stand, the file, and a training on it."""

import json
import shutil
from pathlib import Path

import h5py
import numpy as np
import pytest
import xarray as xr
from conftest import merged
from flight_files import write_config, write_three_flights

from cloudml_tf.commands.main import main
from cloudml_tf.commands.scenes import reading
from cloudml_tf.config.load import parse_config
from cloudml_tf.data.flight_scenes import FRAMES_A_FLIGHT, SUN, far_apart, scenes_of_flight, towards_sun
from cloudml_tf.data.readers.folders import find_flights
from cloudml_tf.data.readers.sandbox import read_flight
from cloudml_tf.data.sources import available_flights
from cloudml_tf.data.track import seen_labels

SIMULATION = {"swath_truth": True, "lidar_interval_s": 1.0, "black_frame_fraction": 0.02}
SCENES = {
    "channels": ["Product/Signal", *SUN],
    "label": "lidar_optical_depth",
    "test_label": "optical_depth_truth",
    "name": "name",
    "group": "flight",
    "periodic": False,
    "sun_axis": None,
}


def test_frames_are_so_far_apart_that_none_shares_a_cloud_with_the_next() -> None:
    time_s = np.array([0.0, 1.0, 2.0, 3.0, 9.0, 10.0, 11.9, 12.1])
    assert far_apart(time_s, 3.0).tolist() == [0, 3, 4, 7]


def test_the_sun_is_ahead_to_the_right_or_above() -> None:
    angles = np.array([[0.0, 77.0], [90.0, 0.0], [90.0, 90.0], [60.0, 180.0]])
    expected = [[0, 0, 1], [1, 0, 0], [0, 1, 0], [-np.sqrt(0.75), 0, 0.5]]
    np.testing.assert_allclose(towards_sun(angles), expected, atol=1e-12)


def test_a_label_stands_where_its_cloud_is_seen() -> None:
    label_s = np.array([10.0, 11.0, 14.0])
    nearest, there = seen_labels(np.array([10.0, 20.0]), label_s, range(-4, 5), 2.0, 1.0)
    assert np.flatnonzero(there[0]).tolist() == [4, 6]  # met now at nadir, and in a second two pixels ahead
    assert nearest[0, [4, 6]].tolist() == [0, 1]
    assert not there[1].any()
    assert np.flatnonzero(seen_labels(np.array([9.0]), label_s[:1], range(-4, 5), 2.0, 1.0)[1]).tolist() == [6]


@pytest.fixture
def content(tiny_content, tmp_path: Path) -> dict:
    """A configuration of a swath network on three tiny simulated flights."""
    changes = {
        "temporal_frames": 1,
        "target": {"coverage": "swath"},
        "data": {
            "simulation": SIMULATION,
            "scenes": {"path": str(tmp_path / "scenes.h5"), **SCENES},
            "sun_angles": False,
        },
        "split": {"kind": "flights", "train": [1], "val": [2], "test": [3]},
        "augmentation": {"mirror_across_track": False, "window": 0.7},
        "training": {"max_epochs": 1, "learning_rate": 0.01},
    }
    found = merged(tiny_content(), changes)
    found["model"] = {"widths": [4, 6], "head_units": 8}
    return found


@pytest.fixture
def config_file(content, tmp_path: Path) -> Path:
    path = tmp_path / "swath.json"
    path.write_text(json.dumps(content))
    return path


def on_its_side(folder: Path, home: Path) -> Path:
    """The same flight with rows along the track."""
    shutil.copytree(folder, home / folder.name)
    for pattern, name in (("*_L1B_*", "Product/Signal"), ("TRUTH_*", "truth/swath_optical_depth")):
        with h5py.File(next((home / folder.name).glob(pattern)), "a") as file:
            turned, attributes = file[name][()].swapaxes(1, 2), dict(file[name].attrs)
            del file[name]
            file.create_dataset(name, data=turned).attrs.update(attributes)
    return home / folder.name


@pytest.mark.parametrize("axis", ["rows", "columns"])
def test_labels_lie_on_the_nadir_line_and_are_what_is_seen_there(tiny, tmp_path: Path, axis: str) -> None:
    config = reading(tiny(data={"simulation": SIMULATION, "camera": {"across_track_axis": axis}}))
    folder = Path(available_flights(config)["sim01"].camera).parent
    folder = folder if axis == "rows" else on_its_side(folder, tmp_path)
    flight = read_flight("sim01", find_flights(folder, config.data)["sim01"], config.data, config.target)
    scenes = scenes_of_flight(flight, config)
    label, truth = (x if axis == "rows" else x.swapaxes(1, 2) for x in (scenes.label, scenes.truth))
    seen = np.isfinite(label)
    assert seen[:, 6].sum() == seen.sum() > 2 * len(seen)
    side_s = 12 / scenes.pixels_per_s
    assert (np.diff(scenes.time_s) >= side_s).all()
    assert np.median(np.diff(scenes.time_s)) < side_s + 1.5
    at_nadir = flight.label[np.searchsorted(flight.time_s, scenes.time_s)]
    np.testing.assert_array_equal(label[:, 6, 6], at_nadir.astype("float32"))
    assert np.corrcoef(truth[seen], label[seen])[0, 1] > 0.9
    assert np.corrcoef(np.roll(truth, 3, axis=2)[seen], label[seen])[0, 1] < 0.8


@pytest.mark.slow
def test_flights_become_scenes_that_a_network_is_trained_on_and_asked_of(
    content, config_file, tmp_path: Path, capsys
) -> None:
    assert main(["scenes", "--config", str(config_file), "--json"]) == 0
    told = json.loads(capsys.readouterr().out)
    assert list(told["flights"]) == ["sim01", "sim02", "sim03"]
    with h5py.File(tmp_path / "scenes.h5") as file:
        count = sum(row["scenes"] for row in told["flights"].values())
        assert file["Product/Signal"].shape == (count, 12, 12)
        assert file["Product/Signal"][()].max() < 2.0  # reflectance, not counts
        flight, name = file["flight"][()], file["name"][()]
        assert np.isfinite(file["lidar_optical_depth"][()]).sum() == sum(r["labels"] for r in told["flights"].values())
        assert set(flight) == {1, 2, 3}
        assert len(set(name)) == count
        assert (name // FRAMES_A_FLIGHT == flight).all()
        np.testing.assert_allclose(sum(file[key][()] ** 2 for key in SUN), 1.0, rtol=1e-5)
        assert json.loads(file.attrs["flights"]) == {"1": "sim01", "2": "sim02", "3": "sim03"}
        assert json.loads(file.attrs["configuration"])["experiment_name"] == "tiny"
    assert main(["train", str(config_file), "--run-dir", str(tmp_path / "run")]) == 0
    metrics = json.loads((tmp_path / "run/metrics.json").read_text())
    saved = np.load(tmp_path / "run/predictions.npz")
    assert metrics["test"]["n"] == np.isfinite(saved["test_label"]).sum() > 100 * len(saved["test_scene"])
    assert np.isfinite(saved["train_label"]).sum(axis=(1, 2)).max() <= 12
    assert set(metrics["per_flight"]["test"]) == {"3"}
    camera = Path(available_flights(reading(parse_config(content)))["sim03"].camera)
    shutil.copytree(camera.parent, tmp_path / "new")
    next((tmp_path / "new").glob("CPL_*")).unlink()
    words = ["--config", str(tmp_path / "run/config.json"), "--no-lidar", "-o", str(tmp_path / "new.h5")]
    assert main(["scenes", str(tmp_path / "new"), *words]) == 0
    assert main(["predict", str(tmp_path / "run"), str(tmp_path / "new.h5"), "-o", str(tmp_path / "maps.nc")]) == 0
    with xr.open_dataset(tmp_path / "maps.nc") as maps, h5py.File(tmp_path / "new.h5") as file:
        assert "lidar_optical_depth" not in file
        assert maps.scene.values.tolist() == file["name"][()].tolist()
        assert np.isfinite(maps.cloud_optical_depth).all()


@pytest.mark.parametrize(
    ("changes", "arguments", "text"),
    [
        ({}, ["--config", "{config}"], "images do not show by how much the scene moves"),
        ({"target.minimum": 1.9, "target.maximum": 1.91}, ["--config", "{config}"], "has no label for optical_depth"),
        ({"target": {"name": "cloud_top_km"}}, ["--config", "{config}"], "scenes are labelled with optical_depth"),
        ({}, ["--config", "{config}", "--overlap", "1"], "0 to 0.9. Received: 1.0"),
        ({}, ["--config", "{config}", "--run-dir", "x"], "-o and --run-dir both name the destination"),
        ({}, [], "name their folders, or with --config"),
        ({}, ["nowhere"], "nowhere: is no folder with flights"),
    ],
)
def test_flights_that_make_no_scenes_are_refused(tmp_path: Path, capsys, changes, arguments, text) -> None:
    write_three_flights(tmp_path / "flights")
    path = write_config(tmp_path, changes)
    words = [word.format(config=path) for word in arguments]
    assert main(["scenes", *words, "-o", str(tmp_path / "scenes.h5")]) == 2
    assert text in capsys.readouterr().err
    assert not (tmp_path / "scenes.h5").exists()


def test_without_a_place_to_write_there_are_no_scenes(tmp_path: Path, capsys) -> None:
    assert main(["scenes", str(tmp_path)]) == 2
    assert "-o scenes.h5, or data.scenes.path" in capsys.readouterr().err


def test_flights_are_handed_to_the_swath_network_in_memory_three_frames_at_a_time(
    tiny_file, cache: Path, tmp_path: Path, capsys
) -> None:
    path = tiny_file(
        temporal_frames=3,
        target={"coverage": "swath", "minimum": 0.0, "maximum": 3.0},
        augmentation={"mirror_across_track": False},
        model={"footprint": 11, "encoder_features": 64, "heads": 4},
        training={"max_epochs": 1, "batch_size": 4},
        output={"export": False},
    )
    assert main(["train", str(path), "--run-dir", str(tmp_path / "run")]) == 0
    description = json.loads((tmp_path / "run/data.json").read_text())
    assert description["frame_shape"] == [3, 12, 12, 4]  # the sun's direction beside the radiance
    assert [part["flights"] for part in description["split"].values()] == [["sim01"], ["sim02"], ["sim03"]]
    saved = np.load(tmp_path / "run/predictions.npz")
    assert np.isfinite(saved["test_label"]).sum(axis=(1, 2)).max() <= 12  # the line alone
    assert np.isfinite(saved["test_prediction"]).all()
    folder = Path(description["files"]["sim03"]["camera"]).parent
    assert main(["predict", str(tmp_path / "run"), str(folder), "-o", str(tmp_path / "maps.nc")]) == 0
    with xr.open_dataset(tmp_path / "maps.nc") as maps:
        np.testing.assert_allclose(maps.cloud_optical_depth, saved["test_prediction"], rtol=1e-4, atol=1e-5)
        assert set(maps.flight.values) == {"sim03"}
        assert (np.diff(maps.time.values).astype(float) > 0).all()
    capsys.readouterr()
    assert (
        main(["evaluate", str(tmp_path / "run"), "--flights", "sim03", "--run-dir", str(tmp_path / "e"), "--json"]) == 0
    )
    scored = json.loads(capsys.readouterr().out)["metrics"]["test"]
    trained = json.loads((tmp_path / "run/metrics.json").read_text())["test"]
    assert scored["rmse"] == pytest.approx(trained["rmse"], rel=1e-5)

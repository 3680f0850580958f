"""`cloudml predict`: every frame a row, the same numbers as a training's, flags that say why, and a valid CF file."""

import json
import shutil
import warnings
from pathlib import Path
from typing import Any

import h5py
import numpy as np
import pytest
import xarray as xr
from conftest import TINY, merged
from flight_files import (
    AZIMUTH,
    FRAMES,
    HEADING,
    SIGNAL,
    START_S,
    ZENITH,
    camera_file,
    images,
    lidar_file,
    navigation_file,
    tiny_config,
    write_flight,
)

from cloudml_tf.cli import main
from cloudml_tf.config import Config
from cloudml_tf.console import Console
from cloudml_tf.data import blocks
from cloudml_tf.data.flights import Flight, flight_files, load_flight
from cloudml_tf.data.ranges import Range, TrainingRanges
from cloudml_tf.data.samples import Samples, sequences_around
from cloudml_tf.errors import ConfigError, DataError
from cloudml_tf.evaluate import evaluate
from cloudml_tf.predict import places
from cloudml_tf.prediction.flags import FLAGS, MASKS, Frames, quality_flags
from cloudml_tf.prediction.flight import Predicted, predict_flight
from cloudml_tf.prediction.model import Model, digest
from cloudml_tf.prediction.netcdf import dataset, write_netcdf
from cloudml_tf.prediction.picture import quick_look

POSITION = {"nav/latitude": np.linspace(30.0, 30.2, FRAMES), "nav/longitude": np.linspace(-120.0, -119.8, FRAMES)}


def unlabelled(folder: Path, config: Config) -> Flight:
    files = flight_files(folder, config.data, labels=False)
    return load_flight(folder.name, files, config.data, config.target, labels=False)


def model_of(config: Config, answer: Any, ranges: TrainingRanges | None = None) -> Model:
    description = {"fingerprint": "0", **({"ranges": ranges.to_json()} if ranges else {})}
    return Model(Path("run"), config, description, answer, None, "")


def brightness(samples: Samples) -> dict[str, np.ndarray]:
    """A model that answers with the mean of the sequence's frames."""
    return {"value": samples.inputs()["frames"].mean(axis=(1, 2, 3, 4))}


def raised(flags: np.ndarray, name: str) -> list[int]:
    """Which frames have a flag."""
    return np.flatnonzero(flags & MASKS[FLAGS.index(name)]).tolist()


# --- flights without a lidar


def test_a_prediction_needs_no_lidar_and_a_training_does(tmp_path: Path) -> None:
    folder, config = write_flight(tmp_path / "a", navigation=POSITION), tiny_config(tmp_path)
    labelled = load_flight("a", flight_files(folder, config.data), config.data, config.target)
    lidar_file(folder).unlink()
    flight = unlabelled(folder, config)
    assert np.isnan(flight.label).all()
    np.testing.assert_array_equal(flight.sun_angles_deg, labelled.sun_angles_deg)
    np.testing.assert_array_equal(flight.latitude_deg, POSITION["nav/latitude"])
    with pytest.raises(DataError, match="no lidar file; one is needed"):
        flight_files(folder, config.data)
    files = flight_files(folder, config.data, labels=False)
    with pytest.raises(DataError, match=r"has no lidar file, and labels or features .* Name one in data\.flights"):
        load_flight("a", files, config.data, config.target)


def test_a_feature_of_the_lidar_asks_for_it(tmp_path: Path) -> None:
    folder = write_flight(tmp_path / "a", lidar={"aux/x": np.arange(10.0)})
    config = tiny_config(tmp_path, {"data.features": [{"name": "x", "file": "lidar", "dataset": "aux/x"}]})
    assert np.isfinite(unlabelled(folder, config).features).all()
    lidar_file(folder).unlink()
    with pytest.raises(DataError, match="no lidar file; one is needed"):
        unlabelled(folder, config)


@pytest.mark.parametrize(
    ("settings", "navigation", "known"),
    [
        ({}, POSITION, True),
        ({}, {"nav/latitude": POSITION["nav/latitude"]}, False),
        ({"data.navigation.latitude": None}, POSITION, False),
        ({"data.sun_angles": False}, {**POSITION, ZENITH: None}, True),
        ({"data.navigation.latitude": "nav/lat"}, {**POSITION, "nav/lat": POSITION["nav/latitude"]}, True),
    ],
)
def test_positions_come_from_the_navigation_file(tmp_path: Path, settings: Any, navigation: Any, known: bool) -> None:
    folder = write_flight(tmp_path / "a", navigation=navigation)
    flight = unlabelled(folder, tiny_config(tmp_path, settings))
    for values in (flight.latitude_deg, flight.longitude_deg):
        assert np.isfinite(values).all() == known


def test_a_chosen_position_must_be_there_and_fit(tmp_path: Path) -> None:
    folder = write_flight(tmp_path / "a", navigation={"nav/latitude": np.zeros(3), "nav/longitude": np.zeros(3)})
    with pytest.raises(DataError, match=r"no dataset 'nav/lat' \(configuration field data\.navigation\.latitude\)"):
        unlabelled(folder, tiny_config(tmp_path, {"data.navigation.latitude": "nav/lat"}))
    with pytest.raises(DataError, match=r"'nav/latitude' must have one row a camera frame, 40\. Received: 3"):
        unlabelled(folder, tiny_config(tmp_path))


def test_without_sun_and_navigation_the_camera_is_enough(tmp_path: Path) -> None:
    folder = write_flight(tmp_path / "a")
    lidar_file(folder).unlink()
    navigation_file(folder).unlink()
    config = tiny_config(tmp_path, {"data.sun_angles": False})
    predicted = predict_flight(model_of(config, brightness), unlabelled(folder, config))
    assert predicted.valid.sum() == FRAMES - 2
    assert raised(predicted.flags, "gap") == [0, FRAMES - 1]


# --- blocks


@pytest.mark.parametrize("block_bytes", [1, 8 * 10 * 4 * 7, 2**26])
@pytest.mark.parametrize("temporal_frames", [1, 3, 7])
def test_the_size_of_a_block_changes_nothing(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, block_bytes: int, temporal_frames: int
) -> None:
    """An unsorted file with a gap and a black frame; each answer is that of the whole flight at once."""
    order = np.random.default_rng(2).permutation(FRAMES)
    signal = images()
    signal[order == 11] = 0
    time_s = START_S + order + 100.0 * (order >= 25)
    folder = write_flight(tmp_path / "a", frame_s=time_s, profile_s=START_S + np.arange(4.0), camera={SIGNAL: signal})
    config = tiny_config(tmp_path, {"temporal_frames": temporal_frames})
    flight = unlabelled(folder, config)
    monkeypatch.setattr(blocks, "BLOCK_BYTES", block_bytes)
    sizes = [len(block.radiance) for block in blocks.read_blocks(flight, config.data, temporal_frames)]
    if block_bytes < 2**26:
        assert max(sizes) <= max(7, temporal_frames) + temporal_frames - 1
    predicted = predict_flight(model_of(config, brightness), flight)
    inverse, half = np.argsort(order), temporal_frames // 2
    expected = np.full(FRAMES, np.nan)
    for i in range(half, FRAMES - half):
        around = np.arange(i - half, i + half + 1)
        if 11 not in around and (around[0] >= 25) == (around[-1] >= 25):
            expected[i] = 1e-3 * signal[inverse[around]].mean()
    np.testing.assert_allclose(predicted.values["value"], expected, rtol=1e-5)
    assert raised(predicted.flags, "black_frame") == [11]


def test_progress_counts_frames_to_the_last(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(blocks, "MOST_FRAMES", 16)
    config, told = tiny_config(tmp_path), []
    flight = unlabelled(write_flight(tmp_path / "a"), config)
    predict_flight(model_of(config, brightness), flight, lambda done, total: told.append((done, total)))
    assert told == [(16, 40), (32, 40), (40, 40)]


# --- flags


def test_each_flag_for_its_own_reason(tmp_path: Path) -> None:
    signal = images().astype("uint16")
    signal[4] = 0
    signal[10] = 65535  # of one value too, and yet saturated
    signal[30] = signal[30] // 2 + 20000
    zenith = np.full(FRAMES, 40.0)
    zenith[15], zenith[34], zenith[36] = np.nan, 41.5, 30.0
    azimuth = np.full(FRAMES, 150.0)
    azimuth[20], azimuth[21] = 30.0, 152.0  # 60 to the left is the mirror image of 60 to the right
    folder = write_flight(tmp_path / "a", camera={SIGNAL: signal}, navigation={ZENITH: zenith, AZIMUTH: azimuth})
    config = tiny_config(tmp_path, {"data.navigation.max_filled_frames": 0})
    light, flat, side = Range(2.0, 3.0, 8.0, 9.0), Range(*[40.0] * 4), Range(*[60.0] * 4)
    ranges = TrainingRanges([light], flat, side, [], Range(0.1, 0.2, 1.5, 1.6))

    def answer(samples: Samples) -> dict[str, np.ndarray]:
        return {"value": np.where(samples.time_s == START_S + 25, 1.5, 1.0)}

    predicted = predict_flight(model_of(config, answer, ranges), unlabelled(folder, config))
    assert {name: raised(predicted.flags, name) for name in FLAGS} == {
        "black_frame": [4],
        "saturated_frame": [10],
        "gap": [0, 3, 5, 9, 11, 14, 16, 39],
        "missing_angles": [15],
        "sun_outside_training": [21, 34, 36],
        "radiance_outside_training": [30],
        "feature_outside_training": [],
        "glint": [36],
        "opaque": [25],
    }
    no_value = predicted.flags & MASKS[:4].sum() > 0
    np.testing.assert_array_equal(predicted.valid, ~no_value)


def test_features_are_compared_as_the_network_saw_them(tmp_path: Path) -> None:
    """0.1 is another number in float32: it must not be outside of itself."""
    values = np.full(FRAMES, 0.1)
    values[7] = 0.11
    folder = write_flight(tmp_path / "a", navigation={"aux/x": values})
    config = tiny_config(tmp_path, {"data.features": [{"name": "x", "file": "navigation", "dataset": "aux/x"}]})
    seen = Range.of(np.full(9, 0.1, "float32"))
    anything = Range(-1e9, -1e9, 1e9, 1e9)
    ranges = TrainingRanges([anything], anything, Range(-180.0, -180.0, 180.0, 180.0), [seen], anything)
    predicted = predict_flight(model_of(config, brightness, ranges), unlabelled(folder, config))
    assert raised(predicted.flags, "feature_outside_training") == [7]
    assert raised(predicted.flags, "sun_outside_training") == []


@pytest.mark.parametrize(
    ("target", "ranges", "expected"),
    [
        ({}, False, [3]),  # beyond target.maximum = 2
        ({}, True, [2, 3]),  # at the training's top
        ({"target.maximum": None}, False, []),
        ({"target.name": "cloud_base_km", "target.maximum": 1.0}, True, []),
    ],
)
def test_opaque_is_the_top_of_what_labels_can_say(tmp_path: Path, target: Any, ranges: bool, expected: Any) -> None:
    config = tiny_config(tmp_path, target)
    flight = unlabelled(write_flight(tmp_path / "a"), config)
    value = np.full(FRAMES, 1.0)
    value[2], value[3], value[4] = 1.5, 2.5, np.nan
    wide = Range(-1e9, -1e9, 1e9, 1e9)
    found = TrainingRanges([wide], wide, wide, [], Range(0.1, 0.2, 1.5, 1.6)) if ranges else None
    nothing = np.zeros(FRAMES, bool)
    flags = quality_flags(flight, Frames(nothing, nothing, np.ones((FRAMES, 1)), value), config, found)
    assert raised(flags, "opaque") == expected


def test_the_glint_limit_can_be_set(tmp_path: Path) -> None:
    folder = write_flight(tmp_path / "a", navigation={ZENITH: np.full(FRAMES, 40.0)})
    for limit, count in ((36.0, 0), (40.5, FRAMES)):
        config = tiny_config(tmp_path, {"prediction.glint_angle_deg": limit})
        predicted = predict_flight(model_of(config, brightness), unlabelled(folder, config))
        assert len(raised(predicted.flags, "glint")) == count


def test_frames_with_a_value_are_those_with_a_whole_sequence(tmp_path: Path) -> None:
    config = tiny_config(tmp_path, {"temporal_frames": 5})
    folder = write_flight(tmp_path / "a", navigation={HEADING: np.r_[np.full(12, np.nan), np.full(28, 90.0)]})
    flight = unlabelled(folder, config)
    middles = sequences_around(flight, np.arange(FRAMES), 5)[:, 2]
    predicted = predict_flight(model_of(config, brightness), flight)
    np.testing.assert_array_equal(np.flatnonzero(predicted.valid), middles)
    assert middles[0] == 14


# --- the file


@pytest.fixture
def small(tmp_path: Path) -> tuple[Predicted, Model]:
    """A flight through a model that knows its uncertainty."""
    config = tiny_config(tmp_path)
    flight = unlabelled(write_flight(tmp_path / "flight_a", navigation=POSITION), config)

    def answer(samples: Samples) -> dict[str, np.ndarray]:
        value = brightness(samples)["value"]
        return {"value": value, "lower": value - 0.1, "upper": value + 0.2, "spread": 0.05 * value}

    run = tmp_path / "run"
    run.mkdir()
    (run / "best.weights.h5").write_bytes(b"weights")
    model = Model(run, config, {"fingerprint": "0"}, answer, 0.8, "of a test")
    return predict_flight(model, flight), model


def test_the_file_holds_what_was_predicted(small: tuple[Predicted, Model], tmp_path: Path) -> None:
    predicted, model = small
    write_netcdf(tmp_path / "a.nc", predicted, model, "now, by hand")
    with xr.open_dataset(tmp_path / "a.nc", engine="h5netcdf") as found:
        assert found.sizes == {"time": FRAMES}
        seconds = (found.time.values - np.datetime64("1970-01-01")) / np.timedelta64(1, "s")
        np.testing.assert_allclose(seconds, predicted.flight.time_s)
        depth = found.cloud_optical_depth
        np.testing.assert_array_equal(depth, predicted.values["value"].astype("float32"))
        assert depth.standard_name == "atmosphere_optical_thickness_due_to_cloud"
        assert depth.units == "1"
        named = [f"cloud_optical_depth_{key}" for key in ("lower", "upper", "spread")]
        assert depth.ancillary_variables.split() == [*named, "valid", "quality_flag"]
        np.testing.assert_allclose(found[named[1]] - depth, np.where(predicted.valid, 0.2, np.nan), rtol=1e-4)
        assert found[named[0]].long_name == "cloud optical depth, lower end of the 80 % interval"
        np.testing.assert_array_equal(found.valid, predicted.valid)
        np.testing.assert_array_equal(found.quality_flag, predicted.flags)
        assert found.quality_flag.dtype == found.quality_flag.flag_masks.dtype == np.int16
        assert found.quality_flag.flag_meanings.split() == list(FLAGS)
        np.testing.assert_array_equal(found.longitude, POSITION["nav/longitude"])
        assert found.trajectory.item() == "flight_a"
        expected = {"Conventions": "CF-1.10", "featureType": "trajectory", "history": "now, by hand"}
        expected |= {"camera_file": "TEST_L1B_20240603.h5", "run_id": "tiny/run"}
        assert {key: found.attrs[key] for key in expected} == expected
        assert found.attrs["model_sha256"] == digest(model.source)
    assert sorted(path.name for path in tmp_path.glob("*.nc")) == ["a.nc"]


@pytest.mark.parametrize(("name", "cf"), [("cloud_base_km", "cloud_base"), ("cloud_top_km", "cloud_top")])
def test_heights_have_their_names_and_unit(tmp_path: Path, name: str, cf: str) -> None:
    config = tiny_config(tmp_path, {"target.name": name})
    flight = unlabelled(write_flight(tmp_path / "a"), config)
    (tmp_path / "best.weights.h5").write_bytes(b"")
    model = Model(tmp_path, config, {"fingerprint": "0"}, brightness, None, "")
    found = dataset(predict_flight(model, flight), model, "")[f"{cf}_altitude"]
    assert (found.standard_name, found.units) == (f"{cf}_altitude", "km")


def checked(path: Path) -> dict[str, tuple[list[Any], Any]]:
    """The results of the CF checker, by check; errors of the checker itself count as failures."""
    with warnings.catch_warnings():
        # The checker and what it stands on warn on import and at work; that is not ours to mend.
        warnings.simplefilter("ignore")
        from compliance_checker.runner import CheckSuite

        CheckSuite.load_all_available_checkers()
        suite = CheckSuite()
        source = suite.load_dataset(str(path))
        try:
            found: dict[str, tuple[list[Any], Any]] = suite.run_all(source, ["cf:1.10"])
        finally:
            source.close()
    return found


def faults(path: Path) -> list[str]:
    """What the checker holds against a file: everything but advice of low priority."""
    results, errors = checked(path)["cf:1.10"]
    assert not errors
    assert len(results) > 20
    failed = [
        one for one in results if one.value is False or (isinstance(one.value, tuple) and one.value[0] < one.value[1])
    ]
    return [text for one in failed if one.weight > 1 for text in one.msgs]


def test_the_cf_checker_has_nothing_to_say(small: tuple[Predicted, Model], tmp_path: Path) -> None:
    predicted, model = small
    write_netcdf(tmp_path / "a.nc", predicted, model, "now")
    assert faults(tmp_path / "a.nc") == []
    with h5py.File(tmp_path / "a.nc", "r+") as file:  # the checker is awake
        file["cloud_optical_depth"].attrs["units"] = "furlongs"
    assert any("furlongs" in text for text in faults(tmp_path / "a.nc"))


def test_a_file_without_positions_is_valid_too(tmp_path: Path) -> None:
    config = tiny_config(tmp_path)
    (tmp_path / "best.weights.h5").write_bytes(b"")
    model = Model(tmp_path, config, {"fingerprint": "0"}, brightness, None, "")
    predicted = predict_flight(model, unlabelled(write_flight(tmp_path / "a"), config))
    write_netcdf(tmp_path / "a.nc", predicted, model, "now")
    assert faults(tmp_path / "a.nc") == []
    with xr.open_dataset(tmp_path / "a.nc", engine="h5netcdf") as found:
        assert set(found.variables) == {"time", "cloud_optical_depth", "valid", "quality_flag"}
        assert "featureType" not in found.attrs


def test_a_picture_is_drawn_also_where_nothing_could_be_predicted(tmp_path: Path) -> None:
    config = tiny_config(tmp_path, {"temporal_frames": 15})
    folder = write_flight(tmp_path / "a", frame_s=START_S + 9.0 * np.arange(FRAMES) ** 1.5)
    config = tiny_config(tmp_path, {"data.camera.max_gap_s": 1.0})
    predicted = predict_flight(model_of(config, brightness), unlabelled(folder, config))
    assert not predicted.valid.any()
    assert quick_look(predicted, "a", "depth", "").write(tmp_path) == tmp_path / "a.png"


# --- where files go


def test_one_file_is_for_one_flight(tmp_path: Path) -> None:
    config = tiny_config(tmp_path)
    assert places(["a"], str(tmp_path / "x.nc"), None, config) == [tmp_path / "x.nc"]
    assert places(["a", "b"], str(tmp_path / "x"), None, config) == [tmp_path / "x" / "a.nc", tmp_path / "x" / "b.nc"]
    (tmp_path / "folder.nc").mkdir()
    assert places(["a"], str(tmp_path / "folder.nc"), None, config) == [tmp_path / "folder.nc" / "a.nc"]
    assert places(["a"], None, str(tmp_path / "own"), config) == [tmp_path / "own" / "a.nc"]
    assert places(["a"], None, None, config)[0].parent.name.startswith("prediction-")
    with pytest.raises(ConfigError, match=r"x\.nc: is one file, and there are 2 flights: a, b\. Give a folder"):
        places(["a", "b"], str(tmp_path / "x.nc"), None, config)
    with pytest.raises(ConfigError, match="-o and --run-dir both say where to write"):
        places(["a"], "x", "y", config)


# --- whole commands


def campaign(run: Path) -> Path:
    """The folder of the simulated flights that a run was trained on."""
    files = json.loads((run / "data.json").read_text())["files"]
    return Path(files["sim03"]["camera"]).parent.parent


@pytest.fixture(scope="module")
def bare(finished: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The test flight as a later campaign has it: camera and navigation only."""
    folder = tmp_path_factory.mktemp("bare") / "sim03"
    folder.mkdir()
    for path in (campaign(finished) / "sim03").iterdir():
        if path.name.startswith(("SIM", "NAV")):
            shutil.copy(path, folder)
    return folder


@pytest.mark.parametrize("exported", [False, True])
def test_the_numbers_are_those_of_evaluate_and_of_the_training(
    finished: Path, bare: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str], exported: bool
) -> None:
    source = finished.parent / "savedmodels" / "tiny" if exported else finished
    assert main(["predict", str(source), str(bare), "-o", str(tmp_path / "out.nc"), "--json"]) == 0
    told = json.loads(capsys.readouterr().out)
    with xr.open_dataset(tmp_path / "out.nc", engine="h5netcdf", decode_times=False) as found:
        time_s, depth, flags = found.time.values, found.cloud_optical_depth.values, found.quality_flag.values
    judged = evaluate(source, [str(campaign(finished) / "sim03")], {"evaluation.baselines": False}, Console(quiet=True))
    there = np.searchsorted(time_s, judged.samples.time_s)
    np.testing.assert_array_equal(time_s[there], judged.samples.time_s)
    np.testing.assert_allclose(depth[there], judged.scaling.physical(judged.predictions), atol=1e-5)
    np.testing.assert_allclose(depth[there], np.load(finished / "predictions.npz")["test_prediction"], atol=1e-5)
    assert told["frames"] == len(time_s)
    assert told["predicted"] == np.isfinite(depth).sum() > len(there)
    assert told["flags"] == {name: len(raised(flags, name)) for name in FLAGS}
    assert told["flags"]["sun_outside_training"] == len(time_s)  # the training flight's sun stood 7 degrees lower
    assert Path(told["files"][0]["picture"]) == tmp_path / "out.png"
    assert (tmp_path / "out.png").is_file()
    assert faults(tmp_path / "out.nc") == []


def test_several_flights_go_into_a_folder(finished: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    flights = campaign(finished)
    options = ["--set", "output.report=false"]
    arguments = ["predict", str(finished), str(flights / "sim02"), str(flights / "sim03"), *options]
    assert main([*arguments, "-o", str(tmp_path / "out")]) == 0
    assert sorted(path.name for path in (tmp_path / "out").iterdir()) == ["sim02.nc", "sim03.nc"]
    assert "sim02.nc: " in capsys.readouterr().out
    assert main([*arguments, "-o", str(tmp_path / "out.nc")]) == 2
    assert "is one file, and there are 2 flights" in capsys.readouterr().err
    assert not (tmp_path / "out.nc").exists()


def test_an_older_run_says_that_it_cannot_compare(finished: Path, bare: Path, tmp_path: Path, capsys: Any) -> None:
    for name in ("config.json", "data.json", "best.weights.h5"):
        shutil.copy(finished / name, tmp_path)
    description = json.loads((tmp_path / "data.json").read_text())
    del description["ranges"]
    (tmp_path / "data.json").write_text(json.dumps(description))
    assert main(["predict", str(tmp_path), str(bare), "-o", str(tmp_path / "out.nc"), "--json"]) == 0
    shown = capsys.readouterr()
    assert "was trained before training ranges were kept" in shown.err
    flags = json.loads(shown.out)["flags"]
    assert sum(count for name, count in flags.items() if "outside" in name) == 0


def test_what_does_not_fit_is_refused(finished: Path, bare: Path, tmp_path: Path, capsys: Any) -> None:
    arguments = ["predict", str(finished), str(bare), "-o", str(tmp_path / "out.nc")]
    assert main([*arguments, "--set", "data.camera.rows=[0, 8]"]) == 2
    assert "was trained on frames of shape (12, 12, 1)" in capsys.readouterr().err
    assert main([*arguments, "--set", "preprocessing.log_offset=0.1"]) == 2
    assert "cannot be changed after training" in capsys.readouterr().err
    assert main(["predict", str(tmp_path), str(bare)]) == 2
    assert "neither a run folder" in capsys.readouterr().err
    assert main(["predict", str(finished), str(tmp_path / "none")]) == 2
    assert "no such folder of flights" in capsys.readouterr().err
    assert list(tmp_path.iterdir()) == []


def test_a_flight_that_nothing_fits_is_written_and_told(
    finished: Path, bare: Path, tmp_path: Path, capsys: Any
) -> None:
    folder = Path(shutil.copytree(bare, tmp_path / "night"))
    with h5py.File(camera_file(folder), "r+") as file:
        file[SIGNAL][:] = 0
    with h5py.File(navigation_file(folder), "r+") as file:
        del file["nav/latitude"]
    assert main(["predict", str(finished), str(folder), "-o", str(tmp_path / "out.nc")]) == 0
    shown = capsys.readouterr().out
    assert "night: not one frame has a whole sequence around it" in shown
    assert "night: no positions" in shown


def test_an_ensemble_brings_its_interval(finished: Path, bare: Path, tmp_path: Path) -> None:
    """The same run twice: no spread, and the width that its validation flight asks for."""
    shutil.copytree(finished, tmp_path / "two")
    options = ["--scale", "constant", "--level", "0.8", "--set", "output.report=false"]
    places = ["--set", f"output.savedmodels={tmp_path / 'saved'}", "--run-dir", str(tmp_path / "ensemble")]
    assert main(["ensemble", str(finished), str(tmp_path / "two"), *options, *places]) == 0
    assert main(["predict", str(tmp_path / "saved" / "tiny_ensemble"), str(bare), "-o", str(tmp_path / "out.nc")]) == 0
    arrays = np.load(tmp_path / "ensemble" / "predictions.npz")
    with xr.open_dataset(tmp_path / "out.nc", engine="h5netcdf", decode_times=False) as found:
        there = np.searchsorted(found.time.values, arrays["test_time_s"])
        for key in ("lower", "upper", "spread"):
            values = found[f"cloud_optical_depth_{key}"].values[there]
            np.testing.assert_allclose(values, arrays[f"test_{key}"], atol=1e-4)
        assert "80 %" in found.cloud_optical_depth_lower.long_name
        assert found.cloud_optical_depth_lower.comment == "interval of the ensemble, calibrated on sim02"
    assert faults(tmp_path / "out.nc") == []


@pytest.mark.parametrize(("head", "target"), [("quantile", {}), ("histogram", {"transform": "log", "smearing": True})])
def test_a_head_with_a_distribution_brings_an_interval(
    cache: Path, bare: Path, tmp_path: Path, head: str, target: dict[str, Any]
) -> None:
    changes = {
        "data": {"cache": str(cache)},
        "output": {"runs": str(tmp_path), "savedmodels": str(tmp_path), "export": False, "report": False},
        "training": {"max_epochs": 1},
        "model": {"head": head},
        "loss": {"base": {"quantile": "pinball", "histogram": "cross_entropy"}[head]},
        "target": target,
        "evaluation": {"baselines": False},
    }
    (tmp_path / "tiny.json").write_text(json.dumps(merged(TINY, changes)))
    assert main(["train", str(tmp_path / "tiny.json"), "--run-dir", str(tmp_path / "run")]) == 0
    width = {}
    for level in (0.5, 0.8):
        path = tmp_path / f"{level}.nc"
        options = ["--set", f"prediction.level={level}", "-o", str(path)]
        assert main(["predict", str(tmp_path / "run"), str(bare), *options]) == 0
        with xr.open_dataset(path, engine="h5netcdf", decode_times=False) as found:
            low, value, high = (found[f"cloud_optical_depth{key}"].values for key in ("_lower", "", "_upper"))
            valid = found.valid.values == 1
            assert f"of the {head} head" in found.cloud_optical_depth_lower.comment
            there = np.searchsorted(found.time.values, np.load(tmp_path / "run" / "predictions.npz")["test_time_s"])
        assert (low[valid] < high[valid]).all()
        width[level] = (high - low)[valid].mean()
        expected = np.load(tmp_path / "run" / "predictions.npz")["test_prediction"]
        np.testing.assert_allclose(value[there], expected, atol=1e-5)
    assert width[0.5] < width[0.8]

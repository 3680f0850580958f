"""`cloudml check`: each planted fault is named and nothing else is blamed; healthy flights are left in peace."""

import json
import os
import shutil
from collections.abc import Callable
from pathlib import Path
from typing import Any

import flight_files as files
import h5py
import numpy as np
import pytest

from cloudml_tf.commands.check import check
from cloudml_tf.commands.main import main
from cloudml_tf.config.load import load_config, parse_config
from cloudml_tf.config.simulation import SimulationConfig
from cloudml_tf.data.simulation.simulator import simulate_flights
from cloudml_tf.diagnostics.check.survey import Checked
from cloudml_tf.utils.console import Console

ROOT = Path(__file__).parent.parent
SHARED = Path(os.environ.get("CLOUDML_SHARED", ROOT.parent / "shared"))
SIZE = {"flight_count": 4, "frames_per_flight": 800, "frame_rows": 16, "frame_columns": 16, "strip_width_m": 6400.0}
SPLIT = {"kind": "flights", "train": ["sim01", "sim02"], "val": ["sim03"], "test": ["sim04"]}
DEPTH = "layer_descriptor/Feature_Optical_Depth_532"
LAYERS = (DEPTH, *(f"layer_descriptor/{name}" for name in ("Number_Layers", "Opacity", "Feature_Type")))
HEIGHTS = ("layer_descriptor/Layer_Base_Altitude", "layer_descriptor/Layer_Top_Altitude")


@pytest.fixture(scope="module")
def simulated(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Four healthy flights, which tests copy and spoil."""
    settings = SimulationConfig.model_validate({**SIZE, "seed": 77})
    return simulate_flights(settings, tmp_path_factory.mktemp("healthy"))[0].parent


@pytest.fixture
def flights(simulated: Path, tmp_path: Path) -> Path:
    """A copy of them that a test may spoil."""
    return Path(shutil.copytree(simulated, tmp_path / "flights"))


def content(flights: Path, **changes: Any) -> dict[str, Any]:
    """A configuration for them; sections of `changes` replace whole sections."""
    base: dict[str, Any] = {
        "experiment_name": "planted",
        "split": SPLIT,
        "model": {"widths": [8, 8], "footprint": 5, "encoder_features": 16, "heads": 2, "head_units": 16},
        "training": {"learning_rate": 0.003},
        "evaluation": {"baselines": False},
        "data": {},
    }
    merged = {**base, **changes}
    apart = {"sun_angles": False}  # simulated flights have suns of their own: true, and not planted
    return {**merged, "data": {**apart, "path": str(flights), "cache": str(flights.parent / "cache"), **merged["data"]}}


def checked(flights: Path, **changes: Any) -> Checked:
    return check(parse_config(content(flights, **changes)), Console(), probe=False)


def blamed(found: Checked) -> set[str]:
    return {finding.name for finding in found.findings if finding.level in ("warning", "problem")}


def only(found: Checked) -> Any:
    """The one finding that blames something."""
    bad = [finding for finding in found.findings if finding.level in ("warning", "problem")]
    assert len(bad) == 1, bad
    assert bad[0].level == "problem"
    return bad[0]


def edit(folder: Path, pattern: str, dataset: str, change: Callable[[np.ndarray], np.ndarray]) -> None:
    """Rewrite a dataset of the one file that matches; its attributes stay."""
    with h5py.File(next(folder.glob(pattern)), "r+") as file:
        attributes, values = dict(file[dataset].attrs), file[dataset][()]
        del file[dataset]
        file.create_dataset(dataset, data=change(values)).attrs.update(attributes)


# --- nothing is wrong


@pytest.mark.no_cover
def test_healthy_flights_are_ready(flights: Path) -> None:
    found = checked(flights, evaluation={"baselines": True})
    assert blamed(found) == set()
    assert found.verdict == "ready to train"
    named = {finding.name for finding in found.findings}
    assert {"leak", "clock and boresight", "signal", "random split", "shuffled labels", "ceiling"} <= named
    assert found.numbers["ceiling"]["estimate"] > 0.9  # the oracle's
    assert max(found.numbers["baselines"]["shuffled_r2"].values()) < 0.1
    assert found.numbers["flights"]["sim01"]["parts"] == ["train"]


def test_blocks_of_time_are_ready(flights: Path) -> None:
    assert blamed(checked(flights, split={"kind": "time_blocks"})) == set()


@pytest.mark.no_cover
def test_the_seeds_simulation_is_ready(cache: Path) -> None:
    """configs/tier1.json with shorter flights."""
    changes = {"data.cache": str(cache), "data.simulation.frames_per_flight": 900, "evaluation.baselines": False}
    found = check(load_config(ROOT / "configs/tier1.json", changes), Console(), probe=False)
    assert blamed(found) == set()


@pytest.mark.skipif(not (SHARED / "data/les/flights").is_dir(), reason="needs the LES flights: set CLOUDML_SHARED")
@pytest.mark.slow
def test_third_party_imagery_is_ready(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    monkeypatch.setenv("CLOUDML_SHARED", str(SHARED))
    split = {"kind": "leave_one_out", "test": "les03", "exclude": ["les08", "les09", "les10"]}
    changes = {"split": split, "data.cache": str(tmp_path), "evaluation.baselines": False}
    found = check(load_config(ROOT / "configs/les.json", changes), Console(), probe=False)
    assert blamed(found) == set()


# --- one thing is wrong


@pytest.mark.parametrize("seconds", [3.0, -3.0])
def test_a_clock_that_is_off(flights: Path, seconds: float) -> None:
    for folder in flights.iterdir():
        edit(folder, "CPL*", files.DAYS, lambda days: days + seconds / 86400)
    found = checked(flights)
    finding = only(found)
    assert finding.name in ("clock", "clock or boresight")
    assert "all flights" in finding.evidence
    offset_s = found.numbers["alignment"]["all"]["clock_offset_s"]
    assert offset_s == pytest.approx(-seconds, abs=0.6)
    assert f"--set data.lidar.time_offset_s={offset_s:g}" in finding.action
    mended = checked(flights, data={"lidar": {"time_offset_s": offset_s}})
    assert blamed(mended) == set()


def test_one_fault_of_all_flights_is_one_finding(flights: Path) -> None:
    """A height label that is fill alone, and a misspelt channel."""
    for folder in flights.iterdir():
        edit(folder, "CPL*", HEIGHTS[0], lambda heights: np.full_like(heights, -9999.0))
    heights = {"target": {"name": "cloud_base_km", "maximum": None}, "data": {"geometry": None}}
    finding = only(checked(flights, **heights))
    assert finding.name == "4 flights"
    cause = f"data.lidar.base '{HEIGHTS[0]}' holds no usable value in "
    assert cause in finding.evidence
    assert "only fill values, negative or infinite ones; cloud_base_km cannot be trained" in finding.evidence
    assert "flight sim01" in finding.evidence
    assert finding.evidence.endswith("The same fault: sim02, sim03, sim04")
    assert "{" not in finding.evidence

    finding = only(checked(flights, data={"camera": {"channels": ["Product/Signl"]}}))
    assert finding.evidence.count("no dataset 'Product/Signl'") == 1
    assert finding.evidence.endswith("Nearest: 'Product/Signal'. The same fault: sim02, sim03, sim04")


def test_limits_of_labels_are_told_in_words(flights: Path) -> None:
    (finding,) = (
        one
        for one in checked(flights, target={"minimum": 3.0, "maximum": None}).findings
        if one.level == "problem" and "no label" in one.evidence
    )
    assert "no label for optical_depth between 3 and no maximum: " in finding.evidence
    assert " profiles out of range" in finding.evidence


def test_a_clock_that_is_off_in_one_flight(flights: Path) -> None:
    edit(flights / "sim02", "CPL*", files.DAYS, lambda days: days + 3.0 / 86400)
    finding = only(checked(flights))
    assert finding.name in ("clock", "clock or boresight")
    assert finding.evidence.startswith("sim02:")
    assert """--set 'split.train=["sim01"]'""" in finding.action


@pytest.mark.parametrize("rows", [4, -4])
def test_a_boresight_that_is_off_across_track(flights: Path, rows: int) -> None:
    found = checked(flights, data={"camera": {"boresight_offset": [rows, 0]}})
    finding = only(found)
    assert finding.name == "boresight"
    assert found.numbers["alignment"]["all"]["boresight_rows"] == pytest.approx(-rows, abs=1)
    assert "--set 'data.camera.boresight_offset=[" in finding.action


def test_a_boresight_that_is_off_along_track_may_be_the_clock(flights: Path) -> None:
    finding = only(checked(flights, data={"camera": {"boresight_offset": [0, -4]}}))
    assert finding.name in ("boresight", "clock or boresight")
    assert "columns from the nadir pixel" in finding.evidence


@pytest.mark.parametrize(("first", "last"), [(300, 500), (300, 320), (0, 800)])
def test_a_frozen_camera(flights: Path, first: int, last: int) -> None:
    def freeze(signal: np.ndarray) -> np.ndarray:
        signal[first:last] = signal[first]
        return signal

    edit(flights / "sim01", "*L1B*", files.SIGNAL, freeze)
    finding = only(checked(flights))
    assert finding.name == "frozen camera"
    assert finding.evidence.startswith("sim01:")
    assert f"from frame {first}" in finding.evidence


@pytest.mark.parametrize("spoiled", [["sim01", "sim02", "sim03", "sim04"], ["sim04"]])
def test_labels_in_metres(flights: Path, spoiled: list[str]) -> None:
    target = {"name": "cloud_base_km"}
    before = blamed(checked(flights, target=target))  # few independent heights: true, and said of healthy flights too
    for name in spoiled:
        for dataset in HEIGHTS:
            edit(flights / name, "CPL*", dataset, lambda km: np.where(km == files.FILL, km, 1000 * km))
    found = checked(flights, target=target)
    assert blamed(found) == before | {"labels in metres"}
    finding = next(finding for finding in found.findings if finding.name == "labels in metres")
    assert finding.level == "problem"
    assert all(name in finding.evidence for name in spoiled)
    if len(spoiled) == 4:  # all of them: a setting will do
        assert finding.action == "--set data.lidar.height_unit=m"
        assert blamed(checked(flights, target=target, data={"lidar": {"height_unit": "m"}})) == before
        return
    assert "scale_factor" in finding.action
    for name in spoiled:
        for dataset in HEIGHTS:
            with h5py.File(next((flights / name).glob("CPL*")), "r+") as file:
                file[dataset].attrs["scale_factor"] = 0.001  # as the action says
    assert blamed(checked(flights, target=target)) == before


@pytest.mark.parametrize(("name", "gain"), [("sim02", 2.0), ("sim04", 2.0), ("sim03", 0.5)])
def test_a_flight_with_another_gain(flights: Path, name: str, gain: float) -> None:
    edit(flights / name, "*L1B*", files.SIGNAL, lambda signal: (signal * gain).astype(signal.dtype))
    found = checked(flights)
    finding = only(found)
    assert finding.name == "gain"
    assert finding.evidence.startswith(f"{name}:")
    ratio = next(one["ratio"] for one in found.numbers["gain"] if one["flight"] == name)
    assert ratio == pytest.approx(gain, rel=0.15)


def test_a_gain_is_found_where_labels_say_nothing_about_brightness(flights: Path) -> None:
    """Heights hardly show in the image, and behind a wrong clock nothing does: then distributions are compared."""
    edit(flights / "sim02", "*L1B*", files.SIGNAL, lambda signal: (signal * 2.0).astype(signal.dtype))
    assert checked(flights, target={"name": "cloud_base_km"}).problems == ["gain"]
    for folder in flights.iterdir():
        edit(folder, "CPL*", files.DAYS, lambda days: days + 3.0 / 86400)
    assert checked(flights).problems == ["clock or boresight", "gain"]


@pytest.mark.parametrize(("name", "gain"), [("sim04", 1.35), ("sim02", 0.72)])
def test_brightness_that_ruins_the_next_flight_is_a_warning(flights: Path, name: str, gain: float) -> None:
    """Too little to be told from other clouds for sure, and enough that R² falls far under r²."""
    edit(flights / name, "*L1B*", files.SIGNAL, lambda signal: (signal * gain).astype(signal.dtype))
    found = checked(flights)
    finding = next(finding for finding in found.findings if finding.name == "gain")
    assert finding.level == "warning"
    assert f"{name} {'0.' if gain < 1 else '1.'}" in finding.evidence.split("outside of")[1]
    assert "R² falls far under r²" in finding.action
    assert "cloudml calibrate" in finding.action
    assert "--set augmentation.gain_std=0." in finding.action


def test_baselines_that_read_the_test_flight_at_another_level_are_a_warning(flights: Path) -> None:
    edit(flights / "sim04", "*L1B*", files.SIGNAL, lambda signal: (signal * 1.4).astype(signal.dtype))
    found = checked(flights, evaluation={"baselines": True})
    finding = next(finding for finding in found.findings if finding.name == "signal")
    assert finding.level == "warning"
    assert "over its R²" in finding.evidence
    assert "unit of the labels" in finding.action


def test_labels_of_another_scale_are_not_blamed_on_the_images_alone(flights: Path) -> None:
    edit(flights / "sim04", "CPL*", DEPTH, lambda depth: np.where(depth > 0, 0.4 * depth, depth))
    finding = next(f for f in checked(flights, target={"minimum": 0.02}).findings if f.name == "gain")
    assert finding.level in ("problem", "warning")
    assert "labels of another unit or scale look the same" in finding.action or "unit" in finding.action


def test_lidar_files_of_two_flights_that_were_exchanged(flights: Path) -> None:
    pairs = {"sim01": "sim02", "sim02": "sim01"}
    kept = {}
    for name in pairs:
        with h5py.File(next((flights / name).glob("CPL*"))) as file:
            kept[name] = {key: file[key][()] for key in LAYERS}
    for name, other in pairs.items():
        for key in LAYERS:
            edit(flights / name, "CPL*", key, lambda _, new=kept[other][key]: new)
    finding = only(checked(flights))
    assert finding.name == "foreign labels"
    assert "labels of sim01 fit the frames of sim02" in finding.evidence
    assert "labels of sim02 fit the frames of sim01" in finding.evidence
    assert "its own lidar file" in finding.action


def test_a_flight_whose_labels_are_all_equal(flights: Path) -> None:
    def flat(depth: np.ndarray) -> np.ndarray:
        first = np.arange(depth.shape[1]) == 0
        return np.where(depth > 0, np.where(first, 0.9, 0.0), depth)

    edit(flights / "sim02", "CPL*", DEPTH, flat)
    found = checked(flights)
    assert blamed(found) == {"equal labels"}
    finding = next(finding for finding in found.findings if finding.name == "equal labels")
    assert "sim02: 100% of" in finding.evidence
    assert "labels are 0.9" in finding.evidence


def test_clear_sky_in_the_test_flight_alone(flights: Path) -> None:
    """No profile of the training is clear; half of the test flight's are."""
    for name in ("sim01", "sim02", "sim03"):
        clear = None
        with h5py.File(next((flights / name).glob("CPL*"))) as file:
            clear = np.where(file[DEPTH][()] > 0, file[DEPTH][()], 0.0).sum(axis=1) < 0.1
        edit(flights / name, "CPL*", LAYERS[2], lambda opaque, where=clear: np.where(where, 1, opaque))
    edit(flights / "sim04", "CPL*", LAYERS[1], lambda number: np.where(np.arange(len(number)) % 2, number, 0))
    zeros = {"target": {"minimum": 0.0}, "data": {"lidar": {"clear_sky": "zero"}}}
    finding = next(f for f in checked(flights, **zeros).findings if f.name == "unseen labels")
    assert finding.level == "warning"
    assert "sim04 (test): " in finding.evidence
    assert "under all those of the training" in finding.evidence


def test_the_same_file_twice_is_a_leak(flights: Path) -> None:
    shutil.copytree(flights / "sim01", flights / "again")
    finding = only(checked(flights, split={**SPLIT, "test": ["again"]}))
    assert finding.name == "leak"
    assert "same camera file" in finding.evidence


@pytest.mark.parametrize("noise", [0.0, 0.01])
def test_the_same_scenes_in_another_file_are_a_leak(flights: Path, noise: float) -> None:
    """Bytes differ: the copy is cut out of the flight and, once, noisy."""
    rng = np.random.default_rng(5)
    shutil.copytree(flights / "sim02", flights / "again")
    for folder, pattern in ((flights / "again", "*L1B*"), (flights / "again", "NAV*")):
        with h5py.File(next(folder.glob(pattern))) as file:
            names: list[str] = []
            file.visititems(lambda name, item, to=names: to.append(name) if isinstance(item, h5py.Dataset) else None)
        for name in names:
            edit(folder, pattern, name, lambda values: values[100:])
    edit(
        flights / "again",
        "*L1B*",
        files.SIGNAL,
        lambda signal: (signal * (1.0 + noise * rng.standard_normal(signal.shape))).astype(signal.dtype),
    )
    finding = only(checked(flights, split={**SPLIT, "test": ["again"]}))
    assert finding.name == "leak"
    assert "show the scenes of" in finding.evidence
    same_part = checked(flights, split={**SPLIT, "train": ["again", "sim01", "sim02"]})
    assert blamed(same_part) == {"copied frames"}
    assert same_part.problems == []


def test_sequences_over_the_cut_are_a_leak(flights: Path) -> None:
    found = checked(flights, split={"kind": "time_blocks", "gap_s": 0}, temporal_frames=7)
    assert only(found).name == "leak"
    assert "frames of flight" in only(found).evidence


def test_black_frames_are_counted_and_nothing_more(flights: Path) -> None:
    def darken(signal: np.ndarray) -> np.ndarray:
        signal[100:150] = 0
        return signal

    edit(flights / "sim02", "*L1B*", files.SIGNAL, darken)
    found = checked(flights)
    assert blamed(found) == {"black frames"}
    assert found.problems == []
    assert found.numbers["flights"]["sim02"]["bad_frames"] >= 50


def test_imagery_without_a_signal_is_told(cache: Path) -> None:
    simulation = {**SIZE, "frames_per_flight": 1200, "preset": "no_signal", "seed": 5}
    data = {"cache": str(cache), "simulation": simulation, "sun_angles": False}
    config = parse_config({"experiment_name": "none", "split": SPLIT, "data": data})
    found = check(config, Console(), probe=False)
    assert blamed(found) == {"signal"}
    assert "no baseline beats the mean" in next(f.evidence for f in found.findings if f.name == "signal")


# --- where a training would stop at once


def test_flights_that_cannot_be_used_are_all_named(tmp_path: Path) -> None:
    root = tmp_path / "flights"
    long = {"frame_s": files.START_S + np.arange(400.0), "profile_s": files.START_S + np.arange(2.0, 400.0, 4.0)}
    for seed, name in enumerate("abcdef"):
        files.write_flight(root / name, **{"seed": seed, **long})
    files.camera_file(root / "b").write_bytes(b"no HDF5")
    files.write_flight(root / "d", seed=8, **{**long, "label": np.full(100, 7.0)})
    files.write_flight(root / "e", seed=9, **long, camera={files.SIGNAL: np.zeros((400, 8, 10), "uint16")})
    split = {"kind": "flights", "train": ["a", "b", "d"], "val": ["c"], "test": ["e", "f"]}
    found = check(files.tiny_config(tmp_path, {"split": split, "evaluation.baselines": False}), Console(), probe=False)
    assert {"flight b", "flight d", "flight e", "black frames"} == set(found.problems)
    said = {finding.name: finding.evidence for finding in found.findings}
    assert "not an HDF5 file" in said["flight b"]
    assert "no label for optical_depth" in said["flight d"]


def test_a_split_that_names_no_flight(tmp_path: Path) -> None:
    files.write_three_flights(tmp_path / "flights")
    split = {"kind": "flights", "train": ["a"], "val": ["b"], "test": ["x"]}
    found = check(files.tiny_config(tmp_path, {"split": split}), Console(), probe=False)
    assert "split.test names flight 'x'" in only(found).evidence


def test_few_constant_labels(tmp_path: Path) -> None:
    files.write_three_flights(tmp_path / "flights", label=np.full(10, 1.0))
    found = check(files.tiny_config(tmp_path), Console(), probe=False)
    assert found.problems == ["train split", "val split", "test split"]


# --- the sun


def sun(home: Path, navigation: dict[str, dict[str, np.ndarray]], **changes: Any) -> list[Any]:
    """The findings of the sun on three tiny flights; `navigation` replaces angles by flight."""
    for seed, name in enumerate("abc"):
        files.write_flight(home / "flights" / name, seed=seed, navigation=navigation.get(name))
    config = files.tiny_config(home, {"evaluation.baselines": False, **changes})
    return [f for f in check(config, Console(), probe=False).findings if f.name == "sun"]


def test_a_sun_that_training_has_shown_is_told_with_its_ranges(tmp_path: Path) -> None:
    azimuth, within = np.linspace(150.0, 190.0, files.FRAMES), {files.AZIMUTH: np.full(files.FRAMES, 170.0)}
    (found,) = sun(tmp_path, {"a": {files.AZIMUTH: azimuth}, "b": within, "c": within})
    assert found.level == "ok"
    assert "zenith 40° and azimuth from the heading 6" in found.evidence


def test_a_test_flight_under_another_sun_is_named_with_the_flags_rule(tmp_path: Path) -> None:
    """130 degrees to the left is the mirror image of 130 to the right; a degree is the same sun; half is not most."""
    train = {files.AZIMUTH: 90.0 + np.linspace(60.0, 115.0, files.FRAMES), files.ZENITH: np.full(files.FRAMES, 40.0)}
    half = {
        files.ZENITH: np.where(np.arange(files.FRAMES) < 22, 41.0, 70.0),
        files.AZIMUTH: np.full(files.FRAMES, 170.0),
    }
    test = {files.AZIMUTH: np.full(files.FRAMES, 320.0)}
    (found,) = sun(tmp_path, {"a": train, "b": half, "c": test})
    assert found.level == "warning"
    assert found.evidence.startswith("test flight c: azimuth 130°, training has 6")
    assert "zenith" not in found.evidence
    assert "--set data.sun_angles=false" in found.action


@pytest.mark.parametrize("elevation", [False, True])
def test_radians_that_are_read_as_degrees_are_a_problem(tmp_path: Path, elevation: bool) -> None:
    angles = {files.ZENITH: np.full(files.FRAMES, 0.7), files.AZIMUTH: np.full(files.FRAMES, 2.6)}
    changes = {"data.navigation.elevation": elevation}
    (found,) = sun(tmp_path, dict.fromkeys("abc", angles), **changes)
    assert (found.level, found.action) == ("problem", "--set data.navigation.angle_unit=rad")
    assert "0.70 to 0.70 on all flights" in found.evidence
    (mended,) = sun(tmp_path, dict.fromkeys("abc", angles), **changes, **{"data.navigation.angle_unit": "rad"})
    assert mended.level == "ok"


def test_a_sun_below_the_horizon_and_one_dataset_for_two_angles(tmp_path: Path) -> None:
    found = sun(tmp_path, {"b": {files.ZENITH: np.full(files.FRAMES, 95.0)}})
    assert [one.level for one in found] == ["warning", "warning"]
    assert "below the horizon: b 95°" in found[0].evidence
    (found,) = sun(tmp_path, {}, **{"data.navigation.solar_azimuth": files.ZENITH})
    assert found.level == "problem"
    assert "solar_zenith and solar_azimuth are the same dataset, 'nav/solarZenith'" in found.evidence
    assert sun(tmp_path, {}, **{"data.sun_angles": False}) == []


# --- the command


def test_the_command_prints_writes_and_exits(flights: Path, tmp_path: Path, capsys) -> None:
    path = tmp_path / "config.json"
    path.write_text(json.dumps(content(flights)))
    assert main(["check", str(path), "--json", "--run-dir", str(tmp_path / "out")]) == 0
    shown = capsys.readouterr()
    printed = json.loads(shown.out)
    assert printed == json.loads((tmp_path / "out" / "check.json").read_text())
    assert printed["ready"] is True
    assert printed["probe"]["r2"] > 0.8
    assert "overfit one batch" in shown.err
    assert (tmp_path / "out" / "check.png").stat().st_size > 10_000
    blind = ["check", str(path), "--set", "data.camera.boresight_offset=[4,0]", "--no-probe"]
    assert main(blind) == 2
    shown = capsys.readouterr()
    assert "fix first: boresight" in shown.out
    assert "→ --set 'data.camera.boresight_offset=[" in shown.out


def test_a_network_that_cannot_learn_one_batch_is_told(flights: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("cloudml_tf.diagnostics.check.trials.PROBE_STEPS", 40)
    beside = {"further": ["cloud_base_km"]}  # a batch has both
    config = parse_config(content(flights, training={"learning_rate": 1e-7}, target=beside))
    found = check(config, Console())
    assert only(found).name == "overfit one batch"
    assert "after 40 steps" in only(found).evidence

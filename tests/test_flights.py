"""Three instrument files to a checked flight: clocks, gaps, navigation, features, and faults of the files."""

import shutil
from pathlib import Path
from typing import Any

import h5py
import numpy as np
import pytest
from flight_files import (
    AZIMUTH,
    DAYS,
    FRAME_TIME,
    HEADING,
    SIGNAL,
    START_S,
    ZENITH,
    camera_file,
    day_of_year,
    images,
    lidar_file,
    navigation_file,
    tiny_config,
    utc,
    write_flight,
    write_three_flights,
)

from cloudml_tf.config.data import Data
from cloudml_tf.data.readers.flights import Flight, load_flight
from cloudml_tf.data.readers.folders import find_flights, flight_files
from cloudml_tf.data.sources import find_named
from cloudml_tf.utils.errors import DataError

NAN = np.nan
HOUR_S = 3600.0


def load(folder: Path, **changes: Any) -> Flight:
    """The flight of a folder. `changes` are configuration paths with __ for the dot: data__sun_angles=False."""
    config = tiny_config(folder, {key.replace("__", "."): value for key, value in changes.items()})
    return load_flight(folder.name, flight_files(folder, config.data), config.data, config.target)


def labelled(flight: Flight) -> dict[int, float]:
    """Frame index to label."""
    return {int(i): float(flight.label[i]) for i in np.flatnonzero(np.isfinite(flight.label))}


# --- a flight without faults


def test_a_whole_flight(tmp_path: Path) -> None:
    label = np.linspace(0.2, 1.9, 10)
    flight = load(write_flight(tmp_path / "a", label=label))
    assert flight.name == "a"
    assert len(flight) == 40
    assert flight.frame_shape == (8, 10, 1)
    np.testing.assert_allclose(flight.time_s, START_S + np.arange(40))
    assert labelled(flight) == pytest.approx(dict(zip(range(2, 40, 4), label, strict=True)))
    np.testing.assert_array_equal(flight.piece, 0)
    np.testing.assert_allclose(flight.sun_angles_deg, [[40.0, 60.0]] * 40)  # azimuth 150 seen from heading 90
    assert flight.features.shape == (40, 0)
    assert flight.latitude_deg[0] == 30.0
    assert flight.counts["frames labelled"] == 10


def test_averaging_labels_every_frame_of_a_span(tmp_path: Path) -> None:
    profile_s = START_S + np.array([10.0, 20.0])
    folder = write_flight(tmp_path, profile_s=profile_s, label=[0.5, 1.5], half_span_s=2.2)
    found = labelled(load(folder, data__lidar__match="average"))
    assert found == pytest.approx({**dict.fromkeys(range(8, 13), 0.5), **dict.fromkeys(range(18, 23), 1.5)})


# --- clocks


@pytest.mark.parametrize(("shift_s", "count"), [(0.4, 8), (-0.4, 8), (0.6, 0), (-0.6, 0)])
def test_lidar_and_camera_clocks_may_differ_by_half_a_second(tmp_path: Path, shift_s: float, count: int) -> None:
    frame_s = START_S + 5.0 * np.arange(10)
    flight = load(write_flight(tmp_path, frame_s=frame_s, profile_s=frame_s[1:9] + shift_s))
    assert len(labelled(flight)) == count


def test_the_tolerance_is_a_setting(tmp_path: Path) -> None:
    frame_s = START_S + 5.0 * np.arange(10)
    folder = write_flight(tmp_path, frame_s=frame_s, profile_s=frame_s[1:9] + 0.6)
    assert len(labelled(load(folder, data__lidar__tolerance_s=0.7))) == 8


@pytest.mark.parametrize(("unit", "scale"), [("hours", 3600.0), ("ms", 1e-3), ("days", 86400.0)])
def test_camera_times_in_another_unit_are_read_by_attribute_or_setting(tmp_path: Path, unit: str, scale: float) -> None:
    times = (START_S + np.arange(40)) / scale
    attributes = {FRAME_TIME: {"units": f"{unit} since 1970-01-01 00:00:00"}}
    folder = write_flight(tmp_path / "a", camera={FRAME_TIME: times}, attributes=attributes)
    np.testing.assert_allclose(load(folder).time_s, START_S + np.arange(40), atol=1e-3)
    folder = write_flight(tmp_path / "b", camera={FRAME_TIME: times})
    setting = {"hours": "h", "ms": "ms", "days": "d"}[unit]
    found = load(folder, data__camera__time_unit=setting).time_s
    np.testing.assert_allclose(found, START_S + np.arange(40), atol=1e-3)


def test_a_wrong_unit_is_told_with_the_shift_and_the_setting(tmp_path: Path) -> None:
    folder = write_flight(tmp_path, camera={FRAME_TIME: (START_S + np.arange(40)) * 1000})
    with pytest.raises(DataError, match=r"do not overlap .* [-+]\d+\.\d\d h after the camera\. .* time_unit"):
        load(folder)


def test_another_zone_is_told_in_hours_and_mended_by_the_offset(tmp_path: Path) -> None:
    local = START_S + np.arange(40) - 7 * HOUR_S
    folder = write_flight(tmp_path, camera={FRAME_TIME: local})
    with pytest.raises(DataError, match=r"starts \+7\.00 h after the camera.*data\.camera\.time_offset_s") as error:
        load(folder)
    assert str(camera_file(folder)) in str(error.value)
    assert str(lidar_file(folder)) in str(error.value)
    assert len(labelled(load(folder, data__camera__time_offset_s=7 * HOUR_S))) == 10


def test_an_unknown_time_unit_names_the_file(tmp_path: Path) -> None:
    folder = write_flight(tmp_path, attributes={FRAME_TIME: {"units": "fortnights since 1970-01-01"}})
    with pytest.raises(DataError, match=r"L1B.*fortnights.*data\.camera\.time_unit"):
        load(folder)


def test_the_wrong_year_is_told(tmp_path: Path) -> None:
    folder = write_flight(tmp_path, lidar_name="CPL_L2_03jun23.hdf5")
    with pytest.raises(DataError, match=r"do not overlap .*data\.lidar\.year"):
        load(folder)


@pytest.mark.parametrize(
    ("midnight", "year", "name", "only_fraction"),
    [
        (utc(2024, 6, 4), 2024, "CPL_L2_03jun24.hdf5", False),
        (utc(2024, 6, 4), 2024, "CPL_L2_03jun24.hdf5", True),
        (utc(2024, 1, 1), 2023, "CPL_L2_31dec23.hdf5", False),
    ],
    ids=["midnight", "midnight by fraction", "new year"],
)
def test_labels_go_on_through_midnight_and_new_year(
    tmp_path: Path, midnight: float, year: int, name: str, only_fraction: bool
) -> None:
    frame_s = midnight - 20 + np.arange(40)
    profile_s = midnight + np.arange(-18.0, 19.0, 4.0)
    days = day_of_year(np.stack([profile_s - 2, profile_s, profile_s + 2], axis=1), year)
    if year == 2023:
        days = np.where(days >= 366.0, days - 365.0, days)
    if only_fraction:
        days = np.floor(days.min()) + days % 1.0
    folder = write_flight(tmp_path, frame_s=frame_s, profile_s=profile_s, lidar={DAYS: days}, lidar_name=name)
    assert sorted(labelled(load(folder))) == list(range(2, 40, 4))


# --- order and gaps of the frames


def test_unsorted_and_duplicated_frames_come_out_in_order_and_once(tmp_path: Path) -> None:
    order = np.array([5, *range(40)])
    order[[10, 30]] = order[[30, 10]]
    heading = np.arange(41.0)
    folder = write_flight(tmp_path, frame_s=START_S + order, navigation={HEADING: heading, AZIMUTH: np.zeros(41)})
    flight = load(folder)
    assert len(flight) == 40
    assert (np.diff(flight.time_s) == 1.0).all()
    assert flight.counts["frames duplicated"] == 1
    np.testing.assert_array_equal(order[flight.row], np.arange(40))
    np.testing.assert_allclose(flight.sun_angles_deg[:, 1], -heading[flight.row])  # navigation goes with its frame


def test_frames_without_a_time_are_left_out(tmp_path: Path) -> None:
    frame_s = START_S + np.arange(40)
    frame_s[[3, 7]] = [NAN, -9999.0]
    flight = load(write_flight(tmp_path, camera={FRAME_TIME: frame_s}))
    assert len(flight) == 38
    assert flight.counts["frames without a time"] == 2


def test_gaps_cut_a_flight_into_pieces(tmp_path: Path) -> None:
    frame_s = START_S + np.concatenate([np.arange(20), 30 + np.arange(20)])
    folder = write_flight(tmp_path, frame_s=frame_s)
    np.testing.assert_array_equal(load(folder).piece, np.repeat([0, 1], 20))
    np.testing.assert_array_equal(load(folder, data__camera__max_gap_s=20).piece, 0)


# --- navigation


def test_short_runs_of_nan_are_filled_across_north(tmp_path: Path) -> None:
    heading = np.full(40, 0.0)
    azimuth = np.concatenate([np.full(10, 359.0), np.full(3, NAN), np.full(27, 3.0)])
    flight = load(write_flight(tmp_path, navigation={HEADING: heading, AZIMUTH: azimuth}))
    np.testing.assert_allclose(flight.sun_angles_deg[9:14, 1], [-1, 0, 1, 2, 3], atol=1e-3)  # never through 180
    assert flight.counts["frames without sun angles"] == 0


@pytest.mark.parametrize(("run", "filled"), [(4, True), (5, False)])
def test_longer_runs_than_the_limit_stay_nan(tmp_path: Path, run: int, filled: bool) -> None:
    zenith = np.full(40, 40.0)
    zenith[10 : 10 + run] = NAN
    zenith[30] = np.inf
    flight = load(write_flight(tmp_path, navigation={ZENITH: zenith}), data__navigation__max_filled_frames=4)
    missing = np.flatnonzero(np.isnan(flight.sun_angles_deg).any(axis=1))
    assert missing.tolist() == ([] if filled else list(range(10, 10 + run)))


def test_runs_at_either_end_have_one_side_only_and_stay_nan(tmp_path: Path) -> None:
    zenith = np.full(40, 40.0)
    zenith[:2] = zenith[-1] = NAN
    flight = load(write_flight(tmp_path, navigation={ZENITH: zenith}))
    assert np.flatnonzero(np.isnan(flight.sun_angles_deg[:, 0])).tolist() == [0, 1, 39]
    assert flight.counts["frames without sun angles"] == 3


def test_no_sun_angles_needs_no_navigation_file(tmp_path: Path) -> None:
    folder = write_flight(tmp_path)
    navigation_file(folder).unlink()
    assert load(folder, data__sun_angles=False).sun_angles_deg is None
    with pytest.raises(DataError, match=r"no navigation file.*NAV_\*\.h5.*data\.navigation\.files"):
        load(folder)


# --- further features


def test_features_come_from_all_three_files_in_the_order_of_the_configuration(tmp_path: Path) -> None:
    folder = write_flight(
        tmp_path,
        camera={"Aux/Temperature": 280.0 + np.arange(40)},
        lidar={"aux/snr": np.arange(10.0)},
        navigation={"nav/roll": np.stack([np.zeros(40), -np.arange(40.0), np.zeros(40)], axis=1)},
    )
    features = [
        {"name": "roll", "file": "navigation", "dataset": "nav/roll"},
        {"name": "snr", "file": "lidar", "dataset": "aux/snr"},
        {"name": "temperature", "file": "camera", "dataset": "Aux/Temperature"},
    ]
    flight = load(folder, data__features=features)
    frame = np.arange(40)
    nearest_profile = np.clip(np.ceil((frame - 4) / 4), 0, 9)  # profiles at 2, 6, ...; a tie goes to the earlier
    np.testing.assert_allclose(flight.features, np.stack([-frame, nearest_profile, 280 + frame], axis=1))


def test_lidar_features_follow_unsorted_profiles(tmp_path: Path) -> None:
    second = np.array([30.0, 10.0, 20.0])
    folder = write_flight(tmp_path, profile_s=START_S + second, lidar={"aux/second": second})
    features = [{"name": "second", "file": "lidar", "dataset": "aux/second"}]
    np.testing.assert_array_equal(load(folder, data__features=features).features[[10, 20, 30], 0], [10, 20, 30])


@pytest.mark.parametrize("role", ["camera", "lidar", "navigation"])
def test_a_feature_of_the_wrong_length_is_refused_by_name(tmp_path: Path, role: str) -> None:
    folder = write_flight(tmp_path, **{role: {"aux/x": np.arange(7.0)}})  # type: ignore[arg-type]
    with pytest.raises(DataError, match=r"'aux/x' of feature 'extra' must have one row .*Received: 7"):
        load(folder, data__features=[{"name": "extra", "file": role, "dataset": "aux/x"}])


# --- finding the files


def test_a_folder_of_flights_or_a_flight_itself(tmp_path: Path) -> None:
    root = write_three_flights(tmp_path / "flights")
    (root / "notes").mkdir()
    data = tiny_config(tmp_path).data
    assert sorted(find_flights(root, data)) == ["a", "b", "c"]
    assert sorted(find_flights(root / "b", data)) == ["b"]


def test_a_flight_in_the_working_folder_has_its_name(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(write_flight(tmp_path / "a"))
    assert list(find_flights(Path("."), tiny_config(tmp_path).data)) == ["a"]


def test_no_flights_and_two_lidar_files_are_told(tmp_path: Path) -> None:
    data = tiny_config(tmp_path).data
    with pytest.raises(DataError, match=r"nowhere: no such folder of flights\. Set data\.path"):
        find_flights(tmp_path / "nowhere", data)
    with pytest.raises(DataError, match=r"no camera file .*See data\.camera\.files"):
        find_flights(tmp_path, data)
    folder = write_flight(tmp_path / "a")
    (folder / "CPL_L2_copy_03jun24.hdf5").write_bytes(lidar_file(folder).read_bytes())
    with pytest.raises(DataError, match=r"2 lidar files \(.*\); one is needed .*data\.lidar\.files.*data\.flights"):
        find_flights(tmp_path, data)


BY_NAME = {"camera": "cam_*.h5", "lidar": "cpl-*_L2.hdf5", "navigation": "state_*.h5"}


def by_name(home: Path, folders: dict[str, str], days: tuple[str, ...] = ("0503", "0504")) -> tuple[Path, Data]:
    """The files of two flights under other names, in a folder for each role or in one for all."""
    made, root = write_three_flights(home / "made"), home / "campaign"
    takers = {"camera": camera_file, "lidar": lidar_file, "navigation": navigation_file}
    for flight, day in zip("ab", days, strict=True):
        for role, take in takers.items():
            (root / folders[role]).mkdir(parents=True, exist_ok=True)
            shutil.copy(take(made / flight), root / folders[role] / BY_NAME[role].replace("*", day))
    data = tiny_config(home, {"data": {role: {"files": [name]} for role, name in BY_NAME.items()}}).data
    return root, data


@pytest.mark.parametrize(
    "folders",
    [
        dict.fromkeys(BY_NAME, "all"),
        {"camera": "imager", "lidar": "lidar", "navigation": "aircraft"},
        {"camera": "imager", "lidar": "lidar", "navigation": "imager"},
    ],
    ids=["one folder", "three folders", "two folders"],
)
def test_flights_that_share_folders_go_together_by_name(tmp_path: Path, folders: dict[str, str]) -> None:
    root, data = by_name(tmp_path, folders)
    found = find_flights(root, data)
    assert list(found) == ["0503", "0504"]
    for day, files in found.items():
        for role, name in BY_NAME.items():
            assert getattr(files, role) == str(root / folders[role] / name.replace("*", day))
    (root / folders["lidar"] / "cpl-0504_L2.hdf5").unlink()
    assert list(find_flights(root, data, labels=False)) == ["0503", "0504"]
    with pytest.raises(DataError, match=r"cam_0504.h5: one lidar file is needed with '0504' for the \* of cpl-\*_L2"):
        find_flights(root, data)


def test_one_flight_whose_files_lie_apart(tmp_path: Path) -> None:
    root, data = by_name(tmp_path, {"camera": "imager", "lidar": "lidar", "navigation": "aircraft"})
    for path in root.rglob("*0504*"):
        path.unlink()
    assert list(find_flights(root, data)) == ["0503"]


def test_flights_are_named_by_folder_camera_file_or_what_the_model_knows(tmp_path: Path) -> None:
    root, data = by_name(tmp_path, {"camera": "imager", "lidar": "lidar", "navigation": "aircraft"})
    config = tiny_config(tmp_path).model_copy(update={"data": data})
    whole = find_named([str(root)], config, {})
    assert list(whole) == ["0503", "0504"]
    known = {name: files.model_dump() for name, files in whole.items()}
    assert find_named(["0504"], config, known) == {"0504": whole["0504"]}
    assert find_named([whole["0503"].camera], config, {}) == {"0503": whole["0503"]}
    with pytest.raises(DataError, match=r"0505: is no folder with flights, and no flight that .* \(0503, 0504\)"):
        find_named(["0505"], config, known)
    with pytest.raises(DataError, match="is no camera file whose partners can be found"):
        find_named([str(whole["0503"].lidar)], config, known)
    with pytest.raises(DataError, match="two flights are called 0504"):
        find_named([str(root), "0504"], config, known)


# --- faults of the files


def truncate(path: Path) -> None:
    path.write_bytes(path.read_bytes()[: path.stat().st_size // 2])


@pytest.mark.parametrize("which", [camera_file, lidar_file, navigation_file])
@pytest.mark.parametrize(
    ("spoil", "message"),
    [
        (truncate, "is truncated; copy it again"),
        (lambda path: path.write_text("not data"), "is not an HDF5 file"),
        (lambda path: path.write_bytes(b""), "is not an HDF5 file"),
    ],
    ids=["truncated", "text", "empty"],
)
def test_a_spoilt_file_is_named(tmp_path: Path, which: Any, spoil: Any, message: str) -> None:
    folder = write_flight(tmp_path)
    spoil(which(folder))
    with pytest.raises(DataError, match=message) as error:
        load(folder)
    assert str(which(folder)) in str(error.value)


def test_a_missing_file_is_named(tmp_path: Path) -> None:
    folder = write_flight(tmp_path)
    config = tiny_config(tmp_path)
    files = flight_files(folder, config.data)
    lidar_file(folder).unlink()
    with pytest.raises(DataError, match=r"CPL_.*: no such file"):
        load_flight("a", files, config.data, config.target)


@pytest.mark.parametrize(
    ("camera", "settings", "message"),
    [
        ({SIGNAL: None, "Product/Signals": images()}, {}, r"no dataset 'Product/Signal' .*Nearest: 'Product/Signals'"),
        ({SIGNAL: images()[0]}, {}, r"data\.camera\.channels\) must have 3 dimensions\. Received: shape \(8, 10\)"),
        ({SIGNAL: np.full((40, 8, 10), b"x")}, {}, r"data\.camera\.channels\) must hold numbers\. Received: type"),
        ({SIGNAL: images()[:0]}, {}, "'Product/Signal' holds no frame"),
        ({FRAME_TIME: np.arange(39.0)}, {}, r"'Time/TimeUTC' must have one time per frame, 40\. Received: 39"),
        ({FRAME_TIME: np.full(40, NAN)}, {}, "'Time/TimeUTC' holds no finite time"),
        ({FRAME_TIME: None}, {}, r"no dataset 'Time/TimeUTC' \(.*data\.camera\.time\)"),
        (
            {"Product/Second": images(height=9)},
            {"channels": [SIGNAL, "Product/Second"]},
            r"channels differ in shape: .*data\.camera\.channels",
        ),
        ({}, {"channels": ["Product"]}, r"no dataset 'Product'"),
        ({}, {"rows": [2, 9]}, r"data\.camera\.rows \[2, 9\] does not fit 8 rows"),
        ({}, {"columns": [6, 6]}, r"data\.camera\.columns \[6, 6\] does not fit 10 columns"),
        ({}, {"downsample": 9}, r"nothing is left of a frame after data\.camera\.downsample 9"),
    ],
)
def test_a_faulty_camera_file_is_refused_by_field(
    tmp_path: Path, camera: dict[str, Any], settings: dict[str, Any], message: str
) -> None:
    folder = write_flight(tmp_path, camera=camera)
    with pytest.raises(DataError, match=message) as error:
        load(folder, **{f"data__camera__{key}": value for key, value in settings.items()})
    assert str(camera_file(folder)) in str(error.value)


@pytest.mark.parametrize(
    ("navigation", "message"),
    [
        ({AZIMUTH: None, "nav/sunAzA": np.zeros(40), "sunAzB": np.zeros(40)}, r"Nearest: 'nav/sunAzA', 'sunAzB'\."),
        ({HEADING: None, "nav/headng": np.zeros(40)}, r"no dataset 'nav/heading' .*Nearest: 'nav/headng'"),
        ({ZENITH: np.zeros(41)}, r"'nav/solarZenith' must have one row per camera frame, 40\. Received: 41"),
        ({AZIMUTH: np.zeros((40, 3))}, r"data\.navigation\.solar_azimuth\) must have 1 dimensions"),
        ({AZIMUTH: np.full(40, b"north")}, r"data\.navigation\.solar_azimuth\) must hold numbers"),
    ],
)
def test_a_faulty_navigation_file_is_refused_by_field(tmp_path: Path, navigation: Any, message: str) -> None:
    folder = write_flight(tmp_path, navigation=navigation)
    with pytest.raises(DataError, match=message) as error:
        load(folder)
    assert str(navigation_file(folder)) in str(error.value)


def test_a_file_without_any_dataset_says_so(tmp_path: Path) -> None:
    folder = write_flight(tmp_path)
    with h5py.File(camera_file(folder), "w"):
        pass
    with pytest.raises(DataError, match="It has: no dataset"):
        load(folder)


def test_a_lidar_whose_times_are_all_fill_is_told(tmp_path: Path) -> None:
    folder = write_flight(tmp_path, lidar={DAYS: np.full((10, 3), -9999.0)})
    with pytest.raises(DataError, match=r"CPL_.*: no profile of flight .* has a time"):
        load(folder)


def test_named_files_need_no_naming_pattern(tmp_path: Path) -> None:
    folder = write_flight(tmp_path)
    names = {"camera": camera_file(folder), "lidar": lidar_file(folder), "navigation": navigation_file(folder)}
    moved = {role: path.rename(tmp_path / f"{role}.bin") for role, path in names.items()}
    files = {role: str(path) for role, path in moved.items()}
    config = tiny_config(tmp_path, {"data": {"flights": {"x": files}, "lidar": {"year": 2024}}})
    assert config.data.flights is not None
    assert len(load_flight("x", config.data.flights["x"], config.data, config.target)) == 40


def test_a_flight_named_without_navigation_is_told_both_remedies(tmp_path: Path) -> None:
    folder = write_flight(tmp_path)
    files = {"camera": str(camera_file(folder)), "lidar": str(lidar_file(folder))}
    config = tiny_config(tmp_path, {"data": {"flights": {"x": files}}})
    assert config.data.flights is not None
    with pytest.raises(DataError, match=r"no navigation file.*data\.flights, or set data\.sun_angles to false"):
        load_flight("x", config.data.flights["x"], config.data, config.target)

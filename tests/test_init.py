"""`cloudml init`: starter folders, and configurations proposed from files of many layouts that are then really read."""

import calendar
import json
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any

import h5py
import numpy as np
import pytest
from flight_files import write_flight, write_three_flights

from cloudml_tf.commands.init import print_proposal
from cloudml_tf.commands.main import main
from cloudml_tf.config.load import load_config, schema_json
from cloudml_tf.data.prepare import prepare
from cloudml_tf.data.sources import available_flights, find_named
from cloudml_tf.utils.console import Console

FRAMES, ROWS, COLUMNS = 120, 8, 10
PROFILES = np.arange(0, FRAMES, 2)
Contents = Mapping[str, Any]


def midnight(day: int) -> float:
    return float(calendar.timegm((2024, 6, day, 0, 0, 0)))


def clouds(seed: int) -> np.ndarray:
    """(FRAMES + ROWS, COLUMNS) optical depths along a track, smooth enough to be recognised from frame to frame."""
    steps = np.random.default_rng(seed).normal(size=(FRAMES + ROWS, COLUMNS))
    smooth = sum(np.roll(steps, shift, axis=axis) for shift in (-1, 0, 1) for axis in (0, 1))
    return np.exp(0.15 * smooth - 0.3)


def moving(seed: int) -> np.ndarray:
    """(FRAMES, ROWS, COLUMNS): the rows are along the track."""
    return np.stack([clouds(seed)[n : n + ROWS] for n in range(FRAMES)])


def label(seed: int) -> np.ndarray:
    return clouds(seed)[PROFILES + ROWS // 2, COLUMNS // 2]


def write(path: Path, contents: Contents, units: Mapping[str, str] | None = None, **attributes: str) -> Path:
    path.parent.mkdir(parents=True, exist_ok=True)
    with h5py.File(path, "w") as file:
        file.attrs.update(attributes)
        for name, values in contents.items():
            file[name] = values
            if name in (units or {}):
                file[name].attrs["units"] = units[name]  # type: ignore[index]
    return path


def proposed(capsys: pytest.CaptureFixture[str], *arguments: Any, code: int = 0) -> dict[str, Any]:
    """What `init` prints for machines."""
    assert main(["init", *map(str, arguments), "--json"]) == code
    found: dict[str, Any] = json.loads(capsys.readouterr().out)
    return found


def content_of(folder: Path) -> dict[str, Any]:
    found: dict[str, Any] = json.loads((folder / "config.json").read_text())
    return found


# --- a starter folder


def test_a_starter_folder_is_a_configuration_with_its_schema_and_explanations(tmp_path: Path, capsys: Any) -> None:
    folder = tmp_path / "my campaign"
    assert main(["init", str(folder)]) == 0
    assert "next: put flights into" in capsys.readouterr().out
    config = load_config(folder / "config.json")
    assert config.experiment_name == "my_campaign"
    assert config.data.path == str(folder / "flights")
    assert content_of(folder)["$schema"] == "schema.json"
    assert (folder / "schema.json").read_text() == schema_json()
    assert "What you have to decide" in (folder / "README.md").read_text()
    assert (folder / "flights" / "README.md").is_file()


def test_flights_put_into_a_starter_folder_are_read(tmp_path: Path) -> None:
    folder = tmp_path / "mine"
    assert main(["init", str(folder), "--set", "split.gap_s=1", "--seed", "7"]) == 0
    write_three_flights(folder / "flights")
    config = load_config(folder / "config.json")
    assert config.seed == 7
    assert len(prepare(config).parts["train"]) > 2


def test_every_field_of_the_explanations_is_one(tmp_path: Path) -> None:
    import re

    main(["init", str(tmp_path / "x")])
    readme = (tmp_path / "x" / "README.md").read_text()
    dumped = load_config(tmp_path / "x" / "config.json").model_dump()
    for path in re.findall(r"`((?:target|data)\.[a-z_.]+)`", readme):
        place: Any = dumped
        for name in path.split("."):
            assert name in place, path
            place = place[name]


@pytest.mark.parametrize("there", ["config.json", "README.md"])
def test_nothing_is_written_over(tmp_path: Path, capsys: Any, there: str) -> None:
    (tmp_path / there).write_text("mine")
    assert main(["init", str(tmp_path)]) == 2
    message = capsys.readouterr().err
    assert f"has a {there} already" in message
    assert "Name another folder" in message
    assert [p.name for p in tmp_path.iterdir()] == [there]


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        ([], "init needs a folder to write to"),
        (["x", "--from", "none.h5"], "none.h5: no such file"),
        (["x", "--from", "empty"], "no file that ends in .h5"),
        (["file"], "file is a file; init needs a folder"),
    ],
)
def test_what_cannot_be_done_is_told(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: Any, arguments: list[str], message: str
) -> None:
    monkeypatch.chdir(tmp_path)
    (tmp_path / "empty").mkdir()
    (tmp_path / "file").touch()
    assert main(["init", *arguments]) == 2
    assert message in "".join(capsys.readouterr())


# --- layouts


def default(home: Path) -> None:
    write_three_flights(home)


def one_file(home: Path) -> None:
    """All in one file, CF units, radians, metres."""
    for day in (3, 4, 5):
        sun = {f"nav/{n}": np.full(FRAMES, 0.7) for n in ("sunZenith", "sunAzimuth", "heading")}
        write(
            home / f"flight_202406{day:02d}.h5",
            {
                "cam/radiance": moving(day),
                "cam/time": 43200.0 + np.arange(FRAMES),
                "lidar/COD": label(day),
                "lidar/cloud_base": 1000.0 + label(day),
                "lidar/time": 12 + PROFILES / 3600,
                **sun,
            },
            units={
                "cam/time": f"seconds since 2024-06-{day:02d}",
                "lidar/time": f"hours since 2024-06-{day:02d}",
                "lidar/cloud_base": "m",
                **dict.fromkeys(sun, "rad"),
            },
        )


def by_instrument(home: Path) -> None:
    """A folder an instrument, milliseconds, layers, a navigation file with its own clock and the sun's elevation."""
    for day in (3, 4):
        noon = midnight(day) + 43200
        layers = np.stack([label(day), np.full(len(PROFILES), np.nan)], axis=1)
        write(
            home / "cam" / f"img{day}.h5",
            {"images": moving(day), "ts": (1e3 * (noon + np.arange(FRAMES))).astype("i8")},
        )
        write(
            home / "lid" / f"ret{day}.h5",
            {
                "epoch": noon + PROFILES.astype("f8"),
                "layer_tau": layers,
                "layer_tau_error": layers,
                "nLayers": PROFILES * 0 + 1,
            },
        )
        rows = {"t": noon + np.arange(-20.0, FRAMES + 20, 5)}
        angles = {"solar_elevation": 50.0, "solar_azimuth": 150.0, "heading": 90.0, "view_zenith": 10.0}
        write(home / "nav" / f"ins{day}.h5", rows | {k: np.full(len(rows["t"]), v) for k, v in angles.items()})


def flat(home: Path) -> None:
    """Hours of the day against a decimal day of the year, start and end of a profile, no sun."""
    for day in (20, 21, 22):
        write(
            home / f"2024-06-{day}_camera.h5",
            {"Frames/Intensity": moving(day).astype("f4"), "Frames/UTC_hours": 14 + np.arange(FRAMES) / 3600},
        )
        middle = 1 + (midnight(day) - calendar.timegm((2024, 1, 1, 0, 0, 0))) / 86400 + 14 / 24 + PROFILES / 86400
        spans = np.stack([middle - 1 / 86400, middle + 1 / 86400], axis=1)
        write(home / f"2024-06-{day}_lidar.h5", {"decimal_day": spans, "OpticalThickness": label(day)})


def radians_without_units(home: Path) -> None:
    """Two channels, seconds of the day with the date in an attribute, heights alone as labels, in metres."""
    angles = {"sza": np.full(FRAMES, 0.7), "saa": np.linspace(2.5, 2.6, FRAMES), "hdg": np.full(FRAMES, 1.0)}
    for day, name in ((3, "alpha"), (4, "beta"), (5, "gamma")):
        images = {"band_1": moving(day), "band_2": 2 * moving(day), "quality_flag": 0 * moving(day)}
        write(
            home / name / "camera.h5", {"sod": 43200.0 + np.arange(FRAMES), **images}, start_date=f"2024-06-{day:02d}"
        )
        seconds = midnight(day) + 43200 + PROFILES.astype("f8")
        write(home / name / "lidar.h5", {"time": seconds, "cloud_top_height": 900 + 300 * label(day)})
        write(home / name / "attitude.h5", angles)


def one_lidar_for_two_legs(home: Path) -> None:
    """A day's lidar and navigation files, times in words that CF does not know, and much that is no label."""
    start = midnight(3) + 43200
    for leg in (1, 2):
        leg_s = start + 1000.0 * leg + np.arange(FRAMES)
        place = {"gps_time": leg_s, "latitude": 0 * moving(leg), "Rad": moving(leg)}
        write(home / f"ER2_cam_leg{leg}.h5", place, units={"gps_time": "seconds since epoch"})
    depth = np.concatenate([label(1), label(2)])
    since = 43200.0 + np.concatenate([1000 + PROFILES, 2000 + PROFILES])
    lidar = {"cloud_od_532": depth, "cloud_od_1064": depth, "aerosol_od": 0.1 * depth, "time": since}
    kinds = {"cloud_type": np.ones(len(depth)), "backscatter": np.ones((len(depth), 20, 4))}
    write(home / "ER2_lidar.h5", lidar | kinds, units={"time": "seconds since midnight"}, flight_date="2024-06-03")
    rows = np.full(3000, 1.0)
    angles = {"sun_zenith": 40 * rows, "rel_azimuth": 20 * rows, "UTC": 11.9 + np.arange(3000) / 3600}
    write(home / "ER2_nav.h5", angles)


def datenum(home: Path) -> None:
    """Days since the year 0, two channels in groups, a folder a flight; the lidar as the instrument has it."""
    for day in (3, 4, 5):
        start = midnight(day) + 43200
        frame_s, profile_s = start + np.arange(FRAMES), start + PROFILES
        folder = write_flight(home / f"2024_06_{day:02d}", frame_s=frame_s, profile_s=profile_s, label=label(day))
        for name in ("NAV*", "*L1B*"):
            next(folder.glob(name)).unlink()
        images = {"ch1/data": moving(day), "ch2/data": 2 * moving(day), "frame_datenum": 719529 + frame_s / 86400}
        sun = {
            "SZA": np.full(FRAMES, 40.0),
            "SAA": np.full(FRAMES, 150.0),
            "heading": np.linspace(355, 365, FRAMES) % 360,
        }
        write(folder / "swir.h5", images | sun)


LAYOUTS: dict[Callable[[Path], None], dict[str, Any]] = {
    default: {"data.path": None, "split.kind": "flights", "data.lidar.time_unit": "day_of_year"},
    one_file: {
        "data.path": None,
        "data.camera.channels": ["cam/radiance"],
        "data.camera.across_track_axis": "columns",
        "data.lidar.optical_depth": "lidar/COD",
        "split.train": ["20240603"],
        "split.test": ["20240605"],
    },
    by_instrument: {
        "data.camera.time_unit": "ms",
        "data.lidar.optical_depth": "layer_tau",
        "data.lidar.number_layers": "nLayers",
        "data.lidar.time_unit": "s",
        "data.navigation.elevation": True,
        "data.navigation.time": "t",
        "split.kind": "time_blocks",
    },
    flat: {
        "data.camera.time_unit": "h",
        "data.camera.time_since": "file_name",
        "data.lidar.time_unit": "day_of_year",
        "data.sun_angles": False,
        "split.val": ["2024-06-21"],
    },
    radians_without_units: {
        "target.name": "cloud_top_km",
        "data.camera.channels": ["band_1", "band_2"],
        "data.camera.time_since": "start_date",
        "data.camera.files": ["camera.h5"],
        "data.lidar.height_unit": "m",
        "data.navigation.angle_unit": "rad",
        "split.train": ["alpha"],
    },
    one_lidar_for_two_legs: {
        "data.camera.time": "gps_time",
        "data.lidar.optical_depth": "cloud_od_532",
        "data.lidar.time_since": "flight_date",
        "data.navigation.heading": None,
        "split.kind": "time_blocks",
    },
    datenum: {
        "data.path": None,
        "data.camera.files": ["swir.h5"],
        "data.camera.channels": ["ch1/data", "ch2/data"],
        "data.camera.time_unit": "d",
        "data.navigation.files": ["swir.h5"],
        "split.val": ["2024_06_04"],
    },
}


@pytest.mark.parametrize("layout", LAYOUTS, ids=lambda layout: layout.__name__)
@pytest.mark.no_cover
def test_a_layout_is_mapped_and_its_flights_are_prepared(tmp_path: Path, capsys: Any, layout: Any) -> None:
    layout(tmp_path / "data")
    found = proposed(capsys, tmp_path / "mine", "--from", tmp_path / "data")
    assert found["problem"] is None
    content = content_of(tmp_path / "mine")
    for path, expected in LAYOUTS[layout].items():
        place: Any = content
        for name in path.split("."):
            place = place[name]
        assert expected is None or place == expected, path
    prepared = prepare(load_config(tmp_path / "mine" / "config.json"))
    assert min(len(samples) for samples in prepared.parts.values()) >= 2


def test_labels_arrive_as_they_were_written(tmp_path: Path, capsys: Any) -> None:
    one_file(tmp_path / "data")
    found = proposed(capsys, tmp_path / "mine", "--from", tmp_path / "data", "--set", "target.maximum=null")
    expected = label(3)[label(3) >= 0.1]
    assert found["loaded"]["counts"]["frames labelled"] == len(expected)
    assert found["loaded"]["label_mean"] == pytest.approx(expected.mean())


def test_a_label_that_could_be_another_and_unknown_kinds_are_told(tmp_path: Path, capsys: Any) -> None:
    one_lidar_for_two_legs(tmp_path / "data")
    notes = proposed(capsys, tmp_path / "mine", "--from", tmp_path / "data")["notes"]
    assert "data.lidar.optical_depth could also be cloud_od_1064" in notes
    assert any("'cloud_type' may mark clouds, but has no code 3" in note for note in notes)


def test_the_table_of_the_proposal_does_not_break_names(capsys: Any) -> None:
    name = "lidar/products/cloud_optical_thickness_532nm"
    role = {"role": "lidar.optical_depth", "file": "x.nc", "dataset": name, "shape": [120], "unit": "1", "sure": "sure"}
    told: dict[str, Any] = {"roles": [{**role, "why": "the name says so, " * 8}], "clocks": {}, "flights": {}}
    print_proposal(Console(), {**told, "notes": [], "missing": []})
    lines = capsys.readouterr().out.splitlines()
    assert any(name in line for line in lines)
    assert max(map(len, lines)) <= 140


def test_a_clock_that_steps_by_one_counts_seconds_not_hours(tmp_path: Path, capsys: Any) -> None:
    contents = {"images": moving(1)[:24], "time": 10.0 + np.arange(24)}
    path = write(tmp_path / "cam_20240603.h5", contents)
    found = proposed(capsys, tmp_path / "mine", "--from", path)
    assert found["clocks"]["camera"].startswith("seconds of the day")


def test_what_heights_count_from_does_not_change_their_unit(tmp_path: Path, capsys: Any) -> None:
    contents = {"images": moving(1), "ts": midnight(3) + np.arange(FRAMES)}
    lidar = {"epoch": midnight(3) + PROFILES.astype("f8"), "cloud_base": 900 + 200 * label(1)}
    camera = write(tmp_path / "cam.h5", contents)
    path = write(tmp_path / "lid.h5", lidar, units={"cloud_base": "meters above sea level"})
    found = proposed(capsys, tmp_path / "mine", "--from", camera, path)
    assert "height_unit" not in content_of(tmp_path / "mine")["data"]["lidar"]
    assert 1.0 < found["loaded"]["label_mean"] < 1.2


# --- what is told


def test_the_table_says_what_and_why(tmp_path: Path, capsys: Any) -> None:
    by_instrument(tmp_path / "data")
    assert main(["init", str(tmp_path / "mine"), "--from", str(tmp_path / "data")]) == 0
    shown = capsys.readouterr().out
    for text in ("layer_tau", "name 'tau'", "likely", "milliseconds since 1970", "flight img3", "labelled sequences"):
        assert text in shown
    assert "layer_tau_error" not in shown


def test_the_folder_may_follow_the_files(tmp_path: Path) -> None:
    one_file(tmp_path / "data")
    files = sorted(str(path) for path in (tmp_path / "data").iterdir())
    (tmp_path / "empty").mkdir()
    for name in ("mine", "empty"):
        assert main(["init", "--from", *files, str(tmp_path / name)]) == 0
        assert len(available_flights(load_config(tmp_path / name / "config.json"))) == 3


def test_what_is_not_there_is_told_with_its_setting_and_the_configuration_is_written(
    tmp_path: Path, capsys: Any
) -> None:
    path = write(tmp_path / "cam.h5", {"images": moving(1), "ts": midnight(3) + np.arange(FRAMES)})
    found = proposed(capsys, tmp_path / "mine", "--from", path)
    assert "data.lidar.optical_depth" in [lack["setting"] for lack in found["missing"]]
    assert "without a lidar file these flights can be predicted, and not trained on" in found["notes"]
    assert found["loaded"]["frame_shape"] == [ROWS, COLUMNS, 1]
    assert content_of(tmp_path / "mine")["data"]["camera"]["channels"] == ["images"]


def test_without_images_nothing_is_written(tmp_path: Path, capsys: Any) -> None:
    (tmp_path / "notes.md").write_text("no HDF5")
    assert main(["init", str(tmp_path / "mine"), "--from", str(tmp_path / "notes.md")]) == 2
    assert "no images were found, and nothing is written" in capsys.readouterr().err
    assert not (tmp_path / "mine").exists()


def test_a_flight_without_a_lidar_does_not_cost_the_patterns_that_find_new_flights(tmp_path: Path, capsys: Any) -> None:
    for day in (3, 4, 5, 6):
        camera = {"images": moving(day), "ts": midnight(day) + np.arange(FRAMES)}
        write(tmp_path / "data" / "imager" / f"F_060{day}_rad.h5", camera)
        if day < 6:
            lidar = {"epoch": midnight(day) + PROFILES.astype("f8"), "cod": label(day)}
            write(tmp_path / "data" / "beam" / f"F_060{day}_lid.h5", lidar)
    found = proposed(capsys, tmp_path / "mine", "--from", tmp_path / "data")
    assert sorted(found["flights"]) == ["0603", "0604", "0605"]
    config = load_config(tmp_path / "mine" / "config.json")
    assert config.data.camera.files == ("F_*_rad.h5",)
    new = str(tmp_path / "data" / "imager" / "F_0606_rad.h5")
    assert find_named([new], config, {}, labels=False)["0606"].camera == new
    assert list(find_named(["0604"], config, {}, labels=False)) == ["0604"]


def test_kinds_are_known_by_their_legend_and_their_lack_is_told(tmp_path: Path, capsys: Any) -> None:
    layers = np.stack([label(3), 0.1 * label(3)], axis=1)
    camera = write(tmp_path / "cam.h5", {"images": moving(3), "ts": midnight(3) + np.arange(FRAMES)})
    lidar = {"epoch": midnight(3) + PROFILES.astype("f8"), "cod": layers, "species": np.full(layers.shape, [3, 4])}
    path = write(tmp_path / "lid.h5", lidar)
    notes = proposed(capsys, tmp_path / "one", "--from", camera, path)["notes"]
    assert any("all layers count as cloud" in note for note in notes)
    with h5py.File(path, "a") as file:
        file["species"].attrs["long_name"] = "3 = cloud, 4 = aerosol"
    notes = proposed(capsys, tmp_path / "two", "--from", camera, path)["notes"]
    assert any("layers with 'species' 3 are cloud" in note for note in notes)
    assert content_of(tmp_path / "two")["data"]["lidar"]["feature_type"] == "species"


def test_files_that_do_not_meet_in_time_are_told(tmp_path: Path, capsys: Any) -> None:
    camera = write(tmp_path / "cam.h5", {"images": moving(1), "ts": midnight(3) + np.arange(FRAMES)})
    lidar = write(tmp_path / "lid.h5", {"epoch": midnight(9) + PROFILES.astype("f8"), "cod": label(1)})
    found = proposed(capsys, tmp_path / "mine", "--from", camera, lidar, code=2)
    assert any("no camera file overlaps in time" in note for note in found["notes"])
    assert "the lidar starts +144.00 h after the camera" in found["problem"]


def test_a_file_of_another_layout_or_kind_is_left_out_by_name(tmp_path: Path, capsys: Any) -> None:
    one_file(tmp_path / "data")
    (tmp_path / "data" / "broken.h5").write_text("no HDF5")
    other = {"cam/images": moving(9), "cam/time": midnight(9) + np.arange(FRAMES), "lidar/COD": label(9)}
    write(tmp_path / "data" / "x_other.h5", other)
    found = proposed(capsys, tmp_path / "mine", "--from", tmp_path / "data")
    assert sorted(found["flights"]) == ["20240603", "20240604", "20240605"]
    assert any("broken.h5: is not an HDF5 file" in note for note in found["notes"])
    assert any("x_other.h5: left out, it lacks 'cam/radiance'" in note for note in found["notes"])


def test_a_flight_that_cannot_be_read_is_a_problem_and_the_configuration_stays(tmp_path: Path, capsys: Any) -> None:
    folder = write_flight(tmp_path / "data")
    lidar = next(folder.glob("CPL*"))
    lidar.rename(lidar.with_name("lidar.hdf5"))
    found = proposed(
        capsys, tmp_path / "mine", "--from", folder, "--set", "target.minimum=50", "--set", "target.maximum=60", code=2
    )
    assert "has no label" in found["problem"]
    assert (tmp_path / "mine" / "config.json").is_file()


def test_no_keras_is_loaded(tmp_path: Path) -> None:
    import subprocess
    import sys

    one_file(tmp_path / "data")
    code = (
        "import sys; from cloudml_tf.commands.main import main; "
        f"main(['init', {str(tmp_path / 'mine')!r}, '--from', {str(tmp_path / 'data')!r}]); "
        "assert not {'keras', 'tensorflow'} & set(sys.modules)"
    )
    subprocess.run([sys.executable, "-c", code], check=True, capture_output=True)


POSITION_NAMES = [("lat", "lon"), ("latitude", "longitude"), ("gps_lat", "gps_lng"), ("Lat", "Lon")]


@pytest.mark.parametrize("names", POSITION_NAMES)
def test_positions_are_found_beside_the_angles(tmp_path: Path, capsys: Any, names: tuple[str, str]) -> None:
    places = (np.linspace(30.0, 30.2, FRAMES), np.linspace(239.0, 240.0, FRAMES))
    radians_without_units(tmp_path / "data")
    for name in ("alpha", "beta", "gamma"):
        with h5py.File(tmp_path / "data" / name / "attitude.h5", "r+") as file:
            for key, values, unit in zip(names, places, ("degrees_north", "degrees_east"), strict=True):
                file[key] = values
                file[key].attrs["units"] = unit
    found = proposed(capsys, tmp_path / "mine", "--from", tmp_path / "data")
    assert found["problem"] is None
    navigation = content_of(tmp_path / "mine")["data"]["navigation"]
    assert (navigation["latitude"], navigation["longitude"]) == names
    assert {"navigation.latitude", "navigation.longitude"} <= {role["role"] for role in found["roles"]}


def test_positions_that_one_file_lacks_cost_no_flight(tmp_path: Path, capsys: Any) -> None:
    radians_without_units(tmp_path / "data")
    with h5py.File(tmp_path / "data" / "alpha" / "attitude.h5", "r+") as file:
        file["lat"], file["lon"] = np.full(FRAMES, 30.0), np.full(FRAMES, 10.0)
    found = proposed(capsys, tmp_path / "mine", "--from", tmp_path / "data")
    assert sorted(found["flights"]) == ["alpha", "beta", "gamma"]
    assert "latitude" not in content_of(tmp_path / "mine")["data"]["navigation"]
    assert any("has no 'lat' and 'lon': positions are left out" in note for note in found["notes"])

"""One flight in several files: joined in the order of time, equal to the unsplit file; what differs is refused."""

import json
import shutil
from collections.abc import Callable, Sequence
from dataclasses import fields
from pathlib import Path
from typing import Any

import h5py
import netCDF4
import numpy as np
import pytest
from flight_files import (
    ZENITH,
    camera_file,
    lidar_file,
    navigation_file,
    put,
    strip_of_cloud,
    tiny_config,
    tiny_content,
    utc,
    write_flight,
)
from icartt_files import write_icartt

from cloudml_tf.commands.main import main
from cloudml_tf.config.data import Camera, FlightFiles, Lidar, Limits
from cloudml_tf.config.load import load_config, parse_config
from cloudml_tf.config.schema import Config
from cloudml_tf.data.readers import hdf5
from cloudml_tf.data.readers.clocks import read_times
from cloudml_tf.data.readers.flights import Flight, load_flight
from cloudml_tf.data.readers.folders import find_flights, flight_files
from cloudml_tf.data.readers.formats.part_names import by_number, numbered_together, without_parts
from cloudml_tf.data.readers.frames import build_table, camera_fingerprint
from cloudml_tf.data.readers.lidar import read_profiles
from cloudml_tf.data.readers.sandbox import read_flight
from cloudml_tf.data.readers.times import in_time
from cloudml_tf.data.samples import build_samples
from cloudml_tf.data.sources import available_flights, find_named
from cloudml_tf.inference.files import input_fingerprint
from cloudml_tf.utils.errors import DataError

T0, FRAMES, SIDE = utc(2024, 6, 3, 14), 120, 16
SINCE_1970 = "seconds since 1970-01-01"
Spoil = Callable[[h5py.File], Any]


def write(folder: Path, start_s: float = T0, seed: int = 0) -> Path:
    """cam.h5, lidar.h5 and nav.h5 of one flight over a strip of cloud."""
    folder.mkdir(parents=True, exist_ok=True)
    depth, seen = strip_of_cloud(FRAMES, SIDE, seed), np.arange(0, FRAMES, 2)
    with h5py.File(folder / "cam.h5", "w") as file:
        images = np.stack([(depth / (depth + 7))[n : n + SIDE] for n in range(FRAMES)])
        put(file, "reflectance", np.round(1e4 * images).astype("u2"), scale_factor=1e-4)
        put(file, "time", start_s + np.arange(FRAMES), units=SINCE_1970)
        put(file, "dark", np.linspace(4, 7, SIDE))
        put(file, "gain", 1.5)
    with h5py.File(folder / "lidar.h5", "w") as file:
        put(file, "time", start_s + seen, units=SINCE_1970)
        put(file, "COD", depth[seen + SIDE // 2, SIDE // 2])
    with h5py.File(folder / "nav.h5", "w") as file:
        for name, first in (("solar_zenith", 40.0), ("solar_azimuth", 150.0), ("heading", 90.0)):
            put(file, name, first + 1e-3 * np.arange(FRAMES), units="degree")
    return folder


def cut(path: Path, names: Sequence[str], rows: Sequence[int], into: Path, spoil: Sequence[Spoil | None] = ()) -> Path:
    """Write a file again in parts, that end before these rows. Returns the folder."""
    into.mkdir(parents=True, exist_ok=True)
    with h5py.File(path) as file:
        total = file["time"].shape[0] if "time" in file else file["heading"].shape[0]
        for number, (name, first, last) in enumerate(zip(names, [0, *rows], [*rows, total], strict=True)):
            with h5py.File(into / name, "w") as part:
                for key, item in file.items():
                    along = item.shape[:1] == (total,)
                    put(part, key, item[first:last] if along else item[()], **dict(item.attrs))
                if spoil and spoil[number]:
                    spoil[number](part)  # type: ignore[misc]
    return into


def config_for(tmp_path: Path, **changes: Any) -> Config:
    return tiny_config(
        tmp_path,
        {
            "data.camera.channels": ["reflectance"], "data.camera.time": "time", "data.lidar.time": "time",
            "data.lidar.optical_depth": "COD", "data.navigation.solar_zenith": "solar_zenith",
            "data.navigation.solar_azimuth": "solar_azimuth", "data.navigation.heading": "heading", **changes,
        },
    )  # fmt: skip


def flight(camera: Path, lidar: Path, navigation: Path, config: Config) -> Flight:
    files = FlightFiles(camera=str(camera), lidar=str(lidar), navigation=str(navigation))
    return read_flight("a", files, config.data, config.target)


def equal(one: Flight, other: Flight, config: Config) -> None:
    """Frames, times, labels, angles and samples are the same, bit for bit."""
    for name in (field.name for field in fields(Flight)):
        if name not in ("camera_path", "limits", "row"):
            np.testing.assert_equal(getattr(one, name), getattr(other, name), err_msg=name)
    tables = [build_table([each], {"a": np.arange(len(each))}, config.data) for each in (one, other)]
    np.testing.assert_array_equal(tables[0].radiance, tables[1].radiance)
    first, second = (build_samples([each], config)[0] for each in (one, other))
    assert len(first) == len(second) > 0
    np.testing.assert_array_equal(first.label, second.label)


NAMES = ["cam_part9.h5", "cam_part10.h5", "cam_part11.h5"]


def test_names_sort_by_their_numbers() -> None:
    assert sorted(map(Path, NAMES[::-1]), key=by_number) == list(map(Path, NAMES))
    assert numbered_together([Path("d/c_part1.h5"), Path("d/c_part2.h5")]) == [Path("d/c_part*.h5")]
    assert numbered_together([Path("d/c_part1.h5"), Path("d/depart2.h5")]) == [
        Path("d/c_part1.h5"),
        Path("d/depart2.h5"),
    ]
    assert without_parts("cam_20240603_part*") == "cam_20240603"
    assert in_time(np.array([5.0, 6, np.nan, 1, 2]), [3, 2]).tolist() == [2, 3, 4, 0, 1]


@pytest.mark.parametrize("rows", [(40, 80), (7, 113), (0, 60)])
@pytest.mark.parametrize("names", [NAMES, ["z.h5", "m.h5", "a.h5"]])
def test_parts_are_the_flight(tmp_path: Path, rows: tuple[int, int], names: list[str]) -> None:
    """Of any lengths, an empty one too; also where the names are not in order of time."""
    whole, config = write(tmp_path / "whole"), config_for(tmp_path)
    unsplit = flight(whole / "cam.h5", whole / "lidar.h5", whole / "nav.h5", config)
    camera = cut(whole / "cam.h5", names, rows, tmp_path / "cam")
    lidar = cut(whole / "lidar.h5", ["b.h5", "a.h5"], [33], tmp_path / "lidar")
    split = flight(camera / "*.h5", lidar, whole / "nav.h5", config)
    equal(split, unsplit, config)
    assert len(set(split.piece)) == 1


def test_parts_of_the_navigation_go_with_those_of_the_camera(tmp_path: Path) -> None:
    whole, config = write(tmp_path / "whole"), config_for(tmp_path)
    unsplit = flight(whole / "cam.h5", whole / "lidar.h5", whole / "nav.h5", config)
    camera = cut(whole / "cam.h5", ["z.h5", "a.h5"], [50], tmp_path / "cam")
    navigation = cut(whole / "nav.h5", ["z.h5", "a.h5"], [50], tmp_path / "nav")
    equal(flight(camera, whole / "lidar.h5", navigation, config), unsplit, config)
    other = cut(whole / "nav.h5", ["z.h5", "a.h5"], [60], tmp_path / "other")
    with pytest.raises(DataError, match=r"in the order of the names: 70, 50. Received: 60, 60. Name their times in"):
        flight(camera, whole / "lidar.h5", other, config)


def test_a_gap_between_parts_ends_a_segment(tmp_path: Path) -> None:
    whole, config = write(tmp_path / "whole"), config_for(tmp_path)

    def later(file: h5py.File) -> None:
        put(file, "time", file["time"][()] + 30, units=SINCE_1970)

    camera = cut(whole / "cam.h5", NAMES[:2], [50], tmp_path / "cam", [None, later])
    found = flight(camera, whole / "lidar.h5", whole / "nav.h5", config)
    assert np.flatnonzero(np.diff(found.piece)).tolist() == [49]


# --- clocks


def from_the_start(file: h5py.File) -> None:
    first = float(file["time"][0])
    unit = f"seconds since {np.datetime64(int(first), 's')}"
    put(file, "time", (file["time"][()] - first).astype("i4"), units=unit)


def in_hours(file: h5py.File) -> None:
    put(file, "time", file["time"][()] / 3600, units="hours since 1970-01-01")


@pytest.mark.parametrize("spoil", [(from_the_start, from_the_start), (None, from_the_start), (in_hours, None)])
def test_each_part_counts_from_its_own_reference(tmp_path: Path, spoil: Sequence[Spoil | None]) -> None:
    camera = cut(write(tmp_path) / "cam.h5", NAMES[:2], [60], tmp_path / "cam", spoil)
    with hdf5.open_file(camera) as file:
        found = read_times(file, Camera(time="time"), "camera", 1)
        np.testing.assert_allclose(found, T0 + np.arange(FRAMES), atol=1e-6)
        np.testing.assert_allclose(hdf5.read(file, "time", 1), found, atol=1e-6)
        assert hdf5.unit(file["time"]) == SINCE_1970


@pytest.mark.parametrize("names", [("c_20240603_a.h5", "c_20240603_b.h5"), ("c_20240603_a.h5", "c_20240604_a.h5")])
def test_hours_of_the_day_go_on_past_midnight(tmp_path: Path, names: Sequence[str]) -> None:
    """Whether both files are named after the day of the take-off, or each after its own."""
    moments = utc(2024, 6, 3, 23, 59) + np.arange(FRAMES)

    def of_day(file: h5py.File) -> None:
        put(file, "time", file["time"][()] % 86_400 / 3600)

    camera = cut(write(tmp_path, moments[0]) / "cam.h5", names, [60], tmp_path / "cam", [of_day, of_day])
    settings = Camera(time="time", time_unit="h", time_since="file_name")
    with hdf5.open_file(camera) as file:
        np.testing.assert_allclose(read_times(file, settings, "camera", 1), moments, atol=1e-5)


def test_a_lidar_that_goes_on_past_new_year_in_a_second_file(tmp_path: Path) -> None:
    moments = utc(2024, 12, 31, 23, 59) + 2.0 * np.arange(60)
    for year, own in ((2024, moments < utc(2025, 1, 1)), (2025, moments >= utc(2025, 1, 1))):
        with h5py.File(tmp_path / f"CPL_{year}0101.h5", "w") as file:
            spans = moments[own][:, None] + [-1.0, 0.0, 1.0]
            put(file, "time", 1 + (spans - utc(year, 1, 1)) / 86_400)
            put(file, "COD", np.full((own.sum(), 5), 0.2))
    config = tiny_config(tmp_path)
    found = read_profiles(tmp_path / "CPL_*.h5", Lidar(time="time", optical_depth="COD"), config.target)
    np.testing.assert_allclose(found.middle_s, moments, atol=1e-3)
    np.testing.assert_allclose(found.label, 1.0)


# --- what is refused


def scaled(file: h5py.File) -> None:
    file["reflectance"].attrs["scale_factor"] = 1e-3


def replaced(**values: Any) -> Spoil:
    return lambda file: [put(file, name, one, **dict(file[name].attrs)) for name, one in values.items()]


@pytest.mark.parametrize(
    ("spoil", "expected"),
    [
        (scaled, r"the scale_factor of 'reflectance' must be the same .* \[0.0001\] and \[0.001\]"),
        (lambda f: f["reflectance"].attrs.update(units="W m-2"), "the unit of 'reflectance' must be .* '' and 'W m-2'"),
        (replaced(reflectance=np.ones((60, 16, 16), "f4")), "the type of 'reflectance' must be .* uint16 and float32"),
        (
            replaced(reflectance=np.ones((60, 16, 8), "u2")),
            r"the shape of 'reflectance' must be .*16\) and \(60, 16, 8\)",
        ),
        (lambda f: f.pop("reflectance"), r"cam_part10.h5: lacks 'reflectance', which .*cam_part9.h5 has"),
        (
            replaced(time=T0 + 30 + np.arange(60.0)),
            "must follow one another in time. .* begins 29 s before the first ends",
        ),
    ],
)
def test_parts_that_differ_are_refused_by_name(tmp_path: Path, spoil: Spoil, expected: str) -> None:
    whole, config = write(tmp_path / "whole"), config_for(tmp_path)
    camera = cut(whole / "cam.h5", NAMES[:2], [60], tmp_path / "cam", [None, spoil])
    with pytest.raises(DataError, match=expected) as error:
        flight(camera, whole / "lidar.h5", whole / "nav.h5", config)
    assert all(str(camera / name) in str(error.value) for name in NAMES[:2])


def test_what_has_no_row_a_time_is_the_same_or_refused_where_it_is_read(tmp_path: Path) -> None:
    camera = cut(write(tmp_path) / "cam.h5", NAMES[:2], [60], tmp_path / "cam", [None, replaced(gain=2.5)])
    with hdf5.open_file(camera) as file:
        assert hdf5.read(file, "dark", 1).shape == (SIDE,)
        assert file["reflectance"].shape == (FRAMES, SIDE, SIDE)
        with pytest.raises(DataError, match=r"values of 'gain'.* must be the same .* Received: \[1.5\] and \[2.5\]"):
            hdf5.read(file, "gain", 0)


def test_a_damaged_part_is_named_and_leaves_no_hole(tmp_path: Path) -> None:
    camera = cut(write(tmp_path) / "cam.h5", NAMES, [40, 80], tmp_path / "cam")
    (camera / NAMES[1]).write_bytes(b"no file")
    with pytest.raises(DataError, match=r"cam_part10.h5: is not an HDF5 file"), hdf5.open_file(camera):
        pass


def test_the_limits_of_a_file_hold_for_each_part(tmp_path: Path) -> None:
    camera = cut(write(tmp_path) / "cam.h5", NAMES[:1], [], tmp_path / "cam")
    with h5py.File(camera / NAMES[1], "w") as file:
        file.create_dataset("reflectance", (2**17, SIDE, SIDE), "u2", chunks=(512, SIDE, SIDE))
        file["reflectance"].attrs["scale_factor"] = 1e-4
        put(file, "time", T0 + FRAMES + np.arange(2.0**17), units=SINCE_1970)
    with hdf5.open_file(camera) as file, pytest.raises(DataError, match=r"cam_part10.h5: 'reflectance' declares"):
        hdf5.images(file, "reflectance", "")[200:210]
    with hdf5.open_file(camera, Limits(column_values=1000)) as file, pytest.raises(DataError, match="column_values"):
        read_times(file, Camera(time="time"), "camera", 1)


# --- other formats and axes


def test_any_cut_of_any_axis_is_that_of_the_whole(tmp_path: Path) -> None:
    whole = write(tmp_path) / "cam.h5"

    def last(file: h5py.File) -> None:
        put(file, "last", np.moveaxis(file["reflectance"][()], 0, -1))
        put(file, "column", file["time"][()][None, :])

    camera = cut(whole, NAMES, [7, 80], tmp_path / "cam", [last] * 3)
    with h5py.File(whole) as one, hdf5.open_file(camera) as file:
        images = one["reflectance"][()]
        for key in ((), 6, -1, slice(5, 9), slice(6, 100, 3), (slice(0, 0),), (slice(3, 90), 4), (8, slice(2), 1)):
            np.testing.assert_array_equal(file["reflectance"][key], images[key])
        turned = hdf5.images(file, "last", "", frames_last=True)
        assert turned.shape == images.shape
        np.testing.assert_array_equal(turned[5:85, 2:9], images[5:85, 2:9])
        np.testing.assert_array_equal(hdf5.read(file, "column", 1), one["time"][()])


@pytest.mark.parametrize("form", ["NETCDF4", "NETCDF3_CLASSIC"])
def test_parts_of_netcdf(tmp_path: Path, form: str) -> None:
    images = np.arange(20 * 4 * 5, dtype="i2").reshape(20, 4, 5)
    for number, own in enumerate((slice(0, 12), slice(12, 20))):
        with netCDF4.Dataset(tmp_path / f"cam_{number}.nc", "w", format=form) as file:
            for side, length in (("time", None), ("y", 4), ("x", 5)):
                file.createDimension(side, length)
            file.createVariable("rad", "i2", ("time", "y", "x"))[:] = images[own]
            file.createVariable("time", "f8", ("time",))[:] = np.arange(own.stop - own.start)
            file["time"].units = f"seconds since 2024-06-03 14:00:{own.start:02d}"
    with hdf5.open_file(tmp_path / "cam_*.nc") as file:
        np.testing.assert_array_equal(file["rad"][()], images)
        np.testing.assert_array_equal(read_times(file, Camera(time="time"), "camera", 1), T0 + np.arange(20.0))


def test_parts_of_icartt(tmp_path: Path) -> None:
    for day, seconds in ((3, [86_398.0, 86_399.0]), (4, [0.0, 1.0, 2.0])):
        columns = {"A": np.array(seconds) / 4}
        write_icartt(tmp_path / f"nav_{day}.ict", np.array(seconds), columns, date=f"2024, 06, {day:02d}, 2024, 11, 20")
    with hdf5.open_file(tmp_path) as file:
        found = read_times(file, Camera(time="Time_Start"), "camera", 1)
        np.testing.assert_array_equal(found, utc(2024, 6, 3, 23, 59, 58) + np.arange(5.0))
        np.testing.assert_array_equal(hdf5.read(file, "A", 1), np.array([86_398, 86_399, 0, 1, 2]) / 4)


# --- folders, fingerprints, predictions


def test_fingerprints_are_those_of_all_parts(tmp_path: Path) -> None:
    whole = write(tmp_path)
    camera, lidar = (cut(whole / f"{role}.h5", NAMES, [10, 30], tmp_path / role) for role in ("cam", "lidar"))
    files = FlightFiles(camera=str(camera), lidar=str(lidar))
    before = camera_fingerprint(camera), input_fingerprint(files)
    with h5py.File(lidar / NAMES[1], "r+") as file:
        file["COD"][0] += 1
    assert camera_fingerprint(camera / "*.h5") == before[0]
    assert input_fingerprint(files) != before[1]


def test_a_folder_of_numbered_parts_is_one_flight(tmp_path: Path) -> None:
    whole = write(tmp_path / "whole")
    for day in ("0603", "0604"):
        cut(whole / "cam.h5", [f"cam_{day}_part{n}.h5" for n in (1, 2)], [60], tmp_path / "d")
    changes = {"data.sun_angles": False, "data.camera.files": ["cam_*.h5"]}
    config = config_for(tmp_path, **changes)
    found = find_flights(tmp_path / "d", config.data, labels=False)
    assert {name: Path(files.camera).name for name, files in found.items()} == {
        "0603": "cam_0603_part*.h5", "0604": "cam_0604_part*.h5"
    }  # fmt: skip
    assert len(load_flight("a", found["0603"], config.data, config.target, labels=False)) == FRAMES


@pytest.mark.parametrize("word", ["cam_0603_part*.h5", "", "cam_?603_*.h5"])
def test_a_prediction_takes_a_folder_or_a_pattern(tmp_path: Path, word: str) -> None:
    whole = write(tmp_path / "whole")
    folder = cut(whole / "cam.h5", [f"cam_0603_part{n}.h5" for n in (1, 2)], [60], tmp_path / "d")
    config = config_for(tmp_path, **{"data.sun_angles": False})
    ((_, files),) = find_named([str(folder / word)], config, {}, labels=False).items()
    assert len(load_flight("a", files, config.data, config.target, labels=False)) == FRAMES


# --- init


def proposed(tmp_path: Path, capsys: Any, source: Path, out: str) -> tuple[dict[str, Any], Config]:
    code = main(["init", str(tmp_path / out), "--json", "--from", str(source)])
    found = json.loads(capsys.readouterr().out)
    assert code == 0, found
    return found, load_config(tmp_path / out / "config.json")


def only(config: Config) -> tuple[FlightFiles, Flight]:
    ((name, files),) = available_flights(config).items()
    return files, load_flight(name, files, config.data, config.target)


@pytest.mark.parametrize("lidar", [None, 33])
@pytest.mark.parametrize("navigation", [False, True])
def test_init_makes_one_flight_of_parts(tmp_path: Path, capsys: Any, lidar: int | None, navigation: bool) -> None:
    whole, parts, stamps = write(tmp_path / "whole"), tmp_path / "parts", ["2330", "2345", "2400"]
    cut(whole / "cam.h5", [f"cam_20240603_{stamp}.h5" for stamp in stamps], [50, 90], parts, [from_the_start] * 3)
    cut(whole / "lidar.h5", ["lidar_1.h5", "lidar_2.h5"] if lidar else ["lidar.h5"], [lidar] if lidar else [], parts)
    if navigation:
        cut(whole / "nav.h5", [f"nav_20240603_{stamp}.h5" for stamp in stamps], [50, 90], parts)
    else:
        shutil.copy(whole / "nav.h5", parts)
    found, config = proposed(tmp_path, capsys, parts, "out")
    files, flight = only(config)
    assert (Path(files.camera).name, Path(str(files.lidar)).name) == (
        "cam_20240603_*.h5", "lidar_*.h5" if lidar else "lidar.h5"
    )  # fmt: skip
    assert any("continue one another up to 1 s apart: they are parts of one flight" in note for note in found["notes"])
    assert config.split.kind == "time_blocks"
    assert config.data.sun_angles
    unsplit_found, unsplit_config = proposed(tmp_path, capsys, whole, "whole_out")
    unsplit = only(unsplit_config)[1]
    assert found["loaded"]["counts"] == unsplit_found["loaded"]["counts"]
    assert np.isfinite(unsplit.label).sum() > 50
    np.testing.assert_array_equal(flight.label, unsplit.label)
    np.testing.assert_array_equal(flight.sun_angles_deg, unsplit.sun_angles_deg)


@pytest.mark.parametrize(("gap_s", "name", "flights"), [(200, "part", 1), (200, "run", 2), (3600, "part", 2)])
def test_flights_of_one_day_stay_apart(tmp_path: Path, capsys: Any, gap_s: float, name: str, flights: int) -> None:
    whole = write(tmp_path / "whole")

    def later(file: h5py.File) -> None:
        put(file, "time", file["time"][()] + gap_s, units=SINCE_1970)

    for role, half in (("cam", 60), ("lidar", 30)):
        names = [f"{role}_20240603_{name}{number}.h5" for number in (1, 2)]
        cut(whole / f"{role}.h5", names, [half], tmp_path / "d", [None, later])
    assert len(available_flights(proposed(tmp_path, capsys, tmp_path / "d", "out")[1])) == flights


def test_parts_that_no_pattern_matches_alone_are_left_apart_and_told(tmp_path: Path, capsys: Any) -> None:
    whole, folder = write(tmp_path / "whole"), tmp_path / "d"
    cut(whole / "cam.h5", ["cam_1.h5", "cam_2.h5"], [60], folder)
    cut(write(tmp_path / "later", T0 + 7200) / "cam.h5", ["cam_3.h5"], [], folder)
    cut(whole / "lidar.h5", ["lidar.h5"], [], folder)
    found, config = proposed(tmp_path, capsys, folder, "out")
    assert len(available_flights(config)) == 2
    (note,) = (note for note in found["notes"] if "left apart" in note)
    assert "cam_1.h5, cam_2.h5 continue one another up to 1 s apart, and are left apart" in note
    assert "the pattern cam_*.h5 matches cam_3.h5 too" in note
    assert config.split.kind == "time_blocks"


def test_a_group_where_navigation_should_be_is_named(tmp_path: Path) -> None:
    folder = write_flight(tmp_path / "a", navigation={ZENITH: None})
    with h5py.File(navigation_file(folder), "a") as file:
        file.create_group(ZENITH)
    config = parse_config(tiny_content(tmp_path))
    with pytest.raises(DataError, match=f"no dataset '{ZENITH}'"):
        load_flight("a", flight_files(folder, config.data), config.data, config.target)


def test_a_part_that_lacks_the_navigations_first_dataset_is_named(tmp_path: Path) -> None:
    folder = write_flight(tmp_path / "a")
    path = navigation_file(folder)
    for part in (1, 2):
        shutil.copy(path, path.with_name(f"NAV_part{part}.h5"))
    path.unlink()
    with h5py.File(folder / "NAV_part2.h5", "a") as file:
        del file[ZENITH]
    config = parse_config(tiny_content(tmp_path))
    files = {"camera": str(camera_file(folder)), "lidar": str(lidar_file(folder))}
    files["navigation"] = str(folder / "NAV_part*.h5")
    with pytest.raises(DataError, match="lacks 'nav/solarZenith'"):
        load_flight("a", FlightFiles.model_validate(files), config.data, config.target)

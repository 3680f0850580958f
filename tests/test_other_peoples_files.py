"""Further inputs of each kind that went wrong without a word: units, clocks, roles, flags, values, grouping."""

import calendar
import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

import h5py
import numpy as np
import pytest
from flight_files import put, strip_of_cloud

from cloudml_tf.commands.main import main
from cloudml_tf.config.data import Camera, Lidar, Target
from cloudml_tf.config.load import load_config
from cloudml_tf.data.readers import hdf5, times, units
from cloudml_tf.data.readers.clocks import read_times
from cloudml_tf.data.readers.flag_values import read_flags
from cloudml_tf.data.readers.flights import Flight, load_flight
from cloudml_tf.data.readers.frames import read_frames
from cloudml_tf.data.readers.ground_track import course
from cloudml_tf.data.readers.lidar import read_profiles
from cloudml_tf.data.readers.packing import FILLS_NOT_DECLARED, impossible, packing_of
from cloudml_tf.data.readers.sun import sun_position
from cloudml_tf.data.sources import available_flights
from cloudml_tf.utils.errors import DataError

T0, FRAMES, SIDE = float(calendar.timegm((2024, 6, 3, 14, 0, 0))), 120, 16
Spoil = Callable[[h5py.File], Any]


def write(folder: Path, camera: Spoil | None = None, lidar: Spoil | None = None, tag: str = "20240603") -> Path:
    folder.mkdir(parents=True, exist_ok=True)
    depth, seen = strip_of_cloud(FRAMES, SIDE), np.arange(0, FRAMES, 2)
    with h5py.File(folder / f"cam_{tag}.h5", "w") as file:
        scene = depth / (depth + 7)
        put(file, "reflectance", np.stack([scene[n : n + SIDE] for n in range(FRAMES)]).astype("f4"))
        put(file, "time", T0 + np.arange(FRAMES), units="seconds since 1970-01-01")
        if camera:
            camera(file)
    with h5py.File(folder / f"lidar_{tag}.h5", "w") as file:
        put(file, "time", T0 + seen, units="seconds since 1970-01-01")
        put(file, "COD", depth[seen + SIDE // 2, SIDE // 2])
        if lidar:
            lidar(file)
    return folder


def proposed(tmp_path: Path, capsys: Any, *sources: Path) -> dict[str, Any]:
    code = main(["init", str(tmp_path / "out"), "--json", "--from", *map(str, sources)])
    out = capsys.readouterr()
    return {"code": code, "err": out.err, **(json.loads(out.out) if out.out else {})}


def read(tmp_path: Path) -> Flight:
    config = load_config(tmp_path / "out" / "config.json")
    name, files = next(iter(available_flights(config).items()))
    return load_flight(name, files, config.data, config.target)


# --- units


@pytest.mark.parametrize(
    ("unit", "factor"),
    [
        ("feet", 3.048e-4), ("ft", 3.048e-4), ("hft", 3.048e-2), ("kft", 0.3048), ("m AGL", 1e-3), ("Meters", 1e-3),
        ("KM", 1.0), ("km above mean sea level", 1.0), ("nmi", 1.852), ("cm", 1e-5), ("10 m", 1e-2), ("dam", 1e-2),
    ],
)  # fmt: skip
def test_lengths(unit: str, factor: float) -> None:
    np.testing.assert_allclose(units.convert(np.array([2.0]), unit, "km"), [2 * factor], rtol=1e-9)


@pytest.mark.parametrize(
    "unit", ["hPa", "mbar", "degC", "K", "log10(m)", "FL", "gpm", "furlongs per fortnight", "s", "1"]
)
def test_what_is_no_length_is_refused_by_name(unit: str) -> None:
    with pytest.raises(ValueError, match="is not known as a length"):
        units.convert(np.array([2.0]), unit, "km")


@pytest.mark.parametrize(
    ("unit", "factor"), [("deg", 1), ("degree_T", 1), ("degrees_true", 1), ("°", 1), ("mrad", 180e-3 / np.pi)]
)
def test_angles(unit: str, factor: float) -> None:
    np.testing.assert_allclose(units.convert(np.array([3.0]), unit, "degree"), [3 * factor], rtol=1e-9)
    with pytest.raises(ValueError, match="a pure number"):
        units.convert(np.array([3.0]), unit, "1")


def test_a_unit_has_several_names_and_one_meaning(tmp_path: Path) -> None:
    with h5py.File(tmp_path / "x.h5", "w") as file:
        for number, key in enumerate(("units", "unit", "Units", "UNITS")):
            put(file, f"v{number}", [1.0], **{key: "ft"})
        put(file, "two", [1.0], units="ft", Unit="m")
    with hdf5.open_file(tmp_path / "x.h5") as file:
        assert {hdf5.unit(file[f"v{number}"]) for number in range(4)} == {"ft"}
        with pytest.raises(DataError, match="has two units, 'ft' and 'm'"):
            hdf5.unit(file["two"])


def test_places_and_grounds_of_a_lidar_have_units_too(tmp_path: Path) -> None:
    with h5py.File(tmp_path / "x.h5", "w") as file:
        put(file, "time", T0 + np.arange(3.0), units="seconds since 1970-01-01")
        put(file, "COD", np.full(3, 0.5))
        put(file, "lat", np.deg2rad([10.0, 20.0, 30.0]), units="radian")
        put(file, "surface", [0.0, 0.5, 2.0], units="km")
        put(file, "dem", np.zeros(3), units="feet")
    names = {"time": "time", "optical_depth": "COD", "latitude": "lat", "surface": "surface", "dem": "dem"}
    found = read_profiles(tmp_path / "x.h5", Lidar(**names, scene="ocean"), Target())
    np.testing.assert_allclose(found.latitude_deg, [10.0, 20.0, 30.0])
    assert np.isnan(found.label).tolist() == [False, False, True]  # 2 km is no sea


def test_the_day_of_processing_is_not_that_of_the_measurement(tmp_path: Path, capsys: Any) -> None:
    def both(file: h5py.File) -> None:
        put(file, "time", (file["time"][()] - T0 + 50_400) / 3600, units="hours")
        file.attrs["date_created"], file.attrs["history"] = "2025-01-31", "2025-01-31 made"

    folder = write(tmp_path / "d", both, both, tag="a")
    assert proposed(tmp_path, capsys, folder).get("clocks", {}).get("camera", "") == "hours of the day, of unknown date"


# --- packing


def test_hdf4s_formula_is_known_by_its_attributes(tmp_path: Path) -> None:
    with h5py.File(tmp_path / "x.h5", "w") as file:
        put(file, "sds", np.array([100, 200], "i2"), scale_factor=0.5, add_offset=20.0, calibrated_nt=22)
        put(file, "cf", np.array([100, 200], "i2"), scale_factor=0.5, add_offset=20.0)
    with hdf5.open_file(tmp_path / "x.h5") as file:
        np.testing.assert_allclose(hdf5.read(file, "sds", 1), [40.0, 90.0])
        np.testing.assert_allclose(hdf5.read(file, "cf", 1), [70.0, 120.0])


@pytest.mark.parametrize(
    ("attributes", "text"),
    [
        ({"scale_factor": np.array([1.0, 2.0])}, "scale_factor has several numbers"),
        ({"radiance_scales": np.array([0.1, 0.2])}, "radiance_scales scales the numbers in a way that is not known"),
        ({"slope": 0.5}, "slope scales the numbers"),
        ({"valid_range": np.array([5.0, -5.0])}, "goes from 5 to -5"),
        ({"_Unsigned": "perhaps"}, "_Unsigned must be true or false"),
        ({"scale_factor": 2.0, "ScaleFactor": 3.0}, "ScaleFactor contradicts scale_factor"),
    ],
)
def test_packing_that_is_not_understood_is_refused(attributes: dict[str, Any], text: str) -> None:
    with pytest.raises(ValueError, match=text):
        packing_of(attributes)


# --- clocks


@pytest.mark.parametrize(
    ("count", "unit", "told"),
    [
        (lambda t: t - 946_728_000.0, None, "J2000"),
        (lambda t: t + 2_082_844_800.0, None, "LabVIEW"),
        (lambda t: t - 725_846_400.0 + 10, None, "TAI93"),
        (lambda t: t / 86400 + 25_569, None, "Excel"),
        (lambda t: (t - T0 + 50_400) / 3600, "hours", "hours of the day"),
        (lambda t: (t - T0 + 50_400) / 60, "minutes", None),
        (lambda t: np.array([140000 + s // 60 * 100 + s % 60 for s in (t - T0).astype(int)]), None, "hhmmss"),
        (lambda t: 2024_06_03_000000.0 + 140000 + (t - T0) // 60 * 100 + (t - T0) % 60, None, "YYYYMMDDhhmmss"),
        (lambda t: t, "fortnights", None),
        (lambda t: t + 4e8, None, None),
    ],
)
def test_clocks_agree_with_the_date_in_the_name_or_are_refused(
    tmp_path: Path, capsys: Any, count: Any, unit: str | None, told: str | None
) -> None:
    def both(file: h5py.File) -> None:
        put(file, "time", count(file["time"][()]), **({"units": unit} if unit else {}))

    found = proposed(tmp_path, capsys, write(tmp_path / "d", both, both))
    if told is None:
        assert found["code"] == 2
        assert "time" in found["problem"]
        return
    assert found["code"] == 0, found["problem"]
    assert told in found["clocks"]["camera"]
    assert read(tmp_path).time_s[0] == pytest.approx(T0, abs=0.01)


def test_times_that_are_not_of_the_day_in_the_name_are_told(tmp_path: Path, capsys: Any) -> None:
    found = proposed(tmp_path, capsys, write(tmp_path / "d", tag="20230101"))
    assert any("its times begin 2024-06-03 14:00" in note for note in found["notes"])


@pytest.mark.parametrize("back", [0.5, 3.0, 40.0])
def test_frames_of_two_places_are_never_mixed(back: float) -> None:
    time_s = T0 + np.arange(100.0)
    time_s[60:] -= back
    order, left = times.in_order(time_s)
    assert (np.diff(time_s[order]) > 0).all()
    assert left["whose clock had jumped back"] == (0 if back < 1 else int(2 * back))
    run = order >= 60
    assert (np.diff(run.astype(int)) != 0).sum() <= 1


def test_a_shuffled_file_is_sorted() -> None:
    time_s = T0 + np.random.default_rng(0).permutation(200).astype("f8")
    order, left = times.in_order(time_s)
    assert len(order) == 200
    assert left["whose clock had jumped back"] == 0


@pytest.mark.parametrize("dtype", ["f2", "f4"])
def test_times_that_their_type_rounds_are_refused(tmp_path: Path, dtype: str) -> None:
    with h5py.File(tmp_path / "x.h5", "w") as file:
        put(
            file,
            "t",
            np.arange(2000.0, 4096.0, 8 if dtype == "f2" else 1).astype(dtype),
            units="hours since 2024-01-01",
        )
    with hdf5.open_file(tmp_path / "x.h5") as file, pytest.raises(DataError, match="too coarse for its times"):
        read_times(file, Camera(time="t"), "camera", 1)


# --- roles


@pytest.mark.parametrize(
    "name",
    ["cloud_mask", "cot_retrieved", "CTH", "terrain_height", "latitude_grid", "scene_class", "tau", "quality_flag"],
)
def test_labels_masks_and_places_are_no_input(tmp_path: Path, capsys: Any, name: str) -> None:
    def camera(file: h5py.File) -> None:
        file.move("reflectance", "B1")
        put(file, name, 2.0 * file["B1"][()], **({"units": "m"} if name == "CTH" else {}))

    found = proposed(tmp_path, capsys, write(tmp_path / "d", camera))
    assert load_config(tmp_path / "out" / "config.json").data.camera.channels == ("B1",), found


def test_a_mask_under_a_name_of_its_own_is_known_by_its_values(tmp_path: Path, capsys: Any) -> None:
    def camera(file: h5py.File) -> None:
        put(file, "extra", (file["reflectance"][()] > 0.1).astype("i2"))
        file.move("reflectance", "b1")
        put(file, "still", np.broadcast_to(file["b1"][0], file["b1"].shape))

    proposed(tmp_path, capsys, write(tmp_path / "d", camera))
    assert load_config(tmp_path / "out" / "config.json").data.camera.channels == ("b1",)


def test_frames_last_are_read(tmp_path: Path, capsys: Any) -> None:
    folder = write(tmp_path / "d")
    proposed(tmp_path, capsys, folder)
    config = load_config(tmp_path / "out" / "config.json")
    flight = read(tmp_path)
    first = np.concatenate([part for _, part, _ in read_frames(flight, np.arange(FRAMES), config.data.camera)])
    with h5py.File(folder / "cam_20240603.h5", "r+") as file:
        put(file, "reflectance", file["reflectance"][()].transpose(1, 2, 0).copy())
    assert main(["init", str(tmp_path / "again"), "--from", str(folder)]) == 0
    config = load_config(tmp_path / "again" / "config.json")
    assert config.data.camera.frame_axis == "last"
    name, files = next(iter(available_flights(config).items()))
    again = load_flight(name, files, config.data, config.target)
    second = np.concatenate([part for _, part, _ in read_frames(again, np.arange(FRAMES), config.data.camera)])
    np.testing.assert_array_equal(first, second)


# --- flags


def flags_file(path: Path, codes: Any, **attributes: Any) -> Path:
    with h5py.File(path, "w") as file:
        put(file, "time", T0 + np.arange(6.0), units="seconds since 1970-01-01")
        put(file, "COD", np.full(6, 0.5), ancillary_variables="state")
        put(file, "state", codes, **attributes)
    return path


OPAQUE = [
    (np.array([True, False] * 3), {}, [0, 2, 4]),
    (np.array([b"opaque", b"transparent"] * 3), {}, [0, 2, 4]),
    (np.array([1, 2] * 3), {"flag_values": np.array([1, 2]), "flag_meanings": "transparent opaque"}, [1, 3, 5]),
    (np.array([4, 1] * 3), {"flag_masks": np.array([1, 4]), "flag_meanings": "day fully_attenuated"}, [0, 2, 4]),
    (np.array([0, 1] * 3), {"flag_values": "0, 1", "flag_meanings": "opaque not_opaque"}, [0, 2, 4]),
]


@pytest.mark.parametrize(("codes", "attributes", "dropped"), OPAQUE)
def test_which_columns_are_opaque(tmp_path: Path, codes: Any, attributes: dict[str, Any], dropped: list[int]) -> None:
    path = flags_file(tmp_path / "x.h5", codes, **attributes)
    found = read_profiles(path, Lidar(time="time", optical_depth="COD", opaque="state"), Target())
    assert np.flatnonzero(np.isnan(found.label)).tolist() == dropped
    assert found.counts["profiles opaque"] == len(dropped)


@pytest.mark.parametrize(
    ("codes", "attributes", "text"),
    [
        (np.array([1, 2] * 3), {}, "must hold 0 and 1"),
        (
            np.array([0, 1] * 3),
            {"flag_values": np.array([0, 1]), "flag_meanings": "red blue"},
            "none of its flag_meanings",
        ),
        (np.array([0, 1] * 3), {"flag_values": np.array([0, 1]), "flag_meanings": "a b c"}, "must be as many"),
    ],
)
def test_flags_without_a_meaning_are_refused(tmp_path: Path, codes: Any, attributes: Any, text: str) -> None:
    path = flags_file(tmp_path / "x.h5", codes, **attributes)
    with pytest.raises(DataError, match=text):
        read_profiles(path, Lidar(time="time", optical_depth="COD", opaque="state"), Target())


def test_what_quality_flags_leave_out_is_counted_by_meaning(tmp_path: Path) -> None:
    meanings = {"flag_values": np.array([0, 1, 2]), "flag_meanings": "good bad_retrieval suspect"}
    path = flags_file(tmp_path / "x.h5", np.array([0, 1, 2, 0, 1, 0]), **meanings)
    found = read_profiles(path, Lidar(time="time", optical_depth="COD"), Target())
    assert np.flatnonzero(np.isnan(found.label)).tolist() == [1, 4]
    assert found.counts["profiles flagged bad retrieval"] == 2


def test_arms_bits(tmp_path: Path) -> None:
    bits = {"bit_1_description": "Value is below limit", "bit_1_assessment": "Bad", "bit_2_description": "Day"}
    path = flags_file(tmp_path / "x.h5", np.array([0, 1, 2, 3, 0, 0]), **bits)
    with hdf5.open_file(path) as file:
        assert read_flags(file, "state", "x").by_bit == {1: "value is below limit bad", 2: "day"}
    found = read_profiles(path, Lidar(time="time", optical_depth="COD"), Target())
    assert np.flatnonzero(np.isnan(found.label)).tolist() == [1, 3]


# --- values


@pytest.mark.parametrize("fill", [1e20, -1e20, -999.0, -9999.9, 65535.0, 9.96921e36, 32767.0])
def test_a_finite_pixel_that_is_impossible_reaches_no_network(tmp_path: Path, capsys: Any, fill: float) -> None:
    def camera(file: h5py.File) -> None:
        images = file["reflectance"][()]
        images[10, 3, 3] = fill
        put(file, "reflectance", images)

    proposed(tmp_path, capsys, write(tmp_path / "d", camera))
    flight, config = read(tmp_path), load_config(tmp_path / "out" / "config.json")
    bad = np.concatenate([faulty for _, _, faulty in read_frames(flight, np.arange(FRAMES), config.data.camera)])
    assert np.flatnonzero(bad).tolist() == [10]


def test_what_is_far_but_measured_stays() -> None:
    values = np.array([100.0, 200.0, 999.0, 1200.0])
    assert not impossible(values, np.array(FILLS_NOT_DECLARED)).any()
    assert impossible(np.array([1.0, 2.0, 999.0]), np.array(FILLS_NOT_DECLARED)).tolist() == [False, False, True]
    huge = np.array([3e37, 2e37, -9999.0], "float32")  # the limit itself is beyond the type
    assert impossible(huge, np.array(FILLS_NOT_DECLARED)).tolist() == [False, False, False]


@pytest.mark.parametrize(("missing", "zero"), [(np.nan, 0), (-9999.0, 0), (0.0, 20)])
def test_missing_is_not_clear_sky(tmp_path: Path, missing: float, zero: int) -> None:
    with h5py.File(tmp_path / "x.h5", "w") as file:
        put(file, "time", T0 + np.arange(60.0), units="seconds since 1970-01-01")
        put(file, "COD", np.where(np.arange(60) % 3 == 0, missing, 0.5))
    lidar = Lidar(time="time", optical_depth="COD", clear_sky="zero")
    found = read_profiles(tmp_path / "x.h5", lidar, Target(minimum=0.0))
    assert int((found.label == 0).sum()) == zero


# --- the sun, and flights that continue one another


def test_the_sun_from_time_and_place() -> None:
    # Reda and Andreas (2008), NREL/TP-560-34302, table A5.1: 50.11162 with refraction, which lifts it by 0.0163
    when = float(calendar.timegm((2003, 10, 17, 19, 30, 30)))
    found = sun_position(np.array([when]), np.array([39.742476]), np.array([-105.1786]))
    np.testing.assert_allclose(found, [[50.1279, 194.34024]], atol=0.01)


def test_the_course_from_positions() -> None:
    steps = np.arange(60.0)
    np.testing.assert_allclose(course(steps, 50 + 1e-3 * steps, 10 + 0 * steps), 0.0, atol=1e-6)
    np.testing.assert_allclose(course(steps, 0 * steps, 179.99 + 1e-3 * steps - 360 * (steps > 10)), 90.0, atol=1e-6)
    assert np.isnan(course(steps, 0 * steps, 0 * steps)).all()


@pytest.mark.parametrize(("gap_s", "together"), [(1.0, True), (20.0, True), (1200.0, False)])
def test_parts_of_one_flight_stay_in_one_split(tmp_path: Path, capsys: Any, gap_s: float, together: bool) -> None:
    for part in range(3):

        def later(file: h5py.File, part: int = part) -> None:
            put(file, "time", file["time"][()] + part * (FRAMES - 1 + gap_s), units="seconds since 1970-01-01")

        write(tmp_path / "d", later, later, tag=f"20240603_part{part}")
    found = proposed(tmp_path, capsys, tmp_path / "d")
    split = load_config(tmp_path / "out" / "config.json").split
    assert (split.kind == "time_blocks") is together
    assert any("continue one another" in note for note in found["notes"]) is together


def test_flights_without_a_lidar_can_be_predicted(tmp_path: Path, capsys: Any) -> None:
    for day in (3, 4):
        write(tmp_path / "d", tag=f"2024060{day}")
        (tmp_path / "d" / f"lidar_2024060{day}.h5").unlink()
    found = proposed(tmp_path, capsys, tmp_path / "d")
    assert found["code"] == 0
    assert any("can be predicted, and not trained on" in note for note in found["notes"])
    assert all(files["lidar"] is None for files in found["flights"].values())


def test_a_lidar_alone_says_what_it_sees(tmp_path: Path, capsys: Any) -> None:
    folder = write(tmp_path / "d")
    (folder / "cam_20240603.h5").unlink()
    found = proposed(tmp_path, capsys, folder)
    assert found["code"] == 2
    assert "lidar.optical_depth is 'COD' of lidar_20240603.h5" in found["err"]

"""ICARTT: dates, scales, missing values and flags as the header writes them; what it does not say is refused."""

import contextlib
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from flight_files import START_S, tiny_config, utc, write_flight
from icartt_files import NAMES, navigation, write_icartt

from cloudml_tf.data.discovery.datasets import read_content
from cloudml_tf.data.discovery.mapping import map_files
from cloudml_tf.data.readers import clocks, hdf5
from cloudml_tf.data.readers.flights import load_flight
from cloudml_tf.data.readers.folders import find_flights
from cloudml_tf.utils.errors import DataError

NOON = 43_200.0


def column(path: Path, name: str) -> np.ndarray:
    with hdf5.open_file(path) as file:
        return hdf5.read(file, name, 1)


@pytest.mark.parametrize("delimiter", [", ", ",", "  "])
def test_columns_have_their_units_and_the_time_its_date(tmp_path: Path, delimiter: str) -> None:
    path = write_icartt(tmp_path / "x.ict", NOON + np.arange(5.0), navigation(5), delimiter=delimiter)
    with hdf5.open_file(path) as file:
        assert hdf5.names(file) == sorted(["Time_Start", *NAMES])
        assert hdf5.unit(file["Latitude"]) == "deg"
        assert hdf5.unit(file["Time_Start"]) == "seconds since 2024-06-03"
        assert hdf5.text(file, "date") == "2024-06-03"  # not that of the revision
        np.testing.assert_allclose(hdf5.read(file, "Longitude", 1), -120 + 1e-3 * np.arange(5))


def test_missing_values_and_limits_of_detection_are_no_numbers(tmp_path: Path) -> None:
    """The header's -9999.00 is the row's -9999; the flags are -7777 and -8888, with more digits as well."""
    values = np.array([10.0, -9999.0, -7777.0, -88888.0, -777.0, 20.0])
    path = write_icartt(tmp_path / "x.ict", np.arange(6.0), {"A": values, "B": values}, scale={"B": 0.5})
    np.testing.assert_array_equal(column(path, "A"), [10, np.nan, np.nan, np.nan, -777, 20])
    np.testing.assert_array_equal(column(path, "B"), [5, np.nan, np.nan, np.nan, -388.5, 10])


def test_a_flag_that_is_not_given_is_a_number(tmp_path: Path) -> None:
    comments = ("ULOD_FLAG: N/A", "LLOD_FLAG: -5.5")
    columns = {"A": np.array([1.0, -7777.0, -5.5])}
    path = write_icartt(tmp_path / "x.ict", np.arange(3.0), columns, comments=comments)
    np.testing.assert_array_equal(column(path, "A"), [1, -7777, np.nan])


def test_a_flight_past_midnight_goes_on_counting(tmp_path: Path) -> None:
    path = write_icartt(tmp_path / "x.ict", 86_398.0 + np.arange(4.0), navigation(4))
    settings = tiny_config(tmp_path).data.navigation.model_copy(update={"time": "Time_Start"})
    with hdf5.open_file(path) as file:
        found = clocks.read_times(file, settings, "navigation", 1)
    np.testing.assert_array_equal(found, utc(2024, 6, 3, 23, 59, 58) + np.arange(4.0))


@pytest.mark.parametrize(
    ("changes", "expected"),
    [
        ({"replace": {1: "24, 2110"}}, "of format index 2110; only 1001 is read"),
        ({"replace": {1: "24, 2310, V02_2016"}}, "of format index 2310; only 1001 is read"),
        (
            {"replace": {1: "23, 1001"}},
            r"a header of 23 lines by its first line, .*names the|must name the 6 columns again",
        ),
        ({"replace": {1: "9, 1001"}}, "its header has 9 lines by its first line"),
        ({"replace": {1: "4000, 1001"}}, "its header has 4000 lines by its first line, the file 30"),
        ({"date": "03 June 2024"}, r"no date in line 7, such as 2024, 10, 18. Received: '03 June 2024'"),
        ({"date": "2024, 02, 30, 2024, 03, 01"}, "no date in line 7"),
        ({"replace": {10: "many"}}, "no number of columns in line 10"),
        ({"replace": {10: "400"}}, "400 columns by line 10, which its header of"),
        ({"replace": {11: "1, 1, 1"}}, r"needs 5 numbers in line 11. Received: '1, 1, 1'"),
        ({"replace": {12: "-9999, none, -9999, -9999, -9999"}}, "needs 5 numbers in line 12"),
        ({"scale": {"Latitude": 0}}, "a scale factor for 'Latitude' that is not finite, or 0"),
        ({"replace": {14: "Latitude, deg"}}, "two columns of the name 'Latitude'"),
        ({"replace": {14: "Lon, deg"}}, "Received: 'longitude' for 'lon'"),
        ({"replace": {9: "Time, hours"}}, "counts its times 'Time' in 'hours'; ICARTT has seconds"),
    ],
)
def test_a_header_that_is_not_understood_is_refused(tmp_path: Path, changes: dict[str, Any], expected: str) -> None:
    path = write_icartt(tmp_path / "x.ict", np.arange(5.0), navigation(5), **changes)
    with pytest.raises(DataError, match=expected) as error:
        read_content(path)
    assert str(error.value).startswith(f"{path}: ")


@pytest.mark.parametrize(
    ("spoil", "expected"),
    [
        (lambda text: text[:-25], r"needs 6 numbers in line 30\. .*the file is truncated"),
        (lambda text: text.replace("120.0", "12O.0").replace("-119.998", "east"), r"needs 6 numbers in line 2\d\. .*"),
        (lambda text: "\n".join(text.splitlines()[:24]), "no line of numbers|lines by its first line"),
        (lambda text: text.replace("2.0, 34.002", "2.0, 1, 34.002"), r"needs 6 numbers in line 28"),
    ],
)
def test_rows_that_are_not_numbers_are_named(tmp_path: Path, spoil: Any, expected: str) -> None:
    path = write_icartt(tmp_path / "x.ict", np.arange(5.0), navigation(5))
    path.write_text(spoil(path.read_text()))
    with pytest.raises(DataError, match=expected):
        read_content(path)


@pytest.mark.parametrize("clock", [[86_398, 86_399, 0, 1], [86_399.5, 86_400, 0.5, 1], [86_399, np.nan, 0, 1]])
def test_a_clock_that_begins_again_at_midnight_goes_on(tmp_path: Path, clock: list[float]) -> None:
    path = write_icartt(tmp_path / "x.ict", np.array(clock), navigation(4))
    settings = tiny_config(tmp_path).data.navigation.model_copy(update={"time": "Time_Start"})
    with hdf5.open_file(path) as file:
        found = clocks.read_times(file, settings, "navigation", 1)
    np.testing.assert_array_equal(found, utc(2024, 6, 3) + np.array(clock) + [0, 0, 86_400, 86_400])
    assert read_content(path).notes == ("its clock begins again at midnight: times are read on from there",)


def test_a_clock_that_falls_elsewhere_is_refused(tmp_path: Path) -> None:
    path = write_icartt(tmp_path / "x.ict", np.array([89_998.0, 89_999, 0, 1]), navigation(4))
    with pytest.raises(DataError, match="falls from 89999 to 0 s after line 27: times begin again at midnight"):
        read_content(path)


def test_a_table_that_is_no_icartt_is_not_taken_for_it(tmp_path: Path) -> None:
    for number, text in enumerate(("time,latitude\n1,2\n", "12, 34\n", "1001, 12\n", "2024, 1001a\n")):
        path = tmp_path / f"{number}.csv"
        path.write_text(text)
        with pytest.raises(DataError, match="is not an HDF5 file"):
            read_content(path)


def test_angles_and_positions_are_found(tmp_path: Path) -> None:
    path = write_icartt(tmp_path / "WHyMSIE_MetNav_ER2_20240603_R0.ict", NOON + np.arange(90.0), navigation(90))
    mapping = map_files([read_content(path)])
    section = mapping.sections["navigation"]
    assert section["solar_zenith"] == "Solar_Zenith_Angle"
    assert section["solar_azimuth"] == "Sun_Azimuth"
    assert section["heading"] == "True_Heading"


def test_a_flight_with_icartt_navigation_has_its_angles(tmp_path: Path) -> None:
    folder = write_flight(tmp_path / "a")
    next(folder.glob("NAV_*")).unlink()
    steps = START_S - utc(2024, 6, 3) + np.arange(-5.0, 60.0)
    write_icartt(folder / "CAMPAIGN_MetNav_ER2_20240603_R0.ict", steps, navigation(65))
    (folder / "another_instrument.ict").write_text("never read")
    data = tiny_config(tmp_path).data
    keys = {"time": "Time_Start", "solar_zenith": NAMES[2], "solar_azimuth": NAMES[3], "heading": NAMES[4]}
    keys |= {"latitude": "Latitude", "longitude": "Longitude"}
    data = data.model_copy(update={"navigation": data.navigation.model_copy(update=keys), "sun_angles": True})
    flight = load_flight("a", find_flights(folder, data)["a"], data, tiny_config(tmp_path).target)
    rows = np.arange(len(flight)) + 5
    assert flight.sun_angles_deg is not None
    np.testing.assert_allclose(flight.sun_angles_deg[:, 0], 40 + 1e-3 * rows)
    np.testing.assert_allclose(flight.sun_angles_deg[:, 1], 60 + 1e-3 * rows)
    np.testing.assert_allclose(flight.latitude_deg, 34 + 1e-3 * rows)


def test_any_flipped_byte_is_refused_or_harmless(tmp_path: Path) -> None:
    content, rng = (
        write_icartt(tmp_path / "x.ict", np.arange(5.0), navigation(5)).read_bytes(),
        np.random.default_rng(1),
    )
    for place in rng.integers(0, len(content), 300):
        spoilt = bytearray(content)
        spoilt[place] ^= int(rng.integers(1, 256))
        (tmp_path / "y.ict").write_bytes(spoilt)
        with contextlib.suppress(DataError):
            read_content(tmp_path / "y.ict")

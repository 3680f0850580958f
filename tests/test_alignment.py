"""Clock and boresight offsets are found where they were planted, and nowhere else."""

import pytest

from cloudml_tf.data.sources import available_flights, read_flights
from cloudml_tf.diagnostics.alignment import estimate_alignment

FLIGHTS = {"flight_count": 3, "frames_per_flight": 500, "frame_rows": 16, "frame_columns": 16, "lidar_interval_s": 4.0}
SET = {"preset": "default", "seed": 42, "strip_width_m": 6400.0, **FLIGHTS}


@pytest.fixture
def found(tiny):
    """A function: changes of the simulation and of the reading -> the alignment that is estimated."""

    def estimate(simulation: dict | None = None, **data):
        config = tiny(data={"simulation": {**SET, **(simulation or {})}, **data})
        files = available_flights(config)
        return estimate_alignment(read_flights(files, sorted(files), config), config)

    return estimate


def test_flights_whose_clocks_differ_by_a_fifth_of_a_second_are_left_alone(found) -> None:
    alignment = found()
    assert not alignment.certain
    assert (alignment.clock_offset_s, *alignment.boresight_offset, alignment.cause) == (0.0, 0, 0, "none")
    assert alignment.best_correlation == alignment.correlation > 0.5


@pytest.mark.parametrize("offset_s", [3.0, -3.0])
def test_a_wrong_clock_is_found_with_its_sign_and_the_boresight_that_looks_alike(found, offset_s: float) -> None:
    alignment = found(lidar={"time_offset_s": offset_s})
    assert alignment.certain
    assert alignment.clock_offset_s == pytest.approx(-offset_s, abs=0.6)
    assert alignment.boresight_offset == (0, 0)
    assert alignment.best_correlation > alignment.correlation + 0.2
    assert alignment.cause in ("clock", "either")
    if alignment.cause == "either":
        assert abs(alignment.along_track_pixels) >= 4
    mended = found(lidar={"time_offset_s": offset_s + alignment.clock_offset_s})
    assert not mended.certain


def test_a_boresight_across_track_is_the_boresight_and_nothing_else(found) -> None:
    alignment = found(camera={"boresight_offset": [4, 0]})
    assert alignment.cause == "none"
    assert alignment.clock_offset_s == 0.0
    assert alignment.boresight_rows == pytest.approx(-4, abs=1)
    assert alignment.boresight_columns == 0


def test_a_boresight_along_track_that_no_clock_explains_is_the_boresight(found) -> None:
    """The frames move along columns; told that they move along rows, earlier frames do not help."""
    alignment = found(camera={"boresight_offset": [4, 0], "across_track_axis": "columns"})
    assert alignment.cause == "boresight"
    assert alignment.clock_offset_s == 0.0
    assert alignment.boresight_rows == pytest.approx(-4, abs=1)


def test_both_at_once(found) -> None:
    alignment = found({"boresight_rows_px": -4.0}, lidar={"time_offset_s": 3.0})
    assert alignment.boresight_rows == pytest.approx(-4, abs=1)
    assert alignment.clock_offset_s == pytest.approx(-3.0, abs=0.6)


def test_imagery_that_knows_nothing_of_the_label_has_no_offset(found) -> None:
    alignment = found({"preset": "no_signal"})
    assert not alignment.certain
    assert abs(alignment.correlation) < 0.2


def test_too_few_labels_are_no_evidence(found) -> None:
    alignment = found({"frames_per_flight": 40}, lidar={"time_offset_s": 3.0})
    assert not alignment.certain
    assert alignment.labels < 40
    assert alignment.curve == {}

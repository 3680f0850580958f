"""Clocks and matching, against hand-written dates and brute force."""

import time
from pathlib import Path

import numpy as np
import pytest
from flight_files import utc

from cloudml_tf.data.readers import times
from cloudml_tf.utils.errors import DataError

FILE = Path("camera.h5")


# --- units


@pytest.mark.parametrize(
    ("attribute", "unit_s", "reference_s"),
    [
        ("", 1.0, 0.0),
        ("s", 1.0, 0.0),
        ("seconds", 1.0, 0.0),
        ("seconds UTC", 1.0, 0.0),
        ("hours", 3600.0, 0.0),
        ("ms since 1970-01-01", 1e-3, 0.0),
        ("msecs since 1970-01-01", 1e-3, 0.0),
        ("milliseconds since 1970-01-01T00:00:00Z", 1e-3, 0.0),
        ("s since 1970-01-01 00:00:00", 1.0, 0.0),
        ("seconds since 1970-01-01 00:00:00 UTC", 1.0, 0.0),
        ("Seconds since 1970-01-01 00:00:00.0", 1.0, 0.0),
        ("mins since 1970-1-1", 60.0, 0.0),
        ("hours since 1970-01-02", 3600.0, 86400.0),
        ("hr since 1970-01-01 06:30", 3600.0, 6.5 * 3600.0),
        ("days since 2024-06-03 12:00:00", 86400.0, utc(2024, 6, 3, 12)),
        # Noon in a zone two hours east of Greenwich is 10:00 UTC; west, 15:30.
        ("seconds since 2024-06-03 12:00:00 +02:00", 1.0, utc(2024, 6, 3, 10)),
        ("seconds since 2024-06-03 12:00:00 -0330", 1.0, utc(2024, 6, 3, 15, 30)),
        ("seconds since 2024-06-03 12:00:00+2", 1.0, utc(2024, 6, 3, 10)),
    ],
)
def test_cf_units_give_seconds_and_a_reference(attribute: str, unit_s: float, reference_s: float) -> None:
    assert times.unit_of(attribute, FILE) == (unit_s, reference_s)


@pytest.mark.parametrize("attribute", ["fortnights since 1970-01-01", "seconds since take-off", "seconds since 70"])
def test_an_unknown_unit_names_the_file_and_the_setting(attribute: str) -> None:
    with pytest.raises(DataError, match=r"camera\.h5: time unit .* set data\.camera\.time_unit to one of"):
        times.unit_of(attribute, FILE)


# --- the lidar's day of the year


@pytest.mark.parametrize(
    ("name", "year"),
    [("CPL_L2_V1-02_01kmLay_13955_01jun24.hdf5", 2024), ("CPL_L2_x_31dec99.hdf5", 1999), ("CPL_L2_x_01jan69.h5", 2069)],
)
def test_the_year_comes_from_the_file_name(name: str, year: int) -> None:
    assert times.year_of_name(Path(name)) == year


def test_a_file_name_without_a_year_is_refused_with_both_remedies() -> None:
    with pytest.raises(DataError, match=r"CPL_L2_test\.hdf5: .*Rename the file or set data\.lidar\.year"):
        times.year_of_name(Path("CPL_L2_test.hdf5"))


@pytest.mark.parametrize(
    ("day", "year", "moment"),
    [
        (1.0, 2023, (2023, 1, 1)),
        (60.5, 2023, (2023, 3, 1, 12)),  # 31 + 28 days before
        (60.5, 2024, (2024, 2, 29, 12)),  # a leap year
        (366.25, 2024, (2024, 12, 31, 6)),
    ],
)
def test_day_one_is_the_first_of_january(day: float, year: int, moment: tuple[int, ...]) -> None:
    assert times.day_of_year_to_seconds(np.array([day]), year) == pytest.approx([utc(*moment)], abs=1e-5)


def spans(middle_days: np.ndarray) -> np.ndarray:
    """(P, 3) start, middle, end of 10-s profiles."""
    return middle_days[:, None] + np.array([-5.0, 0.0, 5.0]) / 86400.0


MINUTES = np.arange(-90, 91) / 1440.0  # a flight from an hour and a half before midnight until as long after


@pytest.mark.parametrize("shuffled", [False, True], ids=["in order", "shuffled"])
@pytest.mark.parametrize(
    ("year", "wrapped_days", "midnight"),
    [
        (2024, 155.0 + MINUTES, (2024, 6, 3)),  # the day counts on
        (2024, 154.0 + (MINUTES % 1.0), (2024, 6, 3)),  # only the fraction counts
        (2023, np.where(MINUTES < 0, 366.0 + MINUTES, 1.0 + MINUTES), (2024, 1, 1)),  # New Year
        (2024, np.where(MINUTES < 0, 367.0 + MINUTES, 1.0 + MINUTES), (2025, 1, 1)),  # New Year after a leap year
        (2023, 366.0 + MINUTES, (2024, 1, 1)),  # the day counts on past New Year
    ],
    ids=["midnight", "midnight by fraction", "new year", "new year after leap year", "day 366"],
)
def test_the_clock_goes_on_past_midnight_and_new_year(
    year: int, wrapped_days: np.ndarray, midnight: tuple[int, ...], shuffled: bool
) -> None:
    order = np.random.default_rng(0).permutation(len(MINUTES)) if shuffled else np.arange(len(MINUTES))
    days = wrapped_days[order]
    days[3] = np.nan
    found = times.day_of_year_to_seconds(days, year)
    expected = utc(*midnight) + (MINUTES[order]) * 86400.0
    expected[3] = np.nan
    np.testing.assert_allclose(found, expected, rtol=0, atol=1e-4)


def test_a_leap_year_has_366_days_before_the_next_begins() -> None:
    found = times.day_of_year_to_seconds(np.array([365.5, 366.5, 1.5]), 2024)
    np.testing.assert_allclose(np.diff(found), 86400.0, atol=1e-4)


def test_a_profile_that_straddles_midnight_keeps_its_length() -> None:
    days = spans(155.0 + MINUTES)
    only_fraction = 154.0 + (days % 1.0)
    found = times.day_of_year_to_seconds(only_fraction, 2024)
    np.testing.assert_allclose(np.diff(found, axis=1), 5.0, atol=1e-4)
    assert (np.diff(found[:, 1]) > 0).all()


def test_a_long_flight_within_one_day_is_not_taken_for_a_wrap() -> None:
    days = 154.0 + np.linspace(0.02, 0.98, 500)
    assert (np.diff(times.day_of_year_to_seconds(days, 2024)) > 0).all()


def test_days_without_any_finite_value_stay_nan() -> None:
    assert np.isnan(times.day_of_year_to_seconds(np.full((3, 3), np.nan), 2024)).all()


# --- pieces


def test_a_step_of_more_than_one_and_a_half_medians_ends_a_piece() -> None:
    time_s = np.array([0.0, 1.0, 2.0, 3.4, 5.0, 6.0])
    np.testing.assert_array_equal(times.pieces(time_s, None), [0, 0, 0, 0, 1, 1])
    np.testing.assert_array_equal(times.pieces(time_s, 1.2), [0, 0, 0, 1, 2, 2])
    np.testing.assert_array_equal(times.pieces(time_s, 10.0), [0] * 6)


@pytest.mark.parametrize("count", [0, 1])
def test_pieces_of_next_to_nothing(count: int) -> None:
    assert times.pieces(np.zeros(count), None).tolist() == [0] * count


# --- matching


@pytest.mark.parametrize("seed", range(20))
def test_matching_equals_brute_force(seed: int) -> None:
    rng = np.random.default_rng(seed)
    frame_s = np.sort(rng.uniform(0, 100, rng.integers(1, 80)))
    profile_s = np.sort(rng.uniform(-10, 110, rng.integers(1, 80)))
    distance = np.abs(frame_s[:, None] - profile_s[None, :])
    # Each profile goes to its nearest frame; of several at one frame the closest wins.
    expected = {}
    for profile, frame in enumerate(distance.argmin(axis=0)):
        best = expected.get(frame)
        if distance[frame, profile] <= 0.5 and (best is None or distance[frame, profile] < distance[frame, best]):
            expected[frame] = profile
    frames, profiles = times.match_nearest(frame_s, profile_s, 0.5)
    assert dict(zip(frames.tolist(), profiles.tolist(), strict=True)) == expected


@pytest.mark.parametrize(("shift_s", "matched"), [(0.0, 20), (0.49, 20), (-0.49, 20), (0.51, 0), (-0.51, 0)])
def test_clocks_may_differ_by_half_a_second(shift_s: float, matched: int) -> None:
    frame_s = 5.0 * np.arange(20)
    frames, profiles = times.match_nearest(frame_s, frame_s + shift_s, 0.5)
    assert len(frames) == matched
    np.testing.assert_array_equal(frames, profiles)


def test_no_profiles_match_nothing() -> None:
    frames, profiles = times.match_nearest(np.arange(5.0), np.zeros(0), 0.5)
    assert len(frames) == len(profiles) == 0


def test_matching_200_000_to_200_000_is_a_search_not_a_loop_over_pairs() -> None:
    rng = np.random.default_rng(0)
    frame_s, profile_s = (np.sort(rng.uniform(0, 2e5, 200_000)) for _ in range(2))
    begin = time.perf_counter()
    frames, _ = times.match_nearest(frame_s, profile_s, 0.5)
    times.average_over_spans(frame_s, profile_s - 2, profile_s + 2, profile_s, 0.5)
    assert time.perf_counter() - begin < 2.0
    assert len(frames) > 50_000


# --- averages over spans


def test_a_label_is_the_mean_of_the_values_over_a_frame_not_of_their_logs() -> None:
    frame_s = np.arange(6.0)
    found = times.average_over_spans(
        frame_s, np.array([0.5, 1.5]), np.array([2.5, 4.5]), np.array([1.0, 4.0]), tolerance_s=0.5
    )
    # Frames 1 and 2 lie in the first span, 2, 3 and 4 in the second: frame 2 is (1 + 4) / 2, not sqrt(1 * 4) = 2.
    np.testing.assert_allclose(found, [np.nan, 1.0, 2.5, 4.0, 4.0, np.nan])


def test_a_profile_between_two_frames_labels_the_nearest_within_the_tolerance() -> None:
    frame_s = np.array([0.0, 10.0])
    arguments = np.array([0.2, 6.0]), np.array([0.4, 7.0]), np.array([1.0, 2.0])
    np.testing.assert_allclose(times.average_over_spans(frame_s, *arguments, 0.5), [1.0, np.nan])


def test_a_span_without_a_start_or_an_end_labels_nothing() -> None:
    frame_s = np.arange(5.0)
    start, end = np.array([np.nan, 2.0]), np.array([1.0, np.nan])
    assert np.isnan(times.average_over_spans(frame_s, start, end, np.ones(2), 0.5)).all()


@pytest.mark.parametrize("seed", range(10))
def test_averages_equal_brute_force(seed: int) -> None:
    rng = np.random.default_rng(seed)
    frame_s = np.sort(rng.uniform(0, 50, 60))
    start = rng.uniform(0, 45, 15)
    end = start + 5.0
    value = rng.uniform(0.1, 2.0, 15)
    inside = (frame_s[:, None] >= start) & (frame_s[:, None] <= end)
    expected = [value[row].mean() if row.any() else np.nan for row in inside]
    # Frames are about 0.8 s apart: no 5-s span is empty, so no profile falls back to its nearest frame.
    assert inside.any(axis=0).all()
    np.testing.assert_allclose(times.average_over_spans(frame_s, start, end, value, 1e-9), expected, rtol=1e-9)

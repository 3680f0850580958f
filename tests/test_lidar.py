"""Lidar layers to labels: which layer, which profiles, and why a profile has no label."""

from pathlib import Path
from typing import Any

import numpy as np
import pytest
from flight_files import (
    BASE,
    DAYS,
    DEM,
    DEPTH,
    FILL,
    KIND,
    LATITUDE,
    NUMBER,
    OPACITY,
    START_S,
    SURFACE,
    TOP,
    day_of_year,
    lidar_file,
    slots,
    utc,
    write_flight,
)

from cloudml_tf.config.data import Lidar, Target
from cloudml_tf.data.readers.lidar import Profiles, read_profiles
from cloudml_tf.utils.errors import DataError

NAN = np.nan


def read(folder: Path, target: dict[str, Any] | None = None, **lidar: Any) -> Profiles:
    """Profiles of a written flight; any value is in range unless a test says otherwise."""
    wanted = {"minimum": None, "maximum": None, **(target or {})}
    return read_profiles(lidar_file(folder), Lidar(**lidar), Target(**wanted))


def write_layers(folder: Path, depth: np.ndarray, **datasets: Any) -> Path:
    """A flight whose profiles have these optical depths (P, 10); heights follow, all layers are clouds."""
    layer = depth != FILL
    return write_flight(
        folder,
        profile_s=START_S + 4.0 * np.arange(len(depth)),
        lidar={
            DEPTH: depth,
            BASE: np.where(layer, 9.0 - np.arange(10), FILL),
            TOP: np.where(layer, 9.5 - np.arange(10), FILL),
            KIND: np.where(layer, 3, FILL).astype("int32"),
            NUMBER: layer.sum(axis=1).astype("int32"),
            **datasets,
        },
    )


# --- which layer


@pytest.mark.parametrize(
    ("name", "layer", "expected"),
    [
        ("optical_depth", "default", [0.5, 0.9]),
        ("optical_depth", "column", [0.5, 0.9]),
        ("optical_depth", "top", [0.5, 0.2]),
        ("optical_depth", "bottom", [0.5, 0.4]),
        ("cloud_base_km", "default", [9.0, 9.0]),
        ("cloud_base_km", "bottom", [9.0, 7.0]),
        ("cloud_top_km", "default", [9.5, 9.5]),
        ("cloud_top_km", "bottom", [9.5, 7.5]),
    ],
)
def test_of_several_layers_a_setting_says_which_is_the_label(
    tmp_path: Path, name: str, layer: str, expected: list[float]
) -> None:
    folder = write_layers(tmp_path, slots([0.5], [0.2, 0.3, 0.4]))
    np.testing.assert_allclose(read(folder, {"name": name}, layer=layer).label, expected)


def test_aerosol_layers_stay_out(tmp_path: Path) -> None:
    kinds = slots([4, 3, 4], [4]).astype("int32")
    folder = write_layers(tmp_path, slots([0.05, 0.6, 0.1], [0.07]), **{KIND: kinds})
    np.testing.assert_allclose(read(folder).label, [0.6, NAN])
    np.testing.assert_allclose(read(folder, {"name": "cloud_base_km"}).label, [8.0, NAN])
    np.testing.assert_allclose(read(folder, cloud_types=(3, 4)).label, [0.75, 0.07])
    np.testing.assert_allclose(read(folder, feature_type=None).label, [0.75, 0.07])


def test_a_file_without_feature_types_counts_every_layer(tmp_path: Path) -> None:
    folder = write_layers(tmp_path, slots([0.1, 0.6]), **{KIND: None})
    np.testing.assert_allclose(read(folder).label, [0.7])


def test_one_value_a_profile_is_one_layer(tmp_path: Path) -> None:
    folder = write_layers(tmp_path, slots([0.1], [0.2]), **{DEPTH: np.array([0.3, 0.4])})
    np.testing.assert_allclose(read(folder, feature_type=None).label, [0.3, 0.4])


# --- values that cannot be used


@pytest.mark.parametrize("value", [FILL, NAN, np.inf, -np.inf, -0.2], ids=str)
def test_a_column_with_an_unusable_layer_has_no_label(tmp_path: Path, value: float) -> None:
    depth = slots([0.5, 0.6], [0.7, 0.8])
    datasets = {DEPTH: depth.copy()}
    datasets[DEPTH][0, 1] = value
    found = read(write_layers(tmp_path, depth, **datasets))
    np.testing.assert_allclose(found.label, [NAN, 1.5])
    assert found.counts["profiles without a usable value"] == 1
    assert found.counts["profiles labelled"] == 1


def test_an_unusable_top_layer_is_not_replaced_by_the_one_below(tmp_path: Path) -> None:
    depth = slots([0.5, 0.6])
    base = slots([FILL, 2.0])
    assert np.isnan(read(write_layers(tmp_path, depth, **{BASE: base}), {"name": "cloud_base_km"}).label).all()


def test_a_fill_value_named_by_an_attribute_is_fill(tmp_path: Path) -> None:
    depth = slots([0.5], [0.6])
    depth[0, 0] = 99.0
    write_flight(
        tmp_path, profile_s=START_S + np.arange(2.0), lidar={DEPTH: depth}, attributes={DEPTH: {"_FillValue": 99.0}}
    )
    np.testing.assert_allclose(read(tmp_path).label, [NAN, 0.6])


def test_labels_outside_of_the_range_are_left_out_and_counted(tmp_path: Path) -> None:
    folder = write_layers(tmp_path, slots([0.05], [0.1], [2.0], [2.1]))
    found = read(folder, {"minimum": 0.1, "maximum": 2.0})
    np.testing.assert_allclose(found.label, [NAN, 0.1, 2.0, NAN])
    assert found.counts["profiles out of range"] == 2


# --- clear sky


def test_clear_sky_is_unlabelled_or_zero(tmp_path: Path) -> None:
    folder = write_layers(tmp_path, slots([0.5], []))
    found = read(folder)
    np.testing.assert_allclose(found.label, [0.5, NAN])
    assert found.counts["profiles of clear sky"] == 1
    np.testing.assert_allclose(read(folder, clear_sky="zero").label, [0.5, 0.0])


def test_a_cloud_of_unknown_depth_is_not_clear_sky(tmp_path: Path) -> None:
    """Thick clouds often have no optical depth: to call them 0 would turn the label upside down."""
    folder = write_layers(tmp_path, slots([0.5], [FILL]), **{NUMBER: np.array([1, 1], "int32"), KIND: slots([3], [3])})
    found = read(folder, clear_sky="zero")
    np.testing.assert_allclose(found.label, [0.5, NAN])
    assert found.counts["profiles of clear sky"] == 0


def test_aerosol_alone_is_clear_sky(tmp_path: Path) -> None:
    folder = write_layers(tmp_path, slots([0.1]), **{KIND: slots([4])})
    np.testing.assert_allclose(read(folder, clear_sky="zero").label, [0.0])


def test_a_fill_number_of_layers_says_nothing(tmp_path: Path) -> None:
    folder = write_layers(tmp_path, slots([0.5], []), **{NUMBER: np.array([FILL, FILL])})
    np.testing.assert_allclose(read(folder, clear_sky="zero").label, [0.5, NAN])


def test_without_the_number_of_layers_a_profile_of_fills_is_clear(tmp_path: Path) -> None:
    folder = write_layers(tmp_path, slots([0.5], []), **{NUMBER: None})
    np.testing.assert_allclose(read(folder, clear_sky="zero").label, [0.5, 0.0])


# --- opaque columns and the ocean rule


@pytest.mark.parametrize("per_layer", [False, True])
def test_opaque_columns_are_dropped_or_kept(tmp_path: Path, per_layer: bool) -> None:
    flags = slots([0, 0], [0, 1]) if per_layer else np.array([0, 1], "int8")
    folder = write_layers(tmp_path, slots([0.1, 0.2], [0.3, 2.7]), **{OPACITY: flags})
    found = read(folder)
    np.testing.assert_allclose(found.label, [0.3, NAN])
    assert found.counts["profiles opaque"] == 1
    np.testing.assert_allclose(read(folder, opaque_profiles="keep").label, [0.3, 3.0])
    np.testing.assert_allclose(read(folder, opaque=None).label, [0.3, 3.0])
    np.testing.assert_allclose(read(folder, {"name": "cloud_top_km"}).label, [9.5, 9.5])


def test_an_opaque_column_without_a_depth_counts_as_opaque(tmp_path: Path) -> None:
    """The bias that opaque columns bring must be visible, also where their depth is fill."""
    depth = slots([0.5], [FILL])
    folder = write_layers(
        tmp_path, depth, **{OPACITY: np.array([0, 1]), NUMBER: np.array([1, 1]), KIND: slots([3], [3])}
    )
    assert read(folder).counts["profiles opaque"] == 1


def test_the_ocean_rule_keeps_sea_level_profiles_with_a_surface_return(tmp_path: Path) -> None:
    folder = write_layers(
        tmp_path,
        slots([0.1], [0.2], [0.3], [0.4], [0.5]),
        **{DEM: np.array([0.0, 5.0, 0.0, 0.0, FILL]), SURFACE: np.array([900.0, 0.0, 901.0, -901.0, 0.0])},
    )
    found = read(folder, scene="ocean")
    np.testing.assert_allclose(found.label, [0.1, NAN, NAN, NAN, NAN])
    assert found.counts["profiles off the ocean"] == 4
    np.testing.assert_allclose(read(folder).label, [0.1, 0.2, 0.3, 0.4, 0.5])


# --- order and times


def test_unsorted_and_duplicated_profiles_come_out_sorted_and_once(tmp_path: Path) -> None:
    second = np.array([8.0, 0.0, 4.0, 4.0, 12.0])
    folder = write_flight(tmp_path, profile_s=START_S + second, label=[0.8, 0.1, 0.4, 0.9, 1.2])
    found = read(folder)
    np.testing.assert_allclose(found.middle_s - START_S, [0.0, 4.0, 8.0, 12.0], atol=1e-4)
    np.testing.assert_allclose(found.label, [0.1, 0.4, 0.8, 1.2])  # of two at one time the first
    np.testing.assert_array_equal(found.order, [1, 2, 0, 4])
    assert found.counts["profiles duplicated"] == 1


def test_profiles_without_a_time_are_left_out_and_counted(tmp_path: Path) -> None:
    days = day_of_year(START_S + np.arange(3.0), 2024)[:, None].repeat(3, axis=1)
    days[1] = FILL
    folder = write_flight(tmp_path, profile_s=START_S + np.arange(3.0), label=[0.1, 0.2, 0.3], lidar={DAYS: days})
    found = read(folder)
    np.testing.assert_allclose(found.label, [0.1, 0.3])
    assert found.counts["profiles without a time"] == 1


def test_the_middle_of_three_times_positions_and_the_span(tmp_path: Path) -> None:
    found = read(write_flight(tmp_path, half_span_s=2.5))
    np.testing.assert_allclose(found.middle_s - found.start_s, 2.5, atol=1e-4)
    np.testing.assert_allclose(found.end_s - found.middle_s, 2.5, atol=1e-4)
    assert found.latitude_deg[0] == 30.0
    assert found.longitude_deg[-1] == pytest.approx(-119.9)


def test_positions_are_optional(tmp_path: Path) -> None:
    assert np.isnan(read(write_flight(tmp_path, lidar={LATITUDE: None})).latitude_deg).all()


def test_the_year_setting_overrides_the_file_name(tmp_path: Path) -> None:
    folder = write_flight(tmp_path, lidar_name="CPL_L2_unnamed.hdf5")
    np.testing.assert_allclose(read(folder, year=2024).middle_s[0], START_S + 2.0, atol=1e-4)
    with pytest.raises(DataError, match=r"data\.lidar\.year"):
        read(folder)


def test_the_time_offset_is_added(tmp_path: Path) -> None:
    folder = write_flight(tmp_path)
    np.testing.assert_allclose(read(folder, time_offset_s=3600.0).middle_s - read(folder).middle_s, 3600.0, atol=1e-4)


def test_new_year_within_a_file(tmp_path: Path) -> None:
    days = np.array([365.999, 365.9999, 1.0001, 1.001])[:, None].repeat(3, axis=1)
    folder = write_flight(
        tmp_path, profile_s=START_S + np.arange(4.0), lidar={DAYS: days}, lidar_name="CPL_L2_31dec23.hdf5"
    )
    midnight = utc(2024, 1, 1)
    np.testing.assert_allclose(read(folder).middle_s - midnight, [-86.4, -8.64, 8.64, 86.4], atol=1e-3)


# --- faults of the file


@pytest.mark.parametrize(
    ("datasets", "settings", "message"),
    [
        ({DAYS: None}, {}, r"no dataset 'layer_descriptor/Profile_Decimal_Julian_Day' \(.*data\.lidar\.time\)"),
        ({}, {"optical_depth": "layer_descriptor/Feature_Optical_Depth_535"}, r"Nearest: '.*_Depth_532'"),
        (
            {DAYS: np.full((10, 4), 154.5)},
            {},
            r"must be \(profile, 3\): start, middle, end; .*\. Received: shape \(10, 4\)",
        ),
        ({DAYS: np.full((10, 3), 1.7e9)}, {}, r"must be a decimal day of year, 1 to 367\. .*data\.lidar\.time"),
        ({DAYS: np.zeros((0, 3))}, {}, "holds no profile"),
        ({DEPTH: np.ones((9, 10))}, {}, r"must have one row per profile, 10\. Received: shape \(9, 10\)"),
        ({DEPTH: np.ones((10, 10, 2))}, {}, r"data\.lidar\.optical_depth\) must have 1 or 2 dimensions"),
        ({DEPTH: np.full((10, 10), b"x")}, {}, r"data\.lidar\.optical_depth\) must hold numbers\. Received: type"),
        ({NUMBER: np.ones(9)}, {}, r"data\.lidar\.number_layers\) must have one row per profile, 10"),
        ({OPACITY: np.ones(9)}, {}, r"data\.lidar\.opaque\) must have one row per profile, 10"),
        ({KIND: np.ones((10, 4))}, {}, r"data\.lidar\.feature_type\) must have the shape of the layers, \(10, 10\)"),
        ({SURFACE: np.ones(9)}, {"scene": "ocean"}, r"data\.lidar\.surface\) must have one row per profile, 10"),
        ({DEM: None}, {"scene": "ocean"}, r"no dataset '.*DEM_Surface_Altitude' \(.*data\.lidar\.dem\)"),
        # A misspelt optional dataset would silently let aerosol, opaque columns or clear sky in.
        (
            {},
            {"feature_type": "layer_descriptor/Feature_Typ"},
            r"data\.lidar\.feature_type\)\. Nearest: '.*Feature_Type'",
        ),
        ({}, {"opaque": "layer_descriptor/Opacitie"}, r"data\.lidar\.opaque\)\. Nearest: '.*Opacity'"),
        ({}, {"number_layers": "Number"}, r"no dataset 'Number' \(.*data\.lidar\.number_layers\)"),
    ],
)
def test_a_faulty_lidar_file_is_refused_by_field(
    tmp_path: Path, datasets: dict[str, Any], settings: dict[str, Any], message: str
) -> None:
    folder = write_flight(tmp_path, lidar=datasets)
    with pytest.raises(DataError, match=message) as error:
        read(folder, **settings)
    assert str(lidar_file(folder)) in str(error.value)

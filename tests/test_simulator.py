"""The simulator against closed forms: geometry, light, instruments, files, cache. Real arrays and files."""

from datetime import UTC, datetime
from pathlib import Path
from typing import Any

import h5py
import numpy as np
import pytest
from pydantic import ValidationError

from cloudml_tf.config.simulation import DEFAULT_REGIMES, PRESETS, SimulationConfig
from cloudml_tf.data.simulation import camera, cloud_fields, files, radiance, simulator
from cloudml_tf.data.simulation import files as simulated_files
from cloudml_tf.data.simulation import lidar as simulated_lidar
from cloudml_tf.data.simulation.cloud_fields import CloudScene
from cloudml_tf.data.simulation.files import SimulatedFlight

FILL = -9999.0
DEPTH = "layer_descriptor/Feature_Optical_Depth_532"


def tiny(**changes: Any) -> SimulationConfig:
    """Settings of a set that takes a tenth of a second."""
    return SimulationConfig(**{"flight_count": 2, "frames_per_flight": 120, **changes})


def bare(base_km: float, **changes: Any) -> SimulationConfig:
    """A thin cloud sheet at one height over a black surface, seen by a faultless camera."""
    regimes = tuple(r.model_copy(update={"base_height_km": base_km}) for r in DEFAULT_REGIMES)
    zeros = [
        "base_height_std_km",
        "roll_std_deg",
        "pitch_std_deg",
        "upper_layer_fraction",
        "surface_albedo",
        "read_noise",
        "shot_noise",
        "sun_side_brightening",
        "shadow_strength",
        "diffusion_scale",
        "psf_sigma_px",
        "vignetting",
        "gain_drift",
        "dropped_frame_fraction",
        "black_frame_fraction",
        "nav_missing_fraction",
    ]
    return tiny(regimes=regimes, thickness_at_unit_depth_km=0.01, **{**dict.fromkeys(zeros, 0.0), **changes})


def reflectance(flight: SimulatedFlight) -> np.ndarray:
    """Recorded reflectance (T, H, W)."""
    return flight.camera["Product/Signal"] * flight.settings.signal_scale_factor


def column_depth(lidar: dict[str, np.ndarray]) -> np.ndarray:
    """Cloud optical depth (P,) of the column, without aerosol."""
    return np.where(lidar["layer_descriptor/Feature_Type"] == 3, lidar[DEPTH], 0).sum(1)


def contents(flight: SimulatedFlight) -> dict[str, np.ndarray]:
    """Everything that would be written, by path."""
    truth = {f"truth/{name}": values for name, values in flight.truth.items()}
    return {**flight.camera, **flight.lidar, **flight.navigation, **truth}


def same(one: SimulatedFlight, other: SimulatedFlight) -> bool:
    """Whether two flights hold the same bytes."""
    a, b = contents(one), contents(other)
    return a.keys() == b.keys() and all(a[k].dtype == b[k].dtype and a[k].tobytes() == b[k].tobytes() for k in a)


# --- settings


def test_explicit_fields_win_over_the_preset() -> None:
    assert SimulationConfig(preset="hard").read_noise == PRESETS["hard"]["read_noise"]
    assert SimulationConfig(preset="hard", read_noise=0.001).read_noise == 0.001
    again = SimulationConfig.model_validate_json(SimulationConfig(preset="hard", seed=3).model_dump_json())
    assert again == SimulationConfig(preset="hard", seed=3)


def test_unknown_settings_and_narrow_strips_are_refused() -> None:
    with pytest.raises(ValidationError, match="Extra inputs are not permitted"):
        SimulationConfig(cloudiness=1)
    with pytest.raises(ValidationError, match=r"strip_width_m must be at least 1\.25 x the swath"):
        SimulationConfig(strip_width_m=3000)


# One other value for every field; a field without an entry fails the completeness test below.
CHANGES: dict[str, Any] = {
    "preset": "hard",
    "seed": 1,
    "frames_per_flight": 130,
    "frame_rows": 24,
    "frame_columns": 24,
    "pixel_m": 120.0,
    "frame_interval_s": 0.5,
    "ground_speed_m_s": 150.0,
    "altitude_km": 18.0,
    "start_latitude_deg": 10.0,
    "start_longitude_deg": 10.0,
    "roll_std_deg": 1.0,
    "pitch_std_deg": 1.0,
    "attitude_time_s": 10.0,
    "attitude_error_deg": 0.01,
    "wind_along_m_s": 8.0,
    "wind_across_m_s": -8.0,
    "wind_error_m_s": 0.5,
    "regimes": DEFAULT_REGIMES[2:],
    "regime_spread": 0.5,
    "grid_m": 200.0,
    "strip_width_m": 9600.0,
    "optical_depth_sigma": 0.5,
    "optical_depth_cap": 2.5,
    "thickness_at_unit_depth_km": 0.2,
    "thickness_exponent": 0.4,
    "base_height_std_km": 0.1,
    "base_height_scale_m": 5000.0,
    "upper_layer_fraction": 0.5,
    "upper_layer_optical_depth": 0.2,
    "upper_layer_height_km": 9.0,
    "upper_layer_thickness_km": 0.3,
    "upper_layer_scale_m": 5000.0,
    "lower_layer_fraction": 0.9,
    "lower_layer_height_km": 0.6,
    "lower_layer_optical_depth": 0.5,
    "aerosol_fraction": 0.6,
    "aerosol_optical_depth": 0.2,
    "aerosol_base_km": 0.1,
    "aerosol_top_km": 1.2,
    "asymmetry_factor": 0.7,
    "surface_albedo": 0.2,
    "surface_contrast": 0.4,
    "surface_scale_m": 1000.0,
    "sun_side_brightening": 0.9,
    "shadow_strength": 0.1,
    "diffusion_scale": 1.5,
    "clouds_hide": True,
    "image_sees_lidar_cloud": False,
    "camera_kind": "thermal",
    "psf_sigma_px": 1.5,
    "read_noise": 0.02,
    "shot_noise": 0.05,
    "vignetting": 0.3,
    "gain_drift": 0.2,
    "dropped_frame_fraction": 0.3,
    "black_frame_fraction": 0.3,
    "signal_scale_factor": 2e-4,
    "lidar_interval_s": 2.0,
    "lidar_samples": 7,
    "lidar_relative_noise": 0.3,
    "lidar_absolute_noise": 0.3,
    "lidar_height_noise_km": 0.2,
    "lidar_saturation": 1.0,
    "lidar_detection_limit": 0.5,
    "clock_offset_s": 1.0,
    "lidar_at_nadir": True,
    "boresight_rows_px": 3.0,
    "boresight_columns_px": 3.0,
    "swath_truth": True,
    "nav_missing_fraction": 0.3,
}


THERMAL: dict[str, Any] = {  # the same, of a thermal camera
    "surface_temperature_k": 280.0,
    "surface_temperature_spread_k": 1.0,
    "surface_temperature_contrast_k": 1.0,
    "lapse_rate_k_km": 5.0,
    "lapse_rate_spread_k_km": 0.1,
    "thermal_absorption": 1.0,
    "thermal_noise_k": 0.5,
    "thermal_drift_k": 3.0,
}


@pytest.fixture(scope="module")
def reference() -> SimulatedFlight:
    """A flight with a share of every layer, so that each setting has something to act on."""
    return simulator.simulate_flight(tiny(**LAYERED), 0)


LAYERED: dict[str, Any] = {"upper_layer_fraction": 0.4, "lower_layer_fraction": 0.4, "aerosol_fraction": 0.4}


def test_every_field_has_a_change_to_test() -> None:
    # flight_count is the length of the set: test_a_set_is_written_once.
    assert CHANGES.keys() | THERMAL.keys() | {"flight_count"} == SimulationConfig.model_fields.keys()


@pytest.mark.parametrize("name", CHANGES)
def test_every_setting_moves_the_flight(name: str, reference: SimulatedFlight) -> None:
    changed = simulator.simulate_flight(tiny(**{**LAYERED, name: CHANGES[name]}), 0)
    assert not same(reference, changed)


@pytest.mark.parametrize("name", THERMAL)
def test_every_setting_of_a_thermal_camera_moves_its_flight(name: str) -> None:
    plain, changed = (tiny(**LAYERED, camera_kind="thermal", **more) for more in ({}, {name: THERMAL[name]}))
    assert not same(simulator.simulate_flight(plain, 0), simulator.simulate_flight(changed, 0))


def test_the_same_settings_give_the_same_bytes(reference: SimulatedFlight) -> None:
    assert same(reference, simulator.simulate_flight(tiny(**LAYERED), 0))
    assert not same(reference, simulator.simulate_flight(tiny(**LAYERED), 1))


# --- clouds and labels


def test_fractal_field_has_the_spectrum_asked_for() -> None:
    field = cloud_fields.fractal_field(np.random.default_rng(0), (4096, 128), 100.0, 5 / 3, 5000.0)
    assert field.mean() == pytest.approx(0, abs=1e-4)
    assert field.std() == pytest.approx(1, abs=1e-4)
    # Mean 1-D spectrum along the track, between the outer scale (5 km) and 4 grid steps.
    power = (np.abs(np.fft.rfft(field, axis=0)) ** 2).mean(1)
    k = np.fft.rfftfreq(4096, 100.0)
    inside = (k > 1 / 2500) & (k < 1 / 400)
    slope = np.polyfit(np.log(k[inside]), np.log(power[inside]), 1)[0]
    assert slope == pytest.approx(-5 / 3, abs=0.2)


def test_optical_depth_keeps_fraction_median_and_cap() -> None:
    field = np.random.default_rng(0).standard_normal((400, 400))
    depth = cloud_fields.lognormal_optical_depth(field, 0.7, 0.9, 1.0, 4.0)
    assert (depth > 0).mean() == pytest.approx(0.7, abs=0.01)
    assert np.median(depth[depth > 0]) == pytest.approx(0.9, abs=0.02)
    assert depth.max() < 4.0 * (1 + 0.9 / 4.0)


@pytest.mark.no_cover
def test_default_labels_have_the_statistics_of_the_seed() -> None:
    settings = SimulationConfig()
    flights = []
    for index in range(settings.flight_count):  # without images, which take most of the time
        leg = simulator.plan_leg(settings, index)
        scene = cloud_fields.build_cloud_scene(settings, leg.regime, leg.seed(simulator.LABEL_SCENE))
        label = column_depth(simulator.take_profiles(leg, scene)[0])
        flights.append(label[(label >= 0.1) & (label <= 2.0)])
    pooled = np.concatenate(flights)
    assert pooled.mean() == pytest.approx(0.94, abs=0.1)
    assert pooled.std() == pytest.approx(0.48, abs=0.07)
    assert 2500 <= sum(len(labels) for labels in flights[:6]) <= 4000
    for labels in flights:  # each flight alone spans what a tier asks for
        low, high = np.percentile(labels, [1, 99])
        assert low < 0.3
        assert high > 1.8


def test_lidar_censors_and_hides_what_lies_below() -> None:
    depth = np.array([[0.5, 1.0, 0.2], [0.5, 2.7, 0.2], [0.0, 0.4, 0.1]])
    seen = np.array([[True, True, True], [True, True, True], [False, True, True]])
    measured, visible, opaque = simulated_lidar.censor(depth, seen, 3.0)
    # Column totals 1.7, 3.4, 0.5: only the second is opaque, its cloud stops at 3.0 - 0.5.
    assert opaque.tolist() == [False, True, False]
    assert measured[1, 1] == pytest.approx(2.5)
    assert visible[1].tolist() == [True, True, False]
    slots = simulated_lidar.into_slots(depth, seen)
    np.testing.assert_allclose(slots[2, :3], [0.4, 0.1, FILL], rtol=1e-6)


# --- light


def spot(height_km: float, centre: tuple[int, int] = (64, 64)) -> CloudScene:
    """One round cloud of optical depth 2 and radius 400 m, its base and top at `height_km`."""
    x, y = np.meshgrid(np.arange(128) - centre[0], np.arange(128) - centre[1], indexing="ij")
    depth = (2.0 * (np.hypot(x, y) <= 4)).astype(np.float32)
    height = np.full((128, 128), height_km, np.float32)
    return CloudScene(depth, height, height, np.zeros_like(depth), 11.0, 100.0)


@pytest.mark.parametrize(("height_km", "zenith_deg"), [(1.0, 30.0), (1.0, 60.0), (2.5, 45.0)])
@pytest.mark.parametrize("azimuth_deg", [0.0, 90.0, 200.0])
def test_shadows_fall_away_from_the_sun(height_km: float, zenith_deg: float, azimuth_deg: float) -> None:
    sun = radiance.sun_direction(azimuth_deg, 0.0)
    dark = 1 - radiance.surface_beam(spot(height_km), sun, zenith_deg)
    x, y = np.meshgrid(np.arange(128) - 64, np.arange(128) - 64, indexing="ij")
    centroid_m = 100 * np.array([(dark * x).sum(), (dark * y).sum()]) / dark.sum()
    # A ray that misses the cloud's edge lands height * tan(zenith) beyond it, opposite to the sun.
    expected_m = -np.array(sun) * 1000 * height_km * np.tan(np.deg2rad(zenith_deg))
    np.testing.assert_allclose(centroid_m, expected_m, atol=5)


def test_a_tower_shades_the_deck_behind_it_and_shines_on_the_sun_side() -> None:
    scene = spot(1.0)
    tower = CloudScene(**{**vars(scene), "top_km": scene.base_km + 0.5 * (scene.optical_depth > 0)})
    beam = radiance.cloud_shadow(tower, (1.0, 0.0), 60.0, 0.5)
    assert beam[58, 64] < 0.3 < beam[70, 64] == 1.0  # the sun stands ahead: the shadow lies behind
    factor = radiance.sun_side_factor(tower.top_km, 100.0, (1.0, 0.0), 1.0, 0.3)
    assert factor[68, 64] > 1 > factor[60, 64]


def test_two_stream_reflectance_saturates() -> None:
    depth = np.array([0.0, 1.0, 10.0, 1000.0])
    # By hand: b tau / mu = 0.75 * 0.15 * 1 / 0.5 = 0.225, R = 0.225 / 1.225.
    values = radiance.two_stream_reflectance(depth, 0.5, 0.85)
    assert values[0] == 0
    assert values[1] == pytest.approx(0.225 / 1.225)
    assert (np.diff(values) > 0).all()
    assert 0.99 < values[3] < 1


def test_diffusion_removes_small_scales_and_keeps_the_mean() -> None:
    field = np.random.default_rng(0).standard_normal((256, 128)).astype(np.float32) + 5
    smooth = radiance.photon_diffusion(field, np.full(field.shape, 0.5, np.float32), 0.5, 100.0)
    smoother = radiance.photon_diffusion(field, np.full(field.shape, 1.0, np.float32), 0.5, 100.0)
    assert smooth.mean() == pytest.approx(field.mean(), rel=1e-4)
    fine = [np.diff(f, axis=0).var() for f in (field, smooth, smoother)]
    assert fine[0] > 2 * fine[1] > 2 * fine[2]


# --- camera


def motion_px(frames: np.ndarray) -> float:
    """Pixels per frame by which the scene moves back, from the peak of the lagged correlation."""
    lags = np.arange(1, 8)
    match = []
    for lag in lags:
        pairs = frames[:-1, :, lag:], frames[1:, :, :-lag]
        match.append(np.corrcoef(pairs[0].ravel(), pairs[1].ravel())[0, 1])
    best = int(np.argmax(match))
    left, middle, right = match[best - 1 : best + 2]
    return float(lags[best] + 0.5 * (left - right) / (left - 2 * middle + right))


@pytest.mark.parametrize("base_km", [2.0, 6.0, 10.0])
def test_higher_clouds_move_faster(base_km: float) -> None:
    flight = simulator.simulate_flight(bare(base_km, frames_per_flight=300), 0)
    # 200 m a frame; a pixel of 100 m at the ground covers 100 (1 - z/20 km) m at height z.
    expected = 200 / (100 * (1 - base_km / 20))
    assert motion_px(reflectance(flight)) == pytest.approx(expected, abs=0.12)


def test_nadir_pixel_sees_the_column_below() -> None:
    flight = simulator.simulate_flight(bare(3.0, frames_per_flight=300), 0)
    depth = flight.truth["nadir_optical_depth"]
    cos_zenith = np.cos(np.deg2rad(flight.regime.solar_zenith_deg))
    expected = radiance.two_stream_reflectance(depth, float(cos_zenith), 0.85)
    np.testing.assert_allclose(reflectance(flight)[:, 16, 16], expected, atol=0.01)


def test_every_pixel_sees_the_column_that_the_swath_truth_names() -> None:
    """Light of a faultless camera is a function of the truth at each pixel, and at nadir both truths are one."""
    flight = simulator.simulate_flight(bare(6.0, swath_truth=True), 0)
    depth = flight.truth["swath_optical_depth"]
    assert depth.shape == flight.camera["Product/Signal"].shape
    assert depth.dtype == np.float32
    cos_zenith = np.cos(np.deg2rad(flight.regime.solar_zenith_deg))
    expected = radiance.two_stream_reflectance(depth, float(cos_zenith), 0.85)
    # between grid points the reflectance of the mean is not the mean of the reflectance
    assert np.quantile(np.abs(reflectance(flight) - expected), 0.99) < 0.015
    np.testing.assert_allclose(depth[:, 16, 16], flight.truth["nadir_optical_depth"], atol=1e-3)


def test_the_swath_truth_counts_the_upper_layer_and_changes_nothing_else() -> None:
    upper = {"upper_layer_fraction": 0.6, "upper_layer_optical_depth": 0.3}
    plain, kept = (simulator.simulate_flight(bare(2.0, **upper, swath_truth=on), 0) for on in (False, True))
    depth = kept.truth.pop("swath_optical_depth")
    assert same(plain, kept)
    alone = simulator.simulate_flight(bare(2.0, swath_truth=True), 0).truth["swath_optical_depth"]
    added = depth - alone
    assert added.min() > -1e-4
    assert 0.1 < added.mean() < 0.3  # 0.3 over six tenths of the sky


def test_rows_run_from_left_to_right() -> None:
    settings = bare(3.0, boresight_rows_px=6.0, frames_per_flight=300)
    flight = simulator.simulate_flight(settings, 0)
    depth, frames = flight.truth["nadir_optical_depth"], reflectance(flight)
    match = [np.corrcoef(frames[:, row, 16], depth)[0, 1] for row in range(32)]
    assert int(np.argmax(match)) == 16 + 6  # a lidar that looks right sees what later rows show


def test_default_pixels_have_a_signal_to_noise_of_ten() -> None:
    noisy = simulator.simulate_flight(tiny(black_frame_fraction=0.0), 0)
    clean = simulator.simulate_flight(tiny(black_frame_fraction=0.0, read_noise=0.0, shot_noise=0.0), 0)
    noise = (reflectance(noisy) - reflectance(clean)).std()
    assert noisy.facts["signal_to_noise"] == pytest.approx(reflectance(clean).mean() / noise, rel=0.02)
    assert noisy.facts["signal_to_noise"] >= 10
    assert reflectance(clean).std() / noise >= 10  # and the contrast, not the mean alone, stands out


def test_vignette_and_faults() -> None:
    settings = tiny(vignetting=0.2, black_frame_fraction=0.2, dropped_frame_fraction=0.2)
    response = camera.vignette(settings)
    assert response[0, 0] == pytest.approx(0.8)
    assert response[16, 16] > 0.99
    flight = simulator.simulate_flight(settings, 0)
    frames, times = flight.camera["Product/Signal"], flight.camera["Time/TimeUTC"]
    assert len(frames) == len(times) == len(flight.navigation["nav/heading"]) < 120
    assert (frames.max((1, 2)) == 0).any()
    assert set(np.diff(times)) > {1.0}  # dropped frames are gaps in time


def test_terrain_and_weather_accompany_each_frame() -> None:
    settings = tiny(surface_contrast=0.4, surface_albedo=0.2, dropped_frame_fraction=0.2)
    flight = simulator.simulate_flight(settings, 0)
    leg = simulator.plan_leg(settings, 0)
    albedo, level = (flight.navigation[name] for name in ("terrain/surfaceAlbedo", "weather/liftingCondensationLevel"))
    assert len(albedo) == len(level) == len(flight.camera["Time/TimeUTC"]) < 120
    assert np.isfinite(albedo).all()
    assert 0.02 <= albedo.min() < albedo.max() <= 0.6
    assert abs(level.mean() - leg.regime.base_height_km) < 4 * simulator.FORECAST_ERROR_KM
    assert level.std() < 2 * simulator.FORECAST_ERROR_KM
    assert simulator.simulate_flight(tiny(surface_contrast=0.0), 0).navigation["terrain/surfaceAlbedo"].std() < 1e-6


def nadir_correlation(preset: str) -> float:
    """Correlation of nadir reflectance with the label, pooled over two flights."""
    settings = SimulationConfig(
        preset=preset, frames_per_flight=1500, frame_rows=8, frame_columns=8, dropped_frame_fraction=0.0
    )
    pairs = []
    for index in range(2):
        flight = simulator.simulate_flight(settings, index)
        label = column_depth(flight.lidar)
        pairs.append(np.stack([reflectance(flight)[2::5, 4, 4][: len(label)], label]))
    return float(np.corrcoef(np.concatenate(pairs, 1))[0, 1])


def test_no_signal_holds_none_and_the_default_does() -> None:
    # 600 profiles with a few hundred independent ones: chance stays inside 0.15.
    assert abs(nadir_correlation("no_signal")) < 0.15
    assert nadir_correlation("default") > 0.6
    regimes = [SimulationConfig(preset="no_signal").regime(i) for i in range(8)]
    assert len({(r.optical_depth_median, r.cloud_fraction, r.base_height_km) for r in regimes}) == 1


# --- time


def test_profiles_are_centred_on_frames_and_keep_their_clock() -> None:
    flight = simulator.simulate_flight(tiny(), 0)
    days = flight.lidar["layer_descriptor/Profile_Decimal_Julian_Day"]
    first = datetime(flight.start.year, 1, 1, tzinfo=UTC).timestamp()
    seconds = (days - 1) * 86_400 + first - flight.start.timestamp() - flight.facts["clock_offset_s"]
    # A 5-s profile averages frames 0 to 4: from -0.5 s to 4.5 s.
    np.testing.assert_allclose(seconds[0], [-0.5, 2.0, 4.5], atol=1e-4)
    np.testing.assert_allclose(np.diff(seconds[:, 1]), 5.0, atol=1e-4)
    assert abs(flight.facts["clock_offset_s"]) <= 0.5


def test_day_of_year_wraps_at_new_year_and_one_default_flight_crosses_midnight() -> None:
    start = datetime(2024, 12, 31, 23, 59, 50, tzinfo=UTC)
    days = simulator.day_of_year(start, np.array([0.0, 10.0, 20.0]))
    assert days == pytest.approx([366 + 86_390 / 86_400, 1.0, 1 + 10 / 86_400])
    starts = [datetime.fromisoformat(regime.start_utc) for regime in DEFAULT_REGIMES]
    assert len({start.date() for start in starts}) == len(starts)
    assert sum(start.hour * 3600 + start.minute * 60 + 3600 > 86_400 for start in starts) == 1


# --- files


def test_files_follow_the_layout(tmp_path: Path) -> None:
    flight = simulator.simulate_flight(tiny(dropped_frame_fraction=0.0), 0)
    paths = files.write_flight(flight, tmp_path)
    assert sorted(path.name for path in tmp_path.iterdir()) == [
        "CPL_L2_V1-02_01kmLay_sim01_03jun24.hdf5",
        "NAV_20240603.h5",
        "SIM2024_CAM_L1B_20240603.h5",
        "TRUTH_sim01.h5",
    ]
    with h5py.File(paths["camera"]) as file:
        signal = file["Product/Signal"]
        assert (signal.shape, signal.dtype) == ((120, 32, 32), np.uint16)
        assert signal.attrs["scale_factor"] == 1e-4
        assert file["Time/TimeUTC"].dtype == np.float64
        assert file.attrs["axes"] == "frame, across_track, along_track"
        assert file.attrs["pixel_m"] == 100.0
    with h5py.File(paths["lidar"]) as file:
        layers = file["layer_descriptor"]
        for name in ("Feature_Optical_Depth_532", "Layer_Base_Altitude", "Layer_Top_Altitude"):
            assert (layers[name].shape, layers[name].dtype) == ((24, 10), np.float32)
            filled = (layers[name][:] == FILL).sum(1)
            np.testing.assert_array_equal(filled, 10 - layers["Number_Layers"][:])
        assert layers["Profile_Decimal_Julian_Day"].shape == (24, 3)
        assert file["geolocation/CPL_Latitude"].shape == (24, 3)
    with h5py.File(paths["navigation"]) as file:
        assert {"solarZenith", "sunAzGrd", "heading", "roll", "pitch", "altitude"} <= set(file["nav"])
        assert all(values.shape == (120,) for values in file["nav"].values())
    with h5py.File(paths["truth"]) as file:
        assert file["truth/nadir_optical_depth"].shape == (120,)
        assert file["truth/footprint_optical_depth"].shape == (24,)
        assert {"gain", "clock_offset_s", "boresight_rows_px"} <= set(file.attrs)
        assert SimulationConfig.model_validate_json(file.attrs["settings"]) == flight.settings


def test_layers_are_sorted_from_the_top() -> None:
    flight = simulator.simulate_flight(tiny(upper_layer_fraction=0.6, aerosol_fraction=0.9), 0)
    top, base = (flight.lidar[f"layer_descriptor/Layer_{name}_Altitude"] for name in ("Top", "Base"))
    present = top != FILL
    assert (present.sum(1) >= 2).any()
    assert (top[present] > base[present]).all()
    steps = np.diff(top, axis=1)[present[:, 1:]]
    assert (steps < 0).all()


def test_a_failed_write_leaves_no_file(tmp_path: Path) -> None:
    path = tmp_path / "broken.h5"
    values = {"ok": np.zeros(3), "bad": np.array([object()])}
    with pytest.raises(TypeError):
        simulated_files.write_file(path, values, {}, tiny())
    assert list(tmp_path.iterdir()) == []


def test_a_set_is_written_once(tmp_path: Path) -> None:
    calls: list[tuple[int, int]] = []
    first = simulator.simulate_flights(tiny(), tmp_path, lambda done, total: calls.append((done, total)))
    assert [folder.name for folder in first] == ["sim01", "sim02"]
    assert calls == [(1, 2), (2, 2)]
    stamps = {path: path.stat().st_mtime_ns for path in tmp_path.rglob("*.h5")}
    again = simulator.simulate_flights(tiny(), tmp_path, lambda done, total: calls.append((done, total)))
    assert again == first
    assert calls == [(1, 2), (2, 2)]
    assert stamps == {path: path.stat().st_mtime_ns for path in tmp_path.rglob("*.h5")}
    assert simulator.simulate_flights(tiny(seed=5, flight_count=1), tmp_path)[0].parent != first[0].parent


def test_an_interrupted_set_leaves_nothing(tmp_path: Path) -> None:
    def interrupt(done: int, total: int) -> None:
        raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        simulator.simulate_flights(tiny(), tmp_path, interrupt)
    assert list(tmp_path.iterdir()) == []


def test_the_aircraft_flies_above_its_clouds() -> None:
    """Low flights are possible over low clouds, and refused where a layer would be above."""
    regime = SimulationConfig().regimes[0].model_copy(update={"altitude_km": 8.0})
    low = {"regimes": (regime,), "upper_layer_fraction": 0.0}
    assert SimulationConfig(**low).of_flight(0).altitude_km == 8.0
    for changes in ({"upper_layer_fraction": 0.1}, {"base_height_std_km": 1.0, "thickness_at_unit_depth_km": 2.0}):
        with pytest.raises(ValidationError, match=r"altitude_km must be 0\.5 km above the highest clouds"):
            SimulationConfig(**{**low, **changes})

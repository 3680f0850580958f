"""The simulator's preset of heights: planted signs of geometry, layers, wind; and older presets as they were."""

from pathlib import Path
from typing import Any

import h5py
import numpy as np
import pytest

from cloudml_tf.config.simulation import HEIGHT_REGIMES, FlightRegime, SimulationConfig
from cloudml_tf.data.plane_sweep import heights_km, sweep
from cloudml_tf.data.simulation import simulator
from cloudml_tf.data.simulation.files import SimulatedFlight, dataset_attributes, write_flight
from cloudml_tf.nn.sightlines import PITCH, ROLL, WIND_FORWARD, WIND_RIGHT

DEPTH, BASE, TOP = (
    f"layer_descriptor/{name}" for name in ("Feature_Optical_Depth_532", "Layer_Base_Altitude", "Layer_Top_Altitude")
)
WHOLE = {"dropped_frame_fraction": 0.0, "black_frame_fraction": 0.0, "aerosol_fraction": 0.0, "clock_offset_s": 0.0}


def flight_of(index: int, **changes: Any) -> SimulatedFlight:
    """A short flight of the preset without gaps, so that its frames and profiles have one index."""
    settings = {"preset": "heights", "frames_per_flight": 200, "strip_width_m": 3200.0, **WHOLE, **changes}
    return simulator.simulate_flight(SimulationConfig(**settings), index)


def geometry(flight: SimulatedFlight) -> np.ndarray:
    """What the files say of each frame, (T,9), the columns of `sightlines.GEOMETRY`."""
    nav, zero = flight.navigation, np.zeros(len(flight.navigation["nav/roll"]))
    altitude, attitude = nav["nav/altitude"], (nav["nav/roll"], nav["nav/pitch"])
    wind = (nav["weather/windAlongTrack"], nav["weather/windAcrossTrack"])
    time_s = flight.camera["Time/TimeUTC"] - flight.camera["Time/TimeUTC"][0]
    scale = altitude / flight.settings.pixel_m
    return np.stack([time_s, altitude / 1000, scale, *attitude, nav["nav/groundSpeed"], zero, *wind], axis=1)


def error_km(flight: SimulatedFlight, turned: tuple[int, ...] = ()) -> float:
    """The mean absolute error of the plane sweep over seven frames against the lidar's top; some signs turned."""
    seen = np.flatnonzero(flight.lidar[TOP][3:-3, 0] > 0)[::4] + 3
    frames, columns = seen[:, None] + np.arange(-3, 4), geometry(flight)
    columns[:, list(turned)] *= -1
    image = flight.camera["Product/Signal"][frames][..., None].astype("float32")
    nadir = (flight.settings.frame_rows // 2, flight.settings.frame_columns // 2)
    found, _ = sweep(image, columns[frames], nadir, heights_km(6.0, 0.1))
    return float(np.nanmean(np.abs(found - flight.lidar[TOP][seen, 0])))


# --- signs


# The winds of the two flights have other signs.
@pytest.mark.parametrize(("index", "preset"), [(0, "heights"), (3, "heights"), (3, "heights_thermal")])
def test_the_files_geometry_leads_to_the_top_and_no_sign_of_it_can_be_turned(index: int, preset: str) -> None:
    flight = flight_of(index, preset=preset, attitude_time_s=5.0, pitch_std_deg=0.2)
    error = error_km(flight)
    assert error < 0.35
    for turned in (WIND_FORWARD, WIND_RIGHT, ROLL, PITCH):
        assert error_km(flight, (turned,)) > 1.4 * error, turned


def test_a_level_beam_sees_what_the_image_shows_at_nadir() -> None:
    plain = {"shadow_strength": 0.0, "surface_contrast": 0.0, "sun_side_brightening": 0.0, "diffusion_scale": 0.0}
    flight = flight_of(0, roll_std_deg=0.8, pitch_std_deg=0.4, **plain)
    pixels = np.deg2rad(geometry(flight)[:, 3:5]) * geometry(flight)[:, 2:3]
    row, column = np.rint(16 + pixels[:, 0]).astype(int), np.rint(24 - pixels[:, 1]).astype(int)
    inside = (row >= 0) & (row < 32) & (column >= 0) & (column < 48)
    image, depth = flight.camera["Product/Signal"], flight.truth["nadir_optical_depth"]
    nadir = image[np.flatnonzero(inside), row[inside], column[inside]]
    assert np.corrcoef(nadir, depth[inside])[0, 1] > 0.9
    assert np.corrcoef(image[:, 16, 24], depth)[0, 1] < 0.7


# --- wind and layers


def test_wind_carries_the_clouds_and_not_the_ground() -> None:
    leg = simulator.plan_leg(SimulationConfig(preset="heights"), 0)
    # 4 m/s from behind carry the clouds forward, and 6 m/s to the left: after 100 s they are 400 m and 600 m away.
    assert leg.track.distance_m[100] == pytest.approx(100 * 205.0)
    assert leg.track.distance_m[100] - leg.track.ahead_m[100] == pytest.approx(400)
    assert leg.track.right_m[100] == pytest.approx(600)


def test_the_upper_layer_hides_the_lower_one_and_is_what_the_lidar_reports() -> None:
    own = {"lower_layer_fraction": 0.9, "cloud_fraction": 0.5, "optical_depth_median": 2.0, "base_height_km": 3.0}
    regime = HEIGHT_REGIMES[0].model_copy(update={**own, "base_height_std_km": 0.0})
    alone = regime.model_copy(update={"lower_layer_fraction": 0.0})
    both, upper = (flight_of(0, regimes=(each,), lidar_saturation=99.0) for each in (regime, alone))
    layers, base = both.lidar["layer_descriptor/Number_Layers"], both.lidar[BASE]
    assert (layers == 1).any()
    assert (layers == 2).any()
    assert (base[layers == 2, 0] > 2.5).all()
    assert (base[layers == 2, 1] < 1.5).all()
    image = upper.camera["Product/Signal"].astype(float)
    texture = both.camera["Product/Signal"] - image  # of the lower layer
    thick, clear = (texture[image > np.quantile(image, 0.95)], texture[image < np.quantile(image, 0.4)])
    assert thick.std() < 0.5 * clear.std()


@pytest.mark.parametrize("name", sorted(FlightRegime.model_fields.keys() & SimulationConfig.model_fields.keys()))
def test_a_flights_own_number_takes_the_place_of_the_sets(name: str) -> None:
    value = {"altitude_km": 18.0, "ground_speed_m_s": 180.0, "pixel_m": 90.0}.get(name, 0.6)
    plain: dict[str, Any] = {"frames_per_flight": 40, "lower_layer_fraction": 0.3}
    regimes = tuple(each.model_copy(update={name: value}) for each in SimulationConfig().regimes)
    own = simulator.simulate_flight(SimulationConfig(**plain, regimes=regimes), 1)
    of_set = simulator.simulate_flight(SimulationConfig(**{**plain, name: value}), 1)
    assert getattr(own.settings, name) == value
    for kind in ("camera", "lidar", "navigation"):
        for path, values in getattr(own, kind).items():
            np.testing.assert_array_equal(values, getattr(of_set, kind)[path])


# --- a thermal camera

FAULTLESS = {"thermal_drift_k": 0.0, "thermal_noise_k": 0.0, "gain_drift": 0.0, "surface_temperature_contrast_k": 0.0}
LEVEL = {"roll_std_deg": 0.0, "pitch_std_deg": 0.0, "psf_sigma_px": 0.0, "thickness_at_unit_depth_km": 0.01}


def temperature_k(flight: SimulatedFlight) -> np.ndarray:
    """What the file says, (T,H,W)."""
    attributes = dataset_attributes(flight.settings)["Product/Signal"]
    return flight.camera["Product/Signal"] * attributes["scale_factor"] + attributes["add_offset"]


def test_clouds_are_the_colder_the_higher_and_the_warmer_the_thinner() -> None:
    def nadir(**own: float) -> tuple[np.ndarray, np.ndarray, SimulatedFlight]:
        regime = HEIGHT_REGIMES[0].model_copy(update={"base_height_std_km": 0.0, **own})
        flight = flight_of(0, preset="heights_thermal", regimes=(regime,), **FAULTLESS, **LEVEL)
        return temperature_k(flight)[:, 16, 24], flight.truth["nadir_optical_depth"], flight

    low, depth, flight = nadir(base_height_km=1.0)
    high = nadir(base_height_km=3.0)[0]
    day = flight.settings
    assert day.surface_temperature_k != SimulationConfig().surface_temperature_k  # each day has its own
    clear = depth == 0
    assert low[clear] == pytest.approx(day.surface_temperature_k, abs=0.02)
    colder = day.lapse_rate_k_km * (1 - np.exp(-0.5 * depth))  # of each km, as the emissivity has it
    np.testing.assert_allclose(day.surface_temperature_k - low, 1.0 * colder, atol=0.15)
    np.testing.assert_allclose(low - high, 2.0 * colder, atol=0.15)
    thin = nadir(base_height_km=3.0, optical_depth_median=0.3)[0]
    assert thin[~clear].mean() > high[~clear].mean() + 2


def test_days_and_cameras_differ_by_kelvins_and_a_thermal_file_says_what_it_holds(tmp_path: Path) -> None:
    settings = SimulationConfig(preset="heights_thermal", frames_per_flight=8, strip_width_m=2400.0)
    legs = [simulator.plan_leg(settings, index) for index in range(8)]
    surface, lapse, drift = np.transpose(
        [(leg.settings.surface_temperature_k, leg.settings.lapse_rate_k_km, leg.drift_k) for leg in legs]
    )
    assert 1 < surface.std() < 8
    assert 0.1 < lapse.std() < 0.6
    assert 0.3 < drift.std() < 2
    with h5py.File(write_flight(simulator.simulate_flight(settings, 0), tmp_path)["camera"]) as file:
        signal = file["Product/Signal"]
        assert {"units": "K", "long_name": "brightness temperature"}.items() <= dict(signal.attrs).items()
        kelvin = signal[:] * signal.attrs["scale_factor"] + signal.attrs["add_offset"]
    assert 230 < kelvin.min() < kelvin.max() < 310


# --- older presets

# Of flight sim02 with 120 frames: the mean of the counts, weighted by a ramp over the pixels; that of the products with
# the frame before; and the means of the lidar's optical depths and bases with their fills. From the code before there
# was a preset of heights.
BEFORE = {
    "default": (617.1163661956787, 1842245.0735622374, -8874.002170981685, -8873.855446747566),
    "hard": (1011.2031714280446, 4338005.651949842, -8874.002170981685, -8873.855446747566),
    "weak_signal": (870.4223685661951, 3218313.306558561, -8899.005289861261, -8898.79029990673),
    "no_signal": (683.0306634585063, 2342705.405626313, -8873.990440718457, -8873.782998795932),
}


@pytest.mark.parametrize("preset", BEFORE)
def test_older_presets_are_as_they_were(preset: str) -> None:
    flight = simulator.simulate_flight(SimulationConfig(preset=preset, frames_per_flight=120), 1)
    image = flight.camera["Product/Signal"].astype(float)
    ramp = np.arange(image[0].size).reshape(image[0].shape) / image[0].size
    lidar = (flight.lidar[path].astype(float).mean() for path in (DEPTH, BASE))
    found = ((image * ramp).mean(), (image[1:] * image[:-1]).mean(), *lidar)
    assert found == pytest.approx(BEFORE[preset], rel=1e-7)

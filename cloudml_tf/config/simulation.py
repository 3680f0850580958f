"""Every number of the flight simulator, typed, bounded and described (pydantic only, no heavy import)."""

from typing import Any, Literal

from pydantic import BaseModel, ConfigDict, Field, model_validator

PresetName = Literal["default", "hard", "weak_signal", "no_signal", "heights", "heights_thermal"]

LEAST_BELOW_KM = 0.5  # of a cloud below the aircraft
MOST_CELLS = 5e8  # in a cloud strip; a field of them takes 2 GB, and a flight needs several


class FlightRegime(BaseModel):
    """The weather and geometry of one flight."""

    model_config = ConfigDict(frozen=True, extra="forbid", allow_inf_nan=False)

    name: str = Field(..., description="Short name of the cloud regime.", min_length=1)
    optical_depth_median: float = Field(..., description="Median in-cloud optical depth.", gt=0, le=20)
    cloud_fraction: float = Field(..., description="Share of the area that is cloudy.", gt=0, lt=1)
    spectral_slope: float = Field(..., description="Exponent b of the 1-D spectrum k^-b.", gt=1, le=4)
    outer_scale_m: float = Field(..., description="Scale above which the spectrum is flat, m.", gt=0)
    base_height_km: float = Field(..., description="Mean cloud base height, km.", gt=0, le=12)
    solar_zenith_deg: float = Field(..., description="Solar zenith angle, degrees.", ge=0, le=80)
    sun_azimuth_deg: float = Field(..., description="Solar azimuth, degrees from north.", ge=0, lt=360)
    heading_deg: float = Field(..., description="Flight direction, degrees from north.", ge=0, lt=360)
    start_utc: str = Field(
        ..., description="Start, YYYY-MM-DDTHH:MM:SS in UTC.", pattern=r"^\d{4}-\d\d-\d\dT\d\d:\d\d:\d\d$"
    )

    # What a flight may have of its own: named, it takes the place of the set's field of the same name.
    altitude_km: float | None = Field(None, description="Flight altitude, km; null is the set's.", ge=3, le=40)
    ground_speed_m_s: float | None = Field(None, description="Ground speed, m/s; null is the set's.", gt=0, le=400)
    pixel_m: float | None = Field(None, description="Pixel size on the ground, m; null is the set's.", gt=0, le=5000)
    wind_along_m_s: float | None = Field(None, description="Tail wind, m/s; null is the set's.", ge=-50, le=50)
    wind_across_m_s: float | None = Field(
        None, description="Wind towards the right, m/s; null is the set's.", ge=-50, le=50
    )
    optical_depth_sigma: float | None = Field(
        None, description="Std of the log of optical depth, the texture; null is the set's.", gt=0, le=3
    )
    base_height_std_km: float | None = Field(
        None, description="Variation of the base inside the flight, km; null is the set's.", ge=0, le=1
    )
    lower_layer_fraction: float | None = Field(
        None, description="Area share of a second layer below; null is the set's.", ge=0, lt=1
    )
    lower_layer_height_km: float | None = Field(
        None, description="Mean base of the second layer, km; null is the set's.", gt=0, le=12
    )
    lower_layer_optical_depth: float | None = Field(
        None, description="Median optical depth of the second layer in cloud; null is the set's.", gt=0, le=20
    )


def _regime(name: str, cloud: tuple[float, ...], sun: tuple[float, ...], start_utc: str, **own: float) -> FlightRegime:
    """Make a regime from (median, fraction, slope, outer scale m, base km) and (zenith, azimuth, heading)."""
    keys = ("optical_depth_median", "cloud_fraction", "spectral_slope", "outer_scale_m", "base_height_km")
    angles = ("solar_zenith_deg", "sun_azimuth_deg", "heading_deg")
    values = {**dict(zip(keys, cloud, strict=True)), **dict(zip(angles, sun, strict=True))}
    return FlightRegime.model_validate({"name": name, "start_utc": start_utc, **values, **own})


# The last two flights are held out by convention: their sun and clouds lie inside the range of the rest.
DEFAULT_REGIMES: tuple[FlightRegime, ...] = (
    _regime("stratocumulus", (1.00, 0.92, 1.67, 2200.0, 1.6), (48.0, 150.0, 90.0), "2024-06-03T17:05:00"),
    _regime("broken", (0.98, 0.78, 1.60, 1600.0, 2.0), (53.0, 230.0, 305.0), "2024-06-05T19:30:00"),
    _regime("altocumulus", (0.92, 0.86, 1.75, 2000.0, 3.8), (41.0, 190.0, 75.0), "2024-06-08T16:20:00"),
    _regime("late_cumulus", (1.08, 0.80, 1.67, 1800.0, 1.8), (55.0, 275.0, 190.0), "2024-06-09T23:25:00"),
    _regime("thin_deck", (0.88, 0.94, 1.60, 2100.0, 2.8), (43.0, 120.0, 215.0), "2024-06-12T15:10:00"),
    _regime("mid_level", (1.08, 0.83, 1.70, 2400.0, 4.4), (49.0, 245.0, 15.0), "2024-06-15T20:00:00"),
    _regime("validation", (0.97, 0.85, 1.65, 1900.0, 2.4), (46.0, 165.0, 110.0), "2024-06-18T17:45:00"),
    _regime("held_out", (1.00, 0.87, 1.67, 2000.0, 3.0), (49.0, 240.0, 325.0), "2024-06-21T18:15:00"),
)


# Bases differ by kilometres between flights, and wander within each; altitude, speed, pixel and wind differ too. The
# thickness follows optical depth alike everywhere, so that no image tells the level. Layers and decks are hard.
HEIGHT_REGIMES: tuple[FlightRegime, ...] = (
    _regime("cumulus", (1.0, 0.62, 1.60, 1400.0, 1.2), (38.0, 150.0, 90.0), "2024-07-03T17:05:00",
        altitude_km=20.0, ground_speed_m_s=205.0, pixel_m=40.0, wind_along_m_s=4.0, wind_across_m_s=-6.0,
        base_height_std_km=0.30),
    _regime("deck", (1.0, 0.95, 1.67, 1500.0, 1.9), (53.0, 230.0, 305.0), "2024-07-05T19:30:00",
        altitude_km=18.4, ground_speed_m_s=176.0, pixel_m=37.0, wind_along_m_s=-7.0, wind_across_m_s=3.0,
        base_height_std_km=0.30, optical_depth_sigma=0.7),
    _regime("layers", (1.2, 0.55, 1.67, 2000.0, 3.4), (41.0, 190.0, 75.0), "2024-07-08T16:20:00",
        altitude_km=19.6, ground_speed_m_s=214.0, pixel_m=42.0, wind_along_m_s=9.0, wind_across_m_s=4.0,
        base_height_std_km=0.25, lower_layer_fraction=0.5, lower_layer_height_km=1.3, lower_layer_optical_depth=1.0),
    _regime("altocumulus", (0.9, 0.70, 1.70, 1600.0, 3.8), (50.0, 275.0, 190.0), "2024-07-09T22:25:00",
        altitude_km=20.5, ground_speed_m_s=196.0, pixel_m=43.0, wind_along_m_s=-4.0, wind_across_m_s=-9.0,
        base_height_std_km=0.45),
    _regime("faint_deck", (1.0, 0.97, 1.67, 1800.0, 2.6), (43.0, 120.0, 215.0), "2024-07-12T15:10:00",
        altitude_km=17.6, ground_speed_m_s=188.0, pixel_m=38.0, wind_along_m_s=2.0, wind_across_m_s=8.0,
        base_height_std_km=0.25, optical_depth_sigma=0.25),
    _regime("low_layers", (1.1, 0.60, 1.60, 1800.0, 2.5), (49.0, 245.0, 15.0), "2024-07-15T20:00:00",
        altitude_km=19.0, ground_speed_m_s=222.0, pixel_m=40.0, wind_along_m_s=-9.0, wind_across_m_s=-2.0,
        base_height_std_km=0.30, lower_layer_fraction=0.4, lower_layer_height_km=0.8, lower_layer_optical_depth=0.9),
    _regime("validation", (0.95, 0.66, 1.65, 1500.0, 1.9), (46.0, 165.0, 110.0), "2024-07-18T17:45:00",
        altitude_km=19.2, ground_speed_m_s=182.0, pixel_m=39.0, wind_along_m_s=6.0, wind_across_m_s=5.0,
        base_height_std_km=0.42),
    _regime("held_out", (1.0, 0.64, 1.65, 1500.0, 3.0), (48.0, 240.0, 325.0), "2024-07-21T18:15:00",
        altitude_km=18.8, ground_speed_m_s=208.0, pixel_m=41.0, wind_along_m_s=-5.0, wind_across_m_s=7.0,
        base_height_std_km=0.45),
)  # fmt: skip

# A preset is a set of overrides of the field defaults; fields given explicitly win over it.
PRESETS: dict[str, dict[str, Any]] = {
    "default": {},
    "hard": {
        "surface_albedo": 0.22,
        "surface_contrast": 0.35,
        "read_noise": 0.03,
        "shot_noise": 0.03,
        "diffusion_scale": 0.9,
        "gain_drift": 0.06,
    },
    # Little signal and few labels: a noisy camera over a bright, patchy surface, and a label every twelve seconds.
    "weak_signal": {
        "surface_albedo": 0.15,
        "surface_contrast": 0.3,
        "read_noise": 0.06,
        "shot_noise": 0.06,
        "diffusion_scale": 0.9,
        "gain_drift": 0.03,
        "lidar_interval_s": 12.0,
    },
    # Image and lidar see two unrelated cloud fields, and no flight differs from another in its clouds:
    # otherwise the flight mean alone would carry information about the label.
    "no_signal": {"image_sees_lidar_cloud": False, "regime_spread": 0.0},
    # The question of heights: pixels fine enough for parallax, clouds carried by the wind, attitude that matters.
    "heights": {
        "regimes": HEIGHT_REGIMES,
        "frames_per_flight": 1000,
        "frame_columns": 48,
        "grid_m": 40.0,
        "strip_width_m": 6400.0,
        "clouds_hide": True,
        "shadow_strength": 0.5,
        "roll_std_deg": 0.4,
        "attitude_time_s": 10.0,
        "attitude_error_deg": 0.002,
        "base_height_scale_m": 12_000.0,
        "thickness_at_unit_depth_km": 0.35,
        "upper_layer_fraction": 0.0,
        "lidar_interval_s": 1.0,
        "lidar_at_nadir": True,
    },
}
PRESETS["heights_thermal"] = {**PRESETS["heights"], "camera_kind": "thermal"}


class SimulationConfig(BaseModel):
    """A set of simulated flights: clouds, radiance, camera, lidar, navigation and their faults."""

    model_config = ConfigDict(frozen=True, extra="forbid", allow_inf_nan=False)

    preset: PresetName = Field("default", description="Named overrides, applied before explicit fields.")
    seed: int = Field(2024, description="Seed of every random draw.", ge=0)

    # --- size of the set
    flight_count: int = Field(8, description="Number of flights, sim01 onward.", ge=1, le=99)
    frames_per_flight: int = Field(3600, description="Camera exposures in a flight.", ge=8, le=100_000)
    frame_rows: int = Field(32, description="Pixels across track.", ge=4, le=512)
    frame_columns: int = Field(32, description="Pixels along track.", ge=4, le=512)

    # --- flight
    pixel_m: float = Field(100.0, description="Pixel size projected on the ground, m.", gt=0, le=5000)
    frame_interval_s: float = Field(1.0, description="Time between exposures, s.", gt=0, le=60)
    ground_speed_m_s: float = Field(200.0, description="Ground speed, m/s.", gt=0, le=400)
    altitude_km: float = Field(20.0, description="Flight altitude, km; above all clouds.", ge=3, le=40)
    start_latitude_deg: float = Field(31.0, description="Latitude of the first frame.", ge=-60, le=60)
    start_longitude_deg: float = Field(-125.0, description="Longitude of the first frame.", ge=-180, le=180)
    roll_std_deg: float = Field(0.15, description="Standard deviation of roll, degrees.", ge=0, le=5)
    pitch_std_deg: float = Field(0.10, description="Standard deviation of pitch, degrees.", ge=0, le=5)
    attitude_time_s: float = Field(30.0, description="Correlation time of roll and pitch, s.", gt=0, le=600)
    attitude_error_deg: float = Field(
        0.0, description="Std of the error of recorded roll and pitch in each frame, degrees.", ge=0, le=1
    )
    wind_along_m_s: float = Field(
        0.0, description="Wind that carries the clouds and their shadows, from behind, m/s.", ge=-50, le=50
    )
    wind_across_m_s: float = Field(0.0, description="The same, towards the right, m/s.", ge=-50, le=50)
    wind_error_m_s: float = Field(
        1.0, description="Std of the error of the forecast wind, which lasts for minutes, m/s.", ge=0, le=20
    )

    # --- clouds
    regimes: tuple[FlightRegime, ...] = Field(
        DEFAULT_REGIMES, description="Weather of the flights; repeated when there are more flights.", min_length=1
    )
    regime_spread: float = Field(
        1.0, description="1: clouds differ between flights as in `regimes`; 0: all at their mean.", ge=0, le=1
    )
    grid_m: float = Field(100.0, description="Grid step of the cloud fields, m.", gt=0, le=1000)
    strip_width_m: float = Field(12_800.0, description="Width of the periodic cloud strip, m.", gt=0)
    optical_depth_sigma: float = Field(1.15, description="Std of the log of optical depth.", gt=0, le=3)
    optical_depth_cap: float = Field(4.0, description="Optical depth where the log-normal levels off.", gt=0)
    thickness_at_unit_depth_km: float = Field(
        0.45, description="Geometric thickness of a cloud of optical depth 1, km.", gt=0, le=3
    )
    thickness_exponent: float = Field(
        0.6, description="Exponent by which thickness grows with optical depth.", gt=0, le=1
    )
    base_height_std_km: float = Field(0.25, description="Variation of the base inside a flight, km.", ge=0, le=1)
    base_height_scale_m: float = Field(20_000.0, description="Outer scale of the base height, m.", gt=0)
    upper_layer_fraction: float = Field(0.15, description="Area share under a thin upper layer.", ge=0, lt=1)
    upper_layer_optical_depth: float = Field(0.08, description="Mean optical depth of the upper layer.", ge=0, le=0.5)
    upper_layer_height_km: float = Field(11.0, description="Base height of the upper layer, km.", ge=7, le=13)
    upper_layer_thickness_km: float = Field(0.6, description="Geometric thickness of the upper layer, km.", gt=0, le=2)
    upper_layer_scale_m: float = Field(15_000.0, description="Outer scale of the upper layer, m.", gt=0)
    lower_layer_fraction: float = Field(
        0.0, description="Area share of a second layer of cloud, below the main one; 0 for none.", ge=0, lt=1
    )
    lower_layer_height_km: float = Field(1.0, description="Mean base of the second layer, km.", gt=0, le=12)
    lower_layer_optical_depth: float = Field(
        1.5, description="Median optical depth of the second layer in cloud.", gt=0, le=20
    )
    aerosol_fraction: float = Field(0.10, description="Share of profiles with an aerosol layer.", ge=0, le=1)
    aerosol_optical_depth: float = Field(0.06, description="Mean aerosol optical depth.", ge=0, le=0.5)

    aerosol_base_km: float = Field(0.3, description="Base of the aerosol layer, km.", ge=0, le=2)
    aerosol_top_km: float = Field(0.9, description="Top of the aerosol layer, km.", gt=0, le=3)

    # --- radiance
    asymmetry_factor: float = Field(0.85, description="Scattering asymmetry of droplets.", ge=0, lt=1)
    surface_albedo: float = Field(0.05, description="Mean albedo of the surface.", ge=0, le=0.8)
    surface_contrast: float = Field(0.1, description="Relative std of the albedo in space.", ge=0, le=0.5)
    surface_scale_m: float = Field(3000.0, description="Outer scale of the albedo pattern, m.", gt=0)
    sun_side_brightening: float = Field(
        0.5, description="0: flat clouds; 1: brightness follows the top's slope fully.", ge=0, le=1
    )
    shadow_strength: float = Field(0.8, description="Share of the direct beam a shadow removes.", ge=0, le=1)
    diffusion_scale: float = Field(
        0.3, description="Photon smoothing length over geometric thickness; 0 switches it off.", ge=0, le=3
    )
    clouds_hide: bool = Field(
        False,
        description="Whether a cloud blurs what lies below: the share exp(-optical depth) of its texture is seen.",
    )
    image_sees_lidar_cloud: bool = Field(
        True, description="False: the camera sees an unrelated cloud field, so imagery holds no label."
    )

    # --- emission, of a thermal camera
    surface_temperature_k: float = Field(290.0, description="Mean temperature of the surface, K.", gt=200, le=340)
    surface_temperature_spread_k: float = Field(4.0, description="Std of it from flight to flight, K.", ge=0, le=20)
    surface_temperature_contrast_k: float = Field(0.3, description="Std of it along a flight, K.", ge=0, le=20)
    lapse_rate_k_km: float = Field(6.5, description="Cooling of the air with height, K/km.", ge=0, le=10)
    lapse_rate_spread_k_km: float = Field(0.3, description="Std of it from flight to flight, K/km.", ge=0, le=1)
    thermal_absorption: float = Field(
        0.5, description="Infrared absorption over visible optical depth of a cloud.", gt=0, le=2
    )
    thermal_noise_k: float = Field(0.08, description="Noise of a pixel, K.", ge=0, le=5)
    thermal_drift_k: float = Field(1.0, description="Std of the camera's offset from flight to flight, K.", ge=0, le=10)

    # --- camera
    camera_kind: Literal["solar", "thermal"] = Field(
        "solar", description="What the camera measures: reflectance of sunlight, or brightness temperature in K."
    )
    psf_sigma_px: float = Field(0.6, description="Gaussian point spread, pixels.", ge=0, le=5)
    read_noise: float = Field(0.0015, description="Read noise, reflectance units.", ge=0, le=0.2)
    shot_noise: float = Field(0.006, description="Shot noise: noise = this * sqrt(reflectance).", ge=0, le=0.3)
    vignetting: float = Field(0.08, description="Relative loss of radiance in the corners.", ge=0, lt=1)
    gain_drift: float = Field(0.008, description="Relative std of the gain from flight to flight.", ge=0, le=0.3)
    dropped_frame_fraction: float = Field(0.002, description="Frames missing in time.", ge=0, le=0.5)
    black_frame_fraction: float = Field(0.0005, description="Frames recorded all zero.", ge=0, le=0.5)
    signal_scale_factor: float = Field(1e-4, description="Reflectance of one count.", gt=0, le=0.01)

    # --- lidar
    lidar_interval_s: float = Field(5.0, description="Length of one lidar profile, s.", gt=0, le=60)
    lidar_samples: int = Field(20, description="Points of the field averaged in a profile.", ge=1, le=200)
    lidar_relative_noise: float = Field(0.06, description="Relative noise of optical depth.", ge=0, le=1)
    lidar_absolute_noise: float = Field(0.02, description="Absolute noise of optical depth.", ge=0, le=1)
    lidar_height_noise_km: float = Field(0.015, description="Noise of layer heights, km.", ge=0, le=1)
    lidar_saturation: float = Field(3.0, description="Column optical depth where the beam ends.", gt=0)
    lidar_detection_limit: float = Field(0.02, description="Thinner layers are reported clear.", ge=0, le=1)
    clock_offset_s: float = Field(
        0.2, description="Lidar clock minus camera clock: uniform within plus or minus this, s.", ge=0, le=10
    )
    lidar_at_nadir: bool = Field(
        False, description="Whether the beam stays at nadir; false: it rolls and pitches with the camera."
    )
    boresight_rows_px: float = Field(0.0, description="Lidar footprint right of the nadir pixel.", ge=-16, le=16)
    boresight_columns_px: float = Field(0.0, description="Lidar footprint ahead of the nadir pixel.", ge=-16, le=16)

    # --- truth
    swath_truth: bool = Field(
        False, description="Keep the optical depth that every pixel sees in the truth file (truth/swath_optical_depth)."
    )

    # --- navigation
    nav_missing_fraction: float = Field(0.0005, description="Rows of sun angles that are NaN.", ge=0, le=0.5)

    @model_validator(mode="before")
    @classmethod
    def _apply_preset(cls, data: Any) -> Any:
        """Fill unset fields from the named preset; explicit fields win."""
        if not isinstance(data, dict):
            return data
        return {**PRESETS.get(str(data.get("preset", "default")), {}), **data}

    @model_validator(mode="after")
    def _strip_fits(self) -> "SimulationConfig":
        """Limit the periodic cloud strip: a flight's fields are held in memory whole. It is wider than the frame, else
        a frame shows one cloud twice."""
        for index in range(len(self.regimes)):
            flight = self.of_flight(index)
            flight._check_strip()
            flight._check_altitude(self.regime(index))
        return self

    def _check_altitude(self, regime: FlightRegime) -> None:
        """The aircraft flies above the highest cloud that its flight may have."""
        thickness_km = self.thickness_at_unit_depth_km * self.optical_depth_cap**self.thickness_exponent
        highest = regime.base_height_km + 3 * self.base_height_std_km + thickness_km
        if self.upper_layer_fraction and self.upper_layer_optical_depth:
            highest = max(highest, self.upper_layer_height_km + self.upper_layer_thickness_km)
        if self.altitude_km < highest + LEAST_BELOW_KM:
            raise ValueError(
                f"altitude_km must be {LEAST_BELOW_KM:g} km above the highest clouds, which may reach {highest:.1f} km "
                f"(regime '{regime.name}'). Received: altitude_km={self.altitude_km:g}. Fly higher, or lower "
                "base_height_km, or set upper_layer_fraction to 0."
            )

    def _check_strip(self) -> None:
        path_m = self.frames_per_flight * self.frame_interval_s * self.ground_speed_m_s
        length_m = path_m + 2 * self.frame_columns * self.pixel_m
        cells = length_m / self.grid_m * (self.strip_width_m / self.grid_m)
        if cells > MOST_CELLS:
            raise ValueError(
                f"a flight's cloud strip would have {cells:.3g} cells, {MOST_CELLS:.0e} at most. Widen grid_m, or "
                "shorten the flight (frames_per_flight, frame_interval_s, ground_speed_m_s) or strip_width_m."
            )
        swath_m = self.frame_rows * self.pixel_m
        if self.strip_width_m < 1.25 * swath_m:
            raise ValueError(
                f"strip_width_m must be at least 1.25 x the swath ({swath_m:g} m). "
                f"Received: strip_width_m={self.strip_width_m:g}. Widen the strip or shrink the frame."
            )

    def of_flight(self, index: int) -> "SimulationConfig":
        """The settings of flight `index` (0-based), with what its regime has of its own."""
        regime = self.regimes[index % len(self.regimes)]
        shared = FlightRegime.model_fields.keys() & type(self).model_fields.keys()
        own = {name: value for name in sorted(shared) if (value := getattr(regime, name)) is not None}
        return self.model_copy(update=own)

    def regime(self, index: int) -> FlightRegime:
        """The regime of flight `index` (0-based); its clouds approach the mean of all as `regime_spread` falls."""
        chosen = self.regimes[index % len(self.regimes)]
        names = ("optical_depth_median", "cloud_fraction", "spectral_slope", "outer_scale_m", "base_height_km")
        update = {}
        for name in names:
            mean = sum(getattr(regime, name) for regime in self.regimes) / len(self.regimes)
            update[name] = mean + self.regime_spread * (getattr(chosen, name) - mean)
        return chosen.model_copy(update=update)

"""The sun's place in the sky from time and position. NumPy only."""

import numpy as np


def sun_position(time_s: np.ndarray, latitude_deg: np.ndarray, longitude_deg: np.ndarray) -> np.ndarray:
    """(N, 2) solar zenith and azimuth from north, degrees, without refraction; NaN where a position is unknown.

    Low-precision formulas of the Astronomical Almanac (Michalsky 1988, Solar Energy 40, 227-235): within 0.01° for 1950
    to 2050.
    """
    days = np.asarray(time_s, "float64") / 86400.0 - 10957.5  # since 2000-01-01 12:00
    mean_longitude = np.deg2rad((280.460 + 0.9856474 * days) % 360.0)
    anomaly = np.deg2rad((357.528 + 0.9856003 * days) % 360.0)
    ecliptic = mean_longitude + np.deg2rad(1.915 * np.sin(anomaly) + 0.020 * np.sin(2.0 * anomaly))
    obliquity = np.deg2rad(23.439 - 4e-7 * days)
    ascension = np.arctan2(np.cos(obliquity) * np.sin(ecliptic), np.cos(ecliptic))
    declination = np.arcsin(np.sin(obliquity) * np.sin(ecliptic))
    greenwich_h = 6.697375 + 0.0657098242 * days + (np.asarray(time_s) % 86400.0) / 3600.0
    hour_angle = np.deg2rad(15.0 * greenwich_h + longitude_deg) - ascension
    latitude = np.deg2rad(latitude_deg)
    up = np.sin(latitude) * np.sin(declination) + np.cos(latitude) * np.cos(declination) * np.cos(hour_angle)
    north = np.cos(latitude) * np.sin(declination) - np.sin(latitude) * np.cos(declination) * np.cos(hour_angle)
    east = -np.cos(declination) * np.sin(hour_angle)
    zenith = np.rad2deg(np.arccos(np.clip(up, -1.0, 1.0)))
    return np.stack([zenith, np.rad2deg(np.arctan2(east, north)) % 360.0], axis=-1)

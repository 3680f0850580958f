"""Course and speed over ground from positions. NumPy only. Letters: N frames."""

import numpy as np

LEAST_STEP_DEG = 1e-5  # about a metre: positions closer than that give no course
SMOOTHED_S = 10.0  # before and after a frame, over which both are taken: positions are rounded
METRES_PER_DEGREE = 111_195.0


def course(time_s: np.ndarray, latitude_deg: np.ndarray, longitude_deg: np.ndarray) -> np.ndarray:
    """The direction of flight over ground, (N,) degrees from north, from positions; NaN where it is unknown.

    In a cross wind an aircraft heads into the wind: its heading, which the image turns with, is then another.
    """
    found = np.full(len(time_s), np.nan)
    known, north, east, _ = _moved(time_s, latitude_deg, longitude_deg)
    moved = np.hypot(north, east) > LEAST_STEP_DEG
    found[known[moved]] = np.rad2deg(np.arctan2(east, north))[moved] % 360.0
    return found


def ground_speed(time_s: np.ndarray, latitude_deg: np.ndarray, longitude_deg: np.ndarray) -> np.ndarray:
    """The speed over ground, (N,) m/s, from positions; NaN where it is unknown."""
    found = np.full(len(time_s), np.nan)
    known, north, east, elapsed_s = _moved(time_s, latitude_deg, longitude_deg)
    with np.errstate(invalid="ignore", divide="ignore"):
        found[known] = METRES_PER_DEGREE * np.hypot(north, east) / elapsed_s
    return found


def _moved(
    time_s: np.ndarray, latitude_deg: np.ndarray, longitude_deg: np.ndarray
) -> tuple[np.ndarray, np.ndarray, np.ndarray, np.ndarray]:
    """Frames (K,) whose position is known, and around each the way north and east in degrees, and its seconds."""
    known = np.flatnonzero(np.isfinite(latitude_deg) & np.isfinite(longitude_deg))
    if len(known) < 2:
        return known[:0], *np.zeros((3, 0))
    seconds = time_s[known]
    before, after = (np.interp(seconds + half, seconds, np.arange(len(known))) for half in (-SMOOTHED_S, SMOOTHED_S))
    first, last = known[np.floor(before).astype(int)], known[np.ceil(after).astype(int)]
    north = latitude_deg[last] - latitude_deg[first]
    east = (longitude_deg[last] - longitude_deg[first] + 180.0) % 360.0 - 180.0
    return known, north, east * np.cos(np.deg2rad(latitude_deg[known])), time_s[last] - time_s[first]

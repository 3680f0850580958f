"""Which frames make a sequence: the neighbours of a frame, or those so many seconds apart.

Frames of a sequence lie in one gap-free piece of a flight. With `frame_spacing_s` they are found by their times, not by
counting, so that a dropped frame or another frame rate changes nothing. Letters: N frames, T in a sequence.
"""

import numpy as np

from cloudml_tf.config.schema import Config
from cloudml_tf.data.readers.flights import Flight

MOST_OFF = 0.25  # of the spacing, by which a frame may miss its time


def frames_around(flight: Flight, config: Config) -> np.ndarray:
    """(N,T) indices of the frames around each frame; -1 where the flight has none at that place."""
    count, half = len(flight), config.temporal_frames // 2
    here, steps = np.arange(count)[:, None], np.arange(-half, half + 1)[None, :]
    if config.frame_spacing_s is None or not half or count < 2:
        found = here + steps
        there = (found >= 0) & (found < count)
    else:
        wanted_s = flight.time_s[:, None] + config.frame_spacing_s * steps
        found = _nearest(flight.time_s, wanted_s)
        away_s = np.abs(flight.time_s[found] - wanted_s)
        near_s = min(0.501 * float(np.median(np.diff(flight.time_s))), MOST_OFF * config.frame_spacing_s)
        there = (away_s <= near_s) & ((found == here) == (steps == 0))
    found = np.where(there, found, 0)
    return np.where(there & (flight.piece[found] == flight.piece[:, None]), found, -1)


def _nearest(times: np.ndarray, wanted: np.ndarray) -> np.ndarray:
    """Indices of the rising `times` (N,) that are nearest to others of any shape."""
    after = np.clip(np.searchsorted(times, wanted), 1, len(times) - 1)
    return after - (wanted - times[after - 1] <= times[after] - wanted)


def sequences(flight: Flight, config: Config) -> np.ndarray:
    """(n,T) frame indices around each labelled frame: no gap inside, every frame with its angles and features."""
    return sequences_around(flight, np.flatnonzero(np.isfinite(flight.label)), config)


def sequences_around(flight: Flight, middle: np.ndarray, config: Config) -> np.ndarray:
    """(n,T) frame indices around those of the given frames (m,) where a whole sequence is."""
    found = frames_around(flight, config)[middle]
    return found[(found >= 0).all(axis=1) & known_inputs(flight)[found].all(axis=1)]


def known_inputs(flight: Flight) -> np.ndarray:
    """(N,) whether a frame has its sun angles, its features, and the geometry where the network reads it."""
    known: np.ndarray = np.isfinite(flight.features).all(axis=1) & flight.motion.usable
    return known if flight.sun_angles_deg is None else known & np.isfinite(flight.sun_angles_deg).all(axis=1)

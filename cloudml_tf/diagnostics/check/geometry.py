"""Geometry in `cloudml check`: what the motion of clouds through the images can say of their height."""

from collections.abc import Mapping, Sequence

import numpy as np

from cloudml_tf.config.schema import Config
from cloudml_tf.data.plane_sweep import Sight, positions_px
from cloudml_tf.data.readers.flights import Flight
from cloudml_tf.data.samples import Samples
from cloudml_tf.diagnostics.check.findings import Finding, setting
from cloudml_tf.nn.sightlines import TIME, km_per_wind

LOOKED_AT = 200  # labels, spread evenly
TOO_HIGH = 0.01  # share of labels above the highest height that is tried
MARGIN_PX, MOST_LOST = 4, 0.2  # of a window around a cloud; share of sequences in which it may leave the image
LEAST_PX = 0.05  # of 100 m of height, between the outermost frames: below, hundreds of metres are one pixel's tenth
ALIKE, LEAST_ALIKE = 0.5, 0.5  # the correlation of a window that can be followed, and the share of labels with one


def judge_geometry(flights: Sequence[Flight], parts: Mapping[str, Samples], config: Config) -> list[Finding]:
    """Check the geometry of a height; empty where none is read."""
    if config.data.geometry is None:
        return []
    unknown = [flight for flight in flights if flight.motion.columns is None]
    if unknown:
        return [_unknown(unknown)]
    train = parts.get("train")
    if train is None or train.sight is None or not len(train):
        return []
    few = train.take(np.linspace(0, len(train) - 1, min(len(train), LOOKED_AT)).astype(int))
    found = [_parallax(flights, few, train.sight, config.data.geometry.wind_error_m_s), _texture(few)]
    return found + _above_the_sweep(train.label, float(train.sight.height_km[-1]))


def _unknown(flights: Sequence[Flight]) -> Finding:
    first, names = flights[0], ", ".join(flight.name for flight in flights)
    why = "; ".join(f"{field}: {reason}" for field, reason in first.motion.missing.items())
    evidence = (
        f"unknown on {names}, so that only the looks of a cloud can say its height, and they differ by flight. {why}"
    )
    return Finding("warning", "geometry", evidence, "name data.geometry.altitude, ground_speed and pixel_m")


def _parallax(flights: Sequence[Flight], few: Samples, sight: Sight, wind_error_m_s: float | None) -> Finding:
    """How far 100 m of height move a cloud between the outermost frames, and what the wind adds."""
    geometry = sight.geometry[few.index]
    middle = geometry[:, geometry.shape[1] // 2]
    height = np.array([0.95, 1.05]) * float(np.median(few.label))
    right, ahead = positions_px(geometry, height)  # (n,T,2)
    apart = np.hypot(right[:, -1] - right[:, 0], ahead[:, -1] - ahead[:, 0])
    lost = float(1.0 - _inside(few, sight, right, ahead).mean())
    per_100_m = float(np.nanmedian(np.abs(apart[:, 1] - apart[:, 0]) / (height[1] - height[0]) * 0.1))
    seconds = float(np.median(geometry[:, -1, TIME] - geometry[:, 0, TIME]))
    of_wind = float(np.nanmedian(km_per_wind(middle, height.mean())))  # km for each m/s
    calm = [flight.name for flight in flights if not flight.motion.wind_known]
    level = sorted({field for flight in flights for field in flight.motion.missing} & {"roll", "pitch"})
    wind = f"the wind is unknown ({', '.join(calm)}), {of_wind:.2f} km for each m/s"
    known = f"each m/s that the wind is wrong is {of_wind:.2f} km"
    if wind_error_m_s is not None:
        known = f"the wind is known to {wind_error_m_s:g} m/s, which is {of_wind * wind_error_m_s:.2f} km"
    evidence = f"100 m of height move a cloud by {per_100_m:.2f} px in the {seconds:.3g} s of a sequence; "
    evidence += (wind if calm else known) + (f"; no {' and '.join(level)}, taken for level" if level else "")
    if any("ground_speed" in flight.motion.missing for flight in flights):
        evidence += "; no ground speed, taken from positions"
    if lost > MOST_LOST:
        evidence += f"; in {lost:.0%} of the sequences the cloud has left the first or the last frame"
        return Finding("warning", "geometry", evidence, "lower frame_spacing_s or temporal_frames: they must overlap")
    if per_100_m < LEAST_PX:
        return Finding("warning", "geometry", evidence, "use more frames (temporal_frames): the outermost ones decide")
    action = "name data.geometry.wind_along and wind_across, or expect a bias of each flight" if calm else ""
    return Finding("note" if calm or level else "ok", "geometry", evidence, action)


def _inside(few: Samples, sight: Sight, right: np.ndarray, ahead: np.ndarray) -> np.ndarray:
    """(n,) whether the outermost frames show a window around the place that is at nadir in the middle one."""
    frame, nadir = sight.axes.upright(few.table[few.index[:1]], few.nadir)
    there = np.ones(len(right), bool)
    for place, middle, side in ((right, nadir[0], frame.shape[2]), (ahead, nadir[1], frame.shape[3])):
        outermost = middle + place[:, [0, -1]].mean(axis=2)  # (n,2)
        there &= ((outermost >= MARGIN_PX) & (outermost <= side - 1 - MARGIN_PX)).all(axis=1)
    return there


def _above_the_sweep(label: np.ndarray, top_km: float) -> list[Finding]:
    """Labels at heights that the plane sweep does not try."""
    share = float((label > top_km).mean())
    if share < TOO_HIGH:
        return []
    evidence = f"{share:.0%} of the training labels are above {top_km:g} km, the highest height of the plane sweep"
    return [
        Finding("warning", "plane sweep", evidence, setting("data.geometry.sweep_top_km", float(np.ceil(label.max()))))
    ]


def _texture(few: Samples) -> Finding:
    """How many labels have something around nadir that can be followed from frame to frame."""
    found = few.swept()
    alike = found[1] >= ALIKE if found is not None else np.zeros(len(few), bool)
    evidence = f"around {alike.mean():.0%} of the training labels a window can be followed through its sequence"
    evidence += f" (correlation of {ALIKE:g} or more at the best height)"
    if alike.mean() < LEAST_ALIKE:
        return Finding(
            "warning", "texture", evidence, "expect no height where there is no texture, or check the geometry's signs"
        )
    return Finding("ok", "texture", evidence)

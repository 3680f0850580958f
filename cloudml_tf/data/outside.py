"""Flights whose sun or brightness training has not shown: one rule, and the sentences that tell it."""

from collections.abc import Mapping

import numpy as np

from cloudml_tf.data.ranges import Range, TrainingRanges, folded
from cloudml_tf.data.samples import Samples
from cloudml_tf.settings import Augmentation, Config

SUN_SLACK_DEG = 1.0  # a sun this much outside of the training's is the same sun: no frame is flagged
FAR_SUN_DEG = 10.0  # and one this much outside is worth a sentence about the flight
MOST = 0.5  # of the frames
FAR_SUN = "choose a split in which training covers it, or --set data.sun_angles=false"
HELD_OUT = {"val": "validation", "test": "test"}


def outside_sun(
    sun_deg: np.ndarray, ranges: TrainingRanges, augmentation: Augmentation, slack_deg: float = SUN_SLACK_DEG
) -> np.ndarray:
    """(n,2) solar zenith and azimuth from the heading -> (n,2): which of them training has not shown; NaN is False."""
    found = np.zeros(sun_deg.shape, bool)
    if ranges.solar_zenith_deg and ranges.relative_azimuth_deg:
        found[:, 0] = ranges.solar_zenith_deg.outside(sun_deg[:, 0], slack_deg)
        found[:, 1] = ranges.relative_azimuth_deg.outside_arc(folded(sun_deg[:, 1], augmentation), slack_deg)
    return found


def far_sun(sun_deg: np.ndarray | None, ranges: TrainingRanges, augmentation: Augmentation) -> str:
    """ "azimuth 130°, training has 60 to 115°" where most frames of a flight are far outside; else ""."""
    known = np.zeros((0, 2)) if sun_deg is None else sun_deg[np.isfinite(sun_deg).all(axis=1)].astype("float64")
    outside = outside_sun(known, ranges, augmentation, FAR_SUN_DEG)
    if not outside.any(axis=1).sum() > MOST * len(known):
        return ""
    said = []
    trained = (ranges.solar_zenith_deg, ranges.relative_azimuth_deg)
    seen = (Range.of(known[:, 0]), Range.of_arc(folded(known[:, 1], augmentation)))
    for n, angle in enumerate(("zenith", "azimuth")):
        if outside[:, n].sum() > 0.5 * MOST * len(known):  # true of one at least
            said.append(f"{angle} {degrees(seen[n])}, training has {degrees(trained[n])}")
    return "; ".join(said)


def degrees(found: Range | None) -> str:
    """ "60 to 115°", or "60°" of a narrow one."""
    if found is None:
        return "none"
    low, high = round(found.low), round(found.high)
    return f"{low}°" if low == high else f"{low} to {high}°"


def far_light(light: np.ndarray, ranges: TrainingRanges) -> str:
    """Mean radiances (n,C) of a flight's frames: the same, of each channel."""
    known = light[np.isfinite(light).all(axis=1)]
    said = [
        f"mean radiance of channel {channel} {_span(Range.of(known[:, channel]))}, training has {_span(trained)}"
        for channel, trained in enumerate(ranges.radiance)
        if trained.outside(known[:, channel]).sum() > MOST * len(known)
    ]
    return "; ".join(said)


def _span(found: Range) -> str:
    return f"{found.low:.3g} to {found.high:.3g}"


def far_flights(parts: Mapping[str, Samples], ranges: TrainingRanges, config: Config) -> list[str]:
    """ "test flight 20240615: azimuth 130°, training has 60 to 115°" for each held-out flight of which it is true."""
    found = []
    for part, word in HELD_OUT.items():
        samples = parts[part]
        for number in np.unique(samples.flight):
            rows = np.unique(samples.index[samples.flight == number])
            sun = None if samples.sun_angles_deg is None else samples.sun_angles_deg[rows]
            if said := far_sun(sun, ranges, config.augmentation):
                found.append(f"{word} flight {samples.flight_names[number]}: {said}")
    return found

"""The sun in `cloudml check`: impossible angles, and flights whose sun the training does not cover."""

import itertools
from collections.abc import Mapping, Sequence

import numpy as np

from cloudml_tf.config.schema import Config
from cloudml_tf.data.readers.flights import Flight
from cloudml_tf.data.samples import Samples
from cloudml_tf.data.splits import PARTS
from cloudml_tf.data.training_ranges import FAR_SUN, FAR_SUN_DEG, Range, degrees, far_flights, fit_ranges
from cloudml_tf.diagnostics.check.findings import Finding, setting

RADIANS_BELOW = 1.6  # just over π/2; no campaign has the sun that near the zenith on all of its flights


def judge_sun(flights: Sequence[Flight], parts: Mapping[str, Samples], config: Config) -> list[Finding]:
    """Check the sun's angles; empty where the network does not use them. With empty `parts` only the angles are
    checked."""
    if not config.data.sun_angles:
        return []
    if wrong := _same_dataset(config) + _radians(flights, config):
        return wrong
    found = _below_the_horizon(flights)
    return found + _shown_in_training(parts, config) if all(len(parts.get(part, ())) for part in PARTS) else found


def _same_dataset(config: Config) -> list[Finding]:
    fields = ("solar_zenith", "solar_azimuth", "heading")
    names = {field: getattr(config.data.navigation, field) for field in fields}
    for first, second in itertools.combinations(fields, 2):
        if names[first] == names[second]:
            evidence = f"data.navigation.{first} and {second} are the same dataset, '{names[first]}'"
            action = f"name the datasets of both: --set data.navigation.{second}=…"
            return [Finding("problem", "sun", evidence, action)]
    return []


def _zenith(flight: Flight) -> np.ndarray:
    """The known zenith angles, in degrees."""
    angles = np.zeros(0) if flight.sun_angles_deg is None else flight.sun_angles_deg[:, 0]
    return angles[np.isfinite(angles)]


def _radians(flights: Sequence[Flight], config: Config) -> list[Finding]:
    """Find angles that are small numbers on all flights, but read as degrees."""
    navigation = config.data.navigation
    zenith = np.concatenate([_zenith(flight) for flight in flights] or [np.zeros(0)])
    read = 90.0 - zenith if navigation.elevation else zenith  # as the files have it
    if navigation.angle_unit == "rad" or not read.size or np.abs(read).max() >= RADIANS_BELOW:
        return []
    what = f"'{navigation.solar_zenith}' is {read.min():.2f} to {read.max():.2f} on all flights"
    evidence = f"{what}, read as degrees: these look like radians"
    return [Finding("problem", "sun", evidence, setting("data.navigation.angle_unit", "rad"))]


def _below_the_horizon(flights: Sequence[Flight]) -> list[Finding]:
    night = {f.name: zenith for f in flights if len(zenith := _zenith(f)) and zenith.max() > 90.0}
    if not night:
        return []
    named = ", ".join(f"{name} {degrees(Range.of(zenith))}" for name, zenith in night.items())
    action = "check data.navigation.solar_zenith and elevation, or leave out night flights"
    return [Finding("warning", "sun", f"zenith over 90°, the sun is below the horizon: {named}", action)]


def _shown_in_training(parts: Mapping[str, Samples], config: Config) -> list[Finding]:
    ranges = fit_ranges(parts["train"], config)
    far = far_flights(parts, ranges, config)
    if far:
        return [Finding("warning", "sun", text, FAR_SUN) for text in far]
    evidence = (
        f"training has zenith {degrees(ranges.solar_zenith_deg)} and azimuth from the heading "
        f"{degrees(ranges.relative_azimuth_deg)}, mirrored as in training; "
        f"validation and test lie within {FAR_SUN_DEG:g}° of it"
    )
    return [Finding("ok", "sun", evidence)]

"""Intervals of a run: those of its own head, for a network of heights one for each height; or of flights left out.

NumPy only.
"""

from collections.abc import Mapping
from statistics import NormalDist
from typing import Any

import numpy as np

from cloudml_tf.config.schema import Config
from cloudml_tf.data.samples import Examples
from cloudml_tf.data.scaling import Scaling
from cloudml_tf.evaluation.flight_intervals import FlightIntervals
from cloudml_tf.evaluation.uncertainty import with_error
from cloudml_tf.inference.heads import MemberHead
from cloudml_tf.nn.sightlines import km_per_wind

INTERVALS = "flight_intervals"  # in the description of a run's data
Interval = tuple[np.ndarray, np.ndarray]  # lower and upper ends (n,), in the quantity's own unit


def head_intervals(output: np.ndarray, examples: Examples, config: Config, scaling: Scaling) -> dict[str, Interval]:
    """The interval of each quantity that the head gives a distribution of, by name, at `prediction.level`.

    That of a height is widened by `data.geometry.wind_error_m_s`. Empty for a head without distributions.

    Args:
        output: (n,·) of the network.
        examples: the n examples that it is of.
        config, scaling: those of the run.
    """
    model, tail = config.model, 0.5 * (1.0 - config.prediction.level)
    found: dict[str, Interval] = {}
    if model.head == "point":
        return {}
    for number in range(config.distributions):
        target, each = config.targets[number], scaling.targets[number]
        further = len(config.target.further)
        head = MemberHead(each.mean, each.std, model.head, model.bin_range, further, config.distributions, number)
        lower, upper = (each.untransform(head.quantile(output, level)) for level in (tail, 1.0 - tail))
        if target.quantity.is_height:
            value = each.untransform(head.point(output))
            lower, upper = with_error(value, lower, upper, _of_wind(value, examples, config))
        found[target.name] = (lower, upper)
    return found


def left_out_intervals(
    value: np.ndarray, description: Mapping[str, Any], config: Config, scaling: Scaling
) -> dict[str, Interval]:
    """The interval of the target around predictions (n,), from flights that were left out; empty where none were.

    Args:
        value: in the target's own unit.
        description: of the run's data (data.json).
        config, scaling: those of the run.
    """
    if INTERVALS not in description:
        return {}
    found, target = FlightIntervals.from_json(description[INTERVALS]), scaling.target
    learned = target.learned(value, target.smearing)
    half = found.half_width(learned, config.prediction.level)
    return {config.target.name: (target.untransform(learned - half), target.untransform(learned + half))}


def _of_wind(height_km: np.ndarray, examples: Examples, config: Config) -> np.ndarray:
    """The km on either side that the wind's error makes at `prediction.level`, (n,)."""
    error = None if config.data.geometry is None else config.data.geometry.wind_error_m_s
    samples = examples.at_nadir
    if not error or samples is None or samples.sight is None:
        return np.zeros(len(height_km))
    middle = samples.index[:, samples.index.shape[1] // 2]
    deviations = NormalDist().inv_cdf(0.5 * (1.0 + config.prediction.level))
    return deviations * error * np.abs(km_per_wind(samples.sight.geometry[middle], height_km))

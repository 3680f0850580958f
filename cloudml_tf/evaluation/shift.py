"""Are these flights of the kind that a model was trained on? What `evaluate` says of it, in words and as numbers."""

from collections.abc import Mapping
from dataclasses import asdict
from typing import Any

import numpy as np

from cloudml_tf.config.schema import Config
from cloudml_tf.data.drift import meaning, shifts
from cloudml_tf.data.samples import Samples
from cloudml_tf.data.training_ranges import TrainingRanges, far_light, far_sun, frame_means

NOTE = (
    "Distance: Kolmogorov and Smirnov's, 0 to 1. Chance: how often flights of the training's kind would be as far "
    "away, judged by how much the training flights differ from each other. Below 0.001 it is a warning."
)


def judge_shift(samples: Samples, description: Mapping[str, Any], config: Config) -> dict[str, Any]:
    """`warnings`, a sentence each; what they `mean` together; what was `compared`, a row an input and a flight.

    `description` is the model's, with its `ranges` and `distributions`.
    """
    found = shifts(samples, description["distributions"], config)
    said = [shift.sentence() for shift in found if shift.certain]
    ranges = TrainingRanges.from_json(description["ranges"])
    return {
        "warnings": [*said, *_outside(samples, ranges, config)],
        "meaning": meaning(found),
        "compared": [asdict(shift) for shift in found],
    }


def _outside(samples: Samples, ranges: TrainingRanges, config: Config) -> list[str]:
    """Flights most of whose frames have a sun or a radiance that training has not shown."""
    found = []
    for number in np.unique(samples.flight):
        rows = np.unique(samples.index[samples.flight == number])
        sun = None if samples.sun_angles_deg is None else samples.sun_angles_deg[rows]
        light = frame_means(samples.table[rows])
        for said in (far_sun(sun, ranges, config.augmentation), far_light(light, ranges)):
            if said:
                name = samples.flight_names[number]
                found.append(f"{name}: most frames are outside of the training: {said}. Their answers extrapolate.")
    return found

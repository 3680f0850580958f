"""Are these flights of the kind that a model was trained on? The answer of `evaluate`, in words and in numbers."""

from collections.abc import Mapping
from dataclasses import asdict
from typing import Any

import numpy as np

from cloudml_tf.config.schema import Config
from cloudml_tf.data.drift import meaning, shifts
from cloudml_tf.data.samples import Samples
from cloudml_tf.data.training_ranges import TrainingRanges, extrapolated, frame_means

NOTE = (
    "Distance: Kolmogorov-Smirnov, 0 to 1. Chance: how often flights of the same kind as in training would be as far "
    "away, estimated from how much the training flights differ from each other. Below 0.001 it is a warning."
)


def judge_shift(samples: Samples, description: Mapping[str, Any], config: Config) -> dict[str, Any]:
    """Compare flights with the training: `warnings`, a sentence each; their `meaning`; `compared`, a row per input and
    flight.

    `description` is the model's, with its `ranges` and `distributions`.
    """
    found = shifts(samples, description["distributions"], config)
    sentences = [shift.sentence() for shift in found if shift.certain]
    ranges = TrainingRanges.from_json(description["ranges"])
    return {
        "warnings": [*sentences, *_outside(samples, ranges, config)],
        "meaning": meaning(found),
        "compared": [asdict(shift) for shift in found],
    }


def _outside(samples: Samples, ranges: TrainingRanges, config: Config) -> list[str]:
    """Flights most of whose frames have a sun or a mean radiance outside the training range."""
    found = []
    for number in np.unique(samples.flight):
        rows = np.unique(samples.index[samples.flight == number])
        sun = None if samples.sun_angles_deg is None else samples.sun_angles_deg[rows]
        name, light = samples.flight_names[number], frame_means(samples.table[rows])
        found += extrapolated(name, sun, light, ranges, config.augmentation)
    return found

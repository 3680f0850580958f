"""Are these flights of the kind that a model was trained on? What `evaluate` says of it, in words and as numbers."""

from collections.abc import Mapping
from dataclasses import asdict
from typing import Any

import numpy as np
from markupsafe import Markup

from cloudml_tf import page
from cloudml_tf.data.outside import far_light, far_sun
from cloudml_tf.data.ranges import TrainingRanges, frame_means
from cloudml_tf.data.samples import Samples
from cloudml_tf.data.skew import meaning, shifts
from cloudml_tf.settings import Config

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


def section(found: Mapping[str, Any]) -> Markup:
    """For the report."""
    lines = [page.element("p", page.badge("shift", "fair"), found["meaning"])] if found["warnings"] else []
    rows = [
        [
            f"{row['name']}: {', '.join(row['flights'])}",
            *(" to ".join(f"{row[side][end]:.3g}" for end in (0, 2)) for side in ("training", "here")),
            f"{row['stds']:+.2f}",
            f"{row['distance']:.2f}",
            "-" if row["chance"] is None else f"{row['chance']:.2g}",
        ]
        for row in found["compared"]
    ]
    columns = ["", "training, 5 to 95 %", "here, 5 to 95 %", "median, std", "distance", "chance"]
    bullets = [page.bullets(found["warnings"])] if found["warnings"] else []
    return page.section("Inputs and labels beside the training", *lines, *bullets, page.table(columns, rows), note=NOTE)

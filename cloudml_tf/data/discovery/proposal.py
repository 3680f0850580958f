"""Propose a whole configuration from what was found: flights, split, target and sizes."""

from pathlib import Path
from typing import Any

import numpy as np

from cloudml_tf.config.data import FlightFiles
from cloudml_tf.config.schema import Config
from cloudml_tf.config.targets import QUANTITIES
from cloudml_tf.data.discovery.grouping import group, source_of
from cloudml_tf.data.discovery.mapped import Mapping, times_of
from cloudml_tf.data.independence import effective_size
from cloudml_tf.data.readers.times import continued

FRAMES = Config.model_fields["temporal_frames"].default
TARGETS = {f"lidar.{quantity.lidar}": name for name, quantity in QUANTITIES.items()}
LONGEST_GAP_S, GAP_SHARE = 60.0, 0.02


FEWEST_FLIGHTS = 5  # of the training and validation, from which leaving one out says something
FEW_LABELS = 3000.0  # independent ones, below which the small network is proposed
GAIN_STD = 0.1  # how much calibrations of two flights usually differ
SMALL_MODEL: dict[str, Any] = {
    "architecture": "no_attention",
    "widths": [12, 16, 24],
    "footprint": 7,
    "encoder_features": 32,
    "head_units": 32,
    "mirror_average": True,
}
SHORT_TRAINING = {"max_epochs": 8, "batch_size": 64, "learning_rate": 0.003, "ema_momentum": 0.98}


def propose(mapping: Mapping, name: str) -> tuple[dict[str, Any], dict[str, FlightFiles]]:
    """The content of a configuration file, and its flights by name."""
    flights = group(mapping)
    sections = {role: dict(settings) for role, settings in mapping.sections.items() if settings}
    if not mapping.sun_angles:
        sections.pop("navigation", None)
    data: dict[str, Any] = {**source_of(mapping, flights)}
    for role, settings in sections.items():
        data[role] = {**data.get(role, {}), **settings}
    if not mapping.sun_angles:
        data["sun_angles"] = False
    step_s = _frame_interval(mapping, flights)
    if step_s > 1.0 and "lidar" in data:
        data["lidar"]["tolerance_s"] = min(round(0.5 * step_s, 3), 60.0)
    content = {
        "$schema": "schema.json",
        "experiment_name": name,
        "target": _target(mapping),
        "data": data,
        "split": _split(mapping, flights),
    }
    return {**content, **_recipe(mapping, content)}, flights


def _recipe(mapping: Mapping, content: dict[str, Any]) -> dict[str, Any]:
    """The sections of a training that is judged by leaving out flights, where there are enough of them.

    The fewer independent labels, the smaller the network: what it could learn beyond the level of each flight is in
    them alone.
    """
    split, labels = content["split"], [choice for choice in mapping.choices if choice.field in TARGETS]
    flights = len([*split.get("train", ()), *split.get("val", ())])
    if content["target"]["name"] != "optical_depth" or not labels or flights < FEWEST_FLIGHTS:
        return {}
    seen = np.log(np.maximum(labels[0].found.finite, 1e-3))
    worth = effective_size(seen, np.zeros(len(seen))) * flights if len(seen) > 1 else 0.0
    found: dict[str, Any] = {"augmentation": {"gain_std": GAIN_STD}, "selection": {}}
    how = "the usual network"
    if worth < FEW_LABELS:
        found |= {"model": SMALL_MODEL, "training": SHORT_TRAINING}
        how = "a small network"
    mapping.note(
        f"{flights} flights for training, worth about {worth:.0f} independent labels: {how}, a random gain, and an "
        "average with ridge and boosting, judged by leaving out each flight in turn (selection)"
    )
    return found


def _target(mapping: Mapping) -> dict[str, Any]:
    """The first label that was found; its default range unless that would drop most of the values."""
    labels = [choice for choice in mapping.choices if choice.field in TARGETS]
    if not labels:
        return {"name": "optical_depth"}
    name = TARGETS[labels[0].field]
    values = labels[0].found.finite
    quantity = QUANTITIES[name]
    low, high = (-np.inf, np.inf) if quantity.is_height else quantity.usual  # heights may be in another unit here
    cloudy = values[values > 0]
    if cloudy.size and ((cloudy < low) | (cloudy > high)).mean() > 0.5:
        mapping.note(
            f"most values of '{labels[0].found.name}' are outside the usual {low:g} to {high:g}: target.maximum is "
            "null; consider up to which value the lidar can be trusted"
        )
        return {"name": name, "maximum": None}
    return {"name": name}


def _split(mapping: Mapping, flights: dict[str, FlightFiles]) -> dict[str, Any]:
    """Split three flights or more by name: the last tests, the one before validates. Fewer are cut in time.

    Files that continue one another and are left apart are parts of one flight all the same, and stay together.
    """
    runs = {name: _frame_times(mapping, files) for name, files in flights.items()}
    chains = sorted(continued(runs), key=lambda chain: chain[0])
    for chain in chains:
        if len(chain) > 1:
            mapping.note(
                f"flights {', '.join(chain)} continue one another: parts of one flight, which no split divides by name"
            )
    if len(chains) >= 3:
        parts = {"train": [name for chain in chains[:-2] for name in chain], "val": chains[-2], "test": chains[-1]}
        return {"kind": "flights", **parts}
    lengths = [float(run[-1] - run[0]) for run in runs.values() if len(run)]
    gap = min(LONGEST_GAP_S, round(GAP_SHARE * min(lengths, default=np.inf), 1))
    gap = max(gap, round((FRAMES + 1) * _frame_interval(mapping, flights), 1))  # no sequence lies on both sides
    return {"kind": "time_blocks", **({"gap_s": gap} if gap != LONGEST_GAP_S else {})}


def _frame_interval(mapping: Mapping, flights: dict[str, FlightFiles]) -> float:
    steps = [np.diff(_frame_times(mapping, files)) for files in list(flights.values())[:1]]
    return float(np.median(steps[0])) if steps and steps[0].size else 0.0


def _frame_times(mapping: Mapping, files: FlightFiles) -> np.ndarray:
    return times_of(mapping, "camera", Path(files.camera))

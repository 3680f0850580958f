"""Read one flight with a proposed configuration, up to the sequences that a training would use."""

from dataclasses import replace
from typing import Any

import numpy as np

from cloudml_tf.config.schema import Config
from cloudml_tf.data.readers.flights import load_flight
from cloudml_tf.data.readers.frames import read_frames
from cloudml_tf.data.samples import build_samples, sequences
from cloudml_tf.data.sources import available_flights
from cloudml_tf.utils.errors import DataError

LABELS_LOOKED_AT = 300


def read_one_flight(config: Config) -> dict[str, Any]:
    """Count what was read and left out. Raises `DataError` where nothing usable is left."""
    files = available_flights(config)
    name = min(files)
    labels = files[name].lidar is not None
    flight = load_flight(name, files[name], config.data, config.target, labels)
    about = {
        "flight": name,
        "flights": sorted(files),
        "frame_shape": list(flight.frame_shape),
        "sequences": len(sequences(flight, config)) if labels else len(flight),
    }
    if not labels:
        for _ in read_frames(flight, np.arange(min(len(flight), LABELS_LOOKED_AT)), config.data.camera):
            pass  # what cannot be decoded is told now
        return {**about, "counts": {key: n for key, n in flight.counts.items() if not key.startswith("profiles")}}
    labelled = np.flatnonzero(np.isfinite(flight.label))
    if not len(labelled):
        reasons = ", ".join(f"{count} {reason}" for reason, count in flight.counts.items() if count)
        raise DataError(f"flight {name} has no label ({reasons}). Check data.lidar and target.minimum and maximum.")
    # Images are decoded for some of the labels only: a flight may be many gigabytes.
    first = np.where(np.arange(len(flight)) <= labelled[:LABELS_LOOKED_AT][-1], flight.label, np.nan)
    samples, counts = build_samples([replace(flight, label=first)], config)
    values = flight.label[labelled]
    return {
        **about,
        "decoded": len(samples),
        "label_mean": float(values.mean()),
        "label_std": float(values.std()),
        "counts": {key: n for key, n in counts[name].items() if key != "sequences"}
        | {"frames labelled": len(labelled)},
    }

"""The ranges of what a network is trained on: beyond them nobody knows what it answers."""

from typing import Any

import numpy as np

from cloudml_tf.data.samples import Samples


def training_ranges(train: Samples) -> dict[str, Any]:
    """Pairs of (low, high) of raw inputs and of the label, for data.json and the model card.

    `frames` has the 1st and 99th percentile of each channel's pixels (of a sample of the frames); `sun_angles_deg`
    (zenith, azimuth minus heading), `features` (each) and `label` have minimum and maximum.
    """
    rows = np.unique(train.index)
    some = rows[:: max(len(rows) // train.rows_at_once(2**24), 1)]
    pixels = np.percentile(train.table[some], (1, 99), axis=(0, 1, 2))  # (2,C)
    found: dict[str, Any] = {"frames": pixels.T.tolist(), "label": _ends(train.label[:, None])[0]}
    if train.sun_angles_deg is not None:
        found["sun_angles_deg"] = _ends(train.sun_angles_deg[rows])
    if train.features.shape[1]:
        found["features"] = _ends(train.features[rows])
    return found


def _ends(values: np.ndarray) -> list[list[float]]:
    """(n,F) -> F pairs."""
    return np.stack([values.min(axis=0), values.max(axis=0)], axis=1).astype("float64").tolist()

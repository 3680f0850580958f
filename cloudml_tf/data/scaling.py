"""Means and standard deviations of the training part, and of nothing else."""

from dataclasses import asdict, dataclass
from typing import Any

import numpy as np

from cloudml_tf.data.samples import Samples
from cloudml_tf.settings import Preprocessing, Target


@dataclass(frozen=True)
class TargetScaling:
    """Label to standardised target and back. The loss, the metrics and the tiers work on the standardised side."""

    mean: float
    std: float
    log: bool
    smearing: float = 1.0

    def transform(self, label: np.ndarray) -> np.ndarray:
        """Physical -> the loss's space before scaling: ln(label), or the label itself."""
        return np.log(label) if self.log else np.asarray(label, "float64")

    def standardise(self, label: np.ndarray) -> np.ndarray:
        """Physical -> standard deviations of the training target."""
        return ((self.transform(label) - self.mean) / self.std).astype("float32")

    def unscale(self, z: np.ndarray) -> np.ndarray:
        """Standardised -> the loss's space in its own units."""
        return np.asarray(z, "float64") * self.std + self.mean

    def physical(self, z: np.ndarray) -> np.ndarray:
        """Standardised -> physical; with log the median, or the mean where `smearing` is not 1."""
        value = self.unscale(z)
        return np.exp(value) * self.smearing if self.log else value


@dataclass(frozen=True)
class Scaling:
    """Everything that is fitted before training. Lists, so that it is JSON."""

    target: TargetScaling
    frame_mean: list[float]  # a channel, after the logarithm if there is one
    frame_std: list[float]
    flat_field: list[Any] | None  # (H, W, C), mean 1
    feature_mean: list[float]
    feature_std: list[float]

    def to_json(self) -> dict[str, Any]:
        """A dictionary for a file."""
        return asdict(self)

    @classmethod
    def from_json(cls, content: dict[str, Any]) -> "Scaling":
        """The inverse of `to_json`."""
        return cls(**{**content, "target": TargetScaling(**content["target"])})


def fit_scaling(train: Samples, target: Target, preprocessing: Preprocessing) -> Scaling:
    """Fit on the training part alone; every frame counts once, however many sequences hold it."""
    log = target.transform == "log"
    label = np.log(train.label) if log else train.label
    rows = np.unique(train.index)
    flat_field = _flat_field(train.table, rows) if preprocessing.flat_field else None
    frame_mean, frame_std = _frame_statistics(train.table, rows, preprocessing.log_offset, flat_field)
    features = train.features[rows]
    return Scaling(
        target=TargetScaling(float(label.mean()), float(label.std()), log),
        frame_mean=frame_mean,
        frame_std=frame_std,
        flat_field=None if flat_field is None else flat_field.tolist(),
        feature_mean=features.mean(axis=0).tolist() if features.size else [],
        feature_std=[float(s) or 1.0 for s in features.std(axis=0)] if features.size else [],
    )


def _flat_field(table: np.ndarray, rows: np.ndarray) -> np.ndarray:
    """Mean image over its own mean, a channel at a time: the camera's relative response. (H,W,C)."""
    total = np.zeros(table.shape[1:], "float64")
    for chunk in _chunks(rows):
        total += table[chunk].sum(axis=0, dtype="float64")
    mean = total / len(rows)
    return np.maximum(mean / mean.mean(axis=(0, 1), keepdims=True), 0.05)


def _frame_statistics(
    table: np.ndarray, rows: np.ndarray, log_offset: float | None, flat_field: np.ndarray | None
) -> tuple[list[float], list[float]]:
    total, squares, count = 0.0, 0.0, 0
    for chunk in _chunks(rows):
        x = table[chunk].astype("float64")
        x = x if flat_field is None else x / flat_field
        x = x if log_offset is None else np.log(np.maximum(x, 0.0) + log_offset)
        total, squares = total + x.sum(axis=(0, 1, 2)), squares + (x * x).sum(axis=(0, 1, 2))
        count += x[..., 0].size
    mean = np.asarray(total) / count
    std = np.sqrt(np.maximum(np.asarray(squares) / count - mean**2, 1e-12))
    return mean.tolist(), std.tolist()


def _chunks(rows: np.ndarray, size: int = 1024) -> list[np.ndarray]:
    return np.array_split(rows, max(len(rows) // size, 1))

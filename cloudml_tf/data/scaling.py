"""Means and standard deviations of the training split, and of nothing else."""

from dataclasses import asdict, dataclass, field, replace
from typing import Any

import numpy as np

from cloudml_tf.config.data import Preprocessing, Target
from cloudml_tf.data.samples import Examples

SMALLEST_STD = 1e-6  # of a channel


@dataclass(frozen=True)
class TargetScaling:
    """Converts a label to the standardised target and back. The loss, the metrics and the tiers use the standardised
    side."""

    mean: float
    std: float
    log: bool
    smearing: float = 1.0
    log_offset: float = 0.0

    def transform(self, label: np.ndarray) -> np.ndarray:
        """Physical -> the loss's space before scaling: ln(label + offset), or the label itself."""
        return np.log(label + self.log_offset) if self.log else np.asarray(label, "float64")

    def standardise(self, label: np.ndarray) -> np.ndarray:
        """Physical -> standard deviations of the training target."""
        return ((self.transform(label) - self.mean) / self.std).astype("float32")

    def unscale(self, z: np.ndarray) -> np.ndarray:
        """Standardised -> the loss's space in its own units."""
        return np.asarray(z, "float64") * self.std + self.mean

    def physical(self, z: np.ndarray) -> np.ndarray:
        """Standardised -> physical; with log the median, or the mean where `smearing` is not 1."""
        return self.untransform(self.unscale(z), self.smearing)

    def untransform(self, value: Any, smearing: float = 1.0, xp: Any = np) -> Any:
        """The loss's space -> physical: a quantile, or a mean by its `smearing`; after an offset, none is below 0."""
        if not self.log:
            return value
        found = xp.exp(value) * smearing
        return xp.maximum(found - self.log_offset, 0.0) if self.log_offset else found

    def learned(self, value: Any, smearing: float = 1.0) -> Any:
        """The inverse of `untransform`: physical -> the loss's space."""
        return np.log((value + self.log_offset) / smearing) if self.log else np.asarray(value, "float64")

    def clipped(self, z: np.ndarray) -> np.ndarray:
        """Standardised predictions as the exported model gives them: with an offset, no value is below 0."""
        if not self.log_offset:
            return z
        return np.maximum(z, (np.log(self.log_offset / self.smearing) - self.mean) / self.std)


@dataclass(frozen=True)
class Scaling:
    """Everything that is fitted before training, as lists, so that it is JSON."""

    target: TargetScaling
    frame_mean: list[float]  # one per channel, after the logarithm if there is one
    frame_std: list[float]
    flat_field: list[Any] | None  # (H, W, C), mean 1
    feature_mean: list[float]
    feature_std: list[float]
    further: list[TargetScaling] = field(default_factory=list)  # of target.further

    @property
    def targets(self) -> list[TargetScaling]:
        """The target's scaling, and that of each further quantity, in the order of `Config.targets`."""
        return [self.target, *self.further]

    def to_json(self) -> dict[str, Any]:
        """Convert to a dictionary for a file."""
        return asdict(self)

    @classmethod
    def from_json(cls, content: dict[str, Any]) -> "Scaling":
        """The inverse of `to_json`."""
        further = [TargetScaling(**each) for each in content.get("further", [])]
        return cls(**{**content, "target": TargetScaling(**content["target"]), "further": further})


def fit_scaling(train: Examples, target: Target, preprocessing: Preprocessing) -> Scaling:
    """Fit on the training split alone; every frame counts once, and of the labels those that are known."""
    unit = TargetScaling(0.0, 1.0, target.transform == "log", log_offset=target.log_offset)
    label = unit.transform(train.label[train.known])
    flat_field = _flat_field(train) if preprocessing.flat_field else None
    frame_mean, frame_std = _frame_statistics(train, preprocessing.log_offset, flat_field)
    features = train.frame_features().astype("float64")
    return Scaling(
        target=replace(unit, mean=float(label.mean()), std=float(label.std())),
        frame_mean=frame_mean,
        frame_std=frame_std,
        flat_field=None if flat_field is None else flat_field.tolist(),
        feature_mean=features.mean(axis=0).tolist() if features.size else [],
        feature_std=_safe_std(features) if features.size else [],
        further=[_scaling_of_further(column) for column in train.further_labels().T],
    )


def _scaling_of_further(label: np.ndarray) -> TargetScaling:
    """Fit it to labels with NaN where there is none; a quantity without labels is not learned, and keeps its unit."""
    known = label[np.isfinite(label)]
    if len(known) < 2 or not known.std() > 0:
        return TargetScaling(0.0, 1.0, False)
    return TargetScaling(float(known.mean()), float(known.std()), False)


def _safe_std(features: np.ndarray) -> list[float]:
    """(n,F) -> F standard deviations; 1 for a feature that does not vary, or rounding would be blown up."""
    std, size = features.std(axis=0), np.abs(features).max(axis=0)
    return np.where(std > 1e-6 * size, std, 1.0).tolist()


def _flat_field(train: Examples) -> np.ndarray:
    """Mean image over its own mean, a channel at a time: the camera's relative response. (H,W,C)."""
    total, count = np.zeros(train.frame_shape, "float64"), 0
    for frames in train.training_frames():
        total, count = total + frames.sum(axis=0, dtype="float64"), count + len(frames)
    mean = total / count
    return np.maximum(mean / mean.mean(axis=(0, 1), keepdims=True), 0.05)


def _frame_statistics(
    train: Examples, log_offset: float | None, flat_field: np.ndarray | None
) -> tuple[list[float], list[float]]:
    """Mean and standard deviation of each channel; 1 for a number of a whole scene that is the same in all scenes:
    what it means otherwise is unknown."""
    total, squares, count = 0.0, 0.0, 0
    for frames in train.training_frames():
        x = frames.astype("float64")
        x = x if flat_field is None else x / flat_field
        x = x if log_offset is None else np.log(np.maximum(x, 0.0) + log_offset)
        total, squares = total + x.sum(axis=(0, 1, 2)), squares + (x * x).sum(axis=(0, 1, 2))
        count += x[..., 0].size
    mean = np.asarray(total) / count
    std = np.sqrt(np.maximum(np.asarray(squares) / count - mean**2, SMALLEST_STD**2))
    constant = np.isin(np.arange(len(std)), train.single) & (std <= SMALLEST_STD * np.maximum(np.abs(mean), 1.0))
    return mean.tolist(), np.where(constant, 1.0, std).tolist()

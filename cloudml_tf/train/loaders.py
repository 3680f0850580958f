"""What a training works on: batches of the training and the validation split."""

from dataclasses import dataclass

import keras
import numpy as np

from cloudml_tf.config.schema import Config
from cloudml_tf.data.prepare import Prepared
from cloudml_tf.data.samples import Examples
from cloudml_tf.data.scaling import Scaling
from cloudml_tf.train.batches import Batches, Inputs, point_values, with_locations

VALIDATION_BATCH = 256  # examples at most: the loss's variance term is taken over a batch


@dataclass(frozen=True)
class Loaders:
    """What a training works on.

    Args:
        batches, validation: of the two splits.
        examples: the validation split, whose predictions are kept at chosen epochs.
        shown: its inputs.
    """

    batches: Batches
    validation: Batches
    shown: keras.utils.PyDataset

    def keep(self, output: np.ndarray) -> np.ndarray:
        """The predictions of the known labels of the validation split, (k,), from a network's output."""
        return point_values(output, self.validation.examples)[self.validation.examples.known]

    @classmethod
    def of(cls, config: Config, prepared: Prepared) -> "Loaders":
        """The loaders of a configuration."""
        shown = Inputs(prepared.parts["val"], shared=config.training.run_length > 1)
        return cls(training_batches(config, prepared), validation_batches(config, prepared), shown)


def training_batches(config: Config, prepared: Prepared) -> Batches:
    """Shuffled, augmented batches of what the network is fitted to."""
    train, fitted, training = prepared.parts["train"], prepared.fitted, config.training
    target, weight = learned(fitted, prepared.scaling)
    several = target.shape[1:] != (1,)
    return Batches(
        fitted,
        target,
        training.batch_size,
        seed=config.seed,
        augment=train.augmentation(config, heights_of(config, prepared)),
        neighbours=training.order == "flight",
        run_length=training.run_length,
        weight=weight if several or np.any(weight != 1.0) else None,
        per_epoch=training.sequences_per_epoch or len(train),
        workers=training.data_threads,
    )


def validation_batches(config: Config, prepared: Prepared) -> Batches:
    """The validation split in one order. Only the target itself is validated: of a track nadir, which is its first
    location, and no further quantity."""
    val, further = prepared.parts["val"], len(prepared.scaling.further)
    locations = (1 + further,) if further else with_locations(prepared.fitted.label).shape[1:]
    label, weight = with_locations(val.label), with_locations(val.known).astype("float32")
    if label.shape[1:] == (1,) and locations != (1,):
        beside = np.zeros((len(val), locations[0] - 1), "float32")
        label, weight = np.concatenate([label, beside], axis=1), np.concatenate([weight, beside], axis=1)
    return Batches(
        val,
        targets(label, weight, prepared.scaling),
        min(val.batch_size, VALIDATION_BATCH),
        run_length=config.training.run_length,
        weight=None if locations == (1,) else weight,
    )


def heights_of(config: Config, prepared: Prepared) -> dict[int, tuple[float, float]]:
    """Mean and std in km of each target that is a height, by its column of what the network is fitted to."""
    pairs = enumerate(zip(config.targets, prepared.scaling.targets, strict=True))
    return {column: (scaling.mean, scaling.std) for column, (target, scaling) in pairs if target.quantity.is_height}


def learned(examples: Examples, scaling: Scaling) -> tuple[np.ndarray, np.ndarray]:
    """What the network is fitted to, and its weights: (n,1), (n,P) or (n,H,W); with E further quantities (n,1+E)."""
    target = with_locations(targets(examples.label, examples.weight, scaling))
    weight, further = with_locations(examples.weight), examples.further_labels()
    for label, own in zip(further.T, scaling.further, strict=True):
        known = np.isfinite(label)
        beside = np.where(known, own.standardise(np.where(known, label, 0.0)), 0.0).astype("float32")
        target = np.concatenate([target, beside[:, None]], axis=1)
        weight = np.concatenate([weight, (weight[:, 0] * known)[:, None].astype(weight.dtype)], axis=1)
    return target, weight


def targets(label: np.ndarray, weight: np.ndarray, scaling: Scaling) -> np.ndarray:
    """Standardised labels, 0 where there is none: what is not a number would stay so under a weight of 0."""
    with np.errstate(invalid="ignore", divide="ignore"):
        return np.where(weight > 0, scaling.target.standardise(label), 0.0).astype("float32")

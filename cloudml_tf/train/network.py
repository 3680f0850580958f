"""Build the network, loss and optimizer of a configuration; load a run's weights; predict."""

import random
import warnings
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import keras
import numpy as np

from cloudml_tf.config.schema import Config
from cloudml_tf.config.training import Training
from cloudml_tf.data.readers.arrays import check_weights
from cloudml_tf.data.samples import Samples
from cloudml_tf.data.scaling import Scaling
from cloudml_tf.losses import HistogramLoss, QuantileLoss, VariancePreservingLoss
from cloudml_tf.models import build_regressor, physical_model, shares_frames
from cloudml_tf.nn.layers import PhysicalUnits, Standardize
from cloudml_tf.nn.monitors import first_column
from cloudml_tf.nn.optimizers import UNDECAYED, adamw
from cloudml_tf.nn.unet import physical_map_model
from cloudml_tf.train.batches import Inputs
from cloudml_tf.train.swath_network import make_network
from cloudml_tf.train.tf_dataset import predict_batches
from cloudml_tf.utils.errors import NotFiniteError, RunError


def start_keras(config: Config) -> None:
    """Seeds, determinism and precision; before any model is built."""
    _seed(config.seed)
    keras.config.set_dtype_policy("mixed_bfloat16" if config.training.mixed_precision else "float32")
    if config.training.deterministic and keras.backend.backend() == "tensorflow":
        import tensorflow as tf

        # A CPU does the same sums in the same order anyhow, and TensorFlow would no longer draw batches ahead.
        if tf.config.list_physical_devices("GPU"):
            tf.config.experimental.enable_op_determinism()


def _seed(seed: int) -> None:
    """As `keras.utils.set_random_seed`, but a seed that TensorFlow has already is not set once more.

    To set it throws away each kernel that TensorFlow has compiled, and of each that it compiles again it keeps some
    bytes for ever. Nothing here draws by it, nor by the generator that Keras has for all who bring none: first weights
    and dropout start from Python's.
    """
    if keras.backend.backend() == "tensorflow":
        import tensorflow as tf

        if tf.compat.v1.get_seed(0)[0] == seed:
            random.seed(seed)
            np.random.seed(seed)
            return
    keras.utils.set_random_seed(seed)


def make_model(
    config: Config,
    scaling: Scaling,
    frame_shape: tuple[int, int, int],
    nadir: tuple[int, int] | None = None,
    offsets: Sequence[int] = (0,),
) -> keras.Model:
    """The regressor that a configuration describes, or its swath network, with the training statistics inside."""
    if config.target.coverage == "swath":
        return make_network(config, scaling, frame_shape)
    frame_scaler = Standardize(
        scaling.frame_mean,
        scaling.frame_std,
        log_offset=config.preprocessing.log_offset,
        flat_field=scaling.flat_field,
        per_frame=config.preprocessing.per_frame,
        name="standardize_frames",
    )
    feature_scaler = Standardize(scaling.feature_mean, scaling.feature_std, name="standardize_features")
    return build_regressor(
        frame_shape,
        temporal_frames=config.temporal_frames,
        nadir=nadir,
        sun_angles=config.data.sun_angles,
        features=len(config.data.features),
        frame_scaler=frame_scaler,
        feature_scaler=feature_scaler if config.data.features else None,
        mirror_average=config.data.camera.across_track_axis if config.model.mirror_average else None,
        offsets=offsets,
        along="columns" if config.data.camera.across_track_axis == "rows" else "rows",
        **config.model.model_dump(exclude={"mirror_average", "shift_average"}),
    )


def with_units(model: keras.Model, scaling: Scaling) -> keras.Model:
    """The model that gives physical units."""
    target = scaling.target
    units = PhysicalUnits(target.mean, target.std, target.log, target.smearing, target.log_offset, name="physical")
    return (physical_map_model if len(model.outputs[0].shape) == 3 else physical_model)(model, units)


def make_loss(config: Config, training_variance: float = 1.0) -> VariancePreservingLoss:
    """The loss on the standardised target, whose training variance is 1 unless samples are weighted."""
    schedule = {"schedule", "ramp_epochs", "gate_correlation"}
    options = config.loss.model_dump(exclude=schedule)
    options["target_variance"] = "batch" if config.loss.target_variance == "batch" else training_variance
    if config.model.head == "quantile":
        return QuantileLoss(**options)
    if config.model.head == "histogram":
        low, high = config.model.bin_range
        return HistogramLoss(**options, low=low, high=high)
    return VariancePreservingLoss(**options)


def make_optimizer(training: Training, steps_per_epoch: int, replicas: int | None = None) -> keras.optimizers.Optimizer:
    """AdamW with a linear warm-up, then a cosine to zero over `max_epochs`, or a constant rate.

    Under a strategy of so many `replicas` it expects the mean of their gradients from each, and clips that as it would
    clip the sum.
    """
    warmup = training.warmup_steps or max(round(training.warmup_epochs * steps_per_epoch), 1)
    total = max(training.max_epochs * steps_per_epoch - warmup, 1)
    schedule = keras.optimizers.schedules.CosineDecay(
        initial_learning_rate=0.0,
        decay_steps=total,
        alpha=0.0 if training.schedule == "cosine" else 1.0,
        warmup_target=training.rate,
        warmup_steps=warmup,
    )
    clip = training.gradient_clip_norm and training.gradient_clip_norm / (replicas or 1)
    optimizer = adamw(schedule, training.weight_decay, clip, one_device=replicas is None)
    optimizer.exclude_from_weight_decay(var_names=list(UNDECAYED))
    return optimizer


def predict(model: keras.Model, samples: Samples) -> np.ndarray:
    """(n,) standardised predictions, in bounded memory."""
    values = first_column(predict_batches(model, Inputs(samples, shared=shares_frames(model))))
    if not np.isfinite(values).all():
        raise NotFiniteError("the model predicts values that are not finite; its weights or inputs are not finite.")
    return values


def load_regressor(folder: Path, config: Config, description: dict[str, Any]) -> keras.Model:
    """The regressor of a run with its best weights. Weights are plain arrays: loading them runs no code."""
    weights = folder / "best.weights.h5"
    if not weights.is_file():
        raise RunError(f"{folder}: no best.weights.h5; this run did not finish. Continue it with train --resume.")
    check_weights(weights)
    start_keras(config)
    shape, nadir = tuple(description["frame_shape"]), description.get("nadir")  # scenes have none
    model = make_model(config, Scaling.from_json(description["scaling"]), shape, nadir and tuple(nadir))
    try:
        _load_all(model, weights)
    except (OSError, ValueError, KeyError) as error:
        reason = str(error).splitlines()[0]
        raise RunError(f"{weights}: does not fit the run's configuration or is damaged ({reason}).") from None
    return model


def _load_all(model: keras.Model, path: Path) -> None:
    """Load weights, every one: what a file lacks, Keras leaves as it was drawn, with a warning. Raises `ValueError`."""
    model.set_weights([np.full_like(values, np.nan) for values in model.get_weights()])
    with warnings.catch_warnings():
        warnings.filterwarnings("ignore", message="Skipping nested container")
        model.load_weights(path)
    if not all(np.isfinite(values).all() for values in model.get_weights()):
        raise ValueError("some weights are missing, or are not finite")

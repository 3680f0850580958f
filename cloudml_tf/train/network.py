"""Build the network, loss and optimizer of a configuration; load a run's weights; predict."""

import random
import warnings
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import keras
import numpy as np

from cloudml_tf.config.coverage import scene_settings
from cloudml_tf.config.geometry import Geometry
from cloudml_tf.config.schema import Config
from cloudml_tf.config.training import Training
from cloudml_tf.data.plane_sweep import axes_of, heights_km
from cloudml_tf.data.prepare import Prepared
from cloudml_tf.data.readers.arrays import check_weights
from cloudml_tf.data.samples import Examples
from cloudml_tf.data.scaling import Scaling
from cloudml_tf.data.scenes import across_sun
from cloudml_tf.losses import HistogramLoss, QuantileLoss, VariancePreservingLoss
from cloudml_tf.models import build_regressor, physical_model, shares_frames
from cloudml_tf.nn.heads import POINT
from cloudml_tf.nn.height_network import build_height_network
from cloudml_tf.nn.layers import PhysicalUnits, Standardize
from cloudml_tf.nn.optimizers import UNDECAYED, adamw
from cloudml_tf.nn.unet import build_swath_network
from cloudml_tf.train.batches import Inputs, point_values
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


def new_model(config: Config, prepared: Prepared) -> keras.Model:
    """The network of a configuration for its data, drawn by its seed."""
    start_keras(config)
    return make_model(config, prepared.scaling, **prepared.geometry)


def make_model(
    config: Config,
    scaling: Scaling,
    frame_shape: Sequence[Any],
    nadir: Sequence[int] | None = None,
    offsets: Sequence[int] = (0,),
) -> keras.Model:
    """The network that a configuration describes, with the training statistics inside.

    Args:
        config: of the run; `target.coverage` chooses between the regressor of sequences and the U-Net of scenes.
        scaling: of the training split; the prediction is in standard deviations of the target.
        frame_shape: (H,W,C), or (T,H,W,C) of scenes of several frames.
        nadir: (row, column) of the lidar's footprint, for sequences.
        offsets: the locations along the track that sequences are trained at, pixels ahead of nadir.
    """
    if config.target.coverage == "swath":
        return _swath_network(config, scaling, frame_shape)
    feature_scaler = Standardize(scaling.feature_mean, scaling.feature_std, name="standardize_features")
    shared: dict[str, Any] = {
        "frame_shape": (frame_shape[0], frame_shape[1], frame_shape[2]),
        "temporal_frames": config.temporal_frames,
        "nadir": None if nadir is None else (nadir[0], nadir[1]),
        "sun_angles": config.data.sun_angles,
        "features": len(config.data.features),
        "frame_scaler": _frame_scaler(config, scaling),
        "feature_scaler": feature_scaler if config.data.features else None,
        "mirror_average": config.data.camera.across_track_axis if config.model.mirror_average else None,
        "along": "columns" if config.data.camera.across_track_axis == "rows" else "rows",
    }
    if config.data.geometry is not None and config.model.sees_heights:
        return _height_network(config, config.data.geometry, scaling, shared)
    return build_regressor(
        **shared,
        further=len(config.target.further),
        offsets=offsets,
        **config.model.model_dump(exclude={"mirror_average", "shift_average"}),
    )


def _height_network(config: Config, geometry: Geometry, scaling: Scaling, shared: dict[str, Any]) -> keras.Model:
    """The network that compares frames at candidate heights."""
    axes, model = axes_of(config.data, geometry), config.model
    sizes = {"widths", "footprint", "encoder_features", "heads", "head_units", "dropout", "head_dropout", "bin_range"}
    return build_height_network(
        **shared,
        height_km=heights_km(geometry.sweep_top_km, geometry.sweep_step_km).tolist(),
        quantities=[target.quantity.of_layer or target.name for target in config.targets],
        means=[each.mean for each in scaling.targets],
        stds=[each.std for each in scaling.targets],
        attention=model.architecture == "cost_volume",
        bins=model.bins if model.head == "histogram" else 0,
        forward_sign=axes.forward,
        right_sign=axes.right,
        **model.model_dump(include={*sizes, "output_init", "output_bias"}),
    )


def _frame_scaler(config: Config, scaling: Scaling) -> Standardize:
    return Standardize(
        scaling.frame_mean,
        scaling.frame_std,
        log_offset=config.preprocessing.log_offset,
        flat_field=scaling.flat_field,
        per_frame=config.preprocessing.per_frame,
        name="standardize_frames",
    )


def _swath_network(config: Config, scaling: Scaling, frame_shape: Sequence[int | None]) -> keras.Model:
    """For scenes of these rows and columns; of any, where training cuts windows out of them."""
    scenes = scene_settings(config)
    shape: list[int | None] = list(frame_shape)
    if config.augmentation.window is not None:
        shape[-3:-1] = None, None
    same = {"widths", "dropout", "head_dropout", "head_units", "shift_average", "output_init", "output_bias"}
    return build_swath_network(
        tuple(shape),
        frame_scaler=_frame_scaler(config, scaling),
        periodic=scenes.periodic,
        mirror_average=across_sun(scenes) if config.model.mirror_average else None,
        **config.model.model_dump(include=same),
    )


def with_units(model: keras.Model, scaling: Scaling) -> keras.Model:
    """The model that gives physical units: of the target, and of each further quantity."""
    units = [
        PhysicalUnits(
            each.mean, each.std, each.log, each.smearing, each.log_offset, name=f"further_{n}" if n else "physical"
        )
        for n, each in enumerate(scaling.targets)
    ]
    return physical_model(model, *units)


def exported_twin(model: keras.Model, config: Config, description: dict[str, Any]) -> keras.Model:
    """The same network as it is exported: in float32, and for scenes of any number of rows and columns.

    Weights are float32 already. A network that is so as it stands is returned itself.
    """
    shape, scenes = list(description["frame_shape"]), config.target.coverage == "swath"
    if not config.training.mixed_precision and not scenes:
        return model
    if scenes:
        shape[-3:-1] = None, None
    usual = keras.config.dtype_policy()
    keras.config.set_dtype_policy("float32")
    try:
        twin = make_model(config, Scaling.from_json(description["scaling"]), shape, description.get("nadir"))
    finally:
        keras.config.set_dtype_policy(usual)
    twin.set_weights(model.get_weights())
    return twin


def make_loss(config: Config, training_variance: float = 1.0) -> VariancePreservingLoss:
    """The loss on the standardised target, whose training variance is 1 unless samples are weighted."""
    apart = {"schedule", "ramp_epochs", "gate_correlation", "robustness"}
    options = config.loss.model_dump(exclude=apart)
    options["target_variance"] = "batch" if config.loss.target_variance == "batch" else training_variance
    if config.model.head == "quantile":
        return QuantileLoss(**options)
    if config.model.head == "histogram":
        low, high = config.model.bin_range
        return HistogramLoss(
            **options,
            low=low,
            high=high,
            robustness=config.loss.robustness,
            further=len(config.target.further),
            distributions=config.distributions,
        )
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


def predict_whole(model: keras.Model, examples: Examples) -> np.ndarray:
    """The whole output, (n,·) or maps, in bounded memory. Raises `NotFiniteError`."""
    output = predict_batches(model, Inputs(examples, shared=shares_frames(model)))
    if not np.isfinite(output).all():
        raise NotFiniteError("the model predicts values that are not finite; its weights or inputs are not finite.")
    return output


def predict(model: keras.Model, examples: Examples) -> np.ndarray:
    """(n, *P) standardised predictions, in bounded memory. Raises `NotFiniteError`."""
    return point_values(predict_whole(model, examples), examples)


def further_of(output: np.ndarray, scaling: Scaling) -> np.ndarray:
    """(n,E) predictions of the quantities beside the target, each in its own unit."""
    columns = enumerate(scaling.further, POINT + 1)
    return np.stack([each.physical(output[:, column]) for column, each in columns], axis=1)


def load_regressor(folder: Path, config: Config, description: dict[str, Any]) -> keras.Model:
    """The regressor of a run with its best weights. Weights are plain arrays: loading them runs no code."""
    weights = folder / "best.weights.h5"
    if not weights.is_file():
        raise RunError(f"{folder}: no best.weights.h5; this run did not finish. Continue it with train --resume.")
    check_weights(weights)
    start_keras(config)
    nadir = description.get("nadir")  # scenes have none
    model = make_model(config, Scaling.from_json(description["scaling"]), description["frame_shape"], nadir)
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

"""The dense network that a configuration describes, and its answers for whole scenes."""

import keras
import numpy as np

from cloudml_tf.config.schema import Config
from cloudml_tf.data.scaling import Scaling
from cloudml_tf.data.scene_preparation import scene_file
from cloudml_tf.nn.layers import Standardize
from cloudml_tf.nn.unet import build_swath_network
from cloudml_tf.train.scene_batches import SceneInputs, across_sun
from cloudml_tf.train.tf_dataset import predict_batches
from cloudml_tf.utils.errors import NotFiniteError


def make_network(config: Config, scaling: Scaling, frame_shape: tuple[int | None, int | None, int]) -> keras.Model:
    """With the training statistics inside; its answer is in standard deviations of the target."""
    model, scenes = config.model, scene_file(config)
    scaler = Standardize(
        scaling.frame_mean, scaling.frame_std, log_offset=config.preprocessing.log_offset, name="standardize_frames"
    )
    return build_swath_network(
        frame_shape,
        frame_scaler=scaler,
        widths=model.widths,
        dropout=model.dropout,
        head_dropout=model.head_dropout,
        head_units=model.head_units,
        periodic=scenes.periodic,
        mirror_average=across_sun(scenes) if model.mirror_average else None,  # type: ignore[arg-type]
        shift_average=model.shift_average,
        output_init=model.output_init,
        output_bias=model.output_bias,
    )


def predict_scenes(model: keras.Model, frames: np.ndarray) -> np.ndarray:
    """(n,H,W,C) -> (n,H,W), in standard deviations of the target. Raises `NotFiniteError`."""
    values = predict_batches(model, SceneInputs(frames))
    if not np.isfinite(values).all():
        raise NotFiniteError("the model predicts values that are not finite; its weights or inputs are not finite.")
    return values

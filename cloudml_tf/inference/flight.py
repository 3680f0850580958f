"""Predict a flight's frames with a model: one value per frame, in bounded memory."""

from collections.abc import Callable
from dataclasses import dataclass

import numpy as np

from cloudml_tf.config.schema import Config
from cloudml_tf.data.blocks import Block, reach, read_blocks, samples_of_block
from cloudml_tf.data.plane_sweep import contrast
from cloudml_tf.data.readers.flights import Flight
from cloudml_tf.data.samples import nadir_pixel
from cloudml_tf.data.sequences import sequences_around
from cloudml_tf.data.training_ranges import frame_means
from cloudml_tf.inference.flags import Frames, quality_flags
from cloudml_tf.inference.model import Model, Values

STRIP_PIXELS = 96  # most pixels of the nadir line that are kept of each frame


@dataclass(frozen=True)
class Predicted:
    """A flight's N frames after a prediction."""

    flight: Flight
    values: Values  # (N,) each, in physical units; NaN where there is none
    flags: np.ndarray  # (N,) int16
    strip: np.ndarray  # (N,P) the line across the track through nadir, first channel; NaN where there is no image
    light: np.ndarray  # (N,C) mean radiance of each frame; NaN where there is no image
    nadir: float  # where nadir lies on that line, 0 to 1

    @property
    def valid(self) -> np.ndarray:
        """Which frames have a value, (N,) bool."""
        return np.isfinite(self.values["value"])


def predict_flight(model: Model, flight: Flight, progress: Callable[[int, int], None] | None = None) -> Predicted:
    """Predict every frame of the flight; calls `progress(frames done, of all)`."""
    count, config = len(flight), model.config
    sequences = sequences_around(flight, np.arange(count), config)
    values: Values = {"value": np.full(count, np.nan)}
    saturated, no_image, invalid = np.zeros((3, count), bool)
    light, texture = np.full((count, flight.frame_shape[2]), np.nan), np.full(count, np.nan)
    nadir = nadir_pixel(flight.frame_shape, config.data)
    strip = np.full((count, _strip_pixels(flight, config)), np.nan, "float32")
    for block in read_blocks(flight, config.data, reach(sequences)):
        new, rows = slice(block.known, None), slice(block.first + block.known, block.end)
        saturated[rows], no_image[rows] = block.saturated[new], block.no_image[new]
        invalid[rows] = block.invalid[new]
        light[rows] = frame_means(block.radiance[new])
        if flight.motion.network_input:
            texture[rows] = contrast(block.radiance[new], nadir)
        strip[rows] = _nadir_line(block, flight, config)[new]
        good = block.good_sequences(sequences)
        if len(good):
            for key, found in model.predict(samples_of_block(block, good, flight, config.data)).items():
                values.setdefault(key, np.full(count, np.nan))[good[:, good.shape[1] // 2]] = found
        if progress is not None:
            progress(block.end, count)
    frames = Frames(saturated, no_image, invalid, light, values["value"], texture)
    flags = quality_flags(flight, frames, config, model.ranges)
    across = _across(config)
    light[no_image] = np.nan
    return Predicted(flight, values, flags, strip, light, (nadir[across] + 0.5) / flight.frame_shape[across])


def _across(config: Config) -> int:
    """The across-track axis of a frame."""
    return 0 if config.data.camera.across_track_axis == "rows" else 1


def _nadir_line(block: Block, flight: Flight, config: Config) -> np.ndarray:
    """The nadir line of each frame, thinned out, (M,P)."""
    row, column = nadir_pixel(flight.frame_shape, config.data)
    line = block.radiance[:, row, :, 0] if _across(config) else block.radiance[:, :, column, 0]
    return np.where(block.no_image[:, None], np.nan, line[:, :: _every(line.shape[1])])


def _every(pixels: int) -> int:
    """The step at which pixels of a line are kept: 1 for a short line, 2 for twice the length …"""
    return -(-pixels // STRIP_PIXELS)


def _strip_pixels(flight: Flight, config: Config) -> int:
    """The number of kept pixels of the line."""
    pixels = flight.frame_shape[_across(config)]
    return len(range(0, pixels, _every(pixels)))

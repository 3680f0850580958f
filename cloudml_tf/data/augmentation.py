"""Random changes of training batches that keep their labels true: mirror images, shifts, windows, gain, noise.

NumPy only. `SequenceAugmentation` changes sequences about nadir, `MapAugmentation` scenes together with their labels.
"""

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field

import numpy as np

from cloudml_tf.config.training import Augmentation
from cloudml_tf.nn.sightlines import ALTITUDE, MIRRORED_ACROSS, MIRRORED_ALONG, signs

Inputs = dict[str, np.ndarray]
Batch = tuple[Inputs, np.ndarray, np.ndarray]  # inputs, target, weight
Augment = Callable[[Inputs, np.ndarray, np.ndarray, np.random.Generator, np.ndarray], Batch]  # ..., rng, run


@dataclass(frozen=True)
class SequenceAugmentation:
    """Random changes of sequences: the labels, which stand at nadir, stay.

    Args:
        settings: of the configuration.
        nadir: (row, column), about which images are mirrored.
        frame_std: (C,) the training std of raw radiance, the unit of `noise_std`.
        across_track_axis: "rows" or "columns" of the image.
        heights: mean and std in km of each target that is a height, by its column.
        top_km: the highest height that a network compares frames at.
    """

    settings: Augmentation
    nadir: tuple[int, int]
    frame_std: np.ndarray | None = None
    across_track_axis: str = "rows"
    heights: Mapping[int, tuple[float, float]] = field(default_factory=dict)
    top_km: float = 0.0

    def __call__(
        self, inputs: Inputs, target: np.ndarray, weight: np.ndarray, rng: np.random.Generator, run: np.ndarray
    ) -> Batch:
        """Change the inputs; sequences of one `run` (b,) change together. A shift of heights changes the target too."""
        changed = self.changed(inputs, rng, run)
        if self.settings.height_shift_km and "geometry" in inputs:
            changed, target = self._shifted(changed, target, weight, rng, run)
        return changed, target, weight

    def _shifted(
        self, inputs: Inputs, target: np.ndarray, weight: np.ndarray, rng: np.random.Generator, run: np.ndarray
    ) -> tuple[Inputs, np.ndarray]:
        """Lift or lower camera and clouds together: the images stay, since motion depends on their distance alone.

        Heights stay between the ground and `top_km`.
        """
        chosen, most = inputs.get("chosen_frames"), self.settings.height_shift_km
        unit = np.arange(len(target)) if chosen is None else np.unique(run, return_inverse=True)[1]
        lowest, highest = np.full(int(unit.max()) + 1, np.inf), np.full(int(unit.max()) + 1, -np.inf)
        for column, (mean, std) in self.heights.items():
            known = weight[:, column] > 0
            height = target[known, column] * std + mean
            np.minimum.at(lowest, unit[known], height)
            np.maximum.at(highest, unit[known], height)
        low, high = np.maximum(-most, -lowest), np.minimum(most, self.top_km - highest)
        shift = rng.uniform(np.minimum(low, 0.0), np.maximum(high, 0.0))[unit]  # (b,) km
        geometry = inputs["geometry"]
        if chosen is None:
            geometry[..., ALTITUDE] += shift[:, None].astype("float32")
        else:
            moved = np.zeros(len(geometry), "float32")
            moved[chosen] = shift[:, None]
            geometry[:, ALTITUDE] += moved
        scale = [1.0 / self.heights[column][1] if column in self.heights else 0.0 for column in range(target.shape[1])]
        return {**inputs, "geometry": geometry}, target + (shift[:, None] * scale).astype("float32")

    def changed(self, inputs: Inputs, rng: np.random.Generator, run: np.ndarray | None = None) -> Inputs:
        """Change a batch at random; the given arrays may be changed in place.

        Sequences that share frames (`Samples.shared_inputs`) change together, by `run` (B,), or all.

        The sun's azimuth is mirrored with the image: an across-track mirror turns the relative azimuth a into -a. An
        along-track mirror turns it into 180 - a and reverses the flight, so the frames of a sequence change order.
        """
        chosen = inputs.get("chosen_frames")
        if chosen is None:
            return self._changed(inputs, np.arange(len(inputs["frames"])), rng)[0]
        number = np.unique(np.zeros(len(chosen)) if run is None else run, return_inverse=True)[1]  # (B,)
        unit = np.empty(len(inputs["frames"]), int)  # of each frame
        unit[chosen] = number[:, None]
        single = {name: values[:, None] for name, values in inputs.items() if name != "chosen_frames"}  # (F,1,...)
        found, turned = self._changed(single, unit, rng)
        shared = {name: values[:, 0] for name, values in found.items()}
        return {**shared, "chosen_frames": np.where(turned[number][:, None], chosen[:, ::-1], chosen)}

    def _changed(self, inputs: Inputs, unit: np.ndarray, rng: np.random.Generator) -> tuple[Inputs, np.ndarray]:
        """Sequences (n,T,...) that change together within a `unit` (n,); and which units were reversed."""
        settings, frames = self.settings, inputs["frames"]  # (n,T,H,W,C)
        sun, features, geometry = (inputs.get(name) for name in ("sun_angles_deg", "features", "geometry"))
        count = int(unit.max()) + 1
        turned = np.zeros(count, bool)
        across = 2 if self.across_track_axis == "rows" else 3
        if settings.mirror_across_track:
            flip = (rng.random(count) < 0.5)[unit]
            frames = _mirrored(frames, flip, across, self.nadir[across - 2])
            if sun is not None:
                sun[flip, :, 1] *= -1.0
            if geometry is not None:
                geometry[flip] *= signs(MIRRORED_ACROSS)
        if settings.mirror_along_track:
            turned = rng.random(count) < 0.5
            flip = turned[unit]
            along = 5 - across
            frames = _mirrored(frames, flip, along, self.nadir[along - 2])
            frames[flip] = frames[flip, ::-1]
            if sun is not None:
                sun[flip, :, 1] = 180.0 - sun[flip, :, 1]
                sun[flip] = sun[flip, ::-1]
            if features is not None:
                features[flip] = features[flip, ::-1]
            if geometry is not None:
                geometry[flip] = geometry[flip, ::-1] * signs(MIRRORED_ALONG)
        if settings.gain_std:
            gain = np.exp(settings.gain_std * rng.standard_normal((count, 1, 1, 1, 1)))
            frames = frames * gain.astype("float32")[unit]
        if settings.noise_std and self.frame_std is not None:
            noise = rng.standard_normal(frames.shape, dtype="float32")
            frames = frames + noise * np.asarray(settings.noise_std * self.frame_std, "float32")
        changed = {"frames": frames, "sun_angles_deg": sun, "features": features, "geometry": geometry}
        return {**inputs, **{name: values for name, values in changed.items() if values is not None}}, turned


@dataclass(frozen=True)
class MapAugmentation:
    """Random changes of scenes, of images and maps of labels together.

    Periodic scenes are shifted along both axes; of scenes that end, a window may be cut out around a labelled pixel.
    Mirror images flip the axis across the sun's, so that light still comes from the same side. Gain and noise change
    the images alone, and no channel of one number a scene.

    Args:
        settings: of the configuration.
        frame_std: (C,) of the channels.
        mirrored: the image axis that mirror images flip, "rows" or "columns".
        periodic: whether scenes continue at the other side.
        window: (rows, columns) that are cut out; None leaves whole scenes.
        single: channels of one number a scene.
    """

    settings: Augmentation
    frame_std: np.ndarray
    mirrored: str
    periodic: bool
    window: tuple[int, int] | None = None
    single: Sequence[int] = ()

    def __call__(
        self, inputs: Inputs, target: np.ndarray, weight: np.ndarray, rng: np.random.Generator, run: np.ndarray
    ) -> Batch:
        """Frames (b,H,W,C) or (b,T,H,W,C), target and weight (b,H,W) -> the same; `run` is not used."""
        frames = inputs["frames"]
        steps = frames.shape[1] if frames.ndim == 5 else 1
        stacked = frames if frames.ndim == 4 else np.concatenate(np.moveaxis(frames, 1, 0), axis=-1)  # (b,H,W,T*C)
        maps = np.concatenate([stacked, target[..., None], weight[..., None]], axis=-1)
        changed = np.stack([self._moved(each, rng) for each in maps])
        images, image = changed[..., :-2], np.tile(self._image, steps)
        if self.settings.gain_std:
            gain = np.exp(self.settings.gain_std * rng.standard_normal((len(images), 1, 1, 1)))
            images = images * np.where(image, gain, 1.0).astype("float32")
        if self.settings.noise_std:
            noise = rng.standard_normal(images.shape, dtype="float32")
            std = np.tile(self.frame_std * self._image, steps)
            images = images + noise * (self.settings.noise_std * std).astype("float32")
        if frames.ndim == 5:
            images = np.stack(np.split(images, steps, axis=-1), axis=1)  # (b,T,H,W,C)
        return {**inputs, "frames": np.ascontiguousarray(images)}, changed[..., -2], changed[..., -1]

    @property
    def _image(self) -> np.ndarray:
        """(C,) which channels are images."""
        return ~np.isin(np.arange(len(self.frame_std)), self.single)

    def _moved(self, maps: np.ndarray, rng: np.random.Generator) -> np.ndarray:
        if self.settings.mirror_across_track and rng.random() < 0.5:
            maps = np.flip(maps, axis=0 if self.mirrored == "rows" else 1)
        if self.periodic:
            maps = np.roll(maps, rng.integers(maps.shape[:2]), axis=(0, 1))
        return maps if self.window is None else _cut(maps, self.window, rng)


def _cut(maps: np.ndarray, window: tuple[int, int], rng: np.random.Generator) -> np.ndarray:
    """A window around some labelled pixel, which may lie anywhere in it: labels of one line then stand at every row."""
    labelled = np.argwhere(maps[..., -1] > 0)
    pixel, size = labelled[rng.integers(len(labelled))], np.asarray(window)
    least, most = np.maximum(pixel - size + 1, 0), np.minimum(pixel, np.asarray(maps.shape[:2]) - size)
    row, column = rng.integers(least, most + 1)
    return maps[row : row + window[0], column : column + window[1]]


def _mirrored(frames: np.ndarray, flip: np.ndarray, axis: int, nadir: int) -> np.ndarray:
    """Mirror the chosen sequences about the nadir pixel, which stays; the border pixel fills what is missing."""
    length = frames.shape[axis]
    source = np.clip(2 * nadir - np.arange(length), 0, length - 1)
    frames[flip] = np.take(frames[flip], source, axis=axis)
    return frames

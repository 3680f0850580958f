"""Gridded scenes: images with a label at every pixel, or at those of the lidar's line. NumPy only.

file of scenes, or flights ─ `Scenes`, cut by name into splits ─ all labels, or only those of some rows
"""

import hashlib
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, replace
from typing import Any, ClassVar, Literal

import numpy as np
from scipy.ndimage import uniform_filter

from cloudml_tf.config.coverage import scene_settings
from cloudml_tf.config.data import FlightSplit, SceneFile, Target
from cloudml_tf.config.schema import Config
from cloudml_tf.data.augmentation import MapAugmentation
from cloudml_tf.data.independence import scene_blocks
from cloudml_tf.data.label_weights import overweight
from cloudml_tf.data.splits import PARTS, flights_needed
from cloudml_tf.utils.errors import ConfigError, DataError


@dataclass(frozen=True)
class Scenes:
    """n scenes of H x W pixels, each with one image or T of them. A pixel of weight 0 has no label.

    They are `cloudml_tf.data.samples.Examples`: what training and evaluation ask of them is said there.
    """

    frames: np.ndarray  # (n, H, W, C) radiance or reflectance; (n, T, H, W, C) of several frames
    label: np.ndarray  # (n, H, W) in the target's own unit
    weight: np.ndarray  # (n, H, W)
    names: tuple[str, ...]
    retrieval: np.ndarray | None = None  # (n, H, W) of another method, in the target's own unit
    groups: tuple[str, ...] | None = None  # the group of each scene, where there are some
    single: tuple[int, ...] = ()  # channels that hold one number a scene, everywhere in the image
    time_s: np.ndarray | None = None  # (n,) seconds since 1970 UTC, of scenes of flights
    offsets: ClassVar[tuple[int, ...]] = (0,)  # a scene is predicted as a whole
    batch_size: ClassVar[int] = 10  # scenes that are predicted at once

    @classmethod
    def of(cls, frames: np.ndarray, label: np.ndarray, target: Target, **more: Any) -> "Scenes":
        """Scenes whose labels (n,H,W) may be NaN; those that are, or lie out of the target's range, get weight 0."""
        with np.errstate(invalid="ignore"):
            known = np.isfinite(label)
            known &= label >= (-np.inf if target.minimum is None else target.minimum)
            known &= label <= (np.inf if target.maximum is None else target.maximum)
        return cls(frames, np.where(known, label, 0.0), known.astype("float32"), **more)

    @property
    def at_nadir(self) -> None:
        """They are no sequences."""
        return

    def __len__(self) -> int:
        return len(self.frames)

    @property
    def split_names(self) -> tuple[str, ...]:
        """What a split names each scene by: its group, or itself where there are none."""
        return self.names if self.groups is None else self.groups

    @property
    def group_names(self) -> tuple[str, ...]:
        """The names by which a split chooses scenes."""
        return tuple(dict.fromkeys(self.split_names))

    @property
    def group(self) -> np.ndarray:
        """(n,) the number of each scene's group."""
        numbers = {name: number for number, name in enumerate(self.group_names)}
        return np.array([numbers[name] for name in self.split_names])

    @property
    def segment(self) -> np.ndarray:
        """(n,) each scene by itself: none shares a frame with another."""
        return np.arange(len(self))

    @property
    def known(self) -> np.ndarray:
        """(n, H, W) whether a pixel has a label."""
        return self.weight > 0

    @property
    def frame_shape(self) -> tuple[int, ...]:
        """(H, W, C), or (T, H, W, C)."""
        return self.frames.shape[1:]

    @property
    def geometry(self) -> dict[str, Any]:
        """What a network is built for; its weights fit any number of pixels."""
        return {"frame_shape": list(self.frame_shape)}

    def keys(self) -> dict[str, np.ndarray]:
        """Name and group of each scene."""
        return {"scene": np.asarray(self.names), "flight": np.asarray(self.split_names)}

    def inputs(self, chosen: Any = slice(None)) -> dict[str, np.ndarray]:
        """What the network takes: frames (k,H,W,C) or (k,T,H,W,C)."""
        return {"frames": self.frames[chosen]}

    def shared_inputs(self, chosen: Any = slice(None), run: np.ndarray | None = None) -> dict[str, np.ndarray]:
        """The same: no frame is in two scenes."""
        return self.inputs(chosen)

    def training_frames(self) -> Iterator[np.ndarray]:
        """Every image once, in chunks (k,H,W,C)."""
        for first in range(0, len(self), self.batch_size):
            yield self.frames[first : first + self.batch_size].reshape(-1, *self.frame_shape[-3:])

    def frame_features(self) -> np.ndarray:
        """None: numbers of a whole scene are channels."""
        return np.zeros((len(self), 0))

    def further_labels(self) -> np.ndarray:
        """None: scenes have one quantity."""
        return np.zeros((len(self), 0))

    def radiance_at_labels(self) -> np.ndarray:
        """(k,C) around each labelled pixel, in the middle of several frames."""
        middle = self.frames if self.frames.ndim == 4 else self.frames[:, self.frames.shape[1] // 2]
        return uniform_filter(middle, (1, 3, 3, 1), mode="nearest")[self.known]

    def blocks(self, block_s: float) -> np.ndarray:
        """(n, H, W): pixels of a scene are drawn together; and scenes of a group, where there are enough groups."""
        return np.broadcast_to(scene_blocks(self.group)[:, None, None], self.label.shape)

    def effective_size(self, target: np.ndarray) -> float:
        """How many scenes, or groups of them, are drawn."""
        return len(np.unique(self.blocks(0.0)[self.known]))

    def augmentation(self, config: Config, heights: Mapping[int, tuple[float, float]]) -> MapAugmentation:
        """Mirror images, shifts or windows, gain and noise."""
        scenes = scene_settings(config)
        return MapAugmentation(
            config.augmentation,
            self.frames.std(axis=tuple(range(self.frames.ndim - 1)), dtype="float64"),
            mirrored=across_sun(scenes),
            periodic=scenes.periodic,
            window=window_of(config, self.frame_shape),
            single=self.single,
        )

    def baseline_features(self, log_offset: float | None) -> dict[str, np.ndarray]:
        """The channels of each labelled pixel (k,C), and the file's own retrieval (n,H,W)."""
        middle = self.frames if self.frames.ndim == 4 else self.frames[:, self.frames.shape[1] // 2]
        found = {"pixels": middle[self.known]}
        return found if self.retrieval is None else {**found, "retrieval": self.retrieval}

    def take(self, chosen: Any) -> "Scenes":
        """Some scenes, by a mask or indices."""
        numbers = np.arange(len(self))[chosen]
        arrays = {name: getattr(self, name) for name in ("frames", "label", "weight", "retrieval", "time_s")}
        taken: dict[str, Any] = {name: values[numbers] for name, values in arrays.items() if values is not None}
        groups = None if self.groups is None else tuple(self.groups[n] for n in numbers)
        return replace(self, names=tuple(self.names[n] for n in numbers), groups=groups, **taken)

    def named(self, names: Sequence[str]) -> "Scenes":
        """The scenes of these names, or of the groups of these names, in their order.

        Raises `DataError` for one that is not there.
        """
        unknown = [name for name in names if name not in self.split_names]
        if unknown:
            known, what = ", ".join(self.group_names), "scene" if self.groups is None else "group"
            raise DataError(f"no {what} is called {', '.join(unknown)}. There are {known}.")
        return self.take([number for name in names for number, own in enumerate(self.split_names) if own == name])

    def labelled(self) -> "Scenes":
        """Those that have a label."""
        return self.take(self.known.any(axis=(1, 2)))

    def only(self, where: np.ndarray) -> "Scenes":
        """The same with the labels at some pixels (n,H,W) alone."""
        return replace(self, weight=self.weight * where.astype("float32"))


def split_scenes(scenes: Scenes, split: FlightSplit, judged: Scenes | None = None) -> dict[str, Scenes]:
    """The three parts, by the names of their scenes or groups; scenes without a label are in none.

    `judged` are the same scenes with other labels, for the test part. Raises `DataError` for an unknown name or a leak.
    """
    needed = flights_needed(split, list(scenes.group_names))
    whole = {"train": scenes, "val": scenes, "test": judged or scenes}
    parts = {part: whole[part].named(needed[part]).labelled() for part in PARTS}
    content: dict[bytes, str] = {}
    for part, chosen in parts.items():
        for name, frame in zip(chosen.names, chosen.frames, strict=True):
            key = hashlib.sha256(frame.tobytes()).digest()  # not the name: a copy leaks as well
            first = content.setdefault(key, part)
            if first != part:
                raise DataError(f"leak: scene {name} of the {part} part is, pixel by pixel, one of the {first} part.")
    for part, chosen in parts.items():
        label = chosen.label[chosen.known]
        if len(label) < 2 or np.ptp(label) == 0:
            raise DataError(
                f"the {part} part has {len(label)} labelled pixels, and no two labels that differ: nothing can be "
                "learned or judged. Check data.scenes.label and test_label, target.minimum and target.maximum."
            )
    return parts


def training_parts(
    scenes: Scenes, judged: Scenes | None, content: Sequence[str], config: Config
) -> tuple[dict[str, Scenes], str]:
    """The three parts as a training takes them, with labels on lines and weights, and their fingerprint."""
    settings, split = scene_settings(config), config.split
    assert isinstance(split, FlightSplit)  # config.coverage
    parts = split_scenes(scenes, split, judged)
    check_steps(parts["train"], config)
    check_levels(parts["train"], config)
    check_logarithm(parts["train"], config)
    for number, part in enumerate(("train", "val")):
        if settings.line_spacing > 1:
            parts[part] = on_lines(parts[part], settings.line_spacing, np.random.default_rng([config.seed, number]))
    fingerprint = scene_fingerprint(content, parts)
    parts["train"] = replace(parts["train"], weight=training_weight(parts["train"], config))
    return parts, fingerprint


def on_lines(scenes: Scenes, spacing: int, rng: np.random.Generator) -> Scenes:
    """The same with the labels of every so many rows alone, from a first row that is drawn for each scene."""
    rows = np.arange(scenes.frames.shape[1])[None, :]
    first = rng.integers(spacing, size=(len(scenes), 1))
    kept = (rows - first) % spacing == 0  # (n,H)
    return scenes.only(np.broadcast_to(kept[:, :, None], scenes.label.shape))


def scene_fingerprint(content: Sequence[str], parts: Mapping[str, Scenes]) -> str:
    """Changes with the files, whose fingerprints are the `content`, the labels and the split."""
    digest = hashlib.sha256("".join(content).encode())
    for part in PARTS:
        digest.update(" ".join(parts[part].names).encode())
        for array in (parts[part].label, parts[part].known.astype("float32")):
            digest.update(np.ascontiguousarray(array).tobytes())
    return digest.hexdigest()[:16]


def judged_by(settings: SceneFile) -> SceneFile:
    """The same file with the labels that a network is judged by."""
    return settings.model_copy(update={"label": settings.test_label or settings.label})


def check_logarithm(scenes: Scenes, config: Config) -> None:
    """Refuse the logarithm of what is no light. Raises `ConfigError`."""
    if scenes.single and config.preprocessing.log_offset is not None:
        names = ", ".join(scene_settings(config).channels[number] for number in scenes.single)
        raise ConfigError(
            f"data.scenes.channels {names} is one number a scene, which may be negative, and preprocessing.log_offset "
            "takes the logarithm of all channels. Set log_offset to null, or leave that channel out."
        )


def levels_step(config: Config) -> int:
    """What rows and columns must be multiples of."""
    return 2 ** (len(config.model.widths) - 1)


def check_steps(scenes: Scenes, config: Config) -> None:
    """Refuse scenes of another number of frames than `temporal_frames`. Raises `DataError`."""
    steps = 1 if scenes.frames.ndim == 4 else scenes.frames.shape[1]
    if steps != config.temporal_frames:
        raise DataError(
            f"scenes of {steps} frames do not fit temporal_frames {config.temporal_frames}. Set temporal_frames to "
            f"{steps}, or name datasets (scene, frame, row, column) of {config.temporal_frames} frames in "
            "data.scenes.channels."
        )


def check_levels(scenes: Scenes, config: Config) -> None:
    """Refuse scenes that the network cannot halve often enough. Raises `DataError`."""
    rows, columns, _ = scenes.frame_shape[-3:]
    step = levels_step(config)
    if rows % step or columns % step:
        raise DataError(
            f"scenes of {rows} x {columns} pixels cannot be halved {len(config.model.widths) - 1} times: with "
            f"{len(config.model.widths)} model.widths, rows and columns must be multiples of {step}. Give fewer widths."
        )


def window_of(config: Config, frame_shape: tuple[int, ...]) -> tuple[int, int] | None:
    """(rows, columns) of a training image by augmentation.window, as the network can halve them; None for all."""
    share, step = config.augmentation.window, levels_step(config)
    if share is None:
        return None
    rows, columns = (min(max(round(share * side / step), 1) * step, side) for side in frame_shape[-3:-1])
    return rows, columns


def across_sun(scenes: SceneFile) -> Literal["rows", "columns"]:
    """The image axis that mirror images turn round."""
    return "rows" if scenes.sun_axis == "columns" else "columns"


def training_weight(scenes: Scenes, config: Config) -> np.ndarray:
    """(n,H,W): more for high labels, and for all of the named scenes or groups, as `overweight` says."""
    named = np.isin(scenes.split_names, config.overweight.flights)[:, None, None]
    return scenes.weight * overweight(scenes.label, named, config)

"""Gridded scenes: images with the truth at every pixel, instead of flights with a lidar's line. NumPy only.

file ─ `read_scenes` ─ `Scenes`, cut by name into parts ─ labels in range, or only those of some rows
"""

import hashlib
from collections.abc import Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import h5py
import numpy as np

from cloudml_tf.config.data import FlightSplit, Limits, Preprocessing, SceneFile, Target
from cloudml_tf.data.readers.frames import camera_fingerprint
from cloudml_tf.data.readers.hdf5 import open_file, read
from cloudml_tf.data.scaling import Scaling, TargetScaling
from cloudml_tf.data.splits import PARTS, flights_needed
from cloudml_tf.utils.errors import DataError


@dataclass(frozen=True)
class Scenes:
    """n scenes of H x W pixels. A pixel of weight 0 has no label; its `label` is not to be read."""

    frames: np.ndarray  # (n, H, W, C) radiance or reflectance
    label: np.ndarray  # (n, H, W) in the target's own unit
    weight: np.ndarray  # (n, H, W)
    names: tuple[str, ...]
    retrieval: np.ndarray | None = None  # (n, H, W) of another method, in the target's own unit
    groups: tuple[str, ...] | None = None  # the group of each scene, where the file has them
    single: tuple[int, ...] = ()  # channels that hold one number a scene, everywhere in the image

    def __len__(self) -> int:
        return len(self.frames)

    @property
    def split_names(self) -> tuple[str, ...]:
        """What a split names each scene by: its group, or itself where there are none."""
        return self.names if self.groups is None else self.groups

    def take(self, chosen: Any) -> "Scenes":
        """Some scenes, by a mask or indices."""
        numbers = np.arange(len(self))[chosen]
        return replace(
            self,
            frames=self.frames[numbers],
            label=self.label[numbers],
            weight=self.weight[numbers],
            names=tuple(self.names[n] for n in numbers),
            retrieval=None if self.retrieval is None else self.retrieval[numbers],
            groups=None if self.groups is None else tuple(self.groups[n] for n in numbers),
        )

    def named(self, names: Sequence[str]) -> "Scenes":
        """The scenes of these names, or of the groups of these names, in their order.

        Raises `DataError` for one that is not there.
        """
        unknown = [name for name in names if name not in self.split_names]
        if unknown:
            known, what = ", ".join(dict.fromkeys(self.split_names)), "scene" if self.groups is None else "group"
            raise DataError(f"no {what} is called {', '.join(unknown)}. There are {known}.")
        return self.take([number for name in names for number, own in enumerate(self.split_names) if own == name])

    def labelled(self) -> "Scenes":
        """Those that have a label."""
        return self.take(self.seen.any(axis=(1, 2)))

    def known(self, where: np.ndarray) -> "Scenes":
        """The same with the labels at some pixels (n,H,W) alone."""
        return replace(self, weight=self.weight * where.astype("float32"))

    @property
    def seen(self) -> np.ndarray:
        """(n, H, W) whether a pixel has a label."""
        return self.weight > 0

    @property
    def frame_shape(self) -> tuple[int, int, int]:
        """(H, W, C)."""
        return self.frames.shape[1:]


def read_scenes(
    path: Path, settings: SceneFile, target: Target, labels: bool = True, limits: Limits | None = None
) -> Scenes:
    """All scenes of a file; pixels whose label is missing or out of the target's range get the weight 0.

    Without `labels` none are read, and all weights are 0; `limits` are what the file may ask for. Raises `DataError`.
    """
    with open_file(path, limits) as file:
        frames, single = _channels(file, path, settings.channels)
        names = _names(file, settings, len(frames))
        groups = None if settings.group is None else _numbers(file, settings.group, "group", len(frames))
        label = _maps(file, settings.label, "data.scenes.label") if labels else np.full(frames.shape[:3], np.nan)
        wanted = labels and settings.retrieval is not None
        other = _maps(file, str(settings.retrieval), "data.scenes.retrieval") if wanted else None
    found = {settings.label: label.shape} | ({} if other is None else {str(settings.retrieval): other.shape})
    _check_shapes(path, [_first_image(settings, single), *found], [frames.shape[:3], *found.values()])
    bad = ~np.isfinite(frames).all(axis=(1, 2, 3))
    if bad.any():
        raise DataError(f"{path}: scene {names[int(bad.argmax())]} has pixels that are no numbers. Take it out.")
    with np.errstate(invalid="ignore"):
        known = np.isfinite(label)
        known &= label >= (-np.inf if target.minimum is None else target.minimum)
        known &= label <= (np.inf if target.maximum is None else target.maximum)
    return Scenes(frames, np.where(known, label, 0.0), known.astype("float32"), names, other, groups, single)


def _channels(file: h5py.File, path: Path, names: Sequence[str]) -> tuple[np.ndarray, tuple[int, ...]]:
    """(n,H,W,C), and which channels are one number a scene."""
    channels = [read(file, name, (1, 3), "data.scenes.channels") for name in names]
    single = tuple(number for number, values in enumerate(channels) if values.ndim == 1)
    images = [number for number in range(len(names)) if number not in single]
    if not images:
        raise DataError(f"{path}: data.scenes.channels names no image (scene, row, column). Received: {list(names)}.")
    shape = channels[images[0]].shape
    _check_shapes(path, [names[n] for n in images], [channels[n].shape for n in images])
    for number in single:
        if len(channels[number]) != shape[0]:
            raise DataError(
                f"{path}: '{names[number]}' must have a number for each of the {shape[0]} scenes. "
                f"Received: {len(channels[number])}."
            )
        channels[number] = np.broadcast_to(channels[number][:, None, None], shape)
    return np.stack(channels, axis=-1).astype("float32"), single


def _first_image(settings: SceneFile, single: Sequence[int]) -> str:
    return next(name for number, name in enumerate(settings.channels) if number not in single)


def _maps(file: h5py.File, name: str, field: str) -> np.ndarray:
    found: np.ndarray = read(file, name, 3, field)
    return found


def _check_shapes(path: Path, names: Sequence[str], shapes: Sequence[tuple[int, ...]]) -> None:
    for name, shape in zip(names, shapes, strict=True):
        if shape != shapes[0]:
            raise DataError(
                f"{path}: '{name}' must have the shape of '{names[0]}', (scene, row, column) = {shapes[0]}. "
                f"Received: {shape}."
            )


def _names(file: h5py.File, settings: SceneFile, count: int) -> tuple[str, ...]:
    if settings.name is None:
        return tuple(str(number + 1) for number in range(count))
    numbers = _numbers(file, settings.name, "name", count)
    if len(set(numbers)) != count:
        raise DataError(
            f"{file.filename}: '{settings.name}' (configuration field data.scenes.name) must hold a whole number of "
            f"its own for each of the {count} scenes. Set it to null to count them from 1."
        )
    return numbers


def _numbers(file: h5py.File, name: str, field: str, count: int) -> tuple[str, ...]:
    """Whole numbers, one a scene, as text."""
    numbers = read(file, name, 1, f"data.scenes.{field}")
    if len(numbers) != count or not np.equal(numbers, np.rint(numbers)).all():
        raise DataError(
            f"{file.filename}: '{name}' (configuration field data.scenes.{field}) must hold a whole number for each "
            f"of the {count} scenes. Set it to null, or name another dataset."
        )
    return tuple(str(int(number)) for number in numbers)


def split_scenes(scenes: Scenes, split: FlightSplit, judged: Scenes | None = None) -> dict[str, Scenes]:
    """The three parts, by the names of their scenes or groups; scenes without a label are in none.

    `judged` are the same scenes with other labels, for the test part. Raises `DataError` for an unknown name or a leak.
    """
    needed = flights_needed(split, list(dict.fromkeys(scenes.split_names)))
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
        label = chosen.label[chosen.seen]
        if len(label) < 2 or np.ptp(label) == 0:
            raise DataError(
                f"the {part} part has {len(label)} labelled pixels, and no two labels that differ: nothing can be "
                "learned or judged. Check data.scenes.label and test_label, target.minimum and target.maximum."
            )
    return parts


def on_lines(scenes: Scenes, spacing: int, rng: np.random.Generator) -> Scenes:
    """The same with the labels of every so many rows alone, from a first row that is drawn for each scene."""
    rows = np.arange(scenes.frames.shape[1])[None, :]
    first = rng.integers(spacing, size=(len(scenes), 1))
    kept = (rows - first) % spacing == 0  # (n,H)
    return scenes.known(np.broadcast_to(kept[:, :, None], scenes.label.shape))


def fit_scene_scaling(train: Scenes, target: Target, preprocessing: Preprocessing) -> Scaling:
    """Means and standard deviations of the training part: of all pixels for the frames, of labels for the target."""
    x = train.frames.astype("float64")
    x = x if preprocessing.log_offset is None else np.log(np.maximum(x, 0.0) + preprocessing.log_offset)
    log = target.transform == "log"
    unit = TargetScaling(0.0, 1.0, log, log_offset=target.log_offset)
    label = unit.transform(train.label[train.seen])
    return Scaling(
        target=replace(unit, mean=float(label.mean()), std=float(label.std())),
        frame_mean=x.mean(axis=(0, 1, 2)).tolist(),
        frame_std=_spread(x, train.single).tolist(),
        flat_field=None,
        feature_mean=[],
        feature_std=[],
    )


def _spread(x: np.ndarray, single: tuple[int, ...]) -> np.ndarray:
    """(C,) standard deviations; 1 for a number that is the same in all scenes: what it means otherwise is unknown."""
    std = x.std(axis=(0, 1, 2))
    constant = np.isin(np.arange(len(std)), single) & (std < 1e-6)
    return np.where(constant, 1.0, np.maximum(std, 1e-6))


def scene_fingerprint(path: Path, parts: dict[str, Scenes]) -> str:
    """Changes with the file, the labels and the split."""
    digest = hashlib.sha256(camera_fingerprint(path).encode())
    for part in PARTS:
        digest.update(" ".join(parts[part].names).encode())
        for array in (parts[part].label, parts[part].weight):
            digest.update(np.ascontiguousarray(array).tobytes())
    return digest.hexdigest()[:16]

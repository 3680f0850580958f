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

from cloudml_tf.data.frames import camera_fingerprint
from cloudml_tf.data.hdf5 import open_file, read
from cloudml_tf.data.scaling import Scaling, TargetScaling
from cloudml_tf.data.settings import FlightSplit, Preprocessing, SceneFile, Target
from cloudml_tf.data.splits import PARTS, flights_needed
from cloudml_tf.errors import DataError


@dataclass(frozen=True)
class Scenes:
    """n scenes of H x W pixels. A pixel of weight 0 has no label; its `label` is not to be read."""

    frames: np.ndarray  # (n, H, W, C) radiance or reflectance
    label: np.ndarray  # (n, H, W) in the target's own unit
    weight: np.ndarray  # (n, H, W)
    names: tuple[str, ...]
    retrieval: np.ndarray | None = None  # (n, H, W) of another method, in the target's own unit

    def __len__(self) -> int:
        return len(self.frames)

    def take(self, chosen: Any) -> "Scenes":
        """Some scenes, by a mask or indices."""
        numbers = np.arange(len(self))[chosen]
        other = None if self.retrieval is None else self.retrieval[numbers]
        names = tuple(self.names[n] for n in numbers)
        return Scenes(self.frames[numbers], self.label[numbers], self.weight[numbers], names, other)

    def named(self, names: Sequence[str]) -> "Scenes":
        """The scenes of these names, in their order. Raises `DataError` for one that is not there."""
        unknown = [name for name in names if name not in self.names]
        if unknown:
            raise DataError(f"no scene is called {', '.join(unknown)}. There are {', '.join(self.names)}.")
        return self.take([self.names.index(name) for name in names])

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


def read_scenes(path: Path, settings: SceneFile, target: Target, labels: bool = True) -> Scenes:
    """All scenes of a file; pixels whose label is missing or out of the target's range get the weight 0.

    Without `labels` none are read, and all weights are 0. Raises `DataError`.
    """
    with open_file(path) as file:
        channels = [_maps(file, name, "data.scenes.channels") for name in settings.channels]
        _check_shapes(path, settings.channels, [channel.shape for channel in channels])
        frames = np.stack(channels, axis=-1).astype("float32")
        names = _names(file, settings, len(frames))
        label = _maps(file, settings.label, "data.scenes.label") if labels else np.full(frames.shape[:3], np.nan)
        wanted = labels and settings.retrieval is not None
        other = _maps(file, str(settings.retrieval), "data.scenes.retrieval") if wanted else None
    found = {settings.label: label.shape} | ({} if other is None else {str(settings.retrieval): other.shape})
    _check_shapes(path, [settings.channels[0], *found], [frames.shape[:3], *found.values()])
    bad = ~np.isfinite(frames).all(axis=(1, 2, 3))
    if bad.any():
        raise DataError(f"{path}: scene {names[int(bad.argmax())]} has pixels that are no numbers. Take it out.")
    with np.errstate(invalid="ignore"):
        known = np.isfinite(label)
        known &= label >= (-np.inf if target.minimum is None else target.minimum)
        known &= label <= (np.inf if target.maximum is None else target.maximum)
    return Scenes(frames, np.where(known, label, 0.0), known.astype("float32"), names, other)


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
    numbers = read(file, settings.name, 1, "data.scenes.name")
    if len(numbers) != count or len(np.unique(numbers)) != count or not np.equal(numbers, np.rint(numbers)).all():
        raise DataError(
            f"{file.filename}: '{settings.name}' (configuration field data.scenes.name) must hold a whole number of "
            f"its own for each of the {count} scenes. Set it to null to count them from 1."
        )
    return tuple(str(int(number)) for number in numbers)


def split_scenes(scenes: Scenes, split: FlightSplit) -> dict[str, Scenes]:
    """The three parts, by the names of their scenes. Raises `DataError` for an unknown name or a leak."""
    needed = flights_needed(split, scenes.names)
    parts = {part: scenes.named(needed[part]) for part in PARTS}
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
                "learned or judged. Check data.scenes.label, target.minimum and target.maximum."
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
        frame_std=np.maximum(x.std(axis=(0, 1, 2)), 1e-6).tolist(),
        flat_field=None,
        feature_mean=[],
        feature_std=[],
    )


def scene_fingerprint(path: Path, parts: dict[str, Scenes]) -> str:
    """Changes with the file, the labels and the split."""
    digest = hashlib.sha256(camera_fingerprint(path).encode())
    for part in PARTS:
        digest.update(" ".join(parts[part].names).encode())
        for array in (parts[part].label, parts[part].weight):
            digest.update(np.ascontiguousarray(array).tobytes())
    return digest.hexdigest()[:16]

"""Read a file of gridded scenes: datasets (scene, row, column), and (scene,) for numbers of a whole scene."""

from collections.abc import Sequence
from pathlib import Path

import h5py
import numpy as np

from cloudml_tf.config.data import Limits, SceneFile, Target
from cloudml_tf.data.readers.hdf5 import open_file, read
from cloudml_tf.data.scenes import Scenes
from cloudml_tf.utils.errors import DataError


def read_scenes(
    path: Path, settings: SceneFile, target: Target, labels: bool = True, limits: Limits | None = None
) -> Scenes:
    """All scenes of a file; pixels whose label is missing or out of the target's range get the weight 0.

    Without `labels` none are read, and all weights are 0; `limits` are what the file may ask for. Raises `DataError`.
    """
    if not path.exists():
        raise DataError(
            f"{path}: no such file of scenes. Set data.scenes.path, or write it with `cloudml scenes --config CONFIG`."
        )
    with open_file(path, limits) as file:
        frames, single = _channels(file, path, settings.channels)
        shape = (len(frames), *frames.shape[-3:-1])  # (n,H,W)
        names = _names(file, settings, len(frames))
        groups = None if settings.group is None else _numbers(file, settings.group, "group", len(frames))
        label = read(file, settings.label, 3, "data.scenes.label") if labels else np.full(shape, np.nan)
        wanted = labels and settings.retrieval is not None
        other = read(file, str(settings.retrieval), 3, "data.scenes.retrieval") if wanted else None
    found = {settings.label: label.shape} | ({} if other is None else {str(settings.retrieval): other.shape})
    image = next(name for number, name in enumerate(settings.channels) if number not in single)
    _check_shapes(path, [image, *found], [shape, *found.values()])
    bad = ~np.isfinite(frames).all(axis=tuple(range(1, frames.ndim)))
    if bad.any():
        raise DataError(f"{path}: scene {names[int(bad.argmax())]} has pixels that are no numbers. Take it out.")
    return Scenes.of(frames, label, target, names=names, retrieval=other, groups=groups, single=single)


def _channels(file: h5py.File, path: Path, names: Sequence[str]) -> tuple[np.ndarray, tuple[int, ...]]:
    """(n,H,W,C) or (n,T,H,W,C), and which channels are one number for each scene."""
    channels = [read(file, name, (1, 3, 4), "data.scenes.channels") for name in names]
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
        spread = channels[number].reshape(-1, *(1,) * (len(shape) - 1))
        channels[number] = np.broadcast_to(spread, shape)
    return np.stack(channels, axis=-1).astype("float32"), single


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

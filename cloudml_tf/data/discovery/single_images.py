"""Files with one image each, as a camera of one file a frame writes them, or a radar its composites: listed, with what
they call themselves, and never taken for a camera unasked.
"""

import time
from collections.abc import Sequence
from pathlib import Path

from cloudml_tf.data.discovery.datasets import FileContent, Found
from cloudml_tf.data.readers import hdf5
from cloudml_tf.data.readers.formats.frames import is_series
from cloudml_tf.utils.errors import DataError

SMALLEST_SIDE = 16  # pixels


def one_a_file(contents: Sequence[FileContent]) -> list[str]:
    """Notes about images of one name and shape that several files of a folder hold, one each."""
    groups: dict[tuple[Path, str, str, tuple[int, ...]], list[Path]] = {}
    for content in contents:
        for found in content.datasets if not is_series(content.path) else ():
            if _is_image(found, content):
                key = (content.path.parent, content.path.suffix, found.name, found.shape)
                groups.setdefault(key, []).append(content.path)
    return [_listed(paths, name, shape) for (_, _, name, shape), paths in groups.items() if len(paths) > 1]


def _is_image(found: Found, content: FileContent) -> bool:
    """Whether a dataset (row, column) is no table of times or profiles: no vector of its length is beside it."""
    sides = found.shape[1:] if len(found.shape) == 3 and found.shape[0] == 1 else found.shape
    along = {other.shape[0] for other in content.datasets if len(other.shape) == 1}
    return len(sides) == 2 and min(sides) >= SMALLEST_SIDE and sides[0] not in along


def _listed(paths: Sequence[Path], name: str, shape: tuple[int, ...]) -> str:
    """What the files hold, from when to when, and how they are taken for a camera all the same."""
    start = len(paths[0].name)
    while start and len({path.name[:start] for path in paths}) > 1:
        start -= 1
    pattern = paths[0].parent / f"{paths[0].name[:start]}*{paths[0].suffix}"
    text = f"{pattern}: {len(paths)} files with one image each, '{name}' {shape}"
    try:
        with hdf5.open_file(pattern) as file:
            moments = hdf5.read(file, "time", 1)
            called = hdf5.text(file[name], "long_name") if name in file else ""
    except DataError as error:
        return f"{text}; they cannot be read as a camera: {error}"
    first, last = (time.strftime("%Y-%m-%d %H:%M:%S", time.gmtime(one)) for one in (moments.min(), moments.max()))
    called = f", which call themselves {called}" if called else ""
    return (
        f"{text}, from {first} to {last}{called}. They are not proposed as a camera; to take them for one, name the "
        f"pattern as the camera in data.flights, '{name}' in data.camera.channels and 'time' in data.camera.time"
    )

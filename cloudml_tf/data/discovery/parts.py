"""Files of one instrument that continue one another, as parts of one flight: by their times, under one pattern."""

import difflib
import itertools
import re
from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path

import numpy as np

from cloudml_tf.data.discovery.datasets import FileContent
from cloudml_tf.data.discovery.grouping import pattern
from cloudml_tf.data.discovery.mapped import Mapping, frames_of, rows_of, times_of
from cloudml_tf.data.readers import hdf5, times
from cloudml_tf.data.readers.formats.part_names import NUMBERED, by_number
from cloudml_tf.utils.errors import DataError

NUMBERED_S = 300.0  # the longest gap between files whose names count parts


def joined(mapping: Mapping, role: str, contents: Sequence[FileContent]) -> list[FileContent]:
    """The files of a role, those as one that continue one another; what was decided is noted."""
    by_path = {str(content.path): content for content in contents}
    runs = {path: times_of(mapping, role, content.path) for path, content in by_path.items()}
    found = []
    for chain in times.continued(runs, _longest_gap_s):
        parts = [by_path[path] for path in chain]
        if len(chain) > 1:
            gaps = [runs[after][0] - runs[before][-1] for before, after in itertools.pairwise(chain)]
            parts = _as_one(
                mapping, role, parts, f" up to {max(gaps):.3g} s apart", sum(len(runs[path]) for path in chain)
            )
        found += parts
    return sorted(found, key=lambda content: content.path)


def joined_by_names(mapping: Mapping, contents: Sequence[FileContent]) -> list[FileContent]:
    """Navigation files without a clock as parts of one, where their names and rows are those of a camera's parts."""
    left = list(contents)
    for camera in (camera for camera in mapping.files["camera"] if len(camera.parts) > 1):
        beside = [_most_alike(part, left) for part in sorted(camera.parts, key=by_number)]
        chosen = [content for content in beside if content is not None]
        paths = [content.path for content in chosen]
        rows = sum(rows_of(content, mapping) for content in chosen)
        if (
            len(set(paths)) == len(camera.parts)
            and rows == frames_of(camera, mapping)
            and paths == sorted(paths, key=by_number)
        ):
            left = [c for c in left if c.path not in paths] + _as_one(
                mapping, "navigation", chosen, " by their names", 0
            )
    return left


def _most_alike(part: Path, contents: Sequence[FileContent]) -> FileContent | None:
    """The file in the part's folder that is named most like it."""
    near = [content for content in contents if content.path.parent == part.parent]
    return max(near, key=lambda c: difflib.SequenceMatcher(None, c.path.name, part.name).ratio(), default=None)


def _longest_gap_s(before: str, after: str) -> float:
    """The longest gap between parts of one flight: longer where names that are alike count parts."""
    names = [re.sub(NUMBERED, "", Path(path).name) for path in (before, after)]
    counted = names[0] == names[1] and re.search(NUMBERED, Path(before).name)
    return NUMBERED_S if counted else times.CONTINUED_S


def _as_one(mapping: Mapping, role: str, parts: list[FileContent], why: str, count: int) -> list[FileContent]:
    """Parts as one file, or as they are where that is not possible."""
    names = [part.path.name for part in parts]
    told = f"{', '.join(names)} continue one another{why}"
    try:
        path = _pattern_of([part.path for part in parts])
        _check(mapping, role, path, count)
    except DataError as error:
        mapping.note(f"{told}, and are left apart: {error}")
        return parts
    mapping.note(f"{told}: they are parts of one flight, and read as one, {path.name}")
    return [_one(parts, path)]


def _pattern_of(paths: Sequence[Path]) -> Path:
    """A pattern that matches these files and no other. Raises `DataError` where there is none."""
    found = paths[0].parent / pattern([path.name for path in paths])
    others = sorted(set(found.parent.glob(found.name)) - set(paths))
    if len({path.parent for path in paths}) > 1:
        raise DataError("they lie in several folders; put them into one")
    if others:
        raise DataError(
            f"the pattern {found.name} matches {others[0].name} too; rename them, or put them into a folder"
        )
    return found


def _check(mapping: Mapping, role: str, path: Path, count: int) -> None:
    """Read what is needed of all parts as one. Raises `DataError` where that is not possible."""
    section = mapping.sections[role]
    with hdf5.open_file(path) as file:
        for name in sorted(mapping.datasets(role) - {section.get("time")}):
            hdf5.dataset(file, name)
    found = times_of(mapping, role, path) if section.get("time") else np.zeros(count)
    if len(found) != count:
        raise DataError(f"their {count} times cannot be read together")


def _one(parts: Sequence[FileContent], path: Path) -> FileContent:
    """The content of parts, each dataset with the rows of all."""
    datasets = tuple(
        replace(found, shape=(sum(part.rows(found.name) for part in parts), *found.shape[1:]))
        for found in parts[0].datasets
    )
    return replace(parts[0], path=path, datasets=datasets, parts=tuple(part.path for part in parts))

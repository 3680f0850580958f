"""Group files into flights: which lidar and navigation file belongs to which camera file, and the flights' names."""

import difflib
import os
import re
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np

from cloudml_tf.config.data import Data, FlightFiles
from cloudml_tf.data.discovery import clocks
from cloudml_tf.data.discovery.datasets import FileContent
from cloudml_tf.data.discovery.mapped import Mapping, frames_of, rows_of, times_of
from cloudml_tf.data.readers.folders import find_flights
from cloudml_tf.data.readers.formats.part_names import without_parts
from cloudml_tf.utils.errors import DataError

ALIKE_LONG = 1.25
ROLES = ("camera", "lidar", "navigation")


def group(mapping: Mapping) -> dict[str, FlightFiles]:
    """Flights by name, each with the lidar file that overlaps it longest, and its navigation file."""
    cameras = mapping.files["camera"]
    runs = {role: {c.path: times_of(mapping, role, c.path) for c in mapping.files[role]} for role in ROLES}
    names = flight_names([c.path for c in cameras])
    flights: dict[str, FlightFiles] = {}
    together = {c.path: _longest_overlap(runs["lidar"], c.path, runs["camera"][c.path]) for c in cameras}
    if not any(together.values()):
        together = {c.path: _most_alike(mapping, c.path) for c in cameras}
    if not mapping.files["lidar"]:
        mapping.note("without a lidar file these flights can be predicted, and not trained on")
    for content, name in zip(cameras, names, strict=True):
        lidar = together[content.path]
        others = [
            path.name for path, run in runs["lidar"].items() if path != lidar and _as_long(run, runs, lidar, content)
        ]
        if others:
            mapping.note(f"{', '.join(others)}: also overlaps with {content.path.name}; {lidar and lidar.name} is used")
        if lidar is None and mapping.files["lidar"]:
            mapping.note(f"{content.path}: left out, no lidar file overlaps with it in time")
            continue
        navigation = _navigation_file(mapping, content, runs) if mapping.sun_angles else None
        if mapping.sun_angles and navigation is None:
            mapping.note(f"{content.path}: left out, no navigation file matches it (data.sun_angles false needs none)")
            continue
        # An absolute path works from everywhere.
        paths = {"camera": content.path, "lidar": lidar, "navigation": navigation}
        absolute = {role: path and str(path.resolve()) for role, path in paths.items()}
        flights[name] = FlightFiles.model_validate(absolute)
    return dict(sorted(flights.items()))


def _longest_overlap(runs: dict[Path, np.ndarray], camera: Path, times_s: np.ndarray) -> Path | None:
    """The file whose times overlap a camera file's longest; of equals, the one with the most similar path."""
    scored = [(clocks.overlap_s(run, times_s), _alike(path, camera), path) for path, run in runs.items()]
    scored = [row for row in scored if row[0] >= 0]
    return max(scored, key=lambda row: row[:2])[2] if scored else None


def _as_long(
    run: np.ndarray, runs: dict[str, dict[Path, np.ndarray]], lidar: Path | None, content: FileContent
) -> bool:
    """Whether a lidar file's times overlap a camera file's as long as those of the one that is used."""
    if lidar is None:
        return False
    times_s = runs["camera"][content.path]
    return 0 < clocks.overlap_s(runs["lidar"][lidar], times_s) <= ALIKE_LONG * clocks.overlap_s(run, times_s)


def _most_alike(mapping: Mapping, camera: Path) -> Path | None:
    """Where no clocks overlap: the lidar file with the most similar path, so that only the clocks are left to fix."""
    lidar = max((c.path for c in mapping.files["lidar"]), key=lambda path: _alike(path, camera), default=None)
    if lidar is None:
        return None
    mapping.note(f"{camera} and {lidar} are matched by name only: their times do not overlap")
    return lidar


def _navigation_file(mapping: Mapping, camera: FileContent, runs: dict[str, dict[Path, np.ndarray]]) -> Path | None:
    if mapping.sections["navigation"].get("time"):
        return _longest_overlap(runs["navigation"], camera.path, runs["camera"][camera.path])
    count = frames_of(camera, mapping)
    fitting = [c.path for c in mapping.files["navigation"] if rows_of(c, mapping) == count]
    return max(fitting, key=lambda path: _alike(path, camera.path), default=None)


def _alike(first: Path, second: Path) -> float:
    """Similarity of two paths, 0 to 2: the same folder counts more than a similar name."""
    same = 1.0 if first.parent == second.parent else 0.0
    return same + difflib.SequenceMatcher(None, first.name, second.name).ratio()


def flight_names(cameras: Sequence[Path]) -> list[str]:
    """The folders' names where each camera file has its own, else what distinguishes the files' names."""
    folders = [path.resolve().parent.name for path in cameras]
    if len(set(folders)) == len(cameras) > 1:
        return [_clean(name) for name in folders]
    stems = [without_parts(path.stem) for path in cameras]
    parts = [[part for part in re.split(r"[_. ]+|(?<!\d)-|-(?!\d)", stem) if part] for stem in stems]
    shared = set.intersection(*(set(p) for p in parts)) if len(parts) > 1 else set()
    names = [_clean("_".join(part for part in p if part not in shared)) for p in parts]
    if len(set(names)) < len(names):
        return [f"flight{number:02d}" for number in range(1, len(names) + 1)]
    return names


def _clean(name: str) -> str:
    return re.sub(r"[^A-Za-z0-9._-]+", "_", name).strip("_") or "flight"


def source_of(mapping: Mapping, flights: dict[str, FlightFiles]) -> dict[str, Any]:
    """The section of `data` that names the input: a folder with name patterns, where that finds the same, or each file.

    Beside single files the patterns are given too, where they match the flights, so that they also find new flights.
    """
    listed = {name: files.model_dump(exclude_none=True) for name, files in flights.items()}
    if len(flights) < 2:
        return {"flights": listed}
    roles = [role for role in ROLES if all(getattr(files, role) for files in flights.values())]
    patterns = {role: {"files": [pattern([Path(getattr(f, role)).name for f in flights.values()])]} for role in roles}
    root = Path(os.path.commonpath({Path(getattr(f, role)).parent for f in flights.values() for role in roles}))
    if _found(root, mapping, patterns, labels=True) == listed:
        return {"path": str(root), **patterns}
    cameras = {name: files["camera"] for name, files in _found(root, mapping, patterns, labels=False).items()}
    by_name = all(cameras.get(name) == files.camera for name, files in flights.items())
    return {"flights": listed, **(patterns if by_name else {})}


def _found(root: Path, mapping: Mapping, patterns: dict[str, Any], labels: bool) -> dict[str, dict[str, str]]:
    """The flights that name patterns find in a folder; none where they fail."""
    sections = {role: {**mapping.sections[role], **found} for role, found in patterns.items()}
    content = {"path": str(root), "sun_angles": mapping.sun_angles, **sections}
    try:
        found = find_flights(root, Data.model_validate(content), labels)
    except (DataError, ValueError):
        return {}
    return {name: files.model_dump(exclude_none=True) for name, files in found.items()}


def pattern(names: Sequence[str]) -> str:
    """One name pattern for several file names: cam_0603.h5 and cam_0604.h5 become cam_*.h5."""
    if len(set(names)) == 1:
        return names[0]
    start = _common_start(names).rstrip("0123456789")
    end = _common_start([name[len(start) :][::-1] for name in names])[::-1].lstrip("0123456789")
    return f"{start}*{end}"


def _common_start(names: Sequence[str]) -> str:
    first, last = min(names), max(names)
    same = next((n for n, (a, b) in enumerate(zip(first, last, strict=False)) if a != b), min(len(first), len(last)))
    return first[:same]

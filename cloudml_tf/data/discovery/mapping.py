"""Map the contents of files to the sections camera, lidar and navigation, with the reason for each choice."""

import calendar
import math
import time
from collections.abc import Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import numpy as np

from cloudml_tf.config.data import Lidar
from cloudml_tf.data.discovery import clocks, rules
from cloudml_tf.data.discovery.datasets import FileContent, Found
from cloudml_tf.data.discovery.geometry import across_track, shrinking
from cloudml_tf.data.discovery.positions import positions
from cloudml_tf.data.discovery.rules import Choice
from cloudml_tf.data.discovery.single_images import one_a_file
from cloudml_tf.data.readers import times
from cloudml_tf.data.readers.units import is_none

OTHER_ANGLES: dict[str, tuple[str, dict[str, Any]]] = {  # rules without a field of their own
    "elevation": ("solar_zenith", {"elevation": True}),
    "relative_azimuth": ("solar_azimuth", {"heading": None}),
}


MOST_SEEN, MOST_NAMED = 6, 12  # reasons that a message lists, and names of datasets without one
CLOUD = Lidar().cloud_types[0]


@dataclass
class Mapping:
    """What was found in the files, and what is missing."""

    sections: dict[str, dict[str, Any]] = field(default_factory=lambda: {"camera": {}, "lidar": {}, "navigation": {}})
    choices: list[Choice] = field(default_factory=list)
    clocks: dict[str, str] = field(default_factory=dict)  # description of each section's time unit
    missing: list[tuple[str, str]] = field(default_factory=list)  # (setting, what to do)
    notes: list[str] = field(default_factory=list)
    files: dict[str, list[FileContent]] = field(default_factory=dict)  # by role
    sun_angles: bool = False

    def take(self, choice: Choice) -> None:
        """Use a dataset for the field of the choice."""
        section, name = choice.field.split(".")
        self.sections[section][name] = choice.found.name
        self.choices.append(choice)

    def lack(self, setting: str, remedy: str) -> None:
        """Note a field without a matching dataset."""
        self.missing.append((setting, remedy))

    def note(self, text: str) -> None:
        """Note what a person should know of a choice."""
        self.notes.append(text)

    def datasets(self, section: str) -> set[str]:
        """The datasets that a file of this section must have."""
        return {c.found.name for c in self.choices if c.field.startswith(section)}


def map_files(contents: Sequence[FileContent]) -> Mapping:
    """Decide the role of each file; all files of one role must have the datasets of the first."""
    mapping = Mapping()
    mapping.notes += [_skipped(content) for content in contents if content.skipped]
    mapping.notes += [f"{content.path}: {note}" for content in contents for note in content.notes]
    mapping.notes += one_a_file(contents)
    labelled = [c for c in contents if _labels(c)]
    imaging = [c for c in contents if rules.channels(c)]
    cameras = [c for c in imaging if c not in labelled] or imaging
    lidars = [c for c in labelled if c not in cameras] or labelled
    if cameras:
        _map_camera(mapping, cameras[0], _date_of(contents))
    else:
        seen = [f"{c.path.name}: {text}" for c in contents for text in rules.refused_images(c) or [_holds(c)]]
        mapping.lack("data.camera.channels", _with("no 3-D dataset (frame, row, column) of images in any file", seen))
    if lidars:
        _map_lidar(mapping, lidars[0], cameras)
    else:
        mapping.lack(
            "data.lidar.optical_depth",
            _with(
                "no optical depth, base or top height by name or description in any file",
                [text for c in contents for text in rules.refusals(rules.LABELS, c.datasets)],
            ),
        )
    scored = {c.path: sum(choice.score for choice in _angles(c).values()) for c in contents}
    angled = sorted((c for c in contents if scored[c.path]), key=lambda c: scored[c.path], reverse=True)
    if angled:
        _map_navigation(mapping, angled[0], cameras)
        _map_positions(mapping, angled)
    elif placed := _with_positions(contents):
        _map_places(mapping, placed, cameras)
    else:
        refused = [text for c in contents for text in rules.refusals(rules.ANGLES, c.datasets)]
        mapping.lack("data.navigation", _with("no sun angles by name; without them data.sun_angles is false", refused))
    mapping.files = {"camera": _alike(mapping, "camera", cameras), "lidar": _alike(mapping, "lidar", lidars)}
    needed = mapping.datasets("navigation")
    suited = [c for c in contents if needed <= {found.name for found in c.datasets}]
    mapping.files["navigation"] = suited if mapping.sun_angles else []
    return mapping


def _holds(content: FileContent) -> str:
    """The largest datasets of a file, in words."""
    largest = sorted(content.datasets, key=lambda found: -math.prod(found.shape))[:3]
    return "holds " + ", ".join(f"'{found.name}' {found.shape}" for found in largest)


def _skipped(content: FileContent) -> str:
    """Which datasets of a file cannot be read, and why."""
    more = f" and {len(content.skipped) - MOST_SEEN} more" if len(content.skipped) > MOST_SEEN else ""
    return f"{content.path}: without {'; '.join(content.skipped[:MOST_SEEN])}{more}"


def _with(text: str, seen: Sequence[str]) -> str:
    """A text with what was seen instead."""
    return f"{text}; seen: {'; '.join(seen[:MOST_SEEN])}" if seen else text


def _alike(mapping: Mapping, role: str, contents: Sequence[FileContent]) -> list[FileContent]:
    """The files with all datasets that the section names; the others are noted."""
    needed = mapping.datasets(role)
    for content in contents:
        lacking = sorted(needed - {found.name for found in content.datasets})
        if lacking:
            mapping.note(f"{content.path}: left out, it lacks '{lacking[0]}', which the first {role} file has")
    return [c for c in contents if needed <= {found.name for found in c.datasets}]


def _date_of(contents: Sequence[FileContent]) -> str | None:
    """The first date in any file's name or attributes."""
    for content in contents:
        for text in (content.path.stem, *content.attributes.values()):
            if date := times.date_in(text):
                return "{:04d}-{:02d}-{:02d}".format(*date)
    return None


# --- camera


def _map_camera(mapping: Mapping, content: FileContent, date: str | None) -> None:
    images = rules.channels(content)
    mapping.sections["camera"]["channels"] = [choice.found.name for choice in images]
    mapping.choices += images
    frames = images[0].found
    if frames.frames_last:
        mapping.sections["camera"]["frame_axis"] = "last"
        mapping.note(f"'{frames.name}' has its frames last")
    chosen = clocks.time_choice(content, frames.shape[0], frames, "camera.time")
    if chosen is None:
        mapping.lack("data.camera.time", clocks.why_no_time(content, frames.shape[0]))
    else:
        mapping.take(chosen)
        counted, why_not = clocks.candidates(chosen.found, content, lidar=False, date=date)
        if counted:
            mapping.sections["camera"].update(counted[0][0])
            mapping.clocks["camera"] = counted[0][1]
            _hold_against_name(mapping, "camera", content)
        else:
            mapping.lack("data.camera.time_unit", f"'{chosen.found.name}' of {content.path}: {why_not}")
    axis, why = across_track(content.path, frames)
    if axis:
        mapping.sections["camera"]["across_track_axis"] = axis
        mapping.note(f"the image's {axis} run across the track: {why}")
    else:
        mapping.lack("data.camera.across_track_axis", f"{why}; 'rows' is assumed")
    factor = shrinking(frames.shape[1:])
    if factor > 1:
        mapping.sections["camera"]["downsample"] = factor
        mapping.note(f"frames of {frames.shape[1]} x {frames.shape[2]} pixels are averaged over {factor} x {factor}")


# --- lidar


def _labels(content: FileContent) -> list[Choice]:
    """The label datasets with as many rows as the best of them."""
    found = [choice for rule in rules.LABELS if (choice := rules.best(rule, content.datasets))]
    if not found:
        return []
    count = max(found, key=lambda choice: choice.score).found.shape[0]
    alike = [rules.best(rule, content.datasets, lambda d: d.shape[0] == count) for rule in rules.LABELS]
    return [choice for choice in alike if choice]


def _map_lidar(mapping: Mapping, content: FileContent, cameras: Sequence[FileContent]) -> None:
    labels = _labels(content)
    for choice in labels:
        mapping.take(choice)
        if others := _others(content, choice):
            mapping.note(f"data.{choice.field} could also be {', '.join(others)}")
    label = labels[0].found
    count = label.shape[0]
    for rule in rules.BESIDE_LABELS:
        beside = rules.best(rule, content.datasets, lambda d: d.shape[0] == count)
        if beside is not None and (rule.field != "lidar.feature_type" or _tells_cloud(mapping, beside.found, label)):
            mapping.take(beside)
    if len(label.shape) == 2 and "feature_type" not in mapping.sections["lidar"]:
        mapping.note("no dataset distinguishes cloud from aerosol (data.lidar.feature_type): all layers count as cloud")
    _height_unit(mapping, labels)
    chosen = clocks.time_choice(content, count, label, "lidar.time")
    if chosen is None:
        mapping.lack("data.lidar.time", clocks.why_no_time(content, count))
        return
    mapping.take(chosen)
    _lidar_clock(mapping, chosen.found, content, cameras)


def _tells_cloud(mapping: Mapping, kinds: Found, label: Found) -> bool:
    """Whether a dataset can be the layers' feature type, with the configured code for cloud."""
    if kinds.shape == label.shape and np.isin(CLOUD, kinds.finite):
        mapping.note(f"layers with '{kinds.name}' {CLOUD} are cloud; other codes go into data.lidar.cloud_types")
        return True
    mapping.note(
        f"'{kinds.name}' may mark clouds, but has no code {CLOUD}: set data.lidar.feature_type and cloud_types"
    )
    return False


def _others(content: FileContent, label: Choice) -> list[str]:
    """Other datasets that could be the label."""
    rule = next(rule for rule in rules.LABELS if rule.field == label.field)
    scored = [choice for found in content.datasets if (choice := rules.score(rule, found))]
    return [c.found.name for c in scored if c.score >= label.score - 1 and c.found is not label.found]


def _height_unit(mapping: Mapping, labels: Sequence[Choice]) -> None:
    """Recognise metres by the values where no attribute gives the unit."""
    heights = [c.found for c in labels if c.field != "lidar.optical_depth"]
    heights = [found for found in heights if is_none(found.units)]
    positive = np.concatenate([h.finite[h.finite > 0] for h in heights]) if heights else np.zeros(0)
    if positive.size and np.median(positive) > 60.0:
        mapping.sections["lidar"]["height_unit"] = "m"
        mapping.note(f"heights are metres: their median is {np.median(positive):.0f}")


def _lidar_clock(mapping: Mapping, found: Found, content: FileContent, cameras: Sequence[FileContent]) -> None:
    """Choose the unit of the times that makes them overlap a camera's."""
    frame_s = [times_of(mapping, "camera", c.path) for c in cameras]
    date = _date_of([*cameras, content]) or clocks.date_of(frame_s)
    tried, why_not = clocks.candidates(found, content, lidar=True, date=date)
    if not tried:
        mapping.lack("data.lidar.time_unit", f"'{found.name}' of {content.path}: {why_not}")
        return
    profile_s = [clocks.seconds(content.path, "lidar", {"time": found.name, **settings}) for settings, _ in tried]
    together = [any(clocks.overlap_s(p, f) >= 0 for f in frame_s) for p in profile_s]
    settings, words = tried[together.index(True) if any(together) else 0]
    if not any(together):
        mapping.note(f"no camera file overlaps in time with {content.path}, read as {words}")
    mapping.sections["lidar"].update(settings)
    mapping.clocks["lidar"] = words
    _hold_against_name(mapping, "lidar", content)


def _hold_against_name(mapping: Mapping, role: str, content: FileContent) -> None:
    """Tell where the times of a file, however sure their clock is, are not of the day in its name."""
    own, run_s = times.date_in(content.path.stem), times_of(mapping, role, content.path)
    if own is None or not len(run_s):
        return
    named_s = calendar.timegm((*own, 12, 0, 0))
    if not run_s[0] - clocks.NEAR_S <= named_s <= run_s[-1] + clocks.NEAR_S:
        begins = time.strftime("%Y-%m-%d %H:%M", time.gmtime(run_s[0]))
        mapping.note(f"{content.path}: its times begin {begins}, and the date in its name is another; check the clock")


def times_of(mapping: Mapping, role: str, path: Path) -> np.ndarray:
    """The times of a file, in s; none where its section has no dataset of times, or their unit is unknown."""
    settings = {k: v for k, v in mapping.sections[role].items() if k.startswith("time") or k == "year"}
    return clocks.seconds(path, role, settings) if settings.get("time") else np.zeros(0)


# --- navigation


def _angles(content: FileContent, count: int | None = None) -> dict[str, Choice]:
    """Sun angles and heading by rule; empty unless zenith (or elevation) and azimuth are there."""
    fits = (lambda d: d.shape[0] == count) if count is not None else (lambda d: True)
    found = {rule.field: choice for rule in rules.ANGLES if (choice := rules.best(rule, content.datasets, fits))}
    height = "navigation.solar_zenith" if "navigation.solar_zenith" in found else "navigation.elevation"
    absolute = {"navigation.solar_azimuth", "navigation.heading"} <= set(found)
    relative = "navigation.relative_azimuth" in found
    if height not in found or not (absolute or relative):
        return {}
    if count is None:
        return _angles(content, found[height].found.shape[0])
    used = ["navigation.solar_azimuth", "navigation.heading"] if absolute else ["navigation.relative_azimuth"]
    return {key: choice for key, choice in found.items() if key in (height, *used)}


def _map_navigation(mapping: Mapping, content: FileContent, cameras: Sequence[FileContent]) -> None:
    angles = _angles(content)
    section = mapping.sections["navigation"]
    for choice in angles.values():
        key = choice.field.split(".")[1]
        field_name, more = OTHER_ANGLES.get(key, (key, {}))
        section.update(more)
        mapping.take(Choice(f"navigation.{field_name}", choice.found, choice.score, choice.why))
    _angle_unit(mapping, [choice.found for choice in angles.values()])
    first = next(iter(angles.values())).found
    frames = {rules.channels(c)[0].found.shape[0] for c in cameras if rules.channels(c)}
    mapping.sun_angles = True
    if first.shape[0] not in frames:
        _navigation_clock(mapping, content, first, cameras)


def _with_positions(contents: Sequence[FileContent]) -> FileContent | None:
    """The first file with latitude and longitude of every row, a clock, and no labels."""
    for content in contents:
        both = [choice for rule in rules.POSITION if (choice := rules.best(rule, content.datasets))]
        rows = {choice.found.shape[0] for choice in both}
        moving = all(np.ptp(choice.found.finite) > 0 for choice in both)
        if len(both) == len(rules.POSITION) and len(rows) == 1 and moving and not _labels(content):
            return content
    return None


def _map_places(mapping: Mapping, content: FileContent, cameras: Sequence[FileContent]) -> None:
    """A navigation file without sun angles: the sun is computed from time and place."""
    both = [choice for rule in rules.POSITION if (choice := rules.best(rule, content.datasets))]
    first = both[0].found
    heading = next(rule for rule in rules.ANGLES if rule.field == "navigation.heading")
    found = rules.best(heading, content.datasets, lambda d: d.shape == first.shape)
    for choice in [*both, *([found] if found else [])]:
        mapping.take(choice)
    mapping.sections["navigation"] |= {"solar_zenith": None, **({} if found else {"heading": None})}
    mapping.sun_angles = True
    course = "" if found else ", and the course from the positions"
    mapping.note(
        f"{content.path.name} has positions and no sun angles: the sun is computed from time and place{course}"
    )
    frames = {rules.channels(c)[0].found.shape[0] for c in cameras if rules.channels(c)}
    if first.shape[0] not in frames:
        _navigation_clock(mapping, content, first, cameras)


def _angle_unit(mapping: Mapping, found: Sequence[Found]) -> None:
    """Recognise radians by the values where no attribute gives the unit."""
    if any(not is_none(item.units) for item in found):
        return
    largest = max(float(np.abs(item.finite).max()) for item in found)
    if largest <= 2 * np.pi + 0.01:
        mapping.sections["navigation"]["angle_unit"] = "rad"
        mapping.note(f"angles are radians: none is above {largest:.2f}")


def _navigation_clock(mapping: Mapping, content: FileContent, first: Found, cameras: Sequence[FileContent]) -> None:
    """Find the navigation file's own times, where its rows are not the frames."""
    chosen = clocks.time_choice(content, first.shape[0], first, "navigation.time")
    if chosen is None:
        mapping.sun_angles = False
        mapping.lack(
            "data.navigation.time", f"{content.path} has {first.shape[0]} rows, not one per frame, and no times"
        )
        return
    mapping.take(chosen)
    frame_s = [times_of(mapping, "camera", c.path) for c in cameras]
    date = _date_of([*cameras, content]) or clocks.date_of(frame_s)
    for settings, words in clocks.candidates(chosen.found, content, lidar=False, date=date)[0]:
        row_s = clocks.seconds(content.path, "navigation", {"time": chosen.found.name, **settings})
        if any(clocks.overlap_s(row_s, times_s) >= 0 for times_s in frame_s):
            step_s = float(np.median(np.diff(row_s))) if len(row_s) > 1 else 1.0
            mapping.sections["navigation"].update(settings, tolerance_s=max(1.0, round(step_s, 3)))
            mapping.clocks["navigation"] = words
            return
    mapping.sun_angles = False
    mapping.lack("data.navigation.time_unit", f"'{chosen.found.name}' of {content.path} overlaps with no camera file")


def _map_positions(mapping: Mapping, contents: Sequence[FileContent]) -> None:
    if mapping.sun_angles:
        chosen, note = positions(contents, mapping.datasets("navigation"), rows_of(contents[0], mapping))
        mapping.notes += [note] if note else []
        for choice in chosen:
            mapping.take(choice)


def rows_of(content: FileContent, mapping: Mapping) -> int:
    """The number of rows of a navigation file."""
    section = mapping.sections["navigation"]
    return content.rows(str(section.get("solar_zenith") or section["latitude"]))


def frames_of(content: FileContent, mapping: Mapping) -> int:
    """The number of frames of a camera file."""
    return content.rows(str(mapping.sections["camera"]["channels"][0]))

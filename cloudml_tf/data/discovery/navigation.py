"""Map a file to the section navigation: sun angles and heading, or positions that the sun is computed from."""

from collections.abc import Sequence
from typing import Any

import numpy as np

from cloudml_tf.data.discovery import clocks, rules
from cloudml_tf.data.discovery.datasets import FileContent, Found
from cloudml_tf.data.discovery.mapped import Mapping, date_of, labels_in, rows_of, times_of, with_seen
from cloudml_tf.data.discovery.positions import positions
from cloudml_tf.data.discovery.rules import Choice
from cloudml_tf.data.readers.units import is_none

OTHER_ANGLES: dict[str, tuple[str, dict[str, Any]]] = {  # rules without a field of their own
    "elevation": ("solar_zenith", {"elevation": True}),
    "relative_azimuth": ("solar_azimuth", {"heading": None}),
}


def map_navigation(mapping: Mapping, contents: Sequence[FileContent], cameras: Sequence[FileContent]) -> None:
    """Choose the file with the most certain sun angles, or with positions, and the files like it."""
    scored = {c.path: sum(choice.score for choice in _angles(c).values()) for c in contents}
    angled = sorted((c for c in contents if scored[c.path]), key=lambda c: scored[c.path], reverse=True)
    if angled:
        _map_navigation(mapping, angled[0], cameras)
        _map_positions(mapping, angled)
    elif placed := _with_positions(contents):
        _map_places(mapping, placed, cameras)
    else:
        refused = [text for c in contents for text in rules.refusals(rules.ANGLES, c.datasets)]
        mapping.lack(
            "data.navigation", with_seen("no sun angles by name; without them data.sun_angles is false", refused)
        )


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
        if len(both) == len(rules.POSITION) and len(rows) == 1 and moving and not labels_in(content):
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
    date = date_of([*cameras, content]) or clocks.date_of(frame_s)
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

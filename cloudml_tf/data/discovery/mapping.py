"""Map the contents of files to the sections camera, lidar and navigation, with the reason for each choice."""

import calendar
import math
import time
from collections.abc import Sequence

import numpy as np

from cloudml_tf.config.data import Lidar
from cloudml_tf.data.discovery import clocks, rules
from cloudml_tf.data.discovery.datasets import FileContent, Found
from cloudml_tf.data.discovery.geometry import across_track, shrinking
from cloudml_tf.data.discovery.mapped import MOST_SEEN, Mapping, date_of, labels_in, times_of, with_seen
from cloudml_tf.data.discovery.navigation import map_navigation
from cloudml_tf.data.discovery.parts import joined, joined_by_names
from cloudml_tf.data.discovery.rules import Choice
from cloudml_tf.data.discovery.single_images import one_a_file
from cloudml_tf.data.readers import times
from cloudml_tf.data.readers.units import is_none

MOST_NAMED = 12  # names of datasets that a message lists
CLOUD = Lidar().cloud_types[0]


def map_files(contents: Sequence[FileContent]) -> Mapping:
    """Decide the role of each file; all files of one role must have the datasets of the first."""
    mapping = Mapping()
    mapping.notes += [_skipped(content) for content in contents if content.skipped]
    mapping.notes += [f"{content.path}: {note}" for content in contents for note in content.notes]
    mapping.notes += one_a_file(contents)
    labelled = [c for c in contents if labels_in(c)]
    imaging = [c for c in contents if rules.channels(c)]
    cameras = [c for c in imaging if c not in labelled] or imaging
    lidars = [c for c in labelled if c not in cameras] or labelled
    if cameras:
        _map_camera(mapping, cameras[0], date_of(contents))
    else:
        seen = [f"{c.path.name}: {text}" for c in contents for text in rules.refused_images(c) or [_holds(c)]]
        mapping.lack(
            "data.camera.channels", with_seen("no 3-D dataset (frame, row, column) of images in any file", seen)
        )
    if lidars:
        _map_lidar(mapping, lidars[0], cameras)
    else:
        mapping.lack(
            "data.lidar.optical_depth",
            with_seen(
                "no optical depth, base or top height by name or description in any file",
                [text for c in contents for text in rules.refusals(rules.LABELS, c.datasets)],
            ),
        )
    for role, files in (("camera", cameras), ("lidar", lidars)):
        mapping.files[role] = joined(mapping, role, _alike(mapping, role, files))
    map_navigation(mapping, contents, [*cameras, *(c for c in mapping.files["camera"] if c.parts)])
    needed = mapping.datasets("navigation")
    suited = [c for c in contents if needed <= {found.name for found in c.datasets}] if mapping.sun_angles else []
    timed = bool(mapping.sections["navigation"].get("time"))
    one = joined(mapping, "navigation", suited) if timed else joined_by_names(mapping, suited)
    mapping.files["navigation"] = one
    return mapping


def _holds(content: FileContent) -> str:
    """The largest datasets of a file, in words."""
    largest = sorted(content.datasets, key=lambda found: -math.prod(found.shape))[:3]
    return "holds " + ", ".join(f"'{found.name}' {found.shape}" for found in largest)


def _skipped(content: FileContent) -> str:
    """Which datasets of a file cannot be read, and why."""
    more = f" and {len(content.skipped) - MOST_SEEN} more" if len(content.skipped) > MOST_SEEN else ""
    return f"{content.path}: without {'; '.join(content.skipped[:MOST_SEEN])}{more}"


def _alike(mapping: Mapping, role: str, contents: Sequence[FileContent]) -> list[FileContent]:
    """The files with all datasets that the section names; the others are noted."""
    needed = mapping.datasets(role)
    for content in contents:
        lacking = sorted(needed - {found.name for found in content.datasets})
        if lacking:
            mapping.note(f"{content.path}: left out, it lacks '{lacking[0]}', which the first {role} file has")
    return [c for c in contents if needed <= {found.name for found in c.datasets}]


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


def _map_lidar(mapping: Mapping, content: FileContent, cameras: Sequence[FileContent]) -> None:
    labels = labels_in(content)
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
    date = date_of([*cameras, content]) or clocks.date_of(frame_s)
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

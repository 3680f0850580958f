"""The findings of `cloudml check`: each measurement with its numbers and a remedy.

To add one: a function here, a call in a step of `survey.py`, its place in `commands/check.py`, a line in docs/check.md.
Those of the sun, of scenes and of trials stand in modules of their own beside this one.
"""

import json
import re
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Literal

import numpy as np

from cloudml_tf.config.data import FlightFiles, FlightSplit, LeaveOneOut, TimeBlocks
from cloudml_tf.config.schema import Config
from cloudml_tf.data.readers import hdf5
from cloudml_tf.data.readers.flights import Flight
from cloudml_tf.data.samples import Samples
from cloudml_tf.data.splits import PARTS
from cloudml_tf.diagnostics.alignment import REACH_S, Alignment, FarOffset
from cloudml_tf.diagnostics.frames import FrameScan, frozen_words

Level = Literal["ok", "note", "warning", "problem"]
FEW_BAD, MANY_BAD = 0.01, 0.2  # shares of a flight's frames
LONG_FREEZE_S = 5.0
FEWEST = {"train": 100.0, "val": 30.0, "test": 30.0}  # effectively independent labels
NOTICEABLE_VIGNETTING = 0.04


@dataclass(frozen=True)
class Finding:
    """One line of the verdict."""

    level: Level
    name: str
    evidence: str  # the numbers
    action: str = ""  # what the user can do; an exact --set where there is one


LEAST_PILED_UP = 0.002  # share of pixels


class Advice:
    """Suggests settings, from the configuration and its split."""

    def __init__(self, config: Config, needed: dict[str, list[str]] | None) -> None:
        self.config, self.needed = config, needed

    def parts_of(self, flight: str) -> list[str]:
        """The splits that use a flight."""
        return [part for part, names in (self.needed or {}).items() if flight in names]

    def leave_out(self, flight: str) -> str:
        """Suggest how to train without a flight."""
        split, parts = self.config.split, self.parts_of(flight)
        if isinstance(split, LeaveOneOut) and parts == ["train"]:
            return f"or leave it out: {setting('split.exclude', [*split.exclude, flight])}"
        if isinstance(split, FlightSplit) and len(parts) == 1:
            others = [name for name in getattr(split, parts[0]) if name != flight]
            if others:
                return f"or leave it out: {setting(f'split.{parts[0]}', others)}"
        return "or take the flight out of the split"

    def boresight(self, rows: int, columns: int) -> str:
        """The setting after a further offset."""
        now = self.config.data.camera.boresight_offset
        return setting("data.camera.boresight_offset", [now[0] + rows, now[1] + columns])


def setting(key: str, value: object) -> str:
    """Format `--set key=value`, quoted for a shell where needed."""
    pair = f"{key}={value if isinstance(value, str) else json.dumps(value)}"
    return f"--set '{pair}'" if any(c in pair for c in ' []"') else f"--set {pair}"


# --- files and labels


def refused(flight: str, error: Exception, advice: Advice) -> Finding:
    """A flight that a training would refuse, or leave out; the error gives the reason."""
    if advice.config.data.bad_flights == "skip":
        return Finding("warning", f"flight {flight}", f"is left out: {error}", "fix it as described")
    return Finding("problem", f"flight {flight}", str(error), f"fix it as described, {advice.leave_out(flight)}")


def together(found: Sequence[Finding], files: Mapping[str, FlightFiles]) -> list[Finding]:
    """The same findings, where flights that are refused for the same fault have one."""
    alike: dict[tuple[str, str], dict[str, Finding]] = {}
    for finding in found:
        name = finding.name.removeprefix("flight ")
        key = (finding.level, _without_names(finding.evidence, name, files[name]) if name in files else "")
        if name != finding.name and key[1]:
            alike.setdefault(key, {})[name] = finding
    several = [group for group in alike.values() if len(group) > 1]
    first = {id(next(iter(group.values()))): _of_several(group) for group in several}
    other = {id(finding) for group in several for finding in group.values()}
    return [first.get(id(finding), finding) for finding in found if id(finding) in first or id(finding) not in other]


def _without_names(text: str, name: str, files: FlightFiles) -> str:
    """A fault without what differs from flight to flight: paths, the flight's name, counts by reason, and numbers."""
    paths = {str(path) for path in files.model_dump().values() if path is not None}
    for path in sorted({*paths, *(str(Path(path).parent) for path in paths)}, key=len, reverse=True):
        text = text.replace(path, "")
    return re.sub(r"\d+ (profiles|frames)[^.,]*(, )?|\d+", "", text.replace(f"flight {name}", ""))


def _of_several(group: Mapping[str, Finding]) -> Finding:
    """One finding for flights with the same fault: the words are the first's."""
    one, (_, *others) = next(iter(group.values())), group
    evidence = f"{one.evidence.rstrip('.')}. The same fault: {', '.join(others)}"
    return replace(one, name=f"{len(group)} flights", evidence=evidence, action="fix them as described")


def same_file(first: Flight, second: Flight) -> Finding:
    """One camera file under two names, which a training refuses."""
    evidence = f"{first.name} and {second.name} have the same camera file, {first.camera_path} and {second.camera_path}"
    return Finding("problem", "leak", evidence, f"keep {first.name} or {second.name}, not both")


def metres(medians: Mapping[str, float], lidar: Mapping[str, Path], dataset: str, advice: Advice) -> Finding:
    """Heights in metres, where kilometres are expected: the median of each flight, and its lidar file."""
    flights = ", ".join(f"{name} {median:.4g}" for name, median in medians.items())
    name = next(iter(medians))
    with hdf5.open_file(lidar[name]) as file:
        scale = float(np.ravel(file[dataset].attrs.get("scale_factor", 1.0))[0])
    files = ", ".join(str(lidar[name]) for name in medians)
    action = f"set the attribute scale_factor of '{dataset}' to {scale / 1000:g} in {files}"
    if set(medians) == {name for names in (advice.needed or {}).values() for name in names}:
        action = "--set data.lidar.height_unit=m"
    return Finding(
        "problem",
        "labels in metres",
        f"medians of '{dataset}' that cannot be km: {flights}. All other checks read them as metres",
        action + (f", {advice.leave_out(name)}" if len(medians) == 1 else ""),
    )


def label_range(flights: Sequence[Flight], config: Config) -> list[Finding]:
    """Labels lost to the configured range, or to opaque columns: a selection to keep in mind with every score."""
    reasons = ("profiles labelled", "profiles out of range", "profiles opaque")
    total = {key: sum(flight.counts.get(key, 0) for flight in flights) for key in reasons}
    usable = sum(total.values())
    if not usable:
        return []
    out, opaque = total["profiles out of range"] / usable, total["profiles opaque"] / usable
    evidence = (
        f"{total['profiles labelled']} of {usable} profiles with cloud: {out:.0%} are not between "
        f"{config.target.limits}, {opaque:.0%} are opaque"
    )
    if out > 0.5:
        action = "widen target.minimum and target.maximum, or check the unit"
        return [Finding("warning", "label range", evidence, action)]
    return [Finding("note" if out + opaque > 0.2 else "ok", "label range", evidence)]


def sizes(labels: Mapping[str, np.ndarray], n_eff: Mapping[str, float]) -> list[Finding]:
    """The numbers of labels, and how many independent ones they are worth."""
    text = "; ".join(f"{part} {len(labels[part])} labels, effectively {n_eff[part]:.0f}" for part in n_eff)
    few = [part for part in n_eff if n_eff[part] < FEWEST[part]]
    if not few:
        return [Finding("ok", "effective size", text)]
    limits = ", ".join(f"{part} {FEWEST[part]:.0f}" for part in few)
    action = "add flights; scores will have wide intervals, and a large network will overfit these labels"
    return [Finding("warning", "effective size", f"{text}; advisable: {limits}", action)]


def time_gap(split: object, memory_s: float) -> list[Finding]:
    """Compare the gap between blocks of time with the labels' memory, which it must exceed."""
    if not isinstance(split, TimeBlocks):
        return []
    evidence = f"splits are {split.gap_s:g} s apart, labels are alike over about {memory_s:.0f} s"
    if split.gap_s >= memory_s:
        return [Finding("ok", "gap between splits", evidence)]
    return [Finding("warning", "gap between splits", evidence, setting("split.gap_s", float(np.ceil(2 * memory_s))))]


# --- frames


def artefacts(flight: Flight, scan: FrameScan, advice: Advice) -> Iterator[Finding]:
    """Frozen, black, saturated and NaN frames of one flight."""
    count, first, last = scan.longest_frozen()
    seconds = float(flight.time_s[last] - flight.time_s[first]) if count else 0.0
    if scan.frozen.any():
        stuck = seconds >= LONG_FREEZE_S or scan.frozen.mean() > FEW_BAD
        action = f"cut frames {flight.row[first]} to {flight.row[last]} from {flight.camera_path}, "
        level: Level = "problem" if stuck else "note"
        yield Finding(level, "frozen camera", frozen_words(flight, scan), action + advice.leave_out(flight.name))
    hints = {
        "black": "they are left out of every sequence; check data.camera.channels",
        "saturated": "they are left out; see data.camera.saturation and data.camera.bad_pixel_fraction",
        "not_finite": "they are left out; see data.camera.rows and columns, if always the same pixels are not finite",
    }
    for kind, hint in hints.items():
        share = float(getattr(scan, kind).mean())
        if share > FEW_BAD:
            name = f"{kind.replace('_', ' ')} frames"
            evidence = f"{flight.name}: {getattr(scan, kind).sum()} of {len(scan.frames)} frames ({share:.1%})"
            yield Finding("problem" if share > MANY_BAD else "warning", name, evidence, hint)


def saturation(scan: FrameScan, config: Config) -> Iterator[Finding]:
    """Pixels that pile up at the highest value there is, below what counts as saturated."""
    if scan.frozen.mean() > FEW_BAD:  # one pixel counts as often as its frame is repeated
        return
    for channel, (top, share) in zip(config.data.camera.channels, scan.piled_up, strict=True):
        if share >= LEAST_PILED_UP:
            evidence = (
                f"{scan.name}: {share:.1%} of the pixels of '{channel}' have its highest value, {top:.6g}: they are "
                "saturated, and clouds brighter than that look alike"
            )
            action = f"{setting('data.camera.saturation', float(f'{top:.6g}'))} leaves frames out that are mostly so"
            yield Finding("warning", "saturated pixels", evidence, action)


def vignetting(scans: Sequence[FrameScan], config: Config) -> list[Finding]:
    """Corners darker or brighter than the centre in every channel, by more than the flights' clouds explain."""
    seen = [scan for scan in scans if scan.usable.any()]
    if len(seen) < 2:
        return []
    ratios = np.stack([np.nanmean(s.corners, axis=0) / np.nanmean(s.centre, axis=0) for s in seen])
    if not (ratios > 0).all():
        return []
    mean = ratios.mean(axis=0)  # (C,)
    error = ratios.std(axis=0, ddof=1) / np.sqrt(len(ratios))
    certain = (np.abs(mean - 1.0) > np.maximum(3.0 * error, NOTICEABLE_VIGNETTING)).all()
    text = ", ".join(f"{m:.3f} ± {e:.3f}" for m, e in zip(mean, error, strict=True))
    evidence = f"corners over centre {text} (one number per channel, mean over flights)"
    if not certain or config.preprocessing.flat_field:
        return [Finding("ok", "vignetting", evidence)]
    action = f"try {setting('preprocessing.flat_field', True)}; keep it if the validation R² rises"
    return [Finding("note", "vignetting", evidence, action)]


def copies(first: str, second: str, pairs: np.ndarray, advice: Advice) -> Finding:
    """Frames (n,2) of one flight that show the same scenes in another."""
    i, j = pairs[0]
    alone = advice.parts_of(first) == advice.parts_of(second) and len(advice.parts_of(first)) == 1
    evidence = f"{len(pairs)} frames of {second} show the scenes of {first}: its frame {j} is frame {i} there" + (
        "" if alone else f"; {first} is in {_and(advice.parts_of(first))}, {second} in {_and(advice.parts_of(second))}"
    )
    level: Level = "warning" if alone else "problem"
    return Finding(level, "copied frames" if alone else "leak", evidence, f"keep {first} or {second}, not both")


def _and(names: Sequence[str]) -> str:
    return " and ".join(names) or "no split"


# --- geometry


def offsets(pooled: Alignment, single: Mapping[str, Alignment], advice: Advice) -> list[Finding]:
    """Clock and boresight, for all flights or for the few that differ."""
    clear = {name: found for name, found in single.items() if found.clear}
    if pooled.certain:
        others = [name for name, found in clear.items() if not found.agrees_with(pooled)]
        if 2 * len(others) <= len(clear):
            who = "all flights" + (f" but {', '.join(others)}" if others else "")
            return list(_offset_findings(who, pooled, advice))
    off = {name: found for name, found in clear.items() if found.certain}
    if off:
        found = [_offset_findings(name, one, advice, advice.leave_out(name)) for name, one in off.items()]
        return [finding for several in found for finding in several]
    if not pooled.curve:
        evidence = f"{pooled.labels} labels with frames around them: too few to decide"
        return [Finding("note", "clock and boresight", evidence)]
    evidence = f"r of label and nadir brightness {pooled.correlation:.2f} over {pooled.labels} labels"
    if not pooled.clear:
        return [Finding("note", "clock and boresight", f"{evidence}: too weak to decide about offsets")]
    return [Finding("ok", "clock and boresight", f"{evidence}; no lag or shift is certainly better")]


def parts_apart(splits: Mapping[str, Sequence[str]]) -> Finding:
    """Parts of one flight in several splits: clouds at the end of one are those at the start of the next."""
    evidence = "; ".join(f"{name} is in {_and(parts)}" for name, parts in splits.items())
    action = "keep them in one split, or use split.kind time_blocks with a gap"
    return Finding("warning", "parts of one flight", f"files that continue one another: {evidence}", action)


def as_hint(finding: Finding) -> Finding:
    """An offset of one flight that was found with heights, which brightness follows loosely: a hint."""
    if finding.level != "problem":
        return finding
    action = "brightness follows heights loosely: look with --set target.name=optical_depth"
    return replace(finding, level="note", action=action)


def far_clock(found: FarOffset, advice: Advice) -> Finding:
    """The lidar's clock is another time scale, or another zone."""
    evidence = (
        f"all flights: labels match their frames {found.offset_s:+.1f} s later (r {found.correlation:.2f}, and "
        f"{found.near:.2f} at most within {REACH_S:g} s): {found.kind}"
    )
    offset_s = round(advice.config.data.lidar.time_offset_s + found.offset_s, 1)
    return Finding("problem", "clock", evidence, setting("data.lidar.time_offset_s", offset_s))


def _offset_findings(who: str, found: Alignment, advice: Advice, only: str = "") -> Iterator[Finding]:
    """One finding for what can only be the boresight, one for the offset along track."""
    across = advice.config.data.camera.across_track_axis
    index = 0 if across == "rows" else 1
    aside = found.boresight_offset[index]
    gain = f"r {found.correlation:.2f} as configured, {found.best_correlation:.2f} with the offset"
    if found.cause in ("clock", "either") and abs(found.clock_offset_s) >= REACH_S - 0.5:
        gain += "; this is the end of the search, and the true offset may lie beyond"
    own = f"the clock and the mounting of one flight have no setting: fix its files, {only}" if only else ""
    if aside:
        evidence = f"{who}: the lidar's footprint is {aside:+d} {across} from the nadir pixel ({gain})"
        both = (aside, 0) if index == 0 else (0, aside)
        yield Finding("problem", "boresight", evidence, own or advice.boresight(*both))
    shift = found.along_track_pixels if found.cause == "either" else found.boresight_offset[1 - index]
    along = (aside, shift) if index == 0 else (shift, aside)
    other = "columns" if across == "rows" else "rows"
    clock = setting("data.lidar.time_offset_s", round(advice.config.data.lidar.time_offset_s + found.clock_offset_s, 1))
    if found.cause == "clock":
        evidence = f"{who}: labels match their frames {found.clock_offset_s:+.1f} s later ({gain})"
        yield Finding("problem", "clock", evidence, own or clock)
    elif found.cause == "boresight":
        evidence = f"{who}: the lidar's footprint is {shift:+d} {other} from the nadir pixel, along track ({gain})"
        yield Finding("problem", "boresight", evidence, own or advice.boresight(*along))
    elif found.cause == "either":
        evidence = (
            f"{who}: either the lidar's clock needs {found.clock_offset_s:+.1f} s, or its footprint is "
            f"{shift:+d} {other} from the nadir pixel; along track the two look alike ({gain})"
        )
        yield Finding("problem", "clock or boresight", evidence, own or f"{clock}, or {advice.boresight(*along)}")


def shift(flight: str, what: str, found: Mapping[str, float]) -> list[Finding]:
    """A flight whose labels or brightness are distributed differently than in training: natural, but worth knowing."""
    if found["p"] > 1e-3 or abs(found["stds"]) < 0.3:
        return []
    test = f"(Kolmogorov-Smirnov {found['ks']:.2f}, p {found['p']:.0e})"
    evidence = f"{flight}: {what} {found['stds']:+.2f} std from the training mean {test}"
    return [Finding("note", "flight-to-flight shift", evidence)]


def no_frame_is_shared(parts: Mapping[str, Samples]) -> Finding:
    """The result of the split and the search for copies."""
    counts = ", ".join(f"{part} {len(np.unique(parts[part].index))}" for part in PARTS)
    evidence = f"no frame is in two splits ({counts} frames), no scene is copied from flight to flight"
    return Finding("ok", "leak", evidence)

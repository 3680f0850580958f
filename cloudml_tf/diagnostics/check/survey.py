"""The steps of `cloudml check` before any model: files, frames, offsets, gains, copies and splits.

Where a training would stop with an error, a step records it and the next one continues with what is left.
"""

import itertools
from collections.abc import Callable
from dataclasses import asdict, dataclass, field
from typing import Any

import numpy as np

from cloudml_tf.config.data import FlightFiles
from cloudml_tf.config.schema import Config
from cloudml_tf.data import drift
from cloudml_tf.data.independence import effective_size
from cloudml_tf.data.left_out import LeftOut, flights_left
from cloudml_tf.data.prepare import check_overweight
from cloudml_tf.data.readers.flights import Flight, load_flight
from cloudml_tf.data.readers.frames import camera_fingerprint
from cloudml_tf.data.readers.sandbox import read_flight
from cloudml_tf.data.readers.times import continued
from cloudml_tf.data.samples import Examples, Samples, build_samples, check_same_frames, check_sequences, sequences
from cloudml_tf.data.sources import available_flights
from cloudml_tf.data.splits import PARTS, check_labels, check_leak, cut_samples, keep_labels
from cloudml_tf.diagnostics import alignment, labels
from cloudml_tf.diagnostics import gain as shift
from cloudml_tf.diagnostics.check import findings as say
from cloudml_tf.diagnostics.check.findings import Advice, Finding
from cloudml_tf.diagnostics.check.gains import gain as gain_of_one
from cloudml_tf.diagnostics.check.gains import gains_apart
from cloudml_tf.diagnostics.frames import FrameScan, copied_frames, scan_frames
from cloudml_tf.utils.console import Console
from cloudml_tf.utils.errors import DataError, FlightError


@dataclass
class Checked:
    """The findings, and the numbers behind them."""

    config: Config
    findings: list[Finding] = field(default_factory=list)
    files: dict[str, FlightFiles] = field(default_factory=dict)
    flights: list[Flight] = field(default_factory=list)
    scans: dict[str, FrameScan] = field(default_factory=dict)
    parts: dict[str, Examples] = field(default_factory=dict)
    numbers: dict[str, Any] = field(default_factory=dict)

    @property
    def problems(self) -> list[str]:
        """Names of the problems, each once."""
        return list(dict.fromkeys(f.name for f in self.findings if f.level == "problem"))

    @property
    def verdict(self) -> str:
        """The verdict in one line."""
        if self.problems:
            return "fix first: " + ", ".join(self.problems)
        warnings = list(dict.fromkeys(f.name for f in self.findings if f.level == "warning"))
        return "ready to train" + (f"; warnings: {', '.join(warnings)}" if warnings else "")

    def content(self) -> dict[str, Any]:
        """Convert to JSON content."""
        return {
            "experiment": self.config.experiment_name,
            "verdict": self.verdict,
            "ready": not self.problems,
            "findings": [asdict(finding) for finding in self.findings],
            **self.numbers,
        }


# --- reading, without stopping where a training would


def read(found: Checked, console: Console) -> Advice:
    """Load the split's flights one by one; unusable ones become findings."""
    config = found.config
    in_metres: dict[str, float] = {}
    left_out: LeftOut = {}
    with console.progress("reading flights") as progress:
        try:
            found.files = available_flights(config, progress, left_out)
            needed = flights_left(config, list(found.files), left_out)
            check_overweight(config, [*found.files, *left_out])
        except DataError as error:
            found.findings.append(Finding("problem", "split" if found.files else "files", str(error)))
            return Advice(config, None)
        advice = Advice(config, needed)
        found.findings += [say.refused(name, DataError(why), advice) for name, why in left_out.items()]
        names = sorted({name for part in PARTS for name in needed[part]})
        for number, name in enumerate(names, start=1):
            try:
                flight, median_m = _load(found.files[name], name, config)
                _add(flight, found)
                in_metres |= {} if median_m is None else {name: median_m}
            except (DataError, OSError) as error:
                found.findings.append(say.refused(name, error, advice))
            progress(number, len(names))
    if in_metres:
        lidar = {name: found.files[name].lidar_path() for name in in_metres}
        found.findings.append(say.metres(in_metres, lidar, labels.height_dataset(config), advice))
    return advice


def _load(files: FlightFiles, name: str, config: Config) -> tuple[Flight, float | None]:
    """Load a flight, and the median of heights in metres, which are converted to km so that other checks apply."""
    flight = read_flight(name, files, config.data, config.target)
    unit, median = labels.height_unit(files.lidar_path(), config.data, config.target)
    if unit == "km":
        return flight, None
    return load_flight(name, files, labels.metres(config.data), config.target), median


def _add(flight: Flight, found: Checked) -> None:
    """Keep a flight, unless an earlier one is the same file. Raises `DataError` for another frame shape."""
    prints = [camera_fingerprint(other.camera_path) for other in found.flights]
    own = camera_fingerprint(flight.camera_path)
    if own in prints:
        found.findings.append(say.same_file(found.flights[prints.index(own)], flight))
        return
    check_same_frames([*found.flights, flight])
    found.flights.append(flight)


# --- frames and geometry


def judge_frames(found: Checked, advice: Advice, console: Console) -> None:
    """Check for artefacts and vignetting. A flight whose frames cannot be read is left out from here on."""

    def scan(flight: Flight) -> None:
        found.scans[flight.name] = scan_frames(flight, found.config)
        found.findings += say.artefacts(flight, found.scans[flight.name], advice)
        found.findings += say.saturation(found.scans[flight.name], found.config)

    _each_flight(scan, "checking frames", found, advice, console)
    found.findings += say.vignetting(list(found.scans.values()), found.config)


def _each_flight(look: Callable[[Flight], None], what: str, found: Checked, advice: Advice, console: Console) -> None:
    """Look at the flights one by one. Those that cannot be read become findings, and are left out from here on."""
    kept = []
    with console.progress(what) as progress:
        for number, flight in enumerate(found.flights, start=1):
            try:
                look(flight)
                kept.append(flight)
            except DataError as error:
                found.findings.append(say.refused(flight.name, error, advice))
            progress(number, len(found.flights))
    found.flights = kept


def judge_parts_of_flights(found: Checked, advice: Advice) -> None:
    """Check that files which continue one another, as parts of one flight, are in one split."""
    for chain in continued({flight.name: flight.time_s for flight in found.flights}):
        splits = {name: advice.parts_of(name) for name in chain}
        if len(chain) > 1 and len({tuple(parts) for parts in splits.values()}) > 1:
            found.findings.append(say.parts_apart(splits))


def judge_offsets(found: Checked, advice: Advice, console: Console) -> None:
    """Check clock and boresight, of all flights together and of each."""
    search = alignment.Search.of(found.flights, found.config)
    evidence = {}

    def gather(flight: Flight) -> None:
        evidence[flight.name] = alignment.gather(flight, found.config, search)

    _each_flight(gather, "clock and boresight", found, advice, console)
    if not found.flights:
        return
    pooled = alignment.align(list(evidence.values()), search)
    single = {name: alignment.align([sums], search) for name, sums in evidence.items()}
    far = alignment.far_offset(found.flights, {name: (scan.frames, scan.nadir) for name, scan in found.scans.items()})
    offsets = say.offsets(pooled, single, advice) if far is None else [say.far_clock(far, advice)]
    if far is None and found.config.target.quantity.is_height and not pooled.certain:
        offsets = [say.as_hint(finding) for finding in offsets]
    found.findings += offsets
    found.numbers["alignment"] = {"all": asdict(pooled), **{name: asdict(one) for name, one in single.items()}}
    _judge_gain(found, {name for name in single if not (pooled.certain or single[name].certain)}, advice)


def _judge_gain(found: Checked, aligned: set[str], advice: Advice) -> None:
    """Find flights whose camera has another gain than that of the others."""
    by_name = {flight.name: flight for flight in found.flights}
    gains = shift.gains(found.flights, found.scans, aligned)
    outliers = [gain for gain in gains if gain.outlier]
    parts = {name: advice.parts_of(name) for name in by_name}
    found.findings += [gain_of_one(gain, by_name[gain.flight], advice) for gain in outliers]
    found.findings += [] if outliers else gains_apart(gains, parts)
    found.numbers["gain"] = [asdict(gain) for gain in gains]


def judge_copies(found: Checked, advice: Advice) -> None:
    """Find scenes that are in two flights."""
    for first, second in itertools.combinations(found.scans.values(), 2):
        copied = copied_frames(first, second)
        if len(copied):
            found.findings.append(say.copies(first.name, second.name, copied, advice))


# --- splits


def cut(found: Checked, advice: Advice, console: Console) -> dict[str, Samples]:
    """Cut the flights' sequences into splits, and report what is wrong with a split."""
    config, kept = found.config, []
    for flight in found.flights:
        try:
            check_sequences(flight, _whole_sequences(flight, found), config)
            kept.append(flight)
        except DataError as error:
            found.findings.append(say.refused(flight.name, error, advice))
    samples = None
    while kept and samples is None:
        try:
            with console.progress("decoding frames") as progress:
                samples, _ = build_samples(kept, config, progress)
        except FlightError as error:  # it has become unreadable since it was checked
            found.findings.append(say.refused(error.flight, error, advice))
            kept = [flight for flight in kept if flight.name != error.flight]
            found.flights = [flight for flight in found.flights if flight.name != error.flight]
    if samples is None:
        return {}
    parts = cut_samples(samples, config.split, advice.needed)
    try:
        parts = keep_labels(parts, config.data, config.seed)
    except DataError as error:
        found.findings.append(Finding("problem", "few labels", str(error)))
    found.parts = dict(parts)
    _judge_cut(found, parts, {flight.name for flight in kept}, advice)
    return parts


def _judge_cut(found: Checked, parts: dict[str, Samples], kept: set[str], advice: Advice) -> None:
    """Report what the split itself would refuse."""
    for part, chosen in parts.items():
        try:
            check_labels(chosen, f"the {part} split")
        except DataError as error:
            skipping = found.config.data.bad_flights == "skip"
            if skipping or kept >= set((advice.needed or {})[part]):  # else the lost flight has its own finding
                found.findings.append(Finding("problem", f"{part} split", str(error)))
    try:
        check_leak(parts)
        if "leak" not in found.problems:
            found.findings.append(say.no_frame_is_shared(parts))
    except DataError as error:
        found.findings.append(Finding("problem", "leak", str(error)))


def _whole_sequences(flight: Flight, found: Checked) -> np.ndarray:
    """The sequences (n,T) in which every frame is an image."""
    windows = sequences(flight, found.config)
    scan = found.scans[flight.name]
    bad = np.zeros(len(flight), bool)
    bad[scan.frames] = scan.black | scan.not_finite | scan.saturated
    return windows[~bad[windows].any(axis=1)]


def loss_space(config: Config, label: np.ndarray) -> np.ndarray:
    """Labels in the space of the loss, before scaling."""
    return np.log(label + config.target.log_offset) if config.target.transform == "log" else label


def describe_flights(found: Checked, advice: Advice) -> None:
    """Make a row per flight, with what distinguishes a validation or test flight from training."""
    rows: dict[str, dict[str, Any]] = {}
    seen: dict[str, tuple[np.ndarray, np.ndarray]] = {}  # labels in the loss's space, and nadir brightness
    for flight in found.flights:
        scan = found.scans[flight.name]
        label, brightness = shift.brightness_at_labels(flight, scan)
        seen[flight.name] = (loss_space(found.config, label), brightness[:, 0])
        rows[flight.name] = _row(flight, scan, *seen[flight.name], advice.parts_of(flight.name))
    found.numbers["flights"] = rows
    some = {name for name, row in rows.items() if row["labels"] > 2}
    training = [name for name in some if rows[name]["parts"] == ["train"]]
    for name in sorted(some - set(training)):
        if not training or len(rows[name]["parts"]) != 1:
            continue
        size = sum(rows[n]["n_eff"] for n in training)
        for i, what in enumerate(("labels", "nadir brightness")):
            reference, own = np.concatenate([seen[n][i] for n in training]), seen[name][i]
            rows[name][f"shift of {what}"] = drift.compared(own, reference, rows[name]["n_eff"], size)
            found.findings += say.shift(name, what, rows[name][f"shift of {what}"])


def part_name(parts: list[str]) -> str:
    """The split that a flight is in, or "all" where it is cut in time."""
    return parts[0] if len(parts) == 1 else "all"


def _row(
    flight: Flight, scan: FrameScan, label: np.ndarray, brightness: np.ndarray, parts: list[str]
) -> dict[str, Any]:
    some = len(label) > 2
    centred = label - label.mean() if some else label
    power = float(np.mean(centred**2)) if some else 0.0
    return {
        "parts": parts,
        "frames": len(flight),
        "labels": len(label),
        "n_eff": effective_size(label, np.zeros(len(label))) if some else 0.0,
        "mean": float(label.mean()) if some else None,
        "std": float(label.std()) if some else None,
        "quantiles_5_50_95": np.quantile(label, [0.05, 0.5, 0.95]).tolist() if some else None,
        "autocorrelation": float(np.mean(centred[1:] * centred[:-1])) / power if power else None,
        "brightness": float(brightness.mean()) if some else None,
        "bad_frames": int((scan.black | scan.saturated | scan.not_finite).sum()),
        "frozen_frames": int(scan.frozen.sum()),
    }


def judge_parts(found: Checked) -> bool:
    """Check effective sizes; return whether all splits can be trained and evaluated."""
    labels = {part: examples.label[examples.known] for part, examples in found.parts.items()}
    usable = {part: label for part, label in labels.items() if len(label) > 2 and np.ptp(label) > 0}
    n_eff = {p: found.parts[p].effective_size(loss_space(found.config, label)) for p, label in usable.items()}
    found.numbers["parts"] = {part: {"labels": len(usable[part]), "n_eff": n} for part, n in n_eff.items()}
    if usable:
        found.findings += say.sizes(usable, n_eff)
        found.findings += say.label_range(found.flights, found.config)
    if len(usable) == len(PARTS):
        train = found.parts["train"]
        if "leak" not in found.problems and train.time_s is not None and train.label.ndim == 1:
            steps = np.diff(train.time_s[train.group == train.group[0]])
            memory_s = float(np.median(steps)) * len(train) / n_eff["train"]
            found.findings += say.time_gap(found.config.split, memory_s)
        return True
    left = ", ".join(part for part in PARTS if part not in usable)
    found.findings.append(Finding("note", "trials", f"no baseline and no network was tried: {left} cannot be used yet"))
    return False

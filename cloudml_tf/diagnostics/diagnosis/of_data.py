"""Failures of the data: its clocks, its split, its labels, its flights. Each rule returns a finding or None."""

import math
from typing import Any

from cloudml_tf.config.coverage import can_set
from cloudml_tf.config.data import TimeBlocks
from cloudml_tf.diagnostics.diagnosis.evidence import ClockFault, Evidence, Part, pooled
from cloudml_tf.diagnostics.diagnosis.failure import Failure, overrides, split_without

FEW_LABELS = 50  # effective
TOO_FEW = 30  # a tier reached on fewer is chance
UNDECIDED = 200  # with fewer, an undecided correlation is blamed on the number of labels
BIASED = 0.12  # b²: a bias of 0.35 standard deviations
CLEAR_OFFSET_S = 2.0  # of a single flight's clock
FAR = 0.15  # R² of validation minus that of a held-out flight


def bad_clock(e: Evidence) -> Failure | None:
    """Labels match their frames at another time."""
    faults = [fault for fault in e.probes.clock if abs(fault.offset_s) >= CLEAR_OFFSET_S or _explains(fault, e)]
    if not faults:
        return None
    fault = faults[0]
    flights = "every flight" if fault.every_flight else "flight " + ", ".join(f.flights[0] for f in faults)
    evidence = [
        f"labels of {flights} and the brightness at nadir correlate with {abs(fault.r):.2f} as configured, and with "
        f"{fault.best_r:.2f} when the lidar's clock is moved by {fault.offset_s:+g} s"
    ]
    remedy = "Correct the lidar's clock, and compare a few images with their labels afterwards."
    if fault.or_pixels:
        evidence.append(f"a boresight offset of {fault.or_pixels} pixels along track would explain as much")
    if fault.every_flight:
        offset = round(e.config.data.lidar.time_offset_s + fault.offset_s, 2)
        return Failure("bad clock", tuple(evidence), remedy, overrides(e, data__lidar__time_offset_s=offset))
    wrong = {name for found in faults for name in found.flights}
    remedy += f" data.lidar.time_offset_s applies to all flights: fix the file of {flights}, or leave it out."
    return Failure("bad clock", tuple(evidence), remedy, split_without(e, wrong))


def _explains(fault: ClockFault, e: Evidence) -> bool:
    """Whether a clock fault can explain the failure. Sun and shadows move the brightness by a frame, so a small offset
    counts only if all flights have it, or a flight on which r was lost."""
    lost = {name for part in e.lost for name in e.description["split"][part]["flights"]}
    return fault.every_flight or bool(lost & set(fault.flights))


def leak(e: Evidence) -> Failure | None:
    """Validation knows more than a held-out flight reveals."""
    evidence = [*_copied(e), *_far_over(e), *_blocks_touch(e)]
    if not evidence:
        return None
    remedy = "Split by flight and trust only flights that no training step has seen; check for copies of files."
    copied = {name for part in _copied_parts(e) for name in e.description["split"][part]["flights"]}
    apart = split_without(e, copied)
    if apart:
        return Failure("leak", tuple(evidence), remedy, apart)
    longer = overrides(e, split__gap_s=120.0) if isinstance(e.config.split, TimeBlocks) else ()
    return Failure("leak", tuple(evidence), f"{remedy} Three flights are the least for that.", longer)


def _copied_parts(e: Evidence) -> list[str]:
    return [part for part, share in e.probes.shared_labels.items() if share > 0.5]


def _copied(e: Evidence) -> list[str]:
    shares = e.probes.shared_labels
    found = [f"{100 * shares[part]:.0f} % of the {part} labels are training labels too" for part in _copied_parts(e)]
    boosted, straight = (e.baselines.get(name, {}) for name in ("gradient_boosting", "ridge"))
    if {"val", "test"} <= boosted.keys() & straight.keys():
        by_trees, by_line = (found["val"].r2 - found["test"].r2 for found in (boosted, straight))
        doubt = 2 * math.hypot(boosted["val"].r2_error, boosted["test"].r2_error)
        if by_trees > FAR + doubt and by_line < 0.5 * by_trees and boosted["val"].r2 > 0.9:
            found.append(
                f"gradient boosting, which can memorise scenes, has R² {boosted['val'].r2:.2f} on validation and "
                f"{boosted['test'].r2:.2f} on test; ridge, which cannot, {straight['val'].r2:.2f} and "
                f"{straight['test'].r2:.2f}"
            )
    return found


def _far_over(e: Evidence) -> list[str]:
    """Compare validation on the training's flights with the evaluation of another flight."""
    val, other = e.parts.get("val"), e.parts.get("held_out")
    if val is None or other is None or not e.shares_flights:
        return []
    if val.r2 - other.r2 <= FAR + 2 * math.hypot(val.r2_error, other.r2_error):
        return []
    return [f"R² is {val.r2:.2f} on validation, of the training flights, and {other.r2:.2f} on the held-out flight"]


def _blocks_touch(e: Evidence) -> list[str]:
    """Splits of one flight that are closer than labels stay alike, and baselines that profit from it."""
    split, apart, train = e.config.split, e.probes.blocks_apart, e.train
    if not isinstance(split, TimeBlocks) or apart is None or train is None:
        return []
    alike_s = e.probes.label_memory_s
    name, (own, without) = max(apart.items(), key=lambda item: item[1][0])
    if split.gap_s >= alike_s or own - without < FAR:
        return []
    return [
        f"the splits of a flight are {split.gap_s:g} s apart, while labels stay alike for about {alike_s:.0f} s",
        f"{name} has a validation R² of {own:.2f}, and {without:.2f} when a label's own flight is withheld",
    ]


def no_correlation(e: Evidence) -> Failure | None:
    """No predictor reads the label from the images."""
    if e.good or e.signal or not e.silence or (e.train is not None and e.train.n_eff < TOO_FEW):
        return None
    evidence = [f"{name}: r {r:.2f} ± {2 * error:.2f}" for name, (r, error) in e.references().items()]
    remedy = (
        "No loss can help: at r = 0 every spread is noise, and λ only adds to it (R² = -s² - b²). Compare the images "
        "with their labels, and check data.camera.channels, nadir and the target."
    )
    return Failure("no correlation", tuple(evidence), remedy, overrides(e, loss__weight=0.0))


def bias(e: Evidence) -> Failure | None:
    """A flight whose predictions are shifted as a whole, while they follow its labels."""
    if e.train is None or e.reads_heights:
        return None
    shifted = [(name, part) for name, part in e.parts.items() if name != "train" and _is_shifted(e, name, part)]
    if not shifted or (e.train.n_eff < FEW_LABELS and pooled(e.held_out)[0] < 0.6):
        return None
    evidence = [
        f"{name}: the bias of {p.b:+.2f} std costs {p.b**2:.2f} of R², of r² = {p.r**2:.2f}" for name, p in shifted
    ]
    evidence.append(f"training split: bias {e.train.b:+.2f} std")
    evidence += [
        f"{name} on {part}: bias {by_part[part].b:+.2f} std"
        for part, _ in shifted
        for name, by_part in e.baselines.items()
        if part in by_part and by_part[part].b * e.parts[part].b > 0
    ]
    remedy = (
        "Inspect images and labels of that flight: gain, exposure, sun and surface; unit and scale. `cloudml "
        "calibrate` fits level and scale to a few labels of the flight. Train on more different flights, and vary the "
        "gain in training."
    )
    wanted: dict[str, Any] = {"augmentation__gain_std": max(e.config.augmentation.gain_std, 0.2)}
    if e.config.preprocessing.per_frame:
        wanted["preprocessing__per_frame"] = False
    return Failure("bias", tuple(evidence), remedy, overrides(e, **wanted))


def _is_shifted(e: Evidence, name: str, part: Part) -> bool:
    """Whether b² is the largest term of the identity, and more than training and chance explain."""
    limit = 2 * BIASED if name == "val" and e.tier != "none" else BIASED
    dear = part.b**2 > max(limit, 0.15 * part.r**2, part.gap**2)
    own = abs(part.b - e.parts["train"].b) > 0.15 + 2 * part.b_error
    return dear and own and part.r - 2 * part.r_error > 0.3


def no_labels(e: Evidence) -> Failure | None:
    """So few labels that even a good score is chance."""
    return _few(e, e.train) if e.train is not None and e.train.n_eff < TOO_FEW and e.held_out else None


def too_few_labels(e: Evidence) -> Failure | None:
    """The training split is too small to separate signal from chance, or for this network."""
    if e.good or e.train is None or not e.held_out:
        return None
    undecided = e.train.n_eff < UNDECIDED and not e.signal and not e.silence
    return _few(e, e.train) if e.train.n_eff < FEW_LABELS or undecided or e.overfits else None


def _few(e: Evidence, train: Part) -> Failure:
    r, error = pooled(e.held_out)
    evidence = [
        f"{train.n} training labels, effectively {train.n_eff:.0f}",
        f"r is {train.r:.2f} on the training split and {r:.2f} ± {2 * error:.2f} on the held-out splits",
    ]
    name, best, _ = e.best_baseline
    evidence += [f"{name} reaches r {best:.2f} with the same labels"] if name != "none" else []
    remedy = (
        "More flights, or more labels of each (data.lidar.match 'average' labels every frame under a profile); until "
        f"then a simpler model{' with fewer frames' if can_set(e.config, 'temporal_frames') else ''}."
        if "nadir" in e.description
        else "More scenes, of other clouds; until then a smaller network."
    )
    simpler = {"model__architecture": "single_frame", "temporal_frames": 1}
    return Failure("too few labels", tuple(evidence), remedy, overrides(e, data__lidar__match="average", **simpler))

"""The checks of `cloudml check` on the labels of each flight beside those of the others."""

from collections.abc import Mapping
from dataclasses import asdict

import numpy as np

from cloudml_tf.diagnostics.between_flights import REPEATED, Seen, Series, look
from cloudml_tf.diagnostics.check.findings import Advice, Finding
from cloudml_tf.diagnostics.check.survey import Checked
from cloudml_tf.diagnostics.gain import brightness_at_labels

USUAL_R, BESIDE_THE_OTHERS = 0.5, 0.5  # r of labels and brightness of the others, and a flight's over that


def judge_flights(found: Checked, advice: Advice) -> None:
    """Look for labels of other frames, labels that training has not shown, and labels that are all equal."""
    series = {}
    for flight in found.flights:
        scan = found.scans[flight.name]
        label, light = brightness_at_labels(flight, scan)
        time_s = flight.time_s[scan.frames][np.isfinite(flight.label[scan.frames]) & scan.usable]
        if len(label):
            series[flight.name] = Series(time_s, label, light)
    training = [name for name in series if "train" in advice.parts_of(name)]
    seen = look(series, training)
    found.numbers["between_flights"] = {name: asdict(one) for name, one in seen.items()}
    found.findings += [*_foreign(seen, found, advice), *_equal(seen, series, advice), *_unseen(seen, advice)]


def _foreign(seen: Mapping[str, Seen], found: Checked, advice: Advice) -> list[Finding]:
    """Labels that fit the frames of another flight, or not their own."""
    exchanged = [
        f"labels of {name} fit the frames of {one.fits} (r {one.fits_r:.2f} of labels and brightness) and not their "
        f"own (r {one.own_r:.2f})"
        for name, one in seen.items()
        if one.fits
    ]
    if exchanged:
        action = "compare names, dates and times of the files, and give each flight its own lidar file"
        return [Finding("problem", "foreign labels", "; ".join(exchanged), action)]
    if {"clock", "boresight", "clock or boresight"} & set(found.problems):  # these explain it
        return []
    usual_std = float(np.median([one.std for one in seen.values()])) if seen else 0.0
    findings = []
    for name, one in seen.items():
        others = [other.own_r for key, other in seen.items() if key != name]
        usual = float(np.median(others)) if len(others) > 1 else 0.0
        doubt = 2.0 * (1.0 - one.own_r**2) / np.sqrt(max(one.worth, 1.0))
        if usual > USUAL_R and one.own_r + doubt < BESIDE_THE_OTHERS * usual and one.std > 0.5 * usual_std:
            evidence = f"{name}: r of labels and brightness is {one.own_r:.2f}, that of the other flights {usual:.2f}"
            action = f"look at its lidar file, clock, pointing and scenes, {advice.leave_out(name)}"
            findings.append(Finding("warning", "foreign labels", evidence, action))
    return findings


def _equal(seen: Mapping[str, Seen], series: Mapping[str, Series], advice: Advice) -> list[Finding]:
    """Flights whose labels are one value."""
    findings = []
    for name, one in seen.items():
        if one.repeated > REPEATED:
            values, count = np.unique(series[name].label, return_counts=True)
            evidence = f"{name}: {one.repeated:.0%} of {one.labels} labels are {values[count.argmax()]:.4g}"
            action = f"they teach a constant: look at its lidar file, {advice.leave_out(name)}"
            findings.append(Finding("warning", "equal labels", evidence, action))
    return findings


def _unseen(seen: Mapping[str, Seen], advice: Advice) -> list[Finding]:
    """Validation and test flights whose labels lie where training has none, such as clear sky."""
    findings = []
    for name, one in seen.items():
        parts = advice.parts_of(name)
        if "train" not in parts and one.never_shown:
            side = "under" if one.below >= one.above else "over"
            evidence = f"{name} ({' and '.join(parts)}): {max(one.below, one.above):.0%} of the labels are {side} all "
            evidence += "those of the training"
            action = (
                "a network gives such scenes values that it knows: put flights with such labels into the training, or "
                "look at the labels' unit and scale"
            )
            findings.append(Finding("warning", "unseen labels", evidence, action))
    return findings

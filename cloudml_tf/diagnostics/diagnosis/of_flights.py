"""Failures of single flights: frozen frames, foreign labels, labels never shown, another level and scale.

Each rule returns a finding or None.
"""

import math
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np

from cloudml_tf.diagnostics.diagnosis.evidence import HELD_OUT, SHIFTED, Evidence, Part, plain
from cloudml_tf.diagnostics.diagnosis.failure import Failure, overrides, split_without

MANY_FROZEN = 0.05  # of a flight's frames
BESIDE_THE_OTHERS = 0.5  # a flight's r over the median of the others, under which its labels are not of its frames
LOST_R = 0.3  # by which it has to be lower, beyond doubt
LEVEL_IN_TRAINING = 0.1  # of R², that level and scale may cost on the training split
READ, LOST_TO_TRAINING = 0.3, 0.25  # r of a shifted flight at least, and how far it may be under that of the training
BEYOND_DOUBT = 0.1  # of R², of level and scale less two standard errors each
FEWEST = 8  # effective labels of a flight that is judged alone
CONSTANT = 0.01  # std of labels over that of another flight's, under which they do not vary
RANKED = 6  # flights that are listed
OTHER_LIGHT = math.log(1.1)  # of the brightness at equal labels, from which on a gain is tried
OTHER_LABELS = math.log(1.4)  # of the mean of a flight's labels over that of the training's
SAME_LIGHT = math.log(1.25)  # of the median brightness, by which other clouds move it
LEAST_GAIN_STD, MOST_GAIN_STD, USUAL_GAIN_STD = 0.05, 0.3, 0.2


def frozen_camera(e: Evidence) -> Failure | None:
    """Frames that repeat the one before: they show another moment than their labels."""
    many = {name: found for name, found in e.probes.frozen.items() if found[0] >= MANY_FROZEN}
    if not many or e.healthy:
        return None
    name, (_, words) = max(many.items(), key=lambda item: item[1][0])
    evidence = [words, *(other for flight, (_, other) in many.items() if flight != name)]
    evidence += [f"{part.name}: {part.score}" for part in flights_of(e) if part.name in many]
    remedy = (
        "Cut the frames that repeat the one before from the file, or leave the flight out; no setting of the training "
        "mends it. `cloudml check` says which frames."
    )
    return Failure("frozen camera", tuple(evidence), remedy, split_without(e, set(many)))


def foreign_labels(e: Evidence) -> Failure | None:
    """Labels that are not those of their frames, as of lidar files that were exchanged between flights."""
    seen = e.probes.flights
    exchanged = {name: one for name, one in seen.items() if one.fits}
    apart = _far_below(e)
    if not exchanged and not apart:
        return None
    evidence = [
        f"labels of {name} fit the frames of {one.fits} (r {one.fits_r:.2f} of labels and brightness) and not their "
        f"own (r {one.own_r:.2f})"
        for name, one in exchanged.items()
    ]
    if apart:
        training = [one for one in flights_of(e) if one.split == "train"]
        others = [one.score.r for one in training if one.name not in apart]
        low = ", ".join(f"{one.name} {one.score.r:.2f}" for one in training if one.name in apart)
        evidence.append(f"r of training flights: {low}; the others {min(others):.2f} to {max(others):.2f}")
    remedy = (
        "Compare the names, dates and times of camera and lidar files: give each flight its own lidar file, and train "
        "again. No loss and no λ mends labels of other clouds."
        if exchanged
        else "Compare images and labels of these flights: their lidar file may be another flight's, or their clock and "
        "pointing their own. Train without them until then."
    )
    return Failure("foreign labels", tuple(evidence), remedy, split_without(e, {*exchanged, *apart}))


def _far_below(e: Evidence) -> set[str]:
    """Training flights on which the network has far less r than on the others, though their labels vary as much.

    Of a height a flight may have little to read, by wind or attitude, which have rules of their own.
    """
    if e.config.target.quantity.is_height:
        return set()
    flights = [one for one in flights_of(e) if one.split == "train" and one.std > 0]
    if len(flights) < 3:
        return set()
    usual = float(np.median([one.std for one in flights]))
    found = set()
    for one in flights:
        others = float(np.median([other.score.r for other in flights if other is not one]))
        upper = one.score.r + 2 * one.score.r_error
        if upper < BESIDE_THE_OTHERS * others and upper < others - LOST_R and one.std > 0.5 * usual:
            found.add(one.name)
    return found if 2 * len(found) < len(flights) else set()


def unseen_labels(e: Evidence) -> Failure | None:
    """A held-out flight whose labels lie where training had none, such as clear sky."""
    if e.reads_heights:
        return None
    seen, training = e.probes.flights, e.description["split"]["train"]
    found = [
        one
        for one in flights_of(e)
        if one.split != "train" and one.name in seen and seen[one.name].never_shown and _is_poor(e, one.score)
    ]
    if not found:
        return None
    evidence = []
    for one in found:
        below, above = seen[one.name].below, seen[one.name].above
        side = "under" if below >= above else "over"
        evidence.append(f"{max(below, above):.0%} of the labels of {one.name} are {side} all those of the training")
        evidence.append(f"{one.name}: {one.score}")
    evidence.append(f"training labels: {training['label_mean']:.3g} ± {training['label_std']:.3g}")
    dark = all(seen[one.name].below >= seen[one.name].above for one in found)
    remedy = (
        "A network knows nothing of what it was never shown, and gives such scenes values that it knows. Put flights "
        "with such labels into the training"
    )
    remedy += (
        ": thin cloud and clear sky (data.lidar.clear_sky 'zero' with target.minimum 0), or look at the labels' unit "
        "and scale."
        if dark
        else ", or look at the labels' unit and scale."
    )
    return Failure("unseen labels", tuple(evidence), remedy)


def _is_poor(e: Evidence, score: Part) -> bool:
    return not e.healthy or score.r2 < 0.3


def flight_shift(e: Evidence) -> Failure | None:
    """A held-out flight that is read, with another level and scale than the training's."""
    if e.train is None or e.reads_heights or e.train.r2 < 0.3 or lost_to_level(e.train) > LEVEL_IN_TRAINING:
        return None
    flights = flights_of(e)
    shifted = [one for one in flights if one.split != "train" and _is_shifted(e, one)]
    if not shifted:
        return None
    evidence = [
        f"{one.told}: {one.score}; r² is {one.score.r**2:.2f}, so level and scale cost "
        f"{lost_to_level(one.score):.2f} of R²"
        for one in shifted
    ]
    evidence.append(f"training split: {e.train}")
    if len(flights) > 2:
        ranked = sorted(flights, key=lambda one: -lost_to_level(one.score))[:RANKED]
        told = ", ".join(f"{one.told} {lost_to_level(one.score):.2f}" for one in ranked)
        evidence.append(f"flights by what level and scale cost of R²: {told}")
    evidence += [text for one in shifted for text in (*_of_baselines(e, one), *_of_labels(e, one))]
    remedy = (
        "Gain, exposure, sun or surface of the flight, or unit and scale of its labels, are others than in training: "
        "scores cannot tell which, so look at both. `cloudml calibrate` fits level and scale to 5 to 50 labels of the "
        "flight. A gain that varies in training (augmentation.gain_std) helps where flights differ in gain; more "
        "different flights help most."
    )
    wanted: dict[str, Any] = {}
    there = [e.probes.flights[one.name] for one in shifted if one.name in e.probes.flights]
    labels_first = any(_other_labels(e, one.name) is not None for one in shifted)
    ratios = [one.ratio for one in there if one.ratio is not None]
    if not labels_first and (not there or any(abs(math.log(ratio)) > OTHER_LIGHT for ratio in ratios)):
        wanted["augmentation__gain_std"] = max(gain_spread(ratios), e.config.augmentation.gain_std)
    if e.config.preprocessing.per_frame:
        wanted["preprocessing__per_frame"] = False
    return Failure("flight shift", tuple(evidence), remedy, overrides(e, **wanted))


def gain_spread(ratios: Sequence[float]) -> float:
    """The augmentation.gain_std for flights whose brightness at equal labels is so far from that of the others.

    Two thirds of the largest logarithm: then such a flight is one and a half standard deviations away.
    """
    most = max((abs(math.log(ratio)) for ratio in ratios if ratio > 0), default=1.5 * USUAL_GAIN_STD)
    return round(min(max(most / 1.5, LEAST_GAIN_STD), MOST_GAIN_STD), 2)


def lost_to_level(score: Part) -> float:
    """What a straight line through the predictions would give back of R²: r² - R²."""
    return max(score.r, 0.0) ** 2 - score.r2


@dataclass(frozen=True)
class OneFlight:
    """A flight, its split and its scores."""

    name: str
    split: str
    score: Part
    std: float  # of its labels

    @property
    def told(self) -> str:
        """Its name, and its split."""
        return f"{self.name} ({self.split})"


def flights_of(e: Evidence) -> list[OneFlight]:
    """Every flight that was scored and whose labels vary; a whole split where single flights were not."""
    found = []
    for split, part in e.parts.items():
        scores = {} if split == "held_out" else e.per_flight.get(split, {})
        least = CONSTANT * max((plain(one["target_std"]) for one in scores.values()), default=0.0)
        for name, one in scores.items():
            share = max(one["n"] * part.n_eff / max(part.n, 1), 1.0)
            if plain(one["target_std"]) > least:
                found.append(OneFlight(name, split, Part.of({**one, "n_eff": share}), plain(one["target_std"])))
        if not scores:
            names = ", ".join(e.description["split"].get(split, {}).get("flights", ["other flights"]))
            found.append(OneFlight(names, split, part, 1.0))
    return found


def _is_shifted(e: Evidence, one: OneFlight) -> bool:
    """Whether r² is far over R², beyond doubt, on a flight that is read about as well as those of the training.

    Predictions that spread more than their r allows are noise where r is lost, and only then no matter of the flight.
    """
    score, train = one.score, e.parts["train"]
    if score.n_eff < FEWEST or score.r - 2 * score.r_error < READ:
        return False
    limit = 2 * SHIFTED if one.split == "val" and e.tier != "none" else SHIFTED
    read = score.r > train.r - LOST_TO_TRAINING or score.gap < 0
    level = max(abs(score.b - train.b) - 2 * score.b_error, 0.0)
    scale = max(abs(score.gap - train.gap) - 2 * score.gap_error, 0.0) if read else 0.0
    return lost_to_level(score) > limit and level**2 + scale**2 > BEYOND_DOUBT


def _of_baselines(e: Evidence, one: OneFlight) -> list[str]:
    """Baselines that are off by as much on the same split."""
    found = {name: by_part[one.split] for name, by_part in e.baselines.items() if one.split in by_part}
    told = ", ".join(
        f"{name} R² {part.r2:.2f} at r {part.r:.2f}"
        for name, part in found.items()
        if lost_to_level(part) > SHIFTED and one.split in HELD_OUT
    )
    return [f"on {one.split} the baselines are off too: {told}"] if told else []


def _of_labels(e: Evidence, one: OneFlight) -> list[str]:
    """Labels and brightness of the flight, beside those of the training."""
    seen, training = e.probes.flights, e.description["split"]["train"]
    if one.name not in seen:
        return []
    own = seen[one.name]
    text = (
        f"labels of {one.name}: {own.mean:.3g} ± {own.std:.3g}; training {training['label_mean']:.3g} ± "
        f"{training['label_std']:.3g}"
    )
    if own.ratio is not None:
        text += f"; brightness at equal labels is {own.ratio:.2f} times that of the other flights"
    alike = _other_labels(e, one.name)
    if alike is not None:
        text += (
            f". Its images are as bright as those of the training ({alike[0]:.2f} times), and its labels are "
            f"{alike[1]:.2f} times theirs: look at unit, wavelength and scale of the labels first"
        )
    return [text]


def _other_labels(e: Evidence, name: str) -> tuple[float, float] | None:
    """Brightness and labels of a flight over those of the training, where only the labels are far from them."""
    seen, training = e.probes.flights, e.description["split"]["train"]
    lights = [seen[other].brightness for other in training["flights"] if other in seen and other != name]
    if name not in seen or not lights or min(*lights, seen[name].brightness, training["label_mean"]) <= 0:
        return None
    light, factor = seen[name].brightness / float(np.median(lights)), seen[name].mean / training["label_mean"]
    far = factor > 0 and abs(math.log(factor)) > OTHER_LABELS
    return (light, factor) if far and abs(math.log(light)) < SAME_LIGHT else None

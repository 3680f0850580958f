"""Evaluate an ensemble: against its members, and how often its intervals cover flights unknown to it."""

from collections.abc import Sequence
from dataclasses import dataclass, replace
from statistics import NormalDist
from typing import Any

import numpy as np

from cloudml_tf.config.schema import Config
from cloudml_tf.data.samples import Examples
from cloudml_tf.data.scaling import TargetScaling
from cloudml_tf.evaluation import uncertainty
from cloudml_tf.evaluation.collect import collect_scores, smeared
from cloudml_tf.evaluation.comparison import Run
from cloudml_tf.evaluation.scores import means_and_stds, rank_correlation
from cloudml_tf.evaluation.uncertainty import Pooling, centre, spread
from cloudml_tf.inference.ensemble.combination import Combination
from cloudml_tf.utils.errors import RunError

OWN = ("rmse", "r2", "variance_ratio", "correlation", "bias", "mae")
MARGIN = 0.05  # intervals that cover less than the nominal level by more than this fail; as far above they are too wide


@dataclass(frozen=True)
class Judged:
    """Examples, and the predictions of each member (or pass with dropout) for their k known labels."""

    examples: Examples
    outputs: Sequence[np.ndarray]  # (k,·) each, standardised

    @property
    def label(self) -> np.ndarray:
        """The known labels, (k,)."""
        return self.examples.label[self.examples.known]

    def flights(self) -> np.ndarray:
        """The flight, or group of scenes, of each label by name, (k,)."""
        names, known = np.asarray(self.examples.group_names)[self.examples.group], self.examples.known
        return np.broadcast_to(names.reshape(-1, *(1,) * (known.ndim - 1)), known.shape)[known]

    def spread_out(self, values: np.ndarray) -> np.ndarray:
        """Put values (…,k) of the known labels into (…, n, *P), NaN where there is no label."""
        found = np.full((*values.shape[:-1], *self.examples.label.shape), np.nan)
        found[..., self.examples.known] = values
        return found


def standardised(combination: Combination, evaluated: Judged, scaling: TargetScaling) -> np.ndarray:
    """The ensemble's prediction in standard deviations of the target, (n, *P)."""
    z = (centre(combination.members(evaluated.outputs)) - scaling.mean) / scaling.std
    return evaluated.spread_out(scaling.clipped(z))


def with_smearing(combination: Combination, val: Judged, config: Config) -> Combination:
    """The ensemble's own smearing factor, from the validation split, where the target has one."""
    if not config.target.smearing:
        return combination
    target = smeared(combination.target, val.examples, standardised(combination, val, combination.target))
    return replace(combination, target=target)


def scores_of(
    combination: Combination, test: Judged, members: Sequence[Run], config: Config, seen: dict[str, Any]
) -> dict[str, Any]:
    """The content of metrics.json, except for the intervals. `seen` is added unchanged."""
    scaling = combination.target
    z = standardised(combination, test, scaling)
    found: dict[str, Any] = {
        **collect_scores({"test": test.examples}, {"test": z}, scaling, config),
        "members": {run.name: str(run.folder) for run in members},
        **seen,
    }
    found |= against_members(found["test"], members)
    target, each = scaling.transform(test.label), combination.members(test.outputs)
    error, between = centre(each) - target, spread(each)
    found["crps"] = {"ensemble": uncertainty.crps(target, each), "mean_member": float(np.mean(np.abs(each - target)))}
    found["spread"] = {
        "rms": float(np.sqrt(np.mean(between**2))),
        "rank_correlation_with_error": rank_correlation(between, np.abs(error)),
    }
    for name in ("baselines", "oracle"):  # of the same test samples, as the first member's run has them
        if name in members[0].metrics:
            found[name] = members[0].metrics[name]
    return found


def against_members(ensemble: dict[str, Any], members: Sequence[Run]) -> dict[str, Any]:
    """Each member as its run was evaluated, their mean and std, and the ensemble's gain over the mean member."""
    each = {run.name: {key: run.scores("loss")[key] for key in OWN} for run in members}
    mean = means_and_stds(list(each.values()), OWN)
    gain = {
        "rmse_fall": 1.0 - ensemble["rmse"] / mean["rmse"]["mean"],
        "r2_rise": ensemble["r2"] - mean["r2"]["mean"],
        "better_than": sum(ensemble["rmse"] < found["rmse"] for found in each.values()),
    }
    return {"member_scores": each, "mean_member": mean, "gain": gain}


def calibrate(combination: Combination, held_out: Judged, pooling: Pooling) -> tuple[Combination, dict[str, Any]]:
    """Calibrate the width on held-out flights; return the combination and the record of the calibration.

    Raises `RunError` where no finite width can guarantee the level.
    """
    target, flights = combination.target.transform(held_out.label), held_out.flights()
    error = centre(combination.members(held_out.outputs)) - target
    floor = float(np.sqrt(np.mean(error**2)))
    combination = replace(combination, floor=floor)
    band = combination.band(held_out.outputs)
    q = uncertainty.flight_quantile(band.scores(target), flights, combination.level, pooling)
    names, labels = np.unique(flights, return_counts=True)
    if not np.isfinite(q):
        raise RunError(
            f"--pooling {pooling}: {len(names)} calibration flights with {labels.min()} labels or more cannot "
            f"guarantee {percent(combination.level)} with a finite width. Give more with "
            "--calibrate, or use --pooling pooled."
        )
    record = {
        "level": combination.level,
        "scale": combination.scale,
        "pooling": pooling,
        "q": q,
        "floor": floor,
        "calibration": {str(name): int(count) for name, count in zip(names, labels, strict=True)},
        "left_out": uncertainty.left_out(band, target, flights, combination.level, pooling),
    }
    return replace(combination, q=q), record


def covered(combination: Combination, test: Judged) -> dict[str, Any]:
    """Coverage, width and interval score of each test flight, in the loss's space, and their means over flights.

    "spread_alone" is the coverage of mean ± z·spread, z of a normal distribution: members without calibration.
    """
    if combination.q is None:
        raise ValueError("these members are not calibrated")
    target, flights = combination.target.transform(test.label), test.flights()
    low, high = combination.band(test.outputs).widened(combination.q)
    each = combination.members(test.outputs)
    reach = NormalDist().inv_cdf(0.5 + 0.5 * combination.level) * spread(each)
    found = {}
    for name in np.unique(flights):
        here = flights == name
        scores = uncertainty.interval_scores(target[here], low[here], high[here], combination.level)
        alone = uncertainty.coverage_of(target[here], (centre(each) - reach)[here], (centre(each) + reach)[here])
        found[str(name)] = {**scores, "spread_alone": alone}
    keys = ("coverage", "width", "interval_score", "spread_alone")
    mean = {key: float(np.mean([one[key] for one in found.values()])) for key in keys}
    return {"test": found, "mean": mean}


def in_words(intervals: dict[str, Any]) -> dict[str, Any]:
    """Add "words": where the intervals hold and where they fail."""
    level = percent(intervals["level"])
    names = ", ".join(intervals["calibration"])
    early = "; early stopping saw them, so their errors are a little too small"
    early = early if intervals["seen_by_early_stopping"] else ""
    lines = [f"{level} intervals, calibrated on {names}{early}"]
    if len(intervals["calibration"]) == 1:
        lines.append("one calibration flight cannot show how much flights differ: --calibrate takes further ones")
    for name, coverage in intervals["left_out"].items():
        lines.append(f"calibrated without {name}, they would cover {percent(coverage)} of it")
    for name, found in intervals["test"].items():
        says = {-1: ": they fail there", 0: "", 1: ": they are wider than necessary"}
        beyond = found["coverage"] - intervals["level"]
        sign = 0 if abs(beyond) <= MARGIN else int(np.sign(beyond))
        lines.append(f"{level} intervals cover {percent(found['coverage'])} of flight {name}{says[sign]}")
    if len(intervals["test"]) > 1:
        lines.append(
            f"on average over {len(intervals['test'])} flights they cover {percent(intervals['mean']['coverage'])}"
        )
    return {**intervals, "words": lines}


def percent(share: float) -> str:
    """A share as whole per cent."""
    return f"{100 * share:.0f} %"

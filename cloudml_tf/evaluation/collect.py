"""The scores of a run, in the loss's space and in physical units, for every split, baseline and ceiling.

One path for all targets: labels (n, *P) are scored where they are known, with intervals by the blocks of the examples.
"""

from collections.abc import Mapping
from dataclasses import replace
from itertools import pairwise
from typing import Any

import numpy as np

from cloudml_tf.config.schema import Config
from cloudml_tf.data.prepare import Prepared
from cloudml_tf.data.samples import Examples
from cloudml_tf.data.scaling import TargetScaling
from cloudml_tf.evaluation import baselines
from cloudml_tf.evaluation.oracle import oracle_predictions
from cloudml_tf.evaluation.scores import scores, scores_with_intervals, tier
from cloudml_tf.evaluation.uncertainty import interval_scores

Predictions = Mapping[str, np.ndarray]  # split -> (n, *P) standardised predictions
EDGES = (0.0, 0.1, 1.0, 10.0, 100.0, np.inf)  # of decades, in the target's own unit


def spaces(config: Config) -> dict[str, str]:
    """What the two spaces are, in words."""
    name, offset = config.target.name, config.target.log_offset
    inside = f"{name} + {offset:g}" if offset else name
    return {"loss": f"ln({inside})" if config.target.transform == "log" else name, "physical": name}


def score_split(
    examples: Examples, z: np.ndarray, scaling: TargetScaling, config: Config, where: np.ndarray | None = None
) -> dict[str, Any]:
    """Scores of standardised predictions (n, *P): in the loss's space (its own units), and under `physical`.

    `where` (n, *P) leaves out labels for which a retrieval has no value.
    """
    known = examples.known if where is None else examples.known & where
    label, found = examples.label[known], z[known]
    blocks = examples.blocks(config.evaluation.block_s)[known]

    def of(target: np.ndarray, prediction: np.ndarray) -> dict[str, Any]:
        n_eff = examples.effective_size(target)
        draws = config.evaluation.bootstrap_samples
        return scores_with_intervals(target, prediction, blocks, n_eff, draws, config.seed)

    return {**of(scaling.transform(label), scaling.unscale(found)), "physical": of(label, scaling.physical(found))}


def per_group(examples: Examples, z: np.ndarray, scaling: TargetScaling) -> dict[str, dict[str, float]]:
    """Scores of each flight, or group of scenes, that has labels, in the loss's space."""
    found = {}
    for number, name in enumerate(examples.group_names):
        here = examples.group == number
        known = examples.known[here]
        if known.any():
            label, values = examples.label[here][known], z[here][known]
            found[name] = scores(scaling.transform(label), scaling.unscale(values))
    return found


def decades(examples: Examples, z: np.ndarray, scaling: TargetScaling) -> list[dict[str, float]]:
    """Bias and RMSE in the loss's space, of the labels whose *predicted* value lies in each decade.

    Binned by the truth even a perfect conditional mean looks biased, high below and low above. Decades without a label
    are left out.
    """
    known = examples.known
    target, prediction = scaling.transform(examples.label[known]), scaling.unscale(z[known])
    value = scaling.physical(z[known])
    rows = []
    for low, high in pairwise(EDGES):
        here = (value >= low) & (value < high)
        if here.any():
            error = prediction[here] - target[here]
            row = {"from": low, "to": high, "n": int(here.sum()), "bias": float(error.mean())}
            rows.append({**row, "rmse": float(np.sqrt(np.mean(error**2)))})
    return rows


def collect_scores(
    parts: Mapping[str, Examples], predictions: Predictions, scaling: TargetScaling, config: Config
) -> dict[str, Any]:
    """The scores of the network on each split, for metrics.json; "test" is needed. Maps have their bias by decade."""
    found: dict[str, Any] = {"experiment": config.experiment_name, "seed": config.seed, "space": spaces(config)}
    for part, examples in parts.items():
        found[part] = score_split(examples, predictions[part], scaling, config)
    found["per_flight"] = {part: per_group(each, predictions[part], scaling) for part, each in parts.items()}
    if parts["test"].label.ndim == 3:
        found["decades"] = {part: decades(each, predictions[part], scaling) for part, each in parts.items()}
    found["tier"] = tier(found["test"])
    return found


def collect_baselines(parts: Mapping[str, Examples], scaling: TargetScaling, config: Config) -> dict[str, Any]:
    """Scores of each baseline on each split; `parts` has train, and any others.

    A retrieval that has gaps is scored where it has none.
    """
    predictions = baselines.fit_predict(parts, scaling, config.preprocessing.log_offset, config.seed)
    return {name: _score_splits(parts, z, scaling, config) for name, z in predictions.items()}


def collect_further(
    parts: Mapping[str, Examples], predictions: Mapping[str, np.ndarray], config: Config
) -> dict[str, dict[str, dict[str, float]]]:
    """Scores of the quantities beside the target where they are known, in their own units: by name, then by split."""
    found: dict[str, dict[str, dict[str, float]]] = {name: {} for name in config.target.further}
    for part, examples in parts.items():
        labels = examples.further_labels()
        for column, name in enumerate(config.target.further):
            known = np.isfinite(labels[:, column])
            if known.sum() > 1:
                found[name][part] = scores(labels[known, column], predictions[part][known, column])
    return found


def collect_coverage(
    parts: Mapping[str, Examples],
    intervals: Mapping[str, Mapping[str, tuple[np.ndarray, np.ndarray]]],
    config: Config,
    level: float,
) -> dict[str, Any]:
    """How often intervals hold, by split and quantity, in its own unit; and their `level`."""
    found: dict[str, Any] = {"level": level}
    for part, examples in parts.items():
        labels: dict[str, np.ndarray] = {config.target.name: np.where(examples.known, examples.label, np.nan)}
        labels |= dict(zip(config.target.further, examples.further_labels().T, strict=False))
        found[part] = {}
        for name, (lower, upper) in intervals[part].items():
            known = np.isfinite(labels[name])
            if known.any():
                ends = (labels[name][known], lower[known], upper[known])
                found[part][name] = interval_scores(*ends, level)
    return found


def collect_oracle(prepared: Prepared, config: Config) -> dict[str, Any] | None:
    """Scores of the oracle on each split; None where there is no truth."""
    scaling = prepared.scaling.target
    predictions = oracle_predictions(prepared.parts, prepared.flights, scaling, config)
    return None if predictions is None else _score_splits(prepared.parts, predictions, scaling, config)


def _score_splits(
    parts: Mapping[str, Examples], predictions: Predictions, scaling: TargetScaling, config: Config
) -> dict[str, Any]:
    if config.target.smearing:  # each predictor has residuals of its own
        reference = "val" if "val" in parts else "train"
        scaling = smeared(scaling, parts[reference], predictions[reference])
    return {part: score_split(parts[part], z, scaling, config, np.isfinite(z)) for part, z in predictions.items()}


def smeared(scaling: TargetScaling, examples: Examples, z: np.ndarray) -> TargetScaling:
    """The same with a smearing factor, the mean of exp(residual) (Duan 1983).

    exp of a predicted mean log is a median; times this factor it is a mean.
    """
    residual = scaling.transform(examples.label[examples.known]) - scaling.unscale(z[examples.known])
    return replace(scaling, smearing=float(np.mean(np.exp(residual))))


def with_smearing(prepared: Prepared, val_predictions: np.ndarray) -> Prepared:
    """The same with the network's smearing factor, from the validation split, in its scaling."""
    target = smeared(prepared.scaling.target, prepared.parts["val"], val_predictions)
    return replace(prepared, scaling=replace(prepared.scaling, target=target))


def table_rows(metrics: dict[str, Any], part: str = "test") -> list[tuple[str, dict[str, Any]]]:
    """Network, baselines and oracle of one part, in the order that people read them."""
    rows = [(name, by_part[part]) for name, by_part in metrics.get("baselines", {}).items() if part in by_part]
    rows.append(("network", metrics[part]))
    if part in metrics.get("oracle", {}):
        rows.append(("oracle", metrics["oracle"][part]))
    return rows

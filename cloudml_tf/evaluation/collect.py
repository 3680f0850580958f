"""The scores of a run, in the loss's space and in physical units, for every part, baseline and ceiling."""

from dataclasses import replace
from typing import Any

import numpy as np

from cloudml_tf.config.data import FlightFiles
from cloudml_tf.config.schema import Config
from cloudml_tf.data.independence import block_ids
from cloudml_tf.data.prepare import Prepared
from cloudml_tf.data.samples import Samples
from cloudml_tf.data.scaling import TargetScaling
from cloudml_tf.evaluation import baselines
from cloudml_tf.evaluation.oracle import oracle_predictions
from cloudml_tf.evaluation.scores import judge, phase3, scores, tier

Predictions = dict[str, np.ndarray]  # part -> (n,) standardised predictions


def spaces(config: Config) -> dict[str, str]:
    """What the two spaces are, in words."""
    name, offset = config.target.name, config.target.log_offset
    inside = f"{name} + {offset:g}" if offset else name
    return {"loss": f"ln({inside})" if config.target.transform == "log" else name, "physical": name}


def score_part(samples: Samples, z: np.ndarray, scaling: TargetScaling, config: Config) -> dict[str, Any]:
    """Scores of standardised predictions: in the loss's space (its own units, unscaled), and under `physical`."""
    blocks = block_ids(samples.time_s, samples.flight, samples.piece, config.evaluation.block_s)
    options = {"samples": config.evaluation.bootstrap_samples, "seed": config.seed}
    found = judge(scaling.transform(samples.label), scaling.unscale(z), blocks, samples.flight, **options)
    found["physical"] = judge(samples.label, scaling.physical(z), blocks, samples.flight, **options)
    return found


def per_flight(samples: Samples, z: np.ndarray, scaling: TargetScaling) -> dict[str, dict[str, float]]:
    """Scores of each flight of a part, in the loss's space."""
    target, prediction = scaling.transform(samples.label), scaling.unscale(z)
    found = {}
    for number in np.unique(samples.flight):
        here = samples.flight == number
        found[samples.flight_names[number]] = scores(target[here], prediction[here])
    return found


def collect(
    parts: dict[str, Samples],
    predictions: Predictions,
    scaling: TargetScaling,
    config: Config,
    history: list[dict[str, float]],
    best_epoch: int | None,
) -> dict[str, Any]:
    """The content of metrics.json, but for the baselines."""
    found: dict[str, Any] = {
        "experiment": config.experiment_name,
        "seed": config.seed,
        "space": spaces(config),
    }
    for part, samples in parts.items():
        found[part] = score_part(samples, predictions[part], scaling, config)
    found["tier"] = tier(found["test"])
    found["phase3"] = phase3(found["test"], history, best_epoch)
    found["per_flight"] = {part: per_flight(s, predictions[part], scaling) for part, s in parts.items()}
    return found


def collect_baselines(parts: dict[str, Samples], scaling: TargetScaling, config: Config) -> dict[str, Any]:
    """Scores of each baseline on each part; `parts` has train, and any others."""
    predictions = baselines.fit_predict(parts, scaling, config.preprocessing.log_offset, config.seed)
    return {name: _score_parts(parts, z, scaling, config) for name, z in predictions.items()}


def collect_oracle(
    parts: dict[str, Samples], flights: dict[str, FlightFiles], scaling: TargetScaling, config: Config
) -> dict[str, Any] | None:
    """Scores of the oracle on each part; None where there is no truth."""
    predictions = oracle_predictions(parts, flights, scaling, config)
    return None if predictions is None else _score_parts(parts, predictions, scaling, config)


def _score_parts(
    parts: dict[str, Samples], predictions: Predictions, scaling: TargetScaling, config: Config
) -> dict[str, Any]:
    if config.target.smearing:  # each predictor has residuals of its own
        reference = "val" if "val" in parts else "train"
        scaling = smeared(scaling, parts[reference], predictions[reference])
    return {part: score_part(parts[part], z, scaling, config) for part, z in predictions.items()}


def smeared(scaling: TargetScaling, samples: Samples, z: np.ndarray) -> TargetScaling:
    """The same with a smearing factor, the mean of exp(residual) (Duan 1983).

    exp of a predicted mean log is a median; times this factor it is a mean.
    """
    residual = scaling.transform(samples.label) - scaling.unscale(z)
    return replace(scaling, smearing=float(np.mean(np.exp(residual))))


def with_smearing(prepared: Prepared, val_predictions: np.ndarray) -> Prepared:
    """The same with the network's smearing factor, from the validation part, in its scaling."""
    target = smeared(prepared.scaling.target, prepared.parts["val"], val_predictions)
    return replace(prepared, scaling=replace(prepared.scaling, target=target))


def table_rows(metrics: dict[str, Any], part: str = "test") -> list[tuple[str, dict[str, Any]]]:
    """Network, baselines and oracle of one part, in the order that people read them."""
    rows = [(name, by_part[part]) for name, by_part in metrics.get("baselines", {}).items() if part in by_part]
    rows.append(("network", metrics[part]))
    if part in metrics.get("oracle", {}):
        rows.append(("oracle", metrics["oracle"][part]))
    return rows

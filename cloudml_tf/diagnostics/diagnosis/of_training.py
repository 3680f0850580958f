"""Failures of the training: its rate, its regularisation, its loss. Each rule returns a finding or None."""

import math
from typing import Any

from cloudml_tf.config.coverage import can_set
from cloudml_tf.config.run_folder import flat
from cloudml_tf.diagnostics.diagnosis.evidence import HELD_OUT, Evidence, Part, pooled
from cloudml_tf.diagnostics.diagnosis.failure import Failure, overrides
from cloudml_tf.evaluation.scores import INFLATED

# Rates and weights are in the units that AdamW and standardised targets give them.
HIGH_RATE = 0.02  # a step moves a weight by a tenth of its size
SHORT_TRAVEL, LOW_RATE = 0.02, 3e-4  # weights start at about 0.1 to 0.3
SMALL_INIT = 0.1  # output weights, as the warning of the configuration has it


def not_finite(e: Evidence) -> Failure | None:
    """The loss became NaN or infinite."""
    if not e.not_finite:
        return None
    rate, training = e.config.training.learning_rate, e.config.training
    clip = training.gradient_clip_norm
    evidence = (
        f"the loss became {e.history[-1]['loss']} in epoch {len(e.history)}",
        f"training.learning_rate is {rate:g}, gradient_clip_norm {'off' if clip is None else f'{clip:g}'}",
    )
    remedy = "Lower the learning rate, clip the gradients and inspect the images and labels for extreme values."
    small = {"training__learning_rate": min(rate / 10, 1e-3), "training__gradient_clip_norm": min(clip or 1.0, 1.0)}
    warmup = max(training.warmup_epochs, 1.0)
    init = e.config.model.output_init
    start = {} if isinstance(init, str) or init <= 1 else {"model__output_init": "default"}
    return Failure("learning rate", evidence, remedy, overrides(e, **small, training__warmup_epochs=warmup, **start))


def small_start(e: Evidence) -> Failure | None:
    """A collapse from the start: output weights near 0 that training has not increased."""
    init = e.config.model.output_init
    if e.good or not e.shrunk or isinstance(init, str) or init >= SMALL_INIT:
        return None
    return _collapse(e, [f"model.output_init {init:g} starts the predictions at a constant"])


def rate_too_high(e: Evidence) -> Failure | None:
    """The steps are as large as the weights, and the training fits nothing."""
    train, training = e.train, e.config.training
    if e.good or train is None or training.learning_rate < HIGH_RATE or not _fits_badly(e):
        return None
    losses = [row["loss"] for row in e.history if math.isfinite(row.get("loss", math.nan))]
    evidence = [
        f"training.learning_rate {training.learning_rate:g}: a step of AdamW moves each weight by about as much, and "
        "weights start at about 0.1 to 0.3",
        f"training split: {train}",
    ]
    if losses:
        evidence.append(f"the loss of an epoch went up to {max(losses):.3g} and ended at {losses[-1]:.3g}")
    remedy = "Lower the learning rate, with warm-up and clipped gradients."
    calm = {"training__gradient_clip_norm": min(training.gradient_clip_norm or 1.0, 1.0)}
    calm["training__warmup_epochs"] = max(training.warmup_epochs, 1.0)
    return Failure("learning rate", tuple(evidence), remedy, overrides(e, training__learning_rate=1e-3, **calm))


def _fits_badly(e: Evidence) -> bool:
    train = e.parts["train"]
    return e.underfit or train.r2 < 0.3 or e.shrunk


def rate_too_low(e: Evidence) -> Failure | None:
    """The weights could not move far enough in the available steps."""
    train, training = e.train, e.config.training
    if e.good or train is None or e.travel >= SHORT_TRAVEL or not _fits_badly(e):
        return None
    if not e.finished and len(e.history) < 3:
        return None
    if training.learning_rate > LOW_RATE and e.steps_per_epoch <= 3:
        return None  # there are few steps because there are few labels
    evidence = (
        f"training.learning_rate {training.learning_rate:g} over {len(e.history)} epochs of {e.steps_per_epoch} steps: "
        f"no weight can have moved by more than about {e.travel:.2g}, and weights start at about 0.1 to 0.3",
        f"training split: {train}",
    )
    if training.learning_rate > LOW_RATE:
        epochs = math.ceil(training.max_epochs * 0.5 / max(e.travel, 1e-3))
        remedy = "Train longer: the rate is usual, but the steps are too few."
        return Failure("learning rate", evidence, remedy, overrides(e, training__max_epochs=min(epochs, 200)))
    remedy = "Raise the learning rate."
    return Failure("learning rate", evidence, remedy, overrides(e, training__learning_rate=2e-3))


def over_regularised(e: Evidence) -> Failure | None:
    """The network is kept from fitting its own training labels, and the configuration shows by what."""
    strong, weak, mild = _regularisers(e)
    if e.tier != "none" or e.train is None or not (strong or len(weak) > 1):
        return None
    overweighted = e.config.overweight.factor != 1.0 and abs(e.train.b) > 0.15 + 3 * e.train.b_error
    held_back = e.train.r2 < (0.5 if strong and not e.overfits else 0.3)
    if not (e.underfit or e.shrunk or held_back or overweighted):
        return None
    name, r, _ = e.best_baseline
    evidence = [f"training split: {e.train}"]
    evidence += [f"{name} reads held-out labels with r {r:.2f}"] if name != "none" else []
    evidence += [*strong, *weak]
    remedy = f"Less dropout, no weight decay,{_fewer(e)} no overweighting: until the training split fits again."
    return Failure("over-regularised", tuple(evidence), remedy, overrides(e, **mild))


REGULARISERS = (  # field, from where on it would do alone, from where on together with another, a milder value
    ("model.dropout", 0.5, 0.3, 0.1),
    ("training.weight_decay", 1.0, 0.2, 0.0),
    ("overweight.factor", 5.0, 1.5, 1.0),
    ("temporal_frames", math.inf, 7, 3),
    ("augmentation.gain_std", 0.3, 0.15, 0.05),
    ("augmentation.noise_std", 0.7, 0.3, 0.0),
)


def _fewer(e: Evidence) -> str:
    """A remedy of other networks; one that compares frames needs them to be apart."""
    return " fewer frames," if can_set(e.config, "temporal_frames") else ""


def _regularisers(e: Evidence) -> tuple[list[str], list[str], dict[str, Any]]:
    """Settings that suffice alone, settings that suffice together, and milder values."""
    now = flat(e.config.model_dump(mode="json"))
    strong: list[str] = []
    weak: list[str] = []
    milder_values = {}
    for field, alone, together, milder in REGULARISERS:
        value = now[field]
        if value >= together and can_set(e.config, field):
            limit = f" keeps weights under about {1 / value:.2g}" if field == "training.weight_decay" else ""
            (strong if value >= alone else weak).append(f"{field} {value:g}{limit}")
            milder_values[field.replace(".", "__")] = milder
    return strong, weak, milder_values


def collapse(e: Evidence) -> Failure | None:
    """The predictions have shrunk to the mean although there is a signal."""
    return None if e.good or not e.shrunk else _collapse(e, [])


def _collapse(e: Evidence, evidence: list[str]) -> Failure:
    evidence += [f"{name}: {part}" for name, part in e.parts.items() if name != "train"]
    name, r, _ = e.best_baseline
    evidence += [f"there is a signal: {name} reaches r {r:.2f}"] if name != "none" else []
    evidence += [f"loss.weight (λ) is {e.config.loss.weight:g}"] if e.config.loss.weight < 1 else []
    weight = 1.0 if e.config.loss.weight < 1.0 else 2.0
    wanted: dict[str, Any] = {"loss__weight": weight, "model__output_init": "default", "overweight__factor": 1.0}
    wanted |= {"temporal_frames": 3} if e.config.temporal_frames > 3 else {}
    wanted |= {"model__dropout": 0.1} if e.config.model.dropout > 0.1 else {}
    wanted |= {"training__weight_decay": 0.0} if e.config.training.weight_decay > 1e-3 else {}
    if e.config.training.early_stopping_monitor == "val_loss":
        wanted["training__early_stopping_monitor"] = "val_r2"
    wanted |= {"training__learning_rate": 2e-3} if e.travel < SHORT_TRAVEL else {}
    remedy = (
        f"λ of 1.0, then 2.0, the usual output weights, less dropout, no weight decay,{_fewer(e)} no overweighting; "
        "where the predictions still do not spread, use a simpler model and inspect the images."
    )
    return Failure("collapse", tuple(evidence), remedy, overrides(e, **wanted))


def inflation(e: Evidence) -> Failure | None:
    """s > r + 0.1 beyond doubt, and it costs R²: part of the spread is noise."""
    train, weight_now = e.train, e.config.loss.weight
    if train is None:
        return None
    by_the_loss = _by_the_loss(e, train)
    wide = _inflated_parts(e, by_the_loss)
    if not wide:
        return None
    if not by_the_loss and (_bias_costs_more(e) or (e.overfits and not e.good)):
        return None
    r, error = pooled(e.held_out)
    if r - 2 * error < INFLATED and not (by_the_loss and weight_now > 1 and e.signal):
        return None
    r = max(r, e.best_baseline[1])
    evidence = [f"{name}: s exceeds r by {part.gap:.2f}, which costs {part.gap**2:.2f} of R²" for name, part in wide]
    if by_the_loss:
        evidence.append(f"training split: {train}; λ = {weight_now:g} asks for more spread than r allows")
    weight = fitting_weight(r)
    remedy = (
        f"A smaller λ: with r = {r:.2f} the best s is {r:.2f} too, and λ of {weight:g} keeps s within 0.05 of it. "
        "A simpler model where the training split is not inflated."
    )
    wanted: dict[str, Any] = {"loss__weight": min(weight, weight_now)}
    if not overrides(e, **wanted) or not by_the_loss:
        wanted |= {"model__architecture": "single_frame", "temporal_frames": 1}
    return Failure("inflation", tuple(evidence), remedy, overrides(e, **wanted))


def _inflated_parts(e: Evidence, by_the_loss: bool) -> list[tuple[str, Part]]:
    """The splits whose s exceeds r by more than 0.1, if that costs enough.

    A flight on which r alone was lost is left out, unless the loss visibly inflates wherever r is low.
    """
    considered = [name for name in HELD_OUT if name in e.parts and (by_the_loss or name not in e.lost)]
    if not considered or not _costs(e, [e.parts[name] for name in considered]):
        return []
    names = [*considered, *(name for name in e.parts if name == "held_out")]
    return [(name, e.parts[name]) for name in names if e.parts[name].gap > INFLATED]


def _by_the_loss(e: Evidence, train: Part) -> bool:
    """Whether the training split is inflated beyond doubt, and λ is large enough to be the cause."""
    asked = spread_at(train.r, e.config.loss.weight) - train.r
    return train.gap - 2 * train.gap_error > INFLATED and asked > INFLATED


def spread_at(r: float, weight: float) -> float:
    """The s that minimises mse + λ(1-s²)², the default form: there s - r = 2λ s(1-s²)."""
    s = min(max(r, 0.0), 1.0)
    while s < 1.0 and s - r < 2 * weight * s * (1 - s * s):
        s += 0.01
    return s


def fitting_weight(r: float) -> float:
    """The λ for which mse + λ(1-s²)² is least at s = r + 0.05: there 2(s-r) = 4λ s(1-s²)."""
    s = min(r + 0.05, 0.95)
    return float(f"{0.05 / (2 * s * (1 - s * s)):.1g}")


def _costs(e: Evidence, parts: list[Part]) -> bool:
    """Whether the noise costs a share of r², the possible R², that is worth a remedy.

    The usual λ of 0.5 is best at s = ∛r, and a run that is as good as possible with it has not failed.
    """
    share = (0.15 if e.good else 0.06) * (0.5 if e.config.loss.weight > 1 else 1.0)
    gap = sum(part.gap for part in parts) / len(parts)
    error = math.sqrt(sum(part.gap_error**2 for part in parts)) / len(parts)
    worst = max(parts, key=lambda part: part.gap)
    one = worst.gap - 2 * worst.gap_error > INFLATED and worst.gap**2 > 2 * share * max(worst.r, 0.0) ** 2
    both = gap - error > INFLATED and gap**2 > share * max(pooled(parts)[0], 0.0) ** 2
    return both or one


def _bias_costs_more(e: Evidence) -> bool:
    return sum(part.b**2 for part in e.held_out) > sum(max(part.gap, 0.0) ** 2 for part in e.held_out)


def not_there_yet(e: Evidence) -> Failure | None:
    """Worse than a baseline on its own training labels, for no other reason: it was not trained long enough."""
    if e.good or e.train is None or not e.underfit or not e.finished:
        return None
    best = max(range(len(e.history)), key=lambda i: e.history[i].get("val_r2", -math.inf), default=0)
    if best < 0.75 * (len(e.history) - 1):
        return None
    name, r, _ = e.best_baseline
    evidence = (
        f"training split: {e.train}, while {name} reads held-out labels with r {r:.2f}",
        f"the best epoch is {best + 1} of {len(e.history)}: validation was still improving",
    )
    remedy = "Train longer, or with a larger learning rate."
    epochs = min(3 * e.config.training.max_epochs, 100_000)
    return Failure("learning rate", evidence, remedy, overrides(e, training__max_epochs=epochs))

"""Which way a monitored score is better. Everything that compares epochs or trials asks here.

    higher   r2, correlation, accuracy, auc, cosine_similarity, ...
    lower    loss, mae, rmse, mean_squared_error, spread_cost, false_positives, ...
    near     bias, best at 0; variance_ratio, best at 1

A name that is not known is refused: a guess would keep the worst epoch without a word. No Keras is loaded here.
"""

import re
from collections.abc import Callable, Mapping
from typing import Any

COMPOSITE = "composite"
COMPOSITE_KEYS = ("val_loss", "val_r2")  # what the composite is computed from
MODES = ("auto", "min", "max")

NEAR = {"bias": 0.0, "variance_ratio": 1.0}

_HIGHER = """
    r2 r2_score r2_ceiling correlation pearson_correlation concordance_correlation cosine_similarity
    accuracy acc binary_accuracy categorical_accuracy sparse_categorical_accuracy top_k_categorical_accuracy
    sparse_top_k_categorical_accuracy precision recall auc f1_score fbeta_score
    precision_at_recall recall_at_precision sensitivity_at_specificity specificity_at_sensitivity
    true_positives true_negatives io_u binary_io_u mean_io_u one_hot_io_u one_hot_mean_io_u
"""
_LOWER = """
    composite loss spread_cost mae mse rmse mape msle mean_absolute_error mean_squared_error root_mean_squared_error
    mean_absolute_percentage_error mean_squared_logarithmic_error mean_relative_error
    log_cosh logcosh log_cosh_error huber huber_loss poisson kl_divergence kullback_leibler_divergence kld
    bce binary_crossentropy categorical_crossentropy sparse_categorical_crossentropy binary_focal_crossentropy
    categorical_focal_crossentropy hinge squared_hinge categorical_hinge dice tversky circle ctc
    false_positives false_negatives variance_preserving_loss quantile_loss histogram_loss
"""
HIGHER, LOWER = frozenset(_HIGHER.split()), frozenset(_LOWER.split())
_TURNED = re.compile(r"(^|_)(neg|negative|minus|inverse|inverted|non?|not|one_minus|1_minus)(_|$)")


def composite(logs: Mapping[str, Any]) -> float:
    """The reference recipe's composite `val_loss - 2 R²`: lower is better."""
    return float(logs["val_loss"]) - 2.0 * float(logs["val_r2"])


def name_of(key: str) -> str:
    """The score that a log key holds: "val_mae_1" -> "mae". Keras appends a number to the second of one name."""
    name = key.lower().removeprefix("val_")
    return name if name in HIGHER | LOWER or name in NEAR else re.sub(r"_\d+$", "", name)


def direction(key: str, mode: str = "auto") -> str:
    """The direction in which a score is better: "max", "min", "near 0" or "near 1".

    Args:
        key: of the training log, with or without "val_".
        mode: "min" or "max", which decides; "auto" goes by the name. A loss of one of several outputs
            ("height_loss") is known too.

    Raises `ValueError` for a name that is not known, and for one that says nothing of better and worse.
    """
    if mode not in MODES:
        raise ValueError(f"`mode` must be one of {', '.join(MODES)}. Received: mode={mode!r}")
    if not isinstance(key, str) or not key:
        raise ValueError(f"What is monitored must be a key of the training log, such as val_r2. Received: {key!r}")
    if mode != "auto":
        return mode
    name = name_of(key)
    if name in NEAR:
        return f"near {NEAR[name]:g}"
    if name in HIGHER:
        return "max"
    if name in LOWER or (name.endswith("_loss") and not _TURNED.search(name)):
        return "min"
    raise ValueError(
        f"Whether a higher or a lower '{key}' is better must be known, and its name does not say it. "
        'Give the direction: mode="max" where higher is better, mode="min" where lower is. '
        f"Known without it, also with val_: {', '.join(sorted((HIGHER | LOWER | NEAR.keys()) - {COMPOSITE}))}. "
        f"Received: {key!r}"
    )


def merit(key: str, mode: str = "auto") -> Callable[[float], float]:
    """A function: score -> a number that is higher for a better one. Raises `ValueError` as `direction` does.

    A score that is best near a number becomes minus its distance from it.
    """
    towards = direction(key, mode)
    if towards == "max":
        return float
    if towards == "min":
        return lambda value: -float(value)
    wanted = NEAR[name_of(key)]
    return lambda value: -abs(float(value) - wanted)

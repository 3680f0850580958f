"""Evaluate a set of predictions: scores with intervals, tiers, and the acceptance of a run.

Everything is a formula over the additive sums of `cloudml_tf.nn.moments`. Neighbouring samples are correlated, so
intervals come from a bootstrap over blocks of track, and an effective sample size is given beside n.
"""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from typing import Any, Literal

import numpy as np
from scipy.stats import rankdata

from cloudml_tf.nn import moments as formulas
from cloudml_tf.nn.moments import Moments, per_sample

SCORES = (
    "r2", "variance_ratio", "correlation", "bias", "pred_std", "target_std", "mae", "rmse", "r2_ceiling",
    "spread_cost",
)  # fmt: skip
INTERVALS = ("r2", "rmse", "variance_ratio")


def number(value: float | None, form: str = ".3f") -> str:
    """A value as text; a dash where it is not defined (JSON has null for it). A form that ends in % shows per cent."""
    return format(value, form).replace("%", " %") if value is not None and np.isfinite(value) else "-"


@dataclass(frozen=True)
class Column:
    """How a score is shown, and which way it is better where runs are compared; a training's log: `nn.directions`."""

    label: str
    form: str = ".3f"
    better: Literal["higher", "lower", "near 1", "near 0", "near target_spread"] = "higher"

    def text(self, value: float | None) -> str:
        """A value; a dash where it is not defined."""
        return number(value, self.form)

    def with_std(self, found: Mapping[str, float | None]) -> str:
        """0.712 ± 0.013, of `mean` and `std`."""
        plain = replace(self, form=self.form.removeprefix("+"))
        mean, std = (plain.text(found[key]) for key in ("mean", "std"))
        return "-" if "-" in (mean, std) else f"{mean.removesuffix(' %')} ± {std}"

    def interval(self, ends: Sequence[float | None] | None) -> str:
        """A 95 % interval as " [low, high]", or nothing."""
        if ends is None:
            return ""
        low, high = (self.text(end).removesuffix(" %") for end in ends)
        return f" [{low}, {high}]"


S_IS = "s = std(prediction)/std(label)"  # stands once beside each table that has a column s
COLUMNS = {  # key in metrics.json -> how people see it
    "r2": Column("R²"),
    "variance_ratio": Column("s", ".1%", "near 1"),
    "correlation": Column("r"),
    "bias": Column("bias", "+.3f", "near 0"),
    "rmse": Column("RMSE", better="lower"),
    "mae": Column("MAE", better="lower"),
    "pred_spread": Column("spread", better="near target_spread"),
    "r2_ceiling": Column("ceiling r²"),
    "spread_cost": Column("cost (s-r)²", ".4f", "lower"),
}


def labels(keys: Sequence[str]) -> list[str]:
    """The heads of columns."""
    return [COLUMNS[key].label for key in keys]


def texts(found: Mapping[str, Any], keys: Sequence[str]) -> list[str]:
    """The cells of a row of scores."""
    return [COLUMNS[key].text(found.get(key)) for key in keys]


def means_and_stds(found: Sequence[Mapping[str, Any]], keys: Sequence[str]) -> dict[str, dict[str, float]]:
    """The mean of each score over several runs and its standard deviation, which is 0 for one run."""
    values = {key: np.asarray([one[key] for one in found], "float64") for key in keys}
    ddof = min(len(found) - 1, 1)
    return {key: {"mean": float(v.mean()), "std": float(v.std(ddof=ddof))} for key, v in values.items()}


INFLATED = 0.1  # s - r: spread that is not skill
FEWEST_EPOCHS = 5  # that a trend of s over the epochs, and so the acceptance, can be judged from
FEWEST_BLOCKS = 10  # blocks of track that an interval needs to be trusted

# The reference recipe's limits are for its target: std 0.483 and spread 1.8. In brackets are the same limits relative
# to the target, which serve for every target: RMSE/std, MAE/std, spread/spread. "Strong" and "clear linear"
# correlation are what the other limits of the tier imply.
SEED_STD, SEED_SPREAD = 0.483, 1.8
TIERS: dict[str, dict[str, float]] = {
    "minimum": {"r2": 0.3, "variance_ratio": 0.70, "spread": 0.556, "rmse": 0.725, "mae": 0.518},
    "good": {"r2": 0.5, "variance_ratio": 0.85, "spread": 0.778, "rmse": 0.621, "correlation": 0.79},
    "excellent": {"r2": 0.7, "variance_ratio": 0.95, "rmse": 0.518, "correlation": 0.86},
}
ABSOLUTE_LIMITS: dict[str, dict[str, float]] = {
    "minimum": {"pred_spread": 1.0, "rmse": 0.35, "mae": 0.25},
    "good": {"pred_spread": 1.4, "rmse": 0.30},
    "excellent": {"rmse": 0.25},
}


def scores(target: np.ndarray, prediction: np.ndarray) -> dict[str, float]:
    """All scores of (n,) predictions. NaN where undefined (a correlation of constants)."""
    m = formulas.moments(target, prediction)
    found = {name: float(getattr(formulas, name)(m)) for name in SCORES}
    spreads = {"pred_spread": float(np.ptp(prediction)), "target_spread": float(np.ptp(target))}
    return {**found, **spreads, "n": len(target)}


def scores_with_intervals(
    target: np.ndarray, prediction: np.ndarray, blocks: np.ndarray, n_eff: float, samples: int = 1000, seed: int = 0
) -> dict[str, Any]:
    """Scores with `n_eff`, `ci95` and the number of `blocks` behind that.

    Args:
        target, prediction: (n,) in one space.
        blocks: (n,) the bootstrap block of each sample.
        n_eff: how many independent samples they are worth.
        samples: bootstrap draws.
        seed: seed of the draws.
    """
    intervals = bootstrap(target, prediction, blocks, samples, seed)
    return {**scores(target, prediction), "n_eff": n_eff, "ci95": intervals, "blocks": len(np.unique(blocks))}


def few_blocks(count: int) -> list[str]:
    """A warning about intervals from too few blocks of track, if needed."""
    if count >= FEWEST_BLOCKS:
        return []
    return [f"the test split has {count} blocks of track: intervals from so few are too narrow; see evaluation.block_s"]


def bootstrap(
    target: np.ndarray, prediction: np.ndarray, blocks: np.ndarray, samples: int, seed: int
) -> dict[str, list[float]]:
    """95 % intervals of R², RMSE and s, drawing whole blocks with replacement."""
    found = drawn_scores(target, prediction, blocks, samples, seed, INTERVALS)
    quantiles = {name: np.nanquantile(values, [0.025, 0.975]) for name, values in found.items()}
    return {name: [float(low), float(high)] for name, (low, high) in quantiles.items()}


def drawn_scores(
    target: np.ndarray, prediction: np.ndarray, blocks: np.ndarray, samples: int, seed: int, names: Sequence[str]
) -> dict[str, np.ndarray]:
    """Scores of each bootstrap draw by name, (samples,) each. Equal blocks and seed give equal draws, so that the
    scores of two predictors can be compared draw by draw. `names` are formulas of `moments`, or "pred_spread"."""
    _, block = np.unique(blocks, return_inverse=True)
    count = int(block.max()) + 1
    draws = np.random.default_rng(seed).multinomial(count, np.full(count, 1.0 / count), size=samples)
    summands = per_sample(target.astype("float64"), prediction.astype("float64"), np.ones(len(target)))
    sums = np.stack([np.bincount(block, row, count) for row in summands])  # (8, blocks)
    m = Moments(*(sums @ draws.T))  # each (samples,)
    found = {name: getattr(formulas, name)(m) for name in names if name != "pred_spread"}
    if "pred_spread" in names:
        highest, lowest = np.full(count, -np.inf), np.full(count, np.inf)
        np.maximum.at(highest, block, prediction)
        np.minimum.at(lowest, block, prediction)
        drawn = draws > 0
        found["pred_spread"] = np.where(drawn, highest, -np.inf).max(1) - np.where(drawn, lowest, np.inf).min(1)
    return found


def tier(found: dict[str, Any]) -> dict[str, Any]:
    """The highest tier whose conditions all hold, and the conditions that fail for the next.

    `found` are the scores of one split, in the loss's space.
    """
    name, failed = "none", []
    for candidate, limits in TIERS.items():
        failed = [text for key, limit in limits.items() if (text := _fails(found, key, limit))]
        if failed:
            return {"name": name, "next": candidate, "failed": failed}
        name = candidate
    return {"name": name, "next": None, "failed": []}


def _fails(found: dict[str, Any], key: str, limit: float) -> str:
    whole = {"rmse": "target_std", "mae": "target_std", "spread": "target_spread"}
    if key in whole:
        of = found[whole[key]]  # 0 for constant labels: then nothing holds
        value = found["pred_spread" if key == "spread" else key] / of if of > 0 else float("nan")
    else:
        value = found.get(key, float("nan"))
    name = COLUMNS["pred_spread" if key == "spread" else key].label
    label = f"{name}/{'spread' if key == 'spread' else 'std'}(label)" if key in whole else name
    below = key in ("rmse", "mae")
    holds = value < limit if below else value > limit
    return "" if holds else f"{label} {_told_apart(value, limit)}, needs {'under' if below else 'over'} {limit:g}"


def _told_apart(value: float, limit: float) -> str:
    """A value with three digits, or with as many as show that it is not the limit."""
    shown = (f"{value:.{digits}f}" for digits in range(3, 10))
    return next((text for text in shown if float(text) != limit), f"{value:.3f}")


def phase3(found: dict[str, Any], history: Sequence[dict[str, float]], best_epoch: int | None) -> dict[str, Any]:
    """The reference recipe's acceptance of a run: R² > 0, s > 0.40, spread > 0.5 (relative: 0.278), s rising.

    "Rising" is a rank correlation above 0 between the validation s and the epoch, up to the best epoch. A run of fewer
    than `FEWEST_EPOCHS` is not judged: `passed` is None.
    """
    limits = {"r2": 0.0, "variance_ratio": 0.40, "spread": 0.5 / SEED_SPREAD}
    failed = [text for key, limit in limits.items() if (text := _fails(found, key, limit))]
    ratios = [row["val_variance_ratio"] for row in history][: None if best_epoch is None else best_epoch + 1]
    trend = rank_correlation(np.arange(len(ratios)), np.asarray(ratios))
    if len(history) < FEWEST_EPOCHS:
        return {"passed": None, "failed": [], "s_trend": trend}
    if not trend > 0:
        failed.append(f"s over the epochs: rank correlation {trend:.2f}, needs over 0")
    return {"passed": not failed, "failed": failed, "s_trend": trend}


def rank_correlation(x: np.ndarray, y: np.ndarray) -> float:
    """Spearman's rank correlation; NaN for fewer than two points or for constants."""
    finite = np.isfinite(y)
    if finite.sum() < 2:
        return float("nan")
    first, second = (rankdata(v[finite]) for v in (x, y))
    if np.ptp(first) == 0 or np.ptp(second) == 0:
        return float("nan")
    return float(np.corrcoef(first, second)[0, 1])

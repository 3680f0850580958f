"""Score tables for the terminal and the report."""

from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np

from cloudml_tf.evaluation import scores
from cloudml_tf.evaluation.collect import table_rows
from cloudml_tf.evaluation.scores import COLUMNS, INFLATED, S_IS, labels, texts
from cloudml_tf.utils.console import Console

# Beside R² and s, which have cells of their own.
OTHER_COLUMNS = ("correlation", "bias", "rmse", "mae", "r2_ceiling", "spread_cost")
HEAD = ["", *labels(("r2", "variance_ratio", *OTHER_COLUMNS)), "n (n_eff)"]
ALIKE = 1.5  # a factor between standard deviations, up to which absolute limits say something
TIER_TONES = {"excellent": "good", "good": "good", "minimum": "fair", "none": "bad"}
IDENTITY = (
    f"R² = r² - (s - r)² - (bias/std)², with r the correlation and {S_IS}: r² is the ceiling of "
    "R², and (s - r)² is the cost of a wrong spread. In brackets: 95 % intervals by a bootstrap over blocks of track; "
    "after n, the number of independent samples."
)


def score_cells(name: str, found: Mapping[str, Any]) -> list[str]:
    """The cells of one row of the table."""
    s, r = found["variance_ratio"], found["correlation"]
    defined = s is not None and r is not None
    effective = f" ({found['n_eff']:.0f})" if "n_eff" in found else ""
    return [
        name,
        f"{COLUMNS['r2'].text(found['r2'])}{interval(found, 'r2')}",
        f"{COLUMNS['variance_ratio'].text(s)}{excess_tag(s) if defined and s > r + INFLATED else ''}",
        *texts({**found, "spread_cost": (s - r) ** 2 if defined else None}, OTHER_COLUMNS),
        f"{found['n']}{effective}",
    ]


def excess_tag(s: float) -> str:
    """The words behind an s that is over r by more than `INFLATED`: wider than the labels, or than the skill alone."""
    return " inflated" if s > 1 else " s above r"


def interval(found: Mapping[str, Any], key: str) -> str:
    """A score's 95 % interval as " [low, high]", or nothing."""
    return COLUMNS[key].interval(found.get("ci95", {}).get(key))


WORTH = ("r2", "variance_ratio", "correlation", "rmse")  # the scores that say what an encoder is worth


def pretraining_rows(found: Mapping[str, Any], parts: Mapping[str, Any]) -> list[list[str]]:
    """The rows of an encoder's value: its linear probe, and the scores on each of `parts` beside the control's."""
    scored = {f"val: linear probe, {name}": probed for name, probed in found["probe"].items()}
    for part, reached in parts.items():
        scored[f"{part}: pretrained"] = reached
        if "control" in found:
            scored[f"{part}: control, random weights"] = found["control"][part]
    return [[name, *texts(one, WORTH)] for name, one in scored.items()]


def print_scores(console: Console, metrics: dict[str, Any], part: str = "test") -> None:
    """Print the table and the verdict."""
    rows = [score_cells(name, found) for name, found in table_rows(metrics, part)]
    console.table(f"{part}, {metrics['space']['loss']}, 95 % intervals by block bootstrap; {S_IS}", HEAD, rows)
    console.say(*further_lines(metrics, part), *coverage_lines(metrics, part), *verdict(metrics))


def further_lines(metrics: dict[str, Any], part: str = "test") -> list[str]:
    """A line for each quantity that was learned beside the target."""
    found = {name: splits[part] for name, splits in metrics.get("further", {}).items() if part in splits}
    keys = ("r2", "correlation", "bias", "mae")
    return [f"beside it, {name}: " + ", ".join(map(str, _named_scores(each, keys))) for name, each in found.items()]


def coverage_lines(metrics: dict[str, Any], part: str = "test") -> list[str]:
    """How often intervals hold."""
    found = metrics.get("coverage", {})
    each = [
        f"{name} {one['coverage']:.1%} (mean width {one['width']:.2f})" for name, one in found.get(part, {}).items()
    ]
    return [f"{found['level']:.0%} intervals cover: {', '.join(each)}"] if each else []


def _named_scores(found: dict[str, Any], keys: tuple[str, ...]) -> list[str]:
    return [f"{COLUMNS[key].label} {COLUMNS[key].text(found[key])}" for key in keys]


def verdict(metrics: dict[str, Any]) -> list[str]:
    """Whether a baseline is better, the tier and the acceptance, in words."""
    lines = below_baseline(metrics)
    if "tier" in metrics:
        tier = metrics["tier"]
        above = f"; for {tier['next']}: {'; '.join(tier['failed'])}" if tier["failed"] else ""
        lines.append(f"tier: {tier['name']}{above}")
        lines += absolute_limits(metrics)
    if "phase3" in metrics:
        failed = metrics["phase3"]["failed"]
        lines.append("acceptance: " + ("; ".join(failed) if failed else acceptance(metrics)))
    return lines + _few_blocks(metrics)


def acceptance(metrics: dict[str, Any]) -> str:
    """Passed, failed, or not judged."""
    passed = metrics["phase3"]["passed"]
    if passed is None:
        count = metrics["training"]["epochs"]
        return f"not judged ({count} epoch{'' if count == 1 else 's'})"
    return "passed" if passed else "failed"


def below_baseline(metrics: dict[str, Any], part: str = "test") -> list[str]:
    """A line that names the best baseline of the table, where its R² is above the network's."""
    rows = {name: found[part] for name, found in metrics.get("baselines", {}).items() if part in found}
    known = {name: found for name, found in rows.items() if found["r2"] is not None and np.isfinite(found["r2"])}
    own = metrics[part]
    if not known or own["r2"] is None:
        return []
    name, best = max(known.items(), key=lambda row: row[1]["r2"])
    texts_of = [COLUMNS["r2"].text(found["r2"]) for found in (best, own)]
    if not best["r2"] > own["r2"] or texts_of[0] == texts_of[1]:
        return []
    text = f"network below the best baseline: {name} {texts_of[0]}, network {texts_of[1]}"
    return [f"{text}{_overlap(own.get('ci95', {}).get('r2'), best.get('ci95', {}).get('r2'))}"]


def _overlap(own: Sequence[float | None] | None, best: Sequence[float | None] | None) -> str:
    """Whether two 95 % intervals of R² overlap, in brackets; nothing where one is unknown."""
    if own is None or best is None or None in (*own, *best):
        return ""
    overlap = own[1] >= best[0]  # type: ignore[operator]
    return f" (R²; 95 % intervals {'overlap' if overlap else 'do not overlap'})"


def _few_blocks(metrics: dict[str, Any]) -> list[str]:
    return scores.few_blocks(metrics["test"].get("blocks", scores.FEWEST_BLOCKS))  # scenes have none


def reasons(metrics: dict[str, Any]) -> list[str]:
    """What the badges of the tier and the acceptance leave out."""
    tier, accepted = metrics.get("tier", {}), metrics.get("phase3", {})
    lines = [f"{line[0].upper()}{line[1:]}." for line in below_baseline(metrics)]
    lines += [f"For the tier {tier['next']}: {'; '.join(tier['failed'])}."] if tier.get("failed") else []
    lines += [f"Acceptance: {'; '.join(accepted['failed'])}."] if accepted.get("failed") else []
    return lines + [f"{line[0].upper()}{line[1:]}." for line in [*absolute_limits(metrics), *_few_blocks(metrics)]]


def absolute_limits(metrics: dict[str, Any]) -> list[str]:
    """The reference recipe's absolute limits beside the relative ones, for an optical depth without transform.

    They say nothing of labels whose spread is far from that of the recipe's.
    """
    found = metrics["test"]
    near = scores.SEED_STD / ALIKE < found["target_std"] < scores.SEED_STD * ALIKE
    if metrics["space"]["loss"] != "optical_depth" or not near:
        return []
    kept = []
    for name, limits in scores.ABSOLUTE_LIMITS.items():
        fails = [
            f"{COLUMNS[key].label} {found[key]:.3f}"
            for key, limit in limits.items()
            if not (found[key] > limit if key == "pred_spread" else found[key] < limit)
        ]
        kept.append(f"{name} {'met' if not fails else 'missed by ' + ', '.join(fails)}")
    return [f"by the absolute limits of the reference recipe (made for std {scores.SEED_STD:g}): " + "; ".join(kept)]

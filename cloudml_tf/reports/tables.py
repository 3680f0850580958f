"""Score tables for the terminal and the report."""

from collections.abc import Mapping
from typing import Any

from cloudml_tf.evaluation import scores
from cloudml_tf.evaluation.collect import table_rows
from cloudml_tf.evaluation.scores import COLUMNS, INFLATED, S_IS, labels, texts
from cloudml_tf.utils.console import Console

# Beside R² and s, which have cells of their own.
OTHER_COLUMNS = ("correlation", "bias", "rmse", "mae", "r2_ceiling", "spread_cost")
HEAD = ["", *labels(("r2", "variance_ratio", *OTHER_COLUMNS)), "n (n_eff)"]
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
        f"{COLUMNS['variance_ratio'].text(s)}{' inflated' if defined and s > r + INFLATED else ''}",
        *texts({**found, "spread_cost": (s - r) ** 2 if defined else None}, OTHER_COLUMNS),
        f"{found['n']}{effective}",
    ]


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
    console.say(*verdict(metrics))


def verdict(metrics: dict[str, Any]) -> list[str]:
    """The tier and the acceptance in words."""
    lines = []
    if "tier" in metrics:
        tier = metrics["tier"]
        above = f"; for {tier['next']}: {'; '.join(tier['failed'])}" if tier["failed"] else ""
        lines.append(f"tier: {tier['name']}{above}")
        lines += absolute_limits(metrics)
    if "phase3" in metrics:
        accepted = metrics["phase3"]
        lines.append("acceptance: " + ("passed" if accepted["passed"] else "; ".join(accepted["failed"])))
    return lines + _few_blocks(metrics)


def _few_blocks(metrics: dict[str, Any]) -> list[str]:
    return scores.few_blocks(metrics["test"].get("blocks", scores.FEWEST_BLOCKS))  # scenes have none


def reasons(metrics: dict[str, Any]) -> list[str]:
    """What the badges of the tier and the acceptance leave out."""
    tier, accepted = metrics.get("tier", {}), metrics.get("phase3", {})
    lines = [f"For the tier {tier['next']}: {'; '.join(tier['failed'])}."] if tier.get("failed") else []
    lines += [f"Acceptance: {'; '.join(accepted['failed'])}."] if accepted.get("failed") else []
    return lines + [f"{line[0].upper()}{line[1:]}." for line in [*absolute_limits(metrics), *_few_blocks(metrics)]]


def absolute_limits(metrics: dict[str, Any]) -> list[str]:
    """The reference recipe's absolute limits beside the relative ones, for an optical depth without transform."""
    if metrics["space"]["loss"] != "optical_depth":
        return []
    found = metrics["test"]
    kept = []
    for name, limits in scores.ABSOLUTE_LIMITS.items():
        fails = [
            f"{COLUMNS[key].label} {found[key]:.3f}"
            for key, limit in limits.items()
            if not (found[key] > limit if key == "pred_spread" else found[key] < limit)
        ]
        kept.append(f"{name} {'met' if not fails else 'missed by ' + ', '.join(fails)}")
    return [f"by the absolute limits of the reference recipe (made for std {scores.SEED_STD:g}): " + "; ".join(kept)]

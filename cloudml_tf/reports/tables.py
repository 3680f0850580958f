"""Score tables for the terminal and the report."""

from collections.abc import Mapping
from typing import Any

import numpy as np

from cloudml_tf.evaluation.collect import table_rows
from cloudml_tf.evaluation.scores import ABSOLUTE_LIMITS, FEWEST_BLOCKS, SEED_STD, few_blocks
from cloudml_tf.utils.console import Console

COLUMNS = ["", "R²", "s", "r", "bias", "RMSE", "MAE", "ceiling r²", "cost (s-r)²", "n (n_eff)"]
TIER_TONES = {"excellent": "good", "good": "good", "minimum": "fair", "none": "bad"}
IDENTITY = (
    "R² = r² - (s - r)² - (bias/std)², with r the correlation and s = std(prediction)/std(lidar): r² is the ceiling of "
    "R², and (s - r)² is what a wrong spread costs. In brackets: 95 % intervals by a bootstrap over blocks of track; "
    "behind n, the number of independent samples."
)


def number(value: float | None, form: str) -> str:
    """A score as text; a dash where it is not defined (JSON has null for it)."""
    return format(value, form) if value is not None and np.isfinite(value) else "-"


def percent(value: float | None) -> str:
    """A ratio as per cent."""
    return "-" if value is None else f"{number(100 * value, '.1f')} %"


def score_cells(name: str, found: Mapping[str, Any]) -> list[str]:
    """One row of the table."""
    s, r = found["variance_ratio"], found["correlation"]
    defined = s is not None and r is not None
    effective = f" ({found['n_eff']:.0f})" if "n_eff" in found else ""
    return [
        name,
        f"{number(found['r2'], '.3f')}{interval(found, 'r2')}",
        f"{percent(s)}{' inflated' if defined and s > r + 0.1 else ''}",
        number(r, ".3f"),
        number(found["bias"], "+.3f"),
        number(found["rmse"], ".3f"),
        number(found["mae"], ".3f"),
        number(found["r2_ceiling"], ".3f"),
        number((s - r) ** 2 if defined else None, ".4f"),
        f"{found['n']}{effective}",
    ]


def interval(found: Mapping[str, Any], key: str, scale: float = 1.0, form: str = ".3f") -> str:
    """A 95 % interval as " [low, high]", or nothing."""
    ends = found.get("ci95", {}).get(key)
    return "" if ends is None else f" [{', '.join(number(e if e is None else scale * e, form) for e in ends)}]"


def print_scores(console: Console, metrics: dict[str, Any], part: str = "test") -> None:
    """The table and the verdict, on the terminal."""
    rows = [score_cells(name, found) for name, found in table_rows(metrics, part)]
    console.table(f"{part}, {metrics['space']['loss']}, 95 % intervals by block bootstrap", COLUMNS, rows)
    for line in verdict(metrics):
        console.say(line)


def verdict(metrics: dict[str, Any]) -> list[str]:
    """Tier and acceptance in words."""
    lines = []
    if "tier" in metrics:
        tier = metrics["tier"]
        above = f"; for {tier['next']}: {'; '.join(tier['failed'])}" if tier["failed"] else ""
        lines.append(f"tier: {tier['name']}{above}")
        lines += absolute_limits(metrics)
    if "phase3" in metrics:
        accepted = metrics["phase3"]
        lines.append("phase 3: " + ("passed" if accepted["passed"] else "; ".join(accepted["failed"])))
    return lines + _few_blocks(metrics)


def _few_blocks(metrics: dict[str, Any]) -> list[str]:
    return few_blocks(metrics["test"].get("blocks", FEWEST_BLOCKS))  # scenes have none


def reasons(metrics: dict[str, Any]) -> list[str]:
    """What the badges of the tier and the acceptance do not say."""
    tier, accepted = metrics.get("tier", {}), metrics.get("phase3", {})
    lines = [f"For the tier {tier['next']}: {'; '.join(tier['failed'])}."] if tier.get("failed") else []
    lines += [f"Phase 3: {'; '.join(accepted['failed'])}."] if accepted.get("failed") else []
    return lines + [f"{line[0].upper()}{line[1:]}." for line in [*absolute_limits(metrics), *_few_blocks(metrics)]]


def absolute_limits(metrics: dict[str, Any]) -> list[str]:
    """The original's absolute limits beside the relative ones, for an optical depth that was not transformed."""
    if metrics["space"]["loss"] != "optical_depth":
        return []
    found = metrics["test"]
    kept = []
    for name, limits in ABSOLUTE_LIMITS.items():
        fails = [
            f"{key} {found[key]:.3f}"
            for key, limit in limits.items()
            if not (found[key] > limit if key == "pred_spread" else found[key] < limit)
        ]
        kept.append(f"{name} {'met' if not fails else 'missed by ' + ', '.join(fails)}")
    return [f"in the original's absolute limits (made for std {SEED_STD:g}): " + "; ".join(kept)]

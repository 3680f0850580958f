"""Summarise a grid: a table per variant and group, mean ± std over seeds, and differences paired by seed."""

from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np
from scipy import stats

from cloudml_tf.config.run_folder import read_json
from cloudml_tf.evaluation.scores import COLUMNS, labels, number
from cloudml_tf.experiments.grid.cells import DONE, FAILED, Cell, Grid

SCORES = ("r2", "mae", "variance_ratio", "pred_spread", "correlation", "bias", "r2_ceiling", "rmse")
TIERS = ("excellent", "good", "minimum", "none")


def summarise(grid: Grid, wanted: Sequence[Cell], home: Path) -> dict[str, Any]:
    """All results of a grid: {"variants": {variant: {row: …}}, "failed": […], "done": n, "cells": n}."""
    found: dict[str, dict[str, Any]] = {}
    failed = []
    runs: dict[tuple[str, str], dict[int, dict[str, Any]]] = {}
    for cell in wanted:
        folder = cell.folder(home)
        here = runs.setdefault((cell.variant, cell.row), {})
        if (folder / DONE).is_file():
            here[cell.seed] = read_json(folder / DONE)
        elif (folder / FAILED).is_file():
            failed.append({"cell": cell.name, "error": read_json(folder / FAILED)["error"]})
    for (variant, row), by_seed in runs.items():
        chosen = grid.rows[row]
        against = chosen.against or grid.reference or ""
        others = runs.get((variant, against), {}) if row != against else {}
        one = {"group": chosen.group, "expected": chosen.expected, "figures": chosen.figures, "against": against}
        found.setdefault(variant, {})[row] = {**one, **row_summary(by_seed, others)}
    total = sum(len(by_seed) for by_seed in runs.values())
    return {
        "experiment": grid.experiment_name,
        "variants": found,
        "failed": failed,
        "done": total,
        "cells": len(wanted),
    }


def row_summary(by_seed: dict[int, dict[str, Any]], reference: dict[int, dict[str, Any]]) -> dict[str, Any]:
    """Mean, std and median of each test score over seeds; tiers; and R² against the reference row, paired by seed."""
    found: dict[str, Any] = {"seeds": sorted(by_seed)}
    for key in SCORES:
        values = np.asarray([_number(m["test"][key]) for m in by_seed.values()], "float64")
        found[key] = spread_of(values)
    found["target_spread"] = spread_of(np.asarray([_number(m["test"]["target_spread"]) for m in by_seed.values()]))
    found["seconds"] = spread_of(np.asarray([m["training"]["seconds"] for m in by_seed.values()], "float64"))
    found["epochs"] = spread_of(np.asarray([m["training"]["epochs"] for m in by_seed.values()], "float64"))
    found["collapsed"] = sum(bool(m["training"]["collapsed"]) for m in by_seed.values())
    found["phase3_passed"] = sum(bool(m["phase3"]["passed"]) for m in by_seed.values())
    found["tiers"] = {name: sum(m["tier"]["name"] == name for m in by_seed.values()) for name in TIERS}
    for name in ("ridge", "gradient_boosting"):
        if all(name in m.get("baselines", {}) for m in by_seed.values()) and by_seed:
            baseline = [_number(m["baselines"][name]["test"]["r2"]) for m in by_seed.values()]
            found[f"{name}_r2"] = spread_of(np.asarray(baseline))
    if all("oracle" in m for m in by_seed.values()) and by_seed:
        found["oracle_r2"] = spread_of(np.asarray([_number(m["oracle"]["test"]["r2"]) for m in by_seed.values()]))
    if all("diagnosis" in m for m in by_seed.values()) and by_seed:
        verdicts = [m["diagnosis"]["verdict"] for m in by_seed.values()]
        found["verdicts"] = {verdict: verdicts.count(verdict) for verdict in sorted(set(verdicts))}
    shared = sorted(set(by_seed) & set(reference))
    if len(shared) > 1:
        found["against_reference"] = paired(by_seed, reference, shared)
        found["rmse_change"] = relative_change(by_seed, reference, shared)
    return found


def paired(
    by_seed: dict[int, dict[str, Any]], reference: dict[int, dict[str, Any]], seeds: Sequence[int], key: str = "r2"
) -> dict[str, Any]:
    """Mean difference of a score, row minus reference, with its 95 % t interval over seeds."""
    found = t_interval([_number(by_seed[s]["test"][key]) - _number(reference[s]["test"][key]) for s in seeds])
    low, high = found["interval"]
    return {"seeds": list(seeds), **found, "beyond_chance": low > 0 or high < 0}


def relative_change(
    by_seed: dict[int, dict[str, Any]], reference: dict[int, dict[str, Any]], seeds: Sequence[int], key: str = "rmse"
) -> dict[str, Any]:
    """The relative difference of a score from the reference row's, with its 95 % t interval over seeds."""
    return t_interval([_number(by_seed[s]["test"][key]) / _number(reference[s]["test"][key]) - 1.0 for s in seeds])


def t_interval(values: Sequence[float] | np.ndarray) -> dict[str, Any]:
    """{"mean", "interval"}: for two values or more with the 95 % interval of Student's t."""
    found = np.asarray(values, "float64")
    mean = float(found.mean())
    half = float(stats.t.ppf(0.975, len(found) - 1) * found.std(ddof=1) / np.sqrt(len(found)))
    return {"mean": mean, "interval": [mean - half, mean + half]}


def spread_of(values: np.ndarray) -> dict[str, float | None]:
    """Mean, std and median of the finite values; None where there are none."""
    values = values[np.isfinite(values)]
    if not len(values):
        return {"mean": None, "std": None, "median": None}
    std = float(values.std(ddof=1)) if len(values) > 1 else 0.0
    return {"mean": float(values.mean()), "std": std, "median": float(np.median(values))}


def _number(value: float | None) -> float:
    return float("nan") if value is None else float(value)


HEAD = ["", "n", *labels(SCORES), "tier", "time/run, s", "ΔR², 95 %", "ΔRMSE"]


def cells_of(name: str, found: dict[str, Any]) -> list[str]:
    """The cells of a table row."""
    tier = ", ".join(f"{count} {tier}" for tier, count in found["tiers"].items() if count)
    against = found.get("against_reference")
    change = less = "-"
    if against:
        low, high = against["interval"]
        change = f"{against['mean']:+.3f} [{low:+.3f}, {high:+.3f}]"
        less = number(found["rmse_change"]["mean"], "+.1%")
    return [
        name,
        str(len(found["seeds"])) + (f", {found['collapsed']} aborted" if found["collapsed"] else ""),
        *(COLUMNS[key].with_std(found[key]) for key in SCORES),
        tier,
        number(found["seconds"]["mean"], ".0f"),
        change,
        less,
    ]

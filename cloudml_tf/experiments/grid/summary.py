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
Runs = dict[int, dict[str, Any]]  # seed -> metrics


def summarise(grid: Grid, wanted: Sequence[Cell], home: Path) -> dict[str, Any]:
    """All results of a grid: {"variants": {variant: {row: …}}, "failed": […], "done": n, "cells": n}."""
    found: dict[str, dict[str, Any]] = {}
    failed = []
    runs: dict[tuple[str, str], Runs] = {}
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
    counts = {"done": sum(len(by_seed) for by_seed in runs.values()), "cells": len(wanted)}
    return {"experiment": grid.experiment_name, "variants": found, "failed": failed, **counts}


def row_summary(by_seed: Runs, reference: Runs) -> dict[str, Any]:
    """Mean, std and median of each test score over seeds; tiers; and R² against the reference row, paired by seed."""
    found: dict[str, Any] = {"seeds": sorted(by_seed)}
    runs = list(by_seed.values())
    found |= {key: spread_of([run["test"][key] for run in runs]) for key in (*SCORES, "target_spread")}
    found |= {key: spread_of([run["training"][key] for run in runs]) for key in ("seconds", "epochs")}
    found["collapsed"] = sum(bool(run["training"]["collapsed"]) for run in runs)
    found["phase3_passed"] = sum(bool(run["phase3"]["passed"]) for run in runs)
    found["tiers"] = {name: sum(run["tier"]["name"] == name for run in runs) for name in TIERS}
    for name in ("ridge", "gradient_boosting", "plane_sweep"):
        if runs and all(name in run.get("baselines", {}) for run in runs):
            found[f"{name}_r2"] = spread_of([run["baselines"][name]["test"]["r2"] for run in runs])
    if runs and all("oracle" in run for run in runs):
        found["oracle_r2"] = spread_of([run["oracle"]["test"]["r2"] for run in runs])
    if runs and all("diagnosis" in run for run in runs):
        verdicts = [run["diagnosis"]["verdict"] for run in runs]
        found["verdicts"] = {verdict: verdicts.count(verdict) for verdict in sorted(set(verdicts))}
    shared = sorted(set(by_seed) & set(reference))
    if len(shared) > 1:
        found["against_reference"] = paired(by_seed, reference, shared)
        found["rmse_change"] = t_interval(_of(by_seed, shared, "rmse") / _of(reference, shared, "rmse") - 1.0)
    return found


def paired(by_seed: Runs, reference: Runs, seeds: Sequence[int]) -> dict[str, Any]:
    """Mean difference of R², row minus reference, with its 95 % t interval over seeds."""
    found = t_interval(_of(by_seed, seeds, "r2") - _of(reference, seeds, "r2"))
    low, high = found["interval"]
    return {"seeds": list(seeds), **found, "beyond_chance": low > 0 or high < 0}


def _of(runs: Runs, seeds: Sequence[int], key: str) -> np.ndarray:
    """A score on the test split, a value for each seed; NaN where it is not defined."""
    return np.asarray([runs[seed]["test"][key] for seed in seeds], "float64")


def t_interval(values: Sequence[float] | np.ndarray) -> dict[str, Any]:
    """{"mean", "interval"}: for two values or more with the 95 % interval of Student's t."""
    found = np.asarray(values, "float64")
    mean = float(found.mean())
    half = float(stats.t.ppf(0.975, len(found) - 1) * found.std(ddof=1) / np.sqrt(len(found)))
    return {"mean": mean, "interval": [mean - half, mean + half]}


def spread_of(values: Sequence[float | None] | np.ndarray) -> dict[str, float | None]:
    """Mean, std and median of the finite values; None where there are none."""
    found = np.asarray(values, "float64")  # NaN for None
    found = found[np.isfinite(found)]
    if not len(found):
        return {"mean": None, "std": None, "median": None}
    std = float(found.std(ddof=1)) if len(found) > 1 else 0.0
    return {"mean": float(found.mean()), "std": std, "median": float(np.median(found))}


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

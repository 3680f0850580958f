"""Compare runs, without printing: the reference recipe's table with bias and RMSE, winners, leads and differences.

Each run is represented by its best epoch, whose weights were evaluated. In the lead of a row is the highest, but the
lowest RMSE and MAE, the bias nearest to 0, the s nearest to 1 and the spread nearest to that of the labels: for
collapsed runs these are the highest, as in the recipe's table, and an inflated run does not win by its noise. It is the
winner where the 95 % interval of its lead, from a paired bootstrap over blocks of track, does not contain 0.
"""

import json
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np

from cloudml_tf.config.run_folder import flat, read_json, read_run
from cloudml_tf.config.schema import Config
from cloudml_tf.data.independence import block_ids, scene_blocks
from cloudml_tf.data.readers.arrays import read_npz
from cloudml_tf.data.scaling import Scaling
from cloudml_tf.evaluation.scores import COLUMNS, INFLATED, drawn_scores, few_blocks, scores
from cloudml_tf.utils.errors import RunError

ROWS = ("r2", "rmse", "mae", "bias", "variance_ratio", "pred_spread", "correlation")
NO_WINNER = "no winner is named: the runs were tested on different flights, and one flight is easier than another"
SMALLEST_SHARE = 0.5  # of the test samples that two runs must have in common for a paired comparison


@dataclass(frozen=True)
class Run:
    """A finished run."""

    name: str
    folder: Path
    config: Config
    description: dict[str, Any]
    metrics: dict[str, Any]
    arrays: dict[str, np.ndarray]  # predictions.npz

    def scores(self, space: str) -> dict[str, Any]:
        """Scores of the test split, in the loss's space or in physical units."""
        return self.metrics["test"] if space == "loss" else self.metrics["test"]["physical"]

    @property
    def known(self) -> np.ndarray:
        """(n, *P) bool: where the test split has labels."""
        return np.isfinite(self.arrays["test_label"])

    def test(self, space: str, chosen: Any = slice(None)) -> tuple[np.ndarray, np.ndarray]:
        """Labels and predictions, (k,) each, in the same space; of some examples of the test split, or of all."""
        known = self.known[chosen]
        label, prediction = (self.arrays[f"test_{name}"][chosen][known] for name in ("label", "prediction"))
        if space == "physical":
            return label, prediction
        scaling = Scaling.from_json(self.description["scaling"]).target
        # Smearing belongs to physical units alone.
        return scaling.transform(label), scaling.transform(prediction / scaling.smearing)

    def blocks(self, block_s: float, chosen: Any = slice(None)) -> np.ndarray:
        """The bootstrap block of each of these labels, (k,)."""
        label = self.arrays["test_label"]
        flight = self.arrays["test_flight" if "test_flight" in self.arrays else "test_scene"]
        number = np.unique(flight, return_inverse=True)[1]
        if "test_time_s" in self.arrays:
            number = block_ids(self.arrays["test_time_s"], number, np.zeros_like(number), block_s)
        else:
            number = scene_blocks(number)
        spread = number.reshape(-1, *(1,) * (label.ndim - 1))
        return np.broadcast_to(spread, label.shape)[chosen][self.known[chosen]]

    def samples(self) -> list[tuple[str, Any, bytes]]:
        """What identifies each test example: flight or group, time or scene, and its labels."""
        times = self.arrays["test_time_s" if "test_time_s" in self.arrays else "test_scene"].tolist()
        flights = self.arrays["test_flight" if "test_flight" in self.arrays else "test_scene"].tolist()
        labels = [label.tobytes() for label in self.arrays["test_label"]]
        return list(zip(flights, times, labels, strict=True))


def read_finished(folder: Path, name: str) -> Run:
    """Read a run folder. Raises `RunError` for one that is not finished."""
    config, description = read_run(folder)
    if not (folder / "metrics.json").is_file() or not (folder / "predictions.npz").is_file():
        raise RunError(f"{folder}: is not finished, so there is nothing to compare. `cloudml diagnose` says why.")
    arrays = read_npz(folder / "predictions.npz")
    return Run(name, folder, config, description, read_json(folder / "metrics.json"), arrays)


def short_names(folders: list[Path]) -> list[str]:
    """The last part of each path, with as many before it as make the names distinct."""
    parts = [folder.resolve().parts for folder in folders]
    for length in range(1, max(map(len, parts)) + 1):
        names = ["/".join(found[-length:]) for found in parts]
        if len(set(names)) == len(names):
            return names
    raise RunError(f"{folders[0]}: is named twice. Give different runs.")


def read_all(folders: list[Path]) -> list[Run]:
    """Read two runs or more, with distinct names. Raises `RunError`."""
    if len(folders) < 2:
        raise RunError("compare needs two runs or more.")
    return [read_finished(folder, name) for folder, name in zip(folders, short_names(folders), strict=True)]


def compare(folders: list[Path], overrides: dict[str, Any] | None = None) -> dict[str, Any]:
    """The table, tiers, differences and warnings. `overrides` change evaluation.* and seed of the bootstrap."""
    runs = read_all(folders)
    evaluated = read_run(folders[0], overrides)[0]
    if len({run.config.target.name for run in runs}) > 1:
        shown = ", ".join(f"{run.name}: {run.config.target.name}" for run in runs)
        raise RunError(f"the runs predict different quantities ({shown}) and cannot be compared.")
    space = space_of(runs)
    ranked = same_flights(runs)
    return {
        "runs": {run.name: str(run.folder) for run in runs},
        "space": runs[0].metrics["space"][space],
        "rows": [row(key, runs, space, evaluated, ranked) for key in ROWS],
        "tier": {run.name: run.metrics["tier"]["name"] for run in runs},
        "best_epoch": {run.name: run.metrics["training"]["best_epoch"] for run in runs},
        "epochs": {run.name: run.metrics["training"]["epochs"] for run in runs},
        "diagnosis": {run.name: run.metrics.get("diagnosis", {}).get("verdict") for run in runs},
        "inflated": {run.name: _excess(run, space) for run in runs if _excess(run, space) > INFLATED},
        "config_difference": config_difference(runs),
        "warnings": [*warnings(runs), *([] if ranked else [NO_WINNER]), *_few_blocks(runs, evaluated)],
    }


def same_flights(runs: list[Run]) -> bool:
    """Whether all runs were tested on the same flights, so that their scores can be ranked."""
    return len({tuple(sorted(run.description["split"]["test"]["flights"])) for run in runs}) == 1


def space_of(runs: list[Run]) -> str:
    """The loss's space, where all runs share it; else physical units."""
    return "loss" if len({run.metrics["space"]["loss"] for run in runs}) == 1 else "physical"


def _excess(run: Run, space: str) -> float:
    found = run.scores(space)
    s, r = found["variance_ratio"], found["correlation"]
    return float("nan") if s is None or r is None else float(s - r)


def merit(key: str, value: Any, target_spread: float) -> Any:
    """Convert a score, a number or an array, so that more is better, by its `Column.better`."""
    better = COLUMNS[key].better
    wanted = {"lower": 0.0, "near 0": 0.0, "near 1": 1.0, "near target_spread": target_spread}
    return value if better == "higher" else -np.abs(value - wanted[better])


def row(key: str, runs: list[Run], space: str, evaluated: Config, ranked: bool = True) -> dict[str, Any]:
    """One score of every run, the one in the lead, its lead (in `merit`), and the winner, where that is beyond chance.

    Runs that are not to be `ranked` have neither, and a score that a single run has, has no winner.
    """
    found_scores = {run.name: run.scores(space) for run in runs}
    values = {name: scored[key] for name, scored in found_scores.items()}
    defined = {name: value for name, value in values.items() if value is not None}
    found: dict[str, Any] = {"metric": key, "label": COLUMNS[key].label, "values": values, "winner": None}
    if not ranked:
        return found
    merits = {name: merit(key, value, found_scores[name]["target_spread"]) for name, value in defined.items()}
    best = sorted((run for run in runs if run.name in merits), key=lambda run: merits[run.name], reverse=True)
    if len(best) < 2:
        return found
    first, second = best[:2]
    lead, (low, high), paired = lead_of(first, second, key, space, evaluated)
    return {
        **found,
        "winner": first.name if low > 0 else None,
        "leader": first.name,
        "runner_up": second.name,
        "lead": lead,
        "interval": [low, high],
        "paired": paired,
        "exceeds_interval": low > 0,
    }


def lead_of(
    first: Run, second: Run, key: str, space: str, evaluated: Config
) -> tuple[float, tuple[float, float], bool]:
    """The first's merit minus the second's, its 95 % interval, and whether they are paired.

    Paired: both on the test samples that they share, block by block. Where those are fewer than half, the two are drawn
    independently; whatever is easier about one's samples is then in the lead too.
    """
    a, b = first.samples(), second.samples()
    shared = set(a) & set(b)
    paired = len(shared) >= max(2, SMALLEST_SHARE * max(len(a), len(b)))
    values, drawn, counts = [], [], []
    for number, (run, samples) in enumerate(((first, a), (second, b))):
        here = np.array([not paired or sample in shared for sample in samples])
        label, prediction = run.test(space, here)
        scored = scores(label, prediction)
        values.append(merit(key, scored[key], scored["target_spread"]))
        seed, draws = evaluated.seed + (0 if paired else number), evaluated.evaluation.bootstrap_samples
        blocks = run.blocks(evaluated.evaluation.block_s, here)
        counts.append(len(np.unique(blocks)))
        scores_drawn = drawn_scores(label, prediction, blocks, draws, seed, (key,))[key]
        drawn.append(merit(key, scores_drawn, scored["target_spread"]))
    if min(counts) < 2:
        return values[0] - values[1], (float("nan"), float("nan")), paired  # every draw is that block
    low, high = np.nanquantile(drawn[0] - drawn[1], [0.025, 0.975])
    return values[0] - values[1], (float(low), float(high)), paired


def config_difference(runs: list[Run]) -> dict[str, dict[str, Any]]:
    """The fields in which the configurations differ, with each run's value, except where results are written."""
    each = {run.name: flat(run.config.model_dump(mode="json")) for run in runs}
    fields = sorted({field for found in each.values() for field in found if not field.startswith("output.")})
    return {
        field: {name: found.get(field) for name, found in each.items()}
        for field in fields
        if len({json.dumps(found.get(field)) for found in each.values()}) > 1
    }


def warnings(runs: list[Run]) -> Iterator[str]:
    """Reasons why the scores may not be comparable."""
    first = runs[0]
    for other in runs[1:]:
        who = f"{first.name} and {other.name}"
        splits = [{p: d["flights"] for p, d in run.description["split"].items()} for run in (first, other)]
        changed = [part for part in splits[0] if splits[0][part] != splits[1].get(part)]
        if changed:
            shown = "; ".join(f"{p}: {', '.join(splits[0][p])} against {', '.join(splits[1][p])}" for p in changed)
            yield f"splits differ: {who} ({shown})"
        a, b = set(first.samples()), set(other.samples())
        if "test" not in changed and a != b:
            yield (
                f"test samples differ: {who} have {len(a & b)} in common, of {len(a)} and {len(b)}; leads are computed "
                "on those, values are each run's own"
            )
        elif not changed and _other_data(first, other):
            yield f"data differ: {who} were trained on other files, labels or sequences"
    spaces = {run.metrics["space"]["loss"] for run in runs}
    if len(spaces) > 1:
        yield f"the losses work on {' and '.join(sorted(spaces))}: compared in physical units"


def _few_blocks(runs: list[Run], evaluated: Config) -> list[str]:
    return few_blocks(min(len(np.unique(run.blocks(evaluated.evaluation.block_s))) for run in runs))


def _other_data(first: Run, other: Run) -> bool:
    """Whether fingerprints differ although sequences have the same length, or the training labels do."""
    same_length = first.config.temporal_frames == other.config.temporal_frames
    if first.description["fingerprint"] != other.description["fingerprint"] and same_length:
        return True
    return not np.array_equal(first.arrays["train_label"], other.arrays["train_label"], equal_nan=True)

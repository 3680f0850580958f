"""Judge recipes and baselines by their predictions of flights that were left out. NumPy only.

The predictions are made by `cloudml_tf.experiments.selection`, in the space in which the network learns.
"""

from collections.abc import Mapping
from typing import Any

import numpy as np

from cloudml_tf.evaluation.flight_intervals import fit_flight_intervals
from cloudml_tf.evaluation.scores import labels, number, scores, texts
from cloudml_tf.utils.errors import NotFiniteError

REGRESSIONS = ("ridge", "gradient_boosting")  # that a network is averaged with
AVERAGED = "averaged"
SHOWN = ("rmse", "r2", "correlation", "variance_ratio")
HEAD = ["", *labels(SHOWN), "std of biases", "worst R²"]
NOTHING = 0.05  # a factor below which a network adds nothing

Fold = dict[str, np.ndarray]  # "target", "mean" and a prediction by the name of what made it, (n,)


def predictions_left_out(
    folds: Mapping[str, Mapping[str, Fold]], recipes: list[str], average: bool
) -> tuple[dict[str, np.ndarray], dict[str, dict[str, np.ndarray]], dict[str, list[float]]]:
    """Targets of each flight, predictions of it by row of the table, and the factors of each recipe's average.

    Args:
        folds: flight -> "baselines" or a recipe -> its predictions.
        recipes: in the order of the rows.
        average: whether networks are averaged with the regressions, by factors from the other flights.
    """
    target = {name: fold["baselines"]["target"] for name, fold in folds.items()}
    mean = {name: fold["baselines"]["mean"] for name, fold in folds.items()}
    others = [key for key in next(iter(folds.values()))["baselines"] if key not in ("target", "mean")]
    rows: dict[str, dict[str, np.ndarray]] = {
        "mean": {name: np.full(len(target[name]), mean[name]) for name in folds},
        **{key: {name: fold["baselines"][key] for name, fold in folds.items()} for key in others},
    }
    factors: dict[str, list[float]] = {}
    for recipe in recipes:
        rows[recipe] = {name: fold[recipe]["network"] for name, fold in folds.items()}
        if average and all(np.isfinite(each).all() for each in rows[recipe].values()):
            parts = [rows[recipe], *(rows[name] for name in REGRESSIONS)]
            rows[f"{AVERAGED}, {recipe}"], factors[recipe] = _averaged(target, mean, parts)
    return target, rows, factors


def judged(folds: Mapping[str, Mapping[str, Fold]], recipes: list[str], average: bool) -> dict[str, Any]:
    """Choose by the predictions of each flight that was left out; what selection.json and metrics.json hold.

    The arguments are those of `predictions_left_out`; of equal recipes the first is taken.
    """
    target, rows, factors = predictions_left_out(folds, recipes, average)
    scored = {key: scored_by_flight(target, row) for key, row in rows.items()}
    tried = [*recipes, *(f"{AVERAGED}, {recipe}" for recipe in factors)]
    ours = min(tried, key=lambda name: (not np.isfinite(scored[name]["rmse"]), scored[name]["rmse"]))
    if not np.isfinite(scored[ours]["rmse"]):
        raise NotFiniteError("the loss of every recipe stops being a number on some flight; lower the learning rate.")
    recipe = ours.removeprefix(f"{AVERAGED}, ")
    best = min((name for name in rows if name not in tried), key=lambda name: scored[name]["rmse"])
    found: dict[str, Any] = {"recipe": recipe, "ours": ours, "best_baseline": best, "rows": scored}
    if ours != recipe:
        found["factors"] = dict(zip(("network", *REGRESSIONS), factors[recipe], strict=True))
    intervals = fit_flight_intervals(target, rows[ours])
    if intervals is not None:
        found["intervals"] = intervals.to_json()
    return {**found, "against_best": paired(scored[ours], scored[best])}


def _averaged(
    target: Mapping[str, np.ndarray], mean: Mapping[str, np.ndarray], parts: list[dict[str, np.ndarray]]
) -> tuple[dict[str, np.ndarray], list[float]]:
    """The average on each flight, by factors of the others; and the factors of all flights together."""
    seen = {name: np.stack([part[name] - mean[name] for part in parts], axis=1) for name in target}
    found = {}
    for name in target:
        factors = _fit({other: target[other] - mean[other] for other in target if other != name}, seen)
        found[name] = mean[name] + seen[name] @ factors
    return found, _fit({name: target[name] - mean[name] for name in target}, seen).tolist()


def _fit(wanted: Mapping[str, np.ndarray], seen: Mapping[str, np.ndarray]) -> np.ndarray:
    """Factors of no negative value, by least squares over flights of equal weight."""
    from scipy.optimize import nnls

    weight = np.concatenate([np.full(len(each), len(each) ** -0.5) for each in wanted.values()])
    columns = np.concatenate([seen[name] for name in wanted]) * weight[:, None]
    found, _ = nnls(columns, np.concatenate(list(wanted.values())) * weight)
    return np.asarray(found)


def scored_by_flight(target: Mapping[str, np.ndarray], prediction: Mapping[str, np.ndarray]) -> dict[str, Any]:
    """Scores of each flight; the root of the mean squared error over flights of equal weight; the spread of biases."""
    flights = {name: scores(target[name], prediction[name]) for name in target}
    mse = np.array([one["rmse"] ** 2 for one in flights.values()])
    pooled = scores(*(np.concatenate([each[name] for name in target]) for each in (target, prediction)))
    biases = np.array([one["bias"] for one in flights.values()])
    spread = {key: [one[key] for one in flights.values() if np.isfinite(one[key])] or [np.nan] for key in SHOWN}
    return {
        "rmse": float(np.sqrt(mse.mean())),
        "r2": pooled["r2"],
        "correlation": float(np.median(spread["correlation"])),
        "variance_ratio": float(np.median(spread["variance_ratio"])),
        "bias_spread": float(biases.std()),
        "worst_r2": float(min(spread["r2"])),
        "flights": {name: {key: one[key] for key in (*SHOWN, "bias", "n")} for name, one in flights.items()},
    }


def paired(ours: Mapping[str, Any], theirs: Mapping[str, Any]) -> dict[str, Any]:
    """RMSE less the other's, flight by flight: the mean, its 90 % interval (Student), and on how many it is lower."""
    from scipy.stats import t

    gap = np.array([ours["flights"][name]["rmse"] - theirs["flights"][name]["rmse"] for name in ours["flights"]])
    half = float(t.ppf(0.95, len(gap) - 1) * gap.std(ddof=1) / len(gap) ** 0.5)
    middle = float(gap.mean())
    return {"mean": middle, "ci90": [middle - half, middle + half], "better": int((gap < 0).sum()), "of": len(gap)}


def against_in_words(ours: str, best: str, gap: Mapping[str, Any]) -> str:
    """Whether a model beats the best baseline on flights left out, by the interval of `paired`."""
    low, high = gap["ci90"]
    lower = f"lower on {gap['better']} of {gap['of']} flights"
    interval = f"{lower}, mean difference {gap['mean']:+.3f}, 90 % interval {low:+.3f} to {high:+.3f}"
    if high < 0:
        return f"on flights left out {ours} beats the best baseline, {best}: RMSE is {interval}"
    if low > 0:
        return f"a baseline wins: on flights left out {best} is better than {ours}, whose RMSE is {interval}"
    return f"on flights left out {ours} and the best baseline, {best}, are level within chance: RMSE is {interval}"


def in_words(found: Mapping[str, Any]) -> list[str]:
    """What was chosen, and whether a baseline is as good, in sentences that the table bears out."""
    verdict = against_in_words(f"'{found['ours']}'", found["best_baseline"], found["against_best"])
    said = [verdict]
    if "factors" in found:
        shares = ", ".join(f"{value:.2f} x {name}" for name, value in found["factors"].items())
        said.append(f"the prediction is the training mean and the deviations from it of {shares}")
        if found["factors"]["network"] < NOTHING:
            said.append("the network adds nothing there: what is trained is in effect a baseline")
    return said


def rows_of(found: Mapping[str, Any]) -> list[list[str]]:
    """The cells of the table: one row for each recipe and baseline."""
    return [
        [name, *texts(one, SHOWN), number(one["bias_spread"]), number(one["worst_r2"])]
        for name, one in found["rows"].items()
    ]

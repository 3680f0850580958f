"""Choose a recipe, and what a network is averaged with, by leaving out each training flight in turn.

A flight is the unit of judgement: what holds within one, its level, its scale, its surface, differs on the next. So
each flight of the training and validation splits is left out once; every recipe is fitted to the others, for all its
epochs and with its last weights, and predicts it. The same is done with the baselines. From these predictions come

- the recipe: the one with the lowest error on flights left out;
- the factors of the average of network, ridge regression and gradient boosting: least squares without negative factors,
  each flight with the same weight, of deviations from the training mean. They sum to less than 1 where all of them
  spread too much on flights left out, so that the average is drawn to the mean of the training;
- what can be expected of the next flight, flight by flight.

The average's own error is nested: its factors for a flight come from the others.
"""

import tempfile
from collections.abc import Callable, Mapping
from dataclasses import dataclass, replace
from functools import partial
from pathlib import Path
from typing import Any

import numpy as np

from cloudml_tf.config.run_folder import as_chosen
from cloudml_tf.config.schema import Config
from cloudml_tf.config.selection import AS_IT_IS, CHOSEN
from cloudml_tf.data.prepare import Prepared
from cloudml_tf.data.readers.arrays import read_npz, write_npz
from cloudml_tf.data.samples import Samples, together
from cloudml_tf.data.scaling import fit_scaling
from cloudml_tf.evaluation import baselines
from cloudml_tf.evaluation.scores import S_IS, labels, number, scores, texts
from cloudml_tf.utils.console import Console
from cloudml_tf.utils.errors import DataError, NotFiniteError
from cloudml_tf.utils.files import write_json
from cloudml_tf.utils.tf_graphs import forgotten_graphs

FOLDS = "selection"  # the folder of the folds, in the run folder
FEWEST = 3  # flights: factors of one come from two others
REGRESSIONS = ("ridge", "gradient_boosting")
AVERAGED = "averaged"
SHOWN = ("rmse", "r2", "correlation", "variance_ratio")

Fold = dict[str, np.ndarray]  # "target", "mean" and a prediction by the name of what made it, (n,) in the loss's space


@dataclass(frozen=True)
class Chosen:
    """What the flights left out decided.

    Args:
        config: of the training that follows; without the selection.
        factors: of the network, ridge and boosting; None where nothing is averaged.
        summary: for metrics.json.
    """

    config: Config
    factors: list[float] | None
    summary: dict[str, Any]


def recipes_of(config: Config) -> dict[str, Config]:
    """The configuration of each recipe, as it is trained. Raises `ConfigError` for one that is wrong."""
    assert config.selection is not None
    return {name: as_chosen(config, name) for name in (AS_IT_IS, *config.selection.recipes)}


def choose(config: Config, prepared: Prepared, folder: Path, console: Console) -> Chosen:
    """Fit every recipe without each flight, choose, and write selection.json. Finished folds are read, not repeated."""
    assert config.selection is not None
    recipes, samples = recipes_of(config), _samples(prepared)
    names = [samples.flight_names[number] for number in np.unique(samples.flight)]
    if len(names) < FEWEST:
        raise DataError(
            f"selection leaves out each flight in turn and needs {FEWEST} or more in the training and validation "
            f"splits. Received: {', '.join(names)}. Set selection to null."
        )
    total = len(names) * (len(recipes) + 1)
    console.say(f"leaving out each of {len(names)} flights in turn: {len(recipes)} recipes and the baselines")
    folds: dict[str, dict[str, Fold]] = {}
    with console.progress("flights left out") as progress:
        for number, name in enumerate(names):
            home, out = folder / FOLDS / name, samples.flight == samples.flight_names.index(name)
            parts = (samples.take(~out), {name: samples.take(out)})
            folds[name] = {"baselines": _kept(home / "baselines.npz", partial(left_out_by_baselines, config, *parts))}
            progress(number * (len(recipes) + 1) + 1, total)
            for step, (recipe, one) in enumerate(recipes.items(), 2):
                folds[name][recipe] = _kept(home / f"{recipe}.npz", partial(left_out_by_network, one, *parts))
                progress(number * (len(recipes) + 1) + step, total)
    chosen = judged(folds, list(recipes), config.selection.average)
    write_json(folder / CHOSEN, chosen)
    factors = list(chosen["factors"].values()) if "factors" in chosen else None
    return Chosen(recipes[chosen["recipe"]], factors, chosen)


def _samples(prepared: Prepared) -> Samples:
    """The labelled sequences of the training and validation splits."""
    return together(_of_part(prepared, "train"), _of_part(prepared, "val"))


def _of_part(prepared: Prepared, part: str) -> Samples:
    found = prepared.parts[part].at_nadir
    assert found is not None  # the configuration allows no other coverage
    return found


def _kept(path: Path, make: Callable[[], dict[str, Fold]]) -> Fold:
    """What a file of a finished fold holds, or what is made now of the one flight and written."""
    if path.is_file():
        return read_npz(path)
    (found,) = make().values()
    path.parent.mkdir(parents=True, exist_ok=True)
    write_npz(path, **found)
    return found


def left_out_by_baselines(config: Config, train: Samples, left_out: Mapping[str, Samples]) -> dict[str, Fold]:
    """Predictions of each baseline, fitted to `train`, on flights that are left out, with their targets."""
    scaling = fit_scaling(train, config.target, config.preprocessing).target
    shown = {"train": train, **left_out}
    found = baselines.fit_predict(shown, scaling, config.preprocessing.log_offset, config.seed)
    return {
        flight: {
            "target": scaling.transform(samples.label),
            "mean": np.asarray(scaling.mean),
            **{name: scaling.unscale(z[flight]) for name, z in found.items() if name != "mean"},
        }
        for flight, samples in left_out.items()
    }


@forgotten_graphs()
def left_out_by_network(config: Config, train: Samples, left_out: Mapping[str, Samples]) -> dict[str, Fold]:
    """Predictions of a network, fitted to `train`, on flights that are left out; NaN where its loss is no number."""
    from cloudml_tf.experiments.run import fit_first_model
    from cloudml_tf.train.network import predict

    scaling = fit_scaling(train, config.target, config.preprocessing)
    watched = next(iter(left_out.values()))  # shown after each epoch; it decides nothing
    prepared = Prepared({"train": train, "val": watched, "test": watched}, train, scaling, "")
    with tempfile.TemporaryDirectory() as home:
        try:
            fitted, _ = fit_first_model(config, prepared, Path(home), Console(quiet=True), resume=False)
            found = {flight: predict(fitted.model, samples) for flight, samples in left_out.items()}
        except NotFiniteError:
            found = {flight: np.full(len(samples), np.nan) for flight, samples in left_out.items()}
    return {flight: {"network": scaling.target.unscale(z)} for flight, z in found.items()}


def judged(folds: Mapping[str, Mapping[str, Fold]], recipes: list[str], average: bool) -> dict[str, Any]:
    """Choose by the predictions of each flight that was left out; what selection.json and metrics.json hold.

    Args:
        folds: flight -> "baselines" or a recipe -> its predictions.
        recipes: in the order in which equals are taken.
        average: whether networks are averaged with the regressions.
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
        if average:
            parts = [rows[recipe], *(rows[name] for name in REGRESSIONS)]
            rows[f"{AVERAGED}, {recipe}"], factors[recipe] = _averaged(target, mean, parts)
    scored = {key: scored_by_flight(target, row) for key, row in rows.items()}
    candidates = {recipe: scored[f"{AVERAGED}, {recipe}" if average else recipe]["rmse"] for recipe in recipes}
    recipe = min(recipes, key=lambda name: (not np.isfinite(candidates[name]), candidates[name]))
    best = min(("mean", *others), key=lambda name: scored[name]["rmse"])
    ours = f"{AVERAGED}, {recipe}" if average else recipe
    found: dict[str, Any] = {"recipe": recipe, "ours": ours, "best_baseline": best, "rows": scored}
    if average:
        found["factors"] = dict(zip(("network", *REGRESSIONS), factors[recipe], strict=True))
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
    """Factors of no negative value, by least squares over flights of equal weight. NaN predictions get none."""
    from scipy.optimize import nnls

    weight = np.concatenate([np.full(len(each), len(each) ** -0.5) for each in wanted.values()])
    columns = np.concatenate([seen[name] for name in wanted]) * weight[:, None]
    usable = np.isfinite(columns).all(axis=0)
    found = np.zeros(columns.shape[1])
    found[usable], _ = nnls(columns[:, usable], np.concatenate(list(wanted.values())) * weight)
    return found


def scored_by_flight(target: Mapping[str, np.ndarray], prediction: Mapping[str, np.ndarray]) -> dict[str, Any]:
    """Scores of each flight; the root of the mean squared error over flights of equal weight; the spread of biases."""
    flights = {name: scores(target[name], prediction[name]) for name in target}
    mse = np.array([one["rmse"] ** 2 for one in flights.values()])
    pooled = scores(*(np.concatenate([each[name] for name in target]) for each in (target, prediction)))
    biases = np.array([one["bias"] for one in flights.values()])
    middle = {key: float(np.median([one[key] for one in flights.values()])) for key in SHOWN}
    return {
        "rmse": float(np.sqrt(mse.mean())),
        "r2": pooled["r2"],
        "correlation": middle["correlation"],
        "variance_ratio": middle["variance_ratio"],
        "bias_spread": float(biases.std()),
        "worst_r2": min(one["r2"] for one in flights.values()),
        "flights": {name: {key: one[key] for key in (*SHOWN, "bias", "n")} for name, one in flights.items()},
    }


def paired(ours: Mapping[str, Any], theirs: Mapping[str, Any]) -> dict[str, Any]:
    """RMSE less the other's, flight by flight: the mean, its 90 % interval (Student), and on how many it is lower."""
    from scipy.stats import t

    gap = np.array([ours["flights"][name]["rmse"] - theirs["flights"][name]["rmse"] for name in ours["flights"]])
    half = float(t.ppf(0.95, len(gap) - 1) * gap.std(ddof=1) / len(gap) ** 0.5)
    middle = float(gap.mean())
    return {"mean": middle, "ci90": [middle - half, middle + half], "better": int((gap < 0).sum()), "of": len(gap)}


def in_words(found: Mapping[str, Any]) -> list[str]:
    """What was chosen, and whether a baseline is as good, in sentences that the table bears out."""
    gap, best, ours = found["against_best"], found["best_baseline"], found["ours"]
    low, high = gap["ci90"]
    flights = f"lower on {gap['better']} of {gap['of']} flights; mean difference {gap['mean']:+.3f}"
    interval = f"{flights}, 90 % interval {low:+.3f} to {high:+.3f}"
    if high < 0:
        verdict = f"on flights left out '{ours}' beats the best baseline, {best}: RMSE is {interval}"
    elif low > 0:
        verdict = f"a baseline wins: on flights left out {best} is better than '{ours}', whose RMSE is {interval}"
    else:
        verdict = (
            f"on flights left out '{ours}' and the best baseline, {best}, are level within chance: RMSE is {interval}"
        )
    said = [verdict]
    if "factors" in found:
        shares = ", ".join(f"{value:.2f} x {name}" for name, value in found["factors"].items())
        said.append(f"the prediction is the training mean and the deviations from it of {shares}")
        if found["factors"]["network"] < 0.05:
            said.append("the network adds nothing there: what is trained is in effect a baseline")
    return said


def rows_of(found: Mapping[str, Any]) -> list[list[str]]:
    """The cells of the table: one row for each recipe and baseline."""
    return [
        [name, *texts(one, SHOWN), number(one["bias_spread"]), number(one["worst_r2"])]
        for name, one in found["rows"].items()
    ]


HEAD = ["", *labels(SHOWN), "std of biases", "worst R²"]


def print_selection(console: Console, found: Mapping[str, Any]) -> None:
    """Print the table of flights left out, and what follows from it."""
    console.table(f"training flights left out in turn; r and s: medians over flights; {S_IS}", HEAD, rows_of(found))
    console.say(*in_words(found))
    console.say(f"trained now: '{found['recipe']}'")


def fitted_regressions(config: Config, prepared: Prepared, factors: list[float]) -> dict[str, Any]:
    """The regressions of the training split as constants of layers, with the factors and the statistics' settings."""
    train = replace(_of_part(prepared, "train"), sight=None)  # no sweep: it is none of them
    features = train.baseline_features(config.preprocessing.log_offset)["image_statistics"]
    weight = train.weight[train.known]
    target = prepared.scaling.target.standardise(train.label[train.known])
    models = baselines.fit(features, target, None if np.ptp(weight) == 0 else weight, config.seed)
    return {"factors": factors, **baselines.as_arrays(models, features)}

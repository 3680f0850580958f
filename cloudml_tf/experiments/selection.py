"""Choose a recipe, and what a network is averaged with, by leaving out each training flight in turn.

A flight is the unit of judgement: what holds within one, its level, its scale, its surface, differs on the next. So
each flight of the training and validation splits is left out once; every recipe is fitted to the others, for all its
epochs and with its last weights, and predicts it. The same is done with the baselines. From these predictions come

- the recipe: the one with the lowest error on flights left out;
- whether the network is averaged with ridge regression and gradient boosting, and with which factors: least squares
  without negative factors, each flight with the same weight, of deviations from the training mean. They sum to less
  than 1 where all of them spread too much on flights left out, so that the average is drawn to the training's mean;
- what can be expected of the next flight, flight by flight, and the intervals of its predictions.

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
from cloudml_tf.evaluation.scores import S_IS
from cloudml_tf.evaluation.selection import HEAD, Fold, in_words, judged, rows_of
from cloudml_tf.train.warm_start import first_model
from cloudml_tf.utils.console import Console
from cloudml_tf.utils.errors import DataError, NotFiniteError
from cloudml_tf.utils.files import write_json
from cloudml_tf.utils.tf_graphs import forgotten_graphs
from cloudml_tf.utils.tf_logging import quiet_tensorflow

FOLDS = "selection"  # the folder of the folds, in the run folder
FEWEST = 3  # flights: factors of one come from two others


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


def check_flights(prepared: Prepared) -> None:
    """Refuse too few flights to leave one out. Raises `DataError`."""
    names = _flights_in(_samples(prepared))
    if len(names) < FEWEST:
        raise DataError(
            f"selection leaves out each flight in turn and needs {FEWEST} or more in the training and validation "
            f"splits. Received: {', '.join(names)}. Set selection to null."
        )


def choose(config: Config, prepared: Prepared, folder: Path, console: Console) -> Chosen:
    """Fit every recipe without each flight, choose, and write selection.json. Finished folds are read, not repeated."""
    assert config.selection is not None
    quiet_tensorflow()
    recipes, samples = recipes_of(config), _samples(prepared)
    names = _flights_in(samples)
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


def _flights_in(samples: Samples) -> list[str]:
    return [samples.flight_names[number] for number in np.unique(samples.flight)]


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
    from cloudml_tf.train.fit import fit
    from cloudml_tf.train.network import predict

    scaling = fit_scaling(train, config.target, config.preprocessing)
    watched = next(iter(left_out.values()))  # shown after each epoch; it decides nothing
    prepared = Prepared({"train": train, "val": watched, "test": watched}, train, scaling, "")
    with tempfile.TemporaryDirectory() as home:
        try:
            fitted = fit(first_model(config, prepared), config, prepared, Path(home), Console(quiet=True))
            found = {flight: predict(fitted.model, samples) for flight, samples in left_out.items()}
        except NotFiniteError:
            found = {flight: np.full(len(samples), np.nan) for flight, samples in left_out.items()}
    return {flight: {"network": scaling.target.unscale(z)} for flight, z in found.items()}


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

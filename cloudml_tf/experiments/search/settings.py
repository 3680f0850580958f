"""A search as a file: its base configuration, the fields and values to vary, the strategy, and the number of trials.

{"experiment_name": "search", "base": "tier1.json", "set": {"training.max_epochs": 20},
 "space": {"loss.weight": [0, 0.5], "training.learning_rate": {"min": 3e-4, "max": 3e-3, "sampling": "log"}},
 "tuner": {"kind": "random", "trials": 20}}
"""

import json
import math
from collections.abc import Iterable, Mapping
from pathlib import Path
from typing import Annotated, Any, Literal

from pydantic import Field, ValidationError, model_validator

from cloudml_tf.config.data import Settings
from cloudml_tf.config.load import parse_config, read_content, set_by_path, validated
from cloudml_tf.config.mistakes import explain
from cloudml_tf.config.schema import Config
from cloudml_tf.config.shipped import located
from cloudml_tf.train.devices import refuse_workers
from cloudml_tf.utils.errors import ConfigError

NAME = r"^[A-Za-z0-9][A-Za-z0-9._-]*$"
Objective = Literal["val_r2", "composite"]
NOT_TRAINING = ("experiment_name", "output", "evaluation", "tracking")
WHAT_IS_EVALUATED = ("split", "target", "data.lidar", "data.path", "data.flights", "data.simulation", "data.camera")


class Range(Settings):
    """All numbers between two limits."""

    min: float
    max: float
    sampling: Literal["linear", "log"] = "linear"

    @model_validator(mode="after")
    def _rising(self) -> "Range":
        if self.min >= self.max:
            raise ValueError(f"min {self.min:g} must be below max {self.max:g}")
        if self.sampling == "log" and self.min <= 0:
            raise ValueError(f"log sampling needs min above 0, not {self.min:g}")
        return self


class _Tuner(Settings):
    objective: Objective = Field(
        "val_r2", description="val_r2 (highest), or the reference recipe's val_loss - 2 R² (lowest)."
    )
    seed: int = Field(1, ge=0, le=2**31 - 2, description="Seed of the choice of values; `seed` is a training's.")


class Random(_Tuner):
    """Draws values at random, none twice."""

    kind: Literal["random"] = "random"
    trials: int = Field(20, ge=1, le=100_000)


class Bayesian(_Tuner):
    """Chooses values by a Gaussian process over the finished trials."""

    kind: Literal["bayesian"] = "bayesian"
    trials: int = Field(20, ge=1, le=100_000)
    initial_points: int | None = Field(
        None, ge=1, description="Number of random trials first; 3 per dimension by default."
    )


class Hyperband(_Tuner):
    """Runs many short trainings; the best are continued for longer."""

    kind: Literal["hyperband"] = "hyperband"
    max_epochs: int = Field(27, ge=2, description="Epochs of the longest trials, in place of training.max_epochs.")
    factor: int = Field(3, ge=2, description="One trial in `factor` continues, for `factor` times the epochs.")
    iterations: int = Field(1, ge=1, le=1000)


class Grid(_Tuner):
    """Tries every combination, in the order of the file."""

    kind: Literal["grid"] = "grid"
    trials: int | None = Field(None, ge=1, description="Number of combinations to try, in order; all by default.")


Tuner = Annotated[Random | Bayesian | Hyperband | Grid, Field(discriminator="kind")]
Space = dict[str, tuple[Any, ...] | Range]


class Search(Settings):
    """A search. `load_search` replaces the path of the base by its content, with `set` applied."""

    experiment_name: str = Field(pattern=NAME)
    base: str | dict[str, Any] = Field(
        description="A configuration, its path relative to this file, or the name of a shipped one."
    )
    set: dict[str, Any] = Field({}, description="Overrides of the base for all trials, by dotted path.")
    space: Space = Field(min_length=1)
    tuner: Tuner = Random()

    def content(self, values: Mapping[str, Any]) -> dict[str, Any]:
        """The base with some values set, as a dictionary for `parse_config`."""
        if not isinstance(self.base, dict):
            raise TypeError("Search.content needs the base's content. Received its path; use load_search.")
        changed: dict[str, Any] = json.loads(json.dumps(self.base))
        for key, value in values.items():
            set_by_path(changed, key, value)
        return changed

    def config(self, values: Mapping[str, Any] | None = None, source: str = "base") -> Config:
        """The base, or a trial with some values. Raises `ConfigError` where they do not fit together."""
        config = parse_config(self.content(values or {}), source)
        refuse_workers(config.training, "a search")
        if config.selection is not None:
            raise ConfigError(
                f"{source}: selection chooses by flights left out, and a search by one validation part; set selection "
                "to null here, or name up to two recipes in selection.recipes and train."
            )
        return config

    def warnings(self) -> list[str]:
        """Warnings about trials whose scores are hard to compare."""
        found = []
        changed = [key for key in self.space if key.startswith(WHAT_IS_EVALUATED)]
        if changed:
            found.append(
                f"space: {', '.join(changed)} changes what is evaluated; the scores of trials are not comparable"
            )
        losses = [key for key in self.space if key.startswith(("loss", "model.head"))]
        if self.tuner.objective == "composite" and losses:
            found.append(f"tuner.objective composite compares losses, and {losses[0]} changes the loss; use val_r2")
        return found

    def points(self) -> int | None:
        """The number of combinations; None with a range."""
        sizes = [None if isinstance(values, Range) else len(values) for values in self.space.values()]
        return None if None in sizes else math.prod(size for size in sizes if size is not None)


def load_search(path: str | Path, overrides: Mapping[str, Any] | None = None) -> Search:
    """Read and check a search; overrides of `tuner.*` and `space.*` apply to the search, all others to the base."""
    path = located(path)
    content = read_content(path, "search")
    if "base" not in content and "split" in content:
        raise ConfigError(
            f"{path}: is the configuration of one training. A search is a file that names it as its `base`, with the "
            "values to try in its `space`: see `cloudml search --help`."
        )
    own = ("tuner.", "space.")
    for key, value in (overrides or {}).items():
        if f"{key}." in own:
            raise ConfigError(f"--set {key}: is a section; set one of its fields, such as tuner.trials=20.")
        if key.startswith("tuner."):
            set_by_path(content, key, value, Search)
        elif key.startswith("space.") and isinstance(content.get("space"), dict):
            content["space"][key.removeprefix("space.")] = value
    search = validated(Search, content, str(path), [key for key in overrides or {} if key.startswith(own)])
    base = read_content(located(search.base, path.parent)) if isinstance(search.base, str) else dict(search.base)
    for key, value in {**search.set, **(overrides or {})}.items():
        if not key.startswith(own):
            set_by_path(base, key, value)
    base["experiment_name"] = search.experiment_name
    search = search.model_copy(update={"base": base, "set": {}})
    check(search, str(path))
    return search


def check(search: Search, source: str) -> None:
    """Refuse values that no trial could use, before any starts. Combinations are left to the trials."""
    search.config(source=f"{source}, base")
    for key, values in search.space.items():
        if key.startswith(NOT_TRAINING):
            raise ConfigError(f"{source}: space '{key}' does not change the training. Set it in the base.")
        tried, hint = _tried(search, key, values, source)
        for value in tried:
            if wrong := refused(search, key, value):
                raise ConfigError(f"{source}: space {wrong}{hint}")
    tuner, points = search.tuner, search.points()
    if isinstance(tuner, Grid) and points is None:
        ranges = [key for key, values in search.space.items() if isinstance(values, Range)]
        raise ConfigError(f"{source}: a grid needs a list of values for each field; '{ranges[0]}' has a range.")
    if isinstance(tuner, Random | Bayesian) and points is not None and points < tuner.trials:
        raise ConfigError(f"{source}: tuner.trials is {tuner.trials}, but the space has {points} combinations.")
    if isinstance(tuner, Hyperband) and "training.max_epochs" in search.space:
        raise ConfigError(f"{source}: hyperband chooses training.max_epochs itself; take it out of the space.")


def _tried(search: Search, key: str, values: tuple[Any, ...] | Range, source: str) -> tuple[Iterable[Any], str]:
    """The values of a field to try on the configuration, and what to say beside the reason why one is refused."""
    if isinstance(values, Range):
        if is_integer(search, key, values):
            tried = range(int(values.min), min(int(values.max), 1000) + 1)
            return tried, " Give a list of values instead of a range."
        return (values.min, values.max), ""
    if not values or len(set(map(repr, values))) < len(values):
        raise ConfigError(f"{source}: space '{key}' needs one value or more, none twice. Received: {list(values)}")
    return values, ""


def is_integer(search: Search, key: str, values: Range) -> bool:
    """Whether a field takes whole numbers only: it then refuses a fraction within the range."""
    whole = values.min == int(values.min) and values.max == int(values.max)
    return whole and bool(refused(search, key, values.min + 0.3728))


def refused(search: Search, key: str, value: Any) -> str:
    """The reason why a field cannot have a value, whatever the others are; "" if it can."""
    try:
        Config.model_validate(search.content({key: value}))
    except ValidationError as error:
        for where, text in explain(error).items():
            if where and (f"{key}.".startswith(f"{where}.") or where.startswith(f"{key}.")):
                return text
    except ConfigError as error:
        return f"'{key}': {error}"
    return ""

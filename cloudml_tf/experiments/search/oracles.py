"""KerasTuner's four strategies to choose the next trial, made to survive a kill at any moment.

KerasTuner 1.4 writes its state in place, file by file, and reads it back as if that were one step. Here each file
appears whole; a trial unknown to the state is assigned again, and a finished one is not repeated.
"""

import itertools
import json
import warnings
from collections.abc import Callable
from pathlib import Path
from typing import Any

import keras_tuner
from keras_tuner import oracles
from sklearn.exceptions import ConvergenceWarning

from cloudml_tf.experiments.search.settings import Bayesian, Grid, Hyperband, Search
from cloudml_tf.experiments.search.space import declare
from cloudml_tf.nn.directions import direction
from cloudml_tf.utils.files import write_text

COMPLETED, FAILED = "COMPLETED", "FAILED"


class _Kept:
    """The shared part of all strategies; a mixin before the KerasTuner class, whose methods it wraps."""

    on_end: Callable[[], None] = staticmethod(lambda: None)  # called after each trial

    def save(self: Any) -> None:
        """Write the state, whole or not at all."""
        write_text(Path(self._get_oracle_fname()), json.dumps(self.get_state()))

    def _save_trial(self: Any, trial: Any) -> None:
        write_text(Path(self._get_trial_dir(trial.trial_id)) / "trial.json", json.dumps(trial.get_state()))

    def reload(self: Any) -> None:
        """Read the state. KerasTuner would repeat the last finished trial, and count one that never started."""
        super().reload()  # type: ignore[misc]
        known, ended = set(self.start_order), set(self.end_order)
        self.trials = {name: trial for name, trial in self.trials.items() if name in known}
        self._retry_queue = [name for name in dict.fromkeys(self._retry_queue) if name not in ended]

    def end_trial(self: Any, trial: Any) -> None:
        """Record the result."""
        super().end_trial(trial)  # type: ignore[misc]
        self.on_end()


class RandomOracle(_Kept, oracles.RandomSearchOracle):
    """Draws random values."""


class BayesianOracle(_Kept, oracles.BayesianOptimizationOracle):
    """Models the scores by a Gaussian process; draws a random point where it would repeat one."""

    def populate_space(self, trial_id: str) -> dict[str, Any]:
        """Choose the next values."""
        with warnings.catch_warnings():
            warnings.simplefilter("ignore", ConvergenceWarning)  # a few trials say little about length scales
            chosen: dict[str, Any] = super().populate_space(trial_id)
        if chosen["values"] is not None and self._duplicate(chosen["values"]):
            chosen = self._random_populate_space()
        return chosen


class HyperbandOracle(_Kept, oracles.HyperbandOracle):
    """Successive halving. A failed trial ranks last; KerasTuner would let it replace one that should continue."""

    def populate_space(self, trial_id: str) -> dict[str, Any]:
        """Choose the next values, and the number of epochs."""
        failed = [trial for trial in self.trials.values() if trial.status == FAILED]
        for trial in failed:
            trial.status, trial.score = COMPLETED, float("-inf" if self.objective.direction == "max" else "inf")
        try:
            chosen: dict[str, Any] = super().populate_space(trial_id)
        finally:
            for trial in failed:
                trial.status, trial.score = FAILED, None
        return chosen


class GridOracle(_Kept, oracles.GridSearchOracle):
    """Tries every combination. KerasTuner keeps its position in memory only: a resumed grid would end at once."""

    def populate_space(self, trial_id: str) -> dict[str, Any]:
        """Choose the first combination that was not tried."""
        fields = self.get_space().space
        for values in itertools.product(*[field.values for field in fields]):
            chosen = {field.name: value for field, value in zip(fields, values, strict=True)}
            if not self._duplicate(chosen):
                return {"status": "RUNNING", "values": chosen}
        return {"status": "STOPPED", "values": None}


def make_oracle(search: Search) -> Any:
    """Make the oracle of a search."""
    tuner = search.tuner
    space = keras_tuner.HyperParameters()
    declare(space, search.space)
    common: dict[str, Any] = {
        "objective": keras_tuner.Objective(tuner.objective, direction(tuner.objective)),
        "seed": tuner.seed + 1,  # KerasTuner takes 0 for "any"
        "hyperparameters": space,
        "allow_new_entries": False,
        "max_consecutive_failed_trials": None,  # failed trials are results: they never end a search
    }
    if isinstance(tuner, Hyperband):
        options = {"max_epochs": tuner.max_epochs, "factor": tuner.factor, "hyperband_iterations": tuner.iterations}
        oracle = HyperbandOracle(**options, **common)
    elif isinstance(tuner, Grid):
        oracle = GridOracle(max_trials=tuner.trials, **common)
    elif isinstance(tuner, Bayesian):
        oracle = BayesianOracle(max_trials=tuner.trials, num_initial_points=tuner.initial_points, **common)
    else:
        oracle = RandomOracle(max_trials=tuner.trials, **common)
    oracle._max_collisions = 10_000  # random draws of tried points; 20 would end a search of a small space too early
    oracle.verbose = 0
    return oracle

"""The trials of a search: KerasTuner chooses values, and each trial is trained by the same function as `train`.

A trial's folder is a run folder (config.json, history.csv, best.weights.h5 ...) with `result.json`, which is written
last: its presence means that the trial is finished, whatever KerasTuner's own files say.
"""

import contextlib
import datetime
import json
import math
import os
import shutil
import time
import traceback
from pathlib import Path
from typing import Any

import keras
import keras_tuner
from keras_tuner.errors import FailedTrialError

from cloudml_tf.callbacks import composite_score
from cloudml_tf.config.run_folder import check_same, forget_previous, has_checkpoint, read_json, write_start
from cloudml_tf.config.schema import Config
from cloudml_tf.data.prepare import Prepared, prepare
from cloudml_tf.experiments.search.oracles import make_oracle
from cloudml_tf.experiments.search.settings import Search
from cloudml_tf.experiments.search.space import declare, overrides
from cloudml_tf.train import fit as training
from cloudml_tf.train.devices import start
from cloudml_tf.train.warm_start import first_model
from cloudml_tf.utils.console import Console
from cloudml_tf.utils.errors import CloudMLError, NotFiniteError, RunError
from cloudml_tf.utils.files import write_json, write_text
from cloudml_tf.utils.tf_graphs import forgotten_graphs

SCORES = ("val_r2", "val_loss", "val_variance_ratio", "val_correlation", "val_bias")
NO_DATA = {"experiment_name", "seed", "model", "loss", "training", "augmentation", "evaluation", "tracking", "output"}


class CloudHyperModel(keras_tuner.HyperModel):
    """The models of a search's space: `build` makes one, `fit` trains it and returns its scores.

    Args:
        search: the search, as `load_search` returns it.
        prepared: the base's data, if they have been read already.
    """

    def __init__(self, search: Search, prepared: Prepared | None = None) -> None:
        super().__init__(name=search.experiment_name)
        self.search = search
        self._prepared = None if prepared is None else (_data_key(search.config()), prepared)

    def declare_hyperparameters(self, hp: Any) -> None:
        """Declare the whole space; no field of it depends on another."""
        declare(hp, self.search.space)

    def config(self, hp: Any) -> Config:
        """The configuration of a trial. Raises `ConfigError` where its values do not fit together."""
        return self.search.config(overrides(hp, self.search), "trial")

    def prepared(self, config: Config) -> Prepared:
        """The data; the last configuration's are kept for the next one if it differs in `NO_DATA` only."""
        key = _data_key(config)
        if self._prepared is None or self._prepared[0] != key:
            self._prepared = None  # the old one may leave memory first
            self._prepared = (key, prepare(config))
        return self._prepared[1]

    @forgotten_graphs()
    def build_and_fit(self, hp: Any, folder: Path, console: Console) -> dict[str, Any]:
        """Build and fit one trial, then free what TensorFlow and Keras registered for its network."""
        return self.fit(hp, self.build(hp), folder, console)

    def build(self, hp: Any) -> keras.Model:
        """Make a new network, not compiled: `fit` knows the loss. It starts as `train` does, with `training.init_from`
        too.

        To build many of them in one process, without `build_and_fit`, do so inside `forgotten_graphs`.
        """
        config = self.config(hp)
        prepared = self.prepared(config)
        start(config.training)
        return first_model(config, prepared)

    def fit(self, hp: Any, model: keras.Model, folder: Path, console: Console) -> dict[str, Any]:
        """Train as `train` does, in a run folder; continue a killed trial. The test split is not used.

        Returns the scores of the best epoch on the validation split, and how the training ended.
        """
        config = self.config(hp)
        prepared = self.prepared(config)
        resume = begin(folder, config, prepared)
        if config.pretraining.enabled:
            from cloudml_tf.train.transfer import start_from_pretraining

            start_from_pretraining(model, config, prepared, folder, console)
        fitted = training.fit(model, config, prepared, folder, console, resume)
        if fitted.best_epoch is None:
            raise NotFiniteError("no epoch had a finite score.")
        best = fitted.history[fitted.best_epoch]
        scores = {name: best[name] for name in SCORES}
        return {
            **scores,
            "composite": -composite_score(best["val_loss"], best["val_r2"]),
            "status": "collapsed" if fitted.collapsed else "completed",
            "reason": fitted.ending,
            "epochs": len(fitted.history),
            "best_epoch": fitted.best_epoch + 1,
            "weights": model.count_params(),
        }


def _data_key(config: Config) -> dict[str, Any]:
    """The settings that the prepared data depend on; their scaling is that of the run named by `training.init_from`."""
    return {**config.model_dump(mode="json", exclude=NO_DATA), "init_from": config.training.init_from}


def begin(folder: Path, config: Config, prepared: Prepared) -> bool:
    """Make a trial's folder; True where there is a checkpoint of the same training to continue from."""
    if has_checkpoint(folder):
        with contextlib.suppress(RunError):
            check_same(folder, config, prepared.fingerprint)
            return True
    shutil.rmtree(folder, ignore_errors=True)
    write_start(folder, config, prepared.description())
    return False


class CloudTuner(keras_tuner.Tuner):
    """Runs the trials that the oracle assigns, here or as a worker of a chief.

    Args:
        search: the search, as `load_search` returns it.
        folder: the search's folder; every worker sees the same.
        prepared: the base's data, if they have been read already.
    """

    def __init__(self, search: Search, folder: Path, prepared: Prepared | None = None) -> None:
        self.settings, self.folder = search, folder
        model = CloudHyperModel(search, prepared)
        super().__init__(make_oracle(search), model, directory=str(folder), project_name="tuner")

    def _populate_initial_space(self) -> None:
        """Do nothing: the oracle has the whole space; KerasTuner would build a model to find it."""

    def save(self) -> None:
        """Write the state, whole or not at all."""
        if not self._is_worker():
            self.oracle.save()
        write_text(Path(self._get_tuner_fname()), json.dumps(self.get_state()))

    def pre_create_trial(self) -> None:
        """Pause while the oracle has no trial: KerasTuner would ask it again at once."""
        time.sleep(0.05)

    def _try_run_and_update_trial(self, trial: Any) -> None:
        """Run a trial. KerasTuner's version prints a traceback for each failed trial, and takes a lost chief for a
        failed trial."""
        try:
            self.oracle.update_trial(trial.trial_id, self.run_trial(trial))
            trial.status = "COMPLETED"
        except FailedTrialError as error:
            trial.status, trial.message = "FAILED", str(error)

    def run_trial(self, trial: Any) -> dict[str, float]:
        """The scores of one trial; read from its folder if it was finished before a kill."""
        folder = self.folder / "trials" / trial.trial_id
        values = overrides(trial.hyperparameters, self.settings)
        result = finished_result(folder, values)
        if result is None:
            result = self._train(trial, folder, values)
        if result["status"] != "completed":
            raise FailedTrialError(result["reason"])
        return {name: float(result[name]) for name in (*SCORES, "composite")}

    def _train(self, trial: Any, folder: Path, values: dict[str, Any]) -> dict[str, Any]:
        started, begun = datetime.datetime.now(datetime.UTC), time.perf_counter()
        try:
            result = self.hypermodel.build_and_fit(trial.hyperparameters, folder, Console(quiet=True))
        except NotFiniteError as error:
            result = {"status": "not finite", "reason": str(error)}
        except CloudMLError as error:
            result = {"status": "failed", "reason": str(error)}
        except Exception as error:  # one combination, such as one too large for memory: the others continue
            result = {"status": "failed", "reason": f"{type(error).__name__}: {str(error).strip()[:500]}"}
            write_text(folder / "error.txt", traceback.format_exc())
        if result["status"] == "completed" and not math.isfinite(result["val_r2"]):
            result.update(status="not finite", reason="the best epoch's R² is not finite")
        when = {"seconds": time.perf_counter() - begun, "started": started.isoformat(timespec="seconds")}
        worker = os.environ.get("KERASTUNER_TUNER_ID", "alone")
        result = {"id": trial.trial_id, **result, "values": values, **when, "worker": worker}
        write_json(folder / "result.json", result)
        forget_previous(folder)
        return result


def finished_result(folder: Path, values: dict[str, Any]) -> dict[str, Any] | None:
    """The result of a finished trial with these values, or None."""
    if not (folder / "result.json").is_file():
        return None
    result: dict[str, Any] = read_json(folder / "result.json")
    return result if _same(result["values"], values) else None


def _same(first: dict[str, Any], second: dict[str, Any]) -> bool:
    """Whether values are equal except for the digits that a drawn number loses on its way to a worker."""

    def equal(a: Any, b: Any) -> bool:
        return math.isclose(a, b, rel_tol=1e-5) if isinstance(a, float) and isinstance(b, float) else bool(a == b)

    return first.keys() == second.keys() and all(equal(first[key], second[key]) for key in first)

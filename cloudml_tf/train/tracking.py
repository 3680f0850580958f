"""Weights & Biases and TensorBoard, each optional. They never prompt, and never stop a training.

Keys as in the reference recipe: val/r2, val/pred_std, val/pred_range, val/variance_ratio ... Besides the numbers of
each epoch they get the scores of the best one, the figures of the report and, for Weights & Biases, the model, once.
"""

import contextlib
import json
import os
import re
import secrets
import warnings
from collections.abc import Callable
from pathlib import Path
from typing import Any, Literal

import keras

from cloudml_tf.config.schema import Config
from cloudml_tf.nn.monitors import PredictionSnapshots
from cloudml_tf.utils.files import write_json

_NAMES = {"pred_spread": "pred_range"}
Mode = Literal["online", "offline", "disabled"]
PRIVACY: tuple[Mode, ...] = ("online", "offline", "disabled")  # the more private, the later
TENSORBOARD, STATE = "tensorboard", "tracking.json"  # in the run folder


def tracked_keys(logs: dict[str, float]) -> dict[str, float]:
    """Convert Keras log keys to the reference recipe's: val_pred_spread -> val/pred_range, loss -> train/loss."""
    found = {}
    for key, value in logs.items():
        part, name = ("val", key.removeprefix("val_")) if key.startswith("val_") else ("train", key)
        found[f"{part}/{_NAMES.get(name, name)}"] = float(value)
    return found


class WandbLog(keras.callbacks.Callback):
    """Logs each epoch to a wandb run."""

    def __init__(self, run: Any, snapshots: PredictionSnapshots | None = None) -> None:
        super().__init__()
        self.run, self.snapshots = run, snapshots

    def on_epoch_end(self, epoch: int, logs: dict[str, Any] | None = None) -> None:
        """Log one step per epoch."""
        row: dict[str, Any] = {"epoch": epoch + 1, **tracked_keys(logs or {})}
        seen = None if self.snapshots is None else self.snapshots.predictions.get(epoch + 1)
        if seen is not None:
            import wandb

            row["val/prediction"] = wandb.Histogram(seen)
        _or_warn("wandb", lambda: self.run.log(row, step=epoch + 1))


class TensorBoardLog(keras.callbacks.Callback):
    """Writes the same numbers with the same keys as event files, and chosen epochs' predictions as histograms."""

    def __init__(self, folder: Path, snapshots: PredictionSnapshots | None = None) -> None:
        super().__init__()
        import tensorflow as tf

        self.summary, self.snapshots = tf.summary, snapshots
        self.writer = tf.summary.create_file_writer(str(folder / TENSORBOARD))

    def on_epoch_end(self, epoch: int, logs: dict[str, Any] | None = None) -> None:
        """Log one step per epoch."""
        with self.writer.as_default(step=epoch + 1):
            for key, value in tracked_keys(logs or {}).items():
                self.summary.scalar(key, value)
            seen = None if self.snapshots is None else self.snapshots.predictions.get(epoch + 1)
            if seen is not None:
                self.summary.histogram("val/prediction", seen)
        self.writer.flush()

    def pictures(self, paths: list[Path], step: int) -> None:
        """Log PNG files as images, under the names of the files."""
        import tensorflow as tf

        with self.writer.as_default(step=step):
            for path in paths:
                self.summary.image(f"pictures/{path.stem}", tf.io.decode_png(path.read_bytes(), channels=3)[None])
        self.writer.flush()


class Profile(keras.callbacks.Callback):
    """Traces some steps of the second epoch, when everything is compiled, for TensorBoard's profile page."""

    def __init__(self, folder: Path, steps: int) -> None:
        super().__init__()
        self.home, self.steps, self.epoch, self.running = str(folder / TENSORBOARD), steps, 0, False

    def on_epoch_begin(self, epoch: int, logs: dict[str, Any] | None = None) -> None:
        """Count epochs of this process; a resumed one compiles again."""
        self.epoch += 1

    def on_train_batch_begin(self, batch: int, logs: dict[str, Any] | None = None) -> None:
        """Start the profile."""
        if self.epoch == 2 and batch == 0:
            import tensorflow as tf

            tf.profiler.experimental.start(self.home)
            self.running = True

    def on_train_batch_end(self, batch: int, logs: dict[str, Any] | None = None) -> None:
        """Stop after the configured number of steps, or with the epoch."""
        last = batch + 1 >= min(self.steps, self.params.get("steps") or self.steps)
        if self.running and last:
            import tensorflow as tf

            tf.profiler.experimental.stop()
            self.running = False


class Tracker:
    """The trackers of one run. With both off it does nothing."""

    def __init__(self, config: Config, folder: Path) -> None:
        self.config, self.folder = config, folder
        mode = wandb_mode(config.tracking.wandb)
        self.run: Any = _start(config, folder, mode) if mode != "disabled" else None
        self.board: TensorBoardLog | None = None

    def callbacks(self, snapshots: PredictionSnapshots | None = None) -> list[keras.callbacks.Callback]:
        """The callbacks for `fit`."""
        found: list[keras.callbacks.Callback] = [] if self.run is None else [WandbLog(self.run, snapshots)]
        if self.config.tracking.tensorboard:
            self.board = TensorBoardLog(self.folder, snapshots)
            found.append(self.board)
            if self.config.tracking.profile_steps:
                found.append(Profile(self.folder, self.config.tracking.profile_steps))
        return found

    def results(self, metrics: dict[str, Any], model: Path | None) -> None:
        """Log the best epoch's scores, the figures, and the exported model or else the best weights."""
        pictures = sorted((self.folder / "plots").glob("*.png"))
        if self.board is not None:
            board, epochs = self.board, metrics["training"]["epochs"]
            _or_warn("TensorBoard", lambda: board.pictures(pictures, epochs))
        if self.run is not None:
            _or_warn("wandb", lambda: self._to_wandb(metrics, pictures, model))

    def _to_wandb(self, metrics: dict[str, Any], pictures: list[Path], model: Path | None) -> None:
        import wandb

        scores = {f"{part}/{key}": value for part in ("val", "test") for key, value in metrics[part].items()}
        numbers = {f"best/{key}": value for key, value in scores.items() if isinstance(value, int | float)}
        self.run.summary.update({**numbers, "tier": metrics["tier"]["name"], "ending": metrics["training"]["ending"]})
        if pictures:
            self.run.log({f"pictures/{path.stem}": wandb.Image(str(path)) for path in pictures})
        if self.config.tracking.artefact:
            name = re.sub(r"[^A-Za-z0-9._-]", "_", self.config.experiment_name)
            artefact = wandb.Artifact(name, type="model", metadata=numbers)
            if model is not None:
                artefact.add_dir(str(model))
            else:
                artefact.add_file(str(self.folder / "best.weights.h5"))
                artefact.add_file(str(self.folder / "config.json"))
            self.run.log_artifact(artefact)

    def close(self) -> None:
        """Close both trackers."""
        if self.board is not None:
            _or_warn("TensorBoard", self.board.writer.close)
        if self.run is not None:
            _or_warn("wandb", self.run.finish)


def _or_warn(name: str, act: Callable[[], Any]) -> None:
    """Turn the failure of a tracker into a warning: it must not end a training."""
    try:
        act()
    except Exception as error:
        warnings.warn(f"{name} failed, this run is not fully tracked: {error}", stacklevel=3)


def wandb_mode(configured: Mode) -> Mode:
    """The mode of wandb: "online", "offline" or "disabled", the most private of the configuration and the environment.

    WANDB_MODE may hold these, or wandb's old names "run" and "dryrun"; what is not known counts as offline.
    WANDB_DISABLED disables unless it says no.
    """
    asked = [PRIVACY.index(configured)]
    mode = os.environ.get("WANDB_MODE", "").strip().lower()
    if mode:
        known: dict[str, int] = {"run": 0, "dryrun": 1} | {name: place for place, name in enumerate(PRIVACY)}
        asked.append(known.get(mode, 1))
    if os.environ.get("WANDB_DISABLED", "").strip().lower() not in ("", "0", "false", "no", "off", "n", "f"):
        asked.append(2)
    return PRIVACY[max(asked)]


def _start(config: Config, folder: Path, mode: Mode) -> Any:
    if mode == "online" and not _has_key():
        mode = "offline"  # without a key wandb would prompt for one
    silent = os.environ.setdefault("WANDB_SILENT", "true").strip().lower() not in ("0", "false", "no", "off", "n", "f")
    try:
        import wandb

        for attempt in dict.fromkeys((mode, "offline")):
            with contextlib.suppress(wandb.errors.CommError):
                return wandb.init(
                    project=config.tracking.project,
                    name=f"{config.experiment_name}-{folder.name}",
                    id=_identity(folder),
                    resume="allow"
                    if attempt == "online"
                    else None,  # offline, `wandb sync` joins runs with the same id
                    config=config.model_dump(mode="json"),
                    dir=str(folder),  # wandb 0.19 takes text only
                    mode=attempt,
                    settings=wandb.Settings(console="off", silent=silent, init_timeout=30),
                )
    except Exception as error:
        warnings.warn(f"wandb could not start, this run is not tracked: {error}", stacklevel=2)
    return None


def _has_key() -> bool:
    """Whether a key is in the environment, or stored by `wandb login`."""
    import netrc

    if os.environ.get("WANDB_API_KEY"):
        return True
    with contextlib.suppress(OSError, netrc.NetrcParseError):
        return any("wandb" in host for host in netrc.netrc().hosts)
    return False


def _identity(folder: Path) -> str:
    """The run's name at wandb: the same when the training is resumed."""
    with contextlib.suppress(OSError, ValueError, KeyError):
        return str(json.loads((folder / STATE).read_text())["wandb_id"])
    found = secrets.token_hex(4)
    write_json(folder / STATE, {"wandb_id": found})
    return found

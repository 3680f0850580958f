"""Weights & Biases and TensorBoard, each behind a switch. They never ask, and never stop a training.

Keys as in the original document: val/r2, val/pred_std, val/pred_range, val/variance_ratio ...
"""

import contextlib
import os
import warnings
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import keras

from cloudml_tf.monitors import PredictionSnapshots
from cloudml_tf.settings import Config

_NAMES = {"pred_spread": "pred_range"}


def tracked_keys(logs: dict[str, float]) -> dict[str, float]:
    """Keras log keys to the original's: val_pred_spread -> val/pred_range, loss -> train/loss."""
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
        """One step an epoch."""
        row: dict[str, Any] = {"epoch": epoch + 1, **tracked_keys(logs or {})}
        seen = None if self.snapshots is None else self.snapshots.predictions.get(epoch + 1)
        if seen is not None:
            import wandb

            row["val/prediction"] = wandb.Histogram(seen)
        _or_warn(lambda: self.run.log(row, step=epoch + 1))


class TensorBoardLog(keras.callbacks.Callback):
    """Writes the same numbers under the same keys as event files, and chosen epochs' predictions as histograms."""

    def __init__(self, folder: Path, snapshots: PredictionSnapshots | None = None) -> None:
        super().__init__()
        import tensorflow as tf

        self.summary, self.snapshots = tf.summary, snapshots
        self.writer = tf.summary.create_file_writer(str(folder / "tensorboard"))

    def on_epoch_end(self, epoch: int, logs: dict[str, Any] | None = None) -> None:
        """One step an epoch."""
        with self.writer.as_default(step=epoch + 1):
            for key, value in tracked_keys(logs or {}).items():
                self.summary.scalar(key, value)
            seen = None if self.snapshots is None else self.snapshots.predictions.get(epoch + 1)
            if seen is not None:
                self.summary.histogram("val/prediction", seen)
        self.writer.flush()

    def on_train_end(self, logs: dict[str, Any] | None = None) -> None:
        """Close the file."""
        self.writer.close()


@contextlib.contextmanager
def tracker(
    config: Config, folder: Path, snapshots: PredictionSnapshots | None = None
) -> Iterator[list[keras.callbacks.Callback]]:
    """The tracking callbacks of a run: none for a tracker that is disabled or cannot start."""
    run = _start(config, folder) if config.tracking.wandb != "disabled" else None
    found: list[keras.callbacks.Callback] = [] if run is None else [WandbLog(run, snapshots)]
    if config.tracking.tensorboard:
        found.append(TensorBoardLog(folder, snapshots))
    try:
        yield found
    finally:
        if run is not None:
            _or_warn(run.finish)


def _or_warn(act: Callable[[], Any]) -> None:
    """A tracker that fails is a warning: it must not take a training with it."""
    try:
        act()
    except Exception as error:
        warnings.warn(f"wandb failed, this run is not fully tracked: {error}", stacklevel=3)


def _start(config: Config, folder: Path) -> Any:
    mode = config.tracking.wandb
    if mode == "online" and not os.environ.get("WANDB_API_KEY"):
        mode = "offline"  # without a key wandb would ask for one
    os.environ.setdefault("WANDB_SILENT", "true")
    try:
        import wandb

        for attempt in dict.fromkeys((mode, "offline")):
            with contextlib.suppress(wandb.errors.CommError):
                return wandb.init(
                    project=config.tracking.project,
                    name=f"{config.experiment_name}-{folder.name}",
                    config=config.model_dump(mode="json"),
                    dir=folder,
                    mode=attempt,
                    settings=wandb.Settings(console="off", silent=True, init_timeout=30),
                )
    except Exception as error:
        warnings.warn(f"wandb could not start, this run is not tracked: {error}", stacklevel=2)
    return None

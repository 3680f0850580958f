"""The whole state of a training at the end of an epoch, in one file, so that it continues as if never stopped.

`checkpoint.npz` holds all variables of the model (weights, seed generators), the optimizer's, the states of the
callbacks, the history and the seconds so far. It is plain arrays and JSON: loading it runs no code. Each epoch writes a
new one, and keeps the one before as `checkpoint.previous.npz`: a disk may damage a file, which the checksums
of the npz file (a zip archive) show.
"""

import io
import json
import os
import time
import zipfile
from collections.abc import Callable
from pathlib import Path
from typing import Any

import keras
import numpy as np

from cloudml_tf.config.run_folder import CHECKPOINT, PREVIOUS, write_history
from cloudml_tf.data.readers.arrays import read_npz
from cloudml_tf.utils.errors import RunError
from cloudml_tf.utils.files import whole_file

Fit = Callable[[int, int, list[keras.callbacks.Callback]], None]  # epochs, first epoch, callbacks


class Checkpoint(keras.callbacks.Callback):
    """Writes the checkpoint and `history.csv` after each epoch. Put it last, so that it sees the others' decisions.

    Args:
        folder: the run folder.
        stateful: callbacks by name; those with `get_state` and `set_state`.
        saved: the content that `load` returned, to continue from; None starts from the beginning.
        writes: whether it writes, or only restores and keeps the history: among workers only the chief writes.
    """

    def __init__(
        self,
        folder: Path,
        stateful: dict[str, keras.callbacks.Callback],
        saved: dict[str, Any] | None = None,
        writes: bool = True,
    ) -> None:
        super().__init__()
        self.folder, self.stateful, self.saved, self.writes = folder, stateful, saved, writes
        self.history: list[dict[str, float]] = []
        self._started, self._before_s = time.perf_counter(), 0.0 if saved is None else saved.get("seconds", 0.0)

    @property
    def seconds(self) -> float:
        """How long the training has taken, with the processes that were interrupted; 0 for those of version 0.1.0."""
        return float(self._before_s + time.perf_counter() - self._started)

    def on_train_begin(self, logs: dict[str, Any] | None = None) -> None:
        """Restore, after the other callbacks have reset themselves."""
        if self.saved is None:
            return
        _assign("model", self.model.variables, self.saved["model"])
        _assign("optimizer", self.model.optimizer.variables, self.saved["optimizer"])
        for name, state in self.saved["states"].items():
            self.stateful[name].set_state(state)
        self.history = list(self.saved["history"])

    def on_epoch_end(self, epoch: int, logs: dict[str, Any] | None = None) -> None:
        """Write, if the epoch ended well: a NaN is nothing to continue from."""
        self.history.append({"epoch": float(epoch + 1), **{k: float(v) for k, v in (logs or {}).items()}})
        if not self.writes:
            return
        write_history(self.folder, self.history)
        model = [keras.ops.convert_to_numpy(v) for v in self.model.variables]
        optimizer = [keras.ops.convert_to_numpy(v) for v in self.model.optimizer.variables]
        if not all(np.isfinite(values).all() for values in (self.history[-1].get("loss", 0.0), *model, *optimizer)):
            return
        content = {
            "epoch": epoch + 1,
            "stopped": bool(self.model.stop_training),
            "seconds": self.seconds,
            "history": self.history,
            "model": model,
            "optimizer": optimizer,
            "states": {name: callback.get_state() for name, callback in self.stateful.items()},
        }
        keep(self.folder, content)


def continue_fit(
    model: keras.Model, last: Checkpoint, callbacks: list[keras.callbacks.Callback], epochs: int, fit: Fit
) -> None:
    """Train up to `epochs`, from the epoch that `last` was restored from.

    A training that had already ended when it was interrupted is only restored: a `fit` of no epoch would lose its last.
    """
    first_epoch = last.saved["epoch"] if last.saved else 0
    if last.saved and (last.saved["stopped"] or first_epoch >= epochs):
        for callback in callbacks:
            callback.set_model(model)
        last.on_train_begin()
    else:
        fit(epochs, first_epoch, callbacks)


def keep(folder: Path, content: Any) -> None:
    """Write a new checkpoint, and keep the last one as the previous. Between the two renames only the previous
    exists."""
    with whole_file(folder / CHECKPOINT) as temporary:
        save(temporary, content)
        if (folder / CHECKPOINT).exists():
            os.replace(folder / CHECKPOINT, folder / PREVIOUS)


def newest(folder: Path, warn: Callable[[str], None]) -> dict[str, Any] | None:
    """The last checkpoint of a run, or the previous one where it is damaged, or None; calls `warn` with the problem."""
    for path in (folder / CHECKPOINT, folder / PREVIOUS):
        if not path.exists():
            continue
        try:
            return load(path)
        except RunError as error:
            warn(f"{error} Continuing from the previous one.")
            path.unlink()  # or it would become the previous one of the next
    warn(f"{folder}: there is no checkpoint; the training starts with its first epoch.")
    return None


def save(path: Path, content: Any) -> None:
    """Write nested dictionaries and lists of plain values and arrays."""
    arrays: dict[str, np.ndarray] = {}
    text, written = json.dumps(_strip(content, arrays)), io.BytesIO()  # a full disk would leave a zip that cannot close
    np.savez(written, _json=np.frombuffer(text.encode(), "uint8"), **arrays)  # type: ignore[arg-type]
    path.write_bytes(written.getvalue())


def load(path: Path) -> dict[str, Any]:
    """The inverse of `save`. Raises `RunError` where a checksum is wrong, or an array is missing."""
    arrays = read_npz(path, "checkpoint")
    try:
        with zipfile.ZipFile(path) as archive:
            if wrong := archive.testzip():  # NumPy reads as far as an array's shape says, and checks whole members only
                raise ValueError(f"the checksum of {wrong} is wrong")
        restored: dict[str, Any] = _restore(json.loads(bytes(arrays["_json"]).decode()), arrays)
    except (OSError, ValueError, KeyError, RecursionError, zipfile.BadZipFile) as error:
        raise RunError(f"{path}: the checkpoint is damaged ({error}). Start the run again.") from None
    return restored


def _strip(value: Any, arrays: dict[str, np.ndarray]) -> Any:
    """Replace each array by its number, and collect the arrays."""
    if isinstance(value, np.ndarray):
        arrays[f"a{len(arrays)}"] = value
        return {"_array": f"a{len(arrays) - 1}"}
    if isinstance(value, dict):
        return {key: _strip(part, arrays) for key, part in value.items()}
    if isinstance(value, list | tuple):
        return [_strip(part, arrays) for part in value]
    return value


def _restore(value: Any, arrays: dict[str, np.ndarray]) -> Any:
    if isinstance(value, dict):
        return arrays[value["_array"]] if "_array" in value else {k: _restore(v, arrays) for k, v in value.items()}
    return [_restore(part, arrays) for part in value] if isinstance(value, list) else value


def _assign(what: str, variables: list[Any], values: list[np.ndarray]) -> None:
    shapes = [tuple(variable.shape) for variable in variables]
    if shapes != [value.shape for value in values]:
        raise RunError(f"the checkpoint's {what} variables do not fit: another version of cloudml_tf wrote it.")
    for variable, value in zip(variables, values, strict=True):
        variable.assign(value)

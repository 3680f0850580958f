"""Everything that a training has at the end of an epoch, in one file, so that it can go on as if never stopped.

`checkpoint.npz` holds all variables of the model (weights, seed generators), the optimizer's, the states of the
callbacks and the history. It is plain arrays and JSON: loading it runs no code. It is replaced whole, epoch by epoch.
"""

import json
from pathlib import Path
from typing import Any

import keras
import numpy as np

from cloudml_tf.errors import RunError
from cloudml_tf.files import whole_file
from cloudml_tf.runs import write_history
from cloudml_tf.stored_arrays import read_npz

NAME = "checkpoint.npz"


class Checkpoint(keras.callbacks.Callback):
    """Writes the checkpoint and `history.csv` after each epoch. Put it last, so that it sees the others' decisions.

    Args:
        folder: the run folder.
        stateful: callbacks by name; those with `get_state` and `set_state`.
        saved: what `load` returned, to go on from; None starts anew.
        writes: whether it writes, or only restores and keeps the history: of several workers the chief alone writes.
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
        """Write, if the epoch ended well: a NaN is no place to go on from."""
        self.history.append({"epoch": float(epoch + 1), **{k: float(v) for k, v in (logs or {}).items()}})
        if not self.writes:
            return
        write_history(self.folder, self.history)
        if not np.isfinite(self.history[-1].get("loss", 0.0)):
            return
        content = {
            "epoch": epoch + 1,
            "stopped": bool(self.model.stop_training),
            "history": self.history,
            "model": [keras.ops.convert_to_numpy(v) for v in self.model.variables],
            "optimizer": [keras.ops.convert_to_numpy(v) for v in self.model.optimizer.variables],
            "states": {name: callback.get_state() for name, callback in self.stateful.items()},
        }
        save(self.folder / NAME, content)


def save(path: Path, content: Any) -> None:
    """Write nested dictionaries and lists of plain values and arrays."""
    arrays: dict[str, np.ndarray] = {}
    text = json.dumps(_strip(content, arrays))
    with whole_file(path) as temporary, open(temporary, "wb") as file:
        np.savez(file, _json=np.frombuffer(text.encode(), "uint8"), **arrays)  # type: ignore[arg-type]


def load(path: Path) -> dict[str, Any]:
    """The inverse of `save`. Raises `RunError` where the file is damaged."""
    arrays = read_npz(path, "checkpoint")
    try:
        content = json.loads(bytes(arrays["_json"]).decode())
    except (ValueError, KeyError, RecursionError) as error:
        raise RunError(f"{path}: the checkpoint is damaged ({error}). Start the run again.") from None
    restored: dict[str, Any] = _restore(content, arrays)
    return restored


def _strip(value: Any, arrays: dict[str, np.ndarray]) -> Any:
    """Put arrays aside, each replaced by its number."""
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

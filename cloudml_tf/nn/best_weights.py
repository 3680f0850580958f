"""What callbacks that watch a training log share: the best weights, missing keys, and a word when a training stops."""

import logging
import math
import sys
import warnings
from collections.abc import Iterable, Mapping
from typing import Any

import keras

from cloudml_tf.nn.directions import COMPOSITE, COMPOSITE_KEYS, composite, merit


def announce(text: str) -> None:
    """Print a line as Keras's callbacks do: on stdout, or to the log where Keras's interactive logging is off."""
    if not keras.config.is_interactive_logging_enabled():
        logging.getLogger("cloudml_tf").info(text)
        return
    coding = getattr(sys.stdout, "encoding", None) or "utf-8"
    print(text.encode(coding, errors="replace").decode(coding), flush=True)


class LogKeys:
    """Which keys of a training log a callback has seen. Validation may run in some epochs only, or never.

    Args:
        owner: the callback's name.
        keys: what it needs in one log.
        remedy: how to get them into the log.
    """

    def __init__(self, owner: str, keys: Iterable[str], remedy: str) -> None:
        self.owner, self.keys, self.remedy = owner, tuple(keys), remedy
        self.reset()

    def reset(self) -> None:
        """Forget what was seen, for a new training."""
        self.seen, self.epochs, self._told = False, 0, False
        self.last: tuple[str, ...] = ()

    def present(self, logs: Mapping[str, Any]) -> bool:
        """Whether an epoch's log has all the keys; without them the epoch is passed over.

        Warns at once where validation ran and has other keys: then waiting would not help.
        """
        self.epochs, self.last = self.epochs + 1, tuple(sorted(logs))
        if all(key in logs for key in self.keys):
            self.seen = True
            return True
        validated = any(key.startswith("val_") for key in logs)
        if not self.seen and validated and all(key.startswith("val_") for key in self.keys):
            self.warn()
        return False

    def end(self) -> None:
        """Warn, at the end of a training, where the keys never came."""
        if self.epochs and not self.seen:
            self.warn()

    def warn(self) -> None:
        """Warn, once a training."""
        if self._told:
            return
        self._told = True
        warnings.warn(
            f"{self.owner} needs {list(self.keys)} in the training log, and does nothing without. "
            f"Received: {list(self.last)}. {self.remedy}",
            stacklevel=2,
        )


class BestWeights(keras.callbacks.Callback):
    """Keeps the weights of the epoch with the best score. A NaN is never the best, and never ends the search.

    Args:
        monitor: the log key of the score, or "composite".
        mode: "min", "max", or "auto", which goes by the key (`nn.directions`).
    """

    more_state: tuple[str, ...] = ()  # attributes of a subclass that a resumed run needs

    def __init__(self, monitor: str, mode: str = "auto") -> None:
        super().__init__()
        self.merit = merit(monitor, mode)
        self.monitor, self.mode = monitor, mode
        self.needed = COMPOSITE_KEYS if monitor == COMPOSITE else (monitor,)
        self._reset()

    def _reset(self) -> None:
        self.best = -math.inf  # the merit: higher is better, whatever the score
        self.best_epoch: int | None = None
        self.best_weights: list[Any] | None = None

    def _score(self, logs: Mapping[str, Any]) -> float:
        """The merit of an epoch whose log has the keys."""
        return self.merit(composite(logs) if self.monitor == COMPOSITE else float(logs[self.monitor]))

    def _keep_if_best(self, epoch: int, score: float, min_delta: float = 0.0) -> bool:
        if not math.isfinite(score) or score <= self.best + min_delta:
            return False
        self.best, self.best_epoch = score, epoch
        self.best_weights = [keras.ops.convert_to_numpy(weight) for weight in self.model.weights]
        return True

    def get_state(self) -> dict[str, Any]:
        """The state that a resumed run needs."""
        best = self.best if math.isfinite(self.best) else None
        more = {name: getattr(self, name) for name in self.more_state}
        return {"best": best, "best_epoch": self.best_epoch, "best_weights": self.best_weights, **more}

    def set_state(self, state: dict[str, Any]) -> None:
        """Restore a state of `get_state`."""
        self.best = -math.inf if state["best"] is None else state["best"]
        for name in ("best_epoch", "best_weights", *self.more_state):
            setattr(self, name, state[name])

    def restore_best(self) -> None:
        """Put the best weights back into the model; do nothing where no epoch had a finite score."""
        if self.best_weights is not None:
            self.model.set_weights(self.best_weights)

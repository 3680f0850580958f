"""How long an epoch takes, and how much of it is validation: `python phases.py CONFIG RUN_DIR` prints JSON."""

import json
import statistics
import sys
import time

import keras

from cloudml_tf.commands.main import main


def measured(arguments: list[str]) -> dict[str, float]:
    """Train, with a clock in Keras's own list of callbacks."""
    begun: dict[str, float] = {}
    seen: dict[str, list[float]] = {"epoch": [], "test": []}

    def clock(name: str, start: str, end: str) -> None:
        first, last = (getattr(keras.callbacks.CallbackList, hook) for hook in (start, end))

        def started(self, *args, **more):  # type: ignore[no-untyped-def]
            begun[name] = time.perf_counter()
            first(self, *args, **more)

        def ended(self, *args, **more):  # type: ignore[no-untyped-def]
            last(self, *args, **more)
            seen[name].append(time.perf_counter() - begun[name])

        setattr(keras.callbacks.CallbackList, start, started)
        setattr(keras.callbacks.CallbackList, end, ended)

    clock("epoch", "on_epoch_begin", "on_epoch_end")
    clock("test", "on_test_begin", "on_test_end")
    main(arguments)
    return {name: statistics.median(times[1:]) for name, times in seen.items()}


if __name__ == "__main__":
    config, folder = sys.argv[1:]
    print(json.dumps(measured(["train", config, "--run-dir", folder, "--json"])), file=sys.stderr)

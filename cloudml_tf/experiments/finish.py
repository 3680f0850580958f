"""End a run: export the model, then write metrics.json."""

from collections.abc import Callable
from pathlib import Path
from typing import Any

from cloudml_tf.config.run_folder import WHOLE
from cloudml_tf.config.schema import Config
from cloudml_tf.utils.console import Console
from cloudml_tf.utils.files import write_json


def finish(
    config: Config,
    folder: Path,
    metrics: dict[str, Any],
    export: Callable[[Path], dict[str, Any]],
    console: Console,
) -> None:
    """Export, if the configuration says so, then write metrics.json, whose presence says that the run is whole.

    `export` writes the model's files into a folder and returns how far they are from Keras.
    """
    try:
        if config.output.export:
            from cloudml_tf.inference.export.writer import run_of_export, show_export, target_folder

            home = target_folder(config)
            replaced = run_of_export(home)
            metrics["export"] = {"folder": str(home), "parity": export(home), "replaced": replaced}
            show_export(console, metrics["export"])
    except Exception:
        write_json(folder / WHOLE, metrics)  # what was trained and judged stays so
        raise
    write_json(folder / WHOLE, metrics)


def summary_of(fitted: Any) -> dict[str, Any]:
    """Of a training, for metrics.json."""
    import keras

    return {
        "backend": keras.backend.backend(),
        "seconds": fitted.seconds,
        "epochs": len(fitted.history),
        "best_epoch": None if fitted.best_epoch is None else fitted.best_epoch + 1,
        "ending": fitted.ending,
        "collapsed": fitted.collapsed,
        "weights": fitted.model.count_params(),
    }

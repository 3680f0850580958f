"""The average of a trained network and regressions on image statistics, `selection.average`: kept in the run folder."""

from pathlib import Path
from typing import Any

import keras

from cloudml_tf.config.schema import Config
from cloudml_tf.data.readers.arrays import read_npz, write_npz
from cloudml_tf.nn.regressions import averaged_with_regressions

FILE = "regressions.npz"


def write_regressions(folder: Path, found: dict[str, Any]) -> None:
    """Keep factors, line and trees beside the network's weights."""
    named = {f"{part}.{key}": values for part in ("line", "trees") for key, values in found[part].items()}
    write_npz(folder / FILE, factors=found["factors"], **named)


def with_regressions(network: keras.Model, folder: Path, config: Config, nadir: Any) -> keras.Model:
    """The average that a run folder keeps around its network; the network itself where there is none."""
    if not (folder / FILE).is_file():
        return network
    found = read_npz(folder / FILE, "regressions of a run")
    arguments: dict[str, dict[str, Any]] = {"line": {}, "trees": {}}
    for name, values in found.items():
        part, _, key = name.partition(".")
        if key:
            arguments[part][key] = float(values) if values.ndim == 0 else values
    return averaged_with_regressions(
        network, nadir, config.preprocessing.log_offset, found["factors"].tolist(), **arguments
    )

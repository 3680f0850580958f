"""A swath model's maps as a NetCDF file after the CF conventions, one map a scene."""

from pathlib import Path
from typing import Any

import numpy as np
import xarray as xr

from cloudml_tf.config.run_folder import environment, new_run, read_model
from cloudml_tf.config.schema import Config
from cloudml_tf.data.scenes import Scenes
from cloudml_tf.inference.model import name_of_run, provenance
from cloudml_tf.inference.netcdf import QUANTITIES
from cloudml_tf.inference.scene_source import answers_of, find_scenes
from cloudml_tf.utils.console import Console
from cloudml_tf.utils.errors import ConfigError, NotFiniteError
from cloudml_tf.utils.files import whole_file
from cloudml_tf.utils.tf_logging import quiet_tensorflow


def predict_scenes_to_file(
    source: Path, words: list[str], overrides: dict[str, Any], output: str | None, run_dir: str | None, console: Console
) -> dict[str, Any]:
    """Predict the scenes that are named and write one file; what was written. Labels are not read."""
    config, description, record = read_model(source, overrides)
    scenes = find_scenes(words, config, description, labels=False)
    if output is not None and run_dir is not None:
        raise ConfigError("-o and --run-dir both say where to write; keep one.")
    if output is None:
        path = new_run(config, run_dir, prefix="prediction-") / "scenes.nc"
    else:
        path = Path(output) if Path(output).suffix == ".nc" else Path(output) / "scenes.nc"
    quiet_tensorflow()
    with console.progress("predicting scenes"):
        maps = answers_of(source, config, description, bool(record))(scenes)
    if not np.isfinite(maps).all():
        raise NotFiniteError("the model predicts values that are not finite; its weights or inputs are not finite.")
    made_by = provenance(source, config, description, name_of_run(source, config, record))
    content = dataset(scenes, maps, config, made_by)
    packed = {name: {"zlib": True, "complevel": 4} for name in content.data_vars}
    with whole_file(path) as temporary:
        content.to_netcdf(temporary, engine="h5netcdf", format="NETCDF4", encoding=packed)
    return {"file": str(path), "scenes": list(scenes.names), "pixels": int(maps.size)}


def dataset(scenes: Scenes, maps: np.ndarray, config: Config, made_by: dict[str, str]) -> xr.Dataset:
    """The content of the file: (scene, row, column). `made_by` says which model this was."""
    quantity, started = QUANTITIES[config.target.name], environment()
    attributes = {"standard_name": quantity.standard_name, "long_name": quantity.long_name, "units": quantity.units}
    names = np.asarray([int(name) for name in scenes.names], "int32")
    about = {"long_name": "number of the scene in its file"}
    return xr.Dataset(
        {quantity.name: (("scene", "row", "column"), maps.astype("float32"), attributes)},
        coords={"scene": ("scene", names, about)},
        attrs={
            "Conventions": "CF-1.10",
            "title": f"{quantity.long_name} of every pixel, from images",
            "history": f"{started['started']} {started['command']}",
            "references": "docs/swath.md of cloudml_tf",
            **made_by,
        },
    )

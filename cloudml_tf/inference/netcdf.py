"""Write predictions as NetCDF files by the CF conventions 1.10: a trajectory where positions are known."""

from collections.abc import Hashable, Iterable, Sequence
from pathlib import Path
from typing import Any

import numpy as np
import xarray as xr

from cloudml_tf.config.targets import QUANTITIES, Quantity
from cloudml_tf.data.scenes import Scenes
from cloudml_tf.inference.about import about
from cloudml_tf.inference.flags import FLAGS, MASKS, NO_VALUE, mask_of
from cloudml_tf.inference.flight import Predicted
from cloudml_tf.inference.model import Model, Values
from cloudml_tf.utils.files import whole_file

SINCE = {"units": "seconds since 1970-01-01 00:00:00 UTC", "calendar": "standard"}
REFERENCES = (
    "docs/predict.md of cloudml_tf; glint: Ackerman et al. (2010), Discriminating clear sky from clouds with MODIS, "
    "Algorithm Theoretical Basis Document MOD35, version 6.1"
)


def write_netcdf(path: Path, predicted: Predicted, model: Model, history: str, input_fingerprint: str = "") -> None:
    """Write the file, whole or not at all. `history` is the line with the date and the command."""
    content = dataset(predicted, model, history).assign_attrs(input_fingerprint=input_fingerprint)
    _write(path, content, [name for name, values in content.variables.items() if values.ndim])


def _write(path: Path, content: xr.Dataset, packed: Iterable[Hashable]) -> None:
    encoding: dict[str, dict[str, Any]] = {str(name): {"zlib": True, "complevel": 4} for name in packed}
    if "time" in encoding:
        encoding["time"]["_FillValue"] = None  # a coordinate has no missing values
    with whole_file(path) as temporary:
        content.to_netcdf(temporary, engine="h5netcdf", format="NETCDF4", encoding=encoding)


def dataset(predicted: Predicted, model: Model, history: str) -> xr.Dataset:
    """The content of the file."""
    quantity, flight = model.config.target.quantity, predicted.flight
    found = variables(predicted.values, model, quantity, ("time",), ("valid", "quality_flag"))
    title = f"{quantity.long_name} from camera frames, flight {flight.name}"
    more = {"camera_file": flight.camera_path.name, "glint_angle_limit_deg": model.config.prediction.glint_angle_deg}
    attributes = _global_attributes(model, title, history, REFERENCES, **more)
    attributes |= {"featureType": "trajectory"} if has_positions(predicted) else {}
    return xr.Dataset({**found, **_masks(predicted, quantity)}, coords=_coordinates(predicted), attrs=attributes)


def write_scenes(path: Path, scenes: Scenes, values: Values, model: Model, history: str) -> None:
    """Write the maps of scenes as one file, whole or not at all: (scene, row, column)."""
    content = scene_dataset(scenes, values, model, history)
    _write(path, content, content.data_vars)


def scene_dataset(scenes: Scenes, values: Values, model: Model, history: str) -> xr.Dataset:
    """The content of the file; scenes have their number in their file, or are counted, with flight and time."""
    quantity = model.config.target.quantity
    dimensions = ("scene", "row", "column")
    if all(name.isdigit() for name in scenes.names):
        number, about = [int(name) for name in scenes.names], "number of the scene in its file"
    else:
        number, about = list(range(1, len(scenes) + 1)), "number of the scene, in order of flight and time"
    coords: dict[str, Any] = {"scene": ("scene", np.asarray(number, "int32"), {"long_name": about})}
    if scenes.time_s is not None:
        coords["time"] = ("scene", scenes.time_s, {"standard_name": "time", "long_name": "time of the image", **SINCE})
        coords["flight"] = ("scene", np.asarray(scenes.split_names), {"long_name": "name of the flight"})
    title = f"{quantity.long_name} of every pixel, from images"
    attributes = _global_attributes(model, title, history, "docs/swath.md of cloudml_tf")
    return xr.Dataset(variables(values, model, quantity, dimensions), coords=coords, attrs=attributes)


def has_positions(predicted: Predicted) -> bool:
    """Whether the positions of the frames are known."""
    flight = predicted.flight
    return bool(np.isfinite(flight.latitude_deg).any() and np.isfinite(flight.longitude_deg).any())


def _coordinates(predicted: Predicted) -> dict[str, Any]:
    flight = predicted.flight
    time = {"standard_name": "time", "long_name": "time of the frame", "axis": "T", **SINCE}
    found: dict[str, Any] = {"time": ("time", flight.time_s, time)}
    if has_positions(predicted):
        for name, values, units in (
            ("latitude", flight.latitude_deg, "degrees_north"),
            ("longitude", flight.longitude_deg, "degrees_east"),
        ):
            attributes = {"standard_name": name, "long_name": f"{name} of the aircraft", "units": units}
            found[name] = ("time", values, attributes)
        found["trajectory"] = ((), flight.name, {"cf_role": "trajectory_id", "long_name": "name of the flight"})
    return found


def variables(
    values: Values, model: Model, quantity: Quantity, dimensions: tuple[str, ...], further: Sequence[str] = ()
) -> dict[str, Any]:
    """The value first, then its uncertainty; `further` variables add information about the value."""
    meanings = {
        "lower": f"lower end of the {100 * (model.level or 0):g} % interval",
        "upper": f"upper end of the {100 * (model.level or 0):g} % interval",
        "spread": "standard deviation between the members",
    }
    attributes = {"standard_name": quantity.standard_name, "long_name": quantity.long_name, "units": quantity.unit}
    found = {quantity.variable: (dimensions, values["value"].astype("float32"), attributes)}
    for key in (key for key in meanings if key in values):
        about = {"long_name": f"{quantity.long_name}, {meanings[key]}", "units": quantity.unit}
        if key != "spread":
            about["comment"] = f"interval {model.interval}"
        found[f"{quantity.variable}_{key}"] = (dimensions, values[key].astype("float32"), about)
    ancillary = [*list(found)[1:], *further]
    for name in (name for name in model.config.target.further if name in values):
        other = QUANTITIES[name]
        about = {"standard_name": other.standard_name, "long_name": other.long_name, "units": other.unit}
        found[other.variable] = (dimensions, values[name].astype("float32"), about)
        ends = [end for end in ("lower", "upper") if f"{name}_{end}" in values]
        for end in ends:
            of_end = {"long_name": f"{other.long_name}, {meanings[end]}", "units": other.unit}
            of_end["comment"] = f"interval {model.interval}"
            found[f"{other.variable}_{end}"] = (dimensions, values[f"{name}_{end}"].astype("float32"), of_end)
        if ends:
            about["ancillary_variables"] = " ".join(f"{other.variable}_{end}" for end in ends)
    if ancillary:
        attributes["ancillary_variables"] = " ".join(ancillary)
    return found


def _masks(predicted: Predicted, quantity: Quantity) -> dict[str, Any]:
    valid = {
        "standard_name": "status_flag",
        "long_name": f"whether the frame has a value of {quantity.variable}",
        "flag_values": np.array([0, 1], "int8"),
        "flag_meanings": "no_value value",
    }
    quality = {
        "standard_name": "quality_flag",
        "long_name": f"quality flags of {quantity.variable}",
        "flag_masks": MASKS,
        "flag_meanings": " ".join(FLAGS),
        "bits_without_value": mask_of(NO_VALUE),
        "bits_of_caution": mask_of([name for name in FLAGS if name not in NO_VALUE]),
        "comment": "bits_without_value: the frame has no value; bits_of_caution: it has one, to be doubted",
    }
    return {
        "valid": ("time", predicted.valid.astype("int8"), valid),
        "quality_flag": ("time", predicted.flags, quality),
    }


def _global_attributes(model: Model, title: str, history: str, references: str, **more: Any) -> dict[str, Any]:
    found = {"Conventions": "CF-1.10", "title": title, "history": history, "references": references}
    return {**found, **more, **about(model.record), **model.provenance}

"""The ceiling on simulated flights: what a retrieval with the noise-free cloud would reach.

The simulator stores the true column optical depth, averaged over each lidar footprint. A straight line from it to the
label, fitted on the training split, is the oracle; what it misses is the lidar's own noise.
"""

from collections.abc import Mapping
from pathlib import Path

import h5py
import numpy as np

from cloudml_tf.config.data import FlightFiles
from cloudml_tf.config.schema import Config
from cloudml_tf.data.readers import times
from cloudml_tf.data.readers.lidar import read_profiles
from cloudml_tf.data.samples import Examples
from cloudml_tf.data.scaling import TargetScaling


def oracle_predictions(
    parts: Mapping[str, Examples], flights: Mapping[str, FlightFiles], scaling: TargetScaling, config: Config
) -> dict[str, np.ndarray] | None:
    """The oracle's standardised predictions for each split, at nadir; None where a flight has no truth file."""
    if config.target.name != "optical_depth" or not flights or parts["train"].label.ndim > 1:
        return None
    truth_files = {name: next(Path(f.camera).parent.glob("TRUTH_*.h5"), None) for name, f in flights.items()}
    if any(path is None for path in truth_files.values()):
        return None
    truth = {part: _truth_of(each, flights, truth_files, config) for part, each in parts.items()}
    if config.target.transform == "log":
        truth = {part: np.log(np.maximum(values, 1e-3)) for part, values in truth.items()}
    slope, offset = np.polyfit(truth["train"], scaling.standardise(parts["train"].label), 1)
    return {part: slope * values + offset for part, values in truth.items()}


def _truth_of(
    examples: Examples, flights: Mapping[str, FlightFiles], truth_files: Mapping[str, Path | None], config: Config
) -> np.ndarray:
    found, time_s = np.zeros(len(examples)), np.asarray(examples.time_s)
    for number in np.unique(examples.group):
        name = examples.group_names[number]
        here = examples.group == number
        profiles = read_profiles(flights[name].lidar_path(), config.data.lidar, config.target, config.data.limits)
        with h5py.File(truth_files[name], "r") as file:
            footprint = file["truth/footprint_optical_depth"][()][profiles.order]
        labelled = np.flatnonzero(np.isfinite(profiles.label))
        index, _ = times.nearest(profiles.middle_s[labelled], time_s[here])
        found[here] = footprint[labelled][index]
    return found

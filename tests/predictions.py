"""Helpers of the tests of `cloudml predict`: a model that needs no training, and what the CF checker says."""

import warnings
from pathlib import Path
from typing import Any

import numpy as np
from flight_files import FRAMES

from cloudml_tf.config.run_folder import ModelRecord
from cloudml_tf.config.schema import Config
from cloudml_tf.data.readers.flights import Flight, load_flight
from cloudml_tf.data.readers.folders import flight_files
from cloudml_tf.data.samples import Samples
from cloudml_tf.data.training_ranges import TrainingRanges
from cloudml_tf.inference.flags import FLAGS, MASKS
from cloudml_tf.inference.model import Model

POSITION = {"nav/latitude": np.linspace(30.0, 30.2, FRAMES), "nav/longitude": np.linspace(-120.0, -119.8, FRAMES)}


def unlabelled(folder: Path, config: Config) -> Flight:
    files = flight_files(folder, config.data, labels=False)
    return load_flight(folder.name, files, config.data, config.target, labels=False)


def model_of(config: Config, answer: Any, ranges: TrainingRanges | None = None) -> Model:
    description = {"fingerprint": "0", **({"ranges": ranges.to_json()} if ranges else {})}
    return Model(ModelRecord(Path("run"), config, description, {"run": "tiny/run"}), answer)


def brightness(samples: Samples) -> dict[str, np.ndarray]:
    """A model that answers with the mean of the sequence's frames."""
    return {"value": samples.inputs()["frames"].mean(axis=(1, 2, 3, 4))}


def raised(flags: np.ndarray, name: str) -> list[int]:
    """Which frames have a flag."""
    return np.flatnonzero(flags & MASKS[FLAGS.index(name)]).tolist()


def checked(path: Path) -> dict[str, tuple[list[Any], Any]]:
    """The results of the CF checker, by check; errors of the checker itself count as failures."""
    with warnings.catch_warnings():
        # The checker and what it stands on warn on import and at work; that is not ours to mend.
        warnings.simplefilter("ignore")
        from compliance_checker.runner import CheckSuite

        CheckSuite.load_all_available_checkers()
        suite = CheckSuite()
        source = suite.load_dataset(str(path))
        try:
            found: dict[str, tuple[list[Any], Any]] = suite.run_all(source, ["cf:1.10"])
        finally:
            source.close()
    return found


def faults(path: Path) -> list[str]:
    """What the checker holds against a file: everything but advice of low priority."""
    results, errors = checked(path)["cf:1.10"]
    assert not errors
    assert len(results) > 20
    failed = [
        one for one in results if one.value is False or (isinstance(one.value, tuple) and one.value[0] < one.value[1])
    ]
    return [text for one in failed if one.weight > 1 for text in one.msgs]

"""What a spoilt input is put through: the product itself, from file to numbers. Only its own errors may come out.

A target is a class with `one(data)`: bytes decide the case. It returns "used", "refused" or "tamed"; whatever else it
raises is a fault of the product. Warnings are faults too.
"""

import json
import warnings
from pathlib import Path

import numpy as np
from choices import Choices
from flight_files import tiny_content
from spoilt import Flights
from spoilt_configs import spoilt_overrides, spoilt_text, whole

from cloudml_tf.config.data import FlightFiles
from cloudml_tf.config.load import load_config, parse_config, parse_overrides, resolved_json
from cloudml_tf.config.schema import Config
from cloudml_tf.data.blocks import read_blocks, samples_of_block
from cloudml_tf.data.discovery.datasets import read_content
from cloudml_tf.data.readers.navigation import why_no_positions
from cloudml_tf.data.readers.sandbox import read_flight, try_file
from cloudml_tf.data.samples import build_samples
from cloudml_tf.data.sequences import sequences_around
from cloudml_tf.data.splits import check_labels, flights_needed
from cloudml_tf.diagnostics.frames import scan_frames
from cloudml_tf.diagnostics.labels import height_unit
from cloudml_tf.utils.errors import CloudMLError
from cloudml_tf.utils.plain_json import is_text

TRY_S = 3.0  # for what a good file takes milliseconds
LONGEST_MESSAGE = 20_000  # characters: a person has to read it

LAYOUTS: list[dict[str, object]] = [
    {},
    {"data.lidar.match": "average", "data.camera.downsample": 2, "temporal_frames": 1},
    {"target.name": "cloud_top_km", "data.camera.max_gap_s": 1.5, "data.lidar.layer": "bottom"},
    {"data.sun_angles": False, "data.lidar.clear_sky": "zero", "target.minimum": 0, "data.lidar.scene": "ocean"},
    {
        "data.navigation.time": "Time/TimeUTC",
        "data.camera.rows": [1, 7],
        "data.camera.saturation": 5.0,
        "data.features": [
            {"name": "a", "file": "camera", "dataset": "Time/TimeUTC"},
            {"name": "b", "file": "lidar", "dataset": "layer_descriptor/DEM_Surface_Altitude"},
            {"name": "c", "file": "navigation", "dataset": "nav/heading"},
        ],
    },
    {"target.name": "cloud_base_km", "data.lidar.time_unit": "s", "data.camera.time_since": "file_name"},
]


class FlightTarget:
    """Reading a flight, its frames, a prediction's blocks, `check`'s scan and `init`'s look."""

    def __init__(self, home: Path) -> None:
        self.home, self.folder = home, home / "case"
        self.folder.mkdir(parents=True)
        self.flights = Flights(home)
        self.configs: list[Config] = []
        for changes in LAYOUTS:
            content = tiny_content(
                home, {"data.path": None, "data.limits.try_s": TRY_S, "data.cache": str(home / "cache"), **changes}
            )
            self.configs.append(parse_config(content))

    def one(self, data: bytes) -> str:
        """Write one spoilt flight and use it."""
        choices = Choices(data)
        config = choices.pick(self.configs)
        look, mapped = choices.one_in(4), choices.one_in(16)
        paths = self.flights.write(self.folder, choices)
        files = FlightFiles(**{role: str(path) for role, path in paths.items()})
        if mapped:
            config = config.model_copy(update={"data": config.data.model_copy(update={"memory_gb": 1e-9})})
        endings = [_ending(lambda: self._train(files, config)), _ending(lambda: self._predict(files, config))]
        if look:
            endings += [_ending(lambda path=path: _look(path)) for path in paths.values()]
            _ending(lambda: why_no_positions(files, config.data.navigation))
            _ending(lambda: height_unit(paths["lidar"], config.data, config.target))
        return "tamed" if "tamed" in endings else "used" if "used" in endings[:2] else "refused"

    def _train(self, files: FlightFiles, config: Config) -> None:
        flight = read_flight("a", files, config.data, config.target)
        _check_flight(flight.time_s, flight.label)
        samples, _ = build_samples([flight], config)
        assert np.isfinite(samples.inputs()["frames"]).all()
        assert np.isfinite(samples.label).all()
        check_labels(samples, "the flight")
        scan_frames(flight, config)

    def _predict(self, files: FlightFiles, config: Config) -> None:
        flight = read_flight("a", files, config.data, config.target, labels=False)
        sequences = sequences_around(flight, np.arange(len(flight)), config)
        for block in read_blocks(flight, config.data, config.temporal_frames - 1):
            good = block.good_sequences(sequences)
            frames = samples_of_block(block, good, flight, config.data).inputs()["frames"]
            assert np.isfinite(frames).all()


def _look(path: Path) -> None:
    try_file(path, TRY_S)
    read_content(path)


def _check_flight(time_s: np.ndarray, label: np.ndarray) -> None:
    assert (np.diff(time_s) > 0).all()
    assert not np.isinf(label).any()


class ConfigTarget:
    """Reading a configuration file, overrides, and what is made of it without any flight."""

    def __init__(self, home: Path) -> None:
        self.home, self.path = home, home / "config.json"
        self.base = whole()

    def one(self, data: bytes) -> str:
        """Write one spoilt configuration and use it."""
        choices = Choices(data)
        self.path.write_bytes(spoilt_text(choices, self.base))
        words = spoilt_overrides(choices, self.base)
        return _ending(lambda: self._load(words))

    def _load(self, words: list[str]) -> None:
        config = load_config(self.path, parse_overrides(words))
        text = resolved_json(config)
        assert parse_config(json.loads(text, parse_constant=_no_constant)) == config
        config.warnings()
        flights_needed(config.split, ["sim01", "sim02", "sim03"])


def _no_constant(name: str) -> None:
    raise AssertionError(f"{name} is no JSON")


def _ending(act) -> str:  # type: ignore[no-untyped-def]
    """ "used", or "refused" where the product said so itself, in a message that a person can read.

    "tamed": where a process died of the file, or hung, and it was not this one.
    """
    try:
        with warnings.catch_warnings():
            warnings.simplefilter("error")
            act()
    except CloudMLError as error:
        text = str(error)
        assert text.strip(), "an empty message"
        assert len(text) <= LONGEST_MESSAGE, f"a message of {len(text)} characters: {text[:200]}"
        assert is_text(text), f"no text: {text!r}"[:300]
        return "tamed" if ": is damaged: " in text else "refused"
    return "used"


TARGETS = {"flights": FlightTarget, "config": ConfigTarget}

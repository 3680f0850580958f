"""From a configuration to samples that are ready to train on. NumPy only."""

import contextlib
import hashlib
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import numpy as np

from cloudml_tf.config import Config, expand
from cloudml_tf.data.bad import LeftOut, flights_left, leave_out, of_the_split, tell
from cloudml_tf.data.density import density_weights
from cloudml_tf.data.flights import Flight, read_flight
from cloudml_tf.data.folders import find_flights
from cloudml_tf.data.frames import camera_fingerprint
from cloudml_tf.data.outside import FAR_SUN, far_flights
from cloudml_tf.data.ranges import TrainingRanges, fit_ranges
from cloudml_tf.data.samples import Samples, build_samples
from cloudml_tf.data.scaling import Scaling, fit_scaling
from cloudml_tf.data.settings import FlightFiles
from cloudml_tf.data.skew import fit_distributions
from cloudml_tf.data.splits import PARTS, check_labels, keep_labels, split_samples
from cloudml_tf.data.track import TrackLabels, track_labels
from cloudml_tf.data.unlabelled import FrameChunks, check_extra_flights, frame_chunks
from cloudml_tf.errors import ConfigError, DataError, FlightError, of_flight
from cloudml_tf.simulation.simulator import simulate_flights
from cloudml_tf.warm_start import check_unseen, inherited_scaling

Progress = Callable[[int, int], None]


@dataclass(frozen=True)
class Prepared:
    """Everything that training needs, and what is written down about it."""

    parts: dict[str, Samples]
    scaling: Scaling
    ranges: TrainingRanges  # what the training part has shown the network
    distributions: dict[str, Any]  # the same more closely, of every input and of the label; see `data.skew`
    far: list[str]  # held-out flights whose sun it has not shown, a sentence each
    counts: dict[str, dict[str, int]]  # per flight: what was read and what was left out
    fingerprint: str  # changes with the files, the labels and the split
    flights: dict[str, FlightFiles]
    left_out: LeftOut  # flights that data.bad_flights left out, and why
    track: TrackLabels | None = None  # with target.coverage "track": what the training part is trained on

    @property
    def geometry(self) -> tuple[tuple[int, int, int], tuple[int, int]]:
        """(H, W, C) of a frame, and the nadir pixel."""
        return self.parts["train"].frame_shape, self.parts["train"].nadir

    def remarks(self) -> list[str]:
        """What a person has to know of these flights before the training."""
        left_out = [f"flight {name} is left out (data.bad_flights): {why}" for name, why in self.left_out.items()]
        far = [f"the sun is not that of the training: {'; '.join(self.far)}; {FAR_SUN}"] if self.far else []
        return left_out + far

    def description(self) -> dict[str, Any]:
        """For the run folder."""
        parts = {
            part: {
                "flights": sorted({samples.flight_names[n] for n in samples.flight}),
                "sequences": len(samples),
                "label_mean": float(samples.label.mean()),
                "label_std": float(samples.label.std()),
            }
            for part, samples in self.parts.items()
        }
        train = self.parts["train"]
        return {
            "fingerprint": self.fingerprint,
            "split": parts,
            "files": {name: files.model_dump() for name, files in self.flights.items()},
            "counts": self.counts,
            "scaling": self.scaling.to_json(),
            "ranges": self.ranges.to_json(),
            "distributions": self.distributions,
            "sun_outside_training": self.far,
            "frame_shape": list(train.frame_shape),
            "nadir": list(train.nadir),
            **({"left_out": self.left_out} if self.left_out else {}),
            **({} if self.track is None else {"track": self.track.description()}),
        }


def available_flights(
    config: Config, progress: Progress | None = None, left_out: LeftOut | None = None
) -> dict[str, FlightFiles]:
    """The flights that a configuration names, finds, or simulates (once; kept in the cache folder).

    With data.bad_flights "skip" those of which a file is missing are put into `left_out`.
    """
    data = config.data
    check_flights(config)
    left_out = left_out if data.bad_flights == "skip" else None
    if data.flights is not None:
        if not data.flights:
            raise DataError("data.flights names no flight. Name the files of one, or set data.path.")
        return {name: _expanded(files) for name, files in data.flights.items()}
    if data.path is not None:
        return find_flights(expand(data.path), data, refused=left_out)
    folders = simulate_flights(data.simulation, expand(data.cache) / "simulated", progress)
    return find_flights(Path(folders[0]).parent, data)


def check_flights(config: Config) -> None:
    """Refuse a configuration of scenes where flights are read. Raises `ConfigError`."""
    if config.data.scenes is not None:
        raise ConfigError(
            "this command reads flights, and the configuration names scenes (data.scenes, target.coverage 'swath'). "
            "For scenes there are train, evaluate, export and predict."
        )


def _expanded(files: FlightFiles) -> FlightFiles:
    """With `~` and ${NAME} replaced, as in `data.path`."""
    return FlightFiles(**{role: path and str(expand(path)) for role, path in files.model_dump().items()})


def read_flights(
    files: dict[str, FlightFiles], names: list[str], config: Config, left_out: LeftOut | None = None
) -> list[Flight]:
    """Load flights by name. With `left_out`, those that cannot be used are put there if the configuration says so."""
    found = []
    for name in names:
        try:
            with of_flight(name):
                found.append(read_flight(name, files[name], config.data, config.target))
        except FlightError as error:
            if left_out is None:
                raise
            leave_out(error, left_out, config)
    return found


def prepare(config: Config, simulating: Progress | None = None, decoding: Progress | None = None) -> Prepared:
    """Read the flights of the split, cut the parts, check for leaks and fit the scaling on the training part.

    A run that goes on from another (`training.init_from`) keeps that one's scaling. Where a flight turns bad while its
    frames are read, and data.bad_flights is "skip", all begins again without it.
    """
    left_out: LeftOut = {}
    while True:
        try:
            return _prepare(config, left_out, simulating, decoding)
        except FlightError as error:
            leave_out(error, left_out, config)


def _prepare(config: Config, left_out: LeftOut, simulating: Progress | None, decoding: Progress | None) -> Prepared:
    files = available_flights(config, simulating, left_out)
    needed = flights_left(config, list(files), left_out)
    check_overweight(config, [*files, *left_out])
    names = sorted({name for part in PARTS for name in needed[part]})
    flights = read_flights(files, names, config, left_out)
    needed = flights_left(config, list(files), left_out)
    samples, counts = build_samples(flights, config, decoding)
    parts = keep_labels(split_samples(samples, config.split, needed), config.data, config.seed)
    if config.training.init_from is None:
        scaling = fit_scaling(parts["train"], config.target, config.preprocessing)
    else:
        check_unseen(config, {name: Path(files[name].camera) for name in needed["test"]})
        scaling = inherited_scaling(config, parts["train"])
    if config.label_density.enabled:
        train = parts["train"]
        density = density_weights(scaling.target.transform(train.label), config.label_density)
        parts["train"] = replace(train, weight=train.weight * density)
    track = track_labels(flights, parts["train"], config, decoding) if config.target.coverage == "track" else None
    ranges = fit_ranges(parts["train"], config)
    return Prepared(
        parts=parts,
        scaling=scaling,
        ranges=ranges,
        distributions=fit_distributions(parts["train"], config),
        far=far_flights(parts, ranges, config),
        counts=counts,
        fingerprint=_fingerprint(flights, parts),
        flights={flight.name: files[flight.name] for flight in flights},
        left_out=of_the_split(config, list(files), left_out),
        track=track,
    )


def prepare_frames(config: Config, decoding: Progress | None = None) -> dict[str, FrameChunks]:
    """All frames of the training and validation flights, labelled or not, in chunks: what pretraining sees."""
    left_out: LeftOut = {}
    while True:
        files = available_flights(config, left_out=left_out)
        needed = flights_left(config, list(files), left_out)
        check_extra_flights(config, needed, [*files, *left_out])
        names = {*needed["train"], *needed["val"], *config.pretraining.extra_flights} - set(left_out)
        try:
            flights = read_flights(files, sorted(names), config, left_out)
            chunks = frame_chunks(flights, flights_left(config, list(files), left_out), config, decoding)
        except FlightError as error:
            leave_out(error, left_out, config)
            continue
        tell(left_out)
        return chunks


def check_overweight(config: Config, available: list[str]) -> None:
    """Refuse flights to overweight that are not there. Raises `DataError`."""
    unknown = sorted(set(config.overweight.flights) - set(available))
    if unknown:
        raise DataError(f"overweight.flights names {', '.join(unknown)}; the flights are {', '.join(available)}.")


def _fingerprint(flights: list[Flight], parts: dict[str, Samples]) -> str:
    digest = hashlib.sha256()
    for flight in flights:
        with of_flight(flight.name):
            digest.update(f"{flight.name} {camera_fingerprint(flight.camera_path)}".encode())
    for part in PARTS:
        rows = parts[part].index
        sun = parts[part].sun_angles_deg
        seen = (parts[part].features[rows], rows if sun is None else sun[rows])
        for array in (parts[part].label, parts[part].weight, parts[part].time_s, rows, *seen):
            digest.update(np.ascontiguousarray(array).tobytes())
    return digest.hexdigest()[:16]


def find_named(
    words: Sequence[str],
    config: Config,
    known: Mapping[str, Mapping[str, str]],
    labels: bool = True,
    refused: dict[str, str] | None = None,
) -> dict[str, FlightFiles]:
    """Flights as a command line names them: folders, camera files, or names that a finished model knows.

    Args:
        words: the command line's.
        config: of the model: how flights are found and read.
        known: flight -> its files, of the model's own flights.
        labels: without, flights need no lidar file.
        refused: takes the flights of folders that lack a file, with the reason; without it, they are an error.

    Raises `DataError` for a word that is none of these, and for two flights of one name.
    """
    check_flights(config)
    found: dict[str, FlightFiles] = {}
    for word in words:
        for name, files in _named(word, config, known, labels, refused).items():
            if name in found:
                raise DataError(f"two flights are called {name}: {found[name].camera} and {files.camera}. Rename one.")
            found[name] = files
    return found


def _named(
    word: str,
    config: Config,
    known: Mapping[str, Mapping[str, str]],
    labels: bool,
    refused: dict[str, str] | None,
) -> dict[str, FlightFiles]:
    path = Path(word)
    if path.is_dir():
        return find_flights(path, config.data, labels, refused)
    if path.is_file():
        for folder in (path.parent, path.resolve().parent.parent):
            with contextlib.suppress(DataError):
                for name, files in find_flights(folder, config.data, labels).items():
                    if Path(files.camera).resolve() == path.resolve():
                        return {name: files}
    if config.data.flights and word in config.data.flights:
        return {word: _expanded(config.data.flights[word])}
    if word in known:
        return {word: FlightFiles.model_validate(known[word])}
    names = ", ".join({**known, **(config.data.flights or {})}) or "none"
    problem = "is no camera file whose partners can be found" if path.is_file() else "is no folder with flights"
    raise DataError(
        f"{word}: {problem}, and no flight that the model knows by name ({names}). Name a folder, a camera file that "
        f"matches {', '.join(config.data.camera.files)}, or one of these flights; or name its files: --set "
        'data.flights.NAME={"camera": "…", "navigation": "…"}, and NAME as the flight.'
    )


def samples_of(files: dict[str, FlightFiles], config: Config, decoding: Progress | None = None) -> Samples:
    """All labelled sequences of the given flights; of those that can be used, where data.bad_flights is "skip"."""
    left_out: LeftOut = {}
    while True:
        flights = read_flights(files, sorted(files.keys() - left_out), config, left_out)
        if not flights:
            raise DataError("no flight is left: " + "; ".join(f"{name}: {why}" for name, why in left_out.items()))
        try:
            samples = build_samples(flights, config, decoding)[0]
        except FlightError as error:
            leave_out(error, left_out, config)
            continue
        tell(left_out)
        check_labels(samples, "the judged flights")
        return samples

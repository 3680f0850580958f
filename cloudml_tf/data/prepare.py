"""From a configuration to samples that are ready to train on. NumPy only."""

import hashlib
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import numpy as np

from cloudml_tf.config.data import FlightFiles
from cloudml_tf.config.schema import Config
from cloudml_tf.data.drift import fit_distributions
from cloudml_tf.data.inherited import check_unseen, inherited_scaling
from cloudml_tf.data.label_weights import density_weights
from cloudml_tf.data.left_out import LeftOut, flights_left, leave_out, of_the_split, tell
from cloudml_tf.data.readers.flights import Flight
from cloudml_tf.data.readers.frames import camera_fingerprint
from cloudml_tf.data.samples import Samples, build_samples
from cloudml_tf.data.scaling import Scaling, fit_scaling
from cloudml_tf.data.sources import Progress, available_flights, read_flights
from cloudml_tf.data.splits import PARTS, keep_labels, split_samples
from cloudml_tf.data.track import TrackLabels, track_labels
from cloudml_tf.data.training_ranges import FAR_SUN, TrainingRanges, far_flights, fit_ranges
from cloudml_tf.data.unlabelled import FrameChunks, check_extra_flights, frame_chunks
from cloudml_tf.utils.errors import DataError, FlightError, of_flight


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

"""From a configuration to labelled examples that are ready to train on: flights or scenes. NumPy only."""

import hashlib
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any

import numpy as np

from cloudml_tf.config.coverage import scene_settings
from cloudml_tf.config.data import FlightFiles
from cloudml_tf.config.load import expand
from cloudml_tf.config.run_folder import ModelRecord
from cloudml_tf.config.schema import Config
from cloudml_tf.data.drift import fit_distributions
from cloudml_tf.data.flight_scenes import reading, scenes_of_flights
from cloudml_tf.data.inherited import check_unseen, inherited_scaling
from cloudml_tf.data.label_weights import density_weights
from cloudml_tf.data.left_out import LeftOut, flights_left, in_words, of_the_split
from cloudml_tf.data.named import named_samples, named_scenes, samples_of_run
from cloudml_tf.data.readers.flights import Flight
from cloudml_tf.data.readers.frames import camera_fingerprint
from cloudml_tf.data.readers.scenes import read_scenes
from cloudml_tf.data.readers.times import interval_s
from cloudml_tf.data.samples import Examples, Samples, counts_of, labelled_windows, samples_of_table, table_of
from cloudml_tf.data.scaling import Scaling, fit_scaling
from cloudml_tf.data.scenes import Scenes, judged_by, training_parts
from cloudml_tf.data.sources import Progress, available_flights, read_flights, without_bad_flights
from cloudml_tf.data.splits import PARTS, keep_labels, split_samples
from cloudml_tf.data.track import track_samples, track_windows
from cloudml_tf.data.training_ranges import FAR_SUN, far_flights, fit_ranges
from cloudml_tf.data.unlabelled import FrameChunks, check_extra_flights, frame_chunks
from cloudml_tf.utils.errors import DataError, of_flight


@dataclass(frozen=True)
class Prepared:
    """Everything that training needs, and what is written down about it.

    Args:
        parts: the examples of each split, by "train", "val" and "test": what is scored.
        fitted: the examples that the network is fitted to; those of "train", but along the track.
        scaling: fitted to the training split.
        fingerprint: changes with the files, the labels and the split.
        flights: the files of each flight; empty where a file of scenes was read.
        left_out: flights that data.bad_flights left out, and why.
        far: held-out flights whose sun the training has not shown, a sentence each.
        details: what else the run folder keeps: files, counts, ranges and distributions of the inputs.
    """

    parts: Mapping[str, Examples]
    fitted: Examples
    scaling: Scaling
    fingerprint: str
    flights: Mapping[str, FlightFiles] = field(default_factory=dict)
    left_out: LeftOut = field(default_factory=dict)
    far: Sequence[str] = ()
    details: Mapping[str, Any] = field(default_factory=dict)

    @property
    def geometry(self) -> dict[str, Any]:
        """What the network is built for."""
        return self.parts["train"].geometry

    def remarks(self) -> list[str]:
        """What a person has to know of these data before the training."""
        far = [f"the sun is not that of the training: {'; '.join(self.far)}; {FAR_SUN}"] if self.far else []
        return in_words(self.left_out) + far

    def description(self) -> dict[str, Any]:
        """For the run folder."""
        return {
            "fingerprint": self.fingerprint,
            "split": {part: _described(examples) for part, examples in self.parts.items()},
            "scaling": self.scaling.to_json(),
            **self.geometry,
            **self.details,
            **({"left_out": self.left_out} if self.left_out else {}),
        }


def _described(examples: Examples) -> dict[str, Any]:
    """One split: its flights or groups of scenes, how many examples and labels, and their mean and spread."""
    label = examples.label[examples.known]
    names = [name for number, name in enumerate(examples.group_names) if number in examples.group]
    return {
        "flights": sorted(names) if examples.label.ndim == 1 else names,
        "sequences": len(examples),
        **({} if examples.label.ndim == 1 else {"labels": len(label)}),
        "label_mean": float(label.mean()),
        "label_std": float(label.std()),
    }


def prepare(config: Config, simulating: Progress | None = None, decoding: Progress | None = None) -> Prepared:
    """Read the flights or scenes, cut them into splits, check for leaks, and fit the scaling on the training split.

    A run that continues from another (`training.init_from`) keeps that one's scaling. Where a flight turns bad while
    its frames are read, and data.bad_flights is "skip", all begins again without it.
    """
    if config.data.scenes is not None:
        path = expand(config.data.scenes.path)
        source = {"scenes": config.data.scenes.path}
        return _prepare_scenes(config, *_scenes_of_file(config, path), [camera_fingerprint(path)], details=source)
    if reads_scenes(config):
        return without_bad_flights(lambda left_out: _swath(config, left_out, simulating, decoding), config)
    return without_bad_flights(lambda left_out: _sequences(config, left_out, simulating, decoding), config)


def _sequences(config: Config, left_out: LeftOut, simulating: Progress | None, decoding: Progress | None) -> Prepared:
    files, needed, flights = _read(config, left_out, simulating)
    windows = labelled_windows(flights, config)
    track = track_windows(flights, needed["train"], config) if config.target.coverage == "track" else {}
    table = table_of(flights, [windows, track], config, decoding)
    counts = counts_of(flights, windows, table)
    samples = samples_of_table(flights, windows, table, config)
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
    along = track_samples(flights, track, parts["train"], table, config) if track else None
    ranges = fit_ranges(parts["train"], config)
    far = far_flights(parts, ranges, config)
    used = {flight.name: files[flight.name] for flight in flights}
    return Prepared(
        parts=parts,
        fitted=parts["train"] if along is None else along,
        scaling=scaling,
        fingerprint=_fingerprint(flights, parts),
        flights=used,
        left_out=of_the_split(config, list(files), left_out),
        far=far,
        details={
            "files": {name: found.model_dump() for name, found in used.items()},
            "counts": counts,
            "frame_interval_s": {flight.name: interval_s(flight.time_s) for flight in flights},
            "ranges": ranges.to_json(),
            "distributions": fit_distributions(parts["train"], config),
            "sun_outside_training": far,
            **({} if along is None else {"track": along.description()}),
        },
    )


def _read(
    config: Config, left_out: LeftOut, simulating: Progress | None
) -> tuple[dict[str, FlightFiles], dict[str, list[str]], list[Flight]]:
    """The files of all flights, the flights of each split, and these, read."""
    files = available_flights(config, simulating, left_out)
    needed = flights_left(config, list(files), left_out)
    check_overweight(config, [*files, *left_out])
    names = sorted({name for part in PARTS for name in needed[part]})
    flights = read_flights(files, names, config, left_out)
    return files, flights_left(config, list(files), left_out), flights


def _swath(config: Config, left_out: LeftOut, simulating: Progress | None, decoding: Progress | None) -> Prepared:
    """Scenes of flights, in memory."""
    files, _, flights = _read(reading(config), left_out, simulating)
    scenes = scenes_of_flights(flights, config, decoding)
    used = {flight.name: files[flight.name] for flight in flights}
    content = [camera_fingerprint(flight.camera_path) for flight in flights]
    details = {"files": {name: found.model_dump() for name, found in used.items()}}
    prepared = _prepare_scenes(config, scenes, None, content, details)
    return replace(prepared, flights=used, left_out=of_the_split(config, list(files), left_out))


def _scenes_of_file(config: Config, path: Path) -> tuple[Scenes, Scenes | None]:
    """The scenes of a file; and once more with the labels that the test split is scored with, where it has its own."""
    settings = scene_settings(config)
    scenes = read_scenes(path, settings, config.target, limits=config.data.limits)
    if settings.test_label is None:
        return scenes, None
    return scenes, read_scenes(path, judged_by(settings), config.target, limits=config.data.limits)


def _prepare_scenes(
    config: Config, scenes: Scenes, judged: Scenes | None, content: Sequence[str], details: Mapping[str, Any]
) -> Prepared:
    parts, fingerprint = training_parts(scenes, judged, content, config)
    scaling = fit_scaling(parts["train"], config.target, config.preprocessing)
    return Prepared(parts, parts["train"], scaling, fingerprint, details=details)


def named_examples(
    words: Sequence[str], record: ModelRecord, decoding: Progress | None = None, left_out: LeftOut | None = None
) -> Examples:
    """The labelled examples that a command line names for a finished model.

    With data.bad_flights "skip", flights that cannot be used are put into `left_out`.
    Raises `DataError` for a word that names none, and `RunError` for examples that do not fit the model.
    """
    if reads_scenes(record.config):
        return named_scenes(words, record.config, record.description, progress=decoding, left_out=left_out)
    return named_samples(words, record, decoding, left_out)


def examples_of_run(config: Config, description: Mapping[str, Any], part: str) -> Examples:
    """The examples of one split of a finished run, read again. Raises `DataError` where that is no longer possible."""
    names, trained = description["split"][part]["flights"], part != "test"
    if reads_scenes(config):
        examples: Examples = named_scenes(names, config, description, trained_labels=trained)
    else:
        examples = samples_of_run(config, description, part)
    if list(examples.frame_shape) != list(description["frame_shape"]):
        raise DataError(f"the {part} split is read with another frame shape by now: {examples.frame_shape}.")
    return examples


def reads_scenes(config: Config) -> bool:
    """Whether examples are scenes; else they are sequences of frames."""
    return config.target.coverage == "swath"


def prepare_frames(
    config: Config, decoding: Progress | None = None, left_out: LeftOut | None = None
) -> dict[str, FrameChunks]:
    """All frames of the training and validation flights, labelled or not, in chunks: what pretraining sees.

    With data.bad_flights "skip", flights that cannot be used are put into `left_out`.
    """

    def build(left_out: LeftOut) -> dict[str, FrameChunks]:
        files = available_flights(config, left_out=left_out)
        needed = flights_left(config, list(files), left_out)
        check_extra_flights(config, needed, [*files, *left_out])
        names = {*needed["train"], *needed["val"], *config.pretraining.extra_flights} - set(left_out)
        flights = read_flights(files, sorted(names), config, left_out)
        return frame_chunks(flights, flights_left(config, list(files), left_out), config, decoding)

    return without_bad_flights(build, config, left_out)


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
        examples = parts[part]
        rows, sun, sight = examples.index, examples.sun_angles_deg, examples.sight
        seen = [examples.features[rows], rows if sun is None else sun[rows]]
        if sight is not None and sight.network_input:
            seen.append(sight.geometry[rows])
        if examples.further is not None:
            seen.append(examples.further)
        for array in (examples.label, examples.weight, examples.time_s, rows, *seen):
            digest.update(np.ascontiguousarray(array).tobytes())
    return digest.hexdigest()[:16]

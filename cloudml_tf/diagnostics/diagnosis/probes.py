"""Measurements on the flights themselves, for what scores cannot show: clocks, plain brightness, shared labels.

Without Keras, but for a network of heights, which is asked about spoilt sequences. They take seconds on flights of an
hour, most of it reading frames.
"""

from collections.abc import Mapping
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np

from cloudml_tf.config.data import TimeBlocks
from cloudml_tf.config.run_folder import as_it_was
from cloudml_tf.config.schema import Config
from cloudml_tf.data.independence import effective_size
from cloudml_tf.data.prepare import Prepared, prepare
from cloudml_tf.data.readers import times
from cloudml_tf.data.readers.flights import Flight
from cloudml_tf.data.readers.frames import read_frames
from cloudml_tf.data.samples import Examples, Samples, nadir_pixel
from cloudml_tf.data.scaling import TargetScaling
from cloudml_tf.data.sources import read_flights
from cloudml_tf.diagnostics.alignment import REACH_S, estimate_alignment, ranks
from cloudml_tf.diagnostics.between_flights import look as look_between
from cloudml_tf.diagnostics.between_flights import series_of
from cloudml_tf.diagnostics.diagnosis.evidence import ClockFault, Probes
from cloudml_tf.diagnostics.diagnosis.parallax import parallax_of, spoilt_predictions
from cloudml_tf.diagnostics.frames import frozen_words, scan_frames
from cloudml_tf.evaluation.baselines import fit_predict
from cloudml_tf.evaluation.collect import collect_baselines
from cloudml_tf.evaluation.scores import scores
from cloudml_tf.utils.console import Console
from cloudml_tf.utils.errors import CloudMLError

SMALLEST_OFFSET_S, SMALLEST_GAIN = 1.0, 0.1  # less than a second, or than 0.1 in correlation, is not a failure
FARTHEST_S = 300.0
FEWEST_LABELS = 30
CLEAR_PEAK = 5.0  # times the rms of the correlation at other lags
AWAY_S = 20.0  # distance from the peak of lags that count as other


def look(run: Path, config: Config, description: dict[str, Any], evaluated: bool, console: Console) -> Probes:
    """Run all probes of a run whose flight files can still be read; `evaluated` where its baselines are known."""
    try:
        with console.progress("reading flights") as progress:
            prepared = prepare(as_it_was(config, description), decoding=progress)
        return replace(
            look_at(prepared, config),
            moved=moved(run, config, description, prepared),
            clock=clocks_of(prepared, config),
            frozen=frozen_of(prepared, config),
            baselines=None if evaluated else collect_baselines(prepared.parts, prepared.scaling.target, config),
            blocks_apart=blocks_apart(prepared, config) if isinstance(config.split, TimeBlocks) else None,
        )
    except CloudMLError as error:
        return Probes(notes=(f"The flight files were not checked: {error}",))


def look_at(prepared: Prepared, config: Config) -> Probes:
    """Run the quick probes, on data in memory."""
    parts = prepared.parts
    train = parts["train"]
    sequences = _of_heights(train, config)
    return Probes(
        brightness=brightness(parts),
        shared_labels=shared_labels(parts),
        label_memory_s=label_memory_s(train),
        parallax=None if sequences is None else parallax_of(sequences),
        flights=look_between(series_of(parts), _flights_in(train)),
    )


def _flights_in(examples: Examples) -> list[str]:
    return [examples.group_names[number] for number in np.unique(examples.group)]


def moved(run: Path, config: Config, description: dict[str, Any], prepared: Prepared) -> dict[str, float]:
    """`parallax.spoilt_predictions` of a run that reads a height from several frames."""
    test = _of_heights(prepared.parts["test"], config)
    if test is None or config.temporal_frames < 2 or not (run / "best.weights.h5").is_file():
        return {}
    return spoilt_predictions(run, config, description, test)


def _of_heights(examples: Examples, config: Config) -> Samples | None:
    """The sequences, where their label is a height at nadir."""
    return examples.at_nadir if config.target.quantity.is_height else None


def clocks_of(prepared: Prepared, config: Config) -> tuple[ClockFault, ...]:
    """Clocks that are off, of the flights that were read; nothing of a file of scenes."""
    if not prepared.flights:
        return ()
    return clock_faults(read_flights(prepared.flights, sorted(prepared.flights), config), config)


def frozen_of(prepared: Prepared, config: Config) -> dict[str, tuple[float, str]]:
    """Frames that repeat the one before: their share and `check`'s words, of the flights that have such frames."""
    if not prepared.flights:
        return {}
    found = {}
    for flight in read_flights(prepared.flights, sorted(prepared.flights), config):
        scan = scan_frames(flight, config)
        if scan.frozen.any():
            found[flight.name] = (float(scan.frozen.mean()), frozen_words(flight, scan))
    return found


def brightness(parts: Mapping[str, Examples]) -> tuple[float, float]:
    """|r| of the ranks of labels and of the mean radiance of 3 x 3 pixels at their locations, within flights, over all
    splits; and its standard error. Nothing is fitted, so few labels suffice. The channel with the highest counts."""
    sums, total, effective = np.zeros(1), 0, 0.0
    for examples in parts.values():
        radiance, label = examples.radiance_at_labels(), examples.label[examples.known]  # (k,C), (k,)
        group = examples.group.reshape(-1, *(1,) * (examples.label.ndim - 1))
        group = np.broadcast_to(group, examples.label.shape)[examples.known]
        for number in np.unique(group):
            here = group == number
            sums = sums + ranks(label[here]) @ np.stack([ranks(c) for c in radiance[here].T], axis=1)
            total += int(here.sum())
        effective += examples.effective_size(label)
    r = float(np.abs(sums).max()) / max(total, 1)
    return r, float((1 - r * r) / np.sqrt(max(effective - 3, 1)))


def shared_labels(parts: Mapping[str, Examples]) -> dict[str, float]:
    """The share of validation and test labels that equal training labels to the last digit: a copied flight.

    Labels that are rounded so far that they repeat anyway are not reported.
    """
    labels = {part: examples.label[examples.known] for part, examples in parts.items()}
    train = labels.pop("train")
    if len(np.unique(train)) < 0.9 * len(train):
        return {}
    return {part: float(np.isin(label, train).mean()) for part, label in labels.items()}


def label_memory_s(examples: Examples) -> float:
    """The time between labels along a flight, stretched by how many of them count as one: n/n_eff; 0 for scenes."""
    if examples.time_s is None or examples.label.ndim > 1:
        return 0.0
    steps = np.diff(examples.time_s)[np.diff(examples.group) == 0]
    return float(np.median(steps)) * len(examples) / examples.effective_size(examples.label) if len(steps) else 0.0


def blocks_apart(prepared: Prepared, config: Config) -> dict[str, tuple[float, float]] | None:
    """Validation R² of the baselines as trained, and trained without the label's own flight.

    A split by time blocks has every flight on both sides: the difference is the advantage of that alone.
    """
    train, val = prepared.parts["train"], prepared.parts["val"]
    names = np.unique(val.group)
    if len(names) < 2:
        return None
    scaling, offset = prepared.scaling.target, config.preprocessing.log_offset
    own = fit_predict({"train": train, "val": val}, scaling, offset, config.seed)
    apart: dict[str, np.ndarray] = {name: np.zeros(len(val)) for name in own}
    for number in names:
        here = val.group == number
        pair = {"train": train.take(train.group != number), "val": val.take(here)}
        for name, found in fit_predict(pair, scaling, offset, config.seed).items():
            apart[name][here] = found["val"]
    return {name: (_r2(val, own[name]["val"], scaling), _r2(val, apart[name], scaling)) for name in own}


def _r2(samples: Examples, z: np.ndarray, scaling: TargetScaling) -> float:
    return scores(scaling.standardise(samples.label), z)["r2"]


def clock_faults(flights: list[Flight], config: Config) -> tuple[ClockFault, ...]:
    """Find wrong clocks: of all flights together, or else of single ones.

    `estimate_alignment` finds small offsets; for others the correlation over the lag has a peak that stands out.
    """
    names = tuple(flight.name for flight in flights)
    near = _near(flights, names, config)
    if near is not None and abs(near.offset_s) < 0.9 * REACH_S:
        return (near,)
    lights = {flight.name: _nadir_light(flight, config) for flight in flights}
    curves = {flight.name: lag_curve(flight, lights[flight.name]) for flight in flights}
    joined = _peak(list(curves.values()), names, every_flight=True) or near
    if joined is not None:
        return (joined,)
    single = [(flight, _peak([curves[flight.name]], (flight.name,), every_flight=False)) for flight in flights]
    return tuple(
        fault
        for flight, fault in single
        if fault is not None and fault.best_r - fault.r > 3 * _gain_error(flight, lights[flight.name], fault.offset_s)
    )


def _near(flights: list[Flight], names: tuple[str, ...], config: Config) -> ClockFault | None:
    """An offset of all flights that `estimate_alignment` is certain of. At the end of its reach the true one may lie
    beyond."""
    found = estimate_alignment(flights, config)
    gain = found.best_correlation - abs(found.correlation)
    if found.cause not in ("clock", "either") or abs(found.clock_offset_s) < SMALLEST_OFFSET_S or gain < SMALLEST_GAIN:
        return None
    pixels = found.along_track_pixels
    return ClockFault(names, True, found.clock_offset_s, found.correlation, found.best_correlation, pixels)


def lag_curve(flight: Flight, light: np.ndarray) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    """Correlation of ranks of labels with nadir brightness `lag` later: lags in s (L,), r (L,), labels used (L,).

    `light` (N,) is the brightness of every frame. Lags extend as far as half of the labels still have a frame, in steps
    of the frame interval.
    """
    labelled = np.flatnonzero(np.isfinite(flight.label))
    step = float(np.median(np.diff(flight.time_s)))
    farthest = min(FARTHEST_S, 0.4 * float(np.ptp(flight.time_s)))
    lags = step * np.arange(-int(farthest / step), int(farthest / step) + 1)
    ranked, r, count = ranks(flight.label[labelled]), np.zeros(len(lags)), np.zeros(len(lags))
    for i, lag in enumerate(lags):
        seen = _light_later(flight, light, labelled, lag)
        there = np.isfinite(seen)
        if there.sum() >= FEWEST_LABELS:
            count[i] = there.sum()
            r[i] = np.mean(ranks(ranked[there]) * ranks(seen[there]))
    return lags, r, count


def _light_later(flight: Flight, light: np.ndarray, labelled: np.ndarray, lag: float) -> np.ndarray:
    """The brightness (n,) `lag` after each label, NaN where there is no frame."""
    step = float(np.median(np.diff(flight.time_s)))
    frame, distance = times.nearest(flight.time_s, flight.time_s[labelled] + lag)
    return np.where(distance < 0.51 * step, light[frame], np.nan)


def _gain_error(flight: Flight, light: np.ndarray, lag: float) -> float:
    """The standard error of the correlation at a lag minus that at none; smaller than that of either, since brightness
    at neighbouring times is similar."""
    labelled = np.flatnonzero(np.isfinite(flight.label))
    here, later = (_light_later(flight, light, labelled, at) for at in (0.0, lag))
    there = np.isfinite(here) & np.isfinite(later)
    label = flight.label[labelled][there]
    products = ranks(label) * (ranks(later[there]) - ranks(here[there]))
    return float(products.std() / np.sqrt(effective_size(products, np.zeros(len(products)))))


def _nadir_light(flight: Flight, config: Config) -> np.ndarray:
    """The mean radiance (N,) of 3 x 3 pixels at nadir in the first channel, NaN for a frame that is not an image."""
    row, column = nadir_pixel(flight.frame_shape, config.data)
    light = np.full(len(flight), np.nan)
    for position, radiance, bad in read_frames(flight, np.arange(len(flight)), config.data.camera):
        window = radiance[:, max(row - 1, 0) : row + 2, max(column - 1, 0) : column + 2, 0]
        light[position] = np.where(bad, np.nan, window.mean(axis=(1, 2)))
    return light


def _peak(
    curves: list[tuple[np.ndarray, np.ndarray, np.ndarray]], flights: tuple[str, ...], every_flight: bool
) -> ClockFault | None:
    """The lag at which labels match the brightness, where it is not 0 and stands out from all other lags."""
    lags = max((lags for lags, _, _ in curves), key=len)
    r, count = np.zeros(len(lags)), np.zeros(len(lags))
    for own, found, labels in curves:
        first = (len(lags) - len(own)) // 2
        r[first : first + len(own)] += labels * found
        count[first : first + len(own)] += labels
    enough = count >= 0.5 * count.max()
    r = np.where(enough, r / np.maximum(count, 1), 0.0)
    best = int(np.abs(r).argmax())
    configured = float(abs(r[len(lags) // 2]))
    others = r[enough & (np.abs(lags - lags[best]) > AWAY_S)]
    noise = float(np.sqrt(np.mean(others**2))) if len(others) >= 10 else 1.0
    height = float(abs(r[best]))
    doubt = 3 * noise if every_flight else 0.0
    clear = height > CLEAR_PEAK * noise and height - configured > max(SMALLEST_GAIN, doubt)
    smallest = 2 * SMALLEST_OFFSET_S if every_flight else 0.0
    if not clear or best == len(lags) // 2 or abs(lags[best]) < smallest:
        return None
    return ClockFault(flights, every_flight, float(lags[best]), configured, height)

"""Do labels match their frames? Estimate clock and boresight offsets by correlation.

A label is compared with the brightness around nadir, and with that at other times and other pixels:

    clock plane       frames up to 10 s earlier and later, pixels shifted across track
    boresight plane   the label's own frame, pixels shifted along and across track

The correlation is of ranks within a flight, so that means, gain and a curved relation between brightness and optical
depth do not matter, and thermal imagery (cold clouds) works as well. An offset counts if it recurs in all but 1 % of
bootstrap draws over blocks of track.

Far offsets, of GPS and TAI time and of time zones, are searched by the brightness at nadir alone.

Along track the two explanations look alike: the camera moves on, so an early clock shows the same clouds as a pixel
further ahead. Only parallax and a moving scene could distinguish them, and they seldom do. Across track it can only be
the boresight.
"""

import math
from dataclasses import dataclass
from typing import Literal

import numpy as np
from scipy.ndimage import uniform_filter1d
from scipy.stats import rankdata

from cloudml_tf.config.schema import Config
from cloudml_tf.data.readers import times
from cloudml_tf.data.readers.flights import Flight
from cloudml_tf.data.readers.frames import Progress, read_frames
from cloudml_tf.data.samples import nadir_pixel

REACH_S, REACH_CELLS = 10.0, 8  # how far offsets are searched
SMALLEST_STEP_S = 0.5
MOST_LABELS = 800  # a flight's labels are thinned to this number
FEWEST_LABELS = 40
BLOCK_S = 60.0
DRAWS = 500
DOUBT = 0.01  # share of the draws that may disagree, on either side
# Shadows and sun-facing slopes move the brightness by a pixel, with the sun; over several flights less so.
SMALLEST_CELLS, SMALLEST_CELLS_ONE_FLIGHT = 2, 3
SMALLEST_STEPS, SMALLEST_STEPS_ONE_FLIGHT = 1, 2
CLEAR_PEAK = 5.0  # standard errors; the highest of some hundred correlations of noise reaches 3 to 4

GPS_AHEAD_S, TAI_AHEAD_S = range(13, 19), range(32, 38)  # of UTC, since 1999
FAR_S = (*GPS_AHEAD_S, 19, *TAI_AHEAD_S, *(3600 * hour for hour in range(1, 15)))  # either way
FAR_GAIN, FAR_CLEAR = 0.15, 4.0  # what r must gain by a far offset, and how far it must exceed noise, standard errors

Cause = Literal["none", "clock", "boresight", "either"]


@dataclass(frozen=True)
class Alignment:
    """Offsets that align labels with frames; 0 where none is certain."""

    clock_offset_s: float  # to add to data.lidar.time_offset_s
    boresight_rows: int  # to add to data.camera.boresight_offset
    boresight_columns: int
    correlation: float  # r of label and nadir brightness as configured; its sign is that of the strongest r found
    best_correlation: float  # with the offsets
    certain: bool  # whether any offset should be applied
    cause: Cause  # of the offset along track
    aside: bool  # whether there is an offset across track
    along_track_pixels: int  # the boresight offset that would do instead of the clock, where the cause is "either"
    labels: int  # number of labels compared
    clear: bool  # whether the strongest correlation exceeds the noise: otherwise nothing can be concluded
    peak: tuple[float, int, int]  # where r is highest, certain or not: lag in s, pixels across and along track
    curve: dict[str, list[float]]  # r over `lag_s`, and over `across_pixels`

    def agrees_with(self, other: "Alignment") -> bool:
        """Whether the highest correlation is closer to the certain part of `other` than to no offset at all."""
        (lag, across, along), (other_lag, other_across, other_along) = self.peak, other.peak
        closer = [True]
        if other.cause in ("clock", "either"):
            closer.append(abs(lag - other_lag) < abs(lag))
        if other.cause == "boresight":
            closer.append(abs(along - other_along) < abs(along))
        if other.aside:
            closer.append(abs(across - other_across) < abs(across))
        return all(closer)

    @property
    def boresight_offset(self) -> tuple[int, int]:
        """The boresight offset as (rows, columns)."""
        return self.boresight_rows, self.boresight_columns


@dataclass(frozen=True)
class Search:
    """The offsets to try. Shifts in pixels of the network's frames."""

    lags_s: np.ndarray  # (L,)
    across: np.ndarray  # (A,)
    along: np.ndarray  # (B,)
    nadir: tuple[int, int]
    cell: int  # side of the squares that brightness is averaged over, a third of it, in pixels
    across_axis: int  # 0 rows, 1 columns

    @classmethod
    def of(cls, flights: list[Flight], config: Config) -> "Search":
        """Search as far as the frames reach; large frames in steps of several pixels."""
        shape = flights[0].frame_shape
        nadir = nadir_pixel(shape, config.data)
        cell = max(min(shape[:2]) // 32, 1)
        axis = 0 if config.data.camera.across_track_axis == "rows" else 1
        steps = np.arange(-REACH_CELLS, REACH_CELLS + 1) * cell
        inside = [steps[(n + steps >= cell) & (n + steps < side - cell)] for n, side in zip(nadir, shape, strict=False)]
        shifts = [np.union1d(found, [0]) for found in inside]
        interval = max(float(np.median([np.median(np.diff(f.time_s)) for f in flights if len(f) > 1] or [1.0])), 1e-3)
        interval *= max(round(SMALLEST_STEP_S / interval), 1)
        most = max(round(REACH_S / interval), 4)
        lags = interval * np.arange(-most, most + 1)
        return cls(lags, shifts[axis], shifts[1 - axis], nadir, cell, axis)


@dataclass(frozen=True)
class FarOffset:
    """An offset of the lidar's clock beyond the fine search: a time scale, or a zone."""

    offset_s: float  # to add to data.lidar.time_offset_s
    correlation: float  # with it
    near: float  # the highest within the fine search
    labels: int

    @property
    def kind(self) -> str:
        """What clocks differ by that much."""
        size = round(abs(self.offset_s))
        if size in GPS_AHEAD_S:
            return f"GPS time is {GPS_AHEAD_S[-1]} s ahead of UTC since 2017"
        if size in TAI_AHEAD_S:
            return f"TAI is {TAI_AHEAD_S[-1]} s ahead of UTC since 2017"
        return "GPS time is 19 s behind TAI" if size == 19 else "whole hours are a time zone"


def far_offset(flights: list[Flight], nadir: dict[str, tuple[np.ndarray, np.ndarray]]) -> FarOffset | None:
    """The far offset at which labels follow the brightness at nadir far better than at any near one; None elsewhere.

    `nadir` holds, for each flight, indices of frames (M,) and their brightness (M,C), NaN where a frame is no image.
    """
    labelled = [flight for flight in flights if np.isfinite(flight.label).sum() >= FEWEST_LABELS]
    series = [_series(flight, *nadir[flight.name]) for flight in labelled if flight.name in nadir]
    series = [one for one in series if len(one[2]) > 1]
    if not series:
        return None
    step = max(float(np.median([np.median(np.diff(one[2])) for one in series])), 1e-3)
    step *= max(round(SMALLEST_STEP_S / step), 1)
    fine = step * np.arange(-max(round(REACH_S / step), 4), max(round(REACH_S / step), 4) + 1)
    around = fine[np.abs(fine) <= max(2.0, step)]
    far = np.unique(np.concatenate([sign * centre + around for centre in FAR_S for sign in (1, -1)]))
    longest = max(float(one[2][-1] - one[2][0]) for one in series)
    far = far[(np.abs(far) > fine[-1]) & (np.abs(far) < longest)]
    if not len(far):
        return None
    near = max(r for r, _ in (_pooled(series, lag, step) for lag in fine))
    found = [(*_pooled(series, lag, step), lag) for lag in far]
    r, independent, lag = max(found, key=lambda one: one[0])
    if r < near + FAR_GAIN or r < FAR_CLEAR / math.sqrt(max(independent, 1.0)):
        return None
    return FarOffset(round(float(lag), 1), r, near, int(sum(len(one[0]) for one in series)))


def _series(flight: Flight, frames: np.ndarray, brightness: np.ndarray) -> tuple[np.ndarray, ...]:
    """Times and ranks of the labels, times of the frames and ranks of their brightness."""
    labelled = np.flatnonzero(np.isfinite(flight.label))
    labelled = labelled[:: max(-(-len(labelled) // MOST_LABELS), 1)]
    usable = np.isfinite(brightness).all(axis=1)
    seen = ranks(brightness[usable]) if usable.any() else brightness[usable]
    return flight.time_s[labelled], ranks(flight.label[labelled][:, None])[:, 0], flight.time_s[frames[usable]], seen


def _pooled(series: list[tuple[np.ndarray, ...]], lag_s: float, step_s: float) -> tuple[float, float]:
    """The rank correlation of labels with the brightness a lag later, of the best channel, and the number of
    independent labels."""
    total, count, independent = 0.0, 0, 0.0
    for label_s, label, frame_s, brightness in series:
        index, apart_s = times.nearest(frame_s, label_s + lag_s)
        there = apart_s < 0.51 * step_s
        if there.sum() < FEWEST_LABELS:
            continue
        ranked, seen = _standard(label[there][:, None]), _standard(brightness[index[there]])
        total = total + (ranked * seen).sum(axis=0)
        count += int(there.sum())
        memory = np.mean(ranked[1:, 0] * ranked[:-1, 0])  # of one label in the next
        independent += there.sum() * (1.0 - memory) / (1.0 + memory)
    return (float(np.abs(total).max() / count), independent) if count else (0.0, 0.0)


def _standard(values: np.ndarray) -> np.ndarray:
    """Values (n,C) with mean 0 and mean square 1."""
    centred = values - values.mean(axis=0)
    return centred / np.maximum(np.sqrt(np.mean(centred**2, axis=0)), 1e-12)


@dataclass(frozen=True)
class Evidence:
    """The evidence of one flight: sums over blocks of track of (label rank x brightness rank), both standardised."""

    clock: np.ndarray  # (blocks, C, L, A)
    boresight: np.ndarray  # (blocks, C, B, A)
    count: np.ndarray  # (blocks,) labels


def estimate_alignment(flights: list[Flight], config: Config, progress: Progress | None = None) -> Alignment:
    """Estimate clock and boresight offset from all flights together; calls `progress(flights done, of all)`."""
    search = Search.of(flights, config)
    found = []
    for number, flight in enumerate(flights, start=1):
        found.append(gather(flight, config, search))
        if progress is not None:
            progress(number, len(flights))
    return align(found, search)


def gather(flight: Flight, config: Config, search: Search) -> Evidence:
    """Compare a flight's labels with its frames at every lag and shift."""
    chosen, frames = _frames_around_labels(flight, search)  # (n,), (n,L)
    if len(chosen) < FEWEST_LABELS:
        return _nothing(flight, search)
    wanted = np.unique(frames)
    brightness, usable = _brightness(flight, wanted, config, search)  # (M,A,B,C), (M,)
    place = np.searchsorted(wanted, frames)
    whole = usable[place].all(axis=1)
    chosen, place = chosen[whole], place[whole]
    if len(chosen) < FEWEST_LABELS:
        return _nothing(flight, search)
    label = ranks(flight.label[chosen][:, None]).astype("float32")  # (n,1)
    middle = len(search.lags_s) // 2
    here = np.flatnonzero(search.along == 0)[0]
    clock = ranks(brightness[place][:, :, :, here].transpose(0, 3, 1, 2)).astype("float32")  # (n,C,L,A)
    boresight = ranks(brightness[place[:, middle]].transpose(0, 3, 2, 1)).astype("float32")  # (n,C,B,A)
    _, block = np.unique(np.floor(flight.time_s[chosen] / BLOCK_S), return_inverse=True)
    return Evidence(
        clock=_block_sums(label[:, :, None, None] * clock, block),
        boresight=_block_sums(label[:, :, None, None] * boresight, block),
        count=np.bincount(block).astype("float64"),
    )


def _nothing(flight: Flight, search: Search) -> Evidence:
    channels, across = flight.frame_shape[2], len(search.across)
    clock = np.zeros((0, channels, len(search.lags_s), across))
    return Evidence(clock, np.zeros((0, channels, len(search.along), across)), np.zeros(0))


def _frames_around_labels(flight: Flight, search: Search) -> tuple[np.ndarray, np.ndarray]:
    """Labelled frames (n,), and the frames at each lag from them (n,L); only labels with a frame at every lag."""
    labelled = np.flatnonzero(np.isfinite(flight.label))
    labelled = labelled[:: max(-(-len(labelled) // MOST_LABELS), 1)]
    wanted_s = flight.time_s[labelled][:, None] + search.lags_s  # (n,L)
    frames, distance = times.nearest(flight.time_s, wanted_s.ravel())
    near = (distance < 0.51 * np.diff(search.lags_s[:2])).reshape(wanted_s.shape).all(axis=1)
    return labelled[near], frames.reshape(wanted_s.shape)[near]


def _brightness(flight: Flight, wanted: np.ndarray, config: Config, search: Search) -> tuple[np.ndarray, np.ndarray]:
    """Means over 3 x 3 cells at nadir and at every shift from it, (M,A,B,C); and which frames are valid images, (M,).

    A frame that repeats the one before is not an image of that moment.
    """
    shifts = (search.across, search.along) if search.across_axis == 0 else (search.along, search.across)
    rows, columns = (n + s for n, s in zip(search.nadir, shifts, strict=True))
    side = 3 * search.cell // 2 * 2 + 1
    out = np.empty((len(wanted), len(rows), len(columns), flight.frame_shape[2]), "float32")
    usable = np.zeros(len(wanted), bool)
    for position, radiance, bad in read_frames(flight, wanted, config.data.camera):
        mean = uniform_filter1d(uniform_filter1d(radiance, side, axis=1), side, axis=2)
        out[position] = mean[:, rows][:, :, columns]
        usable[position] = ~bad
    usable[1:] &= (out[1:] != out[:-1]).any(axis=(1, 2, 3))
    return out if search.across_axis == 0 else out.transpose(0, 2, 1, 3), usable


def ranks(values: np.ndarray) -> np.ndarray:
    """Ranks along the first axis with mean 0 and mean square 1; zeros for a constant."""
    found = rankdata(values, axis=0) - 0.5 * (len(values) + 1)
    return found / np.maximum(np.sqrt(np.mean(found**2, axis=0)), 1e-12)


def _block_sums(products: np.ndarray, block: np.ndarray) -> np.ndarray:
    """Sum over blocks, (n,...) -> (blocks,...)."""
    sums = np.zeros((int(block.max()) + 1, *products.shape[1:]))
    np.add.at(sums, block, products)
    return sums


def align(evidence: list[Evidence], search: Search, seed: int = 0) -> Alignment:
    """Combine several flights (or one) into the offsets that they agree on."""
    count = np.concatenate([e.count for e in evidence])
    total = float(count.sum())
    if total < FEWEST_LABELS:
        nan = float("nan")
        return Alignment(0.0, 0, 0, nan, nan, False, "none", False, 0, int(total), False, (0.0, 0, 0), {})
    clock, boresight = _one_channel(evidence, total)  # (blocks,L,A), (blocks,B,A)
    draws = np.random.default_rng(seed).multinomial(len(count), np.full(len(count), 1 / len(count)), DRAWS)
    weight = (draws @ count)[:, None, None]
    clock_draws, boresight_draws = (np.tensordot(draws, sums, 1) / weight for sums in (clock, boresight))
    planes = (
        Plane(search.lags_s, search.across, clock.sum(axis=0) / total, clock_draws),
        Plane(search.along, search.across, boresight.sum(axis=0) / total, boresight_draws),
    )
    return _conclude(*planes, search, int(total), several=sum(len(e.count) > 0 for e in evidence) > 1)


def _one_channel(evidence: list[Evidence], total: float) -> tuple[np.ndarray, np.ndarray]:
    """Select the channel with the strongest correlation, with the sign that makes it positive."""
    clock, boresight = (np.concatenate([getattr(e, name) for e in evidence]) for name in ("clock", "boresight"))
    r = np.concatenate([m.sum(axis=0).reshape(m.shape[1], -1) for m in (clock, boresight)], axis=1) / total  # (C,K)
    channel, best = np.unravel_index(np.abs(r).argmax(), r.shape)
    sign = np.sign(r[channel, best])
    return sign * clock[:, channel], sign * boresight[:, channel]


@dataclass(frozen=True)
class Plane:
    """Correlation over two offsets: P of the first kind, Q across track; as measured, and in S bootstrap draws."""

    first: np.ndarray  # (P,)
    across: np.ndarray  # (Q,)
    r: np.ndarray  # (P,Q)
    draws: np.ndarray  # (S,P,Q)

    @property
    def best(self) -> tuple[int, int]:
        """The indices of the highest correlation."""
        i, j = np.unravel_index(self.r.argmax(), self.r.shape)
        return int(i), int(j)

    def is_clear(self, labels: int) -> bool:
        """Whether the highest correlation exceeds the noise, whose error is 1/√n at least."""
        error = max(float(self.draws[:, *self.best].std()), 1.0 / math.sqrt(labels))
        return bool(self.r[self.best] > CLEAR_PEAK * error)

    def offsets(self) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
        """For each draw: the two offsets where it is highest, and how high. (S,) each."""
        flat = self.draws.reshape(len(self.draws), -1)
        i, j = np.unravel_index(flat.argmax(axis=1), self.r.shape)
        return self.first[i], self.across[j], flat.max(axis=1)


def _conclude(clock: Plane, boresight: Plane, search: Search, labels: int, several: bool) -> Alignment:
    """Decide from the two planes what is certain."""
    centre, now = (int(np.flatnonzero(x == 0)[0]) for x in (search.across, search.lags_s))
    configured = float(clock.r[now, centre])
    pixels = search.cell * (SMALLEST_CELLS if several else SMALLEST_CELLS_ONE_FLIGHT)
    seconds = 0.99 * float(np.diff(search.lags_s[:2])[0]) * (SMALLEST_STEPS if several else SMALLEST_STEPS_ONE_FLIGHT)
    lag, across_by_clock, high_by_clock = clock.offsets()
    along, across_by_boresight, high_by_boresight = boresight.offsets()
    higher = high_by_clock >= high_by_boresight
    cause: Cause = "none"
    aside = False
    clear = clock.is_clear(labels) or boresight.is_clear(labels)
    if clear:
        gains = (float(plane.r.max()) - configured for plane in (clock, boresight))
        cause = _cause(_agreed(lag, seconds), _agreed(along, pixels), *gains)
        aside = _agreed(np.where(higher, across_by_clock, across_by_boresight), pixels)
    best = clock if clock.r.max() >= boresight.r.max() else boresight
    across = int(search.across[best.best[1]]) if aside else 0
    ahead = int(search.along[boresight.best[0]])
    pair = (across, ahead if cause == "boresight" else 0)
    rows, columns = pair if search.across_axis == 0 else pair[::-1]
    certain = aside or cause != "none"
    return Alignment(
        clock_offset_s=_refined(clock) if cause in ("clock", "either") else 0.0,
        boresight_rows=rows,
        boresight_columns=columns,
        correlation=configured,
        best_correlation=float(best.r.max()) if certain else configured,
        certain=certain,
        cause=cause,
        aside=aside,
        along_track_pixels=ahead if cause == "either" else 0,
        labels=labels,
        clear=clear,
        peak=(_refined(clock), int(search.across[best.best[1]]), ahead),
        curve={
            "lag_s": search.lags_s.tolist(),
            "r_of_lag": clock.r[:, clock.best[1]].tolist(),
            "across_pixels": search.across.tolist(),
            "r_of_across": best.r[best.best[0]].tolist(),
            "along_pixels": search.along.tolist(),
            "r_of_along": boresight.r[:, boresight.best[1]].tolist(),
        },
    )


def _agreed(offsets: np.ndarray, smallest: float) -> bool:
    """Whether all draws but a few put the offset on one side of zero, and at least `smallest` away from it."""
    low, high = np.quantile(offsets, [DOUBT, 1.0 - DOUBT])
    return bool(low >= smallest or high <= -smallest)


def _cause(later: bool, ahead: bool, by_clock: float, by_boresight: float) -> Cause:
    """The possible cause of an offset along track: both, unless one explains less than half of what the other does."""
    if not (later or ahead):
        return "none"
    if later and by_boresight < 0.5 * by_clock:
        return "clock"
    if ahead and by_clock < 0.5 * by_boresight:
        return "boresight"
    return "either"


def _refined(clock: Plane) -> float:
    """The best lag in s, between the tested ones: the vertex of the parabola through the highest three."""
    i, j = clock.best
    if i in (0, len(clock.first) - 1):
        return float(clock.first[i])
    left, middle, right = clock.r[i - 1 : i + 2, j]
    bend = left - 2.0 * middle + right
    vertex = 0.5 * (left - right) / bend if bend < 0 else 0.0
    return round(float(clock.first[i] + np.clip(vertex, -0.5, 0.5) * (clock.first[i] - clock.first[i - 1])), 1)

"""Read frames from the files into one table, each decoded once, in the order of the file's chunks.

The table holds only frames that some sequence needs. Up to `data.memory_gb` it is an array; beyond, it is a
memory-mapped file in the cache folder, so flights larger than memory work.
"""

import hashlib
import json
import os
from collections.abc import Callable, Iterable, Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import h5py
import numpy as np

from cloudml_tf.config.data import Camera, Data
from cloudml_tf.config.load import cache_folder
from cloudml_tf.data.readers import hdf5
from cloudml_tf.data.readers.flights import Flight
from cloudml_tf.data.readers.formats.frames import files_of, is_series
from cloudml_tf.data.readers.packing import HUGE, impossible, scaled_fills, unpack
from cloudml_tf.utils.errors import DataError, of_flight
from cloudml_tf.utils.files import update_by_pieces, whole_file
from cloudml_tf.utils.locks import alone_at
from cloudml_tf.utils.prefetch import ahead

Progress = Callable[[int, int], None]  # is told (frames done, of all)
SLAB_BYTES = 64 * 2**20  # bytes read from a file at once


@dataclass(frozen=True)
class FrameTable:
    """Decoded frames of several flights. M frames."""

    radiance: np.ndarray  # (M, H, W, C) float32, in the file's unit after scale and offset
    bad: np.ndarray  # (M,) black, saturated, or with pixels that are not finite
    start: dict[str, int]  # first row of each flight
    frames: dict[str, np.ndarray]  # the flight's frame indices, sorted

    def index(self, flight: str, frames: np.ndarray) -> np.ndarray:
        """Convert frame indices of a flight, any shape, to rows of the table."""
        return self.start[flight] + np.searchsorted(self.frames[flight], frames)


def build_table(
    flights: list[Flight], wanted: dict[str, np.ndarray], data: Data, progress: Progress | None = None
) -> FrameTable:
    """Decode the wanted frames (a sorted index array per flight); calls `progress(frames done, of all)`."""
    counts = [len(wanted[flight.name]) for flight in flights]
    starts = np.concatenate([[0], np.cumsum(counts)]).astype(int)
    shape = (int(starts[-1]), *flights[0].frame_shape)
    start = {flight.name: int(s) for flight, s in zip(flights, starts, strict=False)}
    picked = {flight.name: wanted[flight.name] for flight in flights}
    if 4.0 * float(np.prod(shape)) <= data.memory_gb * 2**30:
        radiance = np.empty(shape, "float32")
        bad = _fill(radiance, flights, wanted, data.camera, progress)
        return FrameTable(radiance, bad, start, picked)
    with cache_folder(data.cache) as cache:
        path = cache / f"frames-{_fingerprint(flights, wanted, data.camera)}.npy"
        bad_path = path.with_suffix(".bad.npy")
        if not _is_table(path, shape) or not _is_table(bad_path, shape[:1]):
            with alone_at(path, "a reading of the same flights"), whole_file(path) as temporary:
                mapped = np.lib.format.open_memmap(temporary, "w+", "float32", shape)
                _reserve(temporary)
                bad = _fill(mapped, flights, wanted, data.camera, progress)
                mapped.flush()
                with whole_file(bad_path) as temporary_bad, open(temporary_bad, "wb") as file:
                    np.save(file, bad)
    return FrameTable(np.load(path, mmap_mode="r"), np.load(bad_path, allow_pickle=False), start, picked)


def _is_table(path: Path, shape: tuple[int, ...]) -> bool:
    """Whether a cached table is complete: reading past the end of a mapped file would kill the process."""
    try:
        return bool(np.load(path, mmap_mode="r", allow_pickle=False).shape == shape)
    except (OSError, ValueError, EOFError):
        return False


def _reserve(path: Path) -> None:
    """Allocate the space on disk: a mapped file that grows on a full disk kills the process. Raises `OSError`."""
    if hasattr(os, "posix_fallocate"):
        with open(path, "r+b") as file:
            os.posix_fallocate(file.fileno(), 0, path.stat().st_size)


def _fill(
    out: np.ndarray, flights: list[Flight], wanted: dict[str, np.ndarray], camera: Camera, progress: Progress | None
) -> np.ndarray:
    bad = np.zeros(len(out), bool)
    done = 0
    for flight in flights:
        with of_flight(flight.name):
            for position, radiance, faulty in read_frames(flight, wanted[flight.name], camera):
                place = done + position
                out[place], bad[place] = radiance, faulty
                if progress is not None:
                    progress(int(place.max()) + 1, len(out))
        done += len(wanted[flight.name])
    return bad


def read_frames(
    flight: Flight, frames: np.ndarray, camera: Camera
) -> Iterator[tuple[np.ndarray, np.ndarray, np.ndarray]]:
    """Yield (positions in `frames`, radiance (n,H,W,C), faulty (n,)), slab by slab in the order of the file."""
    for _, slab in read_pieces(flight, [frames], camera):
        yield slab.position, slab.radiance, slab.saturated | slab.no_image


@dataclass(frozen=True)
class Slab:
    """Some frames, read at once, and the faults of each."""

    position: np.ndarray  # (n,) in the wanted frames
    radiance: np.ndarray  # (n,H,W,C)
    saturated: np.ndarray  # (n,) bool
    no_image: np.ndarray  # (n,) bool: black, of one value, or with pixels that are not finite
    invalid: np.ndarray  # (n,) bool: those of them that have such pixels, or had impossible ones


def read_pieces(flight: Flight, pieces: Iterable[np.ndarray], camera: Camera) -> Iterator[tuple[int, Slab]]:
    """Yield (number of the segment, slab) for segments of frame indices, one after the other.

    A thread reads the next slab while one is decoded; no other thread touches the file.
    """
    for number, position, channels in ahead(_raw_slabs(flight, pieces, camera)):
        decoded = [_channel(values, packed, camera) for values, packed in channels]
        images = [channel.image for channel in decoded]
        radiance = images[0][..., None] if len(images) == 1 else np.stack(images, axis=-1)
        saturated, no_image, invalid = (
            np.any([getattr(channel, name) for channel in decoded], axis=0)
            for name in ("saturated", "no_image", "invalid")
        )
        yield number, Slab(position, radiance, saturated, no_image, invalid)


Packed = tuple[np.ndarray, dict[str, Any]]  # (n,H,W) of a channel as stored in the file, and its packing attributes


def _raw_slabs(
    flight: Flight, pieces: Iterable[np.ndarray], camera: Camera
) -> Iterator[tuple[int, np.ndarray, list[Packed]]]:
    """Yield (number of the segment, positions (n,) in it, what is stored of each channel)."""
    rows_cut, columns_cut = (slice(*cut) if cut else slice(None) for cut in (camera.rows, camera.columns))
    with hdf5.open_file(flight.camera_path, flight.limits) as file:
        sets = [
            hdf5.images(file, name, "data.camera.channels", camera.frame_axis == "last") for name in camera.channels
        ]
        packing = [hdf5.packing(item) for item in sets]
        for number, frames in enumerate(pieces):
            rows = flight.row[frames]
            order = np.argsort(rows, kind="stable")
            for first, last in _slabs(rows[order], sets[0]):
                chosen = order[first:last]
                low, high = int(rows[chosen[0]]), int(rows[chosen[-1]]) + 1
                keep = slice(None) if high - low == len(chosen) else rows[chosen] - low
                channels = []
                for item, packed in zip(sets, packing, strict=True):
                    with hdf5.library(file, item.name):
                        images = np.asarray(item[low:high, rows_cut, columns_cut])
                    channels.append((images[keep], packed))
                yield number, chosen, channels


def _slabs(sorted_rows: np.ndarray, item: h5py.Dataset) -> Iterator[tuple[int, int]]:
    """Cut sorted rows into runs, [first, last), of whole chunks that stay small; far-apart rows are not bridged."""
    chunk = item.chunks[0] if item.chunks else 1
    frame_bytes = max(int(np.prod(item.shape[1:])) * item.dtype.itemsize, 1)
    most = max(SLAB_BYTES // frame_bytes, chunk, 1)
    blocks = sorted_rows // chunk
    far = np.diff(blocks)
    first = 0
    for i in np.flatnonzero(far) + 1:  # first row of a chunk
        if far[i - 1] > 1 or sorted_rows[i] - sorted_rows[first] >= most:
            yield first, int(i)
            first = int(i)
    if len(sorted_rows):
        yield first, len(sorted_rows)


@dataclass(frozen=True)
class Channel:
    """One channel of some frames, and its faults; as `Slab` has them."""

    image: np.ndarray  # (n,H,W) float32, down-sampled
    saturated: np.ndarray
    no_image: np.ndarray
    invalid: np.ndarray


def _channel(raw: np.ndarray, packed: dict[str, Any], camera: Camera) -> Channel:
    """Decode one channel of chosen frames, (n,H,W) as stored."""
    values = unpack(raw, packed, "float32")
    if camera.saturation is not None:
        seen, limit = values, camera.saturation
    elif raw.dtype.kind in "iu":
        seen, limit = raw, np.iinfo(raw.dtype).max
    else:
        seen, limit = raw, np.inf
    saturated = _share_at_least(seen, limit) > camera.bad_pixel_fraction
    high, low = _extremes(values)
    _without_impossible(values, high, low, packed, camera.saturation)
    image = downsample(values, camera.downsample)
    if image is not values:
        high, low = _extremes(image)
    finite = np.isfinite(high) & np.isfinite(low)  # neither is where a pixel is not
    with np.errstate(invalid="ignore"):
        return Channel(image, saturated, ~(finite & (high > low)), ~finite)


def _extremes(images: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """The highest and the lowest pixel of each image, (n,H,W) -> (n,), (n,)."""
    flat = images.reshape(len(images), -1)
    with np.errstate(invalid="ignore"):
        return flat.max(axis=1), flat.min(axis=1)


def _without_impossible(
    values: np.ndarray, high: np.ndarray, low: np.ndarray, packed: dict[str, Any], saturation: float | None
) -> None:
    """Set pixels (n,H,W) that are finite and impossible to NaN, in place, and the extremes of their frames.

    Only frames whose extremes are suspect are looked at. Pixels at a saturation that is set are none of them.
    """
    fills = scaled_fills(packed)
    flat = values.reshape(len(values), -1)
    with np.errstate(invalid="ignore"):
        suspect = [np.isin(extreme, fills) | (np.abs(extreme) > HUGE) for extreme in (high, low)]
        for n in np.flatnonzero(suspect[0] | suspect[1]):
            wrong = impossible(flat[n], fills)
            if saturation is not None:
                wrong &= flat[n] < saturation
            if wrong.any():
                flat[n, wrong] = high[n] = low[n] = np.nan


def _share_at_least(images: np.ndarray, limit: float) -> np.ndarray:
    """The share of pixels at or above a limit, (n,H,W) -> (n,). Only frames whose maximum reaches it are counted."""
    flat = images.reshape(len(images), -1)
    share = np.zeros(len(flat))
    with np.errstate(invalid="ignore"):
        some = np.flatnonzero(~(flat.max(axis=1) < limit))  # also where the maximum is NaN
        share[some] = (flat[some] >= limit).mean(axis=1)
    return share


def downsample(images: np.ndarray, factor: int) -> np.ndarray:
    """Average over squares, (n,H,W) -> (n,H//factor,W//factor); a remainder at the far edge is cut."""
    if factor == 1:
        return images
    count, height, width = images.shape
    height, width = height // factor, width // factor
    cut = images[:, : height * factor, : width * factor]
    with np.errstate(over="ignore", invalid="ignore"):  # frames that are not finite are left out later
        return cut.reshape(count, height, factor, width, factor).mean(axis=(2, 4))


def _fingerprint(flights: list[Flight], wanted: dict[str, np.ndarray], camera: Camera) -> str:
    digest = hashlib.sha256(json.dumps(camera.model_dump(mode="json"), sort_keys=True).encode())
    for flight in flights:
        with of_flight(flight.name):
            for path in files_at(flight.camera_path):
                state = path.stat()
                digest.update(f"{path.resolve()} {state.st_size} {state.st_mtime_ns}".encode())
        digest.update(np.ascontiguousarray(flight.row[wanted[flight.name]]).tobytes())
    return digest.hexdigest()[:20]


def files_at(path: Path) -> tuple[Path, ...]:
    """The file at a path, or those of a folder or a pattern that are read as one."""
    try:
        return files_of(path) if is_series(path) else (path,)
    except ValueError as error:
        raise DataError(f"{path}: {error}.") from None


def camera_fingerprint(path: Path) -> str:
    """A short hash of a file's size and of its first and last MB: cheap, and enough to distinguish two data sets.

    Of several files: of all sizes, and of the first and the last file.
    """
    paths = files_at(path)
    digest = hashlib.sha256(" ".join(str(one.stat().st_size) for one in paths).encode())
    for one in dict.fromkeys((paths[0], paths[-1])):
        update_by_pieces(digest, one, 2)
    return digest.hexdigest()[:16]

"""What ruins the next flight, and what does not: 30 runs, written down before a rule was changed for them.

The first fifteen are ruined by construction: another gain or offset of the test flight, contrast lost in it, clear sky
that training never had, a wrong clock, too few labels. The other fifteen are sound: seeds, presets, sizes, splits, and
shifts so small that they do no harm. `DEVELOPMENT` are others, of other seeds, that rules may be written with; its runs
of few labels were added after the 30 had been judged by the new rules. `SHIFTED` are for trying out remedies.
"""

from collections.abc import Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import h5py
import numpy as np
from scipy.ndimage import gaussian_filter

from planted.faults import DAYS, SIGNAL, Case, Edit, brighten, chosen, shift_lidar, simulation, stray_light, training
from planted.held_out import flights

DEPTH, LAYERS = "layer_descriptor/Feature_Optical_Depth_532", "layer_descriptor/Number_Layers"
OPAQUE = "layer_descriptor/Opacity"


@dataclass(frozen=True)
class Planted(Case):
    """A case whose main finding may have one of several names; `expected` is the first of them."""

    also: tuple[str, ...] = field(default=())

    def is_right(self, verdict: str) -> bool:
        """Whether a verdict names it."""
        return verdict in (self.expected, *self.also)


def several(*edits: Edit) -> Edit:
    """One edit after the other."""

    def edit(folder: Path) -> None:
        for one in edits:
            one(folder)

    return edit


def haze(contrast: float, *names: str) -> Edit:
    """Draw every pixel towards the flight's mean radiance: less contrast, the same mean."""

    def edit(folder: Path) -> None:
        for path in chosen(folder, names, "*_L1B_*"):
            with h5py.File(path, "r+") as file:
                counts = file[SIGNAL][()].astype("float64")
                mean = counts[counts > 0].mean()
                changed = np.where(counts > 0, mean + contrast * (counts - mean), 0)
                file[SIGNAL][...] = np.rint(changed).astype(file[SIGNAL].dtype)

    return edit


def no_clear_sky(*names: str) -> Edit:
    """Take profiles without a cloud out of these flights: their columns are told to be opaque, and are left out."""

    def edit(folder: Path) -> None:
        for path in chosen(folder, names, "CPL_*"):
            with h5py.File(path, "r+") as file:
                depth = np.where(file[DEPTH][()] > 0, file[DEPTH][()], 0).sum(axis=1)
                opaque = file[OPAQUE][()]
                opaque[depth < 0.1] = 1
                file[OPAQUE][...] = opaque

    return edit


def clear_sky(quantile: float, flight: str, seed: int, share: float = 0.5) -> Edit:
    """Clear sky over a bright, patchy surface in `share` of a flight, in stretches of 15 to 60 frames.

    The surface is as bright as that quantile of the flight's pixels; the profiles there have no layer.
    """

    def edit(folder: Path) -> None:
        rng = np.random.default_rng(seed)
        with h5py.File(chosen(folder, (flight,), "*_L1B_*")[0], "r+") as file:
            counts = file[SIGNAL][()]
            clear = _stretches(len(counts), share, rng)
            patches = gaussian_filter(rng.standard_normal(counts.shape), (2, *(3,) * (counts.ndim - 1)))
            level = np.quantile(counts[counts > 0], quantile)
            surface = level * (1 + 0.15 * patches / patches.std())
            counts[clear] = np.where(counts > 0, surface, 0)[clear].astype(counts.dtype)
            file[SIGNAL][...] = counts
        with h5py.File(chosen(folder, (flight,), "CPL_*")[0], "r+") as file:
            days, layers = file[DAYS][()], file[LAYERS][()]
            position = (days[:, 1] - days[0, 0]) / (days[-1, 2] - days[0, 0])
            layers[clear[np.clip((position * len(clear)).astype(int), 0, len(clear) - 1)]] = 0
            file[LAYERS][...] = layers

    return edit


def _stretches(count: int, share: float, rng: np.random.Generator) -> np.ndarray:
    """Frames (count,) in random stretches that cover about a share of all."""
    inside = np.zeros(count, bool)
    while inside.mean() < share:
        first = int(rng.integers(count))
        inside[first : first + int(rng.integers(15, 61))] = True
    return inside


def exchange_lidar(first: str, second: str) -> Edit:
    """Give two flights each other's lidar values; times and names stay."""

    def edit(folder: Path) -> None:
        rotate_lidar(folder, (first, second))

    return edit


def rotate_lidar(folder: Path, names: Sequence[str]) -> None:
    """Give each flight the labels of the next one, the last one those of the first; times stay."""
    paths = [chosen(folder, (name,), "CPL_*")[0] for name in names]
    keys = (DEPTH, LAYERS, OPAQUE, "layer_descriptor/Feature_Type")
    kept = []
    for path in paths:
        with h5py.File(path) as file:
            kept.append({key: file[key][()] for key in keys})
    for path, values in zip(paths, [*kept[1:], kept[0]], strict=True):
        with h5py.File(path, "r+") as file:
            for key in keys:
                count = min(len(file[key]), len(values[key]))
                file[key][:count] = values[key][:count]


def rotated(*names: str) -> Edit:
    """An edit of `rotate_lidar`."""
    return lambda folder: rotate_lidar(folder, names)


def labels_times(factor: float, *names: str) -> Edit:
    """Multiply optical depths, as another unit or wavelength would."""

    def edit(folder: Path) -> None:
        for path in chosen(folder, names, "CPL_*"):
            with h5py.File(path, "r+") as file:
                depth = file[DEPTH][()]
                file[DEPTH][...] = np.where(depth > 0, depth * factor, depth)

    return edit


def labels_all(value: float, *names: str) -> Edit:
    """One optical depth for every profile of these flights."""

    def edit(folder: Path) -> None:
        for path in chosen(folder, names, "CPL_*"):
            with h5py.File(path, "r+") as file:
                depth = file[DEPTH][()]
                depth[:, 0] = np.where(depth[:, 0] > 0, value, depth[:, 0])
                depth[:, 1:] = np.where(depth[:, 1:] > 0, 0.0, depth[:, 1:])
                file[DEPTH][...] = depth

    return edit


def freeze(*names: str) -> Edit:
    """Repeat the frame in the middle of a flight from there on to its end."""

    def edit(folder: Path) -> None:
        for path in chosen(folder, names, "*_L1B_*"):
            with h5py.File(path, "r+") as file:
                counts = file[SIGNAL][()]
                counts[len(counts) // 4 :] = counts[len(counts) // 4]
                file[SIGNAL][...] = counts

    return edit


def clean(count: int, **changes: Any) -> dict[str, Any]:
    """Flights of 3-s profiles, whose middles lie on frames: no label is rounded to the wrong frame."""
    return flights(count, **{"lidar_interval_s": 3.0, "frames_per_flight": 600, **changes})


HARD: dict[str, Any] = {  # where such small networks still reach an R² of use
    "preset": "hard",
    "surface_albedo": 0.12,
    "surface_contrast": 0.12,
    "read_noise": 0.005,
    "shot_noise": 0.01,
    "gain_drift": 0.02,
    "diffusion_scale": 0.4,
}
WITH_ZERO = {"lidar": {"clear_sky": "zero"}}
SHIFT = "flight shift"


def zeros(count: int, seed: int, **changes: Any) -> dict[str, Any]:
    """Flights whose clear sky is a label."""
    found = clean(count, seed=seed, **changes)
    return {**found, "data": {**found["data"], **WITH_ZERO}, "target": {"minimum": 0.0}}


def never_clear(count: int, flight: str, quantile: float, seed: int) -> Edit:
    """Clear sky in the test flight and in no other."""
    others = [f"sim{n:02d}" for n in range(1, count + 1) if f"sim{n:02d}" != flight]
    return several(no_clear_sky(*others), clear_sky(quantile, flight, seed))


RUINED = [
    Planted("r gain 1.5 of the test flight", SHIFT, {**clean(6, seed=501), "seed": 151}, brighten(1.5, "sim06")),
    Planted(
        "r gain 0.6 of the test flight, log",
        SHIFT,
        {**clean(6, seed=502), "target": {"transform": "log"}, "seed": 152},
        brighten(0.6, "sim06"),
    ),
    Planted(
        "r offset 0.12 of the test flight, one frame",
        SHIFT,
        {**clean(6, seed=503), "temporal_frames": 1, "model": {"architecture": "single_frame"}, "seed": 153},
        stray_light(0.12, "sim06"),
    ),
    Planted(
        "r gain 1.4 and offset 0.05, quantile head",
        SHIFT,
        {
            **clean(7, seed=504),
            "model": {"head": "quantile", "quantiles": 7},
            "loss": {"base": "pinball", "weight": 0.25},
            "seed": 154,
        },
        several(brighten(1.4, "sim07"), stray_light(0.05, "sim07")),
    ),
    Planted("r contrast 0.3 in the test flight", SHIFT, {**clean(6, seed=505), "seed": 155}, haze(0.3, "sim06"),
            also=("collapse",)),
    Planted(
        "r contrast 0.2 in the test flight, five frames",
        SHIFT,
        {**clean(6, seed=506), "temporal_frames": 5, "seed": 156},
        haze(0.2, "sim06"),
        also=("collapse",),
    ),
    Planted(
        "r contrast 0.25 in the test flight, leave one out",
        SHIFT,
        {
            **simulation(flight_count=6, seed=507, frames_per_flight=600, lidar_interval_s=3.0),
            "split": {"kind": "leave_one_out", "test": "sim04"},
            "seed": 157,
        },
        haze(0.25, "sim04"),
        also=("collapse",),
    ),
    Planted("r clear sky in the test flight alone, bright", "unseen labels", {**zeros(6, 508), "seed": 158},
            never_clear(6, "sim06", 0.8, 1), also=(SHIFT,)),
    Planted("r clear sky in the test flight alone, medium", "unseen labels", {**zeros(6, 509), "seed": 159},
            never_clear(6, "sim06", 0.65, 2), also=(SHIFT,)),
    Planted(
        "r clear sky in the test flight alone, huber",
        "unseen labels",
        {**zeros(7, 510), "loss": {"base": "huber", "weight": 0.1}, "seed": 160},
        never_clear(7, "sim07", 0.5, 3),
        also=(SHIFT,),
    ),
    Planted("r clock of all flights 9 s late", "bad clock", {**clean(6, seed=511), "seed": 161}, shift_lidar(9.0)),
    Planted(
        "r clock of the test flight 24 s early",
        "bad clock",
        {**clean(6, seed=512, frames_per_flight=700), "seed": 162},
        shift_lidar(-24.0, "sim06"),
    ),
    Planted(
        "r clock of the test flight 15 s late, log",
        "bad clock",
        {**clean(6, seed=513, frames_per_flight=700), "target": {"transform": "log"}, "seed": 163},
        shift_lidar(15.0, "sim06"),
    ),
    Planted(
        "r a profile in 40 s",
        "too few labels",
        {**clean(4, seed=514, frames_per_flight=400, lidar_interval_s=40.0), "seed": 164, **training(batch_size=8)},
    ),
    Planted(
        "r one training flight of four minutes",
        "too few labels",
        {
            **clean(3, seed=515, frames_per_flight=240, lidar_interval_s=10.0),
            "seed": 165,
            **training(batch_size=8, max_epochs=20),
        },
    ),
]  # fmt: skip
SOUND = [
    Planted("s plain", "healthy", {**clean(6, seed=521), "seed": 171}),
    Planted("s plain, eight flights", "healthy", {**clean(8, seed=522), "seed": 172}),
    Planted(
        "s log, five frames",
        "healthy",
        {**clean(6, seed=523), "temporal_frames": 5, "target": {"transform": "log"}, "seed": 173},
    ),
    Planted(
        "s quantile head",
        "healthy",
        {
            **clean(6, seed=524),
            "model": {"head": "quantile", "quantiles": 9},
            "loss": {"base": "pinball", "weight": 0.25},
            "seed": 174,
        },
    ),
    Planted(
        "s histogram head",
        "healthy",
        {
            **clean(7, seed=525),
            "model": {"head": "histogram", "bins": 20},
            "loss": {"base": "cross_entropy", "weight": 0},
            "seed": 175,
        },
    ),
    Planted(
        "s time blocks",
        "healthy",
        {
            **simulation(flight_count=4, seed=526, frames_per_flight=900, lidar_interval_s=3.0),
            "split": {"kind": "time_blocks", "val_fraction": 0.2, "test_fraction": 0.15, "gap_s": 120.0},
            "seed": 176,
        },
    ),
    Planted(
        "s leave one out",
        "healthy",
        {
            **simulation(flight_count=6, seed=527, frames_per_flight=600, lidar_interval_s=3.0),
            "split": {"kind": "leave_one_out", "test": "sim02"},
            "seed": 177,
        },
    ),
    Planted(
        "s one frame, hinge",
        "healthy",
        {
            **clean(6, seed=528),
            "temporal_frames": 1,
            "model": {"architecture": "single_frame"},
            "loss": {"weight": 0.5, "form": "hinge", "gamma": 0.8},
            "seed": 178,
        },
    ),
    Planted(
        "s hard imagery of a better camera, eight flights",
        "healthy",
        {**clean(8, seed=529, **HARD), "loss": {"weight": 0.05}, "seed": 179},
    ),
    Planted(
        "s straight line from nadir, 16 pixels",
        "healthy",
        {
            **clean(6, seed=530, frame_rows=16, frame_columns=16),
            "model": {"nadir_linear": True},
            "augmentation": {"gain_std": 0.05},
            "seed": 180,
        },
    ),
    Planted("s clear sky in all flights", "healthy", {**zeros(6, 531), "seed": 181}),
    Planted("s gain 1.04 of the test flight", "healthy", {**clean(6, seed=532), "seed": 182}, brighten(1.04, "sim06")),
    Planted("s gain 0.95 of the test flight", "healthy", {**clean(6, seed=533), "seed": 183}, brighten(0.95, "sim06")),
    Planted(
        "s offset 0.004 of the test flight, huber",
        "healthy",
        {**clean(6, seed=534), "loss": {"base": "huber", "weight": 0.1}, "seed": 184},
        stray_light(0.004, "sim06"),
    ),
    Planted("s contrast 0.95 in the test flight", "healthy", {**clean(7, seed=535), "seed": 185}, haze(0.95, "sim07")),
]
NEXT_FLIGHT = [*RUINED, *SOUND]

ALL_SIX = tuple(f"sim{n:02d}" for n in range(1, 7))
DEVELOPMENT = [
    Planted("d gain 1.35 of the test flight", SHIFT, {**clean(6, seed=601), "seed": 251}, brighten(1.35, "sim06")),
    Planted("d contrast 0.3 in the test flight", SHIFT, {**clean(6, seed=602), "seed": 252}, haze(0.3, "sim06"),
            also=("collapse",)),
    Planted("d clear sky in the test flight alone", "unseen labels", {**zeros(6, 603), "seed": 253},
            never_clear(6, "sim06", 0.7, 4)),
    Planted("d test labels times 0.4", SHIFT, {**clean(6, seed=604), "target": {"minimum": 0.02}, "seed": 254},
            labels_times(0.4, "sim06")),
    Planted("d lidar of two training flights exchanged", "foreign labels", {**clean(7, seed=605), "seed": 255},
            exchange_lidar("sim02", "sim04")),
    Planted("d all lidar files exchanged", "no correlation", {**clean(6, seed=606), "seed": 256}, rotated(*ALL_SIX),
            also=("foreign labels",)),
    Planted("d frozen test flight", "frozen camera", {**clean(6, seed=607), "seed": 257}, freeze("sim06")),
    Planted("d labels of a training flight all equal", "healthy", {**clean(7, seed=608), "seed": 258},
            labels_all(0.9, "sim03")),
    Planted("d a profile in 35 s", "too few labels",
            {**clean(4, seed=611, frames_per_flight=400, lidar_interval_s=35.0), "seed": 261,
             **training(batch_size=8)}),
    Planted("d a profile in 45 s", "too few labels",
            {**clean(4, seed=612, frames_per_flight=450, lidar_interval_s=45.0), "seed": 262,
             **training(batch_size=8)}),
    Planted("d one training flight of five minutes", "too few labels",
            {**clean(3, seed=613, frames_per_flight=300, lidar_interval_s=12.0), "seed": 263,
             **training(batch_size=8)}),
    Planted("d sound", "healthy", {**clean(6, seed=609), "seed": 259}),
    Planted("d sound, hard", "healthy", {**clean(8, seed=610, **HARD), "loss": {"weight": 0.05}, "seed": 260}),
]  # fmt: skip

# Test flights of another level, on which what helps is tried out: `planted_ruin.py --remedies`.
SHIFTED = [
    Planted("m gain 1.35", SHIFT, {**clean(6, seed=621), "seed": 271}, brighten(1.35, "sim06")),
    Planted("m gain 0.7", SHIFT, {**clean(6, seed=622), "seed": 272}, brighten(0.7, "sim06")),
    Planted("m gain 1.2, one frame", SHIFT, {**clean(6, seed=623), "temporal_frames": 1, "seed": 273,
            "model": {"architecture": "single_frame"}}, brighten(1.2, "sim06")),
    Planted("m offset 0.05", SHIFT, {**clean(6, seed=624), "seed": 274}, stray_light(0.05, "sim06")),
    Planted("m contrast 0.4", SHIFT, {**clean(6, seed=625), "seed": 275}, haze(0.4, "sim06")),
    Planted("m as it is", "healthy", {**clean(6, seed=626), "seed": 276}),
]  # fmt: skip

"""A case: a small configuration of simulated flights, and how a fault is planted in it."""

import json
import shutil
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import h5py
import numpy as np

SIMULATION = {
    "flight_count": 6,
    "frames_per_flight": 600,
    "frame_rows": 12,
    "frame_columns": 12,
    "lidar_interval_s": 2.0,
    "strip_width_m": 3200.0,
}
BASE: dict[str, Any] = {
    "seed": 3,
    "split": {"kind": "flights", "train": ["sim01", "sim02", "sim03", "sim04"], "val": ["sim05"], "test": ["sim06"]},
    "data": {"simulation": SIMULATION},
    "model": {"widths": [8, 12], "footprint": 5, "encoder_features": 24, "heads": 2, "head_units": 24},
    "training": {"max_epochs": 12, "batch_size": 32, "learning_rate": 3e-3},
    "evaluation": {"bootstrap_samples": 200},
    "output": {"export": False, "report": False},
}
BLOCKS = {"kind": "time_blocks", "val_fraction": 0.2, "test_fraction": 0.2, "gap_s": 5.0}
COUNT = 1e-4  # reflectance of one count
DAYS, SIGNAL = "layer_descriptor/Profile_Decimal_Julian_Day", "Product/Signal"
Edit = Callable[[Path], None]


@dataclass(frozen=True)
class Case:
    """A configuration with one fault, and the name that the fault should be given."""

    name: str
    expected: str
    changes: dict[str, Any] = field(default_factory=dict)
    edit: Edit | None = None  # of the folder that holds the flights, before training
    held_out: Edit | None = None  # the same for a copy of sim06 that the finished run is evaluated on


def merged(base: dict[str, Any], changes: dict[str, Any]) -> dict[str, Any]:
    """A deep copy of `base` with the sections of `changes` laid over it; a split is replaced whole."""
    out = json.loads(json.dumps(base))
    for key, value in changes.items():
        both = isinstance(value, dict) and isinstance(out.get(key), dict) and "kind" not in value
        out[key] = merged(out[key], value) if both else value
    return out


def shift_lidar(seconds: float, *flights: str) -> Edit:
    """Set the lidar's clock wrong."""

    def edit(folder: Path) -> None:
        for path in chosen(folder, flights, "CPL_*"):
            with h5py.File(path, "r+") as file:
                file[DAYS][...] += seconds / 86400.0

    return edit


def brighten(factor: float, *flights: str) -> Edit:
    """Multiply the radiance."""

    def edit(folder: Path) -> None:
        for path in chosen(folder, flights, "*_L1B_*"):
            with h5py.File(path, "r+") as file:
                scaled = np.clip(file[SIGNAL][()] * factor, 0, np.iinfo(file[SIGNAL].dtype).max - 1)
                file[SIGNAL][...] = scaled.astype(file[SIGNAL].dtype)

    return edit


def stray_light(reflectance: float, *flights: str) -> Edit:
    """Add a constant to the radiance."""

    def edit(folder: Path) -> None:
        for path in chosen(folder, flights, "*_L1B_*"):
            with h5py.File(path, "r+") as file:
                counts = file[SIGNAL][()].astype("int64")
                added = np.where(counts > 0, counts + round(reflectance / COUNT), 0)
                top = np.iinfo(file[SIGNAL].dtype).max - 1
                file[SIGNAL][...] = np.clip(added, 0, top).astype(file[SIGNAL].dtype)

    return edit


def shuffle_profiles(seed: int = 0) -> Edit:
    """Deal the profiles' times out anew: every label belongs to another scene."""

    def edit(folder: Path) -> None:
        rng = np.random.default_rng(seed)
        for path in chosen(folder, (), "CPL_*"):
            with h5py.File(path, "r+") as file:
                days = file[DAYS][()]
                file[DAYS][...] = days[rng.permutation(len(days))]

    return edit


def copy_flight(source: str, target: str, noise: float = 0.02) -> Edit:
    """Replace one flight by a noisy copy of another: the same scenes under another name."""

    def edit(folder: Path) -> None:
        shutil.rmtree(folder / target)
        shutil.copytree(folder / source, folder / target)
        for path in chosen(folder, (target,), "*_L1B_*"):
            with h5py.File(path, "r+") as file:
                counts = file[SIGNAL][()]
                noisy = counts * (1 + noise * np.random.default_rng(1).standard_normal(counts.shape))
                file[SIGNAL][...] = np.clip(noisy, 0, np.iinfo(counts.dtype).max - 1).astype(counts.dtype)

    return edit


def chosen(folder: Path, flights: Sequence[str], pattern: str) -> list[Path]:
    """The files of one kind, of all flights or of those named."""
    return sorted(path for path in folder.glob(f"*/{pattern}") if not flights or path.parent.name in flights)


def training(**changes: Any) -> dict[str, Any]:
    """A change of the training section."""
    return {"training": changes}


def simulation(**changes: Any) -> dict[str, Any]:
    """A change of the simulated flights."""
    return {"data": {"simulation": changes}}


SMALL: dict[str, Any] = {"split": {"kind": "flights", "train": ["sim01"], "val": ["sim02"], "test": ["sim03"]}}
FOUR = {"kind": "flights", "train": ["sim01", "sim02"], "val": ["sim03"], "test": ["sim04"]}


def small(**changes: Any) -> dict[str, Any]:
    """Three short flights and a smaller network's training."""
    flights = {"flight_count": 3, "frames_per_flight": 300, **changes}
    return {**simulation(**flights), **training(max_epochs=15, batch_size=16)}

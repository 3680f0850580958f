"""Faults planted in simulated flights, and what `cloudml check` names: `python benchmarks/check_faults.py`.

Each seed simulates four flights, spoils copies in one way after the other, and checks them without any model.
A row of the table counts the seeds in which the fault was named, and those in which something else was blamed.
"""

import argparse
import shutil
import sys
import tempfile
from collections.abc import Callable
from pathlib import Path
from typing import Any

import h5py
import numpy as np

from cloudml_tf.commands.check import check
from cloudml_tf.commands.simulate import simulation_config
from cloudml_tf.config.load import parse_config
from cloudml_tf.data.simulation.simulator import simulate_flights
from cloudml_tf.utils.console import Console

SIZE = {"flight_count": 4, "frames_per_flight": 1200, "frame_rows": 16, "frame_columns": 16, "strip_width_m": 6400.0}
SPLIT = {"kind": "flights", "train": ["sim01", "sim02"], "val": ["sim03"], "test": ["sim04"]}
DAYS = "layer_descriptor/Profile_Decimal_Julian_Day"
HEIGHTS = ("layer_descriptor/Layer_Base_Altitude", "layer_descriptor/Layer_Top_Altitude")
SIGNAL = "Product/Signal"
Changes = dict[str, Any]


def edit(folder: Path, pattern: str, dataset: str, change: Callable[[np.ndarray], np.ndarray]) -> None:
    """Rewrite a dataset of the one file that matches; its attributes stay."""
    with h5py.File(next(folder.glob(pattern)), "r+") as file:
        attributes, values = dict(file[dataset].attrs), file[dataset][()]
        del file[dataset]
        file.create_dataset(dataset, data=change(values)).attrs.update(attributes)


def healthy(flights: Path) -> Changes:
    """Nothing is planted."""
    return {}


def clock_3_s(flights: Path) -> Changes:
    """The lidar's clock is ahead."""
    for folder in flights.iterdir():
        edit(folder, "CPL*", DAYS, lambda days: days + 3.0 / 86400)
    return {}


def clock_3_s_in_one_flight(flights: Path) -> Changes:
    """The lidar's clock is ahead in a quarter of the data."""
    edit(flights / "sim02", "CPL*", DAYS, lambda days: days + 3.0 / 86400)
    return {}


def boresight_4_across(flights: Path) -> Changes:
    """The lidar's spot lies to the side."""
    return {"data": {"camera": {"boresight_offset": [4, 0]}}}


def boresight_4_along(flights: Path) -> Changes:
    """The lidar's spot lies behind."""
    return {"data": {"camera": {"boresight_offset": [0, 4]}}}


def frozen_for_30_s(flights: Path) -> Changes:
    """One flight's camera repeats a frame."""

    def freeze(signal: np.ndarray) -> np.ndarray:
        signal[300:330] = signal[300]
        return signal

    edit(flights / "sim01", "*L1B*", SIGNAL, freeze)
    return {}


def heights_in_metres(flights: Path) -> Changes:
    """Cloud base of all flights."""
    for folder in flights.iterdir():
        for name in HEIGHTS:
            edit(folder, "CPL*", name, lambda km: np.where(km == -9999.0, km, 1000 * km))
    return {"target": {"name": "cloud_base_km"}}


def double_gain(flights: Path) -> Changes:
    """One flight is twice as bright."""
    edit(flights / "sim04", "*L1B*", SIGNAL, lambda signal: (signal * 2.0).astype(signal.dtype))
    return {}


def scenes_copied(flights: Path) -> Changes:
    """The test flight is a training flight, written again with 1 % noise."""
    rng = np.random.default_rng(1)
    shutil.copytree(flights / "sim01", flights / "again")
    edit(
        flights / "again",
        "*L1B*",
        SIGNAL,
        lambda signal: (signal * (1.0 + 0.01 * rng.standard_normal(signal.shape))).astype(signal.dtype),
    )
    return {"split": {**SPLIT, "test": ["again"]}}


# Each fault, and the findings that name it. "effective size" is no false alarm of heights: there are few of them.
FAULTS: dict[Callable[[Path], Changes], set[str]] = {
    healthy: set(),
    clock_3_s: {"clock", "clock or boresight"},
    clock_3_s_in_one_flight: {"clock", "clock or boresight"},
    boresight_4_across: {"boresight"},
    boresight_4_along: {"boresight", "clock or boresight"},
    frozen_for_30_s: {"frozen camera"},
    heights_in_metres: {"labels in metres"},
    double_gain: {"gain"},
    scenes_copied: {"leak"},
}


def blamed(plant: Callable[[Path], Changes], simulated: Path, home: Path) -> set[str]:
    """Names of all warnings and problems after one fault; not the sun, of which simulated flights have their own."""
    flights = Path(shutil.copytree(simulated, home / "flights"))
    changes = plant(flights)
    content = {"experiment_name": "planted", "split": SPLIT, "evaluation": {"baselines": False}, **changes}
    content["data"] = {"path": str(flights), "cache": str(home / "cache"), **changes.get("data", {})}
    found = check(parse_config(content), Console(machine=True), probe=False)
    shutil.rmtree(flights)
    blamed = {finding.name for finding in found.findings if finding.level in ("warning", "problem")}
    return blamed - {"sun"}


def main() -> int:
    """Plant, check, count."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--seeds", type=int, nargs="+", default=[1, 2, 3])
    parser.add_argument("--preset", default="default")
    args = parser.parse_args()
    named = dict.fromkeys(FAULTS, 0)
    falsely: dict[Callable[[Path], Changes], list[str]] = {plant: [] for plant in FAULTS}
    for seed in args.seeds:
        with tempfile.TemporaryDirectory() as folder:
            home = Path(folder)
            simulated = simulate_flights(simulation_config(args.preset, {**SIZE, "seed": seed}), home / "simulated")
            for plant, names in FAULTS.items():
                found = blamed(plant, simulated[0].parent, home)
                named[plant] += bool(found & names) or not names
                few = {"effective size"} if plant is heights_in_metres else set()
                falsely[plant] += sorted(found - names - few)
    print(f"| planted ({args.preset}, {len(args.seeds)} seeds) | named | blamed besides |\n|---|---|---|")
    for plant in FAULTS:
        count = "-" if plant is healthy else f"{named[plant]} of {len(args.seeds)}"
        print(f"| {plant.__name__.replace('_', ' ')} | {count} | {', '.join(falsely[plant]) or 'nothing'} |")
    return 0


if __name__ == "__main__":
    sys.exit(main())

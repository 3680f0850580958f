"""Shifts planted in simulated flights, and which of them `cloudml evaluate` warns of: `python benchmarks/shift.py`.

Six flights are the training; each of the others is judged alone, as it is and with one thing changed. The first row are
false alarms. No network is needed: what is compared are inputs and labels.
"""

import argparse
import sys
import tempfile
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np

from cloudml_tf.commands.simulate import simulation_config
from cloudml_tf.config.load import parse_config
from cloudml_tf.config.schema import Config
from cloudml_tf.data.drift import fit_distributions
from cloudml_tf.data.readers.folders import find_flights
from cloudml_tf.data.samples import Samples
from cloudml_tf.data.simulation.simulator import simulate_flights
from cloudml_tf.data.sources import samples_of
from cloudml_tf.data.training_ranges import fit_ranges
from cloudml_tf.evaluation.shift import judge_shift

SIZE = {"frame_rows": 16, "frame_columns": 16, "strip_width_m": 6400.0}
TRAINING = 6
SPLIT = {"kind": "flights", "train": ["sim01"], "val": ["sim02"], "test": ["sim03"]}


def flights_of(preset: str, size: dict[str, Any], home: Path) -> tuple[Samples, Config]:
    """All flights of a preset."""
    folders = simulate_flights(simulation_config(preset, size), home / preset)
    content = {"experiment_name": "shift", "split": SPLIT, "data": {"path": str(folders[0].parent)}}
    config = parse_config(content)
    return samples_of(find_flights(folders[0].parent, config.data), config), config


def brighter(samples: Samples, gain: float = 1.0, offset: float = 0.0) -> Samples:
    """Another camera."""
    return replace(samples, table=np.maximum(samples.table * gain + offset, 0.0).astype("float32"))


def lower_sun(samples: Samples, degrees: float) -> Samples:
    """The sun alone: its light is left as it is."""
    assert samples.sun_angles_deg is not None
    return replace(samples, sun_angles_deg=samples.sun_angles_deg + np.array([degrees, 0.0], "float32"))


PLANTED: dict[str, Callable[[Samples], Samples]] = {
    "nothing": lambda samples: samples,
    "gain 1.05": lambda samples: brighter(samples, gain=1.05),
    "gain 1.1": lambda samples: brighter(samples, gain=1.1),
    "gain 1.2": lambda samples: brighter(samples, gain=1.2),
    "gain 0.8": lambda samples: brighter(samples, gain=0.8),
    "offset of a fifth of the mean radiance": lambda samples: brighter(
        samples, offset=0.2 * float(samples.table.mean())
    ),
    "sun 20° lower": lambda samples: lower_sun(samples, 20.0),
    "sun 30° lower": lambda samples: lower_sun(samples, 30.0),
}


def warned(samples: Samples, description: dict[str, Any], config: Config, together: int) -> list[bool]:
    """Whether there is a warning, for each flight after the training's, or for groups of so many."""
    found = []
    numbers = [n for n in np.unique(samples.flight) if n >= TRAINING]
    for first in range(0, len(numbers) - together + 1, together):
        chosen = np.isin(samples.flight, numbers[first : first + together])
        found.append(bool(judge_shift(samples.take(chosen), description, config)["warnings"]))
    return found


def row(what: str, found: list[bool]) -> str:
    """Of the table."""
    return f"| {what} | {sum(found)} of {len(found)} |"


def main() -> int:
    """Simulate, plant, count."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--seeds", type=int, nargs="+", default=[1, 2, 3])
    parser.add_argument("--flights", type=int, default=24, help="beside the six of the training")
    parser.add_argument("--frames", type=int, default=1800)
    parser.add_argument("--together", type=int, default=1, help="flights that are judged at once")
    parser.add_argument("--preset", default="default")
    args = parser.parse_args()
    others = [name for name in ("default", "hard", "weak_signal", "no_signal") if name != args.preset]
    counts: dict[str, list[bool]] = {name: [] for name in [*PLANTED, *(f"preset {name}" for name in others)]}
    for seed in args.seeds:
        size = {**SIZE, "flight_count": TRAINING + args.flights, "frames_per_flight": args.frames, "seed": seed}
        with tempfile.TemporaryDirectory() as folder:
            samples, config = flights_of(args.preset, size, Path(folder))
            train = samples.take(samples.flight < TRAINING)
            kept = {"distributions": fit_distributions(train, config), "ranges": fit_ranges(train, config).to_json()}
            for what, plant in PLANTED.items():
                counts[what] += warned(plant(samples), kept, config, args.together)
            for name in others:
                counts[f"preset {name}"] += warned(flights_of(name, size, Path(folder))[0], kept, config, args.together)
    many = "one flight" if args.together == 1 else f"{args.together} flights together"
    print(f"| changed ({args.preset}, {many} of {args.frames} frames, seeds {args.seeds}) | warned |\n|---|---|")
    for what, found in counts.items():
        print(row(what, found))
    return 0


if __name__ == "__main__":
    sys.exit(main())

"""A network of heights on simulated flights that are unlike its training.

`python benchmarks/heights_elsewhere.py RUN`, of a run of `configs/tier1_base.json`. New flights of the held-out kind
are flown with other winds, with the wind's forecast and without, and at other altitudes, speeds, pixels and frame
rates. A flagged frame is one with `geometry_outside_training` or `wind_unknown`.
"""

import argparse
import tempfile
from pathlib import Path
from typing import Any

import numpy as np
from tools.rounds import machine

from cloudml_tf.config.run_folder import ModelRecord, read_model
from cloudml_tf.config.simulation import SimulationConfig
from cloudml_tf.data.readers.flights import load_flight
from cloudml_tf.data.readers.folders import flight_files
from cloudml_tf.data.simulation.simulator import simulate_flight, write_flight
from cloudml_tf.inference.flags import FLAGS, MASKS
from cloudml_tf.inference.flight import predict_flight
from cloudml_tf.inference.model import open_record

CALM = {"data.geometry.wind_along": None, "data.geometry.wind_across": None}
OUTSIDE = [MASKS[FLAGS.index(name)] for name in ("geometry_outside_training", "wind_unknown")]
WINDS: dict[str, dict[str, Any]] = {
    f"wind {speed} m/s": {"wind_along_m_s": float(speed), "wind_across_m_s": 0.0} for speed in (0, 5, 10)
}
OTHERS: dict[str, dict[str, Any]] = {
    "altitude 8 km": {"altitude_km": 8.0},
    "altitude 12 km": {"altitude_km": 12.0},
    "altitude 16 km": {"altitude_km": 16.0},
    "altitude 20 km": {"altitude_km": 20.0},
    "speed 120 m/s": {"ground_speed_m_s": 120.0},
    "speed 230 m/s": {"ground_speed_m_s": 230.0},
    "pixel twice as large": {"pixel_m": 82.0},
    "a frame each 2 s": {"frame_interval_s": 2.0},
}


def main() -> None:
    """Print both tables."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("run", type=Path)
    parser.add_argument("--flights", type=int, default=3)
    parser.add_argument("--frames", type=int, default=600)
    args = parser.parse_args()
    known, calm = read_model(args.run), read_model(args.run, CALM)
    print(f"{machine()}\n\n| | MAE, km | bias, km | r | flagged |\n|---|---|---|---|---|")
    with tempfile.TemporaryDirectory() as home:
        for words, changes in WINDS.items():
            folders = flown(known, changes, args, Path(home) / words)
            print(row(f"{words}, forecast known to 1 m/s", known, folders), flush=True)
            print(row(f"{words}, taken for calm", calm, folders), flush=True)
        for words, changes in OTHERS.items():
            print(row(words, known, flown(known, changes, args, Path(home) / words)), flush=True)


def flown(record: ModelRecord, changes: dict[str, Any], args: argparse.Namespace, home: Path) -> list[Path]:
    """New flights of the last regime with such changes."""
    simulation = record.config.data.simulation
    regime_fields = type(simulation.regimes[-1]).model_fields
    own = {name: value for name, value in changes.items() if name in regime_fields}
    regime = simulation.regimes[-1].model_copy(update=own)
    content = simulation.model_dump() | {name: value for name, value in changes.items() if name not in regime_fields}
    content |= {"regimes": (regime.model_dump(),), "frames_per_flight": args.frames, "seed": simulation.seed + 1}
    settings = SimulationConfig.model_validate(content)
    folders = []
    for index in range(args.flights):
        flight = simulate_flight(settings, index)
        write_flight(flight, home / flight.identifier)
        folders.append(home / flight.identifier)
    return folders


def row(words: str, record: ModelRecord, folders: list[Path]) -> str:
    """Scores of the flights together, r within them."""
    model, data = open_record(record), record.config.data
    errors, pairs, flagged = [], [], []
    for folder in folders:
        flight = load_flight(folder.name, flight_files(folder, data), data, record.config.target)
        predicted = predict_flight(model, flight)
        value = predicted.values["value"]
        there = np.isfinite(value) & np.isfinite(flight.label)
        flagged.append(np.any([predicted.flags & mask for mask in OUTSIDE], axis=0)[predicted.valid])
        if there.sum() > 1:
            errors.append(value[there] - flight.label[there])
            pairs.append([each[there] - each[there].mean() for each in (value, flight.label)])
    share = np.concatenate(flagged).mean() if sum(map(len, flagged)) else np.nan
    if not errors:
        return f"| {words} | no whole sequence | | | |"
    error, both = np.concatenate(errors), np.concatenate(pairs, axis=1)
    return (
        f"| {words} | {np.abs(error).mean():.2f} | {error.mean():+.2f} | {np.corrcoef(both)[0, 1]:.2f} | {share:.0%} |"
    )


if __name__ == "__main__":
    main()

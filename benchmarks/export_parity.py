"""How far each exported format is from Keras, and how fast it answers: `python benchmarks/export_parity.py`.

Trains configs/tier1.json for a few epochs on fewer simulated flights, exports all formats, and answers 1,000 sequences
with each. Every timing is a process of its own, on one thread, in seconds of processor time.
"""

import argparse
import json
import os
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np

from cloudml_tf.config.data import FlightFiles
from cloudml_tf.config.run_folder import read_run
from cloudml_tf.data.scaling import Scaling
from cloudml_tf.inference.export import parity
from cloudml_tf.inference.export.formats import FORMATS, open_export

SHORT = {
    "split": {"kind": "flights", "train": ["sim01", "sim02"], "val": ["sim03"], "test": ["sim04"]},
    "data.simulation.flight_count": 4,
    "training.early_stopping_patience": 10,
    "evaluation.baselines": False,
    "output.report": False,
    "output.export_formats": list(FORMATS),
}


def train(config: str, epochs: int, home: Path) -> tuple[Path, Path]:
    """Folders of a short run and of its export."""
    settings = {**SHORT, "training.max_epochs": epochs, "output.savedmodels": str(home)}
    options = [part for key, value in settings.items() for part in ("--set", f"{key}={json.dumps(value)}")]
    command = [sys.executable, "-m", "cloudml_tf.train", config, *options, "--run-dir", str(home / "run")]
    subprocess.run(command, check=True, stdout=sys.stderr)
    return home / "run", next(home.glob("*/cloudml.json")).parent


def sequences(run: Path, count: int) -> parity.Sequences:
    """`count` sequences, evenly spread over all flights of the run."""
    from cloudml_tf.data.sources import samples_of

    config, description = read_run(run)
    files = {name: FlightFiles.model_validate(found) for name, found in description["files"].items()}
    return parity.real_sequences(samples_of(files, config), count)


def keras_model(run: Path) -> Callable[[parity.Inputs], dict[str, Any]]:
    """The Keras model of the run, in physical units."""
    from cloudml_tf.train.network import load_regressor, with_units

    config, description = read_run(run)
    model = with_units(load_regressor(run, config, description), Scaling.from_json(description["scaling"]))
    return lambda inputs: {config.target.name: model(inputs, training=False)}


def answerer(name: str, run: Path, folder: Path) -> Callable[[parity.Inputs], dict[str, Any]]:
    """What answers, on one thread: Keras, or one of the files."""
    if name in ("keras", "savedmodel"):
        import tensorflow as tf

        tf.config.threading.set_intra_op_parallelism_threads(1)
        tf.config.threading.set_inter_op_parallelism_threads(1)
    return keras_model(run) if name == "keras" else open_export(folder, name, threads=1).outputs


def clock(name: str, run: Path, folder: Path, inputs: parity.Inputs) -> dict[str, float]:
    """Seconds to load; milliseconds a sequence, one by one and in batches of 100, medians.

    Of processor time, which on one thread is what a free core takes, whatever else the machine does.
    """
    started = time.process_time()
    answer = answerer(name, run, folder)
    answer({key: values[:1] for key, values in inputs.items()})
    found = {"load_s": time.process_time() - started}
    for size, times in ((1, 200), (100, 10)):
        answer({key: values[:size] for key, values in inputs.items()})
        spent = []
        for i in range(times):
            batch = {key: values[i * size : (i + 1) * size] for key, values in inputs.items()}
            started = time.process_time()
            answer(batch)
            spent.append(time.process_time() - started)
        found[f"ms_{size}"] = 1000 * float(np.median(spent)) / size
    return found


def clocked(name: str, run: Path, folder: Path, inputs: Path) -> dict[str, float]:
    """`clock` in a process of its own."""
    command = [sys.executable, __file__, "--clock", name, str(run), str(folder), str(inputs)]
    environment = {**os.environ, "OMP_NUM_THREADS": "1", "TF_CPP_MIN_LOG_LEVEL": "3"}
    done = subprocess.run(command, check=True, stdout=subprocess.PIPE, text=True, env=environment)
    return dict(json.loads(done.stdout.splitlines()[-1]))


def measured(run: Path, folder: Path, chosen: parity.Sequences, home: Path) -> str:
    """The table, in Markdown."""
    config, description = read_run(run)
    target = Scaling.from_json(description["scaling"]).target
    np.savez(home / "inputs.npz", **dict[str, Any](chosen.inputs))
    with parity.full_float32():
        ours = parity.keras_answers(keras_model(run), chosen)
    record = json.loads((folder / "cloudml.json").read_text())["parity"]["formats"]
    columns = ["format", "kB", "largest relative difference", "in std of the target", "load, s"]
    columns += ["ms a sequence, one by one", "in batches of 100"]
    lines = ["| " + " | ".join(columns) + " |", "|---" * len(columns) + "|"]
    for name in ("keras", *FORMATS):
        cells = ["", "", ""]
        if name != "keras":
            theirs = parity.file_answers(open_export(folder, name), chosen)
            gap = parity.difference(ours, theirs, config.target.name, target)
            cells = [f"{record[name]['bytes'] / 1024:.0f}", f"{gap['max_relative']:.1e}", f"{gap['max_std']:.1e}"]
        times = clocked(name, run, folder, home / "inputs.npz")
        cells += [f"{times['load_s']:.1f}", f"{times['ms_1']:.2f}", f"{times['ms_100']:.2f}"]
        lines.append(f"| {'Keras' if name == 'keras' else FORMATS[name].title} | " + " | ".join(cells) + " |")
    return "\n".join(lines)


def main() -> int:
    """Train, export, compare, time."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--config", default="configs/tier1.json")
    parser.add_argument("--epochs", type=int, default=4)
    parser.add_argument("--sequences", type=int, default=1000)
    parser.add_argument("--clock", nargs=4, help=argparse.SUPPRESS)
    args = parser.parse_args()
    if args.clock:
        name, run, folder, inputs = args.clock
        print(json.dumps(clock(name, Path(run), Path(folder), dict(np.load(inputs)))))
        return 0
    with tempfile.TemporaryDirectory() as home:
        run, folder = train(args.config, args.epochs, Path(home))
        chosen = sequences(run, args.sequences)
        print(f"{len(chosen)} sequences {chosen.source}\n\n{measured(run, folder, chosen, Path(home))}")
    return 0


if __name__ == "__main__":
    sys.exit(main())

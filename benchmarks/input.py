"""The way of a frame from the file to the network, against the quickest there could be: `python benchmarks/input.py`.

cached     windows a second from the decoded table, as `fit` draws them (shuffled, augmented where the configuration
           says so, as tensors), against a plain NumPy gather of the same windows
streaming  frames a second of a long flight as a prediction reads them (decoded, checked, in blocks), against a plain
           sequential h5py read of the same bytes; both from a warm page cache, so that the disk is not measured
waiting    share of a training's time that its step waits for a batch, from TensorFlow's profile of an epoch's steps in
           each of some trainings; the last profile is kept
"""

import argparse
import shutil
import tempfile
from pathlib import Path
from typing import cast

import h5py
import numpy as np
from tools.rounds import machine, take_turns

from cloudml_tf.config.load import load_config, parse_config
from cloudml_tf.config.schema import Config
from cloudml_tf.data.blocks import read_blocks
from cloudml_tf.data.prepare import prepare
from cloudml_tf.data.readers.flights import Flight
from cloudml_tf.data.samples import Samples
from cloudml_tf.data.sources import available_flights, read_flights
from cloudml_tf.train.fit import fit
from cloudml_tf.train.loaders import training_batches
from cloudml_tf.train.network import make_model, start_keras
from cloudml_tf.train.tf_dataset import as_dataset
from cloudml_tf.train.tracking import Tracker
from cloudml_tf.utils.console import Console
from cloudml_tf.utils.tf_logging import quiet_tensorflow

SLAB = 2**26  # bytes of a plain read
STEP, WAITING = "EagerLocalExecute: __inference_multi_step_on_iterator", "IteratorGetNext"  # in the profile


def main() -> None:
    """Measure the three, and print."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("config", nargs="?", default="configs/tier1.json")
    parser.add_argument("--rounds", type=int, default=5)
    parser.add_argument("--steps", type=int, default=60, help="that are profiled in a training")
    parser.add_argument("--trace", default="runs", help="the folder that keeps the profile")
    args = parser.parse_args()
    quiet_tensorflow()
    config = load_config(args.config)
    start_keras(config)
    print(f"{machine()}\n")
    print(cached(config, args.rounds), "\n")
    print(streaming(config, args.rounds), "\n")
    home = Path(args.trace)
    home.mkdir(parents=True, exist_ok=True)
    print(waiting(config, args.steps, args.rounds, home))


def cached(config: Config, rounds: int) -> str:
    """A table of windows a second."""
    prepared = prepare(config)
    samples = cast(Samples, prepared.parts["train"])
    batches, size = training_batches(config, prepared), config.training.batch_size

    def gather() -> float:
        order = np.random.default_rng(0).permutation(len(samples))
        for first in range(0, len(order), size):
            samples.table[samples.index[order[first : first + size]]]
        return float(len(order))

    def drawn() -> float:
        for number in range(len(batches)):
            batches[number]
        return float(len(batches) * size)

    def fed() -> float:
        return float(sum(len(target) for _, target, *_ in as_dataset(batches)))

    work = {"NumPy gather": gather, "batches": drawn, "batches as tensors": fed}
    return take_turns(work, "windows", rounds).table()


def streaming(config: Config, rounds: int) -> str:
    """A table of frames a second."""
    files = available_flights(config)
    flights = read_flights(files, sorted(files), config)

    def plain() -> float:
        return float(sum(read_plainly(flight, config) for flight in flights))

    def blocks() -> float:
        count = 0
        for flight in flights:
            for block in read_blocks(flight, config.data, config.temporal_frames - 1):
                count += len(block.radiance) - block.known
        return float(count)

    return take_turns({"plain h5py read": plain, "blocks of a prediction": blocks}, "frames", rounds).table()


def read_plainly(flight: Flight, config: Config) -> int:
    """Read a flight's images from one end to the other; how many there are."""
    with h5py.File(flight.camera_path) as file:
        for name in config.data.camera.channels:
            item = file[name]
            step = max(SLAB // (item.dtype.itemsize * int(np.prod(item.shape[1:]))), 1)
            for first in range(0, len(item), step):
                item[first : first + step]
        return len(item)


def waiting(config: Config, steps: int, rounds: int, home: Path) -> str:
    """A sentence: the share of the time that steps wait for their batch."""
    kept = home / "training.xplane.pb"
    profiles = [profile(config, steps, kept) for _ in range(rounds)]
    shares = sorted(100 * sum(wait) / sum(step) for step, wait in profiles)
    step, wait = (1e3 * np.median([np.mean(times) for times in column]) for column in zip(*profiles, strict=True))
    return (
        f"steps of {step:.1f} ms wait {wait:.2f} ms each for their batch: {np.median(shares):.1f} % "
        f"({shares[0]:.1f} to {shares[-1]:.1f} in {rounds} trainings). Profile: {kept}"
    )


def profile(config: Config, steps: int, kept: Path) -> tuple[list[float], list[float]]:
    """Seconds of a training's steps, and of their waiting; `kept` is where the profile goes."""
    content = config.model_dump(mode="json")
    content["training"] |= {"max_epochs": 2, "early_stopping_monitor": "val_r2"}
    content["tracking"] |= {"tensorboard": True, "profile_steps": steps}
    config = parse_config(content)
    prepared = prepare(config)
    start_keras(config)
    model = make_model(config, prepared.scaling, **prepared.geometry)
    with tempfile.TemporaryDirectory() as folder:
        tracker = Tracker(config, Path(folder))
        fit(model, config, prepared, Path(folder), Console(quiet=True), tracker=tracker)
        shutil.copy(next(Path(folder).rglob("*.xplane.pb")), kept)
    return durations(kept, STEP), durations(kept, WAITING)


def durations(trace: Path, name: str) -> list[float]:
    """Seconds of the events in a profile whose name holds this."""
    from tensorflow.tsl.profiler.protobuf import xplane_pb2

    space = xplane_pb2.XSpace()
    space.ParseFromString(trace.read_bytes())
    return [
        1e-12 * event.duration_ps
        for plane in space.planes
        for line in plane.lines
        for event in line.events
        if name in plane.event_metadata[event.metadata_id].name
    ]


if __name__ == "__main__":
    main()

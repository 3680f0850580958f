"""Write flights as one file of gridded scenes, to train or run a network that predicts every pixel.

    flights ─ frames that share no cloud ─ images, the lidar's labels on the nadir line, the sun ─ scenes.h5

The content of the file: docs/swath.md.
"""

import argparse
import contextlib
import json
from collections.abc import Iterator
from copy import deepcopy
from pathlib import Path
from typing import Any

import numpy as np

from cloudml_tf.commands.arguments import add_common, check_one_place, finish, overrides_from
from cloudml_tf.config.data import FlightFiles
from cloudml_tf.config.load import expand, read_content, resolve
from cloudml_tf.config.schema import Config
from cloudml_tf.config.shipped import located
from cloudml_tf.data.flight_scenes import FlightScenes, reading, scenes_of_flight, write_scenes
from cloudml_tf.data.left_out import LeftOut, in_words, leave_out
from cloudml_tf.data.samples import check_same_frames
from cloudml_tf.utils.console import Console
from cloudml_tf.utils.errors import ConfigError, DataError, FlightError, of_flight
from cloudml_tf.utils.files import whole_file

PLAIN = {
    "experiment_name": "scenes",
    "temporal_frames": 1,
    "split": {"kind": "time_blocks"},
}  # reads flights by the defaults


def make_scenes(
    files: dict[str, FlightFiles],
    config: Config,
    path: Path,
    console: Console,
    left_out: LeftOut,
    labels: bool = True,
    overlap: float = 0.0,
) -> dict[str, Any]:
    """Write the scenes of flights into one file; return a record of them.

    Args:
        files: the files of each flight, by name.
        config: as `reading` makes it.
        path: path of the file.
        console: shows progress.
        left_out: collects the flights that data.bad_flights leaves out, and why; it may already have some.
        labels: False reads no lidar file.
        overlap: overlap of neighbouring scenes, 0 to 0.9 of their length.

    Raises `ConfigError`, and `DataError` for flights that cannot be used where data.bad_flights is "stop".
    """
    from cloudml_tf.data.sources import check_some, read_flights

    if not 0.0 <= overlap <= 0.9:
        raise ConfigError(f"--overlap is the share of a scene that its neighbour shares, 0 to 0.9. Received: {overlap}")
    if labels and config.target.name != "optical_depth":
        raise ConfigError(
            f"scenes are labelled with optical_depth. Received: target.name {config.target.name}. Give --no-lidar for "
            "scenes without labels, or another configuration."
        )
    flights = read_flights(files, sorted(files), config, left_out, labels)
    check_some(flights, left_out)
    check_same_frames(flights)
    # Of all: one that is left out must not shift the others.
    number = {name: n for n, name in enumerate(sorted(files), 1)}
    found: dict[int, FlightScenes] = {}
    for flight in flights:
        try:
            with of_flight(flight.name), console.progress(f"scenes of {flight.name}") as progress:
                found[number[flight.name]] = scenes_of_flight(flight, config, labels, overlap, progress)
        except FlightError as error:
            leave_out(error, left_out, config)
    check_some(list(found), left_out)
    written = {flight.name: _summary(number[flight.name], found) for flight in flights if number[flight.name] in found}
    about = {
        "title": "frames of flights as gridded scenes, by cloudml_tf",
        "flights": json.dumps({row["flight"]: name for name, row in written.items()}),
        "overlap": overlap,
        "configuration": json.dumps(config.model_dump(mode="json", include={"experiment_name", "target", "data"})),
    }
    with whole_file(path) as temporary:
        write_scenes(temporary, found, config.data.camera.channels, about)
    return {"file": str(path), "flights": written, **({"left_out": left_out} if left_out else {})}


def _summary(number: int, found: dict[int, FlightScenes]) -> dict[str, Any]:
    scenes = found[number]
    labels = 0 if scenes.label is None else int(np.isfinite(scenes.label).sum())
    counts = {"flight": number, "scenes": len(scenes.row), "labels": labels}
    return {**counts, "truth": scenes.truth is not None, "pixels_per_s": scenes.pixels_per_s}


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """Add this command's arguments."""
    add = parser.add_argument
    add(
        "flights",
        metavar="FLIGHT",
        nargs="*",
        help="folders with flights, camera files, or names in data.flights; by default all of the configuration",
    )
    add("-o", "--output", metavar="OUT", help="the file; data.scenes.path of the configuration by default")
    add(
        "--config",
        metavar="CONFIG",
        help="a JSON configuration, or the name of a shipped one: how flights are read and labelled",
    )
    add(
        "--overlap",
        type=float,
        default=0.0,
        metavar="SHARE",
        help="share of a scene that the next one overlaps, 0 to 0.9",
    )
    add("--no-lidar", action="store_true", help="write scenes for prediction: no lidar file is read")
    add_common(parser, "data.camera.downsample=2", run_dir="the folder of scenes.h5, in place of -o")


def run(args: argparse.Namespace) -> int:
    """Find the flights, write the scenes, print a summary."""
    from cloudml_tf.data.sources import available_flights, find_named

    console = Console(machine=args.json)
    content = deepcopy(PLAIN) if args.config is None else read_content(located(args.config))
    given = resolve(content, overrides_from(args), args.config or "configuration")
    if not args.flights and args.config is None:
        raise ConfigError("scenes needs flights: name their folders, or with --config a configuration that has some.")
    path, config = place(args.output, args.run_dir, given), reading(given)
    left_out: LeftOut = {}
    if args.flights:
        refused = left_out if config.data.bad_flights == "skip" else None
        with remedy_first(args, config):
            files = find_named(args.flights, config, {}, labels=not args.no_lidar, refused=refused)
    else:
        with console.progress("simulating flights") as progress:
            files = available_flights(config, progress, left_out)
    record = make_scenes(files, config, path, console, left_out, not args.no_lidar, args.overlap)
    rows = [
        [name, str(row["flight"]), str(row["scenes"]), str(row["labels"]), f"{row['pixels_per_s']:.3g}"]
        for name, row in record["flights"].items()
    ]
    console.table(record["file"], ["flight", "number", "scenes", "labels", "pixels/s"], rows)
    console.warn(*in_words(record.get("left_out", {})))
    return finish(args, record)


@contextlib.contextmanager
def remedy_first(args: argparse.Namespace, config: Config) -> Iterator[None]:
    """Where flights lack only the lidar file, say first how scenes are made without it. Raises `DataError`."""
    from cloudml_tf.data.sources import find_named

    try:
        yield
    except DataError as error:
        if args.no_lidar:
            raise
        with contextlib.suppress(DataError):
            find_named(args.flights, config, {}, labels=False)
            text = f"--no-lidar writes scenes of these flights without labels, for predictions. With labels: {error}"
            error = DataError(text)
        raise error from None


def place(output: str | None, run_dir: str | None, config: Config) -> Path:
    """The path of the file: -o, scenes.h5 in --run-dir, or where the configuration reads it. Raises `ConfigError`."""
    check_one_place(output, run_dir)
    if output is not None:
        return Path(output)
    if run_dir is not None:
        return Path(run_dir) / "scenes.h5"
    if config.data.scenes is None:
        raise ConfigError("scenes needs a file to write, such as -o scenes.h5, or data.scenes.path of a --config.")
    return expand(config.data.scenes.path)

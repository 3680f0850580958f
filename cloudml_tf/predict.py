"""A model's answer for every frame of a flight, as a NetCDF file after the CF conventions.

    flights ─ blocks of frames ─ sequences ─ model ─ values and flags ─ out.nc, out.png

What is worked out and written lies in `cloudml_tf.prediction`; what the file holds: docs/predict.md.
"""

import argparse
from pathlib import Path
from typing import TYPE_CHECKING, Any

from cloudml_tf.config import Config
from cloudml_tf.console import Console
from cloudml_tf.data.flights import Flight
from cloudml_tf.data.settings import FlightFiles
from cloudml_tf.errors import EXIT_OK, ConfigError
from cloudml_tf.quiet import quiet_tensorflow
from cloudml_tf.runs import check_frames, check_overrides, environment, is_swath, new_run, read_model

if TYPE_CHECKING:
    from cloudml_tf.prediction.flight import Predicted
    from cloudml_tf.prediction.model import Model


def predict(
    source: Path,
    words: list[str],
    overrides: dict[str, Any],
    output: str | None,
    run_dir: str | None,
    console: Console,
) -> list[dict[str, Any]]:
    """Predict every flight that is named and write a file for each; what was written, a record a flight."""
    from cloudml_tf.pipeline import find_named

    check_overrides(overrides)
    config, description, _ = read_model(source, overrides)
    files = find_named(words, config, description["files"], labels=False)
    flights = read_unlabelled(files, config)
    for flight in flights:
        check_frames(source, flight.frame_shape, description)
    paths = places([flight.name for flight in flights], output, run_dir, config)
    quiet_tensorflow()
    from cloudml_tf.prediction.flight import predict_flight
    from cloudml_tf.prediction.model import open_model

    model = open_model(source, overrides)
    if model.ranges is None:
        console.warn(
            f"{source}: was trained before training ranges were kept; nothing is compared with the training. "
            "Train it again for the flags …_outside_training."
        )
    records = []
    for flight, path in zip(flights, paths, strict=True):
        with console.progress(f"predicting {flight.name}") as progress:
            predicted = predict_flight(model, flight, progress)
        warn_of(predicted, model, files[flight.name], console)
        records.append(write(path, predicted, model))
    return records


def read_unlabelled(files: dict[str, FlightFiles], config: Config) -> list[Flight]:
    """The flights, in order of name; no lidar file is needed. Raises `DataError`."""
    from cloudml_tf.data.flights import load_flight

    return [load_flight(name, files[name], config.data, config.target, labels=False) for name in sorted(files)]


def places(names: list[str], output: str | None, run_dir: str | None, config: Config) -> list[Path]:
    """Where each flight's file goes. Raises `ConfigError` where several flights would share one file."""
    if output is not None and run_dir is not None:
        raise ConfigError("-o and --run-dir both say where to write; keep one.")
    if output is None:
        folder = new_run(config, run_dir, prefix="prediction-")
    elif Path(output).suffix != ".nc" or Path(output).is_dir():
        folder = Path(output)
    elif len(names) == 1:
        return [Path(output)]
    else:
        raise ConfigError(
            f"-o {output}: is one file, and there are {len(names)} flights: {', '.join(names)}. "
            "Give a folder, which gets a file for each, or name one flight."
        )
    return [folder / f"{name}.nc" for name in names]


def warn_of(predicted: "Predicted", model: "Model", files: FlightFiles, console: Console) -> None:
    """What is missing, and inputs of most frames that the training has not shown."""
    from cloudml_tf.data.navigation import why_no_positions
    from cloudml_tf.data.outside import far_light, far_sun
    from cloudml_tf.prediction.netcdf import has_positions

    flight, config = predicted.flight, model.config
    if not has_positions(predicted):
        console.warn(f"{flight.name}: no positions: {why_no_positions(files, config.data.navigation)}")
    if not predicted.valid.any():
        console.warn(f"{flight.name}: not one frame has a whole sequence around it; the flags say why.")
    if model.ranges is None:
        return
    sun = far_sun(flight.sun_angles_deg, model.ranges, config.augmentation)
    for said in filter(None, (sun, far_light(predicted.light, model.ranges))):
        console.warn(f"{flight.name}: most frames are outside of the training: {said}. Their answers extrapolate.")


def write(path: Path, predicted: "Predicted", model: "Model") -> dict[str, Any]:
    """Write the file and its quick look. Returns a record of both."""
    from cloudml_tf.prediction.flags import counts
    from cloudml_tf.prediction.netcdf import QUANTITIES, write_netcdf
    from cloudml_tf.prediction.picture import quick_look

    flight = predicted.flight
    started = environment()
    write_netcdf(path, predicted, model, f"{started['started']} {started['command']}")
    record: dict[str, Any] = {"flight": flight.name, "file": str(path), "frames": len(flight)}
    record |= {"predicted": int(predicted.valid.sum()), "flags": counts(predicted.flags)}
    if model.config.output.report and len(flight) > 1:
        quantity = QUANTITIES[model.config.target.name]
        label = quantity.long_name if quantity.units == "1" else f"{quantity.long_name}, {quantity.units}"
        interval = f"{100 * (model.level or 0):g} % interval"
        record["picture"] = str(quick_look(predicted, path.stem, label, interval).write(path.parent))
    return record


def tell(records: list[dict[str, Any]], console: Console) -> None:
    """For people: a line a flight, and its flags."""
    for record in records:
        console.say(f"{record['file']}: {record['predicted']} of {record['frames']} frames predicted")
        raised = [f"{name} {count}" for name, count in record["flags"].items() if count]
        console.say(f"  flags: {', '.join(raised) or 'none'}")


def summary(source: Path, records: list[dict[str, Any]]) -> dict[str, Any]:
    """For machines: every file, and the sums."""
    names = records[0]["flags"]
    return {
        "model": str(source),
        "files": records,
        "frames": sum(record["frames"] for record in records),
        "predicted": sum(record["predicted"] for record in records),
        "flags": {name: sum(record["flags"][name] for record in records) for name in names},
    }


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """Arguments of this room."""
    from cloudml_tf.cli import add_common

    parser.add_argument("model", metavar="MODEL", help="a run folder, or a folder of savedmodels/")
    parser.add_argument(
        "flights",
        metavar="FLIGHT",
        nargs="+",
        help="folders with flights, camera files, or names of the model's own flights; no lidar is needed. For a swath "
        "model a file of scenes, or names of the model's own scenes",
    )
    parser.add_argument(
        "-o", "--output", metavar="OUT", help="out.nc for one flight; else a folder, which gets a file for each"
    )
    add_common(parser)


def run(args: argparse.Namespace) -> int:
    """Predict, write, tell."""
    from cloudml_tf.cli import overrides_from, print_json

    console, source = Console(machine=args.json), Path(args.model)
    if is_swath(source, overrides_from(args)):
        from cloudml_tf.swath.prediction import predict_scenes_to_file

        overrides = overrides_from(args)
        check_overrides(overrides)
        record = predict_scenes_to_file(source, args.flights, overrides, args.output, args.run_dir, console)
        console.say(f"{record['file']}: {len(record['scenes'])} scenes, {record['pixels']} pixels predicted")
        if args.json:
            print_json({"model": str(source), **record})
        return EXIT_OK
    records = predict(source, args.flights, overrides_from(args), args.output, args.run_dir, console)
    tell(records, console)
    if args.json:
        print_json(summary(source, records))
    return EXIT_OK


if __name__ == "__main__":
    import sys

    from cloudml_tf.cli import main

    sys.exit(main(["predict", *sys.argv[1:]]))

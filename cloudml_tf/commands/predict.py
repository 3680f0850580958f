"""A model's answer for every frame of a flight, as a NetCDF file after the CF conventions.

    flights ─ blocks of frames ─ sequences ─ model ─ values and flags ─ out.nc, out.png

What is worked out and written lies in `cloudml_tf.inference`; what the file holds: docs/predict.md.
"""

import argparse
from pathlib import Path
from typing import TYPE_CHECKING, Any

from cloudml_tf.commands.arguments import add_common, check_one_place, finish, overrides_from
from cloudml_tf.config.coverage import check_archive
from cloudml_tf.config.run_folder import ModelRecord, check_overrides, new_run, read_json, read_model
from cloudml_tf.config.schema import Config
from cloudml_tf.data.left_out import LeftOut, in_words, leave_out
from cloudml_tf.utils.console import Console
from cloudml_tf.utils.errors import EXIT_FLIGHTS_FAILED, EXIT_OK, ConfigError, FlightError, of_flight
from cloudml_tf.utils.files import check_place
from cloudml_tf.utils.tf_graphs import forgotten_graphs
from cloudml_tf.utils.tf_logging import quiet_tensorflow

if TYPE_CHECKING:
    from cloudml_tf.inference.archive.archive import Archive


@forgotten_graphs()
def predict(
    source: Path, words: list[str], overrides: dict[str, Any], output: str | None, run_dir: str | None, console: Console
) -> list[dict[str, Any]]:
    """Predict every flight that is named and write a file for each, or one for all scenes; a record for each file."""
    check_overrides(overrides)
    record = read_model(source, overrides)
    if record.config.target.coverage == "swath":
        return [_predict_scenes(record, words, output, run_dir, console)]
    return _predict_flights(record, words, output, run_dir, console)


def _predict_scenes(
    record: ModelRecord, words: list[str], output: str | None, run_dir: str | None, console: Console
) -> dict[str, Any]:
    """Every pixel of the scenes that are named, in one file."""
    from cloudml_tf.data.named import named_scenes
    from cloudml_tf.inference.files import command_line
    from cloudml_tf.inference.model import open_record
    from cloudml_tf.inference.netcdf import write_scenes

    scenes = named_scenes(words, record.config, record.description, labels=False)
    path = places(["scenes"], output, run_dir, record.config)[0]
    quiet_tensorflow()
    introduce(record, console)
    with console.progress("predicting scenes"):
        model = open_record(record)
        values = model.predict(scenes)
    write_scenes(path, scenes, values, model, command_line())
    return {"file": str(path), "scenes": list(scenes.names), "pixels": int(values["value"].size)}


def _predict_flights(
    record: ModelRecord, words: list[str], output: str | None, run_dir: str | None, console: Console
) -> list[dict[str, Any]]:
    """Every frame of the flights that are named, in a file for each."""
    from cloudml_tf.data.named import check_frames
    from cloudml_tf.data.sources import check_some, find_named, read_flights

    config, left_out = record.config, LeftOut()
    refused = left_out if config.data.bad_flights == "skip" else None
    files = find_named(words, config, record.description["files"], labels=False, refused=refused)
    flights = read_flights(files, sorted(files), config, left_out, labels=False)
    check_some(flights, left_out)
    for flight in flights:
        check_frames(record, flight.frame_shape)
    paths = places([flight.name for flight in flights], output, run_dir, config)
    quiet_tensorflow()
    from cloudml_tf.inference.files import command_line, warnings_of, write
    from cloudml_tf.inference.flight import predict_flight
    from cloudml_tf.inference.model import open_record

    model = open_record(record)
    introduce(record, console)
    records = []
    for flight, path in zip(flights, paths, strict=True):
        try:
            with of_flight(flight.name), console.progress(f"predicting {flight.name}") as progress:
                predicted = predict_flight(model, flight, progress)
        except FlightError as error:
            leave_out(error, left_out, config)
            continue
        console.warn(*warnings_of(predicted, model, files[flight.name]))
        records.append(write(path, predicted, model, files[flight.name], command_line()))
    check_some(records, left_out)
    return records + [{"flight": name, "left_out": why} for name, why in left_out.items()]


def predict_many(args: argparse.Namespace, console: Console) -> "Archive":
    """Predict every flight of an archive that is not done yet; see docs/archive.md."""
    from cloudml_tf.data.sources import find_named
    from cloudml_tf.inference.archive.archive import check_options, predict_archive
    from cloudml_tf.inference.archive.work import Job, Task
    from cloudml_tf.inference.files import command_line
    from cloudml_tf.inference.model import provenance

    source, overrides = Path(args.model), overrides_from(args)
    check_overrides(overrides)
    check_one_place(args.output, args.run_dir)
    folder = check_options(args.workers, args.output, args.run_dir)
    record = read_model(source, overrides)
    check_archive(record.config)
    refused: dict[str, str] = {}
    files = find_named(args.flights, record.config, record.description["files"], labels=False, refused=refused)
    introduce(record, console)
    job = Job(source, overrides, folder, command_line())
    tasks = [Task(name, files[name]) for name in sorted(files)]
    made_by = provenance(record)
    return predict_archive(job, tasks, refused, made_by, args.workers, args.engine or "local", console)


def introduce(record: ModelRecord, console: Console) -> None:
    """Say what the model is, and warn where it failed on its test flights or is older than the training ranges."""
    from cloudml_tf.inference.about import about, in_a_line, without_tier

    found = about(record)
    console.say(in_a_line(found))
    console.warn(*without_tier(found))
    if record.config.target.coverage != "swath":
        warn_without_ranges(record, console)


def warn_without_ranges(record: ModelRecord, console: Console) -> None:
    """Say so where a model is older than the training ranges."""
    if "ranges" not in record.description:
        console.warn(
            f"{record.source}: was trained before training ranges were kept; nothing is compared with the training. "
            "Train it again for the flags …_outside_training."
        )


def places(names: list[str], output: str | None, run_dir: str | None, config: Config) -> list[Path]:
    """Where each flight's file goes. Raises `ConfigError` where several flights would share one file."""
    check_one_place(output, run_dir)
    if output is None:
        folder = new_run(config, run_dir, prefix="prediction-")
    elif Path(output).suffix != ".nc" or Path(output).is_dir():
        folder = Path(output)
    elif len(names) == 1:
        check_place(Path(output))
        return [Path(output)]
    else:
        raise ConfigError(
            f"-o {output}: is one file, and there are {len(names)} flights: {', '.join(names)}. "
            "Give a folder, which gets a file for each, or name one flight."
        )
    paths = [folder / f"{name}.nc" for name in names]
    for path in paths:
        check_place(path)
    return paths


def tell(records: list[dict[str, Any]], console: Console) -> None:
    """For people: a line a flight, and its flags."""
    for record in records:
        if "left_out" in record:
            console.warn(*in_words({record["flight"]: record["left_out"]}))
            continue
        if "pixels" in record:
            console.say(f"{record['file']}: {len(record['scenes'])} scenes, {record['pixels']} pixels predicted")
            continue
        console.say(f"{record['file']}: {record['predicted']} of {record['frames']} frames predicted")
        raised = [f"{name} {count}" for name, count in record["flags"].items() if count]
        console.say(f"  flags: {', '.join(raised) or 'none'}")
        if "picture" in record:
            console.say(f"  picture: {record['picture']}")


def summary(source: Path, records: list[dict[str, Any]]) -> dict[str, Any]:
    """For machines: every file, and the sums."""
    from cloudml_tf.inference.files import totals

    left_out = {record["flight"]: record["left_out"] for record in records if "left_out" in record}
    records = [record for record in records if "left_out" not in record]
    if "pixels" in records[0]:
        return {"model": str(source), **records[0]}
    skipped = {"left_out": left_out} if left_out else {}
    return {"model": str(source), "files": records, **skipped, **totals(records)}


def tell_archive(archive: "Archive", args: argparse.Namespace, console: Console) -> int:
    """What became of an archive; the exit code."""
    from cloudml_tf.inference.archive.archive import SUMMARY

    path = archive.job.folder / SUMMARY
    content = read_json(path)
    flights = content["flights"]
    console.say(
        f"{flights['done']} of {flights['found']} flights are done, {flights['failed']} failed; "
        f"{content['predicted']} of {content['frames']} frames predicted, {content['seconds']:.0f} s"
    )
    for name, reason in archive.failed.items():
        console.say(f"  {name}: {reason}")
    console.say(f"summary: {path}")
    return finish(args, content, EXIT_FLIGHTS_FAILED if archive.failed else EXIT_OK)


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """Add this command's arguments."""
    add = parser.add_argument
    add("model", metavar="MODEL", help="a run folder, or a folder of savedmodels/")
    add(
        "flights",
        metavar="FLIGHT",
        nargs="+",
        help="folders with flights, camera files, or names of the model's own flights; no lidar is needed. For a swath "
        "model a file of scenes, or names of the model's own scenes",
    )
    add("-o", "--output", metavar="OUT", help="out.nc for one flight; else a folder, which gets a file for each")
    add(
        "--archive",
        action="store_true",
        help="many flights: one that fails leaves the others alone, and the same command again goes on with the rest",
    )
    add("--workers", type=int, metavar="N", help="processes that predict an archive side by side (implies --archive)")
    add(
        "--engine",
        choices=("local", "ray"),
        help="where they run: on this machine, or where Ray has room (implies --archive)",
    )
    add_common(parser, "prediction.level=0.8", seed=False)


def run(args: argparse.Namespace) -> int:
    """Predict, write, tell."""
    console, source = Console(machine=args.json), Path(args.model)
    if args.archive or args.workers is not None or args.engine is not None:
        return tell_archive(predict_many(args, console), args, console)
    records = predict(source, args.flights, overrides_from(args), args.output, args.run_dir, console)
    tell(records, console)
    return finish(args, summary(source, records))

"""Start with your own flights: `cloudml init my_campaign`, or `cloudml init my_campaign --from data/*.nc`.

With `--from` the files are inspected, a mapping to the configuration is proposed with its reasons, and one flight is
read with it as a test. The heuristics are in `cloudml_tf.data.discovery`.
"""

import argparse
import re
from collections import Counter
from collections.abc import Sequence
from importlib import resources
from pathlib import Path
from typing import TYPE_CHECKING, Any

from cloudml_tf.commands.arguments import add_common, check_one_place, finish, overrides_from
from cloudml_tf.config.load import parse_config, schema_json, set_by_path
from cloudml_tf.data.readers.formats.frames import is_series
from cloudml_tf.data.readers.formats.pictures import SUFFIXES as PICTURES
from cloudml_tf.utils.console import Console
from cloudml_tf.utils.errors import EXIT_BAD_INPUT, EXIT_OK, CloudMLError, ConfigError
from cloudml_tf.utils.files import write_json, write_text

if TYPE_CHECKING:
    from cloudml_tf.data.discovery.mapping import Mapping


SUFFIXES = (".h5", ".hdf5", ".hdf", ".he5", ".nc", ".nc4", ".cdf", ".mat", ".ict")
FEWEST_PICTURES = 8  # fewer in a folder are illustrations, and no camera
STARTER_SPLIT = {"kind": "time_blocks"}


def starter(folder: Path) -> dict[str, Any]:
    """The configuration of a new folder without flights."""
    return {
        "$schema": "schema.json",
        "experiment_name": experiment_name(folder),
        "target": {"name": "optical_depth"},
        "data": {"path": str((folder / "flights").resolve())},
        "split": STARTER_SPLIT,
    }


def experiment_name(folder: Path) -> str:
    """The folder's name, with the characters that an experiment name allows."""
    name = re.sub(r"[^A-Za-z0-9._-]+", "_", folder.resolve().name).strip("._-")
    return name or "my_flights"


def data_files(sources: Sequence[str]) -> list[Path]:
    """The data files among paths; a folder stands for all files below it. Raises `ConfigError` for none."""
    found: list[Path] = []
    pictures = [path for path in map(Path, sources) if path.suffix.lower() in PICTURES and path.is_file()]
    for path in [path for path in map(Path, sources) if path not in pictures]:
        if not path.exists() and not is_series(path):
            raise ConfigError(f"{path}: no such file or folder. Name data files after --from.")
        below = _data_in(path) if path.is_dir() else [path]
        if not below:
            raise ConfigError(f"{path}: no file that ends in {', '.join(SUFFIXES)} in this folder. Name the files.")
        found += below
    found += _together(pictures, 1)
    return list(dict.fromkeys(found))


def _data_in(folder: Path) -> list[Path]:
    found = sorted(path for path in folder.rglob("*") if path.is_file())
    pictures = [path for path in found if path.suffix.lower() in PICTURES]
    return [*(path for path in found if path.suffix.lower() in SUFFIXES), *_together(pictures, FEWEST_PICTURES)]


def _together(pictures: Sequence[Path], fewest: int) -> list[Path]:
    """Pictures of a folder as one pattern: they are the frames of a camera, where they are several."""
    kinds = Counter(path.parent / f"*{path.suffix}" for path in pictures)
    return [pattern for pattern, count in kinds.items() if count >= fewest]


def _is_destination(path: Path) -> bool:
    """Whether the last of the paths after `--from` is the folder to write to: it is new, or has no data in it."""
    if path.is_dir():
        return not _data_in(path)
    return not path.exists() and not path.suffix


def check_free(folder: Path) -> None:
    """Refuse to overwrite a configuration. Raises `ConfigError`."""
    if folder.is_file():
        raise ConfigError(f"{folder} is a file; init needs a folder. Name another one.")
    there = [name for name in ("config.json", "README.md", "schema.json") if (folder / name).exists()]
    if there:
        raise ConfigError(
            f"{folder} has a {there[0]} already, and init overwrites nothing. Name another folder "
            f"(`cloudml init {folder}2`), or move {', '.join(there)} away."
        )


def write_folder(folder: Path, content: dict[str, Any], with_flights: bool) -> Path:
    """Write config.json, schema.json, README.md, and a folder for flights. Returns the configuration's path."""
    write_json(folder / "config.json", content)
    write_text(folder / "schema.json", schema_json())
    texts = resources.files("cloudml_tf.data.discovery")
    readme = (texts / "starter_readme.md").read_text("utf-8").format(name=content["experiment_name"], folder=folder)
    write_text(folder / "README.md", readme)
    if with_flights:
        write_text(folder / "flights" / "README.md", (texts / "starter_flights.md").read_text("utf-8"))
    return folder / "config.json"


def propose_from(files: list[Path], folder: Path, console: Console) -> tuple[dict[str, Any], dict[str, Any]]:
    """Propose a configuration for files; return it, and a record for the user."""
    from cloudml_tf.data.discovery.datasets import read_content
    from cloudml_tf.data.discovery.mapping import map_files
    from cloudml_tf.data.discovery.proposal import propose
    from cloudml_tf.data.readers.sandbox import try_file

    contents, unread = [], []
    with console.progress("inspecting files") as progress:
        for number, path in enumerate(files):
            try:
                try_file(path)
                contents.append(read_content(path))
            except CloudMLError as error:
                unread.append(f"left out: {error}")
            progress(number + 1, len(files))
    mapping = map_files(contents)
    content, flights = propose(mapping, experiment_name(folder))
    mapping.notes[:0] = unread
    return content, {**record_of(mapping), "flights": {name: files.model_dump() for name, files in flights.items()}}


def record_of(mapping: "Mapping") -> dict[str, Any]:
    """What was found and what is missing, for tables and programs."""
    roles = []
    for choice in mapping.choices:
        file, shape = str(choice.found.file), list(choice.found.shape)
        dataset = {"file": file, "dataset": choice.found.name, "shape": shape, "unit": choice.found.units}
        roles.append({"role": choice.field, **dataset, "sure": choice.sure, "why": choice.why})
    missing = [{"setting": setting, "why": why} for setting, why in mapping.missing]
    return {"roles": roles, "clocks": mapping.clocks, "missing": missing, "notes": mapping.notes}


def print_proposal(console: Console, found: dict[str, Any]) -> None:
    """Print the table of roles, the flights, what is uncertain and what is missing."""
    rows = [[r["role"], r["dataset"], str(tuple(r["shape"])), r["unit"], r["sure"], r["why"]] for r in found["roles"]]
    if rows:
        columns = ["role", "dataset", "shape", "unit", "how sure", "why"]
        console.table("what the files hold", columns, rows)
    first = {r["role"].split(".")[0]: Path(r["file"]).name for r in found["roles"]}
    for role, name in first.items():
        console.say(f"{role} file: {name}" + (f", times: {found['clocks'][role]}" if role in found["clocks"] else ""))
    for name, files in found["flights"].items():
        console.say(f"flight {name}: " + ", ".join(dict.fromkeys(Path(path).name for path in files.values() if path)))
    for note in found["notes"]:
        console.say(f"note: {note}")
    for lack in found["missing"]:
        console.say(f"not found: {lack['setting']}: {lack['why']}", style="yellow")


def try_config(path: Path, content: dict[str, Any]) -> tuple[dict[str, Any] | None, str | None]:
    """Read one flight with the configuration: (what was read, None) or (None, the problem)."""
    from cloudml_tf.data.discovery.trial import read_one_flight

    try:
        return read_one_flight(parse_config({k: v for k, v in content.items() if k != "$schema"}, str(path))), None
    except CloudMLError as error:
        return None, str(error)


def print_trial(console: Console, loaded: dict[str, Any] | None, problem: str | None, path: Path) -> None:
    """Print the counts of the flight that was read, or the problem; and the next step."""
    if loaded is None:
        console.say(f"this configuration cannot be read yet: {problem}", style="bold red")
        console.say(f"fix {path}, then: cloudml check {path}")
        return
    if "label_mean" in loaded:
        label = f"labels {loaded['label_mean']:.3g} ± {loaded['label_std']:.2g}"
    else:
        label = "no labels: for predictions alone"
    shape = " x ".join(str(side) for side in loaded["frame_shape"])
    console.say(f"flight {loaded['flight']} read: frames of {shape}, {label}")
    for reason, count in loaded["counts"].items():
        if count:
            console.say(f"{count:>9}  {reason}")
    console.say(
        f"{loaded['sequences']:>9}  {'labelled ' * ('label_mean' in loaded)}sequences of the whole flight", style="bold"
    )
    if "label_mean" in loaded:
        console.say(f"next: cloudml check {path}")


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """Add this command's arguments."""
    add = parser.add_argument
    add("folder", metavar="DIR", nargs="?", help="the new folder; --run-dir does the same")
    add(
        "--from",
        dest="sources",
        metavar="FILE",
        nargs="+",
        help="data files, such as HDF5, NetCDF, ICARTT or pictures, or folders of them, to inspect",
    )
    add_common(parser, "target.name=cloud_base_km", run_dir="the same as DIR")


def run(args: argparse.Namespace) -> int:
    """Write a starter folder, empty or for the named files."""
    console = Console(machine=args.json)
    sources = list(args.sources or [])
    check_one_place(args.folder, args.run_dir, "DIR")
    target = args.run_dir or args.folder
    if target is None and len(sources) > 1 and _is_destination(Path(sources[-1])):
        target = sources.pop()  # `init --from a.nc b.nc DIR`
    if target is None:
        raise ConfigError("init needs a folder to write to, such as: cloudml init my_campaign")
    folder = Path(target)
    check_free(folder)
    files = data_files(sources)
    content, found = propose_from(files, folder, console) if sources else (starter(folder), {})
    for key, value in overrides_from(args).items():
        set_by_path(content, key, value)
    if sources and not content["data"].get("camera"):
        problems = [*found["notes"], *(f"{lack['setting']}: {lack['why']}" for lack in found["missing"][:1])]
        problems += [f"{r['role']} is '{r['dataset']}' of {Path(r['file']).name}" for r in found["roles"]]
        raise ConfigError(f"no images were found, and nothing is written: {'; '.join(problems).rstrip('.')}.")
    path = write_folder(folder, content, with_flights=not sources)
    if sources:
        print_proposal(console, found)
    console.say(f"written: {path}, and what its fields mean: {folder / 'README.md'}")
    if not sources:
        parse_config({k: v for k, v in content.items() if k != "$schema"}, str(path))
        console.say(f"next: put flights into {folder / 'flights'}, then: cloudml check {path}")
        return finish(args, {"config": str(path)})
    refused = [
        lack["why"]
        for lack in found.get("missing", [])
        if lack["setting"].endswith((".time", "time_unit")) or "is not data.lidar" in lack["why"]
    ]
    loaded, problem = (None, refused[0]) if refused else try_config(path, content)
    print_trial(console, loaded, problem, path)
    result = {"config": str(path), **found, "loaded": loaded, "problem": problem}
    return finish(args, result, EXIT_OK if problem is None else EXIT_BAD_INPUT)

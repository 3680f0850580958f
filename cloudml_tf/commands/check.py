"""Check data, split and network before a training: `cloudml check configs/tier1.json`.

    flights ─ frames ─ clock and boresight ─ splits ─ baselines ─ overfit one batch ─ verdict

Where `train` would stop at the first error, this command continues and reports all of them.
"""

import argparse
from dataclasses import asdict, replace
from pathlib import Path
from typing import Any

import numpy as np

from cloudml_tf.commands.arguments import add_common, add_config, config_from, finish
from cloudml_tf.config.schema import Config
from cloudml_tf.data.prepare import reads_scenes
from cloudml_tf.data.scaling import fit_scaling
from cloudml_tf.diagnostics.check import scenes, survey
from cloudml_tf.diagnostics.check.findings import Finding, together
from cloudml_tf.diagnostics.check.flights import judge_flights
from cloudml_tf.diagnostics.check.geometry import judge_geometry
from cloudml_tf.diagnostics.check.sun import judge_sun
from cloudml_tf.diagnostics.check.survey import Checked
from cloudml_tf.utils.console import Console
from cloudml_tf.utils.errors import EXIT_BAD_INPUT, EXIT_OK


def check(config: Config, console: Console, probe: bool = True) -> Checked:
    """Check everything that can be checked."""
    found = Checked(config)
    found.findings += [Finding("warning", "configuration", text) for text in config.warnings()]
    if config.data.scenes is None:
        _look_at_flights(found, console)
    if found.flights or config.data.scenes is not None:
        _look_at_scenes(found, console)
    if found.parts and survey.judge_parts(found):
        _try(found, console, probe)
    found.findings = together(found.findings, found.files)
    return found


def _look_at_flights(found: Checked, console: Console) -> None:
    """Check files, frames, clocks, gains, and the sequences that they are cut into."""
    advice = survey.read(found, console)
    if found.flights:
        survey.judge_frames(found, advice, console)
    if not found.flights:
        return
    survey.judge_offsets(found, advice, console)
    survey.judge_copies(found, advice)
    survey.judge_parts_of_flights(found, advice)
    parts = survey.cut(found, advice, console)
    found.findings += judge_sun(found.flights, parts, found.config)
    found.findings += judge_geometry(found.flights, parts, found.config)
    survey.describe_flights(found, advice)
    judge_flights(found, advice)


def _look_at_scenes(found: Checked, console: Console) -> None:
    """Check the scenes of a file, or those made of flights without a problem."""
    if reads_scenes(found.config) and not found.problems:
        scenes.read_scenes(found, console)
        if found.parts:
            scenes.describe_scenes(found)


# --- trials


def _try(found: Checked, console: Console, probe: bool) -> None:
    """Run baselines, ceiling and probe. Beside a problem their results are its consequences, and become notes."""
    from cloudml_tf.diagnostics.check import trials

    config, parts = found.config, found.parts
    scaling = fit_scaling(parts["train"], config.target, config.preprocessing)
    results = []
    if config.evaluation.baselines:
        with console.progress("baselines") as progress:
            reach = trials.try_baselines(parts, scaling.target, config, progress)
        oracle_r2 = trials.oracle_r2(parts, found.files, scaling.target, config)
        ceiling = trials.estimate_ceiling(parts, scaling.target, reach, oracle_r2)
        found.numbers["baselines"] = asdict(reach)
        found.numbers["ceiling"] = {**asdict(ceiling), "out_of_reach": ceiling.out_of_reach}
        results += [*trials.judge_reach(reach), *trials.judge_ceiling(ceiling)]
    if probe:
        with console.progress("overfit one batch") as progress:
            learned = trials.learn_one_batch(parts["train"], scaling, config, progress)
        found.numbers["probe"] = asdict(learned)
        results += trials.judge_probe(learned)
    if found.problems:
        results = [replace(f, level="note", action="check again after the fix") if f.action else f for f in results]
    found.findings += results


# --- output

STYLES = {"ok": "green", "note": "", "warning": "yellow", "problem": "bold red"}


LABEL_COLUMNS = ("labels", "n_eff", "mean", "std", "5 %", "95 %", "ρ1", "bright")
FLIGHT_COLUMNS = ("flight", "split", "frames", *LABEL_COLUMNS, "bad", "frozen")
SCENE_COLUMNS = ("scenes", "split", "number", "labels", "mean", "std", "5 %", "95 %", "bright")


def _flight_cells(name: str, row: dict[str, Any]) -> list[str]:
    low, _, high = row["quantiles_5_50_95"] or (None, None, None)
    numbers = [row["mean"], row["std"], low, high, row["autocorrelation"], row["brightness"]]
    cells = ["-" if number is None else f"{number:.3g}" for number in numbers]
    counts = [str(row["frames"]), str(row["labels"]), f"{row['n_eff']:.0f}"]
    return [name, survey.part_name(row["parts"]), *counts, *cells, str(row["bad_frames"]), str(row["frozen_frames"])]


def _scene_cells(name: str, row: dict[str, Any]) -> list[str]:
    low, _, high = row["quantiles_5_50_95"]
    numbers = [f"{number:.3g}" for number in (row["mean"], row["std"], low, high, row["radiance"])]
    return [name, row["part"], str(row["scenes"]), str(row["labels"]), *numbers]


def print_checked(console: Console, found: Checked) -> None:
    """Print a table of the flights, the findings, and the verdict."""
    log = "ln " if found.config.target.transform == "log" else ""
    title = f"labels: {log}{found.config.target.name}"
    for kind, columns, cells in (("flights", FLIGHT_COLUMNS, _flight_cells), ("scenes", SCENE_COLUMNS, _scene_cells)):
        if rows := found.numbers.get(kind):
            console.table(title, list(columns), [cells(name, row) for name, row in rows.items()])
    for finding in found.findings:
        console.say(f"{finding.level:>8}  {finding.name}: {finding.evidence}", style=STYLES[finding.level])
        if finding.action:
            console.say(f"          → {finding.action}", style=STYLES[finding.level])
    console.say(found.verdict, style="bold")


def write_checked(folder: Path, found: Checked) -> None:
    """Write check.json and check.png."""
    from cloudml_tf.diagnostics.check.picture import draw_check
    from cloudml_tf.evaluation.collect import spaces
    from cloudml_tf.reports.figure import worded
    from cloudml_tf.utils.files import write_json

    write_json(folder / "check.json", found.content())
    if found.numbers.get("flights") and found.parts:
        values = {flight.name: flight.label[np.isfinite(flight.label)] for flight in found.flights}
        values = {name: survey.loss_space(found.config, label) for name, label in values.items()}
        parts = {name: survey.part_name(row["parts"]) for name, row in found.numbers["flights"].items()}
        curve = found.numbers["alignment"]["all"]["curve"]
        draw_check(values, parts, curve, worded(spaces(found.config)["loss"]), folder)


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """Add this command's arguments."""
    add_config(parser)
    parser.add_argument(
        "--no-probe",
        action="store_true",
        help="leave out the probe, a network that has to learn one batch by heart; Keras is then not loaded",
    )
    add_common(parser, run_dir="where to write check.json and check.png; without it nothing is written")


def run(args: argparse.Namespace) -> int:
    """Check, print, and write if --run-dir is given."""
    console = Console(machine=args.json)
    found = check(config_from(args), console, probe=not args.no_probe)
    print_checked(console, found)
    if args.run_dir:
        write_checked(Path(args.run_dir), found)
    return finish(args, found.content(), EXIT_BAD_INPUT if found.problems else EXIT_OK)

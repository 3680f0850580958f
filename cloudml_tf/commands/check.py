"""Judge data, split and network before a training: `cloudml check configs/tier1.json`.

    flights ─ frames ─ clock and boresight ─ parts ─ baselines ─ one batch by heart ─ verdict

Where `train` would stop with an error, this goes on and names all that it finds.
"""

import argparse
from dataclasses import asdict, replace
from pathlib import Path

import numpy as np

from cloudml_tf.commands.arguments import add_common, config_from, print_json
from cloudml_tf.config.schema import Config
from cloudml_tf.data.scaling import fit_scaling
from cloudml_tf.diagnostics.check import survey
from cloudml_tf.diagnostics.check.findings import Finding
from cloudml_tf.diagnostics.check.sun import judge_sun
from cloudml_tf.diagnostics.check.survey import Checked
from cloudml_tf.utils.console import Console
from cloudml_tf.utils.errors import EXIT_BAD_INPUT, EXIT_OK


def check(config: Config, console: Console, probe: bool = True) -> Checked:
    """Judge everything that can be judged."""
    found = Checked(config)
    found.findings += [Finding("warning", "configuration", text) for text in config.warnings()]
    advice = survey.read(found, console)
    if not found.flights:
        return found
    survey.judge_frames(found, advice, console)
    if not found.flights:
        return found
    survey.judge_offsets(found, advice, console)
    survey.judge_copies(found, advice)
    survey.cut(found, advice, console)
    found.findings += judge_sun(found.flights, found.parts, config)
    survey.describe_flights(found, advice)
    if survey.judge_parts(found):
        _try(found, console, probe)
    return found


# --- trials


def _try(found: Checked, console: Console, probe: bool) -> None:
    """Baselines, ceiling and probe. Beside a problem they are consequences of it, and are told as notes."""
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
        results += trials.judge_reach(reach) + trials.judge_ceiling(ceiling)
    if probe:
        with console.progress("one batch by heart") as progress:
            learned = trials.learn_one_batch(parts["train"], scaling, config, progress)
        found.numbers["probe"] = asdict(learned)
        results += trials.judge_probe(learned)
    if found.problems:
        results = [replace(f, level="note", action="judge again when mended") if f.action else f for f in results]
    found.findings += results


# --- what a person sees

STYLES = {"ok": "green", "note": "", "warning": "yellow", "problem": "bold red"}


def print_checked(console: Console, found: Checked) -> None:
    """A table of the flights, the findings, the verdict."""
    columns = [
        "flight",
        "part",
        "frames",
        "labels",
        "n_eff",
        "mean",
        "std",
        "5 %",
        "95 %",
        "ρ1",
        "bright",
        "bad",
        "frozen",
    ]
    rows = []
    for name, row in found.numbers.get("flights", {}).items():
        low, _, high = row["quantiles_5_50_95"] or (None, None, None)
        numbers = [row["mean"], row["std"], low, high, row["autocorrelation"], row["brightness"]]
        cells = ["-" if number is None else f"{number:.3g}" for number in numbers]
        counts = [str(row["frames"]), str(row["labels"]), f"{row['n_eff']:.0f}"]
        part = survey.part_name(row["parts"])
        rows.append([name, part, *counts, *cells, str(row["bad_frames"]), str(row["frozen_frames"])])
    if rows:
        log = found.config.target.transform == "log"
        console.table(f"labels: {'ln ' if log else ''}{found.config.target.name}", columns, rows)
    for finding in found.findings:
        console.say(f"{finding.level:>8}  {finding.name}: {finding.evidence}", STYLES[finding.level])
        if finding.action:
            console.say(f"          → {finding.action}", STYLES[finding.level])
    console.say(found.verdict, "bold")


def write_checked(folder: Path, found: Checked) -> None:
    """check.json and check.png."""
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
    """Arguments of this room."""
    parser.add_argument("config", metavar="CONFIG", help="a JSON configuration, e.g. configs/tier1.json")
    parser.add_argument("--no-probe", action="store_true", help="leave the network out: no Keras is loaded")
    add_common(parser)


def run(args: argparse.Namespace) -> int:
    """Check, print, write where asked."""
    console = Console(machine=args.json)
    found = check(config_from(args), console, probe=not args.no_probe)
    print_checked(console, found)
    if args.run_dir:
        write_checked(Path(args.run_dir), found)
    if args.json:
        print_json(found.content())
    return EXIT_BAD_INPUT if found.problems else EXIT_OK

"""Join runs to one prediction with its uncertainty: `cloudml ensemble RUN RUN …`.

    members ─ mean, spread ─ scores against the members ─ calibration by flight ─ coverage on test flights ─ SavedModel

The computation is in `cloudml_tf.evaluation.uncertainty` and `cloudml_tf.inference.ensemble`.
"""

import argparse
import shlex
from dataclasses import dataclass, replace
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING, Any

from cloudml_tf.commands.arguments import add_common, finish, overrides_from
from cloudml_tf.config.coverage import check_dropout_passes
from cloudml_tf.config.run_folder import check_overrides, environment, new_run, read_run
from cloudml_tf.data.samples import Examples
from cloudml_tf.data.scaling import Scaling
from cloudml_tf.evaluation.uncertainty import Pooling
from cloudml_tf.inference.export.formats import check_backend, check_packages
from cloudml_tf.utils.console import Console
from cloudml_tf.utils.errors import ConfigError
from cloudml_tf.utils.files import write_json
from cloudml_tf.utils.tf_logging import quiet_tensorflow

if TYPE_CHECKING:
    from cloudml_tf.inference.ensemble.outputs import Ensemble


@dataclass(frozen=True)
class EnsembleOptions:
    """The options of a command line."""

    folders: tuple[Path, ...]
    calibrate: tuple[str, ...] = ()
    level: float = 0.9
    scale: str = "auto"
    pooling: Pooling = "pooled"
    passes: int = 0  # with dropout, per run; 0 calls each once, without dropout

    def __post_init__(self) -> None:
        if not 0 < self.level < 1:
            raise ConfigError(f"--level is a share between 0 and 1, such as 0.9. Received: {self.level:g}")
        if self.passes < 0 or self.passes == 1:
            raise ConfigError(f"--mc-dropout needs 2 passes or more to have a spread. Received: {self.passes}")
        if len(self.folders) < 2 and not self.passes:
            raise ConfigError("an ensemble needs two runs or more, or one run with --mc-dropout 20.")


def ensemble(wish: EnsembleOptions, overrides: dict[str, Any], console: Console) -> "Ensemble":
    """Read the members, evaluate their mean, calibrate its intervals and measure their coverage."""
    quiet_tensorflow()
    from cloudml_tf.inference.ensemble import calibration, flights
    from cloudml_tf.inference.ensemble.combination import Combination, choose_scale
    from cloudml_tf.inference.ensemble.members import load_networks, outputs, read_members
    from cloudml_tf.inference.ensemble.outputs import Ensemble
    from cloudml_tf.inference.heads import MemberHead

    members = read_members(list(wish.folders))
    config = read_run(wish.folders[0], overrides)[0]
    if config.output.export and not wish.passes:
        check_packages(config.output.export_formats)
        check_backend()
    if wish.passes:
        check_dropout_passes(config)
    prepared = flights.read_again(members[0], config, console)
    networks = load_networks(members, config.seed)

    def answered(examples: Examples) -> calibration.Judged:
        return calibration.Judged(examples, outputs(networks, examples, wish.passes))

    val, test = answered(prepared.parts["val"]), answered(prepared.parts["test"])
    voices = tuple(MemberHead.of(run.config, run.description) for run in members)
    scale = choose_scale(wish.scale, voices, len(test.outputs))
    target = replace(Scaling.from_json(members[0].description["scaling"]).target, smearing=1.0)  # of all, by the first
    combination = Combination(voices, target, wish.level, scale)
    val_unknown = flights.validation_is_unknown(members, prepared, console)
    if val_unknown:
        combination = calibration.with_smearing(combination, val, config)
    metrics = calibration.scores_of(combination, test, members, config, {"passes": wish.passes})
    parts = {"test": test}
    if wish.calibrate:
        parts["calibration"] = answered(flights.further_examples(wish.calibrate, members, config, console))
    elif val_unknown:
        parts["calibration"] = val
    if "calibration" in parts:
        combination, record = calibration.calibrate(combination, parts["calibration"], wish.pooling)
        record["seen_by_early_stopping"] = not wish.calibrate
        metrics["intervals"] = calibration.in_words({**record, **calibration.covered(combination, test)})
    return Ensemble(config, members, networks, combination, parts, metrics)


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """Add this command's arguments."""
    add = parser.add_argument
    add("runs", metavar="RUN", nargs="+", help="finished runs with the same test flights, such as five seeds")
    add("--calibrate", metavar="DIR", nargs="+", default=[], help="folders with flights that no member was trained on")
    add("--level", type=float, default=0.9, help="nominal coverage of an interval (default: 0.9)")
    add(
        "--scale",
        choices=("auto", "constant", "spread", "head"),
        default="auto",
        help="what the widths follow: nothing (one width for all), the members' spread, or a quantile or histogram "
        "head; auto is head where the members have one, else spread",
    )
    add(
        "--pooling",
        choices=("pooled", "largest", "guaranteed"),
        default="pooled",
        help="how the errors of several flights give one width: the quantile of all, the widest flight's, or the one "
        "with a guarantee, which needs many flights (docs/uncertainty.md)",
    )
    add("--mc-dropout", type=int, default=0, metavar="N", help="N passes of each run with its dropout on")
    add_common(parser, "output.export=true")


def run(args: argparse.Namespace) -> int:
    """Join, evaluate, draw and export."""
    console, overrides = Console(machine=args.json), overrides_from(args)
    check_overrides(overrides)
    folders = tuple(Path(path) for path in args.runs)
    wish = EnsembleOptions(folders, tuple(args.calibrate), args.level, args.scale, args.pooling, args.mc_dropout)
    found = ensemble(wish, overrides, console)
    from cloudml_tf.inference.ensemble.outputs import export, save_predictions, write_report
    from cloudml_tf.inference.ensemble.tables import tell
    from cloudml_tf.inference.export.writer import replacing, show_export, target_folder

    folder = new_run(found.config, args.run_dir, prefix="ensemble-")
    save_predictions(folder, found)
    write_json(folder / "environment.json", environment())
    if found.config.output.report:
        write_report(folder, found)
    if found.config.output.export and not wish.passes:
        home = target_folder(found.config, suffix="_ensemble")
        found.metrics["export"] = replacing(home, partial(export, found))
    write_json(folder / "metrics.json", found.metrics)
    tell(console, found.metrics)
    if "export" in found.metrics:
        show_export(console, found.metrics["export"])
    elif wish.passes:
        console.say("no export: passes with dropout are not a separate model; only an ensemble of runs is exported")
    else:
        again = shlex.join(["cloudml", "ensemble", *args.runs, "--set", "output.export=true"])
        console.say(f"no export: output.export is false, as in the first member's configuration. To export: {again}")
    target = found.config.target
    if target.further:
        console.say(f"the ensemble answers {target.name} alone; its members have {', '.join(target.further)} too")
    console.say(f"ensemble folder: {folder}")
    return finish(args, {"ensemble": str(folder), "metrics": found.metrics})

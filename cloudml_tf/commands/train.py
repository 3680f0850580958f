"""`cloudml train`: train, evaluate and export a model."""

import argparse

from cloudml_tf.commands.arguments import add_common, add_config, finish, overrides_from
from cloudml_tf.config.load import expand, load_config, resolved_json
from cloudml_tf.experiments.run import train
from cloudml_tf.train import devices
from cloudml_tf.utils.console import Console
from cloudml_tf.utils.errors import EXIT_COLLAPSED, EXIT_OK, ConfigError


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """Add this command's arguments."""
    add = parser.add_argument
    add_config(parser)
    add("--print-config", action="store_true", help="print the resolved configuration and stop")
    add("--resume", action="store_true", help="continue the newest interrupted run, or the one of --run-dir")
    add(
        "--lofo",
        nargs="?",
        const="",
        metavar="A,B,…",
        help="leave-one-flight-out over these flights (all without names), and the joint table",
    )
    add(
        "--init-from",
        metavar="RUN",
        help="start from the weights and the scaling of a finished run: training.init_from",
    )
    add_common(parser)


def check_printed_alone(args: argparse.Namespace) -> None:
    """Refuse options of a training beside `--print-config`, which trains nothing. Raises `ConfigError`."""
    options = {"--resume": args.resume, "--lofo": args.lofo is not None, "--run-dir": args.run_dir is not None}
    for option in (name for name, given in options.items() if given):
        raise ConfigError(f"--print-config trains nothing, and {option} belongs to a training; keep one.")


def run(args: argparse.Namespace) -> int:
    """Train one run, or a leave-one-flight-out set of runs."""
    start = {} if args.init_from is None else {"training.init_from": str(expand(args.init_from).resolve())}
    config = load_config(args.config, {**overrides_from(args), **start})
    if args.print_config:
        check_printed_alone(args)
        print(resolved_json(config), end="")
        return EXIT_OK
    if args.lofo is not None and args.resume and args.run_dir is None:
        raise ConfigError("--lofo --resume needs --run-dir, the folder that holds the folds.")
    console = Console(machine=args.json)
    if args.lofo is None and not devices.is_chief(config.training):
        from cloudml_tf.experiments.run import work

        return work(config, console, args.run_dir, args.resume)
    if args.lofo is not None:
        devices.refuse_workers(config.training, "--lofo")
        from cloudml_tf.experiments.cross_validation import leave_one_out, print_folds

        names = [name for name in args.lofo.split(",") if name]
        folder, metrics = leave_one_out(config, console, names, args.run_dir, args.resume)
        print_folds(console, metrics)
    else:
        from cloudml_tf.diagnostics.diagnosis.verdict import print_shortly
        from cloudml_tf.reports.tables import print_scores

        folder, metrics = train(config, console, args.run_dir, args.resume)
        print_scores(console, metrics)
        if "pretraining" in metrics:
            from cloudml_tf.train.transfer import print_pretraining

            print_pretraining(console, metrics["pretraining"], metrics["test"])
        if "diagnosis" in metrics:
            print_shortly(console, metrics["diagnosis"], folder)
        if config.output.report:
            console.say(f"report: {folder / 'report.html'}")
    trained = [fold["training"] for fold in metrics.get("folds", {"": metrics}).values()]
    code = EXIT_COLLAPSED if any(found["collapsed"] for found in trained) else EXIT_OK
    return finish(args, {"run": str(folder), "metrics": metrics}, code)

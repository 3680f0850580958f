"""`cloudml export`: write a finished run as SavedModel, ONNX or LiteRT."""

import argparse
from pathlib import Path

from cloudml_tf.commands.arguments import add_common, check_one_place, finish, overrides_from
from cloudml_tf.config.coverage import check_formats
from cloudml_tf.config.run_folder import check_overrides, read_json, read_run
from cloudml_tf.inference.export import writer
from cloudml_tf.inference.export.formats import FORMATS, check_backend, check_packages, parse_formats
from cloudml_tf.utils.console import Console


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """Add this command's arguments."""
    add = parser.add_argument
    add("folder", metavar="RUN", help="the folder of a finished run")
    add(
        "--format",
        metavar="A,B",
        help=f"any of {','.join(FORMATS)} (default: output.export_formats); existing formats are written again",
    )
    add_common(parser, "output.savedmodels=models", seed=False)
    add("-o", "--output", metavar="DIR", help="the same as --run-dir")


def run(args: argparse.Namespace) -> int:
    """Export a finished run."""
    path, console, overrides = Path(args.folder), Console(machine=args.json), overrides_from(args)
    check_overrides(overrides)
    check_one_place(args.output, args.run_dir)
    config, description = read_run(path, overrides)
    folder = writer.target_folder(config, args.output or args.run_dir)
    asked = parse_formats(args.format) if args.format is not None else config.output.export_formats
    check_formats(config, asked)
    writer.check_replaceable(folder)
    check_packages(writer.every_format(folder, asked))
    check_backend()
    from cloudml_tf.train.network import load_regressor

    model = load_regressor(path, config, description)
    metrics = read_json(path / "metrics.json") if (path / "metrics.json").is_file() else None
    what = (config, description, metrics)
    written = writer.replacing(
        folder, lambda home: writer.export_model(model, home, *what, formats=asked, run=path, keep=True)
    )
    writer.show_export(console, written)
    parity, card = written["parity"], str(folder / writer.CARD)
    files = {name: str(folder / FORMATS[name].file) for name in parity["formats"]}
    return finish(args, {"export": str(folder), "files": files, "card": card, "parity": parity})

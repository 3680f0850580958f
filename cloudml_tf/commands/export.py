"""`cloudml export`: write a finished run as SavedModel, ONNX or LiteRT."""

import argparse
from pathlib import Path

from cloudml_tf.commands.arguments import add_common, overrides_from, print_json
from cloudml_tf.config.run_folder import check_overrides, read_json, read_run
from cloudml_tf.config.targets import check_formats
from cloudml_tf.inference.export.formats import FORMATS, check_backend, check_packages, parse_formats
from cloudml_tf.inference.export.writer import (
    CARD,
    check_replaceable,
    every_format,
    export_model,
    replacing,
    show_export,
    target_folder,
)
from cloudml_tf.utils.console import Console
from cloudml_tf.utils.errors import EXIT_OK


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """Arguments of this room."""
    parser.add_argument("folder", metavar="RUN", help="the folder of a finished run")
    parser.add_argument(
        "--format",
        metavar="A,B",
        help=f"any of {','.join(FORMATS)} (default: output.export_formats); what lies there is written again",
    )
    add_common(parser)
    parser.add_argument("-o", "--output", dest="run_dir", metavar="DIR", help="the same as --run-dir")


def run(args: argparse.Namespace) -> int:
    """Export a finished run."""
    path, console, overrides = Path(args.folder), Console(machine=args.json), overrides_from(args)
    check_overrides(overrides)
    config, description = read_run(path, overrides)
    folder = target_folder(config, args.run_dir)
    asked = parse_formats(args.format) if args.format is not None else config.output.export_formats
    check_formats(config, asked)
    check_replaceable(folder)
    check_packages(every_format(folder, asked))
    check_backend()
    from cloudml_tf.train.network import load_regressor

    model = load_regressor(path, config, description)
    metrics = read_json(path / "metrics.json") if (path / "metrics.json").is_file() else None
    written = replacing(
        folder, lambda home: export_model(model, home, config, description, metrics, formats=asked, run=path, keep=True)
    )
    show_export(console, written)
    if args.json:
        files = {name: str(folder / FORMATS[name].file) for name in written["parity"]["formats"]}
        print_json({"export": str(folder), "files": files, "card": str(folder / CARD), "parity": written["parity"]})
    return EXIT_OK

"""`cloudml pretrain`: train the frame encoder on frames without labels."""

import argparse

from cloudml_tf.commands.arguments import add_common, add_config, config_from, finish
from cloudml_tf.config.run_folder import check_same, check_unused, new_run, run_to_resume, write_start
from cloudml_tf.experiments.run import read_data
from cloudml_tf.utils.console import Console
from cloudml_tf.utils.errors import EXIT_NOT_CONVERGED, EXIT_OK, ConfigError
from cloudml_tf.utils.files import write_json
from cloudml_tf.utils.locks import alone_in
from cloudml_tf.utils.tf_logging import quiet_tensorflow


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """Add this command's arguments."""
    add_config(parser, "pretrain")
    parser.add_argument("--resume", action="store_true", help="continue the interrupted pretraining of --run-dir")
    add_common(parser)


def run(args: argparse.Namespace) -> int:
    """Pretrain alone, probe the encoder, and report whether it converged."""
    config = config_from(args)
    if args.resume and args.run_dir is None:
        raise ConfigError("--resume needs --run-dir, the folder of the interrupted pretraining.")
    quiet_tensorflow()
    from cloudml_tf.train.pretrain import NAME, pretrain
    from cloudml_tf.train.transfer import print_pretraining, probes

    console = Console(machine=args.json)
    console.warn(*config.warnings())
    prepared = read_data(config, console)
    resumed = run_to_resume(config, args.run_dir) if args.resume else None
    if resumed is not None:
        check_same(resumed, config, prepared.fingerprint)
    folder = resumed or new_run(config, args.run_dir, prefix="pretrain-")
    with alone_in(folder, "a pretraining"):
        if resumed is None:
            check_unused(folder)  # another process may have been quicker
            write_start(folder, config, prepared.description())
        console.say(f"pretraining folder: {folder}")
        pretrained = pretrain(config, prepared, folder, console)
        found = {**pretrained.found, "probe": probes(pretrained, config, prepared)}
        write_json(folder / NAME, found)
    print_pretraining(console, found)
    console.say(f"pictures: {folder / 'plots'}")
    code = EXIT_OK if pretrained.converged else EXIT_NOT_CONVERGED
    return finish(args, {"run": str(folder), "pretraining": found}, code)

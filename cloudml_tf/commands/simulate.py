"""Write simulated flights in the instruments' layout: `cloudml simulate flights --preset hard`.

The physics is in `cloudml_tf.data.simulation.simulator`; every number is a field of `SimulationConfig`, set with `--set
frames_per_flight=600`.
"""

import argparse
from pathlib import Path
from typing import Any

from cloudml_tf.commands.arguments import add_common, check_one_place, finish, overrides_from
from cloudml_tf.config.load import validated
from cloudml_tf.config.simulation import PRESETS, SimulationConfig
from cloudml_tf.utils.console import Console
from cloudml_tf.utils.errors import ConfigError


def simulation_config(preset: str | None, overrides: dict[str, Any]) -> SimulationConfig:
    """Make settings from a preset and overrides without sections. Raises `ConfigError` naming the field."""
    content = {**({"preset": preset} if preset else {}), **overrides}
    return validated(SimulationConfig, content, "simulation settings", overrides)


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """Add this command's arguments."""
    parser.add_argument("output", metavar="DIR", nargs="?", help="where to write; --run-dir does the same")
    parser.add_argument("--preset", choices=sorted(PRESETS), help="how much signal there is")
    # --flights names folders elsewhere; here it is kept as the older name.
    parser.add_argument("--count", "--flights", type=int, metavar="N", help="how many flights")
    add_common(parser, "frames_per_flight=600", run_dir="the same as DIR")


def run(args: argparse.Namespace) -> int:
    """Simulate into a folder; existing flights with the same settings are kept."""
    from cloudml_tf.data.simulation.simulator import simulate_flights

    check_one_place(args.output, args.run_dir, "DIR")
    target = args.run_dir or args.output
    if target is None:
        raise ConfigError("simulate needs a folder to write to, such as: cloudml simulate flights")
    overrides = overrides_from(args)
    if args.count is not None:
        if args.count < 1:
            raise ConfigError(f"--count must be 1 or more. Received: {args.count}")
        overrides["flight_count"] = args.count
    settings = simulation_config(args.preset, overrides)
    console = Console(machine=args.json)
    with console.progress("simulating flights") as progress:
        folders = simulate_flights(settings, Path(target), progress)
    console.say(f"{len(folders)} flights in {Path(folders[0]).parent}")
    return finish(args, {"flights": [str(folder) for folder in folders]})

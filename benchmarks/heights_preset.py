"""What the simulator's presets of heights hold without a network: `python benchmarks/heights_preset.py [CONFIG]`.

The baselines of the base on the validation and the test flight, and the plane sweep without wind and without attitude.
"""

import argparse

from tools.overrides import add_set
from tools.rounds import machine

from cloudml_tf.config.load import load_config, parse_overrides
from cloudml_tf.data.prepare import prepare
from cloudml_tf.evaluation.collect import collect_baselines

CALM = {"wind_along": None, "wind_across": None}
LEVEL = {"roll": None, "pitch": None}


def main() -> None:
    """Print the table."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("config", nargs="?", default="configs/tier1_base.json")
    parser.add_argument("--frames", type=int, default=7)
    add_set(parser)
    args = parser.parse_args()
    print(f"{machine()}\n\n| | sim07 | sim08 |\n|---|---|---|")
    for words, geometry in (("", {}), (", wind taken for calm", CALM), (", attitude taken for level", LEVEL)):
        config = load_config(
            args.config, {"temporal_frames": args.frames, "data.geometry": geometry, **parse_overrides(args.set)}
        )
        prepared = prepare(config)
        found = collect_baselines(prepared.parts, prepared.scaling.target, config)
        for name, by_part in found.items():
            if not words or name == "plane_sweep":
                scores = " | ".join(
                    f"{by_part[part]['r2']:.2f}, {by_part[part]['mae']:.2f}" for part in ("val", "test")
                )
                print(f"| {name}{words} | {scores} |", flush=True)


if __name__ == "__main__":
    main()

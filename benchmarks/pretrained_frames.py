"""Which frames of a sequence serve in pretraining: `python benchmarks/pretrained_frames.py`.

Encoders are pretrained on simulated sequences of seven frames by the hidden patches of all frames, of the middle, of a
random and of the first one (the original's fault), five seeds each. All are judged alike: on the hidden patches of
all frames of the validation flights.
"""

import argparse
import sys
import tempfile
from pathlib import Path

import numpy as np
from tools.overrides import add_set, overridden

from cloudml_tf.config.load import parse_config
from cloudml_tf.data.prepare import prepare
from cloudml_tf.experiments.grid.cells import load_grid
from cloudml_tf.experiments.grid.summary import t_interval
from cloudml_tf.train.pretrain import pretrain
from cloudml_tf.utils.console import Console

ABLATION = Path(__file__).parents[1] / "configs" / "ablation.json"


def main() -> int:
    """Pretrain, judge, print."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--seeds", type=int, nargs="+", default=[1, 2, 3, 4, 5])
    parser.add_argument("--frames", type=int, default=7)
    parser.add_argument("--preset", default="default")
    add_set(parser)
    args = parser.parse_args()
    base = load_grid(ABLATION, {}).base
    assert isinstance(base, dict)
    console = Console(quiet=True)
    error: dict[str, list[float]] = {"all": [], "middle": [], "random": [], "first": []}
    reference: list[float] = []
    for seed in args.seeds:
        for chosen, found in error.items():
            content = {**base, "temporal_frames": args.frames, "seed": seed}
            content["data"] = {"simulation": {**base["data"]["simulation"], "preset": args.preset}}
            content["pretraining"] = {**base["pretraining"], "frames": chosen}
            config = parse_config(overridden(content, args.set))
            with tempfile.TemporaryDirectory() as folder:
                errors = pretrain(config, prepare(config), Path(folder), console).found["errors"]
            found.append(errors["network"])
        reference.append(min(value for name, value in errors.items() if name != "network"))
    print(
        "| frames | error of hidden patches | share of the better reference | against all frames |\n|---|---|---|---|"
    )
    for chosen, values in error.items():
        network = np.asarray(values)
        change = t_interval(network / np.asarray(error["all"]) - 1.0)
        half = change["interval"][1] - change["mean"]
        against = "" if chosen == "all" else f"{100 * change['mean']:+.1f} % ± {100 * half:.1f}"
        share = (network / np.asarray(reference)).mean()
        print(f"| {chosen} | {network.mean():.4f} ± {network.std(ddof=1):.4f} | {share:.2f} | {against} |")
    return 0


if __name__ == "__main__":
    sys.exit(main())

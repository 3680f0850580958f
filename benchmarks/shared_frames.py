"""What it saves to encode shared frames once: `python benchmarks/shared_frames.py --frames 7 --labels 1`.

The tier1 network is trained for short epochs, input and augmentation included, on simulated flights with a label every
so many seconds: every sequence apart, and in runs of neighbours whose frames are encoded once.
"""

import argparse
from collections.abc import Callable

import keras
from tools.rounds import machine, take_turns

from cloudml_tf.config.load import load_config, parse_config
from cloudml_tf.config.schema import Config
from cloudml_tf.data.prepare import Prepared, prepare
from cloudml_tf.losses import VariancePreservingLoss
from cloudml_tf.train.fit import network_to_train
from cloudml_tf.train.loaders import training_batches
from cloudml_tf.train.network import make_model, make_optimizer, start_keras
from cloudml_tf.train.tf_dataset import as_dataset
from cloudml_tf.utils.tf_logging import quiet_tensorflow


def main() -> None:
    """Race the two, and print the gain."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("config", nargs="?", default="configs/tier1.json")
    parser.add_argument("--frames", type=int, default=3, help="of a sequence")
    parser.add_argument("--labels", type=float, default=1.0, help="seconds from label to label")
    parser.add_argument("--run-length", type=int, default=16)
    parser.add_argument("--batch-size", type=int, default=64, help="sequences")
    parser.add_argument("--steps", type=int, default=40, help="of an epoch")
    parser.add_argument("--rounds", type=int, default=5)
    args = parser.parse_args()
    quiet_tensorflow()
    content = load_config(args.config).model_dump(mode="json")
    content["temporal_frames"] = args.frames
    content["data"]["simulation"]["lidar_interval_s"] = args.labels
    configs = {}
    for run_length in (1, args.run_length):
        drawn = {"batch_size": args.batch_size, "sequences_per_epoch": args.steps * args.batch_size}
        content["training"] |= {"run_length": run_length, **drawn}
        configs[run_length] = parse_config(content)
    prepared = prepare(configs[1])
    work = {f"runs of {n}": epoch(config, prepared) for n, config in configs.items()}
    print(f"T = {args.frames}, a label every {args.labels:g} s, batches of {args.batch_size}, {machine()}\n")
    print(take_turns(work, "sequences", args.rounds).table())


def epoch(config: Config, prepared: Prepared) -> Callable[[], float]:
    """A function that trains for an epoch and says on how many sequences."""
    start_keras(config)
    model = network_to_train(make_model(config, prepared.scaling, **prepared.geometry), config, prepared)
    batches = training_batches(config, prepared)
    model.compile(make_optimizer(config.training, len(batches)), VariancePreservingLoss(target_variance=1.0))
    done = 0

    def train() -> float:
        nonlocal done
        batches.set_epoch(done)
        done += 1
        model.fit(as_dataset(batches), shuffle=False, verbose=0, callbacks=[keras.callbacks.Callback()])
        return float(len(batches) * config.training.batch_size)

    return train


if __name__ == "__main__":
    main()

"""A continuous flight through a network, frame by frame against window by window: `python benchmarks/inference.py`.

An untrained tier1 network of 7 frames answers for every frame of a simulated flight: each sequence on its own; each
frame encoded once; and the exported files, with the same weights. Frames lie in memory, so that the network is
measured and not the disk.
"""

import argparse
import tempfile
from collections.abc import Callable
from pathlib import Path
from typing import Any

import keras
import numpy as np
from tools.rounds import machine, take_turns

from cloudml_tf.config.load import load_config, parse_config
from cloudml_tf.data.prepare import prepare
from cloudml_tf.inference.export.formats import SavedModel, open_export
from cloudml_tf.inference.export.writer import export_model
from cloudml_tf.models import share_frames
from cloudml_tf.train.batches import Inputs
from cloudml_tf.train.network import make_model, start_keras
from cloudml_tf.train.tf_dataset import predict_batches
from cloudml_tf.utils.tf_logging import quiet_tensorflow


def main() -> None:
    """Race, and print."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("config", nargs="?", default="configs/tier1.json")
    parser.add_argument("--frames", type=int, default=7, help="of a sequence")
    parser.add_argument("--sequences", type=int, default=2048)
    parser.add_argument("--batch-size", type=int, default=512, help="sequences")
    parser.add_argument("--rounds", type=int, default=5)
    args = parser.parse_args()
    quiet_tensorflow()
    content = load_config(args.config).model_dump(mode="json")
    content["temporal_frames"] = args.frames
    content["data"]["simulation"]["lidar_interval_s"] = 1.0  # a window a frame
    config = parse_config(content)
    prepared = prepare(config)
    flown = prepared.parts["train"]
    samples = flown.take(np.arange(min(args.sequences, len(flown))))
    start_keras(config)
    regressor = make_model(config, prepared.scaling, **prepared.geometry)
    shared = share_frames(regressor)

    def keras_work(model: keras.Model, share: bool) -> Callable[[], float]:
        def work() -> float:
            predict_batches(model, Inputs(samples, args.batch_size, shared=share))
            return float(len(samples))

        return work

    def file_work(reader: Any, share: bool) -> Callable[[], float]:
        def work() -> float:
            for first in range(0, len(samples), args.batch_size):
                piece = slice(first, first + args.batch_size)
                if share:
                    reader.shared_outputs(samples.shared_inputs(piece))
                else:
                    reader.outputs(samples.inputs(piece))
            return float(len(samples))

        return work

    with tempfile.TemporaryDirectory() as home:
        folder = Path(home) / "export"
        export_model(regressor, folder, config, prepared.description(), formats=("savedmodel", "onnx", "litert"))
        saved = SavedModel(folder)
        work = {
            "Keras, window by window": keras_work(regressor, False),
            "Keras, each frame once": keras_work(shared, True),
            "SavedModel, window by window": file_work(saved, False),
            "SavedModel, each frame once": file_work(saved, True),
            "ONNX Runtime, window by window": file_work(open_export(folder, "onnx"), False),
            "LiteRT, window by window": file_work(open_export(folder, "litert"), False),
        }
        found = take_turns(work, "sequences", args.rounds)
    print(f"T = {args.frames}, {len(samples)} sequences of {samples.frame_shape}, {machine()}\n")
    print(found.table())


if __name__ == "__main__":
    main()

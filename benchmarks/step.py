"""Our training step against the same network in PyTorch: `python benchmarks/step.py --frames 3`.

Both train the regressor of configs/tier1.json, from the same weights and on the same batches of 64, which lie ready in
memory: forward, backward, clip, AdamW. Each contender is a process of its own; they take turns, A B C A B C, and the
medians over the rounds are printed. First every way of running the peer (eager or compiled, channels last or first,
one thread or all) is tried, and the quickest meets us. Run it on a machine that does nothing else.

    ours            Keras' compiled step as `model.fit` calls it, with our ten metrics
    ours, training  the same and what our callbacks do after each batch, the weight average among it
    peer            `benchmarks/peers/torch_regressor.py`, with its weight average
"""

import argparse
import itertools
import json
import os
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np

HOME = Path(__file__).resolve().parent
CONFIG = HOME.parent / "configs" / "tier1.json"
BATCHES = 8
STEPS_TRIED = 10
TOLERANCE = 1e-4
OURS, TRAINING = "ours", "ours, training"
PEERS: dict[str, dict[str, Any]] = {
    f"peer, {'compiled' if compiled else 'eager'}, channels {'last' if last else 'first'}, {threads} thread(s)": {
        "compiled": compiled,
        "channels_last": last,
        "threads": threads,
    }
    for compiled, last, threads in itertools.product((False, True), (True, False), sorted({1, os.cpu_count() or 1}))
}


def main() -> int:
    """Race, print, and return 1 where the two are not the same function."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--frames", type=int, default=3, help="frames of a sequence, 3 or 7 for instance")
    parser.add_argument("--rounds", type=int, default=5)
    parser.add_argument("--steps", type=int, default=40, help="training steps a round")
    parser.add_argument("--json", action="store_true", help="print one JSON object")
    parser.add_argument("--worker", help=argparse.SUPPRESS)
    parser.add_argument("--data", help=argparse.SUPPRESS)
    args = parser.parse_args()
    if args.worker is not None:
        work(args.worker, args.frames, Path(args.data))
        return 0
    with tempfile.TemporaryDirectory() as home:
        found = race(args.frames, args.rounds, args.steps, Path(home) / "data.npz")
    print(json.dumps(found) if args.json else table(found))
    return 0


# The parent


class Contender:
    """A process that waits for a number of steps and answers with the seconds that they took."""

    def __init__(self, name: str, frames: int, data: Path) -> None:
        command = [sys.executable, __file__, "--worker", name, "--frames", str(frames), "--data", str(data)]
        self.process = subprocess.Popen(command, stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True)
        self.ask: Any = self.process.stdin
        self.answers: Any = self.process.stdout
        self.name = name
        self.first = self._answer()  # what it computes from the shared weights

    def milliseconds(self, steps: int) -> float:
        """Of one step, over so many."""
        self.ask.write(f"{steps}\n")
        self.ask.flush()
        return 1e3 * self._answer()["seconds"] / steps

    def _answer(self) -> dict[str, Any]:
        line = self.answers.readline()
        if not line:
            raise SystemExit(f"{self.name}: ended with exit code {self.process.wait()}")
        found: dict[str, Any] = json.loads(line)
        return found

    def close(self) -> None:
        """Let it end."""
        self.ask.close()
        self.process.wait()


def race(frames: int, rounds: int, steps: int, data: Path) -> dict[str, Any]:
    """Milliseconds of a step, by contender and round."""
    ours = Contender(OURS, frames, data)  # writes the batches and weights that the others read
    tried = {}
    for name in PEERS:
        peer = Contender(name, frames, data)
        check(ours, peer)
        peer.milliseconds(STEPS_TRIED)
        tried[name] = min(peer.milliseconds(STEPS_TRIED) for _ in range(3))
        peer.close()
    best = min(tried, key=tried.__getitem__)
    contenders = [ours, *(Contender(name, frames, data) for name in (TRAINING, best))]
    times: dict[str, list[float]] = {c.name: [] for c in contenders}
    for c in contenders:
        c.milliseconds(STEPS_TRIED)
    for _ in range(rounds):
        for c in contenders:
            times[c.name].append(c.milliseconds(steps))
    for c in contenders:
        c.close()
    load = os.getloadavg()[0]
    return {"frames": frames, "load": load, "parameters": ours.first["parameters"], "tried": tried, "ms": times}


def check(ours: Contender, peer: Contender) -> None:
    """The same number of weights, the same answers, the same loss; a race between two functions says nothing."""
    if ours.first["parameters"] != peer.first["parameters"]:
        raise SystemExit(f"parameters: ours {ours.first['parameters']}, {peer.name} {peer.first['parameters']}")
    for key in ("prediction", "loss"):
        apart = float(np.max(np.abs(np.subtract(ours.first[key], peer.first[key]))))
        if not apart <= TOLERANCE:
            raise SystemExit(f"{key}: ours and {peer.name} are {apart:g} apart, more than {TOLERANCE:g}")


def table(found: dict[str, Any]) -> str:
    """Markdown: a row a contender; the ratio is that of the sequences a second, and its spread that of the rounds."""
    times = {name: np.array(values) for name, values in found["ms"].items()}
    peer = list(times.values())[-1]
    lines = [f"{found['frames']} frames, {found['parameters']:,} weights, load {found['load']:.1f}", ""]
    lines += ["| contender | ms a step | sequences/s | against the peer |", "|---|---|---|---|"]
    for name, values in times.items():
        ratio, median = peer / values, float(np.median(values))
        cells = [f"{median:.1f} ({values.min():.1f} to {values.max():.1f})", f"{64e3 / median:,.0f}"]
        lines.append(
            "| " + " | ".join([name, *cells, f"{np.median(ratio):.2f} ({ratio.min():.2f} to {ratio.max():.2f})"]) + " |"
        )
    lines += ["", "Ways to run the peer, best of 3 short trials:", ""]
    return "\n".join(lines + [f"- {name}: {value:.1f} ms" for name, value in found["tried"].items()])


# The contenders


def work(name: str, frames: int, data: Path) -> None:
    """Say what the first batch gives, then time as many steps as each line of the input asks for."""
    first, step = peer_step(name, frames, data) if name in PEERS else our_step(name, frames, data)
    print(json.dumps(first), flush=True)
    for line in sys.stdin:
        started = time.perf_counter()
        for _ in range(int(line)):
            value = step()
        float(value)  # waits for the last step
        print(json.dumps({"seconds": time.perf_counter() - started}), flush=True)


def our_step(name: str, frames: int, data: Path) -> tuple[dict[str, Any], Callable[[], Any]]:
    """Keras' compiled step; with `TRAINING` also the callbacks of `fit.fit`."""
    from cloudml_tf.utils.tf_logging import quiet_tensorflow

    quiet_tensorflow()
    import keras
    import tensorflow as tf

    from cloudml_tf.config.load import load_config
    from cloudml_tf.data import prepare
    from cloudml_tf.metrics import regression_metrics
    from cloudml_tf.nn.introspection import core_of
    from cloudml_tf.train import callbacks as callbacks_module
    from cloudml_tf.train import loaders, network

    config = load_config(CONFIG, {"temporal_frames": frames})
    network.start_keras(config)
    prepared = prepare.prepare(config)
    used = loaders.Loaders.of(config, prepared)
    batches = used.batches
    model = network.make_model(config, prepared.scaling, **prepared.geometry)
    loss = network.make_loss(config, batches.variance())
    optimizer = network.make_optimizer(config.training, len(batches))
    model.compile(optimizer=optimizer, loss=loss, metrics=regression_metrics())
    ready = [batches[i] for i in range(BATCHES)]
    (inputs, target), core = ready[0], core_of(model)
    prediction = core(inputs, training=False)  # one image, as in training
    first = {
        "parameters": sum(int(np.prod(v.shape)) for v in model.trainable_variables),
        "prediction": prediction.numpy().tolist(),
        "loss": float(loss(target, prediction)),
    }
    if not data.exists():
        scaling = prepared.scaling
        constants = {"mean": scaling.frame_mean[0], "std": scaling.frame_std[0], "nadir": prepared.geometry["nadir"]}
        write(data, model, ready, {**constants, "variance": batches.variance()})
    turns = itertools.cycle([tf.nest.map_structure(tf.convert_to_tensor, batch) for batch in ready])
    model.make_train_function()
    if name == OURS:
        return first, lambda: model.train_function(turns)["loss"]
    guards = callbacks_module.TrainingCallbacks.of(config, loss, used)
    callbacks = keras.callbacks.CallbackList(guards.in_order(batches), model=model)
    callbacks.on_train_begin()
    callbacks.on_epoch_begin(0)
    count = itertools.count()

    def step() -> Any:
        number = next(count)
        callbacks.on_train_batch_begin(number)
        logs = model.train_function(turns)
        callbacks.on_train_batch_end(number, logs)
        return logs["loss"]

    return first, step


def write(path: Path, model: Any, ready: list[Any], constants: dict[str, Any]) -> None:
    """Weights, batches and constants, as plain arrays."""
    arrays = {f"weight:{v.path}": v.numpy() for v in model.trainable_variables}
    for i, (inputs, target) in enumerate(ready):
        arrays |= {f"frames:{i}": inputs["frames"], f"sun:{i}": inputs["sun_angles_deg"]}
        arrays[f"target:{i}"] = target.astype("float32")
    np.savez(path, **arrays, **constants)


def peer_step(name: str, frames: int, data: Path) -> tuple[dict[str, Any], Callable[[], Any]]:
    """PyTorch's."""
    import torch

    sys.path.insert(0, str(HOME / "peers"))
    from torch_regressor import Regressor, Trainer, variance_preserving_loss

    options = PEERS[name]
    torch.set_num_threads(options["threads"])
    torch.manual_seed(1)
    with np.load(data) as arrays:
        found = dict(arrays)
    nadir, variance = (int(found["nadir"][0]), int(found["nadir"][1])), float(found["variance"])
    model = Regressor(float(found["mean"]), float(found["std"]), nadir, frames)
    model.load({key.removeprefix("weight:"): value for key, value in found.items() if key.startswith("weight:")})
    model.to(memory_format=torch.channels_last if options["channels_last"] else torch.contiguous_format)
    ready = [[torch.from_numpy(found[f"{part}:{i}"]) for part in ("frames", "sun", "target")] for i in range(BATCHES)]
    with torch.no_grad():
        prediction = model.eval()(*ready[0][:2])
    first = {
        "parameters": sum(p.numel() for p in model.parameters()),
        "prediction": prediction.tolist(),
        "loss": float(variance_preserving_loss(prediction, ready[0][2], variance)),
    }
    trainer = Trainer(model.train(), warmup_cosine, variance, compiled=options["compiled"])
    turns = itertools.cycle(ready)
    return first, lambda: trainer.step(*next(turns))


def warmup_cosine(step: int, warmup: int = 61, total: int = 3050, highest: float = 0.002) -> float:
    """The learning rate of configs/tier1.json at a step."""
    if step < warmup:
        return highest * step / warmup
    return highest * 0.5 * (1.0 + np.cos(np.pi * min((step - warmup) / (total - warmup), 1.0)))


if __name__ == "__main__":
    sys.exit(main())

"""The full-size training step on a GPU, Keras on JAX against PyTorch: `python benchmarks/gpu_step.py`.

440 x 640 frames of one channel, three a sequence, 20 sequences a batch; three 3 x 3 convolutions of 64, 128 and 256
channels, each with batch normalisation, 2 x 2 maximum and leaky ReLU; the mean of each frame; attention of 4 heads over
time; one number. Forward, backward and AdamW on a batch that lies on the GPU, in bfloat16, the loss in float32. Each
contender is a process of its own, and they take turns.

    --estimate   operations and bytes of a step against the limits of a GPU; needs none
    --tiny       small and in float32, anywhere: asserts that all contenders have the same losses, step by step
"""

import argparse
import json
import os
import subprocess
import sys
import time
from importlib import import_module
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np

HEADS, UNITS = 4, 64
CONTENDERS: dict[str, dict[str, Any]] = {
    "PyTorch, eager": {"mode": None},
    "PyTorch, compiled": {"mode": "default"},
    "PyTorch, compiled, max-autotune": {"mode": "max-autotune"},
    "Keras on JAX, plain": {"tuned": False},
    "Keras on JAX, tuned": {"tuned": True},
}
OURS = "Keras on JAX, tuned"
CHECKED_STEPS, TOLERANCE = 3, 1e-4


class Size(NamedTuple):
    """Of a batch and of the network."""

    batch: int
    time: int
    rows: int
    columns: int
    widths: tuple[int, ...]


FULL, TINY = Size(20, 3, 440, 640, (64, 128, 256)), Size(4, 3, 16, 24, (8, 16, 32))


def main() -> int:
    """Race, check or estimate."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--estimate", action="store_true", help="from operations and bytes; needs no GPU")
    parser.add_argument("--tiny", action="store_true", help="check that all compute the same; needs no GPU")
    parser.add_argument("--rounds", type=int, default=5)
    parser.add_argument("--steps", type=int, default=20, help="training steps a round")
    parser.add_argument("--tflops", type=float, default=798.0, help="matrix limit, 1e12/s (H100, measured)")
    parser.add_argument("--bandwidth", type=float, default=3.35, help="memory limit, TB/s (H100)")
    parser.add_argument("--worker", help=argparse.SUPPRESS)
    args = parser.parse_args()
    if args.worker is not None:
        work(args.worker, TINY if args.tiny else FULL, half=not args.tiny)
    elif args.estimate:
        print(estimate(FULL, args.tflops, args.bandwidth))
    else:
        contenders = [Contender(name, args.tiny) for name in CONTENDERS]
        print(compare(contenders))
        if not args.tiny:
            print(race(contenders, args.rounds, args.steps))
    return 0


# What a step must do


def estimate(size: Size, tflops: float, bandwidth: float) -> str:
    """The least time of each part: operations over the matrix limit, or bytes over the memory limit."""
    lines = [f"limits: {tflops:g} TFLOP/s, {bandwidth:g} TB/s", "", "| part | TFLOP | GB plain | GB tuned |"]
    lines.append("|---|---|---|---|")
    totals = np.zeros(3)
    before = 1
    for i, (channels, pixels) in enumerate(zip(size.widths, map_pixels(size), strict=True)):
        passes = 2 if i == 0 else 3  # the first convolution has no input gradient
        row = np.array([passes * 2 * 9 * before * channels * pixels / 1e12, *traffic(i, before, channels, pixels)])
        lines.append(
            f"| block {i + 1}, {before} to {channels} channels | " + " | ".join(f"{v:.2f}" for v in row) + " |"
        )
        totals += row
        before = channels
    lines.append("| all | " + " | ".join(f"{v:.2f}" for v in totals) + " |")
    compute, plain, tuned = totals[0] / tflops * 1e3, *(totals[1:] / bandwidth)
    lines += ["", f"arithmetic {compute:.1f} ms; traffic {plain:.1f} ms plain, {tuned:.1f} ms tuned"]
    lines.append(
        f"a step takes at least the sum, since convolutions and passes follow one another: plain "
        f"{compute + plain:.1f} ms, tuned {compute + tuned:.1f} ms"
    )
    reached = compute / 0.6 + tuned / 0.85
    lines.append(f"tuned, at 60 % of the matrix limit and 85 % of the memory limit: {reached:.1f} ms (an estimate)")
    return "\n".join(lines)


def map_pixels(size: Size) -> list[int]:
    """Pixels of a batch at each convolution."""
    return [size.batch * size.time * (size.rows >> i) * (size.columns >> i) for i in range(len(size.widths))]


def traffic(block: int, before: int, channels: int, pixels: int) -> tuple[float, float]:
    """GB that a step of one block reads and writes, plain and tuned: 2 bytes a value.

    x is the block's input, y what the convolution gives, p what is left after pooling (a quarter of y).
    """
    x, y, p = (2 * pixels * n / 1e9 for n in (before, channels, channels / 4))
    convolution = x + y  # forward
    filters = x + y  # the filter's gradient reads x and the gradient of y
    inputs = 0 if block == 0 else y + x
    normalise = y + (y + p)  # moments; then scale, leaky ReLU and pooling in one pass
    back = (y + p) + (y + p + y)  # sums over the gradient; then the gradient of y
    # Plain: the map before pooling is written and read again, and so is the gradient that pooling scatters.
    plain = convolution + y + (y + y) + (y + p) + (y + p + y) + (y + y) + (y + y + y) + filters + inputs
    if block == 0:  # no pass for moments either way: they follow from the pixels
        patches = 4 * x  # 16 pixels for each cell of 4
        return plain, patches + x + (patches + y) + (y + p) + (y + p + y) + (patches + y)
    return plain, convolution + normalise + back + filters + inputs


# The race


class Contender:
    """A process that waits for a number of steps and answers with the seconds that they took."""

    def __init__(self, name: str, tiny: bool) -> None:
        command = [sys.executable, __file__, "--worker", name, *(["--tiny"] if tiny else [])]
        environment = {**os.environ, "KERAS_BACKEND": "jax", "XLA_PYTHON_CLIENT_PREALLOCATE": "false"}
        self.process = subprocess.Popen(
            command, stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True, env=environment
        )
        self.ask: Any = self.process.stdin
        self.answers: Any = self.process.stdout
        self.name, self.losses = name, self._answer()  # of the first steps

    def milliseconds(self, steps: int) -> float:
        """Of one step, over so many."""
        self.ask.write(f"{steps}\n")
        self.ask.flush()
        return 1e3 * self._answer() / steps

    def _answer(self) -> Any:
        line = self.answers.readline()
        if not line:
            raise SystemExit(f"{self.name}: ended with exit code {self.process.wait()}")
        return json.loads(line)


def compare(contenders: list[Contender]) -> str:
    """The losses of the first steps. Exits where one is not as ours; in bfloat16 they differ by its rounding."""
    ours = next(c for c in contenders if c.name == OURS).losses["losses"]
    tolerance = 0.02 if contenders[0].losses["half"] else TOLERANCE
    lines = []
    for c in contenders:
        apart = float(np.max(np.abs(np.subtract(c.losses["losses"], ours)) / np.abs(ours)))
        lines.append(f"{c.name}: losses {', '.join(f'{v:.6f}' for v in c.losses['losses'])}; {apart:.1e} apart")
        if not apart <= tolerance:
            raise SystemExit("\n".join([*lines, f"not the same function as ours: more than {tolerance:g} apart"]))
    return "\n".join(lines)


def race(contenders: list[Contender], rounds: int, steps: int) -> str:
    """Markdown: a row a contender, and the ratio of the quickest peer to ours with its spread over the rounds."""
    times: dict[str, list[float]] = {c.name: [] for c in contenders}
    for _ in range(rounds):
        for c in contenders:
            times[c.name].append(c.milliseconds(steps))
    lines = ["", "| contender | ms a step | times ours |", "|---|---|---|"]
    for name, found in times.items():
        ratio = np.divide(found, times[OURS])
        cells = [f"{np.median(found):.1f} ({min(found):.1f} to {max(found):.1f})"]
        lines.append(
            "| " + " | ".join([name, *cells, f"{np.median(ratio):.2f} ({min(ratio):.2f} to {max(ratio):.2f})"]) + " |"
        )
    return "\n".join(lines)


# The contenders


def work(name: str, size: Size, half: bool) -> None:
    """Train on the shared weights and batch; then time as many steps as each line of the input asks for."""
    sys.path.insert(0, str(Path(__file__).resolve().parent / "peers"))
    options = CONTENDERS[name]
    make_step = import_module("full_size_keras" if "tuned" in options else "full_size_torch").make_step
    rng = np.random.default_rng(1)
    frames = rng.standard_normal((size.batch, size.time, size.rows, size.columns, 1), "float32") + np.float32(0.3)
    target = rng.standard_normal((size.batch, 1), "float32")
    step, wait = make_step(first_weights(size.widths, rng), frames, target, HEADS, half, **options)
    losses = [float(step()) for _ in range(CHECKED_STEPS)]
    print(json.dumps({"losses": losses, "half": half}), flush=True)
    for line in sys.stdin:
        wait()
        started = time.perf_counter()
        for _ in range(int(line)):
            step()
        wait()
        print(json.dumps(time.perf_counter() - started), flush=True)


def first_weights(widths: tuple[int, ...], rng: np.random.Generator) -> list[np.ndarray]:
    """Kernel, scale and shift of each block; then kernels and biases, as Keras keeps them, the scales of both signs."""

    def kernel(*shape: int) -> np.ndarray:
        fan = int(np.prod(shape[:-1]))
        return rng.standard_normal(shape, "float32") * np.float32(fan**-0.5)

    found = []
    for before, channels in zip((1, *widths), widths, strict=False):
        sign = np.where(rng.random(channels) < 0.2, -1, 1)
        shift = 0.1 * rng.standard_normal(channels)
        found += [kernel(3, 3, before, channels), sign.astype("float32"), shift.astype("float32")]
    size = widths[-1]
    for shape in [(size, size)] * 4 + [(size, UNITS), (UNITS, 1)]:
        found += [kernel(*shape), (0.1 * rng.standard_normal(shape[1])).astype("float32")]
    return found


if __name__ == "__main__":
    sys.exit(main())

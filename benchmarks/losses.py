"""The forms of the penalty in figures: `python benchmarks/losses.py` writes docs/losses/*.png and prints the tables.

gradient    the push of each form on predictions that have collapsed, and where it points
noise       how much the penalty differs from batch to batch
cost        what it takes from R² where the target cannot be predicted fully
"""

import argparse
from pathlib import Path
from typing import Any

import numpy as np
import tensorflow as tf
from matplotlib.backends.backend_agg import FigureCanvasAgg
from matplotlib.figure import Figure
from PIL import Image
from scipy.optimize import minimize

from cloudml_tf.losses import FORMS, Spread, VariancePreservingLoss, penalty, pooled_spread, spread_of
from cloudml_tf.reports.figure import BLUE, GREEN, GREY, ORANGE, styled

COLOURS = {"mse": "black", "variance": BLUE, "std": ORANGE, "log": GREEN, "hinge": "#7b4fa3", "ccc": "#c0392b"}
COLOURS["hinge γ=0.5"] = GREY


def figure(columns: int, size: tuple[float, float]) -> tuple[Figure, Any]:
    """A row of axes, outside of pyplot."""
    made = Figure(figsize=size, layout="constrained", dpi=110)
    return made, made.subplots(1, columns)


ORDER = ("variance", "std", "log", "hinge", "ccc")

SPREADS = np.concatenate([[0.0], np.geomspace(1e-3, 1.0, 25)])  # s; 0 is all predictions equal
SIZES = (8, 16, 32, 64, 128, 256)
BATCHES, POOL, NEIGHBOURS = 2000, 8, 0.9
STATE = 0.5  # s and r of the noise measurement
CORRELATIONS, WEIGHTS = (0.3, 0.5, 0.7, 0.9), (0.1, 0.5, 1.0, 2.0)
SAMPLES = 5000  # of the linear problem


def main() -> None:
    """Measure, draw, print."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--out", type=Path, default=Path(__file__).parent.parent / "docs" / "losses")
    out = parser.parse_args().out
    out.mkdir(parents=True, exist_ok=True)
    if set(ORDER) != set(FORMS):
        raise SystemExit(f"This benchmark draws {ORDER}; the loss has {FORMS}")
    gradients(out)
    noise(out)
    cost(out)


def table(head: list[str], rows: list[list[str]]) -> None:
    """Print markdown."""
    lines = [head, ["---"] * len(head), *rows]
    print("\n".join("| " + " | ".join(line) + " |" for line in lines), end="\n\n")


def write(made: Figure, path: Path) -> None:
    """A PNG of 128 colours, a third of the size."""
    FigureCanvasAgg(made).print_png(str(path))
    with Image.open(path) as picture:
        small = picture.convert("RGB").quantize(128, method=Image.Quantize.FASTOCTREE)
    small.save(path, optimize=True)


def pair(rng: np.random.Generator, n: int, r: float) -> tuple[np.ndarray, np.ndarray]:
    """(n,) a target and a predictor of it, each of mean 0 and variance 1, whose correlation is exactly r."""
    t, q = rng.standard_normal((2, n))
    t = (t - t.mean()) / t.std(ddof=1)
    q = q - q.mean() - t * ((q - q.mean()) @ t) / (t @ t)
    return t, r * t + np.sqrt(1 - r * r) * q / q.std(ddof=1)


# Gradient at collapse


def push(name: str, t: np.ndarray, p: np.ndarray) -> tuple[float, float]:
    """Norm of the gradient of a term by p, and the cosine between its push and t - p."""
    loss = VariancePreservingLoss(form="variance" if name == "mse" else name, weight=1.0)
    variable = tf.Variable(p)
    with tf.GradientTape() as tape:
        base, added = loss.terms(tf.constant(t), variable)
        term = tf.reduce_mean(base) if name == "mse" else tf.cast(added, "float64")
    down = -tape.gradient(term, variable).numpy()
    size, way = float(np.linalg.norm(down)), float(np.linalg.norm(t - p))
    return size, float(down @ (t - p)) / (size * way) if size > 1e-12 else np.nan


@styled()
def gradients(out: Path) -> None:
    """Over s from 0 to 1, 64 samples, r = 0 and 0.5."""
    made, axes = figure(3, (10.5, 3.4))
    shown = [int(np.argmin(np.abs(SPREADS - s))) for s in (0.0, 0.001, 0.01, 0.1, 0.5)]
    print("Norm of the gradient by the predictions (64 samples, r = 0.5), and its cosine with target - prediction")
    rows = []
    for name in ("mse", *ORDER):
        found = {}
        for r in (0.0, 0.5):
            t, q = pair(np.random.default_rng(0), 64, r)
            found[r] = np.array([push(name, t, s * q) for s in SPREADS])  # (S, 2)
        style: dict[str, Any] = {"color": COLOURS[name], "label": name, "lw": 1.6}
        style["ls"] = {"mse": "--", "std": ":", "ccc": "-."}.get(name, "-")  # some lie upon each other
        axes[0].plot(SPREADS[1:-1], found[0.5][1:-1, 0], **style)
        for axis, r in ((axes[1], 0.0), (axes[2], 0.5)):
            axis.plot(SPREADS[1:-1], found[r][1:-1, 1], **style)
        rows.append([name, *(f"{a:.2g} ({'-' if np.isnan(c) else f'{c:.2f}'})" for a, c in found[0.5][shown])])
    table(["term", *(f"s = {SPREADS[i]:.2g}" for i in shown)], rows)
    axes[0].set(xscale="log", yscale="log", ylim=(1e-4, 1e4), ylabel="norm of the gradient", title="size, r = 0.5")
    axes[1].set(xscale="log", ylim=(-1.05, 1.05), ylabel="cosine with target − prediction", title="direction, r = 0")
    axes[2].set(xscale="log", ylim=(-1.05, 1.05), title="direction, r = 0.5")
    for axis in axes:
        axis.set_xlabel("s = std(p)/std(t)")
    for axis, height in ((axes[1], 0.08), (axes[2], 0.58)):
        axis.text(1e-3, height, "variance, std, log, hinge", fontsize=8)
        axis.text(1e-3, 0.88, "mse, ccc", fontsize=8)
    axes[0].legend(fontsize=8, ncols=2)
    write(made, out / "gradient.png")


# Noise of a batch


def drawn(n: int, memory: float, r: float = STATE) -> tuple[np.ndarray, np.ndarray]:
    """(BATCHES, n) targets of variance 1, predictions with s = STATE; `memory` is the correlation of neighbours."""
    series = np.random.default_rng(n).standard_normal((2, BATCHES, n))
    for i in range(1, n):
        series[..., i] = memory * series[..., i - 1] + np.sqrt(1 - memory**2) * series[..., i]
    t, q = series
    return t, STATE * (r * t + np.sqrt(1 - r**2) * q)


def noisy_values(n: int, memory: float, r: float = STATE) -> dict[tuple[str, str], np.ndarray]:
    """(way of measuring, form) -> the penalty of every batch, in units of its true value."""
    pairs = tuple(map(tf.constant, drawn(n, memory, r)))  # 2 x (BATCHES, n)
    single = Spread(*tf.vectorized_map(lambda tp: spread_of(tp[0], tp[1], tf.ones(n, "float64")), pairs))
    windows = np.lib.stride_tricks.sliding_window_view(np.stack(single, 1), POOL, axis=0).swapaxes(1, 2)  # (N, K, 5)
    counts = tf.fill([POOL], tf.constant(n, "float64"))
    pooled = Spread(*tf.vectorized_map(lambda rows: pooled_spread(rows, counts), tf.constant(windows.copy())))
    ways = {"batch": single, "fixed": fixed(single), "pooled": pooled, "pooled, fixed": fixed(pooled)}
    truth = Spread(*(tf.constant(v, "float64") for v in (0.0, 0.0, 1.0, STATE**2, r * STATE)))
    return {
        (way, form): np.asarray(penalty(form, m) / penalty(form, truth)) for way, m in ways.items() for form in ORDER
    }


def fixed(m: Spread) -> Spread:
    """With the true variance of the target in place of the batch's."""
    return m._replace(var_t=tf.ones_like(m.var_t))


def told(values: np.ndarray) -> str:
    """Mean ± std."""
    return f"{values.mean():.2f} ± {values.std():.2f}"


def off(values: np.ndarray) -> float:
    """Root mean square distance from the true value."""
    return float(np.sqrt(np.mean((values - 1) ** 2)))


@styled()
def noise(out: Path) -> None:
    """Over the size of the batch, for samples drawn at random and for neighbours; then over r."""
    made, axes = figure(3, (10.5, 3.4))
    lines = {"batch": ("-", BLUE), "fixed": ("--", ORANGE), "pooled": ("-.", GREEN), "pooled, fixed": (":", GREY)}
    print(f"The penalty over {BATCHES} batches, s = {STATE}: mean ± std, in units of its true value\n")
    for axis, memory, title in ((axes[0], 0.0, "random samples"), (axes[1], NEIGHBOURS, "neighbours")):
        found = {n: noisy_values(n, memory) for n in SIZES}
        print(f"Batches of 32, {title}, r = {STATE}")
        table(["form", *lines], [[form, *(told(found[32][way, form]) for way in lines)] for form in ORDER])
        print(f"Form variance, {title}, r = {STATE}")
        table(["n", *lines], [[str(n), *(told(found[n][way, "variance"]) for way in lines)] for n in SIZES])
        for way, (style, colour) in lines.items():
            values = [off(found[n][way, "variance"]) for n in SIZES]
            axis.plot(SIZES, values, style, color=colour, marker="o", ms=4, label=way)
        axis.set(title=f"variance, {title}")
    print("Form variance, random samples, batches of 32, over r")
    over_r = {r: noisy_values(32, 0.0, r) for r in (0.0, *CORRELATIONS)}
    table(["r", *lines], [[f"{r}", *(told(found[way, "variance"]) for way in lines)] for r, found in over_r.items()])
    for form in ORDER:
        values = [off(noisy_values(n, 0.0)["fixed", form]) for n in SIZES]
        axes[2].plot(SIZES, values, marker="o", ms=4, color=COLOURS[form], label=form)
    axes[2].set(title="every form, fixed, random samples")
    for axis in axes:
        axis.set(xscale="log", yscale="log", ylim=(0.015, 3), xlabel="samples in a batch")
        axis.set(xticks=SIZES, xticklabels=SIZES)
        axis.minorticks_off()
        axis.legend(fontsize=8)
    axes[0].set_ylabel("rms distance from the true value")
    write(made, out / "noise.png")


# Cost in R²


def closed_form(form: str, gamma: float, weight: float, r: float) -> float:
    """R² at the s that minimises 1 + s² - 2rs + λ penalty(s, r)."""
    s = np.linspace(0.001, 1.5, 15000)
    values = {
        "variance": (1 - s**2) ** 2,
        "std": (1 - s) ** 2,
        "log": np.log(s) ** 2,
        "hinge": np.maximum(gamma - s, 0),
        "ccc": 1 - 2 * r * s / (1 + s**2),
    }[form]
    best = s[np.argmin(1 + s**2 - 2 * r * s + weight * values)]
    return float(2 * r * best - best**2)


def fitted(loss: VariancePreservingLoss, r: float) -> float:
    """R² of p = a x + c, fitted by minimising the loss object itself from a collapsed start."""
    t, x = pair(np.random.default_rng(1), SAMPLES, r)
    target, inputs = tf.constant(t), tf.constant(x)

    def value(parameters: np.ndarray) -> float:
        return float(loss(target, parameters[0] * inputs + parameters[1]))

    simplex = np.array([[0.01, 0.1], [0.3, 0.1], [0.01, -0.1]])
    options = {"initial_simplex": simplex, "xatol": 1e-4, "fatol": 1e-9}
    a, c = minimize(value, simplex[0], method="Nelder-Mead", options=options).x
    return float(1 - np.mean((t - a * x - c) ** 2) / np.var(t))


@styled()
def cost(out: Path) -> None:
    """Over r and λ, fitted (dots, table) and in closed form (lines)."""
    made, axes = figure(4, (11.0, 3.4))
    cases = {**{form: (form, 1.0) for form in ORDER}, "hinge γ=0.5": ("hinge", 0.5)}
    rows = {(r, w): [f"{r}", f"{r * r:.2f}", f"{w}"] for r in CORRELATIONS for w in WEIGHTS}
    furthest = 0.0
    for name, (form, gamma) in cases.items():
        loss = VariancePreservingLoss(form=form, gamma=gamma, dtype="float64")
        for axis, w in zip(axes, WEIGHTS, strict=True):
            loss.weight = w
            measured = [fitted(loss, r) for r in CORRELATIONS]
            for r, r2 in zip(CORRELATIONS, measured, strict=True):
                rows[r, w].append(f"{r2:.3f}")
                furthest = max(furthest, abs(r2 - closed_form(form, gamma, w, r)))
            fine = np.linspace(0.1, 1.0, 46)
            axis.plot(fine, [closed_form(form, gamma, w, r) - r * r for r in fine], color=COLOURS[name], lw=1.4)
            lost = np.array(measured) - np.square(CORRELATIONS)
            axis.plot(CORRELATIONS, lost, "o", ms=4, color=COLOURS[name], label=name)
            axis.set(title=f"λ = {w:g}", xlabel="r", ylim=(-0.85, 0.03))
    print("R² of a fitted line; the ceiling is r²")
    table(["r", "ceiling", "λ", *cases], list(rows.values()))
    print(f"Largest difference from the closed form: {furthest:.1e}")
    axes[0].set_ylabel("R² − r²")
    axes[0].legend(fontsize=8, loc="lower right")
    write(made, out / "cost.png")


if __name__ == "__main__":
    main()

"""Figures of scores: curves, scatter, residuals, distributions, bars, Taylor diagram; of one run or of several.

Each function draws from arrays and scores; none evaluates.
"""

import math
from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np
from matplotlib.axes import Axes
from matplotlib.ticker import MaxNLocator
from scipy.ndimage import gaussian_filter

from cloudml_tf.reports import figure
from cloudml_tf.reports.figure import BLUE, GREEN, GREY, INK, LINE, ORANGE, Picture, colour_of, limits, panel, styled

LOWEST = -1.0  # where bars end
History = Sequence[Mapping[str, float]]  # one row per epoch
Scores = Mapping[str, Any]
Line = tuple[str, History, np.ndarray, str]  # label, history, values, colour


@styled()
def lines(name: str, title: str, series: Sequence[Line], best_epoch: int | None = None) -> Picture:
    """Draw curves over the epochs; a dotted line marks the best one (counted from 0)."""
    made, (ax,) = panel()
    for label, history, values, colour in series:
        epoch = [row["epoch"] for row in history]
        ax.plot(epoch, values, color=colour, label=label, marker="." if len(epoch) < 30 else None)
    if best_epoch is not None:
        ax.axvline(best_epoch + 1, color=GREY, linestyle=":", linewidth=1)
    ax.set(title=title, xlabel="epoch")
    ax.xaxis.set_major_locator(MaxNLocator(integer=True, min_n_ticks=1))
    everything = np.concatenate([values for _, _, values, _ in series])
    everything = everything[np.isfinite(everything)]
    if "R²" in title and everything.size and everything.min() < -1:
        ax.set_ylim(-1, 1.02)
    if len(series) > 1:
        figure.legend_below(made)
    return Picture(name, "", made)


def values_of(history: History, key: str) -> np.ndarray:
    """One column of the history, (epochs,); NaN where it is missing."""
    return np.asarray([row.get(key, math.nan) for row in history], "float64")


def curves(history: History, best_epoch: int | None) -> list[Picture]:
    """Draw the loss; R² under its ceiling r²; s beside r; and the bias, over the epochs of one run."""
    keys = ("loss", "val_loss", "val_r2", "val_correlation", "val_variance_ratio", "val_bias")
    loss, val_loss, r2, r, s, bias = (values_of(history, key) for key in keys)
    panels: list[tuple[str, str, list[tuple[str, np.ndarray, str]]]] = [
        ("curves_loss", "Loss", [("training", loss, GREY), ("validation", val_loss, BLUE)]),
        ("curves_r2", "R² (validation)", [("ceiling r²", r * r, GREEN), ("R²", r2, BLUE)]),
        ("curves_spread", "Spread and correlation (validation)", [("s = std(p)/std(t)", s, ORANGE), ("r", r, GREEN)]),
        ("curves_bias", "Bias in std of the target (validation)", [("bias", bias, BLUE)]),
    ]
    return [
        lines(name, title, [(label, history, values, colour) for label, values, colour in found], best_epoch)
        for name, title, found in panels
    ]


def curves_of_runs(histories: Mapping[str, History]) -> list[Picture]:
    """Draw the validation R², s and r of several runs, one colour per run."""
    titles = {"val_r2": "R² (validation)", "val_variance_ratio": "s (validation)", "val_correlation": "r (validation)"}
    found = []
    for key, title in titles.items():
        series = [(n, h, values_of(h, key), colour_of(i)) for i, (n, h) in enumerate(histories.items())]
        found.append(lines(f"runs_{key}", title, series))
    return found


@styled()
def scatter(
    target: np.ndarray, prediction: np.ndarray, found: Scores, unit: str, name: str = "scatter", truth: str = "lidar"
) -> Picture:
    """Draw predictions against the `truth` with the 1:1 line, and the line of the best rescaling. (n,) each."""
    made, (ax,) = panel((3.6, 3.7))
    both = limits(np.concatenate([target, prediction]))
    _cloud(ax, target, prediction, both, both)
    ax.plot(both, both, color=INK, linewidth=1, label="1:1")
    slope = found["correlation"] * found["variance_ratio"]  # slope of the least-squares line
    if math.isfinite(slope):
        offset = float(prediction.mean() - slope * target.mean())
        ends = np.asarray(both)
        ax.plot(ends, slope * ends + offset, color=ORANGE, linewidth=1.4, label=f"fit, slope {slope:.2f}")
    ax.set(xlim=both, ylim=both, xlabel=f"{truth}, {unit}", ylabel=f"prediction, {unit}", aspect="equal")
    ax.locator_params(nbins=5)  # the same ticks on both axes, whose labels are not equally wide
    ax.set_title(f"R² {found['r2']:.3f}, s {100 * found['variance_ratio']:.1f} %, r {found['correlation']:.3f}")
    figure.legend_below(made)
    return Picture(name, f"{found['n']} labels; a stronger colour means more of them.", made)


@styled()
def residuals(
    target: np.ndarray, prediction: np.ndarray, found: Scores, unit: str, truth: str = "lidar"
) -> list[Picture]:
    """Draw prediction - truth against the truth, with mean and std of each tenth of the labels; and their histogram."""
    error = prediction - target
    across, up = limits(target), limits(error)
    made, (ax,) = panel((3.6, 3.7))
    _cloud(ax, target, error, across, up)
    tenths = [part for part in np.array_split(np.argsort(target, kind="stable"), 10) if len(part)]
    middle, mean, std = (
        np.asarray([f(v[part]) for part in tenths]) for f, v in ((np.mean, target), (np.mean, error), (np.std, error))
    )
    ax.axhline(0, color=INK, linewidth=1)
    ax.errorbar(middle, mean, std, color=ORANGE, marker="o", markersize=4, linewidth=1.4, elinewidth=1, capsize=2)
    ax.set(xlim=across, ylim=up, xlabel=f"{truth}, {unit}", ylabel=f"prediction - {truth}, {unit}", title="Residuals")
    first = Picture("residuals", "Orange: mean and std of each tenth of the labels.", made)
    made, (ax,) = panel((3.6, 3.7))
    ax.hist(error, bins=np.linspace(*up, 41).tolist(), color=BLUE, alpha=0.8)
    ax.axvline(0, color=INK, linewidth=1)
    ax.axvline(found["bias"], color=ORANGE, linewidth=1.4, linestyle="--", label="bias")
    ax.set(xlim=up, xlabel=f"prediction - {truth}, {unit}", ylabel="labels", title="Histogram of residuals")
    figure.legend_below(made)
    return [first, Picture("residual_histogram", f"Bias {found['bias']:+.3f}, RMSE {found['rmse']:.3f}.", made)]


def _cloud(
    ax: Axes, x: np.ndarray, y: np.ndarray, across: tuple[float, float], up: tuple[float, float], cells: int = 60
) -> None:
    """Draw points as dark as they are dense: the smoothed count of their cell. Many points become cells."""
    if len(x) > 5000:
        extent = (*across, *up)
        ax.hexbin(x, y, gridsize=cells, bins="log", cmap=figure.DENSITY, mincnt=1, extent=extent, rasterized=True)
        return
    counts, *edges = np.histogram2d(x, y, bins=cells, range=[across, up])
    smooth = gaussian_filter(counts, 1.5)
    row, column = (np.clip(np.digitize(v, e) - 1, 0, cells - 1) for v, e in zip((x, y), edges, strict=True))
    density = smooth[row, column]
    order = np.argsort(density, kind="stable")
    ax.scatter(x[order], y[order], c=density[order], s=14, cmap=figure.DENSITY, linewidths=0, rasterized=True)


@styled()
def distributions(
    target: np.ndarray, snapshots: Mapping[int, np.ndarray], final: np.ndarray, unit: str, truth: str = "lidar"
) -> list[Picture]:
    """Draw predicted and true distributions on the validation split at chosen epochs, and of the best weights."""
    shown = {f"epoch {epoch}": values for epoch, values in sorted(snapshots.items())} | {"best epoch": final}
    everything = np.concatenate([target, *shown.values()])
    low, high = np.quantile(everything[np.isfinite(everything)], [0.002, 0.998])
    bins = np.linspace(*limits(np.asarray([low, high])), 36).tolist()
    found = []
    for title, values in shown.items():
        made, (ax,) = panel((2.75, 2.3))
        ax.hist(target, bins=bins, color=GREY, alpha=0.5, label=truth, density=True)
        ax.hist(values, bins=bins, histtype="step", color=BLUE, linewidth=1.6, label="prediction", density=True)
        ratio = values.std() / target.std() if target.std() > 0 else math.nan
        ax.set(title=f"{title[0].upper()}{title[1:]}: s {100 * ratio:.1f} %", xlabel=unit, yticks=[])
        ax.xaxis.set_major_locator(MaxNLocator(5))
        figure.legend_below(made)
        found.append(Picture(f"distribution_{title.replace(' ', '_')}", "", made))
    return found


@styled()
def bars(
    name: str, title: str, rows: Sequence[str], values: Mapping[str, Sequence[float]], form: str = ".3f"
) -> Picture:
    """Draw horizontal bars: a group per row, in it a bar and a colour per key.

    Bars end at `LOWEST`; their labels give the value.

    Several runs side by side: `bars("pairs", "R²", flights, {"run A": [...], "run B": [...]})`.
    """
    thick = 0.8 / len(values)
    made, (ax,) = panel((3.6, max(0.3 * len(rows) * max(1.0, 0.6 * len(values)) + 1.0, 2.0)))
    place = np.arange(len(rows))[::-1]
    for number, (key, series) in enumerate(values.items()):
        y = place + 0.4 - thick * (number + 0.5)
        known = [value if value is not None and math.isfinite(value) else math.nan for value in series]
        ax.barh(y, np.maximum(known, LOWEST), thick * 0.9, color=colour_of(number), label=key)
        for at, value in zip(y, known, strict=True):
            if not math.isnan(value):
                spot: Any = {"xytext": (3, 0), "textcoords": "offset points", "va": "center", "fontsize": 8}
                ax.annotate(format(value, form), (max(value, 0.0), at), **spot)
    ax.set_yticks(place, rows)
    ax.margins(x=0.16)
    ax.set_title(title)
    ax.grid(axis="y", visible=False)
    if len(values) > 1:
        figure.legend_below(made)
    return Picture(name, "", made)


def flight_bars(by_part: Mapping[str, Mapping[str, Scores]]) -> list[Picture]:
    """Draw R², s and RMSE of each flight."""
    rows = [f"{flight} ({part})" for part, flights in by_part.items() for flight in flights]
    found = [scores for flights in by_part.values() for scores in flights.values()]
    r2, rmse = ({"": [one[key] for one in found]} for key in ("r2", "rmse"))
    spread = {"": [100 * one["variance_ratio"] for one in found]}
    return [
        bars("flights_r2", "R²", rows, r2),
        bars("flights_s", "s = std(p)/std(t), %", rows, spread, form=".1f"),
        bars("flights_rmse", "RMSE", rows, rmse),
    ]


@styled()
def taylor(rows: Sequence[tuple[str, Scores]], name: str = "taylor") -> Picture:
    """Draw a Taylor diagram: distance from the origin is s, the angle arccos r, distance from (1, 0) the centred RMSE.

    It is the identity MSE = 1 + s² - 2rs (+ bias²), in units of the target's std, drawn by the law of cosines. Rows are
    (name, scores): baselines, the oracle, one or several runs.
    """
    made, (ax,) = panel((3.6, 3.9))
    shown = [(label, f) for label, f in rows if _positive(f)]
    reach = max([1.25, *[1.1 * f["variance_ratio"] for _, f in shown]])
    _taylor_grid(ax, reach)
    runs = [label for label, _ in rows if label not in figure.REFERENCES]
    for label, f in shown:
        s, r = f["variance_ratio"], f["correlation"]
        tint, marker = figure.REFERENCES.get(label) or (colour_of(runs.index(label)), "o")
        size = 5 if label in figure.REFERENCES else 8
        ax.plot(s * r, s * math.sqrt(max(1 - r * r, 0)), marker, markersize=size, color=tint, label=label, linestyle="")
    if shown:
        figure.legend_below(made)
    ax.set_title("Taylor diagram", pad=12)
    missing = [label for label, f in rows if not _positive(f)]
    absent = f" Not on it, with no positive correlation: {', '.join(missing)}." if missing else ""
    return Picture(name, f"Radius s, angle r, dashed circles centred RMSE/std(t); the star is the truth.{absent}", made)


def _positive(found: Scores) -> bool:
    return (found["correlation"] or math.nan) > 0 and math.isfinite(found["variance_ratio"] or math.nan)


def _taylor_grid(ax: Axes, reach: float) -> None:
    """Draw arcs of s, rays of r, circles of the centred RMSE, and the lidar itself."""
    angle, circle = np.linspace(0, np.pi / 2, 100), np.linspace(0, np.pi, 200)
    for radius in (0.5, 1.0):
        ax.plot(radius * np.cos(angle), radius * np.sin(angle), color=GREY, linewidth=0.8, linestyle=":")
    for radius in (0.25, 0.5, 0.75, 1.0):
        x, y = 1 + radius * np.cos(circle), radius * np.sin(circle)
        inside = (x**2 + y**2 <= reach**2) & (x >= 0)
        ax.plot(x[inside], y[inside], color=GREEN, linewidth=0.8, linestyle="--")
    for r in (0.3, 0.6, 0.8, 0.9, 0.95, 0.99):
        right, up = reach * r, reach * math.sqrt(1 - r * r)
        ax.plot([0, right], [0, up], color=LINE, linewidth=0.8, zorder=0)
        ax.text(1.02 * right, 1.02 * up, f"{r:g}", fontsize=8, color=figure.MUTED)
    ax.plot(reach * np.cos(angle), reach * np.sin(angle), color=GREY, linewidth=1)
    ax.plot(1, 0, marker="*", markersize=14, color=INK, clip_on=False)
    ax.set(xlim=(0, 1.06 * reach), ylim=(0, 1.06 * reach), aspect="equal", xlabel="s = std(p)/std(t)")
    ax.grid(visible=False)

"""The pictures of a run. Each function draws one file from arrays; none decides what is good."""

import math
from pathlib import Path
from typing import Any

import matplotlib as mpl
import numpy as np
from matplotlib.axes import Axes
from matplotlib.backends.backend_agg import FigureCanvasAgg
from matplotlib.figure import Figure

from cloudml_tf.files import whole_file

BLUE, ORANGE, GREY, GREEN = "#2563a8", "#d9792b", "#8a8f98", "#3b8f5a"
STYLE: Any = {
    "font.size": 10,
    "axes.spines.top": False,
    "axes.spines.right": False,
    "axes.grid": True,
    "axes.axisbelow": True,
    "grid.color": "#e6e8eb",
    "legend.frameon": False,
    "figure.dpi": 110,
}


def figure(rows: int = 1, columns: int = 1, size: tuple[float, float] = (6.0, 4.5)) -> tuple[Figure, list[Axes]]:
    """A figure outside of pyplot, which keeps global state and opens windows."""
    with mpl.rc_context(STYLE):
        made = Figure(figsize=size, layout="constrained")
        FigureCanvasAgg(made)
        axes = made.subplots(rows, columns, squeeze=False)
    return made, list(axes.ravel())


def save(made: Figure, path: Path) -> Path:
    """Write a PNG, whole."""
    with mpl.rc_context(STYLE), whole_file(path) as temporary:
        made.savefig(temporary, format="png")
    return path


def curves(history: list[dict[str, float]], best_epoch: int | None, path: Path) -> Path:
    """Loss; R² under its ceiling r²; s beside r; bias: over the epochs."""
    made, axes = figure(2, 2, (10.0, 6.5))
    epoch = [row["epoch"] for row in history]

    def series(key: str) -> list[float]:
        return [row.get(key, math.nan) for row in history]

    panels: list[tuple[str, list[tuple[str, list[float], str]]]] = [
        ("loss", [("training", series("loss"), GREY), ("validation", series("val_loss"), BLUE)]),
        (
            "R² (validation)",
            [
                ("R²", series("val_r2"), BLUE),
                ("ceiling r²", [r * r for r in series("val_correlation")], GREEN),
            ],
        ),
        (
            "spread and correlation (validation)",
            [
                ("s = std(p)/std(t)", series("val_variance_ratio"), ORANGE),
                ("r", series("val_correlation"), GREEN),
            ],
        ),
        ("bias (validation, in std of the target)", [("bias", series("val_bias"), BLUE)]),
    ]
    for ax, (title, lines) in zip(axes, panels, strict=True):
        for label, values, colour in lines:
            ax.plot(epoch, values, color=colour, label=label, marker="." if len(epoch) < 30 else None)
        if best_epoch is not None:
            ax.axvline(best_epoch + 1, color=GREY, linestyle=":", linewidth=1)
        ax.set_title(title, loc="left")
        ax.set_xlabel("epoch")
        if len(lines) > 1:
            ax.legend()
    finite = [v for v in series("val_r2") if math.isfinite(v)]
    if finite and min(finite) < -1:
        axes[1].set_ylim(-1, 1.02)
    return save(made, path)


def scatter(target: np.ndarray, prediction: np.ndarray, found: dict[str, Any], unit: str, path: Path) -> Path:
    """Predictions against the lidar with the 1:1 line, and the line of the best rescaling."""
    made, (ax,) = figure(size=(5.6, 5.4))
    low, high = float(min(target.min(), prediction.min())), float(max(target.max(), prediction.max()))
    margin = 0.04 * (high - low)
    limits = (low - margin, high + margin)
    if len(target) > 3000:
        ax.hexbin(target, prediction, gridsize=60, bins="log", cmap="Blues", mincnt=1)
    else:
        ax.scatter(target, prediction, s=12, alpha=0.5, color=BLUE, linewidths=0)
    ax.plot(limits, limits, color="black", linewidth=1, label="1:1")
    if np.ptp(target) > 0:
        slope, offset = np.polyfit(target, prediction, 1)
        ends = np.asarray(limits)
        ax.plot(ends, slope * ends + offset, color=ORANGE, linewidth=1.2, label=f"fit, slope {slope:.2f}")
    ax.set(xlim=limits, ylim=limits, xlabel=f"lidar, {unit}", ylabel=f"network, {unit}", aspect="equal")
    ax.set_title(
        f"R² {found['r2']:.3f}  s {100 * found['variance_ratio']:.0f} %  r {found['correlation']:.3f}  n {found['n']}",
        loc="left",
        fontsize=10,
    )
    ax.legend(loc="upper left")
    return save(made, path)


def distributions(
    target: np.ndarray, snapshots: dict[int, np.ndarray], final: np.ndarray, unit: str, path: Path
) -> Path:
    """Predicted and true distribution on the validation part at chosen epochs, and of the best weights."""
    panels = [(f"epoch {epoch}", values) for epoch, values in sorted(snapshots.items())] + [("best", final)]
    made, axes = figure(1, len(panels), (2.6 * len(panels) + 0.6, 3.0))
    everything = np.concatenate([target, *[values for _, values in panels]])
    everything = everything[np.isfinite(everything)]
    low, high = np.quantile(everything, [0.002, 0.998])
    bins = np.linspace(low, high, 36).tolist()
    for ax, (title, values) in zip(axes, panels, strict=True):
        ax.hist(target, bins=bins, color=GREY, alpha=0.55, label="lidar", density=True)
        ax.hist(values, bins=bins, histtype="step", color=BLUE, linewidth=1.6, label="network", density=True)
        ratio = values.std() / target.std()
        ax.set_title(f"{title}, s {100 * ratio:.0f} %", loc="left", fontsize=10)
        ax.set_xlabel(unit)
        ax.set_yticks([])
        ax.set_ylim(0, 1.35 * float(np.histogram(target, bins=bins, density=True)[0].max()))
    axes[0].legend(fontsize=8)
    return save(made, path)


def flight_bars(by_part: dict[str, dict[str, dict[str, float]]], path: Path) -> Path:
    """R² and s of each flight, coloured by the part that it belongs to."""
    rows = [(part, name, found) for part, flights in by_part.items() for name, found in flights.items()]
    colours = {"train": GREY, "val": ORANGE, "test": BLUE}
    made, (left, right) = figure(1, 2, (10.0, 0.32 * len(rows) + 1.6))
    place = np.arange(len(rows))[::-1]
    for ax, key, scale, title in (
        (left, "r2", 1.0, "R²"),
        (right, "variance_ratio", 100.0, "s = std(p)/std(t), %"),
    ):
        values = [scale * found[key] for _, _, found in rows]
        ax.barh(place, np.maximum(values, -1.0 * scale), color=[colours.get(p, BLUE) for p, _, _ in rows])
        for y, value in zip(place, values, strict=True):
            ax.text(max(value, 0), y, f" {value:.2f}" if scale == 1 else f" {value:.0f}", va="center", fontsize=8)
        ax.set_yticks(place, [f"{name} ({part})" for part, name, _ in rows])
        ax.set_title(title, loc="left")
        ax.grid(axis="y", visible=False)
    right.axvline(100, color="black", linewidth=0.8, linestyle=":")
    return save(made, path)


def time_series(
    time_s: np.ndarray, target: np.ndarray, prediction: np.ndarray, name: str, unit: str, path: Path
) -> Path:
    """Lidar and network along one flight (its first 15 minutes with labels)."""
    made, (ax,) = figure(size=(10.0, 3.2))
    minutes = (time_s - time_s[0]) / 60.0
    shown = minutes <= 15
    ax.vlines(minutes[shown], target[shown], prediction[shown], color="#c9ced6", linewidth=0.8, zorder=1)
    ax.plot(minutes[shown], target[shown], ".", color="black", markersize=4, label="lidar")
    ax.plot(minutes[shown], prediction[shown], ".", color=BLUE, markersize=4, alpha=0.8, label="network")
    ax.set(xlabel="minutes", ylabel=unit)
    ax.set_title(name, loc="left")
    ax.legend(ncols=2)
    return save(made, path)


def taylor(rows: list[tuple[str, dict[str, Any]]], path: Path) -> Path:
    """A Taylor diagram: distance from the origin is s, the angle is arccos r, distance from (1, 0) the centred RMSE.

    It is the identity MSE = 1 + s² - 2rs (+ bias²), in units of the target's std, drawn by the law of cosines.
    """
    made, (ax,) = figure(size=(5.6, 5.2))
    shown = [(name, f) for name, f in rows if math.isfinite(f["correlation"]) and f["correlation"] > 0]
    reach = max([1.25, *[1.1 * f["variance_ratio"] for _, f in shown]])
    angle = np.linspace(0, np.pi / 2, 100)
    for radius in (0.5, 1.0):
        ax.plot(radius * np.cos(angle), radius * np.sin(angle), color=GREY, linewidth=0.8, linestyle=":")
        circle = np.linspace(0, np.pi, 100)
        x, y = 1 + radius * np.cos(circle), radius * np.sin(circle)
        inside = x**2 + y**2 <= reach**2
        inside &= x >= 0
        ax.plot(x[inside], y[inside], color=GREEN, linewidth=0.8, linestyle="--")
    for r in (0.3, 0.6, 0.8, 0.9, 0.95, 0.99):
        x, y = reach * r, reach * math.sqrt(1 - r * r)
        ax.plot([0, x], [0, y], color="#e6e8eb", linewidth=0.8, zorder=0)
        ax.text(1.02 * x, 1.02 * y, f"{r:g}", fontsize=8, color=GREY)
    ax.plot(reach * np.cos(angle), reach * np.sin(angle), color=GREY, linewidth=1)
    ax.plot(1, 0, marker="*", markersize=14, color="black", clip_on=False)
    colours = {"network": BLUE, "gradient_boosting": ORANGE, "ridge": GREY, "oracle": "black"}
    for name, f in shown:
        s, r = f["variance_ratio"], f["correlation"]
        ax.plot(s * r, s * math.sqrt(1 - r * r), "o", color=colours.get(name, GREEN), label=name)
    ax.set(xlim=(0, 1.06 * reach), ylim=(0, 1.06 * reach), aspect="equal", xlabel="s = std(p)/std(t)")
    ax.set_title("radius s, angle r; dashed: centred RMSE/std(t)", loc="left", fontsize=10)
    ax.grid(visible=False)
    if shown:
        ax.legend(loc="upper right", fontsize=8)
    return save(made, path)


def checked(
    values: dict[str, np.ndarray], parts: dict[str, str], curve: dict[str, list[float]], unit: str, path: Path
) -> Path:
    """Labels of each flight as boxes (5, 25, 50, 75, 95 %), coloured by part, and the correlation over offsets."""
    made, (boxes, lag, shift) = figure(1, 3, (12.0, 1.8 + 0.25 * max(len(values), 8)))
    colours = {"train": GREY, "val": ORANGE, "test": BLUE}
    for y, (name, value) in enumerate(reversed(values.items())):
        if not len(value):
            continue
        low, left, middle, right, high = np.quantile(value, [0.05, 0.25, 0.5, 0.75, 0.95])
        colour = colours[parts[name]]
        boxes.hlines(y, low, high, color=colour, linewidth=1)
        boxes.hlines(y, left, right, color=colour, linewidth=7, alpha=0.7)
        boxes.plot(middle, y, "o", color="black", markersize=3)
    boxes.set_yticks(range(len(values)), list(reversed(values)))
    boxes.set(xlabel=unit)
    boxes.set_title("labels", loc="left")
    for part in dict.fromkeys(parts.values()):
        boxes.plot([], [], color=colours[part], linewidth=5, label=part)
    made.legend(*boxes.get_legend_handles_labels(), loc="outside lower left", ncols=3, fontsize=8)
    if curve:
        lag.plot(curve["lag_s"], curve["r_of_lag"], color=BLUE, marker=".")
        shift.plot(curve["across_pixels"], curve["r_of_across"], color=BLUE, marker=".", label="across track")
        shift.plot(curve["along_pixels"], curve["r_of_along"], color=ORANGE, marker=".", label="along track")
        shift.legend(fontsize=8)
    for ax, text in ((lag, "lag of the frame, s"), (shift, "shift from the nadir pixel, pixels")):
        ax.axvline(0, color=GREY, linestyle=":", linewidth=1)
        ax.set(xlabel=text, ylabel="r of label and brightness")
    lag.set_title("clock", loc="left")
    shift.set_title("boresight", loc="left")
    return save(made, path)

"""The figure of a check: the labels of each flight, and the correlation over clock and boresight offsets."""

from pathlib import Path

import numpy as np

from cloudml_tf.reports.figure import BLUE, GREY, INK, ORANGE, Picture, legend_below, panel, styled


@styled()
def draw_check(
    values: dict[str, np.ndarray], parts: dict[str, str], curve: dict[str, list[float]], unit: str, folder: Path
) -> Path:
    """Draw the labels of each flight as boxes (5, 25, 50, 75, 95 %), coloured by split; below, r over lags and
    shifts."""
    rows = 3 if curve else 1
    sizes = [0.25 * max(len(values), 4) + 0.8, *[2.4] * (rows - 1)]
    made, axes = panel((6.0, sum(sizes) + 0.6), rows, height_ratios=sizes)
    boxes = axes[0]
    colours = {"train": GREY, "val": ORANGE, "test": BLUE, "all": GREY}
    for y, (name, value) in enumerate(reversed(values.items())):
        if not len(value):
            continue
        low, left, middle, right, high = np.quantile(value, [0.05, 0.25, 0.5, 0.75, 0.95])
        boxes.hlines(y, low, high, color=colours[parts[name]], linewidth=1)
        boxes.hlines(y, left, right, color=colours[parts[name]], linewidth=7, alpha=0.7)
        boxes.plot(middle, y, "o", color=INK, markersize=3)
    boxes.set_yticks(range(len(values)), list(reversed(values)))
    boxes.set(xlabel=unit, title="Labels")
    for part in dict.fromkeys(parts.values()):
        boxes.plot([], [], color=colours[part], linewidth=5, label=part)
    if curve:
        lag, shift = axes[1:]
        lag.plot(curve["lag_s"], curve["r_of_lag"], color=BLUE, marker=".")
        shift.plot(curve["across_pixels"], curve["r_of_across"], color=BLUE, marker=".", label="across track")
        shift.plot(curve["along_pixels"], curve["r_of_along"], color=ORANGE, marker=".", label="along track")
        for ax, title, text in (
            (lag, "Clock", "lag of the frame, s"),
            (shift, "Boresight", "shift from the nadir pixel, pixels"),
        ):
            ax.axvline(0, color=GREY, linestyle=":", linewidth=1)
            ax.set(xlabel=text, ylabel="r with brightness", title=title)
    legend_below(made)
    return Picture("check", "labels, clock and boresight", made).write(folder)

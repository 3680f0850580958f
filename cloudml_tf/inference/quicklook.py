"""The quicklook beside a prediction's file: what the camera saw, what the model predicts, and what is flagged."""

import numpy as np
from matplotlib.axes import Axes

from cloudml_tf.inference.flags import FLAGS, MASKS, NO_VALUE
from cloudml_tf.inference.flight import Predicted
from cloudml_tf.reports.figure import BLUE, GREY, MUTED, ORANGE, Picture, limits, panel, styled
from cloudml_tf.reports.images import clock, draw_strip

DRAWN = 8000  # points of a line, four per pixel


@styled()
def quick_look(predicted: Predicted, name: str, label: str, interval: str) -> Picture:
    """Draw the strip, time series and flags of a whole flight, over minutes since its first frame.

    Args:
        predicted: two frames or more.
        name: name of the file.
        label: label of the vertical axis.
        interval: meaning of the band, for the legend.
    """
    time_s = predicted.flight.time_s - predicted.flight.time_s[0]
    raised = [i for i in range(len(FLAGS)) if (predicted.flags & MASKS[i]).any()]
    heights = [1.0, 2.6, 0.22 * max(len(raised), 1)]
    made, (above, middle, below) = panel((11.0, sum(heights) + 0.9), rows=3, sharex=True, height_ratios=heights)
    seen = predicted.strip[np.isfinite(predicted.strip)]
    tone = tuple(np.percentile(seen, [1, 99])) if seen.size else (0.0, 1.0)
    draw_strip(above, time_s, predicted.strip[:, :, None], predicted.nadir, tone)
    above.set_title(f"{predicted.flight.name}, minutes after {clock(predicted.flight.time_s[0])}")
    _series(middle, time_s / 60.0, predicted, interval)
    named = middle.get_legend_handles_labels()
    if named[0]:
        above.legend(*named, ncols=2, loc="lower right", bbox_to_anchor=(1, 0.97))
    half = float(np.median(np.diff(time_s))) / 2
    middle.set(ylabel=label, xlim=((time_s[0] - half) / 60.0, (time_s[-1] + half) / 60.0))
    _flags(below, time_s / 60.0, predicted.flags, raised)
    below.set_xlabel("minutes")
    return Picture(name, "", made, wide=True)


def _series(ax: Axes, minutes: np.ndarray, predicted: Predicted, interval: str) -> None:
    """Draw the prediction, interrupted where a frame has none, and its interval."""
    values, valid = predicted.values, predicted.valid
    if not valid.any():
        ax.text(0.5, 0.5, "no frame has a value", transform=ax.transAxes, ha="center", color=MUTED)
        ax.set_yticks([])
        return
    drawn = _extremes(values["value"])
    if "lower" in values:
        ends = values["lower"][drawn], values["upper"][drawn]
        ax.fill_between(minutes[drawn], *ends, color=BLUE, alpha=0.2, linewidth=0, label=interval)
    ax.plot(minutes[drawn], values["value"][drawn], color=BLUE, linewidth=1, label="prediction")
    around = np.pad(valid, 1)
    alone = valid & ~around[:-2] & ~around[2:]  # a line needs two points
    ax.plot(minutes[alone], values["value"][alone], ".", color=BLUE, markersize=3)
    ax.set_ylim(limits(np.concatenate([part[valid] for key, part in values.items() if key != "spread"])))


def _extremes(values: np.ndarray) -> np.ndarray:
    """Indices of the (N,) values that a line needs: all of them, or of a long line the lowest, the highest and, where
    there is a gap, a missing one of each section that is finer than a pixel."""
    if len(values) <= DRAWN:
        return np.arange(len(values))
    kept = []
    for piece in np.array_split(np.arange(len(values)), DRAWN // 4):
        known = piece[np.isfinite(values[piece])]
        kept.append(piece[~np.isfinite(values[piece])][:1])
        if len(known):
            kept.append(known[[values[known].argmin(), values[known].argmax()]])
    return np.unique(np.concatenate(kept))


def _flags(ax: Axes, minutes: np.ndarray, flags: np.ndarray, raised: list[int]) -> None:
    """Draw a row per raised flag, and a bar per run of such frames; grey where they have no value."""
    step = float(np.median(np.diff(minutes)))
    least = float(np.ptp(minutes)) / 700  # a bar that can be seen
    for place, number in enumerate(raised):
        bars = _runs(minutes, (flags & MASKS[number]).astype(bool), step, least)
        colour = GREY if FLAGS[number] in NO_VALUE else ORANGE
        ax.broken_barh(bars, (place - 0.3, 0.6), facecolor=colour, linewidth=0)
    ax.set_yticks(range(len(raised)), [FLAGS[number].replace("_", " ") for number in raised])
    ax.set_ylim(max(len(raised), 1) - 0.4, -0.6)
    ax.grid(visible=False)
    ax.tick_params(axis="y", length=0)
    ax.spines["left"].set_visible(False)


def _runs(minutes: np.ndarray, chosen: np.ndarray, step: float, least: float) -> list[tuple[float, float]]:
    """The (start, length) of each run of chosen frames (N,), none across a step of more than two."""
    here = np.flatnonzero(chosen)
    cut = np.flatnonzero((np.diff(here) > 1) | (np.diff(minutes[here]) > 2 * step)) + 1
    ends = [(minutes[part[0]] - step / 2, minutes[part[-1]] + step / 2) for part in np.split(here, cut)]
    return [(first, max(last - first, least)) for first, last in ends]

"""Figures of what the camera saw: a time series under its strip, and the best and worst sequences."""

import time

import numpy as np
from matplotlib.axes import Axes
from matplotlib.figure import Figure
from matplotlib.ticker import MaxNLocator

from cloudml_tf.data.motion import scene_shift
from cloudml_tf.data.readers import times
from cloudml_tf.data.samples import Samples
from cloudml_tf.reports.figure import BLUE, GREY, INK, NADIR, Picture, limits, panel, styled

ROW_S, ROWS = 900.0, 4  # a time series is cut into rows of a quarter of an hour, at most four of them
CASES, APART_S = 3, 60.0  # how many best and worst cases, and how far apart, so that they show several scenes
LARGEST, FINEST = 64, 8  # most pixels: of a frame's side, and of the strip from one label to the next


@styled()
def time_series(
    samples: Samples, target: np.ndarray, prediction: np.ndarray, unit: str, across_track_axis: str
) -> list[Picture]:
    """Draw lidar and prediction along the first flight of the samples, under the camera's strip; one figure per row.

    Args:
        samples: n sequences.
        target, prediction: (n,) in `unit`.
        unit: unit of the vertical axis.
        across_track_axis: "rows" or "columns" of the image.
    """
    here = np.flatnonzero(samples.flight == samples.flight[0])
    here = here[samples.time_s[here] - samples.time_s[here[0]] < ROWS * ROW_S]
    time_s = samples.time_s[here] - samples.time_s[here[0]]
    target, prediction = target[here], prediction[here]
    strip = camera_strip(samples, here, across_track_axis)
    axis = 0 if across_track_axis == "rows" else 1
    nadir = (samples.nadir[axis] + 0.5) / samples.frame_shape[axis]
    tone = tuple(np.percentile(strip, [1, 99]))
    start_s, name = samples.time_s[here[0]], samples.flight_names[samples.flight[here[0]]]
    found = []
    for row in range(ROWS):
        shown = (time_s >= row * ROW_S) & (time_s < (row + 1) * ROW_S)
        if shown.sum() < 2:
            continue
        made, (above, below) = panel((11.0, 2.8), rows=2, sharex=True, height_ratios=[1, 2.4])
        draw_strip(above, time_s[shown], strip[shown], nadir, tone)
        _along(below, time_s[shown] / 60.0, target[shown], prediction[shown])
        above.set_title(f"{name}, minutes after {clock(start_s)}")
        half = float(np.median(np.diff(time_s[shown]))) / 2  # of a label's part of the strip
        ends = (row * ROW_S / 60.0, min((row + 1) * ROW_S, float(time_s[-1]) + half) / 60.0)
        above.legend(*below.get_legend_handles_labels(), ncols=2, loc="lower right", bbox_to_anchor=(1, 0.97))
        below.set(ylabel=unit, ylim=limits(np.concatenate([target, prediction])), xlim=ends)
        below.xaxis.set_major_locator(MaxNLocator(10, integer=True))
        found.append(Picture(f"time_series_{row + 1}", "", made, wide=True))
    return found


def camera_strip(samples: Samples, chosen: np.ndarray, across_track_axis: str) -> np.ndarray:
    """For each middle frame, the P columns around nadir that are flown over until the next label, (k,H,P).

    Rows lie across the track, columns in the order of time; first channel, large frames thinned out. P is measured: how
    far the scene moves from one labelled frame to the next. Where that cannot be seen, P is 1, the line through nadir.
    """
    middle = samples.index[chosen, samples.index.shape[1] // 2]
    axes = (0, 1) if across_track_axis == "rows" else (1, 0)

    def frame(number: int) -> np.ndarray:
        return samples.table[middle[number]][..., 0].transpose(axes)

    shift = 1
    if len(chosen) > 1:
        step_s = np.diff(samples.time_s[chosen])
        pairs = np.flatnonzero(step_s <= 1.5 * np.median(step_s))[:20]
        shift = scene_shift(*(np.stack([frame(i + later) for i in pairs]) for later in (0, 1)))
    height, width = frame(0).shape
    count = abs(shift)
    first = int(np.clip(samples.nadir[axes[1]] - count // 2, 0, width - count))
    columns = np.arange(first, first + count, -(-count // FINEST))[:: 1 if shift > 0 else -1]
    return np.stack([frame(i)[:: -(-height // LARGEST)][:, columns] for i in range(len(chosen))])


def draw_strip(ax: Axes, time_s: np.ndarray, strip: np.ndarray, nadir: float, tone: tuple[float, ...]) -> None:
    """Draw the segments of a strip (k,H,P) side by side, each at its time; gaps stay empty. `nadir` is 0 to 1."""
    step = max(float(np.median(np.diff(time_s))), float(np.ptp(time_s)) / 800)  # not more segments than pixels
    grid = np.arange(time_s[0], time_s[-1] + step / 2, step)
    nearest, away = times.nearest(time_s, grid)
    image = np.where((np.abs(away) <= 0.75 * step)[:, None, None], strip[nearest], np.nan)  # (segments,H,P)
    flat = image.transpose(1, 0, 2).reshape(image.shape[1], -1)
    first, last = (grid[0] - step / 2) / 60.0, (grid[-1] + step / 2) / 60.0
    ends = (first, last, 1, 0)
    ax.imshow(flat, "gray", vmin=tone[0], vmax=tone[1], aspect="auto", interpolation="none", extent=ends)
    ax.axhline(nadir, color=NADIR, linewidth=1, linestyle=(0, (6, 6)))
    ax.set(yticks=[], ylabel="camera")
    ax.grid(visible=False)
    ax.tick_params(bottom=False, labelbottom=False)
    ax.spines[:].set_visible(False)


def _along(ax: Axes, minutes: np.ndarray, target: np.ndarray, prediction: np.ndarray) -> None:
    ax.vlines(minutes, target, prediction, color=GREY, alpha=0.6, linewidth=0.8)
    ax.plot(minutes, target, ".", color=INK, markersize=5, label="lidar")
    ax.plot(minutes, prediction, ".", color=BLUE, markersize=5, label="prediction")


def clock(time_s: float) -> str:
    """Format seconds since 1970 as date and time of day."""
    return time.strftime("%Y-%m-%d %H:%M:%S UTC", time.gmtime(time_s))


def cases(samples: Samples, error: np.ndarray, worst: bool) -> np.ndarray:
    """The sequences with the largest (smallest) error, (up to `CASES`,), none within a minute of another."""
    chosen: list[int] = []
    for i in np.argsort(-np.abs(error) if worst else np.abs(error), kind="stable"):
        others = np.asarray(chosen, int)
        apart_s = np.abs(samples.time_s[others] - samples.time_s[i])
        if not np.any((samples.flight[others] == samples.flight[i]) & (apart_s < APART_S)):
            chosen.append(int(i))
        if len(chosen) == CASES:
            break
    return np.asarray(chosen)


def film(
    samples: Samples,
    chosen: np.ndarray,
    target: np.ndarray,
    prediction: np.ndarray,
    attention: np.ndarray | None,
    name: str,
) -> list[Picture]:
    """Draw a figure for each chosen sequence: its frames with nadir marked, and below them their attention weights.

    Args:
        samples: n sequences of T frames.
        chosen: (k,) indices of the sequences to draw.
        target, prediction: (n,).
        attention: (k,T), or None.
        name: prefix of the files.
    """
    frames = samples.table[samples.index[chosen]][..., 0]  # (k,T,H,W)
    tone = tuple(np.percentile(frames, [1, 99]))
    found = []
    for place, i in enumerate(chosen):
        weights = None if attention is None else attention[place]
        caption = f"{samples.flight_names[samples.flight[i]]}, {clock(samples.time_s[i])}"
        title = f"lidar {target[i]:.3f}, prediction {prediction[i]:.3f}, error {prediction[i] - target[i]:+.3f}"
        made = _case(frames[place], samples.nadir, tone, weights, title)
        found.append(Picture(f"{name}_{place + 1}", caption, made))
    return found


@styled()
def _case(
    frames: np.ndarray, nadir: tuple[int, int], tone: tuple[float, ...], weights: np.ndarray | None, title: str
) -> Figure:
    """Draw frames (T,H,W) side by side, large ones thinned out."""
    count, height, width = frames.shape
    step = -(-max(height, width) // LARGEST)
    tall = 0.4 + min(3.6 / count * height / width, 1.2) + (0.0 if weights is None else 0.6)
    made = Figure(figsize=(3.6, tall), layout="constrained")
    grid = made.add_gridspec(1 if weights is None else 2, count, height_ratios=[2.6, 1][: 1 if weights is None else 2])
    for number, frame in enumerate(frames):
        ax = made.add_subplot(grid[0, number])
        ends = (0, width, height, 0)
        ax.imshow(frame[::step, ::step], "gray", vmin=tone[0], vmax=tone[1], interpolation="none", extent=ends)
        ax.plot(
            nadir[1] + 0.5, nadir[0] + 0.5, "o", markersize=7, markeredgewidth=1.6, markerfacecolor="none", color=NADIR
        )
        ax.set_axis_off()
        if weights is None:
            ax.set_anchor("W")
    made.suptitle(title, x=0.01, ha="left", fontsize=10)
    if weights is not None:
        ax = made.add_subplot(grid[1, :])
        ax.bar(np.arange(count), weights, 0.5, color=BLUE)
        for number, weight in enumerate(weights):
            ax.text(number, weight, f"{weight:.2f}", ha="center", va="bottom", fontsize=9)
        ax.set(
            xlim=(-0.5, count - 0.5), ylim=(0, 1.35 * max(float(weights.max()), 1e-6)), yticks=[], ylabel="attention"
        )
        ax.set_xticks(np.arange(count), [f"{n - count // 2:+d}" if n != count // 2 else "middle" for n in range(count)])
        ax.grid(visible=False)
    return made


@styled()
def reconstructions(target: np.ndarray, painted: np.ndarray, hidden: np.ndarray) -> Picture:
    """Draw k frames (k,H,W,C), (k,H,W): as recorded, with patches hidden, and with these painted by the network."""
    tall = 3 * 1.3 * target.shape[1] / target.shape[2] + 0.2
    made = Figure(figsize=(1.3 * len(target) + 0.3, tall), layout="constrained")
    grid = made.subplots(3, len(target), squeeze=False)
    seen = np.where(hidden, np.nan, target[..., 0])
    whole = np.where(hidden, painted[..., 0], target[..., 0])
    for row, (name, images) in enumerate((("recorded", target[..., 0]), ("seen", seen), ("painted", whole))):
        for column, ax in enumerate(grid[row]):
            tone = np.percentile(target[column, ..., 0], [1, 99])
            ax.imshow(images[column], "gray", vmin=tone[0], vmax=tone[1], interpolation="none")
            ax.set(xticks=[], yticks=[], facecolor=GREY)
            ax.grid(visible=False)
        grid[row][0].set_ylabel(name)
    return Picture("reconstructions", "Hidden squares, and what the network paints there.", made)

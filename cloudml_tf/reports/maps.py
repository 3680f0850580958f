"""Figures of a swath network, scene by scene: its images, predictions and errors."""

from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np
from matplotlib.figure import Figure

from cloudml_tf.data.scaling import TargetScaling
from cloudml_tf.data.scenes import Scenes
from cloudml_tf.reports.figure import BLUE, INK, ORANGE, Picture, legend_below, panel, styled

SIDE = 2.3  # side of a map, inches


@styled()
def scene_maps(scenes: Scenes, z: np.ndarray, scaling: TargetScaling, number: int, unit: str) -> Picture:
    """Draw the image, the truth, the prediction and its error of one scene, and the file's own retrieval if it has one.

    Args:
        scenes: the scenes of one split; the scene drawn must have labels.
        z: (n,H,W) standardised predictions.
        scaling: scaling of the target.
        number: index of the scene.
        unit: unit of the loss's space, for the caption.
    """
    seen = scenes.known[number]
    truth = np.where(seen, scaling.transform(scenes.label[number]), np.nan)
    prediction = scaling.unscale(z[number])
    shown = {"truth": truth, "network": prediction, "network - truth": prediction - truth}
    if scenes.retrieval is not None:
        other = scaling.transform(np.maximum(scenes.retrieval[number], 0.0))
        shown |= {"retrieval": other, "retrieval - truth": other - truth}
    mse = float(np.mean((prediction - truth)[seen] ** 2))
    caption = f"Scene {scenes.names[number]}: mean squared error {mse:.2f}; maps in {unit}."
    frames = scenes.frames[number]  # (H,W,C), or (T,H,W,C), whose middle one is shown
    made = _side_by_side((frames if frames.ndim == 3 else frames[len(frames) // 2])[..., 0], shown)
    return Picture(f"scene_{scenes.names[number]}".replace(" ", "_"), caption, made, wide=True)


def _side_by_side(image: np.ndarray, shown: Mapping[str, np.ndarray]) -> Figure:
    """Draw the image and maps (H,W); "truth" and the maps compared with it share one scale, errors another."""
    rows, columns = (1, 4) if len(shown) == 3 else (2, 3)
    made = Figure(figsize=(SIDE * columns * 1.15, SIDE * rows), layout="constrained")
    axes = list(made.subplots(rows, columns, squeeze=False).ravel())
    axes[0].imshow(image, cmap="gray", vmin=0.0, vmax=float(np.quantile(image, 0.995)))
    axes[0].set_title("first channel")
    low, high = float(np.nanmin(shown["truth"])), float(np.nanmax(shown["truth"]))
    for ax, (title, values) in zip(axes[1:], shown.items(), strict=True):
        scale: Any = {"cmap": "RdBu_r", "vmin": -3, "vmax": 3} if " - " in title else {"vmin": low, "vmax": high}
        made.colorbar(ax.imshow(values, **scale), ax=ax, shrink=0.8)
        ax.set_title(title)
    for ax in axes:
        ax.set(xticks=[], yticks=[])
        ax.grid(visible=False)
    return made


def worst_and_best(scenes: Scenes, z: np.ndarray, scaling: TargetScaling, count: int = 3) -> list[int]:
    """The indices of the labelled scenes with the largest and with the smallest mean squared error."""
    error = np.where(scenes.known, (scaling.unscale(z) - scaling.transform(scenes.label)) ** 2, 0.0)
    size = np.maximum(scenes.known.sum(axis=(1, 2)), 1)
    worst_first = np.argsort(error.sum(axis=(1, 2)) / size)[::-1]
    order = [int(number) for number in worst_first if scenes.known[number].any()]
    return [*order[:count], *order[max(len(order) - count, count) :]]


@styled()
def decade_bias(rows: Sequence[Mapping[str, float]], unit: str) -> Picture:
    """Draw bias and RMSE over the predicted value, with the number of pixels."""
    made, (ax,) = panel((3.6, 3.0))
    place = np.arange(len(rows))
    ax.bar(place - 0.2, [row["bias"] for row in rows], 0.4, color=ORANGE, label="bias")
    ax.bar(place + 0.2, [row["rmse"] for row in rows], 0.4, color=BLUE, label="RMSE")
    for at, row in zip(place, rows, strict=True):
        ax.annotate(f"{row['n']:,}", (at, max(row["rmse"], 0.0)), ha="center", va="bottom", fontsize=8)
    ax.axhline(0, color=INK, linewidth=1)
    ax.set_xticks(place, [_decade(row) for row in rows])
    ax.margins(y=0.12)
    ax.set(xlabel="predicted value", title=f"By decade, {unit}")
    legend_below(made)
    return Picture("decades", "The number of pixels is above the bars.", made)


def _decade(row: Mapping[str, float]) -> str:
    if row["from"] == 0:
        return f"< {row['to']:g}"
    return f"> {row['from']:g}" if np.isinf(row["to"]) else f"{row['from']:g}-{row['to']:g}"

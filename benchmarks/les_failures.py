"""Where the swath network of the LES scenes fails, in numbers and pictures: `python benchmarks/les_failures.py`.

Reads the runs of `les_table.py --all`. Kinds of pixels: the core of a thick cloud (COT above 30), shadow (COT under
0.3, and darker at 0.66 µm than half of the scene's clear sky), the edge of a cloud (COT above 0.05 beside a pixel under
0.01), and all others. The pictures are crops around the worst pixels of each kind, no two of one scene.
"""

import argparse
from pathlib import Path
from typing import Any

import numpy as np
from les_table import UNIT, all_scenes, answers, fold_names, mean_answer, physics
from matplotlib.figure import Figure
from scipy.ndimage import minimum_filter

from cloudml_tf.data.scenes import Scenes
from cloudml_tf.evaluation.collect import decades
from cloudml_tf.reports.figure import Picture, styled
from cloudml_tf.reports.maps import decade_bias

REACH = 12  # pixels of a crop on each side


def kinds(scenes: Scenes) -> dict[str, np.ndarray]:
    """(n,H,W) masks, no pixel in two of them."""
    cot, red = scenes.label, scenes.frames[..., 0]
    clear = np.where(cot < 0.01, red, np.nan)
    sky = np.nanmedian(clear.reshape(len(red), -1), axis=1)[:, None, None]
    beside = minimum_filter(cot, size=(1, 3, 3), mode="wrap") < 0.01
    thick = cot > 30.0
    shadow = (cot < 0.3) & (red < 0.5 * sky)
    edge = (cot > 0.05) & beside & ~thick & ~shadow
    return {"thick core": thick, "shadow": shadow, "edge": edge, "other": ~(thick | shadow | edge)}


def table(scenes: Scenes, answer: np.ndarray) -> str:
    """Markdown: what each kind of pixel costs, for the network and for the retrieval."""
    truth = UNIT.transform(scenes.label)
    ours, theirs = (UNIT.transform(found) - truth for found in (answer, physics(scenes)))
    lines = ["| pixels | share | of our squared error | MSE | bias | IPA: MSE | bias |", "|---" * 7 + "|"]
    for name, here in kinds(scenes).items():
        part = (ours[here] ** 2).sum() / (ours**2).sum()
        cells = [f"{here.mean():.1%}", f"{part:.1%}"]
        for error in (ours[here], theirs[here]):
            cells += [f"{np.mean(error**2):.3f}", f"{error.mean():+.3f}"]
        lines.append(f"| {name} | {' | '.join(cells)} |")
    return "\n".join(lines)


def worst(scenes: Scenes, answer: np.ndarray, here: np.ndarray, count: int = 3) -> list[tuple[int, int, int]]:
    """(scene, row, column) of the largest errors of one kind of pixel, smoothed over 3 x 3, one a scene."""
    error = np.where(here, (UNIT.transform(answer) - UNIT.transform(scenes.label)) ** 2, 0.0)
    nearby = np.sum([np.roll(error, (a, b), axis=(1, 2)) for a in (-1, 0, 1) for b in (-1, 0, 1)], axis=0)
    best = nearby.reshape(len(error), -1).max(axis=1).argsort()[::-1][:count]
    places = [(n, np.unravel_index(nearby[n].argmax(), nearby[n].shape)) for n in best]
    return [(int(n), int(row), int(column)) for n, (row, column) in places]


@styled()
def crops(scenes: Scenes, answer: np.ndarray, places: list[tuple[int, int, int]], name: str) -> Picture:
    """A row a place: image, truth, network, its error, retrieval and its error; light comes from the left."""
    made = Figure(figsize=(13.2, 2.2 * len(places) + 0.4), layout="constrained")
    grid = made.subplots(len(places), 6, squeeze=False)
    for axes, (n, row, column) in zip(grid, places, strict=True):
        shift = (scenes.label.shape[1] // 2 - row, scenes.label.shape[2] // 2 - column)

        def crop(maps: np.ndarray, n: int = n, shift: tuple[int, int] = shift) -> np.ndarray:
            middle = np.roll(maps[n], shift, axis=(0, 1))
            top, left = middle.shape[0] // 2 - REACH, middle.shape[1] // 2 - REACH
            return middle[top : top + 2 * REACH + 1, left : left + 2 * REACH + 1]

        truth, ours, theirs = (UNIT.transform(crop(m)) for m in (scenes.label, answer, physics(scenes)))
        shown = [truth, ours, ours - truth, theirs, theirs - truth]
        axes[0].imshow(crop(scenes.frames[..., 0]), cmap="gray")
        axes[0].set_ylabel(f"scene {scenes.names[n]}")
        for ax, values, error in zip(axes[1:], shown, (False, False, True, False, True), strict=True):
            options: Any = {"cmap": "RdBu_r", "vmin": -4, "vmax": 4} if error else {"vmin": -4.6, "vmax": 5}
            drawn = ax.imshow(values, **options)
            made.colorbar(drawn, ax=ax, shrink=0.8)
        for ax in axes:
            ax.set(xticks=[], yticks=[])
            ax.grid(visible=False)
    for ax, title in zip(
        grid[0], ("0.66 µm", "truth", "network", "network - truth", "IPA", "IPA - truth"), strict=True
    ):
        ax.set_title(title)
    return Picture(name, "", made)


def main() -> None:
    """The door."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--folder", default="runs/les-table", help="of the runs of les_table.py")
    parser.add_argument("--seeds", type=int, nargs="+", default=[1])
    parser.add_argument("-o", "--output", default="docs/model-cards/les-swath", help="of the pictures")
    args = parser.parse_args()
    names, found = [], []
    for fold in range(1, 5):
        folders = [Path(args.folder) / f"fold{fold}" / f"seed{seed}" for seed in args.seeds]
        found.append(mean_answer(answers(folders, "test")[1]))
        names += fold_names(fold)["test"]
    scenes, answer = all_scenes().named(names), np.concatenate(found)
    print(table(scenes, answer))
    for name, here in kinds(scenes).items():
        if name != "other":
            picture = crops(scenes, answer, worst(scenes, answer, here), name.replace(" ", "_"))
            print(picture.write(Path(args.output)))
    print(decade_bias(decades(scenes, UNIT.transform(answer), UNIT), "ln(COT + 0.01)").write(Path(args.output)))


if __name__ == "__main__":
    main()

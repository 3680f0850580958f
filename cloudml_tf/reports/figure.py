"""The basis of every figure: one style, one set of colours, one way into a file and into a page.

A `Picture` is small enough to be read at the width of a telephone; a page puts several side by side. It is written as a
PNG, and goes into a page as an SVG whose colours follow the page's theme. Dense content is a bitmap inside it.
"""

import contextlib
import io
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import matplotlib as mpl
import numpy as np
from matplotlib.axes import Axes
from matplotlib.backends.backend_agg import FigureCanvasAgg
from matplotlib.colors import LinearSegmentedColormap
from matplotlib.figure import Figure

from cloudml_tf.reports.html import COLOURS, Markup, inline_svg, picture, pictures
from cloudml_tf.utils.files import whole_file

LIGHT = {name: pair[0] for name, pair in COLOURS.items()}
INK, MUTED, LINE, GREY = LIGHT["ink"], LIGHT["muted"], LIGHT["line"], LIGHT["grey"]
BLUE, ORANGE, GREEN = LIGHT["blue"], LIGHT["orange"], LIGHT["green"]
CYCLE = [LIGHT[name] for name in ("blue", "orange", "green", "violet", "red", "teal", "amber", "grey")]
REFERENCES = {  # colour and marker, the same in every picture
    "mean": (GREY, "x"),
    "ridge": (GREY, "s"),
    "gradient_boosting": (ORANGE, "s"),
    "pixel_boosting": (ORANGE, "s"),
    "plane_sweep": (INK, "^"),
    "oracle": (INK, "D"),
}
# Bitmaps do not follow the theme: a blue between the two, and density as opacity, are right on light and on dark.
DENSITY = LinearSegmentedColormap.from_list("density", [(0.25, 0.53, 0.85, 0.3), (0.25, 0.53, 0.85, 1.0)])
PANEL = (3.6, 2.7)  # inches
NADIR = "#ff9d2e"  # seen on any grey, in either theme
STYLE: Any = {
    "font.size": 10,
    "axes.spines.top": False,
    "axes.spines.right": False,
    "axes.grid": True,
    "axes.axisbelow": True,
    "axes.titlelocation": "left",
    "axes.titlesize": 10,
    "axes.facecolor": "none",
    "grid.color": LINE,
    "axes.edgecolor": GREY,
    "text.color": INK,
    "axes.labelcolor": INK,
    "xtick.color": MUTED,
    "ytick.color": MUTED,
    "legend.frameon": False,
    "legend.fontsize": 9,
    "axes.formatter.use_mathtext": False,
    "axes.unicode_minus": True,
    "svg.fonttype": "none",
}


@contextlib.contextmanager
def styled() -> Iterator[None]:
    """Draw in the common style: a decorator for every function that draws."""
    with mpl.rc_context(STYLE):
        yield


@dataclass(frozen=True)
class Picture:
    """A drawn figure, the name of its file, and its caption on a page."""

    name: str
    caption: str
    figure: Figure
    wide: bool = False

    @styled()
    def write(self, folder: Path) -> Path:
        """Write a PNG, whole or not at all."""
        path = folder / f"{self.name}.png"
        with whole_file(path) as temporary:
            self._save(temporary, format="png", dpi=110)
        return path

    @styled()
    def html(self) -> Markup:
        """Render the figure as an element of a page."""
        text = io.StringIO()
        with mpl.rc_context({"svg.hashsalt": self.name}):  # unique identifiers on the page
            self._save(text, format="svg", dpi=200, transparent=True)
        return picture(inline_svg(text.getvalue(), f"{self.name}: {self.caption}"), self.caption, self.wide)

    def _save(self, target: Any, **options: Any) -> None:
        """Draw the figure; its layout, which takes as long as the drawing, is computed the first time only."""
        self.figure.savefig(target, **options)
        self.figure.set_layout_engine("none")


def side_by_side(drawn: Sequence[Picture]) -> Markup:
    """Arrange figures in a grid whose columns are never so narrow that the text falls below 10 pixels."""
    narrow = [one.figure.get_figwidth() for one in drawn if not one.wide]
    return pictures(*[one.html() for one in drawn], least_rem=72 * 1.02 * min(narrow, default=PANEL[0]) / 16)


def panel(size: tuple[float, float] = PANEL, rows: int = 1, **options: Any) -> tuple[Figure, list[Axes]]:
    """Make a figure outside pyplot, which keeps global state and opens windows."""
    made = Figure(figsize=size, layout="constrained")
    FigureCanvasAgg(made)
    return made, list(made.subplots(rows, 1, squeeze=False, **options).ravel())


def legend_below(made: Figure) -> None:
    """Put one legend below all axes of a figure, where it hides nothing; long names get a row each."""
    named = [label for ax in made.axes for label in ax.get_legend_handles_labels()[1]]
    fit = int(14 * made.get_figwidth()) // (max(map(len, named)) + 7)  # characters in a row, with the lines before them
    made.legend(loc="outside lower center", ncols=max(min(fit, len(named)), 1))


def colour_of(number: int) -> str:
    """The colour of the run with that number, in every figure."""
    return CYCLE[number % len(CYCLE)]


def worded(unit: str) -> str:
    """The name of a target as an axis label: "optical depth" for optical_depth, "cloud base, km" for cloud_base_km."""
    return unit.removesuffix("_km").replace("_", " ") + (", km" if unit.endswith("_km") else "")


def limits(values: np.ndarray) -> tuple[float, float]:
    """The range of some values with a margin; never empty."""
    low, high = float(values.min()), float(values.max())
    margin = 0.04 * (high - low) or 0.5
    return low - margin, high + margin

"""The figures of an ensemble: intervals along a flight, spread against error, coverage of each flight."""

from typing import Any

import numpy as np

from cloudml_tf.evaluation.uncertainty import centre, spread, spread_and_skill
from cloudml_tf.inference.ensemble.calibration import Judged, percent
from cloudml_tf.inference.ensemble.combination import Combination
from cloudml_tf.reports.figure import BLUE, GREY, INK, ORANGE, Picture, legend_below, limits, panel, styled, worded

LONGEST_S, ROWS = 1800.0, 4  # how much of a flight is drawn, and of how many flights


def draw(combination: Combination, test: Judged, metrics: dict[str, Any]) -> list[Picture]:
    """Draw every figure that the data allow."""
    unit = worded(metrics["space"]["loss"])
    found = []
    if combination.q is not None:
        each = metrics["intervals"]["test"]
        if test.examples.time_s is not None and test.examples.label.ndim == 1:
            found += [along(combination, test, name, unit, each[name]) for name in list(each)[:ROWS]]
        found.append(coverage(metrics["intervals"]))
    members = combination.members(test.outputs)
    if len(members) > 1:
        target = combination.target.transform(test.label)
        found.append(spread_skill(spread(members), centre(members) - target, unit))
    return found


@styled()
def along(combination: Combination, test: Judged, name: str, unit: str, found: dict[str, Any]) -> Picture:
    """Draw intervals, prediction and lidar along the first half hour of a flight; labels outside in orange."""
    here = np.flatnonzero(test.flights() == name)
    time_s = np.asarray(test.examples.time_s)
    here = here[time_s[here] - time_s[here[0]] < LONGEST_S]
    outputs = [output[here] for output in test.outputs]
    low, high = combination.band(outputs).widened(combination.q or 0.0)
    target = combination.target.transform(test.label[here])
    minutes = (time_s[here] - time_s[here[0]]) / 60.0
    outside = (target < low) | (target > high)
    made, (ax,) = panel((11.0, 2.8))
    step = float(np.median(np.diff(minutes))) if len(minutes) > 1 else 1.0
    starts = np.flatnonzero(np.diff(minutes, prepend=-np.inf) > 3 * step)  # a gap in time has no interval
    for first, last in zip(starts, [*starts[1:], len(here)], strict=True):
        part = slice(first, last)
        ax.fill_between(minutes[part], low[part], high[part], color=BLUE, alpha=0.2, linewidth=0, step="mid")
        ax.plot(minutes[part], centre(combination.members(outputs))[part], color=BLUE, linewidth=1)
    ax.plot(minutes[~outside], target[~outside], ".", color=INK, markersize=5, label="lidar, inside")
    ax.plot(minutes[outside], target[outside], "x", color=ORANGE, markersize=6, label="lidar, outside")
    ax.plot([], [], color=BLUE, linewidth=6, alpha=0.3, label=f"{percent(combination.level)} interval")
    ax.set(xlabel="minutes", ylabel=unit, ylim=limits(np.concatenate([target, low, high])))
    ax.set_title(f"{name}: {percent(found['coverage'])} of {found['n']} labels inside, mean width {found['width']:.2f}")
    ax.legend(ncols=3, loc="lower right", bbox_to_anchor=(1, 0.99))
    return Picture(f"intervals_{name}", "", made, wide=True)


@styled()
def coverage(intervals: dict[str, Any]) -> Picture:
    """Draw the coverage of each test flight, compared with the nominal level and the spread alone."""
    names = list(intervals["test"])
    made, (ax,) = panel((3.6, max(0.3 * len(names) + 1.4, 2.2)))
    place = np.arange(len(names))[::-1]
    for key, colour, marker, label in (
        ("coverage", BLUE, "o", "calibrated"),
        ("spread_alone", GREY, "s", "spread alone"),
    ):
        values = [100 * intervals["test"][name][key] for name in names]
        ax.plot(values, place, marker, color=colour, markersize=6, linestyle="", label=label)
    ax.axvline(100 * intervals["level"], color=INK, linewidth=1, linestyle="--")
    ax.set_yticks(place, names)
    ax.set(xlim=(0, 103), ylim=(-0.6, len(names) - 0.4), xlabel="labels inside, %", title="Coverage of test flights")
    legend_below(made)
    return Picture("coverage", f"Dashed: the nominal {percent(intervals['level'])}.", made)


@styled()
def spread_skill(between: np.ndarray, error: np.ndarray, unit: str) -> Picture:
    """Draw the root mean square error over the spread between members, in bins of equal number."""
    x, y = spread_and_skill(between, error)
    made, (ax,) = panel((3.6, 3.5))
    top = 1.08 * float(max(x.max(), y.max()))
    ax.plot([0, top], [0, top], color=INK, linewidth=1, label="1:1")
    ax.plot(x, y, color=BLUE, marker="o", markersize=5, label="bins by spread")
    ax.set(xlim=(0, top), ylim=(0, top), aspect="equal", xlabel=f"spread, {unit}", ylabel=f"RMSE, {unit}")
    ax.locator_params(nbins=5)
    ax.set_title("Spread and skill")
    legend_below(made)
    return Picture("spread_skill", "Above the line, errors exceed the spread: members share errors.", made)

"""Combine members' predictions: mean, spread and interval. The same lines serve the scores and the exported model.

Everything is computed in the loss's space, where the members were trained, and converted to physical units last, ends
of intervals included, since the logarithm keeps order. Smearing turns a median into a mean; ends are quantiles.
"""

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np

from cloudml_tf.data.scaling import TargetScaling
from cloudml_tf.evaluation.uncertainty import Band, Scale, centre, spread
from cloudml_tf.inference.heads import MemberHead
from cloudml_tf.utils.errors import ConfigError


@dataclass(frozen=True)
class Combination:
    """One rule for all members.

    Args:
        voices: the head of each member.
        target: log and smearing of the prediction in physical units.
        level: the nominal coverage of an interval.
        scale: the quantity that the width of an interval follows.
        floor: the errors that members share: a unit is √(spread² + floor²), as variances add up.
        q: from calibration; None where there is none.
    """

    voices: tuple[MemberHead, ...]
    target: TargetScaling
    level: float = 0.9
    scale: Scale = "spread"
    floor: float = 0.0
    q: float | None = None

    def members(self, outputs: Sequence[Any], xp: Any = np) -> Any:
        """Convert outputs of the m members to (m,n) in the loss's space. Passes of one network share its head."""
        each = len(outputs) // len(self.voices)
        return xp.stack([self.voices[i // each].point(output) for i, output in enumerate(outputs)])

    def band(self, outputs: Sequence[Any], xp: Any = np) -> Band:
        """The basis of the interval, in the loss's space."""
        members = self.members(outputs, xp)
        mean, between = centre(members, xp), spread(members, xp)
        if self.scale == "spread":
            return Band(mean, mean, xp.sqrt(between**2 + self.floor**2))
        if self.scale == "constant":
            return Band(mean, mean, xp.ones_like(mean))
        each, tail = len(outputs) // len(self.voices), 0.5 * (1.0 - self.level)
        ends = [
            xp.stack([self.voices[i // each].quantile(output, level, xp) for i, output in enumerate(outputs)])
            for level in (tail, 1.0 - tail)
        ]
        return Band(centre(ends[0], xp), centre(ends[1], xp), xp.ones_like(mean))

    def physical(self, value: Any, xp: Any = np) -> Any:
        """Convert a prediction from the loss's space to physical units."""
        return self.target.untransform(value, self.target.smearing, xp)

    def answer(self, outputs: Sequence[Any], xp: Any = np) -> dict[str, Any]:
        """The predictions in physical units: "mean" and "spread", and "lower" and "upper" once calibrated. (n,)
        each."""
        members = self.members(outputs, xp)
        found = {"mean": self.physical(centre(members, xp), xp), "spread": spread(self.physical(members, xp), xp)}
        if self.q is None:
            return found
        low, high = (self.target.untransform(end, xp=xp) for end in self.band(outputs, xp).widened(self.q, xp))
        return {**found, "lower": low, "upper": high}


def choose_scale(asked: str, voices: Sequence[MemberHead], members: int) -> Scale:
    """Choose what widths follow: a head with a distribution, else the spread between members."""
    heads = all(voice.head != "point" for voice in voices)
    if asked == "head" and not heads:
        raise ConfigError("--scale head needs members with a quantile or histogram head. Use spread or constant.")
    if asked == "spread" and members < 2:
        raise ConfigError("--scale spread needs two members or more. Name further runs, or use --mc-dropout.")
    if asked == "head" or (asked == "auto" and heads):
        return "head"
    return "constant" if asked == "constant" else "spread"

"""Read the outputs of a network's head: the point value, its spread and its quantiles."""

from dataclasses import dataclass
from typing import Any

import numpy as np

from cloudml_tf.config.schema import Config
from cloudml_tf.evaluation.uncertainty import quantile_of_quantiles, quantile_of_shares
from cloudml_tf.nn.heads import POINT, quantile_levels


@dataclass(frozen=True)
class MemberHead:
    """How to read one member's output (n,1) or (n,1+K)."""

    mean: float  # of its training target, in the loss's space
    std: float
    head: str = "point"
    bin_range: tuple[float, float] = (0.0, 0.0)
    further: int = 0  # predictions of other quantities behind the point
    distributions: int = 1  # of which the first is the target's
    number: int = 0  # the quantity that is read: the target, or a further one

    @classmethod
    def of(cls, config: Config, description: dict[str, Any]) -> "MemberHead":
        """The head of a run, from its configuration and data description."""
        target = description["scaling"]["target"]
        return cls(
            target["mean"],
            target["std"],
            config.model.head,
            config.model.bin_range,
            len(config.target.further),
            config.distributions,
        )

    def point(self, output: Any) -> Any:
        """The prediction in the loss's space, (n,·) -> (n,)."""
        return output[:, POINT + self.number] * self.std + self.mean

    def quantile(self, output: Any, level: float, xp: Any = np) -> Any:
        """A quantile of the head's distribution in the loss's space, (n,1+K) -> (n,)."""
        columns = output[:, POINT + 1 + self.further :]
        count = columns.shape[-1] // self.distributions
        columns = columns[:, self.number * count : (self.number + 1) * count]
        if self.head == "histogram":
            return quantile_of_shares(columns, level, *self.bin_range, xp=xp) * self.std + self.mean
        return quantile_of_quantiles(columns, level, quantile_levels(columns.shape[-1]), xp) * self.std + self.mean

"""The quantities that a network can be trained to predict, and what the code needs to know of each.

To add one: a name in `TargetName`, a row in `QUANTITIES`, the field of `data.lidar` that the row names, and a rule of
`data/discovery/rules.py` by which `init --from` finds its dataset. Where a target has its labels (nadir, track, swath)
is `cloudml_tf.config.coverage`.
"""

from dataclasses import dataclass
from typing import Literal

TargetName = Literal["optical_depth", "cloud_base_km", "cloud_top_km"]


@dataclass(frozen=True)
class Quantity:
    """A target: where its labels are, what they may be, and its names in files for people."""

    lidar: str  # the field of data.lidar that names its dataset
    unit: Literal["1", "km"]  # of labels and predictions: "1" or "km"
    of_column: bool  # the layers of a column add up; where the beam ended, the sum is a lower limit
    usual: tuple[float, float]  # the default of target.minimum and target.maximum
    largest: float  # no layer has more
    variable: str  # in prediction files
    standard_name: str  # of the CF conventions
    long_name: str
    meaning: str  # in a sentence of the model card
    of_layer: Literal["top", "base"] | None = None  # which end of a cloud's layer it is, if it is one

    @property
    def is_height(self) -> bool:
        """Whether labels are heights, which data.lidar.height_unit may convert."""
        return self.unit == "km"


def _height(part: Literal["top", "base"]) -> Quantity:
    """The height of a part of a cloud, "base" or "top"."""
    return Quantity(
        lidar=part,
        unit="km",
        of_column=False,
        usual=(0.05, 20.0),
        largest=30.0,
        variable=f"cloud_{part}_altitude",
        standard_name=f"cloud_{part}_altitude",
        long_name=f"cloud {part} altitude",
        meaning=f"height of the cloud's {part}",
        of_layer=part,
    )


QUANTITIES: dict[str, Quantity] = {
    "optical_depth": Quantity(
        lidar="optical_depth",
        unit="1",
        of_column=True,
        usual=(0.1, 2.0),
        largest=1000.0,
        variable="cloud_optical_depth",
        standard_name="atmosphere_optical_thickness_due_to_cloud",
        long_name="cloud optical depth",
        meaning="cloud optical depth at the lidar's wavelength, of the whole column",
    ),
    "cloud_base_km": _height("base"),
    "cloud_top_km": _height("top"),
}

"""The geometry of a camera that moves: what turns the motion of a cloud through the images into its height."""

import re
from typing import Annotated, Literal, Self

from pydantic import AfterValidator, BaseModel, ConfigDict, Field, model_validator

POSITIONS = "positions"  # the source of what follows from the positions of the frames
SOURCE = "a number, `navigation:DATASET`, `camera:DATASET`, or `camera:@ATTRIBUTE` of the file"


def _source(given: float | str | None) -> float | str | None:
    if isinstance(given, str) and not re.fullmatch(r"(navigation|camera):@?[^@:\s][^:]*", given):
        raise ValueError(f"needs {SOURCE}")
    return given


def _track(given: float | str | None) -> float | str | None:
    return given if given == POSITIONS else _source(given)


Source = Annotated[float | str | None, AfterValidator(_source)]
Track = Annotated[float | str | None, AfterValidator(_track)]  # what follows from positions too


class Geometry(BaseModel):
    """Altitude, motion, attitude and wind. Each is a number, or where to read it: a dataset, or an attribute of a file.

    A source that you name must exist; where a default one is missing, the geometry counts as unknown. Without the
    wind, it counts as calm.
    """

    model_config = ConfigDict(frozen=True, extra="forbid", allow_inf_nan=False)

    altitude: Source = Field("navigation:nav/altitude", description=f"Camera above sea level, m: {SOURCE}.")
    ground_speed: Track = Field(
        "navigation:nav/groundSpeed",
        description="Speed over ground, m/s; `positions` takes it from latitude and longitude, as a missing one is.",
    )
    pixel_m: Source = Field("camera:@pixel_m", description="Side of a pixel at sea level straight below, m.")
    pixel_mrad: Source = Field(None, description="The same as an angle, mrad: set this one or pixel_m.")
    roll: Source = Field("navigation:nav/roll", description="Degrees; missing is 0, level.")
    pitch: Source = Field("navigation:nav/pitch", description="Degrees; missing is 0, level.")
    drift: Source = Field(
        None, description="Course over ground minus heading, degrees; where it is null, from `course`, else 0."
    )
    course: Track = Field(
        None, description="Course over ground, degrees from north, or `positions`; with data.navigation.heading."
    )
    camera_roll_deg: float = Field(
        0.0, ge=-45, le=45, description="The camera's own tilt in the aircraft, added to roll: its boresight."
    )
    camera_pitch_deg: float = Field(0.0, ge=-45, le=45, description="The same for pitch.")
    camera_yaw_deg: float = Field(
        0.0,
        ge=-180,
        le=180,
        description="How far the camera's forward direction is turned to the right of the heading.",
    )
    wind_along: Source = Field(
        "navigation:weather/windAlongTrack",
        description="The clouds' wind along the track, m/s; from behind is positive.",
    )
    wind_across: Source = Field(
        "navigation:weather/windAcrossTrack",
        description="The clouds' wind across the track, m/s; to the right is positive.",
    )
    wind_error_m_s: float | None = Field(
        None,
        ge=0,
        le=50,
        description="Standard error of that wind, m/s, beyond that of the training's wind: it widens the intervals of "
        "heights, and `check` says by how much.",
    )
    wind_speed: Source = Field(
        None,
        description="Speed of the clouds' wind, m/s, with wind_from; instead of wind_along and wind_across. An "
        "aircraft's own wind is that of its flight level: name it here only if it is the clouds' too.",
    )
    wind_from: Source = Field(None, description="Direction from which that wind blows, degrees from north.")
    roll_positive: Literal["right wing down", "left wing down"] = Field(
        "right wing down", description="What a positive roll means; in aviation the right wing is down."
    )
    pitch_positive: Literal["nose up", "nose down"] = Field(
        "nose up", description="What a positive pitch means; in aviation the nose is up."
    )
    forward: Literal["increasing", "decreasing"] = Field(
        "increasing", description="Whether the image's index along the track grows forward."
    )
    right: Literal["increasing", "decreasing"] = Field(
        "increasing", description="Whether the image's index across the track grows to the right."
    )
    network_input: bool = Field(
        False, description="Whether the network reads it; model.architecture 'cost_volume' does, and sets it."
    )
    sweep_top_km: float = Field(
        6.0, gt=0, le=25, description="Highest height that is tried, by the plane sweep and by a cost volume."
    )
    least_contrast: float = Field(
        0.02,
        ge=0,
        description="Spread over mean of the grey values around nadir, below which `predict` flags little texture; "
        "0.0005 for brightness temperatures in K, whose mean is large.",
    )
    sweep_step_km: float = Field(0.1, gt=0, le=1, description="Step of the heights that are tried.")

    @model_validator(mode="after")
    def _one_of_each(self) -> Self:
        named = {name for name in type(self).model_fields if self._is_named(name)}
        for one, other in (("pixel_m", "pixel_mrad"), ("drift", "course")):
            if {one, other} <= named:
                raise ValueError(f"{one} and {other} say the same; keep one")
        if len(named & {"wind_speed", "wind_from"}) == 1:
            raise ValueError("wind_speed and wind_from belong together; name both")
        if {"wind_speed", "wind_from"} <= named and named & {"wind_along", "wind_across"}:
            raise ValueError("wind_along with wind_across, and wind_speed with wind_from, say the same; keep one pair")
        if (self.wind_along is None) != (self.wind_across is None):
            raise ValueError("wind_along and wind_across belong together; name both, or set both to null")
        return self

    def _is_named(self, name: str) -> bool:
        """Whether a source is given, and other than the default."""
        given = getattr(self, name)
        return given is not None and given != type(self).model_fields[name].default

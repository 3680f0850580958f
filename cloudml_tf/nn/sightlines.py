"""Where a moving camera sees a point of a cloud: the formula that turns the motion of a cloud into its height.

Plain arithmetic that serves NumPy arrays and tensors alike; no library is imported. Letters: B batch, T time.

A camera at altitude H flies at a ground speed of v. A cloud at height h, which the wind w carries along, moves through
the image at (v - w)/(H - h) radians a second: higher clouds are faster. Times the pixels of a radian that is a motion
in pixels. It depends on neither gain, sun nor surface, so it is the same on every flight. Attitude moves the image
too: a nose that is up looks ahead, a right wing that is down looks to the left. Source: stereography of clouds from one
moving camera, Kölling et al. (2019), Atmos. Meas. Tech. 12, 1155.
"""

from typing import Any

# What is known of each frame, in this order. The axes are those of the image: forward and right of the camera. Time
# counts from any moment, the same for the frames of a sequence.
GEOMETRY = (
    "time_s", "altitude_km", "pixels_per_radian", "roll_deg", "pitch_deg",
    "forward_m_s", "right_m_s", "wind_forward_m_s", "wind_right_m_s",
)  # fmt: skip
TIME, ALTITUDE, SCALE, ROLL, PITCH, FORWARD, RIGHT, WIND_FORWARD, WIND_RIGHT = range(len(GEOMETRY))
# The columns that change sign in a mirror image across the track; and in one along the track, where the flight is also
# reversed in time.
MIRRORED_ACROSS, MIRRORED_ALONG = (ROLL, RIGHT, WIND_RIGHT), (TIME, PITCH, RIGHT, WIND_RIGHT)
RADIANS = 3.141592653589793 / 180.0


def signs(mirrored: tuple[int, ...]) -> tuple[float, ...]:
    """A factor for each of the 9 columns: -1 for those that a mirror image turns round, else 1."""
    return tuple(-1.0 if column in mirrored else 1.0 for column in range(len(GEOMETRY)))


def nadir_px(geometry: Any) -> tuple[Any, Any]:
    """How far ahead and to the right of the camera's axis nadir lies, in pixels, for (..., 9) -> (...), (...)."""
    scale = geometry[..., SCALE]
    return -scale * geometry[..., PITCH] * RADIANS, scale * geometry[..., ROLL] * RADIANS


def km_per_wind(geometry: Any, height_km: Any) -> Any:
    """The km of height that 1 m/s of wind along the track looks like: (..., 9), (...) -> (...)."""
    return (geometry[..., ALTITUDE] - height_km) / (geometry[..., FORWARD] - geometry[..., WIND_FORWARD])


def motion_px_km(geometry: Any, middle: int) -> tuple[Any, Any]:
    """How fast a cloud moves through a sequence: pixels ahead and to the right, times km.

    Divided by the distance from camera to cloud in km it is how far ahead of nadir and to the right of it, in each
    frame, that point of the cloud lies which is at nadir in the middle one. (B,T,9) -> (B,T), (B,T).
    """
    here = geometry[:, middle : middle + 1]
    elapsed = geometry[..., TIME] - here[..., TIME]
    found = []
    for speed, wind in ((FORWARD, WIND_FORWARD), (RIGHT, WIND_RIGHT)):
        mean = 0.5 * (geometry[..., speed] + here[..., speed]) - here[..., wind]  # m/s, relative to the cloud
        found.append(-0.001 * geometry[..., SCALE] * mean * elapsed)
    return found[0], found[1]

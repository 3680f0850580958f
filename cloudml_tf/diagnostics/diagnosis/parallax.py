"""What the frames of a training show of the heights that its lidar knows, and whether the network looks at it.

Where the height is known, so is the place at which every frame should show the cloud. What is left over across the
track is wind, steady through a flight, or attitude, which comes and goes. A second or two for a thousand labels.
"""

import warnings
from pathlib import Path
from typing import Any

import numpy as np

from cloudml_tf.config.schema import Config
from cloudml_tf.data.plane_sweep import positions_px, residual_px
from cloudml_tf.data.samples import Samples
from cloudml_tf.diagnostics.diagnosis.evidence import Attitude, Parallax
from cloudml_tf.nn.sightlines import (
    ALTITUDE,
    FORWARD,
    PITCH,
    RIGHT,
    ROLL,
    SCALE,
    TIME,
    WIND_FORWARD,
    WIND_RIGHT,
    km_per_wind,
)

LOOKED_AT, ASKED, AT_ONCE = 1000, 192, 32  # labels, spread evenly; those that the network is asked about, at once
MOTION = [ROLL, PITCH, FORWARD, RIGHT, WIND_FORWARD, WIND_RIGHT]
OTHERS = {"turned": -1.0, "level": 0.0}  # factors of a recorded angle


def parallax_of(samples: Samples) -> Parallax:
    """Measure it on labels that are heights in km."""
    few = samples.take(np.linspace(0, len(samples) - 1, min(len(samples), LOOKED_AT)).astype(int))
    if few.sight is None:
        return Parallax(0.0, "the camera's geometry is unknown (data.geometry)")
    if few.index.shape[1] < 2:
        return Parallax(0.0, "one frame has none (temporal_frames 1)")
    frames, nadir = few.sight.axes.upright(few.table[few.index], few.nadir)
    geometry, middle = few.sight.geometry[few.index], few.index.shape[1] // 2
    right, ahead = positions_px(geometry, np.median(few.label) + np.array([-0.05, 0.05]))
    apart = np.hypot(right[:, -1] - right[:, 0], ahead[:, -1] - ahead[:, 0])
    below = geometry[:, middle, ALTITUDE] - few.label
    calm = (geometry[..., (WIND_FORWARD, WIND_RIGHT)] == 0.0).all(axis=(1, 2))

    def left_over(column: int, factor: float = 1.0) -> np.ndarray:
        """(n,T) pixels, to the right for roll and ahead for pitch, with the angle times a factor."""
        other = geometry.copy()
        other[..., column] *= factor
        return residual_px(frames, other, nadir, few.label, along=column == PITCH)

    found = {
        column: {name: left_over(column, factor) for name, factor in {"": 1.0, **OTHERS}.items()}
        for column in (ROLL, PITCH)
    }
    aside = found[ROLL][""]
    others = np.arange(aside.shape[1]) != middle
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", RuntimeWarning)  # medians of nothing are NaN
        elapsed = (geometry[..., TIME] - geometry[:, middle : middle + 1, TIME])[:, others]
        drift = 1000.0 * (below / geometry[:, middle, SCALE])[:, None] * aside[:, others] / elapsed
        by_flight = {name: drift[few.flight == number] for number, name in enumerate(few.flight_names)}
        return Parallax(
            px_per_km=float(np.nanmedian(np.abs(apart[:, 1] - apart[:, 0]))) / 0.1,
            followed=float(np.isfinite(aside[:, others]).mean()),
            km_per_m_s=float(np.nanmedian(km_per_wind(geometry[:, middle], few.label))),
            calm=tuple(
                few.flight_names[number] for number in np.unique(few.flight) if calm[few.flight == number].all()
            ),
            drift_m_s={name: float(np.nanmedian(each)) for name, each in by_flight.items() if np.isfinite(each).any()},
            attitude=tuple(
                _attitude(name, geometry[..., column], found[column], few.flight)
                for name, column in (("roll", ROLL), ("pitch", PITCH))
            ),
        )


def spoilt_predictions(run: Path, config: Config, description: dict[str, Any], samples: Samples) -> dict[str, float]:
    """How much a finished network's predictions change, over their spread, when what shows a height is spoilt.

    A network that reads parallax must change; empty where it predicts a constant.
    """
    from cloudml_tf.nn.heads import POINT
    from cloudml_tf.train.network import load_regressor

    model = load_regressor(run, config, description)
    few = samples.take(np.linspace(0, len(samples) - 1, min(len(samples), ASKED)).astype(int))
    spoilt = {"": _as_it_is, "the frames of each sequence in reverse order": _reversed}
    if "geometry" in few.inputs(slice(0, 1)):
        spoilt["motion and attitude taken out of its geometry"] = _motionless
    found: dict[str, list[np.ndarray]] = {what: [] for what in spoilt}
    for first in range(0, len(few), AT_ONCE):
        inputs = few.inputs(slice(first, first + AT_ONCE))
        for what, change in spoilt.items():
            found[what].append(np.asarray(model(change(inputs), training=False))[:, POINT])
    usual, *others = (np.concatenate(each) for each in found.values())
    if usual.std() < 1e-4:  # in standard deviations of the target
        return {}
    moved = [float(np.sqrt(np.mean((other - usual) ** 2)) / usual.std()) for other in others]
    return dict(zip(list(spoilt)[1:], moved, strict=True))


def _as_it_is(inputs: dict[str, np.ndarray]) -> dict[str, np.ndarray]:
    return inputs


def _reversed(inputs: dict[str, np.ndarray]) -> dict[str, np.ndarray]:
    return {**inputs, "frames": inputs["frames"][:, ::-1]}


def _motionless(inputs: dict[str, np.ndarray]) -> dict[str, np.ndarray]:
    geometry = inputs["geometry"].copy()
    geometry[..., MOTION] = 0.0
    return {**inputs, "geometry": geometry}


def _attitude(name: str, angle: np.ndarray, found: dict[str, np.ndarray], flight: np.ndarray) -> Attitude:
    """How restless frames are with an angle (n,T) as recorded, turned and level: `found` (n,T) by these names."""
    restless = {key: _less_median(each, flight) for key, each in found.items()}
    gain = {}
    for key in OTHERS:
        better = np.nanmean(restless[""], axis=1) - np.nanmean(restless[key], axis=1)
        better = better[np.isfinite(better)]
        gain[key] = (float(better.mean()), float(better.std() / np.sqrt(len(better)))) if len(better) else (0.0, 1.0)
    now, *others = (float(np.nanmedian(each)) if np.isfinite(each).any() else 0.0 for each in restless.values())
    return Attitude(name, bool(np.ptp(angle) > 0), now, dict(zip(OTHERS, others, strict=True)), gain)


def _less_median(values: np.ndarray, flight: np.ndarray) -> np.ndarray:
    """|values| (n,T) without the median of their flight at each step, which is wind or drift."""
    found = values.copy()
    for number in np.unique(flight):
        found[flight == number] -= np.nanmedian(found[flight == number], axis=0)
    return np.abs(found)

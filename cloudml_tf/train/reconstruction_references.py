"""Reconstructions of hidden patches without a network: the references of pretraining. NumPy and SciPy only."""

import numpy as np
from scipy.interpolate import griddata


def mean_of_visible(frame: np.ndarray, hidden: np.ndarray) -> np.ndarray:
    """Paint hidden pixels with the mean of the visible ones. (H,W,C), (H,W) bool -> (H,W,C)."""
    return np.where(hidden[..., None], frame[~hidden].mean(axis=0), frame)


def interpolated(frame: np.ndarray, hidden: np.ndarray) -> np.ndarray:
    """Interpolate hidden pixels linearly between visible ones (Delaunay); beyond their hull take the nearest."""
    seen, wanted = np.argwhere(~hidden), np.argwhere(hidden)
    values = griddata(seen, frame[~hidden], wanted, method="linear")
    lost = ~np.isfinite(values).all(axis=-1)
    if lost.any():
        values[lost] = griddata(seen, frame[~hidden], wanted[lost], method="nearest")
    painted = frame.copy()
    painted[hidden] = values
    return painted


def reference_errors(target: np.ndarray, painted: np.ndarray, hidden: np.ndarray) -> dict[str, float]:
    """Mean squared errors of a network and of both references over the hidden pixels of (n,H,W,C) frames.

    `painted` (n,H,W,C) is what the network painted, `hidden` (n,H,W) is True where it saw nothing.
    """
    found = {"network": painted}
    for name, paint in (("mean_of_visible", mean_of_visible), ("interpolation", interpolated)):
        found[name] = np.stack([paint(f, m) for f, m in zip(target, hidden, strict=True)])
    return {name: float(np.mean((target[hidden] - values[hidden]) ** 2)) for name, values in found.items()}

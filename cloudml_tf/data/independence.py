"""Blocks of track for the bootstrap, and the effective sample size: neighbouring samples are correlated."""

import numpy as np

LEAST_GROUPS = 5  # fewer groups of scenes make no interval


def block_ids(time_s: np.ndarray, flight: np.ndarray, piece: np.ndarray, block_s: float) -> np.ndarray:
    """Number the blocks of track: `block_s` long, ending at gaps and flights. (n,) each -> (n,)."""
    keys = np.stack([flight, piece, np.floor(time_s / block_s).astype("int64")], axis=1)
    return np.unique(keys, axis=0, return_inverse=True)[1].reshape(-1)


def scene_blocks(group: np.ndarray) -> np.ndarray:
    """(n,) groups of scenes, where there are `LEAST_GROUPS`; else each scene by itself."""
    return group if len(np.unique(group)) >= LEAST_GROUPS else np.arange(len(group))


def effective_size(target: np.ndarray, series: np.ndarray) -> float:
    """n / (1 + 2 Σ ρ_k), ρ the target's autocorrelation up to its first zero, summed over series."""
    total = 0.0
    for name in np.unique(series):
        x = target[series == name] - target[series == name].mean()
        power = float(np.mean(x * x))
        if len(x) < 3 or power == 0:
            total += 1.0
            continue
        lags = 0.0
        for k in range(1, min(len(x) - 1, 200)):
            rho = float(np.mean(x[:-k] * x[k:])) / power
            if rho <= 0:
                break
            lags += rho
        total += len(x) / (1.0 + 2.0 * lags)
    return total

"""How fast the scene moves through the image. NumPy only."""

import numpy as np

LEAST_CORRELATION = 0.5  # below, the two images do not show the same scene


def scene_shift(before: np.ndarray, after: np.ndarray) -> int:
    """By how many columns the scene moves to the left from `before` to `after`, (n,H,W) each; 1 if that is not
    visible."""
    found = _correlations(before, after)
    best = max(found, key=lambda shift: found[shift], default=1)
    return best if found.get(best, 0.0) > LEAST_CORRELATION else 1


def fine_shift(before: np.ndarray, after: np.ndarray) -> float | None:
    """The shift in fractions of a column, from a parabola through the best three correlations; None if not visible."""
    found = _correlations(before, after)
    best = max(found, key=lambda shift: found[shift], default=1)
    if found.get(best, 0.0) <= LEAST_CORRELATION:
        return None
    left, here, right = (found.get(best + step, found[best]) for step in (-1, 0, 1))
    curve = left - 2.0 * here + right
    return best + (0.5 * (left - right) / curve if curve < 0 else 0.0)


def _correlations(before: np.ndarray, after: np.ndarray) -> dict[int, float]:
    """Correlation of the overlap of two images (n,H,W), by how many columns the second is shifted."""
    width, thin = before.shape[2], -(-before.shape[1] // 16)
    before, after = before[:, ::thin], after[:, ::thin]
    found = {}
    for shift in range(1, width * 2 // 3):
        for sign in (1, -1):
            old, new = (before, after) if sign > 0 else (after, before)
            with np.errstate(invalid="ignore", divide="ignore"):  # an overlap without structure has no correlation
                r = np.corrcoef(old[:, :, shift:].ravel(), new[:, :, : width - shift].ravel())[0, 1]
            found[sign * shift] = float(np.nan_to_num(r))
    return found

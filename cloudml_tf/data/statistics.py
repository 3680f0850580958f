"""Statistics of images around nadir: what ridge regression and gradient boosting see of a sequence. NumPy only.

For each channel (p is radiance, log radiance where the configuration takes logarithms):

    middle frame    mean, std and the 5, 25, 50, 75, 95 % quantiles of the frame
                    nadir pixel; mean and std of the 3x3, 5x5, 9x9 and 15x15 pixels around it
                    mean of the nadir lines along rows and columns, 5 and 11 pixels long
                    gradient along rows and columns at nadir, over 3 and 7 pixels
    other frames    nadir pixel, 3x3 and 9x9 mean, frame mean
"""

import numpy as np


def image_statistics(frames: np.ndarray, nadir: tuple[int, int], log_offset: float | None) -> list[np.ndarray]:
    """Sequences of frames (n,T,H,W,C) -> columns (n,), documented above."""
    steps = frames.shape[1]
    columns: list[np.ndarray] = []
    for step in range(steps):
        taken = frames[:, step]  # (n,H,W,C)
        if log_offset is not None:
            taken = np.log(np.maximum(taken, 0.0) + log_offset)
        for channel in range(taken.shape[-1]):
            image = taken[..., channel]
            columns += _frame_columns(image, nadir) if step == steps // 2 else _brief_columns(image, nadir)
    return columns


def _window(image: np.ndarray, nadir: tuple[int, int], rows: int, columns: int) -> np.ndarray:
    """Pixels around nadir, (n,H,W) -> (n, rows, columns), less at the border."""
    top, left = max(nadir[0] - rows // 2, 0), max(nadir[1] - columns // 2, 0)
    return image[:, top : nadir[0] + rows // 2 + 1, left : nadir[1] + columns // 2 + 1]


def _brief_columns(image: np.ndarray, nadir: tuple[int, int]) -> list[np.ndarray]:
    small, large = (_window(image, nadir, side, side).mean(axis=(1, 2)) for side in (3, 9))
    return [image[:, nadir[0], nadir[1]], small, large, image.mean(axis=(1, 2))]


def _frame_columns(image: np.ndarray, nadir: tuple[int, int]) -> list[np.ndarray]:
    columns = [image.mean(axis=(1, 2)), image.std(axis=(1, 2))]
    columns += list(np.quantile(image, [0.05, 0.25, 0.5, 0.75, 0.95], axis=(1, 2)))
    columns.append(image[:, nadir[0], nadir[1]])
    for side in (3, 5, 9, 15):
        window = _window(image, nadir, side, side)
        columns += [window.mean(axis=(1, 2)), window.std(axis=(1, 2))]
    for length in (5, 11):
        columns += [_window(image, nadir, *size).mean(axis=(1, 2)) for size in ((length, 1), (1, length))]
    for length in (3, 7):
        half = length // 2
        for line in (_window(image, nadir, length, 1)[:, :, 0], _window(image, nadir, 1, length)[:, 0, :]):
            columns.append(line[:, -half:].mean(axis=1) - line[:, :half].mean(axis=1))
    return columns

"""What a network has to beat: the mean, ridge regression and gradient boosting on image statistics.

The statistics of a sequence, for each channel (p is radiance, log radiance where the configuration takes logs):

    middle frame    mean, std and the 5, 25, 50, 75, 95 % quantiles of the frame
                    nadir pixel; mean and std of the 3x3, 5x5, 9x9 and 15x15 pixels around it
                    mean of the nadir lines along rows and columns, 5 and 11 pixels long
                    gradient along rows and columns at nadir, over 3 and 7 pixels
    other frames    nadir pixel, 3x3 and 9x9 mean, frame mean

and sine and cosine of the sun's angles and the further features of the middle frame.
"""

from typing import Any

import numpy as np

from cloudml_tf.data.samples import Samples
from cloudml_tf.data.scaling import TargetScaling

ONE_THREAD = 20_000  # samples; below, threads that wait for each other on a busy machine cost more than they save


def image_statistics(samples: Samples, log_offset: float | None = None) -> np.ndarray:
    """(n, S) statistics of n sequences, documented above, in bounded memory."""
    batch = samples.rows_at_once()
    rows = [
        _statistics(samples.take(np.arange(first, min(first + batch, len(samples)))), log_offset)
        for first in range(0, len(samples), batch)
    ]
    return np.concatenate(rows).astype("float32")


def _statistics(samples: Samples, log_offset: float | None) -> np.ndarray:
    steps = samples.index.shape[1]
    middle = steps // 2
    columns: list[np.ndarray] = []
    for step in range(steps):
        frames = samples.table[samples.index[:, step]]  # (n,H,W,C)
        if log_offset is not None:
            frames = np.log(np.maximum(frames, 0.0) + log_offset)
        for channel in range(frames.shape[-1]):
            image = frames[..., channel]
            columns += _frame_columns(image, samples.nadir) if step == middle else _brief_columns(image, samples.nadir)
    rows = samples.index[:, middle]
    if samples.sun_angles_deg is not None:
        angles = np.deg2rad(samples.sun_angles_deg[rows])
        columns += [*np.sin(angles).T, *np.cos(angles).T]
    columns += list(samples.features[rows].T)
    return np.stack(columns, axis=1)


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
        line = _window(image, nadir, length, 1)[:, :, 0]
        columns.append(line[:, -half:].mean(axis=1) - line[:, :half].mean(axis=1))
        line = _window(image, nadir, 1, length)[:, 0, :]
        columns.append(line[:, -half:].mean(axis=1) - line[:, :half].mean(axis=1))
    return columns


def fit_predict(
    parts: dict[str, Samples], scaling: TargetScaling, log_offset: float | None, seed: int
) -> dict[str, dict[str, np.ndarray]]:
    """Standardised predictions of each baseline for each part, trained on the training part with its weights.

    Returns {"mean" | "ridge" | "gradient_boosting": {part: (n,)}}. None of them sees the validation or test part.
    """
    statistics = {name: image_statistics(part, log_offset) for name, part in parts.items()}
    target, weight = scaling.standardise(parts["train"].label), parts["train"].weight
    weights = None if np.ptp(weight) == 0 else weight
    found = {"mean": {name: np.full(len(part), np.average(target, weights=weight)) for name, part in parts.items()}}
    for name, model in fit(statistics["train"], target, weights, seed).items():
        found[name] = {part: model.predict(x) for part, x in statistics.items()}
    return found


def fit(statistics: np.ndarray, target: np.ndarray, weight: np.ndarray | None, seed: int) -> dict[str, Any]:
    """Ridge and gradient boosting on (n,S) statistics and (n,) standardised targets, as scikit-learn models.

    Without weights the boosting is several times faster.
    """
    from threadpoolctl import threadpool_limits

    models = _models(seed)
    with threadpool_limits(1 if len(target) < ONE_THREAD else None):
        for model in models.values():
            model.fit(statistics, target, **{f"{list(model.named_steps)[-1]}__sample_weight": weight})
    return models


def ridge_on(train: np.ndarray, target: np.ndarray, other: np.ndarray) -> np.ndarray:
    """Ridge regression on (n,D) vectors: predictions (m,) for (m,D) others. A linear probe of frozen features."""
    from threadpoolctl import threadpool_limits

    with threadpool_limits(1):
        predictions: np.ndarray = _models(0)["ridge"].fit(train, target).predict(other)
    return predictions


def _models(seed: int) -> dict[str, Any]:
    from sklearn.ensemble import HistGradientBoostingRegressor
    from sklearn.linear_model import RidgeCV
    from sklearn.pipeline import make_pipeline
    from sklearn.preprocessing import StandardScaler

    boosting = HistGradientBoostingRegressor(
        max_iter=400, learning_rate=0.06, min_samples_leaf=20, l2_regularization=1.0, random_state=seed
    )
    return {
        "ridge": make_pipeline(StandardScaler(), RidgeCV(alphas=np.logspace(-2, 4, 13))),
        "gradient_boosting": make_pipeline(boosting),
    }

"""What a network has to beat: the mean; regressions on features of the examples; and retrievals of other methods.

Sequences have image statistics (`cloudml_tf.data.statistics`), for ridge regression and gradient boosting, and for
heights the plane sweep (`cloudml_tf.data.plane_sweep`), where their geometry is known; scenes have
each pixel by itself, for a boosting without neighbours, and the retrieval of their file where it has one.

To add one: a model in `MODELS`, by the kind of features that it sees; a new kind of features comes from
`Examples.baseline_features`. A kind that `MODELS` does not name holds values of another method, which are scored.
"""

from collections.abc import Mapping
from typing import Any

import numpy as np

from cloudml_tf.data.samples import Examples
from cloudml_tf.data.scaling import TargetScaling

RAMP = 1e-3  # of a statistic's standard deviation, over which the layer of the trees goes from branch to branch
BOOSTED_PIXELS = 100_000  # that the boosting of single pixels is fitted to: more teach it nothing
ONE_THREAD = 20_000  # samples; below, threads that wait for each other on a busy machine cost more than they save


def fit_predict(
    parts: Mapping[str, Examples], scaling: TargetScaling, log_offset: float | None, seed: int
) -> dict[str, dict[str, np.ndarray]]:
    """Standardised predictions of each baseline for each split, fitted to the training split with its weights.

    Returns {"mean" | "ridge" | "gradient_boosting" | … | a retrieval: {split: (n, *P)}}, NaN where
    there is no label or no retrieval. None of them sees the labels of the validation or test split.
    """
    train = parts["train"]
    target, weight = scaling.standardise(train.label[train.known]), train.weight[train.known]
    weights = None if np.ptp(weight) == 0 else weight
    mean = np.average(target, weights=weight)
    found = {"mean": {name: np.where(part.known, mean, np.nan) for name, part in parts.items()}}
    seen = {name: part.baseline_features(log_offset) for name, part in parts.items()}
    for kind, features in seen["train"].items():
        if kind not in MODELS:  # another method's values, not features
            found[kind] = {name: scaling.standardise(np.maximum(each[kind], 0.0)) for name, each in seen.items()}
            continue
        for name, model in fit(features, target, weights, seed, kind).items():
            found[name] = {part: _on_labels(parts[part], model.predict(x[kind])) for part, x in seen.items()}
    return found


def _on_labels(examples: Examples, values: np.ndarray) -> np.ndarray:
    """Values (k,) of the known labels -> (n, *P), NaN elsewhere."""
    found = np.full(examples.label.shape, np.nan)
    found[examples.known] = values
    return found


def fit(
    features: np.ndarray, target: np.ndarray, weight: np.ndarray | None, seed: int, kind: str = "image_statistics"
) -> dict[str, Any]:
    """Fit the models of a kind of features (k,S) to standardised targets (k,), as scikit-learn models.

    Without weights the boosting is several times faster. Of very many pixels `BOOSTED_PIXELS` are drawn.
    """
    from threadpoolctl import threadpool_limits

    models = MODELS[kind](seed)
    if kind == "pixels":
        chosen = np.random.default_rng(seed).permutation(len(target))[:BOOSTED_PIXELS]
        features, target, weight = features[chosen], target[chosen], None
    few = kind == "pixels" or len(target) < ONE_THREAD
    with threadpool_limits(1 if few else None):
        for model in models.values():
            model.fit(features, target, **{f"{list(model.named_steps)[-1]}__sample_weight": weight})
    return models


def as_arrays(models: dict[str, Any], features: np.ndarray) -> dict[str, dict[str, Any]]:
    """Turn the models of `fit` on image statistics (k,S) into the arguments of the layers of `nn.regressions`.

    Thresholds are the largest float32 that still goes left, so that float32 statistics take the branches that
    scikit-learn takes.
    """
    scaler, ridge = (step for _, step in models["ridge"].steps)
    boosting = models["gradient_boosting"][-1]
    trees = [predictor.nodes for (predictor,) in boosting._predictors]
    table = np.zeros((len(trees), max(map(len, trees))), trees[0].dtype)
    table["is_leaf"] = 1
    for row, nodes in zip(table, trees, strict=True):
        row[: len(nodes)] = nodes
    leaf = table["is_leaf"].astype(bool)
    spread = features.std(axis=0)
    limit = table["num_threshold"].astype("float32")
    limit = np.where(limit > table["num_threshold"], np.nextafter(limit, np.float32(-np.inf)), limit)
    return {
        "line": {
            "mean": scaler.mean_,
            "scale": scaler.scale_,
            "coefficients": ridge.coef_,
            "intercept": float(ridge.intercept_),
        },
        "trees": {
            "feature": np.where(leaf, -1, table["feature_idx"].astype(int)),
            "threshold": np.where(leaf, 0.0, limit),
            "left": np.where(leaf, 0, table["left"].astype(int)),
            "right": np.where(leaf, 0, table["right"].astype(int)),
            "value": np.where(leaf, table["value"], 0.0),
            "ramp": RAMP * np.where(spread > 0, spread, 1.0),
            "start": float(np.ravel(boosting._baseline_prediction)[0]),
        },
    }


def ridge_on(train: np.ndarray, target: np.ndarray, other: np.ndarray) -> np.ndarray:
    """Fit ridge regression on (n,D) vectors and predict (m,) for (m,D) others: a linear probe of frozen features."""
    from threadpoolctl import threadpool_limits

    with threadpool_limits(1):
        return _of_statistics(0)["ridge"].fit(train, target).predict(other)


def _of_statistics(seed: int) -> dict[str, Any]:
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


def _of_pixels(seed: int) -> dict[str, Any]:
    from sklearn.ensemble import HistGradientBoostingRegressor
    from sklearn.pipeline import make_pipeline

    return {"pixel_boosting": make_pipeline(HistGradientBoostingRegressor(max_iter=150, random_state=seed))}


def _of_sweep(seed: int) -> dict[str, Any]:
    """A straight line: what is seen lies between base and top. Where nothing could be compared, the median counts."""
    from sklearn.impute import SimpleImputer
    from sklearn.linear_model import LinearRegression
    from sklearn.pipeline import make_pipeline

    return {"plane_sweep": make_pipeline(SimpleImputer(strategy="median"), LinearRegression())}


MODELS = {"image_statistics": _of_statistics, "pixels": _of_pixels, "plane_sweep": _of_sweep}

"""Scores of maps: moments over all labelled pixels, intervals over scenes, and the bias by decade."""

from itertools import pairwise
from typing import Any

import numpy as np

from cloudml_tf.config.schema import Config
from cloudml_tf.data.scaling import TargetScaling
from cloudml_tf.data.scenes import Scenes
from cloudml_tf.evaluation.collect import spaces
from cloudml_tf.evaluation.scores import bootstrap, phase3, scores, tier

Maps = dict[str, np.ndarray]  # part -> (n,H,W), in standard deviations of the target
EDGES = (0.0, 0.1, 1.0, 10.0, 100.0, np.inf)  # of decades, in the target's own unit
LEAST_GROUPS = 5  # fewer make no interval
BOOSTED_PIXELS = 100_000  # that the boosting is fitted to: more teach it nothing


def score_maps(scenes: Scenes, z: np.ndarray, scaling: TargetScaling, config: Config) -> dict[str, Any]:
    """Scores over all labelled pixels: in the loss's space, and under `physical` in the target's own unit.

    Pixels of a scene are no independent samples, so intervals draw whole scenes, whose number is `n_eff`; or whole
    groups of them, such as flights, where there are enough.
    """
    seen = scenes.seen
    label, found = scenes.label[seen], z[seen]
    scene = np.broadcast_to(_drawn(scenes)[:, None, None], seen.shape)[seen]
    draws = config.evaluation.bootstrap_samples, config.seed

    def of(target: np.ndarray, prediction: np.ndarray) -> dict[str, Any]:
        judged: dict[str, Any] = scores(target, prediction)
        return {**judged, "n_eff": len(np.unique(scene)), "ci95": bootstrap(target, prediction, scene, *draws)}

    judged = of(scaling.transform(label), scaling.unscale(found))
    return {**judged, "physical": of(label, scaling.physical(found))}


def _drawn(scenes: Scenes) -> np.ndarray:
    """(n,) the number of what is drawn together with each scene: itself, or its group among `LEAST_GROUPS` or more."""
    names = list(dict.fromkeys(scenes.split_names))
    if len(names) < LEAST_GROUPS:
        return np.arange(len(scenes))
    return np.array([names.index(name) for name in scenes.split_names])


def per_group(scenes: Scenes, z: np.ndarray, scaling: TargetScaling) -> dict[str, dict[str, float]]:
    """Scores of each scene, or group of scenes, that has labels, in the loss's space."""
    found = {}
    for name in dict.fromkeys(scenes.split_names):
        seen = scenes.seen & (np.asarray(scenes.split_names) == name)[:, None, None]
        if seen.any():
            found[name] = scores(scaling.transform(scenes.label[seen]), scaling.unscale(z[seen]))
    return found


def decades(scenes: Scenes, z: np.ndarray, scaling: TargetScaling) -> list[dict[str, float]]:
    """Bias and RMSE in the loss's space, of the pixels whose *predicted* value lies in each decade.

    Binned by the truth even a perfect conditional mean looks biased, high below and low above. Decades that hold no
    pixel are left out.
    """
    seen = scenes.seen
    target, prediction = scaling.transform(scenes.label[seen]), scaling.unscale(z[seen])
    value = scaling.physical(z[seen])
    rows = []
    for low, high in pairwise(EDGES):
        here = (value >= low) & (value < high)
        if here.any():
            error = prediction[here] - target[here]
            row = {"from": low, "to": high, "n": int(here.sum()), "bias": float(error.mean())}
            rows.append({**row, "rmse": float(np.sqrt(np.mean(error**2)))})
    return rows


def judge_parts(parts: dict[str, Scenes], maps: Maps, scaling: TargetScaling, config: Config) -> dict[str, Any]:
    """The scores of the network on each part, for metrics.json."""
    found: dict[str, Any] = {"experiment": config.experiment_name, "seed": config.seed, "space": spaces(config)}
    for part, scenes in parts.items():
        found[part] = score_maps(scenes, maps[part], scaling, config)
    found["per_flight"] = {part: per_group(scenes, maps[part], scaling) for part, scenes in parts.items()}
    found["decades"] = {part: decades(scenes, maps[part], scaling) for part, scenes in parts.items()}
    found["tier"] = tier(found["test"])
    return found


def collect(
    parts: dict[str, Scenes],
    maps: Maps,
    scaling: TargetScaling,
    config: Config,
    history: list[dict[str, float]],
    best_epoch: int | None,
) -> dict[str, Any]:
    """The content of metrics.json, but for the baselines."""
    found = judge_parts(parts, maps, scaling, config)
    found["phase3"] = phase3(found["test"], history, best_epoch)
    return found


def baseline_maps(train: Scenes, parts: dict[str, Scenes], scaling: TargetScaling, seed: int) -> dict[str, Maps]:
    """Standardised maps of what a network has to beat, for each part: the mean; boosting on the pixel itself, which
    knows no neighbours; and the file's own retrieval, where it has one."""
    found: dict[str, Maps] = {"mean": {}, "pixel_boosting": {}}
    model = _pixel_boosting(train, scaling, seed)
    for part, scenes in parts.items():
        target = scaling.standardise(train.label[train.seen])
        found["mean"][part] = np.full(scenes.label.shape, float(target.mean()))
        pixels = scenes.frames.reshape(-1, scenes.frames.shape[-1])
        found["pixel_boosting"][part] = model.predict(pixels).reshape(scenes.label.shape)
        if scenes.retrieval is not None:
            found.setdefault("retrieval", {})[part] = scaling.standardise(np.maximum(scenes.retrieval, 0.0))
    return found


def _pixel_boosting(train: Scenes, scaling: TargetScaling, seed: int) -> Any:
    from sklearn.ensemble import HistGradientBoostingRegressor
    from threadpoolctl import threadpool_limits

    x, y = train.frames[train.seen], scaling.standardise(train.label[train.seen])
    chosen = np.random.default_rng(seed).permutation(len(x))[:BOOSTED_PIXELS]
    with threadpool_limits(1):
        return HistGradientBoostingRegressor(max_iter=150, random_state=seed).fit(x[chosen], y[chosen])


def collect_baselines(
    train: Scenes, parts: dict[str, Scenes], scaling: TargetScaling, config: Config
) -> dict[str, Any]:
    """Scores of each baseline on each part. A retrieval that has gaps is judged where it has none."""
    found: dict[str, Any] = {}
    for name, maps in baseline_maps(train, parts, scaling, config.seed).items():
        found[name] = {}
        for part, z in maps.items():
            known = parts[part].known(np.isfinite(z))
            found[name][part] = score_maps(known, np.nan_to_num(z), scaling, config)
    return found

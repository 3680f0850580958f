"""Regressions on image statistics as layers: what NumPy and scikit-learn make of the same images and features."""

from typing import Any

import keras
import numpy as np
import pytest

from cloudml_tf.data.statistics import image_statistics
from cloudml_tf.evaluation.baselines import as_arrays, fit
from cloudml_tf.models import build_regressor, physical_model, share_frames
from cloudml_tf.nn.layers import PhysicalUnits
from cloudml_tf.nn.regressions import (
    BoostedTrees,
    ImageStatistics,
    StraightLine,
    averaged_with_regressions,
    is_joined,
    network_of,
)

NADIR = (4, 6)


def frames(count: int, seed: int = 0) -> dict[str, np.ndarray]:
    random = np.random.default_rng(seed)
    return {
        "frames": random.gamma(2.0, 40.0, (count, 3, 9, 11, 2)).astype("float32"),
        "sun_angles_deg": random.uniform(20, 60, (count, 3, 2)).astype("float32"),
        "features": random.normal(size=(count, 3, 1)).astype("float32"),
    }


def by_numpy(inputs: dict[str, np.ndarray], nadir: tuple[int, int], log_offset: float | None) -> np.ndarray:
    columns = image_statistics(inputs["frames"], nadir, log_offset)
    angles = np.deg2rad(inputs["sun_angles_deg"][:, 1])
    return np.stack([*columns, *np.sin(angles).T, *np.cos(angles).T, *inputs["features"][:, 1].T], axis=1)


@pytest.mark.parametrize("log_offset", [None, 0.01])
@pytest.mark.parametrize("nadir", [NADIR, (0, 10), (8, 1)])
def test_statistics_are_those_of_numpy(nadir: tuple[int, int], log_offset: float | None) -> None:
    inputs = frames(20)
    layer = ImageStatistics(nadir, log_offset)
    found = keras.ops.convert_to_numpy(layer(inputs))
    assert found.shape == tuple(layer.compute_output_shape({name: x.shape for name, x in inputs.items()}))
    np.testing.assert_allclose(found, by_numpy(inputs, nadir, log_offset), rtol=1e-5, atol=1e-4)


@pytest.fixture(scope="module")
def fitted() -> dict[str, Any]:
    """Ridge and boosting of 300 examples, and the arrays of their layers."""
    features = by_numpy(frames(300), NADIR, None).astype("float32")
    random = np.random.default_rng(1)
    target = features[:, 9] / 40 + np.sin(features[:, 2] / 9) + 0.1 * random.normal(size=300)
    target = (target - target.mean()) / target.std()
    models = fit(features, target, None, 1)
    return {"models": models, "features": features, **as_arrays(models, features)}


def test_the_line_is_that_of_scikit_learn(fitted: dict[str, Any]) -> None:
    new = by_numpy(frames(50, seed=3), NADIR, None).astype("float32")
    line = keras.ops.convert_to_numpy(StraightLine(**fitted["line"])(new))[:, 0]
    np.testing.assert_allclose(line, fitted["models"]["ridge"].predict(new), atol=1e-5)


def test_trees_are_those_of_scikit_learn_but_for_a_narrow_ramp(fitted: dict[str, Any]) -> None:
    new = by_numpy(frames(400, seed=3), NADIR, None).astype("float32")
    theirs = fitted["models"]["gradient_boosting"].predict(new)
    ours = keras.ops.convert_to_numpy(BoostedTrees(**fitted["trees"])(new))[:, 0]
    assert np.median(np.abs(ours - theirs)) < 1e-6
    assert np.abs(ours - theirs).max() < 0.1
    hard = {**fitted["trees"], "ramp": 1e-6 * np.asarray(fitted["trees"]["ramp"])}
    ours = keras.ops.convert_to_numpy(BoostedTrees(**hard)(fitted["features"]))[:, 0]
    np.testing.assert_allclose(ours, fitted["models"]["gradient_boosting"].predict(fitted["features"]), atol=1e-5)


def test_the_last_digit_of_a_statistic_does_not_change_the_answer(fitted: dict[str, Any]) -> None:
    trees = BoostedTrees(**fitted["trees"])
    near = fitted["features"]  # at training values, where thresholds may lie
    one, other = (keras.ops.convert_to_numpy(trees(near * factor))[:, 0] for factor in (1.0, np.float32(1 + 1.2e-7)))
    assert np.abs(one - other).max() < 1e-3


def averaged(fitted: dict[str, Any]) -> keras.Model:
    network = build_regressor((9, 11, 2), nadir=NADIR, features=1, widths=(4,), footprint=3, mirror_average="rows")
    return averaged_with_regressions(network, NADIR, None, (0.5, 0.2, 0.3), fitted["line"], fitted["trees"])


def test_the_average_is_the_weighted_sum_and_survives_saving_and_sharing(fitted: dict[str, Any], tmp_path: Any) -> None:
    model, inputs = averaged(fitted), frames(6, seed=5)
    seen = by_numpy(inputs, NADIR, None).astype("float32")
    parts = [
        keras.ops.convert_to_numpy(network_of(model)(inputs))[:, 0],
        keras.ops.convert_to_numpy(StraightLine(**fitted["line"])(seen))[:, 0],
        keras.ops.convert_to_numpy(BoostedTrees(**fitted["trees"])(seen))[:, 0],
    ]
    answer = keras.ops.convert_to_numpy(model(inputs))
    np.testing.assert_allclose(answer[:, 0], 0.5 * parts[0] + 0.2 * parts[1] + 0.3 * parts[2], atol=2e-4)
    model.save(tmp_path / "average.keras")
    again = keras.saving.load_model(tmp_path / "average.keras")
    assert is_joined(again)
    np.testing.assert_allclose(keras.ops.convert_to_numpy(again(inputs)), answer, atol=1e-6)
    shared = share_frames(model)
    table = {name: x.reshape(-1, *x.shape[2:]) for name, x in inputs.items()}
    chosen = np.arange(18, dtype="int32").reshape(6, 3)
    np.testing.assert_allclose(
        keras.ops.convert_to_numpy(shared({**table, "chosen_frames": chosen})), answer, atol=1e-5
    )
    physical = physical_model(model, PhysicalUnits(2.0, 0.5, False))
    np.testing.assert_allclose(keras.ops.convert_to_numpy(physical(inputs)), 2.0 + 0.5 * answer, atol=1e-5)

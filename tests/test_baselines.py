"""The baselines: statistics by hand, and that they learn what there is and nothing where there is nothing."""

from pathlib import Path

import numpy as np
import pytest

from cloudml_tf.config.load import load_config
from cloudml_tf.data.prepare import prepare
from cloudml_tf.evaluation.collect import collect_baselines
from cloudml_tf.evaluation.oracle import oracle_predictions
from cloudml_tf.evaluation.scores import scores


@pytest.fixture(scope="module")
def prepared(finished: Path):
    config = load_config(finished / "config.json")
    return config, prepare(config)


def test_statistics_by_hand(prepared) -> None:
    _, ready = prepared
    samples = ready.parts["test"].take(np.arange(3))
    found = samples.baseline_features(None)["image_statistics"]
    middle = samples.table[samples.index[:, 1], ..., 0]
    row, column = samples.nadir
    # columns of the first frame come first: nadir pixel, 3x3, 9x9, frame mean; then those of the middle one
    first = samples.table[samples.index[:, 0], ..., 0]
    np.testing.assert_allclose(found[:, 0], first[:, row, column], rtol=1e-6)
    np.testing.assert_allclose(found[:, 4], middle.mean(axis=(1, 2)), rtol=1e-5)
    np.testing.assert_allclose(found[:, 8], np.median(middle, axis=(1, 2)), rtol=1e-5)
    np.testing.assert_allclose(found[:, 11], middle[:, row, column], rtol=1e-6)
    around = middle[:, row - 1 : row + 2, column - 1 : column + 2]
    np.testing.assert_allclose(found[:, 12], around.mean(axis=(1, 2)), rtol=1e-5)
    ahead = middle[:, row, column + 1] - middle[:, row, column - 1]
    assert any(np.allclose(found[:, i], ahead, atol=1e-6) for i in range(found.shape[1]))
    angles = np.deg2rad(samples.sun_angles_deg[samples.index[:, 1]])
    np.testing.assert_allclose(found[:, -4:-2], np.sin(angles), rtol=1e-5)


def test_the_order_of_merit_on_simulated_flights(prepared) -> None:
    config, ready = prepared
    found = collect_baselines(ready.parts, ready.scaling.target, config)
    oracle = oracle_predictions(ready.parts, ready.flights, ready.scaling.target, config)
    r2 = {name: by_part["test"]["r2"] for name, by_part in found.items()}
    r2["oracle"] = scores(ready.scaling.target.standardise(ready.parts["test"].label), oracle["test"])["r2"]
    assert r2["mean"] <= 0 < r2["gradient_boosting"] < r2["oracle"]
    assert r2["ridge"] > 0
    assert r2["oracle"] > 0.9


def test_no_signal_is_no_signal_to_any_baseline(tiny) -> None:
    config = tiny(data={"simulation": {"preset": "no_signal"}})
    ready = prepare(config)
    found = collect_baselines(ready.parts, ready.scaling.target, config)
    for name in ("ridge", "gradient_boosting"):
        assert found[name]["test"]["r2"] < 0.1
    arrays = ready.parts["train"]
    nadir = arrays.table[arrays.index[:, 1], arrays.nadir[0], arrays.nadir[1], 0]
    assert abs(np.corrcoef(nadir, arrays.label)[0, 1]) < 0.3


def test_the_oracle_needs_the_truth(tiny, prepared, tmp_path: Path) -> None:
    config, ready = prepared
    moved = {
        name: files.model_copy(update={"camera": str(tmp_path / "camera.h5")}) for name, files in ready.flights.items()
    }
    assert oracle_predictions(ready.parts, moved, ready.scaling.target, config) is None
    heights = tiny(target={"name": "cloud_base_km"})
    assert oracle_predictions(ready.parts, ready.flights, ready.scaling.target, heights) is None

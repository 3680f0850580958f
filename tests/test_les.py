"""The third-party imagery, read through the same door. Skipped where the shared data are not there."""

import os
from pathlib import Path

import numpy as np
import pytest

from cloudml_tf.config.load import load_config
from cloudml_tf.data.prepare import prepare
from cloudml_tf.evaluation.collect import collect_baselines

ROOT = Path(__file__).parent.parent
SHARED = Path(os.environ.get("CLOUDML_SHARED", ROOT.parent / "shared"))

pytestmark = pytest.mark.skipif(
    not (SHARED / "data/les/flights").is_dir(), reason="needs the LES flights: set CLOUDML_SHARED to their folder"
)


@pytest.fixture(scope="module")
def ready():
    """Test les03, validate les04, train on the five others of les01 to les07: les10 is not looked at."""
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("CLOUDML_SHARED", str(SHARED))
        split = {"kind": "leave_one_out", "test": "les03", "exclude": ["les08", "les09", "les10"]}
        config = load_config(ROOT / "configs/les.json", {"split": split})
        return config, prepare(config)


def test_the_files_are_read_as_their_page_says(ready) -> None:
    config, prepared = ready
    test = prepared.parts["test"]
    assert test.frame_shape == (32, 32, 2)
    assert test.nadir == (16, 16)
    assert set(prepared.flights) == {f"les0{i}" for i in range(1, 8)}
    for counts in prepared.description()["counts"].values():
        assert counts["frames"] == 2304
        assert 400 < counts["sequences"] <= 1421
    assert config.target.transform == "log"
    assert 0 < test.label.min() < test.label.max() < 384


def test_tracks_are_pieces(ready) -> None:
    _, prepared = ready
    test = prepared.parts["test"]
    assert len(np.unique(test.piece)) <= 32  # four tracks over eight scenes


def test_baselines_are_where_the_benchmark_has_them(ready) -> None:
    """On the benchmark page, with one more training flight each: ridge on two pixels 0.900, boosting 0.521."""
    config, prepared = ready
    found = collect_baselines(prepared.parts, prepared.scaling.target, config)
    assert 0.45 < found["gradient_boosting"]["test"]["rmse"] < 0.62
    assert found["gradient_boosting"]["test"]["rmse"] < found["ridge"]["test"]["rmse"] < 0.95
    assert 0.9 < found["gradient_boosting"]["test"]["variance_ratio"] < 1.05

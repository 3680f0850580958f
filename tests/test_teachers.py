"""Labels of finished networks for pixels that have none."""

from pathlib import Path

import numpy as np
import pytest

from cloudml_tf.data.scaling import TargetScaling
from cloudml_tf.data.scenes import Scenes
from cloudml_tf.errors import ConfigError
from cloudml_tf.swath.teachers import taught

UNIT = TargetScaling(1.0, 2.0, log=True, log_offset=0.01)


@pytest.fixture
def train() -> Scenes:
    """Two scenes of 4 x 4 pixels, labelled in the second row alone."""
    weight = np.zeros((2, 4, 4), "float32")
    weight[:, 1] = 2.0
    label = np.where(weight > 0, 5.0, 0.0)
    return Scenes(np.ones((2, 4, 4, 1), "float32"), label, weight, ("11", "12"))


def run(folder: Path, names: tuple[str, ...], value: float, side: int = 4) -> str:
    """A run folder whose network said `value` of its first scene and twice that of the second, and so on."""
    folder.mkdir()
    maps = value * np.arange(1, len(names) + 1)[:, None, None] * np.ones((1, side, side))
    np.savez(folder / "predictions.npz", train_scene=np.array(names), train_prediction=maps)
    return str(folder)


def test_pixels_without_a_label_get_the_mean_answer_and_the_others_keep_theirs(tmp_path: Path, train: Scenes) -> None:
    teachers = [run(tmp_path / "a", ("12", "11", "13"), 1.0), run(tmp_path / "b", ("11", "12"), 3.0)]
    found = taught(train, teachers, 0.25, ["21"], UNIT)
    np.testing.assert_array_equal(found.label[:, 1], 5.0)
    np.testing.assert_array_equal(found.weight[:, 1], 2.0)
    np.testing.assert_array_equal(found.weight[:, [0, 2, 3]], 0.25)
    # "11" is 2 and 3, "12" is 1 and 6; the mean is taken of their logarithms
    expected = [np.sqrt(2.01 * 3.01) - 0.01, np.sqrt(1.01 * 6.01) - 0.01]
    np.testing.assert_allclose(found.label[:, 0, 0], expected, rtol=1e-5)
    np.testing.assert_allclose(found.label[:, 3, 2], expected, rtol=1e-5)


def test_what_is_no_teacher_is_refused(tmp_path: Path, train: Scenes) -> None:
    with pytest.raises(ConfigError, match="Name folders of finished swath runs"):
        taught(train, [str(tmp_path / "nothing")], 1.0, [], UNIT)
    seen = run(tmp_path / "seen", ("11", "12", "21"), 1.0)
    with pytest.raises(ConfigError, match="was trained on 21, which this run is judged by"):
        taught(train, [seen], 1.0, ["21", "22"], UNIT)
    with pytest.raises(ConfigError, match="was not trained on 12"):
        taught(train, [run(tmp_path / "few", ("11",), 1.0)], 1.0, [], UNIT)
    with pytest.raises(ConfigError, match=r"has maps of \(8, 8\)"):
        taught(train, [run(tmp_path / "wide", ("11", "12"), 1.0, side=8)], 1.0, [], UNIT)
    np.savez(tmp_path / "predictions.npz", test_label=np.zeros(3))
    with pytest.raises(ConfigError, match="is no run on scenes"):
        taught(train, [str(tmp_path)], 1.0, [], UNIT)

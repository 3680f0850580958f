"""The cloud of another flight below a sequence: seen at its height, hidden by what lies above."""

import numpy as np
import pytest
from test_geometry import COLUMNS, FRAMES, ROWS, WANDER
from test_parallax import HEIGHTS, sequence

from cloudml_tf.config.training import Augmentation
from cloudml_tf.data.augmentation import SequenceAugmentation
from cloudml_tf.data.plane_sweep import Axes, sweep
from cloudml_tf.data.second_layer import SecondLayer
from cloudml_tf.nn.sightlines import ALTITUDE, FORWARD, SCALE

NADIR = (ROWS // 2, COLUMNS // 2)
UPRIGHT = Axes(1, 1, 1)


def layer(dark: float, bright: float, axes: Axes = UPRIGHT, nadir: tuple[int, int] = NADIR) -> SecondLayer:
    return SecondLayer(axes, nadir, np.array([dark], "float32"), np.array([bright], "float32"))


def other_flight() -> tuple[np.ndarray, np.ndarray]:
    """A clear sequence whose camera flew lower, slower, with other pixels and another attitude."""
    frames, geometry = sequence(2.0)
    geometry[..., ALTITUDE] *= 0.9
    geometry[..., FORWARD] *= 0.85
    geometry[..., SCALE] *= 1.1
    geometry[..., 3] = (0.5 * WANDER * np.arange(FRAMES))[1:8]
    return np.zeros_like(frames), geometry


@pytest.mark.parametrize("put_km", [0.7, 3.1])
def test_a_cloud_is_seen_at_the_height_to_which_it_was_put(put_km: float):
    frames, geometry = sequence(2.0, roll=2.0 * WANDER, wind=(8.0, 3.0))
    clear, here = other_flight()
    low = float(frames.min())
    found = layer(low, 1e6).below(clear, here, frames, geometry, np.array([2.0]), np.array([put_km]))
    assert sweep(found, here, NADIR, HEIGHTS)[0] == pytest.approx(put_km, abs=0.12)


def test_it_is_hidden_by_a_bright_cloud_and_lies_with_the_image():
    frames, geometry = sequence(2.0)
    clear, here = other_flight()
    other = (frames, geometry, np.array([2.0]), np.array([1.0]))
    low = float(frames.min())
    expected = layer(low, 1e6).below(clear, here, *other)
    hidden = layer(low, 5.0).below(np.full_like(clear, 5.0), here, *other)
    np.testing.assert_array_equal(hidden, 5.0)
    axes = Axes(0, 1, -1)  # columns run to the left, rows forward
    turned = [np.swapaxes(each, 2, 3)[..., ::-1, :] for each in (clear, frames)]
    nadir = (NADIR[1], ROWS - 1 - NADIR[0])
    found = layer(low, 1e6, axes, nadir).below(turned[0], here, turned[1], *other[1:])
    np.testing.assert_allclose(np.swapaxes(found, 2, 3)[:, :, ::-1], expected, atol=1e-5)


def test_a_batch_keeps_its_heights_and_loses_what_two_clouds_have_together():
    frames, geometry = (np.repeat(each, 8, axis=0) for each in sequence(2.0))
    settings = Augmentation(second_layer=0.5, mirror_across_track=False)
    heights = {0: (1.0, 0.5), 1: (1.2, 0.5)}
    augment = SequenceAugmentation(settings, NADIR, None, "rows", heights, 6.0, layer(float(frames.min()), 10.0))
    target, weight = np.tile(np.array([[1.0, 1.6, 0.3]], "float32"), (8, 1)), np.ones((8, 3), "float32")
    inputs = {"frames": frames.copy(), "geometry": geometry.copy()}
    changed, same, weights = augment(inputs, target.copy(), weight.copy(), np.random.default_rng(0), np.zeros(8))
    layered = np.abs(changed["frames"] - frames).max(axis=(1, 2, 3, 4)) > 0
    assert 0 < layered.sum() < 8
    np.testing.assert_array_equal(weights, np.stack([np.ones(8), np.ones(8), ~layered], axis=1))
    np.testing.assert_array_equal(same, target)
    low = np.tile(np.array([[-1.5, -1.5, 0.0]], "float32"), (8, 1))  # clouds at the ground have none below
    changed, _, _ = augment(inputs, low, weight, np.random.default_rng(0), np.zeros(8))
    np.testing.assert_array_equal(changed["frames"], frames)

"""The layers that compare frames height by height, on planted layers of cloud."""

import keras
import numpy as np
import pytest
from test_geometry import ALTITUDE_KM, COLUMNS, FRAMES, ROWS, SCALE, SPEED, WANDER, planted

from cloudml_tf.nn.parallax import CostVolume, LevelStrip, interpolation
from cloudml_tf.nn.sightlines import ALTITUDE, FORWARD, GEOMETRY, PITCH, ROLL, TIME, WIND_FORWARD, WIND_RIGHT
from cloudml_tf.nn.sightlines import SCALE as PIXELS

HEIGHTS = np.arange(61) * 0.1


def sequence(height_km: float, roll=0.0, pitch=0.0, wind=(0.0, 0.0)) -> tuple[np.ndarray, np.ndarray]:
    """Seven frames (1,7,H,W,1) of a layer, and their geometry (1,7,9)."""
    geometry = np.zeros((1, FRAMES, len(GEOMETRY)), "float32")
    geometry[..., TIME], geometry[..., ALTITUDE], geometry[..., PIXELS] = np.arange(FRAMES), ALTITUDE_KM, SCALE
    geometry[..., ROLL], geometry[..., PITCH], geometry[..., FORWARD] = roll, pitch, SPEED
    geometry[..., WIND_FORWARD], geometry[..., WIND_RIGHT] = wind
    images = planted(height_km, roll=roll, pitch=pitch, wind=wind).astype("float32")
    return images[None, 1:8, ..., None], geometry[:, 1:8]


def best_height(frames: np.ndarray, geometry: np.ndarray, rows: int = 9, **axes: int) -> float:
    """The height at which grey values agree best: rows around the middle one are the features."""
    strip = LevelStrip((ROWS // 2, COLUMNS // 2), rows + 6, **axes)([frames, geometry])
    strip = keras.ops.convert_to_numpy(strip)[..., 0]  # (1,7,15,W)
    patch = np.stack([np.roll(strip, -shift, axis=3) for shift in range(-4, 5)], axis=-1)  # along the track
    features = np.stack([patch[:, :, row : row + 7] for row in range(rows)], axis=-1)  # (1,7,7,W,9,9)
    features = features.reshape(*features.shape[:4], -1)
    volume = keras.ops.convert_to_numpy(CostVolume(HEIGHTS, groups=1)([features, geometry]))  # (1,61,9,1)
    return float(HEIGHTS[volume[0, ..., 0].mean(axis=1).argmax()])


@pytest.mark.parametrize("height_km", [0.6, 2.0, 4.8])
def test_a_layer_is_alike_at_its_height(height_km):
    assert best_height(*sequence(height_km)) == pytest.approx(height_km, abs=0.11)


def test_attitude_and_wind_are_undone():
    assert best_height(*sequence(2.0, roll=2.0 * WANDER)) == pytest.approx(2.0, abs=0.11)
    assert best_height(*sequence(2.0, pitch=0.02 * np.arange(FRAMES))) == pytest.approx(2.0, abs=0.11)
    assert best_height(*sequence(2.0, wind=(8.0, 20.0))) == pytest.approx(2.0, abs=0.11)
    frames, geometry = sequence(2.0, pitch=0.02 * np.arange(FRAMES))
    geometry[..., PITCH] *= -1.0
    assert abs(best_height(frames, geometry) - 2.0) > 0.4


def test_images_that_lie_otherwise_are_turned_upright():
    frames, geometry = sequence(2.0, roll=2.0 * WANDER, pitch=0.02 * np.arange(FRAMES))
    whole = LevelStrip((ROWS // 2, COLUMNS // 2), 15)
    expected = keras.ops.convert_to_numpy(whole([frames, geometry]))
    turned = LevelStrip((COLUMNS // 2, ROWS // 2), 15, along=0)([np.swapaxes(frames, 2, 3).copy(), geometry])
    np.testing.assert_allclose(keras.ops.convert_to_numpy(turned), expected, atol=1e-5)
    mirrored = LevelStrip((ROWS - 1 - ROWS // 2, COLUMNS // 2), 15, right_sign=-1)
    found = mirrored([frames[:, :, ::-1].copy(), geometry])
    np.testing.assert_allclose(keras.ops.convert_to_numpy(found), expected, atol=1e-5)


def test_level_frames_are_cut_out_as_they_are():
    frames, geometry = sequence(2.0)
    found = keras.ops.convert_to_numpy(LevelStrip((20, 32), 5)([frames, geometry]))
    np.testing.assert_allclose(found, frames[:, :, 18:23], atol=1e-6)


def test_interpolation_passes_through_pixels_and_repeats_the_border():
    weight = keras.ops.convert_to_numpy(interpolation(np.array([0.0, 2.0, 2.5, -3.0, 9.0], "float32"), 5))
    np.testing.assert_allclose(weight.sum(axis=1), 1.0, atol=1e-6)
    np.testing.assert_allclose(weight[[0, 1, 3, 4]], np.eye(5)[[0, 2, 0, 4]], atol=1e-6)
    np.testing.assert_allclose(weight[2], [0, -0.0625, 0.5625, 0.5625, -0.0625], atol=1e-6)


def test_a_gain_changes_nothing_and_features_get_gradients():
    frames, geometry = sequence(2.0)
    volume = CostVolume(HEIGHTS[::10], places=(-2, 0, 2), groups=1)
    features = np.concatenate([np.roll(frames[:, :, 15:22], shift, axis=3) for shift in range(4)], axis=-1)
    one, other = (keras.ops.convert_to_numpy(volume([scale * features, geometry])) for scale in (300.0, 900.0))
    assert one.shape == (1, 7, 9, 3)
    np.testing.assert_allclose(one, other, atol=1e-3)
    assert volume.compute_output_shape([features.shape, geometry.shape]) == (1, 7, 9, 3)


def test_they_are_saved_with_a_model(tmp_path):
    frames, geometry = sequence(2.0)
    inputs = {"frames": keras.Input(frames.shape[1:], name="frames"), "geometry": keras.Input((7, 9), name="geometry")}
    strip = LevelStrip((20, 32), 7)([inputs["frames"], inputs["geometry"]])
    features = keras.layers.Conv3D(8, (1, 3, 3), padding="same")(strip)
    model = keras.Model(inputs, CostVolume(HEIGHTS[::5], groups=2)([features, inputs["geometry"]]))
    model.save(tmp_path / "model.keras")
    again = keras.models.load_model(tmp_path / "model.keras")
    given = {"frames": frames, "geometry": geometry}
    np.testing.assert_allclose(model.predict(given, verbose=0), again.predict(given, verbose=0), atol=1e-5)

"""The network: shapes, the nadir pixel, time, units, and every knob."""

import json

import keras
import numpy as np
import pytest

from cloudml_tf import models
from cloudml_tf.nn import introspection, nadir
from cloudml_tf.nn import layers as own

SMALL = {"widths": (4, 6), "footprint": 5, "encoder_features": 8, "heads": 2, "head_units": 8, "dropout": 0.0}
RNG = np.random.default_rng(0)


def small(**changes: object) -> keras.Model:
    keras.utils.set_random_seed(1)
    return models.build_regressor((12, 14, 2), **{"temporal_frames": 3, **SMALL, **changes})


def inputs(batch: int = 4, steps: int = 3, features: int = 0) -> dict[str, np.ndarray]:
    found = {
        "frames": RNG.normal(size=(batch, steps, 12, 14, 2)).astype("float32"),
        "sun_angles_deg": RNG.uniform(0, 60, size=(batch, steps, 2)).astype("float32"),
    }
    if features:
        found["features"] = RNG.normal(size=(batch, steps, features)).astype("float32")
    return found


def out(model: keras.Model, x: dict[str, np.ndarray]) -> np.ndarray:
    return keras.ops.convert_to_numpy(model({name: x[name] for name in x}, training=False))


@pytest.fixture(scope="module")
def plain() -> keras.Model:
    """The network without changes."""
    return small()


@pytest.mark.parametrize("architecture", ["attention", "no_attention", "single_frame", "simple_cnn"])
@pytest.mark.parametrize("steps", [1, 3, 5])
def test_one_number_a_sequence(architecture: str, steps: int) -> None:
    assert out(small(architecture=architecture, temporal_frames=steps), inputs(steps=steps)).shape == (4, 1)


def test_folded_time_equals_time_distributed() -> None:
    encoder = models.build_frame_encoder((12, 14, 2), (6, 7), (4, 6), 5, 8)
    x = inputs()["frames"]
    ours = own.FoldedTime(encoder)(x)
    theirs = keras.layers.TimeDistributed(encoder)(x)
    np.testing.assert_allclose(*(keras.ops.convert_to_numpy(found) for found in (ours, theirs)), atol=1e-6)


def test_folded_time_is_right_where_the_number_of_frames_is_not_known() -> None:
    layer = own.FoldedTime(keras.layers.Dense(5))
    x = keras.Input((None, 3))
    model = keras.Model(x, layer(x))
    for batch, steps in ((2, 7), (5, 2)):
        values = RNG.normal(size=(batch, steps, 3)).astype("float32")
        assert model.predict(values, verbose=0).shape == (batch, steps, 5)
        np.testing.assert_allclose(
            model.predict(values, verbose=0)[-1, -1], keras.ops.convert_to_numpy(layer.layer(values[-1]))[-1], atol=1e-5
        )


def test_the_nadir_pixel_reaches_the_output_at_full_resolution() -> None:
    """A checkerboard, which any pooling erases, at the nadir pixel of the middle frame moves the output most."""
    model = small(nadir=(6, 7))
    rng = np.random.default_rng(1)  # weights as drawn anywhere, whatever the backend
    model.set_weights([w if w.ndim == 1 else rng.normal(0.0, 0.3, w.shape) for w in model.get_weights()])
    x = inputs(batch=1)
    base = out(model, x)[0, 0]

    def change(row: int, column: int) -> float:
        moved = {name: values.copy() for name, values in x.items()}
        moved["frames"][0, 1, row, column] += 1.0
        return abs(out(model, moved)[0, 0] - base)

    assert change(6, 7) > 1e-3
    assert change(6, 7) > 3 * change(0, 0)
    assert change(6, 7) != pytest.approx(change(6, 8), rel=0.05)


def test_the_crop_is_around_nadir() -> None:
    image = np.arange(12 * 14, dtype="float32").reshape(1, 12, 14, 1)
    np.testing.assert_array_equal(nadir.NadirCrop((6, 7), 3, 3)(image)[0, :, :, 0], image[0, 5:8, 6:9, 0])


def test_sun_angles_enter_as_sines_and_cosines() -> None:
    angles = np.array([[[30.0, 90.0], [30.0, 450.0], [30.0, -90.0]]], "float32")
    vector = keras.ops.convert_to_numpy(own.SunVector()(angles))[0]
    np.testing.assert_allclose(vector[0], [0.0, 0.5, np.sqrt(3) / 2, 0.5], atol=1e-6)
    np.testing.assert_allclose(vector[0], vector[1], atol=1e-6)  # no jump at 360
    np.testing.assert_allclose(vector[2], vector[0] * [1, -1, 1, 1], atol=1e-6)  # the mirror image


def test_standardize_by_hand() -> None:
    x = np.array([[0.5, 3.0]], "float32")
    layer = own.Standardize([0.5, 1.0], [1.0, 2.0])
    np.testing.assert_allclose(layer(x), [[0.0, 1.0]])
    logged = own.Standardize([0.0], [1.0], log_offset=0.1)(np.array([[0.9], [-5.0]], "float32"))
    np.testing.assert_allclose(logged, [[0.0], [np.log(0.1)]], atol=1e-6)
    flat = own.Standardize([0.0], [1.0], flat_field=np.full((2, 2, 1), 2.0))(np.ones((1, 2, 2, 1), "float32"))
    np.testing.assert_allclose(flat, np.full((1, 2, 2, 1), 0.5))
    frame = own.Standardize([7.0], [9.0], per_frame=True)(RNG.normal(5, 3, (2, 8, 8, 1)).astype("float32"))
    np.testing.assert_allclose(keras.ops.mean(frame, axis=(1, 2, 3)), [0, 0], atol=1e-5)


def test_physical_units_by_hand() -> None:
    z = np.array([[1.0]], "float32")
    assert float(own.PhysicalUnits(2.0, 3.0)(z)[0, 0]) == pytest.approx(5.0)
    assert float(own.PhysicalUnits(0.0, 1.0, log=True, smearing=1.5)(z)[0, 0]) == pytest.approx(1.5 * np.e)


def test_the_crop_at_the_border_keeps_nadir_in_the_middle() -> None:
    image = np.arange(12.0, dtype="float32").reshape(1, 12, 1, 1)
    cropped = keras.ops.convert_to_numpy(nadir.NadirCrop((1, 0), 5, 1)(image))[0, :, 0, 0]
    np.testing.assert_array_equal(cropped, [0, 0, 1, 2, 3])  # the border pixel is repeated


def test_half_precision_does_not_touch_radiance_and_degrees() -> None:
    keras.config.set_dtype_policy("mixed_bfloat16")
    try:
        close = own.Standardize([3000.0], [1.0])(np.array([[3001.0], [3001.5]], "float32"))
        angles = own.SunVector()(np.array([[[40.0, 90.0]], [[40.0, 91.0]]], "float32"))
        values = own.PhysicalUnits(1000.0, 1.0)(np.array([[1.001], [1.002]], "float32"))
    finally:
        keras.config.set_dtype_policy("float32")
    for pair in (close, angles[..., 0], values):
        first, second = np.asarray(keras.ops.cast(pair, "float32")).reshape(2, -1)
        assert (first != second).all()


def last_layer(model: keras.Model) -> keras.layers.Layer:
    return model.get_layer("sequence_model").get_layer("output")


def test_the_output_layer_starts_as_configured() -> None:
    model = models.build_regressor((12, 12, 1), **{**SMALL, "head_units": 512}, output_init=0.5, output_bias=0.9)
    kernel, bias = last_layer(model).get_weights()
    assert kernel.std() == pytest.approx(0.5, rel=0.15)
    assert bias[0] == pytest.approx(0.9)
    glorot = models.build_regressor((12, 12, 1), **{**SMALL, "head_units": 512})
    assert last_layer(glorot).get_weights()[0].std() == pytest.approx(np.sqrt(2 / 513), rel=0.15)


@pytest.mark.parametrize(
    "change",
    [
        {"widths": (5, 6)},
        {"footprint": 7},
        {"encoder_features": 9},
        {"head_units": 9},
        pytest.param({"architecture": "single_frame"}, marks=pytest.mark.slow),
        pytest.param({"architecture": "simple_cnn"}, marks=pytest.mark.slow),
        {"sun_angles": False},
        pytest.param({"features": 2}, marks=pytest.mark.slow),
        pytest.param({"output_bias": 1.0}, marks=pytest.mark.slow),
        {"output_init": 0.5},
        pytest.param({"nadir": (3, 3)}, marks=pytest.mark.slow),
        pytest.param({"contrast_boxes": (3,)}, marks=pytest.mark.slow),
        {"nadir_linear": True},
        pytest.param({"mirror_average": "rows"}, marks=pytest.mark.slow),
        pytest.param({"frame_scaler": own.Standardize([1.0, 1.0], [2.0, 2.0])}, marks=pytest.mark.slow),
    ],
)
@pytest.mark.no_cover
def test_every_knob_moves_something(change: dict, plain: keras.Model) -> None:
    x = inputs()
    if change.get("sun_angles") is False:
        del x["sun_angles_deg"]
    more = {**x, **inputs(features=2)} if "features" in change else x
    more = {name: x.get(name, value) for name, value in more.items()}
    base_inputs = {**inputs(), **x}
    assert not np.allclose(out(plain, base_inputs), out(small(**change), more), atol=1e-6)


def test_heads_and_dropout_move_something() -> None:
    assert small(heads=4).count_params() == small().count_params()  # the same width, cut otherwise
    x = inputs()
    assert not np.allclose(out(small(heads=4), x), out(small(heads=1), x), atol=1e-6)
    noisy = small(dropout=0.5)
    first, second = (keras.ops.convert_to_numpy(noisy(x, training=True)) for _ in range(2))
    assert not np.allclose(first, second)
    np.testing.assert_array_equal(out(noisy, x), out(noisy, x))


def test_attention_looks_at_the_other_frames_and_the_single_frame_model_does_not() -> None:
    x = inputs()
    other = {**x, "frames": x["frames"].copy()}
    other["frames"][:, 0] += 1.0
    assert not np.allclose(out(small(), x), out(small(), other))
    single = small(architecture="single_frame")
    np.testing.assert_array_equal(out(single, x), out(single, other))


def test_contrast_is_the_pixel_less_its_neighbourhood() -> None:
    x = np.zeros((1, 1, 5, 5, 1), "float32")
    x[0, 0, 2, 2] = 9.0
    out_maps = keras.ops.convert_to_numpy(own.LocalContrast([3], gain=1.0)(x))
    assert out_maps.shape == (1, 1, 5, 5, 2)
    np.testing.assert_array_equal(out_maps[..., 0], x[..., 0])
    assert out_maps[0, 0, 2, 2, 1] == pytest.approx(8.0)  # 9 less the mean of nine pixels
    assert out_maps[0, 0, 1, 1, 1] == pytest.approx(-1.0)
    np.testing.assert_allclose(own.LocalContrast([3, 5])(np.ones_like(x))[..., 1:], 0.0, atol=1e-6)


@pytest.mark.parametrize("axis", ["rows", "columns"])
def test_the_mirror_average_does_not_know_left_from_right(axis: str) -> None:
    nadir = (6, 7)
    model = small(mirror_average=axis, nadir=nadir)
    x = inputs()
    wrapper = model.get_layer("mirror_average")
    mirrored = {name: keras.ops.convert_to_numpy(v) for name, v in wrapper.mirrored(x).items()}
    number = 0 if axis == "rows" else 1
    nadir_pixels = [v["frames"][:, :, nadir[0], nadir[1]] for v in (x, mirrored)]
    np.testing.assert_array_equal(*nadir_pixels)
    np.testing.assert_array_equal(mirrored["sun_angles_deg"], x["sun_angles_deg"] * [1.0, -1.0])
    beside = [v["frames"].take(nadir[number] + d, axis=2 + number) for v, d in ((x, 1), (mirrored, -1))]
    np.testing.assert_array_equal(*beside)
    inside = wrapper.layer
    expected = 0.5 * (out(inside, x) + out(inside, mirrored))
    np.testing.assert_allclose(out(model, x), expected, rtol=1e-5)
    trained = keras.ops.convert_to_numpy(model(x, training=True))
    np.testing.assert_allclose(trained, out(inside, x), rtol=1e-5)  # no dropout here: once, as it is


def test_the_saved_model_holds_its_constants(tmp_path) -> None:
    scaler = own.Standardize([0.1, 0.2], [1.0, 3.0], log_offset=0.3, flat_field=np.ones((12, 14, 2)))
    more = {"contrast_boxes": (3,), "nadir_linear": True, "mirror_average": "rows"}
    model = models.physical_model(
        small(frame_scaler=scaler, features=2, feature_scaler=own.Standardize([1.0, 2.0], [1.0, 1.0]), **more),
        own.PhysicalUnits(1.0, 2.0, log=True, smearing=1.1),
    )
    model.save(tmp_path / "model.keras")
    loaded = keras.saving.load_model(tmp_path / "model.keras")
    x = inputs(features=2)
    np.testing.assert_array_equal(out(model, x), out(loaded, x))


@pytest.mark.parametrize(
    "layer",
    [
        own.Standardize([1.0], [2.0], log_offset=0.1, per_frame=True),
        own.SunVector(),
        nadir.NadirCrop((1, 2), 3, 5),
        own.FoldedTime(keras.layers.Dense(3)),
        own.TimeEmbedding(),
        own.MiddleFrame(),
        own.LocalContrast([3, 5]),
        own.PhysicalUnits(1.0, 2.0, True, 1.5),
    ],
    ids=lambda layer: type(layer).__name__,
)
def test_round_trip(layer: keras.layers.Layer) -> None:
    config = json.loads(json.dumps(keras.saving.serialize_keras_object(layer)))
    again = keras.saving.deserialize_keras_object(config)
    assert keras.saving.serialize_keras_object(again) == keras.saving.serialize_keras_object(layer)


def test_mixed_precision_keeps_the_output_fine() -> None:
    keras.config.set_dtype_policy("mixed_bfloat16")
    try:
        model = small()
        values = out(models.physical_model(model, own.PhysicalUnits(1000.0, 1.0)), inputs(batch=32))
    finally:
        keras.config.set_dtype_policy("float32")
    assert values.dtype == np.float32
    assert len(np.unique(values)) > 24  # in bfloat16 near 1000 there would be one


def test_attention_weights_are_the_middle_row_averaged_over_heads() -> None:
    model, x = small(), inputs()
    frames, sequence = model.get_layer("frame_model"), model.get_layer("sequence_model")
    layer = next(one for one in sequence.layers if isinstance(one, keras.layers.MultiHeadAttention))
    attended = keras.Model(sequence.inputs, layer.input[0])
    query, query_bias, key, key_bias = (
        keras.ops.convert_to_numpy(w) for w in layer.weights[:4]
    )  # (D,heads,d), (heads,d)
    token = out(attended, frames(x, training=False))  # (4,3,D)
    q = np.einsum("bd,dhk->bhk", token[:, 1], query) + query_bias  # of the middle frame
    k = np.einsum("btd,dhk->bhtk", token, key) + key_bias[:, None]
    raw = np.exp(np.einsum("bhk,bhtk->bht", q, k) / np.sqrt(q.shape[-1]))
    expected = (raw / raw.sum(axis=-1, keepdims=True)).mean(axis=1)
    found = introspection.attention_weights(model, x)
    np.testing.assert_allclose(found, expected, atol=1e-5)
    np.testing.assert_allclose(found.sum(axis=1), 1.0, atol=1e-5)


def test_under_the_mirror_average_a_distribution_still_has_one_point() -> None:
    model = small(mirror_average="rows", head="quantile", quantiles=5)
    assert model.output_shape == (None, 6)
    physical = models.physical_model(model, own.PhysicalUnits(1.0, 0.5))
    assert out(physical, inputs()).shape == (4, 1)


def test_attention_weights_under_the_mirror_average_are_the_mean_of_both_images() -> None:
    model, x = small(mirror_average="rows"), inputs()
    mirrored = model.get_layer("mirror_average").mirrored(x)
    both = [introspection.attention_weights(model.get_layer("mirror_average").layer, one) for one in (x, mirrored)]
    np.testing.assert_allclose(introspection.attention_weights(model, x), 0.5 * (both[0] + both[1]), atol=1e-6)


def test_attention_weights_take_features_under_the_mirror_average() -> None:
    """Arrays and tensors may not be mixed in one call of a model."""
    model, x = small(mirror_average="rows", features=2), inputs(features=2)
    assert introspection.attention_weights(model, x).shape == (4, 3)


def test_without_attention_there_are_no_weights() -> None:
    for architecture in ("single_frame", "no_attention"):
        assert introspection.attention_weights(small(architecture=architecture), inputs()) is None
    assert introspection.attention_weights(small(temporal_frames=1), inputs(steps=1)) is None


@pytest.mark.parametrize("along", ["columns", "rows"])
@pytest.mark.parametrize("changes", [{}, {"nadir_linear": True, "contrast_boxes": (3,), "features": 1}])
@pytest.mark.no_cover
def test_along_the_track_the_network_answers_as_the_one_at_nadir_moved_there(along: str, changes: dict) -> None:
    """The same weights; another place of the image is nadir."""
    offsets, axis = (0, 2, -2, 4, -4), 0 if along == "rows" else 1

    def build(nadir: tuple[int, int], **more: object) -> keras.Model:
        keras.utils.set_random_seed(1)
        return models.build_regressor((36, 38, 2), **{"temporal_frames": 3, **SMALL, **changes}, nadir=nadir, **more)

    x = {**inputs(features=changes.get("features", 0)), "frames": RNG.normal(size=(4, 3, 36, 38, 2)).astype("float32")}
    track = build((18, 19), offsets=offsets, along=along)
    answers = out(track, x)
    assert answers.shape == (4, len(offsets))
    for place, offset in enumerate(offsets):
        nadir = [18, 19]
        nadir[axis] += offset
        moved = build((nadir[0], nadir[1]))
        introspection.copy_weights(track, moved)
        np.testing.assert_allclose(out(moved, x)[:, 0], answers[:, place], atol=1e-5)


def test_a_network_along_the_track_can_be_mirrored_and_share_frames() -> None:
    model = small(offsets=(0, 2, -2), mirror_average="rows")
    x = inputs()
    shared = {name: values.reshape(-1, *values.shape[2:]) for name, values in x.items()}
    shared["chosen_frames"] = np.arange(12, dtype="int32").reshape(4, 3)
    np.testing.assert_allclose(out(models.share_frames(model), shared), out(model, x), atol=1e-6)

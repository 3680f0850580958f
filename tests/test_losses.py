"""The variance-preserving loss against numbers worked out by hand."""

import json

import keras
import numpy as np
import pytest
from backends import gradient

from cloudml_tf.losses import (
    BASES,
    FORMS,
    HistogramLoss,
    QuantileLoss,
    VariancePreservingLoss,
    base_error,
    penalty,
    pooled_spread,
    spread_of,
)  # fmt: skip
from cloudml_tf.metrics import R2

# Worked by hand: t = (0, 2, 4), p = (1, 2, 3).
# mse = (1 + 0 + 1)/3 = 2/3. var(t) = 4, var(p) = 1 (n - 1). Penalty (1 - 1/4)² = 9/16.
T = np.array([0.0, 2.0, 4.0], "float32")
P = np.array([1.0, 2.0, 3.0], "float32")


def value(loss: keras.losses.Loss, *args: object) -> float:
    return float(keras.ops.convert_to_numpy(loss(*args)))


def test_the_original_form_by_hand() -> None:
    assert value(VariancePreservingLoss(), T, P) == pytest.approx(2 / 3 + 0.5 * 9 / 16, rel=1e-6)


def test_the_original_form_as_its_own_code_has_it() -> None:
    rng = np.random.default_rng(0)
    t, p = rng.normal(size=(2, 64)).astype("float32")
    # torch's .var() divides by n - 1
    expected = ((p - t) ** 2).mean() + 0.5 * (1.0 - p.var(ddof=1) / (t.var(ddof=1) + 1e-8)) ** 2
    assert value(VariancePreservingLoss(), t, p) == pytest.approx(expected, rel=1e-5)


@pytest.mark.parametrize(
    ("base", "expected"),
    # errors 0.5 and -3: squares 0.25 and 9; Huber 0.125 and 3 - 0.5
    [("mse", 9.25 / 2), ("mae", 3.5 / 2), ("huber", 2.625 / 2), ("mse_mae", (9.25 + 3.5) / 4)],
)
def test_each_base_by_hand(base: str, expected: float) -> None:
    t, p = np.array([1.0, 3.0], "float32"), np.array([1.5, 0.0], "float32")
    assert value(VariancePreservingLoss(base=base, weight=0.0), t, p) == pytest.approx(expected, rel=1e-6)


def test_huber_turns_linear_at_delta_and_the_mixture_mixes() -> None:
    error = keras.ops.array([3.0], "float32")
    assert float(base_error(error, "huber", delta=1.0)[0]) == pytest.approx(2.5)  # 1·(3 - 0.5)
    assert float(base_error(error, "huber", delta=2.0)[0]) == pytest.approx(4.0)  # 2·(3 - 1)
    assert float(base_error(error, "mse_mae", mae_fraction=0.25)[0]) == pytest.approx(0.75 * 9 + 0.25 * 3)


def test_a_constant_target_variance_replaces_that_of_the_batch() -> None:
    # (1 - 1/2)² = 1/4
    assert value(VariancePreservingLoss(target_variance=2.0), T, P) == pytest.approx(2 / 3 + 0.5 / 4, rel=1e-6)


def test_weights_enter_base_and_moments_but_do_not_scale_the_penalty() -> None:
    # A weight of 2 on the last sample. Base: (1 + 0 + 2·1)/3 = 1.
    # Moments: Σw = 4, Σw² = 6, freedom 4 - 6/4 = 2.5.
    # mean(t) = 10/4 = 2.5: Σw(t-mean)² = 6.25 + 0.25 + 2·2.25 = 11, var 4.4. p is half as wide: var 1.1.
    weight = np.array([1.0, 1.0, 2.0], "float32")
    penalty = (1.0 - 1.1 / 4.4) ** 2
    assert value(VariancePreservingLoss(), T, P, weight) == pytest.approx(1.0 + 0.5 * penalty, rel=1e-5)
    plain = VariancePreservingLoss(weighted_moments=False)
    assert value(plain, T, P, weight) == pytest.approx(1.0 + 0.5 * 9 / 16, rel=1e-5)


def test_equal_weights_change_the_base_alone() -> None:
    twice = value(VariancePreservingLoss(), T, P, np.full(3, 2.0, "float32"))
    assert twice == pytest.approx(2 * 2 / 3 + 0.5 * 9 / 16, rel=1e-5)


@pytest.mark.parametrize("shape", [(3,), (3, 1)])
def test_a_column_of_predictions_is_not_broadcast_against_a_row_of_targets(shape: tuple[int, ...]) -> None:
    # (3,) against (3, 1) must not become (3, 3)
    assert value(VariancePreservingLoss(), T, P.reshape(shape)) == pytest.approx(2 / 3 + 9 / 32, rel=1e-6)
    assert value(VariancePreservingLoss(), T.reshape(shape), P[:, None]) == pytest.approx(2 / 3 + 9 / 32, rel=1e-6)


def test_maps_use_the_moments_of_all_pixels() -> None:
    rng = np.random.default_rng(1)
    t, p = rng.normal(size=(2, 4, 5, 6)).astype("float32")
    expected = ((p - t) ** 2).mean() + 0.5 * (1 - p.var(ddof=1) / t.var(ddof=1)) ** 2
    assert value(VariancePreservingLoss(), t, p) == pytest.approx(expected, rel=1e-4)


def test_every_sample_keeps_its_value() -> None:
    loss = VariancePreservingLoss(reduction="none")
    values = keras.ops.convert_to_numpy(loss(T, P))
    np.testing.assert_allclose(values, np.array([1, 0, 1]) + 9 / 32, rtol=1e-6)


@pytest.mark.parametrize("target_variance", ["batch", 1.0])
def test_finite_for_a_batch_of_one_for_equal_targets_and_in_half_precision(target_variance: str | float) -> None:
    loss = VariancePreservingLoss(target_variance=target_variance)
    one = np.array([1.0], "float32")
    assert np.isfinite(value(loss, one, 2 * one))
    assert np.isfinite(value(loss, np.ones(4, "float32"), P[[0, 1, 2, 0]]))
    half = np.array([300.0, -300.0, 250.0, 0.0], "float16")  # its squares overflow in float16
    assert np.isfinite(value(loss, half, half + 1))
    # the floor of a constant target is what bounds the penalty: (1 - var(p)/1e-8)²
    if target_variance == "batch":
        expected = 1 / 3 * 2 + 1 + 0.5 * (1 - (4 / 3) / 1e-8) ** 2
        got = value(loss, np.full(3, 3.0, "float32"), np.array([1.0, 3.0, 3.0], "float32"))
        assert got == pytest.approx(expected, rel=1e-3)


def test_the_gradient_is_zero_at_collapse_and_points_outwards_near_it() -> None:
    loss = VariancePreservingLoss(base="mse", weight=1.0)
    t = np.random.default_rng(2).normal(size=64).astype("float32")

    def penalty_gradient(p: np.ndarray) -> np.ndarray:
        return gradient(lambda p: loss.terms(t, p)[1], p)

    np.testing.assert_allclose(penalty_gradient(np.full(64, 0.3)), 0.0, atol=1e-12)
    deviations = 0.012 * np.random.default_rng(3).normal(size=64)
    found = penalty_gradient(deviations)
    assert np.corrcoef(found, deviations)[0, 1] < -0.99  # along the present deviations, not at the targets


def test_variance_of_weighted_values() -> None:
    values, weight = keras.ops.array([1.0, 2.0, 5.0]), keras.ops.array([1.0, 1.0, 0.0])
    assert float(spread_of(values, values, weight).var_t) == pytest.approx(0.5)  # a weight of 0 is absence
    assert float(spread_of(values[:1], values[:1], weight[:1]).var_p) == 0.0


@pytest.mark.parametrize("base", BASES)
def test_round_trip(base: str) -> None:
    loss = VariancePreservingLoss(base=base, weight=0.7, target_variance=1.5, delta=0.5, mae_fraction=0.2)
    config = json.loads(json.dumps(loss.get_config()))
    again = VariancePreservingLoss.from_config(config)
    assert again.get_config() == loss.get_config()
    assert value(again, T, P) == value(loss, T, P)


@pytest.mark.parametrize(
    ("arguments", "text"),
    [
        ({"base": "rmse"}, "`base` to be one of .*'rmse'"),
        ({"form": "ratio"}, "`form` to be one of"),
        ({"weight": -1}, "`weight` to be 0 or more"),
        ({"target_variance": "set"}, '`target_variance` to be "batch" or above 0'),
        ({"target_variance": 0}, "target_variance=0"),
        ({"variance_floor": -1}, "`variance_floor`"),
        ({"delta": 0}, "`delta` to be above 0"),
        ({"mae_fraction": 2}, "`mae_fraction` to be between 0 and 1"),
    ],
)
def test_wrong_arguments_say_the_rule(arguments: dict, text: str) -> None:
    with pytest.raises(ValueError, match=text):
        VariancePreservingLoss(**arguments)


def test_shapes_that_do_not_fit_are_refused() -> None:
    with pytest.raises(ValueError, match="as many targets as predictions"):
        VariancePreservingLoss()(np.zeros((4, 2), "float32"), np.zeros((4, 3), "float32"))


# var(t) = 4, var(p) = 1, cov = 2, means equal: s = 1/2, r = 1, CCC = 2·2/(4 + 1) = 0.8
@pytest.mark.parametrize(
    ("form", "expected"),
    [("variance", 9 / 16), ("std", 1 / 4), ("log", np.log(2.0) ** 2), ("hinge", 1 / 2), ("ccc", 0.2)],
)
def test_each_form_by_hand(form: str, expected: float) -> None:
    loss = VariancePreservingLoss(form=form, weight=2.0)
    assert value(loss, T, P) == pytest.approx(2 / 3 + 2 * expected, rel=1e-5)


def test_the_hinge_ends_at_gamma_and_the_clip_ends_the_push() -> None:
    assert value(VariancePreservingLoss(form="hinge", gamma=0.4), T, P) == pytest.approx(2 / 3)
    assert value(VariancePreservingLoss(clip=0.1), T, P) == pytest.approx(2 / 3 + 0.05)


@pytest.mark.parametrize("form", FORMS)
def test_every_form_is_finite_at_collapse_and_has_a_finite_gradient(form: str) -> None:
    loss = VariancePreservingLoss(form=form)
    p = np.full(16, 0.3, "float32")
    t = np.random.default_rng(4).normal(size=16).astype("float32")
    assert np.isfinite(value(loss, t, p))
    assert np.isfinite(gradient(lambda p: loss(t, p), p)).all()


def test_concordance_alone_points_at_the_targets_from_a_collapse() -> None:
    t = np.random.default_rng(5).normal(size=64).astype("float32")
    p = 0.01 * np.random.default_rng(6).normal(size=64).astype("float32")
    aims = {}
    for form in FORMS:
        loss = VariancePreservingLoss(form=form)
        away = gradient(lambda p, loss=loss: loss.terms(t, p)[1], p)
        aims[form] = np.corrcoef(-away, t)[0, 1]
    assert aims["ccc"] > 0.99
    assert all(abs(aim) < 0.4 for form, aim in aims.items() if form != "ccc")


@pytest.mark.skipif(keras.backend.backend() == "jax", reason="on JAX a loss keeps no state")
def test_pooled_moments_are_those_of_the_batches_together() -> None:
    rng = np.random.default_rng(7)
    t, p = rng.normal(size=(2, 3, 32)).astype("float32")
    loss = VariancePreservingLoss(weight=1.0, form="ccc", pooled_batches=3)
    for i in range(3):
        added = loss.terms(t[i], p[i])[1]
    rows = np.stack([spread_row(t[i], p[i]) for i in range(3)])
    m = pooled_spread(keras.ops.array(rows), keras.ops.array([32.0, 32.0, 32.0]))
    assert float(added) == pytest.approx(float(penalty("ccc", m)), rel=1e-5)
    assert float(m.var_t) == pytest.approx(t.var(ddof=1), rel=1e-5)  # of all 96 at once
    loss.training_phase(False)
    loss.terms(100 * t[0], p[0])  # validation: looked at with the pool, and not kept
    loss.training_phase(True)
    np.testing.assert_allclose(loss.pool_state()[0][0], spread_row(t[2], p[2]), rtol=1e-5)


def spread_row(t: np.ndarray, p: np.ndarray) -> np.ndarray:
    t, p = keras.ops.array(t), keras.ops.array(p)
    return np.array([float(x) for x in spread_of(t, p, keras.ops.ones_like(t))], "float32")


@pytest.mark.skipif(keras.backend.backend() != "jax", reason="other backends pool")
def test_pooling_is_refused_on_jax() -> None:
    with pytest.raises(ValueError, match="1 on JAX, whose compiled steps keep no state in a loss"):
        VariancePreservingLoss(pooled_batches=2)


def test_the_weight_can_be_changed_and_the_config_keeps_the_first() -> None:
    loss = VariancePreservingLoss(weight=0.5)
    loss.weight = 0.0
    assert value(loss, T, P) == pytest.approx(2 / 3)
    assert loss.get_config()["weight"] == 0.5


@pytest.mark.parametrize(
    ("arguments", "text"),
    [({"gamma": 0}, "`gamma`"), ({"clip": 0}, "`clip`"), ({"pooled_batches": 0}, "`pooled_batches` to be 1 or more")],
)
def test_further_wrong_arguments_say_the_rule(arguments: dict, text: str) -> None:
    with pytest.raises(ValueError, match=text):
        VariancePreservingLoss(**arguments)


ROWS = np.random.default_rng(8).normal(size=(6, 1)).astype("float32")
GUESS = (0.5 * ROWS + np.random.default_rng(9).normal(size=(6, 1))).astype("float32")
PRESENT = np.array([1.0, 0.0, 2.0, 1.0, 0.0, 0.5], "float32")


def losses_and_outputs() -> list[tuple[keras.losses.Loss, np.ndarray]]:
    """Every form, every base and both heads, with a fitting output (6, ·)."""
    shares = np.random.default_rng(1).dirichlet(np.ones(5), 6).astype("float32")
    points = [VariancePreservingLoss(form=form) for form in FORMS]
    points += [VariancePreservingLoss(base=base, target_variance=1.0, weighted_moments=False) for base in BASES]
    wide = np.concatenate([GUESS, shares], axis=1)
    heads = [QuantileLoss(), HistogramLoss(), HistogramLoss(base="huber", form="ccc")]
    return [(loss, GUESS) for loss in points] + [(loss, wide) for loss in heads]


@pytest.mark.parametrize(("loss", "output"), losses_and_outputs())
@pytest.mark.parametrize("bad", [np.nan, np.inf, -np.inf, 3e38])
def test_what_has_weight_zero_is_absent_in_values_and_gradients(
    loss: keras.losses.Loss, output: np.ndarray, bad: float
) -> None:
    absent = PRESENT == 0
    target, spoilt = ROWS.copy(), output.copy()
    target[absent], spoilt[absent] = bad, bad
    for t, p in ((target, output), (ROWS, spoilt), (target, spoilt)):
        assert value(loss, t, keras.ops.convert_to_tensor(p), PRESENT) == value(
            loss, ROWS, keras.ops.convert_to_tensor(output), PRESENT
        )
        found = gradient(lambda y, t=t: loss(t, y, PRESENT), p)
        expected = gradient(lambda y: loss(ROWS, y, PRESENT), output)
        np.testing.assert_array_equal(found, expected)
        assert (found[absent] == 0).all()
    assert np.isnan(value(loss, np.full_like(ROWS, np.nan), output, PRESENT))  # what counts stays loud


@pytest.mark.parametrize("shape", [(4,), (4, 1), (4, 3), (4, 3, 1), (4, 1, 2), (4, 3, 2)])
def test_weights_of_the_first_axes_apply_to_all_below_them(shape: tuple[int, ...]) -> None:
    rng = np.random.default_rng(2)
    t, p = rng.normal(size=(2, 4, 3, 2)).astype("float32")
    w = rng.uniform(0.2, 2.0, shape).astype("float32")
    full = np.broadcast_to(w.reshape(shape + (1,) * (3 - len(shape))), (4, 3, 2)).copy()
    assert value(VariancePreservingLoss(), t, p, w) == value(VariancePreservingLoss(), t, p, full)


@pytest.mark.skipif(keras.backend.backend() == "jax", reason="arrays of JAX keep no mask")
@pytest.mark.parametrize("weights", [None, np.array([[1, 2, 0], [1, 1, 3]], "float32")])
def test_a_mask_counts_as_weights(weights: np.ndarray | None) -> None:
    rng = np.random.default_rng(3)
    t, p = rng.normal(size=(2, 2, 3, 1)).astype("float32")
    mask = np.array([[True, True, False], [True, False, True]])
    expected = value(VariancePreservingLoss(), t, p, mask * (1.0 if weights is None else weights))
    t[~mask] = np.nan
    masked = keras.ops.convert_to_tensor(p)
    masked._keras_mask = keras.ops.convert_to_tensor(mask)
    assert value(VariancePreservingLoss(), t, masked, weights) == pytest.approx(expected, rel=1e-6)


def test_a_masked_model_trains_on_what_is_not_masked() -> None:
    x = np.random.default_rng(4).normal(size=(8, 5, 3)).astype("float32")
    x[:, 3:] = 0.0
    y = x.sum(axis=2, keepdims=True)
    y[:, 3:] = np.nan
    model = keras.Sequential([keras.Input((5, 3)), keras.layers.Masking(), keras.layers.Dense(1)])
    model.compile("sgd", VariancePreservingLoss(), metrics=[R2()])
    log = model.fit(x, y, epochs=2, verbose=0).history
    assert np.isfinite(log["loss"]).all()
    if keras.backend.backend() != "jax":  # Keras loses the mask there on the way to the metrics
        assert np.isfinite(log["r2"]).all()
    assert all(np.isfinite(w).all() for w in model.get_weights())


@pytest.mark.tensorflow("tf.data is TensorFlow's")
def test_axes_that_are_not_known_while_a_graph_is_traced() -> None:
    import tensorflow as tf

    rng = np.random.default_rng(5)
    t, p = rng.normal(size=(2, 4, 3, 2)).astype("float32")
    w = rng.uniform(0.2, 2.0, (4, 3)).astype("float32")
    loss = VariancePreservingLoss()
    specs = [tf.TensorSpec(shape) for shape in ((None, None, None), (None, None, None), (None, None))]
    traced = tf.function(loss.__call__, input_signature=specs)
    assert float(traced(t, p, w)) == pytest.approx(value(loss, t, p, w), rel=1e-6)
    specs = [tf.TensorSpec(None), tf.TensorSpec((None, 3, 2))]  # not even the number of axes
    assert float(tf.function(loss.__call__, input_signature=specs)(t, p)) == pytest.approx(value(loss, t, p), rel=1e-6)


NUMBERS = [np.float32(0.5), np.float64(0.5), np.array(0.5), np.float16(0.5), np.array(0.5, "float32")]


@pytest.mark.parametrize("given", [*NUMBERS, keras.ops.convert_to_tensor(0.5)])
def test_a_number_of_any_kind_is_a_number(given: object) -> None:
    names = ("target_variance", "weight", "variance_floor", "delta", "mae_fraction", "gamma", "clip")
    loss = VariancePreservingLoss(**dict.fromkeys(names, given))
    config = json.loads(json.dumps(loss.get_config()))
    assert [config[name] for name in names] == [0.5] * len(names)
    assert value(loss, T, P) == value(VariancePreservingLoss(**dict.fromkeys(names, 0.5)), T, P)
    loss.weight = given
    assert loss.weight == 0.5
    head = HistogramLoss(low=-given, high=given, smoothing=given)
    assert json.loads(json.dumps(head.get_config()))["high"] == 0.5


@pytest.mark.parametrize("given", [np.int64(1), np.uint8(1), np.array(1)])
def test_a_whole_number_of_any_kind_is_one(given: object) -> None:
    config = VariancePreservingLoss(pooled_batches=given, target_variance=given).get_config()
    assert json.loads(json.dumps(config))["pooled_batches"] == 1
    assert config["target_variance"] == 1.0


WRONG = [True, np.True_, 1j, np.complex64(1), "0.5", np.array([0.5]), np.nan, np.inf, np.array(True)]


@pytest.mark.parametrize("given", WRONG, ids=repr)
@pytest.mark.parametrize("name", ["target_variance", "weight", "delta", "gamma", "clip", "pooled_batches"])
def test_what_is_no_number_is_refused_by_name(name: str, given: object) -> None:
    with pytest.raises(ValueError, match=f"needs `{name}` to be .* Received: {name}="):
        VariancePreservingLoss(**{name: given})


@pytest.mark.parametrize("kind", [list, tuple, np.array, lambda given: np.array(given, "float32")])
def test_quantiles_of_chosen_levels(kind) -> None:
    # t = 1, quantiles 0 and 3 of levels ¼ and ¾: 2 · mean(¼, ½), as with the evenly spaced levels
    loss = QuantileLoss(kind([0.25, 0.75]), weight=0.0)
    output = np.array([[1.5, 0.0, 3.0]], "float32")
    assert value(loss, np.array([[1.0]], "float32"), output) == pytest.approx(0.75)
    again = QuantileLoss.from_config(json.loads(json.dumps(loss.get_config())))
    assert again.levels == loss.levels
    # of levels ½ and ¾: max(½·1, …) = ½ and ½
    other = QuantileLoss(kind([0.5, 0.75]), weight=0.0)
    assert value(other, np.array([[1.0]], "float32"), output) == pytest.approx(1.0)
    with pytest.raises(ValueError, match="Received: 2 levels, 4 columns"):
        loss(np.array([[1.0]], "float32"), np.ones((1, 4), "float32"))


@pytest.mark.parametrize("levels", [[0.5, 0.5], [0.9, 0.1], [0.0, 0.5], [1.5], [], "pinball", 0.5, [True], [[0.5]]])
def test_levels_rise_between_zero_and_one(levels: object) -> None:
    with pytest.raises(ValueError, match="QuantileLoss needs `levels` to be rising numbers between 0 and 1"):
        QuantileLoss(levels)

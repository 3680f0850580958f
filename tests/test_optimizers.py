"""AdamW in one row does what Keras's does weight by weight."""

from pathlib import Path

import keras
import numpy as np
import pytest

from cloudml_tf.nn.optimizers import UNDECAYED, FusedAdamW, adamw

pytestmark = pytest.mark.tensorflow("other backends use Keras's own")
X = np.random.default_rng(1).normal(size=(64, 5)).astype("float32")
Y = np.sin(X[:, :1]) * 3


def trained(optimizer: keras.optimizers.Optimizer, epochs: int = 5, frozen: bool = False) -> keras.Model:
    """A small network after so many epochs of four steps."""
    keras.utils.set_random_seed(3)
    parts = [keras.layers.Dense(7, "tanh"), keras.layers.LayerNormalization(), keras.layers.Dense(1)]
    model = keras.Sequential([keras.Input((5,)), *parts])
    parts[0].trainable = not frozen
    optimizer.exclude_from_weight_decay(var_names=list(UNDECAYED))
    model.compile(optimizer, "mse")
    model.fit(X, Y, batch_size=16, epochs=epochs, shuffle=False, verbose=0)
    return model


def schedule() -> keras.optimizers.schedules.LearningRateSchedule:
    return keras.optimizers.schedules.CosineDecay(0.0, 20, warmup_target=0.05, warmup_steps=4)


@pytest.mark.parametrize(
    ("clip", "frozen"),
    [
        (0.3, True),
        *(pytest.param(c, f, marks=pytest.mark.slow) for c, f in ((None, False), (0.3, False), (None, True))),
    ],
)
def test_the_same_weights_as_keras(clip: float | None, frozen: bool) -> None:
    options = {"weight_decay": 0.5, "global_clipnorm": clip}
    ours = trained(FusedAdamW(schedule(), **options), frozen=frozen)
    theirs = trained(keras.optimizers.AdamW(schedule(), **options), frozen=frozen)
    for one, other in zip(ours.get_weights(), theirs.get_weights(), strict=True):
        np.testing.assert_allclose(one, other, rtol=2e-4, atol=2e-6)
    assert int(ours.optimizer.iterations) == int(theirs.optimizer.iterations) == 20


def test_weights_of_some_names_do_not_decay() -> None:
    variables = [keras.Variable([2.0], name="kernel"), keras.Variable([2.0], name="bias")]
    optimizer = FusedAdamW(0.1, weight_decay=0.5)
    optimizer.exclude_from_weight_decay(var_names=["bias"])
    optimizer.apply([None, None], variables)
    assert [float(v.numpy()[0]) for v in variables] == pytest.approx([2.0 - 2.0 * 0.5 * 0.1, 2.0])


def test_a_gradient_that_is_no_number_is_not_hidden() -> None:
    variable = keras.Variable([1.0, 1.0])
    FusedAdamW(0.1, global_clipnorm=1.0).apply([keras.ops.convert_to_tensor([np.nan, 1.0])], [variable])
    assert np.isnan(variable.numpy()[0])


def test_it_is_saved_with_a_model_and_goes_on_from_its_moments(tmp_path: Path) -> None:
    whole = trained(FusedAdamW(0.01, global_clipnorm=1.0), epochs=4)
    trained(FusedAdamW(0.01, global_clipnorm=1.0), epochs=2).save(tmp_path / "half.keras")
    half = keras.saving.load_model(tmp_path / "half.keras")
    assert isinstance(half.optimizer, FusedAdamW)
    half.optimizer.exclude_from_weight_decay(var_names=list(UNDECAYED))
    half.fit(X, Y, batch_size=16, epochs=2, shuffle=False, verbose=0)
    for one, other in zip(half.get_weights(), whole.get_weights(), strict=True):
        np.testing.assert_allclose(one, other, rtol=1e-5, atol=1e-6)


def test_other_variables_than_it_was_built_with_are_refused() -> None:
    first, second = keras.Variable([1.0], name="first"), keras.Variable([2.0], name="second")
    optimizer = FusedAdamW(0.1)
    optimizer.build([first, second])
    with pytest.raises(ValueError, match=r"in that order.*Received: \['second', 'first'\]"):
        optimizer.apply([None, None], [second, first])
    with pytest.raises(ValueError, match=r"Received: \['first'\]"):
        optimizer.apply([None], [first])


def test_a_constraint_holds_after_a_step() -> None:
    layer = keras.layers.Dense(1, use_bias=False, kernel_constraint="non_neg", kernel_initializer="ones")
    layer.build((None, 2))
    FusedAdamW(5.0).apply([keras.ops.ones((2, 1))], layer.trainable_variables)
    np.testing.assert_array_equal(layer.get_weights()[0], 0.0)


def test_an_option_of_keras_that_it_does_not_have_is_refused() -> None:
    with pytest.raises(TypeError, match="amsgrad"):
        FusedAdamW(amsgrad=True)


def test_what_trains_on_several_devices_is_keras_own() -> None:
    assert type(adamw(0.1, 0.0, 1.0, one_device=False)) is keras.optimizers.AdamW
    fused = keras.backend.backend() == "tensorflow"
    assert isinstance(adamw(0.1, 0.0, 1.0), FusedAdamW) == fused

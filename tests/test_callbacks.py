"""The callbacks in a plain `model.fit` of somebody's own model."""

import math
from typing import Any

import keras
import numpy as np
import pytest

from cloudml_tf.callbacks import CollapseAbort, PenaltySchedule, R2EarlyStopping, WeightAverage, composite_score
from cloudml_tf.evaluation.scores import COLUMNS
from cloudml_tf.losses import VariancePreservingLoss
from cloudml_tf.metrics import PearsonCorrelation, regression_metrics
from cloudml_tf.nn.directions import direction
from cloudml_tf.nn.monitors import DiversityMonitor, LayerMonitor, PredictionSnapshots
from cloudml_tf.nn.nan_guard import NotFinite

RNG = np.random.default_rng(0)
X = RNG.normal(size=(64, 3)).astype("float32")
Y = (X[:, :1] - 0.5 * X[:, 1:2]).astype("float32")


class Scripted(keras.callbacks.Callback):
    """Puts chosen numbers into the log and the epoch's number into the weights, to see which epoch is kept."""

    def __init__(self, **columns: list[float]) -> None:
        super().__init__()
        self.columns = columns

    def on_epoch_end(self, epoch: int, logs: dict) -> None:
        logs.update({key: values[epoch] for key, values in self.columns.items()})
        self.model.set_weights([np.full_like(w, epoch) for w in self.model.get_weights()])


@pytest.fixture(scope="module")
def model() -> keras.Model:
    made = keras.Sequential([keras.Input((3,)), keras.layers.Dense(1)])
    made.compile("sgd", "mse", metrics=regression_metrics())
    return made


def fit(model: keras.Model, epochs: int, *callbacks: keras.callbacks.Callback, **more: object) -> dict:
    return model.fit(X, Y, batch_size=64, epochs=epochs, callbacks=list(callbacks), verbose=0, **more).history


def kept_epoch(model: keras.Model) -> float:
    return float(model.get_weights()[0][0, 0])


def test_r2_stopping_waits_and_restores_the_best(model: keras.Model) -> None:
    stop = R2EarlyStopping(patience=2)
    log = fit(model, 9, Scripted(val_r2=[0.1, 0.5, 0.4, 0.3, 0.9, 0, 0, 0, 0]), stop)
    assert len(log["loss"]) == 4  # two epochs without a rise after the second
    assert (stop.best, stop.best_epoch, stop.stopped_epoch) == (0.5, 1, 3)
    assert kept_epoch(model) == 1.0


def test_a_nan_is_never_the_best_and_never_ends_the_search(model: keras.Model) -> None:
    stop = R2EarlyStopping(patience=3)
    nan = math.nan
    fit(model, 5, Scripted(val_r2=[nan, -0.5, nan, -0.2, nan]), stop)
    assert (stop.best, stop.best_epoch) == (-0.2, 3)
    assert kept_epoch(model) == 3.0


def test_the_composite_of_the_original_turned_round() -> None:
    assert composite_score(val_loss=0.5, val_r2=0.3) == pytest.approx(-(0.5 - 2.0 * 0.3))


def test_stopping_on_the_composite_and_on_the_loss(model: keras.Model) -> None:
    script = {"val_r2": [0.3, 0.4, 0.0], "val_loss": [0.1, 0.5, 0.05]}
    stop = R2EarlyStopping(patience=9, monitor="composite")
    fit(model, 3, Scripted(**script), stop)
    assert stop.best_epoch == 0  # 0.6 - 0.1 beats 0.8 - 0.5 and 0.0 - 0.05
    stop = R2EarlyStopping(patience=9, monitor="val_loss")
    fit(model, 3, Scripted(**script), stop)
    assert stop.best_epoch == 2
    stop = R2EarlyStopping(patience=9, monitor="val_r2", min_delta=0.2)
    fit(model, 3, Scripted(**script), stop)
    assert stop.best_epoch == 0  # 0.4 is no rise of 0.2


def test_stopping_without_its_metric_says_what_to_compile(model: keras.Model) -> None:
    with pytest.warns(UserWarning, match=r"needs \['val_r2'\] in the training log.*regression_metrics"):
        fit(model, 1, R2EarlyStopping())


def test_collapse_is_called_after_the_grace_and_keeps_the_best_weights(model: keras.Model) -> None:
    abort = CollapseAbort(grace=2)
    log = fit(
        model, 9, Scripted(val_variance_ratio=[0.01, 0.3, 0.04, 1, 1, 1, 1, 1, 1], val_r2=[0.0, 0.2, 0.1] * 3), abort
    )
    assert len(log["loss"]) == 3
    assert abort.collapsed
    assert "epoch 3" in abort.message
    assert "4.0 %" in abort.message
    assert kept_epoch(model) == 1.0


def test_a_healthy_run_is_left_alone(model: keras.Model) -> None:
    abort = CollapseAbort(grace=0)
    fit(model, 3, Scripted(val_variance_ratio=[0.5, 0.06, math.nan], val_r2=[0.1] * 3), abort)
    assert not abort.collapsed
    assert kept_epoch(model) == 2.0


def test_a_really_collapsed_model_is_caught() -> None:
    made = keras.Sequential([keras.Input((3,)), keras.layers.Dense(1, kernel_initializer="zeros")])
    made.compile(keras.optimizers.SGD(1e-6), "mse", metrics=regression_metrics())
    abort = CollapseAbort(grace=1)
    log = fit(made, 5, abort, validation_data=(X, Y))
    assert abort.collapsed
    assert len(log["loss"]) == 2


def test_a_loss_that_is_no_number_stops_at_once_with_good_weights() -> None:
    made = keras.Sequential([keras.Input((3,)), keras.layers.Dense(1)])
    made.compile(keras.optimizers.SGD(0.01), "mse", metrics=regression_metrics())
    bad = Y.copy()
    bad[40] = np.nan
    guard = NotFinite()
    log = made.fit(X, bad, batch_size=16, epochs=3, callbacks=[guard], verbose=0, shuffle=False).history
    assert len(log["loss"]) == 1
    assert "epoch 1, batch 3" in guard.message
    assert all(np.isfinite(w).all() for w in made.get_weights())


def caught(model: keras.Model, x: np.ndarray, y: np.ndarray, every: int = 50) -> str:
    """The message of a guard that knows the batches of 16."""
    batches = [(x[n : n + 16], y[n : n + 16]) for n in range(0, len(x), 16)]
    guard = NotFinite(batches, every)
    log = model.fit(x, y, batch_size=16, epochs=2, callbacks=[guard], validation_data=(X, Y), shuffle=False, verbose=0)
    assert len(log.history["loss"]) == 1
    assert np.isnan(log.history["val_loss"][0])  # an epoch that did not end well has no scores
    assert all(np.isfinite(w).all() for w in model.get_weights())
    return guard.message


@keras.saving.register_keras_serializable("tests")
class Root(keras.layers.Layer):
    """Finite everywhere; its derivative is not at 0."""

    def call(self, x):
        return keras.ops.sqrt(keras.ops.abs(x))


def dense(*layers: keras.layers.Layer, rate: float = 0.01, loss: object = "mse") -> keras.Model:
    made = keras.Sequential([keras.Input((3,)), *layers, keras.layers.Dense(1, name="answer")])
    made.compile(keras.optimizers.SGD(rate), loss)
    return made


@pytest.mark.skipif(keras.backend.backend() == "jax", reason="JAX hides the weights from callbacks")
@pytest.mark.parametrize("every", [1, 50])
def test_what_was_not_finite_first_is_named(every: int) -> None:
    bad_x, bad_y, zeros, huge = X.copy(), Y.copy(), X.copy(), X.copy()
    bad_x[40, 1], bad_y[20] = np.inf, np.nan
    zeros[48:], huge[50] = 0.0, 3e38
    assert "batch 3. Not finite first: the input: 1 of 48 values are infinite" in caught(dense(), bad_x, Y, every)
    assert "batch 2. Not finite first: the target: 1 of 16 values are NaN" in caught(dense(), X, bad_y, every)
    big = keras.layers.Dense(4, kernel_initializer=keras.initializers.Constant(1.0), name="big")
    assert "batch 4. Not finite first: the output of layer 'big'" in caught(dense(big), huge, Y, every)
    large = (Y + np.where(np.arange(len(Y)) == 5, 1e30, 0)[:, None]).astype("float32")
    assert "batch 1. Not finite first: the loss: " in caught(dense(), X, large, every)
    named = VariancePreservingLoss(target_variance=1.0)
    assert "batch 1. Not finite first: the base loss: 1 of 16" in caught(dense(loss=named), X, large, every)
    # The loss of the last batch is finite: its gradient is not, and no batch comes after it.
    assert "weights became NaN or infinite in epoch 1, batch 4. Not finite first: the gradient of '" in caught(
        dense(keras.layers.Dense(4, use_bias=False, name="hidden"), Root()), zeros, Y, every
    )


def test_the_average_is_what_is_validated_and_kept_and_training_goes_on_from_the_weights() -> None:
    made = keras.Sequential([keras.Input((3,)), keras.layers.Dense(1)])
    made.compile(keras.optimizers.SGD(0.1), "mse", metrics=regression_metrics())
    seen: list[np.ndarray] = []

    class Spy(keras.callbacks.Callback):
        def on_train_batch_end(self, batch: int, logs: dict | None = None) -> None:
            seen.append(self.model.get_weights()[0].copy())

    average = WeightAverage(momentum=0.5)
    log = made.fit(X, Y, batch_size=16, epochs=2, validation_data=(X, Y), callbacks=[average, Spy()], verbose=0).history
    # By hand: the momentum is min(0.5, (1 + n)/(10 + n)) for the n-th step, the first value is taken as it is.
    expected = seen[0].copy()
    for n, weights in enumerate(seen[1:], start=1):
        momentum = min(0.5, (1 + n) / (10 + n))
        expected = momentum * expected + (1 - momentum) * weights
    np.testing.assert_allclose(made.get_weights()[0], expected, rtol=1e-5)
    assert made.evaluate(X, Y, verbose=0, return_dict=True)["r2"] == pytest.approx(log["val_r2"][-1], rel=1e-5)
    np.testing.assert_array_equal(average.own[0], seen[-1])  # training would go on from here


def test_snapshots_are_kept_at_the_chosen_epochs(model: keras.Model) -> None:
    snapshots = PredictionSnapshots(X, epochs=(1, 3))
    fit(model, 4, snapshots)
    assert sorted(snapshots.predictions) == [1, 3]
    assert snapshots.predictions[3].shape == (64,)


@pytest.mark.parametrize("make", [R2EarlyStopping, CollapseAbort, WeightAverage])
def test_a_state_put_back_is_the_state(make: type, model: keras.Model) -> None:
    callback = make()
    script = Scripted(val_r2=[0.2, 0.1], val_variance_ratio=[0.5, 0.5])
    fit(model, 2, script, callback)
    again = make()
    again.set_state(callback.get_state())
    assert str(again.get_state()) == str(callback.get_state())


@pytest.mark.parametrize(
    ("make", "text"),
    [
        (lambda: R2EarlyStopping(patience=0), "`patience` of 1 or more. Received: patience=0"),
        (lambda: CollapseAbort(threshold=2), "`threshold` between 0 and 1"),
        (lambda: CollapseAbort(grace=-1), "`grace` of 0 or more"),
        (lambda: WeightAverage(momentum=1), "`momentum` between 0 and 1"),
    ],
)
def test_wrong_arguments_say_the_rule(make, text: str) -> None:
    with pytest.raises(ValueError, match=text):
        make()


def scheduled(kind: str, epochs: int = 5, **options: Any) -> list[float]:
    keras.utils.set_random_seed(1)  # of the first weights: whatever ran before must not matter
    loss = VariancePreservingLoss(weight=0.5, target_variance=1.0)
    x = np.random.default_rng(0).normal(size=(64, 3)).astype("float32")
    model = keras.Sequential([keras.Input((3,)), keras.layers.Dense(1)])
    model.compile(keras.optimizers.Adam(0.05), loss=loss, metrics=[PearsonCorrelation()] if kind == "gate" else [])
    callback = PenaltySchedule(loss, kind, **options)
    history = model.fit(x, x[:, :1], 8, validation_data=(x, x[:, :1]), epochs=epochs, verbose=0, callbacks=[callback])
    return history.history["penalty_weight"]


@pytest.mark.slow
def test_the_penalty_is_constant_or_rises_or_waits_for_the_correlation() -> None:
    assert scheduled("constant") == [0.5] * 5
    assert scheduled("ramp", ramp_epochs=(1, 3)) == pytest.approx([0.0, 0.0, 0.25, 0.5, 0.5])
    gated = scheduled("gate", epochs=12, gate_correlation=(0.9, 0.99))
    assert gated[0] == 0.0  # the first weights know nothing of the target
    assert gated[-1] > 0.3
    assert scheduled("gate", gate_correlation=(0.9999, 1.0))[-1] < 0.5


def test_a_changed_weight_reaches_the_compiled_step() -> None:
    # From the same start and without a base gradient to speak of, λ = 0 must leave the weights and λ > 0 must not.
    loss = VariancePreservingLoss(base="mse", weight=0.0, target_variance=1.0)
    x = np.linspace(-1, 1, 32, dtype="float32")[:, None]
    model = keras.Sequential([keras.Input((1,)), keras.layers.Dense(1, kernel_initializer="ones")])
    model.compile(keras.optimizers.SGD(0.1), loss=loss)
    model.fit(x, x, verbose=0, shuffle=False)
    assert model.get_weights()[0][0, 0] == pytest.approx(1.0, abs=1e-6)
    loss.weight = 1.0
    if keras.backend.backend() == "jax":
        model.make_train_function(force=True)  # as `PenaltySchedule` does
    model.fit(x, x, verbose=0, shuffle=False)
    assert model.get_weights()[0][0, 0] > 1.05


def test_a_scheduled_weight_reaches_training_and_validation() -> None:
    loss = VariancePreservingLoss(base="mse", weight=1.0, target_variance=1.0)
    x = np.linspace(-1, 1, 32, dtype="float32")[:, None]
    model = keras.Sequential([keras.Input((1,)), keras.layers.Dense(1, kernel_initializer="ones")])
    model.compile(keras.optimizers.SGD(0.0), loss=loss)
    ramp = PenaltySchedule(loss, "ramp", ramp_epochs=(0, 2))
    history = model.fit(x, x, validation_data=(x, x), epochs=3, verbose=0, callbacks=[ramp]).history
    full = float((1.0 - x.var(ddof=1)) ** 2)  # the weights stand still, so the loss is λ times this penalty
    for key in ("loss", "val_loss"):
        assert history[key] == pytest.approx([0.0, 0.5 * full, full], rel=1e-4, abs=1e-6)


def test_a_schedule_needs_the_correlation_and_a_known_kind() -> None:
    with pytest.raises(ValueError, match="`kind` constant, ramp or gate"):
        PenaltySchedule(VariancePreservingLoss(), "sometimes")
    callback = PenaltySchedule(VariancePreservingLoss(), "gate")
    callback.on_epoch_end(0, {"loss": 1.0})
    with pytest.warns(UserWarning, match=r"\['correlation'\] in the training log"):
        callback.on_train_end()


ERRORS = ("val_mae", "mae", "rmse", "val_mse", "spread_cost", "mean_absolute_error", "val_root_mean_squared_error")
ERRORS += ("loss", "val_loss", "val_height_loss", "val_mae_1", "log_cosh", "val_false_positives", "val_MAE")
GOOD = ("r2", "val_r2", "val_correlation", "r2_ceiling", "accuracy", "val_auc", "auc_2", "val_cosine_similarity")
FALLING, RISING = [1.0, 0.5, 0.1, 0.3], [0.1, 0.5, 1.0, 0.3]


def best_epoch(model: keras.Model, key: str, values: list[float], kind: str = "stop", **options: Any) -> int | None:
    """The 0-based epoch that a callback keeps of these values."""
    callback = R2EarlyStopping(9, key, **options) if kind == "stop" else CollapseAbort(keep=key, **options)
    callback.set_model(model)
    callback.on_train_begin()
    for epoch, value in enumerate(values):
        callback.on_epoch_end(epoch, {"val_variance_ratio": 0.5, key: value})
    callback.on_train_end()
    return callback.best_epoch


@pytest.mark.parametrize("kind", ["stop", "abort"])
@pytest.mark.parametrize("key", [*ERRORS, *GOOD])
def test_errors_fall_and_scores_rise(model: keras.Model, key: str, kind: str) -> None:
    assert best_epoch(model, key, FALLING if key in ERRORS else RISING, kind) == 2
    assert best_epoch(model, key, RISING, kind, mode="max") == 2
    assert best_epoch(model, key, FALLING, kind, mode="min") == 2


def test_a_bias_is_best_near_zero_and_a_variance_ratio_near_one(model: keras.Model) -> None:
    assert best_epoch(model, "val_bias", [1.0, -0.1, 0.2, -3.0]) == 1
    assert best_epoch(model, "bias", [-1.0, -0.5, 0.05]) == 2
    assert best_epoch(model, "val_variance_ratio", [0.2, 1.1, 0.8, 3.0]) == 1
    assert best_epoch(model, "val_bias", [1.0, -0.1, -3.0], mode="min") == 2  # who asks for the lowest gets it


@pytest.mark.parametrize(
    "key", ["val_skill", "pred_std", "val_neg_loss", "minus_r2", "learning_rate", "val_", "", None]
)
def test_a_score_of_unknown_direction_is_refused_at_once(model: keras.Model, key: Any) -> None:
    for make in (lambda: R2EarlyStopping(monitor=key), lambda: CollapseAbort(keep=key)):
        with pytest.raises(ValueError, match=r'mode="max"|key of the training log'):
            make()
    if key:
        assert best_epoch(model, key, RISING, mode="max") == 2
        assert best_epoch(model, key, RISING, mode="min") == 0
    with pytest.raises(ValueError, match="`mode` must be one of auto, min, max"):
        R2EarlyStopping(mode="best")


def test_the_names_of_keras_mean_what_keras_takes_them_for() -> None:
    more = dict.fromkeys(
        ("PrecisionAtRecall", "RecallAtPrecision", "SensitivityAtSpecificity", "SpecificityAtSensitivity"), (0.5,)
    )
    more |= {"MeanIoU": (2,), "OneHotMeanIoU": (2,), "IoU": (2, [0]), "OneHotIoU": (2, [0])}
    known = 0
    for name in dir(keras.metrics):
        kind = getattr(keras.metrics, name)
        if not isinstance(kind, type) or name in ("Metric", "MeanMetricWrapper"):
            continue
        made = kind(*more.get(name, ()))
        towards = {"up": "max", "down": "min"}.get(getattr(made, "_direction", None))
        if towards is not None:
            assert direction(f"val_{made.name}") == towards, name
            known += 1
    assert known > 30


def test_the_tables_of_the_report_agree_on_what_is_better() -> None:
    words = {"higher": "max", "lower": "min", "near 0": "near 0", "near 1": "near 1"}
    checked = {key: column.better for key, column in COLUMNS.items() if column.better in words}
    assert len(checked) > 6
    for key, better in checked.items():
        assert direction(key) == words[better], key


def test_validation_every_other_epoch_is_passed_over() -> None:
    made = dense()
    made.compile("sgd", VariancePreservingLoss(), metrics=regression_metrics())
    loss = made.loss
    watching: list[Any] = [R2EarlyStopping(3), R2EarlyStopping(3, "composite"), CollapseAbort(0.001, grace=0)]
    watching += [NotFinite(), WeightAverage(0.5), PenaltySchedule(loss, "gate"), PredictionSnapshots(X, (1, 2))]
    watching += [DiversityMonitor(X, Y, "seen_"), LayerMonitor(X[:8], Y[:8], "answer")]
    log = fit(made, 5, *watching, validation_data=(X, Y), validation_freq=2)
    assert len(log["loss"]) == 5
    assert len(log["val_r2"]) == 2
    assert watching[0].best_epoch in (1, 3)
    assert watching[2].collapsed is False


@pytest.mark.parametrize("missing", [{}, {"loss": 1.0}, None])
def test_an_epoch_without_its_key_neither_counts_nor_ends_anything(model: keras.Model, missing: dict | None) -> None:
    stop, abort = R2EarlyStopping(patience=2), CollapseAbort(grace=0)
    for callback in (stop, abort):
        callback.set_model(model)
        callback.on_train_begin()
    for epoch, logs in enumerate([missing, {"val_r2": 0.5, "val_variance_ratio": 1.0}, missing, missing, missing]):
        stop.on_epoch_end(epoch, logs)
        abort.on_epoch_end(epoch, logs)
    assert (stop.best_epoch, stop.wait, stop.stopped_epoch) == (1, 0, None)
    assert not abort.collapsed
    stop.on_train_end()  # no warning: the key was there once
    abort.on_train_end()


@pytest.mark.parametrize(
    ("make", "text"),
    [
        (lambda: R2EarlyStopping(), r"R2EarlyStopping needs \['val_r2'\]"),
        (lambda: R2EarlyStopping(monitor="composite"), r"needs \['val_loss', 'val_r2'\]"),
        (lambda: CollapseAbort(), r"CollapseAbort needs \['val_variance_ratio'\]"),
        (lambda: PenaltySchedule(VariancePreservingLoss(), "gate", monitor="r"), r"PenaltySchedule needs \['r'\]"),
    ],
)
def test_a_key_that_never_comes_is_told_once_at_the_end(model: keras.Model, make, text: str) -> None:
    with pytest.warns(UserWarning, match=text) as told:
        log = fit(model, 3, make())
    assert sum("in the training log" in str(one.message) for one in told) == 1
    assert len(log["loss"]) == 3


def test_a_training_that_is_stopped_says_so_once(model: keras.Model, capsys: pytest.CaptureFixture) -> None:
    fit(model, 5, Scripted(val_r2=[0.5, 0.4, 0.3, 0.2, 0.1]), R2EarlyStopping(patience=2))
    said = capsys.readouterr().out
    assert said == "Stopped at epoch 3: no better val_r2 for 2 epochs (best in epoch 1).\n"
    fit(model, 5, Scripted(val_variance_ratio=[0.01] * 5), CollapseAbort(grace=1))
    assert capsys.readouterr().out.count("Variance collapse: at epoch 2") == 1
    bad = Y.copy()
    bad[3] = np.nan
    dense().fit(X, bad, verbose=0, epochs=2, callbacks=[NotFinite()])
    assert capsys.readouterr().out.count("The loss became nan") == 1
    fit(model, 5, Scripted(val_r2=[0.5, 0.4, 0.3, 0.2, 0.1]), R2EarlyStopping(patience=2, verbose=0))
    assert capsys.readouterr().out == ""


@pytest.mark.parametrize("kind", [np.float32, np.float64, np.array])
def test_numbers_of_numpy_set_callbacks_too(kind) -> None:
    loss = VariancePreservingLoss()
    assert R2EarlyStopping(np.int64(3), min_delta=kind(0.5)).min_delta == 0.5
    assert CollapseAbort(kind(0.5), np.array(2)).grace == 2
    assert WeightAverage(kind(0.5)).momentum == 0.5
    assert PenaltySchedule(loss, "ramp", ramp_epochs=np.array([0, 2])).weight_at(1) == pytest.approx(0.25)
    assert PredictionSnapshots(X, np.array([1, 5]), np.int64(8)).epochs == (1, 5)
    assert NotFinite(every=np.int64(5)).every == 5


@pytest.mark.parametrize("wrong", [True, 1j, "2", np.array([2]), math.nan, None])
def test_what_is_no_number_sets_no_callback(wrong: Any) -> None:
    loss = VariancePreservingLoss()
    makes = (
        lambda: R2EarlyStopping(patience=wrong), lambda: R2EarlyStopping(min_delta=wrong),
        lambda: CollapseAbort(threshold=wrong), lambda: CollapseAbort(grace=wrong), lambda: WeightAverage(wrong),
        lambda: PenaltySchedule(loss, "gate", momentum=wrong), lambda: PenaltySchedule(loss, ramp_epochs=(0, wrong)),
        lambda: NotFinite(every=wrong), lambda: DiversityMonitor(X, Y, batch_size=wrong),
    )  # fmt: skip
    for make in makes:
        with pytest.raises(ValueError, match=r"needs `.* Received: "):
            make()

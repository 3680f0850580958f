"""Sequences that share frames: the same numbers as frame by frame, at fewer passes of the encoder."""

import copy
from typing import Any

import keras
import numpy as np
import pytest

from cloudml_tf import models
from cloudml_tf.config.training import Augmentation
from cloudml_tf.data.augmentation import SequenceAugmentation
from cloudml_tf.data.samples import Samples
from cloudml_tf.losses import VariancePreservingLoss
from cloudml_tf.metrics import regression_metrics
from cloudml_tf.nn.backend import Gradients
from cloudml_tf.train.batches import Batches, Inputs, in_runs
from cloudml_tf.train.tf_dataset import as_dataset

SMALL = {"widths": (4, 6), "footprint": 5, "encoder_features": 8, "heads": 2, "head_units": 8, "dropout": 0.0}
FLIGHTS, FRAMES_EACH, STEPS = 5, 42, 3
EACH = FRAMES_EACH - STEPS + 1  # sequences of a flight


def samples() -> Samples:
    """Five flights with a label a frame, so that neighbouring sequences share all frames but one."""
    rng = np.random.default_rng(0)
    count = FLIGHTS * FRAMES_EACH
    index = np.arange(count).reshape(FLIGHTS, -1, 1)[:, :EACH] + np.arange(STEPS)
    flight = np.repeat(np.arange(FLIGHTS), EACH)
    return Samples(
        table=rng.normal(size=(count, 12, 14, 2)).astype("float32"),
        sun_angles_deg=rng.uniform(0, 60, (count, 2)).astype("float32"),
        features=rng.normal(size=(count, 1)).astype("float32"),
        index=index.reshape(-1, STEPS),
        label=rng.normal(size=len(flight)),
        weight=np.ones(len(flight), "float32"),
        time_s=np.arange(len(flight), dtype="float64"),
        flight=flight,
        piece=np.zeros(len(flight), int),
        flight_names=tuple("abcde"),
        nadir=(6, 7),
    )


def regressor(**changes: Any) -> keras.Model:
    keras.utils.set_random_seed(1)
    return models.build_regressor((12, 14, 2), **{"temporal_frames": STEPS, "features": 1, **SMALL, **changes})


VARIANTS = [
    {},
    {"mirror_average": "rows"},
    {"mirror_average": "columns", "nadir_linear": True, "contrast_boxes": (3, 5)},
    {"architecture": "no_attention"},
    {"architecture": "single_frame"},
    {"architecture": "simple_cnn"},
    {"head": "histogram"},
]


@pytest.mark.parametrize(
    "changes",
    [pytest.param(each, marks=[] if n == 2 else pytest.mark.slow) for n, each in enumerate(VARIANTS)],
    ids=lambda changes: str(list(changes.values())),
)
@pytest.mark.no_cover
def test_answers_are_those_of_the_network_itself(changes: dict[str, Any]) -> None:
    data, model = samples(), regressor(**changes)
    shared = models.share_frames(model)
    assert models.shares_frames(shared)
    assert not models.shares_frames(model)
    apart = model.predict(Inputs(data, 64), verbose=0)
    together = shared.predict(Inputs(data, 64, shared=True), verbose=0)
    assert together.shape == apart.shape
    np.testing.assert_allclose(together, apart, rtol=1e-5, atol=1e-5)


@pytest.mark.parametrize(
    "changes",
    [*(pytest.param(each, marks=pytest.mark.slow) for each in VARIANTS[:2]), VARIANTS[2]],
    ids=["plain", "mirrored", "straight"],
)
def test_loss_and_gradients_are_those_of_the_network_itself(changes: dict[str, Any]) -> None:
    data, model, loss = samples(), regressor(**changes), VariancePreservingLoss()
    target = np.random.default_rng(1).normal(size=(30, 1)).astype("float32")
    found = []
    for network, inputs in (
        (model, data.inputs(slice(30))),
        (models.share_frames(model), data.shared_inputs(slice(30))),
    ):
        gradients = Gradients(network, [lambda y, p: keras.ops.mean(loss(y, p))], model.trainable_variables)
        found.append(gradients(inputs, target)[0])
    largest = max(np.abs(apart).max() for apart in found[0])
    for apart, together in zip(*found, strict=True):
        np.testing.assert_allclose(together, apart, rtol=1e-5, atol=1e-5 * largest)


@pytest.mark.slow
def test_a_training_and_an_evaluation_are_those_of_the_network_itself() -> None:
    data, target = samples(), samples().label.astype("float32")
    shared = Batches(data, target, 50, run_length=8)  # four whole batches, not augmented, in one order
    apart = Batches(data, target, 50)
    apart.order = shared.order
    logs = []
    for batches in (apart, shared):
        model = regressor()
        trained = model if batches is apart else models.share_frames(model)
        trained.compile(keras.optimizers.Adam(1e-2), VariancePreservingLoss(), metrics=regression_metrics())
        history = trained.fit(as_dataset(batches), shuffle=False, verbose=0).history
        scores = trained.evaluate(as_dataset(batches), verbose=0, return_dict=True)
        logs.append({**scores, "trained": history["loss"][0]})
    assert logs[1] == pytest.approx(logs[0], abs=1e-5)


def test_each_frame_of_a_batch_is_there_once_and_the_sequences_are_the_same() -> None:
    data = samples()
    chosen = np.array([0, 1, 2, 3, 45])
    found = data.shared_inputs(chosen)
    assert found["frames"].shape == (6 + 3, 12, 14, 2)
    apart = data.inputs(chosen)
    for name in ("frames", "sun_angles_deg", "features"):
        np.testing.assert_array_equal(found[name][found["chosen_frames"]], apart[name])
    split = data.shared_inputs(chosen, np.array([0, 0, 1, 1, 2]))
    assert len(split["frames"]) == 4 + 4 + 3  # two runs of neighbours share nothing


def test_runs_hold_neighbours_of_one_flight_and_every_sample_comes_once() -> None:
    data = samples()
    order, run = in_runs(data, 8, np.random.default_rng(1))
    assert sorted(order) == list(range(len(data)))
    for number in np.unique(run):
        here = order[run == number]
        assert len(here) <= 8
        assert (np.diff(here) == 1).all()
        assert len(set(data.flight[here])) == 1
    again = in_runs(data, 8, np.random.default_rng(2))[0]
    assert (again != order).any()


def test_a_piece_of_a_flight_ends_a_run() -> None:
    data = samples()
    data.piece[20:] = 1
    order, run = in_runs(data, 8, np.random.default_rng(1))
    for number in np.unique(run):
        assert len(set(data.piece[order[run == number]])) == 1


def test_a_batch_of_runs_mixes_flights_and_takes_few_frames() -> None:
    data = samples()
    batches = Batches(data, data.label.astype("float32"), 64, seed=1, run_length=8)
    mixed = []
    for number in range(len(batches)):
        inputs = batches[number][0]
        assert inputs["chosen_frames"].shape == (64, 3)
        assert len(inputs["frames"]) < 64 * 3 / 1.8
        mixed.append(len(set(data.flight[batches.order[number * 64 : (number + 1) * 64]])))
    assert min(mixed) >= 3


@pytest.mark.parametrize("along", [False, True])
def test_sequences_of_a_run_are_mirrored_together(along: bool) -> None:
    data = samples()
    run = np.repeat(np.arange(15), 8)
    before = data.shared_inputs(slice(120), run)
    settings = Augmentation(mirror_across_track=not along, mirror_along_track=along)
    after = SequenceAugmentation(settings, data.nadir).changed(copy.deepcopy(before), np.random.default_rng(3), run)
    both = {"old": before, "new": after}
    frames = {name: found["frames"][found["chosen_frames"]] for name, found in both.items()}
    turned = (frames["old"] != frames["new"]).reshape(120, -1).any(axis=1)
    assert {len(set(turned[run == number])) for number in range(15)} == {1}
    assert 0 < turned.sum() < 120
    # what one sequence becomes is what it becomes alone
    axis = 3 if along else 2
    source = np.clip(2 * data.nadir[axis - 2] - np.arange(frames["old"].shape[axis]), 0, frames["old"].shape[axis] - 1)
    expected = np.take(frames["old"][turned], source, axis=axis)
    np.testing.assert_array_equal(frames["new"][turned], expected[:, ::-1] if along else expected)
    sun = {name: found["sun_angles_deg"][found["chosen_frames"]] for name, found in (("old", before), ("new", after))}
    azimuth = sun["old"][turned, :, 1]
    np.testing.assert_array_equal(sun["new"][turned, :, 1], 180.0 - azimuth[:, ::-1] if along else -azimuth)


def test_flight_order_and_runs_exclude_each_other(tiny_content) -> None:
    from cloudml_tf.config.load import parse_config
    from cloudml_tf.utils.errors import ConfigError

    with pytest.raises(ConfigError, match="run_length needs order shuffled"):
        parse_config(tiny_content(training={"order": "flight", "run_length": 4}))

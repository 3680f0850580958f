"""Scalers: hand-computed on the training part, blind to every other part."""

import json
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from flight_files import SIGNAL, START_S, images, tiny_config, write_flight

from cloudml_tf.data.prepare import Prepared, prepare
from cloudml_tf.data.scaling import Scaling, TargetScaling

MIDDLES = np.arange(2, 40, 2)  # sequences of three overlap: every second frame is in two of them
USED = np.arange(1, 40)  # and still counts once
ROLL = [{"name": "roll", "file": "navigation", "dataset": "nav/roll"}]


def prepared(home: Path, **changes: Any) -> Prepared:
    return prepare(tiny_config(home, {key.replace("__", "."): value for key, value in changes.items()}))


def write_tiny(folder: Path, **changes: Any) -> None:
    """A flight with labels every other second."""
    write_flight(folder, profile_s=START_S + MIDDLES, **changes)


def write_flights(home: Path) -> None:
    """Flight a trains; its frames, labels and roll differ from those of b and c."""
    for seed, name in enumerate("abc"):
        roll = np.linspace(0, 1 + seed, 40)
        write_tiny(home / "flights" / name, seed=seed, navigation={"nav/roll": roll}, attributes={SIGNAL: {}})


def training_frames() -> np.ndarray:
    """(39, H, W) the frames of flight a that some sequence needs."""
    return images()[USED].astype("float64")


def test_statistics_are_those_of_the_training_part_by_hand(tmp_path: Path) -> None:
    write_flights(tmp_path)
    found = prepared(tmp_path, data__features=ROLL)
    scaling, train = found.scaling, found.parts["train"]
    used = training_frames()
    assert scaling.frame_mean == pytest.approx([used.mean()])
    assert scaling.frame_std == pytest.approx([used.std()])
    assert (scaling.target.mean, scaling.target.std) == pytest.approx((train.label.mean(), train.label.std()))
    rows = np.linspace(0, 1, 40)[USED]
    assert scaling.feature_mean == pytest.approx([rows.mean()], rel=1e-5)
    assert scaling.feature_std == pytest.approx([rows.std()], rel=1e-5)
    assert scaling.flat_field is None


@pytest.mark.parametrize("other", ["b", "c"])
def test_changing_validation_or_test_data_changes_no_scaler(tmp_path: Path, other: str) -> None:
    settings: dict[str, Any] = {
        "data__features": ROLL,
        "target__transform": "log",
        "preprocessing": {"flat_field": True, "log_offset": 0.1},
    }
    write_flights(tmp_path)
    before = prepared(tmp_path, **settings)
    write_tiny(
        tmp_path / "flights" / other,
        seed=77,
        label=np.linspace(0.2, 1.9, len(MIDDLES)),
        camera={SIGNAL: images(seed=77) * 3},
        navigation={"nav/roll": np.linspace(50, 90, 40)},
        attributes={SIGNAL: {}},
    )
    after = prepared(tmp_path, **settings)
    assert after.scaling == before.scaling
    assert after.fingerprint != before.fingerprint  # the data did change


def test_changing_training_data_changes_the_scalers(tmp_path: Path) -> None:
    write_flights(tmp_path)
    before = prepared(tmp_path).scaling
    write_tiny(tmp_path / "flights" / "a", seed=77, attributes={SIGNAL: {}})
    after = prepared(tmp_path).scaling
    assert after.frame_mean != before.frame_mean
    assert after.target != before.target


def test_channels_are_scaled_apart(tmp_path: Path) -> None:
    for seed, name in enumerate("abc"):
        second = {"Product/Second": 100.0 + images(seed=seed + 50) / 10}
        write_tiny(tmp_path / "flights" / name, seed=seed, camera=second, attributes={SIGNAL: {}})
    scaling = prepared(tmp_path, data__camera__channels=[SIGNAL, "Product/Second"]).scaling
    expected = [training_frames().mean(), 100.0 + images(seed=50)[USED].mean() / 10]
    assert scaling.frame_mean == pytest.approx(expected, rel=1e-5)


def test_the_logarithm_of_radiance_comes_before_its_statistics(tmp_path: Path) -> None:
    write_flights(tmp_path)
    scaling = prepared(tmp_path, preprocessing__log_offset=5.0).scaling
    logs = np.log(training_frames() + 5.0)
    assert (scaling.frame_mean, scaling.frame_std) == (pytest.approx([logs.mean()]), pytest.approx([logs.std()]))


def test_a_flat_field_recovers_the_camera_s_vignetting(tmp_path: Path) -> None:
    shade = np.linspace(0.5, 1.5, 80).reshape(8, 10)
    brightness = np.random.default_rng(3).uniform(0.5, 1.5, 40)
    signal = 1000.0 * brightness[:, None, None] * shade
    for seed, name in enumerate("abc"):  # three times the same images would be a leak
        write_tiny(tmp_path / "flights" / name, seed=seed, camera={SIGNAL: signal * (1 + 0.01 * seed)})
    scaling = prepared(tmp_path, preprocessing__flat_field=True).scaling
    np.testing.assert_allclose(np.asarray(scaling.flat_field)[..., 0], shade / shade.mean(), rtol=1e-5)
    # What is left of a frame after division is one brightness: the std over pixels of a frame is gone.
    assert scaling.frame_std == pytest.approx([brightness[USED].std()], rel=1e-3)


def test_a_constant_feature_is_not_divided_by_zero(tmp_path: Path) -> None:
    for seed, name in enumerate("abc"):
        write_tiny(tmp_path / "flights" / name, seed=seed, navigation={"nav/roll": np.full(40, 3.0)})
    scaling = prepared(tmp_path, data__features=ROLL).scaling
    assert (scaling.feature_mean, scaling.feature_std) == ([3.0], [1.0])


@pytest.mark.parametrize("log", [False, True])
def test_standardising_and_back(log: bool) -> None:
    label = np.array([0.1, 0.5, 2.0])
    scaling = TargetScaling(mean=0.3, std=0.4, log=log)
    np.testing.assert_allclose(scaling.physical(scaling.standardise(label)), label, rtol=1e-6)
    assert scaling.standardise(label)[1] == pytest.approx(((np.log(0.5) if log else 0.5) - 0.3) / 0.4)


def test_smearing_multiplies_the_median_of_a_log_target() -> None:
    plain, smeared = (TargetScaling(0.0, 1.0, log=True, smearing=factor) for factor in (1.0, 1.2))
    z = np.array([-1.0, 0.5])
    np.testing.assert_allclose(smeared.physical(z), 1.2 * plain.physical(z))


def test_scaling_survives_json(tmp_path: Path) -> None:
    write_flights(tmp_path)
    scaling = prepared(tmp_path, preprocessing__flat_field=True, data__features=ROLL).scaling
    assert Scaling.from_json(json.loads(json.dumps(scaling.to_json()))) == scaling

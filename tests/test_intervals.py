"""The interval of each height that a histogram head has a distribution of, and what the wind's error adds to it."""

from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
from flight_files import tiny_config
from test_diagnose_heights import WANDER, flown
from test_height_network import ALTITUDE_KM, HEIGHT_MODEL, SPEED

from cloudml_tf.config.schema import Config
from cloudml_tf.data.scaling import Scaling, TargetScaling
from cloudml_tf.evaluation.collect import collect_coverage
from cloudml_tf.evaluation.uncertainty import with_error
from cloudml_tf.inference.intervals import head_intervals
from cloudml_tf.nn.heads import bin_centres
from cloudml_tf.nn.sightlines import ROLL, WIND_FORWARD

BINS, STD = 200, {"cloud_base_km": 0.2, "cloud_top_km": 0.4}


def config_of(home: Path, wind_error_m_s: float | None = None) -> Config:
    changes = {
        "target": {"name": "cloud_base_km", "further": ["cloud_top_km", "optical_depth"]},
        "temporal_frames": 5,
        "data.sun_angles": False,
        "data.geometry": {"wind_error_m_s": wind_error_m_s},
        "model": {**HEIGHT_MODEL, "head": "histogram", "bins": BINS},
        "loss": {"base": "cross_entropy", "weight": 0.0},
    }
    return tiny_config(home, changes)


def scaling() -> Scaling:
    """Base 1.5, top 2 and an optical depth of 1."""
    target, *further = (TargetScaling(mean=m, std=s, log=False) for m, s in ((1.5, 1.0), (2.0, 1.0), (1.0, 0.5)))
    return Scaling(target, [0.0], [1.0], None, [], [], further)


def output(count: int) -> np.ndarray:
    """Normal distributions of base and top around their means, whose points are the means."""
    centres = bin_centres(BINS, -4.0, 4.0)
    shares = [np.exp(-0.5 * (centres / std) ** 2) for std in STD.values()]
    row = np.concatenate([np.zeros(3), *(each / each.sum() for each in shares)])
    return np.tile(row, (count, 1)).astype("float32")


def test_each_height_has_its_own_interval(tmp_path):
    samples = flown()
    found = head_intervals(output(len(samples)), samples, config_of(tmp_path), scaling())
    assert list(found) == ["cloud_base_km", "cloud_top_km"]
    for name, middle in (("cloud_base_km", 1.5), ("cloud_top_km", 2.0)):
        assert found[name][0] == pytest.approx(middle - 1.645 * STD[name], abs=0.01)
        assert found[name][1] == pytest.approx(middle + 1.645 * STD[name], abs=0.01)


def test_the_winds_error_adds_its_share_of_each_height_in_quadrature(tmp_path):
    samples = flown(WANDER, told={ROLL: WANDER, WIND_FORWARD: 10.0})
    count = len(samples)
    found = head_intervals(output(count), samples, config_of(tmp_path, wind_error_m_s=1.0), scaling())
    for name, middle in (("cloud_base_km", 1.5), ("cloud_top_km", 2.0)):
        of_wind = (ALTITUDE_KM - middle) / (SPEED - 10.0)  # about 0.09 km for each m/s
        assert found[name][1] - middle == pytest.approx(1.645 * np.hypot(STD[name], of_wind), abs=0.01)
        assert middle - found[name][0] == pytest.approx(1.645 * np.hypot(STD[name], of_wind), abs=0.01)


def test_a_value_at_the_end_of_its_interval_keeps_a_side_of_the_further_error_alone():
    lower, upper = with_error(np.array([1.0]), np.array([1.0]), np.array([1.3]), np.array([0.4]))
    assert (lower[0], upper[0]) == (pytest.approx(0.6), pytest.approx(1.5))


def test_coverage_is_counted_where_a_height_is_known(tmp_path):
    samples, config = flown(), config_of(tmp_path)
    top = np.where(np.arange(len(samples)) % 2, 2.2, np.nan)
    samples = replace(samples, further=np.stack([top, np.ones(len(samples))], axis=1))
    intervals = {"test": head_intervals(output(len(samples)), samples, config, scaling())}
    found = collect_coverage({"test": samples}, intervals, config, 0.9)
    assert found["level"] == 0.9
    assert found["test"]["cloud_base_km"]["coverage"] == 0.0  # labels of 2 km
    assert found["test"]["cloud_top_km"]["coverage"] == 1.0
    assert found["test"]["cloud_top_km"]["n"] == len(samples) // 2

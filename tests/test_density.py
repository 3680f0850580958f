"""Weights for rare labels."""

import numpy as np
import pytest

from cloudml_tf.config.data import LabelDensity
from cloudml_tf.data.label_weights import density_weights

LABEL = np.concatenate([np.random.default_rng(0).normal(0, 0.2, 900), np.random.default_rng(1).normal(3, 0.2, 100)])


def test_rare_labels_weigh_more_by_the_inverse_of_their_density() -> None:
    weight = density_weights(LABEL, LabelDensity(exponent=1.0, largest=1000.0))
    assert weight.mean() == pytest.approx(1.0, rel=1e-4)
    # nine times as many labels in a mode of the same shape: a ninth of the weight
    ratio = np.median(weight[900:]) / np.median(weight[:900])
    assert ratio == pytest.approx(9.0, rel=0.2)
    root = density_weights(LABEL, LabelDensity(exponent=0.5, largest=1000.0))
    assert np.median(root[900:]) / np.median(root[:900]) == pytest.approx(3.0, rel=0.2)


def test_no_weight_is_beyond_the_largest() -> None:
    weight = density_weights(LABEL, LabelDensity(exponent=1.0, largest=2.0))
    assert weight.max() <= 2.05
    assert weight.mean() == pytest.approx(1.0, rel=1e-4)


def test_smoothing_and_bins_move_the_weights() -> None:
    usual = density_weights(LABEL, LabelDensity())
    assert not np.allclose(usual, density_weights(LABEL, LabelDensity(smoothing=10.0)))
    assert not np.allclose(usual, density_weights(LABEL, LabelDensity(bins=10)))

"""cloudml_tf: what the lidar would have measured, from image sequences alone.

This file is the table of contents. A name is imported when it is first used, so `import cloudml_tf` loads neither
Keras nor TensorFlow.
"""

import importlib
from typing import TYPE_CHECKING, Any

__version__ = "0.1.0"

_CONTENTS = {
    "Config": "config",
    "load_config": "config",
    "Flight": "data.flights",
    "load_flight": "data.flights",
    "simulate_flights": "simulation.simulator",
    "build_regressor": "models",
    "physical_model": "models",
    "build_swath_network": "dense",
    "VariancePreservingLoss": "losses",
    "QuantileLoss": "distributions",
    "HistogramLoss": "distributions",
    "R2": "metrics",
    "VarianceRatio": "metrics",
    "PearsonCorrelation": "metrics",
    "R2Ceiling": "metrics",
    "SpreadCost": "metrics",
    "PredictionSpread": "metrics",
    "PredictionStd": "metrics",
    "Bias": "metrics",
    "MeanAbsoluteError": "metrics",
    "RootMeanSquaredError": "metrics",
    "regression_metrics": "metrics",
    "R2EarlyStopping": "callbacks",
    "CollapseAbort": "callbacks",
    "NotFinite": "finiteness",
    "PenaltySchedule": "callbacks",
    "DiversityMonitor": "monitors",
    "LayerMonitor": "monitors",
    "PredictionSnapshots": "monitors",
    "CloudHyperModel": "hypermodel",
}
__all__ = ["__version__", *_CONTENTS]

if TYPE_CHECKING:
    from cloudml_tf.callbacks import CollapseAbort, PenaltySchedule, R2EarlyStopping
    from cloudml_tf.config import Config, load_config
    from cloudml_tf.data.flights import Flight, load_flight
    from cloudml_tf.dense import build_swath_network
    from cloudml_tf.distributions import HistogramLoss, QuantileLoss
    from cloudml_tf.finiteness import NotFinite
    from cloudml_tf.hypermodel import CloudHyperModel
    from cloudml_tf.losses import VariancePreservingLoss
    from cloudml_tf.metrics import (
        R2,
        Bias,
        MeanAbsoluteError,
        PearsonCorrelation,
        PredictionSpread,
        PredictionStd,
        R2Ceiling,
        RootMeanSquaredError,
        SpreadCost,
        VarianceRatio,
        regression_metrics,
    )
    from cloudml_tf.models import build_regressor, physical_model
    from cloudml_tf.monitors import DiversityMonitor, LayerMonitor, PredictionSnapshots
    from cloudml_tf.simulation.simulator import simulate_flights


def __getattr__(name: str) -> Any:
    if name not in _CONTENTS:
        raise AttributeError(f"module 'cloudml_tf' has no attribute '{name}'")
    return getattr(importlib.import_module(f"cloudml_tf.{_CONTENTS[name]}"), name)


def __dir__() -> list[str]:
    return sorted(__all__)

"""cloudml_tf: what the lidar would have measured, from image sequences alone.

This file is the table of contents. A name is imported when it is first used, so `import cloudml_tf` loads neither
Keras nor TensorFlow.
"""

import importlib
from typing import TYPE_CHECKING, Any

from cloudml_tf.utils.environment import draw_somewhere

__version__ = "0.1.0"

_MODULES = {
    "config.schema": ("Config",),
    "config.load": ("load_config",),
    "data.readers.flights": ("Flight", "load_flight"),
    "data.simulation.simulator": ("simulate_flights",),
    "models": ("build_regressor", "physical_model"),
    "nn.unet": ("build_swath_network",),
    "losses": ("VariancePreservingLoss", "QuantileLoss", "HistogramLoss"),
    "metrics": (
        "R2",
        "VarianceRatio",
        "PearsonCorrelation",
        "R2Ceiling",
        "SpreadCost",
        "PredictionSpread",
        "PredictionStd",
        "Bias",
        "MeanAbsoluteError",
        "RootMeanSquaredError",
        "regression_metrics",
    ),
    "callbacks": ("R2EarlyStopping", "CollapseAbort", "PenaltySchedule"),
    "nn.nan_guard": ("NotFinite",),
    "nn.monitors": ("DiversityMonitor", "LayerMonitor", "PredictionSnapshots"),
    "experiments.search.tuner": ("CloudHyperModel",),
}
_CONTENTS = {name: module for module, names in _MODULES.items() for name in names}
__all__ = ["__version__", *_CONTENTS]

draw_somewhere()

if TYPE_CHECKING:
    from cloudml_tf.callbacks import CollapseAbort, PenaltySchedule, R2EarlyStopping
    from cloudml_tf.config.load import load_config
    from cloudml_tf.config.schema import Config
    from cloudml_tf.data.readers.flights import Flight, load_flight
    from cloudml_tf.data.simulation.simulator import simulate_flights
    from cloudml_tf.experiments.search.tuner import CloudHyperModel
    from cloudml_tf.losses import HistogramLoss, QuantileLoss, VariancePreservingLoss
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
    from cloudml_tf.nn.monitors import DiversityMonitor, LayerMonitor, PredictionSnapshots
    from cloudml_tf.nn.nan_guard import NotFinite
    from cloudml_tf.nn.unet import build_swath_network


def __getattr__(name: str) -> Any:
    if name not in _CONTENTS:
        raise AttributeError(f"module 'cloudml_tf' has no attribute '{name}'")
    return getattr(importlib.import_module(f"cloudml_tf.{_CONTENTS[name]}"), name)


def __dir__() -> list[str]:
    return sorted(__all__)

"""A tiny twin of a training: three simulated flights and a few thousand weights, seconds to train."""

from typing import Any

SIMULATION: dict[str, Any] = {
    "flight_count": 3,
    "frames_per_flight": 240,
    "frame_rows": 12,
    "frame_columns": 12,
    "lidar_interval_s": 2.0,
    "strip_width_m": 3200.0,
}
BASE: dict[str, Any] = {
    "seed": 3,
    "split": {"kind": "flights", "train": ["sim01"], "val": ["sim02"], "test": ["sim03"]},
    "data": {"simulation": SIMULATION},
    "model": {"widths": [6, 8], "footprint": 5, "encoder_features": 16, "heads": 2, "head_units": 16, "dropout": 0.1},
}

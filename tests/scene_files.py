"""A small file of gridded scenes: smooth clouds, two channels that saturate, shadows to the right."""

from pathlib import Path
from typing import Any

import h5py
import numpy as np
from scipy.ndimage import gaussian_filter

NAMES = (1, 2, 3, 4, 5, 6, 7, 8)


def write_scenes(path: Path, side: int = 16, names: tuple[int, ...] = NAMES, seed: int = 0) -> dict[str, np.ndarray]:
    """Write the file; returns its datasets."""
    rng = np.random.default_rng(seed)
    fields = rng.standard_normal((len(names), side, side))
    smooth = np.stack([gaussian_filter(field, 1.5, mode="wrap") for field in fields])
    cot = np.maximum(np.exp(4.0 * smooth / smooth.std() / 2.0) - 0.8, 0.0)
    shadow = np.roll(cot, 2, axis=2) > 3.0
    content = {
        "red": cot / (cot + 7.0) * np.where(shadow & (cot < 1.0), 0.5, 1.0) + 0.03,
        "swir": 0.4 * cot / (cot + 3.0) + 0.02,
        "cot": cot,
        "ipa": 0.7 * cot,
        "profile": np.asarray(names),
    }
    with h5py.File(path, "w") as file:
        for name, values in content.items():
            file[name] = values.astype("int64" if name == "profile" else "float32")
    return content


def scene_config(path: Path, home: Path, **scenes: Any) -> dict[str, Any]:
    """A configuration of a few thousand weights over that file."""
    return {
        "experiment_name": "tiny-swath",
        "seed": 3,
        "temporal_frames": 1,
        "target": {"coverage": "swath", "transform": "log", "log_offset": 0.01, "minimum": 0.0, "maximum": None},
        "data": {
            "scenes": {"path": str(path), "channels": ["red", "swir"], "label": "cot", "retrieval": "ipa", **scenes},
            "sun_angles": False,
        },
        "split": {"kind": "flights", "train": [1, 2, 3, 4], "val": [5, 6], "test": [7, 8]},
        "preprocessing": {"log_offset": 0.003},
        "model": {"widths": [4, 6], "head_units": 8, "dropout": 0.0, "mirror_average": True, "shift_average": True},
        "loss": {"weight": 0.1},
        "training": {"max_epochs": 3, "batch_size": 2, "sequences_per_epoch": 24, "learning_rate": 0.01},
        "evaluation": {"bootstrap_samples": 100},
        "output": {"runs": str(home / "runs"), "savedmodels": str(home / "savedmodels")},
    }

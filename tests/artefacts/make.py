"""Writes artefacts.zip: files of finished and interrupted trainings, and the numbers that they have to give.

It belongs to the commit that is named in README.md, and need not run with a later one. All paths in the files are
relative, so that they can be unpacked anywhere; it works in an empty folder of its own, which it removes.

    PYTHONPATH=.:tests python tests/artefacts/make.py
"""

import json
import os
import shutil
import sys
import tempfile
import zipfile
from collections.abc import Callable
from pathlib import Path
from typing import Any

import keras
import numpy as np
import tensorflow as tf
import xarray as xr
from afresh import asked, machine
from cloudml_tf.anatomy import frame_encoder_of
from cloudml_tf.cli import main
from cloudml_tf.dense import physical_map_model
from cloudml_tf.layers import PhysicalUnits, Standardize
from cloudml_tf.optimizers import FusedAdamW
from cloudml_tf.pretraining import build_decoder, build_painter
from scene_files import write_scenes

from cloudml_tf import (
    R2,
    HistogramLoss,
    PredictionSpread,
    QuantileLoss,
    VariancePreservingLoss,
    build_regressor,
    build_swath_network,
    physical_model,
    regression_metrics,
)
from cloudml_tf.models import share_frames

HERE = Path(__file__).parent.resolve()
PLACES = {"runs": "runs", "savedmodels": "savedmodels", "export": False, "report": False}

NADIR: dict[str, Any] = {
    "experiment_name": "old",
    "seed": 5,
    "split": {"kind": "flights", "train": ["sim01"], "val": ["sim02"], "test": ["sim03"]},
    "preprocessing": {"log_offset": 0.01},
    "data": {
        "cache": "cache",
        "simulation": {
            "flight_count": 3,
            "frames_per_flight": 240,
            "frame_rows": 12,
            "frame_columns": 12,
            "lidar_interval_s": 2.0,
            "strip_width_m": 3200.0,
        },
    },
    "augmentation": {"gain_std": 0.02},
    "model": {
        "widths": [4, 5],
        "footprint": 3,
        "encoder_features": 8,
        "heads": 2,
        "head_units": 8,
        "dropout": 0.1,
        "contrast_boxes": [3],
        "nadir_linear": True,
    },
    "training": {"max_epochs": 3, "batch_size": 16, "learning_rate": 2e-2, "ema_momentum": 0.9},  # the first is best
    "evaluation": {"bootstrap_samples": 100},
    "output": PLACES,
}
QUANTILE: dict[str, Any] = {
    **NADIR,
    "temporal_frames": 1,
    "target": {"transform": "log", "smearing": True},
    "preprocessing": {},
    "data": {**NADIR["data"], "features": [{"name": "roll", "file": "navigation", "dataset": "nav/roll"}]},
    "model": {
        "widths": [4, 5],
        "footprint": 3,
        "encoder_features": 8,
        "head_units": 8,
        "head": "quantile",
        "quantiles": 3,
    },
    "loss": {"base": "pinball"},
    "training": {"max_epochs": 2, "batch_size": 16, "learning_rate": 1e-2},
    "evaluation": {"bootstrap_samples": 100, "baselines": False},
}
SWATH: dict[str, Any] = {
    "experiment_name": "old-swath",
    "seed": 3,
    "temporal_frames": 1,
    "target": {"coverage": "swath", "transform": "log", "log_offset": 0.01, "minimum": 0.0, "maximum": None},
    "data": {
        "scenes": {"path": "scenes.h5", "channels": ["red", "swir"], "label": "cot", "retrieval": "ipa"},
        "sun_angles": False,
    },
    "split": {"kind": "flights", "train": [1, 2, 3, 4], "val": [5, 6], "test": [7, 8]},
    "preprocessing": {"log_offset": 0.003},
    "model": {"widths": [4, 6], "head_units": 8, "dropout": 0.0, "mirror_average": True, "shift_average": True},
    "loss": {"weight": 0.1},
    "training": {"max_epochs": 2, "batch_size": 2, "sequences_per_epoch": 24, "learning_rate": 0.01},
    "evaluation": {"bootstrap_samples": 100},
    "output": PLACES,
}
PRETRAINING: dict[str, Any] = {
    **QUANTILE,
    "temporal_frames": 3,
    "target": {},
    "data": NADIR["data"],
    "model": {"widths": [4, 5], "footprint": 3, "encoder_features": 8, "heads": 2, "head_units": 8},
    "loss": {},
    "training": {"max_epochs": 1, "batch_size": 16, "learning_rate": 1e-2},
    "pretraining": {"enabled": True, "max_epochs": 3, "batch_frames": 24, "decoder_width": 4, "learning_rate": 1e-2},
}
PRETRAINED = {
    **PRETRAINING,
    "pretraining": {"enabled": True, "from_run": "pretraining", "control": False, "transfer": "probe"},
}
CONFIGS = {"nadir": NADIR, "quantile": QUANTILE, "swath": SWATH, "pretraining": PRETRAINING, "pretrained": PRETRAINED}
ONWARDS = ["--init-from", "nadir", "--set", "training.max_epochs=1", "--set", "evaluation.baselines=false"]


def cloudml(*words: str, expected: int = 0) -> None:
    """One command, as environment.json is to remember it."""
    print("cloudml", *words, flush=True)
    sys.argv = ["cloudml", *words]
    found = main([*words, "--json"]) if expected == 0 else main([*words])
    assert found == expected, found


def interrupted(after: int, *words: str) -> None:
    """A command whose training is stopped when so many epochs have ended."""
    begin = keras.callbacks.CallbackList.on_epoch_begin

    def stop(self: Any, epoch: int, logs: Any = None) -> None:
        if epoch == after:
            raise KeyboardInterrupt
        begin(self, epoch, logs)

    keras.callbacks.CallbackList.on_epoch_begin = stop
    try:
        cloudml(*words, expected=130)
    finally:
        keras.callbacks.CallbackList.on_epoch_begin = begin


def runs(expected: Path) -> None:
    """Every run, every export, and what the commands say of them."""
    cloudml("train", "nadir.json", "--run-dir", "nadir")
    interrupted(2, "train", "nadir.json", "--run-dir", "interrupted")
    cloudml("export", "nadir", "-o", "nadir_model")
    cloudml("train", "quantile.json", "--run-dir", "quantile")
    cloudml("train", "swath.json", "--run-dir", "swath")
    cloudml("export", "swath", "-o", "swath_model")
    cloudml("pretrain", "pretraining.json", "--run-dir", "pretraining")
    interrupted(2, "pretrain", "pretraining.json", "--run-dir", "pretraining_interrupted")
    for name in ("nadir", "nadir_model"):
        cloudml("evaluate", name, "--flights", "sim03", "--run-dir", f"judged_{name}")
        shutil.copy(f"judged_{name}/evaluation.json", expected / f"evaluation_{name}.json")
    for name in ("swath", "swath_model"):
        cloudml("evaluate", name, "--flights", "7", "8", "--run-dir", f"judged_{name}")
        shutil.copy(f"judged_{name}/evaluation.json", expected / f"evaluation_{name}.json")
    for name in ("nadir", "interrupted"):
        cloudml("diagnose", name, "--run-dir", f"diagnosed_{name}")
        shutil.copy(f"diagnosed_{name}/diagnosis.json", expected / f"diagnosis_{name}.json")
    cloudml("compare", "nadir", "quantile", "--run-dir", "compared")
    shutil.copy("compared/comparison.json", expected)
    for name, words in (("onwards", ["nadir.json", *ONWARDS]), ("pretrained", ["pretrained.json"])):
        cloudml("train", *words, "--run-dir", name)
        (expected / name).mkdir()
        for file in ("metrics.json", "history.csv"):
            shutil.copy(f"{name}/{file}", expected / name)


def predictions(expected: Path) -> None:
    """What `predict` writes, as arrays."""
    arrays = {}
    for name, words in (("nadir", ["sim03"]), ("quantile", ["sim03"]), ("swath", ["7", "8"])):
        cloudml("predict", name, *words, "-o", f"{name}.nc")
        with xr.open_dataset(f"{name}.nc", decode_times=False, mask_and_scale=True) as content:
            for variable, values in content.data_vars.items():
                if np.issubdtype(values.dtype, np.number):
                    arrays[f"{name}/{variable}"] = values.values
    np.savez_compressed(expected / "predictions.npz", **arrays)


def exports(expected: Path) -> None:
    """A fixed small input, and what both SavedModels answer."""
    rng = np.random.default_rng(5)
    sequences = {
        "frames": rng.uniform(0.05, 0.5, (4, 3, 12, 12, 1)),
        "sun_angles_deg": rng.uniform((20.0, -180.0), (60.0, 180.0), (4, 3, 2)),
    }
    chosen = np.array([[0, 1, 2], [1, 2, 3], [2, 3, 4]], "int32")
    shared = {name: values[0:2].reshape(6, *values.shape[2:])[:5] for name, values in sequences.items()}
    questions = {
        "nadir_model/serving_default": sequences,
        "nadir_model/shared_frames": {**shared, "chosen_frames": chosen},
        "swath_model/serving_default": {"frames": rng.uniform(0.05, 0.5, (2, 20, 12, 2))},
    }
    arrays = {}
    for where, inputs in questions.items():
        folder, signature = where.split("/")
        tensors = {n: tf.constant(v if v.dtype == "int32" else v.astype("float32")) for n, v in inputs.items()}
        model = tf.saved_model.load(folder)
        arrays |= {f"{where}/inputs/{name}": tensor.numpy() for name, tensor in tensors.items()}
        answers = model.signatures[signature](**tensors)
        arrays |= {f"{where}/outputs/{name}": tensor.numpy() for name, tensor in answers.items()}
    np.savez_compressed(expected / "savedmodels.npz", **arrays)


# --- .keras files

SIZES: dict[str, Any] = {
    "widths": (3, 4),
    "footprint": 3,
    "encoder_features": 4,
    "heads": 2,
    "head_units": 4,
    "dropout": 0.0,
}


def scaler(channels: int, name: str = "standardize_frames") -> Standardize:
    return Standardize([-1.0] * channels, [0.5] * channels, log_offset=0.01, name=name)


def plain() -> keras.Model:
    """What docs/model-fit.md shows: a network of Keras's own, with our loss and metrics."""
    model = keras.Sequential([keras.Input((3,)), keras.layers.Dense(4, activation="gelu"), keras.layers.Dense(1)])
    loss = VariancePreservingLoss(base="huber", form="std", delta=0.7, weight=0.3, clip=4.0, pooled_batches=2)
    model.compile(optimizer="adamw", loss=loss, metrics=regression_metrics())
    return model


def regressor() -> keras.Model:
    """The network with every part that it can have, and with the package's optimizer."""
    model = build_regressor(
        (12, 12, 2),
        features=1,
        frame_scaler=scaler(2),
        feature_scaler=Standardize([1.0], [2.0], name="standardize_features"),
        contrast_boxes=(3,),
        nadir_linear=True,
        mirror_average="rows",
        **SIZES,
    )
    loss = VariancePreservingLoss(weight=0.5, target_variance=1.0)
    model.compile(FusedAdamW(1e-2, 1e-3, global_clipnorm=1.0), loss=loss, metrics=regression_metrics())
    return model


def of_the_point() -> list[keras.metrics.Metric]:
    """Those that know their column; of `regression_metrics(0)` most forget it when they are saved."""
    return [R2(column=0), PredictionSpread(column=0)]


def quantile() -> keras.Model:
    model = build_regressor((12, 12, 1), 1, sun_angles=False, head="quantile", quantiles=3, **SIZES)
    model.compile("adam", loss=QuantileLoss(weight=0.2, target_variance=1.0), metrics=of_the_point())
    return model


def histogram() -> keras.Model:
    more = {"sun_angles": False, "architecture": "no_attention", "head": "histogram", "bins": 4}
    model = build_regressor((12, 12, 1), 3, **more, **SIZES)
    loss = HistogramLoss(base="cross_entropy", low=-4.0, high=4.0, target_variance=1.0)
    model.compile("adam", loss=loss, metrics=of_the_point())
    return model


def track() -> keras.Model:
    """Answers at nadir and at two places along the track."""
    return build_regressor((12, 12, 1), 3, sun_angles=False, offsets=(0, -2, 2), **SIZES)


def shared() -> keras.Model:
    """Takes each frame once; in physical units."""
    model = share_frames(build_regressor((12, 12, 1), 3, mirror_average="rows", **SIZES))
    return physical_model(model, PhysicalUnits(0.1, 0.8, log=True, smearing=1.1, log_offset=0.01, name="physical"))


def swath() -> keras.Model:
    sizes = {"widths": (3, 4), "dropout": 0.0, "head_units": 4}
    model = build_swath_network((8, 8, 2), scaler(2), mirror_average="rows", shift_average=True, **sizes)
    loss = VariancePreservingLoss(weight=0.1, target_variance=1.0)
    model.compile(FusedAdamW(1e-2), loss=loss, weighted_metrics=regression_metrics())
    return model


def swath_physical() -> keras.Model:
    """Not periodic, of any size, in physical units."""
    sizes = {"widths": (3, 4), "dropout": 0.0, "head_units": 4}
    model = build_swath_network((None, None, 2), scaler(2), periodic=False, mirror_average="columns", **sizes)
    return physical_map_model(model, PhysicalUnits(0.1, 0.8, log=True, log_offset=0.01, name="physical"))


def encoder() -> keras.Model:
    return frame_encoder_of(build_regressor((12, 12, 1), 1, sun_angles=False, **SIZES))


def autoencoder() -> keras.Model:
    """One of the two networks inside of the masked reconstruction, which itself cannot be saved so."""
    return build_decoder(encoder(), 1, 3)


def painter() -> keras.Model:
    """The other one."""
    found = build_painter(encoder())
    assert found is not None
    return keras.Model(found.input, found.output["painted"])


MODELS: list[Callable[[], keras.Model]] = [
    plain,
    regressor,
    quantile,
    histogram,
    track,
    shared,
    swath,
    swath_physical,
    autoencoder,
    painter,
]


def drawn(model: keras.Model, count: int, rng: np.random.Generator) -> dict[str, np.ndarray]:
    """Inputs of a model by name."""
    found = {}
    for tensor in model.inputs:
        shape = (count, *(8 if side is None else side for side in tensor.shape[1:]))
        if tensor.name == "chosen_frames":
            found[tensor.name] = rng.integers(0, count, shape).astype("int32")
        elif tensor.name == "sun_angles_deg":
            found[tensor.name] = rng.uniform(-180.0, 180.0, shape).astype("float32")
        else:
            found[tensor.name] = rng.uniform(0.05, 0.5, shape).astype("float32")
    return found


def networks(home: Path, expected: Path) -> None:
    """A file each, with its inputs and its answers; where it is compiled also its scores, and the answers a step on."""
    arrays: dict[str, np.ndarray] = {}
    for number, build in enumerate(MODELS):
        name, rng = build.__name__, np.random.default_rng(number)
        print(name, flush=True)
        keras.utils.set_random_seed(number)
        model = build()
        inputs, target = drawn(model, 4, rng), None
        if model.compiled:
            shape = (4, 8, 8) if name == "swath" else (4, 1)
            target = arrays[f"{name}/target"] = rng.normal(size=shape).astype("float32")
            x = next(iter(inputs.values())) if name == "plain" else inputs
            model.fit(x, target, batch_size=2, epochs=2, verbose=0)
        model.save(home / f"{name}.keras")
        again = keras.models.load_model(home / f"{name}.keras")  # some of its metrics keep sums of their own now
        arrays |= {f"{name}/inputs/{key}": values for key, values in inputs.items()}
        arrays |= {f"{name}/{key}": values for key, values in asked(again, inputs, target).items()}
    np.savez_compressed(expected / "networks.npz", **arrays)


# --- all of it


def keep(home: Path, expected: Path) -> None:
    """The archive. Pictures are left out: no command reads them."""
    (expected / "machine.json").write_text(json.dumps(machine(), indent=2) + "\n")
    whole = ["nadir", "interrupted", "nadir_model", "quantile", "swath", "swath_model"]
    whole += ["pretraining", "pretraining_interrupted", "keras", "expected"]
    paths = [path for name in whole for path in sorted((home / name).rglob("*"))]
    paths += [home / "scenes.h5", *sorted(home.glob("*.json"))]
    with zipfile.ZipFile(HERE / "artefacts.zip", "w", zipfile.ZIP_DEFLATED, compresslevel=9) as archive:
        for path in paths:
            if path.is_file() and "plots" not in path.parts:
                archive.write(path, path.relative_to(home))
    print(f"{(HERE / 'artefacts.zip').stat().st_size:,} bytes")


def make() -> None:
    """All in a folder that is removed at the end."""
    home = Path(tempfile.mkdtemp())
    os.chdir(home)
    expected, files = home / "expected", home / "keras"
    expected.mkdir()
    files.mkdir()
    write_scenes(home / "scenes.h5")
    for name, content in CONFIGS.items():
        (home / f"{name}.json").write_text(json.dumps(content, indent=2) + "\n")
    runs(expected)
    predictions(expected)
    exports(expected)
    networks(files, expected)
    keep(home, expected)
    shutil.rmtree(home)


if __name__ == "__main__":
    make()

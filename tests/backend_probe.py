"""Run by test_backends.py in a process of each backend: `python backend_probe.py FOLDER`.

TensorFlow goes first and leaves its weights in FOLDER; every backend leaves its answers there, as <backend>.npz and
<backend>.json.
"""

import json
import sys
from itertools import product
from pathlib import Path
from typing import Any

import keras
import numpy as np
from backends import gradient

from cloudml_tf.callbacks import CollapseAbort, PenaltySchedule, R2EarlyStopping, WeightAverage
from cloudml_tf.losses import BASES, FORMS, HistogramLoss, QuantileLoss, VariancePreservingLoss
from cloudml_tf.metrics import regression_metrics
from cloudml_tf.models import build_regressor
from cloudml_tf.nn.introspection import attention_weights, core_of, frame_encoder_of, mirror_average
from cloudml_tf.nn.layers import Standardize
from cloudml_tf.nn.masked_reconstruction import MaskedReconstruction, build_decoder, build_painter
from cloudml_tf.nn.monitors import DiversityMonitor, LayerMonitor, PredictionSnapshots
from cloudml_tf.nn.nan_guard import NotFinite

SHAPE = (16, 16, 1)
TINY = {"widths": (4, 6), "footprint": 5, "encoder_features": 8, "heads": 2, "head_units": 8, "dropout": 0.1}
TIER1 = {"widths": (16, 24, 32), "output_init": 0.3}  # otherwise as in configs/tier1.json


def sequences(count: int) -> tuple[dict[str, np.ndarray], np.ndarray]:
    """Frames whose nadir pixel is the target, and sun angles."""
    rng = np.random.default_rng(0)
    frames = rng.normal(0.2, 0.1, (count, 3, *SHAPE)).astype("float32")
    angles = rng.uniform((20.0, -180.0), (60.0, 180.0), (count, 3, 2)).astype("float32")
    target = 10.0 * (frames[:, 1, 8, 8, 0] - 0.2)
    return {"frames": frames, "sun_angles_deg": angles}, target[:, None]


def regressor(**options: Any) -> keras.Model:
    """A network with sun angles, contrasts and a mirror average."""
    keras.utils.set_random_seed(1)
    more = {"mirror_average": "rows", "contrast_boxes": (3,), "nadir_linear": True}
    return build_regressor(SHAPE, 3, frame_scaler=Standardize([0.2], [0.1]), **{**more, **options})


def answers(folder: Path) -> dict[str, np.ndarray]:
    """Outputs, attention and mirror images of the same weights."""
    model, (inputs, _) = regressor(**TIER1), sequences(8)
    path = folder / "weights.npz"
    if keras.backend.backend() == "tensorflow":
        np.savez(path, *model.get_weights())
    with np.load(path) as file:
        model.set_weights([file[f"arr_{i}"] for i in range(len(file.files))])
    mirrored = mirror_average(model).mirrored(inputs)
    return {
        "output": model.predict(inputs, verbose=0),
        "core": core_of(model).predict(inputs, verbose=0),
        "attention": attention_weights(model, inputs),
        **{f"mirrored_{name}": keras.ops.convert_to_numpy(value) for name, value in mirrored.items()},
    }


def losses() -> dict[str, np.ndarray]:
    """Value and gradient of each form, base and head."""
    rng = np.random.default_rng(1)
    target, weight = rng.normal(size=(32, 1)).astype("float32"), rng.uniform(0.5, 2.0, 32).astype("float32")
    point = (0.5 * target + 0.3 * rng.normal(size=(32, 1))).astype("float32")
    spread = np.sort(rng.normal(size=(32, 6)), axis=1).astype("float32")
    shares = rng.dirichlet(np.ones(6), 32).astype("float32")
    cases = {f"{form} {base}": (VariancePreservingLoss(base, 0.5, form), point) for form, base in product(FORMS, BASES)}
    cases["constant"] = (VariancePreservingLoss(target_variance=1.0, clip=0.4, gamma=0.9), point)
    cases["quantile"] = (QuantileLoss(), np.concatenate([point, spread], axis=1))
    cases["histogram"] = (HistogramLoss(), np.concatenate([point, shares], axis=1))
    found = {}
    for name, (loss, output) in cases.items():
        for kind, weights in (("plain", None), ("weighted", weight)):
            key = f"loss {name} {kind}"
            found[key] = keras.ops.convert_to_numpy(loss(target, keras.ops.convert_to_tensor(output), weights))
            found[f"{key} gradient"] = gradient(lambda y, loss=loss, w=weights: loss(target, y, w), output)
    return found


def fitted() -> dict[str, list[float]]:
    """The log of a short training with every callback; λ rises in it."""
    model, (inputs, target) = regressor(**TINY, output_init=0.3), sequences(96)
    loss = VariancePreservingLoss(weight=0.5, target_variance=1.0)
    model.compile(keras.optimizers.AdamW(0.01), loss=loss, metrics=regression_metrics())
    callbacks = [
        NotFinite(),
        WeightAverage(0.5),
        PenaltySchedule(loss, "ramp", ramp_epochs=(0, 2)),
        LayerMonitor({name: values[:16] for name, values in inputs.items()}, target[:16]),
        R2EarlyStopping(patience=5),
        CollapseAbort(0.001),
        PredictionSnapshots(inputs, epochs=(1,)),
        DiversityMonitor(inputs, target, prefix="seen_"),
    ]
    sizes = {"batch_size": 16, "validation_batch_size": len(target), "epochs": 3}
    kept = model.fit(inputs, target, validation_data=(inputs, target), **sizes, verbose=0, callbacks=callbacks)
    return {name: [float(value) for value in values] for name, values in kept.history.items()}


def reconstructed() -> list[float]:
    """Validation losses of a masked reconstruction, before and after an epoch."""
    encoder = frame_encoder_of(regressor(**TINY))
    shape = encoder.input.shape[1:]
    frames = np.random.default_rng(2).normal(size=(64, 3, *shape)).cumsum(axis=2).astype("float32")
    frames = (frames - frames.mean()) / frames.std()
    learner = MaskedReconstruction(build_decoder(encoder, shape[-1], 6), build_painter(encoder), frames="random")
    learner.compile(keras.optimizers.Adam(0.01))
    before = learner.evaluate(frames, verbose=0)
    history = learner.fit(frames, validation_data=(frames,), batch_size=16, epochs=1, verbose=0).history
    return [float(before), float(history["val_loss"][-1])]


if __name__ == "__main__":
    home, backend = Path(sys.argv[1]), keras.backend.backend()
    np.savez(home / f"{backend}.npz", **answers(home), **losses())
    (home / f"{backend}.json").write_text(json.dumps({"history": fitted(), "reconstruction": reconstructed()}))

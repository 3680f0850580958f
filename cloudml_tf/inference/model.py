"""A run or an exported model as one question: examples in, values and their interval in physical units out."""

import hashlib
from collections.abc import Callable
from dataclasses import dataclass, replace
from functools import cache, cached_property
from pathlib import Path
from typing import Any

import numpy as np

from cloudml_tf import __version__
from cloudml_tf.config.load import resolved_json
from cloudml_tf.config.run_folder import ModelRecord
from cloudml_tf.config.schema import Config
from cloudml_tf.data.samples import Examples
from cloudml_tf.data.scaling import Scaling, TargetScaling
from cloudml_tf.data.training_ranges import TrainingRanges
from cloudml_tf.evaluation.level_scale import LevelScale
from cloudml_tf.inference.export.formats import FORMATS, SavedModel, formats_in, joined_outputs, open_export
from cloudml_tf.inference.intervals import INTERVALS, Interval, head_intervals, left_out_intervals
from cloudml_tf.utils.errors import NotFiniteError

# "value", what the model knows of "lower", "upper" and "spread", and further quantities by name, with their ends behind
# it ("cloud_top_km", "cloud_top_km_lower", …); (n, *P) each
Values = dict[str, np.ndarray]
Attend = Callable[[dict[str, np.ndarray]], Any]  # inputs of k sequences -> (k,T), see `introspection.attention_weights`


@dataclass(frozen=True)
class Model:
    """Ready to predict.

    Args:
        record: what is written down about it.
        predict: examples -> values in physical units.
        level: the share of truths that an interval is to cover; None where there is no interval.
        interval: where the interval comes from, in words.
        attend: what the attention of a run looks at; None for an export.
    """

    record: ModelRecord
    predict: Callable[[Examples], Values]
    level: float | None = None
    interval: str = ""
    attend: Attend | None = None

    @property
    def config(self) -> Config:
        """The configuration of its run."""
        return self.record.config

    @property
    def ranges(self) -> TrainingRanges | None:
        """The ranges of its training inputs; None for a model of a time before they were kept."""
        found = self.record.description.get("ranges")
        return None if found is None else TrainingRanges.from_json(found)

    @cached_property
    def provenance(self) -> dict[str, str]:
        """For a file: which model this was, and how flights were read for it."""
        return provenance(self.record)


def provenance(record: ModelRecord) -> dict[str, str]:
    """Which model this is, for a file; the model need not be open."""
    return {
        "source": f"cloudml_tf {__version__}, model {record.config.experiment_name}",
        "model": str(record.source.resolve()),
        "run_id": record.run,
        "model_sha256": digest(record.source),
        "config_fingerprint": hashlib.sha256(resolved_json(record.config).encode()).hexdigest()[:16],
        "training_data_fingerprint": record.description["fingerprint"],
        **({} if record.calibration is None else {"calibration": record.calibration.words}),
    }


def open_record(record: ModelRecord, threads: int | None = None) -> Model:
    """A run with its best weights, or an exported model in its first format, which runs without Keras.

    `threads` bounds ONNX and LiteRT; TensorFlow goes by the environment (`threads.limit_threads`). A calibration to a
    flight is applied here, and nowhere else.
    """
    model, calibration = _opened(record, threads), record.calibration
    if calibration is None:
        return model
    scaling = Scaling.from_json(record.description["scaling"]).target
    line = LevelScale(calibration.level, calibration.scale)
    words = f"{model.interval}; with level and scale of flight {calibration.flight}" if model.interval else ""
    return replace(model, predict=lambda examples: moved(model.predict(examples), line, scaling), interval=words)


def moved(values: Values, line: LevelScale, scaling: TargetScaling) -> Values:
    """Values of the target with another level and scale: the value, its interval and its spread. Others stay."""
    found, value = dict(values), values["value"]
    for key, smearing in (("value", scaling.smearing), ("lower", 1.0), ("upper", 1.0)):
        if key in values:
            found[key] = scaling.untransform(line.of(scaling.learned(values[key], smearing)), smearing)
    if "spread" in values:  # a small difference is stretched by the slope there
        offset = scaling.log_offset
        slope = line.scale * ((found["value"] + offset) / (value + offset) if scaling.log else 1.0)
        found["spread"] = values["spread"] * slope
    return _finite(found)


def _opened(record: ModelRecord, threads: int | None) -> Model:
    """The same, without a calibration."""
    model, found = _with_own_intervals(record, threads), record.description.get(INTERVALS)
    if found is None or "members" in record.export:  # an ensemble's intervals are its own, or none
        return model
    config, scaling = record.config, Scaling.from_json(record.description["scaling"])

    def predict(examples: Examples) -> Values:
        values = model.predict(examples)
        ends = left_out_intervals(values["value"], record.description, config, scaling)
        return {**values, **dict(zip(("lower", "upper"), ends[config.target.name], strict=True))}

    words = f"of the errors on {found['flights']} training flights, each left out"
    return replace(model, predict=predict, level=config.prediction.level, interval=words)


def _with_own_intervals(record: ModelRecord, threads: int | None) -> Model:
    """The same, without intervals from flights left out."""
    if record.export:
        intervals = record.export.get("intervals") or {"level": None, "calibration": []}
        words = f"of the ensemble, calibrated on {', '.join(intervals['calibration'])}"
        return Model(record, _exported(record, threads), intervals["level"], words)
    head, level = record.config.model.head, record.config.prediction.level
    words = "" if head == "point" else f"of the {head} head, not calibrated"
    geometry = record.config.data.geometry
    if words and geometry is not None and geometry.wind_error_m_s:
        words += f", widened for a wind that is known to {geometry.wind_error_m_s:g} m/s"
    predict, attend = _run(record)
    return Model(record, predict, level if words else None, words, attend)


def _run(record: ModelRecord) -> tuple[Callable[[Examples], Values], Attend]:
    from cloudml_tf.models import share_frames, shares_frames
    from cloudml_tf.nn.heads import POINT
    from cloudml_tf.nn.introspection import attention_weights, reads_sequences
    from cloudml_tf.train.batches import Inputs, point_values
    from cloudml_tf.train.network import load_regressor
    from cloudml_tf.train.tf_dataset import predict_batches

    config, description = record.config, record.description
    scaling = Scaling.from_json(description["scaling"])
    target = scaling.target

    @cache
    def network(frame_shape: tuple[int, ...]) -> Any:
        """Weights of scenes fit images of any size."""
        return load_regressor(record.source, config, {**description, "frame_shape": frame_shape})

    @cache
    def sharing(frame_shape: tuple[int, ...]) -> Any:
        """The same, which encodes each frame once, where it reads sequences."""
        model = network(frame_shape)
        return share_frames(model) if reads_sequences(model) else model

    def predict(examples: Examples) -> Values:
        model = sharing(tuple(examples.frame_shape))
        output = predict_batches(model, Inputs(examples, shared=shares_frames(model)))  # (n,1), (n,1+K) or (n,H,W)
        found = {"value": target.physical(point_values(output, examples))}
        beside = zip(config.target.further, scaling.further, output[:, POINT + 1 :].T, strict=False)
        found |= {name: each.physical(column) for name, each, column in beside}
        for name, ends in head_intervals(output, examples, config, scaling).items():
            before = "" if name == config.target.name else f"{name}_"
            found |= {f"{before}{end}": values for end, values in zip(("lower", "upper"), ends, strict=True)}
        return _finite(found)

    return predict, lambda inputs: attention_weights(network(tuple(description["frame_shape"])), inputs)


def intervals_of(values: Values, config: Config) -> dict[str, Interval]:
    """The ends of the intervals among values, by the name of the quantity."""
    before = {config.target.name: "", **{name: f"{name}_" for name in config.target.further}}
    return {
        name: (values[f"{start}lower"], values[f"{start}upper"])
        for name, start in before.items()
        if f"{start}lower" in values
    }


def _exported(record: ModelRecord, threads: int | None) -> Callable[[Examples], Values]:
    model, name = open_export(record.source, formats_in(record.source)[0], threads), record.config.target.name

    def predict(examples: Examples) -> Values:
        size = examples.batch_size
        pieces = [slice(i, i + size) for i in range(0, len(examples), size)]
        if isinstance(model, SavedModel) and model.shares_frames:
            joined = joined_outputs(model.shared_outputs(examples.shared_inputs(piece)) for piece in pieces)
        else:
            joined = joined_outputs(model.outputs(examples.inputs(piece)) for piece in pieces)
        found = {"value": joined[name], **{key: joined.get(f"{name}_{key}") for key in ("lower", "upper", "spread")}}
        found |= {further: joined.get(further) for further in record.config.target.further}
        return _finite({key: v.reshape(examples.label.shape) for key, v in found.items() if v is not None})

    return predict


def _finite(values: Values) -> Values:
    if not all(np.isfinite(part).all() for part in values.values()):
        raise NotFiniteError("the model predicts values that are not finite; its weights or inputs are not finite.")
    return values


def digest(source: Path) -> str:
    """SHA-256 of a run's best weights; of an export's first format, of a SavedModel graph and variables in a row."""
    found = hashlib.sha256()
    formats = formats_in(source)
    paths = [source / FORMATS[formats[0]].file if formats else source / "best.weights.h5"]
    if formats[:1] == ("savedmodel",):
        paths += sorted((source / "variables").glob("*"))
    for path in paths:
        with open(path, "rb") as file:
            hashlib.file_digest(file, lambda: found)
    return found.hexdigest()

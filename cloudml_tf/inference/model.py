"""A run or an exported model as one question: sequences in, values and their interval in physical units out."""

import hashlib
from collections.abc import Callable
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path
from typing import Any

import numpy as np

from cloudml_tf import __version__
from cloudml_tf.config.load import resolved_json
from cloudml_tf.config.run_folder import read_model, run_id
from cloudml_tf.config.schema import Config
from cloudml_tf.data.samples import Samples
from cloudml_tf.data.training_ranges import TrainingRanges
from cloudml_tf.inference.export.formats import FORMATS, SavedModel, formats_in, joined_outputs, open_export
from cloudml_tf.utils.errors import NotFiniteError

Values = dict[str, np.ndarray]  # "value", and what the model knows of "lower", "upper" and "spread"; (n,) each
MOST_SEQUENCES = 512  # a batch


@dataclass(frozen=True)
class Model:
    """Ready to predict."""

    source: Path
    config: Config
    description: dict[str, Any]
    answer: Callable[[Samples], Values]
    level: float | None  # the share that an interval is to cover; None where there is no interval
    interval: str  # where it comes from, in words
    run: str  # experiment and folder of what was trained

    @property
    def ranges(self) -> TrainingRanges | None:
        """Of its training part; None for a model of a time before they were kept."""
        return ranges_of(self.description)

    @cached_property
    def provenance(self) -> dict[str, str]:
        """For a file: which model this was, and how flights were read for it."""
        return provenance(self.source, self.config, self.description, self.run)


def provenance(source: Path, config: Config, description: dict[str, Any], run: str) -> dict[str, str]:
    """Of a model that need not be open. `run` is its experiment and folder."""
    return {
        "source": f"cloudml_tf {__version__}, model {config.experiment_name}",
        "model": str(source.resolve()),
        "run_id": run,
        "model_sha256": digest(source),
        "config_fingerprint": hashlib.sha256(resolved_json(config).encode()).hexdigest()[:16],
        "training_data_fingerprint": description["fingerprint"],
    }


def name_of_run(source: Path, config: Config, record: dict[str, Any]) -> str:
    """Experiment and folder of what was trained. `record` is an export's, empty for a run."""
    return record.get("run") or run_id(config, source)  # an ensemble's export names its members itself


def ranges_of(description: dict[str, Any]) -> TrainingRanges | None:
    """The training ranges of a data description; None for an older one."""
    return TrainingRanges.from_json(description["ranges"]) if "ranges" in description else None


def open_model(source: Path, overrides: dict[str, Any], threads: int | None = None) -> Model:
    """A run with its best weights, or an exported model in its first format, which runs without Keras.

    `threads` bounds ONNX and LiteRT; TensorFlow goes by the environment (`threads.limit_threads`).
    """
    config, description, record = read_model(source, overrides)
    run = name_of_run(source, config, record)
    if record:
        answer = _exported(source, config, threads)
        return Model(source, config, description, answer, *_interval_of_export(record), run)
    head, level = config.model.head, config.prediction.level
    words = "" if head == "point" else f"of the {head} head, not calibrated"
    answer = _run(source, config, description)
    return Model(source, config, description, answer, level if words else None, words, run)


def _run(source: Path, config: Config, description: dict[str, Any]) -> Callable[[Samples], Values]:
    from cloudml_tf.data.scaling import Scaling
    from cloudml_tf.inference.heads import MemberHead
    from cloudml_tf.models import share_frames
    from cloudml_tf.nn.heads import POINT
    from cloudml_tf.train.batches import Inputs
    from cloudml_tf.train.network import load_regressor
    from cloudml_tf.train.tf_dataset import predict_batches

    network = share_frames(load_regressor(source, config, description))
    voice, target = MemberHead.of(config, description), Scaling.from_json(description["scaling"]).target
    tail = 0.5 * (1.0 - config.prediction.level)

    def answer(samples: Samples) -> Values:
        inputs = Inputs(samples, _batch_size(samples), shared=True)
        output = predict_batches(network, inputs)  # (n,1) or (n,1+K)
        found = {"value": target.physical(output[:, POINT])}
        if voice.head != "point":  # a logarithm keeps order, so that quantiles need no smearing
            ends = {"lower": voice.quantile(output, tail), "upper": voice.quantile(output, 1.0 - tail)}
            found |= {key: np.exp(end) if target.log else end for key, end in ends.items()}
        return _finite(found)

    return answer


def _exported(source: Path, config: Config, threads: int | None) -> Callable[[Samples], Values]:
    model, name = open_export(source, formats_in(source)[0], threads), config.target.name

    def answer(samples: Samples) -> Values:
        size = _batch_size(samples)
        pieces = [slice(i, i + size) for i in range(0, len(samples), size)]
        if isinstance(model, SavedModel) and model.shares_frames:
            joined = joined_outputs(model.shared_outputs(samples.shared_inputs(piece)) for piece in pieces)
        else:
            joined = joined_outputs(model.outputs(samples.inputs(piece)) for piece in pieces)
        further = {key: joined.get(f"{name}_{key}") for key in ("lower", "upper", "spread")}
        return _finite({"value": joined[name], **{key: v for key, v in further.items() if v is not None}})

    return answer


def _interval_of_export(record: dict[str, Any]) -> tuple[float | None, str]:
    intervals = record.get("intervals")
    if not intervals:
        return None, ""
    return intervals["level"], f"of the ensemble, calibrated on {', '.join(intervals['calibration'])}"


def _batch_size(samples: Samples) -> int:
    """Fewer sequences of large frames: their feature maps take many times the memory of the frames."""
    return int(np.clip(samples.rows_at_once() // samples.index.shape[1], 1, MOST_SEQUENCES))


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
            while piece := file.read(2**20):
                found.update(piece)
    return found.hexdigest()

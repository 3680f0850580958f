"""The formats of an export, their requirements, and readers that run each without Keras.

All predict the same: named float32 inputs with any batch size, raw radiance and degrees in, physical units out.
"""

from collections.abc import Iterable
from dataclasses import dataclass
from importlib.util import find_spec
from pathlib import Path
from typing import Any, Protocol

import numpy as np

from cloudml_tf.config.run_folder import EXPORT_FILES, RECORD
from cloudml_tf.inference.export import trust
from cloudml_tf.utils.errors import ConfigError, RunError
from cloudml_tf.utils.tf_logging import held_back_stderr, quiet_tensorflow

SHARED = "shared_frames"  # the signature of a SavedModel for sequences that share frames


@dataclass(frozen=True)
class Format:
    """A format of an export.

    Args:
        title: its name for people.
        file: its name in the folder of the export; the SavedModel has the folder `variables` beside it.
        packages: module -> the package that holds it, beyond what training needs.
    """

    title: str
    file: str
    packages: dict[str, str]

    def missing(self) -> list[str]:
        """The required packages that are not installed."""
        return [package for module, package in self.packages.items() if find_spec(module) is None]

    def files(self, folder: Path) -> list[Path]:
        """Its files in the folder of an export, weights included."""
        weights = (folder / "variables").rglob("*") if self.file == EXPORT_FILES["savedmodel"] else ()
        return [folder / self.file, *weights]


_ONNX = {"onnx": "onnx", "tf2onnx": "tf2onnx", "onnxruntime": "onnxruntime"}
FORMATS = {
    "savedmodel": Format("SavedModel", EXPORT_FILES["savedmodel"], {}),
    "onnx": Format("ONNX", EXPORT_FILES["onnx"], _ONNX),
    "litert": Format("LiteRT", EXPORT_FILES["litert"], {"ai_edge_litert": "ai-edge-litert"}),
}


def parse_formats(text: str) -> tuple[str, ...]:
    """Parse "savedmodel,onnx" to formats, in the order of `FORMATS`. Raises `ConfigError` for any other."""
    asked = {name.strip().lower() for name in text.split(",") if name.strip()}
    unknown = sorted(asked - FORMATS.keys())
    if unknown or not asked:
        raise ConfigError(f"--format takes one or several of {','.join(FORMATS)}. Received: {text!r}")
    return tuple(name for name in FORMATS if name in asked)


def check_packages(formats: Iterable[str]) -> None:
    """Refuse formats whose packages are missing; before a training rather than after it. Raises `ConfigError`."""
    missing = {name: FORMATS[name].missing() for name in formats if FORMATS[name].missing()}
    if missing:
        packages = sorted({package for lacking in missing.values() for package in lacking})
        raise ConfigError(
            f"the export formats {', '.join(missing)} need packages that are not installed: {', '.join(packages)}. Run "
            "`pip install 'cloudml-tf[export]'` (in a clone: `pip install -e '.[export]'`), or leave these formats out "
            "of --format and output.export_formats."
        )


def check_backend() -> None:
    """Refuse to export where Keras does not run on TensorFlow; before a training. Raises `ConfigError`."""
    quiet_tensorflow()
    import keras

    backend = keras.backend.backend()
    if backend != "tensorflow":
        raise ConfigError(
            f"an export is written with TensorFlow, and Keras runs on {backend}. Train with --set output.export=false, "
            "then run KERAS_BACKEND=tensorflow cloudml export RUN: the weights of a run fit every backend."
        )


def formats_in(folder: Path) -> tuple[str, ...]:
    """The formats in the folder of an export; none where it is something else."""
    if not (folder / RECORD).is_file():
        return ()
    return tuple(name for name, form in FORMATS.items() if (folder / form.file).is_file())


class Reader(Protocol):
    """An exported file that is ready to predict."""

    def outputs(self, inputs: dict[str, np.ndarray]) -> dict[str, np.ndarray]:
        """Every output by name, (n,) each, in physical units."""


def joined_outputs(parts: Iterable[dict[str, np.ndarray]]) -> dict[str, np.ndarray]:
    """Join the outputs of several batches."""
    found = list(parts)
    return {name: np.concatenate([part[name] for part in found]) for name in found[0]}


def open_export(folder: Path, name: str, threads: int | None = None) -> Reader:
    """Open one format. `threads` limits ONNX and LiteRT; TensorFlow has its own setting.

    Raises `RunError` for a file of another kind, one that differs from what was exported, or that does more than
    compute.
    """
    check_packages([name])
    path = folder / FORMATS[name].file
    if not path.is_file():
        raise RunError(f"{folder}: no {path.name} here; it is not an exported model in the format {name}.")
    trust.check_digests(folder, folder / RECORD, [path.name, *(["variables"] if name == "savedmodel" else [])])
    if name == "savedmodel":
        trust.check_savedmodel(path)
    elif name == "onnx":
        trust.check_onnx(path)
    try:
        return SavedModel(folder) if name == "savedmodel" else (Onnx if name == "onnx" else LiteRT)(path, threads)
    except Exception as error:  # any error of a runtime about a damaged file
        reason = (str(error).splitlines() or [type(error).__name__])[0][:200]
        raise RunError(
            f"{path}: cannot be loaded ({reason}). Copy the export again, or export the run again."
        ) from error


class SavedModel:
    """A SavedModel loaded without Keras, as any other process would."""

    def __init__(self, folder: Path) -> None:
        import tensorflow as tf

        self._kept = tf.saved_model.load(str(folder))  # without this reference its variables are freed
        self._serve = self._kept.signatures["serving_default"]
        self._constant = tf.constant

    def outputs(self, inputs: dict[str, np.ndarray]) -> dict[str, np.ndarray]:
        """Every output, (n,) each, in physical units."""
        return self._called(self._serve, inputs)

    @property
    def shares_frames(self) -> bool:
        """Whether it can encode each frame once; a model of an earlier version cannot."""
        return SHARED in self._kept.signatures

    def shared_outputs(self, inputs: dict[str, np.ndarray]) -> dict[str, np.ndarray]:
        """Every output of sequences that share frames, `Samples.shared_inputs`."""
        return self._called(self._kept.signatures[SHARED], inputs)

    def _called(self, signature: Any, inputs: dict[str, np.ndarray]) -> dict[str, np.ndarray]:
        specs = signature.structured_input_signature[1]
        tensors = {name: self._constant(value, specs[name].dtype) for name, value in inputs.items()}
        return flat({name: value.numpy() for name, value in signature(**tensors).items()})


class Onnx:
    """An ONNX file in ONNX Runtime, on the CPU. TensorFlow is not needed."""

    def __init__(self, path: Path, threads: int | None = None) -> None:
        import onnxruntime

        options = onnxruntime.SessionOptions()
        options.intra_op_num_threads = threads or 0  # 0: as many as there are cores
        self._session = onnxruntime.InferenceSession(str(path), options, providers=["CPUExecutionProvider"])
        self._names = [output.name for output in self._session.get_outputs()]

    def outputs(self, inputs: dict[str, np.ndarray]) -> dict[str, np.ndarray]:
        """Every output, (n,) each, in physical units."""
        values = self._session.run(None, _float32(inputs))
        return flat(dict(zip(self._names, values, strict=True)))


class LiteRT:
    """A LiteRT file. TensorFlow is not needed."""

    def __init__(self, path: Path, threads: int | None = None) -> None:
        from ai_edge_litert.interpreter import Interpreter

        with held_back_stderr():
            self._interpreter = Interpreter(model_path=str(path), num_threads=threads)
            self._interpreter.allocate_tensors()  # this prints a greeting on stderr, once
            self._serve = self._interpreter.get_signature_runner("serving_default")

    def outputs(self, inputs: dict[str, np.ndarray]) -> dict[str, np.ndarray]:
        """Every output, (n,) each, in physical units."""
        return flat(self._serve(**_float32(inputs)))


def _float32(inputs: dict[str, np.ndarray]) -> dict[str, np.ndarray]:
    return {name: np.asarray(value, "float32") for name, value in inputs.items()}


def flat(outputs: dict[str, Any]) -> dict[str, np.ndarray]:
    """Every output, flattened."""
    return {name: np.asarray(value).reshape(-1) for name, value in outputs.items()}

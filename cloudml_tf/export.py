"""Write a run as a SavedModel: raw radiance and degrees in, physical units out, preprocessing inside.

`savedmodels/<experiment>/` loads with `tf.saved_model.load` in a process without this package. Its signature
`serving_default` takes float32 tensors named as the model's inputs, with any batch size, and returns one named as
the target. `cloudml.json` beside it says how flights are to be read for it and how well it agrees with Keras.
"""

import argparse
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

import numpy as np

from cloudml_tf.config import Config, expand
from cloudml_tf.errors import RunError
from cloudml_tf.files import whole_folder, write_json
from cloudml_tf.quiet import quiet_tensorflow
from cloudml_tf.runs import check_overrides, read_run

TOLERANCE = 1e-4  # largest difference to Keras, in standard deviations of the target


Answer = Callable[[dict[str, Any]], dict[str, Any]]  # inputs by name -> outputs (B,1) by name, in physical units


def export_model(
    model: Any, folder: Path, config: Config, description: dict[str, Any], seed: int = 0
) -> dict[str, Any]:
    """Write the SavedModel of a regressor (standardised output); returns the parity record.

    Raises `RunError` where the export differs from the Keras model by more than `TOLERANCE`.
    """
    from cloudml_tf.data.scaling import Scaling
    from cloudml_tf.training import with_units

    physical = with_units(model, Scaling.from_json(description["scaling"]))

    def answer(inputs: dict[str, Any]) -> dict[str, Any]:
        return {config.target.name: physical(inputs, training=False)}

    return export_answer([physical], answer, folder, config, description, seed)


def export_answer(
    models: Sequence[Any],
    answer: Answer,
    folder: Path,
    config: Config,
    description: dict[str, Any],
    seed: int = 0,
    more: dict[str, Any] | None = None,
) -> dict[str, Any]:
    """Write a SavedModel that answers as `answer` does with Keras; returns the parity record.

    Args:
        models: all that `answer` calls; they take the same inputs.
        answer: what is exported; its outputs hold one named as the target.
        folder: where to; it is replaced where it holds an export.
        config, description: of the run.
        seed: of the inputs on which the two are compared.
        more: for `cloudml.json`.
    """
    check_replaceable(folder)
    import tensorflow as tf
    from keras.export import ExportArchive

    from cloudml_tf.data.scaling import Scaling

    shapes = {tensor.name: (None, *tensor.shape[1:]) for tensor in models[0].inputs}

    def serve(*tensors: Any) -> dict[str, Any]:
        return answer(dict(zip(shapes, tensors, strict=True)))

    signature = [tf.TensorSpec(shape, tf.float32, name=name) for name, shape in shapes.items()]
    with whole_folder(folder) as temporary:
        archive = ExportArchive()
        for model in models:
            archive.track(model)
        archive.add_endpoint("serving_default", serve, input_signature=signature)
        archive.write_out(str(temporary), verbose=False)
        record = check_parity(temporary, answer, shapes, config, Scaling.from_json(description["scaling"]), seed)
        content = {
            "inputs": shapes,
            "output": config.target.name,
            "parity": record,
            "data": description,
            **(more or {}),
        }
        write_json(temporary / "cloudml.json", {**content, "config": config.model_dump(mode="json")})
    return record


def check_replaceable(folder: Path) -> None:
    """An export may take the place of an export, of nothing, and of nothing else."""
    ours = (folder / "cloudml.json").is_file() and (folder / "saved_model.pb").is_file()
    if folder.exists() and not ours and (not folder.is_dir() or any(folder.iterdir())):
        raise RunError(f"{folder}: is there and is no exported model; it will not be overwritten. Name another folder.")


def check_parity(
    folder: Path, answer: Answer, shapes: dict[str, Any], config: Config, scaling: Any, seed: int
) -> dict[str, Any]:
    """Compare every output of the SavedModel with Keras on random inputs in the training range, batches 1 and 5.

    The difference is taken in standard deviations of the target, in the loss's space.
    """
    rng = np.random.default_rng(seed)
    loaded = SavedModel(folder)
    worst = 0.0
    for batch in (1, 5):
        inputs = {
            name: _typical(name, (batch, *shape[1:]), scaling, config.preprocessing.log_offset, rng)
            for name, shape in shapes.items()
        }
        ours = {name: np.asarray(values).reshape(-1) for name, values in answer(inputs).items()}
        theirs = loaded.outputs(inputs)
        slope = ours[config.target.name] if scaling.target.log else 1.0  # of physical units by the loss's space
        worst = max(worst, *(float(np.abs((ours[n] - theirs[n]) / slope).max() / scaling.target.std) for n in ours))
    if not worst <= TOLERANCE:
        raise RunError(f"{folder}: the SavedModel differs from the Keras model by {worst:.2g} std; not exported.")
    return {"max_difference_std": worst, "tolerance_std": TOLERANCE, "batches": [1, 5]}


def _typical(
    name: str, shape: tuple[int, ...], scaling: Any, log_offset: float | None, rng: np.random.Generator
) -> np.ndarray:
    """Random raw inputs with the mean and spread of training."""
    if name == "sun_angles_deg":
        return rng.uniform((10.0, -180.0), (70.0, 180.0), shape).astype("float32")
    mean, std = (
        (scaling.frame_mean, scaling.frame_std) if name == "frames" else (scaling.feature_mean, scaling.feature_std)
    )
    values = np.asarray(mean) + np.asarray(std) * rng.standard_normal(shape)
    if name == "frames" and log_offset is not None:
        values = np.exp(values) - log_offset
    return values.astype("float32")


class SavedModel:
    """A SavedModel loaded without Keras, as any other process would."""

    def __init__(self, folder: Path) -> None:
        import tensorflow as tf

        if not (folder / "saved_model.pb").is_file():
            raise RunError(f"{folder}: no saved_model.pb here; it is not an exported model.")
        self._kept = tf.saved_model.load(str(folder))  # without this reference its variables are freed
        self._serve = self._kept.signatures["serving_default"]
        self._constant = tf.constant

    def outputs(self, inputs: dict[str, np.ndarray]) -> dict[str, np.ndarray]:
        """Every output, (n,) each, in physical units."""
        tensors = {name: self._constant(value, "float32") for name, value in inputs.items()}
        return {name: np.asarray(value.numpy()).reshape(-1) for name, value in self._serve(**tensors).items()}

    def predict(self, inputs: dict[str, np.ndarray], output: str) -> np.ndarray:
        """(n,) values of one output."""
        return self.outputs(inputs)[output]


def target_folder(config: Config, run_dir: str | None = None) -> Path:
    """Where the SavedModel of an experiment goes."""
    return Path(run_dir) if run_dir is not None else expand(config.output.savedmodels) / config.experiment_name


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """Arguments of this room."""
    from cloudml_tf.cli import add_common

    parser.add_argument("folder", metavar="RUN", help="a run folder")
    add_common(parser)


def run(args: argparse.Namespace) -> int:
    """Export a finished run."""
    quiet_tensorflow()
    from cloudml_tf.cli import overrides_from, print_json
    from cloudml_tf.training import load_regressor

    path = Path(args.folder)
    overrides = overrides_from(args)
    check_overrides(overrides)
    config, description = read_run(path, overrides)
    model = load_regressor(path, config, description)
    folder = target_folder(config, args.run_dir)
    record = export_model(model, folder, config, description, config.seed)
    if args.json:
        print_json({"savedmodel": str(folder), "parity": record})
    else:
        print(f"{folder}: largest difference to Keras {record['max_difference_std']:.1e} std of the target")
    return 0


if __name__ == "__main__":
    import sys

    from cloudml_tf.cli import main

    sys.exit(main(["export", *sys.argv[1:]]))

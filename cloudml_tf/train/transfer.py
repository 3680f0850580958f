"""Transfer a pretrained encoder to a regressor, always compared with random weights.

Three figures are reported together: the fine-tuned network, the same network from random weights (the control), and a
linear probe of the frozen encoder, pretrained and random.
"""

from pathlib import Path
from typing import Any

import keras
import numpy as np

from cloudml_tf.config.load import expand
from cloudml_tf.config.run_folder import flat, has_checkpoint, read_json, read_run
from cloudml_tf.config.schema import Config
from cloudml_tf.data.prepare import Prepared
from cloudml_tf.data.readers.frames import camera_fingerprint
from cloudml_tf.data.samples import Examples
from cloudml_tf.evaluation import collect as results
from cloudml_tf.evaluation.baselines import ridge_on
from cloudml_tf.evaluation.scores import S_IS, labels, scores
from cloudml_tf.nn.introspection import frame_encoder_of, frame_vectors_of
from cloudml_tf.nn.masked_reconstruction import hand_over
from cloudml_tf.reports.tables import WORTH, pretraining_rows
from cloudml_tf.train import fit, network
from cloudml_tf.train.batches import Inputs
from cloudml_tf.train.pretrain import NAME, Pretrained, pretrain
from cloudml_tf.utils.console import Console
from cloudml_tf.utils.errors import CloudMLError, PretrainingError, RunError
from cloudml_tf.utils.files import write_json
from cloudml_tf.utils.tf_graphs import forgotten_graphs

OF_ENCODER = ("architecture", "widths", "footprint", "encoder_features", "contrast_boxes")  # settings under model
LARGEST_SHIFT = 0.2  # of frame statistics, in standard deviations, between pretraining and training


def start_from_pretraining(
    model: keras.Model, config: Config, prepared: Prepared, folder: Path, console: Console
) -> Pretrained:
    """Put a pretrained encoder into a regressor that is not compiled yet.

    The pretraining is that of `pretraining.from_run`, or is done here, in folder/pretraining. Raises `PretrainingError`
    for one that did not converge, unless `pretraining.force`, and `RunError` for one that does not fit.
    """
    chosen = config.pretraining
    if chosen.from_run is None:
        pretrained = pretrain(config, prepared, folder / "pretraining", console)
        check_converged(pretrained, config)
    else:
        pretrained = read_pretraining(expand(chosen.from_run))
    tensors = load_encoder(model, pretrained, config, prepared)
    frame_encoder_of(model).trainable = chosen.transfer == "fine_tune"
    console.say(f"pretraining {pretrained.found['verdict']}; {tensors} tensors transferred")
    return pretrained


def check_source(config: Config, prepared: Prepared) -> None:
    """Refuse a `pretraining.from_run` that a training cannot start from, before the training writes anything.

    Raises `RunError` for a folder without a pretraining, for an encoder that does not fit, and for one that saw
    frames of the test split; `PretrainingError` for one that did not converge, unless `pretraining.force`.
    """
    if config.pretraining.from_run is None:
        return
    pretrained = read_pretraining(expand(config.pretraining.from_run))
    check_converged(pretrained, config)
    check_unseen(pretrained, config, prepared)
    if config.training.devices == "one":  # several devices have to be started before TensorFlow computes anything
        with forgotten_graphs():
            load_encoder(network.new_model(config, prepared), pretrained, config, prepared)


def read_pretraining(folder: Path) -> Pretrained:
    """Read a finished pretraining. Raises `RunError` where the folder is something else."""
    if not (folder / NAME).is_file():
        raise RunError(
            f"pretraining.from_run: {folder} has no {NAME}. Name the folder that `cloudml pretrain` has written, or "
            "the folder pretraining of a run that was pretrained."
        )
    return Pretrained(folder, read_json(folder / NAME))


def check_converged(pretrained: Pretrained, config: Config) -> None:
    """Refuse an encoder that did not converge, unless `pretraining.force`. Raises `PretrainingError`."""
    if not pretrained.converged and not config.pretraining.force:
        raise PretrainingError(
            f"{pretrained.folder}: the pretraining {pretrained.found['verdict']}. Its encoder is not transferred. "
            "Give it more epochs or another learning rate (pretraining.*), or set pretraining.force to true."
        )


def check_unseen(pretrained: Pretrained, config: Config, prepared: Prepared) -> None:
    """Refuse test flights whose frames the encoder was trained on, unless both are split alike. Raises `RunError`."""
    if pretrained.found["split"] == config.split.model_dump(mode="json"):
        return
    seen, flights = pretrained.found["cameras"], prepared.flights
    test = prepared.description()["split"]["test"]["flights"]
    wrong = [name for name in test if camera_fingerprint(Path(flights[name].camera)) in seen]
    if wrong:
        raise RunError(
            f"{pretrained.folder}: was trained on the frames of {', '.join(wrong)}, on which this run is tested: a "
            "leak. Test on other flights, or pretrain without these."
        )


def load_encoder(model: keras.Model, pretrained: Pretrained, config: Config, prepared: Prepared) -> int:
    """Load the weights; return how many tensors changed. Raises `RunError` where they or their scaling do not fit."""
    own, given = prepared.scaling.to_json(), pretrained.found["scaling"]
    mean, std = np.asarray(own["frame_mean"]), np.asarray(own["frame_std"])
    was_mean, was_std = np.asarray(given["mean"]), np.asarray(given["std"])
    try:
        tensors = hand_over(pretrained.weights(), frame_encoder_of(model))
    except ValueError as error:
        found = differences(pretrained, config, prepared)
        reason = f"its encoder does not fit this network: {'; '.join(found)}" if found else str(error)
        raise RunError(f"{pretrained.folder}: {reason}. Pretrain with the settings of this run.") from None
    if max(np.abs((was_mean - mean) / std).max(), np.abs(was_std / std - 1).max()) > LARGEST_SHIFT:
        found = ["", *differences(pretrained, config, prepared)]
        raise RunError(
            f"{pretrained.folder}: frames had mean {was_mean} and std {was_std} there, and have {mean} and {std} here"
            f"{'; '.join(found)}. Pretrain with the same training flights and preprocessing."
        )
    return tensors


def differences(pretrained: Pretrained, config: Config, prepared: Prepared) -> list[str]:
    """Every setting of the encoder and its frames that differs from the pretraining's, with both values."""
    folder = pretrained.folder
    try:
        before = read_run(folder if (folder / "config.json").is_file() else folder.parent)
    except CloudMLError:  # the encoder was copied without its configuration
        return []
    was, now = encoder_settings(*before), encoder_settings(config, prepared.description())
    return [f"{key} was {was[key]}, is {value}" for key, value in now.items() if key in was and was[key] != value]


def encoder_settings(config: Config, description: dict[str, Any]) -> dict[str, Any]:
    """The settings that determine an encoder's weights' shapes and its frames' values, by dotted path."""
    content = config.model_dump(mode="json")
    model = {key: content["model"][key] for key in OF_ENCODER}
    shape = {"frame shape (rows, columns, channels)": description["frame_shape"]}
    return {**shape, **flat({"model": model, "preprocessing": content["preprocessing"]})}


def probes(pretrained: Pretrained, config: Config, prepared: Prepared) -> dict[str, dict[str, float]]:
    """Validation scores of ridge regression on frozen encoder vectors, pretrained and random."""
    found = {}
    target = prepared.scaling.target
    labelled = {part: target.transform(prepared.parts[part].label) for part in ("train", "val")}
    for name in ("pretrained", "random"):
        model = network.new_model(config, prepared)
        if name == "pretrained":
            load_encoder(model, pretrained, config, prepared)
        vectors = {part: encoder_vectors(model, prepared.parts[part]) for part in labelled}
        found[name] = scores(labelled["val"], ridge_on(vectors["train"], labelled["train"], vectors["val"]))
    return found


def encoder_vectors(model: keras.Model, samples: Examples) -> np.ndarray:
    """The encoder's vector of the middle frame, and its mean over the frames of the sequence, (n, 2D)."""
    encode = frame_vectors_of(model)
    batches = Inputs(samples)
    found = [keras.ops.convert_to_numpy(encode(batches[n][0], training=False)) for n in range(len(batches))]
    vectors = np.concatenate(found)  # (n,T,D)
    return np.concatenate([vectors[:, vectors.shape[1] // 2], vectors.mean(axis=1)], axis=1)


def control(config: Config, prepared: Prepared, folder: Path, console: Console) -> dict[str, Any]:
    """Train the same network from random weights in folder/control; return its scores on each split."""
    console.say("control: the same network from random weights")
    model = network.new_model(config, prepared)
    home = folder / "control"
    home.mkdir(exist_ok=True)
    fitted = fit.fit(model, config, prepared, home, console, resume=has_checkpoint(home))
    found: dict[str, Any] = {"seconds": fitted.seconds, "epochs": len(fitted.history)}
    for part, samples in prepared.parts.items():
        found[part] = results.score_split(samples, network.predict(model, samples), prepared.scaling.target, config)
    return found


def collect(
    pretrained: Pretrained, config: Config, prepared: Prepared, folder: Path, console: Console
) -> dict[str, Any]:
    """The pretraining's section of metrics.json."""
    keys = ("verdict", "converged", "best_epoch", "errors", "relative_error", "frames", "flights", "settings")
    found = {"folder": str(pretrained.folder), **{key: pretrained.found[key] for key in keys}}
    found["tensors"] = len(pretrained.weights())
    found["probe"] = probes(pretrained, config, prepared)
    if config.pretraining.control:
        found["control"] = control(config, prepared, folder, console)
    if config.pretraining.from_run is None:
        worth = {key: found[key] for key in ("probe", "control") if key in found}
        write_json(pretrained.folder / NAME, {**pretrained.found, **worth})
    return found


def print_pretraining(console: Console, found: dict[str, Any], test: dict[str, Any] | None = None) -> None:
    """Print the errors of hidden patches and the probes; with a run's scores on its `test` split, the control too."""
    console.say(f"pretraining {found['verdict']}")
    rows = [[name.replace("_", " "), f"{error:.4f}"] for name, error in found["errors"].items()]
    rows.append(["network, relative to the better reference", f"{found['relative_error']:.2f}"])
    console.table("hidden patches of validation frames, mean squared error", ["", "error"], rows)
    rows = pretraining_rows(found, {} if test is None else {"test": test})
    console.table(f"what the encoder is worth; {S_IS}", ["", *labels(WORTH)], rows)

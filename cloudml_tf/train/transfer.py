"""What a pretrained encoder is worth: handed to a regressor, and always beside random weights.

Three figures stand side by side: the fine-tuned network, the same network from random weights (the control), and a
linear probe of the frozen encoder, pretrained and random.
"""

from pathlib import Path
from typing import Any

import keras
import numpy as np

from cloudml_tf.config.load import expand
from cloudml_tf.config.run_folder import has_checkpoint, read_json
from cloudml_tf.config.schema import Config
from cloudml_tf.data.prepare import Prepared
from cloudml_tf.data.readers.frames import camera_fingerprint
from cloudml_tf.data.samples import Examples
from cloudml_tf.evaluation import collect as results
from cloudml_tf.evaluation.baselines import ridge_on
from cloudml_tf.evaluation.scores import S_IS, labels, scores, texts
from cloudml_tf.nn.introspection import frame_encoder_of, frame_model_of
from cloudml_tf.nn.masked_reconstruction import hand_over
from cloudml_tf.train import fit, network
from cloudml_tf.train.batches import Inputs
from cloudml_tf.train.pretrain import NAME, Pretrained, pretrain
from cloudml_tf.utils.console import Console
from cloudml_tf.utils.errors import PretrainingError

LARGEST_SHIFT = 0.2  # of frame statistics, in standard deviations, between pretraining and training


def start_from_pretraining(
    model: keras.Model, config: Config, prepared: Prepared, folder: Path, console: Console
) -> Pretrained:
    """Put a pretrained encoder into a regressor that is not compiled yet.

    The pretraining is that of `pretraining.from_run`, or is done here, in folder/pretraining.
    Raises `PretrainingError` for one that did not converge, unless `pretraining.force`, for one that saw frames of the
    test part, and for one that does not fit.
    """
    chosen = config.pretraining
    if chosen.from_run is None:
        pretrained = pretrain(config, prepared, folder / "pretraining", console)
    else:
        pretrained = read_pretraining(expand(chosen.from_run))
        check_unseen(pretrained, config, prepared)
    if not pretrained.converged and not chosen.force:
        raise PretrainingError(
            f"{pretrained.folder}: the pretraining {pretrained.found['verdict']}. Its encoder is not handed over. "
            "Give it more epochs or another learning rate (pretraining.*), or set pretraining.force to true."
        )
    tensors = load_encoder(model, pretrained, prepared)
    frame_encoder_of(model).trainable = chosen.transfer == "fine_tune"
    console.say(f"pretraining {pretrained.found['verdict']}; {tensors} tensors handed over")
    return pretrained


def read_pretraining(folder: Path) -> Pretrained:
    """A finished pretraining. Raises `PretrainingError` where the folder is something else."""
    if not (folder / NAME).is_file():
        raise PretrainingError(f"pretraining.from_run: {folder} has no {NAME}; name the folder of `cloudml pretrain`.")
    return Pretrained(folder, read_json(folder / NAME))


def check_unseen(pretrained: Pretrained, config: Config, prepared: Prepared) -> None:
    """Refuse test flights whose frames the encoder was trained on, unless both are split alike."""
    if pretrained.found["split"] == config.split.model_dump(mode="json"):
        return
    seen, flights = pretrained.found["cameras"], prepared.flights
    test = prepared.description()["split"]["test"]["flights"]
    wrong = [name for name in test if camera_fingerprint(Path(flights[name].camera)) in seen]
    if wrong:
        raise PretrainingError(
            f"{pretrained.folder}: was trained on the frames of {', '.join(wrong)}, on which this run is tested: a "
            "leak. Test on other flights, or pretrain without these."
        )


def load_encoder(model: keras.Model, pretrained: Pretrained, prepared: Prepared) -> int:
    """The weights, checked; how many tensors changed. An encoder reads frames of one scaling: that is checked too."""
    own, given = prepared.scaling.to_json(), pretrained.found["scaling"]
    mean, std = np.asarray(own["frame_mean"]), np.asarray(own["frame_std"])
    was_mean, was_std = np.asarray(given["mean"]), np.asarray(given["std"])
    same = mean.shape == was_mean.shape
    if not same or max(np.abs((was_mean - mean) / std).max(), np.abs(was_std / std - 1).max()) > LARGEST_SHIFT:
        raise PretrainingError(
            f"{pretrained.folder}: frames were scaled by mean {was_mean} and std {was_std} there, by {mean} and {std} "
            "here. Pretrain with the same channels, preprocessing and training flights."
        )
    try:
        return hand_over(pretrained.weights(), frame_encoder_of(model))
    except ValueError as error:
        raise PretrainingError(f"{pretrained.folder}: {error}") from None


def probes(pretrained: Pretrained, config: Config, prepared: Prepared) -> dict[str, dict[str, float]]:
    """Validation scores of ridge regression on frozen encoder vectors, pretrained and random."""
    found = {}
    target = prepared.scaling.target
    labels = {part: target.transform(prepared.parts[part].label) for part in ("train", "val")}
    for name in ("pretrained", "random"):
        network.start_keras(config)
        model = network.make_model(config, prepared.scaling, **prepared.geometry)
        if name == "pretrained":
            load_encoder(model, pretrained, prepared)
        vectors = {part: encoder_vectors(model, prepared.parts[part]) for part in labels}
        found[name] = scores(labels["val"], ridge_on(vectors["train"], labels["train"], vectors["val"]))
    return found


def encoder_vectors(model: keras.Model, samples: Examples) -> np.ndarray:
    """(n, 2D): the encoder's vector of the middle frame, and its mean over the frames of the sequence."""
    frame_model = frame_model_of(model)
    encode = keras.Model(frame_model.inputs, frame_model.get_layer("encode_frames").output)
    batches = Inputs(samples)
    found = [keras.ops.convert_to_numpy(encode(batches[n][0], training=False)) for n in range(len(batches))]
    vectors = np.concatenate(found)  # (n,T,D)
    return np.concatenate([vectors[:, vectors.shape[1] // 2], vectors.mean(axis=1)], axis=1)


def control(config: Config, prepared: Prepared, folder: Path, console: Console) -> dict[str, Any]:
    """The same network from random weights, trained alike in folder/control: its scores on each part."""
    console.say("control: the same network from random weights")
    network.start_keras(config)
    model = network.make_model(config, prepared.scaling, **prepared.geometry)
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
    """The pretraining's part of metrics.json."""
    keys = ("verdict", "converged", "best_epoch", "errors", "relative_error", "frames", "flights", "settings")
    found = {"folder": str(pretrained.folder), **{key: pretrained.found[key] for key in keys}}
    found["tensors"] = len(pretrained.weights())
    found["probe"] = probes(pretrained, config, prepared)
    if config.pretraining.control:
        found["control"] = control(config, prepared, folder, console)
    return found


def print_pretraining(console: Console, found: dict[str, Any]) -> None:
    """Errors of hidden patches, and the probes."""
    console.say(f"pretraining {found['verdict']}")
    rows = [[name.replace("_", " "), f"{error:.4f}"] for name, error in found["errors"].items()]
    rows.append(["network, of the better reference", f"{found['relative_error']:.2f}"])
    console.table("hidden patches of validation frames, mean squared error", ["", "error"], rows)
    keys = ("r2", "variance_ratio", "correlation", "rmse")
    rows = [[f"probe, {name}", *texts(scored, keys)] for name, scored in found["probe"].items()]
    console.table(f"ridge on frozen encoder vectors, validation part; {S_IS}", ["", *labels(keys)], rows)

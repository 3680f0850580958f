"""Going on from a finished run: `training.init_from`. Its weights, and the scaling that belongs to them.

A network's weights were fitted to frames and targets in certain units: the means and standard deviations of the flights
that it was trained on. They are kept. New statistics would move every input and every answer before the first step, and
a few labels are too few to measure them. The scores of a run that goes on are therefore in the old run's units inside,
and in the target's own units wherever they are shown.
"""

from collections.abc import Sequence
from pathlib import Path
from typing import Any

from cloudml_tf.config import Config, expand, parse_config
from cloudml_tf.data.frames import camera_fingerprint
from cloudml_tf.data.samples import Samples
from cloudml_tf.data.scaling import Scaling
from cloudml_tf.errors import RunError
from cloudml_tf.runs import flat, read_run

GENTLER = 0.3  # of the configuration's learning rate: --init-from starts near a solution

# A run may differ from the one that it goes on from in flights, loss, training and what is below; not in the rest.
FREE_OF_MODEL = {"dropout", "head_dropout", "output_init", "output_bias", "mirror_average"}
SAME_OF_DATA = {"sun_angles", "features"}


def gentle(config: Config, run: str, chosen: bool) -> Config:
    """The configuration that goes on from a run, at a gentler learning rate unless one was chosen by hand."""
    changed = config.model_dump(mode="json")
    changed["training"]["init_from"] = str(expand(run).resolve())
    if not chosen:
        changed["training"]["learning_rate"] *= GENTLER
    return parse_config(changed, f"--init-from {run}")


def first_model(config: Config, prepared: Any) -> Any:
    """The network before its first step: drawn by the seed, or as the run of `training.init_from` left it."""
    from cloudml_tf import training

    weights = None if config.training.init_from is None else inherited_weights(config)
    training.start_keras(config)
    train_part = prepared.parts["train"]
    model = training.make_model(config, prepared.scaling, train_part.frame_shape, train_part.nadir)
    if weights is not None:
        put_weights(model, weights, config)
    return model


def inherited_scaling(config: Config, train: Samples) -> Scaling:
    """The scaling of the run that `config` goes on from. Raises `RunError` where that run is another network."""
    source = _source(config)
    before, description = read_run(source)
    _check_same(source, _network(before, description), _network(config, _frames(train)))
    content = description["scaling"]
    content["target"]["smearing"] = 1.0  # fitted again, where it is asked for
    return Scaling.from_json(content)


def cameras_of(config: Config, description: dict[str, Any], parts: Sequence[str]) -> dict[str, str]:
    """Fingerprint -> flight of the camera files in these parts of a run, and of the run that it went on from."""
    found = {}
    for part in parts:
        for name in description["split"][part]["flights"]:
            camera = Path(description["files"][name]["camera"])
            if camera.is_file():
                found[camera_fingerprint(camera)] = name
    if config.training.init_from is not None:
        found |= cameras_of(*read_run(_source(config)), parts)
    return found


def check_unseen(config: Config, cameras: dict[str, Path]) -> None:
    """Refuse test flights on which the old run was trained, unless both are split alike. Raises `RunError`.

    Args:
        config: of the run that goes on.
        cameras: flight -> camera file of the test part.
    """
    before, description = read_run(_source(config))
    if before.split == config.split:
        return
    seen = cameras_of(before, description, ("train",))
    wrong = [name for name, camera in cameras.items() if camera_fingerprint(camera) in seen]
    if wrong:
        raise RunError(
            f"{_source(config)}: was trained on {', '.join(wrong)}, which the new run would be tested on: a leak. "
            "Test on other flights."
        )


def inherited_weights(config: Config) -> list[Any]:
    """Its best weights, one array a variable. Sets Keras up for that run: call `start_keras` afterwards."""
    from cloudml_tf.training import load_regressor

    source = _source(config)
    weights: list[Any] = load_regressor(source, *read_run(source)).get_weights()
    return weights


def put_weights(model: Any, weights: list[Any], config: Config) -> None:
    """Start a model from them. Raises `RunError` where a shape differs."""
    here = [tuple(variable.shape) for variable in model.weights]
    there = [values.shape for values in weights]
    if here != there:
        wrong = [f"{a} there and {b} here" for a, b in zip(there, here, strict=False) if a != b]
        raise RunError(
            f"{_source(config)}: its {len(there)} arrays of weights do not fit this network's {len(here)} "
            f"({'; '.join(wrong[:3]) or 'shapes agree as far as they go'}). Take over the settings under model from "
            "that run's config.json."
        )
    model.set_weights(weights)


def _source(config: Config) -> Path:
    if config.training.init_from is None:
        raise ValueError("this configuration has no training.init_from")
    return expand(config.training.init_from)


def _frames(samples: Samples) -> dict[str, Any]:
    return {"frame_shape": list(samples.frame_shape), "nadir": list(samples.nadir)}


def _network(config: Config, description: dict[str, Any]) -> dict[str, Any]:
    """Every setting that the weights depend on, by dotted path."""
    content = config.model_dump(mode="json")
    found = {
        "temporal_frames": content["temporal_frames"],
        "target": {key: content["target"][key] for key in ("name", "transform")},
        "data": {key: content["data"][key] for key in SAME_OF_DATA},
        "preprocessing": content["preprocessing"],
        "model": {key: value for key, value in content["model"].items() if key not in FREE_OF_MODEL},
    }
    return flat({**found, **{key: description[key] for key in ("frame_shape", "nadir")}})


def _check_same(source: Path, before: dict[str, Any], now: dict[str, Any]) -> None:
    changed = [key for key in before if before[key] != now.get(key)]
    if changed:
        shown = "; ".join(f"{key} was {before[key]!r}, is {now.get(key)!r}" for key in changed)
        raise RunError(
            f"{source}: cannot be gone on from, its network is another one ({shown}). Set these as that run has them "
            "(frame_shape and nadir follow from data.camera)."
        )

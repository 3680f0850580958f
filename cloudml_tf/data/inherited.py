"""What a run inherits from the run named by `training.init_from`: its scaling; and the check for leaks."""

from collections.abc import Sequence
from pathlib import Path
from typing import Any

from cloudml_tf.config.load import expand
from cloudml_tf.config.run_folder import flat, read_run
from cloudml_tf.config.schema import Config
from cloudml_tf.data.readers.frames import camera_fingerprint
from cloudml_tf.data.samples import Examples
from cloudml_tf.data.scaling import Scaling
from cloudml_tf.utils.errors import RunError

# A run may differ from the one that it starts from in flights, loss, training and the fields below; not in the rest.
FREE_OF_MODEL = {"dropout", "head_dropout", "output_init", "output_bias", "mirror_average"}
SAME_OF_DATA = {"sun_angles", "features"}


def inherited_scaling(config: Config, train: Examples) -> Scaling:
    """The scaling of the run that `config` starts from. Raises `RunError` where that run has another network."""
    content = check_network(config, train)["scaling"]
    content["target"]["smearing"] = 1.0  # fitted again, where it is enabled
    return Scaling.from_json(content)


def check_network(config: Config, train: Examples) -> dict[str, Any]:
    """The data description of the run that `config` starts from. Raises `RunError` where its network differs."""
    source = _source(config)
    before, description = read_run(source)
    _check_same(source, _network(before, description), _network(config, train.geometry))
    return description


def cameras_of(config: Config, description: dict[str, Any], parts: Sequence[str]) -> dict[str, str]:
    """Fingerprint -> flight of the camera files in these splits of a run, and of the run that it started from."""
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
        config: configuration of the new run.
        cameras: flight -> camera file of the test split.
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


def _source(config: Config) -> Path:
    return expand(str(config.training.init_from))


def _network(config: Config, description: dict[str, Any]) -> dict[str, Any]:
    """Every setting that the weights depend on, by dotted path."""
    content = config.model_dump(mode="json")
    found = {
        "temporal_frames": content["temporal_frames"],
        "frame_spacing_s": content["frame_spacing_s"],
        "target": {key: content["target"][key] for key in ("name", "further", "transform")},
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
            f"{source}: cannot be used as training.init_from, its network differs ({shown}). Set these as in that run "
            "(frame_shape and nadir follow from data.camera)."
        )

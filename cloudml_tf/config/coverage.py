"""What the coverages nadir, track and swath can do, and the reason where one cannot. No field is ignored."""

from collections.abc import Iterable
from typing import Any

from cloudml_tf.config.data import SceneFile
from cloudml_tf.utils.errors import ConfigError

LIDAR, TRUTH = "lidar_optical_depth", "optical_depth_truth"  # datasets (scene, row, column) of scenes of flights
SUN = ("sun_ahead", "sun_aside", "sun_cos_zenith")  # datasets (scene,): towards the sun, ahead, to the right and up

# What a target cannot do: the fields that must keep their default, and the reason.
SEQUENCES_ALONE = "describes a network that reads sequences for one location, and means nothing for a map"
SWATH_CANNOT: dict[str, str] = {
    **{
        f"model.{name}": SEQUENCES_ALONE
        for name in ("architecture", "footprint", "encoder_features", "heads", "head", "contrast_boxes", "nadir_linear")
    },
    "target.smearing": "its logarithm has an offset, so that a factor makes no mean of a median",
    "data.features": "numbers of a whole scene are channels (data.scenes.channels)",
    "data.labels": "labels are thinned by rows (data.scenes.line_spacing)",
    "data.val_labels": "labels are thinned by rows (data.scenes.line_spacing)",
    "label_density.enabled": "the density would be that of pixels, which are no independent labels",
    "preprocessing.flat_field": "scenes are calibrated images",
    "preprocessing.per_frame": "scenes are calibrated images",
    "augmentation.mirror_along_track": "the axis along the sun keeps its side",
    "training.order": "scenes have no order in time",
    "training.run_length": "scenes share no frames",
    "training.init_from": "only networks of sequences continue from another run",
    "training.devices": "several devices train networks of sequences",
    "pretraining.enabled": "masked reconstruction pretrains the frame encoder of sequences",
}


def check_swath(config: Any) -> None:
    """The contracts of a `schema.Config` whose target.coverage is "swath", and of the fields that only it has.

    Raises `ValueError`.
    """
    swath = config.target.coverage == "swath"
    if config.data.scenes is not None and not swath:
        raise ValueError(
            "data.scenes has a label at every pixel, for target.coverage 'swath'. Set that coverage, or leave "
            "data.scenes out"
        )
    scenes = scene_settings(config)
    if config.model.shift_average and not (swath and scenes.periodic):
        raise ValueError("model.shift_average is for periodic scenes: set it to false, or data.scenes.periodic to true")
    if not swath:
        if config.augmentation.window is not None:
            raise ValueError("augmentation.window is for scenes, target.coverage 'swath'. Set it to null")
        return
    _check_defaults(config)
    _check_scenes(config, scenes)


def _check_defaults(config: Any) -> None:
    """Refuse what a swath cannot do."""
    for path, reason in SWATH_CANNOT.items():
        section, name = path.split(".")
        part = getattr(config, section)
        default, given = type(part).model_fields[name].default, getattr(part, name)
        if given != default:
            raise ValueError(
                f"target.coverage 'swath' needs {path} at its default, {default}: {reason}. Received: {given}"
            )


def _check_scenes(config: Any, scenes: SceneFile) -> None:
    if config.data.scenes is not None and config.data.sun_angles:
        raise ValueError(
            "a file of scenes brings the sun's direction along: set data.sun_angles false, and name its datasets "
            f"(scene,) in data.scenes.channels, such as {', '.join(SUN)}"
        )
    if config.data.scenes is None and config.target.name != "optical_depth":
        raise ValueError(
            f"scenes of flights are labelled with optical_depth. Received: target.name {config.target.name}"
        )
    if scenes.sun_axis is None and (config.augmentation.mirror_across_track or config.model.mirror_average):
        raise ValueError(
            "data.scenes.sun_axis null, as of scenes of flights, means sunlight from any direction, and a mirror image "
            "has another sun: set augmentation.mirror_across_track and model.mirror_average to false"
        )
    if scenes.periodic and config.augmentation.window is not None:
        raise ValueError(
            "augmentation.window crops non-periodic scenes: set it to null, or data.scenes.periodic to false"
        )
    try:
        check_formats(config, config.output.export_formats)
    except ConfigError as error:
        raise ValueError(f"output.export_formats: {error}") from None
    if config.split.kind != "flights":
        raise ValueError(
            "target.coverage 'swath' splits scenes by name: set split.kind 'flights', with train, val and test. "
            f"Received: {config.split.kind}"
        )


# What a network of heights would no longer see them with: the remedies of other networks.
OF_OTHER_NETWORKS = (
    "model.architecture",
    "temporal_frames",
    "frame_spacing_s",
    "model.contrast_boxes",
    "model.nadir_linear",
)


def can_set(config: Any, path: str) -> bool:
    """Whether a field has a meaning for the target of a `schema.Config`, so that a diagnosis may suggest it."""
    if config.model.sees_heights and path in OF_OTHER_NETWORKS:
        return False
    if config.target.coverage != "swath":
        return True
    return path not in SWATH_CANNOT and not (config.data.scenes is not None and path.startswith("data.lidar."))


def check_formats(config: Any, formats: Iterable[str]) -> None:
    """Refuse an export that a format itself does not allow. Raises `ConfigError`."""
    if config.target.coverage == "swath" and "litert" in formats:
        raise ConfigError(
            "LiteRT takes images of one size alone and has no periodic shift, and a network of scenes (target.coverage "
            f"'swath') takes any size. Received: {', '.join(formats)}. Export it as savedmodel or onnx."
        )


def check_calibration(config: Any) -> None:
    """Refuse level and scale of maps. Raises `ConfigError`."""
    if config.target.coverage == "swath":
        raise ConfigError("calibrate fits labels straight below the aircraft, and a swath model has maps of them.")


def check_archive(config: Any) -> None:
    """Refuse an archive of maps. Raises `ConfigError`."""
    if config.target.coverage == "swath":
        raise ConfigError(
            "--archive writes a file along the track for each flight, and this model predicts scenes (target.coverage "
            "'swath'): leave --archive, --workers and --engine out."
        )


def check_dropout_passes(config: Any) -> None:
    """Refuse dropout while predicting maps. Raises `ConfigError`."""
    if config.target.coverage == "swath":
        raise ConfigError(
            "--mc-dropout calls a network as in training, where the network of scenes (target.coverage 'swath') "
            "normalises each batch by itself, so that its predictions would be others. Join several runs instead."
        )


def scene_settings(config: Any) -> SceneFile:
    """How a `schema.Config` with coverage "swath" reads scenes: `data.scenes`, or what scenes of its flights hold.

    Scenes of flights end at their borders, the lidar's labels lie on the nadir line, and light comes from anywhere.
    """
    if config.data.scenes is not None:
        return config.data.scenes
    sun = SUN if config.data.sun_angles else ()
    channels = (*config.data.camera.channels, *sun)
    return SceneFile(path="", channels=channels, label=LIDAR, group="flight", periodic=False, sun_axis=None)

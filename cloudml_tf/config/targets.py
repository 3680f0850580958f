"""What the targets nadir, track and swath can do, and the reason where one cannot. No field is accepted and ignored."""

from typing import Any

from cloudml_tf.config.data import SceneFile
from cloudml_tf.utils.errors import ConfigError

LIDAR, TRUTH = "lidar_optical_depth", "optical_depth_truth"  # datasets (scene, row, column) of scenes of flights
SUN = ("sun_ahead", "sun_aside", "sun_cos_zenith")  # datasets (scene,): towards the sun, ahead, to the right and up

# Of `Model`: what describes a network that reads sequences for one place, and means nothing for a whole swath.
OF_SEQUENCES = ("architecture", "footprint", "encoder_features", "heads", "head", "contrast_boxes", "nadir_linear")
USUAL = {
    "target": ("smearing",),
    "data": ("features", "labels", "val_labels"),
    "label_density": ("enabled",),
    "preprocessing": ("flat_field", "per_frame"),
    "augmentation": ("mirror_along_track",),
    "model": OF_SEQUENCES,
    "training": ("order", "run_length", "init_from", "mixed_precision", "devices"),
    "pretraining": ("enabled",),
}


def check_swath(config: Any) -> None:
    """The contracts of a `schema.Config` whose target.coverage is "swath". Raises `ValueError`."""
    swath = config.target.coverage == "swath"
    if swath != (config.data.scenes is not None):
        raise ValueError(
            "target.coverage 'swath' and data.scenes belong together: a label at every pixel is read from gridded "
            "scenes, and flights have labels at nadir alone (coverage 'nadir' or 'track'). Set both, or neither"
        )
    if config.model.shift_average and not (swath and config.data.scenes.periodic):
        raise ValueError("model.shift_average is for periodic scenes: set it to false, or data.scenes.periodic to true")
    if not swath:
        if config.augmentation.window is not None:
            raise ValueError("augmentation.window is for scenes, target.coverage 'swath'. Set it to null")
        return
    for section, names in USUAL.items():
        part = getattr(config, section)
        for name in names:
            default, given = type(part).model_fields[name].default, getattr(part, name)
            if given != default:
                raise ValueError(
                    f"target.coverage 'swath' leaves {section}.{name} as it is, {default}. Received: {given}"
                )
    scenes = config.data.scenes
    if config.temporal_frames != 1 or config.data.sun_angles:
        raise ValueError(
            "target.coverage 'swath' reads one image: set temporal_frames 1 and data.sun_angles false. Where scenes "
            "have several suns, data.scenes.channels may name datasets (scene,) with the sun's direction"
        )
    if scenes.sun_axis is None and (config.augmentation.mirror_across_track or config.model.mirror_average):
        raise ValueError(
            "data.scenes.sun_axis null says that light comes from anywhere, and a mirror image has another sun: set "
            "augmentation.mirror_across_track and model.mirror_average to false"
        )
    if scenes.periodic and config.augmentation.window is not None:
        raise ValueError("augmentation.window cuts scenes that end: set it to null, or data.scenes.periodic to false")
    if config.split.kind != "flights":
        raise ValueError(
            "target.coverage 'swath' splits scenes by name: set split.kind 'flights', with train, val and test. "
            f"Received: {config.split.kind}"
        )
    if config.output.export_formats != ("savedmodel",):
        raise ValueError("target.coverage 'swath' is exported as a SavedModel: leave output.export_formats at that")


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
        found: SceneFile = config.data.scenes
        return found
    sun = SUN if config.data.sun_angles else ()
    channels = (*config.data.camera.channels, *sun)
    return SceneFile(path="", channels=channels, label=LIDAR, group="flight", periodic=False, sun_axis=None)

"""The fields that must keep their defaults for a swath: none is accepted and then ignored."""

from typing import Any

# Fields of `Model` that describe a network of sequences for one location, and mean nothing for a whole swath.
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
    """Check the contracts of a `schema.Config` whose target.coverage is "swath". Raises `ValueError`."""
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
                    f"target.coverage 'swath' needs {section}.{name} at its default, {default}. Received: {given}"
                )
    scenes = config.data.scenes
    if config.temporal_frames != 1 or config.data.sun_angles:
        raise ValueError(
            "target.coverage 'swath' reads one image: set temporal_frames 1 and data.sun_angles false. Where scenes "
            "have several suns, data.scenes.channels may name datasets (scene,) with the sun's direction"
        )
    if scenes.sun_axis is None and (config.augmentation.mirror_across_track or config.model.mirror_average):
        raise ValueError(
            "data.scenes.sun_axis null means sunlight from any direction, and a mirror image has another sun: set "
            "augmentation.mirror_across_track and model.mirror_average to false"
        )
    if scenes.periodic and config.augmentation.window is not None:
        raise ValueError(
            "augmentation.window crops non-periodic scenes: set it to null, or data.scenes.periodic to false"
        )
    if config.split.kind != "flights":
        raise ValueError(
            "target.coverage 'swath' splits scenes by name: set split.kind 'flights', with train, val and test. "
            f"Received: {config.split.kind}"
        )
    if config.output.export_formats != ("savedmodel",):
        raise ValueError("target.coverage 'swath' is exported as a SavedModel: leave output.export_formats at that")

"""Random changes of training sequences that keep their labels: mirror images, gain, noise. NumPy only."""

import numpy as np

from cloudml_tf.config.training import Augmentation

Inputs = dict[str, np.ndarray]


def augment(
    inputs: Inputs,
    settings: Augmentation,
    rng: np.random.Generator,
    nadir: tuple[int, int],
    frame_std: np.ndarray | None = None,
    across_track_axis: str = "rows",
    run: np.ndarray | None = None,
) -> Inputs:
    """Change a batch at random; the given arrays may be changed in place.

    Sequences that share frames (`Samples.shared_inputs`) change together, by `run` (B,), or all.

    The sun's azimuth is mirrored with the image: an across-track mirror turns the relative azimuth a into -a. An
    along-track mirror turns it into 180 - a and reverses the flight, so the frames of a sequence change order.
    """
    chosen = inputs.get("chosen_frames")
    if chosen is None:
        found, _ = _changed(
            inputs, np.arange(len(inputs["frames"])), settings, rng, nadir, frame_std, across_track_axis
        )
        return found
    number = np.unique(np.zeros(len(chosen)) if run is None else run, return_inverse=True)[1]  # (B,)
    unit = np.empty(len(inputs["frames"]), int)  # of each frame
    unit[chosen] = number[:, None]
    single = {name: values[:, None] for name, values in inputs.items() if name != "chosen_frames"}  # (F,1,...)
    found, turned = _changed(single, unit, settings, rng, nadir, frame_std, across_track_axis)
    shared = {name: values[:, 0] for name, values in found.items()}
    return {**shared, "chosen_frames": np.where(turned[number][:, None], chosen[:, ::-1], chosen)}


def _changed(
    inputs: Inputs,
    unit: np.ndarray,
    settings: Augmentation,
    rng: np.random.Generator,
    nadir: tuple[int, int],
    frame_std: np.ndarray | None,
    across_track_axis: str,
) -> tuple[Inputs, np.ndarray]:
    """Sequences (n,T,...) that change together within a `unit` (n,); and which units were reversed."""
    frames = inputs["frames"]  # (n,T,H,W,C)
    sun = inputs.get("sun_angles_deg")
    features = inputs.get("features")
    count = int(unit.max()) + 1
    turned = np.zeros(count, bool)
    across = 2 if across_track_axis == "rows" else 3
    if settings.mirror_across_track:
        flip = (rng.random(count) < 0.5)[unit]
        frames = _mirrored(frames, flip, across, nadir[across - 2])
        if sun is not None:
            sun[flip, :, 1] *= -1.0
    if settings.mirror_along_track:
        turned = rng.random(count) < 0.5
        flip = turned[unit]
        along = 5 - across
        frames = _mirrored(frames, flip, along, nadir[along - 2])
        frames[flip] = frames[flip, ::-1]
        if sun is not None:
            sun[flip, :, 1] = 180.0 - sun[flip, :, 1]
            sun[flip] = sun[flip, ::-1]
        if features is not None:
            features[flip] = features[flip, ::-1]
    if settings.gain_std:
        gain = np.exp(settings.gain_std * rng.standard_normal((count, 1, 1, 1, 1)))
        frames = frames * gain.astype("float32")[unit]
    if settings.noise_std and frame_std is not None:
        noise = rng.standard_normal(frames.shape, dtype="float32")
        frames = frames + noise * np.asarray(settings.noise_std * frame_std, "float32")
    changed = {"frames": frames, "sun_angles_deg": sun, "features": features}
    return {name: values for name, values in changed.items() if values is not None}, turned


def _mirrored(frames: np.ndarray, flip: np.ndarray, axis: int, nadir: int) -> np.ndarray:
    """Mirror the chosen sequences about the nadir pixel, which stays; the border pixel fills what is missing."""
    length = frames.shape[axis]
    source = np.clip(2 * nadir - np.arange(length), 0, length - 1)
    frames[flip] = np.take(frames[flip], source, axis=axis)
    return frames

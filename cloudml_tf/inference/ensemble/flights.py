"""The flights of an ensemble: those of its members' split, and further ones to calibrate on."""

from collections.abc import Sequence
from pathlib import Path

import numpy as np

from cloudml_tf.config.run_folder import as_it_was
from cloudml_tf.config.schema import Config
from cloudml_tf.data.inherited import cameras_of
from cloudml_tf.data.prepare import Prepared, prepare
from cloudml_tf.data.readers.frames import camera_fingerprint
from cloudml_tf.data.samples import Samples
from cloudml_tf.data.sources import find_named, samples_of
from cloudml_tf.evaluation.comparison import Run
from cloudml_tf.utils.console import Console
from cloudml_tf.utils.errors import RunError


def read_again(first: Run, config: Config, console: Console) -> Prepared:
    """The flights of the members' split. Raises `RunError` where the test samples are no longer those."""
    content = as_it_was(config, first.description)
    data = content.data.model_copy(update={"labels": None})
    training = content.training.model_copy(update={"init_from": None})
    with console.progress("reading flights") as progress:
        prepared = prepare(content.model_copy(update={"data": data, "training": training}), decoding=progress)
    test = prepared.parts["test"]
    for name, values in (("time_s", test.time_s), ("label", test.label)):
        if not np.array_equal(values, first.arrays[f"test_{name}"]):
            raise RunError(
                f"{first.folder}: its flight files have changed since it was judged. Train its members again."
            )
    return prepared


def known_cameras(members: Sequence[Run]) -> dict[str, str]:
    """Fingerprint -> flight of every camera file that a member was trained or is judged on."""
    found: dict[str, str] = {}
    for run in members:
        found |= cameras_of(run.config, run.description, ("train", "test"))
    return found


def validation_is_unknown(members: Sequence[Run], prepared: Prepared, console: Console) -> bool:
    """Whether no member was trained on a validation flight; says so where one was."""
    val, known = prepared.parts["val"], known_cameras(members)
    names = [val.flight_names[number] for number in np.unique(val.flight)]
    wrong = [name for name in names if camera_fingerprint(Path(prepared.flights[name].camera)) in known]
    if wrong:
        console.warn(
            f"members were trained on the validation flights ({', '.join(wrong)}), which then say nothing: no smearing "
            "factor, and no intervals unless --calibrate gives flights that no member knows."
        )
    return not wrong


def further_flights(
    folders: Sequence[str], members: Sequence[Run], prepared: Prepared, config: Config, console: Console
) -> Samples:
    """The sequences of --calibrate. Raises `RunError` where a member knows one of these flights."""
    known, files = known_cameras(members), find_named(folders, config, {})
    for name, found in files.items():
        if (same := known.get(camera_fingerprint(Path(found.camera)))) is not None:
            raise RunError(
                f"--calibrate: flight {name} is {same}, on which a member was trained or is judged. "
                "Calibrate on flights that no member knows."
            )
    with console.progress("decoding frames") as decoding:
        samples = samples_of(files, config, decoding)
    if samples.frame_shape != prepared.parts["test"].frame_shape:
        raise RunError(
            f"--calibrate: frames of shape {samples.frame_shape} (rows, columns, channels); the members were trained "
            f"on {prepared.parts['test'].frame_shape}. Set data.camera.rows, columns, downsample or channels."
        )
    return samples

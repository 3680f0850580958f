"""The flights of an ensemble: those of its members' split, and further ones to calibrate on."""

from collections.abc import Sequence
from pathlib import Path

import numpy as np

from cloudml_tf.config.run_folder import ModelRecord, as_it_was
from cloudml_tf.config.schema import Config
from cloudml_tf.data.inherited import cameras_of
from cloudml_tf.data.prepare import Prepared, named_examples, prepare
from cloudml_tf.data.readers.frames import camera_fingerprint
from cloudml_tf.data.samples import Examples
from cloudml_tf.data.sources import find_named
from cloudml_tf.evaluation.comparison import Run
from cloudml_tf.utils.console import Console
from cloudml_tf.utils.errors import RunError


def read_again(first: Run, config: Config, console: Console) -> Prepared:
    """Read the flights of the members' split. Raises `RunError` where the test samples have changed."""
    content = as_it_was(config, first.description)
    data = content.data.model_copy(update={"labels": None})
    training = content.training.model_copy(update={"init_from": None})
    with console.progress("reading flights") as progress:
        prepared = prepare(content.model_copy(update={"data": data, "training": training}), decoding=progress)
    test = prepared.parts["test"]
    found = {**test.keys(), "label": np.where(test.known, test.label, np.nan)}
    for name, values in found.items():
        before = first.arrays.get(f"test_{name}", values)  # older runs of scenes do not name the groups
        if not np.array_equal(values, before, equal_nan=values.dtype.kind == "f"):
            raise RunError(
                f"{first.folder}: its flight files have changed since it was evaluated. Train its members again."
            )
    return prepared


def known_cameras(members: Sequence[Run]) -> dict[str, str]:
    """Fingerprint -> flight of every camera file that a member was trained or is scored on."""
    found: dict[str, str] = {}
    for run in members:
        if "files" in run.description:
            found |= cameras_of(run.config, run.description, ("train", "test"))
    return found


def known_scenes(members: Sequence[Run]) -> set[str]:
    """The scenes or groups in the members' file that a member was trained or is scored on."""
    split = [run.description["split"] for run in members if "files" not in run.description]
    return {name for parts in split for part in ("train", "test") for name in parts[part]["flights"]}


def validation_is_unknown(members: Sequence[Run], prepared: Prepared, console: Console) -> bool:
    """Whether no member was trained on a validation flight or scene; warns where one was."""
    val, cameras, scenes = prepared.parts["val"], known_cameras(members), known_scenes(members)
    names = [val.group_names[number] for number in np.unique(val.group)]
    wrong = [name for name in names if name in scenes or _camera(prepared, name) in cameras]
    if wrong:
        console.warn(
            f"members were trained on validation examples ({', '.join(wrong)}), which then prove nothing: no smearing "
            "factor, and no intervals unless --calibrate names flights unknown to all members."
        )
    return not wrong


def _camera(prepared: Prepared, name: str) -> str:
    """The fingerprint of a flight's camera file; "" for a scene."""
    return camera_fingerprint(Path(prepared.flights[name].camera)) if name in prepared.flights else ""


def further_examples(words: Sequence[str], members: Sequence[Run], config: Config, console: Console) -> Examples:
    """Read the flights or scenes of --calibrate. Raises `RunError` where a member knows one of them."""
    first = members[0]
    own = {key: value for key, value in first.description.items() if key != "files"}  # members know their own flights
    record = ModelRecord(first.folder, config, {**own, "files": {}}, {})
    with console.progress("decoding frames") as decoding:
        examples = named_examples(words, record, decoding)
    if examples.time_s is not None:
        _refuse_known(words, members, config)
    elif same := sorted(known_scenes(members) & set(examples.group_names)):
        raise RunError(
            f"--calibrate: a member was trained or is scored on scenes of the names {', '.join(same)}. Calibrate on "
            "scenes unknown to all members, and give them other names (data.scenes.name, data.scenes.group)."
        )
    return examples


def _refuse_known(words: Sequence[str], members: Sequence[Run], config: Config) -> None:
    known = known_cameras(members)
    for name, found in find_named(words, config, {}).items():
        if (same := known.get(camera_fingerprint(Path(found.camera)))) is not None:
            raise RunError(
                f"--calibrate: flight {name} is {same}, on which a member was trained or is scored. "
                "Calibrate on flights unknown to all members."
            )

"""Write a run as files that do not need this package: SavedModel, ONNX, LiteRT.

    best weights ─ Keras model in physical units ─ SavedModel ─ ONNX, LiteRT ─ each compared with Keras ─ model card

Raw radiance and degrees in, physical units out, preprocessing inside. `savedmodels/<experiment>/` holds the files,
`model_card.md` for people, and `cloudml.json` for machines: how flights are to be read, and how far each file is from
the Keras model. The signature takes float32 tensors named as the model's inputs, with any batch size.
"""

import os
import platform
import tempfile
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from functools import partial
from pathlib import Path
from typing import Any

from cloudml_tf.config.load import expand
from cloudml_tf.config.run_folder import RECORD, read_json, run_id, versions
from cloudml_tf.config.schema import Config
from cloudml_tf.data.samples import Examples
from cloudml_tf.data.scaling import Scaling
from cloudml_tf.inference.about import JUDGED, judged_of
from cloudml_tf.inference.export import parity, trust
from cloudml_tf.inference.export.card import model_card
from cloudml_tf.inference.export.convert import convert
from cloudml_tf.inference.export.formats import FORMATS, SHARED, SavedModel, check_packages, formats_in, open_export
from cloudml_tf.utils.console import Console
from cloudml_tf.utils.errors import RunError
from cloudml_tf.utils.files import whole_folder, write_json, write_text
from cloudml_tf.utils.locks import WRITING, alone_at

CARD = "model_card.md"
PACKAGES = ("cloudml-tf", "tensorflow", "keras", "numpy")


@dataclass(frozen=True)
class Source:
    """The model to export.

    Args:
        model: a Keras model with the inputs of `answer`.
        answer: inputs by name -> outputs (B,1) or maps (B,H,W) by name, in physical units, one named as the target.
        config, description, metrics: those of the run; `metrics` is the content of metrics.json, None where there is
            none.
        examples: sequences or scenes to compare on; without them those of the run's test split, or drawn ones.
        shared_answer: the same function for sequences that share frames (`models.share_frames`).
        more: further content of cloudml.json.
    """

    model: Any
    answer: parity.Answer
    config: Config
    description: dict[str, Any]
    metrics: dict[str, Any] | None = None
    examples: Examples | None = None
    shared_answer: parity.Answer | None = None
    more: dict[str, Any] = field(default_factory=dict)

    @property
    def shapes(self) -> dict[str, tuple[int | None, ...]]:
        """The shape (None, ...) of each input by name."""
        return {tensor.name: (None, *tensor.shape[1:]) for tensor in self.model.inputs}

    @property
    def shared_shapes(self) -> dict[str, tuple[int | None, ...]]:
        """The shape (None, ...) of each input by name, where sequences share frames; the indices (None, T) come
        last."""
        frames = self.shapes["frames"][1]
        return {**{name: (None, *shape[2:]) for name, shape in self.shapes.items()}, "chosen_frames": (None, frames)}

    def sequences(self) -> parity.Sequences:
        """The inputs that the files are compared on."""
        if self.examples is not None:
            return parity.real_sequences(self.examples)
        found = parity.sequences_of_run(self.config, self.description)
        if found is not None:
            return found
        scaling, offset = Scaling.from_json(self.description["scaling"]), self.config.preprocessing.log_offset
        shapes = {**self.shapes, "frames": (None, *self.shapes["frames"][1:-3], *self.description["frame_shape"][-3:])}
        return parity.drawn_sequences(shapes, scaling, offset, self.config.seed, parity.SEQUENCES)


def export_model(
    model: Any,
    folder: Path,
    config: Config,
    description: dict[str, Any],
    metrics: dict[str, Any] | None = None,
    examples: Examples | None = None,
    formats: Sequence[str] | None = None,
    run: Path | None = None,
    keep: bool = False,
) -> dict[str, Any]:
    """Export a network (standardised output) in `formats`, by default the configuration's; return the parity record.

    With `keep`, formats that exist in the folder are written too. What was trained in bfloat16 is exported in float32.
    Raises `ParityError` where a file differs from Keras.
    """
    source = source_of([model], config, description, metrics, examples)
    if run is not None:
        source.more.update(run=run_id(config, run), run_folder=os.path.relpath(run.resolve(), folder.resolve()))
    return export(source, folder, formats or config.output.export_formats, keep)


def source_of(
    networks: Sequence[Any],
    config: Config,
    description: dict[str, Any],
    metrics: dict[str, Any] | None = None,
    examples: Examples | None = None,
) -> Source:
    """The source of a network, or of the mean of several with one configuration and scaling."""
    import keras

    from cloudml_tf.models import share_frames
    from cloudml_tf.nn.introspection import reads_sequences
    from cloudml_tf.train.network import exported_twin, with_units

    twins = [exported_twin(each, config, description) for each in networks]
    scaling = Scaling.from_json(description["scaling"])

    def of(models: Sequence[Any]) -> tuple[Any, parity.Answer]:
        outputs = [each(dict(zip(models[0].input_names, models[0].inputs, strict=True))) for each in models[1:]]
        mean = keras.layers.Average()([models[0].outputs[0], *outputs]) if outputs else models[0].outputs[0]
        physical = with_units(keras.Model(models[0].inputs, mean), scaling)

        def answer(inputs: dict[str, Any]) -> dict[str, Any]:
            found = physical(inputs, training=False)
            names = (config.target.name, *config.target.further)
            return dict(zip(names, found if len(names) > 1 else [found], strict=True))

        return physical, answer

    physical, answer = of(twins)
    shared_answer = of([share_frames(each) for each in twins])[1] if reads_sequences(twins[0]) else None
    members = {"members": [f"network {n + 1}" for n in range(len(networks))]} if len(networks) > 1 else {}
    return Source(physical, answer, config, description, metrics, examples, shared_answer, members)


def export(source: Source, folder: Path, formats: Sequence[str], keep: bool = False) -> dict[str, Any]:
    """Write all formats, the record and the card into `folder`, whole or not at all; return the parity record.

    The folder is replaced where it holds an export; with `keep`, in its existing formats too. Raises `ParityError`
    where a file differs from Keras.
    """
    with alone_at(folder, "an export"):
        check_replaceable(folder)
        wanted = every_format(folder, formats) if keep else formats
        check_packages(wanted)
        return _export(source, folder, wanted)


def every_format(folder: Path, formats: Sequence[str]) -> tuple[str, ...]:
    """The given formats and those that exist in a folder, whose files are always of one run."""
    return tuple(name for name in FORMATS if name in {*formats, *formats_in(folder)})


def _export(source: Source, folder: Path, formats: Sequence[str]) -> dict[str, Any]:
    sequences, target = source.sequences(), Scaling.from_json(source.description["scaling"]).target
    with (
        whole_folder(folder) as temporary,
        tempfile.TemporaryDirectory(prefix=f"{WRITING}{folder.name}-", dir=folder.parent) as scratch,
        parity.full_float32(),
    ):
        ours = parity.keras_answers(source.answer, sequences)
        savedmodel = temporary if "savedmodel" in formats else Path(scratch)  # the others are made from it
        write_savedmodel(source, savedmodel)
        found: dict[str, Any] = {}
        for name in formats:
            if name != "savedmodel":
                convert(savedmodel, name, temporary / FORMATS[name].file)
            reader = open_export(temporary, name)
            theirs = [parity.file_answers(reader, sequences)]
            if isinstance(reader, SavedModel) and reader.shares_frames:
                theirs.append(reader.shared_outputs(sequences.shared()))
            gaps = [parity.difference(ours, each, source.config.target.name, target) for each in theirs]
            gap = {key: max(one[key] for one in gaps) for key in gaps[0]}
            bytes_ = sum(path.stat().st_size for path in FORMATS[name].files(temporary))
            found[name] = {**parity.judge(gap, f"{folder}: {FORMATS[name].title}"), "bytes": bytes_}
        limits = {"warn_above": parity.WARN_ABOVE, "fail_above": parity.FAIL_ABOVE}
        record = {"sequences": len(sequences), "source": sequences.source, **limits, "formats": found}
        describe(source, temporary, record, list(ours))
    return record


def write_savedmodel(source: Source, folder: Path) -> None:
    """Write the SavedModel, with the signatures `serving_default` and `shared_frames`."""
    import tensorflow as tf
    from keras.export import ExportArchive

    archive = ExportArchive()  # its `track` would trace every layer by itself, to look for tables that we have none of
    endpoints = [("serving_default", source.answer, source.shapes)]
    if source.shared_answer is not None:
        endpoints.append((SHARED, source.shared_answer, source.shared_shapes))
    for name, answer, shapes in endpoints:
        specs = [
            tf.TensorSpec(shape, tf.int32 if key == "chosen_frames" else tf.float32, name=key)
            for key, shape in shapes.items()
        ]
        archive.add_endpoint(name, partial(_called, answer, list(shapes)), input_signature=specs)
    try:
        archive.write_out(str(folder), verbose=False)
    except tf.errors.OpError as error:  # TensorFlow's error for a full disk
        reason = error.message.splitlines()[0]
        raise RunError(f"{folder.parent}: the SavedModel cannot be written ({reason}). Free some space.") from None


def _called(answer: parity.Answer, names: list[str], *tensors: Any) -> dict[str, Any]:
    return answer(dict(zip(names, tensors, strict=True)))


def describe(source: Source, folder: Path, record: dict[str, Any], outputs: list[str]) -> None:
    """Write cloudml.json and the model card."""
    needed = [package for name in record["formats"] for package in FORMATS[name].packages.values()]
    files = [path for name in record["formats"] for path in FORMATS[name].files(folder)]
    content = {
        "inputs": source.shapes,
        "output": source.config.target.name,
        "outputs": outputs,
        "files": {name: FORMATS[name].file for name in record["formats"]},
        trust.SHA256: trust.digests(files, folder),
        "parity": record,
        JUDGED: judged_of(source.metrics),
        "versions": {"python": platform.python_version(), **versions([*PACKAGES, *needed])},
        "data": source.description,
        **source.more,
    }
    write_json(folder / RECORD, {**content, "config": source.config.model_dump(mode="json")})
    write_text(folder / CARD, model_card(source.config, source.description, source.metrics, content))


def check_replaceable(folder: Path) -> None:
    """Refuse to overwrite a folder that is not an export. Raises `RunError`."""
    if folder.exists() and not formats_in(folder) and (not folder.is_dir() or any(folder.iterdir())):
        raise RunError(
            f"{folder}: exists and is not an exported model; it will not be overwritten. Name another folder."
        )


def run_of_export(folder: Path) -> str | None:
    """The run of the export in a folder; None where there is none."""
    found = read_json(folder / RECORD).get("run") if formats_in(folder) else None
    return None if found is None else str(found)


def warn_of_replacement(console: Console, config: Config, run: Path) -> None:
    """Say which run's export a training will replace at its end, and how to keep that one."""
    folder = target_folder(config)
    held = run_of_export(folder)
    if formats_in(folder) and held != run_id(config, run):
        console.warn(
            f"{folder} holds the export of {held or 'another run'}, and this run's will replace it. To keep it, move "
            "that folder away before this training ends, or set experiment_name or output.savedmodels to another value."
        )


def replacing(folder: Path, write: Callable[[Path], dict[str, Any]]) -> dict[str, Any]:
    """Write an export; return it as metrics.json has it: its folder, its parity record, and the run it replaced."""
    replaced = run_of_export(folder)
    return {"folder": str(folder), "parity": write(folder), "replaced": replaced}


def show_export(console: Console, written: dict[str, Any]) -> None:
    """Print the parity table and the folder; `written` is what metrics.json has under "export"."""
    parity.show(console, written["parity"])
    if written.get("replaced") is not None:
        console.say(f"{written['folder']} held the export of {written['replaced']}, which is replaced")
    console.say(f"export: {written['folder']}; for a flight: cloudml predict {written['folder']} FLIGHT -o out.nc")


def target_folder(config: Config, chosen: str | None = None, suffix: str = "") -> Path:
    """The folder of an experiment's export, its name followed by `suffix`; or the one that was chosen."""
    return Path(chosen) if chosen is not None else expand(config.output.savedmodels) / (config.experiment_name + suffix)

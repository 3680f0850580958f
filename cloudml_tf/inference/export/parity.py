"""Does an exported file predict what the Keras model does? Run the same sequences through both, and compare."""

from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from itertools import pairwise
from typing import Any

import numpy as np

from cloudml_tf.config.schema import Config
from cloudml_tf.data.samples import Examples
from cloudml_tf.data.scaling import Scaling, TargetScaling
from cloudml_tf.inference.export.formats import FORMATS, Reader, flat, joined_outputs
from cloudml_tf.nn.sightlines import ALTITUDE, FORWARD, PITCH, ROLL, SCALE, TIME
from cloudml_tf.utils.console import Console
from cloudml_tf.utils.errors import DataError, ParityError

FAIL_ABOVE, WARN_ABOVE = 1e-3, 1e-4
SEQUENCES = 200
SMALL = 0.1  # smaller predictions count as this many std, since relative differences from 0 are meaningless
Inputs = dict[str, np.ndarray]
Answer = Callable[[Inputs], dict[str, Any]]  # inputs by name -> outputs by name, in physical units


@dataclass(frozen=True)
class Sequences:
    """Raw inputs to compare on, n sequences of each, and their origin in words."""

    inputs: Inputs
    source: str

    def __len__(self) -> int:
        return len(next(iter(self.inputs.values())))

    def batches(self, size: int = 50) -> list[Inputs]:
        """The first one alone, then `size` at a time: a file must take any batch size."""
        ends = [0, *range(1, len(self), size), len(self)]
        pieces = [slice(a, b) for a, b in pairwise(ends) if a < b]
        return [{name: values[piece] for name, values in self.inputs.items()} for piece in pieces]

    def shared(self) -> Inputs:
        """The same as frames, and the indices that make sequences of them."""
        count, steps = self.inputs["frames"].shape[:2]
        frames = {name: values.reshape(-1, *values.shape[2:]) for name, values in self.inputs.items()}
        return {**frames, "chosen_frames": np.arange(count * steps).reshape(count, steps)}


def real_sequences(examples: Examples, count: int = SEQUENCES) -> Sequences:
    """Examples of flights or scenes, evenly spread."""
    chosen = np.unique(np.linspace(0, len(examples) - 1, count).astype(int))
    names = sorted({examples.group_names[number] for number in examples.group[chosen]})
    what = "flight" if examples.label.ndim == 1 else "scene"
    return Sequences(examples.inputs(chosen), f"of {what} {', '.join(names)}")


def sequences_of_run(config: Config, description: dict[str, Any], count: int = SEQUENCES) -> Sequences | None:
    """Examples of a finished run's test split; None where its files are gone, or are read differently now."""
    from cloudml_tf.data.prepare import examples_of_run

    if "test" not in description["split"]:
        return None
    try:
        return real_sequences(examples_of_run(config, description, "test"), count)
    except DataError:
        return None


def drawn_sequences(
    shapes: dict[str, tuple[int | None, ...]], scaling: Scaling, log_offset: float | None, seed: int, count: int
) -> Sequences:
    """Random inputs with the mean and spread of training, where no flight is available."""
    rng = np.random.default_rng(seed)
    inputs = {}
    for name, sizes in shapes.items():
        shape = (count, *(size for size in sizes[1:] if size is not None))
        if name == "sun_angles_deg":
            inputs[name] = rng.uniform((10.0, -180.0), (70.0, 180.0), shape).astype("float32")
            continue
        if name == "geometry":
            inputs[name] = _drawn_geometry(rng, shape)
            continue
        frames = name == "frames"
        mean, std = (scaling.frame_mean, scaling.frame_std) if frames else (scaling.feature_mean, scaling.feature_std)
        values = np.asarray(mean) + np.asarray(std) * rng.standard_normal(shape)
        if frames:
            values = values if log_offset is None else np.exp(values) - log_offset
            values = values if scaling.flat_field is None else values * np.asarray(scaling.flat_field)
        inputs[name] = values.astype("float32")
    return Sequences(inputs, "drawn from the training statistics")


def _drawn_geometry(rng: np.random.Generator, shape: tuple[int, ...]) -> np.ndarray:
    """Sequences (n,T,9) of frames a second apart, from 15 to 20 km and at 150 to 220 m/s, with pixels of 40 m."""
    found = np.zeros(shape)
    count, steps, _ = shape
    found[..., TIME], found[..., ALTITUDE] = np.arange(steps) - steps // 2, rng.uniform(15.0, 20.0, (count, 1))
    found[..., SCALE], found[..., FORWARD] = found[..., ALTITUDE] / 0.04, rng.uniform(150.0, 220.0, (count, 1))
    found[..., ROLL], found[..., PITCH] = rng.normal(0.0, 0.1, (2, count, steps))
    return found.astype("float32")


@contextmanager
def full_float32() -> Iterator[None]:
    """Switch off the TensorFloat-32 of GPUs, which has three digits."""
    import tensorflow as tf

    usual = tf.config.experimental.tensor_float_32_execution_enabled()
    tf.config.experimental.enable_tensor_float_32_execution(False)
    try:
        yield
    finally:
        tf.config.experimental.enable_tensor_float_32_execution(usual)


def keras_answers(answer: Answer, sequences: Sequences) -> dict[str, np.ndarray]:
    """Every number of each output, flattened: n of them, or n maps."""
    return joined_outputs(flat(answer(batch)) for batch in sequences.batches())


def file_answers(reader: Reader, sequences: Sequences) -> dict[str, np.ndarray]:
    """Every output of an exported file, (n,) each."""
    return joined_outputs(map(reader.outputs, sequences.batches()))


def difference(
    ours: dict[str, np.ndarray], theirs: dict[str, np.ndarray], output: str, scaling: TargetScaling
) -> dict[str, float]:
    """The largest difference of any output of a file from Keras.

    "max_relative": relative to the prediction (the output `output`), at least `SMALL` std of the target.
    "max_std": in standard deviations of the target, in the loss's space.
    """
    if ours.keys() != theirs.keys():
        raise ParityError(f"the export's outputs are {sorted(theirs)}, the model's are {sorted(ours)}; not exported.")
    answer = np.abs(ours[output].astype("float64")) + scaling.log_offset  # the argument of the logarithm
    std = scaling.std * answer if scaling.log else np.full_like(answer, scaling.std)  # in physical units
    gap = np.max([np.abs(ours[name].astype("float64") - theirs[name]) for name in ours], axis=0)
    size = answer if scaling.log else np.maximum(answer, SMALL * std)
    return {"max_relative": float(np.max(gap / size)), "max_std": float(np.max(gap / std))}


def judge(found: dict[str, float], what: str) -> dict[str, Any]:
    """Add "within": whether both are below `WARN_ABOVE`. Raises `ParityError` above `FAIL_ABOVE`."""
    worst = np.max([found["max_relative"], found["max_std"]])  # NaN stays NaN, and fails
    if not worst <= FAIL_ABOVE:
        raise ParityError(
            f"{what} differs from the Keras model by {found['max_relative']:.2g} of the prediction, "
            f"{found['max_std']:.2g} std of the target; allowed is {FAIL_ABOVE:g}. Nothing was exported."
        )
    return {**found, "within": bool(worst <= WARN_ABOVE)}


def rows_of(record: dict[str, Any]) -> list[list[str]]:
    """The parity table: format, file, size, and both differences."""
    rows = []
    for name, found in record["formats"].items():
        numbers = [f"{found['bytes'] / 1024:.0f}", f"{found['max_relative']:.1e}", f"{found['max_std']:.1e}"]
        rows.append([FORMATS[name].title, FORMATS[name].file, *numbers])
    return rows


COLUMNS = ["format", "file", "kB", "largest relative difference", "in std of the target"]


def show(console: Console, record: dict[str, Any]) -> None:
    """Print the table, and a warning for each format above `WARN_ABOVE`."""
    console.table(f"against Keras, {record['sequences']} sequences {record['source']}", COLUMNS, rows_of(record))
    for name, found in record["formats"].items():
        if not found["within"]:
            console.warn(f"{FORMATS[name].title} differs from Keras by more than {WARN_ABOVE:g}")

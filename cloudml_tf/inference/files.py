"""The files of a prediction: the quicklook, then the NetCDF file with its provenance; and its warnings."""

import datetime
import hashlib
import shlex
import sys
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import h5py

from cloudml_tf.config.data import FlightFiles
from cloudml_tf.data.readers.flights import Flight
from cloudml_tf.data.readers.frames import camera_fingerprint, files_at
from cloudml_tf.data.readers.times import interval_s
from cloudml_tf.inference.flags import counts
from cloudml_tf.inference.flight import Predicted
from cloudml_tf.inference.model import Model
from cloudml_tf.utils.files import update_by_pieces

# Pieces of 1 MB of each file that are looked at: all of one up to 16 MB. `camera_fingerprint` looks at 2. Run folders
# and pretrainings hold that one, archives this: by one rule for both, those that are there would not be recognised.
PIECES = 16
ALIKE_STEPS = 1.5  # by what factor the steps between frames may differ from those of the training
MADE_OF = {  # global attributes with a file's provenance, and the meaning of each
    "source": "the version of cloudml_tf, or the model's name",
    "model_sha256": "the model",
    "config_fingerprint": "the settings",
    "input_fingerprint": "the flight's files",
    "calibration": "the calibration",  # of a calibrated model alone
}


def write(path: Path, predicted: Predicted, model: Model, files: FlightFiles, command: str) -> dict[str, Any]:
    """Write both. The NetCDF file comes last, so that its presence means that all is there. Returns a record of
    them."""
    from cloudml_tf.inference.netcdf import write_netcdf
    from cloudml_tf.inference.quicklook import quick_look

    flight = predicted.flight
    record: dict[str, Any] = {"flight": flight.name, "file": str(path), "frames": len(flight)}
    record |= {"predicted": int(predicted.valid.sum()), "flags": counts(predicted.flags)}
    if model.config.output.report and len(flight) > 1:
        quantity = model.config.target.quantity
        label = quantity.long_name if quantity.unit == "1" else f"{quantity.long_name}, {quantity.unit}"
        interval = f"{100 * (model.level or 0):g} % interval"
        record["picture"] = str(quick_look(predicted, path.stem, label, interval).write(path.parent))
    now = datetime.datetime.now(datetime.UTC).isoformat(timespec="seconds")
    write_netcdf(path, predicted, model, f"{now} {command}", input_fingerprint(files))
    return record


def command_line() -> str:
    """The command line of this process, for the history of a file."""
    return shlex.join([Path(sys.argv[0]).name, *sys.argv[1:]])


def warnings_of(predicted: Predicted, model: Model, files: FlightFiles) -> list[str]:
    """Missing positions, another flight's calibration, and inputs of most frames outside the training range; a sentence
    each."""
    from cloudml_tf.data.readers.navigation import why_no_positions
    from cloudml_tf.data.training_ranges import MOST, SUN_SLACK_DEG, extrapolated
    from cloudml_tf.inference.netcdf import has_positions

    flight, config, found = predicted.flight, model.config, other_flight(predicted.flight.name, model, files)
    if not has_positions(predicted):
        why = why_no_positions(files, config.data.navigation)
        remedy = "set data.navigation.latitude and longitude to those it has, if any"
        found.append(f"{flight.name}: no positions: the file will have no latitude and longitude, as {why}; {remedy}.")
    if not predicted.valid.any():
        found.append(f"{flight.name}: no frame has a complete sequence around it; the flags give the reasons.")
    if config.frame_spacing_s is None:
        found += other_interval(flight, model.record.description, config.temporal_frames)
    if model.ranges is None:
        return found
    sun, light = flight.sun_angles_deg, predicted.light
    found += extrapolated(flight.name, sun, light, model.ranges, config.augmentation, SUN_SLACK_DEG)
    raised, others = counts(predicted.flags), ("feature_outside_training", "geometry_outside_training")
    return found + [
        f"{flight.name}: {raised[name]} of {len(flight)} frames have the flag {name}. Their predictions extrapolate."
        for name in others
        if raised[name] > MOST * len(flight)
    ]


def other_flight(name: str, model: Model, files: FlightFiles) -> list[str]:
    """A warning where the model is calibrated to another flight."""
    calibration = model.record.calibration
    if calibration is None or camera_fingerprint(Path(files.camera)) == calibration.camera:
        return []
    return [
        f"{name}: the model is calibrated to flight {calibration.flight}; level and scale of another flight are its "
        f"own. Use the model as it was, {model.record.source}, or calibrate it to this flight."
    ]


def other_interval(flight: Flight, description: Mapping[str, Any], temporal_frames: int) -> list[str]:
    """A warning where frames of a sequence are further apart, or closer, than in any flight of the training."""
    known = [step for step in description.get("frame_interval_s", {}).values() if step]
    own_s = interval_s(flight.time_s)
    if temporal_frames == 1 or not known or min(known) / ALIKE_STEPS <= own_s <= max(known) * ALIKE_STEPS:
        return []
    trained = f"{min(known):.3g}" + (f" to {max(known):.3g}" if max(known) > 1.01 * min(known) else "")
    return [
        f"{flight.name}: its frame interval is {own_s:.3g} s, and in training it was {trained} s: a sequence of "
        f"{temporal_frames} frames shows another motion, and nothing is known of how well the network does on it."
    ]


def input_fingerprint(files: FlightFiles) -> str:
    """A fingerprint that changes with the files of a flight: with their sizes, and with 16 MB spread over each."""
    digest = hashlib.sha256()
    for role, name in files.model_dump().items():
        if name is None:
            continue
        paths = files_at(Path(name))
        digest.update(" ".join([role, *(str(path.stat().st_size) for path in paths)]).encode())
        for path in paths[:: -(-len(paths) // PIECES)]:
            update_by_pieces(digest, path, max(-(-PIECES // len(paths)), 2))
    return digest.hexdigest()[:16]


def what_changed(path: Path, files: FlightFiles, provenance: dict[str, str]) -> str:
    """The provenance of a file that differs now, in words; "" where this model would write the same again."""
    try:
        with h5py.File(path, "r") as file:
            found = {name: file.attrs.get(name) for name in MADE_OF}
    except OSError:
        return "the existing file cannot be read"
    now = {**provenance, "input_fingerprint": input_fingerprint(files)}
    changed = [words for name, words in MADE_OF.items() if found[name] != now.get(name)]
    return f"{' and '.join(changed)} changed" if changed else ""


def totals(records: Sequence[dict[str, Any]]) -> dict[str, Any]:
    """The sums of the records of files: frames, those that were predicted, and those with each flag."""
    counted = {key: sum(record[key] for record in records) for key in ("frames", "predicted")}
    names = records[0]["flags"] if records else {}
    return {**counted, "flags": {name: sum(record["flags"][name] for record in records) for name in names}}


def read_record(path: Path) -> dict[str, Any]:
    """Read the record of a file that was written earlier."""
    with h5py.File(path, "r") as file:
        valid, flags = file["valid"][()], file["quality_flag"][()]
    record = {"flight": path.stem, "file": str(path), "frames": len(valid), "predicted": int(valid.sum())}
    picture = path.with_suffix(".png")
    return {**record, "flags": counts(flags), **({"picture": str(picture)} if picture.is_file() else {})}

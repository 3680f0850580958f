"""Predict one flight of an archive, from its files to its output file; any error becomes that flight's outcome."""

import time
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from cloudml_tf.config.data import FlightFiles
from cloudml_tf.config.run_folder import read_model
from cloudml_tf.utils.errors import CloudMLError
from cloudml_tf.utils.tf_logging import quiet_tensorflow


@dataclass(frozen=True)
class Job:
    """The settings that all flights share."""

    source: Path
    overrides: dict[str, Any]
    folder: Path  # of the predictions
    command: str  # for their history
    threads: int | None = None  # per worker; None: as many as it has cores


@dataclass(frozen=True)
class Task:
    """A flight to predict."""

    name: str
    files: FlightFiles

    def path(self, folder: Path) -> Path:
        """The flight's output file, which exists when the flight is done."""
        return folder / f"{self.name}.nc"


@dataclass(frozen=True)
class Outcome:
    """The outcome of a flight: a record of its files, or the reason why there are none."""

    flight: str
    seconds: float
    record: dict[str, Any] | None = None
    warnings: list[str] = field(default_factory=list)
    reason: str = ""


class Predictor:
    """A model that is opened once, for any number of flights."""

    def __init__(self, job: Job) -> None:
        quiet_tensorflow()
        from cloudml_tf.inference.model import open_record

        self.job = job
        self.model = open_record(read_model(job.source, job.overrides), job.threads)

    def predict(self, task: Task) -> Outcome:
        """Read, predict and write one flight."""
        began = time.perf_counter()
        try:
            record, warnings = self._predict(task)
        except CloudMLError as error:
            reason = str(error)
        except OSError as error:
            reason = f"{error.filename}: {error.strerror}" if error.filename else str(error)
        except Exception as error:  # one flight of thousands: the others continue, and the summary reports it
            reason = f"an error inside cloudml_tf (please report it): {type(error).__name__}: {error}"
        else:
            return Outcome(task.name, time.perf_counter() - began, record, warnings)
        return Outcome(task.name, time.perf_counter() - began, reason=reason)

    def _predict(self, task: Task) -> tuple[dict[str, Any], list[str]]:
        from cloudml_tf.data.named import check_frames
        from cloudml_tf.data.readers.sandbox import read_flight
        from cloudml_tf.inference.files import warnings_of, write
        from cloudml_tf.inference.flight import predict_flight

        model, config = self.model, self.model.config
        flight = read_flight(task.name, task.files, config.data, config.target, labels=False)
        check_frames(model.record, flight.frame_shape)
        predicted = predict_flight(model, flight)
        warnings = warnings_of(predicted, model, task.files)
        return write(task.path(self.job.folder), predicted, model, task.files, self.job.command), warnings

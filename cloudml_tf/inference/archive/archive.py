"""Predict the flights of an archive that are not done yet, and report the outcome of each.

    flights ─ done already? ─ engine ─ a NetCDF file each ─ archive.json

A flight is done when its NetCDF file exists, which appears whole, as the last of its files, with its provenance. A
restart skips it if it would write the same again.
"""

import contextlib
import time
from collections.abc import Generator, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, Literal

from cloudml_tf.inference.archive.engines import in_processes, in_this_process, on_ray
from cloudml_tf.inference.archive.work import Job, Outcome, Task
from cloudml_tf.inference.files import read_record, totals, what_changed
from cloudml_tf.utils.console import Console
from cloudml_tf.utils.errors import ConfigError
from cloudml_tf.utils.files import write_json
from cloudml_tf.utils.locks import WRITING, alone_in, sweep

SUMMARY = "archive.json"
EngineName = Literal["local", "ray"]


@dataclass
class Archive:
    """The state of the flights so far."""

    job: Job
    provenance: dict[str, str]
    found: int = 0
    records: list[dict[str, Any]] = field(default_factory=list)  # of the flights that are done
    earlier: int = 0  # number of them that an earlier call has done
    redone: dict[str, str] = field(default_factory=dict)  # flight -> what has changed since an earlier call
    failed: dict[str, str] = field(default_factory=dict)  # flight -> the reason

    def content(self, seconds: float) -> dict[str, Any]:
        """The content of archive.json, with the seconds of this call."""
        done = len(self.records)
        flights = {"found": self.found, "done": done, "done_earlier": self.earlier, "failed": len(self.failed)}
        return {
            "complete": done + len(self.failed) == self.found,
            **self.provenance,
            "flights": flights,
            "seconds": seconds,
            **totals(self.records),
            "failed": self.failed,
            "redone": self.redone,
            "files": sorted(self.records, key=lambda record: str(record["flight"])),
        }


def predict_archive(
    job: Job,
    tasks: Sequence[Task],
    refused: dict[str, str],
    provenance: dict[str, str],
    workers: int | None,
    engine: EngineName,
    console: Console,
) -> Archive:
    """Predict missing flights; `refused` are flights that lack a file, with the reason."""
    began = time.perf_counter()
    job.folder.mkdir(parents=True, exist_ok=True)
    archive = Archive(job, provenance, found=len(tasks) + len(refused), failed=dict(refused))
    with alone_in(job.folder, "a prediction of an archive"):
        try:
            waiting = _not_done(archive, tasks, console)
            for name, reason in refused.items():
                console.warn(f"{name}: failed: {reason}")
            if waiting:
                _predict(archive, len(waiting), _engine(engine, workers, job, waiting), console)
        finally:
            sweep([*job.folder.glob(f"{WRITING}*")])  # what a killed worker was writing; this process holds the folder
            write_json(job.folder / SUMMARY, archive.content(time.perf_counter() - began))
    return archive


def _engine(name: EngineName, workers: int | None, job: Job, tasks: Sequence[Task]) -> Generator[Outcome, None, None]:
    if name == "ray":
        return on_ray(job, tasks, workers or 1)
    return in_this_process(job, tasks) if workers is None else in_processes(job, tasks, workers)


def _not_done(archive: Archive, tasks: Sequence[Task], console: Console) -> list[Task]:
    """The flights to predict; those that are done are recorded in `archive`, and repeated ones are printed."""
    waiting = []
    with console.progress("checking finished flights") as progress:
        for number, task in enumerate(tasks, start=1):
            path = task.path(archive.job.folder)
            changed = _changed(path, task, archive.provenance) if path.is_file() else ""
            if path.is_file() and not changed:
                archive.records.append(read_record(path))
            else:
                waiting.append(task)
            if changed:
                archive.redone[task.name] = changed
                console.say(f"{task.name}: is repeated: {changed}")
            progress(number, len(tasks))
    archive.earlier = len(archive.records)
    if archive.earlier:
        console.say(f"{archive.earlier} of {archive.found} flights are done already")
    return waiting


def _changed(path: Path, task: Task, provenance: dict[str, str]) -> str:
    try:
        return what_changed(path, task.files, provenance)
    except OSError as error:  # an error of the flight's own files, which the prediction will report
        return f"{error.filename}: {error.strerror}"


def _predict(archive: Archive, count: int, outcomes: Generator[Outcome, None, None], console: Console) -> None:
    with contextlib.closing(outcomes), console.progress("predicting flights") as progress:
        progress(0, count)
        for number, outcome in enumerate(outcomes, start=1):
            if outcome.record is None:
                archive.failed[outcome.flight] = outcome.reason
                console.warn(f"{outcome.flight}: failed: {outcome.reason}")
            else:
                archive.records.append(outcome.record)
                known = f"{outcome.record['predicted']} of {outcome.record['frames']} frames predicted"
                console.say(f"{outcome.flight}: {known}, {outcome.seconds:.1f} s")
            console.warn(*outcome.warnings)
            progress(number, count)


def check_options(workers: int | None, output: str | None, run_dir: str | None) -> Path:
    """The folder of an archive's predictions. Raises `ConfigError` for an unusable folder, or no workers."""
    if workers is not None and workers < 1:
        raise ConfigError(f"--workers must be 1 or more. Received: {workers}")
    chosen = output or run_dir
    if chosen is None:
        raise ConfigError("--archive needs -o FOLDER, where a restart finds what is done.")
    folder = Path(chosen)
    if folder.is_file() or (folder.suffix == ".nc" and not folder.is_dir()):
        raise ConfigError(f"-o {chosen}: is a file; an archive needs a folder, with a file for each flight.")
    return folder

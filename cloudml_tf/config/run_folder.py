"""The run folder: its files, and how a run is created and found again. Without Keras.

config.json        the resolved configuration        environment.json   versions, machine, command
data.json          files, split, counts, scaling     history.csv        one row per epoch
metrics.json       scores, tiers, baselines          report.html        the report
best.weights.h5    weights of the best epoch         last.weights.h5    weights of the last epoch
checkpoint.npz     for --resume                      predictions.npz    predictions of every split
selection.json     the recipe that flights left out chose; selection/ has their predictions
regressions.npz    what its network is averaged with
plots/             figures                           checkpoint.previous.npz   of the epoch before, until the end
"""

import contextlib
import csv
import datetime
import os
import platform
import shlex
import sys
from collections.abc import Iterable
from dataclasses import dataclass, replace
from importlib import metadata
from pathlib import Path
from typing import Any

from cloudml_tf.config.calibration import CALIBRATED, CALIBRATION, Calibration
from cloudml_tf.config.data import FlightFiles, FlightSplit, TimeBlocks
from cloudml_tf.config.load import expand, parse_config, read_content, resolve, resolved_json
from cloudml_tf.config.renamed import of_run_folder
from cloudml_tf.config.schema import Config
from cloudml_tf.config.selection import AS_IT_IS, CHOSEN
from cloudml_tf.utils import plain_json
from cloudml_tf.utils.errors import ConfigError, RunError
from cloudml_tf.utils.files import write_json, write_text
from cloudml_tf.utils.locks import NAME as LOCK
from cloudml_tf.utils.locks import WRITING, is_held
from cloudml_tf.utils.redaction import without_secrets
from cloudml_tf.utils.suggest import did_you_mean

MOST_MB = 256  # largest JSON file in a run folder
CHECKPOINT, PREVIOUS = "checkpoint.npz", "checkpoint.previous.npz"
RECORD = "cloudml.json"  # beside every export
EXPORT_FILES = {"savedmodel": "saved_model.pb", "onnx": "model.onnx", "litert": "model.tflite"}  # format -> file
WHOLE = "metrics.json"  # its presence means that a run has ended
PACKAGES = ("cloudml-tf", "tensorflow", "keras", "numpy", "h5py", "scikit-learn", "pydantic")


def new_run(config: Config, run_dir: str | None, prefix: str = "") -> Path:
    """Make a new folder: `run_dir`, or runs/<experiment>/<prefix><stamp>."""
    return new_folder(run_dir, expand(config.output.runs) / config.experiment_name, prefix)


def new_folder(chosen: str | None, parent: Path, prefix: str = "") -> Path:
    """Make the chosen folder, or <parent>/<prefix><stamp>. Two calls within a second get two folders."""
    if chosen is not None:
        path = Path(chosen)
        if path.exists():
            check_unused(path)
        _make(path, exist_ok=True)
        return path
    stamp = prefix + datetime.datetime.now().strftime("%Y%m%d-%H%M%S")
    for number in range(1, 1000):
        path = parent / (stamp if number == 1 else f"{stamp}-{number}")
        with contextlib.suppress(FileExistsError):
            _make(path, exist_ok=False)
            return path
    raise RunError(f"{parent}: too many runs within one second. Wait a moment and start again.")


def _make(path: Path, exist_ok: bool) -> None:
    try:
        path.mkdir(parents=True, exist_ok=exist_ok)
        probe = path / ".writing-probe"
        probe.touch()
        probe.unlink()
    except FileExistsError:
        raise
    except OSError as error:
        raise RunError(
            f"{path}: the run folder cannot be written ({error.strerror}). "
            "Set --run-dir or output.runs to a writable folder."
        ) from None


def check_unused(path: Path) -> None:
    """Refuse a folder that is not empty. Raises `RunError`."""
    if not (path.is_dir() and is_empty(path)):
        raise RunError(f"{path}: exists and is not empty. Choose another --run-dir, or continue it with --resume.")


def is_empty(folder: Path) -> bool:
    """Whether a folder holds nothing but the lock of a working process and what a killed process began to write."""
    return all(path.name == LOCK or path.name.startswith(WRITING) for path in folder.iterdir())


def has_begun(folder: Path) -> bool:
    """Whether a training was started in a folder, even if it was killed before its first epoch ended."""
    return has_checkpoint(folder) or (folder / "config.json").is_file()


def has_checkpoint(folder: Path) -> bool:
    """Whether there is a checkpoint to resume from. A kill may have left the previous one alone."""
    return any((folder / name).is_file() for name in (CHECKPOINT, PREVIOUS))


def forget_previous(folder: Path) -> None:
    """Delete the older checkpoint: a finished run is never resumed."""
    (folder / PREVIOUS).unlink(missing_ok=True)


def forget_checkpoints(folder: Path) -> None:
    """Delete all checkpoints of a finished run, whose weights are saved beside them."""
    for name in (CHECKPOINT, PREVIOUS):
        (folder / name).unlink(missing_ok=True)


def run_to_resume(config: Config, run_dir: str | None) -> Path:
    """The folder to continue: `run_dir`, or the experiment's newest run that neither ended nor is being trained.

    Runs that have completed an epoch come before those that have not.
    """
    if run_dir is not None:
        if not has_begun(Path(run_dir)):
            raise RunError(f"{run_dir}: no checkpoint.npz to resume from. Start it without --resume.")
        return Path(run_dir)
    parent = expand(config.output.runs) / config.experiment_name
    # Other commands leave a config.json too, in folders whose names begin with the command's.
    begun = [p for p in parent.glob("*") if has_checkpoint(p) or (p.name[:1].isdigit() and has_begun(p))]
    found = [path for path in begun if not (path / WHOLE).exists()]
    going = [path for path in found if is_held(path)]
    waiting = [path for path in found if path not in going]
    if not waiting:
        busy = f" ({', '.join(map(str, going))} is being trained.)" if going else ""
        raise RunError(f"{parent}: no interrupted run to resume.{busy} Start one without --resume.")
    return max(waiting, key=lambda path: (has_checkpoint(path), path.name))


def check_same(path: Path, config: Config, fingerprint: str) -> None:
    """Refuse to resume with another configuration or other data. Raises `RunError`, naming what differs."""
    old = parse_config(of_run_folder(read_json(path / "config.json")), str(path / "config.json"))
    before, now = (_compared(one) for one in (old, config))
    if changed := changes(before, now):
        raise RunError(f"{path}: the configuration has changed since this run began ({changed}). Start a new run.")
    if (path / "data.json").is_file() and read_json(path / "data.json")["fingerprint"] != fingerprint:
        raise RunError(f"{path}: the flight files have changed since this run began. Start a new run.")


def changes(before: dict[str, Any], now: dict[str, Any]) -> str:
    """What differs between two flat dictionaries, the first five fields; "" where nothing does."""
    changed = sorted(key for key in before.keys() | now.keys() if before.get(key) != now.get(key))
    return ", ".join(f"{key} was {before.get(key)!r}, is {now.get(key)!r}" for key in changed[:5])


def _compared(config: Config) -> dict[str, Any]:
    """All fields by dotted path; of the learning rate what is used: an older version wrote it down multiplied."""
    found = flat(config.model_dump(mode="json", exclude={"training": {"init_from_rate_factor"}}))
    return {**found, "training.learning_rate": config.training.rate}


def write_start(path: Path, config: Config, description: dict[str, Any]) -> None:
    """Write what is known before training."""
    write_text(path / "config.json", resolved_json(config))
    write_json(path / "environment.json", environment())
    write_json(path / "data.json", description)


def versions(packages: Iterable[str] = PACKAGES) -> dict[str, str]:
    """Package -> version, or "not installed"."""
    found = {}
    for package in packages:
        try:
            found[package] = metadata.version(package)
        except metadata.PackageNotFoundError:
            found[package] = "not installed"
    return found


def run_id(config: Config, folder: Path) -> str:
    """The name of a run in files that are made from it: its experiment and its folder."""
    return f"{config.experiment_name}/{folder.resolve().name}"


def environment() -> dict[str, Any]:
    """Versions and machine. Nothing of the shell's environment, and no secret of the command line."""
    return {
        "started": datetime.datetime.now(datetime.UTC).isoformat(timespec="seconds"),
        "python": platform.python_version(),
        "packages": versions(),
        "system": f"{platform.system()} {platform.machine()}",
        "command": without_secrets(shlex.join([Path(sys.argv[0]).name, *sys.argv[1:]])),
    }


def write_history(path: Path, rows: list[dict[str, float]]) -> None:
    """Write one row per epoch; the columns are those of the first row."""
    if not rows:
        return
    names = list(rows[0])
    lines = [",".join(names)]
    lines += [",".join(repr(row.get(name, float("nan"))) for name in names) for row in rows]
    write_text(path / "history.csv", "\n".join(lines) + "\n")


def read_history(path: Path) -> list[dict[str, float]]:
    """The inverse of `write_history`. Raises `RunError` for a file that is not a table of numbers."""
    with open(path / "history.csv", encoding="utf-8", newline="") as file:
        try:
            return [{name: float(value) for name, value in row.items()} for row in csv.DictReader(file)]
        except (TypeError, ValueError):
            raise RunError(f"{path / 'history.csv'}: is not a table of numbers. The run folder is damaged.") from None


def read_run(path: Path, overrides: dict[str, Any] | None = None) -> tuple[Config, dict[str, Any]]:
    """Configuration and data description of a run. Raises `RunError` where the folder is something else."""
    if not path.exists():
        raise RunError(f"{path}: no such folder.{did_you_mean(path)}")
    if path.is_file():
        there = any((path.parent / name).is_file() for name in (RECORD, "config.json"))
        raise RunError(f"{path}: is a file. Give the folder of a run or a model{f', {path.parent}' * there}.")
    if (path / CALIBRATION).is_file():
        raise RunError(
            f"{path}: is a model that is calibrated to one flight, and this command needs the folder of a run. The run "
            f"as it was before is {path / CALIBRATED}; `predict` and `evaluate` take the calibrated one."
        )
    if (path / RECORD).is_file():
        made_of = read_json(path / RECORD).get("run")
        named = f", {made_of}" if made_of else ""
        raise RunError(f"{path}: is an exported model, and this command needs the folder of its run{named}.")
    if not (path / "config.json").is_file():
        text = f"{path}: neither a run folder (config.json) nor an exported model (cloudml.json)."
        raise RunError(text + _lying_in(path))
    if not (path / "data.json").is_file():
        hint = _lying_in(path) or _runs_of(path)
        raise RunError(f"{path}: has a configuration but no data.json, so nothing was trained here.{hint}")
    config = resolve(of_run_folder(read_json(path / "config.json")), overrides, str(path / "config.json"))
    if (path / CHOSEN).is_file():
        recipe = read_json(path / CHOSEN).get("recipe")
        if config.selection is None or recipe not in (AS_IT_IS, *config.selection.recipes):
            raise RunError(f"{path / CHOSEN}: names no recipe of config.json. The run folder is damaged.")
        config = as_chosen(config, recipe)
    return config, read_json(path / "data.json")


def as_chosen(config: Config, recipe: str) -> Config:
    """The configuration with a recipe of its `selection`, which is decided then: for all epochs, with the last weights.

    Raises `ConfigError` where the recipe's changes are wrong.
    """
    assert config.selection is not None
    changes = {} if recipe == AS_IT_IS else dict(config.selection.recipes[recipe])
    content = {**config.model_dump(mode="json"), "selection": None}
    try:
        chosen = resolve(content, changes, "selection.recipes")
    except ConfigError as error:
        text = str(error).removeprefix("--set ").removeprefix("selection.recipes: ")
        raise ConfigError(f"selection.recipes, '{recipe}': {text}") from None
    patience = max(chosen.training.max_epochs, chosen.training.early_stopping_patience)
    training = chosen.training.model_copy(update={"keep": "last", "early_stopping_patience": patience})
    return chosen.model_copy(update={"training": training})


def run_of(path: Path) -> Path:
    """The run folder that a path stands for: of an exported model its run's, where that lies where it was; else itself.

    An export holds no predictions and no history, so that what looks into a run needs its folder.
    """
    record = read_json(path / RECORD) if (path / RECORD).is_file() else {}
    if not isinstance(record.get("run_folder"), str):
        return path
    run = (path / record["run_folder"]).resolve()
    same = (run / "data.json").is_file() and read_json(run / "data.json") == record.get("data")
    if not same:
        return path
    return run if path.is_absolute() else Path(os.path.relpath(run))


def _lying_in(path: Path, shown: int = 5) -> str:
    """The end of a message: the runs and models one level down, or the last of them where there are many."""
    found = sorted({p.parent for name in ("config.json", RECORD) for p in path.glob(f"*/{name}")})
    more = f" (the last {shown} of {len(found)})" if len(found) > shown else ""
    return f" Name one inside it: {', '.join(map(str, found[-shown:]))}{more}." if found else ""


def _runs_of(path: Path, shown: int = 3) -> str:
    """The end of a message: the finished runs of the configuration in a folder, or how to get one."""
    try:
        config = parse_config(of_run_folder(read_content(path / "config.json")))
        found = sorted(one.parent for one in (expand(config.output.runs) / config.experiment_name).glob(f"*/{WHOLE}"))
    except (ConfigError, RunError):
        return ""
    if found:
        return f" Name one of its runs: {', '.join(map(str, found[-shown:]))}."
    return f" `cloudml train {path / 'config.json'}` trains a run; name its folder."


@dataclass(frozen=True)
class ModelRecord:
    """The record of a finished run or an exported model.

    Args:
        source: its folder.
        config, description: those of the run (config.json, data.json).
        export: the content of cloudml.json; empty for a run.
        calibration: level and scale of one flight, which its predictions are corrected by; None for none.
    """

    source: Path
    config: Config
    description: dict[str, Any]
    export: dict[str, Any]
    calibration: Calibration | None = None

    @property
    def run(self) -> str:
        """Experiment and folder of what was trained. An ensemble's export names its members itself."""
        if self.calibration is not None:
            return self.calibration.run
        return self.export.get("run") or run_id(self.config, self.source)


def read_model(source: Path, overrides: dict[str, Any] | None = None) -> ModelRecord:
    """The record of a run or of an exported model, calibrated or not.

    `overrides` change how data are read, scored and written.
    """
    if (source / CALIBRATION).is_file():
        found = Calibration.of_file(source / CALIBRATION, read_json(source / CALIBRATION))
        return replace(read_model(source / CALIBRATED, overrides), calibration=found)
    if not any((source / name).is_file() for name in EXPORT_FILES.values()):
        return ModelRecord(source, *read_run(source, overrides), {})
    record = read_json(source / RECORD)
    config = resolve(of_run_folder(record["config"]), overrides, str(source / RECORD))
    return ModelRecord(source, config, record["data"], record)


def check_overrides(
    overrides: dict[str, Any],
    free: tuple[str, ...] = ("data.", "evaluation.", "prediction.", "output.", "seed"),
    why: str = "cannot be changed after training",
) -> None:
    """Refuse overrides of fields that are not `free`: by default, only how flights are read, evaluated and written."""
    wrong = [key for key in overrides if not key.startswith(free)]
    if wrong:
        *names, last = (f"{name}*" if name.endswith(".") else name for name in free)
        raise ConfigError(f"--set {wrong[0]}: {why}. Free are {', '.join(names)} and {last}.")


def read_json(path: Path) -> Any:
    """A JSON file of a run folder. Raises `RunError` where it is missing or broken."""
    try:
        return plain_json.read(path, MOST_MB)
    except OSError as error:
        raise RunError(f"{path}: cannot be read ({error.strerror}). The run folder is incomplete.") from None
    except ValueError as error:
        raise RunError(f"{path}: is not valid JSON ({error}). The run folder is damaged.") from None


def flat(content: Any, prefix: str = "") -> dict[str, Any]:
    """Flatten nested dictionaries to one, by dotted path."""
    if not isinstance(content, dict):
        return {prefix: content}
    parts = (flat(part, f"{prefix}.{name}".strip(".")) for name, part in content.items())
    return {key: value for part in parts for key, value in part.items()}


def as_it_was(config: Config, description: dict[str, Any]) -> Config:
    """The configuration with the run's own files and flights, so that nothing is searched or simulated again."""
    data = config.data
    if "files" in description:  # a file of scenes is named by the configuration itself
        files = {name: FlightFiles.model_validate(found) for name, found in description["files"].items()}
        data = data.model_copy(update={"flights": files, "path": None})
    split = config.split
    if not isinstance(split, TimeBlocks):
        split = FlightSplit(**{part: tuple(found["flights"]) for part, found in description["split"].items()})
    return config.model_copy(update={"data": data, "split": split})

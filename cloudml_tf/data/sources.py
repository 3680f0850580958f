"""The flights that a configuration or a command line names, found and read."""

import contextlib
from collections.abc import Callable, Mapping, Sequence, Sized
from pathlib import Path
from typing import TypeVar

from cloudml_tf.config.data import FlightFiles
from cloudml_tf.config.load import cache_folder, expand
from cloudml_tf.config.schema import Config
from cloudml_tf.data.left_out import LeftOut, leave_out
from cloudml_tf.data.readers.flights import Flight
from cloudml_tf.data.readers.folders import find_flights, is_camera, needs_camera_alone
from cloudml_tf.data.readers.formats.frames import is_series
from cloudml_tf.data.readers.formats.part_names import without_parts
from cloudml_tf.data.readers.frames import Progress, files_at
from cloudml_tf.data.readers.sandbox import read_flight
from cloudml_tf.data.samples import Samples, build_samples
from cloudml_tf.data.simulation.simulator import simulate_flights
from cloudml_tf.data.splits import check_labels
from cloudml_tf.utils.errors import ConfigError, DataError, FlightError, of_flight

Result = TypeVar("Result")


def available_flights(
    config: Config, progress: Progress | None = None, left_out: LeftOut | None = None
) -> dict[str, FlightFiles]:
    """The flights that a configuration names, finds, or simulates (once; kept in the cache folder).

    With data.bad_flights "skip" those of which a file is missing are put into `left_out`.
    """
    data = config.data
    _check_flights(config)
    left_out = left_out if data.bad_flights == "skip" else None
    if data.flights is not None:
        if not data.flights:
            raise DataError("data.flights names no flight. Name the files of one, or set data.path.")
        return {name: _expanded(files) for name, files in data.flights.items()}
    if data.path is not None:
        return find_flights(expand(data.path), data, refused=left_out)
    with cache_folder(data.cache) as cache:
        folders = simulate_flights(data.simulation, cache / "simulated", progress)
    return find_flights(Path(folders[0]).parent, data)


def _check_flights(config: Config) -> None:
    """Refuse a file of scenes where flights are read. Raises `ConfigError`."""
    if config.data.scenes is not None:
        raise ConfigError(
            "this command reads flights, and the configuration names a file of scenes (data.scenes). Leave data.scenes "
            "out, or use a command that reads scenes, such as train, check, evaluate, predict or export."
        )


def _expanded(files: FlightFiles) -> FlightFiles:
    """With `~` and ${NAME} replaced, as in `data.path`."""
    return FlightFiles(**{role: path and str(expand(path)) for role, path in files.model_dump().items()})


def read_flights(
    files: Mapping[str, FlightFiles],
    names: Sequence[str],
    config: Config,
    left_out: LeftOut | None = None,
    labels: bool = True,
) -> list[Flight]:
    """Load flights by name; without `labels` no lidar file is needed.

    With `left_out`, those that cannot be used are put there if data.bad_flights says so.
    """
    found = []
    for name in names:
        try:
            with of_flight(name):
                found.append(read_flight(name, files[name], config.data, config.target, labels=labels))
        except FlightError as error:
            if left_out is None:
                raise
            leave_out(error, left_out, config)
    return found


def without_bad_flights(build: Callable[[LeftOut], Result], config: Config, left_out: LeftOut | None = None) -> Result:
    """What `build` returns for the flights that can be used.

    A flight may turn out to be bad only while its frames are decoded. With data.bad_flights "skip" it is then put into
    `left_out`, and all is built again without it.
    """
    left_out = {} if left_out is None else left_out
    while True:
        try:
            return build(left_out)
        except FlightError as error:
            leave_out(error, left_out, config)


def find_named(
    words: Sequence[str],
    config: Config,
    known: Mapping[str, Mapping[str, str]],
    labels: bool = True,
    refused: dict[str, str] | None = None,
) -> dict[str, FlightFiles]:
    """Flights as a command line names them: folders, camera files, or names that a finished model knows.

    Args:
        words: the command line's.
        config: of the model: how flights are found and read.
        known: flight -> its files, of the model's own flights.
        labels: without, flights need no lidar file.
        refused: takes the flights of folders that lack a file, with the reason; without it, they are an error.

    Raises `DataError` for a word that is none of these, and for two flights of one name.
    """
    _check_flights(config)
    found: dict[str, FlightFiles] = {}
    for word in words:
        for name, files in _named(word, config, known, labels, refused).items():
            if name in found:
                raise DataError(f"two flights are called {name}: {found[name].camera} and {files.camera}. Rename one.")
            found[name] = files
    return found


def _named(
    word: str, config: Config, known: Mapping[str, Mapping[str, str]], labels: bool, refused: dict[str, str] | None
) -> dict[str, FlightFiles]:
    path = Path(word)
    if path.is_dir() and not (needs_camera_alone(config.data, labels) and is_camera(path, config.data)):
        return find_flights(path, config.data, labels, refused)
    if path.is_file() or is_series(path):
        own = {one.resolve() for one in files_at(path)}
        for folder in (path.parent, path.resolve().parent.parent):
            with contextlib.suppress(DataError):
                for name, files in find_flights(folder, config.data, labels).items():
                    if {one.resolve() for one in files_at(Path(files.camera))} == own:
                        return {name: files}
    if is_series(path) and needs_camera_alone(config.data, labels):
        return {without_parts(path.stem).strip("_-. ") or "flight": FlightFiles(camera=str(path))}
    if config.data.flights and word in config.data.flights:
        return {word: _expanded(config.data.flights[word])}
    if word in known:
        return {word: FlightFiles.model_validate(known[word])}
    names = ", ".join({**known, **(config.data.flights or {})}) or "none"
    is_camera_file = path.is_file() or is_series(path)
    problem = "is no camera file whose partners can be found" if is_camera_file else "is no folder with flights"
    raise DataError(
        f"{word}: {problem}, and no flight that the model knows by name ({names}). Name a folder, a camera file that "
        f"matches {', '.join(config.data.camera.files)}, or one of these flights; or name its files: --set "
        'data.flights.NAME={"camera": "…", "navigation": "…"}, and NAME as the flight.'
    )


def samples_of(
    files: Mapping[str, FlightFiles], config: Config, decoding: Progress | None = None, left_out: LeftOut | None = None
) -> Samples:
    """All labelled sequences of the given flights.

    With data.bad_flights "skip", those that cannot be used are put into `left_out`.
    """

    def build(left_out: LeftOut) -> Samples:
        flights = read_flights(files, sorted(files.keys() - left_out), config, left_out)
        check_some(flights, left_out)
        return build_samples(flights, config, decoding)[0]

    samples = without_bad_flights(build, config, left_out)
    check_labels(samples, "the judged flights")
    return samples


def check_some(found: Sized, left_out: LeftOut) -> None:
    """Raises `DataError` where every flight is left out."""
    if not found:
        raise DataError("no flight is left: " + "; ".join(f"{name}: {why}" for name, why in left_out.items()))

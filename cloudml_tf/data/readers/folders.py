"""Find the files that make a flight: in a folder of its own, or by what their names have in common.

may04/CAM_L1B_a.h5  may04/CPL_L2_b.hdf5  may04/NAV_c.h5        one folder per flight, named like the flight
imager/cam_0504.h5  lidar/cpl_0504.nc    state/nav_0504.nc     the text matched by the * of `data.<role>.files`
"""

import contextlib
import re
from collections.abc import Iterator, Sequence
from pathlib import Path

from cloudml_tf.config.data import Data, Feature, FlightFiles
from cloudml_tf.data.readers.formats.frames import files_of
from cloudml_tf.data.readers.formats.part_names import numbered_together, without_parts
from cloudml_tf.data.readers.formats.pictures import SUFFIXES as PICTURES
from cloudml_tf.utils.errors import DataError

Found = dict[str, list[Path]]  # the text matched by the * -> the files


def find_flights(
    root: Path, data: Data, labels: bool = True, refused: dict[str, str] | None = None
) -> dict[str, FlightFiles]:
    """Find the flights of a folder, by name: in it, or in folders one or two levels below.

    `labels` as in `flight_files`. Raises `DataError` where there are none, or a file of one is missing or ambiguous;
    with `refused` such a flight is added there with the reason, and the others are found.
    """
    if not root.is_dir():
        raise DataError(f"{root}: no such folder of flights. Set data.path, or leave it out to simulate.")
    folders = _folders(root, depth=2)
    with_camera = [folder for folder in folders if _matching(folder, data.camera.files)]
    if not with_camera:
        patterns = ", ".join(data.camera.files)
        raise DataError(f"{root}: no camera file ({patterns}) here or up to two folders below. See data.camera.files.")
    if _go_by_names(folders, with_camera, data, labels):
        return _flights_by_names(folders, data, labels, refused)
    found: dict[str, FlightFiles] = {}
    for folder in with_camera:
        name = folder.resolve().name
        if name in found:
            raise DataError(f"{root}: two flights are called {name}: {found[name].camera} and {folder}. Rename one.")
        with _or_refused(name, refused):
            found[name] = flight_files(folder, data, labels)
    return found


@contextlib.contextmanager
def _or_refused(name: str, refused: dict[str, str] | None) -> Iterator[None]:
    try:
        yield
    except DataError as error:
        if refused is None:
            raise
        refused[name] = str(error)


def flight_files(folder: Path, data: Data, labels: bool = True) -> FlightFiles:
    """Find the three files of one folder by their name patterns.

    Without `labels`, for a prediction: the lidar file only if it holds a feature. The navigation file is taken where it
    is there and can give positions of a prediction, or the geometry.
    """
    found = {"camera": str(_one_file(folder, data, "camera"))}
    for role in _roles(data, labels):
        found[role] = str(_one_file(folder, data, role))
    if "navigation" not in found and _helped_by_navigation(data, labels) and _matching(folder, data.navigation.files):
        found["navigation"] = str(_one_file(folder, data, "navigation"))
    return FlightFiles.model_validate(found)


def _helped_by_navigation(data: Data, labels: bool) -> bool:
    """Whether a navigation file that is not needed is of use."""
    return not labels or data.geometry is not None


def features_in(role: str, data: Data) -> list[Feature]:
    """The further inputs in the file of that role."""
    return [feature for feature in data.features if feature.file == role]


def needs_camera_alone(data: Data, labels: bool) -> bool:
    """Whether a flight needs no file but the camera's."""
    return not _roles(data, labels)


def is_camera(folder: Path, data: Data) -> bool:
    """Whether a folder holds no flight by name patterns, but the files of one camera: frames, or parts."""
    if any(_matching(one, data.camera.files) for one in _folders(folder, depth=2)):
        return False
    try:
        return len(files_of(folder)) > 1
    except ValueError:
        return False


def _roles(data: Data, labels: bool) -> list[str]:
    """The files that a flight needs besides the camera file."""
    lidar = labels or bool(features_in("lidar", data))
    computed = data.navigation.solar_zenith is None and data.navigation.heading is None
    navigation = (data.sun_angles and not computed) or bool(features_in("navigation", data))
    return [role for role, needed in (("lidar", lidar), ("navigation", navigation)) if needed]


def _patterns(data: Data, role: str) -> Sequence[str]:
    return getattr(data, role).files


def _folders(root: Path, depth: int) -> list[Path]:
    below = sorted(p for p in root.iterdir() if p.is_dir() and not p.name.startswith(".")) if depth else []
    return [root, *(folder for child in below for folder in _folders(child, depth - 1))]


def _matching(folder: Path, patterns: Sequence[str]) -> list[Path]:
    """The files that match; a pattern of a suffix alone (*.ict) counts where no other does.

    Pictures that match a pattern are the frames of one camera: the pattern itself stands for them. One pattern also
    stands for files whose names differ in the number of the part alone.
    """
    of_suffix = [pattern for pattern in patterns if re.fullmatch(r"\*\.\w+", pattern)]
    for some in ([pattern for pattern in patterns if pattern not in of_suffix], of_suffix):
        found = {_camera_of(folder, pattern, path) for pattern in some for path in folder.glob(pattern)}
        if found := {path for path in found if path is not None}:
            return sorted(numbered_together(sorted(found)))
    return []


def _camera_of(folder: Path, pattern: str, path: Path) -> Path | None:
    """The pattern of a picture, any other file itself, None for a folder."""
    is_picture = path.suffix.lower() in PICTURES and "*" in Path(pattern).name
    return None if not path.is_file() else folder / pattern if is_picture else path


def _one_file(folder: Path, data: Data, role: str) -> Path:
    matches, patterns = _matching(folder, _patterns(data, role)), ", ".join(_patterns(data, role))
    if len(matches) == 1:
        return matches[0]
    names = ", ".join(p.name for p in matches)
    problem = f"{len(matches)} {role} files ({names})" if matches else f"no {role} file"
    raise DataError(
        f"{folder}: {problem}; one is needed that matches {patterns}. Set data.{role}.files, to a name with one * for "
        "the text that a flight's files have in common if flights share folders, or name each flight's files in "
        "data.flights."
    )


def _go_by_names(folders: Sequence[Path], with_camera: Sequence[Path], data: Data, labels: bool) -> bool:
    """Whether flights share a folder, or a flight's files are in several; and each role has a name with one *."""
    roles = _roles(data, labels)
    if not all(any(pattern.count("*") == 1 for pattern in _patterns(data, role)) for role in ("camera", *roles)):
        return False
    shared = any(len(_matching(folder, data.camera.files)) > 1 for folder in with_camera)
    return shared or any(
        any(_matching(folder, _patterns(data, role)) for folder in folders)
        and not any(_matching(folder, _patterns(data, role)) for folder in with_camera)
        for role in roles
    )


def _by_star(folders: Sequence[Path], patterns: Sequence[str]) -> Found:
    """Group files by the text that the * of a pattern matches, without dashes and dots around it."""
    found: Found = {}
    for pattern in patterns:
        if pattern.count("*") == 1:
            name = re.compile("(.*)".join(map(re.escape, pattern.split("*"))))
            for path in (path for folder in folders for path in _matching(folder, [pattern])):
                star = name.fullmatch(path.name)
                if star is not None:
                    found.setdefault(without_parts(star.group(1)).strip("_-. "), []).append(path)
    return found


def _flights_by_names(
    folders: Sequence[Path], data: Data, labels: bool, refused: dict[str, str] | None
) -> dict[str, FlightFiles]:
    found: dict[str, FlightFiles] = {}
    files = {role: _by_star(folders, _patterns(data, role)) for role in ("camera", "lidar", "navigation")}
    for star in sorted(files["camera"]):
        with _or_refused(star or "flight", refused):
            found[star or "flight"] = _files_of_star(star, files, data, labels)
    return found


def _files_of_star(star: str, files: dict[str, Found], data: Data, labels: bool) -> FlightFiles:
    """The files of one flight, from those by role and matched text."""
    paths, needed = {role: files[role].get(star, []) for role in files}, ["camera", *_roles(data, labels)]
    for role in needed:
        if len(paths[role]) != 1:
            problem = ", ".join(map(str, paths[role])) or "there is none"
            raise DataError(
                f"{files['camera'][star][0]}: one {role} file is needed with '{star}' for the * of "
                f"{', '.join(_patterns(data, role))}. Received: {problem}. Set data.{role}.files, or name each "
                "flight's files in data.flights."
            )
    may_have = ["navigation"] if _helped_by_navigation(data, labels) and len(paths["navigation"]) == 1 else []
    return FlightFiles.model_validate({role: str(paths[role][0]) for role in dict.fromkeys([*needed, *may_have])})

"""Flight files that are made to do harm: refused in one line, before memory is taken or another file is opened."""

import os
import signal
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import h5py
import numpy as np
import pytest
from flight_files import (
    DAYS,
    DEPTH,
    FRAME_TIME,
    HEADING,
    SIGNAL,
    ZENITH,
    camera_file,
    lidar_file,
    navigation_file,
    tiny_config,
    write_flight,
)

from cloudml_tf.config.data import FlightFiles
from cloudml_tf.data.readers import hdf5, sandbox
from cloudml_tf.data.readers.flights import Flight, load_flight
from cloudml_tf.data.readers.frames import read_frames
from cloudml_tf.data.readers.sandbox import read_flight
from cloudml_tf.utils.errors import DataError


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    return write_flight(tmp_path / "flights" / "a")


def load(folder: Path, reader: Callable[..., Flight] = load_flight, **limits: Any) -> Flight:
    """The flight, and all its frames."""
    config = tiny_config(folder.parent.parent, {f"data.limits.{key}": value for key, value in limits.items()})
    paths = {"camera": camera_file, "lidar": lidar_file, "navigation": navigation_file}
    files = FlightFiles(**{role: str(find(folder)) for role, find in paths.items()})
    flight = reader("a", files, config.data, config.target)
    assert sum(len(place) for place, _, _ in read_frames(flight, np.arange(len(flight)), config.data.camera)) == 40
    return flight


def replaced(path: Path, name: str, write: Callable[[h5py.File, str], Any]) -> None:
    with h5py.File(path, "r+") as file:
        del file[name]
        write(file, name)


def refused(folder: Path, text: str, **limits: Any) -> None:
    """In one line, and soon."""
    began = time.monotonic()
    with pytest.raises(DataError, match=text) as caught:
        load(folder, **limits)
    assert "\n" not in str(caught.value)
    assert time.monotonic() - began < 5


HUGE = {
    "times": (camera_file, FRAME_TIME, (10**13,), "'Time/TimeUTC' declares .* MB, but the file holds 0 MB"),
    "layers": (
        lidar_file,
        DEPTH,
        (10, 10**12),
        "Feature_Optical_Depth_532' declares .* never written, or made to fill",
    ),
    "angles": (navigation_file, ZENITH, (2**40,), "'nav/solarZenith' declares .* data.limits.expansion 2000"),
    "a frame": (camera_file, SIGNAL, (40, 10**6, 10**6), "'Product/Signal' declares .* MB, but the file holds 0 MB"),
}


@pytest.mark.parametrize("case", HUGE)
def test_huge_shapes_of_which_nothing_was_written(folder: Path, case: str) -> None:
    find, name, shape, text = HUGE[case]
    replaced(find(folder), name, lambda file, path: file.create_dataset(path, shape, "f8"))
    refused(folder, text)


def test_a_few_bytes_that_unfold_to_very_many(folder: Path) -> None:
    """Zeros, deflated twice over by chunk and by fill: one chunk is written, the others are claimed."""

    def bomb(file: h5py.File, path: str) -> None:
        item = file.create_dataset(path, (40, 4096, 4096), "u2", chunks=(1, 4096, 4096), compression="gzip")
        item[0] = 0

    replaced(camera_file(folder), SIGNAL, bomb)
    refused(folder, "declares 1280 MB, but the file holds 0.0.* MB of it")


def test_a_column_longer_than_the_limit(folder: Path) -> None:
    assert len(load(folder, column_values=400)) == 40  # the lidar's layers are 10 x 10
    refused(folder, "declares 100 numbers, more than data.limits.column_values 50 allows", column_values=50)


def test_a_frame_or_chunk_larger_than_the_limit(folder: Path) -> None:
    refused(folder, "'Product/Signal' declares .* MB per frame or chunk, more than data.limits.read_mb", read_mb=1e-4)


def test_a_dataset_that_unfolds_is_let_in_by_a_setting(folder: Path) -> None:
    zeros = np.zeros(3_000_000)
    replaced(
        navigation_file(folder), HEADING, lambda file, path: file.create_dataset(path, data=zeros, compression="gzip")
    )
    refused(folder, "a ratio above data.limits.expansion 100", expansion=100)
    refused(folder, "'nav/heading' must have one row per camera frame, 40. Received: 3000000")


def virtual(target: str) -> Callable[[h5py.File, str], Any]:
    def write(file: h5py.File, path: str) -> None:
        layout = h5py.VirtualLayout((40,), "f8")
        layout[...] = h5py.VirtualSource(target, "x", shape=(40,))
        file.create_virtual_dataset(path, layout)

    return write


ELSEWHERE = {
    "external link": lambda file, path: file.__setitem__(path, h5py.ExternalLink("other.h5", "/x")),
    "soft link to an external link": lambda file, path: (
        file.__setitem__("way", h5py.ExternalLink("other.h5", "/x")),
        file.__setitem__(path, h5py.SoftLink("/way")),
    ),
    "external storage": lambda file, path: file.create_dataset(path, (40,), "f8", external=[("other.h5", 0, 320)]),
    "virtual": virtual("other.h5"),
}


@pytest.mark.parametrize("how", ELSEWHERE)
def test_data_of_other_files_are_not_read_unless_asked_for(folder: Path, how: str, monkeypatch: Any) -> None:
    monkeypatch.chdir(folder)  # HDF5 finds external storage from there
    with h5py.File(folder / "other.h5", "w") as file:
        file["x"] = np.full(40, 35.0)
    replaced(navigation_file(folder), ZENITH, ELSEWHERE[how])
    refused(folder, "'nav/solarZenith' lies in another file, 'other.h5', which a flight file may not read")
    flight = load(folder, other_files=True)
    assert how == "external storage" or (flight.sun_angles_deg[:, 0] == 35.0).all()


def test_a_device_is_not_read(folder: Path) -> None:
    replaced(navigation_file(folder), ZENITH, lambda f, path: f.__setitem__(path, h5py.ExternalLink("/dev/zero", "x")))
    refused(folder, "lies in another file, '/dev/zero'")
    os.remove(navigation_file(folder))
    os.mkfifo(folder / "NAV_20240603.h5")
    config = tiny_config(folder.parent.parent)
    files = {"camera": str(camera_file(folder)), "lidar": str(lidar_file(folder))}
    with pytest.raises(DataError, match=r"NAV_20240603\.h5: is a folder, a device or a pipe, not a file"):
        load_flight("a", FlightFiles(**files, navigation=str(folder / "NAV_20240603.h5")), config.data, config.target)


def test_a_soft_link_is_followed_and_a_circle_is_not(folder: Path) -> None:
    path = navigation_file(folder)
    with h5py.File(path, "r+") as file:
        file["inner/angle"] = file[ZENITH][()]
        del file[ZENITH]
        file[ZENITH] = h5py.SoftLink("/inner/angle")
    assert np.isfinite(load(folder).sun_angles_deg).all()
    replaced(path, ZENITH, lambda file, name: file.__setitem__(name, h5py.SoftLink("/loop")))
    with h5py.File(path, "r+") as file:
        file["loop"] = h5py.SoftLink(f"/{ZENITH}")
    refused(folder, "the links of 'nav/solarZenith' form a loop")


def test_deep_and_self_containing_groups_do_not_hang(folder: Path) -> None:
    path = navigation_file(folder)
    with h5py.File(path, "r+") as file:
        del file[ZENITH]
        place = file
        for _ in range(3000):
            place = place.create_group("g")
        file["itself"] = file["/"]
        for number in range(3000):
            file[f"many/d{number}"] = 1.0
    refused(folder, "no dataset 'nav/solarZenith'")
    with hdf5.open_file(path) as file:
        assert len(hdf5.names(file)) == hdf5.MOST_NAMES


@pytest.mark.parametrize("value", [h5py.Empty("f8"), b"\xff\xfe", "text", 3 + 4j, np.nan, np.inf])
@pytest.mark.parametrize("key", ["scale_factor", "add_offset"])
def test_a_scale_that_is_none(folder: Path, key: str, value: Any) -> None:
    with h5py.File(lidar_file(folder), "r+") as file:
        file[DAYS].attrs[key] = value
    refused(folder, f"attribute {key} must be (a number|finite)")


# --- the helper process


class Deadly:
    """A helper that dies, or sleeps, when it opens a file; as HDF5 does of some damaged ones."""

    def __init__(self, monkeypatch: pytest.MonkeyPatch, tmp_path: Path, act: str) -> None:
        code = (
            "import os, signal, time\nfrom cloudml_tf.data.readers import hdf5, sandbox\n"
            "def say(path):\n    print(path, flush=True)\n"
            f"    if 'NAV_' in str(path): {act}\n"
            "sandbox._say = say\nsandbox.serve()\n"
        )
        (tmp_path / "deadly.py").write_text(code)
        started = sandbox.subprocess.Popen

        def start(command: list[str], **options: Any) -> Any:
            return started([command[0], str(tmp_path / "deadly.py")], **options)

        monkeypatch.setattr(sandbox.subprocess, "Popen", start)
        monkeypatch.setattr(sandbox, "_kept", [])


def test_a_file_that_the_library_dies_of_is_named(
    folder: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    Deadly(monkeypatch, tmp_path, "os.kill(os.getpid(), signal.SIGSEGV)")
    with pytest.raises(DataError, match=r"NAV_20240603\.h5: is damaged: it crashes the HDF5 library \(signal 11\)"):
        load(folder, read_flight)
    with pytest.raises(DataError, match="signal 11"):  # the next one gets a new helper
        load(folder, read_flight)
    assert len(load(folder, read_flight, try_first=False)) == 40


def test_without_a_helper_flights_are_read_as_they_are(
    folder: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    Deadly(monkeypatch, tmp_path, "pass")
    (tmp_path / "deadly.py").write_text("raise SystemExit(3)")
    with pytest.warns(UserWarning, match="it does not start"):
        assert len(load(folder, read_flight)) == 40


def test_a_file_that_takes_too_long_is_named(folder: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    Deadly(monkeypatch, tmp_path, "time.sleep(60)")
    with pytest.raises(DataError, match=r"NAV_20240603\.h5: is damaged: reading its structure takes more than 0\.5 s"):
        load(folder, read_flight, try_s=0.5)


def test_a_helper_ends_though_who_asked_is_gone(folder: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    Deadly(monkeypatch, tmp_path, "time.sleep(60)")
    code = (tmp_path / "deadly.py").read_text().replace("sandbox.serve()", "sandbox.SPARE_S = 0.1\nsandbox.serve()")
    (tmp_path / "deadly.py").write_text(code)
    helper = sandbox.Helper()
    close = helper.close
    monkeypatch.setattr(helper, "close", lambda kill=False: None)
    with pytest.raises(DataError, match="takes more than"):
        helper.ask({"path": str(navigation_file(folder))}, 0.3)
    assert helper.process.wait(10) == -signal.SIGALRM
    close()


def test_the_helper_is_kept_and_tells_nothing_of_good_flights(folder: Path) -> None:
    load(folder, read_flight)
    first = sandbox._kept[0].process.pid
    load(folder, read_flight)
    assert sandbox._kept[0].process.pid == first
    sandbox._kept[0].close()
    load(folder, read_flight)
    assert sandbox._kept[0].process.pid != first


def test_a_damaged_file_says_the_same_with_and_without_the_helper(folder: Path) -> None:
    lidar_file(folder).write_bytes(lidar_file(folder).read_bytes()[:3000])
    for reader in (load_flight, read_flight):
        with pytest.raises(DataError, match="is truncated; copy it again"):
            load(folder, reader)
    sandbox.try_file(lidar_file(folder))  # no fault of the library

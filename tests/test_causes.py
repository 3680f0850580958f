"""One cause, one message: why a file, or a dataset in it, cannot be read, and what helps."""

import errno
import os
import subprocess
import sys
from pathlib import Path
from typing import Any

import h5py
import numpy as np
import pytest

from cloudml_tf.data.discovery.datasets import read_content
from cloudml_tf.data.discovery.mapping import map_files
from cloudml_tf.data.readers import causes, hdf5
from cloudml_tf.utils.errors import DataError


def written(path: Path, **datasets: Any) -> Path:
    with h5py.File(path, "w") as file:
        for name, values in datasets.items():
            file[name] = values
    return path


def behind_filter(path: Path, name: str, code: int, shape: tuple[int, ...] = (12,)) -> Path:
    """Add a dataset that is compressed with a filter that is not there."""
    with h5py.File(path, "a") as file:
        how = h5py.h5p.create(h5py.h5p.DATASET_CREATE)
        how.set_chunk(shape)
        how.set_filter(code, h5py.h5z.FLAG_OPTIONAL, ())
        space = h5py.h5s.create_simple(shape)
        made = h5py.h5d.create(file.id, name.encode(), h5py.h5t.IEEE_F32LE, space, how)
        made.write_direct_chunk((0,) * len(shape), b"x" * 64, 0)
    return path


def damaged(path: Path, name: str) -> Path:
    """Add a compressed dataset whose bytes are wrong."""
    with h5py.File(path, "a") as file:
        file.create_dataset(name, data=np.arange(4000.0), chunks=(4000,), compression="gzip")
        place = file[name].id.get_chunk_info(0)
    content = bytearray(path.read_bytes())
    content[place.byte_offset : place.byte_offset + 40] = bytes(40)
    path.write_bytes(content)
    return path


def said(path: Path, name: str | None = None) -> str:
    with pytest.raises(DataError) as error, hdf5.open_file(path) as file:
        hdf5.read(file, name or "x", 1)
    assert str(path) in str(error.value)
    return str(error.value)


class Writer:
    """Another process that has a file open for writing."""

    def __init__(self, path: Path, code: str) -> None:
        start = f"import h5py, os, sys; file = h5py.File({str(path)!r}, {code}; print(1, flush=True); "
        self.process = subprocess.Popen(
            [sys.executable, "-c", start + "sys.stdin.read() or os._exit(9)"],
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
        )
        assert self.process.stdout is not None
        self.process.stdout.readline()

    def __enter__(self) -> "Writer":
        return self

    def __exit__(self, *error: object) -> None:
        assert self.process.stdin is not None
        assert self.process.stdout is not None
        self.process.stdin.close()
        self.process.wait()
        self.process.stdout.close()


@pytest.mark.parametrize("mode", ["'r+')", "'a', libver='latest')"])
def test_a_file_that_another_process_writes(tmp_path: Path, mode: str) -> None:
    path = written(tmp_path / "x.h5", x=np.arange(3.0))
    with Writer(path, mode):
        message = said(path)
    assert "is open for writing in another process; wait" in message
    assert "damaged" not in message


@pytest.mark.parametrize("swmr", ["", "; file.swmr_mode = True"])
def test_a_writer_that_was_killed(tmp_path: Path, swmr: str) -> None:
    path = tmp_path / "x.h5"
    with Writer(path, f"'w', libver='latest'); file['x'] = [1.0]; file.flush(){swmr}"):
        pass
    message = said(path)
    assert "was not closed by the program that writes it" in message
    assert "`h5clear -s x.h5`" in message


FILTERS = [(32001, "Blosc"), (32015, "Zstandard"), (32004, "LZ4"), (32008, "Bitshuffle"), (307, "bzip2"), (32099, "of")]


@pytest.mark.skipif(not causes._loaded(), reason="hdf5plugin is installed, and brings the filters")
@pytest.mark.parametrize(("code", "name"), FILTERS)
def test_a_filter_that_is_not_installed(tmp_path: Path, code: int, name: str) -> None:
    message = said(behind_filter(tmp_path / "x.h5", "x", code))
    assert f"'x' is compressed with the HDF5 filter {code} ({name}" in message
    assert "pip install hdf5plugin" in message
    assert "h5repack -f GZIP=4" in message
    assert "damaged" not in message


def test_a_package_of_filters_is_loaded_once_one_is_needed(tmp_path: Path) -> None:
    """In a process of its own: here a module of the same name that only says that it was loaded."""
    (tmp_path / "hdf5plugin.py").write_text("print('loaded')")
    behind_filter(tmp_path / "x.h5", "x", 32015)
    written(tmp_path / "plain.h5", x=np.arange(3.0))
    code = "import sys; from pathlib import Path; from cloudml_tf.data.discovery.datasets import read_content\n"
    code += "try: read_content(Path(sys.argv[1]))\nexcept Exception as error: print(error)"
    paths = os.pathsep.join([str(tmp_path), str(Path(causes.__file__).parents[3])])
    for name, expected in (("plain", ""), ("x", "loaded")):
        done = subprocess.run(
            [sys.executable, "-c", code, str(tmp_path / f"{name}.h5")],
            capture_output=True,
            text=True,
            env={**os.environ, "PYTHONPATH": paths},
        )
        assert done.stdout.startswith(expected), done.stderr
        assert ("loaded" in done.stdout) == (name == "x")


def test_no_permission(tmp_path: Path) -> None:
    """The system's superuser may read everything, so another user tries there."""
    path = written(tmp_path / "x.h5", x=np.arange(3.0))
    path.chmod(0)
    code = "from pathlib import Path; from cloudml_tf.data.readers import causes, hdf5; import sys, os\n"
    code += "os.getuid() or os.seteuid(65534)\n"
    code += "try:\n with hdf5.open_file(Path(sys.argv[1])): pass\nexcept Exception as error: print(error)"
    for folder in (tmp_path, *list(tmp_path.parents)[:3]):
        folder.chmod(folder.stat().st_mode | 0o055)
    done = subprocess.run([sys.executable, "-c", code, str(path)], capture_output=True, text=True)
    assert "may not be read: its permissions forbid it; `chmod u+r`" in done.stdout, done.stderr


@pytest.mark.parametrize(
    ("content", "expected"),
    [
        (b"", "is not an HDF5 file"),
        (b"time,latitude\n", "is not an HDF5 file"),
        (b"\x0e\x03\x13\x01" + bytes(90), "is an HDF4 file; convert it with `h4toh5"),
        (b"MATLAB 5.0 MAT-file, Platform: GLNXA64" + bytes(90), "save it in MATLAB with `save('x.mat','-v7.3')`"),
        (b"PK\x03\x04" + bytes(90), "is a zip archive; unpack it"),
        (b"\x1f\x8b\x08" + bytes(90), "is compressed as a whole; unpack it with `gunzip`"),
        (causes.SIGNATURE + b"\xff" * 90, "is damaged; copy it again"),
        (bytes(512) + causes.SIGNATURE + b"\xff" * 90, "is damaged; copy it again"),
    ],
)
def test_what_a_file_is_that_cannot_be_opened(tmp_path: Path, content: bytes, expected: str) -> None:
    path = tmp_path / "x.h5"
    path.write_bytes(content)
    assert expected in said(path)


@pytest.mark.parametrize("user_block", [0, 512, 4096])
def test_a_truncated_file(tmp_path: Path, user_block: int) -> None:
    path = tmp_path / "x.mat"
    with h5py.File(path, "w", userblock_size=user_block) as file:
        file["x"] = np.arange(9000.0)
    path.write_bytes(path.read_bytes()[:-5000])
    assert "is truncated; copy it again, or wait until the program that writes it has closed it" in said(path)


@pytest.mark.parametrize(
    ("number", "expected"),
    [
        (errno.EIO, "cannot be read from its disk or network; check the mount"),
        (errno.ESTALE, "cannot be read from its disk or network; check the mount"),
        (errno.EMFILE, "too many files are open"),
    ],
)
def test_errors_of_the_system(tmp_path: Path, number: int, expected: str) -> None:
    path = written(tmp_path / "x.h5", x=np.arange(3.0))
    error = OSError(f"Unable to open file (unable to open file: name = 'x', errno = {number}, error message = '?')")
    assert expected in causes.not_opened(path, error)
    with hdf5.open_file(path) as file:
        assert expected in causes.not_read(file, "x", error)


def test_locks_that_a_disk_does_not_know(tmp_path: Path) -> None:
    path = written(tmp_path / "x.h5", x=np.arange(3.0))
    error = OSError(f"Unable to open file (unable to lock file, errno = {errno.ENOLCK}, error message = '?')")
    assert "its disk knows no locks; set the environment variable HDF5_USE_FILE_LOCKING" in causes.not_opened(
        path, error
    )


def test_memory_is_no_damage(tmp_path: Path) -> None:
    with hdf5.open_file(written(tmp_path / "x.h5", x=np.arange(3.0))) as file:
        said = causes.not_read(file, "x", MemoryError("Unable to allocate 9 GiB"))
    assert "does not fit into the memory that is free (Unable to allocate 9 GiB)" in said


def test_a_dataset_that_nobody_needs_does_not_cost_the_file(tmp_path: Path) -> None:
    path = written(tmp_path / "x.h5", time=np.arange(12.0), table=np.zeros(3, [("a", "f8"), ("b", "i4")]))
    behind_filter(path, "hidden", 32013)
    damaged(path, "broken")
    with h5py.File(path, "a") as file:
        file["null"] = h5py.Empty("f8")
        file["names"] = [b"a", b"b"]
        file["packed"] = [1, 2]
        file["packed"].attrs["scale_factor"] = "ten"
    content = read_content(path)
    assert [found.name for found in content.datasets] == ["time"]
    text = "; ".join(content.skipped)
    assert "'broken' cannot be read, the file is damaged" in text
    assert "'hidden' is compressed with the HDF5 filter 32013 (ZFP)" in text
    assert "'table' holds records; write each field as a dataset" in text
    assert "'null' is null" in text
    assert "'packed': attribute scale_factor must be a number" in text
    assert "names" not in text
    (note,) = (note for note in map_files([content]).notes if "without" in note)
    assert note.startswith(f"{path}: without 'broken'")


def test_a_file_whose_datasets_all_cannot_be_read_says_why(tmp_path: Path) -> None:
    path = behind_filter(tmp_path / "x.h5", "images", 32026, (3, 4, 4))
    with pytest.raises(DataError, match=r"no numeric dataset that can be read: 'images' is compressed with .*Blosc2"):
        read_content(path)

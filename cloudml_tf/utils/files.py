"""Write every file whole or not at all: first beside its destination, then renamed.

A file under its final name is on the disk, not only on its way there, so it survives a power cut too. What a killed
process left half-written keeps its temporary name, and is removed by the next process that locks the folder
(`cloudml_tf.utils.locks`).
"""

import contextlib
import ctypes
import json
import os
import re
import shutil
import tempfile
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

from cloudml_tf.utils.errors import RunError
from cloudml_tf.utils.locks import OLD, WRITING


def update_by_pieces(digest: Any, path: Path, pieces: int) -> None:
    """Update a digest of `hashlib` by segments of a file, 1 MB each: the first, the last, some between them."""
    last = max(path.stat().st_size - 2**20, 0)
    with open(path, "rb") as file:
        for piece in range(pieces):
            file.seek(last * piece // (pieces - 1))
            digest.update(file.read(2**20))


@contextlib.contextmanager
def whole_file(path: Path) -> Iterator[Path]:
    """Yield a temporary path (same folder, same suffix) to write; rename it to `path` if the block succeeds."""

    def make() -> str:
        handle, name = tempfile.mkstemp(prefix=WRITING, suffix="-" + path.name, dir=path.parent)
        os.close(handle)
        os.chmod(name, 0o644)
        return name

    with _renamed(path, make, os.replace, lambda left: left.unlink(missing_ok=True)) as temporary:
        yield temporary


@contextlib.contextmanager
def whole_folder(path: Path) -> Iterator[Path]:
    """Yield a temporary folder to fill; if the block succeeds it replaces `path` and everything in it."""

    def make() -> str:
        name = tempfile.mkdtemp(prefix=f"{WRITING}{path.name}-", dir=path.parent)
        os.chmod(name, 0o755)
        return name

    with _renamed(path, make, _put, lambda left: shutil.rmtree(left, ignore_errors=True)) as temporary:
        yield temporary


@contextlib.contextmanager
def _renamed(
    path: Path, make: Callable[[], str], put: Callable[[Path, Path], object], remove: Callable[[Path], object]
) -> Iterator[Path]:
    """Yield what `make` makes beside `path`, and `put` it there if the block succeeds."""
    try:
        path.parent.mkdir(parents=True, exist_ok=True)
        temporary = Path(make())
    except OSError as error:
        raise _unwritable(path, error) from None
    try:
        yield temporary
        for part in [*temporary.rglob("*"), temporary]:
            _to_disk(part)
        put(temporary, path)
        _to_disk(path.parent)
    except OSError as error:
        raise _unwritable(path, error) from error
    finally:
        remove(temporary)


def _to_disk(path: Path) -> None:
    """Flush a file, or the names in a folder, to the disk itself. Raises `OSError` where it is full."""
    if os.name != "posix":
        return
    handle = os.open(path, os.O_RDONLY)
    try:
        os.fsync(handle)
    except OSError:
        if not path.is_dir():  # some file systems do not sync folders
            raise
    finally:
        os.close(handle)


def _put(new: Path, path: Path) -> None:
    """Rename a folder to `path`, replacing what is there; the caller removes what is then named `new`."""
    if not path.exists():
        os.replace(new, path)
        return
    if _swapped(new, path):
        return
    old = Path(tempfile.mkdtemp(prefix=f"{OLD}{path.name}-", dir=path.parent))
    os.replace(path, old / path.name)
    try:
        os.replace(new, path)
    except OSError:
        os.replace(old / path.name, path)
        raise
    shutil.rmtree(old, ignore_errors=True)


def _swapped(new: Path, path: Path) -> bool:
    """Exchange two folders in one step, so that one exists at every moment. False where the system cannot."""
    here, exchange = -100, 2  # AT_FDCWD, RENAME_EXCHANGE of Linux
    try:
        rename = ctypes.CDLL(None).renameat2
    except (AttributeError, OSError, TypeError):
        return False
    done: int = rename(here, os.fsencode(new), here, os.fsencode(path), exchange)
    return done == 0


def check_place(path: Path) -> None:
    """Refuse a destination that cannot be written, before the work that is to be written there. Raises `RunError`."""
    folder = path.parent
    while not folder.exists():
        folder = folder.parent
    if path.is_dir():
        raise RunError(f"{path}: is a folder. Name a file.")
    if not folder.is_dir():
        raise RunError(f"{path}: cannot be written, since {folder} is a file. Choose another place.")
    if not os.access(folder, os.W_OK | os.X_OK):
        raise RunError(f"{path}: cannot be written, since nothing may be written in {folder}. Choose another place.")


def write_text(path: Path, text: str) -> None:
    """Write a text file, whole or not at all."""
    with whole_file(path) as temporary:
        temporary.write_text(text, encoding="utf-8")


def write_json(path: Path, content: Any) -> None:
    """Write JSON, whole or not at all. NaN and infinity become null, so that every reader can read it."""
    write_text(path, json.dumps(finite(content), indent=2, allow_nan=False) + "\n")


def finite(value: Any) -> Any:
    """The same nested structure with None for each number that is not finite."""
    if isinstance(value, dict):
        return {str(key): finite(part) for key, part in value.items()}
    if isinstance(value, list | tuple):
        return [finite(part) for part in value]
    if isinstance(value, float) and not (float("-inf") < value < float("inf")):
        return None
    return value


def _unwritable(path: Path, error: OSError) -> RunError:
    code = re.search(r"errno = (\d+)", str(error))  # HDF5 reports it within its own text
    number = int(code[1]) if code else error.errno
    reason = os.strerror(number) if number else str(error).splitlines()[0]
    return RunError(f"{path}: cannot be written ({reason}). Choose a writable folder or free some space.")

"""One process per folder: locks that end with their process, and removal of what killed processes left.

A lock is a `flock` on a small file, which the system releases when its process ends, however that ends. The holder of a
folder's lock knows that half-written files in it belong to nobody.
"""

import contextlib
import glob
import os
import shutil
import socket
import time
from collections.abc import Iterator
from pathlib import Path

from cloudml_tf.utils.errors import RunError

try:
    import fcntl
except ImportError:  # Windows: folders are not guarded there, and leftovers stay
    fcntl = None  # type: ignore[assignment]

WRITING, OLD = ".writing-", ".old-"
NAME = ".lock"
PATIENCE_S = 3.0  # a killed process needs a moment to end, and its workers check every half second whether it has


@contextlib.contextmanager
def alone_in(folder: Path, doing: str, below: bool = True, patience_s: float = PATIENCE_S) -> Iterator[None]:
    """Lock a folder for this process; first remove what killed processes left half-written in it, and `below` it.

    Raises `RunError` where another process holds it: `doing` says what that would be, such as "a training".
    """
    with _held(folder / NAME, f"{folder}: {doing} is running in this folder", patience_s):
        find = folder.rglob if below else folder.glob
        sweep([*find(f"{WRITING}*"), *find(f"{OLD}*")])
        yield


@contextlib.contextmanager
def alone_at(path: Path, doing: str, patience_s: float = 3600.0) -> Iterator[None]:
    """Lock a path that is replaced as a whole: the lock lies beside it, and the call waits for another holder to
    end."""
    try:
        path.parent.mkdir(parents=True, exist_ok=True)
    except OSError as error:
        raise RunError(f"{path.parent}: the folder cannot be made ({error.strerror}); choose another.") from None
    with _held(path.parent / f"{NAME}-{path.name}", f"{path}: {doing} is running there", patience_s):
        name, some = glob.escape(path.name), "?" * 8  # `tempfile` draws eight characters
        patterns = (f"{WRITING}{some}-{name}", f"{WRITING}{name}-{some}", f"{OLD}{name}-{some}")
        sweep([left for pattern in patterns for left in path.parent.glob(pattern)])
        yield


def is_held(folder: Path) -> bool:
    """Whether a process holds a folder with `alone_in`."""
    if fcntl is None or not (folder / NAME).is_file():
        return False
    with contextlib.suppress(OSError), open(folder / NAME) as file:
        return not _lock(file.fileno())
    return False


@contextlib.contextmanager
def _held(path: Path, problem: str, patience_s: float) -> Iterator[None]:
    if fcntl is None:
        yield
        return
    handle = _taken(path, problem, time.monotonic() + patience_s)
    try:
        yield
    finally:
        with contextlib.suppress(OSError):
            os.unlink(path)  # before the lock is released: whoever waits for it sees that this file is gone
        os.close(handle)


def _taken(path: Path, problem: str, end: float) -> int:
    while True:
        try:
            handle = os.open(path, os.O_RDWR | os.O_CREAT, 0o644)
        except OSError as error:
            reason = f"cannot be written ({error.strerror}). Choose a writable folder or free some space."
            raise RunError(f"{path.parent}: the folder {reason}") from None
        if _lock(handle):
            if _is_at(handle, path):
                with contextlib.suppress(OSError):  # a full disk is reported by whatever needs the space
                    os.ftruncate(handle, 0)
                    os.write(handle, f"process {os.getpid()} on {socket.gethostname()}".encode())
                return handle
        elif time.monotonic() > end:
            who = os.read(handle, 200).decode(errors="replace")
            os.close(handle)
            raise RunError(f"{problem} ({who or 'another process'}). Wait for it, or stop it first.")
        else:
            time.sleep(0.1)
        os.close(handle)


def _lock(handle: int) -> bool:
    """Lock an open file. False where another process holds it; True too where the file system has no locks."""
    try:
        fcntl.flock(handle, fcntl.LOCK_EX | fcntl.LOCK_NB)
    except BlockingIOError:
        return False
    except OSError:
        return True
    return True


def _is_at(handle: int, path: Path) -> bool:
    """Whether a path still is the file that is open: another process may have removed it before it was locked."""
    try:
        return os.path.samestat(os.fstat(handle), os.stat(path))
    except FileNotFoundError:
        return False


def sweep(leftovers: list[Path]) -> None:
    """Remove what killed processes left half-written.

    A folder that one had moved aside is moved back where its replacement did not arrive.
    """
    for left in leftovers if fcntl is not None else []:
        if left.name.startswith(OLD):
            for moved in left.iterdir():
                if not (left.parent / moved.name).exists():
                    os.replace(moved, left.parent / moved.name)
        if left.is_dir():
            shutil.rmtree(left, ignore_errors=True)
        else:
            left.unlink(missing_ok=True)

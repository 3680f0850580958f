"""Read the structure of a flight's files in a subprocess first: a damaged file can crash HDF5.

HDF5 is a C library: a flipped bit at the wrong position is a segmentation fault, or an endless loop. In a training that
would end the training without a message. So one helper process, started once and used for all flights, first does what
`load_flight` is about to do, and reads the first and last frame. Where it dies, or takes too long, an ordinary error
names the current file, and the next flight gets a new helper.

    this process    {"files": …} ─▶   helper: opens …, opens …      ─▶ "done"        read here
                                      helper: opens …, dies         ─▶ end of file   DataError
"""

import atexit
import contextlib
import json
import os
import queue
import signal
import subprocess
import sys
import threading
import warnings
from pathlib import Path
from typing import Any

from pydantic import BaseModel

from cloudml_tf.config.data import Data, FlightFiles, Target
from cloudml_tf.data.readers import hdf5
from cloudml_tf.data.readers.flights import Flight, load_flight
from cloudml_tf.utils.errors import DataError

READY, DONE = "ready", "done"
START_S = 60.0  # until the helper is ready
SPARE_S = 5.0  # beyond the time that the caller waits
MEMORY_GB = 8  # of address space: the system refuses what a damaged size would take beyond it
ROOT = Path(__file__).parents[2]


def read_flight(name: str, files: FlightFiles, data: Data, target: Target, labels: bool = True) -> Flight:
    """Like `load_flight`, but the helper reads the flight's structure first.

    Raises `DataError` naming the file that crashes it.
    """
    if data.limits.try_first:
        asked: dict[str, BaseModel] = {"files": files, "data": data, "target": target}
        content = {key: part.model_dump(mode="json") for key, part in asked.items()}
        _ask({"name": name, **content, "labels": labels}, data.limits.try_s)
    return load_flight(name, files, data, target, labels)


def try_file(path: Path, seconds: float = hdf5.File.limits.try_s) -> None:
    """Read one file of unknown layout in the helper, as `cloudml init --from` reads it."""
    _ask({"path": str(path)}, seconds)


class Helper:
    """The helper process, and a pipe to it."""

    def __init__(self) -> None:
        paths = [str(ROOT), *filter(None, [os.environ.get("PYTHONPATH")])]
        self.owner, self.lines = os.getpid(), queue.Queue[str]()
        self.process = subprocess.Popen(
            [sys.executable, "-m", "cloudml_tf.data.readers.sandbox"],
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            stderr=subprocess.DEVNULL,
            text=True,
            encoding="utf-8",
            env={**os.environ, "PYTHONPATH": os.pathsep.join(paths)},
        )
        self.listener = threading.Thread(target=self._listen, name="sandbox", daemon=True)
        self.listener.start()
        with contextlib.suppress(queue.Empty):
            if self.lines.get(timeout=START_S) == READY:
                return
        self.close(kill=True)
        raise OSError("it does not become ready")

    @property
    def alive(self) -> bool:
        """Whether this process, and not a fork of it, can use the helper."""
        return self.owner == os.getpid() and self.process.poll() is None

    def ask(self, content: dict[str, Any], seconds: float) -> None:
        """Send one request. Raises `DataError` where the helper does not survive it."""
        opened, problem = "", ""
        try:
            print(json.dumps({**content, "seconds": seconds}), file=self.process.stdin, flush=True)
            while (line := self.lines.get(timeout=seconds)) != DONE:
                if not line:
                    self.process.wait()
                    code = self.process.returncode
                    how = f"signal {-code}" if code < 0 else f"exit code {code}"
                    problem = f"it crashes the HDF5 library ({how})"
                    break
                opened = line
        except queue.Empty:
            problem = f"reading its structure takes more than {seconds:g} s (data.limits.try_s)"
        except OSError:
            problem = "the helper process that reads it first has ended"
        if problem:
            self.close(kill=True)
            raise DataError(f"{opened or content.get('path', 'flight files')}: is damaged: {problem}. Copy it again.")

    def close(self, kill: bool = False) -> None:
        """End the helper."""
        if self.owner != os.getpid():
            return
        if kill:
            self.process.kill()
        with contextlib.suppress(OSError):
            self.process.stdin.close()  # type: ignore[union-attr]
        self.process.wait()
        self.listener.join()
        self.process.stdout.close()  # type: ignore[union-attr]

    def _listen(self) -> None:
        for line in self.process.stdout or ():
            self.lines.put(line.rstrip("\n"))
        self.lines.put("")


_kept: list[Helper] = []


def _ask(content: dict[str, Any], seconds: float) -> None:
    if not _kept or not _kept[0].alive:
        try:
            _kept[:] = [Helper()]
        except OSError as error:
            text = f"flight files are read without a subprocess: it does not start ({error}); see data.limits.try_first"
            warnings.warn(text, stacklevel=4)
            return
        atexit.register(_kept[0].close)
    _kept[0].ask(content, seconds)


# --- in the helper process


def serve() -> None:
    """Serve requests until the pipe is closed."""
    _limit_memory()
    hdf5.File.opening = staticmethod(_say)
    _say(READY)
    for line in sys.stdin:
        content = json.loads(line)
        _end_after(content.pop("seconds") + SPARE_S)
        with contextlib.suppress(Exception):  # the other process will meet and report any error itself
            _try(content)
        _end_after(0.0)
        _say(DONE)


def _end_after(seconds: float) -> None:
    """Let the system end this process after a time, even inside HDF5: the caller may be gone. 0 means never."""
    if hasattr(signal, "setitimer"):
        signal.setitimer(signal.ITIMER_REAL, seconds)


def _try(content: dict[str, Any]) -> None:
    if "path" in content:
        from cloudml_tf.data.discovery.datasets import read_content

        read_content(Path(content["path"]))
        return
    from cloudml_tf.data.readers.flights import load_flight
    from cloudml_tf.data.readers.frames import read_frames

    data, target = Data.model_validate(content["data"]), Target.model_validate(content["target"])
    files = FlightFiles.model_validate(content["files"])
    flight = load_flight(content["name"], files, data, target, content["labels"])
    for _ in read_frames(flight, flight.row.argsort()[[0, -1]], data.camera):
        pass


def _say(text: object) -> None:
    print(text, flush=True)


def _limit_memory() -> None:
    with contextlib.suppress(ImportError, ValueError, OSError):
        import resource

        resource.setrlimit(resource.RLIMIT_AS, (MEMORY_GB * 2**30, resource.getrlimit(resource.RLIMIT_AS)[1]))
        resource.setrlimit(resource.RLIMIT_CORE, (0, 0))


if __name__ == "__main__":
    serve()

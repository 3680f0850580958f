"""One search in several processes: KerasTuner's chief assigns trials, workers run them; here all on one machine.

KerasTuner reads its role from the environment: KERASTUNER_TUNER_ID ("chief", or any name of a worker),
KERASTUNER_ORACLE_IP and KERASTUNER_ORACLE_PORT of the chief.
"""

import contextlib
import os
import socket
import subprocess
import sys
import time
from collections.abc import Callable, Iterator
from functools import partial
from pathlib import Path
from typing import IO, Literal

from cloudml_tf.utils.console import Console
from cloudml_tf.utils.errors import ConfigError, RunError
from cloudml_tf.utils.threads import THREADS, begin_child

ID, ADDRESS, PORT = "KERASTUNER_TUNER_ID", "KERASTUNER_ORACLE_IP", "KERASTUNER_ORACLE_PORT"
PARENT = "CLOUDML_SEARCH_PARENT"  # process number of the `--workers` that started this one
STARTS = 3  # for a worker that dies


def role() -> Literal["alone", "chief", "worker"]:
    """The role of this process by the environment. Raises `ConfigError` where it is incomplete."""
    missing = [name for name in (ID, ADDRESS, PORT) if not os.environ.get(name)]
    if len(missing) == 3:
        return "alone"
    if missing:
        raise ConfigError(f"The environment lacks {' and '.join(missing)}; a chief and its workers need all three.")
    return "chief" if "chief" in os.environ[ID] else "worker"


def is_child() -> bool:
    """Whether `--workers` of another process started this one."""
    return PARENT in os.environ


def follow_parent() -> None:
    """End with the process of `--workers` that started this one, which holds the other end of its standard input."""
    if is_child():
        begin_child(partial(os.read, sys.stdin.fileno(), 1))


def wait_for_chief(folder: Path, console: Console, patience_s: float = 600.0) -> bool:
    """Wait until the chief has started; False where its search has ended. Raises `RunError` after ten minutes."""
    if not (folder / "search_config.json").is_file():
        console.say(f"waiting for the chief to start in {folder}")
    end = time.monotonic() + patience_s
    while not (folder / "search_config.json").is_file():
        if time.monotonic() > end:
            raise RunError(f"{folder}: no search_config.json. Is the chief running, with the same --run-dir?")
        time.sleep(0.5)
    return not (folder / "search.json").is_file()


@contextlib.contextmanager
def lost_chief_as_error() -> Iterator[None]:
    """Turn the loss of the chief into a `RunError` with a clear message."""
    import grpc

    try:
        yield
    except grpc.RpcError as error:
        where = f"{os.environ.get(ADDRESS)}:{os.environ.get(PORT)}"
        reason = error.code().name if isinstance(error, grpc.Call) else str(error)
        raise RunError(
            f"the chief at {where} does not respond ({reason}). Start it with --resume, then this process."
        ) from None


class Worker:
    """A child process; its output goes to a file."""

    def __init__(self, name: str, folder: Path, environment: dict[str, str]) -> None:
        self.name, self.log = name, folder / "logs" / f"{name}.log"
        self.command = [sys.executable, "-m", "cloudml_tf", "search", str(folder / "search_config.json")]
        self.command += ["--run-dir", str(folder)]
        self.environment = {**os.environ, **environment, ID: name, PARENT: str(os.getpid())}
        self.starts = 0
        self.start()

    def start(self) -> None:
        """Start it, also again after it has died: KerasTuner gives it the same trial."""
        self.log.parent.mkdir(exist_ok=True)
        self.starts += 1
        file: IO[str]
        with open(self.log, "a", encoding="utf-8") as file:
            self.process = subprocess.Popen(
                self.command, env=self.environment, stdin=subprocess.PIPE, stdout=file, stderr=file
            )

    def ended(self) -> bool:
        """Whether it is done. Restarts it if it died; raises `RunError` where that does not help."""
        code = self.process.poll()
        if not code:
            return code == 0
        if self.starts >= STARTS or self.name == "chief":
            last = self.log.read_text(encoding="utf-8").strip().splitlines()[-1:]
            raise RunError(f"{self.name} ended with {code}: {''.join(last)} Its whole output is in {self.log}.")
        self.start()
        return False


def run_workers(folder: Path, count: int, threads: int | None, rows: Callable[[], None], console: Console) -> None:
    """Run a chief and workers as processes until all workers have ended; on an error, end them all."""
    each = threads or max((os.cpu_count() or 1) // count, 1)
    console.say(f"a chief and {count} workers of {each} thread{'s' if each > 1 else ''}; logs in {folder / 'logs'}")
    environment = {ADDRESS: "127.0.0.1", PORT: str(_free_port()), **dict.fromkeys(THREADS, str(each))}
    started: list[Worker] = []
    try:
        started.append(Worker("chief", folder, environment))
        started += [Worker(f"worker{number}", folder, environment) for number in range(count)]
        chief, busy = started[0], started[1:]
        while busy := [worker for worker in busy if not worker.ended()]:
            chief.ended()
            rows()
            time.sleep(0.5)
        rows()
    finally:
        for one in started:  # the chief checks only every 20 s whether it is still needed
            one.process.terminate()
        for one in started:
            one.process.wait()


def _free_port() -> int:
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        return int(probe.getsockname()[1])

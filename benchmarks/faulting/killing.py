"""A real command in a process of its own, and the moment at which it is killed."""

import os
import signal
import subprocess
import sys
import time
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Any

Ready = Callable[[], bool]
Units = dict[str, Any]  # what is finished, by name, and a stamp that changes if it is made again
TERMINATED = 143
LIMIT_S = 300.0


@dataclass(frozen=True)
class Moment:
    """When a process is killed.

    Args:
        name: for the table.
        ready: becomes true while the process runs; None from its start on.
        wait_s: from then on.
        signal: SIGKILL or SIGTERM.
    """

    name: str
    ready: Ready | None
    wait_s: float
    signal: int = signal.SIGKILL


class Changes:
    """True once a file, or the number of files, has changed so many times."""

    def __init__(self, look: Callable[[], Any], times: int = 1) -> None:
        self.look, self.left, self.last = look, times, look()

    def __call__(self) -> bool:
        now = self.look()
        if now != self.last:
            self.last, self.left = now, self.left - 1
        return self.left <= 0


def stamp(path: Path) -> tuple[int, int] | None:
    """Changes when a file is written anew."""
    try:
        found = path.stat()
    except OSError:
        return None
    return found.st_ino, found.st_mtime_ns


def stamps(folder: Path, pattern: str) -> Units:
    """Of all files that match."""
    return {str(path.relative_to(folder)): stamp(path) for path in sorted(folder.glob(pattern))}


@dataclass(frozen=True)
class Ended:
    """How a process ended."""

    code: int  # negative: the signal that killed it
    killed: bool  # False where it had ended before its moment came
    half_written: bool  # whether a file lay there that was being written
    problem: str = ""  # what SIGTERM left to be wished for, or how a command failed


def command(*words: object) -> list[str]:
    """`cloudml …` as a process."""
    return [sys.executable, "-m", "cloudml_tf", *map(str, words)]


def run(words: list[str], log: Path) -> Ended:
    """Run to the end."""
    return killed_at(None, words, log, [])


def killed_at(moment: Moment | None, words: list[str], log: Path, written_below: list[Path]) -> Ended:
    """Run until the moment comes, kill, and wait for the end. What it says goes to the log."""
    log.parent.mkdir(parents=True, exist_ok=True)
    said = log.with_suffix(".err")
    with open(log, "a") as out, open(said, "w") as err:
        environment = {**os.environ, "TF_CPP_MIN_LOG_LEVEL": "3"}
        process = subprocess.Popen(words, stdout=out, stderr=err, env=environment, stdin=subprocess.DEVNULL)
        killed = moment is not None and _reached(moment, process)
        if killed and moment is not None:
            os.kill(process.pid, moment.signal)
        code = process.wait(LIMIT_S)
    with open(log, "a") as out:
        out.write(f"{said.read_text()}--- {' '.join(words[2:])}: {code}, {moment and moment.name}\n")
    # What had ended well by itself when the signal came was not killed.
    killed = killed and code in (-signal.SIGKILL, -signal.SIGTERM, TERMINATED)
    half = killed and any(list(folder.rglob(".writing-*")) for folder in written_below)
    return Ended(code, killed, half, _problem(moment, killed, code, said.read_text()))


def timeline(words: list[str], log: Path, events: dict[str, Ready]) -> dict[str, float]:
    """Run to the end; seconds from the start until each event, and until the "end"."""
    found: dict[str, float] = {}
    begun = time.monotonic()
    log.parent.mkdir(parents=True, exist_ok=True)
    with open(log, "a") as out:
        process = subprocess.Popen(words, stdout=out, stderr=out, stdin=subprocess.DEVNULL)
        while process.poll() is None:
            for name, happened in events.items():
                if name not in found and happened():
                    found[name] = time.monotonic() - begun
            time.sleep(0.002)
    if process.returncode not in (0, 3):
        raise RuntimeError(f"{' '.join(words)} ended with {process.returncode}: see {log}")
    return {**found, "end": time.monotonic() - begun}


def _reached(moment: Moment, process: subprocess.Popen[bytes]) -> bool:
    """Wait for the moment; False where the process ended before it."""
    end = time.monotonic() + LIMIT_S
    while moment.ready is not None and not moment.ready():
        if process.poll() is not None or time.monotonic() > end:
            return False
        time.sleep(0.001)
    time.sleep(moment.wait_s)
    return process.poll() is None


def _problem(moment: Moment | None, killed: bool, code: int, said: str) -> str:
    if not killed:
        return "" if code in (0, 3) else f"ended with {code}: {said.strip()[-300:]}"
    if moment is None or moment.signal != signal.SIGTERM:
        return ""
    if code == -signal.SIGTERM:  # before Python had begun to look for it
        return "" if not said else f"SIGTERM: {said.strip()[-300:]}"
    lines = [line for line in said.splitlines() if line.strip()]
    return "" if code == TERMINATED and len(lines) == 1 else f"SIGTERM: exit code {code}, {len(lines)} lines: {said}"

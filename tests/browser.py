"""A real browser for tests: Debian's chromium, driven over the DevTools protocol through two pipes.

    with Browser() as browser:
        seen = browser.visit(path, width=400, dark=True)

No driver and no further package: chromium reads commands from file descriptor 3 and writes answers to 4, each one JSON
that ends in a zero byte.
"""

import base64
import json
import os
import select
import shutil
import subprocess
import sys
import tempfile
import time
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

CHROMIUM = shutil.which("chromium")
OPTIONS = [
    "--headless", "--no-sandbox", "--disable-gpu", "--disable-quic", "--no-first-run", "--disable-sync",
    "--hide-scrollbars", "--disable-background-networking", "--disable-component-update", "--disable-dev-shm-usage",
    "--remote-debugging-pipe",
]  # fmt: skip
# Makes two pipes of ours the descriptors 3 and 4 of the browser, whatever their numbers are here.
LAUNCH = """
import fcntl, os, sys
ends = [fcntl.fcntl(int(number), fcntl.F_DUPFD, 10) for number in sys.argv[1:3]]
os.dup2(ends[0], 3), os.dup2(ends[1], 4), os.execv(sys.argv[3], sys.argv[3:])
"""


@dataclass
class Visit:
    """What a page did while it was loaded."""

    complaints: list[str] = field(default_factory=list)  # console messages above "info", exceptions
    requests: list[str] = field(default_factory=list)  # every address that was asked for
    seconds: float = 0.0  # from the navigation to the load event


class Browser:
    """One window of a headless chromium with a fresh profile."""

    def __enter__(self) -> "Browser":
        assert CHROMIUM is not None
        self.profile = tempfile.mkdtemp(prefix="chromium-")
        theirs_in, self.commands = os.pipe()
        self.answers, theirs_out = os.pipe()
        command = [sys.executable, "-c", LAUNCH, str(theirs_in), str(theirs_out)]
        self.process = subprocess.Popen(
            [*command, CHROMIUM, *OPTIONS, f"--user-data-dir={self.profile}"],
            pass_fds=(theirs_in, theirs_out),
            stdout=subprocess.DEVNULL,
            stderr=subprocess.DEVNULL,
        )
        os.close(theirs_in), os.close(theirs_out)
        self.read, self.number, self.session = b"", 0, ""
        self.seen: list[dict[str, Any]] = []  # events since the last visit began
        target = self.call("Target.createTarget", url="about:blank")["targetId"]
        self.session = self.call("Target.attachToTarget", targetId=target, flatten=True)["sessionId"]
        for domain in ("Page", "Runtime", "Log", "Network"):
            self.call(f"{domain}.enable")
        return self

    def __exit__(self, *_: object) -> None:
        self.process.terminate()
        self.process.wait(20)
        os.close(self.commands), os.close(self.answers)
        shutil.rmtree(self.profile, ignore_errors=True)

    def call(self, method: str, **parameters: Any) -> dict[str, Any]:
        """One command and its result; events that come before it are kept."""
        self.number += 1
        message: dict[str, Any] = {"id": self.number, "method": method, "params": parameters}
        if self.session:
            message["sessionId"] = self.session
        os.write(self.commands, json.dumps(message).encode() + b"\0")
        while True:
            answer = self._receive()
            if answer.get("id") == self.number:
                assert "error" not in answer, answer["error"]
                return answer["result"]
            self.seen.append(answer)

    def _receive(self, timeout_s: float = 60.0) -> dict[str, Any]:
        ends = time.monotonic() + timeout_s
        while b"\0" not in self.read:
            ready = select.select([self.answers], [], [], max(ends - time.monotonic(), 0))[0]
            piece = os.read(self.answers, 2**20) if ready else b""
            assert piece, "chromium has ended" if ready else f"no answer from chromium for {timeout_s} s"
            self.read += piece
        first, self.read = self.read.split(b"\0", 1)
        return json.loads(first)

    def visit(self, path: Path, width: int, height: int = 900, dark: bool = False) -> Visit:
        """Open a file in a window of that size and theme, and wait until it is loaded."""
        theme = {"name": "prefers-color-scheme", "value": "dark" if dark else "light"}
        self.call("Emulation.setEmulatedMedia", features=[theme])
        size = {"width": width, "height": height, "deviceScaleFactor": 1, "mobile": False}
        self.call("Emulation.setDeviceMetricsOverride", **size)
        self.seen = []
        started = time.monotonic()
        self.call("Page.navigate", url=path.resolve().as_uri())
        while not any(event["method"] == "Page.loadEventFired" for event in self.seen):
            self.seen.append(self._receive())
        seconds = time.monotonic() - started
        self.evaluate("new Promise(done => requestAnimationFrame(() => requestAnimationFrame(done)))")  # painted
        return Visit([*map(str, self._complaints())], self._requests(), seconds)

    def _complaints(self) -> list[Any]:
        found = []
        for event in self.seen:
            content = event.get("params", {})
            if event["method"] == "Runtime.exceptionThrown":
                found.append(content["exceptionDetails"])
            if event["method"] == "Runtime.consoleAPICalled" and content["type"] in ("error", "warning", "assert"):
                found.append(content["args"])
            if event["method"] == "Log.entryAdded" and content["entry"]["level"] in ("error", "warning"):
                found.append(content["entry"]["text"])
        return found

    def _requests(self) -> list[str]:
        sent = [event["params"] for event in self.seen if event["method"] == "Network.requestWillBeSent"]
        return [one["request"]["url"] for one in sent]

    def evaluate(self, expression: str) -> Any:
        """The value of a JavaScript expression in the page."""
        found = self.call("Runtime.evaluate", expression=expression, returnByValue=True, awaitPromise=True)
        assert "exceptionDetails" not in found, found["exceptionDetails"]
        return found["result"].get("value")

    def screenshot(self, path: Path) -> None:
        """The whole page, from top to bottom, as a PNG."""
        found = self.call("Page.captureScreenshot", captureBeyondViewport=True, format="png")
        path.write_bytes(base64.b64decode(found["data"]))

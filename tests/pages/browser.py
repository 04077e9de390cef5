"""A headless Chromium spoken to over its debugging pipe, with nothing to install beside the browser."""

from __future__ import annotations

import fcntl
import json
import os
import select
import shutil
import subprocess
import tempfile
import time
from pathlib import Path
from types import TracebackType
from typing import Any

NAMES = ("chromium", "chromium-browser", "google-chrome", "google-chrome-stable", "chrome")


def find_browser() -> str | None:
    """The path of an installed Chromium or Chrome."""
    return next((path for name in NAMES if (path := shutil.which(name))), None)


class Browser:
    """One page. `problems` are console errors and uncaught exceptions, `requests` the addresses asked for."""

    def __init__(self, program: str) -> None:
        self.folder = tempfile.mkdtemp(prefix="browser-")
        low_read, self.write = os.pipe()
        self.read, low_write = os.pipe()
        # the browser reads from descriptor 3 and writes to 4: away from those first, so that nothing is overwritten
        to_read, to_write = (fcntl.fcntl(one, fcntl.F_DUPFD, 20) for one in (low_read, low_write))
        moves = f'exec 3<&{to_read} 4>&{to_write} {to_read}<&- {to_write}>&-; exec "$@"'
        self.process = subprocess.Popen(
            [
                "bash", "-c", moves, "browser", program,
                "--headless=new", "--no-sandbox", "--disable-gpu", "--disable-dev-shm-usage", "--no-first-run",
                "--disable-background-networking", "--disable-component-update", "--disable-sync", "--hide-scrollbars",
                f"--user-data-dir={self.folder}", "--remote-debugging-pipe", "about:blank",
            ],
            pass_fds=(to_read, to_write),
            stdout=subprocess.DEVNULL,
            stderr=subprocess.DEVNULL,
        )  # fmt: skip
        for one in (low_read, low_write, to_read, to_write):
            os.close(one)
        self.buffer = b""
        self.number = 0
        self.problems: list[str] = []
        self.requests: list[str] = []
        self.loaded = False
        self.session: str | None = None
        target = self.call("Target.createTarget", url="about:blank")["targetId"]
        self.session = self.call("Target.attachToTarget", targetId=target, flatten=True)["sessionId"]
        for domain in ("Page", "Runtime", "Log", "Network"):
            self.call(f"{domain}.enable")

    def __enter__(self) -> Browser:
        return self

    def __exit__(self, kind: type[BaseException] | None, error: BaseException | None, at: TracebackType | None) -> None:
        os.close(self.write)
        os.close(self.read)
        self.process.terminate()
        self.process.wait(300)
        shutil.rmtree(self.folder, ignore_errors=True)

    def call(self, method: str, **values: Any) -> dict[str, Any]:
        self.number += 1
        message: dict[str, Any] = {"id": self.number, "method": method, "params": values}
        if self.session:
            message["sessionId"] = self.session
        os.write(self.write, json.dumps(message).encode() + b"\0")
        while True:
            answer = self._next()
            if answer.get("id") == self.number:
                if "error" in answer:
                    raise RuntimeError(f"{method}: {answer['error']}")
                found: dict[str, Any] = answer["result"]
                return found

    def _next(self, seconds: float = 600) -> dict[str, Any]:
        until = time.monotonic() + seconds
        while b"\0" not in self.buffer:
            if not select.select([self.read], [], [], max(0, until - time.monotonic()))[0]:
                raise TimeoutError("the browser said nothing")
            if not (part := os.read(self.read, 1 << 16)):
                raise RuntimeError("the browser ended")
            self.buffer += part
        line, self.buffer = self.buffer.split(b"\0", 1)
        message: dict[str, Any] = json.loads(line)
        values = message.get("params", {})
        match message.get("method"):
            case "Runtime.exceptionThrown":
                self.problems.append(json.dumps(values["exceptionDetails"])[:500])
            case "Runtime.consoleAPICalled" if values["type"] in ("error", "warning", "assert"):
                self.problems.append(json.dumps(values["args"])[:500])
            case "Log.entryAdded" if values["entry"]["level"] in ("error", "warning"):
                self.problems.append(json.dumps(values["entry"])[:500])
            case "Network.requestWillBeSent":
                self.requests.append(values["request"]["url"])
            case "Page.loadEventFired":
                self.loaded = True
        return message

    def open(self, page: Path, width: int, dark: bool = False) -> None:
        """Show a file at a width in CSS pixels."""
        self.call(
            "Emulation.setDeviceMetricsOverride", width=width, height=900, deviceScaleFactor=1, mobile=width < 600
        )
        scheme = {"name": "prefers-color-scheme", "value": "dark" if dark else "light"}
        self.call("Emulation.setEmulatedMedia", features=[scheme])
        self.problems, self.requests, self.loaded = [], [], False
        self.call("Page.navigate", url=page.resolve().as_uri())
        while not self.loaded:
            self._next()

    def value(self, expression: str) -> Any:
        """What a JavaScript expression gives on the page."""
        answer = self.call("Runtime.evaluate", expression=expression, returnByValue=True)
        if "exceptionDetails" in answer:
            raise RuntimeError(str(answer["exceptionDetails"]))
        return answer["result"].get("value")

    def move(self, x: float, y: float) -> None:
        """Move the pointer there."""
        self.call("Input.dispatchMouseEvent", type="mouseMoved", x=x, y=y)

"""The test's side of `tests.endurance.server`."""

from __future__ import annotations

import json
import os
import subprocess
import sys
import time
from dataclasses import dataclass
from pathlib import Path

ROOT = Path(__file__).parents[2]


@dataclass(frozen=True, slots=True)
class Outcome:
    """How a command ended: its exit code (negative: the signal that killed it), all it printed, seconds, and how often
    it wrote, renamed or removed something (0 where it was killed)."""

    code: int
    text: str
    seconds: float
    events: int


class Forks:
    """Runs command lines in `folder`, one at a time."""

    def __init__(self, folder: Path, cache: Path) -> None:
        self.folder = folder
        self.environment = {"TOOLKIT_CACHE": str(cache)}
        self._process = subprocess.Popen(
            [sys.executable, "-m", "tests.endurance.server"],
            cwd=ROOT,
            env={**os.environ, "PYTHONPATH": str(ROOT), "CUDA_VISIBLE_DEVICES": ""},
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            text=True,
        )

    def __call__(self, *words: str, die_at: int = 0, die_after: float | None = None) -> Outcome:
        """Run `toolkit WORDS`. It may be killed at a count of its writes, or after so many seconds."""
        assert self._process.stdin is not None
        output = self.folder / "output.txt"
        events = Path(f"{output}.events")
        events.unlink(missing_ok=True)
        job = {
            "words": list(words),
            "folder": str(self.folder),
            "environment": self.environment,
            "output": str(output),
            "die_at": die_at,
        }
        started = time.monotonic()
        self._process.stdin.write(json.dumps(job) + "\n")
        self._process.stdin.flush()
        pid = self._answer("pid")
        if die_after is not None:
            time.sleep(die_after)
            os.kill(pid, 9)  # not reaped before the answer below, so the number is still its own
        code = self._answer("code")
        seconds = time.monotonic() - started
        text = output.read_text(encoding="utf-8", errors="replace") if output.is_file() else ""
        return Outcome(code, text, seconds, int(events.read_text()) if events.is_file() else 0)

    def _answer(self, key: str) -> int:
        assert self._process.stdout is not None
        line = self._process.stdout.readline()
        if not line:
            raise RuntimeError("the server of forks is gone")
        return int(json.loads(line)[key])

    def close(self) -> None:
        assert self._process.stdin is not None
        self._process.stdin.close()
        self._process.wait(timeout=60)

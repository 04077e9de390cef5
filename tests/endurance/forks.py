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
    """How a command ended: its exit code (negative: the signal that killed it), all it printed, seconds, and the paths
    that it wrote, renamed or removed, in turn (none where it was killed)."""

    code: int
    text: str
    seconds: float
    events: list[str]


class Forks:
    """Runs command lines in `folder`, one at a time."""

    def __init__(self, folder: Path, cache: Path) -> None:
        self.folder = folder
        self.cache = cache
        self._process = subprocess.Popen(
            [sys.executable, "-m", "tests.endurance.server"],
            cwd=ROOT,
            env={**os.environ, "PYTHONPATH": str(ROOT), "CUDA_VISIBLE_DEVICES": ""},
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            text=True,
        )

    def __call__(self, *words: str, die_at: int = 0, die_after: float = 0.0, cache: Path | None = None) -> Outcome:
        """Run `toolkit WORDS`. It may be killed at a count of its writes, or after so many seconds."""
        assert self._process.stdin is not None and self._process.stdout is not None
        output = self.folder / "output.txt"
        for path in (output, Path(f"{output}.events")):
            path.unlink(missing_ok=True)
        job = {
            "words": list(words),
            "folder": str(self.folder),
            "environment": {"TOOLKIT_CACHE": str(cache or self.cache)},
            "output": str(output),
            "die_at": die_at,
            "die_after": die_after,
        }
        started = time.monotonic()
        self._process.stdin.write(json.dumps(job) + "\n")
        self._process.stdin.flush()
        line = self._process.stdout.readline()
        if not line:
            raise RuntimeError("the server of forks is gone")
        answer = json.loads(line)
        text = output.read_text(encoding="utf-8", errors="replace") if output.is_file() else ""
        return Outcome(answer["code"], text, time.monotonic() - started, answer["events"])

    def close(self) -> None:
        assert self._process.stdin is not None
        self._process.stdin.close()
        self._process.wait(timeout=60)

"""The test's side of `tests.endurance.server`."""

from __future__ import annotations

import json
import os
import subprocess
import sys
import time
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

ROOT = Path(__file__).parents[2]


@dataclass(frozen=True, slots=True)
class Outcome:
    """How a command ended: its exit code (negative: the signal that killed it), all it printed, seconds, and the paths
    that it wrote, renamed or removed, in turn, and those it read of its folder (none where it was killed)."""

    code: int
    text: str
    seconds: float
    events: list[str]
    reads: list[str]


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

    def __call__(self, *words: str, **how: Any) -> Outcome:
        """Run `toolkit WORDS`; `how` as `together` takes it."""
        return self.together(words, **how)[0]

    def together(
        self,
        words: Sequence[str],
        *beside: Sequence[str],
        at: int = 0,
        harm: str = "kill",
        die_after: float = 0.0,
        cache: Path | None = None,
    ) -> list[Outcome]:
        """Run command lines at the same time. At a count of its writes each may come to a `harm` (by its name in
        `tests.endurance.server.HARMS`), and the first may be killed after so many seconds."""
        assert self._process.stdin is not None and self._process.stdout is not None
        output = self.folder / "output.txt"
        outputs = [output, *(Path(f"{output}.{number}") for number in range(len(beside)))]
        for path in outputs:
            path.unlink(missing_ok=True)
            for name in ("events", "reads"):
                Path(f"{path}.{name}").unlink(missing_ok=True)
        job = {
            "words": list(words),
            "folder": str(self.folder),
            "environment": {"TOOLKIT_CACHE": str(cache or self.cache)},
            "output": str(output),
            "at": at,
            "harm": harm,
            "die_after": die_after,
            "beside": [list(one) for one in beside],
        }
        started = time.monotonic()
        self._process.stdin.write(json.dumps(job) + "\n")
        self._process.stdin.flush()
        line = self._process.stdout.readline()
        if not line:
            raise RuntimeError("the server of forks is gone")
        answer = json.loads(line)
        seconds = time.monotonic() - started
        texts = [path.read_text(encoding="utf-8", errors="replace") if path.is_file() else "" for path in outputs]
        both = zip(answer["codes"], texts, strict=True)
        return [Outcome(code, text, seconds, answer["events"], answer["reads"]) for code, text in both]

    def close(self) -> None:
        assert self._process.stdin is not None
        self._process.stdin.close()
        self._process.wait(timeout=600)

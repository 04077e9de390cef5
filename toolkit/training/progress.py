"""The progress bar of a training run, and the lines that take its place where there is no terminal."""

from __future__ import annotations

import time
from collections import deque
from typing import Any

from rich.console import Console
from transformers import TrainerCallback

from toolkit.progress import WIDTH, Bar
from toolkit.training.call_metrics import described
from toolkit.training.callbacks import MetricsWriter

SECONDS_BETWEEN_LINES = 10.0
WIDE = 120  # columns that hold everything beside a long bar
NARROW_BAR = 8


class Speed:
    """Real tokens/s over the last `seconds` of updates, at least the latest one: one update that waits for a
    compilation, or is an epoch's short last one, says nothing about the run."""

    def __init__(self, seconds: float = SECONDS_BETWEEN_LINES) -> None:
        self.seconds = seconds
        self._recent: deque[tuple[int, float]] = deque()
        self._tokens, self._total = 0, 0.0  # of those

    def add(self, row: dict[str, Any]) -> float | None:
        """Takes a metrics row and returns the speed; None before any time was measured."""
        self._add(row.get("real_tokens") or 0, row.get("seconds") or 0.0)
        while self._total - self._recent[0][1] >= self.seconds and len(self._recent) > 1:
            tokens, seconds = self._recent.popleft()
            self._tokens, self._total = self._tokens - tokens, self._total - seconds
        return self._tokens / self._total if self._total > 0 else None

    def _add(self, tokens: int, seconds: float) -> None:
        self._recent.append((tokens, seconds))
        self._tokens, self._total = self._tokens + tokens, self._total + seconds


def line(row: dict[str, Any], speed: float | None, evaluation: str = "", width: int | None = None) -> str:
    """`loss 1.234  rate 2.0e-04  1,234 tokens/s  3.21 GiB` of one metrics row, and the last evaluation.

    speed: real tokens/s. Where that is more than `width` characters, what matters least is left out.
    """
    loss, rate, memory = row.get("loss"), row.get("learning_rate"), row.get("memory")
    parts = {
        "loss": f"loss {loss:.3f}" if loss is not None else "",
        "rate": f"rate {rate:.1e}" if rate is not None else "",
        "speed": f"{speed:,.0f} tokens/s" if speed else "",
        "memory": f"{memory / 2**30:.2f} GiB" if memory else "",
        "evaluation": evaluation,
    }
    for least in ("", "rate", "memory", "speed"):
        parts.pop(least, None)
        text = "  ".join(filter(None, parts.values()))
        if width is None or len(text) <= width:
            return text
    return text[: max(0, width)] if width is not None else text


class TrainingProgress(TrainerCallback):
    """Loss, rate, real tokens/s, memory and time left. `writer` must come before this callback."""

    def __init__(self, writer: MetricsWriter, console: Console) -> None:
        self.writer = writer
        self.console = console
        self.bar = Bar(console, "training", None, lasting=True)
        self.evaluation = ""
        self.printed = 0.0
        self.speed = Speed()

    def on_train_begin(self, args: Any, state: Any, control: Any, **kwargs: Any) -> None:
        self.bar.width = WIDTH if self.console.width >= WIDE else NARROW_BAR
        self.bar.total = state.max_steps
        self.bar.start(state.global_step)

    def on_log(self, args: Any, state: Any, control: Any, logs: dict[str, Any] | None = None, **kwargs: Any) -> None:
        logs = logs or {}
        if "eval_loss" in logs:
            self.evaluation = f"eval loss {logs['eval_loss']:.3f}{described(logs)}"
            if not self.bar.shown:
                self.console.print(f"update {state.global_step}/{state.max_steps}:  {self.evaluation}", highlight=False)
        elif "loss" in logs:
            speed = self.speed.add(self.writer.latest)
            if self.bar.shown:
                total, done = state.max_steps, state.global_step  # a time budget changes the total
                taken = len("training") + self.bar.width + 2 * len(str(total)) + len("/ 0:00:00") + 4
                text = line(self.writer.latest, speed, self.evaluation, self.console.width - taken)
                self.bar.update(done, text, total)
            elif time.monotonic() - self.printed > SECONDS_BETWEEN_LINES or state.global_step == state.max_steps:
                self.printed = time.monotonic()
                text = line(self.writer.latest, speed)
                self.console.print(f"update {state.global_step}/{state.max_steps}: {text}", highlight=False)

    def close(self) -> None:
        self.bar.stop()

    def on_train_end(self, args: Any, state: Any, control: Any, **kwargs: Any) -> None:
        self.close()

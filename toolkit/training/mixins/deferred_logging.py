"""An update's loss and gradient norm, logged once the card has them: after the next update has been handed to it.

Read at once, they make the host wait for the card, and then the card for the host, which has yet to fetch chats and to
walk through the first layers. What wants all numbers (evaluation, saving, the end) gets them at once.
"""

from __future__ import annotations

import collections
from dataclasses import dataclass
from typing import Any

import torch
from typing_extensions import override

from toolkit.training.mixins import TrainerMixin


@dataclass(slots=True)
class Numbers:
    """What an update logs, on its way from the card. `since`: updates that the summed loss is of."""

    update: int
    epoch: float | None
    since: int
    learning_rate: float
    real_tokens: int
    values: torch.Tensor  # summed loss and gradient norm, on the host
    ready: torch.cuda.Event | None

    def read(self) -> tuple[float, float]:
        """(mean loss, gradient norm), waiting for the card where it has not made them yet."""
        if self.ready is not None:
            self.ready.synchronize()
        loss, norm = self.values.tolist()
        return loss / self.since, norm


HISTORY = 1000  # rows of the trainer's own log that are kept


class DeferredLogging(TrainerMixin):
    """Logs of update n are made when n + 1 has been started.

    `ahead`: whether to; the trainer sets it where nothing else makes the host wait for the card in each update.
    `real_tokens` are those of all updates that were begun, `logged_tokens` those up to the update being logged.
    """

    ahead = False
    real_tokens = 0
    logged_tokens = 0
    _globalstep_last_logged: int

    @override
    def _maybe_log_save_evaluate(self, tr_loss: Any, grad_norm: Any, *args: Any, **kwargs: Any) -> None:
        if self.ahead and self.control.should_log and self.state.global_step > self._globalstep_last_logged:
            self._waiting.append(self._numbers(tr_loss, grad_norm, kwargs.get("learning_rate")))
            tr_loss.zero_()  # the trainer's sum since the last log
            self._globalstep_last_logged = self.state.global_step
            self.control.should_log = False
        control, should_log = self.control, self.control.should_log
        wanted = control.should_evaluate or control.should_save or control.should_training_stop or should_log
        self.log_waiting(keep=1 if self.ahead and not wanted else 0)
        self.control.should_log = should_log  # which logging takes back
        self.logged_tokens = self.real_tokens
        # metrics.jsonl has all of it, and each checkpoint would be larger than the one before
        del self.state.log_history[: -HISTORY if len(self.state.log_history) > 2 * HISTORY else 0]
        super()._maybe_log_save_evaluate(tr_loss, grad_norm, *args, **kwargs)

    def log_waiting(self, keep: int = 0) -> None:
        """Log what still waits, as where training was broken off, but for the latest `keep`."""
        while len(self._waiting) > keep:
            self._log(self._waiting.popleft())

    @property
    def _waiting(self) -> collections.deque[Numbers]:
        waiting: collections.deque[Numbers] = self.__dict__.setdefault("_waiting_numbers", collections.deque())
        return waiting

    def _numbers(self, tr_loss: Any, grad_norm: Any, learning_rate: float | None) -> Numbers:
        norm = torch.as_tensor(0.0 if grad_norm is None else grad_norm, device=tr_loss.device)
        values = torch.stack([tr_loss.detach().float(), norm.detach().float()])
        ready = None
        if values.is_cuda:
            values = torch.empty(2, pin_memory=True).copy_(values, non_blocking=True)
            ready = torch.cuda.Event()
            ready.record()
        return Numbers(
            self.state.global_step,
            self.state.epoch,
            self.state.global_step - self._globalstep_last_logged,
            self._get_learning_rate() if learning_rate is None else learning_rate,
            self.real_tokens,
            values,
            ready,
        )

    def _log(self, numbers: Numbers) -> None:
        """Log as if the numbers' update were the last."""
        loss, norm = numbers.read()
        now = self.state.global_step, self.state.epoch
        self._total_loss_scalar += loss * numbers.since
        self.logged_tokens = numbers.real_tokens
        self.state.global_step, self.state.epoch = numbers.update, numbers.epoch
        try:
            self.log({"loss": loss, "grad_norm": norm, "learning_rate": numbers.learning_rate})
        finally:
            self.state.global_step, self.state.epoch = now

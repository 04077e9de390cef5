"""Tool calls measured in the course of a run: before it, with every evaluation, and after it."""

from __future__ import annotations

import contextlib
from pathlib import Path
from typing import Any

import torch
from rich.console import Console

from toolkit.data.render import Renderer
from toolkit.data.table import eval_chats
from toolkit.errors import DataError
from toolkit.evaluation.evaluate import evaluate
from toolkit.evaluation.questions import evenly
from toolkit.evaluation.results import LOGGED, Evaluation
from toolkit.inference.decode import TorchDecoder
from toolkit.inference.without_adapter import base_columns
from toolkit.manifest import listed
from toolkit.ranks import here
from toolkit.runs import ADAPTER, RunFolder
from toolkit.training.prepared import Prepared


class CallMeter:
    """Decodes the same held-out chats each time; `eval.generate` says how many, 0 turns everything off.

    last: the last update planned. It is always measured, or the adapter trained longest could never be chosen. Before
    training and after it the answers are kept as evaluation/before.jsonl and after.jsonl.
    """

    def __init__(self, prepared: Prepared, renderer: Renderer, folder: RunFolder, console: Console) -> None:
        self.recipe, self.loaded, self.last = prepared.recipe, prepared.loaded, prepared.updates.total
        self.renderer, self.folder, self.console = renderer, folder, console
        self.measured: int | None = None  # the update of the latest measurement, in an earlier stretch of the run too
        self._first: Evaluation | None = None
        self._latest: tuple[int, Evaluation] | None = None

    def before(self) -> Evaluation | None:
        """The base model's, with the adapter proved to be off."""
        if not self.recipe.eval.generate:
            return None
        path = self.folder.evaluation / "before.jsonl"
        self._first = here().first(lambda: self._kept(path))
        if self._first is None:
            with base_columns(self.loaded.model):
                self._first = self._decode("before training")
            self._save(self._first, path)
        return self._first

    def during(self, update: int) -> dict[str, float]:
        """Shares to be logged with the evaluation after `update` updates; empty where none is due.

        At update 0 the adapter does nothing yet, so the base model's are taken.
        """
        if not self._due(update):
            return {}
        result = (
            self._first
            if update == 0 and self._first is not None
            else self._decode(
                f"after update {update}",
                progress=False,  # training has a progress bar of its own
            )
        )
        self._latest, self.measured = (update, result), update
        rates = result.rates()
        shares = {key: rates[name].share for key, name in LOGGED.items() if name in rates}
        return {key: share for key, share in shares.items() if share is not None}

    def after(self, update: int) -> Evaluation | None:
        """Those of the adapter in the run's folder, which is of `update`."""
        if not self.recipe.eval.generate:
            return None
        path = self.folder.evaluation / "after.jsonl"
        adapter = here().first(lambda: listed(self.folder.adapter).get(ADAPTER[1]))
        kept = here().first(lambda: self._kept(path))
        if kept is not None and kept.settings.get("adapter_sha256") == adapter:
            return kept  # of a run that was killed after this
        known = self._latest is not None and self._latest[0] == update and update > 0
        result = self._latest[1] if known and self._latest is not None else self._decode("after training")
        if adapter is not None:
            result.settings["adapter_sha256"] = adapter
        self._save(result, path)
        return result

    def _save(self, result: Evaluation, path: Path) -> None:
        if here().first_one:
            result.save(path)

    def _kept(self, path: Path) -> Evaluation | None:
        """What an earlier stretch of the run decoded, if it is there whole."""
        if not path.is_file():
            return None
        try:
            return Evaluation.load(path)
        except DataError as error:
            self.console.print(f"note       {error}: decoded again", markup=False)
            return None

    def _due(self, update: int) -> bool:
        settings = self.recipe.eval
        if not settings.generate or not settings.generate_steps:
            return False
        if settings.generate_steps == "eval" or self.measured is None:
            return True
        if update == self.last:
            return True
        return update - self.measured >= settings.generate_steps

    def _decode(self, when: str, progress: bool = True) -> Evaluation:
        settings, renderer = self.recipe.eval, self.renderer
        chats = evenly(eval_chats(self.recipe), settings.generate)
        self.console.print(f"decoding   {len(chats)} held-out chats {when}")
        decoder = TorchDecoder(
            self.loaded.model,
            self.loaded.tokenizer,
            renderer.end_token_ids,
            settings.max_new_tokens,
            settings.generate_batch_size,
            progress=progress,
        )
        with contextlib.ExitStack() as stack:
            stack.callback(self._free)
            return evaluate(decoder, renderer, chats, call_format=renderer.call_form)

    def _free(self) -> None:
        """Give back what decoding cached on the GPU: training goes on with batches of other sizes."""
        if torch.cuda.is_available():
            torch.cuda.empty_cache()


def described(metrics: dict[str, Any]) -> str:
    """`  calls 83%` of logged metrics, or an empty string."""
    share = metrics.get("eval_calls")
    return "" if share is None else f"  calls {share:.0%}"

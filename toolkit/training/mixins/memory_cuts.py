"""Where memory runs out, an update is made again in smaller pieces, and those that follow are cut like it.

torch says so by an error, in the middle of forward or backward. What the update had summed up by then is thrown away:
its gradients, and the random numbers that it drew. It is then made again from its beginning, as an update of a run
would be that had begun with the smaller cut. Only what one row needs with all layers recomputing has to fit.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import torch
from typing_extensions import override

from toolkit.engines import ENGINES
from toolkit.planning.budget import recomputes
from toolkit.planning.cuts import Cut, Stage
from toolkit.ranks import here
from toolkit.training.gradient_checkpointing import checkpoint_all
from toolkit.training.memory import release_memory
from toolkit.training.methods.base import Method
from toolkit.training.mixins import TrainerMixin
from toolkit.training.out_of_memory import memory_error, memory_told
from toolkit.training.packing import MICRO_BATCHES, KnownLengths
from toolkit.training.prepared import Prepared


class MemoryCuts(TrainerMixin):
    """`cut`: how micro-batches are cut now. `noted` is handed each new cut as a row for metrics.jsonl, and a line that
    says it. Several ranks would have to cut together: there memory that runs out ends the run, as it always did.

    `under_way`: which of an update's packed micro-batches, set by what goes through them.
    """

    prepared: Prepared
    method: Method
    data_collator: Any
    fill: Any
    cut = Cut()
    noted: Callable[[dict[str, Any], str], None] = staticmethod(lambda row, line: None)
    under_way = 0
    _tried: tuple[str, ...] = ()
    _recomputing = False
    _update = -1  # that is being made
    _made: list[tuple[Any, torch.Tensor]]  # micro-batches of it that are done, with their losses
    _random: tuple[torch.Tensor, torch.Tensor | None]

    def take_cut(self, cut: Cut) -> None:
        """Cut micro-batches like this from now on."""
        self.cut = cut
        if cut.tokens is not None:
            self.data_collator.budget = min(self.data_collator.budget, cut.tokens)
            if isinstance(self.fill, KnownLengths):
                self.fill.forget()

    @override
    def training_step(self, model: Any, inputs: Any, num_items_in_batch: Any = None) -> Any:
        if here().size > 1:
            return super().training_step(model, inputs, num_items_in_batch)
        if self._update != self.state.global_step:
            cuda = torch.cuda.get_rng_state() if self.prepared.cuda else None
            self._update, self._made, self._random = self.state.global_step, [], (torch.get_rng_state(), cuda)
        done, again = list(self._made), False
        while True:
            if self.cut.recompute and not self._recomputing:
                checkpoint_all(self.model)
                self._recomputing = True
            try:
                # gradients and random numbers of the micro-batches before, where they were thrown away
                before = [self._step(model, one, num_items_in_batch) for one, _ in done] if again else []
                loss = self._step(model, inputs, num_items_in_batch)
                break
            except (RuntimeError, MemoryError) as error:
                told = memory_told(error)
                if told is None:
                    raise
            # after the except block, whose traceback keeps what forward kept
            self._cut_smaller("training", told)
            model.zero_grad()
            torch.set_rng_state(self._random[0])
            if self._random[1] is not None:
                torch.cuda.set_rng_state(self._random[1])
            again = True
        self._made.append((inputs, loss))
        if not again:
            return loss
        self._made[:-1] = [(one, new) for (one, _), new in zip(done, before, strict=True)]
        # the trainer has summed the losses of before
        return loss + sum(new - old for new, (_, old) in zip(before, done, strict=True))

    def held_out_loss(self, batch: Any) -> tuple[float, int]:
        """(summed loss, what it is summed over) of a batch, in as many pieces as it takes."""
        while True:
            try:
                usual = super().held_out_loss  # type: ignore[misc]
                found = [usual(one) for one in self._pieces(batch, "evaluation")]
                return sum(summed for summed, _ in found), sum(count for _, count in found)
            except (RuntimeError, MemoryError) as error:
                told = memory_told(error)
                if told is None or here().size > 1:
                    raise
            self._cut_smaller("evaluation", told)

    def _step(self, model: Any, inputs: Any, items: Any) -> torch.Tensor:
        """The loss of a micro-batch, or of all packed ones of an update, in as many pieces as the cut has."""
        pieces = self._pieces(inputs, "training")
        if len(pieces) == 1:
            return super().training_step(model, pieces[0], items)  # type: ignore[no-any-return]
        usual = super().training_step
        return torch.stack([usual(model, one, items) for one in pieces]).sum()

    def _pieces(self, inputs: Any, stage: Stage) -> list[Any]:
        """Inputs cut as `cut` says. Notes them as what may not fit."""
        training = stage == "training"
        tokens, rows = (self.cut.tokens, self.cut.rows) if training else (self.cut.eval_tokens, self.cut.eval_rows)
        if MICRO_BATCHES in inputs:
            pieces = [inputs if tokens is None else self.data_collator.recut(inputs, tokens)]
        else:
            pieces = [inputs] if rows is None else self.method.pieces(inputs, rows)
        self._trying = pieces[0]
        return pieces

    def _cut_smaller(self, stage: Stage, told: str) -> None:
        """Take the next smaller cut. Raises `TrainingError` with what was tried where there is none."""
        if (recorder := self.prepared.loaded.recorder) is not None:
            recorder.forget()
        rows, tokens, packed = self._size()
        smaller = self.cut.smaller(stage, rows, tokens, packed=packed, may_recompute=self._may_recompute())
        if smaller is None:
            raise memory_error(self.prepared.recipe, told, self._tried)
        said = smaller.told(self.cut)
        self.take_cut(smaller)
        release_memory()
        self._tried = (*self._tried, said.removesuffix(" from now on").removesuffix(","))
        update = self.state.global_step + (stage == "training")
        where = f"update {update} is made again" if stage == "training" else "these chats are evaluated again"
        row = smaller.row(update, stage) | {"tried": {"rows": rows, "tokens": tokens}}
        self.noted(row, f"{told}: {said}; {where}, with the same chats and loss")

    def _size(self) -> tuple[int, int, bool]:
        """(rows, tokens, whether it is packed) of the micro-batch that did not fit."""
        tried = self._trying
        if MICRO_BATCHES not in tried:
            rows, width = tried["input_ids"].shape
            whole = len(self.method.pieces(tried, max(1, rows // 2))) < 2  # the method can't part its rows
            return 1 if whole else rows, rows * width, False
        rows = len(tried["groups"][self.under_way])
        return rows, sum(tried[MICRO_BATCHES][self.under_way]["sizes"][:rows]), True

    def _may_recompute(self) -> bool:
        loaded, budget, recipe = self.prepared.loaded, self.prepared.budget, self.prepared.recipe
        counted = None if budget is None else budget.checkpointed
        layers = self.model.config.get_text_config().num_hidden_layers
        all_of_them = recomputes(recipe, counted) and counted in (None, layers)
        return ENGINES[loaded.report.engine.value].recomputes_later and not all_of_them

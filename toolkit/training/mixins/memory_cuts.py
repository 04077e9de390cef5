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
from toolkit.errors import TrainingError
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
from toolkit.training.ranks import Gradients
from toolkit.training.shared_time import SharedTime

Failed = tuple[str, tuple[int, int]]  # what torch said, and rows and tokens of the micro-batch that did not fit


class MemoryCuts(TrainerMixin):
    """`cut`: how micro-batches are cut now. `noted` is handed each new cut as a row for metrics.jsonl, and a line that
    says it. Ranks cut together: one that runs out still comes to where all meet before gradients are summed, and says
    so there; then all throw the update away, take the smallest cut that any needs, and make it again.

    `under_way`: which of an update's packed micro-batches, set by what goes through them.
    """

    prepared: Prepared
    method: Method
    data_collator: Any
    fill: Any
    cut = Cut()
    noted: Callable[[dict[str, Any], str], None] = staticmethod(lambda row, line: None)
    under_way = 0
    gradients: Gradients | None = None  # where ranks sum theirs
    shared: SharedTime | None
    meet: Callable[..., bool]
    _failed: Failed | None = None  # in this rank's part of an evaluation
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
        if here().size > 1:  # `among_ranks` has what follows
            return super().training_step(model, inputs, num_items_in_batch)
        if self._update != self.state.global_step:
            self._update, self._made, self._random = self.state.global_step, [], self._random_state()
        done, again = list(self._made), False
        while True:
            self._recompute_if_cut_so()
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
            self._throw_away(model)
            again = True
        self._made.append((inputs, loss))
        if not again:
            return loss
        self._made[:-1] = [(one, new) for (one, _), new in zip(done, before, strict=True)]
        # the trainer has summed the losses of before
        return loss + sum(new - old for new, (_, old) in zip(before, done, strict=True))

    def among_ranks(
        self, model: Any, own: Callable[[dict[str, Any]], torch.Tensor], inputs: dict[str, Any]
    ) -> torch.Tensor:
        """The loss of an update of which this rank makes its `own` part, all of them with the same cut."""
        assert self.shared is not None
        self._random, self.under_way = self._random_state(), 0
        while True:
            self._recompute_if_cut_so()
            loss, failed = None, None
            try:
                (pieces,) = self._pieces(inputs, "training")
                if self.gradients is None:
                    self.gradients = Gradients([p for p in self.model.parameters() if p.requires_grad])
                loss = own(pieces)
                self.shared.own_part_ends()
            except (RuntimeError, MemoryError) as error:
                told = memory_told(error)
                if told is None:
                    raise
                failed = (told, self._size()[:2])
            if not self.meet(failed=failed is not None):
                assert loss is not None and self.gradients is not None
                loss = self.gradients.sum(loss)
                self.shared.summed()
                return loss
            loss = None  # and what it holds
            self._cut_together("training", failed)
            self._throw_away(model)

    def _held_out(self, dataset: Any) -> list[tuple[float, int]]:
        """As `EvalLoss` has it; ranks, each of which may have cut its own batches, tell each other afterwards."""
        if here().size == 1:
            return super()._held_out(dataset)  # type: ignore[misc,no-any-return]
        self._failed, before = None, self.cut
        found = super()._held_out(dataset)  # type: ignore[misc]
        if any(here().gather(self._failed is not None)):
            self._cut_together("evaluation", self._failed, before)
        return found  # type: ignore[no-any-return]

    def held_out_loss(self, batch: Any) -> tuple[float, int]:
        """(summed loss, what it is summed over) of a batch, in as many pieces as it takes."""
        while True:
            try:
                usual = super().held_out_loss  # type: ignore[misc]
                found = [usual(one) for one in self._pieces(batch, "evaluation")]
                return sum(summed for summed, _ in found), sum(count for _, count in found)
            except (RuntimeError, MemoryError) as error:
                told = memory_told(error)
                if told is None:
                    raise
            if here().size > 1:  # the others go on, and hear of it once all are through
                self._failed = self._failed or (told, self._size()[:2])
                self.cut = self._smaller("evaluation", told)
                release_memory()
            else:
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
        if "groups" in inputs:
            pieces = [inputs if tokens is None else self.data_collator.recut(inputs, tokens)]
        elif MICRO_BATCHES in inputs:  # padded ones of a rank
            each = inputs[MICRO_BATCHES]
            parted = each if rows is None else [piece for one in each for piece in self.method.pieces(one, rows)]
            pieces = [{**inputs, MICRO_BATCHES: parted}]
        else:
            pieces = [inputs] if rows is None else self.method.pieces(inputs, rows)
        self._trying = pieces[0]
        return pieces

    def _smaller(self, stage: Stage, told: str) -> Cut:
        """The next smaller cut. Raises `TrainingError` with what was tried where there is none."""
        if (recorder := self.prepared.loaded.recorder) is not None:
            recorder.forget()
        rows, tokens, packed = self._size()
        smaller = self.cut.smaller(stage, rows, tokens, packed=packed, may_recompute=self._may_recompute())
        if smaller is None:
            raise memory_error(self.prepared.recipe, told, self._tried)
        return smaller

    def _cut_smaller(self, stage: Stage, told: str) -> None:
        """Take the next smaller cut, and say so."""
        self._take(self._smaller(stage, told), self.cut, stage, told, self._size()[:2])

    def _cut_together(self, stage: Stage, failed: Failed | None, before: Cut | None = None) -> None:
        """Take the smallest cut that any rank needs, on each of them. `failed`: what this one has met; `before`: the
        cut that all had, where this one has taken another already.

        Raises `TrainingError` on all where one of them has nothing left to try.
        """
        error: TrainingError | None = None
        smaller = self.cut
        if failed is not None:
            failed = (f"rank {here().rank}: {failed[0]}", failed[1])
        if before is None and failed is not None:
            try:
                smaller = self._smaller(stage, failed[0])
            except TrainingError as nothing_left:
                error = nothing_left
        elif (recorder := self.prepared.loaded.recorder) is not None:
            recorder.forget()  # what this rank goes on with is another
        found = here().gather((error, smaller, failed))
        for nothing, _, _ in found:
            if nothing is not None:
                raise nothing
        for _, cut, _ in found:
            smaller = smaller.and_of(cut)
        first = next(theirs for _, _, theirs in found if theirs is not None)
        self._take(smaller, self.cut if before is None else before, stage, *first)

    def _take(self, smaller: Cut, before: Cut, stage: Stage, told: str, size: tuple[int, int]) -> None:
        """Take a cut after micro-batches of a `size`, (rows, tokens), did not fit, and say so."""
        said = smaller.told(before)
        self.take_cut(smaller)
        release_memory()
        self._tried = (*self._tried, said.removesuffix(" from now on").removesuffix(","))
        update = self.state.global_step + (stage == "training")
        where = f"update {update} is made again" if stage == "training" else "these chats are evaluated again"
        row = smaller.row(update, stage) | {"tried": dict(zip(("rows", "tokens"), size, strict=True))}
        self.noted(row, f"{told}: {said}; {where}, with the same chats and loss")

    def _size(self) -> tuple[int, int, bool]:
        """(rows, tokens, whether it is packed) of the micro-batch that did not fit."""
        tried = self._trying
        if "groups" not in tried:
            tried = tried[MICRO_BATCHES][self.under_way] if MICRO_BATCHES in tried else tried
            rows, width = tried["input_ids"].shape
            whole = len(self.method.pieces(tried, max(1, rows // 2))) < 2  # the method can't part its rows
            return 1 if whole else rows, rows * width, False
        rows = len(tried["groups"][self.under_way])
        return rows, sum(tried[MICRO_BATCHES][self.under_way]["sizes"][:rows]), True

    def _recompute_if_cut_so(self) -> None:
        if self.cut.recompute and not self._recomputing:
            checkpoint_all(self.model)
            self._recomputing = True

    def _random_state(self) -> tuple[torch.Tensor, torch.Tensor | None]:
        return torch.get_rng_state(), torch.cuda.get_rng_state() if self.prepared.cuda else None

    def _throw_away(self, model: Any) -> None:
        """What an update has summed up, and the random numbers that it has drawn."""
        model.zero_grad()
        torch.set_rng_state(self._random[0])
        if self._random[1] is not None:
            torch.cuda.set_rng_state(self._random[1])

    def _may_recompute(self) -> bool:
        loaded, budget, recipe = self.prepared.loaded, self.prepared.budget, self.prepared.recipe
        counted = None if budget is None else budget.checkpointed
        layers = self.model.config.get_text_config().num_hidden_layers
        all_of_them = recomputes(recipe, counted) and counted in (None, layers)
        return ENGINES[loaded.report.engine.value].recomputes_later and not all_of_them

"""What a method of training is: rows out of the token table, micro-batches out of rows, a loss, what is logged of it.

The trainer asks the method for all of these and knows nothing else of it; loading, cutting updates into micro-batches,
checkpoints, resuming, time and logs are the same for all methods.
"""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Callable, Sequence
from typing import Any, ClassVar

import torch

from toolkit.data.table import TokenTable
from toolkit.errors import DataError
from toolkit.training.dataset import Row, chat_dataset
from toolkit.training.prepared import Prepared

Collate = Callable[[Sequence[dict[str, Any]]], dict[str, Any]]


class Method(ABC):
    """One instance trains one model. `columns`: of the token table, that its rows are made of. `metrics`: names of what
    `measured` gives, which metrics.jsonl then has beside eval_loss."""

    columns: ClassVar[tuple[str, ...]]
    metrics: ClassVar[tuple[str, ...]] = ()

    def __init__(self, prepared: Prepared) -> None:
        self.prepared = prepared

    def dataset(self, table: TokenTable) -> Any:
        """A `datasets.Dataset` whose item `i` is {"rows": the rows of chat `i`}.

        Raises `DataError` where the table lacks columns.
        """
        if lacking := [name for name in self.columns if name not in table.columns]:
            raise DataError(f"the token table {table.key} has no {' and no '.join(lacking)}")
        return chat_dataset(table, self.rows)

    @staticmethod
    @abstractmethod
    def rows(table: TokenTable, chat: int) -> list[Row]:
        """What is trained on of a chat: (input_ids, labels), each int64[T], labels -100 where nothing is trained.

        A chat's rows are never parted: they are in the same micro-batch where it is padded, in the same update always.
        """

    @abstractmethod
    def collator(self) -> Collate:
        """What makes a batch of the rows of some chats.

        Padded: tensors of shape [rows, width] and `real_tokens`, a number that the trainer takes out again. Packed,
        where there is a budget: `micro_batches`, a list of such dictionaries, `trained`, over how many items an
        update's loss is a mean, and `real_tokens`.
        """

    @abstractmethod
    def items(self, inputs: dict[str, Any]) -> torch.Tensor:
        """Over how many items a micro-batch's loss is a mean, a scalar; an update's are added up."""

    @abstractmethod
    def loss(self, model: Any, inputs: dict[str, Any], items: torch.Tensor | None) -> torch.Tensor | None:
        """The summed loss of a micro-batch divided by `items`, those of the whole update, or by its own; a scalar.

        None leaves this micro-batch to SFTTrainer's own loss. `model` is wrapped by PEFT.
        """

    def pieces(self, inputs: dict[str, Any], rows: int) -> list[dict[str, Any]]:
        """A padded micro-batch in pieces of at most `rows` rows; whole here, as a chat's rows may belong together."""
        return [inputs]

    def measured(self) -> dict[str, float]:
        """What `metrics` names, of the micro-batches since it was last asked for; logged with each evaluation."""
        return {}

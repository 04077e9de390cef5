"""Rows that are no examples of what to answer: preferences, answers that are not to be given, rows of no weight."""

from __future__ import annotations

from typing import Any

from toolkit.data.columns import QUESTIONS
from toolkit.data.notes import Fields, RowError, quoted, shown

_ROW_WEIGHTS = ("weight", "train", "training", "trainable")

_ONE_ANSWER = ("prompt_completion", "alpaca", "columns")


def refuse_unwanted(fields: Fields, found: str) -> None:
    """Raise `RowError` for a row, in the format `found`, that says itself that it is not to be trained."""
    _of_no_weight(fields)
    _not_to_be_given(fields, found)


def preference(row: dict[str, Any]) -> RowError:
    """What to say of a row that DPO and reward models train on, with what makes it one that is trained on here."""
    if isinstance(row["chosen"], list):
        columns = 'messages = "chosen"'
    else:
        question = next((key for key in QUESTIONS if isinstance(row.get(key), str)), "...")
        columns = f'user = "{question}", assistant = "chosen"'
    return RowError(
        "a preference (chosen and rejected), as DPO trains on; supervised fine-tuning wants one answer, as messages; "
        f"data.sources.columns = {{ {columns} }} trains on the chosen ones",
        cause="no known format: preferences",
    )


def _of_no_weight(fields: Fields) -> None:
    """A row that asks as a whole not to be trained is no row to train on."""
    for key in _ROW_WEIGHTS:
        value = fields.peek(key)
        if value is False or (isinstance(value, int | float) and value == 0):
            raise RowError(
                f"{key} = {shown(value)} of a whole row is not read; leave the row out, or set weight = 0 on its turns",
                cause=f"{key} = 0 of a whole row",
            )


def _not_to_be_given(fields: Fields, found: str) -> None:
    """A row of KTO that is marked bad has an answer that is not to be given.

    `kto_tag` says nothing else. `label` may be data: in rows of turns all but true and false is, in rows with one
    answer all but what spells them, and 0 and 1 beside a prompt and its completion too.
    """
    texts: tuple[tuple[Any, ...], tuple[Any, ...]] = (("false",), ("true",))
    numbers: tuple[tuple[Any, ...], tuple[Any, ...]] = (("false", 0, "0"), ("true", 1, "1"))
    alike = numbers if found == "prompt_completion" else texts if found in _ONE_ANSWER else ((), ())
    for key, (bad, good) in (("label", alike), ("kto_tag", numbers)):
        value = fields.peek(key)
        told = value.strip().lower() if isinstance(value, str) else value
        if told is False or told in bad:
            raise RowError(
                f"{key} = {quoted(value)}: an answer that is not to be given, as KTO trains on; supervised "
                "fine-tuning wants the good ones alone: leave the row out",
                cause=f"{key} = false, as KTO has it",
            )
        if told is True or told in good:
            fields.known(key)

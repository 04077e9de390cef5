"""Held-out chats that are trained on too, as two token tables have them."""

from __future__ import annotations

import numpy as np

from toolkit.data.table import TokenTable
from toolkit.words import counted, typed


def trained_on_too(train: TokenTable, held_out: TokenTable) -> str:
    """One line about the chats of `held_out` that `train` has too, as the model reads them; empty where it has none."""
    contents = [_content(held_out, chat) for chat in range(held_out.n_chats)]
    wanted = set(contents)
    # few chats of training have as many tokens and trained ones as one that is held out, and only those are read
    alike = np.flatnonzero(np.isin(_sizes(train), _sizes(held_out)))
    both = {content for chat in alike if (content := _content(train, int(chat))) in wanted}
    found = [chat for chat, content in enumerate(contents) if content in both]
    if not found:
        return ""
    share = f"{len(found):,} of {counted(held_out.n_chats, 'held-out chat')} {'is' if len(found) == 1 else 'are'}"
    return (
        f"{share} trained on too, so the evaluation says less of chats that are new "
        f"(`{typed('data', 'check')}` lists them): {held_out.where(found[0])}"
    )


def _sizes(table: TokenTable) -> np.ndarray:
    """A number a chat, int64[chats]: that of its tokens and, in the lower half, that of its trained ones."""
    ends = np.cumsum([0, *((table.lengths << 32) + table.trained)])
    borders = [table.chat_rows(chat).start for chat in range(table.n_chats)]
    return np.diff(ends[[*borders, table.n_rows]])


def _content(table: TokenTable, chat: int) -> bytes:
    """A chat's tokens, and which of them are trained."""
    return b"".join(part.tobytes() for row in table.chat_rows(chat) for part in table.row(row))

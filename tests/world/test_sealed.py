"""A chat that is only handed on stays bytes, and is the chat to whoever looks."""

from __future__ import annotations

import pickle

from toolkit.chats import SealedChat
from toolkit.world import chats


def test_a_sealed_chat_is_the_chat_to_whoever_looks() -> None:
    for chat in chats(40):
        sealed = pickle.loads(pickle.dumps(SealedChat.of(chat)))
        assert isinstance(sealed, SealedChat) and sealed._opened is None
        assert (sealed.kind, sealed.source, sealed.where) == (chat.kind, chat.source, chat.where)
        assert pickle.loads(pickle.dumps(sealed))._opened is None, "naming it does not open it"
        assert (sealed.turns, sealed.tools, sealed.meta) == (chat.turns, chat.tools, chat.meta)
        assert sealed == chat and sealed == SealedChat.of(chat) and repr(chat.turns) in repr(sealed)

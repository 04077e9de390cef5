"""Chats made by several processes are those made by one, collisions and exhaustion included."""

from __future__ import annotations

import itertools
import multiprocessing
from random import Random

import pytest

from toolkit.chats import Chat
from toolkit.errors import DataError
from toolkit.world import chats, generate, workers
from toolkit.world.catalog import Catalog, choose
from toolkit.world.spec import Unsuitable


@pytest.mark.parametrize(
    "options",
    [
        {"seed": 3, "decisions": 0.2, "rationales": True, "purposes": 0.1},
        {"domains": ("home",), "kinds": {"clarify": 1, "refuse": 1}},
    ],
)
def test_workers_make_the_same_chats(options: dict[str, object]) -> None:
    alone = list(chats(700, **options))  # type: ignore[arg-type]
    assert list(chats(700, workers=2, **options)) == alone  # type: ignore[arg-type]


def test_what_a_worker_cannot_make_is_an_error_in_its_turn(monkeypatch: pytest.MonkeyPatch) -> None:
    catalog, _ = choose("train", ("git",), {"irrelevance": 1}, 1)
    source = generate.Source(0, catalog)
    make = generate._make

    def all_but_the_second(r: Random, index: int, kind: str, catalog: Catalog) -> Chat:
        if index == 1:
            raise Unsuitable("never")
        return make(r, index, kind, catalog)

    monkeypatch.setattr(generate, "_make", all_but_the_second)
    order = [(0, "irrelevance"), (1, "irrelevance"), (2, "irrelevance")]
    made = workers._make_block(source, order)
    assert [one is None for one in made] == [False, True, False]
    found = generate._unique(source, ((*place, one) for place, one in zip(order, made, strict=True)))
    assert next(found).where == "builtin:tools#0"
    with pytest.raises(DataError, match="no unused user text left for kind irrelevance after 1 chats"):
        next(found)


def test_who_stops_early_leaves_no_process_behind() -> None:
    before = set(multiprocessing.active_children())  # of other tests
    some = chats(5_000, workers=2)
    assert len(list(itertools.islice(some, 3))) == 3
    some.close()  # type: ignore[attr-defined]
    assert set(multiprocessing.active_children()) <= before

"""Benches that share a card load beside each other and measure alone."""

from __future__ import annotations

from pathlib import Path

import pytest

from bench.card_lock import CardLock
from toolkit.errors import InputError


def test_one_measures_while_none_loads(tmp_path: Path) -> None:
    first, second = (CardLock(tmp_path / "card") for _ in range(2))
    first.beside()
    second.beside()
    assert not first.alone(0.2), "the second still loads, and is not waited for any longer"
    second.free()
    assert first.alone(60)
    first.free()
    assert second.alone(60)


def test_without_a_file_nothing_is_waited_for() -> None:
    lock = CardLock(None)
    lock.beside()
    assert lock.alone(0.0)
    lock.free()


def test_a_file_that_can_not_be(tmp_path: Path) -> None:
    with pytest.raises(InputError, match=r"--lock .*none/card: No such file or directory; wanted a file"):
        CardLock(tmp_path / "none" / "card")

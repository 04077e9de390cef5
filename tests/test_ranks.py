"""What ranks share, where there is one; which card a rank takes; whose turn it is."""

from __future__ import annotations

import pickle
from collections.abc import Iterator
from importlib import import_module

import pytest
from hypothesis import given
from hypothesis import strategies as st

from toolkit.environment import Place
from toolkit.errors import EngineError, Problem, RunError
from toolkit.ranks import Ranks, Several, here, in_turn, join, take_card
from toolkit.terminal import mute, new_console, say, warn


def test_a_rank_that_meets_no_other_says_so_itself(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    def none_there(*_: object, **__: object) -> Iterator[object]:
        raise RuntimeError("The client socket has timed out after 300s")

    monkeypatch.setattr(import_module("torch.distributed.rendezvous"), "rendezvous", none_there)
    environ = {"RANK": "1", "LOCAL_RANK": "1", "WORLD_SIZE": "2", "LOCAL_WORLD_SIZE": "2"}
    environ |= {"MASTER_ADDR": "there", "MASTER_PORT": "29500"}
    mute()
    try:
        with pytest.raises(EngineError, match="rank 1 of 2 can't meet the others at there:29500: The client socket"):
            join(environ)
        warn("heard")
    finally:
        mute(False)
    assert capsys.readouterr().err == "heard\n"


@pytest.mark.parametrize(
    ("seen", "local_rank", "taken"),
    [(None, 1, "1"), ("", 0, "0"), ("5,7", 1, "7"), ("GPU-ab, GPU-cd", 1, "GPU-cd"), ("3", 0, "3")],
)
def test_a_rank_sees_one_card(seen: str | None, local_rank: int, taken: str) -> None:
    environ = {} if seen is None else {"CUDA_VISIBLE_DEVICES": seen}
    take_card(environ, local_rank)
    assert environ == {"CUDA_VISIBLE_DEVICES": taken}


def test_one_process_does_all_for_itself() -> None:
    alone = here()
    assert type(alone) is Ranks and alone.first_one and alone.gather("x") == ["x"] and alone.sums(3, 4) == [3, 4]
    assert alone.first(lambda: 1) == alone.machine_first(lambda: 1) == 1
    with pytest.raises(RunError):
        alone.first(lambda: exec("raise error", {"error": RunError("x")}))


def test_libraries_find_no_group_of_processes() -> None:
    import torch.distributed as dist

    store = dist.HashStore()  # type: ignore[attr-defined]
    ranks = Several(Place(rank=0, size=1, local_rank=0, local_size=1), store, cuda=False)
    ranks.hide()
    bound = dist.is_initialized  # as unsloth_zoo.utils takes it, when it is imported
    try:
        assert not dist.is_initialized() and ranks.gather("x") == ["x"] and ranks.sums(2) == [2]
    finally:
        ranks.leave()
    assert not bound() and dist.is_initialized is not bound and not dist.is_initialized()


@given(st.lists(st.integers()), st.integers(1, 7))
def test_what_was_done_in_turn_comes_back_in_order(whole: list[int], ranks: int) -> None:
    assert in_turn([whole[rank::ranks] for rank in range(ranks)]) == whole


def test_what_the_first_rank_tells_just_before_its_end_is_not_told_again(monkeypatch: pytest.MonkeyPatch) -> None:
    import torch.distributed as dist

    store = dist.HashStore()  # type: ignore[attr-defined]
    error = RunError([Problem("x.toml:1", "wrong"), Problem("", "do so")])
    second, first = Several.__new__(Several), Several.__new__(Several)
    for rank, one in enumerate((first, second)):
        one.rank, one.store, one.neighbours, one.processes = rank, store, [0, 1], [("here", 1), ("here", 2)]

    def ends(_: int) -> bool:
        assert first.tells(error) == ""
        return False

    monkeypatch.setattr("toolkit.ranks._is_alive", ends)
    received = pickle.loads(pickle.dumps(error))
    assert second.tells(received) is None and second.tells(RunError("another")) == "rank 1: "
    assert received.problems == error.problems


def test_a_silent_rank_says_nothing(capsys: pytest.CaptureFixture[str]) -> None:
    try:
        mute()
        say("a")
        warn("b")
        print("a library")
        new_console().print("c")
    finally:
        mute(False)
    say("heard")
    assert capsys.readouterr() == ("heard\n", "")

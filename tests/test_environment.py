"""What torchrun says of a process is read in full or refused by name; one that was started alone goes on alone."""

from __future__ import annotations

import os
import re
import subprocess
import sys
from pathlib import Path

import pytest

from toolkit.environment import Place, forget_place, is_silent, place_of
from toolkit.errors import EngineError

TORCHRUN = {
    "RANK": "0",
    "LOCAL_RANK": "0",
    "WORLD_SIZE": "1",
    "LOCAL_WORLD_SIZE": "1",
    "MASTER_ADDR": "localhost",
    "MASTER_PORT": "29500",
}

PAIR = {"WORLD_SIZE": "2", "LOCAL_WORLD_SIZE": "2"}
ALL = "WORLD_SIZE=2, LOCAL_WORLD_SIZE=2, RANK=1, LOCAL_RANK=1"


@pytest.mark.parametrize(
    ("found", "told"),
    [
        ({**TORCHRUN, "WORLD_SIZE": "4", "RANK": "4"}, "WORLD_SIZE=4, LOCAL_WORLD_SIZE=1, RANK=4, LOCAL_RANK=0"),
        ({**TORCHRUN, "WORLD_SIZE": "2", "LOCAL_RANK": "1"}, "WORLD_SIZE=2, LOCAL_WORLD_SIZE=1, RANK=0, LOCAL_RANK=1"),
        ({**TORCHRUN, "WORLD_SIZE": "two"}, "WORLD_SIZE=two, LOCAL_WORLD_SIZE=1, RANK=0, LOCAL_RANK=0"),
        ({**TORCHRUN, "WORLD_SIZE": "2", "RANK": "-1"}, "WORLD_SIZE=2, LOCAL_WORLD_SIZE=1, RANK=-1, LOCAL_RANK=0"),
        *(
            ({**TORCHRUN, **PAIR, "RANK": "1", "LOCAL_RANK": "1", name: value}, ALL)
            for name, value in (
                ("MASTER_ADDR", ""),
                ("MASTER_ADDR", "tcp://here"),
                ("MASTER_ADDR", "here:29500"),
                ("MASTER_PORT", "abc"),
                ("MASTER_PORT", "0"),
                ("MASTER_PORT", "65536"),
            )
        ),
        ({"WORLD_SIZE": "2"}, "WORLD_SIZE=2"),
        ({"WORLD_SIZE": ""}, "WORLD_SIZE="),
        ({"WORLD_SIZE": "2", "LOCAL_RANK": "0"}, "WORLD_SIZE=2, LOCAL_RANK=0"),
        ({"RANK": "0"}, "RANK=0"),
        ({"LOCAL_RANK": "1"}, "LOCAL_RANK=1"),
        ({"OMPI_COMM_WORLD_SIZE": "2", "OMPI_COMM_WORLD_RANK": "0"}, "OMPI_COMM_WORLD_SIZE=2, OMPI_COMM_WORLD_RANK=0"),
        ({"PMI_SIZE": "8"}, "PMI_SIZE=8"),
        ({"MV2_COMM_WORLD_SIZE": "2"}, "MV2_COMM_WORLD_SIZE=2"),
    ],
)
def test_another_way_to_start_several_is_refused(found: dict[str, str], told: str) -> None:
    before = dict(found)
    with pytest.raises(EngineError) as caught:
        place_of(found)
    message = str(caught.value)
    assert f"({told})" in message and "only torchrun's way is known" in message and "--gpus N" in message
    assert found == before
    unset = re.search("`unset (.*)`", message)
    assert unset is not None
    assert place_of({name: value for name, value in found.items() if name not in unset[1].split()}) is None


@pytest.mark.parametrize(
    "found", [{"ACCELERATE_USE_FSDP": "true"}, {**TORCHRUN, "ACCELERATE_USE_DEEPSPEED": "True", "WORLD_SIZE": "2"}]
)
def test_a_model_split_over_gpus_is_refused(found: dict[str, str]) -> None:
    with pytest.raises(EngineError, match=r"^ACCELERATE_USE_\w+=.rue: a model that is split over GPUs"):
        place_of(found)


@pytest.mark.parametrize("address", ["localhost", "node-0.my_job.svc", "10.0.0.1", "fe80::1"])
def test_torchrun_says_which_rank_this_is(address: str) -> None:
    found = {**TORCHRUN, "RANK": "5", "LOCAL_RANK": "1", "WORLD_SIZE": "8", "LOCAL_WORLD_SIZE": "4"}
    found["MASTER_ADDR"] = address
    assert place_of(found) == Place(rank=5, size=8, local_rank=1, local_size=4)


def test_the_first_rank_speaks_for_all_that_it_will_meet() -> None:
    second = {**TORCHRUN, **PAIR, "RANK": "1", "LOCAL_RANK": "1"}
    assert is_silent(second) and is_silent({**second, "ACCELERATE_USE_FSDP": "true"})
    assert not is_silent({**TORCHRUN, **PAIR}) and not is_silent({}) and not is_silent(TORCHRUN)
    assert not any(is_silent({**second, name: "x y"}) for name in TORCHRUN)


@pytest.mark.parametrize(
    "found",
    [{}, TORCHRUN, {"WORLD_SIZE": "1"}, {"ACCELERATE_MIXED_PRECISION": "bf16", "ACCELERATE_USE_CPU": "false"}],
)
def test_one_alone_goes_on_without_what_it_was_told(found: dict[str, str]) -> None:
    """accelerate would take a rank for a process group, and a precision for the recipe's."""
    environ = {**found, "HOME": "/home/me"}
    assert place_of(environ) is None
    forget_place(environ)
    assert set(environ) <= {"HOME", "MASTER_ADDR", "MASTER_PORT"}


@pytest.mark.parametrize(
    ("words", "set_to", "told"),
    [
        (["run"], {"WORLD_SIZE": "2", "RANK": "0", "MASTER_PORT": ""}, "WORLD_SIZE=2"),
        (["run"], {**PAIR, "RANK": "1", "LOCAL_RANK": ""}, "LOCAL_RANK not set"),
        (["run"], {**PAIR, "RANK": "1", "LOCAL_RANK": "1", "MASTER_ADDR": "a b"}, "MASTER_ADDR=a b, MASTER_PORT=29500"),
        (["run"], {**PAIR, "RANK": "one"}, "which do not fit together"),
        (["run"], {"WORLD_SIZE": "2", "RANK": "7", "LOCAL_RANK": "x"}, "RANK=7, LOCAL_RANK=x"),
        (["plan"], PAIR, "`toolkit plan` was started as one of 2 processes"),
    ],
)
def test_ranks_are_refused_before_anything_is_loaded(
    tmp_path: Path, words: list[str], set_to: dict[str, str], told: str
) -> None:
    recipe = tmp_path / "x.toml"
    recipe.write_text('[[data.sources]]\nsource = "builtin:tools"\n')
    code = (
        "import sys; sys.argv = ['toolkit', *sys.argv[1:]]\n"
        "from toolkit.commands import main as cli\n"
        "try: cli.main()\n"
        "finally: print([name for name in ('torch', 'transformers') if name in sys.modules])"
    )
    environment = {name: value for name, value in {**os.environ, **TORCHRUN, **set_to}.items() if value}
    done = subprocess.run(
        [sys.executable, "-c", code, *words, str(recipe)], env=environment, capture_output=True, text=True
    )
    assert done.returncode == 2 and done.stderr.count("error: ") == 1 and told in done.stderr
    assert done.stdout == "[]\n"

"""A process that was started as one of several is refused by name; one that was started alone goes on alone."""

from __future__ import annotations

import os
import subprocess
import sys
from pathlib import Path

import pytest

from toolkit.environment import one_process
from toolkit.errors import EngineError

TORCHRUN = {"RANK": "0", "LOCAL_RANK": "0", "WORLD_SIZE": "1", "LOCAL_WORLD_SIZE": "1", "MASTER_ADDR": "localhost"}


@pytest.mark.parametrize(
    ("found", "told"),
    [
        ({**TORCHRUN, "WORLD_SIZE": "2", "LOCAL_WORLD_SIZE": "2"}, "WORLD_SIZE=2, LOCAL_WORLD_SIZE=2"),
        ({**TORCHRUN, "WORLD_SIZE": "4", "RANK": "3"}, "WORLD_SIZE=4, RANK=3"),
        ({"WORLD_SIZE": "2"}, "WORLD_SIZE=2"),
        ({"WORLD_SIZE": "two"}, "WORLD_SIZE=two"),
        ({"WORLD_SIZE": ""}, "WORLD_SIZE="),
        ({"RANK": "0"}, "RANK=0"),
        ({"LOCAL_RANK": "1"}, "LOCAL_RANK=1"),
        ({"OMPI_COMM_WORLD_SIZE": "2", "OMPI_COMM_WORLD_RANK": "0"}, "OMPI_COMM_WORLD_SIZE=2"),
        ({"PMI_SIZE": "8"}, "PMI_SIZE=8"),
        ({"MV2_COMM_WORLD_SIZE": "2"}, "MV2_COMM_WORLD_SIZE=2"),
        ({"ACCELERATE_USE_FSDP": "true"}, "ACCELERATE_USE_FSDP=true"),
        ({**TORCHRUN, "ACCELERATE_USE_DEEPSPEED": "True"}, "ACCELERATE_USE_DEEPSPEED=True"),
    ],
)
def test_one_of_several_is_refused(found: dict[str, str], told: str) -> None:
    before = dict(found)
    with pytest.raises(EngineError) as caught:
        one_process(found)
    message = str(caught.value)
    assert f"({told})" in message and "not supported yet" in message and "CUDA_VISIBLE_DEVICES=0" in message
    assert found == before


@pytest.mark.parametrize(
    "found",
    [{}, TORCHRUN, {"WORLD_SIZE": "1"}, {"ACCELERATE_MIXED_PRECISION": "bf16", "ACCELERATE_USE_CPU": "false"}],
)
def test_one_alone_goes_on_without_what_it_was_told(found: dict[str, str]) -> None:
    """accelerate would take a rank for a process group, and a precision for the recipe's."""
    environ = {**found, "HOME": "/home/me"}
    one_process(environ)
    assert set(environ) <= {"HOME", "MASTER_ADDR"}


def test_torchrun_is_told_before_anything_is_loaded(tmp_path: Path) -> None:
    recipe = tmp_path / "x.toml"
    recipe.write_text('[[data.sources]]\nsource = "builtin:tools"\n')
    code = (
        "import sys; sys.argv = ['toolkit', 'run', sys.argv[1]]\n"
        "from toolkit.commands import main as cli\n"
        "try: cli.main()\n"
        "finally: print([name for name in ('torch', 'transformers') if name in sys.modules])"
    )
    environment = {**os.environ, **TORCHRUN, "WORLD_SIZE": "2", "RANK": "1"}
    done = subprocess.run([sys.executable, "-c", code, str(recipe)], env=environment, capture_output=True, text=True)
    assert done.returncode == 2 and done.stderr.count("error: ") == 1 and "WORLD_SIZE=2, RANK=1" in done.stderr
    assert done.stdout == "[]\n"

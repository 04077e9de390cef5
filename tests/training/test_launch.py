"""`toolkit run --gpus`: what is refused before a rank is started, and what is said where none can be."""

from __future__ import annotations

import resource
from pathlib import Path
from typing import Any

import pytest
from torch.distributed import DistNetworkError
from torch.distributed.elastic.rendezvous import RendezvousConnectionError

from tests.command import toolkit
from toolkit.errors import EngineError, InputError, ToolkitError
from toolkit.recipe import dump, load
from toolkit.runs import RunFolder
from toolkit.training.launch import launch


def failing(monkeypatch: pytest.MonkeyPatch, error: BaseException, behind: BaseException | None = None) -> None:
    """Let torchrun's launcher fail, on a machine with two cards."""

    def started(*_: object) -> Any:
        raise error from behind

    monkeypatch.setattr("torch.distributed.launcher.api.elastic_launch", started)
    monkeypatch.setattr("torch.cuda.device_count", lambda: 2)


@pytest.mark.parametrize(
    ("behind", "told"),
    [
        (
            DistNetworkError("The server socket has failed to bind. port: 0, code: -24, name: EMFILE, message: x"),
            "--gpus 2: too many open files: raise the limit, as by `ulimit -n 4096`",
        ),
        (
            DistNetworkError(
                "The client socket has timed out after 60000ms while trying to connect to (localhost, 1)."
            ),
            "--gpus 2: the processes can't meet on this machine: The client socket has timed out after 60000ms while "
            "trying to connect to (localhost, 1); wanted the name localhost for this machine",
        ),
    ],
)
@pytest.mark.parametrize("wrapped", [True, False])  # by the rendezvous; not where it is past that
def test_processes_that_can_t_meet_are_told_in_a_line(
    monkeypatch: pytest.MonkeyPatch, behind: Exception, told: str, wrapped: bool
) -> None:
    outer = RendezvousConnectionError("The connection to the C10d store has failed. See inner exception for details.")
    failing(monkeypatch, *((outer, behind) if wrapped else (behind,)))
    with pytest.raises(ToolkitError) as caught:
        launch(2, 16)
    said = str(caught.value)
    assert said.startswith(told) and "\n" not in said and caught.value.exit_code == 1


def test_a_rendezvous_that_can_t_open_a_port_does_not_wait_for_another_s(monkeypatch: pytest.MonkeyPatch) -> None:
    """PyTorch would try for two minutes to connect to one that somebody else has opened."""
    from torch.distributed.elastic.rendezvous import c10d_rendezvous_backend as backend

    asked = []

    def taken(*_: object, is_master: bool, **__: object) -> object:
        asked.append(is_master)
        raise DistNetworkError("The server socket has failed to listen. code: -98, name: EADDRINUSE")

    monkeypatch.setattr(backend, "TCPStore", taken)
    monkeypatch.setattr("torch.cuda.device_count", lambda: 2)
    with pytest.raises(ToolkitError, match="can't meet on this machine: The server socket has failed to listen"):
        launch(2, 16)
    assert asked == [True]


def test_too_few_open_files_are_seen_before_anything_is_started(monkeypatch: pytest.MonkeyPatch) -> None:
    failing(monkeypatch, AssertionError("started"))
    monkeypatch.setattr(resource, "getrlimit", lambda _: (39, 4096))
    with pytest.raises(ToolkitError, match=r"^--gpus 2: `ulimit -n` allows 39 open files; wanted 40 at least"):
        launch(2, 16)
    for enough in (40, resource.RLIM_INFINITY):
        monkeypatch.setattr(resource, "getrlimit", lambda _, most=enough: (most, most))
        with pytest.raises(AssertionError, match="started"):
            launch(2, 16)


@pytest.mark.parametrize(("cores", "most"), [(1, 2), (2, 2), (5, 5)])
def test_more_ranks_than_chats_or_cores_are_not_started(monkeypatch: pytest.MonkeyPatch, cores: int, most: int) -> None:
    failing(monkeypatch, AssertionError("started"))
    with pytest.raises(InputError, match="99 GPUs can't share an update of 16 chats"):
        launch(99, 16)
    monkeypatch.setattr("torch.cuda.device_count", lambda: 0)
    monkeypatch.setattr("toolkit.training.launch.usable_cores", lambda: cores)
    with pytest.raises(EngineError, match=f"wanted --gpus {most} at most"):
        launch(most + 1, 1000)
    with pytest.raises(AssertionError, match="started"):
        launch(most, 1000)


def test_a_patience_that_is_no_number_is_named(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("TORCH_ELASTIC_SHUTDOWN_TIMEOUT", "abc")
    monkeypatch.setattr("torch.cuda.device_count", lambda: 2)
    with pytest.raises(EngineError, match="TORCH_ELASTIC_SHUTDOWN_TIMEOUT = 'abc'; wanted a whole number of seconds"):
        launch(2, 16)


@pytest.mark.parametrize(
    ("words", "told"),
    [
        (["--out", "begun"], "begun: exists already; name another with --out, or go on with this run: --resume begun"),
        (["--out", "x.toml/run"], "x.toml/run: can't be made, x.toml is a file; name another folder with --out"),
        (["--resume", "begin"], "begin: no such run folder, did you mean begun?"),
        (["--resume", "."], ".: not a run folder, but it holds some: begun"),
        (["--resume", "begun", "--out", "other"], "--out and --resume name different folders"),
        (["--resume", "begun", "--set", "train.seed=7"], "x.toml: train.seed = 7, but begun was trained with 42"),
        (["--set", 'train.report_to=["wandb"]'], "--set train.report_to="),
    ],
)
def test_wrong_folders_are_refused_as_one_process_would_before_any_is_started(
    capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch, tmp_path: Path, words: list[str], told: str
) -> None:
    monkeypatch.chdir(tmp_path)
    monkeypatch.setattr("importlib.util.find_spec", lambda name: None)
    monkeypatch.setattr("toolkit.training.launch.launch", lambda *_: 1 / 0)
    Path("x.toml").write_text('[[data.sources]]\nsource = "builtin:tools"\n')
    RunFolder.create(Path("begun"), dump(load(Path("x.toml")).recipe))
    before = sorted(tmp_path.rglob("*"))
    several = toolkit(capsys, monkeypatch, "run", "x.toml", *words, "--gpus", "2")
    assert several[0] == 2 and several[2].startswith(f"error: {told}"), several
    assert several == toolkit(capsys, monkeypatch, "run", "x.toml", *words)
    assert sorted(tmp_path.rglob("*")) == before

"""Several processes train what one does: the same losses, one run folder, and an end that is told in a line.

Ranks are on the CPU here, with gloo; tests/gpu/test_ranks.py has two cards. One run of each kind serves all tests.
"""

from __future__ import annotations

import json
import os
import shutil
import signal
import subprocess
import sys
import time
from functools import cache
from pathlib import Path
from typing import Any

import pytest

from tests.forked import Ended, Forks
from tests.tiny import write_recipe
from toolkit.evaluation.results import Evaluation
from toolkit.files import is_held
from toolkit.records import read_object
from toolkit.runs import RunFolder
from toolkit.terminal import new_console
from toolkit.training import checkpoints
from toolkit.training.verify.run import verify_run

# of a loss, by which two ranks may differ from one: the same sums of float32 in another order, through some updates
TOLERANCE = 1e-5
UPDATES = 6
KINDS: dict[str, dict[str, Any]] = {
    "packed": {"micro_batch": 512},
    "padded": {},
    "compiled": {"engine": "compiled", "micro_batch": "auto"},
}


class Runs:
    """Runs of one recipe, each made when a test first asks for it."""

    def __init__(self, folder: Path, model: Path, cache: Path, forks: Forks) -> None:
        self.folder, self.model, self.cache, self.ranks = folder, model, cache, forks
        self.ended: dict[str, Ended] = {}

    @cache  # noqa: B019  (as long as the tests)
    def recipe(self, kind: str, chats: int = 38) -> Path:
        place = self.folder / f"{kind}-{chats}"
        place.mkdir()
        train = {
            "max_steps": UPDATES,
            "per_device_train_batch_size": 2,
            "gradient_accumulation_steps": 4,
            "gradient_checkpointing": False,
            "save_steps": 2,
        }
        evaluation = {"holdout": 5, "eval_steps": 3, "per_device_eval_batch_size": 2, "early_stopping_patience": 0}
        decoded = {"generate": 4, "max_new_tokens": 8}
        lora = {"lora_dropout": 0.0}
        return write_recipe(place, self.model, chats, lora=lora, train=train | KINDS[kind], eval=evaluation | decoded)

    def words(self, kind: str, name: str, *more: str) -> list[str]:
        return ["run", str(self.recipe(kind)), "--out", str(self.folder / name), *more]

    def start(self, said: Path, *ranks: list[str], **more: Any) -> Ended:
        return self.ranks.run(said, *ranks, environment={"TOOLKIT_CACHE": str(self.cache)}, **more)

    def run(self, name: str, ranks: int, words: list[str], **more: Any) -> RunFolder:
        folder = RunFolder(self.folder / name)
        what = self.folder / f"{name}-said-{len(self.ended)}"
        self.ended[name] = self.start(what, *([words] * ranks), **more)
        return folder

    @cache  # noqa: B019
    def whole(self, kind: str, ranks: int) -> RunFolder:
        """A run from beginning to end."""
        name = f"{kind}-by-{ranks}"
        folder = self.run(name, ranks, self.words(kind, name))
        assert self.ended[name].codes == [0] * ranks, self.ended[name].said
        return folder


@pytest.fixture(scope="module")
def runs(tiny_model: Path, cache_root: Path, forks: Forks, tmp_path_factory: pytest.TempPathFactory) -> Runs:
    return Runs(tmp_path_factory.mktemp("ranks"), tiny_model, cache_root, forks)


def rows(folder: RunFolder) -> list[dict[str, Any]]:
    return [json.loads(line) for line in folder.metrics.read_text().splitlines()]


def assert_same(folder: RunFolder, other: RunFolder) -> None:
    """The same updates of the same chats, with losses, gradient norms and held-out losses within `TOLERANCE`."""
    mine, theirs = rows(folder), rows(other)
    assert [row["update"] for row in mine] == [row["update"] for row in theirs]
    for row, its in zip(mine, theirs, strict=True):
        assert row.keys() == its.keys()
        for name in ("real_tokens", "learning_rate", "eval_chats", "eval_calls"):
            assert row.get(name) == its.get(name), (name, row)
        for name in ("loss", "grad_norm", "eval_loss"):
            if name in row:
                assert row[name] == pytest.approx(its[name], rel=TOLERANCE), (name, row)


@pytest.mark.parametrize(
    "kind",
    ["packed", pytest.param("padded", marks=pytest.mark.slow), pytest.param("compiled", marks=pytest.mark.endurance)],
)
def test_two_ranks_train_what_one_does(runs: Runs, kind: str) -> None:
    one, two = runs.whole(kind, 1), runs.whole(kind, 2)
    assert_same(two, one)
    first, other = rows(one)[0], rows(two)[0]
    assert other["eval_loss"] == first["eval_loss"] and other["eval_groups"] == first["eval_groups"]  # to the last bit


def test_ranks_leave_one_run_folder(runs: Runs) -> None:
    folder = runs.whole("packed", 2)
    one = runs.whole("packed", 1)
    assert {path.name for path in folder.path.iterdir()} == {path.name for path in one.path.iterdir()}
    assert folder.adapter_damage() is None and not is_held(folder.path)
    summary, environment = json.loads(folder.summary.read_text()), json.loads(folder.environment.read_text())
    assert summary["ranks"] == 2 and environment["ranks"] == {"processes": 2, "machines": 1}
    assert json.loads(one.summary.read_text())["ranks"] == 1
    said, silent = runs.ended["packed-by-2"].said
    assert "ranks      2 processes" in said[0] and silent == ("", "")
    shared = summary["shared_updates"]
    assert 0.5 < shared["balance"] <= 1 and 0 < shared["summing"] < shared["update"] and shared["waiting"] >= 0
    assert "ranks      tokens " in said[0] and json.loads(one.summary.read_text())["shared_updates"] is None
    assert [checkpoints.read(path).update for path in folder.all_checkpoints()][-1] == UPDATES
    assert "2 processes" in folder.report.read_text()


def test_one_process_verifies_what_ranks_trained_without_dropout(runs: Runs, tmp_path: Path, cache: Path) -> None:
    """Within a tolerance: the sums are another's. With dropout it is refused (test_verify.py)."""
    shutil.copytree(runs.whole("packed", 2).path, tmp_path / "run")
    verdict, said = verify_run(tmp_path / "run", new_console())
    assert verdict == "within", said
    differences = read_object(tmp_path / "run" / "verification.json")["training"]["differences"]
    assert [(one["then"], one["now"]) for one in differences if one["name"] == "processes"] == [("2", "1")]


def test_ranks_decode_the_same_answers(runs: Runs) -> None:
    for name in ("before.jsonl", "after.jsonl"):
        one, two = (Evaluation.load(runs.whole("packed", ranks).evaluation / name) for ranks in (1, 2))
        assert len(two.rows) == 4 and two.rows == one.rows


@pytest.mark.parametrize(("began", "goes_on"), [(2, 1), pytest.param(1, 2, marks=pytest.mark.slow)])
def test_another_number_of_ranks_goes_on(runs: Runs, began: int, goes_on: int) -> None:
    """SIGTERM stops all ranks after the same update; what goes on ends as the run that was never stopped."""
    name = f"stopped-{began}"
    words = runs.words("packed", name)
    folder = runs.run(name, began, words, signal={"name": "SIGTERM", "rank": began - 1, "update": 3})
    ended = runs.ended[name]
    assert ended.codes == [130] * began, ended.said
    assert "saved; go on with:" in ended.said[0][1] and ("--gpus 2" in ended.said[0][1]) == (began == 2)
    assert [err for _, err in ended.said[1:]] == [""] * (began - 1)
    last = folder.last_checkpoint()
    assert last is not None and checkpoints.read(last).update == rows(folder)[-1]["update"] < UPDATES
    runs.run(name, goes_on, ["run", str(runs.recipe("packed")), "--resume", str(folder.path)])
    assert runs.ended[name].codes == [0] * goes_on, runs.ended[name].said
    assert_same(folder, runs.whole("packed", 1))


@pytest.mark.slow
def test_what_ranks_made_with_dropout_of_a_run_that_one_began_is_told_by_verify(runs: Runs, cache: Path) -> None:
    words = [*runs.words("packed", "alone"), "--set", "lora.lora_dropout=0.1", "--set", "eval.generate=0"]
    folder = runs.run("alone", 1, words, signal={"name": "SIGTERM", "rank": 0, "update": 2})
    update = rows(folder)[-1]["update"]
    assert runs.ended["alone"].codes == [130] and update < 5
    runs.run("alone", 2, ["run", str(folder.recipe), "--resume", str(folder.path)])
    assert runs.ended["alone"].codes == [0, 0], runs.ended["alone"].said
    verdict, said = verify_run(folder.path, new_console(), 5)
    assert verdict == "different" and f"not the same run: update {update + 1}: loss " in said
    assert f"; after update {update} the run went on with 2 processes, which draw other random numbers for " in said
    assert verify_run(folder.path, new_console(), update)[0] == "equal"


def test_a_killed_rank_ends_the_others(runs: Runs) -> None:
    dies = {"name": "SIGKILL", "rank": 1, "update": 4}
    folder = runs.run("killed", 2, runs.words("packed", "killed"), signal=dies)
    ended = runs.ended["killed"]
    assert ended.codes == [1, -signal.SIGKILL] and ended.seconds < 60
    errors = [line for line in ended.said[0][1].splitlines() if line.startswith("error: ")]
    assert len(errors) == 1 and "rank 1 (process " in errors[0] and " has ended; kept: " in errors[0]
    assert "go on with: toolkit run" in errors[0] and "--gpus 2" in errors[0]
    last = folder.last_checkpoint()
    assert last is not None and checkpoints.read(last).update == 2


def test_a_nan_of_one_rank_stops_all(runs: Runs) -> None:
    folder = runs.run("spoilt", 2, runs.words("packed", "spoilt"), spoilt=1)
    ended = runs.ended["spoilt"]
    assert ended.codes == [1, 1]
    told = [line for _, err in ended.said for line in err.splitlines() if line.startswith("error: ")]
    assert len(told) == 1 and told[0].startswith("error: update 3: loss is nan")
    assert [path.name for path in folder.all_checkpoints()] == ["checkpoint-2"]


def cuts(folder: RunFolder) -> list[tuple[int, str, dict[str, Any]]]:
    return [(row["update"], row["stage"], row["memory_cut"]) for row in rows(folder) if "memory_cut" in row]


SHORT = ("train.max_steps=3", "train.save_steps=3", "eval.generate=0", "eval.eval_steps=3", "lora.lora_dropout=0.1")


def scarce(runs: Runs, name: str, kind: str, *settings: str, **how: Any) -> tuple[RunFolder, Ended]:
    """A short run by two ranks, with dropout, in which a rank's memory runs out; what is remembered is forgotten."""
    more = [part for setting in (*SHORT, *settings) for part in ("--set", setting)]
    folder = runs.run(name, 2, runs.words(kind, name, *more), scarce=how)
    (runs.cache / "ran-out.jsonl").unlink(missing_ok=True)
    return folder, runs.ended[name]


def trained(folder: RunFolder) -> list[float]:
    return [row[key] for row in rows(folder) for key in ("loss", "grad_norm", "eval_loss") if key in row]


def test_ranks_cut_together_where_the_memory_of_one_runs_out(runs: Runs) -> None:
    two = ("train.max_steps=2", "eval.holdout=0")
    cut, ended = scarce(runs, "cut", "packed", "train.micro_batch=1200", *two, rank=1, update=1, at=700)
    assert ended.codes == [0, 0], ended.said
    ((update, stage, made),) = cuts(cut)
    assert (update, stage) == (1, "training") and 400 < made["tokens"] < 600
    said, silent = ended.said
    assert "memory     rank 1: out of GPU memory: CUDA out of memory" in said[0] and silent == ("", "")
    assert "update 1 is made again, with the same chats and loss" in said[0]
    began, _ = scarce(runs, "began", "packed", f"train.micro_batch={made['tokens']}", *two, rank=2)
    assert trained(cut) == pytest.approx(trained(began), rel=1e-6)


@pytest.mark.slow
def test_ranks_cut_padded_rows_and_both_at_once(runs: Runs) -> None:
    cut, ended = scarce(runs, "cut-padded", "padded", rank=0, update=2, at=300)
    assert ended.codes == [0, 0] and cuts(cut) == [(2, "training", {"rows": 1})], ended.said
    calm, _ = scarce(runs, "calm-padded", "padded", rank=2)
    # update 1 in larger pieces, whose dropout is the same by row only in a run that began so
    assert trained(cut)[:2] == pytest.approx(trained(calm)[:2], rel=1e-6)
    begun, _ = scarce(runs, "cut-first", "padded", rank=1, update=1, at=300)
    one = ("train.per_device_train_batch_size=1", "train.gradient_accumulation_steps=8")
    small, _ = scarce(runs, "began-small", "padded", *one, rank=2)
    assert trained(begun) == pytest.approx(trained(small), rel=1e-6)


@pytest.mark.slow
def test_ranks_end_together_where_nothing_is_left(runs: Runs) -> None:
    cut, ended = scarce(runs, "nothing-left", "padded", rank=1, update=2, at=200, times=99)
    assert ended.codes == [1, 1]
    told = [line for _, err in ended.said for line in err.splitlines() if line.startswith("error: ")]
    assert len(told) == 1 and "tried: micro-batches of at most 1 rows, then all layers recompute" in told[0]
    assert [made for _, _, made in cuts(cut)] == [{"rows": 1}, {"rows": 1, "recompute": True}]


@pytest.mark.slow
def test_a_rank_cuts_held_out_chats_and_all_hear_of_it(runs: Runs) -> None:
    cut, ended = scarce(runs, "cut-held-out", "padded", rank=1, batch=1, at=40)
    assert ended.codes == [0, 0] and cuts(cut) == [(0, "evaluation", {"eval_rows": 1})], ended.said
    calm, _ = scarce(runs, "calm-held-out", "padded", rank=2)
    assert trained(cut) == pytest.approx(trained(calm), rel=1e-6)


@pytest.mark.slow
@pytest.mark.parametrize(("stage", "rank", "at"), [("decoding", 1, 150), ("saving", 0, 1)])
def test_a_rank_decodes_fewer_at_a_time_or_saves_once_more_alone(runs: Runs, stage: str, rank: int, at: int) -> None:
    """The others go on; answers, losses and weights are those of ranks whose memory is enough."""
    more = ("eval.generate=4",)
    found, ended = scarce(runs, f"scarce-{stage}", "padded", *more, rank=rank, stage=stage, at=at)
    assert ended.codes == [0, 0] and not cuts(found) and ended.said[rank][1] == "scarce\n", ended.said
    calm = RunFolder(runs.folder / "calm-late")
    if not calm.path.exists():
        scarce(runs, "calm-late", "padded", *more, rank=2)
    assert trained(found) == trained(calm)
    for name in ("before.jsonl", "after.jsonl"):
        mine, theirs = (Evaluation.load(one.evaluation / name) for one in (found, calm))
        assert mine.rows == theirs.rows
    weights = "adapter_model.safetensors"
    assert (found.adapter / weights).read_bytes() == (calm.adapter / weights).read_bytes()


def test_ranks_of_different_recipes_do_not_begin(runs: Runs, tmp_path: Path) -> None:
    words = runs.words("packed", "different")
    ended = runs.start(tmp_path / "said", words, [*words, "--set", "train.seed=7"])
    assert ended.codes == [2, 2] and not (runs.folder / "different").exists()
    told = "".join(err for _, err in ended.said)
    assert told.count("error: ") == 1 and "rank 1 on " in told and "has another recipe than rank 0" in told


def test_an_update_is_not_shared_by_more_ranks_than_chats(runs: Runs, tmp_path: Path) -> None:
    few = ["--set", "train.per_device_train_batch_size=1", "--set", "train.gradient_accumulation_steps=1"]
    ended = runs.start(tmp_path / "said", *([runs.words("packed", "few") + few] * 2))
    told = "".join(err for _, err in ended.said)
    assert ended.codes == [2, 2] and told.count("error: ") == 1 and "2 GPUs can't share an update of 1 chat " in told


@pytest.mark.slow
def test_gpus_starts_ranks_and_stops_them(runs: Runs, tmp_path: Path) -> None:
    """The command itself: what it says without a GPU, and Ctrl-C to it, long before it is done."""
    folder = RunFolder(tmp_path / "run")
    endless = ("train.max_steps=5000", "train.num_train_epochs=5000", "eval.eval_steps=5000", "eval.generate=0")
    command = [sys.executable, "-m", "toolkit", "run", str(runs.recipe("packed")), "--gpus", "2"]
    command += [part for setting in endless for part in ("--set", setting)]
    environment = os.environ | {"TOOLKIT_CACHE": str(tmp_path / "cache")}
    started = subprocess.Popen(
        [*command, "--out", str(folder.path)],
        env=environment,
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        text=True,
    )
    try:
        until = time.monotonic() + 600
        while not (folder.metrics.is_file() and folder.metrics.read_text().count("\n") >= 3):
            assert started.poll() is None and time.monotonic() < until
            time.sleep(0.05)
        started.send_signal(signal.SIGINT)
        out, err = started.communicate(timeout=600)
    finally:
        started.kill()
    assert started.returncode == 130, err
    assert "--gpus 2 trains as 2 processes on the CPU, for trying it out" in err and "all 2 ranks after update" in err
    assert err.count("saved; go on with:") == 1 and "Traceback" not in err and "ranks      2 processes" in out
    last = folder.last_checkpoint()
    assert last is not None and checkpoints.read(last).update < 5000
    shutil.rmtree(folder.path)


@pytest.mark.slow
def test_gpus_says_what_is_wrong_once(runs: Runs, tmp_path: Path) -> None:
    recipe = tmp_path / "x.toml"
    recipe.write_text('[[data.sources]]\nsource = "builtin:tools"\n[train]\nmax_step = 3\n')
    done = subprocess.run(
        [sys.executable, "-m", "toolkit", "run", str(recipe), "--gpus", "2"], capture_output=True, text=True
    )
    assert done.returncode == 2 and done.stderr.count("error: ") == 1 and f"{recipe}:4" in done.stderr


@pytest.mark.slow
def test_torchrun_s_own_report_follows_ours(runs: Runs, tmp_path: Path) -> None:
    words = ["-m", "toolkit", "run", str(runs.recipe("packed")), "--out", str(tmp_path)]
    (tmp_path / "there").touch()
    torchrun = [sys.executable, "-m", "torch.distributed.run", "--standalone", "--nproc_per_node=2"]
    done = subprocess.run([*torchrun, *words], capture_output=True, text=True, timeout=300)
    ours, _, theirs = done.stderr.partition("name another with --out\n")
    assert done.returncode == 1 and ours == f"error: {tmp_path}: exists already; "
    assert "ChildFailedError" in theirs and theirs.count("exitcode  : 2") == 2 and "error: " not in theirs

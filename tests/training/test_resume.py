"""A run that was damaged or killed is resumed to the same weights, bit for bit, and says what it did."""

from __future__ import annotations

import json
import shutil
from collections.abc import Callable
from pathlib import Path

import pytest

from tests.tiny import write_recipe
from tests.training.test_checkpoints import flip
from toolkit.errors import RunError, TrainingError
from toolkit.export.source import find_source
from toolkit.hashes import sha256_of
from toolkit.inference.named_models import columns_of
from toolkit.manifest import NAME
from toolkit.recipe import load
from toolkit.records import read_object, read_rows, write_json
from toolkit.runs import RunFolder
from toolkit.training.checkpoints import BEST, SAVED
from toolkit.training.resume import mend_recipe
from toolkit.training.run import left_to_train, run

TRAIN = {"max_steps": 6, "save_steps": 2, "per_device_train_batch_size": 2, "gradient_accumulation_steps": 1}
EVAL = {"eval_steps": 2, "early_stopping_patience": 9, "generate": 2, "max_new_tokens": 4}


@pytest.fixture(scope="module")
def place(tmp_path_factory: pytest.TempPathFactory, tiny_model: Path) -> Path:
    """A folder with tiny.toml: 20 chats, 2 an update, dropout, 10 updates an epoch, of which 6 are made."""
    folder = tmp_path_factory.mktemp("resume")
    write_recipe(folder, tiny_model, 24, lora={"lora_dropout": 0.2, "r": 2}, train=TRAIN, eval=EVAL)
    return folder


@pytest.fixture(autouse=True)
def own_cache(place: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("TOOLKIT_CACHE", str(place / "cache"))
    monkeypatch.chdir(place)


@pytest.fixture(scope="module")
def through(place: Path) -> RunFolder:
    """A run that nothing happened to."""
    with pytest.MonkeyPatch.context() as patched:
        patched.setenv("TOOLKIT_CACHE", str(place / "cache"))
        return run(load(place / "tiny.toml"), place / "through")


@pytest.fixture
def finished(through: RunFolder, tmp_path: Path) -> RunFolder:
    shutil.copytree(through.path, tmp_path / "run")
    return RunFolder(tmp_path / "run")


@pytest.fixture
def stopped(finished: RunFolder) -> RunFolder:
    """The same as it was when the last checkpoint was there, and nothing after it: checkpoints 4 and 6."""
    for path in (
        finished.adapter,
        finished.evaluation / "after.jsonl",
        finished.summary,
        finished.report,
        finished.done,
    ):
        shutil.rmtree(path) if path.is_dir() else path.unlink()
    return finished


def weights(folder: RunFolder) -> str:
    return sha256_of(folder.adapter / "adapter_model.safetensors")


def back_at(update: int, whole: RunFolder, path: Path) -> RunFolder:
    """A copy of a finished run as it was after so many updates."""
    part = RunFolder(path)
    shutil.copytree(whole.path, part.path)
    for checkpoint in part.all_checkpoints():
        if int(checkpoint.name.rpartition("-")[2]) > update:
            shutil.rmtree(checkpoint)
    shutil.rmtree(part.adapter)
    part.summary.unlink()
    return part


def resume(folder: RunFolder, recipe: Path | None = None) -> RunFolder:
    return run(load(recipe or Path("tiny.toml")), resume=folder.path)


def updates(folder: RunFolder) -> list[tuple[int, float]]:
    return [(row["update"], row["loss"]) for row in read_rows(folder.metrics) if "loss" in row]


def test_from_the_last_checkpoint_nothing_is_trained_twice(
    stopped: RunFolder, through: RunFolder, capsys: pytest.CaptureFixture[str]
) -> None:
    """Six updates are not a whole epoch; the trainer alone would make a seventh."""
    resume(stopped)
    assert weights(stopped) == weights(through)
    assert updates(stopped) == updates(through) and len(updates(stopped)) == 6
    assert f"resuming   from {stopped.checkpoints / 'checkpoint-6'}" in capsys.readouterr().out
    assert read_object(stopped.summary)["updates"] == 6
    before, after = (read_object(one.summary)["calls_after"]["overall"] for one in (through, stopped))
    assert before == after


@pytest.mark.parametrize("name", ["adapter_model.safetensors", "optimizer.pt", "rng_state.pth", BEST, NAME])
def test_a_damaged_checkpoint_is_passed_over(
    stopped: RunFolder, through: RunFolder, name: str, capsys: pytest.CaptureFixture[str]
) -> None:
    flip(stopped.checkpoints / "checkpoint-6" / name, 200)
    resume(stopped)
    out = capsys.readouterr().out
    assert weights(stopped) == weights(through) and updates(stopped) == updates(through)
    assert f"{stopped.checkpoints / 'checkpoint-6' / name}: " in out and "this checkpoint is passed over" in out
    assert f"resuming   from {stopped.checkpoints / 'checkpoint-4'}" in out
    assert (stopped.checkpoints / "damaged-checkpoint-6" / name).is_file()
    assert (stopped.checkpoints / "checkpoint-6" / name).is_file()


def test_where_none_is_whole_the_run_starts_over(
    stopped: RunFolder, through: RunFolder, capsys: pytest.CaptureFixture[str]
) -> None:
    for update in (4, 6):
        (stopped.checkpoints / f"checkpoint-{update}" / "optimizer.pt").write_bytes(b"")
    stopped.environment.write_text("{")
    resume(stopped)
    out = capsys.readouterr().out
    assert "no checkpoint is whole: the run starts over" in out and "resuming   from the start" in out
    assert weights(stopped) == weights(through) and updates(stopped) == updates(through)


def test_a_lost_line_of_the_log_costs_no_more_and_decides_nothing(
    stopped: RunFolder, through: RunFolder, capsys: pytest.CaptureFixture[str]
) -> None:
    lines = stopped.metrics.read_bytes().splitlines()
    (number,) = [i for i, line in enumerate(lines) if b'"update": 3' in line]
    lines[number] = b"\x00\xff" + lines[number][:9]
    stopped.metrics.write_bytes(b"\r\n\r\n".join(lines) + b'\n{"update": 6, "los')
    shutil.rmtree(stopped.checkpoints / "checkpoint-6")
    resume(stopped)
    out = capsys.readouterr().out
    assert f"note       {stopped.metrics}:{2 * number + 1}: not a row of a training log" in out
    assert updates(stopped) == [one for one in updates(through) if one[0] != 3]
    assert weights(stopped) == weights(through)


@pytest.mark.parametrize("content", [b"", b"{", b"\xff\x00", None, b'{"engine": {"engine": {"value": "unsloth"}}}'])
def test_what_a_run_began_with_is_written_again(
    stopped: RunFolder, through: RunFolder, content: bytes | None, capsys: pytest.CaptureFixture[str]
) -> None:
    stopped.environment.unlink() if content is None else stopped.environment.write_bytes(content)
    resume(stopped)
    assert f"{stopped.environment}: " in capsys.readouterr().out
    assert weights(stopped) == weights(through)
    data = read_object(stopped.environment)["data"]
    assert data.pop("run") == str(stopped.path.absolute())
    assert data.items() <= read_object(through.environment)["data"].items()


@pytest.mark.parametrize("content", [b"", b"{% if", b"\xff\x00", None, "said"])
def test_a_damaged_template_is_written_again(
    stopped: RunFolder, through: RunFolder, content: bytes | str | None
) -> None:
    whole = stopped.template.read_text()
    if content is None:
        stopped.template.unlink()
    elif isinstance(content, bytes):
        stopped.template.write_bytes(content)
    else:  # what no chat of this run would show
        stopped.template.write_text(f"{whole}{{# {content} #}}")
    resume(stopped)
    assert weights(stopped) == weights(through) and stopped.template.read_text() == whole
    assert (stopped.adapter / stopped.template.name).read_text() == whole


def test_a_damaged_template_that_is_made_otherwise_now_is_named(stopped: RunFolder) -> None:
    found = read_object(stopped.environment)
    found["data"]["template_sha256"] = "0" * 64
    write_json(stopped.environment, found)
    with pytest.raises(RunError, match=r"run/chat_template\.jinja: not the chat template that this run began with"):
        resume(stopped)


@pytest.mark.parametrize(
    "harm",
    [
        lambda text: text.replace("r = 2", "r = 3", 1),
        lambda text: text.replace("learning_rate", "lerning_rate", 1),
        lambda text: text[: len(text) // 2],
        lambda text: "",
        lambda text: text.replace("max_steps = 6", "max_steps = 7", 1),
    ],
)
@pytest.mark.parametrize("own", [False, True], ids=["the user's recipe", "the run's own"])
def test_a_damaged_recipe_is_written_again(
    stopped: RunFolder, harm: Callable[[str], str], own: bool, capsys: pytest.CaptureFixture[str]
) -> None:
    whole = stopped.recipe.read_text()
    stopped.recipe.write_text(harm(whole))
    assert stopped.recipe.read_text() != whole
    said: list[str] = []
    if own:
        mend_recipe(stopped.path, said.append)  # as the command line does before it reads the recipe
    else:
        with pytest.MonkeyPatch.context() as patched:
            patched.setattr("toolkit.training.run.detect", lambda: 1 / 0)  # it is mended before anything is loaded
            with pytest.raises(ZeroDivisionError):
                resume(stopped)
        said.append(capsys.readouterr().out)
    assert stopped.recipe.read_text() == whole
    assert str(stopped.recipe) in said[0] and "written again as the run began" in said[0]


def test_another_recipe_is_refused_whatever_recipe_toml_says(stopped: RunFolder) -> None:
    other = load(Path("tiny.toml"), ["lora.r=3"])
    stopped.recipe.write_text(stopped.recipe.read_text().replace("r = 2", "r = 3", 1))
    with pytest.raises(RunError, match=r"lora.r = 3, but .* was trained with 2"):
        run(other, resume=stopped.path)


@pytest.mark.parametrize("harm", ["", "recipe.toml", "environment.json", "checkpoints/checkpoint-6/optimizer.pt"])
def test_a_look_before_processes_are_started_mends_nothing(stopped: RunFolder, harm: str) -> None:
    if harm:
        (stopped.path / harm).write_bytes(b"")
    before = {path: path.read_bytes() for path in stopped.path.rglob("*") if path.is_file()}
    assert left_to_train(load(Path("tiny.toml")), None, stopped.path)
    with pytest.raises(RunError, match=r"lora.r = 3, but .* was trained with 2"):
        left_to_train(load(Path("tiny.toml"), ["lora.r=3"]), None, stopped.path)
    with stopped.held(), pytest.raises(RunError, match="another process is training in this folder"):
        left_to_train(load(Path("tiny.toml")), stopped.path, stopped.path)
    assert {path: path.read_bytes() for path in stopped.path.rglob("*") if path.is_file()} == before


def test_a_finished_run_starts_no_processes(finished: RunFolder) -> None:
    assert not left_to_train(load(Path("tiny.toml")), None, finished.path)
    flip(finished.adapter / "adapter_model.safetensors", -1)
    assert left_to_train(load(Path("tiny.toml")), None, finished.path)
    shutil.rmtree(finished.checkpoints)
    with pytest.raises(RunError, match="no checkpoint is whole to make it again from"):
        left_to_train(load(Path("tiny.toml")), None, finished.path)


def test_a_finished_run(finished: RunFolder) -> None:
    with pytest.raises(RunError, match=r"this run is finished; nothing to resume$"):
        resume(finished)
    finished.report.unlink()  # once all was there, what is gone was taken away
    with pytest.raises(RunError, match=r"nothing to resume$"):
        resume(finished)


def test_a_report_that_was_not_written_is(finished: RunFolder, capsys: pytest.CaptureFixture[str]) -> None:
    whole = finished.report.read_text()
    finished.done.unlink()
    finished.report.unlink()
    resume(finished)
    assert f"finishing  {finished.path}: report.html is missing" in capsys.readouterr().out
    assert len(finished.report.read_text()) > 0.9 * len(whole)
    finished.report.write_text(whole[: len(whole) // 2])
    resume(finished)
    assert "report.html is cut short" in capsys.readouterr().out
    with pytest.raises(RunError, match="nothing to resume"):
        resume(finished)


@pytest.mark.parametrize(
    ("name", "harm"),
    [
        ("adapter/adapter_model.safetensors", lambda path: flip(path, -1)),
        ("adapter/adapter_config.json", lambda path: path.write_text("{}")),
        ("adapter/manifest.json", lambda path: path.write_text("")),
        ("adapter", lambda path: shutil.rmtree(path)),
        ("summary.json", lambda path: path.write_text("{}")),
        ("summary.json", lambda path: flip(path, 30)),
        ("evaluation/after.jsonl", lambda path: flip(path, 300)),
        ("evaluation/before.jsonl", lambda path: path.write_bytes(b"")),
        ("samples.json", lambda path: path.write_bytes(b"[")),
    ],
)
def test_what_is_damaged_after_the_end_is_made_again(
    finished: RunFolder,
    through: RunFolder,
    name: str,
    harm: Callable[[Path], object],
    capsys: pytest.CaptureFixture[str],
) -> None:
    harm(finished.path / name)
    resume(finished)
    out = capsys.readouterr().out
    assert str(finished.path / name) in out and "made again from checkpoint-6" in out
    assert weights(finished) == weights(through)
    before, after = (read_object(one.summary) for one in (through, finished))
    changing = {"seconds", "peak_memory", "peak_host_memory", "calls_before", "calls_after"}
    assert {k: v for k, v in after.items() if k not in changing} == {
        k: v for k, v in before.items() if k not in changing
    }
    assert after["calls_after"]["overall"] == before["calls_after"]["overall"]
    with pytest.raises(RunError, match=r"nothing to resume$"):
        resume(finished)


def test_what_can_not_be_made_again_is_not_thrown_away(finished: RunFolder) -> None:
    shutil.rmtree(finished.checkpoints)
    flip(finished.adapter / "adapter_model.safetensors", -1)
    before = {path: path.read_bytes() for path in finished.path.rglob("*") if path.is_file()}
    with pytest.raises(RunError) as caught:
        resume(finished)
    told = str(caught.value)
    assert told.startswith(f"{finished.adapter}/adapter_model.safetensors: changed since it was written")
    assert f"toolkit run {finished.recipe} --out {finished.path}-again" in told
    assert {path: path.read_bytes() for path in finished.path.rglob("*") if path.is_file()} == before


def test_a_damaged_adapter_is_named_before_it_is_used(finished: RunFolder) -> None:
    for use in (find_source, lambda path: columns_of([path])):
        flip(finished.adapter / "adapter_model.safetensors", -1)
        with pytest.raises(Exception, match=r"adapter_model.safetensors: changed since .*--resume"):
            use(str(finished.path))
        flip(finished.adapter / "adapter_model.safetensors", -1)
        use(str(finished.path))
    (finished.adapter / NAME).unlink()  # as adapters were before they had one
    find_source(str(finished.path))
    with pytest.raises(RunError, match=r"adapter_model.safetensors: changed since"):
        find_source(str(damaged_copy(finished)))


def damaged_copy(folder: RunFolder) -> Path:
    """An adapter folder alone, with a manifest of another adapter."""
    copy = folder.path.parent / "alone"
    shutil.copytree(folder.adapter, copy)
    shutil.copy(Path("through") / "adapter" / NAME, copy / NAME)
    flip(copy / "adapter_model.safetensors", -1)
    return copy


def test_a_run_from_before_checkpoints_had_manifests(
    stopped: RunFolder, through: RunFolder, capsys: pytest.CaptureFixture[str]
) -> None:
    """Nor carried anything, nor had environment.json a checksum, nor its table's content."""
    for path in stopped.all_checkpoints():
        for name in (NAME, SAVED, BEST):
            (path / name).unlink(missing_ok=True)
    shutil.rmtree(stopped.checkpoints / "checkpoint-6")
    environment = read_object(stopped.environment)
    del environment["recipe_sha256"], environment["data"]["train_table_content"]
    environment["data"]["train_table_key"] = "made by another version"
    stopped.environment.write_text(json.dumps(environment))
    resume(stopped)
    out = capsys.readouterr().out
    assert "checkpoint-4 has no manifest: only its structure was checked" in out
    assert weights(stopped) == weights(through) and updates(stopped) == updates(through)


def test_tokens_that_another_version_made_alike_are_the_same_data(
    stopped: RunFolder, through: RunFolder, capsys: pytest.CaptureFixture[str]
) -> None:
    from toolkit.records import write_json

    environment = read_object(stopped.environment)
    environment["data"]["train_table_key"] = "of another version"
    write_json(stopped.environment, environment)
    resume(stopped)
    assert "proved" not in capsys.readouterr().out and weights(stopped) == weights(through)


def killed_at(monkeypatch: pytest.MonkeyPatch, where: str) -> None:
    """Have the run end where a function of its would be called."""

    def end(*args: object, **kwargs: object) -> None:
        raise SystemExit("killed")

    monkeypatch.setattr(where, end)


@pytest.mark.slow
@pytest.mark.parametrize("dropout", [0.2])
def test_evaluations_by_epoch_and_checkpoints_by_update(
    place: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, dropout: float
) -> None:
    """The checkpoint of an epoch's last update waits for the evaluation that comes after it, and its random numbers."""
    settings = ["train.max_steps=-1", "train.num_train_epochs=3", "train.save_steps=10", "eval.eval_steps=epoch"]
    recipe = load(place / "tiny.toml", [*settings, "eval.generate=0", "train.save_total_limit=9"])
    whole = run(recipe, tmp_path / "whole")
    evaluations = [row["update"] for row in read_rows(whole.metrics) if "eval_loss" in row]
    assert evaluations == [0, 10, 20, 30]
    for update in (10, 20):
        part = back_at(update, whole, tmp_path / f"from-{update}")
        run(recipe, resume=part.path)
        assert weights(part) == weights(whole) and updates(part) == updates(whole)
        assert [row["update"] for row in read_rows(part.metrics) if "eval_loss" in row] == evaluations


def test_early_stopping_is_remembered(place: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Killed after it: what was decided stands, and the best adapter is the one that was kept."""
    settings = ["train.learning_rate=0.03", "train.max_steps=60", "eval.early_stopping_patience=2", "eval.generate=0"]
    recipe = load(place / "tiny.toml", settings)
    whole = run(recipe, tmp_path / "whole")
    summary = read_object(whole.summary)
    assert summary["stopped_early"] and summary["adapter_of_update"] < summary["updates"] < 60
    with monkeypatch.context() as patched:
        killed_at(patched, "toolkit.training.session.save_adapter")
        with pytest.raises(SystemExit):
            run(recipe, tmp_path / "killed")
    killed = RunFolder(tmp_path / "killed")
    assert killed.last_checkpoint() == killed.checkpoints / f"checkpoint-{summary['updates']}"
    run(recipe, resume=killed.path)
    after = read_object(killed.summary)
    assert (after["updates"], after["adapter_of_update"]) == (summary["updates"], summary["adapter_of_update"])
    assert weights(killed) == weights(whole)


def test_the_best_of_those_trained_is_remembered(place: Path, tmp_path: Path) -> None:
    """Where none was better than the model before training, and whichever checkpoint the run goes on from."""
    settings = ["train.learning_rate=0.9", "train.warmup_ratio=0", "train.max_steps=8", "train.save_total_limit=9"]
    recipe = load(place / "tiny.toml", [*settings, "eval.generate=0"])
    whole = run(recipe, tmp_path / "whole")
    evaluations = {row["update"]: row["eval_loss"] for row in read_rows(whole.metrics) if "eval_loss" in row}
    kept = read_object(whole.summary)["adapter_of_update"]
    trained = {update: loss for update, loss in evaluations.items() if update}
    assert evaluations[0] < trained[kept] == min(trained.values()) and kept < 8, evaluations
    assert sha256_of(whole.checkpoints / f"checkpoint-{kept}" / "adapter_model.safetensors") == weights(whole)
    for update in (2, 4, 6, 8):
        part = back_at(update, whole, tmp_path / f"from-{update}")
        run(recipe, resume=part.path)
        assert read_object(part.summary)["adapter_of_update"] == kept and weights(part) == weights(whole)


@pytest.mark.slow
def test_a_disk_that_takes_nothing_more(
    place: Path, tmp_path: Path, through: RunFolder, monkeypatch: pytest.MonkeyPatch
) -> None:
    """At every kind of file that a run writes: what was there is whole, and the run goes on from it."""
    import errno

    from toolkit.files import write_text

    for name in ("environment.json", "samples.json", "run.json", "summary.json", "done.json"):

        def full(path: Path, text: str, name: str = name, **more: bool) -> None:
            if path.name == name:
                raise OSError(errno.ENOSPC, "No space left on device", str(path))
            write_text(path, text, **more)

        out = tmp_path / name
        with monkeypatch.context() as patched:
            for module in ("toolkit.records", "toolkit.evaluation.results"):
                patched.setattr(f"{module}.write_text", full)
            with pytest.raises((OSError, TrainingError), match=r"(?i)no space|no disk space"):
                run(load(place / "tiny.toml"), out)
        assert not list(out.rglob(".*")), name
        try:
            resume(RunFolder(out))
        except RunError as error:
            assert name == "done.json" and "nothing to resume" in str(error)
        assert weights(RunFolder(out)) == weights(through), name


def test_a_name_that_is_taken_is_said(
    stopped: RunFolder, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    recipe = load(Path("tiny.toml"))
    monkeypatch.chdir(tmp_path)
    monkeypatch.setattr("toolkit.training.run.detect", lambda: 1 / 0)  # as far as that it is said
    told = []
    for _ in range(2):
        with pytest.raises(ZeroDivisionError):
            run(recipe)
        told.append(capsys.readouterr().out)
        Path("runs/tiny").mkdir(parents=True, exist_ok=True)
        shutil.copy(stopped.recipe, "runs/tiny/recipe.toml")
    assert told[0] == ""
    assert told[1] == (
        "note       runs/tiny is there already, so this run goes to runs/tiny-2 (that one is not finished: "
        "--resume runs/tiny goes on with it)\n"
    )


def test_folders_in_the_place_of_files_and_what_a_kill_left_are_no_obstacle(
    stopped: RunFolder, through: RunFolder
) -> None:
    left = []
    files = [path for path in stopped.files if path != stopped.metrics]  # without which there is no report
    for path in files:
        path.unlink(missing_ok=True)
        (path / "mine").mkdir(parents=True)
        left.append(path.with_name(f".{path.name}.making-0aB_9xyz"))
        left[-1].write_text("half of")
    resume(stopped)
    assert weights(stopped) == weights(through)
    for path in files:
        assert path.is_file() == (through.path / path.relative_to(stopped.path)).is_file()
        assert (path.with_name(f"damaged-{path.name}") / "mine").is_dir()
    assert not any(path.exists() for path in left)


def test_a_run_that_was_killed_as_it_began_is_no_obstacle(place: Path, tmp_path: Path) -> None:
    out = tmp_path / "run"
    out.mkdir()
    (out / ".recipe.toml.making-4711abcd").write_text("[mod")
    RunFolder.require_free(out)
    RunFolder.create(out, "")
    assert [path.name for path in out.iterdir()] == ["recipe.toml"]
    (tmp_path / "own").mkdir()
    (tmp_path / "own" / ".recipe.toml.swp").write_text("")
    with pytest.raises(RunError, match="exists already"):
        RunFolder.create(tmp_path / "own", "")

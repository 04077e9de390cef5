"""`toolkit verify`: a run's first updates made again are the same; what is not as it was is said by name."""

from __future__ import annotations

import importlib.metadata
import io
import json
import shutil
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest
import torch

from tests.command import toolkit
from tests.tiny import write_chats, write_recipe
from toolkit.chats import Chat
from toolkit.data.render import Renderer
from toolkit.errors import DataError, RunError
from toolkit.recipe import load
from toolkit.records import read_object, read_rows, write_json
from toolkit.runs import RunFolder
from toolkit.terminal import new_console
from toolkit.training.run import run
from toolkit.training.verify.compare import Number, numbers_of, sentence, tolerance_for, verdict_of
from toolkit.training.verify.run import verify_run


@pytest.fixture(scope="module")
def original(
    tiny_model: Path, cache_root: Path, tmp_path_factory: pytest.TempPathFactory
) -> Iterator[tuple[Path, RunFolder]]:
    """(place, a run with dropout, packed chats, decoded answers and an evaluation after update 2)."""
    place = tmp_path_factory.mktemp("verified")
    recipe = write_recipe(
        place,
        tiny_model,
        24,
        lora={"lora_dropout": 0.1, "r": 2},
        train={
            "max_steps": 4,
            "save_steps": 2,
            "micro_batch": 600,
            "per_device_train_batch_size": 4,
            "gradient_accumulation_steps": 1,
            "gradient_checkpointing": False,
        },
        eval={"eval_steps": 2, "early_stopping_patience": 3, "generate": 1, "max_new_tokens": 2},
    )
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("TOOLKIT_CACHE", str(cache_root))
        yield place, run(load(recipe), place / "run")


@pytest.fixture
def copied(original: tuple[Path, RunFolder], cache: Path, tmp_path: Path) -> RunFolder:
    """A copy of the run, to be spoilt."""
    return RunFolder(Path(shutil.copytree(original[1].path, tmp_path / "run")))


def verify(folder: RunFolder, updates: int = 3) -> tuple[str, str, str]:
    """(verdict, sentence, all that was said before)."""
    said = io.StringIO()
    verdict, told = verify_run(folder.path, new_console(file=said, soft_wrap=True), updates)
    return verdict, told, said.getvalue()


def contents(folder: Path) -> dict[str, bytes]:
    return {str(path.relative_to(folder)): path.read_bytes() for path in folder.rglob("*") if path.is_file()}


def change(path: Path, of: Callable[[dict[str, Any]], None]) -> None:
    """Change a JSON file that has a checksum."""
    value = read_object(path)
    of(value)
    write_json(path, value)


def test_the_first_updates_are_equal_to_the_last_bit_and_nothing_else_changes(copied: RunFolder) -> None:
    before = contents(copied.path)
    threads = torch.get_num_threads()
    verdict, told, said = verify(copied)
    after = contents(copied.path)
    assert verdict == "equal" and "equal to the last bit" in told
    assert "wanted     equal to the last bit: the same CPU" in said and "differs" not in said
    assert {name for name in after if after[name] != before.get(name)} == {"verification.json", "report.html"}
    assert before.keys() <= after.keys()
    record = read_object(copied.verification)["training"]
    # the held-out loss before and after update 2, and three numbers of each update
    assert len(record["numbers"]) == 2 + 3 * 3 and record["updates"] == 3
    assert all(one["then"] == one["now"] for one in record["numbers"])
    assert told in copied.report.read_text().replace("&#39;", "'")
    assert torch.get_num_threads() == threads  # the run's own: 1


def test_a_log_of_something_else_is_not_the_same_run(
    copied: RunFolder, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    rows = list(read_rows(copied.metrics))
    (row,) = [row for row in rows if row["update"] == 2 and "loss" in row]
    row["loss"] *= 1 + 1e-12
    copied.metrics.write_text("".join(json.dumps(row) + "\n" for row in rows))
    code, out, err = toolkit(capsys, monkeypatch, "verify", str(copied.path), "--updates", "2")
    assert code == 1 and "DIFFERENT  update 2: loss" in out
    assert err.startswith("error: not the same run: update 2: loss ") and "to the last bit" in err
    assert read_object(copied.verification)["training"]["verdict"] == "different"

    # elsewhere it would be near enough
    change(copied.environment, lambda value: value["engine"]["versions"].update(torch="1.0"))
    verdict, told, said = verify(copied, 2)
    assert verdict == "within" and "within the tolerance" in told
    assert said.index("differs    torch: 1.0 then") < said.index("wanted     losses within") < said.index("update 0")


def test_a_run_that_went_on_is_compared_with_what_it_began_with(copied: RunFolder) -> None:
    change(copied.environment, lambda value: value.update(began_with={}))
    verdict, _, said = verify(copied, 1)
    assert verdict == "equal" and "differs    first updates: made before the run went on elsewhere" in said
    began = read_object(copied.environment)
    began["process"]["threads"] += 1
    change(copied.environment, lambda value: value.update(began_with=began))
    assert f"differs    CPU threads: {began['process']['threads']} then" not in verify(copied, 1)[2]  # it takes as many


def test_resuming_keeps_what_a_run_began_with(original: tuple[Path, RunFolder], copied: RunFolder) -> None:
    shutil.rmtree(copied.checkpoints / "checkpoint-4")
    copied.summary.unlink()
    change(copied.environment, lambda value: value["hardware"].update(cpu="another"))
    change(copied.environment, lambda value: value.update(command="toolkit run x.toml --out runs/x"))
    resumed = run(load(copied.recipe), resume=copied.path)
    environment = read_object(resumed.environment)
    assert environment["hardware"]["cpu"] != "another" == environment["began_with"]["hardware"]["cpu"]
    assert environment["went_on"] == [{"update": 2, "processes": 1}]
    assert environment["command"] == "toolkit run x.toml --out runs/x"  # not the one with --resume
    _, _, said = verify(resumed, 1)
    assert "differs    CPU: another then" in said


@pytest.mark.parametrize(("after", "processes", "told"), [(1, 2, True), (2, 2, False), (1, 1, False)])
def test_what_several_processes_made_of_a_run_that_one_began_is_told_apart(
    copied: RunFolder, after: int, processes: int, told: bool
) -> None:
    rows = list(read_rows(copied.metrics))
    (row,) = [row for row in rows if row["update"] == 2 and "loss" in row]
    row["loss"] += 0.01
    copied.metrics.write_text("".join(json.dumps(row) + "\n" for row in rows))
    began = read_object(copied.environment)
    later = [{"update": after, "processes": processes}, {"update": 3, "processes": 4}]
    change(copied.environment, lambda value: value.update(began_with=began, went_on=later))
    verdict, sentence, _ = verify(copied, 2)
    assert verdict == "different" and sentence.startswith("not the same run: update 2: loss ")
    why = (
        "; after update 1 the run went on with 2 processes, which draw other random numbers for lora.lora_dropout than "
        "one does (--updates 1 compares what came before)"
    )
    assert sentence.endswith(why) == told and ("processes" in sentence) == told


def spoilt_recipe(place: Path, folder: RunFolder) -> None:
    folder.recipe.write_text(folder.recipe.read_text().replace("learning_rate = 0.005", "learning_rate = 0.5"))


def spoilt_template(place: Path, folder: RunFolder) -> None:
    change(folder.environment, lambda value: value["data"].update(template_sha256="0" * 64))


def spoilt_model(place: Path, folder: RunFolder) -> None:
    change(folder.environment, lambda value: value["model"]["weights"].update({"model.safetensors": 7}))


def spoilt_tokens(place: Path, folder: RunFolder) -> None:
    change(folder.environment, lambda value: value["data"].update(train_table_content="0" * 16))


def spoilt_ranks(place: Path, folder: RunFolder) -> None:
    change(folder.environment, lambda value: value["ranks"].update(processes=2))


@pytest.mark.parametrize(
    ("spoil", "told"),
    [
        (
            spoilt_recipe,
            r"run/recipe\.toml: changed since the run began \(SHA-256 \w+ wanted, \w+ found\); put it back",
        ),
        (lambda place, folder: folder.environment.unlink(), r"environment\.json: missing: training has not begun here"),
        (lambda place, folder: folder.metrics.write_text(""), r"metrics\.jsonl: no update is logged yet"),
        (spoilt_template, r"not the chat template that this run began with"),
        (spoilt_model, r"model\.safetensors: not the model that .* \(7 bytes wanted, [\d,]+ bytes found\)"),
        (spoilt_tokens, r"gives other tokens now \(the train part's hash is \w+, 0+ wanted\)"),
        (spoilt_ranks, r"trained by 2 processes with lora\.lora_dropout"),
    ],
)
def test_what_changed_is_named(
    original: tuple[Path, RunFolder], copied: RunFolder, spoil: Callable[[Path, RunFolder], None], told: str
) -> None:
    spoil(original[0], copied)
    with pytest.raises(RunError, match=told) as caught:
        verify(copied)
    assert "\n" not in str(caught.value) and not copied.verification.exists()


def test_data_that_changed_or_is_gone_is_named(original: tuple[Path, RunFolder], copied: RunFolder) -> None:
    chats = original[0] / "chats.jsonl"
    content = chats.read_bytes()
    try:
        write_chats(chats, 24, seed=3)
        with pytest.raises(
            RunError, match=r"chats\.jsonl: not the data that .* \(SHA-256 \w{64} wanted, \w{64} found\)"
        ):
            verify(copied)
        chats.unlink()
        with pytest.raises((RunError, DataError), match=r"chats\.jsonl: .* not there any more"):
            verify(copied)
    finally:
        chats.write_bytes(content)


@pytest.mark.parametrize(
    ("name", "told"),
    [
        ("nothing", "no such run folder, did you mean"),
        ("empty", "not a run folder"),
        ("above", "but it holds some: run"),
    ],
)
def test_where_there_is_no_run(copied: RunFolder, tmp_path: Path, name: str, told: str) -> None:
    (tmp_path / "nothin").mkdir()
    (tmp_path / "empty").mkdir()
    with pytest.raises(RunError, match=told):
        verify(RunFolder(tmp_path if name == "above" else tmp_path / name))


def test_a_run_that_trains_now_is_left_alone(copied: RunFolder) -> None:
    with copied.held(), pytest.raises(RunError, match="training now, in another process"):
        verify(copied)


def test_numbers_of_two_rows_and_how_far_they_may_be_apart() -> None:
    then = {"update": 3, "loss": 2.0, "grad_norm": 1.0, "learning_rate": 1e-3, "memory": 5, "eval_loss": None}
    now = {"update": 3, "loss": 2.0001, "grad_norm": 1.0, "learning_rate": 1e-3}
    numbers = numbers_of(then, now)
    assert [number.name for number in numbers] == ["loss", "grad_norm", "learning_rate"]
    exact = tolerance_for(same=True, gpu=False, precision="bf16", quantized=True)
    single = tolerance_for(same=False, gpu=False, precision="fp32", quantized=False)
    half = tolerance_for(same=True, gpu=True, precision="bf16", quantized=False)
    assert (exact.loss, exact.grad_norm) == (0, 0) and 0 < single.loss < half.loss
    assert [verdict_of(numbers, one) for one in (exact, single, half)] == ["different", "within", "within"]
    assert "loss 2 then, 2.0001 now, 5.0e-05 apart" in sentence(numbers, exact, 3)
    assert "verified: 3 numbers of the first 3 updates are within" in sentence(numbers, single, 3)
    assert "verified: 1 number of the first update is equal" in sentence([Number(1, "loss", 2.0, 2.0)], exact, 1)
    nan = [Number(1, "loss", 2.0, float("nan"))]
    assert verdict_of(nan, half) == "different" and verdict_of([Number(1, "loss", 2.0, 2.0)], exact) == "equal"
    # a rate comes from the recipe alone: near is not the same
    assert verdict_of([Number(1, "learning_rate", 1e-3, 1.00001e-3)], half) == "different"


def test_a_run_whose_template_writes_the_date_goes_on_and_is_verified_on_another_day(
    tiny_model: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """With an empty cache, as in a notebook's next session."""
    model = Path(shutil.copytree(tiny_model, tmp_path / "model"))
    template = model / "chat_template.jinja"
    template.write_text("{{ 'Today: ' + strftime_now('%d %b %Y') + '. ' }}" + template.read_text())
    settings = {"max_steps": 2, "save_steps": 1, "gradient_checkpointing": False}
    recipe = load(write_recipe(tmp_path, model, 12, train=settings, eval={"generate": 1, "max_new_tokens": 2}))
    monkeypatch.setenv("TOOLKIT_CACHE", str(tmp_path / "cache"))
    monkeypatch.setattr("toolkit.data.table.today", lambda: "2026-11-30")
    prompts: list[str] = []
    prompt = Renderer.prompt

    def seen(renderer: Renderer, chat: Chat, turn: int) -> str:
        prompts.extend([prompt(renderer, chat, turn)] if chat.where else [])
        return prompt(renderer, chat, turn)

    monkeypatch.setattr(Renderer, "prompt", seen)
    done = run(recipe, tmp_path / "run", export=False)
    environment = read_object(done.environment)
    assert environment["data"]["day"] == "2026-11-30"
    assert {"torch", "numpy", "safetensors", "Jinja2"} <= environment["packages"].keys()
    assert environment["packages"]["torch"] == importlib.metadata.version("torch")
    losses = [row["loss"] for row in read_rows(done.metrics) if "loss" in row]

    monkeypatch.setenv("TOOLKIT_CACHE", str(tmp_path / "another"))
    monkeypatch.setattr("toolkit.data.table.today", lambda: "2026-12-07")
    assert verify(done, 2)[0] == "equal"
    shutil.rmtree(done.adapter)
    for path in (done.done, done.summary, done.path / "checkpoints" / "checkpoint-2"):
        shutil.rmtree(path) if path.is_dir() else path.unlink()
    run(recipe, resume=done.path, export=False)
    assert [row["loss"] for row in read_rows(done.metrics) if "loss" in row] == losses
    assert len(prompts) >= 2 and all("Today: 30 Nov 2026. " in text for text in prompts)

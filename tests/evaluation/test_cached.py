"""The cache of decoded answers: what is there is not decoded again, what is broken is."""

from __future__ import annotations

import contextlib
import os
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Any

import pytest

from toolkit.evaluation.cached import CachedDecoder, fingerprint
from toolkit.inference.decode import Decoder, Done, Generated


class Model:
    """Answers each prompt with itself, and notes what it was asked."""

    def __init__(self, fail_after: int = 1000) -> None:
        self.asked: list[str] = []
        self.opened = self.closed = 0
        self.fail_after = fail_after
        self.settings: dict[str, Any] = {}

    def __call__(self, prompts: Sequence[str], done: Done | None = None) -> list[Generated]:
        made = []
        for index, prompt in enumerate(prompts):
            if len(self.asked) == self.fail_after:
                raise KeyboardInterrupt
            self.asked.append(prompt)
            made.append(Generated(f"<{prompt}>\ud800", len(prompt), True))
            if done is not None:
                done(index, made[-1])
        return made

    @contextlib.contextmanager
    def open(self) -> Iterator[Decoder]:
        self.opened += 1
        yield self
        self.closed += 1


def cached(model: Model, **key: Any) -> CachedDecoder:
    return CachedDecoder({"weights": "w", **key}, lambda text: [ord(sign) for sign in text], model.open, {"a": 1})


@pytest.fixture(autouse=True)
def own_cache(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    monkeypatch.setenv("TOOLKIT_CACHE", str(tmp_path / "cache"))
    return tmp_path / "cache"


def test_a_second_time_the_model_is_not_even_opened() -> None:
    first, second = Model(), Model()
    with cached(first) as decoder:
        made = decoder(["a", "bb", "a"])
        assert (decoder.found, decoder.decoded, decoder.settings) == (0, 2, {"a": 1})
        assert first.asked == ["a", "bb"] and (first.opened, first.closed) == (1, 0)
        decoder(["ccc"])
    assert (first.opened, first.closed) == (1, 1)
    seen: list[tuple[int, Generated]] = []
    with cached(second) as decoder:
        assert decoder(["a", "bb", "a"], lambda index, one: seen.append((index, one))) == made
        assert (decoder.found, decoder.decoded) == (2, 0)
    assert second.asked == [] and second.opened == 0
    assert seen == list(enumerate(made))


def test_what_is_sampled_together_is_found_together_or_made_again() -> None:
    """One stream of random numbers serves a whole call, so a text hangs on what was asked with it."""
    few, all_of_them, again = Model(), Model(), Model()
    for model, prompts in ((few, ["a"]), (all_of_them, ["a", "b"]), (again, ["a", "b"])):
        key = {"weights": "w"}
        with CachedDecoder(key, lambda text: [ord(sign) for sign in text], model.open, {}, sampled=True) as decoder:
            decoder(prompts)
    assert (few.asked, all_of_them.asked, again.asked) == (["a"], ["a", "b"], [])


def test_only_what_is_missing_is_decoded() -> None:
    model = Model()
    with cached(Model()) as decoder:
        decoder(["a"])
    with cached(model) as decoder:
        assert [one.text for one in decoder(["b", "a"])] == ["<b>\ud800", "<a>\ud800"]
    assert model.asked == ["b"]


def test_other_weights_or_settings_are_another_cache() -> None:
    for key in ({"weights": "other"}, {"max_new_tokens": 2}):
        model = Model()
        with cached(Model()) as decoder:
            decoder(["a"])
        with cached(model, **key) as decoder:
            decoder(["a"])
        assert model.asked == ["a"], key


@pytest.mark.parametrize("content", ["", "{", "[]", '{"text": "x"}', '{"text": 1, "new_tokens": 1, "stopped": true}'])
def test_a_broken_entry_is_decoded_again_and_written_over(own_cache: Path, content: str) -> None:
    with cached(Model()) as decoder:
        decoder(["a"])
    (file,) = (own_cache / "decoded").rglob("*.json")
    whole = file.read_text()
    file.write_text(content)
    model = Model()
    with cached(model) as decoder:
        assert decoder(["a"])[0].text == "<a>\ud800"
    assert model.asked == ["a"] and file.read_text() == whole


def test_what_was_decoded_before_an_interruption_is_kept() -> None:
    with pytest.raises(KeyboardInterrupt), cached(Model(fail_after=2)) as decoder:
        decoder(["a", "b", "c"])
    model = Model()
    with cached(model) as decoder:
        decoder(["a", "b", "c"])
    assert model.asked == ["c"]


def test_a_fingerprint_follows_contents(tmp_path: Path) -> None:
    file = tmp_path / "w.safetensors"
    file.write_bytes(b"one")
    before = fingerprint([file])
    assert fingerprint([file]) == before
    copy = tmp_path / "copy" / "w.safetensors"
    copy.parent.mkdir()
    copy.write_bytes(b"one")
    assert fingerprint([copy]) == before
    file.write_bytes(b"two")
    os.utime(file, ns=(1, 1))
    assert fingerprint([file]) != before

"""Texts, hashes and codes: no state."""

from __future__ import annotations

import base64
import hashlib
import re
from random import Random
from typing import Any

from toolkit.world.language import Said
from toolkit.world.lexicon import address, words
from toolkit.world.spec import ToolFailure, boolean, chain, integer, optional, string, tool
from toolkit.world.world import World

_STYLES = ("upper", "lower", "title", "snake")


def _slots(r: Random, w: World) -> dict[str, Any]:
    text = r.choice((*words("sentence"), *words("line")))
    if r.random() < 0.5:
        text += " " + r.choice(words("sentence"))
    mixed = f"Ask {address(r)} or {address(r)} about the {r.choice(words('topic'))}."
    old = r.choice([word for word in re.findall(r"\w+", text) if len(word) > 2])
    code = base64.b64encode(f"{r.choice(words('word'))}-{r.randint(1, 999)}".encode()).decode()
    return {
        "text": Said(text, f'"{text}"'),
        "mixed": Said(mixed, f'"{mixed}"'),
        "style": r.choice(_STYLES),
        "old": Said(old, f'"{old}"'),
        "new": Said(new := r.choice(words("word")), f'"{new}"'),
        "length": r.randint(8, 40),
        "code": Said(code, f'"{code}"'),
        "algorithm": Said(
            name := r.choice(("sha256", "md5", "sha1")), {"sha256": "SHA-256", "md5": "MD5", "sha1": "SHA-1"}[name]
        ),
    }


_TEXT = string("The text, exactly as given.")


@tool(
    "text",
    "Count the words, sentences and characters of a text.",
    sample=_slots,
    near=(),
    params={"text": _TEXT},
)
def count_words(w: World, text: str) -> Any:
    return {"words": len(text.split()), "sentences": len(re.findall(r"[.!?]+", text)), "characters": len(text)}


@tool(
    "text",
    "Change the case of a text: upper, lower, title or snake (lower case with underscores).",
    sample=_slots,
    near=(),
    params={"text": _TEXT, "style": string("The case wanted.", _STYLES)},
)
def change_case(w: World, text: str, style: str) -> Any:
    if style == "snake":
        return {"text": "_".join(re.findall(r"\w+", text.lower()))}
    return {"text": {"upper": text.upper(), "lower": text.lower(), "title": text.title()}[style]}


@tool(
    "text",
    "Replace every occurrence of a word in a text by another one.",
    sample=_slots,
    near=(),
    params={"text": _TEXT, "old": string("What to replace; case matters."), "new": string("What to put in its place.")},
)
def replace_word(w: World, text: str, old: str, new: str) -> Any:
    if not old:
        raise ToolFailure("nothing to replace")
    return {"text": re.sub(rf"(?<!\w){re.escape(old)}(?!\w)", lambda _: new, text)}


@tool(
    "text",
    "Extract all e-mail addresses from a text.",
    sample=lambda r, w: {"text": _slots(r, w)["mixed"]},
    near=(),
    params={"text": _TEXT},
)
def extract_emails(w: World, text: str) -> Any:
    return {"emails": re.findall(r"[\w.+-]+@[\w-]+(?:\.[\w-]+)+", text)}


@tool("text", "Reverse a text letter by letter.", sample=_slots, near=(), params={"text": _TEXT})
def reverse_text(w: World, text: str) -> Any:
    return {"text": text[::-1]}


@tool(
    "text",
    "Make up a random password of a given length.",
    sample=_slots,
    near=(),
    params={
        "length": integer("How many characters.", 8, 64),
        "symbols": optional(boolean("Also use symbols; false if left out.")),
    },
)
def make_password(w: World, length: int, symbols: bool = False) -> Any:
    alphabet = "abcdefghjkmnpqrstuvwxyzABCDEFGHJKMNPQRSTUVWXYZ23456789" + ("!#$%&*+-=?@" if symbols else "")
    r = w.random("password", length, symbols)
    return {"password": "".join(r.choice(alphabet) for _ in range(length))}


@tool(
    "text",
    "Compute the hash of a text.",
    sample=_slots,
    held_out=True,
    near=(),
    params={"text": _TEXT, "algorithm": string("Which hash.", ("sha256", "md5", "sha1"))},
)
def hash_text(w: World, text: str, algorithm: str) -> Any:
    return {
        "algorithm": algorithm,
        "hash": hashlib.new(algorithm, text.encode()).hexdigest()[:16],
        "shown": "first 16 digits",
    }


@tool("text", "Encode a text as Base64.", sample=_slots, held_out=True, near=(), params={"text": _TEXT})
def encode_base64(w: World, text: str) -> Any:
    return {"base64": base64.b64encode(text.encode()).decode()}


@tool(
    "text",
    "Decode a Base64 code to text.",
    sample=_slots,
    held_out=True,
    near=(),
    params={"code": string("The Base64 code.")},
)
def decode_base64(w: World, code: str) -> Any:
    try:
        return {"text": base64.b64decode(code.encode(), validate=True).decode()}
    except ValueError:
        raise ToolFailure("not Base64") from None


def _chain_slots(r: Random, w: World) -> dict[str, Any]:
    return {f"_{key}": value for key, value in _slots(r, w).items()}


@chain("text", "replace_word", "change_case", sample=_chain_slots)
def replace_then_case(do: Any, s: dict[str, Any]) -> dict[str, Any]:
    text = do("replace_word", text=s["_text"], old=s["_old"], new=s["_new"])["text"]
    return do("change_case", text=text, style=s["_style"])


@chain("text", "reverse_text", "change_case", sample=_chain_slots)
def reverse_then_case(do: Any, s: dict[str, Any]) -> dict[str, Any]:
    return do("change_case", text=do("reverse_text", text=s["_text"])["text"], style=s["_style"])


@chain("text", "replace_word", "count_words", sample=_chain_slots)
def replace_then_count(do: Any, s: dict[str, Any]) -> dict[str, Any]:
    text = do("replace_word", text=s["_text"], old=s["_old"], new=s["_new"])["text"]
    return {"text": text, **do("count_words", text=text)}


@chain("text", "decode_base64", "hash_text", sample=_chain_slots)
def decode_then_hash(do: Any, s: dict[str, Any]) -> dict[str, Any]:
    text = do("decode_base64", code=s["_code"])["text"]
    return {"text": text, **do("hash_text", text=text, algorithm=s["_algorithm"])}

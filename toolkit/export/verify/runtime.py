"""A file in llama.cpp: its tokens, its prompts, what it predicts and what it calls, against training's own."""

from __future__ import annotations

import math
import unicodedata
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from typing import Any

import numpy as np
import numpy.typing as npt

from toolkit.errors import ModelError
from toolkit.export.verify.agreement import Divergence, Reference
from toolkit.export.verify.files import GgufFile
from toolkit.export.verify.verification_data import DECOMPOSED, HARD_STRINGS, Material, Prompt
from toolkit.export.verify.vocabulary import Override, overrides, own_marks, with_overrides
from toolkit.inference.decode import Generated, read_tokens
from toolkit.inference.gguf import GgufModel, TopTokens

TOP = 200  # tokens whose probability llama.cpp tells at a place; the rest count as one
POSITIONS = 8  # places a chat at which it is asked
_LONGER = 64  # tokens by which a file's answer may be longer than the trained model's before it is cut


@dataclass(slots=True)
class TokenizerFindings:
    """`texts` were tokenised by both. `different`: what came out otherwise, and why, where that is known.

    `composed`: equal once the text is in Unicode's composed form. `overridden`: equal once training's tokenizer takes
    `overrides`, tokens that llama.cpp takes for others than the file says, as llama.cpp does.
    """

    texts: int = 0
    different: list[str] = field(default_factory=list)
    composed: list[str] = field(default_factory=list)
    overridden: list[str] = field(default_factory=list)
    overrides: list[Override] = field(default_factory=list)


def compare_tokenizers(model: GgufModel, file: GgufFile, material: Material) -> TokenizerFindings:
    """Ids of the data's own text, of hard strings and of the tokenizer's own marks, by llama.cpp and by training's
    tokenizer.

    llama.cpp does not normalise: where training's tokenizer does (Qwen: NFC), text that is not composed comes out
    otherwise. And it takes some tokens for others than the file says. What comes of these alone is told apart.
    """
    found = TokenizerFindings(overrides=overrides(model, file))
    own = with_overrides(material.tokenizer, found.overrides) if found.overrides else None
    marks = [f"a{one.token} {one.token}" for one in found.overrides] + own_marks(material.tokenizer)
    for text in dict.fromkeys([*material.texts, *HARD_STRINGS, *DECOMPOSED, *marks]):
        found.texts += 1
        wanted, got = material.ids(text), model.tokenize(text)
        if wanted == got:
            continue
        normal = unicodedata.normalize("NFC", text)
        on_normal = model.tokenize(normal) if normal != text else got
        changed = own.encode(text, add_special_tokens=False).ids if own is not None else wanted
        if wanted == on_normal:
            found.composed.append(text)
        elif changed in (got, on_normal):
            found.overridden.append(text)
            if changed != got:
                found.composed.append(text)
        else:
            place = next((i for i, (a, b) in enumerate(zip(wanted, got, strict=False)) if a != b), len(got))
            trained, here = (_around(material, ids, place) for ids in (wanted, got))
            found.different.append(
                f"{_near(material, text, wanted, place)!r}: training cut {trained!r} where llama.cpp cuts {here!r}"
            )
    return found


def _around(material: Material, ids: list[int], place: int) -> list[str]:
    return [str(piece) for piece in material.tokenizer.convert_ids_to_tokens(ids[place : place + 4])]


def _near(material: Material, text: str, ids: list[int], place: int) -> str:
    """The part of a text around one of its tokens."""
    if len(text) <= 60:
        return text
    start = len(material.tokenizer.decode(ids[:place]))
    return text[max(0, start - 20) : start + 40]


def compare_templates(
    model: GgufModel, tokenizer: Any, prompts: Sequence[Prompt], options: dict[str, Any]
) -> list[str]:
    """Prompts that llama.cpp's template engine writes otherwise than training's: where they part.

    A text's first token is left out of what it tells where it puts that before every prompt itself.
    """
    different = []
    first = tokenizer.decode(model.put_before())
    for prompt in prompts:
        try:
            text = model.apply_template(prompt.given.messages, prompt.given.tools, **options)
        except ModelError as error:
            different.append(str(error))
            continue
        text = text if text.startswith(first) else first + text
        if text != prompt.text:
            place = next((i for i, (a, b) in enumerate(zip(prompt.text, text, strict=False)) if a != b), len(text))
            start = max(0, place - 20)
            different.append(
                f"at character {place}: training wrote {prompt.text[start : place + 60]!r}, "
                f"llama.cpp writes {text[start : place + 60]!r}"
            )
    return different


def run_file(
    model: GgufModel,
    material: Material,
    reference: Reference,
    trained: Sequence[Generated],
    advance: Callable[[], None],
    goes_on: Callable[[], bool],
) -> tuple[Divergence, list[str]]:
    """What a file in llama.cpp predicts at some places of each chat, and what it writes for each chat's first answer.

    `trained` is what the trained model wrote for as many chats. The prompt's cache serves both, so each chat is read
    once. Ends early, but never before the first chat, when `goes_on` says so; `advance` is called after each chat.
    """
    found = Divergence()
    written: list[str] = []
    stops = material.renderer.end_token_ids
    for number, prompt in enumerate(material.asked[: max(len(trained), reference.chats)]):
        if number and not goes_on():
            break
        if number < len(trained):
            most = trained[number].new_tokens + (_LONGER if trained[number].stopped else 0)
            most = min(most, material.max_new_tokens)
            (made,) = model.complete([material.ids(prompt.text)], max_new_tokens=most, stop_ids=stops)
            written.append(read_tokens(material.tokenizer, made, stops).text)
        if prompt.row is not None and prompt.row < len(reference.rows):
            _places_of(found, model, reference, prompt.row)
        advance()
    return found, written


def _places_of(found: Divergence, model: GgufModel, reference: Reference, index: int) -> None:
    row, trained = reference.rows[index], reference.of(index)
    chosen = _places(len(row.positions))
    told = model.logprobs(row.ids, [row.positions[i] for i in chosen], top=min(TOP, trained.shape[1]))
    for i, top in zip(chosen, told, strict=True):
        kl, same = top_divergence(trained[i], top)
        found.kl.append(kl)
        found.same.append(same)
        found.in_call.append(row.in_call[i])


def _places(count: int) -> list[int]:
    if count <= POSITIONS:
        return list(range(count))
    return sorted({index * count // POSITIONS for index in range(POSITIONS)})


def top_divergence(trained: npt.NDArray[np.float32], top: TopTokens) -> tuple[float, bool]:
    """KL(trained || file), with all tokens that llama.cpp did not tell of taken as one, and whether the first agrees.

    Taking tokens together can only lower a KL divergence, by little where the top holds nearly all probability.
    """
    p = np.exp(trained.astype(np.float64))
    inside = p[top.ids]
    q = np.array(top.logprobs, dtype=np.float64)
    kl = float((inside * (trained[top.ids].astype(np.float64) - q)).sum())
    p_rest, q_rest = 1.0 - float(inside.sum()), 1.0 - float(np.exp(q).sum())
    if p_rest > 1e-9 and len(top.ids) < len(trained):
        kl += p_rest * math.log(p_rest / max(q_rest, 1e-9))
    return max(0.0, kl), bool(top.ids[0] == int(trained.argmax()))

"""A file in llama.cpp: its tokens, its prompts, what it predicts and what it calls, against training's own."""

from __future__ import annotations

import math
import unicodedata
from collections.abc import Sequence
from dataclasses import dataclass, field
from typing import Any

import numpy as np
import numpy.typing as npt

from toolkit.errors import ModelError
from toolkit.export.verify.agreement import Divergence, Reference
from toolkit.export.verify.material import DECOMPOSED, HARD_STRINGS, Material, Prompt
from toolkit.inference.gguf import GgufModel, TopTokens

TOP = 200  # tokens whose probability llama.cpp tells at a place; the rest count as one
POSITIONS = 8  # places a chat at which it is asked


@dataclass(slots=True)
class TokenizerFindings:
    """`texts` were tokenised by both. `different`: what came out otherwise, and why, where that is known."""

    texts: int = 0
    different: list[str] = field(default_factory=list)
    composed: list[str] = field(default_factory=list)  # equal once the text is in Unicode's composed form


def compare_tokenizers(model: GgufModel, material: Material) -> TokenizerFindings:
    """Ids of the data's own text and of hard strings, by llama.cpp and by training's tokenizer.

    llama.cpp does not normalise. Where training's tokenizer does (Qwen: NFC), text that is not composed comes out
    otherwise and is put among `composed`, if composing it first makes both equal.
    """
    found = TokenizerFindings()
    for text in dict.fromkeys([*material.texts, *HARD_STRINGS, *DECOMPOSED]):
        found.texts += 1
        wanted, got = material.ids(text), model.tokenize(text)
        if wanted == got:
            continue
        normal = unicodedata.normalize("NFC", text)
        if normal != text and model.tokenize(normal) == wanted:
            found.composed.append(text)
        else:
            place = next((i for i, (a, b) in enumerate(zip(wanted, got, strict=False)) if a != b), len(got))
            trained, here = (_around(material, ids, place) for ids in (wanted, got))
            found.different.append(f"{text[:60]!r}: training cut {trained!r} where llama.cpp cuts {here!r}")
    return found


def _around(material: Material, ids: list[int], place: int) -> list[str]:
    return [str(piece) for piece in material.tokenizer.convert_ids_to_tokens(ids[place : place + 4])]


def compare_templates(model: GgufModel, prompts: Sequence[Prompt], options: dict[str, Any]) -> list[str]:
    """Prompts that llama.cpp's template engine writes otherwise than training's: where they part."""
    different = []
    for prompt in prompts:
        try:
            text = model.apply_template(prompt.given.messages, prompt.given.tools, **options)
        except ModelError as error:
            different.append(str(error))
            continue
        if text != prompt.text:
            place = next((i for i, (a, b) in enumerate(zip(prompt.text, text, strict=False)) if a != b), len(text))
            start = max(0, place - 20)
            different.append(
                f"at character {place}: training wrote {prompt.text[start : place + 60]!r}, "
                f"llama.cpp writes {text[start : place + 60]!r}"
            )
    return different


def run_file(model: GgufModel, material: Material, reference: Reference) -> tuple[Divergence, list[list[int]]]:
    """What a file in llama.cpp predicts at some places of each chat, and what it writes for each chat's first answer.

    The prompt's cache serves both, so each chat is read once.
    """
    found = Divergence()
    written = []
    stops = material.renderer.end_token_ids
    for prompt in material.asked:
        ids = material.ids(prompt.text)
        written += model.complete([ids], max_new_tokens=material.max_new_tokens, stop_ids=stops)
        if prompt.row is None:
            continue
        row, trained = material.rows[prompt.row], reference.of(prompt.row)
        chosen = _places(len(row.positions))
        told = model.logprobs(row.ids, [row.positions[i] for i in chosen], top=min(TOP, reference.logprobs.shape[1]))
        for i, top in zip(chosen, told, strict=True):
            kl, same = top_divergence(trained[i], top)
            found.kl.append(kl)
            found.same.append(same)
            found.in_call.append(row.in_call[i])
    return found, written


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

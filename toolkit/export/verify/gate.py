"""From what was measured to pass or fail: each check's line, its numbers, and what to do."""

from __future__ import annotations

import unicodedata
from collections.abc import Callable, Mapping, Sequence, Set
from typing import TYPE_CHECKING, Any

from toolkit.evaluation.statistics import Rate
from toolkit.export.verify import thresholds
from toolkit.export.verify.calls import CallAgreement
from toolkit.export_report import Check, CheckName

if TYPE_CHECKING:
    from toolkit.export.verify.runtime import TokenizerFindings
    from toolkit.export.verify.verification_data import Material

_NAMED = 5
_RIGHT = "`toolkit eval RUN EXPORT` says how many are still right"
_FINER = "Export a finer type, as q8_0 or f16; if F16 fails too, the merge or the writer is at fault: report it"


def tokenizer(name: str, found: TokenizerFindings, material: Material, file_differs: Callable[[], str]) -> Check:
    """Ids must be equal, but for what llama.cpp does to any such file, which is noted: it does not compose text, and it
    takes some tokens for others than the file says. `file_differs` says where the file's tokenizer is not the run's."""
    numbers = {
        "texts": found.texts,
        "different": len(found.different),
        "equal_after_nfc": len(found.composed),
        "equal_after_overrides": len(found.overridden),
        "overrides": [str(one) for one in found.overrides],
    }
    if found.different:
        summary = f"{len(found.different)} of {found.texts} texts come out as other tokens: {found.different[0]}"
        advice = "The model would read other tokens than it was trained on. "
        if why := file_differs():
            advice += f"The file does not hold the run's tokenizer ({why}): write it again with --force"
        else:
            advice += (
                "The file holds the run's tokenizer whole, so it is llama.cpp that cuts otherwise: serve merged/ with "
                "vLLM or transformers, which have the tokenizer itself, and report the text above"
            )
        return Check("tokenizer", name, "fail", summary, numbers, found.different[:20], advice)
    own = set(material.texts)
    notes = []
    if found.overrides:
        many = len(found.overrides)
        named = ", ".join(map(str, found.overrides[:_NAMED])) + (f" and {many - _NAMED} more" if many > _NAMED else "")
        texts = _texts(found.overridden, own, "have")
        notes.append(
            f"llama.cpp makes {named} by itself, whatever the file says: {texts} it and come out as other tokens than "
            "in training"
        )
    if found.composed:
        notes.append(
            "llama.cpp does not bring text to Unicode's composed form (NFC), training's tokenizer does: "
            f"{_texts(found.composed, own, 'are')} not, and come out as other tokens unless the program that calls "
            "llama.cpp composes them"
        )
    explained = {*found.composed, *found.overridden}
    summary = f"the same tokens for {found.texts - len(explained)} of {found.texts} texts"
    if explained:
        summary += f"; the other {len(explained)} differ by what llama.cpp does to any such file"
    numbers["of_the_data"] = len(explained & own)
    details = [f"{text[:60]!r} -> {unicodedata.normalize('NFC', text)[:60]!r}" for text in found.composed]
    return Check("tokenizer", name, "pass", summary, numbers, details, notes=notes)


def _texts(texts: Sequence[str], own: Set[str], verb: str) -> str:
    """How many of the texts tried, and how many of them are the data's."""
    prompts = sum(text in own for text in texts)
    whose = f"{prompts} of them prompts of the data" if prompts else "none of them of the data"
    return f"{len(texts)} texts of those tried ({whose}) {verb}"


def template(name: str, different: Sequence[str], prompts: int, file_differs: bool) -> Check:
    """Every prompt must be the same text. `file_differs`: the file's template is not the one that training used."""
    numbers = {"prompts": prompts, "different": len(different)}
    if not different:
        return Check("template", name, "pass", f"the same text for {prompts} prompts", numbers)
    summary = f"{len(different)} of {prompts} prompts differ; {different[0]}"
    if file_differs:
        advice = "The file's chat template is not the one that was trained with: write it again with --force"
    else:
        advice = (
            "The file holds the template that was trained with, so it is llama.cpp that writes it otherwise: serve "
            "merged/ with vLLM or transformers, whose engine training used, and report the text above"
        )
    return Check("template", name, "fail", summary, numbers, list(different[:20]), advice)


def agreement(name: str, kind: str, numbers: dict[str, Any]) -> Check:
    """Mean KL and top-1 of the dequantised weights."""
    return _divergence("agreement", name, numbers, thresholds.KL[kind], thresholds.TOP1[kind])


def runtime(name: str, kind: str, numbers: dict[str, Any]) -> Check:
    """The same in llama.cpp, whose arithmetic adds a little of its own."""
    limit = thresholds.KL[kind] + max(thresholds.KL_OF_LLAMA_CPP, 0.5 * thresholds.KL[kind])
    return _divergence("runtime", name, numbers, limit, thresholds.TOP1[kind])


def _divergence(check: CheckName, name: str, numbers: dict[str, Any], limit: float, top1: float) -> Check:
    whole = numbers["all"]
    same = Rate(whole["top1_same"], whole["positions"])
    low, high = same.interval
    numbers = {**numbers, "kl_limit": limit, "top1_limit": top1, "top1_interval": [low, high]}
    summary = f"KL {whole['kl_mean']:.2g} nats a token (at most {limit:g}), p99 {whole['kl_p99']:.2g}, "
    summary += f"top-1 the same at {whole['top1_same']} of {whole['positions']} places"
    if whole["loss_difference"] is not None:
        summary += f", loss {whole['loss_difference']:+.2g}"
    if (calls := numbers.get("tool_calls")) is not None:
        summary += f"; tool calls: KL {calls['kl_mean']:.2g}, top-1 {calls['top1_same']} of {calls['positions']}"
    # not a number fails as well
    far, unlike = not whole["kl_mean"] <= limit, high < top1
    if far or unlike:
        why = "too far from the trained model" if far else f"top-1 below {top1:.0%} beyond chance"
        return Check(check, name, "fail", f"{why}: {summary}", numbers, advice=_FINER)
    return Check(check, name, "pass", summary, numbers)


def calls(name: str, kind: str, same: CallAgreement, flips: Sequence[str], route: str) -> Check:
    """Greedy calls: the share of chats with the same calls must not be below the type's limit beyond chance. Where it
    is not, and many calls are others all the same, that is a warning: the file is the model, as coarse as its type."""
    limit = thresholds.CALLS[kind]
    numbers = {**same.numbers(), "limit": limit, "route": route}
    low, high = same.same.interval
    summary = f"the same calls in {_count(same.same)} chats ({low:.0%} to {high:.0%})"
    changed = same.same.n - same.same.hits
    if same.names.n:
        summary += f"; of those with a call the same tools in {_count(same.names)}"
        summary += f", and then the same arguments in {_count(same.arguments)}" if same.arguments.n else ""
    if same.valid_json.n:
        summary += f"; valid JSON {_count(same.valid_json)}"
    if not same.called:
        summary += "; the trained model makes no call in any of them, so this says little"
    if high < limit:
        return Check("calls", name, "fail", f"below {limit:.0%}: {summary}", numbers, list(flips[:20]), _FINER)
    if same.same.share is not None and same.same.share < thresholds.FEW_CALLS:
        told = f"{kind} changes the calls of {changed:g} of {same.same.n} chats: {summary}"
        return Check("calls", name, "warn", told, numbers, list(flips[:20]), f"{_finer(kind)}; {_RIGHT}")
    return Check("calls", name, "pass", summary, numbers, list(flips[:20]))


def _finer(kind: str) -> str:
    if kind in ("F16", "BF16"):
        return "16 bits should change next to none, and these chats are few: --verify-only --chats 100 compares more"
    return f"A finer type, as {'f16' if kind == 'Q8_0' else 'q8_0'}, changes fewer"


def control(numbers: dict[str, Any] | None, files: Mapping[str, dict[str, Any]]) -> Check:
    """The base without its adapter must be much farther from the trained model than any file that passed."""
    if numbers is None:
        return Check("control", None, "skip", "there is no adapter to leave out: this export is of a plain model")
    kl = numbers["all"]["kl_mean"]
    found = {"without_adapter": numbers, "factor": thresholds.CONTROL_FACTOR}
    whole = numbers["all"]
    base = (
        f"without the adapter KL {kl:.2g}, top-1 the same at {whole['top1_same']} of {whole['positions']} places, "
        f"loss {whole['loss_difference']:+.2g}"
    )
    if not files:
        return Check("control", None, "skip", f"{base}; no file to compare it with", found)
    worst, farthest = max(((one, values["all"]["kl_mean"]) for one, values in files.items()), key=lambda item: item[1])
    if kl < thresholds.CONTROL_FACTOR * farthest:
        summary = f"no power: {base}, which is not {thresholds.CONTROL_FACTOR:g} times the {farthest:.2g} of {worst}"
        advice = "What the training changed is lost in what the file changes: train longer, or export a finer type"
        return Check("control", None, "fail", summary, found, advice=advice)
    ratio = f"{kl / farthest:,.0f} times" if farthest else "beyond"
    return Check("control", None, "pass", f"{base}: {ratio} the KL of {worst}, the farthest file", found)


def _count(rate: Rate) -> str:
    return f"{rate.hits:g} of {rate.n}"

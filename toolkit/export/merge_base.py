"""Into which base weights a QLoRA adapter is merged: the original ones, or what training saw of them in 4 bits.

Peers disagree, because both have a price. The dequantised base gives exactly the model that was trained, with the
rounding of NF4 for good. The original base is the better one in general, but the adapter was never trained on it. So
`auto` measures both against the trained model and takes the original base only where that costs nothing on the task.
Merging into a re-quantised layer, which would erase most of the adapter, is not on offer.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from importlib import resources
from pathlib import Path
from typing import TYPE_CHECKING, Any, Literal

from toolkit.data.render import Renderer
from toolkit.data.table import eval_chats
from toolkit.data.tokenizers import load_tokenizer
from toolkit.data.trained_on import check_trained_on
from toolkit.export.merge import open_merged
from toolkit.export.tensors import Weights
from toolkit.exports import MergeRecord, MergeScore
from toolkit.models.loading import load_model
from toolkit.progress import without_bars
from toolkit.trusted import load_adapter

if TYPE_CHECKING:
    from toolkit.data.template import ChatTemplate
    from toolkit.recipe.schema import Recipe

Asked = Literal["auto", "original", "dequant"]
TASK_CHATS = 24
# nats a trained token by which the original base may be worse than the trained model: 1% in perplexity
TOLERANCE = 0.01
_FP32_PARAMETERS = 500_000_000  # larger models are scored in bfloat16, to stay below 5 GiB

Texts = Sequence[tuple[list[int], list[bool]]]
"""Token ids, and which of them count."""


def choose(
    asked: Asked,
    *,
    load_in_4bit: bool,
    held_dtype: str,
    base: Path,
    adapter: Path | None,
    recipe: Recipe | None,
    template: ChatTemplate | None = None,
    day: str = "",
    say: Callable[[str], None] = lambda line: None,
) -> MergeRecord:
    """Decide, and measure first where that takes measuring. `base` and `adapter` are folders.

    `template` is what rendered the recipe's chats, and `day` the date that it wrote. Raises `RunError` where those
    chats, which are scored, are not what the run was trained on.
    """
    if asked == "dequant":
        return MergeRecord(asked, "dequant", "asked for", held_dtype)
    if asked == "original":
        return MergeRecord(asked, "original", "asked for")
    if adapter is None:
        return MergeRecord(asked, "original", "there is no adapter to merge")
    if not load_in_4bit:
        reason = "the base was not quantised in training" if recipe else "an adapter alone does not say it was 4-bit"
        return MergeRecord(asked, "original", reason)
    if recipe is not None:
        check_trained_on(recipe, adapter.parent, "; say which base with --merge-base")
    task = task_texts(recipe, base, template, day) if recipe is not None and template is not None else []
    if not task:
        reason = "there are no held-out chats to score by, and this is the model that was trained"
        return MergeRecord(asked, "dequant", reason, held_dtype)
    say(f"merge base: scoring {len(task)} held-out chats and general text with the trained adapter and with both bases")
    return decide(measure(base, adapter, held_dtype, task, general_texts(base)), held_dtype)


def decide(scores: Sequence[MergeScore], held_dtype: str) -> MergeRecord:
    """The rule: the original base unless it is worse than the trained model by more than `TOLERANCE` on the task."""
    by = {score.base: score for score in scores}
    trained, original, dequant = by["trained"], by["original"], by["dequant"]
    worse = original.task_loss - trained.task_loss
    facts = (
        f"task loss {original.task_loss:.4f} on the original base, {dequant.task_loss:.4f} on the dequantised one, "
        f"{trained.task_loss:.4f} as trained; general loss {original.general_loss:.3f}, {dequant.general_loss:.3f}, "
        f"{trained.general_loss:.3f}"
    )
    if worse <= TOLERANCE:
        reason = f"the original base is not worse on the task (within {TOLERANCE:g}): {facts}"
        return MergeRecord("auto", "original", reason, None, list(scores))
    reason = f"the original base is worse on the task by {worse:.4f} (more than {TOLERANCE:g}): {facts}"
    return MergeRecord("auto", "dequant", reason, held_dtype, list(scores))


def measure(base: Path, adapter: Path, held_dtype: str, task: Texts, general: Texts) -> list[MergeScore]:
    """Losses of the trained model (adapter beside the dequantised base) and of both merges, one model at a time."""
    import torch

    plain = open_merged(base, None)
    small = plain.architecture.shape.parameters < _FP32_PARAMETERS
    dtype = torch.float32 if small else torch.bfloat16
    with without_bars():
        model = load_model(base, dtype=dtype)
    found = []
    for which in ("original", "dequant"):
        load_into(model, open_merged(base, adapter, dequant=which == "dequant", held_dtype=held_dtype))
        found.append(_score(which, model, task, general))
    load_into(model, open_merged(base, None, dequant=True, held_dtype=held_dtype))
    trained = load_adapter(model, adapter)
    return [_score("trained", trained, task, general), *found]


def load_into(model: Any, weights: Weights) -> None:
    """Put a stream's weights into a transformers model, one at a time."""
    import torch

    parameters = dict(model.named_parameters())
    with torch.no_grad():
        for name in weights.architecture.tensors:
            parameters[name].copy_(weights.read(name))


def _score(which: Any, model: Any, task: Texts, general: Texts) -> MergeScore:
    model.eval()
    task_loss, tokens = mean_loss(model, task)
    general_loss, general_tokens = mean_loss(model, general)
    return MergeScore(which, task_loss, general_loss, tokens, general_tokens)


def mean_loss(model: Any, texts: Texts) -> tuple[float, int]:
    """Mean negative log-likelihood in nats of the tokens that count, and how many they are."""
    import torch

    total, count = 0.0, 0
    with torch.inference_mode():
        for ids, counted in texts:
            inputs = torch.tensor([ids])
            logits = model(input_ids=inputs).logits[0, :-1].float()
            losses = torch.nn.functional.cross_entropy(logits, inputs[0, 1:], reduction="none")
            wanted = torch.tensor(counted[1:])
            total += float(losses[wanted].double().sum())
            count += int(wanted.sum())
    return total / max(1, count), count


def task_texts(recipe: Recipe, base: Path, template: ChatTemplate, day: str = "", limit: int = TASK_CHATS) -> Texts:
    """Rows of held-out chats, spread over all of them, with what was trained marked."""
    renderer = Renderer.by(load_tokenizer(base), template, day)
    chats = eval_chats(recipe)
    step = max(1, len(chats) // limit)
    found = []
    for chat in chats[::step][:limit]:
        for row in renderer.rows(chat)[:1]:
            encoded = renderer.encode(row, recipe.train.max_length)
            if encoded.trained.any():
                found.append((encoded.input_ids.tolist(), encoded.trained.tolist()))
    return found


def general_texts(base: Path) -> Texts:
    """A few paragraphs written for this, in no data set: how well the model still models plain English."""
    tokenizer = load_tokenizer(base)
    text = resources.files("toolkit.export").joinpath("general.txt").read_text(encoding="utf-8")
    found = []
    for paragraph in text.strip().split("\n\n"):
        ids = tokenizer(paragraph, add_special_tokens=False).input_ids
        found.append((ids, [True] * len(ids)))
    return found

"""What the checks are made on: held-out chats as training rendered them, and strings that tokenizers stumble over."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, field, replace
from itertools import islice
from pathlib import Path
from typing import Any

from toolkit.chats import Chat
from toolkit.data.calls import Messages
from toolkit.data.render import Renderer, has_tools
from toolkit.data.table import eval_chats
from toolkit.data.template import ChatTemplate, Rendering
from toolkit.data.tokenizers import load_tokenizer
from toolkit.data.trained_on import check_trained_on
from toolkit.engines.recipes import load
from toolkit.errors import DataError, InputError, first_line
from toolkit.evaluation.evaluate import prompted_turns
from toolkit.exports import ExportFolder, ExportRecord
from toolkit.inference.prompting import trained_date

LONGEST = 2048  # tokens; longer chats are left out, as they would cost more than they tell
PER_CHAT = 96  # most positions that are compared in one chat
DEFAULT_NEW_TOKENS = 128

HARD_STRINGS = (
    "",
    " ",
    "  two  spaces\n\n\nthree lines\t\ttabs \r\n",
    "The year 2025 had 365 days, 12 months and 31536000 seconds; 3.14159 or 1e-9.",
    "don't can't won't it's I'll we've they'd o'clock DON'T",
    "na\u00efve caf\u00e9 \u00c5ngstr\u00f6m \u00fcber fa\u00e7ade",
    "\u65e5\u672c\u8a9e\u306e\u6587\u7ae0\u3002\u4e2d\u6587\u53e5\u5b50\uff0c\ud55c\uad6d\uc5b4 \ubb38\uc7a5",
    "Русский, Ελληνικά, العربية, עברית, हिन्दी",
    "\U0001f680 \U0001f468\u200d\U0001f469\u200d\U0001f467 \U0001f44d\U0001f3fd \u2764\ufe0f \U0001f1eb\U0001f1f7",
    "def f(x: int) -> str:\n    return f\"{x!r}\"  # \u2192 quoted\n\nif __name__ == '__main__':\n\tprint(f(3))\n",
    '{"tool": "get_weather", "arguments": {"city": "S\u00e3o Paulo", "days": [1, 2, 3], "note": "a\\"b\\\\c\\n"}}',
    '<tool_call>\n{"name": "f", "arguments": {}}\n</tool_call>',
    "<think>\n\n</think>\n\nDone.",
    "<|im_start|>user\nHi<|im_end|>\n<|im_start|>assistant\n",
    "text<|endoftext|>more<|im_end|><|im_end|>",
    "< | im_start | > <|im_start |> </s> <s> [INST] <0x0A>",
    "SELECT * FROM t WHERE a >= 10 AND b <> 'x' -- done;;",
    "https://example.org/a/b?c=d&e=%20f#g mail@example.org C:\\temp\\x.txt",
    "\u00a0non\u00adbreaking\u200bzero\u2009thin\u3000wide\ufeffmark",
    "aaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaa =================== ----- .....!!!???",
    "\u00b2\u00b3\u2155 \u2167 \u0661\u0662\u0663 \uff11\uff12\uff13",
)
# not in Unicode's composed form (NFC): decomposed accents, a compatibility ligature, Hangul jamo, the angstrom sign
DECOMPOSED = (
    "cafe\u0301 nai\u0308ve A\u030angstro\u0308m",
    "\u1112\u1161\u11ab\u1100\u1173\u11af",
    "\u212b and \u2126",
    "e\u0323\u0302 q\u0307\u0323",
)


@dataclass(slots=True)
class ScoredRow:
    """A rendered chat, or one turn of it; `chat` is its number in `Material.chats`. `positions` are the places of
    trained tokens: position p is the token ids[p], which the model predicts from ids[:p]; `in_call` says which of them
    stand in a turn with tool calls."""

    ids: list[int]
    positions: list[int]
    in_call: list[bool]
    chat: int = 0


@dataclass(slots=True)
class Prompt:
    """An assistant turn to be written: what the template is handed, the text it gave in training, and the row (an
    index into `Material.rows`) that goes on as this prompt begins, if there is one."""

    given: Messages
    text: str
    first: bool
    row: int | None = None


@dataclass(slots=True)
class Material:
    chats: list[Chat]
    rows: list[ScoredRow]
    prompts: list[Prompt]
    renderer: Renderer
    call_format: str
    max_new_tokens: int
    """Of a decoded answer: the recipe's, or what the longest answer here takes and half as much again. A model that
    does not end its turns would otherwise write to the recipe's limit in every chat."""
    source: str
    notes: list[str] = field(default_factory=list)

    @property
    def tokenizer(self) -> Any:
        return self.renderer.tokenizer

    @property
    def template_options(self) -> dict[str, Any]:
        """What the chat template is told beside the messages."""
        return {**self.renderer.options, **trained_date(self.tokenizer.chat_template or "")}

    @property
    def asked(self) -> list[Prompt]:
        """The first assistant turn of each chat, which is decoded."""
        return [prompt for prompt in self.prompts if prompt.first]

    @property
    def texts(self) -> list[str]:
        """The data's own text, as training tokenised it."""
        return [prompt.text for prompt in self.prompts]

    def ids(self, text: str) -> list[int]:
        """Ids as training made them."""
        return list(self.tokenizer(text, add_special_tokens=False)["input_ids"])


def gather(folder: ExportFolder, record: ExportRecord, count: int) -> Material:
    """Up to `count` held-out chats: the recipe's, or built-in ones where there are none, spread over their kinds.

    Raises `DataError` when no chat can be rendered.
    """
    tokenizer = load_tokenizer(Path(record.tokenizer["folder"]))
    renderer = _renderer(folder, record, tokenizer)
    chats, source, notes, max_new_tokens = _chats(record)
    if not renderer.takes_tools and all(map(has_tools, chats)):
        # a run over chats without tools that held none out: of the built-in ones, those that need no tool
        chats = [plain for chat in chats if not has_tools(plain := replace(chat, tools=()))]
    longest = min(record.max_length or LONGEST, LONGEST)
    material = Material([], [], [], renderer, renderer.call_form, max_new_tokens, source, notes)
    for chat in spread(chats, count):
        _add(material, chat, longest)
    if not material.rows:
        raise DataError(f"no chat of {source} can be rendered in {longest} tokens, so there is nothing to compare on")
    if answers := [_answer(material, prompt) for prompt in material.asked if prompt.row is not None]:
        material.max_new_tokens = min(max_new_tokens, int(1.5 * max(answers)) + 32)
    return material


def spread(chats: Sequence[Chat], count: int) -> list[Chat]:
    """`count` chats, taken from all over the list, in an order of which every beginning is from all over it too."""
    taken = min(len(chats), count)
    bits = max(1, taken - 1).bit_length()
    order = sorted(range(taken), key=lambda index: int(f"{index:0{bits}b}"[::-1], 2))
    return [chats[index * len(chats) // taken] for index in order]


def _answer(material: Material, prompt: Prompt) -> int:
    """Tokens of the answer that the data has for a prompt, its end token included."""
    row = material.rows[prompt.row or 0].ids
    start = len(material.ids(prompt.text))
    stops = set(material.renderer.end_token_ids)
    return next((at for at in range(start, len(row)) if row[at] in stops), len(row) - 1) - start + 1


def _renderer(folder: ExportFolder, record: ExportRecord, tokenizer: Any) -> Renderer:
    if record.data is not None:
        template = ChatTemplate.read(folder.path, Rendering.of(record.data))
        assert template is not None
        return Renderer.by(tokenizer, template)
    own = Renderer(tokenizer)
    # where the template knows no tools, chats are put into plain messages before it sees them
    return own if own.takes_tools else Renderer.by(tokenizer, ChatTemplate(Rendering("json"), None))


def _chats(record: ExportRecord) -> tuple[list[Chat], str, list[str], int]:
    from toolkit import world as builtin

    notes: list[str] = []
    new_tokens = DEFAULT_NEW_TOKENS
    if record.recipe is not None:
        try:
            recipe = load(Path(record.recipe)).recipe
            new_tokens = recipe.eval.max_new_tokens
            check_trained_on(recipe, Path(record.recipe).parent)
            if found := eval_chats(recipe):
                return found, "the recipe's held-out chats", notes, new_tokens
            notes.append("the recipe holds no chats out, so built-in ones are compared on")
        except InputError as error:
            notes.append(f"the recipe's held-out chats can't be read ({first_line(error)}); built-in ones are")
    made = [chat for split in ("phrasing", "tools") for chat in islice(builtin.chats(size=60, split=split), 60)]
    return made, "built-in held-out chats", notes, new_tokens


def _add(material: Material, chat: Chat, longest: int) -> None:
    renderer = material.renderer
    answers = [index for index, turn in enumerate(chat.turns) if turn.role == "assistant" and turn.trained]
    try:
        rows = renderer.rows(chat)
        encoded = [renderer.encode(row) for row in rows]
        turns = prompted_turns(chat, "all")
        texts = [renderer.prompt(chat, turn) for turn in turns]
    except DataError as error:
        material.notes.append(f"left out: {first_line(error)}")
        return
    if (
        not turns
        or max(len(one.input_ids) for one in encoded) > longest
        or not all(o.trained[1:].any() for o in encoded)
    ):
        return
    material.chats.append(chat)
    first_row = len(material.rows)
    for row, one in zip(rows, encoded, strict=True):
        ids = one.input_ids.tolist()
        by_turn = answers if renderer.thinking == "template" else [row.turn]
        positions, in_call = _positions(one.trained.tolist(), [bool(chat.turns[turn].tool_calls) for turn in by_turn])
        most = max(1, PER_CHAT // len(rows))
        material.rows.append(ScoredRow(ids, positions[:most], in_call[:most], len(material.chats) - 1))
    for number, (turn, text) in enumerate(zip(turns, texts, strict=True)):
        index = next((i for i in range(first_row, len(material.rows)) if _begins(material, i, text)), None)
        material.prompts.append(Prompt(renderer.messages(chat, turn), text, number == 0, index))


def _begins(material: Material, row: int, text: str) -> bool:
    ids = material.ids(text)
    return material.rows[row].ids[: len(ids)] == ids


def _positions(trained: list[bool], calls: list[bool]) -> tuple[list[int], list[bool]]:
    """Trained positions (never the first, which nothing predicts), and whether their turn makes calls."""
    positions: list[int] = []
    in_call: list[bool] = []
    turn = -1
    for index, here in enumerate(trained):
        if not here:
            continue
        if index == 0 or not trained[index - 1]:
            turn += 1
        if index:
            positions.append(index)
            in_call.append(calls[min(turn, len(calls) - 1)])
    return positions, in_call

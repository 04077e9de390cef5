"""A tiny model that knows a few chats by heart, in every call format: what comes out of it is known beforehand."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import torch

from tests.tiny import make_model
from toolkit.chats import Chat, ToolCall, Turn
from toolkit.data.compose import compose
from toolkit.data.render import Renderer
from toolkit.data.template import FILE, Rendering, templated
from toolkit.data.tokenizers import load_tokenizer
from toolkit.export.export import export

FORMATS = ("native", "hermes", "json", "jsonrpc")
UP: dict[str, Any] = {
    "type": "function",
    "function": {
        "name": "up",
        "description": "",
        "parameters": {"type": "object", "properties": {"n": {"type": "integer"}}},
    },
}
TWICE, HI = "Up 3, up 4", "Hi"
CALLS = (ToolCall("up", {"n": 3}), ToolCall("up", {"n": 4}))
RESULTS = (Turn("tool", "4", name="up"), Turn("tool", "5", name="up"))
CHATS = (
    Chat((Turn("user", TWICE), Turn("assistant", "Both:", CALLS), *RESULTS, Turn("assistant", "4, 5")), (UP,)),
    Chat((Turn("user", HI), Turn("assistant", "Hi [you] {}!"))),
)


def teach(root: Path) -> dict[str, Path]:
    """A GGUF a call format. `native` is a template that says nothing of a call format, and writes as `hermes` does."""
    base = make_model(root / "base")
    tokenizer = load_tokenizer(base)
    texts = {name: compose(tokenizer, Rendering(name)) for name in FORMATS[1:]}  # type: ignore[arg-type]
    texts["native"] = texts["hermes"].partition("\n")[2]
    rows = []
    for name in FORMATS[1:]:
        renderer = Renderer(templated(tokenizer, texts[name]))
        rows += [renderer.encode(row) for chat in CHATS for row in renderer.rows(chat)]
    _learn(base, rows)
    made = {}
    for name, text in texts.items():
        (base / FILE).write_text(text)
        made[name] = next(
            export(str(base), gguf=["f16"], merged=False, verify=False, out=root / name).path.glob("*.gguf")
        )
    return made


def _learn(folder: Path, rows: list[Any]) -> None:
    """Train all weights on the rows until they are known by heart."""
    from transformers import AutoModelForCausalLM

    model = AutoModelForCausalLM.from_pretrained(folder, dtype=torch.float32)
    pairs = [(torch.from_numpy(row.input_ids).long()[None], torch.from_numpy(row.trained)[None]) for row in rows]
    total = sum(int(trained.sum()) for _, trained in pairs)
    optimizer = torch.optim.AdamW(model.parameters(), lr=6e-3, weight_decay=0)
    for _ in range(600):
        mean = 0.0
        for ids, trained in pairs:  # one by one: rows differ in length, and filling up would double the work
            labels = torch.where(trained, ids, -100)
            loss = model(input_ids=ids, labels=labels, num_items_in_batch=total).loss
            loss.backward()
            mean += loss.item()
        if mean < 0.02:
            break
        optimizer.step()
        optimizer.zero_grad()
    else:
        raise AssertionError(f"not learned: loss {mean}")
    model.save_pretrained(folder)

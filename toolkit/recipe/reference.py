"""docs/recipe.md: every key of a recipe, made from the schema (a test keeps the two equal)."""

from __future__ import annotations

import json
from typing import Any, get_args, get_origin

from pydantic import BaseModel
from pydantic.fields import FieldInfo
from pydantic_core import PydanticUndefined

from toolkit.recipe.describe import wanted
from toolkit.recipe.names import TABLE
from toolkit.recipe.validate import sections

MADE_BY = """python -c "from toolkit.recipe.reference import page; print(page(), end='')" > docs/recipe.md"""


def page() -> str:
    """The whole page, as Markdown."""
    lines = [
        "# Every key of a recipe",
        "",
        "A recipe is a TOML file. What it leaves out has the default below; `extends` starts from another recipe, and",
        "`--set train.learning_rate=1e-4` puts a value over the file's for one run. Names are TRL's, transformers' and",
        "PEFT's where they have one; [recipe-names.md](recipe-names.md) has other tools' names for all of them.",
        "",
        "This page is made by",
        "",
        f"    {MADE_BY}",
    ]
    for heading, prefix, section in sections():
        lines += ["", f"## {heading}", "", *_doc(section), "| key | default | takes | what it is | elsewhere |"]
        lines += ["|---|---|---|---|---|"]
        for name, field in section.model_fields.items():
            if not _is_section(field):
                cells = (
                    f"`{name}`",
                    _default(field),
                    wanted(field),
                    field.description or "",
                    _others(f"{prefix}.{name}"),
                )
                lines.append("| " + " | ".join(cell.replace("|", "\\|") for cell in cells) + " |")
    return "\n".join(lines) + "\n"


def _is_model(annotation: Any) -> bool:
    return isinstance(annotation, type) and issubclass(annotation, BaseModel)


def _is_section(field: FieldInfo) -> bool:
    return get_origin(field.annotation) is list and _is_model(get_args(field.annotation)[0])


def _doc(section: type[BaseModel]) -> list[str]:
    text = " ".join((section.__doc__ or "").split())
    return [text, ""] if text else []


def _default(field: FieldInfo) -> str:
    value = field.get_default(call_default_factory=True)
    if value is PydanticUndefined:
        return "has to be given"
    if value is None or _is_model(type(value)):
        return ""
    return f"`{json.dumps(value)}`"


def _others(key: str) -> str:
    return ", ".join(f"`{name}`" for other in TABLE if other.ours == key for name in other.names[:3])

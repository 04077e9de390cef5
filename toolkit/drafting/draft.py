"""`toolkit init`: a recipe for data, and what was found in it."""

from __future__ import annotations

import os
import re
from collections.abc import Iterator
from pathlib import Path

from toolkit.chats import BUILTIN_PREFIX
from toolkit.data.readers import KINDS, PACKED
from toolkit.drafting.choices import MOST_BAD, Choices, choose
from toolkit.drafting.look import Look, look
from toolkit.engines.recipes import load
from toolkit.errors import DataError, InputError, Problem, did_you_mean
from toolkit.files import write_text
from toolkit.models import WHEEL_MODELS
from toolkit.planning.cards import SeenGpu, seen_gpus
from toolkit.recipe.dump import value_text
from toolkit.recipe.schema import ColumnsSection, ModelSection
from toolkit.terminal import one_line
from toolkit.words import counted, next_steps, typed

ON_GPU = "Qwen/Qwen3-1.7B"
ON_CPU = next(iter(WHEEL_MODELS))  # the quickstart's
_SUFFIXES = (*KINDS, ".ndjson", *PACKED)
EXAMPLE = "user=question,assistant=answer"
_NAMED_HERE = re.compile(r'data\.sources\.columns = \{ user = "(\w+)", assistant = "(\w+)" \}')
_NAMED = 5  # tools, and kinds of bad rows
_COMMENTS_AT = 40  # column
_MORE = "Add more of them, or name what is held out in eval.sources"


def draft(
    data: Path, model: str | None = None, out: Path | None = None, columns: str = "", *, force: bool = False
) -> Iterator[str]:
    """Write the recipe; the lines that say what was found and what comes next. `columns`: as user=question,
    assistant=answer, where they have names of their own.

    Raises `InputError` for data that can't be used, a model that is none, a recipe that is there already and one that
    can't be written.
    """
    target = out if out is not None else data.parent / f"{_stem(data)}.toml"
    if target.suffix != ".toml":
        raise InputError(f"--out {target}: wanted the name of a recipe, as {target.with_suffix('.toml')}")
    if target.exists() and not force:
        raise InputError(f"{target}: exists already; --force writes over it, --out names another")
    gpus = seen_gpus()
    gpu = gpus[0] if gpus else None
    section = ModelSection(name=model or (ON_GPU if gpu else ON_CPU))
    named = _columns(columns)
    try:
        found = look(data, section, named)
    except DataError as error:
        if columns or not any("data.sources.columns" in problem.message for problem in error.problems):
            raise
        here = next(filter(None, (_NAMED_HERE.search(problem.message) for problem in error.problems)), None)
        pairs = f"user={here[1]},assistant={here[2]}" if here else EXAMPLE
        told = f"--columns {pairs} says here which column is what"
        raise DataError([*error.problems, Problem("", told)]) from None
    choices = choose(found, section, gpu)
    try:
        write_text(target, text(found, choices, gpu, target, default=model is None))
    except OSError as error:
        raise InputError(f"{target}: can't be written: {error.strerror}; name another with --out") from None
    load(target)  # a recipe that can't be read back would be a bug, and is better met here
    yield from _told(found, choices)
    yield from _held_out(found, choices)
    yield f"written    {target}: {section.name}, {choices.held_out:,} of {counted(found.different, 'chat')} held out"
    check = typed("data", "check", target)
    if choices.refused:
        yield from next_steps("mend the bad rows, or take them out: `run` refuses until then", check)
    else:
        yield from next_steps(check, typed("plan", target), typed("run", target))


def _columns(given: str) -> ColumnsSection:
    """`--columns`. Raises `InputError`."""
    found: dict[str, str] = {}
    for pair in given.split(",") if given else ():
        name, _, column = (part.strip() for part in pair.partition("="))
        if name in found:
            raise InputError(f"--columns {given}: {name} is there twice, wanted it once, as {EXAMPLE}")
        if name not in ColumnsSection.model_fields or not column:
            near = did_you_mean(name, ColumnsSection.model_fields, alike=0.6) if "=" in pair else ""
            names = ", ".join(ColumnsSection.model_fields)
            raise InputError(f"--columns {given}: {pair.strip() or 'nothing'}: wanted {EXAMPLE}{near} (known: {names})")
        found[name] = column
    if found and found.keys() & {"user", "assistant", "messages"} not in ({"user", "assistant"}, {"messages"}):
        raise InputError(f"--columns {given}: wanted user and assistant, as {EXAMPLE}, or messages alone")
    return ColumnsSection(**found)


def _stem(data: Path) -> str:
    name = data.resolve().name
    while not data.is_dir() and name.endswith(_SUFFIXES) and Path(name).stem:
        name = Path(name).stem
    return name


def _told(found: Look, choices: Choices) -> Iterator[str]:
    twice = found.chats - found.different
    formats = ", ".join(f"{name}" for name, _ in found.formats.most_common())
    more = f"; {twice:,} of them stand there twice" if twice else ""
    yield f"data       {found.source}: {counted(found.chats, 'chat')} ({formats}){more}"
    reading = found.reading
    if reading.bad:
        yield f"bad rows   {reading.summary()}"
        yield from (f"           {problem}" for problem in reading.by_cause()[:_NAMED])
        if reading.bad > MOST_BAD * reading.rows:
            yield "           too many to leave them out: `data check` and `run` refuse until they are mended"
    for problem in found.unrendered[:_NAMED]:
        yield f"bad rows   {problem}"
    yield "turns      " + ", ".join(f"{role} {count:,}" for role, count in found.roles.most_common())
    if found.tools:
        names = ", ".join(name for name, _ in found.tools.most_common(_NAMED))
        others = len(found.tools) - _NAMED
        names += f" and {others:,} more" if others > 0 else ""
        tools = counted(len(found.tools), "tool")
        yield f"tools      {tools} ({names}); {found.with_calls:,} of {counted(found.chats, 'chat')} call them"
    unused = [finding for finding in reading.in_order() if finding.column]
    if unused:
        keys = ", ".join(f"{one_line(one.column)} ({counted(one.rows, 'row')})" for one in unused[:_NAMED])
        names = f" and {len(unused) - _NAMED:,} more" if len(unused) > _NAMED else ""
        yield f"not used   {keys}{names}: training sees nothing of these columns"
    how = "counted with the model's tokenizer" if found.counted else "estimated: the model's tokenizer is not here yet"
    yield f"tokens     {found.mean:,.0f} a chat, the longest {max(found.tokens):,} ({how})"


def _held_out(found: Look, choices: Choices) -> Iterator[str]:
    """What training never sees, as all of its chats are held out, and what nothing will be known of, as none is."""
    groups, callers = found.untrained(choices.held_out)
    for name, group in list(groups.items())[:_NAMED]:
        only = "the only chat" if group.chats == 1 else f"all {group.chats:,} chats"
        yield f"held out   {only} {name} ({group.where}): training sees none. {_MORE}"
    if callers:
        names = ", ".join(one_line(name) for name in list(callers)[:_NAMED])
        names += f" and {len(callers) - _NAMED:,} more" if len(callers) > _NAMED else ""
        yield f"held out   all chats that call {names}: training sees no such call. {_MORE}"
    for name, (group, wanted) in list(found.unjudged(choices.held_out).items())[:_NAMED]:
        way = f"eval.holdout = {wanted} would hold one out" if wanted <= found.different // 2 else _MORE
        yield f"held out   none of {group.chats:,} chats {name}: answers to such are not judged. {way}"


def text(found: Look, choices: Choices, gpu: SeenGpu | None, target: Path, *, default: bool) -> str:
    """The recipe. Sources are named from its folder, as recipes do."""
    lines = [
        f"# For {one_line(found.source.name)}, by `toolkit init`. Every key: docs/recipe.md",
        f"#   toolkit run {target.name}",
        "",
    ]
    comments = {"model": f"without a GPU; with one, {ON_GPU} learns far more" if default and gpu is None else ""}
    for name, pairs in choices.sections.items():
        if pairs:
            lines += [f"[{name}]", *(_pair(key, value, told or comments.get(name, "")) for key, value, told in pairs)]
            lines.append("")
        if name == "data":
            lines += ["[[data.sources]]", _pair("source", _from(found.source, target), "")]
            if named := found.columns.model_dump(exclude_none=True):
                lines.append(_pair("columns", named, ""))
            lines.append("")
    lines += ["# [export]", '# gguf = ["q8_0"]    # at the end of the run, for llama.cpp, Ollama and LM Studio']
    return "\n".join(lines) + "\n"


def _from(source: Path, target: Path) -> str:
    """The source as a recipe in `target`'s folder names it."""
    path = os.path.relpath(source.resolve(), target.resolve().parent)
    return f"./{path}" if path.startswith(("~", BUILTIN_PREFIX)) else path


def _pair(key: str, value: object, told: str) -> str:
    said = f"{key} = {value_text(value)}"
    return f"{said:<{_COMMENTS_AT}}# {told}" if told else said

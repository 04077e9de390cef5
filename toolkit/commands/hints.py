"""What to type instead, where a command line asks for something in a way that there is not."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path

from toolkit.words import typed

_SET = "--set changes a recipe: run, plan, launch and data take it"
_INSTEAD_OF_SET = {
    "eval": "a run is asked as its own recipe says; --data, --chats, --max-new-tokens and --batch-size change that, "
    "--recipe FILE.toml names another recipe",
    "export": "--gguf, --merge-base, --chats and --max-minutes say here what a recipe's [export] and [eval] say",
}


def hint(words: Sequence[str], option: str | None, missing: str | None) -> str:
    """A line for a command line of `words` that was refused, or nothing. `option`: the one at fault; `missing`: the
    argument that is not there."""
    verb = words[0] if words else ""
    if option == "--set":
        told = _INSTEAD_OF_SET.get(verb)
        return f"{told}. {_SET}" if told else _SET
    resuming = any(word.split("=")[0] == "--resume" for word in words)
    if verb == "run" and resuming and (option == "--resume" or missing == "recipe"):
        return f"a run goes on by its own recipe: {_resuming(words)}"
    return ""


def _resuming(words: Sequence[str]) -> str:
    """The command that goes on with the run that was most likely meant."""
    given = _named(words)
    recipes = [Path(word).stem for word in words if word.endswith(".toml")]
    folder = Path(given) if given else _unfinished(recipes[0] if recipes else "")
    if folder is None:
        return typed("run", "runs/NAME/recipe.toml", "--resume", "runs/NAME")
    return typed("run", folder / "recipe.toml", "--resume", folder)


def _named(words: Sequence[str]) -> str:
    """What --resume says."""
    for word, after in zip(words, [*words[1:], ""], strict=True):
        if word == "--resume" and not after.startswith("-"):
            return "" if after.endswith(".toml") else after
        if word.startswith("--resume="):
            return word.removeprefix("--resume=")
    return ""


def _unfinished(name: str) -> Path | None:
    """The run in runs/ that began last and has not ended, of those that a recipe of this name may have begun."""
    recipes = Path("runs").glob("*/recipe.toml")
    found = [one for one in recipes if one.parent.name.startswith(name) and not (one.parent / "summary.json").is_file()]
    return max(found, key=lambda one: one.stat().st_mtime).parent if found else None

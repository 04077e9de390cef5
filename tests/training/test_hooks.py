"""What is overridden in, and taken from, transformers' and TRL's trainers is there and takes what it is handed.

No name is listed here: classes and the text of modules are read, theirs and ours.
"""

from __future__ import annotations

import ast
import functools
import importlib
import inspect
import pkgutil
import textwrap
from collections.abc import Iterator
from pathlib import Path
from types import FunctionType
from typing import Any

import pytest
import transformers
import trl
from accelerate import Accelerator
from transformers import TrainerCallback
from transformers.trainer_callback import CallbackHandler, TrainerControl, TrainerState

import toolkit
from toolkit import training
from toolkit.training.trainer import Trainer

OURS = [one for one in Trainer.__mro__ if one.__module__.startswith("toolkit.")]
THEIRS = [one for one in trl.SFTTrainer.__mro__ if one is not object]
# what else hands itself to callbacks, or is an attribute of a trainer
PARTS = {
    "args": trl.SFTConfig,
    "state": TrainerState,
    "control": TrainerControl,
    "accelerator": Accelerator,
    "callback_handler": CallbackHandler,
}


def modules() -> list[str]:
    return [one.name for one in pkgutil.walk_packages(training.__path__, "toolkit.training.") if not one.ispkg]


def callbacks() -> list[type[Any]]:
    found = [vars(importlib.import_module(name)) for name in modules()]
    classes = [one for names in found for one in names.values() if isinstance(one, type)]
    return sorted({one for one in classes if issubclass(one, TrainerCallback) and one.__module__ in modules()}, key=str)


def methods(one: type[Any]) -> dict[str, Any]:
    return {name: value for name, value in vars(one).items() if isinstance(value, FunctionType) and name != "__init__"}


def assigned(one: type[Any]) -> set[str]:
    """Attributes that a class gives itself in its methods."""
    try:
        tree = ast.parse(textwrap.dedent(inspect.getsource(one)))
    except (OSError, TypeError):
        return set()
    stores = (node for node in ast.walk(tree) if isinstance(node, ast.Attribute) and isinstance(node.ctx, ast.Store))
    return {node.attr for node in stores if isinstance(node.value, ast.Name) and node.value.id == "self"}


@functools.cache
def names(*classes: type[Any]) -> set[str]:
    """All attributes that objects of these classes have."""
    found: set[str] = set()
    for one in (base for given in classes for base in given.__mro__ if base is not object):
        found |= {*vars(one), *vars(one).get("__annotations__", {})} | assigned(one)
    return found


def compatible(mine: Any, theirs: Any) -> str:
    """Why a function can't take the place of another; empty where it can."""
    own, base = (inspect.signature(one).parameters for one in (mine, theirs))
    kinds = {one.kind for one in own.values()}
    taken = [name for name, one in own.items() if one.kind is one.POSITIONAL_OR_KEYWORD]
    wanted = [name for name, one in base.items() if one.kind in (one.POSITIONAL_OR_KEYWORD, one.POSITIONAL_ONLY)]
    if taken != wanted[: len(taken)]:
        return f"takes {taken}, wanted {wanted}"
    if len(taken) < len(wanted) and not {inspect.Parameter.VAR_POSITIONAL, inspect.Parameter.VAR_KEYWORD} & kinds:
        return f"does not take {wanted[len(taken) :]}"
    optional, left = ({name for name in taken if one[name].default is not one[name].empty} for one in (base, own))
    lost = sorted(optional - left)
    return f"wants {lost}, which may be left out" if lost else ""


def original(classes: list[type[Any]], name: str) -> Any:
    """A function as the class wrote it that names its parameters; TRL has some that pass on whatever comes."""
    found = [vars(one)[name] for one in classes if name in vars(one)]
    for one in found:
        if any(p.kind is p.VAR_POSITIONAL for p in inspect.signature(one).parameters.values()):
            continue
        return one
    return found[0] if found else None


@pytest.mark.parametrize("mixin", OURS, ids=lambda one: one.__name__)
def test_what_is_overridden_is_there_and_takes_the_same(mixin: type[Any]) -> None:
    for name, method in methods(mixin).items():
        base = original(THEIRS, name)
        if getattr(method, "__override__", False):
            assert base is not None, f"{name} is not SFTTrainer's any more: nothing calls it"
            assert compatible(method, base) == "", name
        else:
            assert base is None, f"{name} overrides SFTTrainer's; mark it with @override, or name it otherwise"


def test_mixins_are_in_front_of_what_they_override() -> None:
    assert Trainer.__mro__[: len(OURS)] == tuple(OURS) and len(OURS) > 5


@pytest.mark.parametrize("callback", callbacks(), ids=lambda one: one.__name__)
def test_events_of_callbacks_are_there(callback: type[Any]) -> None:
    events = {name: method for name, method in methods(callback).items() if name.startswith("on_")}
    assert events
    for name, method in events.items():
        base = vars(TrainerCallback).get(name)
        assert base is not None, f"{name} is no event any more: nothing calls it"
        taken = list(inspect.signature(method).parameters)
        assert taken[:4] == list(inspect.signature(base).parameters)[:4] and taken[-1] == "kwargs", name


def chains(tree: ast.AST) -> Iterator[list[str]]:
    """a.b.c as ["a", "b", "c"], where a is a name or `super()`."""
    for node in ast.walk(tree):
        chain: list[str] = []
        while isinstance(node, ast.Attribute):
            chain.insert(0, node.attr)
            node = node.value
        if isinstance(node, ast.Call) and isinstance(node.func, ast.Name) and node.func.id == "super":
            yield ["super", *chain]
        elif chain and isinstance(node, ast.Name):
            yield [node.id, *chain]


def taken(name: str) -> set[tuple[str, str]]:
    """(what of, attribute) that a module takes from a trainer and its parts; ("trainer", "log")."""
    module = importlib.import_module(name)
    tree = ast.parse(Path(str(module.__file__)).read_text(encoding="utf-8"))
    found: set[tuple[str, str]] = set()
    for node in ast.walk(tree):
        if not isinstance(node, ast.ClassDef):
            continue
        one = getattr(module, node.name)
        for chain in chains(node):
            if one in OURS and chain[0] in ("self", "super"):
                chain[0] = "trainer"
            elif issubclass(one, TrainerCallback) and chain[:2] == ["self", "trainer"]:
                del chain[0]
            elif not (issubclass(one, TrainerCallback) and chain[0] in PARTS):
                continue
            if chain[0] == "trainer" and len(chain) > 1:
                found.add(("trainer", chain[1]))
                del chain[0]
            if chain[0] in PARTS and len(chain) > 1:
                found.add((chain[0], chain[1]))
    for chain in chains(tree):
        if name.endswith("sft_config") and chain[0] == "args" and len(chain) > 1:
            found.add(("args", chain[1]))
    return found


@pytest.mark.parametrize("module", modules())
def test_what_is_taken_from_a_trainer_is_there(module: str) -> None:
    for owner, name in taken(module):
        there = names(Trainer) if owner == "trainer" else names(PARTS[owner])
        assert name in there, f"{owner}.{name}"


def test_what_is_taken_is_found() -> None:
    """Of a few of each kind, so that the tests above look at something."""
    found = {pair for module in modules() for pair in taken(module)}
    assert {("trainer", "_maybe_log_save_evaluate"), ("trainer", "_total_loss_scalar")} <= found
    assert {("args", "_n_gpu"), ("args", "fp16"), ("accelerator", "optimizer_step_was_skipped")} <= found
    assert {("state", "global_step"), ("control", "should_save"), ("callback_handler", "on_evaluate")} <= found


def test_a_hook_that_is_gone_or_takes_something_else_is_told() -> None:
    def gone(self: Any, model: Any) -> None: ...
    def changed(self: Any, trial: Any, model: Any) -> None: ...
    def optional(self: Any, model: Any, trial: Any, start: Any = None) -> None: ...

    theirs = transformers.Trainer._save_checkpoint
    assert compatible(theirs, theirs) == ""
    assert "does not take ['trial']" in compatible(gone, theirs)
    assert "takes" in compatible(changed, theirs) and "takes" in compatible(optional, theirs)
    assert "may be left out" in compatible(theirs, lambda self, model, trial=None: None)


def test_what_is_private_to_models_is_there() -> None:
    """What is read with a default, and so would be missed by nobody."""
    there = names(transformers.PreTrainedModel, transformers.PretrainedConfig)
    found = set()
    for path in Path(toolkit.__file__).parent.rglob("*.py"):
        for node in ast.walk(ast.parse(path.read_text(encoding="utf-8"))):
            match node:
                case ast.Call(func=ast.Name(id="getattr"), args=[owner, ast.Constant(value=str(name)), _]):
                    if name.startswith("_") and not name.endswith("__") and ast.unparse(owner) != "self":
                        found.add(name)
    assert "_supports_attention_backend" in found and found <= there, found - there

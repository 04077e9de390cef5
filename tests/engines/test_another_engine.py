"""An engine more is a class and a name in the registry: everything else asks it."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

import pytest

from tests.engines.test_choices import CPU
from tests.engines.test_measured import H200, fastest_engine, kept, row
from tests.test_doctor import FINE
from tests.tiny import write_recipe
from toolkit.doctor.judge import judge
from toolkit.engines import ENGINES
from toolkit.engines.base import Has, Launch, Reason, is_installed
from toolkit.engines.peft import Peft
from toolkit.engines.recipes import load
from toolkit.errors import RecipeError
from toolkit.hardware import Hardware
from toolkit.planning.plan import plan_recipe
from toolkit.planning.setup import setup_of
from toolkit.recipe.schema import Recipe
from toolkit.records import read_object
from toolkit.training.run import run


class Another(Peft):
    """Plain PEFT under another name, that needs a package, keeps rank 64 for itself and launches at once."""

    name = "another"
    distributions = (*Peft.distributions, "pytest")
    automatic = 9
    launch = Launch(0.0, 0.0, 1.0)

    def lacks(self, hardware: Hardware, has: Has = is_installed) -> Iterator[Reason]:
        if not has("pytest"):
            yield Reason((("train", "engine"),), "another needs pytest", "pytest is not installed")

    def refuses(self, recipe: Recipe) -> Iterator[Reason]:
        if recipe.lora.r == 7:
            yield Reason((("lora", "r"),), "another has no use for 7", "lora.r = 7")

    def reserves(self, recipe: Recipe) -> Iterator[Reason]:
        if recipe.lora.r == 64:
            yield Reason((("lora", "r"), ("train", "engine")), "64 is a rank of another")

    def advantage(self, hardware: Hardware) -> str:
        return f"another way on {hardware.cores} cores"


SEVEN = Recipe.model_validate({"lora": {"r": 7}})


@pytest.fixture
def another(monkeypatch: pytest.MonkeyPatch) -> Another:
    engine = Another()
    monkeypatch.setitem(ENGINES, engine.name, engine)
    return engine


def test_it_is_chosen_planned_shown_and_trains(another: Another, tmp_path: Path, tiny_model: Path, cache: Path) -> None:
    recipe = write_recipe(tmp_path, tiny_model, 20, train={"engine": "auto", "max_steps": 2}, eval={"eval_steps": 2})
    plan = plan_recipe(load(recipe), "h200")
    assert plan.engine.value == "another" and plan.engine.reason.startswith("another way on ")
    assert plan.time is not None and plan.time.kinds.host == 0
    assert any(line.name == "another" and line.ok for line in judge(FINE).sections["engines"])
    folder = run(load(recipe), tmp_path / "run")
    environment = read_object(folder.environment)
    assert environment["engine"]["engine"]["value"] == "another"
    assert "pytest" in environment["engine"]["versions"]


def test_what_it_says_no_to_is_said_everywhere(another: Another, tmp_path: Path) -> None:
    from toolkit.engines.choice import choose_engine

    assert str(choose_engine(SEVEN, CPU)) == "peft (lora.r = 7)"
    assert choose_engine(Recipe(), CPU, lambda package: False).reason == "pytest is not installed"
    path = tmp_path / "x.toml"
    path.write_text("[lora]\nr = 64\n[train]\nengine = 'peft'\n")
    with pytest.raises(RecipeError, match=r"x.toml:2: lora.r: 64 is a rank of another \[train.engine: .*x.toml:4\]"):
        load(path)


def test_it_is_timed_and_taken_where_it_can_run(another: Another) -> None:
    rows = kept(row("another", 20_000), row("unsloth", 11_000), row("peft", 7_000))
    assert fastest_engine(Recipe(), H200, rows).value == "another"
    assert fastest_engine(SEVEN, H200, rows).value == "unsloth"


def test_planning_asks_it_for_what_it_keeps(another: Another, monkeypatch: pytest.MonkeyPatch) -> None:
    from toolkit.models.families import KNOWN
    from toolkit.planning.memory import training_memory

    shape = KNOWN["Qwen/Qwen3-1.7B"]
    plain, mine = (setup_of(Recipe(), shape, name, "bf16", cuda=True) for name in ("peft", "another"))
    assert training_memory(plain, 4, 512, 200) == training_memory(mine, 4, 512, 200)
    monkeypatch.setattr(Another, "layer_activations", lambda self, setup: 2 * Peft.layer_activations(self, setup))
    assert training_memory(plain, 4, 512, 200).total < training_memory(mine, 4, 512, 200).total

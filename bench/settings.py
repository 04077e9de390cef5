"""What `toolkit bench` was asked for, resolved into one job a variant."""

from __future__ import annotations

import re
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from bench.plan import VariantPlan
from bench.profiles import THIS, Profile, Shape
from bench.variants import Variant
from bench.worker import Job
from toolkit import models
from toolkit.data.table import build
from toolkit.data.table import find as find_table
from toolkit.engines.recipes import load
from toolkit.errors import RecipeError
from toolkit.models.families import load_shape
from toolkit.models.shape import ModelShape
from toolkit.planning.lengths import ASSUMED_TRAINED
from toolkit.recipe import LoadedRecipe
from toolkit.recipe.schema import Recipe

BENCH_OVERRIDES = (
    'train.lr_scheduler_type="constant"',
    'train.micro_batch="fixed"',
    "train.warmup_ratio=0.0",
    "train.logging_steps=1",
    "train.save_steps=1000000000",
    "train.report_to=[]",
    "eval.generate=0",
    "eval.early_stopping_patience=0",
)
FULL_RATE = 0.1  # of the adapter's learning rate
SPARE = 8  # updates that the trainer's max_steps has beyond those that will run: at its last one it saves a checkpoint


@dataclass(frozen=True, slots=True)
class Settings:
    """`turns` of `settle` + `updates` updates after `warmup` ones; `parallel` workers load at one time.

    `restart`: where not all variants fit the card at once, start them again for every turn, so that drift hits all
    alike; else group after group is measured, which is faster. `kernels`: updates under torch's profiler after the last
    turn. `lock`: a file of benches that measure one after the other.
    """

    recipe: Path
    variants: tuple[Variant, ...]
    shape: Shape
    profile: Profile = THIS
    overrides: tuple[str, ...] = ()
    turns: int = 3
    updates: int = 2
    settle: int = 1
    warmup: int = 3
    parallel: int = 4
    restart: bool = False
    gpu: bool = True
    threads: int = 4
    timeout: float = 420.0
    kernels: int = 0
    lock: Path | None = None

    @property
    def all_updates(self) -> int:
        profiled = 1 + self.kernels if self.kernels else 0
        return self.warmup + self.turns * (self.settle + self.updates) + profiled + SPARE


@dataclass(slots=True)
class Bench:
    """Settings with everything looked up: the model's folder and shape, and a job for each variant.

    `left_out`: why a variant has none, where its engine refuses this recipe, as Unsloth to pack a hybrid's chats.
    """

    settings: Settings
    loaded: LoadedRecipe
    model_folder: Path
    shape: ModelShape
    share: float
    jobs: dict[str, Job] = field(default_factory=dict)
    left_out: dict[str, str] = field(default_factory=dict)

    def plan(self, name: str) -> VariantPlan:
        """What the planner knows of a variant."""
        return VariantPlan(self.shape, self.jobs[name].variant, self.jobs[name].recipe)


def prepare(settings: Settings, scratch: Path) -> Bench:
    """Resolve every variant's recipe and see to model and token table before any process starts.

    Raises an `InputError` for whatever is wrong with recipe, model or data.
    """
    loaded = load(settings.recipe, settings.overrides)
    folder = models.resolve(loaded.recipe.model)
    shape = load_shape(loaded.recipe.model)
    share = _trained_share(settings, loaded, folder)
    bench = Bench(settings, loaded, folder, shape, share)
    recipes, bench.left_out = trials(settings, loaded)
    for variant in settings.variants:
        if variant.name in recipes:
            bench.jobs[variant.name] = _job(bench, variant, recipes[variant.name], scratch)
    return bench


def _job(bench: Bench, variant: Variant, recipe: Recipe, scratch: Path) -> Job:
    settings = bench.settings
    rows = recipe.train.per_device_train_batch_size if settings.shape.fixed else None
    place = scratch / slug(variant.name)
    env = {
        # workers that start together must not write one folder of generated code
        "UNSLOTH_COMPILE_LOCATION": str(place / "unsloth_compiled_cache"),
        **dict(settings.profile.env),
        **dict(variant.env),
    }
    return Job(
        name=variant.name,
        recipe_json=recipe.model_dump_json(),
        model_folder=str(bench.model_folder),
        output=str(place),
        rows=rows,
        tokens=settings.shape.tokens,
        share=bench.share,
        vocab=bench.shape.vocab_size,
        chats=settings.all_updates * recipe.chats_per_update,
        warmup=settings.warmup,
        cap=settings.profile.cap,
        flash=settings.profile.flash,
        threads=settings.threads,
        env=env,
        card=settings.profile.card,
        site=variant.site and str(Path(variant.site).resolve()),
    )


def slug(name: str) -> str:
    """A variant's name as that of a file."""
    return re.sub(r"[^\w.+=-]+", "_", name)


def trials(settings: Settings, loaded: LoadedRecipe) -> tuple[dict[str, Recipe], dict[str, str]]:
    """(the recipe of each variant that can train, why each other can't). Raises `RecipeError` where none can, and for a
    variant with settings of its own."""
    recipes: dict[str, Recipe] = {}
    refused: dict[str, RecipeError] = {}
    for variant in settings.variants:
        try:
            recipes[variant.name] = trial(settings, loaded, variant)
        except RecipeError as error:
            if not variant.usual:
                raise
            refused[variant.name] = error
    if not recipes and refused:
        raise next(iter(refused.values()))
    return recipes, {name: error.problems[0].message for name, error in refused.items()}


def trial(settings: Settings, loaded: LoadedRecipe, variant: Variant) -> Recipe:
    """The recipe as `variant` trains it."""
    return load(settings.recipe, (*settings.overrides, *_overrides(settings, loaded.recipe, variant))).recipe


def _overrides(settings: Settings, recipe: Recipe, variant: Variant) -> list[str]:
    rate = recipe.train.learning_rate * (FULL_RATE if variant.trained != "adapter" else 1)
    mixed = ("train.bf16=true",) if variant.trained == "all fp32" and settings.gpu else ()
    return [
        *BENCH_OVERRIDES,
        f"train.learning_rate={rate!r}",
        f"train.max_steps={settings.all_updates}",
        f'train.engine="{variant.engine}"',
        *settings.shape.overrides(recipe, one_batch=variant.one_batch),
        *variant.overrides,
        *(given for given in settings.overrides if variant.packed and given.startswith("train.micro_batch=")),
        *variant.own,
        *mixed,
        *settings.profile.overrides,
        f"eval.max_new_tokens={min(recipe.eval.max_new_tokens, 8)}",
    ]


def _trained_share(settings: Settings, loaded: LoadedRecipe, folder: Path) -> float:
    """Share of trained tokens in the recipe's data; the table is built first where real lengths are asked for."""
    table: Any
    if settings.shape.fixed:
        table = find_table(loaded.recipe, folder)
        return float(table.trained.sum() / table.lengths.sum()) if table is not None else ASSUMED_TRAINED
    table = build(loaded.recipe, folder, "train")
    return float(table.trained.sum() / table.lengths.sum())

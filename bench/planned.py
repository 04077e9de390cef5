"""What the planner says of variants that can't be measured here. A prediction, and shown as one."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING

from bench import work
from bench.profiles import Profile
from bench.settings import Settings, trial
from bench.shapes import Shape
from bench.variants import VARIANTS
from toolkit.engines.recipes import load
from toolkit.models.families import load_shape
from toolkit.planning.cards import CARDS
from toolkit.reports.bench import gib

if TYPE_CHECKING:
    from rich.console import Console


def show_planned(recipe: Path, *, overrides: tuple[str, ...], shape: Shape, profile: Profile, console: Console) -> None:
    """Print memory and time of the core variants on the profile's card (a T4 for `this`), by the planner's formulas."""
    from rich.table import Table

    from toolkit.planning.lengths import lengths_of

    card = profile.card or CARDS["t4"]
    loaded = load(recipe, overrides)
    model = load_shape(loaded.recipe.model)
    lengths = lengths_of(loaded.recipe)
    core = tuple(variant for variant in VARIANTS if variant.core)
    settings = Settings(recipe, core, shape, profile, overrides)
    what = f"{loaded.recipe.model.name}, {shape.name}, on {card.title} ({gib(card.memory)} GiB)"
    table = Table(title=f"PLANNED, not measured: {what}", title_justify="left", box=None)
    for i, column in enumerate(("variant", "peak GiB", "fits", "s an update")):
        table.add_column(column, justify="left" if i == 0 else "right", no_wrap=i == 0)
    for variant in core:
        trained = trial(settings, loaded, variant)
        batch = trained.train.per_device_train_batch_size
        rows, width = (batch, shape.tokens) if shape.tokens else (lengths.rows(batch), lengths.longest)
        precision = "bf16" if card.capability >= (8, 0) else "fp16"
        found = work.memory(
            model,
            variant,
            trained,
            precision,
            rows,
            width,
            round(rows * width * lengths.trained),
            cuda=True,
            flash=profile.flash,
            padded=not shape.fixed,
        )
        cut = lengths if not shape.tokens else work.fixed_lengths(lengths, shape.tokens)
        seconds = work.seconds(model, variant, trained, cut, card, precision)
        fits = "yes" if found.total <= card.memory else "no"
        table.add_row(variant.name, gib(found.peak), fits, f"{seconds:.2f}" if seconds else "")
    console.print(table)

"""What of a bench's results `train.engine = "auto"` may go by, kept in the cache folder."""

from __future__ import annotations

from collections.abc import Mapping

from bench.variants import find
from toolkit.bench_results import Results
from toolkit.engines import ENGINES
from toolkit.engines.measured import Measured, kind_of, record, signature, store
from toolkit.models.shape import ModelShape
from toolkit.recipe.schema import Recipe


def keep(results: Results, recipes: Mapping[str, Recipe], shape: ModelShape) -> str:
    """Keep how fast each adapter arm trained, by the `recipes` that they were trained by; returns what to say of it.

    Nothing is kept unless every gate of the bench passed, nor of a CPU or where another card was imposed on this one:
    such figures are not this GPU's.
    """
    if not results.cuda:
        return ""
    if results.run["cap"] is not None:
        return f"not kept for train.engine = auto: profile {results.run['profile']} is imposed on another card"
    if failed := results.failed_gates():
        names = ", ".join(sorted({gate.variant for gate in failed}))
        return f"not kept for train.engine = auto: gates of {names} failed"
    kinds = measurements(results, recipes, shape)
    count = sum(map(len, kinds.values()))
    if not count:
        return ""
    warning = record(results.device, kinds)
    told = f"{count} arms kept for train.engine = auto in {store()}"
    return f"{warning}\n{told}" if warning else told


def measurements(results: Results, recipes: Mapping[str, Recipe], shape: ModelShape) -> dict[str, list[Measured]]:
    """Real tokens a second of each arm that trains an adapter as the product does, by kind of run."""
    found: dict[str, list[Measured]] = {}
    for name, arm in results.arms.items():
        speed = results.throughput(name)
        if arm.status != "measured" or arm.trained != "adapter" or arm.full_logits or not speed:
            continue
        if not find(name).usual:
            continue
        recipe = recipes[name]
        train = recipe.train
        row = Measured(
            date=results.run["date"],
            card=results.run["card_rates"]["title"],
            arm=name,
            engine=arm.engine,
            model=results.run["model"],
            shape=signature(shape),
            lengths=results.run["shape"],
            chats=recipe.chats_per_update,
            batch=train.per_device_train_batch_size,
            micro_batch=train.micro_batch,
            gradient_checkpointing=train.gradient_checkpointing,
            lora_dropout=recipe.lora.lora_dropout,
            products=ENGINES[arm.engine].products(recipe),
            tokens_per_second=round(speed, 1),
            versions=results.run["versions"],
        )
        found.setdefault(kind_of(recipe, arm.precision), []).append(row)
    return found

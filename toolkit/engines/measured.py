"""What `toolkit bench` measured on the GPUs of this machine, and which engine that makes the fastest.

measured.json in the cache folder: GPU's name -> kind of run, as "16-bit bf16" -> the latest of each arm. Nothing is
shipped in it: a figure counts only on the card that it was measured on, and with the library versions it was measured
with.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Mapping
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Annotated

from pydantic import AfterValidator, BaseModel, ConfigDict, Field, TypeAdapter, ValidationError

from toolkit.cache import cache_root
from toolkit.engines.base import Choice, Has, is_installed
from toolkit.engines.choice import choose_engine
from toolkit.engines.precision import choose_precision, weight_dtype
from toolkit.engines.registry import ENGINES, versions
from toolkit.files import write_text
from toolkit.hardware import Hardware
from toolkit.models.families import find_shape
from toolkit.models.shape import ModelShape
from toolkit.recipe.schema import Recipe

WORTH_SAYING = 1.02  # times as fast, what is advised
OTHER_NUMBERS = ("float8",)  # train.products that round differently: never advised for speed alone


def _known(engine: str) -> str:
    if engine not in ENGINES:
        raise ValueError(f"no engine {engine}")
    return engine


class Measured(BaseModel):
    """One arm of a bench whose gates all passed: what was trained how, and real (unpadded) tokens a second.

    `card` is the planner's title of the GPU, `shape` the model's sizes, `lengths` real or ROWSxTOKENS. `chats` an
    update, `batch` of them a micro-batch where `micro_batch` is fixed. The other names are the recipe's.
    """

    model_config = ConfigDict(frozen=True, strict=True, extra="ignore", allow_inf_nan=False)

    date: str
    card: str
    arm: str
    engine: Annotated[str, AfterValidator(_known)]
    model: str
    shape: str
    lengths: str
    chats: int
    batch: int
    micro_batch: int | str
    gradient_checkpointing: bool | str
    lora_dropout: float
    products: str
    tokens_per_second: float = Field(gt=0)
    versions: dict[str, str]

    @property
    def packed(self) -> bool:
        return self.micro_batch != "fixed"

    @property
    def workload(self) -> tuple[str, str, int]:
        """What was trained on: figures for other models or lengths are not compared with this one."""
        return self.shape, self.lengths, self.chats

    @property
    def way(self) -> tuple[object, ...]:
        """Everything but the engine that a recipe sets and speed depends on."""
        batch = None if self.packed else self.batch
        return self.micro_batch, batch, self.gradient_checkpointing, self.lora_dropout > 0

    @property
    def what(self) -> Measured:
        """The same without the figure: of two that are equal in this, the later one counts."""
        return self.model_copy(update={"date": "", "tokens_per_second": 1.0})

    def is_of(self, installed: Mapping[str, str]) -> bool:
        """Whether it was measured with these versions."""
        return all(self.versions.get(name) == installed.get(name) for name in ENGINES[self.engine].timed_with)


Rows = dict[str, dict[str, list[Measured]]]
_FILE = TypeAdapter(Rows)


@dataclass(frozen=True, slots=True)
class Store:
    """What measured.json holds; `problem` says why it could not be read."""

    rows: Rows = field(default_factory=dict)
    problem: str = ""

    def on(self, gpu: str, kind: str) -> list[Measured]:
        """Of a GPU by its own name or by the planner's title of the card."""
        return [row for name, kinds in self.rows.items() for row in kinds.get(kind, ()) if gpu in (name, row.card)]


def store() -> Path:
    return cache_root() / "measured.json"


def load() -> Store:
    """The measurements that are kept; none, and what is wrong, where the file can't be read."""
    path = store()
    try:
        return Store(_FILE.validate_json(path.read_bytes()))
    except FileNotFoundError:
        return Store()
    except OSError as error:
        why = error.strerror or str(error)
    except ValidationError as error:
        first = error.errors()[0]
        why = ": ".join([".".join(map(str, first["loc"])), first["msg"]] if first["loc"] else [first["msg"]])
    return Store(problem=f"{path} can't be used, so what was measured is not: {why}. Delete it, and bench again")


def record(gpu: str, kinds: Mapping[str, Iterable[Measured]]) -> str:
    """Add measurements of a GPU, each in place of an earlier one of the same. Returns a warning, or an empty string.

    A file that can't be read is kept beside the new one.
    """
    before = load()
    path = store()
    warning = ""
    if before.problem:
        aside = path.with_suffix(".unreadable.json")
        path.replace(aside)
        warning = f"{path} could not be read and was begun anew; what was in it is in {aside}"
    rows: Rows = {name: dict(kinds) for name, kinds in before.rows.items()}
    mine = rows.setdefault(gpu, {})
    for kind, found in kinds.items():
        for row in found:
            mine[kind] = [*(old for old in mine.get(kind, ()) if old.what != row.what), row]
    write_text(path, _FILE.dump_json(rows, indent=1).decode() + "\n")
    return warning


def kind_of(recipe: Recipe, precision: str) -> str:
    """How base weights are held and products are made, as "16-bit bf16" or "4-bit fp16": these are never compared."""
    held = "4-bit" if recipe.model.load_in_4bit else "16-bit"
    if held == "16-bit" and weight_dtype(recipe, precision) == "float32":
        held = "32-bit"
    return f"{held} {precision}"


def signature(shape: ModelShape) -> str:
    """A model's sizes in a line: models of one signature train alike fast."""
    return (
        f"{shape.model_type}: {shape.num_hidden_layers} layers of {shape.hidden_size}, MLP {shape.intermediate_size}, "
        f"heads {shape.num_attention_heads}/{shape.num_key_value_heads} of {shape.head_dim}, "
        f"{shape.vocab_size} tokens"
    )


def fastest_engine(recipe: Recipe, hardware: Hardware, kept: Store, has: Has = is_installed) -> Choice:
    """The engine as `choose_engine` has it, and for `auto` the fastest where several were measured on this GPU.

    Only engines that were measured alike are compared: the same model, lengths, micro-batches, checkpointing and, yes
    or no, dropout. Of several such comparisons the one nearest to the recipe counts; its micro-batches are packed only
    where the recipe's are. The choice's `note` says what would be faster with another setting, or what is wrong with
    the file. Raises `EngineError` as `choose_engine` does.
    """
    usual = choose_engine(recipe, hardware, has)
    if recipe.train.engine != "auto" or hardware.gpu is None:
        return usual
    kind = kind_of(recipe, choose_precision(recipe, hardware).value)
    every = kept.on(hardware.gpu.name, kind)
    if not every:
        return replace(usual, note=kept.problem)
    installed, able = versions(), _able(recipe, hardware, has)
    told = _left_out([row for row in every if not row.is_of(installed)])
    rows = [row for row in every if row.is_of(installed) and row.engine in able]
    rows.sort(key=_nearness_to(recipe), reverse=True)
    nearest = _comparison([row for row in rows if not ENGINES[row.engine].can_run(recipe, hardware, has)], recipe)
    if not nearest:
        return replace(usual, reason=usual.reason + _one_alone(rows, recipe) + told, note=_faster(rows, recipe, None))
    first, *others = sorted(nearest, key=lambda row: -row.tokens_per_second)
    others_told = ", ".join(f"{row.engine} {row.tokens_per_second:,.0f}" for row in others)
    reason = (
        f"the fastest measured on {hardware.gpu.name} for {kind}: {first.tokens_per_second:,.0f} real tokens/s on "
        f"{first.date[:10]}, {others_told} ({first.model}, {first.lengths} lengths, {first.arm}){told}"
    )
    return Choice(first.engine, reason, note=_faster(rows, recipe, first))


def _able(recipe: Recipe, hardware: Hardware, has: Has) -> set[str]:
    """Engines that this machine can run, with other settings perhaps; none where what is asked was not measured."""
    if recipe.lora.bias != "none" or recipe.lora.use_dora or recipe.train.gradient_checkpointing == "unsloth":
        return set()
    return {name for name, engine in ENGINES.items() if not list(engine.lacks(hardware, has))}


def _nearness_to(recipe: Recipe) -> Callable[[Measured], tuple[bool | str, ...]]:
    """A key that is greater for what is nearer: the same model first, then settings, real lengths, the latest."""
    shape, train = find_shape(recipe.model), recipe.train
    mine = signature(shape) if shape is not None else ""

    def nearness(row: Measured) -> tuple[bool | str, ...]:
        return (
            row.shape == mine,
            row.gradient_checkpointing == train.gradient_checkpointing,
            (row.lora_dropout > 0) == (recipe.lora.lora_dropout > 0),
            row.micro_batch == train.micro_batch and (row.packed or row.batch == train.per_device_train_batch_size),
            row.lengths == "real",
            row.chats == recipe.chats_per_update,
            row.date,
        )

    return nearness


def _in_mode(rows: Iterable[Measured], recipe: Recipe) -> list[Measured]:
    packed = recipe.train.micro_batch != "fixed"
    return [row for row in rows if row.packed == packed and row.products == ENGINES[row.engine].products(recipe)]


def _comparison(rows: list[Measured], recipe: Recipe) -> list[Measured]:
    """A row an engine, measured alike, for the nearest way that several engines were measured in; rows are nearest
    first."""
    mine = _in_mode(rows, recipe)
    for row in mine:
        alike = [other for other in mine if (other.workload, other.way) == (row.workload, row.way)]
        latest = {other.engine: other for other in reversed(alike)}
        if len(latest) > 1:
            return list(latest.values())
    return []


def _one_alone(rows: list[Measured], recipe: Recipe) -> str:
    engines = sorted({row.engine for row in _in_mode(rows, recipe)})
    if not engines:
        return ""
    return f"; {' and '.join(engines)} measured here, but not beside another engine with the same settings"


def _left_out(rows: list[Measured]) -> str:
    if not rows:
        return ""
    named = {(name, row.versions.get(name)) for row in rows for name in ENGINES[row.engine].timed_with}
    found = sorted(f"{name} {version}" for name, version in named if version is not None)
    return f"; {len(rows)} measured with other versions ({', '.join(found)}) left out"


def _faster(rows: list[Measured], recipe: Recipe, taken: Measured | None) -> str:
    """What would be faster, where the fastest arm on the nearest workload packs and the recipe does not, or does with
    other products; float8's, which train on other numbers, are never advised for speed."""
    dropout = recipe.lora.lora_dropout > 0
    rows = [row for row in rows if (row.lora_dropout > 0) == dropout and row.products not in OTHER_NUMBERS]
    packs = recipe.train.micro_batch != "fixed"
    if not rows or (packs and taken is None):
        return ""
    workload = taken.workload if taken is not None else rows[0].workload
    best = max((row for row in rows if row.workload == workload), key=lambda row: row.tokens_per_second, default=None)
    if best is None or not best.packed:
        return ""
    if taken is not None and best.tokens_per_second < WORTH_SAYING * taken.tokens_per_second:
        return ""
    wanted: dict[str, object] = {} if packs else {"micro_batch": best.micro_batch}
    wanted["engine"] = best.engine
    if best.gradient_checkpointing != recipe.train.gradient_checkpointing:
        wanted["gradient_checkpointing"] = best.gradient_checkpointing
    if best.products != ENGINES[best.engine].products(recipe):
        wanted["products"] = best.products
    words = " ".join(f"--set train.{key}={str(value).lower()}" for key, value in wanted.items())
    against = f", against {taken.tokens_per_second:,.0f}" if taken is not None else ""
    return (
        f"faster here: {words}: {best.tokens_per_second:,.0f} real tokens/s on {best.date[:10]} ({best.arm}){against}"
    )

"""What an engine is: the one interface through which the rest of the toolkit asks for anything that depends on it.

An engine is a class in a module of its own and a line in `toolkit.engines.registry`. Its attributes and all methods but
`prepare` and `load` need neither torch nor a GPU, so that a plan, the doctor and a recipe's checks can ask it too.
"""

from __future__ import annotations

import importlib.util
from abc import ABC, abstractmethod
from collections.abc import Callable, Iterator
from contextlib import AbstractContextManager
from dataclasses import asdict, dataclass, field
from typing import TYPE_CHECKING, Any, ClassVar, Literal, NamedTuple, Protocol

from toolkit.engines.setup import Checkpointing, Products, Setup
from toolkit.hardware import Hardware
from toolkit.recipe.schema import Recipe

if TYPE_CHECKING:
    from pathlib import Path

    from transformers import PreTrainedTokenizerBase

    from toolkit.kernels.cuda_graphs import Recorder
    from toolkit.models.shape import ModelShape

FILLED = 64  # tokens that packed micro-batches are filled up to on a GPU, where an engine wants nothing else
Has = Callable[[str], bool]
"""Whether a package is there."""


def is_installed(package: str) -> bool:
    return importlib.util.find_spec(package) is not None


@dataclass(frozen=True, slots=True)
class Choice:
    """An automatic choice and why it was made. `note`: what the user should know beside it, as a faster setting."""

    value: str
    reason: str
    note: str = ""

    def __str__(self) -> str:
        return f"{self.value} ({self.reason})"


@dataclass(frozen=True, slots=True)
class Reason:
    """Why an engine can't train a recipe.

    `keys`: the recipe's keys that say so, the one to blame first. `message`: what is wrong and what was wanted, as it
    follows that key in an error. `why`: the same as a reason to take another engine. `needs`: what the machine would
    have to have, as "compute capability 7.0"; empty where a setting or a package mends it.
    """

    keys: tuple[tuple[str, ...], ...]
    message: str
    why: str = ""
    needs: str = ""

    def __str__(self) -> str:
        return f"{'.'.join(self.keys[0])}: {self.message}"


@dataclass(slots=True)
class EngineReport:
    """What an engine did. `patched` counts the layers whose forward the engine replaced, by part."""

    engine: Choice
    precision: Choice
    weights: str
    attention: str
    trainable: int
    total: int
    patched: dict[str, int] = field(default_factory=dict)
    expected_layers: int = 0
    versions: dict[str, str] = field(default_factory=dict)

    def as_dict(self) -> dict[str, Any]:
        return asdict(self)


class Multiple(Protocol):
    def __call__(self, tokens: int, *, recorded: bool) -> int: ...


@dataclass(frozen=True, slots=True)
class Packing:
    """How an engine takes packed micro-batches.

    `packed_inputs` turns a micro-batch of `toolkit.training.packing.pack` into what the base model's decoder takes,
    labels among it. `training` holds while a micro-batch goes forward and backward, `evaluating` while one only goes
    forward; both are handed the PEFT-wrapped model. `multiple`: what micro-batches are filled up to a multiple of, by
    the tokens of the largest and whether each length is recorded, as CUDA graphs are where no layer recomputes.
    `edges`: numbers of row edges are rounded up to a multiple of it. `known_lengths`: a new length costs more than
    filling.
    """

    packed_inputs: Callable[[dict[str, Any]], dict[str, Any]]
    training: Callable[[Any], AbstractContextManager[None]]
    evaluating: Callable[[Any], AbstractContextManager[None]]
    multiple: Multiple
    edges: int = 1
    known_lengths: bool = False


@dataclass(slots=True)
class Loaded:
    """A model with its adapter, ready for the trainer. `recorder`: what replays micro-batches, where an engine has one
    (`toolkit.kernels.cuda_graphs`)."""

    model: Any
    tokenizer: PreTrainedTokenizerBase
    report: EngineReport
    packing: Packing
    recorder: Recorder | None = None


class Passes(NamedTuple):
    """How often kernels between products move the features that go into and come out of a layer's linear modules:
    forward and backward, more for a layer that recomputes, more with LoRA dropout."""

    usual: float
    recomputed: float
    dropped: float


class Launch(NamedTuple):
    """Host seconds to launch a layer's kernels forward and backward, and once more where it recomputes; how many times
    as many there are over 4-bit weights."""

    usual: float
    recomputed: float
    four_bit: float


class Engine(ABC):
    """A way to load a model with its adapter and to run its layers.

    `name`: as `train.engine` has it. `distributions`: packages whose versions decide what comes out of it;
    `timed_with`: those of them that decide how fast it is. `automatic`: the greater, the earlier `train.engine =
    "auto"` takes it where nothing was measured; 0: never. `gpu`: whether it needs one, is made for one or runs
    anywhere. `packs_only`: it takes no padded chats. `patches`: it replaces layers' functions and reports how many.
    `compiles`: a new length of micro-batch costs time when it first comes. `whole_head`: over padded chats its head
    runs over every token. `recomputes_later`: its layers can be told to recompute while they train. `holds_scores`: its
    attention is SDPA's, which holds all scores where it finds no flash
    attention.

    `launch`, `launch_tokens` and `passes` are fitted to updates measured on an H200 (docs/benchmarks). A micro-batch
    costs as much as `launch_tokens` tokens before it has any; a slower card works on fewer meanwhile.
    """

    name: ClassVar[str]
    distributions: ClassVar[tuple[str, ...]]
    timed_with: ClassVar[tuple[str, ...]]
    automatic: ClassVar[int] = 0
    gpu: ClassVar[Literal["any", "made for", "needed"]] = "any"
    packs_only: ClassVar[bool] = False
    patches: ClassVar[bool] = False
    compiles: ClassVar[bool] = False
    whole_head: ClassVar[bool] = False
    holds_scores: ClassVar[bool] = False
    recomputes_later: ClassVar[bool] = True
    launch: ClassVar[Launch]
    launch_tokens: ClassVar[int] = 4096

    def can_run(self, recipe: Recipe, hardware: Hardware, has: Has = is_installed) -> list[Reason]:
        """Why it can't train `recipe` on `hardware` with the packages there are; empty where it can."""
        return [*self.lacks(hardware, has), *self.refuses(recipe)]

    def lacks(self, hardware: Hardware, has: Has = is_installed) -> Iterator[Reason]:
        """What the machine lacks for it, whatever the recipe."""
        return iter(())

    def refuses(self, recipe: Recipe) -> Iterator[Reason]:
        """What in a recipe it can't train, on any machine."""
        return iter(())

    def reserves(self, recipe: Recipe) -> Iterator[Reason]:
        """What in a recipe that asks for another engine, or for none, is this one's alone."""
        return iter(())

    def advantage(self, hardware: Hardware) -> str:
        """Why `auto` takes it."""
        return "it runs everywhere"

    def fast_path(self, recipe: Recipe, shape: ModelShape) -> Choice:
        """Whether fused LoRA functions take the layers ("on" or "off"), and how many."""
        return Choice("off", "only the unsloth engine has one")

    def checkpointing(self, recipe: Recipe) -> Checkpointing:
        """What `train.gradient_checkpointing` comes to; "on" too where "auto" has yet to say for how many layers."""
        return "on" if recipe.train.gradient_checkpointing else "off"

    def products(self, recipe: Recipe) -> Products:
        """How it multiplies a recipe's frozen weights and adapters (`train.products`)."""
        return "separate"

    def records(self, recipe: Recipe) -> bool:
        """Whether, on a GPU, it records each length's kernels as CUDA graphs where no layer recomputes."""
        return False

    def multiple(self, tokens: int, *, cuda: bool, dynamic: bool, recorded: bool) -> int:
        """What packed micro-batches of at most `tokens` are filled up to a multiple of."""
        return FILLED if cuda else 1

    @abstractmethod
    def passes(self, setup: Setup) -> Passes:
        """What its kernels between products move."""

    @abstractmethod
    def layer_activations(self, setup: Setup) -> float:
        """Bytes that one layer keeps for its backward pass, for each token; the mean where layers are not alike."""

    def largest_layer(self, setup: Setup) -> float:
        """The same of the layer that keeps most."""
        return self.layer_activations(setup)

    def backward_transient(self, setup: Setup) -> float:
        """Bytes of gradients in flight while one layer runs backward, for each token."""
        return setup.element * (3 * setup.shape.intermediate_size + 2 * setup.shape.hidden_size)

    @abstractmethod
    def loss_transient(self, setup: Setup, tokens: int, trained: int) -> float:
        """Bytes of logits that exist at one time over padded chats on a GPU, of whose `tokens` so many have a label."""

    def prepare(self) -> None:  # noqa: B027  (most have nothing to do)
        """What has to be done before anything that it changes is imported. Raises `EngineError` where it can't be."""

    @abstractmethod
    def load(
        self, recipe: Recipe, folder: Path, tokenizer: Any, engine: Choice, precision: Choice, hardware: Hardware
    ) -> Loaded:
        """Load the model of `folder` and put a fresh adapter on it.

        `engine` and `precision` are what was chosen, for the report. Raises `EngineError` for a setting that can't work
        here and `ModelError` for weights that don't load.
        """

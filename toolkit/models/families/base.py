"""What the toolkit knows of a family of models: one class a family, one file a class.

All of it follows from a model's config.json, or is plain data; nothing here loads a model. How a chat template writes
tools and calls, and which runtimes read those, is read off the template itself (`toolkit.data.markup`,
`toolkit.export.runtime_parsers`), as a family's models come with several; `Family.call_format` is what its own are held
to by tests/families.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from typing import TYPE_CHECKING, Any, TypeVar

from toolkit.errors import ModelError
from toolkit.models.shape import ATTENTION, MLP, Layer, ModelShape

if TYPE_CHECKING:
    from gguf import GGUFWriter
    from torch import Tensor

Config = Mapping[str, Any]  # of a config.json
RopeFactors = Mapping[str, tuple[float, ...]]
SLIDING = "sliding_attention"


@dataclass(frozen=True, slots=True)
class PreTokenizer:
    """One of llama.cpp's pre-tokenizers, by its `name` there, and the tokenizer.json that splits text as it does.

    `steps`: the pre_tokenizer of a tokenizer.json as (type, what decides) of each part in turn: Split's regular
    expression, whether ByteLevel splits by GPT-2's expression, whether Digits stand alone. `normalizers` that may stand
    before it, None being no normalizer.
    """

    name: str
    steps: tuple[tuple[str, Any], ...]
    normalizers: tuple[str | None, ...] = (None,)
    ignore_merges: bool = False


@dataclass(frozen=True, slots=True)
class Part:
    """A tensor of a GGUF: rows of one weight, from `start` to `stop`, as `Family.to_gguf` orders them.

    `float32`: held so, as vectors are and whatever llama.cpp does not multiply as a matrix.
    """

    name: str
    shape: tuple[int, ...]
    start: int = 0
    stop: int | None = None
    float32: bool = False

    @property
    def wide(self) -> bool:
        return self.float32 or len(self.shape) == 1

    @property
    def rows(self) -> slice:
        return slice(self.start, self.stop)


class Family:
    """A dense decoder with gated MLP, as transformers' Llama is; a family says where it differs."""

    model_type: str
    """In config.json."""
    whole_types: tuple[str, ...] = ()
    """Types of models with more than text whose text part, by the `text_config` of their config.json, may be one of the
    family: it is loaded alone (`toolkit.models.loading`)."""
    text_defaults: Config = {}  # noqa: RUF012
    """What such a `text_config` may leave out, as transformers has it then."""
    class_name: str | None = None
    """transformers' class; None: models of this family are planned and trained, but not exported."""

    # modules
    biased: tuple[str, ...] = ()
    """Linear layers that have a bias in every model of the family."""
    attention_bias: tuple[str, ...] = ATTENTION
    """Linear layers to which `attention_bias` of config.json gives one."""
    qk_norm = False
    """Queries and keys pass a norm of head_dim weights each."""
    tied_by_default = False
    """`tie_word_embeddings` where config.json does not say."""
    logits_divisor: str | None = None
    """The key of config.json that says what the head's products are divided by to be logits."""
    same_input: Mapping[str, tuple[tuple[str, ...], ...]] = {
        "self_attn": (ATTENTION[:3], ATTENTION[3:]),
        "mlp": (MLP[:2], MLP[2:]),
    }
    """Linear layers that a decoder layer calls one after the other with one input, by the part that holds them: what
    the compiled engine runs as one product."""

    row_functions: Mapping[str, tuple[str, ...]] = {}
    """Of each kind of layers that has a state, the functions of transformers' module that carry it from token to token:
    what has to be closed where chats are packed."""
    not_compiled = ""
    """Why the compiled engine does not take its layers, in words; empty where it does."""

    windowed = False
    """`sliding_window` of config.json holds for every layer where it has no `layer_types`."""
    usual_window: int | None = None
    """Where config.json has no `sliding_window`."""
    norm_eps = "rms_norm_eps"
    """The key of config.json for what its norms add to a variance."""
    activation = ("hidden_act", "silu")
    """The key of config.json that names the activation, and the one that llama.cpp computes."""

    fused_by_unsloth = False
    """Unsloth has functions of its own for this family's layers, with the adapters in them."""

    # export
    gguf_arch: str
    """GGUF's general.architecture, as `gguf.MODEL_ARCH_NAMES` has it."""
    pre_tokenizers: tuple[PreTokenizer, ...] = ()
    """That the family's tokenizers bring along; a tokenizer is told by its content, and may be another family's."""
    call_format: str | None = None
    """How the family's newest models are taught to write calls: a form of `toolkit.data.call_forms`, hermes or llama;
    None where they are not."""

    def takes(self, config: Config) -> bool:
        """Whether a model with this config.json is one of the family, not only of its model_type."""
        return True

    def known(self) -> dict[ModelShape, tuple[str, ...]]:
        """Sizes of well-known models, which need no config.json at hand, and their names on the hub or elsewhere."""
        return {}

    def sizes(
        self,
        hidden: int,
        ffn: int,
        layers: int,
        heads: int,
        kv_heads: int,
        vocab: int,
        *,
        tied: bool,
        head_dim: int | None = None,
    ) -> ModelShape:
        """The shape of a known model."""
        shape = ModelShape(
            self.model_type, hidden, ffn, layers, heads, kv_heads, head_dim or hidden // heads, vocab, tied,
            biased=self.biased, qk_norm=self.qk_norm,
        )  # fmt: skip
        return replace(shape, layers=self.layers(shape, {}))

    def shape(self, config: Config, where: str) -> ModelShape:
        """The shape that a config.json describes. Raises `ModelError` for a size that is missing or is none."""
        hidden = size_of(config, ("hidden_size",), where)
        heads = size_of(config, ("num_attention_heads",), where)
        biased = self.biased or (self.attention_bias if config.get("attention_bias") else ())
        shape = ModelShape(
            model_type=self.model_type,
            hidden_size=hidden,
            intermediate_size=size_of(config, ("intermediate_size",), where),
            num_hidden_layers=size_of(config, ("num_hidden_layers",), where),
            num_attention_heads=heads,
            num_key_value_heads=find_size(config, ("num_key_value_heads",), where) or heads,
            head_dim=find_size(config, ("head_dim",), where) or max(1, hidden // heads),
            vocab_size=size_of(config, ("vocab_size",), where),
            tie_word_embeddings=bool(config.get("tie_word_embeddings", self.tied_by_default)),
            biased=(*biased, *(MLP if config.get("mlp_bias") else ())),
            qk_norm=self.qk_norm,
        )
        return replace(shape, layers=self.layers(shape, config), outer=self.outer(shape))

    def outer(self, shape: ModelShape) -> tuple[tuple[str, tuple[int, ...]], ...]:
        """`ModelShape.outer`, where it is more than a last norm of the usual name."""
        return ()

    def layers(self, shape: ModelShape, config: Config) -> tuple[Layer, ...]:
        """`ModelShape.layers`, where they are not as Llama's. `config` is empty for known sizes."""
        return ()

    def not_packed(self, config: Config, longest: int) -> str | None:
        """Why chats of up to `longest` tokens can't be packed in one row, in words; None where they can.

        Attention, with and without a window, is closed at the edges of chats by `toolkit.kernels.packed_attention`, and
        what `row_functions` has by `toolkit.kernels.row_states`.
        """
        kinds = set(self.kinds(config)) - {"full_attention", SLIDING, *self.row_functions}
        return f"it has {', '.join(sorted(kinds))} layers" if kinds else None

    def more_to_close(self, config: Config, longest: int) -> str | None:
        """What packed rows of chats of up to `longest` tokens need closed other than attention to all of a chat, in
        words: what an engine whose own layers do it may not know. None where there is nothing."""
        if states := sorted(set(self.kinds(config)) & set(self.row_functions)):
            return f"its {', '.join(states)} layers have a state that they would carry from chat to chat"
        window = self.window(config)
        if window is not None and longest > window:
            return f"its tokens see a window of {window:,}, and chats may have {longest:,}"
        return None

    def replaced(self, config: Config) -> set[str]:
        """The functions of `row_functions` that a model's layers have."""
        kinds = set(self.kinds(config))
        return {name for kind, names in self.row_functions.items() if kind in kinds for name in names}

    def kinds(self, config: Config) -> Sequence[str]:
        """Of each layer, as `layer_types` of config.json has them."""
        return config.get("layer_types") or ()

    def window(self, config: Config) -> int | None:
        """How many tokens, itself among them, a token sees in the layers that do not see all; None: all do."""
        window: int | None = config.get("sliding_window", self.usual_window)
        return window if self.windowed or SLIDING in self.kinds(config) else None

    def check_export(self, config: Config, shape: ModelShape, where: str) -> None:
        """Raise `ModelError` where llama.cpp would compute something else than transformers."""
        key, wanted = self.activation
        if (activation := config.get(key, wanted)) != wanted:
            raise ModelError(f"{where}: {key} {activation} can't be exported, wanted {wanted}")
        if config.get("use_sliding_window"):
            raise ModelError(
                f"{where}: use_sliding_window = true can't be exported; llama.cpp would attend to all tokens"
            )

    def refuse_window(self, config: Config, where: str) -> None:
        """For `check_export` of a family that llama.cpp runs without a window: one that its text can outgrow."""
        window, context = self.window(config), config.get("max_position_embeddings", 0)
        if window is not None and window < context:
            raise ModelError(
                f"{where}: sliding_window = {window:,} below max_position_embeddings = {context:,} can't be exported; "
                "llama.cpp would attend to all tokens"
            )

    def rope(self, config: Config, shape: ModelShape, where: str) -> tuple[float, RopeFactors]:
        """The base frequency, and the tensors of a GGUF that say by what each pair of dimensions' frequency is divided.

        Raises `ModelError` for a scaling that can't be exported.
        """
        rope = rope_parameters(config)
        kind = rope_type(rope)
        if kind != "default":
            raise ModelError(f"{where}: rope type {kind} can't be exported, wanted default (or llama3 for a Llama)")
        return float(rope["rope_theta"]), {}

    def kv_heads(self, shape: ModelShape) -> int | list[int]:
        """Heads of keys and values, as a GGUF has them: of all layers, or of each."""
        return shape.num_key_value_heads

    def gguf_parts(self, shape: ModelShape) -> dict[str, tuple[Part, ...]]:
        """What a GGUF has of each weight, by transformers' name of it."""
        sizes = shape.weights()
        return {name: (_whole(short, sizes[name]),) for name, short in self.gguf_names(shape).items()}

    def gguf_names(self, shape: ModelShape) -> dict[str, str]:
        """llama.cpp's name of every weight, by transformers' name."""
        import gguf  # with numpy and more, which planning does without

        arch = next(arch for arch, name in gguf.MODEL_ARCH_NAMES.items() if name == self.gguf_arch)
        names = gguf.get_tensor_name_map(arch, shape.num_hidden_layers)
        parts = (name.rpartition(".") for name in shape.weights())
        return {f"{module}.{kind}": f"{names[module]}.{kind}" for module, _, kind in parts}

    def add_metadata(self, writer: GGUFWriter, shape: ModelShape, config: Config) -> None:
        """Add the keys that not every family's GGUF has."""

    def to_gguf(self, name: str, weight: Tensor, shape: ModelShape, config: Config) -> Tensor:
        """A weight, a bias or a LoRA B as llama.cpp orders its rows. `name` is transformers' name of the weight."""
        return weight

    def columns_to_gguf(self, name: str, weight: Tensor, shape: ModelShape, config: Config) -> Tensor:
        """A matrix or a LoRA A as llama.cpp orders its columns."""
        return weight

    def from_gguf(self, name: str, weight: Tensor, shape: ModelShape, config: Config) -> Tensor:
        """The inverse of both."""
        return weight


def _whole(name: str, size: tuple[int, ...]) -> Part:
    """A weight in one part. Of a convolution of each channel by itself, [channels, 1, taps], a GGUF has two axes."""
    return Part(name, (size[0], size[2]), float32=True) if len(size) == 3 else Part(name, size)


FAMILIES: dict[str, Family] = {}
"""Every family, by its model_type."""
Registered = TypeVar("Registered", bound=type[Family])


def register(family: Registered) -> Registered:
    FAMILIES[family.model_type] = family()
    return family


def rope_parameters(config: Config) -> Config:
    """transformers 5 writes rope_parameters, older ones two keys. `rope_theta` is there in any case."""
    two = {"rope_theta": config.get("rope_theta", 10_000.0), **(config.get("rope_scaling") or {})}
    return {"rope_theta": 10_000.0, **(config.get("rope_parameters") or two)}


def add_yarn(writer: GGUFWriter, rope: Config) -> None:
    """The keys of a rope that is stretched by YaRN (Peng et al. 2023), as llama.cpp wants them."""
    import gguf

    writer.add_rope_scaling_type(gguf.RopeScalingType.YARN)
    writer.add_rope_scaling_factor(rope["factor"])
    writer.add_rope_scaling_orig_ctx_len(rope["original_max_position_embeddings"])
    if rope.get("beta_fast") is not None:
        writer.add_rope_scaling_yarn_beta_fast(rope["beta_fast"])
    if rope.get("beta_slow") is not None:
        writer.add_rope_scaling_yarn_beta_slow(rope["beta_slow"])


def rope_type(rope: Config) -> str:
    return str(rope.get("rope_type", rope.get("type", "default")))


def size_of(config: Config, keys: Sequence[str], where: str) -> int:
    """A size that config.json says under one of `keys`: a whole number of at least 1."""
    found = find_size(config, keys, where)
    if found is None:
        raise ModelError(f"{where}: {' or '.join(keys)} is missing")
    return found


def find_size(config: Config, keys: Sequence[str], where: str) -> int | None:
    """The same, or None where config.json has none of `keys`, or null."""
    key = next((key for key in keys if config.get(key) is not None), None)
    if key is None:
        return None
    value = config[key]
    if isinstance(value, bool) or not isinstance(value, (int, float)) or value != value or value < 1 or value % 1:
        raise ModelError(f"{where}: {key} = {str(value)[:40]}, wanted a whole number of at least 1")
    return int(value)

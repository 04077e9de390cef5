"""What two settings say together: contradictions, and words whose list is longer than a type should hold.

Every rule judges values only, never whether a key was written or left at its default: a recipe and its resolved copy,
which spells out every key, must be judged alike.
"""

from __future__ import annotations

import re
from collections.abc import Callable, Iterable, Iterator

from toolkit.chats import BUILTIN, KINDS, TEST_SET
from toolkit.errors import did_you_mean, meant
from toolkit.models.families import find_shape
from toolkit.recipe.schema import Recipe, SourceSection

Path = tuple[str | int, ...]
Finding = tuple[tuple[Path, ...], str]
"""The keys that disagree, the one to blame first, and what is wrong with them."""
Rule = Callable[[Recipe], Iterable[Finding]]

GGUF_QUANTS = ("f16", "bf16", "q8_0", "q6_k", "q5_k_m", "q4_k_m")
HUB_ONLY = ("config", "revision", "commit")
BUILTIN_ONLY = ("size", "seed", "domains", "kinds", "max_tools", "decisions", "rationales", "purposes")
VARIED_ONLY = ("decisions", "rationales", "purposes")  # for training chats over all domains
HEAD_NAMES = ("lm_head", "embed_tokens")


def contradictions(recipe: Recipe, rules: Iterable[Rule] = ()) -> Iterator[Finding]:
    """All of a recipe's contradictions; an empty iterator when there is none. `rules`: those of layers above this one,
    as what an engine refuses."""
    for check in (*rules, *CHECKS):
        yield from check(recipe)


def _precision(recipe: Recipe) -> Iterator[Finding]:
    train, dtype = recipe.train, recipe.model.dtype
    fp16, bf16, held = ("train", "fp16"), ("train", "bf16"), ("model", "dtype")
    if train.fp16 and train.bf16 is True:
        yield (fp16, bf16), "fp16 and bf16 are both true, wanted at most one of them"
    elif train.fp16 and dtype == "bfloat16":
        yield (fp16, held), 'true, but model.dtype is "bfloat16": wanted fp16 = false, or model.dtype = "float16"'
    elif train.bf16 is True and dtype == "float16":
        yield (bf16, held), 'true, but model.dtype is "float16": wanted bf16 = false, or model.dtype = "bfloat16"'
    if recipe.model.load_in_4bit and dtype == "float32":
        message = (
            'true, but model.dtype is "float32": weights are held in 4 bits or in 32, not both; wanted dtype = "auto"'
        )
        yield (("model", "load_in_4bit"), held), message


def _checkpointing(recipe: Recipe) -> Iterator[Finding]:
    if recipe.train.gradient_checkpointing == "auto" and recipe.train.micro_batch == "fixed":
        message = '"auto" goes with packed micro-batches; wanted true or false, or micro_batch = "auto"'
        yield (("train", "gradient_checkpointing"), ("train", "micro_batch")), message


def _filling(recipe: Recipe) -> Iterator[Finding]:
    train = recipe.train
    if train.pad_to_multiple_of is not None and train.pad_to_multiple_of > train.max_length:
        message = (
            f"{train.pad_to_multiple_of} fills micro-batches up with more than a row of train.max_length = "
            f"{train.max_length} can have; wanted at most that"
        )
        yield (("train", "pad_to_multiple_of"), ("train", "max_length")), message


def _products(recipe: Recipe) -> Iterator[Finding]:
    asked, lora = recipe.train.products, recipe.lora
    key = ("train", "products")
    if asked in ("auto", "separate"):
        return
    if lora.bias != "none" or lora.use_dora:
        named = ("lora", "bias" if lora.bias != "none" else "use_dora")
        yield (key, named), f'"{asked}" takes adapters without biases and DoRA; wanted "separate"'
    if asked == "float8" and recipe.model.load_in_4bit:
        message = '"float8" is for weights in 16 bits, and these are in 4; wanted "separate", or load_in_4bit = false'
        yield (key, ("model", "load_in_4bit")), message


def _modules(recipe: Recipe) -> Iterator[Finding]:
    targets = recipe.lora.target_modules
    key = ("lora", "target_modules")
    if isinstance(targets, str):
        if targets != "all-linear" and re.fullmatch(r"all.?linears?", targets, re.IGNORECASE):
            yield (key,), f'"{targets}" would be read as a pattern, did you mean all-linear?'
        else:
            try:
                re.compile(targets)
            except re.error as error:
                yield (key,), f'"{targets}" is neither all-linear nor a regular expression ({error})'
    elif not targets:
        yield (key,), 'an empty list trains nothing, wanted "all-linear" or names as ["q_proj", "v_proj"]'
    named = {
        ("lora", "modules_to_save"): recipe.lora.modules_to_save,
        key: [targets] if isinstance(targets, str) else targets,
    }
    shape = find_shape(recipe.model)
    if shape is None or not shape.tie_word_embeddings:
        return
    for path, modules in named.items():
        for module in modules:
            if module.rpartition(".")[2] in HEAD_NAMES:
                message = (
                    f"{recipe.model.name} has tied embeddings: lm_head and embed_tokens are one tensor there "
                    f"and can't be trained apart; leave {module} out"
                )
                yield (path, ("model", "name")), message


def _schedule(recipe: Recipe) -> Iterator[Finding]:
    train = recipe.train
    if train.lr_scheduler_type == "constant" and train.warmup_ratio > 0:
        message = (
            f'"constant" has no warm-up, but warmup_ratio is {train.warmup_ratio:g}; '
            'wanted warmup_ratio = 0, or "constant_with_warmup"'
        )
        yield (("train", "lr_scheduler_type"), ("train", "warmup_ratio")), message
    if train.max_steps == 0:
        yield (("train", "max_steps"),), "0 updates train nothing, wanted -1 (num_train_epochs decides) or at least 1"
    if train.fitted_steps is not None and train.max_minutes is None:
        message = "a number that was fitted to max_minutes, which is not set; wanted max_steps, or max_minutes too"
        yield (("train", "fitted_steps"), ("train", "max_minutes")), message


def _evaluation(recipe: Recipe) -> Iterator[Finding]:
    settings = recipe.eval
    holdout, sources = ("eval", "holdout"), ("eval", "sources")
    if isinstance(settings.holdout, float) and settings.holdout >= 1:
        message = f"found {settings.holdout:g}, wanted a fraction below 1.0 or a whole number of chats"
        yield (holdout,), message
    if not settings.holdout and not settings.sources:
        asked = {"early_stopping_patience": settings.early_stopping_patience, "generate": settings.generate}
        if wanting := {key: value for key, value in asked.items() if value}:
            told = " and ".join(f"eval.{key} = {value}" for key, value in wanting.items())
            need = "needs" if len(wanting) == 1 else "need"
            way = [f"eval.{key} = 0" for key in wanting] + ['eval.best = "auto"'] * (settings.best == "calls")
            message = (
                f"0 and no [[eval.sources]] leave no held-out chats, but {told} {need} some: "
                f"set {' and '.join(way)} too"
            )
            yield (holdout, sources, *(("eval", key) for key in wanting)), message
    for index, source in enumerate(settings.sources):
        if source.weight > 1:  # one answer would be counted as several, and the intervals be too narrow
            message = f"found {source.weight:g}, wanted at most 1: a held-out chat is measured once"
            yield (("eval", "sources", index, "weight"),), message
    if settings.best == "calls":
        best = ("eval", "best")
        for key, found, why in (
            ("generate", settings.generate, "measures no calls, wanted a number of held-out chats, as 64"),
            ("generate_steps", settings.generate_steps, 'measures none between, wanted "eval"'),
            ("early_stopping_patience", settings.early_stopping_patience, "keeps the last adapter, wanted 1 or more"),
        ):
            if not found:
                yield (("eval", key), best), f'0 {why}: eval.best is "calls"'
    if settings.max_new_tokens >= recipe.train.max_length:
        message = (
            f"{settings.max_new_tokens} leaves no room for the prompt in train.max_length = {recipe.train.max_length}"
        )
        yield (("eval", "max_new_tokens"), ("train", "max_length")), message


def _sources(recipe: Recipe) -> Iterator[Finding]:
    for section, sources in (("data", recipe.data.sources), ("eval", recipe.eval.sources)):
        for index, source in enumerate(sources):
            yield from _source((section, "sources", index), source)


def _source(path: Path, source: SourceSection) -> Iterator[Finding]:
    if source.source == TEST_SET:
        yield (
            ((*path, "source"),),
            f'"{TEST_SET}" is for final figures only, nothing may be trained or chosen on it; '
            f'wanted "{BUILTIN}", and then toolkit eval RUN --data {TEST_SET}',
        )
        return
    if not source.builtin:
        for key in BUILTIN_ONLY:
            if getattr(source, key) != SourceSection.model_fields[key].get_default(call_default_factory=True):
                yield ((*path, key), (*path, "source")), f'only for source = "builtin:tools", not for "{source.source}"'
    elif key := next((name for name in HUB_ONLY if getattr(source, name) is not None), ""):
        yield ((*path, key), (*path, "source")), f'of a data set of the hub; "{source.source}" has none'
    elif source.domains or source.split != "train" or any(getattr(source, key) for key in VARIED_ONLY):
        yield from _builtin(path, source)
    yield from _columns(path, source)
    known = [kind for kind in KINDS if kind != "other"]
    for kind, share in source.kinds.items():
        if kind not in known:
            near = did_you_mean(kind, known) or f", wanted one of {', '.join(known)}"
            yield ((*path, "kinds", kind),), f"unknown kind{near}"
        if share < 0:
            yield ((*path, "kinds", kind),), f"found {share:g}, wanted a share of at least 0"
    if source.kinds and not any(share > 0 for share in source.kinds.values()):
        yield ((*path, "kinds"),), "all shares are 0, wanted at least one above 0"


def _columns(path: Path, source: SourceSection) -> Iterator[Finding]:
    named = [name for name, column in source.columns.model_dump().items() if column is not None]
    if not named:
        return
    key = (*path, "columns")
    if source.builtin:
        yield (key, (*path, "source")), f'"{source.source}" has no columns; they are for files and data sets'
    if "messages" in named and ("user" in named or "assistant" in named):
        yield ((*key, "messages"),), "given beside user or assistant, wanted either messages, or user and assistant"
    elif "messages" not in named and not {"user", "assistant"} <= set(named):
        wanted = 'wanted messages = "...", or user = "..." and assistant = "..."'
        yield (key,), f"found {', '.join(named)}; {wanted}"
    turns = ("auto", "messages", "sharegpt", "hermes", "toolace")
    if source.format not in (turns if "messages" in named else ("auto",)):
        yield ((*path, "format"), key), f'"{source.format}" has its own columns; wanted "auto", or no columns'


def _builtin(path: Path, source: SourceSection) -> Iterator[Finding]:
    # a few milliseconds to import, so only for the recipes that ask
    from toolkit.world.catalog import DOMAINS, ONLY_VARIED, SPLITS, is_varied, too_much

    if source.split not in SPLITS:
        near = did_you_mean(source.split, SPLITS) or f", wanted one of {', '.join(SPLITS)}"
        yield ((*path, "split"),), f'the built-in chats have no split "{source.split}"{near}'
    for index, domain in enumerate(source.domains):
        if domain not in DOMAINS:
            near = did_you_mean(domain, DOMAINS) or f", wanted one of {', '.join(DOMAINS)}"
            yield ((*path, "domains", index),), f'the built-in chats have no domain "{domain}"{near}'
    if not is_varied(source.split, source.domains, source.max_tools):
        named = "split" if source.split != "train" else "domains" if source.domains else "max_tools"
        for key in VARIED_ONLY:
            if getattr(source, key):
                yield ((*path, key), (*path, named)), ONLY_VARIED
    elif both := too_much(source.decisions, source.purposes):
        yield ((*path, "decisions"), (*path, "purposes")), both


def _export(recipe: Recipe) -> Iterator[Finding]:
    for index, quant in enumerate(recipe.export.gguf):
        if quant not in GGUF_QUANTS:
            yield (("export", "gguf", index),), no_quant(quant)


def no_quant(name: str) -> str:
    """What to say of a GGUF type that can't be written, with the nearest that can."""
    bits = re.match(r"i?q\d", name.lower())  # which say more of a type than the rest of its name
    same = next((other for other in GGUF_QUANTS if bits and other.startswith(bits[0].lstrip("i"))), "")
    near = meant(same) or did_you_mean(name.lower(), GGUF_QUANTS, alike=0.5)
    return f"{name} is no GGUF type that can be written, wanted one of {', '.join(GGUF_QUANTS)}{near}"


CHECKS: tuple[Rule, ...] = (
    _precision,
    _products,
    _checkpointing,
    _filling,
    _modules,
    _schedule,
    _evaluation,
    _sources,
    _export,
)

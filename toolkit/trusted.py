"""Model and adapter folders come from outside: looked at before a library reads them, and read in one way only.

Nothing in a folder is ever run: what names code of its own is refused. Weights are read from safetensors and from
nothing that can run code when it is read; no index and no link leads out of the folder. Every `from_pretrained` of the
package is here, or is Unsloth's and comes after the same look.
"""

from __future__ import annotations

import contextlib
import pickle
import re
from collections.abc import Iterable, Iterator, Mapping
from pathlib import Path
from typing import Any

from toolkit import jsons
from toolkit.errors import ModelError, RunError, first_line
from toolkit.machine import is_short

CONFIGS = (
    "config.json",
    "tokenizer_config.json",
    "generation_config.json",
    "processor_config.json",
    "preprocessor_config.json",
    "adapter_config.json",
)
WEIGHTS, INDEX = "model.safetensors", "model.safetensors.index.json"
ADAPTER_CONFIG, ADAPTER_WEIGHTS = "adapter_config.json", "adapter_model.safetensors"
LONGEST_CONFIG = 64 * 2**20  # bytes
MISTRAL_SPLIT = "fix_mistral_regex"  # transformers' option that replaces a tokenizer's own pattern
TEXT_PART = "text_config"  # where a model of more than text describes its language model
# Keys that name Python code that comes with a model. An adapter's auto_mapping is none: it names the class of the base
# model (Unsloth writes it in every adapter), which nothing here imports by it.
_CODE = ("auto_map", "custom_pipelines", "megatron_config")
_PICKLES = ("*.bin", "*.pt", "*.pth", "*.pkl", "*.pickle", "*.ckpt", "*.msgpack", "*.h5")
# Sizes by their names in config.json, and the largest that a model has to have.
_LARGEST = {
    **dict.fromkeys(("num_hidden_layers", "n_layer", "num_layers", "n_layers"), 2_000),
    **dict.fromkeys(("num_attention_heads", "n_head", "num_key_value_heads", "head_dim"), 100_000),
    **dict.fromkeys(("hidden_size", "n_embd", "intermediate_size", "d_model"), 1_000_000),
    "vocab_size": 10_000_000,
    "max_position_embeddings": 1_000_000_000,
}
_ANY = ("max_position_embeddings",)  # may say that there is no end


def check_folder(folder: Path, *, weights: bool = False) -> None:
    """Raise `ModelError` for a model folder that is not to be read, with the file and what is wrong in it.

    `weights`: look at what the weights would be read from too.
    """
    for name in CONFIGS:
        path = folder / name
        if path.is_file():
            if name == ADAPTER_CONFIG and weights:
                raise ModelError(
                    f"{path}: this folder holds an adapter, which would be put on another model unasked; "
                    "wanted a folder with a model alone"
                )
            config = read_config(path)
            _refuse_code(path, config)
            if name == "config.json":
                _refuse_sizes(path, config)
    if weights:
        _check_weights(folder)


def check_adapter(folder: Path) -> dict[str, Any]:
    """The adapter_config.json of an adapter folder. Raises `RunError` for none, `ModelError` for one not to be read."""
    path = folder / ADAPTER_CONFIG
    if not path.is_file():
        raise RunError(f"{folder}: not an adapter folder (no {ADAPTER_CONFIG} in it)")
    config = read_config(path)
    _refuse_code(path, config)
    file = folder / ADAPTER_WEIGHTS
    if not file.is_file():
        raise RunError(f"{folder}: no {ADAPTER_WEIGHTS} here{instead(folder)}")
    _refuse_link(folder, file)
    return config


def read_config(path: Path) -> dict[str, Any]:
    """A JSON object from a file of a model folder. Raises `ModelError`."""
    try:
        size = path.stat().st_size
        if size > LONGEST_CONFIG:
            raise ModelError(f"{path}: {size / 2**20:,.0f} MiB; at most {LONGEST_CONFIG // 2**20} MiB are read")
        value = jsons.loads(path.read_text(encoding="utf-8"))
    except ModelError:
        raise
    except (OSError, ValueError) as error:
        if is_short(error):
            raise
        reason = error.strerror if isinstance(error, OSError) else error
        raise ModelError(f"{path}: is not readable JSON ({reason})") from None
    if not isinstance(value, dict):
        raise ModelError(f"{path}: wanted a JSON object")
    return value


def load_model(folder: Path | str, **options: Any) -> Any:
    """`AutoModelForCausalLM.from_pretrained` of a folder that was looked at: safetensors only, no code of its own."""
    check_folder(Path(folder), weights=True)
    # here and below: transformers and PEFT take seconds to import, and Unsloth has to come before them
    from transformers import AutoModelForCausalLM

    with config_told(Path(folder)):
        return AutoModelForCausalLM.from_pretrained(
            str(folder), local_files_only=True, trust_remote_code=False, use_safetensors=True, **options
        )


def load_config(folder: Path | str) -> Any:
    """`AutoConfig.from_pretrained` of a folder that was looked at."""
    check_folder(Path(folder))
    from transformers import AutoConfig

    with config_told(Path(folder)):
        return AutoConfig.from_pretrained(str(folder), local_files_only=True, trust_remote_code=False)


def load_auto_tokenizer(folder: Path | str) -> Any:
    """`AutoTokenizer.from_pretrained` of a folder that was looked at.

    Text is split as tokenizer.json says, which is what exports and llama.cpp go by. transformers offers to split it as
    newer Mistral models do, and says so of every large vocabulary whose config.json names no version of transformers:
    only a folder that asks for that itself has it.
    """
    folder = Path(folder)
    check_folder(folder)
    from transformers import AutoTokenizer

    path = folder / "tokenizer_config.json"
    asked = path.is_file() and MISTRAL_SPLIT in read_config(path)
    own = {} if asked else {MISTRAL_SPLIT: False}
    with config_told(folder):
        return AutoTokenizer.from_pretrained(str(folder), local_files_only=True, trust_remote_code=False, **own)


@contextlib.contextmanager
def config_told(folder: Path) -> Iterator[None]:
    """Hold while transformers reads a folder: `ModelError` with the file and the key for a value in config.json that it
    refuses, whatever it was reading it for."""
    try:
        yield
    except Exception as error:
        # its own checks, which it has for each key and for all of them together; no module of its own names the errors
        checked = type(error).__name__.startswith("StrictDataclass")
        if not checked and not (isinstance(error, AttributeError) and "module 'torch'" in str(error)):
            raise
        last = str(error).strip().splitlines()[-1].strip()
        told = re.sub(r"^\w+Error: ", "", last).partition(". Errors: ")[0] if checked else f"dtype: {last}"
        raise ModelError(f"{folder / 'config.json'}: {told}") from error


def load_adapter(model: Any, folder: Path | str, **options: Any) -> Any:
    """`PeftModel.from_pretrained` of an adapter folder that was looked at."""
    check_adapter(Path(folder))
    from peft import PeftModel

    return PeftModel.from_pretrained(model, str(folder), local_files_only=True, **options)


@contextlib.contextmanager
def only_numbers(checkpoint: Path | None) -> Iterator[None]:
    """Hold while a checkpoint's optimizer, schedule and random state are read. transformers reads these pickles as
    tensors and numbers only; `RunError` for one that holds anything else, or is broken."""
    try:
        yield
    except pickle.UnpicklingError as error:
        what = first_line(error)[:120]
        raise RunError(
            f"{checkpoint}: its optimizer, schedule or random state can't be read as numbers alone, and nothing else "
            f"in it is ever run ({what}); remove this checkpoint to go on from the one before"
        ) from None


def _refuse_code(path: Path, config: Mapping[str, Any]) -> None:
    todo: list[tuple[Any, int]] = [(config, 1)]
    while todo:
        value, depth = todo.pop()
        if depth > jsons.DEEPEST:
            raise ModelError(f"{path}: {jsons.TOO_DEEP}")
        if isinstance(value, dict):
            for key in _CODE:
                if value.get(key):
                    raise ModelError(
                        f"{path}: {key} names Python code that comes with the model ({_named(value[key])}); such code "
                        "is never run: take a model whose architecture and tokenizer transformers has itself"
                    )
            todo += [(inner, depth + 1) for inner in value.values()]
        elif isinstance(value, list):
            todo += [(inner, depth + 1) for inner in value]


def _named(value: Any) -> str:
    names = list(value.values()) if isinstance(value, dict) else value if isinstance(value, list) else [value]
    flat = [inner for name in names for inner in (name if isinstance(name, list) else [name]) if inner]
    text = ", ".join(map(str, flat[:3]))
    return text if len(text) <= 80 else text[:77] + "..."


def _refuse_sizes(path: Path, config: Mapping[str, Any]) -> None:
    for part in (config, *(value for value in config.values() if isinstance(value, dict))):
        least = 1 if part in (config, config.get(TEXT_PART)) else -1  # of what is not text nothing is used
        for key, most in _LARGEST.items():
            value = part.get(key)
            if value is None or isinstance(value, list):  # of each layer
                continue
            if isinstance(value, bool) or not isinstance(value, (int, float)) or value != value or value % 1:
                raise ModelError(f"{path}: {key} = {str(value)[:20]!r}, wanted a whole number of at least 1")
            if not (least if key not in _ANY else -1) <= value <= most:
                raise ModelError(f"{path}: {key} = {str(value)[:20]}, wanted a number from 1 to {most:,}")
    named = config.get("transformers_weights")
    if named is not None and not _is_plain(named):
        raise ModelError(f"{path}: transformers_weights = {str(named)[:80]!r}, wanted a safetensors file in the folder")


def _check_weights(folder: Path) -> None:
    files = sorted(file for file in folder.glob("*.safetensors") if file.is_file())
    for file in files:
        _refuse_link(folder, file)
    index = folder / INDEX
    if index.is_file():
        _refuse_link(folder, index)
        shards = read_config(index).get("weight_map")
        if not isinstance(shards, dict) or not shards:
            raise ModelError(f"{index}: wanted a weight_map with the file of each weight")
        for name in _distinct(shards.values()):
            if not _is_plain(name):
                raise ModelError(
                    f"{index}: leads to {str(name)[:80]!r}; wanted the name of a safetensors file in the folder"
                )
            if not (folder / name).is_file():
                raise ModelError(f"{index}: {name} is not there; fetch the model again")
    elif not (folder / WEIGHTS).is_file():
        raise ModelError(f"model.name: {folder} lacks {WEIGHTS}{instead(folder)}")


def _distinct(names: Iterable[Any]) -> list[Any]:
    return list({repr(name): name for name in names}.values())


def _is_plain(name: Any) -> bool:
    return isinstance(name, str) and name.endswith(".safetensors") and not set(name) & set("/\\:\0")


def instead(folder: Path) -> str:
    """What there is that is not read, in words."""
    found = sorted(file.name for pattern in _PICKLES for file in folder.glob(pattern))
    if not found:
        return ""
    return f"; {found[0]} is not read: such files run code when they are read, only safetensors are taken"


def _refuse_link(folder: Path, file: Path) -> None:
    """Refuse a file that stands elsewhere. The hub's cache keeps files in blobs/ beside its snapshots/."""
    home, real = folder.resolve(), file.resolve()
    store = home.parent.parent / "blobs" if home.parent.name == "snapshots" else home
    if not (real.is_relative_to(home) or real.is_relative_to(store)):
        raise ModelError(f"{file}: is a link out of the folder, to {real}; copy the file there")

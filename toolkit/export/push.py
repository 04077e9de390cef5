"""`toolkit push`: a run's adapter, its exported files and a card, to a model repository in one commit."""

from __future__ import annotations

import json
import re
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from toolkit import hub, jsons
from toolkit.cache import remembered_sha256
from toolkit.errors import InputError, RunError, did_you_mean
from toolkit.export.hub_card import Pushed, hub_card, manifest
from toolkit.exports import ExportFolder, ExportRecord
from toolkit.hashes import sha256_of_text
from toolkit.models import WHEEL_MODELS, is_local, license_of
from toolkit.progress import without_bars
from toolkit.recipe.schema import Recipe
from toolkit.records import read_object
from toolkit.runs import RunFolder, check_adapter, recipe_of
from toolkit.trusted import ADAPTER_CONFIG, ADAPTER_WEIGHTS
from toolkit.words import counted, typed

PARTS = ("adapter", "gguf", "merged")
MANIFEST, CARD = "toolkit.json", "README.md"
_ADAPTER_FILES = (ADAPTER_CONFIG, ADAPTER_WEIGHTS, "chat_template.jinja", "tokenizer.json", "tokenizer_config.json")
_OF_THE_HUB = {".gitattributes", ".gitignore"}
_REPO = re.compile(r"[\w.-]+/[\w.-]+")
_MOST_NAMED = 5

Content = dict[str, Path | bytes]
"""What a repository gets: files of this machine, or bytes, by their paths in it."""


@dataclass(frozen=True, slots=True)
class Options:
    """Of `toolkit push`; `base`: the hub's id of the model that was trained, where the recipe names a folder."""

    repo: str
    only: Sequence[str] = PARTS
    base: str | None = None
    public: bool = False
    force: bool = False


def push(folder: Path, options: Options) -> Iterator[str]:
    """Push, and yield the lines to show. Raises `InputError` and `RunError` before anything is sent, and `RunError`
    with what became of the repository where the hub fails."""
    _check(options)
    run = RunFolder.open(folder)
    recipe = recipe_of(run)
    if not run.summary.is_file():
        raise RunError(f"{folder}: the run is not finished; go on with it: {run.resuming}")
    check_adapter(run.adapter, run.mended)
    content, record = _content(run, options)
    base, note = _base(recipe, options.base)
    content[ADAPTER_CONFIG] = _config(run, base)
    pushed = Pushed(
        repo=options.repo,
        name=run.path.resolve().name,
        base=base,
        base_note=note,
        license=record.base.license if record is not None else license_of(recipe.model.name),
        recipe=recipe,
        summary=read_object(run.summary),
        record=record,
        files=[(path, *_measured(one)) for path, one in content.items()],
    )
    content[CARD] = hub_card(pushed).encode()
    content[MANIFEST] = manifest(pushed).encode()
    yield from _send(options, content)


def _check(options: Options) -> None:
    if not _REPO.fullmatch(options.repo):
        raise InputError(f"{options.repo}: wanted a model repository of the hub, as YOUR-NAME/MODEL")
    for part in options.only:
        if part not in PARTS:
            raise InputError(f"--only {part}: wanted some of {', '.join(PARTS)}{did_you_mean(part, PARTS)}")
    from huggingface_hub import get_token

    if not get_token():
        raise InputError(f"no token for the hub here: log in by {hub.LOGIN}, with one that may write")


def _content(run: RunFolder, options: Options) -> tuple[Content, ExportRecord | None]:
    """The files that are there of what is asked for; all of them whole."""
    found: Content = {}
    if "adapter" in options.only:
        found |= {name: run.adapter / name for name in _ADAPTER_FILES if (run.adapter / name).is_file()}
    export = ExportFolder(run.export)
    wanted = [part for part in options.only if part != "adapter"]
    if not wanted or not export.record_path.is_file():
        if not found:
            raise RunError(f"{run.path}: no export in it; make one: {typed('export', run.path, '--gguf', 'q8_0')}")
        return found, None
    record = export.record()
    if record.status == "failed":
        raise RunError(
            f"{export.path}: its files are not the trained model (see {export.failed}), so they are not pushed; "
            "--only adapter pushes the adapter"
        )
    for one in record.files:
        if one.kind == "lora" or one.kind not in wanted:
            continue
        file = export.path / one.name
        if not file.is_file() or remembered_sha256(file) != one.sha256:
            raise RunError(f"{file}: is not as it was exported; {typed('export', run.path, '--force')}")
        found[one.name] = file
    if any(path.endswith(".gguf") for path in found) and export.modelfile.is_file():
        found["Modelfile"] = export.modelfile
    if any(path.startswith("merged/") for path in found):
        files = (file for file in sorted(export.merged.iterdir()) if file.is_file())
        found |= {f"merged/{file.name}": file for file in files}
        for name, digest in record.beside.items():
            if name in found and remembered_sha256(path := export.path / name) != digest:
                raise RunError(f"{path}: is not as it was exported; {typed('export', run.path, '--force')}")
    return found, record


def _base(recipe: Recipe, asked: str | None) -> tuple[str, str]:
    """(the base model's id on the hub, what else there is to say of it). A path of this machine is never sent."""
    name = recipe.model.name
    if asked is not None:
        if not _REPO.fullmatch(asked):
            raise InputError(f"--base {asked}: wanted a model's id on the hub, as Qwen/Qwen3-1.7B")
        return asked, ""
    if name in WHEEL_MODELS:
        return WHEEL_MODELS[name].hub_id, f", over its weights as {name} has them (4-bit, unpacked)"
    if is_local(name) or not _REPO.fullmatch(name):
        raise InputError(f"model.name: {name} is a folder here; --base NAME says which model of the hub it is")
    return name, ""


def _config(run: RunFolder, base: str) -> bytes:
    """adapter_config.json with the base model by its id on the hub."""
    config = {**read_object(run.adapter / ADAPTER_CONFIG), "base_model_name_or_path": base}
    return (json.dumps(config, indent=2) + "\n").encode()


def _measured(one: Path | bytes) -> tuple[int, str]:
    """Bytes and SHA-256."""
    if isinstance(one, bytes):
        return len(one), sha256_of_text(one.decode())
    return one.stat().st_size, remembered_sha256(one)


def _send(options: Options, content: Content) -> Iterator[str]:
    """One commit: a hub that goes away on the way leaves the repository as it was."""
    from huggingface_hub import CommitOperationAdd, CommitOperationDelete, HfApi, constants

    api, repo = HfApi(endpoint=constants.ENDPOINT), options.repo
    began = False
    try:
        made = api.create_repo(repo, private=not options.public, exist_ok=True)
        info = api.repo_info(repo)
        there = {one.rfilename for one in info.siblings or ()} - _OF_THE_HUB
        ours = _earlier(api, repo, there)
        if (others := sorted(there - ours)) and not options.force:
            more = f" and {len(others) - _MOST_NAMED:,} more" if len(others) > _MOST_NAMED else ""
            raise RunError(
                f"{repo}: exists and holds other files ({', '.join(others[:_MOST_NAMED])}{more}); --force adds to them "
                "and writes over those of the same name, and another name makes a new one"
            )
        size = sum(_measured(one)[0] for one in content.values())
        yield f"pushing    {counted(len(content), 'file')}, {size / 1e6:,.1f} MB, to {made}"
        adds = [CommitOperationAdd(path, one if isinstance(one, bytes) else str(one)) for path, one in content.items()]
        gone = [CommitOperationDelete(path) for path in sorted((ours & there) - content.keys())]
        began = True
        with without_bars():
            done = api.create_commit(
                repo, [*adds, *gone], commit_message="toolkit push", parent_commit=info.sha, num_threads=2
            )
        wrong = _different(api, repo, done.oid, content)
    except RunError:
        raise
    except hub.errors() as error:
        state = "nothing was committed that was not whole" if began else "nothing was sent"
        raise RunError(f"{repo}: {hub.reason(error).rstrip('.')}; {state}, and the same command goes on") from None
    if wrong:
        raise RunError(f"{repo}: the hub has {wrong} otherwise than it is here, in commit {done.oid[:12]}; push again")
    for path in (one.path_in_repo for one in gone):
        yield f"removed    {path}, of an earlier push (the commit before has it)"
    yield f"pushed     {made}, commit {done.oid[:12]}, {'public' if options.public else 'private where it is new'}"
    yield f"next       the card says how to use it: {made}"


def _earlier(api: Any, repo: str, there: set[str]) -> set[str]:
    """The files of an earlier push, as the repository's own toolkit.json says."""
    if MANIFEST not in there:
        return set()
    try:
        told = jsons.loads(Path(api.hf_hub_download(repo, MANIFEST)).read_text(encoding="utf-8"))
        return {*told["files"], MANIFEST, CARD}
    except (ValueError, KeyError, TypeError):  # not ours, or not any more
        return set()


def _different(api: Any, repo: str, commit: str, content: Content) -> str | None:
    """A file that the hub has otherwise than it is here."""
    for one in api.get_paths_info(repo, list(content), revision=commit):
        mine = content[one.path]
        if one.lfs is not None:
            same = one.lfs.sha256 == _measured(mine)[1]
        else:
            same = one.blob_id == (hub.git_hash_of(mine) if isinstance(mine, bytes) else hub.git_hash(mine))
        if not same:
            return str(one.path)
    return None

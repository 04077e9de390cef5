"""A run folder: what was asked, where it ran, what happened, what came out.

recipe.toml       as resolved, can be run again as it is
environment.json  versions, hardware, engine and why, hashes of data, template and token table
chat_template.jinja  what renders its chats, in training and after it
metrics.jsonl     one line an update or evaluation
checkpoints/      the trainer's own, for --resume
adapter/          PEFT's format
evaluation/       decoded held-out chats before and after, where the recipe asks for them
samples.json      a few chats token by token, with what is trained of them
tools.json        the tools that its chats had on offer, the most frequent first (`toolkit.data.seen`)
summary.json      the end
report.html       all of this as a page
"""

from __future__ import annotations

import fcntl
import hashlib
import json
import os
import platform
import re
import sys
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from importlib import metadata
from pathlib import Path
from typing import Any

from toolkit import __version__
from toolkit.cache import write_text as write_text
from toolkit.errors import Problem, RunError
from toolkit.recipe.schema import Recipe

PACKAGES = (
    "torch",
    "transformers",
    "trl",
    "peft",
    "accelerate",
    "datasets",
    "tokenizers",
    "bitsandbytes",
    "flash-attn-4",
    "unsloth",
    "unsloth_zoo",
    "xformers",
    "triton",
)
# Settings that may differ between a run and its resumption: they change what is shown or kept, not what is learned.
FREE_ON_RESUME = {
    "train": {
        "fitted_steps",
        "logging_steps",
        "save_steps",
        "save_total_limit",
        "report_to",
        "torch_threads",
        "max_skipped_steps",
    },
    "eval": {"generate", "generate_steps", "max_new_tokens", "generate_batch_size", "per_device_eval_batch_size"},
    "data": {"num_proc"},
}


def write_json(path: Path, value: Any) -> None:
    write_text(path, json.dumps(value, indent=2, ensure_ascii=False, default=str) + "\n")


def read_jsonl(path: Path) -> Iterator[dict[str, Any]]:
    """The rows of a JSON-lines file; a last line cut short by a crash is left out."""
    if not path.is_file():
        return
    for line in path.read_text(encoding="utf-8").splitlines():
        try:
            yield json.loads(line)
        except json.JSONDecodeError:
            return


def versions() -> dict[str, str]:
    """Installed versions of what decides a run's result."""
    found = {"toolkit": __version__, "python": platform.python_version()}
    for name in PACKAGES:
        try:
            found[name] = metadata.version(name)
        except metadata.PackageNotFoundError:
            continue
    return found


def default_folder(name: str, parent: Path = Path("runs")) -> Path:
    """runs/NAME, or runs/NAME-2 and so on where that is taken."""
    folder, number = parent / name, 2
    while folder.exists():
        folder, number = parent / f"{name}-{number}", number + 1
    return folder


@dataclass(frozen=True, slots=True)
class RunFolder:
    """Paths inside a run folder."""

    path: Path

    @property
    def recipe(self) -> Path:
        return self.path / "recipe.toml"

    @property
    def environment(self) -> Path:
        return self.path / "environment.json"

    @property
    def template(self) -> Path:
        return self.path / "chat_template.jinja"

    @property
    def metrics(self) -> Path:
        return self.path / "metrics.jsonl"

    @property
    def checkpoints(self) -> Path:
        return self.path / "checkpoints"

    @property
    def adapter(self) -> Path:
        return self.path / "adapter"

    @property
    def evaluation(self) -> Path:
        return self.path / "evaluation"

    @property
    def samples(self) -> Path:
        return self.path / "samples.json"

    @property
    def tools(self) -> Path:
        return self.path / "tools.json"

    @property
    def report(self) -> Path:
        return self.path / "report.html"

    @property
    def summary(self) -> Path:
        return self.path / "summary.json"

    @classmethod
    def require_free(cls, path: Path) -> None:
        """Raise `RunError` unless a run folder can be made at `path`: nothing there, its parent can be written."""
        if path.exists() and (not path.is_dir() or any(path.iterdir())):
            resumable = cls(path).recipe.is_file() and not cls(path).summary.is_file()
            advice = f", or go on with this run: --resume {path}" if resumable else ""
            raise RunError(f"{path}: exists already; name another with --out{advice}")
        above = path
        while not above.exists():
            above = above.parent
        if not above.is_dir():
            raise RunError(f"{path}: can't be made, {above} is a file; name another folder with --out")
        if not os.access(above, os.W_OK | os.X_OK):
            raise RunError(f"{path}: can't be made, {above} can't be written; name another folder with --out")

    @classmethod
    def create(cls, path: Path, recipe: str) -> RunFolder:
        """Make a new run folder that holds only recipe.toml. Raises `RunError` where something is there already.

        Of two processes that make the same folder, one gets it.
        """
        cls.require_free(path)
        run = cls(path)
        try:
            path.mkdir(parents=True, exist_ok=True)
            with run.recipe.open("x", encoding="utf-8") as file:
                file.write(recipe)
        except FileExistsError:
            raise RunError(f"{path}: another run took this folder a moment ago; name another with --out") from None
        except OSError as error:
            raise RunError(f"{path}: can't be made: {error.strerror}; name another folder with --out") from None
        return run

    @classmethod
    def open(cls, path: Path) -> RunFolder:
        """An existing run folder. Raises `RunError` where there is none."""
        run = cls(path)
        if not run.recipe.is_file():
            raise RunError(f"{path}: not a run folder (no recipe.toml in it)")
        return run

    @contextmanager
    def held(self) -> Iterator[None]:
        """Keep other processes from training in this folder. Raises `RunError` when one does already."""
        handle = os.open(self.path, os.O_RDONLY)
        try:
            try:
                fcntl.flock(handle, fcntl.LOCK_EX | fcntl.LOCK_NB)
            except BlockingIOError:
                raise RunError(f"{self.path}: another process is training in this folder") from None
            except OSError:
                pass  # a file system without locks
            yield
        finally:
            os.close(handle)

    def last_checkpoint(self) -> Path | None:
        """The newest complete checkpoint."""
        found = []
        for folder in self.checkpoints.glob("checkpoint-*"):
            number = re.fullmatch(r"checkpoint-(\d+)", folder.name)
            if number and (folder / "trainer_state.json").is_file():
                found.append((int(number[1]), folder))
        return max(found)[1] if found else None

    def cut_metrics(self, update: int) -> None:
        """Drop metrics past `update`: a resumed run writes them again."""
        rows = [row for row in read_jsonl(self.metrics) if row.get("update", 0) <= update]
        write_text(self.metrics, "".join(json.dumps(row) + "\n" for row in rows))


def differences(mine: Recipe, theirs: Recipe) -> list[tuple[str, Any, Any]]:
    """(key, value, other value) for every setting that decides what is learned and is not the same."""
    found = []
    ours, others = mine.model_dump(mode="json"), theirs.model_dump(mode="json")
    for section, values in ours.items():
        if section == "export":
            continue
        for key, value in values.items():
            if key not in FREE_ON_RESUME.get(section, ()) and value != others[section][key]:
                found.append((f"{section}.{key}", value, others[section][key]))
    return found


def check_same(recipe: Recipe, where: str, saved: Recipe, run: RunFolder) -> None:
    """Raise `RunError` when a checkpoint was made by another recipe, with every key that differs."""
    problems = [
        Problem(where, f"{key} = {value!r}, but {run.path} was trained with {other!r}")
        for key, value, other in differences(recipe, saved)
    ]
    if problems:
        again = f"toolkit run {run.recipe} --resume {run.path}"
        raise RunError([*problems, Problem("", f"a run is resumed with its own recipe: {again}")])


def sha256_of(path: Path) -> str:
    return hashlib.sha256(path.read_bytes()).hexdigest()


def command_line() -> str:
    """The command as the user typed it."""
    program = Path(sys.argv[0]).name
    return " ".join([program if program != "__main__.py" else "python -m toolkit", *sys.argv[1:]])

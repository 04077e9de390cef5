"""What each platform wants: its name for a card, the files it reads, the command that starts them, what an hour costs.

Checked against the tools' own parsers: docs/jobs.md says which versions.
"""

from __future__ import annotations

import json
import math
import os
import re
import shlex
from abc import ABC, abstractmethod
from collections.abc import Mapping
from pathlib import Path
from typing import ClassVar

from toolkit.errors import InputError, did_you_mean
from toolkit.jobs.job import JOB, PYTHON, RUNS, SOURCE, TOKEN, Job, Source
from toolkit.planning.cards import Card
from toolkit.words import counted


class Platform(ABC):
    """One place where jobs run."""

    name: ClassVar[str]
    title: ClassVar[str]
    longest: ClassVar[int | None] = None  # hours of a job
    takes_folder: ClassVar[bool] = True  # whether the toolkit's own folder can be taken along
    accelerators: ClassVar[Mapping[tuple[str, int], str]] = {}

    @abstractmethod
    def accelerator(self, card: Card, gpus: int) -> str:
        """What it calls so many of a card. Raises `InputError` where it has none."""

    def price(self, card: Card, gpus: int) -> float | None:
        """Dollars for an hour of the machine, where it is known."""
        return None

    @abstractmethod
    def runs(self, asked: str | None, repo: str | None) -> str:
        """Where checkpoints stay. Raises `InputError` where that has to be said."""

    @abstractmethod
    def files(self, job: Job) -> dict[str, str]:
        """Names and texts beside job.py, the recipe and its data."""

    @abstractmethod
    def commands(self, job: Job, folder: Path) -> list[str]:
        """What starts the job, the usual way first."""


_DATACENTER = {  # cards by the names that SkyPilot and Modal share
    "t4": "T4",
    "l4": "L4",
    "a10g": "A10G",
    "l40s": "L40S",
    "a100-80": "A100-80GB",
    "h100": "H100",
    "h200": "H200",
}


class HfJobs(Platform):
    """Hugging Face Jobs: `hf jobs uv run` with a PEP 723 script, its folder and a bucket mounted."""

    name = "hf-jobs"
    title = "Hugging Face Jobs"
    takes_folder = False  # a folder is mounted read-only, and building a package writes into it
    accelerators: ClassVar[Mapping[tuple[str, int], str]] = {
        ("t4", 1): "t4-small",
        **{("l4", number): f"l4x{number}" for number in (1, 4)},
        **{("l40s", number): f"l40sx{number}" for number in (1, 4, 8)},
        **{("a10g", number): f"a10g-{'small' if number == 1 else f'largex{number}'}" for number in (1, 2, 4)},
        **{("a100-80", number): "a100-large" if number == 1 else f"a100x{number}" for number in (1, 4, 8)},
        **{("h200", number): "h200" if number == 1 else f"h200x{number}" for number in (1, 2, 4, 8)},
    }
    prices: ClassVar[Mapping[str, float]] = {  # by the hub's documentation of Jobs, read in November 2026
        "t4-small": 0.40,
        "l4x1": 0.80,
        "l4x4": 3.80,
        "l40sx1": 1.80,
        "l40sx4": 8.30,
    }

    def accelerator(self, card: Card, gpus: int) -> str:
        found = self.accelerators.get((card.name, gpus))
        if found is None:
            known = ", ".join(f"{name} x {number}" if number > 1 else name for name, number in self.accelerators)
            what = f"{gpus} x {card.name}" if gpus > 1 else card.name
            raise InputError(f"--gpu: {self.title} has no machine with {what}; it has {known}")
        return found

    def price(self, card: Card, gpus: int) -> float | None:
        return self.prices.get(self.accelerator(card, gpus))

    def runs(self, asked: str | None, repo: str | None) -> str:
        if asked is None and repo is None:
            raise InputError(
                "--runs: wanted a bucket for checkpoints, as YOUR-NAME/toolkit-runs; the job's own disk goes with it"
            )
        bucket = (asked or f"{str(repo).partition('/')[0]}/toolkit-runs").removeprefix("hf://buckets/")
        if not re.fullmatch(r"[\w.-]+/[\w.-]+(/[\w./-]+)?", bucket):
            raise InputError(f"--runs {asked}: wanted a bucket on the hub, as YOUR-NAME/toolkit-runs")
        return bucket

    def files(self, job: Job) -> dict[str, str]:
        return {}

    def commands(self, job: Job, folder: Path) -> list[str]:
        words = ["hf", "jobs", "uv", "run", "--flavor", self.accelerator(job.card, job.gpus)]
        words += ["--timeout", f"{job.minutes}m", *(word for name in job.secrets for word in ("--secrets", name))]
        words += ["-v", f"{_local(folder)}:{JOB}:ro", "-v", f"hf://buckets/{job.runs}:{RUNS}", "--detach"]
        return [shlex.join([*words, f"{_local(folder)}/job.py", JOB, job.run])]


class SkyPilot(Platform):
    """SkyPilot: one YAML for `sky launch` and, on machines that may be taken away, `sky jobs launch`."""

    name = "skypilot"
    title = "SkyPilot"
    stores = ("s3", "gs", "r2", "cos", "oci", "nebius", "cw", "https")  # of buckets; https: Azure's
    accelerators: ClassVar[Mapping[tuple[str, int], str]] = {
        (name, 1): title
        for name, title in {
            **_DATACENTER,
            "a6000": "RTXA6000",
            "a100-40": "A100",
            "rtx3090": "RTX3090",
            "rtx4090": "RTX4090",
            "rtx5090": "RTX5090",
            "v100": "V100",
            "v100-32": "V100-32GB",
            "p100": "P100",
        }.items()
    }

    def accelerator(self, card: Card, gpus: int) -> str:
        return f"{_named(self, card)}:{gpus}"

    def runs(self, asked: str | None, repo: str | None) -> str:
        if asked is None:
            raise InputError(
                "--runs: wanted a bucket for checkpoints, as my-toolkit-runs, s3://NAME or gs://NAME; a machine that "
                "is taken away takes its disk along"
            )
        stores = "|".join(self.stores)
        if not re.fullmatch(rf"({stores})://[\w.][\w./-]*|[a-z0-9][a-z0-9.-]{{1,61}}[a-z0-9]", asked):
            near = did_you_mean(asked.partition("://")[0], self.stores) if "://" in asked else ""
            raise InputError(
                f"--runs {asked}: wanted a bucket's name, as my-toolkit-runs, s3://NAME or gs://NAME{near}"
            )
        return asked

    def files(self, job: Job) -> dict[str, str]:
        place = "source" if "://" in job.runs else "name"
        lines = [
            f"# Train {job.name}. By `toolkit launch`.",
            f"name: {json.dumps(_identifier(job.name))}",
            "resources:",
            f"  accelerators: {json.dumps(self.accelerator(job.card, job.gpus))}",
            "  autostop:",
            "    idle_minutes: 10",
            "    down: true",
            "file_mounts:",
            f"  {JOB}: .",
            f"  {RUNS}:",
            f"    {place}: {json.dumps(job.runs)}",
            "    mode: MOUNT_CACHED",
        ]
        if job.source.folder:
            lines.append(f"  {SOURCE}: {json.dumps(job.source.folder)}")
        if job.secrets:
            lines += ["secrets:", *(f"  {name}: null" for name in job.secrets)]
        command = shlex.join(["uv", "run", *job.command])
        lines += [
            "setup: |",
            "  pip install -q uv",
            "run: |",
            f"  timeout --signal=INT --kill-after=5m {job.minutes}m {command}",
        ]
        return {"sky.yaml": "\n".join(lines) + "\n"}

    def commands(self, job: Job, folder: Path) -> list[str]:
        secrets = [word for name in job.secrets for word in ("--secret", name)]
        before = f"cd {shlex.quote(str(folder))} && "
        managed = ["sky", "jobs", "launch", *secrets, "--use-spot", "sky.yaml"]
        return [before + shlex.join(["sky", "launch", *secrets, "sky.yaml"]), before + shlex.join(managed)]


class Modal(Platform):
    """Modal: an app with one function; its image is built once, its volume holds the runs."""

    name = "modal"
    title = "Modal"
    longest = 24
    accelerators: ClassVar[Mapping[tuple[str, int], str]] = {
        (name, 1): title for name, title in {**_DATACENTER, "a100-40": "A100-40GB"}.items()
    }

    def accelerator(self, card: Card, gpus: int) -> str:
        found, most = _named(self, card), 4 if card.name == "a10g" else 8
        if gpus > most:
            raise InputError(f"--gpus {gpus}: {self.title} has at most {most} of {card.name} in one machine")
        return found + (f":{gpus}" if gpus > 1 else "")

    def runs(self, asked: str | None, repo: str | None) -> str:
        volume = asked or "toolkit-runs"
        if not re.fullmatch(r"[\w.-]{1,64}", volume):
            raise InputError(f"--runs {volume}: wanted the name of a Modal volume: letters, digits, dots, - and _")
        return volume

    def files(self, job: Job) -> dict[str, str]:
        ignored = [".git", ".venv", "runs", "**/__pycache__"]
        folder = f'.add_local_dir({job.source.folder!r}, "{SOURCE}", copy=True, ignore={ignored!r})\n    '
        return {
            "constraints.txt": "".join(f"{line}\n" for line in job.constraints),
            "app.py": _MODAL.format(
                name=job.name,
                app=json.dumps(_identifier(f"toolkit-{job.name}")),
                python=PYTHON,
                folder=folder if job.source.folder else "",
                install=json.dumps(f"pip install -c /constraints.txt {shlex.quote(job.source.requirement)}"),
                volume=json.dumps(job.runs),
                secrets=", ".join(
                    f'modal.Secret.from_name("{_identifier(name).lower()}", required_keys=["{name}"])'
                    for name in job.secrets
                ),
                gpu=json.dumps(self.accelerator(job.card, job.gpus)),
                seconds=60 * job.minutes,
                job=JOB,
                runs=RUNS,
                command=", ".join(json.dumps(word) for word in job.command),
            ),
        }

    def commands(self, job: Job, folder: Path) -> list[str]:
        before = [f'modal secret create {_identifier(name).lower()} {name}="${name}"    # once' for name in job.secrets]
        return [shlex.join(["modal", "run", "--detach", f"{_local(folder)}/app.py"]), *before]


PLATFORMS: Mapping[str, Platform] = {one.name: one for one in (HfJobs(), SkyPilot(), Modal())}

_MODAL = '''\
"""Train {name} on Modal: modal run --detach app.py. By `toolkit launch`."""

import subprocess
import sys
from pathlib import Path

import modal

HERE = Path(__file__).parent
app = modal.App({app})
volume = modal.Volume.from_name({volume}, create_if_missing=True)
image = (
    modal.Image.debian_slim(python_version="{python}")
    .apt_install("git")
    .add_local_file(HERE / "constraints.txt", "/constraints.txt", copy=True)
    {folder}.run_commands({install})
    .add_local_dir(HERE, "{job}")
)


@app.function(image=image, gpu={gpu}, timeout={seconds}, volumes={{"{runs}": volume}}, secrets=[{secrets}])
def train():
    try:
        subprocess.run([sys.executable, {command}], check=True)
    finally:
        volume.commit()


@app.local_entrypoint()
def main():
    train.remote()
'''


def hours(minutes: int) -> str:
    """`90 minutes`, `3 h`."""
    return f"{minutes // 60} h" if minutes % 60 == 0 else counted(minutes, "minute")


def rounded(minutes: float) -> int:
    """Up to the next half hour."""
    return 30 * math.ceil(minutes / 30)


def _named(platform: Platform, card: Card) -> str:
    found = platform.accelerators.get((card.name, 1))
    if found is None:
        known = ", ".join(name for name, _ in platform.accelerators)
        raise InputError(f"--gpu {card.name}: {platform.title} has none; it has {known}")
    return found


def _identifier(name: str) -> str:
    """A name that every tool takes."""
    return re.sub(r"[^a-zA-Z0-9]+", "-", name).strip("-") or "run"


def _local(folder: Path) -> str:
    """A folder so that a tool does not take it for something on a hub."""
    text = os.fspath(folder)
    return text if folder.is_absolute() or text.startswith(".") else f"./{text}"


__all__ = ["PLATFORMS", "TOKEN", "Platform", "Source", "hours", "rounded"]

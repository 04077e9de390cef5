"""`toolkit doctor`: what this machine has, what it lacks, and the command that mends it."""

from __future__ import annotations

import importlib.util
import itertools
import os
import platform
import tomllib
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from importlib import metadata
from pathlib import Path
from typing import TYPE_CHECKING

from packaging.requirements import Requirement
from packaging.specifiers import SpecifierSet
from packaging.utils import canonicalize_name

from toolkit.cache import cache_root
from toolkit.engines.base import Engine
from toolkit.engines.registry import ENGINES
from toolkit.hardware import BF16_FLAGS, FLASH4, Gpu, Hardware, cpu_flags, cpu_name, usable_cores
from toolkit.machine import free_bytes
from toolkit.planning.cards import GIB, SeenGpu, seen_gpus
from toolkit.versions import installed
from toolkit.words import typed

if TYPE_CHECKING:
    from rich.console import Console

ROOT = Path(__file__).parents[1]
LEAST_DISK = 2 * GIB  # the quickstart's model, token table and run
LEAST_MEMORY = 3 * GIB
PIP = "python -m pip install"
FLASH4_PACKAGE = "flash-attn-4"
OPTIONAL = {  # extras, and what they are for
    "gguf": "export to q6_k, q5_k_m and q4_k_m (other types go without)",
    "serve": "answers from GGUF files: toolkit serve, chat and the comparison after an export",
}


@dataclass(frozen=True, slots=True)
class Torch:
    """What torch says of itself: the CUDA it was built for, the GPUs it can use, why it does not load."""

    cuda: str | None = None
    gpus: tuple[str, ...] = ()
    error: str = ""


@dataclass(frozen=True, slots=True)
class Facts:
    """All that was looked at; sizes in bytes. `tested` are the versions that the project's own tests run with.

    `extra`: what the engine for GPUs wants; `extras`: what other optional parts do, by their name.
    """

    python: str
    platform: str
    cpu: str
    cores: int
    cpu_flags: frozenset[str]
    memory: int
    disk: Mapping[str, int]
    gpus: Sequence[SeenGpu]
    installed: Mapping[str, str]
    required: Sequence[str]
    extra: Sequence[str]
    python_wanted: str
    torch: Torch | None = None
    extras: Mapping[str, Sequence[str]] = field(default_factory=dict)
    tested: Mapping[str, str] = field(default_factory=dict)


@dataclass(frozen=True, slots=True)
class Line:
    """One thing that was checked. `ok` is None where nothing depends on it."""

    name: str
    found: str
    ok: bool | None = None
    note: str = ""


@dataclass(frozen=True, slots=True)
class Report:
    """Lines by heading, and what is wrong with the command that mends it (empty where no command can)."""

    sections: Mapping[str, Sequence[Line]]
    problems: Sequence[tuple[str, str]]
    hints: Sequence[tuple[str, str]]

    @property
    def ok(self) -> bool:
        """Whether `toolkit run` can work here, with some engine."""
        return not self.problems

    def render(self, console: Console) -> None:
        signs = {True: ("ok ", "green"), False: ("no ", "red"), None: ("   ", None)}
        for title, lines in self.sections.items():
            console.print(title, style="bold")
            for line in lines:
                sign, style = signs[line.ok]
                console.print(f"  {sign}", style=style, end="")
                text = f"{line.name:<18} {line.found}" + (f"  ({line.note})" if line.note else "")
                console.print(text, soft_wrap=True)
        for title, items in (("missing", self.problems), ("would help", self.hints)):
            if items:
                console.print(title, style="bold")
            for what, command in items:
                console.print(f"  {what}", soft_wrap=True)
                if command:
                    console.print(f"    {command}", soft_wrap=True)
        console.print(f"{typed('run')} {'works here' if self.ok else 'does not work here yet'}")


def examine() -> Report:
    """Look at this machine. Imports torch if it is there, to ask what GPUs it can use."""
    return judge(_facts())


def judge(facts: Facts) -> Report:
    """What the facts mean."""
    packages, problems = _packages(facts)
    engines, hints = _engines(facts, works=not problems)
    optional, optional_hints = _optional(facts)
    machine = [
        Line("python", facts.python, _fits(facts.python, facts.python_wanted), f"wanted {facts.python_wanted}"),
        Line("platform", facts.platform),
        Line("processor", f"{facts.cpu}, {facts.cores} usable cores"),
        _bf16(facts),
        Line("memory", f"{facts.memory / GIB:.1f} GiB", facts.memory >= LEAST_MEMORY),
        *(Line(f"disk, {what}", f"{free / GIB:.1f} GiB free", free >= LEAST_DISK) for what, free in facts.disk.items()),
    ]
    if not machine[0].ok:
        problems.insert(0, (f"Python {facts.python} is not {facts.python_wanted}", "install a newer Python"))
    if facts.memory < LEAST_MEMORY:
        problems.append(
            (f"memory: {facts.memory / GIB:.1f} GiB, the quickstart needs {LEAST_MEMORY / GIB:.0f} GiB", "")
        )
    for what, free in facts.disk.items():
        if free < LEAST_DISK:
            advice = (
                "export TOOLKIT_CACHE=FOLDER on a larger disk" if what == "cache" else "--out FOLDER on a larger disk"
            )
            problems.append((f"disk, {what}: {free / GIB:.1f} GiB free, {LEAST_DISK / GIB:.0f} GiB are needed", advice))
    gpus = [_gpu(gpu) for gpu in facts.gpus] or [Line("GPU", "none found by nvidia-smi")]
    sections = {
        "machine": machine,
        "GPU": [*gpus, *_torch_line(facts)],
        "packages": packages,
        "engines": engines,
        **({"optional": optional} if optional else {}),
    }
    return Report(sections, problems, [*hints, *optional_hints])


def _optional(facts: Facts) -> tuple[list[Line], list[tuple[str, str]]]:
    """A line for each optional part, and the command that installs it where it is not here whole."""
    lines, hints = [], []
    for name, what in OPTIONAL.items():
        wanted = [Requirement(text) for text in facts.extras.get(name, ())]
        if not wanted:
            continue
        lacking = _lacking(wanted, facts)
        lines.append(Line(name, f"{'' if not lacking else 'not '}installed", None, what))
        if lacking:
            hints.append((f"{name}: {what}, needs {_named(lacking, facts)}", f"{PIP} {_quoted(lacking)}"))
    return lines, hints


def _lacking(wanted: Sequence[Requirement], facts: Facts) -> list[Requirement]:
    """Those that are not installed, or in a version that does not do."""
    return [
        one
        for one in wanted
        if (version := facts.installed.get(one.name)) is None or not _fits(version, str(one.specifier))
    ]


def _named(lacking: Sequence[Requirement], facts: Facts) -> str:
    return ", ".join(f"{one.name} ({facts.installed.get(one.name, 'not installed')})" for one in lacking)


def _bf16(facts: Facts) -> Line:
    have = [flag for flag in BF16_FLAGS if flag in facts.cpu_flags]
    return Line("bfloat16 on CPU", ", ".join(have) if have else "none", note="" if have else "training on it is fp32")


def _gpu(gpu: SeenGpu) -> Line:
    major, minor = gpu.capability
    dtype = "bfloat16" if gpu.capability >= (8, 0) else "no bfloat16: fp16, as in recipes/tools-t4.toml"
    return Line(
        gpu.name, f"{gpu.memory / GIB:.1f} GiB, compute capability {major}.{minor}, driver {gpu.driver}", None, dtype
    )


def _torch_line(facts: Facts) -> Iterator[Line]:
    torch = facts.torch
    if torch is None:
        return
    if torch.error:
        yield Line("torch", f"does not load: {torch.error}", False)
    elif torch.gpus:
        yield Line("torch", f"CUDA {torch.cuda}, uses {', '.join(torch.gpus)}", True)
    else:
        built = f"built for CUDA {torch.cuda}" if torch.cuda else "built without CUDA"
        yield Line("torch", f"{built}, sees no GPU", False if facts.gpus else None)


def _packages(facts: Facts) -> tuple[list[Line], list[tuple[str, str]]]:
    """A line for each requirement, and one problem that mends all that are missing or too old."""
    lines, lacking = [], []
    for text in facts.required:
        requirement = Requirement(text)
        version = facts.installed.get(requirement.name)
        good = version is not None and _fits(version, str(requirement.specifier))
        tested = facts.tested.get(canonicalize_name(requirement.name))
        note = f"wanted {requirement.specifier}" + (f", tested {tested}" if tested else "")
        lines.append(Line(requirement.name, version or "not installed", good, note))
        if not good:
            lacking.append(requirement)
    problems = []
    if lacking:
        problems.append((f"packages missing or too old: {_named(lacking, facts)}", f"{PIP} {_quoted(lacking)}"))
    if facts.torch is not None and facts.torch.error:
        torch = next((one for one in facts.required if Requirement(one).name == "torch"), "torch")
        problems.append((f"torch does not load: {facts.torch.error}", f'{PIP} --force-reinstall "{torch}"'))
    return lines, problems


def _engines(facts: Facts, *, works: bool) -> tuple[list[Line], list[tuple[str, str]]]:
    """Which engines can run and why not, and what would make those for GPUs run."""
    lacking = _lacking([Requirement(text) for text in facts.extra], facts)
    lines = [line for engine in ENGINES.values() for line in _engine(engine, facts, works=works, lacking=lacking)]
    if all(_needs(engine, facts) for engine in ENGINES.values() if engine.gpu == "needed"):
        return lines, []  # nothing that could be installed would help
    hints: list[tuple[str, str]] = []
    usable = bool(facts.torch and facts.torch.gpus)
    if not usable and not (facts.torch and facts.torch.error):
        torch = next((one for one in facts.required if Requirement(one).name == "torch"), "torch")
        hints.append(("torch can't use the GPU: take a build for the driver's CUDA", f'{PIP} --upgrade "{torch}"'))
    if lacking:
        hints.append(
            (f"the unsloth engine and 4-bit weights need {_named(lacking, facts)}", f"{PIP} {_quoted(lacking)}")
        )
    newest = max(gpu.capability for gpu in facts.gpus)
    if usable and newest[0] in FLASH4 and FLASH4_PACKAGE not in facts.installed:
        hints.append(("packed chats attend faster with FlashAttention 4 on this card", f"{PIP} -e '.[flash4]'"))
    return lines, hints


def _engine(engine: Engine, facts: Facts, *, works: bool, lacking: Sequence[Requirement]) -> Iterator[Line]:
    """What there is to say of an engine."""
    usable = bool(facts.torch and facts.torch.gpus)
    if engine.gpu == "needed":
        if needs := _needs(engine, facts):
            yield Line(engine.name, f"can't run: it needs {needs}", None)
        else:
            ready = works and usable and not lacking
            yield Line(engine.name, "can run" if ready else "can't run: see below", ready)
        return
    packs = '; packed chats only: train.micro_batch = "auto"' if engine.packs_only else ""
    if engine.gpu == "any" or (works and usable):
        where = f"can run on the {'GPU' if usable else 'CPU'}{packs}"
        yield Line(engine.name, where if works else "can't run: packages are missing", works)
    else:
        yield Line(engine.name, f"made for GPUs: runs on a CPU where asked for, no faster{packs}", None)


def _needs(engine: Engine, facts: Facts) -> str:
    """What this machine would have to have for an engine, but for packages; empty where it has it."""
    gpu = max(facts.gpus, key=lambda one: one.capability, default=None)
    here = None if gpu is None else Gpu(gpu.name, gpu.memory, gpu.capability)
    reasons = engine.lacks(Hardware(here, facts.cpu, facts.cores, False, facts.memory))
    needs = next((reason.needs for reason in reasons if reason.needs), "")
    return f"{needs}, and nvidia-smi finds none" if needs and gpu is None else needs


def _quoted(requirements: Sequence[Requirement]) -> str:
    return " ".join(f'"{one.name}{one.specifier}"' for one in requirements)


def _fits(version: str, wanted: str) -> bool:
    return SpecifierSet(wanted).contains(version, prereleases=True)


def _facts() -> Facts:
    required, extras, python_wanted = _requirements()
    every = itertools.chain(required, *extras.values())
    names = [FLASH4_PACKAGE, *(Requirement(text).name for text in every)]
    return Facts(
        python=platform.python_version(),
        platform=platform.platform(),
        cpu=cpu_name(),
        cores=usable_cores(),
        cpu_flags=frozenset(cpu_flags()),
        memory=os.sysconf("SC_PHYS_PAGES") * os.sysconf("SC_PAGE_SIZE"),
        disk={"cache": free_bytes(cache_root()), "here": free_bytes(Path.cwd())},
        gpus=seen_gpus(),
        installed=installed(names),
        required=required,
        extra=extras.pop("gpu", []),
        extras=extras,
        python_wanted=python_wanted,
        torch=_torch(),
        tested=_tested(),
    )


def _requirements() -> tuple[list[str], dict[str, list[str]], str]:
    """(required, extras by name, Python) from the checkout's pyproject.toml, else from the installed package."""
    project = ROOT / "pyproject.toml"
    if project.is_file():
        data = tomllib.loads(project.read_text(encoding="utf-8"))["project"]
        extras = {name: list(data["optional-dependencies"][name]) for name in ("gpu", *OPTIONAL)}
        return data["dependencies"], extras, data["requires-python"]
    required: list[str] = []
    extras = {name: [] for name in ("gpu", *OPTIONAL)}
    for text in metadata.requires("toolkit") or []:
        requirement = Requirement(text)
        if requirement.marker is None or requirement.marker.evaluate({"extra": ""}):
            required.append(text)
            continue
        for name, found in extras.items():
            if requirement.marker.evaluate({"extra": name}):
                found.append(text)
    return required, extras, metadata.metadata("toolkit")["Requires-Python"]


def _tested() -> dict[str, str]:
    """Versions out of the checkout's constraints.txt; nothing when the package was installed without it."""
    file = ROOT / "constraints.txt"
    lines = file.read_text(encoding="utf-8").splitlines() if file.is_file() else []
    pins = (line.partition("==") for line in lines if "==" in line and not line.startswith("#"))
    return {canonicalize_name(name.strip()): version.strip() for name, _, version in pins}


def _torch() -> Torch | None:
    if importlib.util.find_spec("torch") is None:
        return None
    try:
        import torch  # which may not load: that is what is looked for

        count = torch.cuda.device_count() if torch.cuda.is_available() else 0
        return Torch(torch.version.cuda, tuple(torch.cuda.get_device_name(index) for index in range(count)))
    except Exception as error:  # a broken install may raise anything: a missing library, a wrong build
        return Torch(error=(str(error).strip().splitlines() or [type(error).__name__])[0][:200])

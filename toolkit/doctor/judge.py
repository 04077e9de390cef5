"""What the facts of a machine mean."""

from __future__ import annotations

from collections.abc import Iterator, Sequence

from packaging.requirements import Requirement
from packaging.specifiers import SpecifierSet
from packaging.utils import canonicalize_name

from toolkit.doctor.facts import BUILT, FLASH4_PACKAGE, FOR_GPUS, OPTIONAL, Facts
from toolkit.doctor.gpu import gpu_hints, library_lines
from toolkit.doctor.report import Line, Report
from toolkit.engines.base import Engine
from toolkit.engines.registry import ENGINES
from toolkit.hardware import AMPERE, BF16_FLAGS, FLASH4, Gpu, Hardware
from toolkit.planning.cards import GIB, SeenGpu

LEAST_DISK = 2 * GIB  # the quickstart's model, token table and run
LEAST_MEMORY = 3 * GIB
PIP = "python -m pip install"


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
    failed = Line("GPU", f"nvidia-smi fails: {facts.no_gpus}", False, "a driver that is broken, or not loaded")
    none = failed if facts.no_gpus else Line("GPU", "none found by nvidia-smi")
    gpus = [_gpu(gpu) for gpu in facts.gpus] or [none]
    sections = {
        "machine": machine,
        "GPU": [*gpus, *_torch_line(facts), *library_lines(facts)],
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
        if lacking and (facts.gpus or name not in FOR_GPUS):
            built = "--no-build-isolation " if any(one.name in BUILT for one in lacking) else ""
            hints.append((f"{name}: {what}, needs {_named(lacking, facts)}", f"{PIP} {built}{_quoted(lacking)}"))
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
    dtype = "bfloat16" if gpu.capability >= AMPERE else "no bfloat16: fp16, as in recipes/tools-t4.toml"
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
    hints = list(gpu_hints(facts))
    usable = bool(facts.torch and facts.torch.gpus)
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
